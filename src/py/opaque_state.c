/*
 * OpaqueState: what an opaque value is in the store, and the live object made from it.
 *
 * The pickle and the references are fixed. The live object is only lent: whoever works on it
 * outside a transaction takes it out of the state first, so that nobody else sees half of a
 * change, and puts it back if nothing has changed; a transaction takes it over as well, and
 * others make a new one from the pickle when they need it. The two pickles of one object
 * need not be the same bytes in two processes (sets have an order of their own), so changes
 * are found by comparing with the pickle of the very same object before (`baseline`).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "opaque.h"

#include <string.h>

unsigned long opaque_parts_pickled;

static OpaqueState *
state_alloc(PyObject *pickle, PyObject *refs)
{
    PyTypeObject *type = tosc_state->OpaqueState_Type;
    OpaqueState *self = (OpaqueState *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->pickle = Py_NewRef(pickle);
        self->refs = Py_NewRef(refs);
    }
    return self;
}

PyObject *
opaque_state_from(PyObject *pickle, PyObject *refs)
{
    return (PyObject *)state_alloc(pickle, refs);
}

/* ---- pickling ---- */

/* What pickling says about an object that it cannot take, as a TypeError that names its type. */
static void
explain(PyObject *object)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)
        || PyErr_ExceptionMatches(PyExc_MemoryError)
        || PyErr_ExceptionMatches(PyExc_ReferenceError)
        || PyErr_ExceptionMatches(PyExc_OSError)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *name = value_type_name(Py_TYPE(object));
    if (name == NULL) {
        PyErr_Clear();
    }
    PyErr_Format(PyExc_TypeError, "%V objects cannot be stored: %S", name,
                 Py_TYPE(object)->tp_name, value);
    Py_XDECREF(name);
    PyObject *type2, *value2, *traceback2;
    PyErr_Fetch(&type2, &value2, &traceback2);
    PyErr_NormalizeException(&type2, &value2, &traceback2);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    PyException_SetCause(value2, Py_NewRef(value));
    PyErr_Restore(type2, value2, traceback2);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

static PyObject *
dump(PyObject *object, PyObject **ret_refs)
{
    PyObject *pickle = codec_dumps(object, ret_refs);
    if (pickle == NULL) {
        explain(object);
    }
    return pickle;
}

/* The references as a Manager may have them. *ret_same: they are the same objects. */
static PyObject *
adopt_refs(Manager *manager, PyObject *refs, bool *ret_same)
{
    Py_ssize_t count = PyTuple_GET_SIZE(refs);
    PyObject *adopted = PyTuple_New(count);
    *ret_same = true;
    for (Py_ssize_t i = 0; adopted != NULL && i < count; i++) {
        PyObject *ref = adopt_for(manager, PyTuple_GET_ITEM(refs, i));
        if (ref == NULL) {
            Py_CLEAR(adopted);
            break;
        }
        *ret_same &= ref == PyTuple_GET_ITEM(refs, i);
        PyTuple_SET_ITEM(adopted, i, ref);
    }
    return adopted;
}

OpaqueState *
opaque_state_dump(Manager *manager, PyObject *object, bool *ret_keep)
{
    PyObject *refs = NULL;
    OpaqueState *state = NULL;
    unsigned long parts = opaque_parts_pickled;
    PyObject *pickle = dump(object, &refs);
    if (pickle == NULL) {
        return NULL;
    }
    bool same;
    PyObject *adopted = adopt_refs(manager, refs, &same);
    if (adopted != NULL) {
        state = state_alloc(pickle, adopted);
    }
    /* A part that was put into the object, or a wrapper of another Manager, is in the pickle
     * as what it stands for: the object is made again. */
    *ret_keep = same && parts == opaque_parts_pickled;
    Py_XDECREF(adopted);
    Py_DECREF(refs);
    Py_DECREF(pickle);
    return state;
}

PyObject *
opaque_deep_copy(PyObject *object)
{
    PyObject *refs = NULL;
    PyObject *pickle = codec_dumps(object, &refs);
    PyObject *copy = pickle == NULL ? NULL : codec_loads(NULL, pickle, refs);
    Py_XDECREF(pickle);
    Py_XDECREF(refs);
    return copy;
}

DObject *
opaque_adopt(Manager *manager, PyObject *value)
{
    bool keep;
    OpaqueState *state = opaque_state_dump(manager, value, &keep);
    PyObject *live = state == NULL ? NULL : opaque_state_live(manager, state);
    if (live == NULL) {
        if (state != NULL) {
            explain(value);
        }
        Py_XDECREF(state);
        return NULL;
    }
    DObject *wrapper =
        dobject_new(tosc_state->DOpaque_Type, KIND_OPAQUE, (PyObject *)state);
    if (wrapper != NULL && opaque_set_class(wrapper, (PyObject *)Py_TYPE(live)) < 0) {
        Py_CLEAR(wrapper);
    }
    if (wrapper != NULL && manager != NULL) {
        wrapper->manager = (Manager *)Py_NewRef((PyObject *)manager);
    }
    Py_DECREF(live);
    return wrapper;
}

