/*
 * Asking about values: type, presence, length, equality.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include "py/opaque.h"

/* ---- types ---- */

/* The exact types that nearly all values have, and their subclasses. */
static int
plain_type(PyObject *object)
{
    if (PyLong_Check(object)) {
        return PyBool_Check(object) ? TOSC_BOOL : TOSC_INT;
    }
    if (PyUnicode_Check(object)) {
        return TOSC_TEXT;
    }
    if (PyFloat_Check(object)) {
        return TOSC_DOUBLE;
    }
    if (object == Py_None) {
        return TOSC_NULL;
    }
    if (PyDict_Check(object)) {
        return TOSC_DICT;
    }
    if (PyList_Check(object)) {
        return TOSC_LIST;
    }
    if (PyTuple_Check(object)) {
        return TOSC_TUPLE;
    }
    if (PyBytes_Check(object) || PyByteArray_Check(object)) {
        return TOSC_BYTES;
    }
    return PyAnySet_Check(object) ? TOSC_SET : TOSC_OBJECT;
}

/* By the class of the object that an opaque value, or a part of one, stands for. */
static int
opaque_type(PyObject *object)
{
    const struct {
        PyTypeObject *class;
        int type;
    } known[] = {
        {&PyDict_Type, TOSC_DICT},       {&PyList_Type, TOSC_LIST},
        {&PySet_Type, TOSC_SET},         {&PyFrozenSet_Type, TOSC_SET},
        {&PyByteArray_Type, TOSC_BYTES}, {&PyTuple_Type, TOSC_TUPLE},
    };
    PyTypeObject *class = (PyTypeObject *)opaque_class_of(object);
    for (size_t i = 0; class != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
        if (PyType_IsSubtype(class, known[i].class)) {
            return known[i].type;
        }
    }
    return TOSC_OBJECT;
}

int
value_type(PyObject *object)
{
    static const int types[] = {TOSC_LIST, TOSC_DICT, TOSC_SET, TOSC_BYTES, TOSC_OBJECT};
    int kind = dobject_kind(object);
    if (kind == KIND_OPAQUE || PyObject_TypeCheck(object, tosc_state->DPart_Type)) {
        return opaque_type(object);
    }
    return kind >= 0 ? types[kind] : plain_type(object);
}

int
tosc_type_of(tosc_value *value, tosc_at at)
{
    HostEntry entry;
    PyObject *found;
    int status = enter_and_find(&entry, value, at, &found);
    return status < 0 ? status : found_leave(&entry, found, value_type(found));
}

/* ---- presence, length ---- */

/* A mapping is asked for the key only: getting it might make it (as of a defaultdict). */
static int
mapping_has(PyObject *object, tosc_at at, bool *ret_answered)
{
    Place place;
    *ret_answered = false;
    if (shape_of(object) != SHAPE_MAPPING
        || (at.kind != TOSC_AT_KEY && at.kind != TOSC_AT_INDEX
            && at.kind != TOSC_AT_ITEM)) {
        return 0;
    }
    *ret_answered = true;
    int status = place_find(object, at, &place);
    if (status < 0) {
        return status;
    }
    status = PySequence_Contains(place.object, place.key);
    place_free(&place);
    return status < 0 ? value_failed() : status;
}

int
tosc_contains(tosc_value *value, tosc_at at)
{
    HostEntry entry;
    PyObject *found = NULL;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    bool answered = true;
    PyObject *object = value_get(value, "value");
    status = object != NULL ? mapping_has(object, at, &answered) : TOSC_EINVAL;
    if (!answered) {
        status = at_look(object, at, &found);
        Py_XDECREF(found);
    }
    return host_leave(&entry, status);
}

static int
length_of(PyObject *object, tosc_at at, int64_t *ret)
{
    int kind = dobject_kind(object);
    bool known = kind >= 0 && kind <= KIND_BYTES;
    if (!known && kind != KIND_ANY && kind != KIND_OPAQUE
        && (PyLong_Check(object) || PyFloat_Check(object) || object == Py_None)) {
        return wrong_type(at, object, "anything that has a length");
    }
    Py_ssize_t length = PyObject_Size(object);
    if (length < 0) {
        return value_failed();
    }
    *ret = length;
    return 0;
}

int
tosc_length(tosc_value *value, tosc_at at, int64_t *ret)
{
    HostEntry entry;
    PyObject *found;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = enter_and_find(&entry, value, at, &found);
    return status < 0 ? status : found_leave(&entry, found, length_of(found, at, ret));
}

/* ---- equality ---- */

int
tosc_value_equal(tosc_value *a, tosc_value *b)
{
    HostEntry entry;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *left = value_get(a, "a");
    PyObject *right = left != NULL ? value_get(b, "b") : NULL;
    status = TOSC_EINVAL;
    if (right != NULL) {
        Py_INCREF(left);
        Py_INCREF(right);
        status = PyObject_RichCompareBool(left, right, Py_EQ);
        Py_DECREF(left);
        Py_DECREF(right);
        status = status < 0 ? host_failed() : status;
    }
    return host_leave(&entry, status);
}
