/*
 * States and the operations on them.
 *
 * There is one list of operations (enum op_code) and one function that does them, op_apply().
 * It serves three masters: a transaction's private copy, a commit of ours, and a commit that
 * was read from the store. So what a reader replays is by construction what the writer did.
 * Whatever an operation replaces is handed to the caller (Traffic), who counts links by it
 * and lets go of it when it is safe to run finalisers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ops.h"

#include "wrap.h"

PyObject *tosc_gone;

/* ---- lists of references and operations ---- */

int
reflist_reserve(RefList *list, Py_ssize_t more)
{
    Py_ssize_t need = list->count + more;
    if (need <= list->room) {
        return 0;
    }
    Py_ssize_t room = list->room ? list->room * 2 : 16;
    if (room < need) {
        room = need;
    }
    PyObject **items = PyMem_Realloc(list->items, (size_t)room * sizeof(*items));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    list->items = items;
    list->room = room;
    return 0;
}

int
reflist_add(RefList *list, PyObject *item)
{
    if (list->count == list->room && reflist_reserve(list, 1) < 0) {
        return -1;
    }
    list->items[list->count++] = Py_NewRef(item);
    return 0;
}

void
reflist_clear(RefList *list)
{
    PyObject **items = list->items;
    Py_ssize_t count = list->count;
    *list = (RefList){0};
    while (count > 0) {
        Py_DECREF(items[--count]);
    }
    PyMem_Free(items);
}

int
oplist_add(OpList *list, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a, PyObject *b)
{
    if (list->count == list->room) {
        Py_ssize_t room = list->room ? list->room * 2 : 2;
        Op *items = PyMem_Realloc(list->items, (size_t)room * sizeof(*items));
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = (Op){code, lo, hi, Py_XNewRef(a), Py_XNewRef(b)};
    return 0;
}

void
oplist_drop_last(OpList *list)
{
    Op op = list->items[--list->count];
    Py_XDECREF(op.a);
    Py_XDECREF(op.b);
}

void
oplist_clear(OpList *list)
{
    OpList old = *list;
    *list = (OpList){0};
    while (old.count > 0) {
        oplist_drop_last(&old);
    }
    PyMem_Free(old.items);
}

/* ---- states ---- */

PyObject *
state_new(int kind)
{
    switch (kind) {
    case KIND_LIST:
        return PyList_New(0);
    case KIND_DICT:
    case KIND_ANY:
        return PyDict_New();
    case KIND_SET:
        return PySet_New(NULL);
    case KIND_BYTES:
        return PyByteArray_FromStringAndSize(NULL, 0);
    default:
        return Py_NewRef(Py_None);
    }
}

PyObject *
state_copy(int kind, PyObject *state)
{
    switch (kind) {
    case KIND_LIST:
        return PyList_GetSlice(state, 0, PyList_GET_SIZE(state));
    case KIND_DICT:
    case KIND_ANY:
        return PyDict_Copy(state);
    case KIND_SET:
        return PySet_New(state);
    case KIND_BYTES:
        return PyByteArray_FromStringAndSize(PyByteArray_AS_STRING(state),
                                             PyByteArray_GET_SIZE(state));
    default:
        return Py_NewRef(state);
    }
}

Py_ssize_t
state_len(int kind, PyObject *state)
{
    switch (kind) {
    case KIND_LIST:
        return PyList_GET_SIZE(state);
    case KIND_DICT:
    case KIND_ANY:
        return PyDict_GET_SIZE(state);
    case KIND_SET:
        return PySet_GET_SIZE(state);
    case KIND_BYTES:
        return PyByteArray_GET_SIZE(state);
    default:
        return 0;
    }
}

static inline bool
is_atom(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type
           || value == Py_None || type == &PyBool_Type || type == &PyBytes_Type;
}

/*
 * Tuples in tuples are followed with a stack of our own: depth is bounded by memory. Frozen
 * sets hold hashable things only; they are nested by few, so recursion does for them.
 */
static int
visit_tuple(PyObject *tuple, ref_visitor visit, void *arg)
{
    RefList stack = {0};
    int result = 0;
    for (;;) {
        Py_ssize_t n = PyTuple_GET_SIZE(tuple);
        for (Py_ssize_t i = 0; i < n && result == 0; i++) {
            PyObject *item = PyTuple_GET_ITEM(tuple, i);
            if (is_atom(item)) {
                continue;
            }
            if (PyTuple_Check(item)) {
                result = reflist_add(&stack, item);
            } else {
                result = value_visit(item, visit, arg);
            }
        }
        if (result != 0 || stack.count == 0) {
            break;
        }
        tuple = stack.items[--stack.count];
        Py_DECREF(tuple); /* its own container keeps it */
    }
    reflist_clear(&stack);
    return result;
}

int
value_visit(PyObject *value, ref_visitor visit, void *arg)
{
    if (is_atom(value)) {
        return 0;
    }
    if (dobject_check(value)) {
        return visit((DObject *)value, arg);
    }
    if (PyTuple_Check(value)) {
        return visit_tuple(value, visit, arg);
    }
    if (PyFrozenSet_Check(value)) {
        return state_visit(KIND_SET, value, visit, arg);
    }
    return 0;
}

static int
visit_set(PyObject *set, ref_visitor visit, void *arg)
{
    PyObject *iterator = PyObject_GetIter(set);
    if (iterator == NULL) {
        return -1;
    }
    int result = 0;
    PyObject *item;
    while (result == 0 && (item = PyIter_Next(iterator)) != NULL) {
        result = value_visit(item, visit, arg);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    return result != 0 || PyErr_Occurred() ? -1 : 0;
}

int
state_visit(int kind, PyObject *state, ref_visitor visit, void *arg)
{
    switch (kind) {
    case KIND_LIST:
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(state); i++) {
            if (value_visit(PyList_GET_ITEM(state, i), visit, arg) != 0) {
                return -1;
            }
        }
        return 0;
    case KIND_DICT:
    case KIND_ANY: {
        Py_ssize_t pos = 0;
        PyObject *key;
        PyObject *value;
        if (!PyObject_GC_IsTracked(state)) {
            return 0; /* it holds nothing that could be part of a cycle, so no wrapper */
        }
        while (PyDict_Next(state, &pos, &key, &value)) {
            if (value_visit(key, visit, arg) != 0
                || value_visit(value, visit, arg) != 0) {
                return -1;
            }
        }
        return 0;
    }
    case KIND_SET:
        return visit_set(state, visit, arg);
    case KIND_OPAQUE:
        if (state == Py_None) {
            return 0;
        }
        return visit_tuple(((OpaqueState *)state)->refs, visit, arg);
    default:
        return 0;
    }
}

/* ---- operations ---- */

static bool
is_plain(PyObject *key, int levels)
{
    if (is_atom(key)) {
        return true;
    }
    if (!PyTuple_CheckExact(key) || levels == 0) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); i++) {
        if (!is_plain(PyTuple_GET_ITEM(key, i), levels - 1)) {
            return false;
        }
    }
    return true;
}

