/*
 * Arguments of the methods of opaque values.
 *
 * A part of the same value is replaced by what it stands for. Wrappers are passed as they
 * are, so that a container keeps them by reference; only operators get the plain builtin
 * behind them, as C code insists on its own types. What can change is copied before a
 * builtin method stores it, as everywhere in the tree: else the program could change it
 * later behind our back. A method that we do not know may as well fill a list that it was
 * given: so a container is passed as a copy, and what has become of the copy is done to the
 * original, with inner objects as parts. A custom object is passed as it is; if the value
 * then holds on to it, the live object is made anew from its pickle.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "opaque.h"

static PyObject *
part_argument(Session *s, DPart *part)
{
    if (part->owner == s->owner && part->live == s->live) {
        return Py_NewRef(part->inner);
    }
    return opaque_copy_of((PyObject *)part);
}

/* The builtin behind a wrapper that is an operand. */
static PyObject *
operand(PyObject *value)
{
    DObject *wrapper = (DObject *)value;
    if (wrapper->kind == KIND_ANY) {
        return Py_NewRef(value);
    }
    PyObject *view = dobject_view(wrapper);
    if (view == NULL || wrapper->kind != KIND_OPAQUE) {
        return view;
    }
    OpaqueState *now = opaque_state_current(wrapper->manager, (OpaqueState *)view);
    PyObject *copy =
        now == NULL ? NULL : codec_loads(wrapper->manager, now->pickle, now->refs);
    Py_XDECREF(now);
    Py_DECREF(view);
    return copy;
}

static PyObject *
tuple_argument(Session *s, PyObject *tuple, int use)
{
    PyObject *result = PyTuple_New(PyTuple_GET_SIZE(tuple));
    if (result != NULL
        && Py_EnterRecursiveCall(" in the arguments of a stored object's method")) {
        Py_CLEAR(result);
    }
    if (result == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; result != NULL && i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = opaque_argument(s, PyTuple_GET_ITEM(tuple, i), use);
        if (item == NULL) {
            Py_CLEAR(result);
        } else {
            PyTuple_SET_ITEM(result, i, item);
        }
    }
    Py_LeaveRecursiveCall();
    return result;
}

static bool
is_copied(int kind, int use)
{
    if (use == ARGUMENT_STORE) {
        return true;
    }
    return use == ARGUMENT_UNKNOWN
           && (kind == VALUE_LIST || kind == VALUE_DICT || kind == VALUE_SET
               || kind == VALUE_BYTES);
}

PyObject *
opaque_argument(Session *s, PyObject *value, int use)
{
    if (value == (PyObject *)s->owner) {
        return Py_NewRef(s->live);
    }
    if (PyObject_TypeCheck(value, tosc_state->DPart_Type)) {
        return part_argument(s, (DPart *)value);
    }
    int kind = value_classify(value);
    PyErr_Clear();
    if (kind < 0 || kind == VALUE_LEAF) {
        return Py_NewRef(value);
    }
    if (kind == VALUE_WRAPPER) {
        return use == ARGUMENT_OPERAND ? operand(value) : Py_NewRef(value);
    }
    if (PyTuple_CheckExact(value)) {
        return tuple_argument(s, value, use);
    }
    if (!is_copied(kind, use)) {
        return Py_NewRef(value);
    }
    PyObject *copied = opaque_deep_copy(value);
    if (copied == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* what cannot be pickled shows when the value is */
        copied = Py_NewRef(value);
    }
    return copied;
}

/* ---- what the call has done to containers ---- */

static PyObject *
shallow_copy(PyObject *container)
{
    if (PyList_CheckExact(container)) {
        return PyList_GetSlice(container, 0, PyList_GET_SIZE(container));
    }
    if (PyDict_CheckExact(container)) {
        return PyDict_Copy(container);
    }
    return PySet_CheckExact(container) ? PySet_New(container)
                                       : PyByteArray_FromObject(container);
}

/* What the program shall see in the place of an element of the copy. */
static PyObject *
shown_element(Session *s, PyObject *element, PyObject *original)
{
    return original != NULL ? Py_NewRef(original) : session_show(s, Py_NewRef(element));
}

/* Where an object stood in the copy before the call; -1: it is new. */
static Py_ssize_t
place_before(PyObject *before, PyObject *element, Py_ssize_t expected)
{
    Py_ssize_t known = PyList_GET_SIZE(before);
    if (expected < known && PyList_GET_ITEM(before, expected) == element) {
        return expected;
    }
    if (value_classify(element) == VALUE_LEAF) {
        return -1;
    }
    PyErr_Clear();
    for (Py_ssize_t i = 0; i < known; i++) {
        if (PyList_GET_ITEM(before, i) == element) {
            return i;
        }
    }
    return -1;
}

/* Elements of the copy that were there before stand for the original's. */
static int
settle_list(Session *s, PyObject *original, PyObject *before, PyObject *after)
{
    PyObject *items = PyList_GetSlice(after, 0, PyList_GET_SIZE(after));
    Py_ssize_t known = PyList_GET_SIZE(before);
    bool changed = items != NULL && PyList_GET_SIZE(items) != known;
    int result = items == NULL || PyList_GET_SIZE(original) != known ? -1 : 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *element = PyList_GET_ITEM(items, i);
        Py_ssize_t place = place_before(before, element, i);
        PyObject *theirs = place >= 0 && place < PyList_GET_SIZE(original)
                               ? PyList_GET_ITEM(original, place)
                               : NULL;
        changed |= place != i;
        PyObject *shown = shown_element(s, element, theirs);
        result = shown == NULL ? -1 : PyList_SetItem(items, i, shown);
    }
    if (result == 0 && changed) {
        result = PyList_SetSlice(original, 0, PyList_GET_SIZE(original), items);
    }
    Py_XDECREF(items);
    return PyErr_Occurred() ? -1 : result < 0 ? 0 : result;
}

