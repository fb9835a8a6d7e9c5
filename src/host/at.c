/*
 * Finding the element that a tosc_at means.
 *
 * An element is found as a script finds it: object[key], object[index], object.name. For the
 * exact builtins and their distributed forms that is done here without going through the
 * interpreter's protocols, which also tells "not there" from an exception of somebody's
 * __eq__. For all else the protocols are used, and the exception is judged (value_errors.c).
 *
 * What is passed on the way is held by references: code written in Python may run in between
 * and change or drop anything.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include "py/dobject.h"
#include "py/state.h"

#include <string.h>

/* ---- what an object is ---- */

#define LEAF_FLAGS \
    (Py_TPFLAGS_LONG_SUBCLASS | Py_TPFLAGS_UNICODE_SUBCLASS | Py_TPFLAGS_BYTES_SUBCLASS)

static bool
is_leaf(PyObject *object)
{
    int kind = dobject_kind(object);
    return PyType_HasFeature(Py_TYPE(object), LEAF_FLAGS) || object == Py_None
           || PyFloat_Check(object) || PyComplex_Check(object) || PyAnySet_Check(object)
           || PyByteArray_Check(object) || kind == KIND_SET || kind == KIND_BYTES;
}

static enum shape
shape_slow(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (PyTuple_Check(object)) {
        return SHAPE_TUPLE;
    }
    if (PyType_HasFeature(type, Py_TPFLAGS_MAPPING)) {
        return SHAPE_MAPPING;
    }
    if (PyType_HasFeature(type, Py_TPFLAGS_SEQUENCE)) {
        return SHAPE_SEQUENCE;
    }
    return is_leaf(object) ? SHAPE_LEAF : SHAPE_OBJECT;
}

enum shape
shape_of(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (type == tosc_state->DDict_Type || type == &PyDict_Type) {
        return SHAPE_DICT;
    }
    if (type == tosc_state->DList_Type || type == &PyList_Type) {
        return SHAPE_LIST;
    }
    return shape_slow(object);
}

/* ---- one element: 1, 0, or a status ---- */

static bool
has_items(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    return (type->tp_as_mapping != NULL && type->tp_as_mapping->mp_subscript != NULL)
           || (type->tp_as_sequence != NULL && type->tp_as_sequence->sq_item != NULL);
}

/* As the interpreter does object[key]. */
static int
protocol_get(PyObject *object, PyObject *key, PyObject **ret)
{
    if (!has_items(object)) {
        return tosc__fail(TOSC_ETYPE, "an object of type %s has no elements by key",
                          type_name(object));
    }
    PyObject *found = PyObject_GetItem(object, key);
    if (found != NULL) {
        *ret = found;
        return 1;
    }
    if (failed_by_item(key)) {
        PyErr_Clear();
        return 0;
    }
    return value_failed();
}

int
element_by_key(PyObject *object, PyObject *key, PyObject **ret)
{
    int found;
    if (Py_IS_TYPE(object, tosc_state->DDict_Type)) {
        found = dobject_get((DObject *)object, key, ret);
    } else if (PyDict_CheckExact(object)) {
        found = tosc_dict_get(object, key, ret);
    } else {
        return protocol_get(object, key, ret);
    }
    return found >= 0 ? found : value_failed();
}

static int
list_get(PyObject *object, int64_t index, PyObject **ret)
{
    bool wrapped = Py_IS_TYPE(object, tosc_state->DList_Type);
    DObject *list = (DObject *)object;
    if (index < 0 || !wrapped) {
        Py_ssize_t length = wrapped ? dobject_len(list) : PyList_GET_SIZE(object);
        if (length < 0) {
            return value_failed();
        }
        index += index < 0 ? length : 0;
        if (index < 0 || index >= length) {
            return 0;
        }
    }
    if (index > PY_SSIZE_T_MAX) {
        return 0;
    }
    if (!wrapped) {
        *ret = Py_NewRef(PyList_GET_ITEM(object, (Py_ssize_t)index));
        return 1;
    }
    PyObject *item = dobject_item(list, (Py_ssize_t)index);
    if (item == NULL) {
        return PyErr_Occurred() ? value_failed() : 0;
    }
    *ret = item;
    return 1;
}

static int
tuple_get(PyObject *tuple, int64_t index, PyObject **ret)
{
    Py_ssize_t length = PyTuple_GET_SIZE(tuple);
    index += index < 0 ? length : 0;
    if (index < 0 || index >= length) {
        return 0;
    }
    *ret = Py_NewRef(PyTuple_GET_ITEM(tuple, (Py_ssize_t)index));
    return 1;
}

static int
int_key_get(PyObject *object, int64_t index, PyObject **ret)
{
    PyObject *key = PyLong_FromLongLong(index);
    if (key == NULL) {
        return host_failed();
    }
    int found = element_by_key(object, key, ret);
    Py_DECREF(key);
    return found;
}

