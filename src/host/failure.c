/*
 * Exceptions as status codes, and status codes as exceptions.
 *
 * Of an exception that reaches C the sentence, errno and path are told to core, as of any
 * other fault. Its class, the traceback as text and an exit status are kept here, with
 * the number of the fault: they are what tosc_error_type() and the others tell as long as
 * that fault is the thread's last. The exception itself is not kept, as it would keep
 * alive all that stands in its frames; but while a script waits for a C function of the
 * program (a HostCallback) it is, so that the script gets the very exception that the C
 * function passes on.
 *
 * Everything here works without memory: then some of it is "".
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"
#include "py/errors.h"
#include "py/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 1000 /* bytes; core cuts at a little more, and not between letters */

/* What else is known about the fault of this number. */
static __thread struct {
    unsigned long fault;
    char *type;
    char *traceback;
    int exit_status;
} details;

static bool
details_are_of_last_fault(void)
{
    return details.fault == tosc__fault_number();
}

const char *
tosc_error_type(void)
{
    return details.type != NULL && details_are_of_last_fault() ? details.type : "";
}

const char *
tosc_error_traceback(void)
{
    return details.traceback != NULL && details_are_of_last_fault() ? details.traceback
                                                                    : "";
}

int
tosc_error_exit_status(void)
{
    return details_are_of_last_fault() ? details.exit_status : 0;
}

void
failure_forget(void)
{
    free(details.type);
    free(details.traceback);
    memset(&details, 0, sizeof(details));
}

/* ---- texts ---- */

/*
 * UTF-8, or bytes as they came from the system; NULL: not possible (no exception is
 * left).
 */
static PyObject *
encode(PyObject *text)
{
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
    if (bytes == NULL) {
        PyErr_Clear();
        bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    }
    if (bytes == NULL) {
        PyErr_Clear();
    }
    return bytes;
}

/* The same as a copy to be freed. */
static char *
copy_text(PyObject *text)
{
    PyObject *bytes = encode(text);
    char *copy = bytes != NULL ? strdup(PyBytes_AS_STRING(bytes)) : NULL;
    Py_XDECREF(bytes);
    return copy;
}

/* How many bytes of the text can be shown without cutting a letter. */
static int
showable(const char *text)
{
    size_t length = strlen(text);
    if (length > MESSAGE_MAX) {
        length = MESSAGE_MAX;
        while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80) {
            length--;
        }
    }
    return (int)length;
}

static PyObject *
attribute_or_null(PyObject *object, const char *name)
{
    PyObject *value = PyObject_GetAttrString(object, name);
    if (value == NULL) {
        PyErr_Clear();
    }
    return value;
}

/* "ValueError", "policy.Refused": as a traceback calls it. */
static char *
name_of_class(PyTypeObject *class)
{
    PyObject *module = attribute_or_null((PyObject *)class, "__module__");
    PyObject *name = attribute_or_null((PyObject *)class, "__qualname__");
    PyObject *text = NULL;
    if (module != NULL && PyUnicode_Check(module) && name != NULL
        && PyUnicode_CompareWithASCIIString(module, "builtins") != 0
        && PyUnicode_CompareWithASCIIString(module, "__main__") != 0) {
        text = PyUnicode_FromFormat("%U.%S", module, name);
    } else if (name != NULL) {
        text = PyObject_Str(name);
    }
    PyErr_Clear();
    char *result = text != NULL ? copy_text(text) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(name);
    Py_XDECREF(module);
    return result;
}

static char *
format_traceback(PyObject *exception)
{
    PyObject *text = NULL;
    PyObject *module = PyImport_ImportModule("traceback");
    PyObject *lines =
        module != NULL ? PyObject_CallMethod(module, "format_exception", "O", exception)
                       : NULL;
    PyObject *nothing = lines != NULL ? PyUnicode_FromString("") : NULL;
    if (nothing != NULL) {
        text = PyUnicode_Join(nothing, lines);
    }
    PyErr_Clear();
    char *result = text != NULL ? copy_text(text) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(nothing);
    Py_XDECREF(lines);
    Py_XDECREF(module);
    return result;
}

/* ---- exceptions to codes ---- */