/* ---- the live object ---- */

/*
 * Gives an object its __dict__ now: looking for an attribute would, and an exception, say, is
 * pickled with an empty dict but without one that was never made.
 */
static void
touch_dict(PyObject *live)
{
    if (class_has_dict(Py_TYPE(live))) {
        PyObject *dict = PyObject_GenericGetDict(live, NULL);
        if (dict == NULL) {
            PyErr_Clear();
        }
        Py_XDECREF(dict);
    }
}

PyObject *
opaque_state_live(Manager *manager, OpaqueState *state)
{
    if (state->live == NULL) {
        PyObject *live = codec_loads(manager, state->pickle, state->refs);
        if (live == NULL) {
            return NULL;
        }
        touch_dict(live);
        if (state->live == NULL) { /* nobody else made one while ours was loaded */
            state->live = live;
            Py_CLEAR(state->baseline);
        } else {
            Py_DECREF(live);
        }
    }
    return Py_NewRef(state->live);
}

int
opaque_state_watch(OpaqueState *state)
{
    if (state->baseline != NULL || state->live == NULL || state->worked) {
        return 0;
    }
    PyObject *refs = NULL;
    PyObject *live = Py_NewRef(state->live);
    PyObject *pickle = dump(live, &refs);
    if (pickle != NULL && state->live == live && state->baseline == NULL) {
        state->baseline = Py_NewRef(pickle);
    }
    Py_DECREF(live);
    Py_XDECREF(refs);
    Py_XDECREF(pickle);
    return pickle == NULL ? -1 : 0;
}

static bool
same_refs(PyObject *a, PyObject *b)
{
    if (PyTuple_GET_SIZE(a) != PyTuple_GET_SIZE(b)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a); i++) {
        if (PyTuple_GET_ITEM(a, i) != PyTuple_GET_ITEM(b, i)) {
            return false;
        }
    }
    return true;
}

static bool
same_bytes(PyObject *a, PyObject *b)
{
    return a != NULL && b != NULL && PyBytes_GET_SIZE(a) == PyBytes_GET_SIZE(b)
           && memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b),
                     (size_t)PyBytes_GET_SIZE(a))
                  == 0;
}

bool
opaque_state_same(OpaqueState *a, OpaqueState *b)
{
    return same_refs(a->refs, b->refs)
           && (same_bytes(a->pickle, b->pickle) || same_bytes(a->pickle, b->baseline));
}

/* Gives a state a live object whose pickle is its own. */
static void
give_live(OpaqueState *state, PyObject *live)
{
    if (state->live == NULL) {
        state->live = Py_NewRef(live);
        Py_XSETREF(state->baseline, Py_NewRef(state->pickle));
    }
}

OpaqueState *
opaque_state_current(Manager *manager, OpaqueState *state)
{
    if (!state->worked || state->live == NULL) {
        return (OpaqueState *)Py_NewRef(state);
    }
    bool keep;
    PyObject *live = Py_NewRef(state->live);
    OpaqueState *now = opaque_state_dump(manager, live, &keep);
    Py_DECREF(live);
    if (now != NULL && opaque_state_same(now, state)) {
        Py_DECREF(now);
        now = (OpaqueState *)Py_NewRef(state);
    }
    return now;
}

/*
 * Brings the pickle of a state that a transaction has worked on up to date, in place: nobody
 * but the transaction has it. Its live object is then as the pickle says, or is dropped.
 */
static int
catch_up(Manager *manager, OpaqueState *state)
{
    if (!state->worked || state->live == NULL) {
        return 0;
    }
    bool keep;
    PyObject *live = Py_NewRef(state->live);
    OpaqueState *now = opaque_state_dump(manager, live, &keep);
    if (now != NULL && state->live == live) {
        if (!same_refs(now->refs, state->refs)
            || !same_bytes(now->pickle, state->baseline)) {
            Py_XSETREF(state->pickle, Py_NewRef(now->pickle));
            Py_XSETREF(state->refs, Py_NewRef(now->refs));
            Py_CLEAR(state->origin);
        }
        Py_XSETREF(state->baseline, Py_NewRef(now->pickle));
        if (!keep || state->captured) {
            Py_CLEAR(state->live);
            Py_CLEAR(state->baseline);
        }
        state->worked = false;
        state->captured = false;
    }
    Py_XDECREF(now);
    Py_DECREF(live);
    return now == NULL ? -1 : 0;
}