static int
settle_dict(Session *s, PyObject *original, PyObject *before, PyObject *after)
{
    PyObject *shown = PyDict_New();
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    bool changed = PyDict_GET_SIZE(before) != PyDict_GET_SIZE(after);
    int result = shown == NULL ? -1 : 0;
    while (result == 0 && PyDict_Next(after, &position, &key, &value)) {
        PyObject *old = PyDict_GetItemWithError(before, key);
        PyObject *theirs =
            PyErr_Occurred() ? NULL : PyDict_GetItemWithError(original, key);
        changed |= old != value;
        PyObject *element = PyErr_Occurred()
                                ? NULL
                                : shown_element(s, value, old == value ? theirs : NULL);
        result = element == NULL ? -1 : PyDict_SetItem(shown, key, element);
        Py_XDECREF(element);
    }
    if (result == 0 && changed) {
        PyDict_Clear(original);
        result = PyDict_Update(original, shown);
    }
    Py_XDECREF(shown);
    return result;
}

static int
settle_set(PyObject *original, PyObject *before, PyObject *after)
{
    PyObject *added = PyNumber_Subtract(after, before);
    PyObject *removed = added == NULL ? NULL : PyNumber_Subtract(before, after);
    int result = removed == NULL ? -1 : 0;
    if (result == 0 && PySet_GET_SIZE(added) > 0) {
        PyObject *done = PyObject_CallMethod(original, "update", "O", added);
        result = done == NULL ? -1 : 0;
        Py_XDECREF(done);
    }
    if (result == 0 && PySet_GET_SIZE(removed) > 0) {
        PyObject *done = PyObject_CallMethod(original, "difference_update", "O", removed);
        result = done == NULL ? -1 : 0;
        Py_XDECREF(done);
    }
    Py_XDECREF(added);
    Py_XDECREF(removed);
    return result;
}

static int
settle_bytes(PyObject *original, PyObject *before, PyObject *after)
{
    int same = PyObject_RichCompareBool(before, after, Py_EQ);
    if (same != 0) {
        return same < 0 ? -1 : 0;
    }
    PyObject *slice = PySlice_New(NULL, NULL, NULL);
    int result = slice == NULL ? -1 : PyObject_SetItem(original, slice, after);
    Py_XDECREF(slice);
    return result;
}

static int
settle_container(Session *s, PyObject *original, PyObject *before, PyObject *after)
{
    if (PyList_CheckExact(after)) {
        return settle_list(s, original, before, after);
    }
    if (PyDict_CheckExact(after)) {
        return settle_dict(s, original, before, after);
    }
    return PySet_CheckExact(after) ? settle_set(original, before, after)
                                   : settle_bytes(original, before, after);
}

/* ---- all arguments of a call ---- */

static int
take_one(Arguments *a, Session *s, Py_ssize_t i)
{
    PyObject *given = a->given[i];
    PyObject *passed = opaque_argument(s, given, a->use);
    if (passed == NULL) {
        return -1;
    }
    a->passed[i] = passed;
    a->counts[i] = Py_REFCNT(passed);
    if (a->use == ARGUMENT_UNKNOWN && passed != given
        && Py_IS_TYPE(passed, Py_TYPE(given)) && !PyTuple_CheckExact(passed)) {
        a->before[i] = shallow_copy(passed);
        return a->before[i] == NULL ? -1 : 0;
    }
    return 0;
}

int
arguments_take(Arguments *a, Session *s, PyObject *const *given, Py_ssize_t total,
               int use)
{
    size_t room = (size_t)total + 1;
    *a = (Arguments){.given = given, .total = total, .use = use};
    a->passed = PyMem_Calloc(room, sizeof(PyObject *));
    a->before = PyMem_Calloc(room, sizeof(PyObject *));
    a->counts = PyMem_Calloc(room, sizeof(Py_ssize_t));
    if (a->passed == NULL || a->before == NULL || a->counts == NULL) {
        PyErr_NoMemory();
        arguments_free(a);
        return -1;
    }
    for (Py_ssize_t i = 0; i < total; i++) {
        if (take_one(a, s, i) < 0) {
            arguments_free(a);
            return -1;
        }
    }
    return 0;
}

/* Does the object hold on to an argument that the program has as well? */
static bool
is_captured(Arguments *a, Py_ssize_t i)
{
    if (a->passed[i] != a->given[i] || Py_REFCNT(a->passed[i]) <= a->counts[i]) {
        return false;
    }
    int kind = value_classify(a->passed[i]);
    PyErr_Clear();
    return kind >= 0 && kind != VALUE_LEAF && kind != VALUE_WRAPPER;
}

int
arguments_settle(Arguments *a, Session *s)
{
    PyObject *type, *value, *traceback;
    int result = 0;
    PyErr_Fetch(&type, &value, &traceback);
    for (Py_ssize_t i = 0; i < a->total; i++) {
        s->captured |= is_captured(a, i);
        if (result == 0 && a->before[i] != NULL) {
            result = settle_container(s, a->given[i], a->before[i], a->passed[i]);
        }
    }
    if (result == 0) {
        PyErr_Restore(type, value, traceback);
    } else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    return result;
}

void
arguments_free(Arguments *a)
{
    for (Py_ssize_t i = 0; i < a->total; i++) {
        if (a->passed != NULL) {
            Py_XDECREF(a->passed[i]);
        }
        if (a->before != NULL) {
            Py_XDECREF(a->before[i]);
        }
    }
    PyMem_Free(a->passed);
    PyMem_Free(a->before);
    PyMem_Free(a->counts);
}
