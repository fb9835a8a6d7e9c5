/*
 * From plain values to what may stand in a state, and back.
 *
 * One engine does both: dobject_adopt() turns plain containers into wrappers, dobject_plain()
 * turns wrappers into plain containers. It walks the value depth first on a stack of its own
 * (depth is bounded by memory only) with a table of what it has met, by identity, so that
 * aliases stay aliases and cycles end. A frame of the stack is one container: `items` is our
 * own copy of its elements, which are replaced one by one by what they become; so nothing
 * that the program does to the original meanwhile matters. What a container becomes is known
 * when its frame is opened (a wrapper or a plain container, filled when the frame is
 * closed), except for tuples, frozensets and opaque objects, which can only be made from
 * their finished elements.
 *
 * Hashing: a custom object may be hashed by its attributes, so it must be complete before it
 * becomes a key. Depth first does this but for cycles: dicts and sets whose keys are not all
 * leaves are put off until no custom object is open.
 *
 * What must stay true: an adopted wrapper's state holds leaves, wrappers of the same Manager,
 * and tuples and frozensets of these, nothing else. The stack is the path to a value that
 * cannot be adopted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine.h"

#include "classify.h"
#include "opaque.h"
#include "state.h"

/* ---- the stack ---- */

static int
grow(Frame **frames, size_t count, size_t *room)
{
    if (count < *room) {
        return 0;
    }
    size_t larger = *room == 0 ? 16 : *room * 2;
    Frame *moved = PyMem_Resize(*frames, Frame, larger);
    if (moved == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *frames = moved;
    *room = larger;
    return 0;
}

/*
 * Can the object not be met again? Nobody refers to it but the container that we found it
 * in, our copy of that (which alone may be left of a bare container), and who asks.
 */
static bool
is_met_once(const Engine *e, PyObject *value)
{
    if (e->depth == 0 || e->remember_all) {
        return false;
    }
    return Py_REFCNT(value) <= (e->frames[e->depth - 1].source != NULL ? 3 : 2);
}

/* Opens a frame. Steals result and items, also on failure. */
static int
push(Engine *e, int kind, PyObject *source, PyObject *result, PyObject *items,
     bool custom)
{
    if (items == NULL || grow(&e->frames, e->depth, &e->room) < 0
        || (result != NULL && source != NULL && !is_met_once(e, source)
            && memo_add(&e->memo, source, result) < 0)) {
        Py_XDECREF(result);
        Py_XDECREF(items);
        return -1;
    }
    e->frames[e->depth++] = (Frame){
        .kind = kind,
        .custom = custom,
        .source = Py_XNewRef(source),
        .result = result,
        .items = items,
        .met = e->memo.used,
    };
    e->custom_depth += custom;
    return 0;
}

static void
drop_frame(Frame *frame)
{
    Py_XDECREF(frame->source);
    Py_XDECREF(frame->state);
    Py_XDECREF(frame->result);
    Py_XDECREF(frame->items);
}

void
engine_clear(Engine *e)
{
    while (e->depth > 0) {
        drop_frame(&e->frames[--e->depth]);
    }
    while (e->late_count > 0) {
        drop_frame(&e->late[--e->late_count]);
    }
    PyMem_Free(e->frames);
    PyMem_Free(e->late);
    memo_clear(&e->memo);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(e->empty); i++) {
        Py_XDECREF(e->empty[i]);
    }
    if (e->copier != NULL) {
        engine_clear(e->copier);
        PyMem_Free(e->copier);
    }
}

/* ---- closing frames ---- */