OpaqueState *
opaque_state_private(Manager *manager, OpaqueState *state)
{
    if (catch_up(manager, state) < 0) {
        return NULL;
    }
    OpaqueState *copy = state_alloc(state->pickle, state->refs);
    if (copy == NULL) {
        return NULL;
    }
    /* A worked copy has lost its origin if it was changed. */
    bool committed = state->origin == NULL && !state->derived;
    copy->origin = Py_XNewRef(committed ? (PyObject *)state : state->origin);
    copy->derived = true;
    copy->live = state->live;
    copy->baseline = state->baseline;
    state->live = NULL;
    state->baseline = NULL;
    PyObject *live = opaque_state_live(manager, copy);
    if (live == NULL || opaque_state_watch(copy) < 0) {
        Py_CLEAR(copy);
    }
    Py_XDECREF(live);
    return copy;
}

/* ---- committing what a transaction has worked on ---- */

/* The transaction's copy that has this live object; borrowed. */
static OpaqueState *
find_copy(DObject *self, PyObject *live)
{
    for (Change *change = self->changes; change != NULL; change = change->other) {
        for (Change *below = change; below != NULL; below = below->below) {
            PyObject *full = below->full;
            if (full != NULL && Py_IS_TYPE(full, tosc_state->OpaqueState_Type)
                && ((OpaqueState *)full)->live == live) {
                return (OpaqueState *)full;
            }
        }
    }
    return NULL;
}

/* Is the question asked at the end of a transaction, which needs its copy no more? */
static bool
is_over(DObject *self)
{
    Transaction *top = self->manager == NULL ? NULL : transaction_current(self->manager);
    return top == NULL || top->state != TX_OPEN;
}

/* `copy` has turned out to be what `before` is: its live object serves there. */
static PyObject *
settle_unchanged(DObject *self, OpaqueState *before, OpaqueState *copy)
{
    if (copy != NULL && copy != before && before->live == NULL && copy->live != NULL
        && !copy->captured && is_over(self)) {
        before->live = copy->live;
        Py_XSETREF(before->baseline, copy->baseline);
        copy->live = NULL;
        copy->baseline = NULL;
    }
    return Py_NewRef(before);
}

PyObject *
opaque_settle(DObject *self, PyObject *before, PyObject *live)
{
    OpaqueState *old = (OpaqueState *)before;
    OpaqueState *copy;
    if (Py_IS_TYPE(live, tosc_state->OpaqueState_Type)) {
        copy = (OpaqueState *)live;
        live = copy->live;
    } else {
        copy = old->live == live ? old : find_copy(self, live);
    }
    if (copy != NULL && (!copy->worked || live == NULL)) {
        bool same = copy == old || copy->origin == before;
        return same ? Py_NewRef(before) : Py_NewRef(copy);
    }
    bool keep;
    Py_INCREF(live);
    Py_XINCREF(copy);
    OpaqueState *now = opaque_state_dump(self->manager, live, &keep);
    PyObject *result = (PyObject *)now;
    if (now != NULL) {
        bool unchanged = copy != NULL && copy->origin == before
                             ? same_bytes(now->pickle, copy->baseline)
                                   && same_refs(now->refs, copy->refs)
                             : opaque_state_same(now, old);
        if (unchanged) {
            result = settle_unchanged(self, old, copy);
            Py_DECREF(now);
        } else if (keep && is_over(self) && !(copy != NULL && copy->captured)) {
            give_live(now, live);
        }
    }
    Py_XDECREF(copy);
    Py_DECREF(live);
    return result;
}

PyObject *
opaque_plain(DObject *owner, PyObject *op, PyObject *plain_refs)
{
    OpaqueState *state = (OpaqueState *)op;
    return codec_loads(owner->manager, state->pickle, plain_refs);
}

/* ---- the type ---- */

static int
state_traverse(PyObject *op, visitproc visit, void *arg)
{
    OpaqueState *self = (OpaqueState *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->refs);
    Py_VISIT(self->live);
    Py_VISIT(self->origin);
    return 0;
}

static int
state_clear(PyObject *op)
{
    OpaqueState *self = (OpaqueState *)op;
    /* The references stay a tuple: other parts of the garbage may still look at them. */
    PyObject *empty = PyTuple_New(0);
    Py_CLEAR(self->live);
    Py_CLEAR(self->origin);
    if (empty != NULL) {
        Py_XSETREF(self->refs, empty);
    }
    return 0;
}

static void
state_dealloc(PyObject *op)
{
    OpaqueState *self = (OpaqueState *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, state_dealloc) Py_CLEAR(self->pickle);
    Py_CLEAR(self->refs);
    Py_CLEAR(self->live);
    Py_CLEAR(self->baseline);
    Py_CLEAR(self->origin);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyType_Slot state_slots[] = {
    {Py_tp_doc, "What an opaque value is in the store."},
    {Py_tp_traverse, state_traverse},
    {Py_tp_clear, state_clear},
    {Py_tp_dealloc, state_dealloc},
    {0, NULL},
};

static PyType_Spec state_spec = {
    .name = "tosc.OpaqueState",
    .basicsize = sizeof(OpaqueState),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = state_slots,
};

int
opaque_state_init(PyObject *module, ToscState *state)
{
    return tosc_add_type(module, &state->OpaqueState_Type, &state_spec, NULL, NULL);
}
