/*
 * The exceptions of the module, and the one place that turns core's codes into them.
 *
 * Each exception says one thing about the data, and none is raised for another: a
 * conflict (nothing stored, try again), a refusal of the system (nothing stored, errno
 * tells why), damaged data, a value that cannot be stored, an outcome that could not be
 * found out.
 *
 * StorageError works as OSError does: StorageError(errno, strerror, filename) makes an
 * instance of a subclass that is also the builtin that the errno stands for, so that
 * both `except tosc.StorageError` and `except FileNotFoundError` catch it. These
 * subclasses are made when first needed and are kept in state->storage_errors; they are
 * not in the module, so an instance is pickled as a call of StorageError itself. The
 * sentence that core left is kept in the attribute `message`, and is what str() shows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "errors.h"

#include "signals.h"
#include "state.h"

#include <stdarg.h>

PyDoc_STRVAR(error_doc, "The base of all exceptions that are tosc's own.");

PyDoc_STRVAR(
    transaction_error_doc,
    "The store was changed by somebody else since the transaction began.\n\n"
    "Nothing of the transaction was stored, and the objects are as they would be\n"
    "without it. Run the transaction again, on the data as they are now;\n"
    "tosc.transactional does so by itself.");

PyDoc_STRVAR(
    retry_error_doc,
    "A function under tosc.transactional met a conflict on each of its `retries`.\n\n"
    "Nothing was stored. Allow more retries, or make the function shorter.");

PyDoc_STRVAR(
    timeout_error_doc,
    "A function under tosc.transactional had no success before its `timeout`.\n\n"
    "Nothing was stored. Allow more time, or make the function shorter.");

PyDoc_STRVAR(
    serialization_error_doc,
    "A value cannot be turned into bytes, or the stored bytes cannot be turned into\n"
    "objects (a class that is missing here, or not among `allowed_classes`).\n\n"
    "The store and the objects are as they were. The message names the type and\n"
    "where it stands; store something else, or make the class importable.");

PyDoc_STRVAR(
    data_error_doc,
    "The stored data are damaged, or are not tosc's.\n\n"
    "Nothing was changed or overwritten. The message names the file, and the place in\n"
    "it. Restore the store from a copy, or give the path of another file.");

PyDoc_STRVAR(
    unknown_outcome_error_doc,
    "It could not be found out whether the change was stored.\n\n"
    "The reply was lost, and the store cannot be asked or has moved on. Read the data\n"
    "and look before the change is made again.");

PyDoc_STRVAR(closed_error_doc, "The Manager was used after close().\n\n"
                               "Nothing was stored by this call. Make a new Manager.");

PyDoc_STRVAR(
    empty_store_error_doc,
    "Nothing has been stored yet.\n\n"
    "Store something with Manager.write(), or give the reading method a default.");

#define STORAGE_ERROR_TEXT \
    "The system refused to read or write the store: a missing directory, no\n" \
    "permission, a full disk.\n\n" \
    "Nothing was stored, and the objects are as they were before. `errno`, `strerror`\n" \
    "and `filename` tell the cause, as in OSError; where Python has an exception for\n" \
    "that errno (FileNotFoundError, PermissionError, ...), this one is an instance of\n" \
    "it as well. Mend the cause and try again."

PyDoc_STRVAR(storage_error_doc,
             "StorageError(errno, strerror, filename=None)\n--\n\n" STORAGE_ERROR_TEXT);

/* ---- StorageError ---- */

/* The builtin subclass of OSError for an errno, or OSError: a new reference. */
static PyObject *
builtin_error(PyObject *number)
{
    PyObject *sample = PyObject_CallFunction(PyExc_OSError, "Os", number, "");
    if (sample == NULL) {
        return NULL;
    }
    PyObject *type = Py_NewRef((PyObject *)Py_TYPE(sample));
    Py_DECREF(sample);
    return type;
}

