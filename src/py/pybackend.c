/*
 * Python objects as backends: a table of operations that calls read, write, try_write and
 * target_wait of an object, and the choice between it and a backend of core.
 *
 * The operations are called from anywhere: from a Python thread that has released the
 * GIL, from a watcher, from a C program's thread that Python has never seen. Each
 * enters with PyGILState_Ensure(). In the first two cases that finds the thread's own
 * state, and an exception is left in it for the caller; in the third the state ends
 * with the call, so the exception's text is all that can be kept. See backends.h for
 * what the caller may rely on.
 *
 * A Python backend says nothing about a commit but "stored" or "not stored", or raises.
 * What is not certain then is looked for with read(): records are unlike each other, so
 * the same bytes are the same commit.
 *
 * Only the four methods of the manual are used, so append, read_since, changed, compact
 * and lock are missing: the whole store is written at each commit.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backends.h"

#include "core/error.h"
#include "errors.h"
#include "signals.h"
#include "state.h"

#include <math.h>
#include <poll.h>
#include <time.h>

/* How often a target_wait() that can be told returns, for a look at `stop`. */
#define SLICE_SECONDS 0.2

/* One that returns False at once is not called more often than this. */
#define MIN_PAUSE_MS 20

typedef struct PyBackend {
    PyObject *object;
    bool takes_timeout; /* target_wait(timeout=…) works */
} PyBackend;

/* ---- entering and leaving Python ---- */

typedef struct Entry {
    PyGILState_STATE gil;
    BackendCall *call; /* which we are in */
    bool stateless;    /* the thread has no state of its own: nothing can be left in it */
} Entry;

static int
enter(Entry *entry)
{
    if (!Py_IsInitialized()) {
        return tosc__fail(TOSC_ECLOSED, "the Python interpreter has ended");
    }
    entry->stateless = PyGILState_GetThisThreadState() == NULL;
    entry->gil = PyGILState_Ensure();
    entry->call = signals_suspend();
    return 0;
}

/* Turns the exception that is set into the thread's message. */
static void
exception_to_message(void)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *text = value != NULL ? PyObject_Str(value) : NULL;
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    tosc__fail(TOSC_EPYTHON, "%s: %s",
               value != NULL ? Py_TYPE(value)->tp_name : "a Python exception",
               utf8 != NULL ? utf8 : "(its text cannot be shown)");
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(traceback);
    Py_XDECREF(value);
    Py_XDECREF(type);
}

static int
leave(const Entry *entry, int status)
{
    if (entry->stateless && PyErr_Occurred()) {
        exception_to_message();
    }
    signals_resume(entry->call);
    PyGILState_Release(entry->gil);
    return status;
}

/* ---- calling the methods ---- */

/* An exception that names the class and the method; returns -1. */
static int
bad_result(const PyBackend *self, const char *method, const char *expected,
           PyObject *result)
{
    PyErr_Format(PyExc_TypeError, "%.200s.%s() must return %s, not '%.200s'",
                 Py_TYPE(self->object)->tp_name, method, expected,
                 Py_TYPE(result)->tp_name);
    return -1;
}

static int
version_from(const PyBackend *self, const char *method, PyObject *number, int64_t *ret)
{
    int overflow = 0;
    if (!PyLong_Check(number)) {
        return bad_result(self, method, "the version as an int", number);
    }
    long long version = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0 || version == TOSC_VERSION_UNKNOWN) {
        PyErr_Format(PyExc_OverflowError,
                     "%.200s.%s() returned the version %R: versions must fit in 64 bits",
                     Py_TYPE(self->object)->tp_name, method, number);
        return -1;
    }
    *ret = version;
    return 0;
}

static tosc_blob *
blob_from(const PyBackend *self, PyObject *data)
{
    Py_buffer view;
    if (!PyObject_CheckBuffer(data)) {
        bad_result(self, "read", "bytes-like data", data);
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0) {
        return NULL;
    }
    tosc_blob *blob = tosc_blob_new((size_t)view.len);
    if (blob == NULL) {
        PyErr_NoMemory();
    } else if (PyBuffer_ToContiguous(blob->data, &view, view.len, 'C') < 0) {
        blob = tosc_blob_unref(blob);
    }
    PyBuffer_Release(&view);
    return blob;
}

