/*
 * DDict: what changes it.
 *
 * Keys are hashed and all arguments converted and adopted before the Write begins; what
 * the change does is decided inside of it, and a change that would change nothing is
 * given up. update() and its kin therefore do all or nothing, where the builtin keeps
 * what it did before an error.
 *
 * A key that names an existing entry is replaced by the stored one unless it is a leaf,
 * since a commit must not speak of objects that are not in the tree.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ddict.h"

/* The dict must not learn in the middle of a change that a key has no hash. */
static int
check_hash(PyObject *key)
{
    return PyUnicode_CheckExact(key) || PyObject_Hash(key) != -1 ? 0 : -1;
}

/* A class with two of our types as bases can pass an object that is no dict inside. */
static int
begin(Write *w, DObject *self)
{
    return seq_check_kind((PyObject *)self, KIND_DICT) < 0 ? -1 : write_begin(w, self);
}

/* ---- one entry ---- */

/* Both adopted. */
static int
store(DObject *self, PyObject *key, PyObject *value)
{
    if (hashed_is_leaf(key)) {
        return dobject_change(self, OP_SET, 0, 0, key, value);
    }
    Write w;
    PyObject *old;
    if (begin(&w, self) < 0) {
        return -1;
    }
    int found = write_get(&w, key, &old);
    PyObject *stored = found > 0 ? hashed_stored(&w, key) : NULL;
    bool failed = found < 0 || (found > 0 && stored == NULL)
                  || write_op(&w, OP_SET, 0, 0, stored != NULL ? stored : key, value) < 0;
    int result = failed ? -1 : write_commit(&w);
    if (failed) {
        write_abort(&w);
    }
    Py_XDECREF(stored);
    Py_XDECREF(old);
    return result;
}

/*
 * `d[k] += x` of a wrapper changes the wrapper and then sets it where it is already. That
 * second step is no change.
 */
static int
is_there(DObject *self, PyObject *key, PyObject *value)
{
    PyObject *old;
    if (!dobject_check(value)) {
        return 0;
    }
    int found = dobject_get(self, key, &old);
    if (found > 0) {
        found = old == value;
        Py_DECREF(old);
    }
    return found;
}

static int
set_item(DObject *self, PyObject *key, PyObject *value)
{
    if (seq_check_kind((PyObject *)self, KIND_DICT) < 0 || check_hash(key) < 0) {
        return -1;
    }
    int there = is_there(self, key, value);
    if (there != 0) {
        return there < 0 ? -1 : 0;
    }
    PyObject *adopted_key = dobject_adopt(self, key);
    PyObject *adopted = adopted_key != NULL ? dobject_adopt(self, value) : NULL;
    int result = adopted != NULL ? store(self, adopted_key, adopted) : -1;
    Py_XDECREF(adopted);
    Py_XDECREF(adopted_key);
    return result;
}

/* Removes an entry and gives its value: 1, 0 if there is none, -1 with an exception. */
static int
take(DObject *self, PyObject *key, PyObject **ret)
{
    Write w;
    PyObject *value;
    PyObject *stored = NULL;
    if (check_hash(key) < 0 || begin(&w, self) < 0) {
        return -1;
    }
    int found = write_get(&w, key, &value);
    if (found > 0) {
        stored = hashed_stored(&w, key);
        if (stored == NULL || write_op(&w, OP_DEL, 0, 0, stored, NULL) < 0) {
            found = -1;
        }
    }
    if (found <= 0) {
        write_abort(&w);
    } else if (write_commit(&w) < 0) {
        found = -1;
    }
    Py_XDECREF(stored);
    if (found <= 0) {
        Py_CLEAR(value);
    }
    *ret = value;
    return found;
}

int
ddict_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    if (value != NULL) {
        return set_item((DObject *)self, key, value);
    }
    PyObject *old;
    int found = take((DObject *)self, key, &old);
    if (found == 0) {
        hashed_key_error(key);
    }
    if (found > 0) {
        Py_DECREF(old);
    }
    return found > 0 ? 0 : -1;
}

PyObject *
ddict_pop(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *value = NULL;
    if (seq_check_count("pop", nargs, 1, 2) < 0 || seq_check_kind(self, KIND_DICT) < 0) {
        return NULL;
    }
    /* The builtin does not ask an empty dict's key for its hash. */
    Py_ssize_t length = dobject_len((DObject *)self);
    int found = length > 0 ? take((DObject *)self, args[0], &value) : (int)length;
    if (found != 0) {
        return found < 0 ? NULL : value;
    }
    return nargs > 1 ? Py_NewRef(args[1]) : hashed_key_error(args[0]);
}

PyObject *
ddict_popitem(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Write w;
    if (begin(&w, (DObject *)self) < 0) {
        return NULL;
    }
    PyObject *view = write_view(&w);
    PyObject *item = view != NULL ? hashed_last(&w, view) : NULL;
    if (item == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_KeyError, "popitem(): dictionary is empty");
    }
    if (item == NULL || write_op(&w, OP_DEL, 0, 0, PyTuple_GET_ITEM(item, 0), NULL) < 0) {
        write_abort(&w);
        Py_XDECREF(item);
        return NULL;
    }
    if (write_commit(&w) < 0) {
        Py_CLEAR(item);
    }
    return item;
}

/* Stores `value` unless the key has one; *ret is what it then has. 0 or -1. */
static int
store_default(DObject *self, PyObject *key, PyObject *value, PyObject **ret)
{
    Write w;
    if (begin(&w, self) < 0) {
        return -1;
    }
    int found = write_get(&w, key, ret);
    if (found == 0 && write_op(&w, OP_SET, 0, 0, key, value) < 0) {
        found = -1;
    }
    if (found != 0) {
        write_abort(&w);
        return found < 0 ? -1 : 0;
    }
    if (write_commit(&w) < 0) {
        return -1;
    }
    *ret = Py_NewRef(value);
    return 0;
}