static PyObject *
make_storage_error(PyObject *builtin)
{
    PyObject *self = NULL;
    char name[80];
    snprintf(name, sizeof name, "tosc.StorageError[%s]",
             ((PyTypeObject *)builtin)->tp_name);
    PyObject *bases = PyTuple_Pack(2, tosc_state->StorageError, builtin);
    if (bases != NULL) {
        self = PyErr_NewExceptionWithDoc(name, STORAGE_ERROR_TEXT, bases, NULL);
        Py_DECREF(bases);
    }
    if (self != NULL && PyDict_SetItem(tosc_state->storage_errors, builtin, self) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

/* The class for an errno: StorageError or a subclass of it; a new reference. */
static PyObject *
storage_error_class(PyObject *number)
{
    PyObject *found = NULL;
    PyObject *builtin = builtin_error(number);
    if (builtin == NULL) {
        return NULL;
    }
    if (builtin == PyExc_OSError) {
        found = Py_NewRef(tosc_state->StorageError);
    } else if (tosc_dict_get(tosc_state->storage_errors, builtin, &found) == 0) {
        found = make_storage_error(builtin);
    }
    Py_DECREF(builtin);
    return found;
}

static int storage_error_init(PyObject *self, PyObject *args, PyObject *kwargs);

static PyObject *
storage_error_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    newfunc make = ((PyTypeObject *)PyExc_OSError)->tp_new;
    PyObject *self = NULL;
    if (type->tp_init != storage_error_init) {
        /* These are the subclass's arguments; ours come with super().__init__(). */
        PyObject *none = PyTuple_New(0);
        if (none != NULL) {
            self = make(type, none, NULL);
            Py_DECREF(none);
        }
        return self;
    }
    if ((PyObject *)type != tosc_state->StorageError || PyTuple_GET_SIZE(args) < 2
        || !PyLong_Check(PyTuple_GET_ITEM(args, 0))) {
        return make(type, args, kwargs);
    }
    PyObject *chosen = storage_error_class(PyTuple_GET_ITEM(args, 0));
    if (chosen != NULL) {
        self = make((PyTypeObject *)chosen, args, kwargs);
        Py_DECREF(chosen);
    }
    return self;
}

/* errno, strerror and filename, for what OSError has not seen in its __new__. */
static int
set_cause(PyObject *self, PyObject *args)
{
    static const char *const names[] = {"errno", "strerror", "filename"};
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    if (count < 2 || count > 3) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyObject_SetAttrString(self, names[i], PyTuple_GET_ITEM(args, i)) < 0) {
            return -1;
        }
    }
    PyObject *two = PyTuple_GetSlice(args, 0, 2);
    int status = two != NULL ? PyObject_SetAttrString(self, "args", two) : -1;
    Py_XDECREF(two);
    return status;
}

static int
storage_error_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (Py_TYPE(self)->tp_init == storage_error_init) {
        return 0; /* __new__ has done it all */
    }
    if (((PyTypeObject *)PyExc_BaseException)->tp_init(self, args, kwargs) < 0) {
        return -1;
    }
    return set_cause(self, args);
}

static PyObject *
storage_error_str(PyObject *self)
{
    PyObject *message = NULL;
    PyObject *dict = PyObject_GenericGetDict(self, NULL);
    if (dict == NULL) {
        return NULL;
    }
    PyObject *key = PyUnicode_InternFromString("message");
    int found = key != NULL ? tosc_dict_get(dict, key, &message) : -1;
    Py_XDECREF(key);
    Py_DECREF(dict);
    if (found < 0) {
        return NULL;
    }
    if (message != NULL && PyUnicode_Check(message)) {
        return message;
    }
    Py_XDECREF(message);
    return ((PyTypeObject *)PyExc_OSError)->tp_str(self);
}

/* As OSError's, but by the name under which the class can be found. */
static PyObject *
storage_error_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *plain = PyObject_CallMethod(PyExc_OSError, "__reduce__", "O", self);
    if (plain == NULL || !PyTuple_Check(plain) || PyTuple_GET_SIZE(plain) < 2) {
        return plain;
    }
    PyObject *type = PyTuple_GET_ITEM(plain, 0);
    PyObject *kept = NULL;
    PyObject *key = NULL;
    Py_ssize_t pos = 0;
    while (PyDict_Next(tosc_state->storage_errors, &pos, &key, &kept)) {
        if (kept == type) {
            type = tosc_state->StorageError;
        }
    }
    PyObject *rest = PyTuple_GetSlice(plain, 1, PyTuple_GET_SIZE(plain));
    PyObject *head = PyTuple_Pack(1, type);
    PyObject *result = NULL;
    if (rest != NULL && head != NULL) {
        result = PySequence_Concat(head, rest);
    }
    Py_XDECREF(head);
    Py_XDECREF(rest);
    Py_DECREF(plain);
    return result;
}

