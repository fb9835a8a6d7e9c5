/*
 * tosc-check-backend: reaching the backend that is checked: by its URI, with a plugin
 * that brings the scheme, or as an object that a Python function makes.
 *
 * Each test has a number of its own, which replaces "{}" in the URI or the arguments. The
 * interpreter is started as tosc-run does it, without signal handlers; its GIL is given up
 * at once, and the operations of a backend in Python take it when they need it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "backends.h"
#include "compat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/check_backend.h"
#include "core/error.h"

PyMODINIT_FUNC PyInit_tosc(void);

struct subject subject;

static PyObject *factory; /* what makes a backend in Python */

/* `text` with each "{}" replaced; to be freed. */
static char *
with_number(const char *text, int64_t number)
{
    char digits[32];
    size_t length = (size_t)snprintf(digits, sizeof(digits), "%lld", (long long)number);
    char *result = malloc(strlen(text) * length + 1);
    char *to = result;

    if (result == NULL) {
        return NULL;
    }
    while (*text != '\0') {
        if (strncmp(text, "{}", 2) == 0) {
            memcpy(to, digits, length);
            to += length;
            text += 2;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
    return result;
}

/* ---- Python ---- */

/* Turns the exception that is set into a message, and shows its traceback. */
static int
python_failed(const char *what)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *text = value != NULL ? PyObject_Str(value) : NULL;
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    int status = tosc__fail(TOSC_EPYTHON, "%s: %s: %s", what,
                            value != NULL ? Py_TYPE(value)->tp_name : "unknown fault",
                            utf8 != NULL ? utf8 : "");
    Py_XDECREF(text);
    PyErr_Restore(type, value, traceback);
    PyErr_Print();
    return status;
}

static PyStatus
start_python(void)
{
    PyConfig config;

    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
    PyStatus status =
        PyConfig_SetBytesString(&config, &config.base_executable, TOSC_PYTHON);
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.executable, TOSC_RUN_PATH);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.prefix, PYTHON_PREFIX);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.exec_prefix, PYTHON_PREFIX);
    }
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    return status;
}

/* The object "a.b" of module "module", for "module:a.b"; NULL with an exception. */
static PyObject *
find_factory(const char *module_name, const char *path)
{
    PyObject *found = PyImport_ImportModule(module_name);

    while (found != NULL && path != NULL) {
        char name[200];
        PyObject *next;

        snprintf(name, sizeof(name), "%.*s", (int)strcspn(path, "."), path);
        path = strchr(path, '.');
        path = path != NULL ? path + 1 : NULL;
        next = PyObject_GetAttrString(found, name);
        Py_DECREF(found);
        found = next;
    }
    return found;
}

/* Modules in the working directory are found, as by python -m. */
static int
add_working_directory(void)
{
    PyObject *path = PySys_GetObject("path");
    PyObject *here = PyUnicode_FromString("");
    int status = path != NULL && here != NULL ? PyList_Insert(path, 0, here) : -1;

    Py_XDECREF(here);
    return status;
}

static int
prepare_python(void)
{
    char module_name[200];
    const char *colon = strchr(subject.python, ':');
    PyObject *tosc;

    if (PyImport_AppendInittab("tosc", PyInit_tosc) != 0) {
        return tosc__fail(TOSC_ENOMEM, "not enough memory for Python");
    }
    PyStatus status = start_python();
    if (PyStatus_Exception(status)) {
        return tosc__fail(TOSC_EPYTHON, "cannot start Python: %s",
                          status.err_msg != NULL ? status.err_msg : "it has ended");
    }
    snprintf(module_name, sizeof(module_name), "%.*s", (int)(colon - subject.python),
             subject.python);
    tosc = add_working_directory() == 0 ? PyImport_ImportModule("tosc") : NULL;
    factory = tosc != NULL ? find_factory(module_name, colon + 1) : NULL;
    Py_XDECREF(tosc);
    if (factory == NULL) {
        int failure = python_failed(subject.python);

        PyEval_SaveThread();
        return failure;
    }
    PyEval_SaveThread();
    return 0;
}

static PyObject *
call_factory(int64_t number)
{
    PyObject *arguments = PyTuple_New(subject.argument_count);

    for (int i = 0; arguments != NULL && i < subject.argument_count; i++) {
        char *text = with_number(subject.arguments[i], number);
        PyObject *argument = text != NULL ? PyUnicode_DecodeFSDefault(text) : NULL;

        free(text);
        if (argument == NULL) {
            Py_CLEAR(arguments);
        } else {
            PyTuple_SET_ITEM(arguments, i, argument);
        }
    }
    PyObject *object = arguments != NULL ? PyObject_CallObject(factory, arguments) : NULL;
    Py_XDECREF(arguments);
    return object;
}

static int
open_python(int64_t number, tosc_backend **ret)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *object = call_factory(number);
    tosc_backend *backend = object != NULL ? tosc_backend_of(object) : NULL;
    int status = backend != NULL ? 0 : python_failed(subject.python);

    Py_XDECREF(object);
    PyGILState_Release(gil);
    if (status == 0) {
        *ret = backend;
    }
    return status;
}

/* ---- either ---- */

int
subject_prepare(void)
{
    if (subject.python != NULL) {
        return prepare_python();
    }
    return subject.plugin != NULL ? tosc_backend_load_plugin(subject.plugin) : 0;
}

int
subject_open(int64_t number, tosc_backend **ret)
{
    char *uri;
    int status;

    if (subject.python != NULL) {
        return open_python(number, ret);
    }
    uri = with_number(subject.uri, number);
    if (uri == NULL) {
        return tosc__fail(TOSC_ENOMEM, "not enough memory for the URI");
    }
    status = tosc_backend_open(uri, ret);
    free(uri);
    return status;
}

bool
subject_wait_heeds_event(const tosc_backend *b)
{
    return tosc_backend_wait_can_stop(b);
}

/* Only Python's main thread is told of signals. */
bool
subject_wait_heeds_signals(const tosc_backend *b)
{
    return tosc_backend_python_object(b) == NULL;
}