/* Calls read(): 0, or -1 with an exception. */
static int
call_read(const PyBackend *self, tosc_data *ret)
{
    tosc_data data = {.whole = true};
    PyObject *result = PyObject_CallMethodNoArgs(self->object, tosc_state->str_read);
    if (result == NULL) {
        return -1;
    }
    int status = 0;
    if (!PyTuple_Check(result) || PyTuple_GET_SIZE(result) != 2) {
        status = bad_result(self, "read", "a tuple (version, data)", result);
    } else if (PyTuple_GET_ITEM(result, 0) != Py_None
               && PyTuple_GET_ITEM(result, 1) != Py_None) {
        status =
            version_from(self, "read", PyTuple_GET_ITEM(result, 0), &data.at.version);
        if (status == 0) {
            data.bytes = blob_from(self, PyTuple_GET_ITEM(result, 1));
            status = data.bytes != NULL ? 0 : -1;
        }
        if (status == 0) {
            data.at.stored = true;
            data.base_bytes = data.bytes->size;
        }
    }
    Py_DECREF(result);
    if (status == 0) {
        *ret = data;
    }
    return status;
}

/* Calls try_write(): 1 stored, 0 not, -1 with an exception. */
static int
call_try_write(const PyBackend *self, const void *data, size_t size,
               const int64_t *expected)
{
    int stored = -1;
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    PyObject *version =
        expected != NULL ? PyLong_FromLongLong(*expected) : Py_NewRef(Py_None);
    if (bytes != NULL && version != NULL) {
        PyObject *result = PyObject_CallMethodObjArgs(
            self->object, tosc_state->str_try_write, bytes, version, NULL);
        if (result != NULL) {
            stored = PyObject_IsTrue(result);
            Py_DECREF(result);
        }
    }
    Py_XDECREF(version);
    Py_XDECREF(bytes);
    return stored;
}

/* ---- what became of a commit ---- */

enum outcome {
    OUTCOME_STORED,  /* these bytes are what the store holds; *ret is where it is */
    OUTCOME_REFUSED, /* the store is as it was expected to be, so they were not stored */
    OUTCOME_HIDDEN /* the store holds something else, or cannot be read (exception set) */
};

static enum outcome
find_outcome(const PyBackend *self, const void *bytes, size_t size,
             const int64_t *expected, tosc_position *ret)
{
    tosc_data data;
    if (call_read(self, &data) < 0) {
        return OUTCOME_HIDDEN;
    }
    enum outcome outcome = OUTCOME_HIDDEN;
    if (data.at.stored && data.bytes->size == size
        && memcmp(data.bytes->data, bytes, size) == 0) {
        *ret = data.at;
        outcome = OUTCOME_STORED;
    } else if (expected == NULL ? !data.at.stored
                                : data.at.stored && data.at.version == *expected) {
        outcome = OUTCOME_REFUSED;
    }
    tosc_blob_unref(data.bytes);
    return outcome;
}

/*
 * The commit is stored, so what is raised beside it must not look like its failure:
 * Ctrl-C is sent once more, anything else is reported as unraisable.
 */
static void
put_aside_exception(const PyBackend *self)
{
    if (!PyErr_Occurred()) {
        return;
    }
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear();
        PyErr_SetInterrupt();
    } else {
        PyErr_WriteUnraisable(self->object);
    }
}

/* try_write() has raised: takes its exception. */
static int
settle_raised(const PyBackend *self, enum outcome outcome, PyObject *type,
              PyObject *value, PyObject *traceback)
{
    if (outcome == OUTCOME_REFUSED) {
        PyErr_Restore(type, value, traceback);
        return TOSC_EPYTHON;
    }
    if (outcome == OUTCOME_STORED) {
        PyErr_Restore(type, value, traceback);
        put_aside_exception(self);
        return TOSC_OK;
    }
    PyErr_Clear();
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    PyErr_Format(
        tosc_state->UnknownOutcomeError,
        "%.200s.try_write() raised %.200s, and whether it had stored the change could "
        "not be found out",
        Py_TYPE(self->object)->tp_name, Py_TYPE(value)->tp_name);
    PyObject *unknown_type = NULL;
    PyObject *unknown = NULL;
    PyObject *unknown_traceback = NULL;
    PyErr_Fetch(&unknown_type, &unknown, &unknown_traceback);
    PyErr_NormalizeException(&unknown_type, &unknown, &unknown_traceback);
    PyException_SetCause(unknown, value); /* takes it */
    PyErr_Restore(unknown_type, unknown, unknown_traceback);
    Py_XDECREF(traceback);
    Py_XDECREF(type);
    return TOSC_EUNKNOWN;
}

