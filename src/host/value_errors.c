/*
 * Failures of operations on values: what an exception means, and what to say.
 *
 * Whether an exception is only the answer "no such element" is told from where it was raised. C
 * code that raises leaves no traceback, so an exception without one comes from the very lookup;
 * one with a traceback comes from code written in Python, and counts as an answer only if it
 * names what was looked for and nothing else could have raised it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/managers.h"
#include "host/values.h"

#include "py/opaque.h"

#include <stdio.h>
#include <string.h>

/* The exception that is set, made whole; borrowed from what is set again. */
static PyObject *
present_exception(bool *ret_traceback)
{
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    *ret_traceback = traceback != NULL;
    PyErr_Restore(type, value, traceback);
    return value;
}

/* `m`: of the Manager's store, or NULL. */
static int
failed_on(Manager *m)
{
    bool from_python = true;
    bool type_error = PyErr_ExceptionMatches(PyExc_TypeError);
    if (type_error) {
        present_exception(&from_python);
    }
    int status = manager_failed(m);
    return status == TOSC_EPYTHON && type_error && !from_python ? TOSC_ETYPE : status;
}

int
value_failed(void)
{
    return failed_on(NULL);
}

/* Would a distributed container refuse it as such? The exception that is set stays. */
static bool
cannot_be_stored(PyObject *container, PyObject *element)
{
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    bool part = PyObject_TypeCheck(container, tosc_state->DPart_Type);
    if (!part && !dobject_check(container)) {
        return false;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *adopted = dobject_adopt(part ? NULL : (DObject *)container, element);
    bool refused = adopted == NULL && PyErr_ExceptionMatches(PyExc_TypeError);
    Py_XDECREF(adopted);
    PyErr_Restore(type, value, traceback);
    return refused;
}

int
store_failed(PyObject *container, PyObject *element)
{
    bool refused = element != NULL && PyErr_ExceptionMatches(PyExc_TypeError)
                   && cannot_be_stored(container, element);
    int status =
        failed_on(dobject_check(container) ? ((DObject *)container)->manager : NULL);
    return refused && (status == TOSC_ETYPE || status == TOSC_EPYTHON) ? TOSC_ESERIALIZE
                                                                       : status;
}

/* Is the attribute of the exception this very object? */
static bool
exception_says(PyObject *exception, const char *attribute, PyObject *object)
{
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *said = PyObject_GetAttrString(exception, attribute);
    bool same = said == object;
    if (said != NULL && !same && PyUnicode_CheckExact(said)
        && PyUnicode_CheckExact(object)) {
        same = PyUnicode_Compare(said, object) == 0;
    }
    Py_XDECREF(said);
    PyErr_Restore(type, value, traceback);
    return same;
}

/* The user's class, of which a wrapper stands for an instance; borrowed; or NULL. */
static PyTypeObject *
class_behind(PyObject *object)
{
    int kind = dobject_kind(object);
    bool part = kind < 0 && PyObject_TypeCheck(object, tosc_state->DPart_Type);
    return part || kind == KIND_ANY || kind == KIND_OPAQUE
               ? (PyTypeObject *)opaque_class_of(object)
               : NULL;
}

/* Does the object's class have this name, so that a property of it may have failed? */
static bool
class_has(PyObject *object, PyObject *name)
{
    PyTypeObject *class = Py_TYPE(object);
    PyTypeObject *own = class_behind(object);
    class = own != NULL ? own : class;
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool found = value_type_lookup(class, name) != NULL;
    PyErr_Restore(type, value, traceback);
    return found;
}

bool
failed_by_attribute(PyObject *object, PyObject *name)
{
    bool from_python;
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return false;
    }
    PyObject *exception = present_exception(&from_python);
    if (!from_python) {
        return true;
    }
    return exception != NULL && exception_says(exception, "name", name)
           && exception_says(exception, "obj", object) && !class_has(object, name);
}

bool
failed_by_item(PyObject *key)
{
    bool from_python;
    if (!PyErr_ExceptionMatches(PyExc_LookupError)
        || (!PyErr_ExceptionMatches(PyExc_KeyError)
            && !PyErr_ExceptionMatches(PyExc_IndexError))) {
        return false;
    }
    PyObject *exception = present_exception(&from_python);
    if (!from_python) {
        return true;
    }
    if (exception == NULL || !PyErr_ExceptionMatches(PyExc_KeyError)) {
        return false;
    }
    PyObject *args = ((PyBaseExceptionObject *)exception)->args;
    return args != NULL && PyTuple_Check(args) && PyTuple_GET_SIZE(args) == 1
           && PyTuple_GET_ITEM(args, 0) == key;
}

/* ---- words ---- */

const char *
type_name(PyObject *object)
{
    static const char *const builtin[] = {"list", "dict", "set", "bytearray"};
    int kind = dobject_kind(object);
    if (kind >= 0 && kind <= KIND_BYTES) {
        return builtin[kind];
    }
    PyTypeObject *class = class_behind(object);
    class = class != NULL ? class : Py_TYPE(object);
    return object == Py_None ? "None" : class->tp_name;
}

const char *
at_words(tosc_at at, char *buffer, size_t size)
{
    switch (at.kind) {
    case TOSC_AT_KEY:
        snprintf(buffer, size, "the element '%.200s'", at.where.text);
        break;
    case TOSC_AT_INDEX:
        snprintf(buffer, size, "the element %lld", (long long)at.where.index);
        break;
    case TOSC_AT_ITEM:
        snprintf(buffer, size, "the element");
        break;
    case TOSC_AT_ATTRIBUTE:
        snprintf(buffer, size, "the attribute '%.200s'", at.where.text);
        break;
    case TOSC_AT_PATH:
        snprintf(buffer, size, "'%.400s'", at.where.text);
        break;
    default:
        snprintf(buffer, size, "the value");
    }
    return buffer;
}

int
wrong_type(tosc_at at, PyObject *object, const char *wanted)
{
    char words[512];
    return tosc__fail(TOSC_ETYPE, "%s is %s%s, not %s",
                      at_words(at, words, sizeof(words)),
                      object == Py_None ? "" : "of type ", type_name(object), wanted);
}

int
missing_argument(const char *what)
{
    return tosc__fail(TOSC_EINVAL, "%s is NULL", what);
}
