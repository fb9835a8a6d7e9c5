/*
 * One operation on the real object behind an opaque value: getting hold of it, and storing
 * what the operation has changed.
 *
 *   READ    the operation is known to change nothing: on the live object that is there.
 *   LOCAL   the value is in no store: on its live object, for everybody who has it.
 *   NESTED  in a transaction: on the transaction's own copy, which is compared at commit.
 *   LINKED  outside a transaction: on the live object, taken out of the state meanwhile so
 *           that nobody sees half of it; what has changed is committed, provided that
 *           nobody else has changed the value since.
 *
 * A part (DPart) belongs to one live object. As our own changes keep the live object, a part
 * stays good over them; when somebody else's change has replaced it, the part is out of date
 * and says so, because a change of it would change nothing that is stored.
 *
 * What must stay true: between begin and end of an operation that may change something
 * there is no way round the comparison, also if the operation has raised.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "errors.h"
#include "opaque.h"

#include <string.h>

enum session_mode { SESSION_READ, SESSION_LOCAL, SESSION_NESTED, SESSION_LINKED };

/* ---- begin ---- */

static OpaqueState *
view_of(DAnyObject *owner)
{
    PyObject *view = dobject_view(&owner->base);
    if (view != NULL && !Py_IS_TYPE(view, tosc_state->OpaqueState_Type)) {
        PyErr_Format(PyExc_ReferenceError, "this %.200s is being taken apart",
                     Py_TYPE(owner)->tp_name);
        Py_CLEAR(view);
    }
    return (OpaqueState *)view;
}

static int
check_part(Session *s)
{
    if (s->part == NULL || s->state->live == ((DPart *)s->part)->live) {
        return 0;
    }
    PyErr_Format(PyExc_ReferenceError,
                 "this part of a %.200s is out of date: read it again",
                 Py_TYPE(s->owner)->tp_name);
    return -1;
}

static int
raise_taken(Session *s)
{
    PyErr_Format(
        tosc_state->TransactionError,
        "the %.200s was used while it was being pickled; this change was not made",
        Py_TYPE(s->owner)->tp_name);
    return -1;
}

/* Pickling has run code of the object's class: is everything still as it was? */
static int
check_view(Session *s)
{
    OpaqueState *now = view_of(s->owner);
    bool same = now == s->state;
    Py_XDECREF(now);
    return same ? 0 : PyErr_Occurred() ? -1 : raise_taken(s);
}

static int
make_private(Session *s)
{
    DObject *owner = &s->owner->base;
    OpaqueState *copy = opaque_state_private(owner->manager, s->state);
    if (copy == NULL || check_view(s) < 0
        || dobject_change(owner, OP_ASSIGN, 0, 0, (PyObject *)copy, NULL) < 0) {
        Py_XDECREF(copy);
        return -1;
    }
    Py_SETREF(s->state, copy);
    return check_part(s);
}

/* The transaction gets a copy of its own, which is worked on from now on. */
static int
begin_nested(Session *s)
{
    DObject *owner = &s->owner->base;
    if (!dobject_is_private(owner)) {
        if (make_private(s) < 0) {
            return -1;
        }
    }
    s->mode = SESSION_NESTED;
    s->live = opaque_state_live(owner->manager, s->state);
    if (s->live == NULL || opaque_state_watch(s->state) < 0 || check_part(s) < 0) {
        return -1;
    }
    s->state->worked = true;
    return 0;
}

static int
begin_other(Session *s)
{
    DObject *owner = &s->owner->base;
    OpaqueState *state = s->state;
    s->mode = owner->manager == NULL || owner->oid == 0 ? SESSION_LOCAL : SESSION_LINKED;
    s->live = opaque_state_live(owner->manager, state);
    if (s->live == NULL || opaque_state_watch(state) < 0) {
        return -1;
    }
    s->baseline = Py_XNewRef(state->baseline);
    if (s->mode == SESSION_LINKED) {
        if (state->live != s->live) { /* taken while it was being pickled */
            return raise_taken(s);
        }
        Py_CLEAR(state->live);
        Py_CLEAR(state->baseline);
    }
    return 0;
}

static int
begin(Session *s, bool safe)
{
    s->state = view_of(s->owner);
    if (s->state == NULL || check_part(s) < 0) {
        return -1;
    }
    if (safe) {
        s->mode = SESSION_READ;
        s->live = opaque_state_live(s->owner->base.manager, s->state);
        return s->live == NULL ? -1 : 0;
    }
    return dobject_in_transaction(&s->owner->base) ? begin_nested(s) : begin_other(s);
}

static void
release(Session *s)
{
    Py_CLEAR(s->target);
    Py_CLEAR(s->live);
    Py_CLEAR(s->baseline);
    Py_CLEAR(s->state);
    Py_CLEAR(s->part);
    Py_CLEAR(s->owner);
}