static int
settle_try_write(const PyBackend *self, int stored, const void *data, size_t size,
                 const int64_t *expected, tosc_position *ret)
{
    tosc_position at = {.stored = true, .version = TOSC_VERSION_UNKNOWN};
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    if (stored == 0) {
        return tosc__fail(TOSC_ECONFLICT, "the store was changed by somebody else");
    }
    PyErr_Fetch(&type, &value, &traceback);
    enum outcome outcome = find_outcome(self, data, size, expected, &at);
    int status = 0;
    if (stored > 0) {
        put_aside_exception(self);
    } else {
        status = settle_raised(self, outcome, type, value, traceback);
    }
    if (status == 0) {
        *ret = at;
    }
    return status;
}

/* ---- the operations ---- */

static int
python_read(void *impl, tosc_data *ret)
{
    Entry entry;
    int status = enter(&entry);
    if (status < 0) {
        return status;
    }
    return leave(&entry, call_read(impl, ret) < 0 ? TOSC_EPYTHON : TOSC_OK);
}

static int
call_write(const PyBackend *self, const void *data, size_t size, tosc_position *ret)
{
    tosc_position at = {.stored = true};
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (bytes == NULL) {
        return -1;
    }
    PyObject *result =
        PyObject_CallMethodOneArg(self->object, tosc_state->str_write, bytes);
    Py_DECREF(bytes);
    if (result == NULL) {
        return -1;
    }
    int status = version_from(self, "write", result, &at.version);
    Py_DECREF(result);
    if (status == 0) {
        *ret = at;
    }
    return status;
}

static int
python_write(void *impl, const void *holder, const void *data, size_t size,
             tosc_position *ret)
{
    Entry entry;
    int status = enter(&entry);
    (void)holder;
    if (status < 0) {
        return status;
    }
    return leave(&entry, call_write(impl, data, size, ret) < 0 ? TOSC_EPYTHON : TOSC_OK);
}

static int
python_try_write(void *impl, const void *holder, const void *data, size_t size,
                 const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    Entry entry;
    (void)holder;
    (void)expected_id; /* the object cannot tell stores apart */
    if (expected != NULL && *expected == TOSC_VERSION_UNKNOWN) {
        return tosc__fail(TOSC_ECONFLICT, "the store was changed by somebody else");
    }
    int status = enter(&entry);
    if (status < 0) {
        return status;
    }
    int stored = call_try_write(impl, data, size, expected);
    return leave(&entry, settle_try_write(impl, stored, data, size, expected, ret));
}

/* Has the store left `known` already? 1, 0, or -1 with an exception. */
static int
has_left(const PyBackend *self, const tosc_position *known)
{
    tosc_data data;
    if (known->stored && known->version == TOSC_VERSION_UNKNOWN) {
        return 1;
    }
    if (call_read(self, &data) < 0) {
        return -1;
    }
    tosc_blob_unref(data.bytes);
    return data.at.stored != known->stored
           || (known->stored && data.at.version != known->version);
}

/* target_wait(), for `seconds` if it can be told: 1, 0, or -1 with an exception. */
static int
call_target_wait(const PyBackend *self, double seconds)
{
    PyObject *result = NULL;
    if (self->takes_timeout) {
        PyObject *method = PyObject_GetAttr(self->object, tosc_state->str_target_wait);
        PyObject *args = PyTuple_New(0);
        PyObject *kwargs = Py_BuildValue("{s:d}", "timeout", seconds);
        if (method != NULL && args != NULL && kwargs != NULL) {
            result = PyObject_Call(method, args, kwargs);
        }
        Py_XDECREF(kwargs);
        Py_XDECREF(args);
        Py_XDECREF(method);
    } else {
        result = PyObject_CallMethodNoArgs(self->object, tosc_state->str_target_wait);
    }
    int changed = result != NULL ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    return changed;
}