/* Subclasses before their bases. */
static int
status_of(PyObject *exception)
{
    const struct {
        PyObject *class;
        int status;
    } codes[] = {
        {PyExc_MemoryError, TOSC_ENOMEM},
        {PyExc_KeyboardInterrupt, TOSC_EINTR},
        {PyExc_SystemExit, TOSC_EEXIT},
        {tosc_state != NULL ? tosc_state->TransactionRetryError : NULL, TOSC_ERETRY},
        {tosc_state != NULL ? tosc_state->TransactionTimeoutError : NULL, TOSC_ETIMEDOUT},
        {tosc_state != NULL ? tosc_state->TransactionError : NULL, TOSC_ECONFLICT},
        {tosc_state != NULL ? tosc_state->SerializationError : NULL, TOSC_ESERIALIZE},
        {tosc_state != NULL ? tosc_state->DataError : NULL, TOSC_ECORRUPT},
        {tosc_state != NULL ? tosc_state->UnknownOutcomeError : NULL, TOSC_EUNKNOWN},
        {tosc_state != NULL ? tosc_state->ClosedError : NULL, TOSC_ECLOSED},
        {tosc_state != NULL ? tosc_state->EmptyStoreError : NULL, TOSC_ENOTFOUND},
        {tosc_state != NULL ? tosc_state->StorageError : NULL, TOSC_ESYSTEM},
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].class != NULL
            && PyErr_GivenExceptionMatches(exception, codes[i].class)) {
            return codes[i].status;
        }
    }
    return TOSC_EPYTHON;
}

/* As python3 would end with it. */
static int
exit_status_of(PyObject *exception)
{
    int result = 1;
    PyObject *code = attribute_or_null(exception, "code");
    if (code == NULL || code == Py_None) {
        result = 0;
    } else if (PyLong_Check(code)) {
        result = (int)PyLong_AsLong(code) & 0xff; /* too large: -1 */
        PyErr_Clear();
    }
    Py_XDECREF(code);
    return result;
}

/* Its text where it has one. */
static void
tell_text(int status, int error, const char *path, PyObject *exception)
{
    const char *class = details.type != NULL ? details.type : Py_TYPE(exception)->tp_name;
    PyObject *text = PyObject_Str(exception);
    PyObject *bytes = text != NULL ? encode(text) : NULL;
    const char *words = bytes != NULL ? PyBytes_AS_STRING(bytes) : NULL;
    PyErr_Clear();
    if (words == NULL) {
        tosc__fail_as(status, error, path, "%s (its text cannot be had)", class);
    } else if (*words == '\0') {
        tosc__fail_as(status, error, path, "%s", class);
    } else if (PyErr_GivenExceptionMatches(exception, PyExc_KeyError)) {
        /* Only the key. */
        tosc__fail_as(status, error, path, "%s: %.*s", class, showable(words), words);
    } else {
        tosc__fail_as(status, error, path, "%.*s", showable(words), words);
    }
    Py_XDECREF(bytes);
    Py_XDECREF(text);
}

static void
tell_exit(PyObject *exception)
{
    PyObject *code = attribute_or_null(exception, "code");
    if (code == NULL || code == Py_None || PyLong_Check(code)) {
        tosc__fail(TOSC_EEXIT, "the script ended with exit status %d",
                   details.exit_status);
    } else {
        tell_text(TOSC_EEXIT, 0, NULL, exception);
    }
    Py_XDECREF(code);
}

/* An OSError, whosever, has more to tell. */
static void
tell_system(int status, PyObject *exception)
{
    PyObject *number = attribute_or_null(exception, "errno");
    PyObject *name = attribute_or_null(exception, "filename");
    PyObject *path = NULL;
    long error = number != NULL && PyLong_Check(number) ? PyLong_AsLong(number) : 0;
    if (name != NULL && name != Py_None && !PyUnicode_FSConverter(name, &path)) {
        path = NULL;
    }
    PyErr_Clear();
    tell_text(status, error > 0 && error < 4096 ? (int)error : 0,
              path != NULL ? PyBytes_AS_STRING(path) : NULL, exception);
    Py_XDECREF(path);
    Py_XDECREF(name);
    Py_XDECREF(number);
}

static void
tell(int status, PyObject *exception)
{
    if (status == TOSC_EEXIT) {
        tell_exit(exception);
    } else if (PyErr_GivenExceptionMatches(exception, PyExc_OSError)) {
        tell_system(status, exception);
    } else {
        tell_text(status, status == TOSC_ENOMEM ? ENOMEM : 0, NULL, exception);
    }
}

static void
keep_for_callback(int status, PyObject *exception)
{
    HostCallback *callback = host_thread()->callback;
    if (callback != NULL) {
        PyObject *before = callback->exception;
        callback->exception = Py_NewRef(exception);
        callback->status = status;
        callback->fault = tosc__fault_number();
        Py_XDECREF(before);
    }
}

/*
 * What core's codes stand for, raised by C code that C has called, has no traceback, and
 * making one is left out: it takes much longer than a conflict may. Nor is there one for
 * what the caller has given another code: that is his finding, not a fault in a script.
 */
static int
take_exception(PyObject *exception, int wanted, bool has_traceback)
{
    int status = wanted != 0 ? wanted : status_of(exception);
    failure_forget();
    details.exit_status = status == TOSC_EEXIT ? exit_status_of(exception) : 0;
    if (status == TOSC_EPYTHON || (wanted == 0 && has_traceback)) {
        details.type = name_of_class(Py_TYPE(exception));
        details.traceback = format_traceback(exception);
    }
    tell(status, exception);
    details.fault = tosc__fault_number();
    return status;
}