static PyMethodDef storage_error_methods[] = {
    {"__reduce__", storage_error_reduce, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot storage_error_slots[] = {
    {Py_tp_doc, (void *)storage_error_doc}, {Py_tp_new, storage_error_new},
    {Py_tp_init, storage_error_init},       {Py_tp_str, storage_error_str},
    {Py_tp_methods, storage_error_methods}, {0, NULL},
};

static PyType_Spec storage_error_spec = {
    .name = "tosc.StorageError",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = storage_error_slots,
};

static PyObject *
storage_error_instance(int number, const char *path)
{
    if (*path == '\0') {
        return PyObject_CallFunction(tosc_state->StorageError, "is", number,
                                     strerror(number));
    }
    PyObject *name = PyUnicode_DecodeFSDefault(path);
    if (name == NULL) {
        return NULL;
    }
    return PyObject_CallFunction(tosc_state->StorageError, "isN", number,
                                 strerror(number), name);
}

/* A message of core may hold any path, so any bytes. */
static PyObject *
message_text(const char *message)
{
    return PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "surrogateescape");
}

static void
raise_storage_error(const char *message)
{
    int number = tosc_error_errno();
    PyObject *text = message_text(message);
    if (text == NULL) {
        return;
    }
    PyObject *error = number != 0 ? storage_error_instance(number, tosc_error_path())
                                  : PyObject_CallOneArg(tosc_state->StorageError, text);
    if (error != NULL && PyObject_SetAttrString(error, "message", text) == 0) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    Py_XDECREF(error);
    Py_DECREF(text);
}

/* ---- codes to exceptions ---- */

static void
raise_text(PyObject *type, const char *message, const char *fallback)
{
    PyObject *text = message_text(*message != '\0' ? message : fallback);
    if (text != NULL) {
        PyErr_SetObject(type, text);
        Py_DECREF(text);
    }
}

/*
 * A signal may have ended the wait for the outcome. What its handler has raised (Ctrl-C), or
 * raises now, is what the program expects then: it is raised, with this error as its cause.
 */
static void
raise_unknown_outcome(const char *message)
{
    PyObject *raised = NULL;
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(tosc_state->UnknownOutcomeError)) {
        raised = signals_take_exception();
    }
    if (!PyErr_Occurred()) {
        raise_text(tosc_state->UnknownOutcomeError, message,
                   "whether the change was stored could not be found out");
    }
    PyObject *unknown = signals_take_exception();
    if (raised == NULL && PyErr_CheckSignals() < 0) {
        raised = signals_take_exception();
    }
    if (raised != NULL) {
        PyException_SetCause(raised, unknown);
    }
    signals_set_exception(raised != NULL ? raised : unknown);
}

/* A thread that called a Python backend without a thread state has only the message. */
static void
keep_python_error(const char *message)
{
    if (!PyErr_Occurred()) {
        raise_text(PyExc_RuntimeError, message, "a backend failed without an exception");
    }
}