static double
now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Without the GIL, so that a target_wait() which does not wait makes no busy loop. */
static void
pause_for(const tosc_event *stop, int ms)
{
    struct pollfd poll_stop = {.fd = stop != NULL ? tosc_event_fd(stop) : -1,
                               .events = POLLIN};
    Py_BEGIN_ALLOW_THREADS
    poll(&poll_stop, 1, ms);
    Py_END_ALLOW_THREADS
}

/* Waits by target_wait() until it reports a change, or is to be ended. */
static int
wait_by_slices(const PyBackend *self, double deadline, const tosc_event *stop)
{
    for (;;) {
        double start = now_seconds();
        double left = deadline - start;
        double slice = left > SLICE_SECONDS ? SLICE_SECONDS : left < 0 ? 0 : left;
        int changed = call_target_wait(self, slice);
        if (changed != 0) {
            return changed;
        }
        double end = now_seconds();
        if (end < deadline && (end - start) * 1e3 < MIN_PAUSE_MS) {
            pause_for(stop, MIN_PAUSE_MS);
        }
        bool stopped = stop != NULL && tosc_event_is_set(stop);
        if (!self->takes_timeout || stopped || end >= deadline) {
            return 0;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
}

static int
python_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
            const tosc_event *stop, bool *ret_changed)
{
    Entry entry;
    int status = enter(&entry);
    if (status < 0) {
        return status;
    }
    double deadline =
        timeout_ms < 0 ? INFINITY : now_seconds() + (double)timeout_ms * 1e-3;
    int changed = has_left(impl, known);
    if (changed == 0 && stop != NULL && tosc_event_is_set(stop)) {
        return leave(&entry, TOSC_EINTR);
    }
    if (changed == 0 && timeout_ms != 0) {
        changed = wait_by_slices(impl, deadline, stop);
    }
    if (changed == 0 && stop != NULL && tosc_event_is_set(stop)) {
        return leave(&entry, TOSC_EINTR);
    }
    if (changed >= 0) {
        *ret_changed = changed > 0;
    }
    return leave(&entry, changed < 0 ? TOSC_EPYTHON : TOSC_OK);
}

static void
python_destroy(void *impl)
{
    PyBackend *self = impl;
    Entry entry;
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    if (enter(&entry) == 0) { /* else the object has gone with the interpreter */
        PyErr_Fetch(&type, &value, &traceback);
        Py_DECREF(self->object);
        PyErr_Restore(type, value, traceback);
        leave(&entry, 0);
    }
    free(self);
}

static const struct tosc_backend_ops python_ops = {
    .size = sizeof python_ops,
    .name = "python",
    .destroy = python_destroy,
    .read = python_read,
    .write = python_write,
    .try_write = python_try_write,
    .wait = python_wait,
};

/* ---- the adapter ---- */

/* Has a target_wait() written in Python a parameter `timeout`? 1, 0, or -1. */
static int
has_timeout_parameter(PyObject *method)
{
    PyObject *inspect = PyImport_ImportModule("inspect");
    PyObject *signature =
        inspect != NULL ? PyObject_CallMethod(inspect, "signature", "O", method) : NULL;
    PyObject *parameters =
        signature != NULL ? PyObject_GetAttrString(signature, "parameters") : NULL;
    PyObject *name = PyUnicode_InternFromString("timeout");
    int found = -1;
    if (parameters != NULL && name != NULL) {
        found = PySequence_Contains(parameters, name);
    } else if (PyErr_ExceptionMatches(PyExc_TypeError)
               || PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear(); /* a callable that tells nothing about itself */
        found = 0;
    }
    Py_XDECREF(name);
    Py_XDECREF(parameters);
    Py_XDECREF(signature);
    Py_XDECREF(inspect);
    return found;
}

tosc_backend *
tosc_backend_python_new(PyObject *object)
{
    PyObject *method = PyObject_GetAttr(object, tosc_state->str_target_wait);
    int takes_timeout = method != NULL ? has_timeout_parameter(method) : -1;
    Py_XDECREF(method);
    if (takes_timeout < 0) {
        return NULL;
    }
    PyBackend *self = malloc(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->object = Py_NewRef(object);
    self->takes_timeout = takes_timeout > 0;
    tosc_backend *backend = tosc_backend_new(&python_ops, self);
    if (backend == NULL) {
        Py_DECREF(object);
        free(self);
        PyErr_NoMemory();
    }
    return backend;
}

PyObject *
tosc_backend_python_object(const tosc_backend *backend)
{
    if (tosc_backend_ops(backend) != &python_ops) {
        return NULL;
    }
    return ((PyBackend *)tosc_backend_impl(backend))->object;
}

bool
tosc_backend_wait_can_stop(const tosc_backend *backend)
{
    return tosc_backend_ops(backend) != &python_ops
           || ((PyBackend *)tosc_backend_impl(backend))->takes_timeout;
}

/* ---- choosing ---- */

/*
 * What stands under a name of the object: 0 nothing usable (missing, no callable, or
 * what BackendBase has), 1 the method of our own types, 2 something of its own; -1 an
 * exception.
 */
static int
method_origin(PyObject *object, PyObject *name, PyTypeObject *native)
{
    PyObject *method = PyObject_GetAttr(object, name);
    if (method == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    int origin = PyCallable_Check(method) ? 2 : 0;
    if (PyCFunction_Check(method) && PyCFunction_GET_SELF(method) == object) {
        PyCFunction function = PyCFunction_GET_FUNCTION(method);
        PyTypeObject *types[] = {tosc_state->BackendBase_Type, native};
        for (int i = 0; i < 2 && types[i] != NULL; i++) {
            PyObject *ours = PyObject_GetAttr((PyObject *)types[i], name);
            if (ours == NULL) {
                Py_DECREF(method);
                return -1;
            }
            bool same = Py_IS_TYPE(ours, &PyMethodDescr_Type)
                        && ((PyMethodDescrObject *)ours)->d_method->ml_meth == function;
            Py_DECREF(ours);
            if (same) {
                origin = i;
                break;
            }
        }
    }
    Py_DECREF(method);
    return origin;
}

/* TypeError that names the methods that `object` does not have. */
static void
raise_missing(PyObject *object, PyObject *missing)
{
    PyObject *separator = PyUnicode_FromString(", ");
    PyObject *names = separator != NULL ? PyUnicode_Join(separator, missing) : NULL;
    if (names != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "a backend has to have the methods read, write, try_write and "
                     "target_wait: '%.200s' object does not define %U",
                     Py_TYPE(object)->tp_name, names);
    }
    Py_XDECREF(names);
    Py_XDECREF(separator);
}

/* Are the four methods there? 1 core's own, 0 some others, -1 an exception. */
static int
check_methods(PyObject *object)
{
    PyObject *names[] = {tosc_state->str_read, tosc_state->str_write,
                         tosc_state->str_try_write, tosc_state->str_target_wait};
    PyTypeObject *native = backend_native_type(object);
    int all_native = native != NULL;
    int status = 0;
    PyObject *missing = PyList_New(0);
    if (missing == NULL) {
        return -1;
    }
    for (int i = 0; i < 4 && status == 0; i++) {
        int origin = method_origin(object, names[i], native);
        if (origin != 1) {
            all_native = 0;
        }
        if (origin == 0) {
            status = PyList_Append(missing, names[i]);
        } else if (origin < 0) {
            status = -1;
        }
    }
    if (status == 0 && PyList_GET_SIZE(missing) > 0) {
        raise_missing(object, missing);
        status = -1;
    }
    Py_DECREF(missing);
    return status < 0 ? -1 : all_native;
}

tosc_backend *
tosc_backend_of(PyObject *object)
{
    if (PyType_Check(object)) {
        PyErr_Format(PyExc_TypeError,
                     "a backend has to be an object, not a class: call %.200s(...)",
                     ((PyTypeObject *)object)->tp_name);
        return NULL;
    }
    int all_native = check_methods(object);
    if (all_native < 0) {
        return NULL;
    }
    if (all_native == 0) {
        return tosc_backend_python_new(object);
    }
    tosc_backend *backend = tosc_backend_native(object);
    if (backend == NULL) {
        PyErr_Format(PyExc_ValueError, "%.200s.__init__() has not been called",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return tosc_backend_ref(backend);
}