int
session_begin(Session *s, PyObject *self, bool safe)
{
    bool part = PyObject_TypeCheck(self, tosc_state->DPart_Type);
    *s = (Session){.part = part ? Py_NewRef(self) : NULL};
    s->owner = (DAnyObject *)Py_NewRef(part ? (PyObject *)((DPart *)self)->owner : self);
    if (begin(s, safe) < 0) {
        release(s);
        return -1;
    }
    s->target = Py_NewRef(part ? ((DPart *)self)->inner : s->live);
    return 0;
}

/* ---- end ---- */

/* The live object may serve the state again. */
static void
give_back(Session *s)
{
    /* One that was made meanwhile goes: parts that the program has are of ours. */
    Py_XSETREF(s->state->live, Py_NewRef(s->live));
    Py_XSETREF(s->state->baseline, Py_XNewRef(s->baseline));
}

static bool
same_as(OpaqueState *now, PyObject *baseline, OpaqueState *before)
{
    PyObject *pickle = now->pickle;
    Py_ssize_t size = PyBytes_GET_SIZE(pickle);
    if (baseline == NULL || PyBytes_GET_SIZE(baseline) != size
        || memcmp(PyBytes_AS_STRING(pickle), PyBytes_AS_STRING(baseline), (size_t)size)
               != 0
        || PyTuple_GET_SIZE(now->refs) != PyTuple_GET_SIZE(before->refs)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(now->refs); i++) {
        if (PyTuple_GET_ITEM(now->refs, i) != PyTuple_GET_ITEM(before->refs, i)) {
            return false;
        }
    }
    return true;
}

/* The changed state takes the live object along, if that is what the pickle says. */
static void
carry_live(Session *s, OpaqueState *now, bool keep)
{
    if (keep && !s->captured) {
        now->live = Py_NewRef(s->live);
        now->baseline = Py_NewRef(now->pickle);
    }
}

static int
end_local(Session *s)
{
    DObject *owner = &s->owner->base;
    bool keep;
    OpaqueState *current = view_of(s->owner);
    if (current == NULL) {
        return -1;
    }
    OpaqueState *now = opaque_state_dump(owner->manager, s->live, &keep);
    int result = 0;
    if (now == NULL) { /* what has been put in cannot be stored: as it was before */
        Py_CLEAR(current->live);
        Py_CLEAR(current->baseline);
        current->worked = false;
        result = -1;
    } else if (current->live == s->live
                   ? same_as(now, current->worked ? NULL : current->baseline, current)
                   : same_as(now, s->baseline, s->state)) {
        Py_DECREF(now);
    } else if (current->live != s->live) {
        PyErr_Format(PyExc_ReferenceError,
                     "this %.200s was replaced while it was being changed",
                     Py_TYPE(owner)->tp_name);
        Py_DECREF(now);
        result = -1;
    } else {
        carry_live(s, now, keep);
        result = dobject_change(owner, OP_ASSIGN, 0, 0, (PyObject *)now, NULL);
        Py_DECREF(now);
    }
    Py_DECREF(current);
    return result;
}

static int
commit(Session *s, OpaqueState *now)
{
    Write w;
    if (write_begin(&w, &s->owner->base) < 0) {
        return -1;
    }
    PyObject *view = write_view(&w);
    if (view != (PyObject *)s->state) {
        if (view != NULL) {
            PyErr_Format(
                tosc_state->TransactionError,
                "the %.200s was changed by somebody else meanwhile; nothing of this "
                "change was kept",
                Py_TYPE(s->owner)->tp_name);
        }
        write_abort(&w);
        return -1;
    }
    if (write_op(&w, OP_ASSIGN, 0, 0, (PyObject *)now, NULL) < 0) {
        write_abort(&w);
        return -1;
    }
    return write_commit(&w);
}

static int
end_linked(Session *s)
{
    bool keep;
    OpaqueState *now = opaque_state_dump(s->owner->base.manager, s->live, &keep);
    if (now == NULL) {
        return -1; /* the changed object is dropped; the state makes another one */
    }
    int result = 0;
    if (same_as(now, s->baseline, s->state)) {
        give_back(s);
    } else {
        carry_live(s, now, keep);
        result = commit(s, now);
    }
    Py_DECREF(now);
    return result;
}

static int
store(Session *s)
{
    switch (s->mode) {
    case SESSION_LOCAL:
        return end_local(s);
    case SESSION_LINKED:
        return end_linked(s);
    case SESSION_NESTED:
        s->state->captured |= s->captured;
        return 0;
    default:
        return 0;
    }
}

/* ---- what the program gets ---- */

static PyObject *
show_all(Session *s, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *shown = session_show(s, Py_NewRef(PyList_GET_ITEM(list, i)));
        if (shown == NULL || PyList_SetItem(list, i, shown) < 0) {
            return NULL;
        }
    }
    return list;
}