int
host_failed(void)
{
    return host_failed_as(0);
}

int
host_failed_as(int wanted)
{
    PyObject *type;
    PyObject *exception;
    PyObject *traceback;
    PyErr_Fetch(&type, &exception, &traceback);
    PyErr_NormalizeException(&type, &exception, &traceback);
    if (exception == NULL) {
        return tosc__fail(TOSC_EPYTHON, "Python failed without an exception");
    }
    if (traceback != NULL) {
        PyException_SetTraceback(exception, traceback);
    }
    int status = take_exception(exception, wanted, traceback != NULL);
    keep_for_callback(status, exception);
    Py_XDECREF(type);
    Py_DECREF(exception);
    Py_XDECREF(traceback);
    PyErr_Clear();
    return status;
}

bool
host_exited_well(void)
{
    if (!PyErr_ExceptionMatches(PyExc_SystemExit)) {
        return false;
    }
    PyObject *type;
    PyObject *exception;
    PyObject *traceback;
    PyErr_Fetch(&type, &exception, &traceback);
    PyErr_NormalizeException(&type, &exception, &traceback);
    if (exception != NULL && PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)
        && exit_status_of(exception) == 0) {
        Py_XDECREF(type);
        Py_DECREF(exception);
        Py_XDECREF(traceback);
        return true;
    }
    PyErr_Restore(type, exception, traceback);
    return false;
}

/* ---- codes to exceptions ---- */

int
host_returned(int status, unsigned long faults)
{
    return status < 0 && tosc__fault_number() == faults
               ? tosc__fail(status, "the function returned %s", tosc_status_name(status))
               : status;
}

void
host_callback_begin(HostThread *thread, HostCallback *callback)
{
    *callback = (HostCallback){.outer = thread->callback};
    thread->callback = callback;
    thread->callbacks++;
}

void
host_callback_end(HostThread *thread, HostCallback *callback)
{
    thread->callback = callback->outer;
    thread->callbacks--;
    Py_CLEAR(callback->exception);
}

/*
 * The exception that the C function met and passes on. What Python raised cannot be
 * anything else than the last such; the other codes the C function may have from
 * elsewhere since.
 */
static bool
raise_kept(int status)
{
    const HostCallback *callback = host_thread()->callback;
    if (callback == NULL || callback->exception == NULL || callback->status != status
        || (status != TOSC_EPYTHON && callback->fault != tosc__fault_number())) {
        return false;
    }
    PyObject *exception = callback->exception;
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), Py_NewRef(exception),
                  PyException_GetTraceback(exception));
    return true;
}

int
host_raise(int status)
{
    if (status >= 0) {
        PyErr_Format(PyExc_SystemError, "%d is no status of a failure", status);
    } else if (raise_kept(status)) {
        return -1;
    } else if (status == TOSC_EEXIT) {
        PyObject *code = PyLong_FromLong(tosc_error_exit_status());
        if (code != NULL) {
            PyErr_SetObject(PyExc_SystemExit, code);
            Py_DECREF(code);
        }
    } else {
        tosc_raise(status);
        if (!PyErr_Occurred()) { /* a signal without a handler that raises */
            PyErr_SetNone(PyExc_KeyboardInterrupt);
        }
    }
    return -1;
}

/* ---- tosc_fail ---- */

/* A builtin exception, or "module:Class": a new reference, NULL with an exception. */
static PyObject *
find_class(const char *name)
{
    const char *colon = strchr(name, ':');
    PyObject *module_name = colon != NULL
                                ? PyUnicode_FromStringAndSize(name, colon - name)
                                : PyUnicode_FromString("builtins");
    PyObject *module = module_name != NULL ? PyImport_Import(module_name) : NULL;
    Py_XDECREF(module_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *class = PyObject_GetAttrString(module, colon != NULL ? colon + 1 : name);
    Py_DECREF(module);
    if (class != NULL && !PyExceptionClass_Check(class)) {
        PyErr_Format(PyExc_TypeError, "tosc_fail: %s is not a class of exceptions", name);
        Py_CLEAR(class);
    }
    return class;
}

static void
raise_by_name(const char *name, const char *message)
{
    PyObject *class = find_class(name != NULL ? name : "RuntimeError");
    PyObject *text = class != NULL ? PyUnicode_DecodeUTF8(
                         message, (Py_ssize_t)strlen(message), "surrogateescape")
                                   : NULL;
    PyObject *exception = text != NULL ? PyObject_CallOneArg(class, text) : NULL;
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    Py_XDECREF(exception);
    Py_XDECREF(text);
    Py_XDECREF(class);
}

int
tosc_fail(const char *type, const char *format, ...)
{
    char message[MESSAGE_MAX + 1];
    HostEntry entry;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format != NULL ? format : "", arguments);
    va_end(arguments);
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    raise_by_name(type, message);
    return host_leave(&entry, host_failed_as(TOSC_EPYTHON));
}