/* Is it sure that hashing and comparing it runs no Python code? */
static bool
key_is_plain(PyObject *key)
{
    return is_plain(key, 8);
}

static bool
set_is_plain(PyObject *set)
{
    PyObject *iterator = PyObject_GetIter(set);
    bool plain = iterator != NULL;
    PyObject *item;
    while (plain && (item = PyIter_Next(iterator)) != NULL) {
        plain = key_is_plain(item);
        Py_DECREF(item);
    }
    Py_XDECREF(iterator);
    PyErr_Clear();
    return plain;
}

bool
op_is_plain(int kind, const Op *op)
{
    if (kind == KIND_LIST || kind == KIND_BYTES || kind == KIND_OPAQUE) {
        return true;
    }
    switch (op->code) {
    case OP_SET:
    case OP_DEL:
        return key_is_plain(op->a);
    case OP_ADD:
    case OP_DISCARD:
        return set_is_plain(op->a);
    case OP_UPDATE: {
        Py_ssize_t pos = 0;
        PyObject *key;
        while (PyDict_Next(op->a, &pos, &key, NULL)) {
            if (!key_is_plain(key)) {
                return false;
            }
        }
        return true;
    }
    default:
        return false;
    }
}

static int
is_ref(DObject *wrapper, void *arg)
{
    (void)wrapper;
    (void)arg;
    return 1;
}

int
key_traits(PyObject *key)
{
    return key_is_plain(key) ? 0
                             : KEYS_ODD | (value_visit(key, is_ref, NULL) ? KEYS_REF : 0);
}

int
state_key_traits(int kind, PyObject *state)
{
    int traits = 0;
    if (kind == KIND_DICT) {
        Py_ssize_t pos = 0;
        PyObject *key;
        while (PyDict_Next(state, &pos, &key, NULL)) {
            traits |= key_traits(key);
        }
    } else if (kind == KIND_SET) {
        PyObject *iterator = PyObject_GetIter(state);
        PyObject *item;
        while (iterator != NULL && (item = PyIter_Next(iterator)) != NULL) {
            traits |= key_traits(item);
            Py_DECREF(item);
        }
        Py_XDECREF(iterator);
        if (PyErr_Occurred()) {
            PyErr_Clear(); /* no memory for an iterator: be careful */
            traits = KEYS_ODD | KEYS_REF;
        }
    }
    return traits;
}