static PyObject *
dict_from_pairs(PyObject *dict, PyObject *pairs)
{
    for (Py_ssize_t i = 0; dict != NULL && i + 1 < PyList_GET_SIZE(pairs); i += 2) {
        if (PyDict_SetItem(dict, PyList_GET_ITEM(pairs, i), PyList_GET_ITEM(pairs, i + 1))
            < 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

/* The builtin that the elements make. New reference. */
static PyObject *
build(Frame *frame)
{
    switch (frame->kind) {
    case FRAME_PAIRS:
        return dict_from_pairs(PyDict_New(), frame->items);
    case FRAME_SET:
        return PySet_New(frame->items);
    default:
        return Py_NewRef(frame->items);
    }
}

/* Puts the elements into what the frame's container becomes. */
static int
fill(Engine *e, Frame *frame)
{
    if (e->adopt) {
        PyObject *state = build(frame);
        if (state == NULL) {
            return -1;
        }
        Py_SETREF(((DObject *)frame->result)->state, state);
        return 0;
    }
    if (frame->custom) {
        PyObject *attributes = build(frame);
        int result = attributes == NULL ? -1 : dany_fill(frame->result, attributes);
        Py_XDECREF(attributes);
        return result;
    }
    if (frame->kind == FRAME_PAIRS) {
        PyObject *dict = dict_from_pairs(Py_NewRef(frame->result), frame->items);
        Py_XDECREF(dict);
        return dict == NULL ? -1 : 0;
    }
    if (frame->kind == FRAME_SET) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(frame->items); i++) {
            if (PySet_Add(frame->result, PyList_GET_ITEM(frame->items, i)) < 0) {
                return -1;
            }
        }
    }
    return 0; /* a plain list or dict is the frame's items */
}

static PyObject *
make_tuple(Frame *frame)
{
    if (!frame->changed) {
        return Py_NewRef(frame->source);
    }
    if (PyTuple_CheckExact(frame->source)) {
        return PyList_AsTuple(frame->items);
    }
    PyObject *args = PyTuple_Pack(1, frame->items);
    PyObject *made =
        args == NULL ? NULL : PyTuple_Type.tp_new(Py_TYPE(frame->source), args, NULL);
    Py_XDECREF(args);
    return made;
}

static PyObject *
make_opaque(Frame *frame)
{
    PyObject *refs = PyList_AsTuple(frame->items);
    PyObject *made =
        refs == NULL ? NULL : opaque_plain((DObject *)frame->source, frame->state, refs);
    Py_XDECREF(refs);
    return made;
}

/* What becomes of a container that can only be made at the end. */
static PyObject *
make_late(Engine *e, Frame *frame)
{
    PyObject *made = memo_get(&e->memo, frame->source); /* met again, inside itself */
    if (made != NULL) {
        return Py_NewRef(made);
    }
    if (frame->kind == FRAME_TUPLE) {
        made = make_tuple(frame);
    } else if (frame->kind == FRAME_FROZENSET) {
        made = frame->changed ? PyFrozenSet_New(frame->items) : Py_NewRef(frame->source);
    } else {
        made = make_opaque(frame);
    }
    if (made != NULL && memo_add(&e->memo, frame->source, made) < 0) {
        Py_CLEAR(made);
    }
    return made;
}

/* Fills what was put off. */
static int
flush_late(Engine *e)
{
    for (size_t i = 0; i < e->late_count; i++) {
        if (fill(e, &e->late[i]) < 0) {
            return -1;
        }
    }
    while (e->late_count > 0) {
        drop_frame(&e->late[--e->late_count]);
    }
    return 0;
}

/* Closes the topmost frame; what its container has become, as a new reference. */
static PyObject *
pop(Engine *e)
{
    Frame frame = e->frames[e->depth - 1];
    PyObject *result = NULL;
    bool keyed = frame.kind == FRAME_PAIRS || frame.kind == FRAME_SET;
    if (frame.source == NULL) {
        result = build(&frame);
    } else if (frame.result == NULL) {
        result = make_late(e, &frame);
    } else if (keyed && !frame.custom && e->custom_depth > 0) {
        if (grow(&e->late, e->late_count, &e->late_room) < 0) {
            return NULL;
        }
        result = Py_NewRef(frame.result);
        e->late[e->late_count++] = frame;
        e->depth--;
        return result;
    } else if (fill(e, &frame) == 0) {
        result = Py_NewRef(frame.result);
    }
    if (result == NULL) {
        return NULL; /* the frame stays: it is part of the path */
    }
    e->depth--;
    e->custom_depth -= frame.custom;
    drop_frame(&frame);
    if (e->custom_depth == 0 && e->late_count > 0 && flush_late(e) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* ---- opening frames ---- */

bool
engine_all_leaves(PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        if (value_classify(PyTuple_GET_ITEM(tuple, i)) != VALUE_LEAF) {
            PyErr_Clear(); /* met again, with its path, when the element's turn comes */
            return false;
        }
    }
    return true;
}

/* 1: every key is a leaf; 0: not; -1: exception. */
static int
has_leaf_keys(PyObject *dict)
{
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (!PyUnicode_CheckExact(key) && !PyLong_CheckExact(key)
            && (value_classify(key) != VALUE_LEAF)) {
            PyErr_Clear();
            return 0;
        }
    }
    return 1;
}

PyObject *
engine_pairs(PyObject *dict)
{
    PyObject *pairs = PyList_New(2 * PyDict_GET_SIZE(dict));
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    Py_ssize_t i = 0;
    while (pairs != NULL && PyDict_Next(dict, &position, &key, &value)) {
        PyList_SET_ITEM(pairs, i++, Py_NewRef(key));
        PyList_SET_ITEM(pairs, i++, Py_NewRef(value));
    }
    return pairs;
}

/*
 * Opens the frame of a list, dict or set (`copy`: our own exact builtin, stolen). `result`
 * is stolen too; NULL with `plain`: the container itself. -1: exception.
 */
int
engine_open(Engine *e, PyObject *source, PyObject *result, PyObject *copy, bool custom)
{
    if (copy == NULL || (result == NULL && source != NULL)) {
        Py_XDECREF(copy);
        Py_XDECREF(result);
        return -1;
    }
    if (PyList_CheckExact(copy)) {
        return push(e, FRAME_LIST, source, result, copy, custom);
    }
    if (PyDict_CheckExact(copy) && has_leaf_keys(copy)) {
        return push(e, FRAME_DICT, source, result, copy, custom);
    }
    bool dict = PyDict_CheckExact(copy);
    PyObject *items = dict ? engine_pairs(copy) : PySequence_List(copy);
    Py_DECREF(copy);
    return push(e, dict ? FRAME_PAIRS : FRAME_SET, source, result, items, custom);
}

static int
open_plain(Engine *e, PyObject *source, PyObject *copy)
{
    PyObject *result;
    if (copy == NULL) {
        return -1;
    }
    if (PyDict_CheckExact(copy) && !has_leaf_keys(copy)) {
        result = PyDict_New();
    } else if (PyAnySet_Check(copy)) {
        result = PySet_New(NULL);
    } else {
        result = Py_NewRef(copy);
    }
    if (result == NULL) {
        Py_DECREF(copy);
        return -1;
    }
    return engine_open(e, source, result, copy, false);
}

/* Did we open it before and learn nothing new since? Then it consists of itself. */
static int
check_opaque_cycle(Engine *e, PyObject *source)
{
    for (size_t i = e->depth; i-- > 0;) {
        Frame *frame = &e->frames[i];
        if (frame->source == source && frame->kind == FRAME_OPAQUE
            && frame->met == e->memo.used) {
            PyErr_Format(
                PyExc_ValueError,
                "%.200s objects that refer to each other in a cycle cannot be copied",
                Py_TYPE(source)->tp_name);
            return -1;
        }
    }
    return 0;
}

/* ---- to plain ---- */

static int
open_opaque_plain(Engine *e, DObject *wrapper, OpaqueState *view)
{
    if (!Py_IS_TYPE(view, tosc_state->OpaqueState_Type)) {
        PyErr_SetString(PyExc_ReferenceError, "this object is being taken apart");
        return -1;
    }
    if (check_opaque_cycle(e, (PyObject *)wrapper) < 0) {
        return -1;
    }
    OpaqueState *state = opaque_state_current(wrapper->manager, view);
    if (state == NULL) {
        return -1;
    }
    int result = push(e, FRAME_OPAQUE, (PyObject *)wrapper, NULL,
                      PySequence_List(state->refs), false);
    if (result == 0) {
        e->frames[e->depth - 1].state = (PyObject *)state;
    } else {
        Py_DECREF(state);
    }
    return result;
}

static int
open_wrapper_plain(Engine *e, PyObject *source, PyObject **ret)
{
    DObject *wrapper = (DObject *)source;
    PyObject *view = dobject_view(wrapper);
    int result = -1;
    if (view == NULL) {
        return -1;
    }
    switch (wrapper->kind) {
    case KIND_LIST:
        result = open_plain(e, source, PyList_GetSlice(view, 0, PyList_GET_SIZE(view)));
        break;
    case KIND_DICT:
        result = open_plain(e, source, PyDict_Copy(view));
        break;
    case KIND_SET:
        result = open_plain(e, source, PySet_New(view));
        break;
    case KIND_BYTES:
        *ret = PyByteArray_FromObject(view);
        result = *ret == NULL ? -1 : memo_add(&e->memo, source, *ret);
        break;
    case KIND_ANY: {
        PyObject *made = dany_put_together(((DAnyObject *)source)->cls);
        if (made != NULL) {
            result = engine_open(e, source, made, PyDict_Copy(view), true);
        }
        break;
    }
    default:
        result = open_opaque_plain(e, wrapper, (OpaqueState *)view);
    }
    Py_DECREF(view);
    return result;
}

static int
turn_plain(Engine *e, PyObject *value, int class, PyObject **ret)
{
    switch (class) {
    case VALUE_WRAPPER:
        return open_wrapper_plain(e, value, ret);
    case VALUE_LIST:
        return open_plain(e, value, PyList_GetSlice(value, 0, PyList_GET_SIZE(value)));
    case VALUE_DICT:
        return open_plain(e, value, PyDict_Copy(value));
    case VALUE_SET:
        return open_plain(e, value, PySet_New(value));
    case VALUE_BYTES:
        *ret = PyByteArray_FromObject(value);
        return *ret == NULL ? -1 : memo_add(&e->memo, value, *ret);
    default:
        *ret = Py_NewRef(value);
        return 0;
    }
}

/* ---- running ---- */

/*
 * What becomes of one value: *ret (a new reference) if that is known at once, or, with *ret
 * left NULL, a frame is opened. -1: exception.
 */
int
engine_turn(Engine *e, PyObject *value, PyObject **ret)
{
    int class = value_classify(value);
    *ret = NULL;
    if (class == VALUE_LEAF) {
        *ret = Py_NewRef(value);
        return 0;
    }
    if (class < 0) {
        if (e->adopt) {
            return -1;
        }
        PyErr_Clear();
        *ret = Py_NewRef(value);
        return 0;
    }
    PyObject *known = is_met_once(e, value) ? NULL : memo_get(&e->memo, value);
    if (known != NULL) {
        *ret = Py_NewRef(known);
        return 0;
    }
    int result;
    if (class == VALUE_TUPLE && engine_all_leaves(value)) {
        *ret = Py_NewRef(value);
        return 0;
    }
    if (class == VALUE_TUPLE || class == VALUE_FROZENSET) {
        int kind = class == VALUE_TUPLE ? FRAME_TUPLE : FRAME_FROZENSET;
        return push(e, kind, value, NULL, PySequence_List(value), false);
    }
    result =
        e->adopt ? engine_adopt(e, value, class, ret) : turn_plain(e, value, class, ret);
    if (result < 0) {
        Py_CLEAR(*ret);
    }
    return result;
}

/* The topmost frame's element at its position becomes `value` (stolen). */
static int
deliver(Frame *frame, PyObject *value)
{
    int result = 0;
    if (frame->kind == FRAME_DICT) {
        result = PyDict_SetItem(frame->items, frame->key, value);
        Py_DECREF(value);
        return result;
    }
    PyObject *old = PyList_GET_ITEM(frame->items, frame->next - 1);
    frame->changed |= old != value;
    PyList_SET_ITEM(frame->items, frame->next - 1, value);
    Py_DECREF(old);
    return 0;
}

/*
 * Goes on with the topmost frame until an element needs a frame of its own (0) or all are
 * done (1). -1: exception.
 */
static int
advance(Engine *e)
{
    size_t depth = e->depth;
    Frame *frame = &e->frames[depth - 1];
    while (true) {
        PyObject *element;
        if (frame->kind == FRAME_DICT) {
            if (!PyDict_Next(frame->items, &frame->next, &frame->key, &element)) {
                return 1;
            }
        } else {
            if (frame->next >= PyList_GET_SIZE(frame->items)) {
                return 1;
            }
            element = PyList_GET_ITEM(frame->items, frame->next++);
        }
        PyObject *becomes;
        Py_INCREF(element);
        int result = engine_turn(e, element, &becomes);
        Py_DECREF(element);
        if (result < 0) {
            return -1;
        }
        if (e->depth > depth) {
            return 0;
        }
        frame = &e->frames[depth - 1];
        if (becomes == element) {
            Py_DECREF(becomes);
        } else if (deliver(frame, becomes) < 0) {
            return -1;
        }
    }
}

PyObject *
engine_finish(Engine *e)
{
    while (true) {
        int done = advance(e);
        if (done < 0) {
            return NULL;
        }
        if (done == 0) {
            continue;
        }
        PyObject *result = pop(e);
        if (result == NULL || e->depth == 0) {
            return result;
        }
        if (deliver(&e->frames[e->depth - 1], result) < 0) {
            return NULL;
        }
    }
}

PyObject *
engine_run(Engine *e, PyObject *value)
{
    PyObject *result;
    if (engine_turn(e, value, &result) < 0) {
        return NULL;
    }
    return e->depth > 0 ? engine_finish(e) : result;
}