int
tosc_raise(int status)
{
    const char *message = tosc_error_message();
    switch (status) {
    case TOSC_OK:
        return 0;
    case TOSC_EINTR:
        return PyErr_Occurred() ? -1 : PyErr_CheckSignals();
    case TOSC_EPYTHON:
        keep_python_error(message);
        break;
    case TOSC_EUNKNOWN:
        raise_unknown_outcome(message);
        break;
    case TOSC_ENOMEM:
        PyErr_NoMemory();
        break;
    case TOSC_ESYSTEM:
        raise_storage_error(message);
        break;
    case TOSC_ECONFLICT:
        /* A code, not a message: what core said last is about something else. */
        raise_text(tosc_state->TransactionError, "",
                   "the store was changed by somebody else");
        break;
    case TOSC_ECORRUPT:
        raise_text(tosc_state->DataError, message, "the stored data are damaged");
        break;
    case TOSC_ETIMEDOUT:
        raise_text(tosc_state->TransactionTimeoutError, "",
                   "the store was not free before the timeout");
        break;
    case TOSC_ECLOSED:
        raise_text(tosc_state->ClosedError, message, "the Manager is closed");
        break;
    case TOSC_EINVAL:
        raise_text(PyExc_ValueError, message, "an argument is wrong");
        break;
    case TOSC_EUNSUPPORTED:
        raise_text(PyExc_NotImplementedError, message,
                   "the backend has no such operation");
        break;
    case TOSC_ENOTFOUND:
        raise_text(PyExc_LookupError, message, "there is no such thing");
        break;
    case TOSC_ETYPE:
        raise_text(PyExc_TypeError, message, "a value is of the wrong type");
        break;
    case TOSC_ERANGE:
        raise_text(PyExc_OverflowError, message, "a number does not fit");
        break;
    case TOSC_ESERIALIZE:
        raise_text(tosc_state->SerializationError, message, "a value cannot be stored");
        break;
    case TOSC_ERETRY:
        raise_text(tosc_state->TransactionRetryError, message,
                   "conflicts as often as was allowed");
        break;
    default:
        PyErr_Format(PyExc_SystemError, "%s (status %d)",
                     *message != '\0' ? message : "an unknown status of core", status);
    }
    return -1;
}

PyObject *
tosc_raise_format(PyObject *type, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyErr_FormatV(type, format, args);
    va_end(args);
    return NULL;
}

/* ---- the module's part ---- */

/* A new exception class; `second` (may be NULL) is a further base. */
static int
add_error(PyObject *module, PyObject **slot, const char *name, const char *doc,
          PyObject *first, PyObject *second)
{
    PyObject *bases =
        second != NULL ? PyTuple_Pack(2, first, second) : PyTuple_Pack(1, first);
    if (bases == NULL) {
        return -1;
    }
    *slot = PyErr_NewExceptionWithDoc(name, doc, bases, NULL);
    Py_DECREF(bases);
    if (*slot == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, name + strlen("tosc."), *slot);
}

static int
add_storage_error(PyObject *module, ToscState *state)
{
    state->storage_errors = PyDict_New();
    PyObject *bases = PyTuple_Pack(2, state->Error, PyExc_OSError);
    if (bases != NULL && state->storage_errors != NULL) {
        state->StorageError =
            PyType_FromModuleAndSpec(module, &storage_error_spec, bases);
    }
    Py_XDECREF(bases);
    if (state->StorageError == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "StorageError", state->StorageError);
}

int
errors_init(PyObject *module, ToscState *state)
{
    ToscState *s = state;
    if (add_error(module, &s->Error, "tosc.Error", error_doc, PyExc_Exception, NULL) < 0
        || add_error(module, &s->TransactionError, "tosc.TransactionError",
                     transaction_error_doc, s->Error, NULL)
               < 0
        || add_error(module, &s->TransactionRetryError, "tosc.TransactionRetryError",
                     retry_error_doc, s->TransactionError, NULL)
               < 0
        || add_error(module, &s->TransactionTimeoutError, "tosc.TransactionTimeoutError",
                     timeout_error_doc, s->TransactionError, PyExc_TimeoutError)
               < 0
        || add_error(module, &s->SerializationError, "tosc.SerializationError",
                     serialization_error_doc, s->Error, PyExc_TypeError)
               < 0
        || add_error(module, &s->DataError, "tosc.DataError", data_error_doc, s->Error,
                     PyExc_ValueError)
               < 0
        || add_error(module, &s->UnknownOutcomeError, "tosc.UnknownOutcomeError",
                     unknown_outcome_error_doc, s->Error, NULL)
               < 0
        || add_error(module, &s->ClosedError, "tosc.ClosedError", closed_error_doc,
                     s->Error, PyExc_ValueError)
               < 0
        || add_error(module, &s->EmptyStoreError, "tosc.EmptyStoreError",
                     empty_store_error_doc, s->Error, PyExc_LookupError)
               < 0) {
        return -1;
    }
    return add_storage_error(module, state);
}