/* A tuple, or a set or list that nobody else has: the same with what may be shown in it. */
static PyObject *
show_elements(Session *s, PyObject *value)
{
    PyObject *items = PySequence_List(value);
    PyObject *result = NULL;
    if (items != NULL
        && Py_EnterRecursiveCall(" in the result of a stored object's method") == 0) {
        if (show_all(s, items) != NULL) {
            if (PyTuple_CheckExact(value)) {
                result = PyList_AsTuple(items);
            } else if (PyTuple_Check(value)) {
                PyObject *args = PyTuple_Pack(1, items);
                result =
                    args == NULL ? NULL : PyTuple_Type.tp_new(Py_TYPE(value), args, NULL);
                Py_XDECREF(args);
            } else if (PySet_CheckExact(value)) {
                result = PySet_New(items);
            } else if (PyFrozenSet_CheckExact(value)) {
                result = PyFrozenSet_New(items);
            } else {
                result = Py_NewRef(items);
            }
        }
        Py_LeaveRecursiveCall();
    }
    Py_XDECREF(items);
    Py_DECREF(value);
    return result;
}

static PyObject *
show_dict(Session *s, PyObject *dict)
{
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    PyObject *result = PyDict_New();
    if (result != NULL
        && Py_EnterRecursiveCall(" in the result of a stored object's method") == 0) {
        while (result != NULL && PyDict_Next(dict, &position, &key, &value)) {
            PyObject *shown = session_show(s, Py_NewRef(value));
            PyObject *shown_key = shown == NULL ? NULL : session_show(s, Py_NewRef(key));
            if (shown_key == NULL || PyDict_SetItem(result, shown_key, shown) < 0) {
                Py_CLEAR(result);
            }
            Py_XDECREF(shown);
            Py_XDECREF(shown_key);
        }
        Py_LeaveRecursiveCall();
    }
    Py_DECREF(dict);
    return result;
}

/* Does a collection hold leaves only? 1, 0, -1. */
static int
holds_leaves(PyObject *value)
{
    PyObject *items = PySequence_List(value);
    if (items != NULL && PyDict_Check(value)) {
        PyObject *values = PyDict_Values(value);
        Py_ssize_t end = PyList_GET_SIZE(items);
        if (values == NULL || PyList_SetSlice(items, end, end, values) < 0) {
            Py_CLEAR(items);
        }
        Py_XDECREF(values);
    }
    int leaves = items == NULL ? -1 : 1;
    for (Py_ssize_t i = 0; leaves > 0 && i < PyList_GET_SIZE(items); i++) {
        leaves = value_classify(PyList_GET_ITEM(items, i)) == VALUE_LEAF;
        PyErr_Clear();
    }
    Py_XDECREF(items);
    return leaves;
}

/*
 * What cannot change and wrappers are given as they are; a container that nobody else refers
 * to is new, and is given as it is but for its elements; anything else may be inner state,
 * and is given as a part.
 */
PyObject *
session_show(Session *s, PyObject *value)
{
    if (value == s->target || value == s->live) {
        PyObject *self =
            value == s->live || s->part == NULL ? (PyObject *)s->owner : s->part;
        Py_DECREF(value);
        return Py_NewRef(self);
    }
    int kind = value_classify(value);
    bool fresh = Py_REFCNT(value) == 1;
    PyErr_Clear();
    switch (kind) {
    case VALUE_LEAF:
    case VALUE_WRAPPER:
    case VALUE_COPY:
        return value;
    case VALUE_TUPLE:
    case VALUE_FROZENSET:
        return holds_leaves(value) > 0 ? value : (PyErr_Clear(), show_elements(s, value));
    case VALUE_LIST:
    case VALUE_SET:
        if (fresh) {
            return show_elements(s, value);
        }
        break;
    case VALUE_DICT:
        if (fresh) {
            return show_dict(s, value);
        }
        break;
    case VALUE_BYTES:
        if (fresh) {
            return value;
        }
        break;
    case VALUE_OPAQUE:
        if (fresh && opaque_is_collection(Py_TYPE(value)) && holds_leaves(value) > 0) {
            return value;
        }
        PyErr_Clear();
        break;
    default:
        break;
    }
    PyObject *part = part_new(s->owner, value, s->live);
    Py_DECREF(value);
    return part;
}

PyObject *
session_end(Session *s, PyObject *result)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    if (result == NULL) {
        PyErr_Fetch(&type, &value, &traceback);
    }
    if (store(s) < 0) {
        Py_CLEAR(result);
        Py_CLEAR(type);
        Py_CLEAR(value);
        Py_CLEAR(traceback);
    } else if (result == NULL) {
        PyErr_Restore(type, value, traceback);
    } else {
        result = session_show(s, result);
    }
    release(s);
    return result;
}

void
session_drop(Session *s)
{
    if (s->mode == SESSION_LINKED) {
        give_back(s);
    }
    release(s);
}
