/*
 * The wrapper object and its two doors; see dobject.h for the rules.
 *
 * Who sees what is decided here and nowhere else. With no transaction open on the Manager
 * everybody sees object->state. Otherwise: the change that this context's transaction has
 * made, else the state as of the transaction's start, else (no transaction in this context)
 * object->state.
 *
 * A Write works in one of three modes. LOCAL: the object is in no store; its state is changed
 * at once. NESTED: a transaction is open in this context; the operation is noted in it.
 * IMPLICIT: the Write is a transaction of its own. It takes the Manager's turn at begin, so
 * what it sees cannot change under it, and commits at its end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dobject.h"

#include "errors.h"
#include "manager.h"
#include "state.h"

enum write_mode { WRITE_LOCAL, WRITE_NESTED, WRITE_IMPLICIT };

PyMemberDef dobject_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(DObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- the type ---- */

DObject *
dobject_new(PyTypeObject *type, int kind, PyObject *state)
{
    if (state == NULL) {
        return NULL;
    }
    DObject *self = (DObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_DECREF(state);
        return NULL;
    }
    self->state = state;
    self->kind = (uint8_t)kind;
    return self;
}

bool
dobject_check(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    return type == tosc_state->DDict_Type || type == tosc_state->DList_Type
           || PyType_IsSubtype(type, tosc_state->DObject_Type);
}

int
dobject_kind(PyObject *value)
{
    return dobject_check(value) ? ((DObject *)value)->kind : -1;
}

int
dobject_traverse(PyObject *op, visitproc visit, void *arg)
{
    DObject *self = (DObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->state);
    Py_VISIT(self->manager);
    for (OldState *old = self->older; old != NULL; old = old->next) {
        Py_VISIT(old->state);
    }
    return 0;
}

static void
drop_older(DObject *self)
{
    OldState *old = self->older;
    self->older = NULL;
    while (old != NULL) {
        OldState *next = old->next;
        Py_DECREF(old->state);
        PyMem_Free(old);
        old = next;
    }
}

int
dobject_clear(PyObject *op)
{
    DObject *self = (DObject *)op;
    drop_older(self);
    /* The state stays an empty builtin: other parts of the garbage may still look at it. */
    PyObject *empty = self->state == NULL ? NULL : state_new(self->kind);
    if (empty != NULL || self->state != NULL) {
        PyErr_Clear();
        Py_XSETREF(self->state, empty);
    }
    Py_CLEAR(self->manager);
    return 0;
}

