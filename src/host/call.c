/*
 * Finding and calling functions.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/script.h"

#include <stdlib.h>
#include <string.h>

/* Follows "attr.attr": takes over the reference; NULL with an exception. */
static PyObject *
get_attributes(PyObject *object, const char *names)
{
    while (object != NULL) {
        size_t length = strcspn(names, ".");
        PyObject *name = PyUnicode_DecodeUTF8(names, (Py_ssize_t)length, NULL);
        PyObject *value = name != NULL ? PyObject_GetAttr(object, name) : NULL;
        Py_XDECREF(name);
        Py_SETREF(object, value);
        if (names[length] == '\0') {
            break;
        }
        names += length + 1;
    }
    return object;
}

static int
find(const char *name, PyObject **ret)
{
    const char *colon = name != NULL ? strchr(name, ':') : NULL;
    if (colon == NULL || colon == name || colon[1] == '\0') {
        return tosc__fail(TOSC_EINVAL, "name has to be \"module:function\", not \"%s\"",
                          name != NULL ? name : "NULL");
    }
    PyObject *module_name = PyUnicode_DecodeUTF8(name, colon - name, NULL);
    if (module_name == NULL) {
        return host_failed();
    }
    PyObject *module = PyImport_Import(module_name);
    int status = module == NULL ? script_import_failed(module_name) : 0;
    Py_DECREF(module_name);
    if (status == 0) {
        *ret = get_attributes(module, colon + 1);
        if (*ret == NULL) {
            status = host_failed_as(
                PyErr_ExceptionMatches(PyExc_AttributeError) ? TOSC_ENOTFOUND : 0);
        }
    }
    return status;
}

int
tosc_host_find(const char *name, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    PyObject *found = NULL;
    if (ret == NULL) {
        return tosc__fail(TOSC_EINVAL, "ret is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = find(name, &found);
    if (status == 0) {
        status = value_return(found, ret);
    }
    run_end(&run);
    return host_leave(&entry, status);
}

#define FEW 8

/* The named arguments as a dict of its own. What is not one of Python's may run code. */
static int
copy_named(PyObject *named, PyObject **ret)
{
    PyObject *copy = PyDict_New();
    if (copy != NULL && PyDict_Update(copy, named) == 0) {
        *ret = copy;
        return 0;
    }
    Py_XDECREF(copy);
    if (PyErr_ExceptionMatches(PyExc_AttributeError)
        || PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        return tosc__fail(TOSC_ETYPE, "arguments->named is not a dict");
    }
    return host_failed();
}

/*
 * The objects behind the handles, and the named ones as a dict or NULL: new references, as the
 * handles may be given back by any code that is run from here on. What there is of them is the
 * caller's also on failure.
 */
static int
get_arguments(const tosc_arguments *arguments, PyObject **objects, PyObject **ret_named)
{
    for (size_t i = 0; i < arguments->count; i++) {
        objects[i] = Py_XNewRef(value_get(arguments->values[i], "an argument"));
        if (objects[i] == NULL) {
            return TOSC_EINVAL;
        }
    }
    if (arguments->named == NULL) {
        return 0;
    }
    PyObject *named = Py_XNewRef(value_get(arguments->named, "arguments->named"));
    if (named == NULL) {
        return TOSC_EINVAL;
    }
    int status = copy_named(named, ret_named);
    Py_DECREF(named);
    return status;
}

static int
call_with(PyObject *callable, const tosc_arguments *arguments, PyObject **objects,
          tosc_value **ret)
{
    PyObject *named = NULL;
    int status = get_arguments(arguments, objects, &named);
    if (status == 0) {
        status = run_give(
            PyObject_VectorcallDict(callable, objects, arguments->count, named), ret);
    }
    for (size_t i = 0; i < arguments->count; i++) {
        Py_XDECREF(objects[i]);
    }
    Py_XDECREF(named);
    return status;
}

static int
call(PyObject *callable, const tosc_arguments *given, tosc_value **ret)
{
    static const tosc_arguments none;
    const tosc_arguments *arguments = given != NULL ? given : &none;
    PyObject *few[FEW] = {NULL};
    PyObject **objects = few;
    if (arguments->count > 0 && arguments->values == NULL) {
        return tosc__fail(TOSC_EINVAL, "arguments->values is NULL");
    }
    if (!PyCallable_Check(callable)) {
        return tosc__fail(TOSC_ETYPE, "a value of type %s cannot be called",
                          Py_TYPE(callable)->tp_name);
    }
    if (arguments->count > FEW) {
        objects = calloc(arguments->count, sizeof(*objects));
        if (objects == NULL) {
            return tosc__fail(TOSC_ENOMEM, "no memory for %zu arguments",
                              arguments->count);
        }
    }
    Py_INCREF(callable);
    int status = call_with(callable, arguments, objects, ret);
    Py_DECREF(callable);
    if (objects != few) {
        free(objects);
    }
    return status;
}

int
tosc_host_call(const char *name, const tosc_arguments *arguments, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    PyObject *callable = NULL;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = find(name, &callable);
    if (status == 0) {
        status = call(callable, arguments, ret);
        Py_DECREF(callable);
    }
    run_end(&run);
    return host_leave(&entry, status);
}

int
tosc_call(tosc_value *callable, const tosc_arguments *arguments, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    PyObject *object = value_get(callable, "callable");
    status = object != NULL ? call(object, arguments, ret) : TOSC_EINVAL;
    run_end(&run);
    return host_leave(&entry, status);
}

static int
call_method(PyObject *object, const char *name, const tosc_arguments *arguments,
            tosc_value **ret)
{
    PyObject *method = PyObject_GetAttrString(object, name);
    if (method == NULL) {
        return host_failed_as(
            PyErr_ExceptionMatches(PyExc_AttributeError) ? TOSC_ENOTFOUND : 0);
    }
    int status = call(method, arguments, ret);
    Py_DECREF(method);
    return status;
}

int
tosc_call_method(tosc_value *object, const char *name, const tosc_arguments *arguments,
                 tosc_value **ret)
{
    HostEntry entry;
    Run run;
    if (name == NULL) {
        return tosc__fail(TOSC_EINVAL, "name is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    PyObject *self = value_get(object, "object");
    if (self == NULL) {
        status = TOSC_EINVAL;
    } else {
        Py_INCREF(self);
        status = call_method(self, name, arguments, ret);
        Py_DECREF(self);
    }
    run_end(&run);
    return host_leave(&entry, status);
}