static int
dict_set(PyObject *dict, PyObject *key, PyObject *value, Traffic *traffic)
{
    PyObject *old;
    int found = tosc_dict_get(dict, key, &old);
    if (found < 0) {
        return -1;
    }
    int result = 0;
    if (traffic != NULL) {
        /* All room is made first, so that nothing is half done when memory ends. */
        if (reflist_reserve(&traffic->in, 2) < 0
            || reflist_reserve(&traffic->out, 1) < 0) {
            result = -1;
        }
    }
    if (result == 0 && (result = PyDict_SetItem(dict, key, value)) == 0
        && traffic != NULL) {
        if (!found) {
            reflist_add(&traffic->in, key);
            traffic->keys |= key_traits(key);
        } else {
            reflist_add(&traffic->out, old);
        }
        reflist_add(&traffic->in, value);
    }
    Py_XDECREF(old);
    return result;
}

static int
dict_update(PyObject *dict, PyObject *other, Traffic *traffic)
{
    Py_ssize_t pos = 0;
    PyObject *key;
    PyObject *value;
    while (PyDict_Next(other, &pos, &key, &value)) {
        if (dict_set(dict, key, value, traffic) < 0) {
            return -1;
        }
    }
    return 0;
}

/*
 * The key or element that is stored, which may be another object than the equal one that was
 * asked for. It makes a difference only where links are counted, for wrappers.
 */
static int
stored_key(PyObject *container, PyObject *key, const Traffic *traffic, PyObject **ret)
{
    *ret = NULL;
    if (!(traffic->keys & KEYS_REF) || key_is_plain(key)) {
        *ret = Py_NewRef(key);
        return 0;
    }
    Py_hash_t hash = PyObject_Hash(key);
    PyObject *keys = hash == -1 ? NULL : PySequence_List(container);
    if (keys == NULL) {
        return -1;
    }
    int same = 0;
    /* Mostly it is the very same object: then no foreign code need run. */
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys) && same == 0; i++) {
        if (PyList_GET_ITEM(keys, i) == key) {
            *ret = Py_NewRef(key);
            same = 1;
        }
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys) && same == 0; i++) {
        PyObject *stored = PyList_GET_ITEM(keys, i);
        Py_hash_t other = is_atom(stored) ? -1 : PyObject_Hash(stored);
        if (other == hash) {
            same = PyObject_RichCompareBool(stored, key, Py_EQ);
        } else if (other == -1 && PyErr_Occurred()) {
            same = -1;
        }
        if (same > 0) {
            *ret = Py_NewRef(stored);
        }
    }
    Py_DECREF(keys);
    if (same == 0) {
        *ret = Py_NewRef(key);
    }
    return same < 0 ? -1 : 0;
}

static int
dict_del(PyObject *dict, PyObject *key, Traffic *traffic)
{
    PyObject *old;
    int found = tosc_dict_get(dict, key, &old);
    if (found <= 0) {
        if (found == 0) {
            PyErr_SetObject(PyExc_KeyError, key);
        }
        return -1;
    }
    PyObject *stored = NULL;
    int result = 0;
    if (traffic != NULL
        && (reflist_reserve(&traffic->out, 2) < 0
            || stored_key(dict, key, traffic, &stored) < 0)) {
        result = -1;
    }
    if (result == 0 && (result = PyDict_DelItem(dict, key)) == 0 && traffic != NULL) {
        reflist_add(&traffic->out, stored);
        reflist_add(&traffic->out, old);
    }
    Py_XDECREF(stored);
    Py_DECREF(old);
    return result;
}

static int
list_item(PyObject *list, Py_ssize_t index, PyObject *value, Traffic *traffic)
{
    if (index < 0 || index >= PyList_GET_SIZE(list)) {
        PyErr_SetString(PyExc_IndexError, "list assignment index out of range");
        return -1;
    }
    if (traffic != NULL) {
        if (reflist_reserve(&traffic->in, 1) < 0
            || reflist_reserve(&traffic->out, 1) < 0) {
            return -1;
        }
        reflist_add(&traffic->in, value);
        reflist_add(&traffic->out, PyList_GET_ITEM(list, index));
    }
    return PyList_SetItem(list, index, Py_NewRef(value));
}