int
element_by_index(PyObject *object, int64_t index, PyObject **ret)
{
    enum shape shape = shape_of(object);
    if (shape == SHAPE_LIST) {
        return list_get(object, index, ret);
    }
    return shape == SHAPE_TUPLE ? tuple_get(object, index, ret)
                                : int_key_get(object, index, ret);
}

int
attribute_get(PyObject *object, PyObject *name, PyObject **ret)
{
    PyObject *found = PyObject_GetAttr(object, name);
    if (found != NULL) {
        *ret = found;
        return 1;
    }
    if (failed_by_attribute(object, name)) {
        PyErr_Clear();
        return 0;
    }
    return host_failed();
}

/* ---- names ---- */

/* name_of for what the caller gave: TOSC_EINVAL if it is not UTF-8. */
int
at_name(const char *text, size_t size, PyObject **ret)
{
    PyObject *name = name_of(text, size);
    if (name != NULL) {
        *ret = name;
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        return tosc__fail(TOSC_EINVAL, "at: the text is not UTF-8");
    }
    return host_failed();
}

int
element_by_text(PyObject *object, const char *text, size_t size, PyObject **ret)
{
    PyObject *name = NULL;
    int found = at_name(text, size, &name);
    if (found == 0) {
        found = element_by_key(object, name, ret);
        Py_DECREF(name);
    }
    return found;
}

int
element_by_attribute(PyObject *object, const char *text, size_t size, PyObject **ret)
{
    PyObject *name = NULL;
    int found = at_name(text, size, &name);
    if (found == 0) {
        found = attribute_get(object, name, ret);
        Py_DECREF(name);
    }
    return found;
}

/* ---- any element ---- */

int
index_type(PyObject *object, PyObject *key)
{
    return tosc__fail(TOSC_ETYPE,
                      "the key to an element of a %s has to be an int, and is of type %s",
                      type_name(object), type_name(key));
}

static int
item_get(PyObject *object, tosc_value *handle, PyObject **ret)
{
    PyObject *key = value_get(handle, "at: the key");
    if (key == NULL) {
        return TOSC_EINVAL;
    }
    enum shape shape = shape_of(object);
    if ((shape == SHAPE_LIST || shape == SHAPE_TUPLE) && !PyLong_Check(key)) {
        return index_type(object, key);
    }
    Py_INCREF(key);
    int found = element_by_key(object, key, ret);
    Py_DECREF(key);
    return found;
}

int
element_missing(PyObject *object, tosc_at at)
{
    if (at.kind == TOSC_AT_KEY) {
        return tosc__fail(TOSC_ENOTFOUND, "no key '%.200s' in the %s", at.where.text,
                          type_name(object));
    }
    if (at.kind == TOSC_AT_INDEX) {
        enum shape shape = shape_of(object);
        bool keyed = shape == SHAPE_DICT || shape == SHAPE_MAPPING;
        return tosc__fail(TOSC_ENOTFOUND, "no %s %lld in the %s", keyed ? "key" : "index",
                          (long long)at.where.index, type_name(object));
    }
    if (at.kind == TOSC_AT_ATTRIBUTE) {
        return tosc__fail(TOSC_ENOTFOUND, "no attribute '%.200s' in the %s",
                          at.where.text, type_name(object));
    }
    return tosc__fail(TOSC_ENOTFOUND, "no such key in the %s", type_name(object));
}

static int
check_text(tosc_at at)
{
    return at.where.text != NULL ? 0 : missing_argument("at: the text");
}

static inline int
look(PyObject *object, tosc_at at, bool quiet, PyObject **ret)
{
    switch (at.kind) {
    case TOSC_AT_SELF:
        *ret = Py_NewRef(object);
        return 1;
    case TOSC_AT_KEY:
        return check_text(at) < 0
                   ? TOSC_EINVAL
                   : element_by_text(object, at.where.text, strlen(at.where.text), ret);
    case TOSC_AT_INDEX:
        return element_by_index(object, at.where.index, ret);
    case TOSC_AT_ITEM:
        return item_get(object, at.where.key, ret);
    case TOSC_AT_ATTRIBUTE:
        return check_text(at) < 0 ? TOSC_EINVAL
                                  : element_by_attribute(object, at.where.text,
                                                         strlen(at.where.text), ret);
    case TOSC_AT_PATH:
        return check_text(at) < 0 ? TOSC_EINVAL
                                  : path_find(object, at.where.text, quiet, ret);
    default:
        return tosc__fail(TOSC_EINVAL, "at: %d is no kind of place", at.kind);
    }
}

int
at_look(PyObject *object, tosc_at at, PyObject **ret)
{
    Py_INCREF(object);
    int found = look(object, at, true, ret);
    Py_DECREF(object);
    return found;
}

int
at_find(PyObject *object, tosc_at at, PyObject **ret)
{
    Py_INCREF(object);
    int found = look(object, at, false, ret);
    if (found == 0) {
        found = at.kind == TOSC_AT_PATH ? TOSC_ENOTFOUND : element_missing(object, at);
    }
    Py_DECREF(object);
    return found > 0 ? 0 : found;
}
