/*
 * Iterators.
 *
 * An iterator goes over a snapshot that nobody changes: what a distributed container shows at
 * the moment (which is not copied, see dobject.h), or a copy of a plain one. It is a struct in
 * a capsule, to which the user has a handle. What it gives are two handles of its own, lent to
 * the user until the next step, which gives them new generations.
 *
 * A step may run code written in Python, as it drops what the step before has given; so the
 * iterator has taken its step by then, and is held.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include "py/dobject.h"
#include "py/wrap.h"

static const char capsule_name[] = "tosc.iterator";

enum walk { WALK_LIST, WALK_TUPLE, WALK_DICT, WALK_SET };

typedef struct Iterator {
    enum walk walk;
    PyObject *source; /* list, tuple or dict; an iterator over a set */
    Py_ssize_t position;
    void *key; /* handles, or NULL */
    void *item;
} Iterator;

/* ---- snapshots ---- */

static PyObject *
dict_of(PyObject *mapping)
{
    PyObject *dict = PyDict_New();
    if (dict != NULL && PyDict_Update(dict, mapping) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* object.__dict__, or what its slots hold. */
static PyObject *
attributes_of(PyObject *object)
{
    if (dobject_kind(object) < 0 && dany_suits(object) > 0) {
        return dany_take_apart(object);
    }
    PyErr_Clear();
    PyObject *name = name_of("__dict__", 8);
    PyObject *attributes = name != NULL ? PyObject_GetAttr(object, name) : NULL;
    bool none = attributes == NULL && name != NULL && failed_by_attribute(object, name);
    Py_XDECREF(name);
    if (none) {
        PyErr_Clear();
        return PyDict_New();
    }
    PyObject *copy = attributes != NULL ? dict_of(attributes) : NULL;
    Py_XDECREF(attributes);
    return copy;
}

static PyObject *
wrapper_source(PyObject *object, enum walk *ret)
{
    int kind = dobject_kind(object);
    PyObject *view = dobject_view((DObject *)object);
    *ret = kind == KIND_LIST ? WALK_LIST : kind == KIND_SET ? WALK_SET : WALK_DICT;
    if (view != NULL && kind == KIND_SET) {
        Py_SETREF(view, PyObject_GetIter(view));
    }
    return view;
}

static PyObject *
set_source(PyObject *set)
{
    PyObject *copy = PyFrozenSet_CheckExact(set) ? Py_NewRef(set) : PySet_New(set);
    PyObject *iterator = copy != NULL ? PyObject_GetIter(copy) : NULL;
    Py_XDECREF(copy);
    return iterator;
}

/* What has no exact type: by what it can do. */
static PyObject *
other_source(PyObject *object, enum walk *ret)
{
    enum shape shape = shape_of(object);
    if (shape == SHAPE_MAPPING) {
        *ret = WALK_DICT;
        return dict_of(object);
    }
    if (shape == SHAPE_SEQUENCE) {
        *ret = WALK_LIST;
        return PySequence_List(object);
    }
    int type = dobject_kind(object) == KIND_ANY ? TOSC_OBJECT : value_type(object);
    if (type == TOSC_SET) {
        *ret = WALK_SET;
        return set_source(object);
    }
    *ret = WALK_DICT;
    return dobject_kind(object) == KIND_ANY ? wrapper_source(object, ret)
                                            : attributes_of(object);
}

/* A new reference to what is walked over; NULL with an exception. */
static PyObject *
source_of(PyObject *object, enum walk *ret)
{
    int kind = dobject_kind(object);
    if (kind == KIND_LIST || kind == KIND_DICT || kind == KIND_SET) {
        return wrapper_source(object, ret);
    }
    if (PyList_CheckExact(object)) {
        *ret = WALK_LIST;
        return PyList_GetSlice(object, 0, PyList_GET_SIZE(object));
    }
    if (PyTuple_Check(object)) {
        *ret = WALK_TUPLE;
        return Py_NewRef(object);
    }
    if (PyDict_CheckExact(object)) {
        *ret = WALK_DICT;
        return PyDict_Copy(object);
    }
    if (PyAnySet_Check(object)) {
        *ret = WALK_SET;
        return set_source(object);
    }
    return other_source(object, ret);
}

/* ---- life ---- */

static void
iterator_end(PyObject *capsule)
{
    Iterator *self = PyCapsule_GetPointer(capsule, capsule_name);
    if (self != NULL) {
        handle_end(self->key);
        handle_end(self->item);
        Py_XDECREF(self->source);
        PyMem_Free(self);
    }
}

/* Takes over the source; NULL: an exception is set. */
static PyObject *
iterator_make(PyObject *source, enum walk walk)
{
    Iterator *self = source != NULL ? PyMem_Calloc(1, sizeof(*self)) : NULL;
    if (self == NULL) {
        if (source != NULL) {
            Py_DECREF(source);
            PyErr_NoMemory();
        }
        return NULL;
    }
    self->walk = walk;
    self->source = source;
    PyObject *capsule = PyCapsule_New(self, capsule_name, iterator_end);
    if (capsule == NULL) {
        Py_DECREF(source);
        PyMem_Free(self);
    }
    return capsule;
}

static int
iterator_new(PyObject *object, tosc_at at, tosc_iterator **ret)
{
    enum walk walk = WALK_LIST;
    int kind = dobject_kind(object);
    if (kind == KIND_BYTES
        || (shape_of(object) == SHAPE_LEAF && kind != KIND_SET
            && !PyAnySet_Check(object))) {
        return wrong_type(at, object, "anything that has elements");
    }
    PyObject *source = source_of(object, &walk);
    PyObject *capsule = iterator_make(source, walk);
    if (capsule == NULL) {
        return value_failed();
    }
    void *handle = handle_new(HANDLE_ITERATOR, capsule);
    if (handle == NULL) {
        return TOSC_ENOMEM;
    }
    *ret = handle;
    return 0;
}

int
tosc_iterator_new(tosc_value *value, tosc_at at, tosc_iterator **ret)
{
    HostEntry entry;
    PyObject *found;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = enter_and_find(&entry, value, at, &found);
    return status < 0 ? status : found_leave(&entry, found, iterator_new(found, at, ret));
}

tosc_iterator *
tosc_iterator_free(tosc_iterator *iterator)
{
    HostEntry entry;
    if (iterator != NULL && host_enter(&entry) == 0) {
        handle_unref(iterator, HANDLE_ITERATOR);
        host_leave(&entry, 0);
    }
    return NULL;
}

/* ---- steps ---- */

/* 1: there is one, new references (*ret_key NULL: of a set, or not wanted); 0; -1: exception. */
static int
step(Iterator *self, bool wants_key, PyObject **ret_key, PyObject **ret_item)
{
    Py_ssize_t at = self->position;
    *ret_key = NULL;
    if (self->walk == WALK_DICT) {
        if (!PyDict_Next(self->source, &self->position, ret_key, ret_item)) {
            return 0;
        }
        Py_INCREF(*ret_key);
        Py_INCREF(*ret_item);
        return 1;
    }
    if (self->walk == WALK_SET) {
        *ret_item = PyIter_Next(self->source);
        return *ret_item != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
    }
    bool list = self->walk == WALK_LIST;
    if (at >= (list ? PyList_GET_SIZE(self->source) : PyTuple_GET_SIZE(self->source))) {
        return 0;
    }
    if (wants_key) {
        *ret_key = PyLong_FromSsize_t(at);
        if (*ret_key == NULL) {
            return -1;
        }
    }
    *ret_item = Py_NewRef(list ? PyList_GET_ITEM(self->source, at)
                               : PyTuple_GET_ITEM(self->source, at));
    self->position++;
    return 1;
}

/* The iterator's handle now stands for this object, which is taken over; NULL: for nothing. */
static int
show(void **handle, PyObject *object)
{
    void *before = *handle;
    *handle = NULL;
    if (object == NULL) {
        handle_end(before);
        return 0;
    }
    void *after = handle_replace(before, object);
    if (*handle != NULL) { /* somebody else went on with this iterator meanwhile */
        handle_end(*handle);
    }
    *handle = after;
    return after != NULL ? 0 : TOSC_ENOMEM;
}

static int
iterator_next(Iterator *self, tosc_value **ret_key, tosc_value **ret_item)
{
    PyObject *key = NULL;
    PyObject *item = NULL;
    int found = step(self, ret_key != NULL, &key, &item);
    if (found < 0) {
        return host_failed();
    }
    if (ret_key == NULL) {
        Py_CLEAR(key);
    }
    if (ret_item == NULL) {
        Py_CLEAR(item);
    }
    int key_shown = show(&self->key, key);
    int item_shown = show(&self->item, item);
    if (key_shown < 0 || item_shown < 0) {
        return TOSC_ENOMEM;
    }
    if (found > 0 && ret_key != NULL) {
        *ret_key = self->key;
    }
    if (found > 0 && ret_item != NULL) {
        *ret_item = self->item;
    }
    return found;
}

int
tosc_iterator_next(tosc_iterator *iterator, tosc_value **ret_key, tosc_value **ret_item)
{
    HostEntry entry;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *capsule = handle_get(iterator, HANDLE_ITERATOR, "iterator");
    if (capsule == NULL) {
        return host_leave(&entry, TOSC_EINVAL);
    }
    Py_INCREF(capsule);
    Iterator *self = PyCapsule_GetPointer(capsule, capsule_name);
    status = self != NULL ? iterator_next(self, ret_key, ret_item) : host_failed();
    Py_DECREF(capsule);
    return host_leave(&entry, status);
}