static int
list_splice(PyObject *list, Py_ssize_t lo, Py_ssize_t hi, PyObject *items,
            Traffic *traffic)
{
    Py_ssize_t size = PyList_GET_SIZE(list);
    Py_ssize_t added = items == NULL ? 0 : PyList_GET_SIZE(items);
    if (lo < 0 || lo > hi || hi > size) {
        PyErr_SetString(PyExc_IndexError, "list slice out of range");
        return -1;
    }
    if (traffic != NULL) {
        if (reflist_reserve(&traffic->in, added) < 0
            || reflist_reserve(&traffic->out, hi - lo) < 0) {
            return -1;
        }
        for (Py_ssize_t i = 0; i < added; i++) {
            reflist_add(&traffic->in, PyList_GET_ITEM(items, i));
        }
        for (Py_ssize_t i = lo; i < hi; i++) {
            reflist_add(&traffic->out, PyList_GET_ITEM(list, i));
        }
    }
    if (added == 1 && lo == size) {
        return PyList_Append(list, PyList_GET_ITEM(items, 0));
    }
    return PyList_SetSlice(list, lo, hi, items);
}

static int
bytes_splice(PyObject *array, Py_ssize_t lo, Py_ssize_t hi, PyObject *bytes)
{
    Py_ssize_t size = PyByteArray_GET_SIZE(array);
    Py_ssize_t added = bytes == NULL ? 0 : PyBytes_GET_SIZE(bytes);
    if (lo < 0 || lo > hi || hi > size) {
        PyErr_SetString(PyExc_IndexError, "bytearray slice out of range");
        return -1;
    }
    Py_ssize_t grown = size - (hi - lo) + added;
    if (grown > size && PyByteArray_Resize(array, grown) < 0) {
        return -1;
    }
    char *data = PyByteArray_AS_STRING(array);
    memmove(data + lo + added, data + hi, (size_t)(size - hi));
    if (added > 0) {
        memcpy(data + lo, PyBytes_AS_STRING(bytes), (size_t)added);
    }
    return grown < size ? PyByteArray_Resize(array, grown) : 0;
}

static int
set_add(PyObject *set, PyObject *item, Traffic *traffic)
{
    if (traffic == NULL) {
        return PySet_Add(set, item);
    }
    int there = PySet_Contains(set, item);
    if (there != 0) {
        return there < 0 ? -1 : 0;
    }
    if (reflist_reserve(&traffic->in, 1) < 0 || PySet_Add(set, item) < 0) {
        return -1;
    }
    reflist_add(&traffic->in, item);
    traffic->keys |= key_traits(item);
    return 0;
}

static int
set_discard(PyObject *set, PyObject *item, Traffic *traffic)
{
    if (traffic == NULL) {
        return PySet_Discard(set, item) < 0 ? -1 : 0;
    }
    PyObject *stored;
    if (reflist_reserve(&traffic->out, 1) < 0
        || stored_key(set, item, traffic, &stored) < 0) {
        return -1;
    }
    int found = PySet_Discard(set, item);
    if (found > 0) {
        reflist_add(&traffic->out, stored);
    }
    Py_DECREF(stored);
    return found < 0 ? -1 : 0;
}

static int
set_change(PyObject *set, PyObject *elements, bool add, Traffic *traffic)
{
    PyObject *iterator = PyObject_GetIter(elements);
    if (iterator == NULL) {
        return -1;
    }
    int result = 0;
    PyObject *item;
    while (result == 0 && (item = PyIter_Next(iterator)) != NULL) {
        result = add ? set_add(set, item, traffic) : set_discard(set, item, traffic);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    return result < 0 || PyErr_Occurred() ? -1 : 0;
}

int
op_apply(int kind, PyObject *state, const Op *op, Traffic *traffic)
{
    switch (op->code) {
    case OP_SET:
        return dict_set(state, op->a, op->b, traffic);
    case OP_DEL:
        return dict_del(state, op->a, traffic);
    case OP_UPDATE:
        return dict_update(state, op->a, traffic);
    case OP_ITEM:
        return list_item(state, op->lo, op->a, traffic);
    case OP_SPLICE:
        return kind == KIND_BYTES ? bytes_splice(state, op->lo, op->hi, op->a)
                                  : list_splice(state, op->lo, op->hi, op->a, traffic);
    case OP_ADD:
        return set_change(state, op->a, true, traffic);
    case OP_DISCARD:
        return set_change(state, op->a, false, traffic);
    default:
        PyErr_Format(PyExc_SystemError, "tosc: unknown operation %d", op->code);
        return -1;
    }
}