PyObject *
ddict_setdefault(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    DObject *self = (DObject *)op;
    PyObject *result = NULL;
    if (seq_check_count("setdefault", nargs, 1, 2) < 0
        || seq_check_kind(op, KIND_DICT) < 0 || check_hash(args[0]) < 0) {
        return NULL;
    }
    int found = dobject_get(self, args[0], &result);
    if (found != 0) {
        return found < 0 ? NULL : result;
    }
    PyObject *key = dobject_adopt(self, args[0]);
    PyObject *value =
        key != NULL ? dobject_adopt(self, nargs > 1 ? args[1] : Py_None) : NULL;
    if (value != NULL && store_default(self, key, value, &result) < 0) {
        Py_CLEAR(result);
    }
    Py_XDECREF(value);
    Py_XDECREF(key);
    return result;
}

/* ---- many entries ---- */

/* Is it a DDict that iterates as it should, so that its keys() need not be asked? */
static bool
iterates_plainly(PyObject *value)
{
    return dobject_kind(value) == KIND_DICT
           && Py_TYPE(value)->tp_iter == tosc_state->DDict_Type->tp_iter;
}

/* What update() is given, as a new exact dict, not adopted yet. */
static PyObject *
collect(PyObject *source, PyObject *keywords)
{
    PyObject *items;
    if (source == NULL) {
        items = PyDict_New();
    } else if (PyDict_CheckExact(source)) {
        items = PyDict_Copy(source);
    } else if (iterates_plainly(source)) {
        PyObject *view = dobject_view((DObject *)source); /* all of one moment */
        items = view != NULL ? PyDict_Copy(view) : NULL;
        Py_XDECREF(view);
    } else {
        items = PyObject_CallOneArg((PyObject *)&PyDict_Type, source);
    }
    if (items != NULL && keywords != NULL
        && (!PyArg_ValidateKeywordArguments(keywords)
            || PyDict_Update(items, keywords) < 0)) {
        Py_CLEAR(items);
    }
    return items;
}

static bool
has_only_leaf_keys(PyObject *dict)
{
    Py_ssize_t pos = 0;
    PyObject *key;
    while (PyDict_Next(dict, &pos, &key, NULL)) {
        if (!hashed_is_leaf(key)) {
            return false;
        }
    }
    return true;
}

/* `items` with the keys that are stored for the same entries. */
static PyObject *
with_stored_keys(Write *w, PyObject *items)
{
    PyObject *result = PyDict_New();
    Py_ssize_t pos = 0;
    PyObject *key;
    PyObject *value;
    while (result != NULL && PyDict_Next(items, &pos, &key, &value)) {
        PyObject *old;
        PyObject *stored = NULL;
        int found = write_get(w, key, &old);
        if (found >= 0) {
            stored = found > 0 ? hashed_stored(w, key) : Py_NewRef(key);
        }
        if (stored == NULL || PyDict_SetItem(result, stored, value) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(stored);
        Py_XDECREF(old);
    }
    return result;
}

/* For keys that are objects of the tree. `items` is adopted. */
static int
merge_objects(DObject *self, PyObject *items)
{
    Write w;
    if (begin(&w, self) < 0) {
        return -1;
    }
    PyObject *merged = with_stored_keys(&w, items);
    if (merged == NULL || write_op(&w, OP_UPDATE, 0, 0, merged, NULL) < 0) {
        write_abort(&w);
        Py_XDECREF(merged);
        return -1;
    }
    int result = write_commit(&w);
    Py_DECREF(merged);
    return result;
}

int
ddict_merge(DObject *self, PyObject *source, PyObject *keywords)
{
    if (seq_check_kind((PyObject *)self, KIND_DICT) < 0) {
        return -1;
    }
    PyObject *items = collect(source, keywords);
    if (items == NULL || PyDict_GET_SIZE(items) == 0) {
        Py_XDECREF(items);
        return items != NULL ? 0 : -1;
    }
    PyObject *adopted = dobject_adopt_dict(self, items);
    Py_DECREF(items);
    if (adopted == NULL) {
        return -1;
    }
    int result = has_only_leaf_keys(adopted)
                     ? dobject_change(self, OP_UPDATE, 0, 0, adopted, NULL)
                     : merge_objects(self, adopted);
    Py_DECREF(adopted);
    return result;
}

PyObject *
ddict_update(PyObject *self, PyObject *args, PyObject *kwds)
{
    PyObject *source = NULL;
    if (!PyArg_UnpackTuple(args, "update", 0, 1, &source)
        || ddict_merge((DObject *)self, source, kwds) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
ddict_inplace_or(PyObject *self, PyObject *other)
{
    return ddict_merge((DObject *)self, other, NULL) < 0 ? NULL : Py_NewRef(self);
}

PyObject *
ddict_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Write w;
    PyObject *empty = PyDict_New();
    if (empty == NULL || begin(&w, (DObject *)self) < 0) {
        Py_XDECREF(empty);
        return NULL;
    }
    Py_ssize_t length = write_len(&w);
    int result = length < 0 ? -1 : 0;
    if (length > 0) {
        result = write_op(&w, OP_ASSIGN, 0, 0, empty, NULL);
    }
    if (length > 0 && result == 0) {
        result = write_commit(&w);
    } else {
        write_abort(&w);
    }
    Py_DECREF(empty);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