void
dobject_dealloc(PyObject *op)
{
    DObject *self = (DObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, dobject_dealloc) if (self->weakrefs != NULL)
    {
        PyObject_ClearWeakRefs(op);
    }
    drop_older(self);
    Py_CLEAR(self->state);
    Py_CLEAR(self->manager);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* ---- reading ---- */

PyObject *
graph_state_at(DObject *object, int64_t seq)
{
    if (object->since <= seq || object->older == NULL) {
        return object->state;
    }
    OldState *old = object->older;
    while (old->since > seq && old->next != NULL) {
        old = old->next;
    }
    return old->state;
}

PyObject *
graph_view(DObject *object, Transaction *top)
{
    if (top == NULL) {
        return object->state;
    }
    Change *change = transaction_find(top, object);
    return change != NULL ? change_view(change) : graph_state_at(object, top->start);
}

/*
 * The change that this context's transaction has made, if any; else *ret_state (borrowed) is
 * what it sees.
 */
static Change *
look(DObject *self, PyObject **ret_state)
{
    Transaction *top = transaction_current(self->manager);
    if (top == NULL) {
        *ret_state = self->state;
        return NULL;
    }
    Change *change = self->changes == NULL ? NULL : transaction_find(top, self);
    if (change == NULL) {
        *ret_state = graph_state_at(self, top->start);
    }
    return change;
}

PyObject *
dobject_view_slow(DObject *self)
{
    PyObject *state = NULL;
    Change *change = look(self, &state);
    if (change != NULL) {
        change->readers++;
        state = Py_XNewRef(change_view(change));
        change->readers--;
        return state;
    }
    return Py_NewRef(state);
}

static int
state_get(DObject *self, PyObject *state, PyObject *key, PyObject **ret)
{
    Py_INCREF(state); /* looking up may run Python code that changes the object */
    int found;
    *ret = NULL;
    if (self->kind == KIND_SET) {
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

int
dobject_get(DObject *self, PyObject *key, PyObject **ret)
{
    PyObject *state = self->state;
    if (!dobject_quiet(self)) {
        Change *change = look(self, &state);
        if (change != NULL) {
            change->readers++; /* keeps it while Python code runs */
            int found = change_get(change, key, ret);
            change->readers--;
            return found;
        }
    }
    return state_get(self, state, key, ret);
}

int
dobject_contains(DObject *self, PyObject *key)
{
    PyObject *value;
    int found = dobject_get(self, key, &value);
    Py_XDECREF(value);
    return found;
}

Py_ssize_t
dobject_len(DObject *self)
{
    PyObject *state = self->state;
    if (!dobject_quiet(self)) {
        Change *change = look(self, &state);
        if (change != NULL) {
            change->readers++;
            Py_ssize_t length = change_len(change);
            change->readers--;
            return length;
        }
    }
    return state_len(self->kind, state);
}

PyObject *
dobject_item(DObject *self, Py_ssize_t index)
{
    PyObject *state = self->state;
    if (!dobject_quiet(self)) {
        Change *change = look(self, &state);
        if (change != NULL) {
            change->readers++;
            PyObject *item = change_item(change, index);
            change->readers--;
            return item;
        }
    }
    return index < PyList_GET_SIZE(state) ? Py_NewRef(PyList_GET_ITEM(state, index))
                                          : NULL;
}

PyObject *
dobject_unwrap(PyObject *value)
{
    return dobject_check(value) ? dobject_view((DObject *)value) : Py_NewRef(value);
}

bool
dobject_in_transaction(DObject *self)
{
    return !dobject_quiet(self) && transaction_current(self->manager) != NULL;
}

bool
dobject_is_private(DObject *self)
{
    if (dobject_quiet(self)) {
        return false;
    }
    Transaction *top = transaction_current(self->manager);
    Change *change = top == NULL ? NULL : transaction_find(top, self);
    return change != NULL && change->level == top->depth;
}

/* ---- changing ---- */

/*
 * An object that is in no store, by itself or because it was taken out: changed at once, for
 * everybody who has it.
 */
static int
local_op(DObject *self, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a, PyObject *b)
{
    if (code == OP_ASSIGN) {
        Py_SETREF(self->state, Py_NewRef(a));
        return 0;
    }
    Op op = {code, lo, hi, a, b};
    PyObject *state = Py_NewRef(self->state);
    /* Ours and the one just taken; anybody else's means that it is being looked at. */
    if (Py_REFCNT(state) > 2) {
        PyObject *copy = state_copy(self->kind, state);
        Py_DECREF(state);
        if (copy == NULL) {
            return -1;
        }
        Py_SETREF(self->state, Py_NewRef(copy));
        state = copy;
    }
    Traffic traffic = {0}; /* keeps what is replaced until the state is consistent */
    bool replaces = code != OP_SPLICE || lo < hi;
    int result = op_apply(self->kind, state, &op, replaces ? &traffic : NULL);
    Py_DECREF(state);
    reflist_clear(&traffic.in);
    reflist_clear(&traffic.out);
    return result;
}

/* The part of write_begin that has to do with a store. */
static int
begin_managed(Write *w, DObject *self)
{
    Manager *m = self->manager;
    if (sync_enter(m) < 0) {
        return -1;
    }
    Transaction *top = m->open_transactions == 0 ? NULL : transaction_current(m);
    if (top != NULL) {
        if (top->state != TX_OPEN) {
            PyErr_SetString(
                PyExc_RuntimeError,
                "the transaction is being committed: nothing can be changed now");
            return -1;
        }
        Change *change = transaction_change(top, self);
        if (change == NULL) {
            return -1;
        }
        if (change->writing) {
            PyErr_SetString(
                PyExc_RuntimeError,
                "the object is being changed: it cannot be changed from inside");
            return -1;
        }
        change->writing = true;
        w->mode = WRITE_NESTED;
        w->change = change;
        return 0;
    }
    if (self->oid == 0) {
        return 0;
    }
    if (turn_take(m, INT64_MAX) < 0) {
        return -1;
    }
    /* It starts from what is stored now: what ended before it is no conflict. */
    if (sync_catch_up(m) < 0) {
        turn_release(m);
        return -1;
    }
    if (self->oid == 0) { /* taken out of the store while we waited */
        turn_release(m);
        return 0;
    }
    w->mode = WRITE_IMPLICIT;
    w->turn = m;
    w->change = change_new(self, self->state);
    if (w->change == NULL) {
        turn_release(m);
        return -1;
    }
    return 0;
}

int
write_begin(Write *w, DObject *self)
{
    *w = (Write){.object = self, .mode = WRITE_LOCAL};
    if (self->manager != NULL && begin_managed(w, self) < 0) {
        return -1;
    }
    Py_INCREF(self);
    return 0;
}

PyObject *
write_view(Write *w)
{
    PyObject *view;
    switch (w->mode) {
    case WRITE_NESTED:
        view = change_view(w->change);
        break;
    case WRITE_IMPLICIT:
        view = ((Change *)w->change)->base;
        break;
    default:
        view = w->object->state;
    }
    if (view != NULL && view != w->view) {
        Py_XSETREF(w->view, Py_NewRef(view));
    }
    return view;
}

int
write_get(Write *w, PyObject *key, PyObject **ret)
{
    if (w->mode == WRITE_NESTED) {
        return change_get(w->change, key, ret);
    }
    return state_get(w->object, w->object->state, key, ret);
}

Py_ssize_t
write_len(Write *w)
{
    if (w->mode == WRITE_NESTED) {
        return change_len(w->change);
    }
    return state_len(w->object->kind, w->object->state);
}

/* What is stored must be what can be applied: an operation that cannot is our caller's fault. */
static int
check_op(DObject *self, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a)
{
    Py_ssize_t size = state_len(self->kind, self->state);
    bool good = true;
    if (code == OP_DEL) {
        PyObject *value;
        int found = state_get(self, self->state, a, &value);
        Py_XDECREF(value);
        if (found < 0) {
            return -1;
        }
        good = found > 0;
    } else if (code == OP_ITEM) {
        good = lo >= 0 && lo < size;
    } else if (code == OP_SPLICE) {
        good = lo >= 0 && lo <= hi && hi <= size;
    }
    if (!good) {
        PyErr_SetString(PyExc_LookupError, "the element to be changed is not there");
        return -1;
    }
    return 0;
}

int
write_op(Write *w, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a, PyObject *b)
{
    Py_CLEAR(w->view); /* else every operation would have to copy what was looked at */
    if (w->mode == WRITE_LOCAL) {
        if (w->object->oid != 0) {
            PyErr_SetString(PyExc_RuntimeError,
                            "the object was stored by another thread while it was being "
                            "changed: nothing was changed");
            return -1;
        }
        return local_op(w->object, code, lo, hi, a, b);
    }
    if (w->mode == WRITE_NESTED) {
        return change_add(w->change, code, lo, hi, a, b);
    }
    Change *change = w->change;
    if (code == OP_ASSIGN || change->whole) {
        return change_add(change, code, lo, hi, a, b);
    }
    if (change->ops.count == 0 && check_op(w->object, code, lo, hi, a) < 0) {
        return -1;
    }
    /* Not done before it is stored: only noted. */
    return oplist_add(&change->ops, code, lo, hi, a, b);
}

int
write_commit(Write *w)
{
    int result = 0;
    Py_CLEAR(w->view);
    if (w->mode == WRITE_IMPLICIT) {
        Manager *m = w->turn;
        Change *change = w->change;
        if (change->whole || change->ops.count > 0) {
            result = sync_commit(m, change, &m->at, NULL);
        }
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        turn_release(m);
        change_free(change);
        PyErr_Restore(type, value, traceback);
    } else if (w->mode == WRITE_NESTED) {
        ((Change *)w->change)->writing = false;
    }
    Py_DECREF(w->object);
    return result;
}

void
write_abort(Write *w)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_CLEAR(w->view);
    if (w->mode == WRITE_IMPLICIT) {
        turn_release(w->turn);
        change_free(w->change);
    } else if (w->mode == WRITE_NESTED) {
        ((Change *)w->change)->writing = false;
    }
    Py_DECREF(w->object);
    PyErr_Restore(type, value, traceback);
}

int
dobject_change(DObject *self, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a,
               PyObject *b)
{
    Write w;
    if (write_begin(&w, self) < 0) {
        return -1;
    }
    if (write_op(&w, code, lo, hi, a, b) < 0) {
        write_abort(&w);
        return -1;
    }
    return write_commit(&w);
}

/* ---- the common base type ---- */

PyDoc_STRVAR(
    dobject_doc,
    "Base of the distributed types: DList, DDict, DSet, DByteArray, DAny, DOpaque.\n"
    "\n"
    "Cannot be instantiated; isinstance(x, tosc.DObject) tells a wrapper from a plain\n"
    "value.");

static PyType_Slot dobject_slots[] = {
    {Py_tp_doc, (void *)dobject_doc},
    {0, NULL},
};

/*
 * It has no fields of its own, so that Python sees two of our types as what they are: of
 * different layout. A class cannot derive from both, nor an object change from one to the other.
 */
static PyType_Spec dobject_spec = {
    .name = "tosc.DObject",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = dobject_slots,
};

int
dobject_init(PyObject *module, ToscState *state)
{
    if (tosc_gone == NULL) {
        tosc_gone = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
        if (tosc_gone == NULL) {
            return -1;
        }
    }
    return tosc_add_type(module, &state->DObject_Type, &dobject_spec, NULL, "DObject");
}
