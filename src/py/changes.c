/*
 * The pending changes of a transaction.
 *
 * A Change does not copy the object that it changes unless it must. A small object is copied
 * at once; of a large one only an overlay is kept (the keys that were set or deleted; what
 * was appended), which answers look-ups of single elements. Whoever needs the whole (an
 * iteration, a sort) makes change_view() build it, once. In either form the committed state
 * is never touched before the commit, so other contexts read it undisturbed and a rollback
 * has nothing to undo.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "changes.h"

/* Up to this many elements a private copy is cheaper than an overlay. */
#define SMALL_STATE 16

Change *
change_new(DObject *object, PyObject *base)
{
    Change *change = PyMem_Calloc(1, sizeof(*change));
    if (change == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    change->object = (DObject *)Py_NewRef((PyObject *)object);
    change->base = Py_NewRef(base);
    change->cut = -1;
    change->length = -1;
    return change;
}

void
change_free(Change *change)
{
    Change old = *change;
    PyMem_Free(change);
    oplist_clear(&old.ops);
    Py_XDECREF(old.full);
    Py_XDECREF(old.over);
    Py_XDECREF(old.tail);
    Py_XDECREF(old.base);
    Py_DECREF(old.object);
}

static bool
has_overlay(const Change *change)
{
    return change->over != NULL || change->tail != NULL;
}

static void
drop_overlay(Change *change)
{
    PyObject *over = change->over;
    PyObject *tail = change->tail;
    change->over = NULL;
    change->tail = NULL;
    change->cut = -1;
    change->length = -1;
    Py_XDECREF(over);
    Py_XDECREF(tail);
}

/* The list may be changed, or cleared, by what the operation runs. */
static int
redo(const Change *change, Py_ssize_t index, PyObject *state)
{
    Op op = change->ops.items[index];
    Py_XINCREF(op.a);
    Py_XINCREF(op.b);
    int result = op_apply(change->object->kind, state, &op, NULL);
    Py_XDECREF(op.a);
    Py_XDECREF(op.b);
    return result;
}

/*
 * A private state: the base with all operations done again. A key's __eq__ that is run by
 * them may look at the object as well, and so come here before us.
 */
static int
materialise(Change *change)
{
    PyObject *full = state_copy(change->object->kind, change->base);
    if (full == NULL) {
        return -1;
    }
    int result = 0;
    for (Py_ssize_t i = 0; i < change->ops.count && change->full == NULL && result == 0;
         i++) {
        result = redo(change, i, full);
    }
    if (result < 0 || change->full != NULL) {
        Py_DECREF(full);
        return result;
    }
    change->full = full;
    drop_overlay(change);
    return 0;
}

PyObject *
change_view(Change *change)
{
    if (change->full != NULL) {
        return change->full;
    }
    if (change->ops.count == 0) {
        return change->base;
    }
    return materialise(change) < 0 ? NULL : change->full;
}

/* After an overlay had to be given up, the operations are done on a copy. */
static int
settle(Change *change)
{
    if (change->full == NULL && change->ops.count > 0 && !has_overlay(change)) {
        return materialise(change);
    }
    return 0;
}

int
change_get(Change *change, PyObject *key, PyObject **ret)
{
    *ret = NULL;
    if (settle(change) < 0) {
        return -1;
    }
    if (change->full == NULL && change->over != NULL) {
        PyObject *over = Py_NewRef(change->over);
        int found = tosc_dict_get(over, key, ret);
        Py_DECREF(over);
        if (found != 0) {
            if (found > 0 && *ret == tosc_gone) {
                Py_CLEAR(*ret);
                return 0;
            }
            return found;
        }
    }
    PyObject *state = Py_NewRef(change->full != NULL ? change->full : change->base);
    int found;
    if (PySet_Check(state)) {
        found = PySet_Contains(state, key);
        if (found > 0) {
            *ret = Py_NewRef(Py_True);
        }
    } else {
        found = tosc_dict_get(state, key, ret);
    }
    Py_DECREF(state);
    return found;
}

Py_ssize_t
change_len(Change *change)
{
    if (settle(change) < 0) {
        return -1;
    }
    if (change->full == NULL && has_overlay(change)) {
        return change->object->kind == KIND_LIST
                   ? change->cut + PyList_GET_SIZE(change->tail)
                   : change->length;
    }
    return state_len(change->object->kind,
                     change->full != NULL ? change->full : change->base);
}

PyObject *
change_item(Change *change, Py_ssize_t index)
{
    if (settle(change) < 0) {
        return NULL;
    }
    PyObject *state = change->full != NULL ? change->full : change->base;
    if (change->full == NULL && change->tail != NULL) {
        if (index >= change->cut) {
            index -= change->cut;
            state = change->tail;
        } else if (change->over != NULL) {
            PyObject *key = PyLong_FromSsize_t(index);
            PyObject *value;
            if (key == NULL) {
                return NULL;
            }
            int found = tosc_dict_get(change->over, key, &value);
            Py_DECREF(key);
            if (found != 0) {
                return value;
            }
        }
    }
    return index < PyList_GET_SIZE(state) ? Py_NewRef(PyList_GET_ITEM(state, index))
                                          : NULL;
}

static int
overlay_start(Change *change)
{
    int kind = change->object->kind;
    if (kind == KIND_LIST) {
        if (change->tail == NULL) {
            change->tail = PyList_New(0);
            change->cut = PyList_GET_SIZE(change->base);
            return change->tail == NULL ? -1 : 0;
        }
        return 0;
    }
    if (change->over == NULL) {
        change->over = PyDict_New();
        change->length = state_len(kind, change->base);
        return change->over == NULL ? -1 : 0;
    }
    return 0;
}

/* Does one operation in the overlay: 1 done, 0 it cannot (do it on a copy), -1 exception. */
static int
overlay_list(Change *change, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a)
{
    Py_ssize_t size = change->cut + PyList_GET_SIZE(change->tail);
    if (code == OP_ITEM && lo >= change->cut) {
        return PyList_SetItem(change->tail, lo - change->cut, Py_NewRef(a)) < 0 ? -1 : 1;
    }
    if (code == OP_ITEM) {
        if (change->over == NULL && (change->over = PyDict_New()) == NULL) {
            return -1;
        }
        PyObject *key = PyLong_FromSsize_t(lo);
        if (key == NULL) {
            return -1;
        }
        int result = PyDict_SetItem(change->over, key, a);
        Py_DECREF(key);
        return result < 0 ? -1 : 1;
    }
    if (hi != size) {
        return 0;
    }
    if (lo >= change->cut) {
        Py_ssize_t from = lo - change->cut;
        return PyList_SetSlice(change->tail, from, hi - change->cut, a) < 0 ? -1 : 1;
    }
    if (PyList_GET_SIZE(change->tail) > 0 || a != NULL || change->over != NULL) {
        return 0;
    }
    change->cut = lo; /* pops from the end of what was there */
    return 1;
}

/* The key's __eq__ may look at the object and so have the overlay made into a whole. */
static int
overlay_key(Change *change, PyObject *key, PyObject *value)
{
    PyObject *over = change->over;
    PyObject *before;
    int found = change_get(change, key, &before);
    Py_XDECREF(before);
    if (found < 0) {
        return -1;
    }
    if (value == tosc_gone && !found) {
        if (change->object->kind != KIND_SET) {
            PyErr_SetObject(PyExc_KeyError, key);
            return -1;
        }
        return 1;
    }
    if (change->over != over) {
        return 0;
    }
    Py_INCREF(over);
    int result = PyDict_SetItem(over, key, value) < 0 ? -1 : change->over == over;
    Py_DECREF(over);
    if (result > 0) {
        change->length += (value != tosc_gone) - found;
    }
    return result;
}

static int
overlay_set(Change *change, PyObject *elements, PyObject *mark)
{
    PyObject *iterator = PyObject_GetIter(elements);
    if (iterator == NULL) {
        return -1;
    }
    int result = 1;
    PyObject *item;
    while (result > 0 && (item = PyIter_Next(iterator)) != NULL) {
        result = overlay_key(change, item, mark);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : result;
}

static int
overlay_apply(Change *change, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a,
              PyObject *b)
{
    if (change->object->kind == KIND_BYTES || overlay_start(change) < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    switch (code) {
    case OP_SET:
        return overlay_key(change, a, b);
    case OP_DEL:
        return overlay_key(change, a, tosc_gone);
    case OP_ITEM:
    case OP_SPLICE:
        return overlay_list(change, code, lo, hi, a);
    case OP_ADD:
        return overlay_set(change, a, Py_True);
    case OP_DISCARD:
        return overlay_set(change, a, tosc_gone);
    default:
        return 0;
    }
}

/* `a` becomes the state. It is ours (given away), but its maker may still hold a reference. */
static int
assign(Change *change, PyObject *a)
{
    PyObject *old = change->full;
    change->full = Py_NewRef(a);
    change->whole = true;
    drop_overlay(change);
    oplist_clear(&change->ops);
    Py_XDECREF(old);
    return 0;
}

/* The private state, without other references, so that it may be changed. */
static int
own_full(Change *change)
{
    if (change->full == NULL) {
        return materialise(change);
    }
    if (Py_REFCNT(change->full) == 1) {
        return 0;
    }
    PyObject *copy = state_copy(change->object->kind, change->full);
    if (copy == NULL) {
        return -1;
    }
    Py_SETREF(change->full, copy);
    return 0;
}

/* When the list of operations has become longer than the object, the object is shorter. */
static void
prefer_whole(Change *change)
{
    if (!change->whole && change->full != NULL && change->ops.count > 8
        && change->ops.count > change_len(change)) {
        change->whole = true;
        oplist_clear(&change->ops);
    }
}

int
change_add(Change *change, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a,
           PyObject *b)
{
    int kind = change->object->kind;
    if (code == OP_ASSIGN) {
        return assign(change, a);
    }
    Op op = {code, lo, hi, a, b};
    if (settle(change) < 0) {
        return -1;
    }
    if (change->full == NULL && state_len(kind, change->base) > SMALL_STATE) {
        int done = overlay_apply(change, code, lo, hi, a, b);
        if (done > 0 && oplist_add(&change->ops, code, lo, hi, a, b) < 0) {
            done = -1;
        }
        if (done < 0) {
            drop_overlay(change); /* the list of operations says what it said before */
        }
        if (done != 0) {
            return done < 0 ? -1 : 0;
        }
    }
    if (own_full(change) < 0) {
        return -1;
    }
    if (!change->whole && oplist_add(&change->ops, code, lo, hi, a, b) < 0) {
        return -1;
    }
    PyObject *full = change->full;
    if (op_apply(kind, full, &op, NULL) < 0) {
        if (!change->whole) {
            oplist_drop_last(&change->ops);
        }
        return -1;
    }
    prefer_whole(change);
    return 0;
}

int
change_absorb(Change *change, Change *inner)
{
    if (inner->whole) {
        return assign(change, inner->full);
    }
    if (inner->ops.count == 0) {
        return 0;
    }
    PyObject *view = change_view(inner);
    if (view == NULL) {
        return -1;
    }
    Py_ssize_t before = change->ops.count;
    for (Py_ssize_t i = 0; i < inner->ops.count && !change->whole; i++) {
        Op *op = &inner->ops.items[i];
        if (oplist_add(&change->ops, op->code, op->lo, op->hi, op->a, op->b) < 0) {
            while (change->ops.count > before) {
                oplist_drop_last(&change->ops);
            }
            return -1;
        }
    }
    drop_overlay(change);
    Py_XSETREF(change->full, Py_NewRef(view));
    return 0;
}
