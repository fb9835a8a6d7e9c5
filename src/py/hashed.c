/*
 * What dicts and sets ask of their keys.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "hashed.h"

#include "state.h"
#include "wrap.h"

PyObject *
hashed_ask(PyObject *builtin, const char *method, PyObject *const *args, Py_ssize_t nargs)
{
    const PyMethodDef *found = seq_method(Py_TYPE(builtin), method);
    return found != NULL ? seq_call(found, builtin, args, nargs, NULL) : NULL;
}

PyObject *
hashed_key_error(PyObject *key)
{
    PyObject *args = PyTuple_Pack(1, key);
    if (args != NULL) {
        PyErr_SetObject(PyExc_KeyError, args);
        Py_DECREF(args);
    }
    return NULL;
}

/* Neither its hash nor its comparison runs any Python code. */
static bool
is_atom(PyObject *key)
{
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key) || PyBytes_CheckExact(key)
           || PyFloat_CheckExact(key) || PyBool_Check(key) || key == Py_None;
}

static bool
is_leaf(PyObject *key, int levels)
{
    if (is_atom(key)) {
        return true;
    }
    if (PyTuple_CheckExact(key)) {
        bool leaf = levels > 0;
        for (Py_ssize_t i = 0; leaf && i < PyTuple_GET_SIZE(key); i++) {
            leaf = is_leaf(PyTuple_GET_ITEM(key, i), levels - 1);
        }
        return leaf;
    }
    if (PyFrozenSet_CheckExact(key)) {
        PyObject *elements = levels > 0 ? PySequence_Tuple(key) : NULL;
        bool leaf = elements != NULL && is_leaf(elements, levels);
        Py_XDECREF(elements);
        PyErr_Clear();
        return leaf;
    }
    int class = dobject_check(key) ? VALUE_WRAPPER : value_classify(key);
    if (class < 0) {
        PyErr_Clear();
    }
    return class == VALUE_LEAF;
}

bool
hashed_is_leaf(PyObject *key)
{
    return is_leaf(key, 8); /* deeper ones are searched for, which is only slower */
}

/* The very object `key`, if it is a member: a new reference, or NULL. */
static PyObject *
find_same(PyObject *view, PyObject *key)
{
    PyObject *iterator = PyObject_GetIter(view);
    PyObject *member;
    while (iterator != NULL && (member = PyIter_Next(iterator)) != NULL) {
        Py_DECREF(member);
        if (member == key) {
            Py_DECREF(iterator);
            return Py_NewRef(key);
        }
    }
    Py_XDECREF(iterator);
    return NULL;
}

/*
 * An equal member. Neither dict nor set tells which object it holds, but a difference of
 * sets keeps the objects of its left side, and the hashes that are known: all - (all -
 * {key}).
 */
static PyObject *
find_equal(PyObject *view, PyObject *key)
{
    PyObject *found = NULL;
    PyObject *all = PySet_New(view);
    PyObject *wanted = PySet_New(NULL);
    if (all != NULL && wanted != NULL && PySet_Add(wanted, key) == 0) {
        PyObject *rest = PyNumber_Subtract(all, wanted);
        PyObject *equal = rest != NULL ? PyNumber_Subtract(all, rest) : NULL;
        if (equal != NULL && PySet_GET_SIZE(equal) == 0) {
            hashed_key_error(key);
        } else if (equal != NULL) {
            found = PySet_Pop(equal);
        }
        Py_XDECREF(equal);
        Py_XDECREF(rest);
    }
    Py_XDECREF(wanted);
    Py_XDECREF(all);
    return found;
}

PyObject *
hashed_stored(Write *w, PyObject *key)
{
    if (hashed_is_leaf(key)) {
        return Py_NewRef(key);
    }
    PyObject *view = write_view(w);
    PyObject *stored = view != NULL ? find_same(view, key) : NULL;
    if (stored == NULL && !PyErr_Occurred()) {
        stored = find_equal(view, key);
    }
    return stored;
}

/* ---- taking entries out one by one ---- */

/* Below this many entries, stepping over empty slots costs nothing. */
#define FEW 256

/* Is the Write a transaction of its own, so that others see the view as well? */
static bool
is_shared(const Write *w)
{
    return w->object->oid != 0 && !dobject_in_transaction(w->object);
}

/* Is the view held by nobody but its object, the changes under way, and this Write? */
static bool
is_sole(const Write *w, PyObject *view)
{
    return Py_REFCNT(view) <= (is_shared(w) ? 3 : 2);
}

static PyObject *
first_element(PyObject *set)
{
    PyObject *iterator = PyObject_GetIter(set);
    PyObject *element = iterator != NULL ? PyIter_Next(iterator) : NULL;
    Py_XDECREF(iterator);
    return element;
}

PyObject *
hashed_pick(const Write *w, PyObject *set)
{
    if (PySet_GET_SIZE(set) < FEW || is_shared(w) || !is_sole(w, set)) {
        return first_element(set);
    }
    PyObject *element = PySet_Pop(set);
    if (element != NULL && PySet_Add(set, element) < 0) {
        Py_CLEAR(element);
    }
    return element;
}

/* (key, value) of the newest entry; NULL without an exception if there is none. */
static PyObject *
last_item(PyObject *dict)
{
    PyObject *items = hashed_ask(dict, "items", NULL, 0);
    PyObject *iterator =
        items != NULL ? hashed_ask(items, "__reversed__", NULL, 0) : NULL;
    PyObject *item = iterator != NULL ? PyIter_Next(iterator) : NULL;
    Py_XDECREF(iterator);
    Py_XDECREF(items);
    return item;
}

PyObject *
hashed_last(const Write *w, PyObject *dict)
{
    PyObject *item = last_item(dict);
    if (item == NULL || PyDict_GET_SIZE(dict) < FEW || !is_sole(w, dict)
        || !is_atom(PyTuple_GET_ITEM(item, 0))) {
        return item;
    }
    Py_SETREF(item, hashed_ask(dict, "popitem", NULL, 0));
    if (item != NULL
        && PyDict_SetItem(dict, PyTuple_GET_ITEM(item, 0), PyTuple_GET_ITEM(item, 1))
               < 0) {
        Py_CLEAR(item);
    }
    return item;
}
