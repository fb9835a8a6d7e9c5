/*
 * DList: changes.
 *
 * A change converts all its arguments first (that may run Python code, and turns
 * containers into wrappers), then opens a Write, looks, and notes one small operation;
 * whatever was found out before the Write (a sorted copy, the place of an element) is
 * only used if the view is still the same object. So a change is done as a whole or not
 * at all: where the builtin would keep the first elements of an iterable that fails
 * half way, a DList keeps none. An operation that changes nothing is no change: it
 * commits nothing.
 *
 * Inside a Write an element that is replaced or taken out is always held by somebody
 * else (the view, the operation), so nothing is released there that could run a
 * finaliser.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dlist.h"

#include "state.h"

/* How often an element is searched anew when __eq__ keeps changing the list. */
#define MAX_SEARCHES 100

static const PyMethodDef *list_sort;

/* A list of one element, adopted. */
static PyObject *
adopt_one(PyObject *op, PyObject *value)
{
    PyObject *items = PyList_New(1);
    if (items == NULL) {
        return NULL;
    }
    PyObject *item = dobject_adopt((DObject *)op, value);
    if (item == NULL) {
        Py_DECREF(items);
        return NULL;
    }
    PyList_SET_ITEM(items, 0, item);
    return items;
}

static PyObject *
insert_item(PyObject *op, Py_ssize_t index, PyObject *value)
{
    PyObject *items = adopt_one(op, value);
    if (items == NULL) {
        return NULL;
    }
    Write w;
    int status = -1;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length >= 0) {
        index = seq_clamp(index, length);
        status = seq_finish(&w, OP_SPLICE, index, index, items);
    }
    Py_DECREF(items);
    return seq_none(status);
}

PyObject *
dlist_append(PyObject *op, PyObject *value)
{
    return insert_item(op, PY_SSIZE_T_MAX, value);
}

PyObject *
dlist_insert(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t index;
    if (seq_check_count("insert", nargs, 2, 2) < 0 || seq_index(args[0], &index) < 0) {
        return NULL;
    }
    return insert_item(op, index, args[1]);
}

/* Adds the elements of `items`, adopted and given away, at the end. */
static int
extend_adopted(PyObject *op, PyObject *items)
{
    if (PyList_GET_SIZE(items) == 0) {
        return 0;
    }
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    return length < 0 ? -1 : seq_finish(&w, OP_SPLICE, length, length, items);
}

/*
 * The iterable is exhausted before the list is touched: it may be the list, or change
 * it.
 */
static int
extend(PyObject *op, PyObject *iterable)
{
    PyObject *items = dobject_adopt_list((DObject *)op, iterable);
    if (items == NULL) {
        return -1;
    }
    int status = extend_adopted(op, items);
    Py_DECREF(items);
    return status;
}

PyObject *
dlist_extend(PyObject *op, PyObject *iterable)
{
    return seq_none(extend(op, iterable));
}

PyObject *
dlist_inplace_concat(PyObject *op, PyObject *iterable)
{
    return extend(op, iterable) < 0 ? NULL : Py_NewRef(op);
}

static int
clear(PyObject *op)
{
    PyObject *empty = PyList_New(0);
    if (empty == NULL) {
        return -1;
    }
    Write w;
    int status = 0;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length > 0) {
        status = seq_finish(&w, OP_ASSIGN, 0, 0, empty);
    } else if (length == 0) {
        write_abort(&w);
    }
    Py_DECREF(empty);
    return length < 0 ? -1 : status;
}

PyObject *
dlist_clear_method(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return seq_none(clear(op));
}

PyObject *
dlist_inplace_repeat(PyObject *op, Py_ssize_t count)
{
    if (count <= 0) {
        return clear(op) < 0 ? NULL : Py_NewRef(op);
    }
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length < 0) {
        return NULL;
    }
    if (length == 0 || count == 1) {
        write_abort(&w);
        return Py_NewRef(op);
    }
    PyObject *view = write_view(&w);
    PyObject *more = view != NULL ? PySequence_Repeat(view, count - 1) : NULL;
    if (more == NULL) {
        write_abort(&w);
        return NULL;
    }
    int status = seq_finish(&w, OP_SPLICE, length, length, more);
    Py_DECREF(more);
    return status < 0 ? NULL : Py_NewRef(op);
}

/* Inside a Write: the element at an index that was found to be in range. */
static PyObject *
written_item(PyObject *op, Py_ssize_t index)
{
    PyObject *item = dobject_item((DObject *)op, index);
    if (item == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_IndexError, "list index out of range");
    }
    return item;
}

PyObject *
dlist_pop(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t index = -1;
    if (seq_check_count("pop", nargs, 0, 1) < 0
        || (nargs == 1 && seq_index(args[0], &index) < 0)) {
        return NULL;
    }
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length < 0) {
        return NULL;
    }
    index += index < 0 ? length : 0;
    if (index < 0 || index >= length) {
        PyErr_SetString(PyExc_IndexError,
                        length == 0 ? "pop from empty list" : "pop index out of range");
        write_abort(&w);
        return NULL;
    }
    PyObject *item = written_item(op, index);
    if (item == NULL) {
        write_abort(&w);
        return NULL;
    }
    if (seq_finish(&w, OP_SPLICE, index, index + 1, NULL) < 0) {
        Py_CLEAR(item);
    }
    return item;
}

/*
 * The first place of `value` in a list that nobody changes; its length: nowhere; -1:
 * exception.
 */
static Py_ssize_t
search(PyObject *view, PyObject *value)
{
    Py_ssize_t length = PyList_GET_SIZE(view);
    for (Py_ssize_t i = 0; i < length; i++) {
        int equal = PyObject_RichCompareBool(PyList_GET_ITEM(view, i), value, Py_EQ);
        if (equal != 0) {
            return equal < 0 ? -1 : i;
        }
    }
    return length;
}

/*
 * Takes out the element that was found at `index` of `*view`, if it stands there still.
 * 1: done; 0: the list was changed too much; -1: exception. Our reference to an
 * unchanged view is dropped before the operation, so that the state need not be copied
 * for it.
 */
static int
take_out(PyObject *op, PyObject **view, Py_ssize_t index)
{
    Write w;
    if (seq_begin(&w, op, KIND_LIST) < 0) {
        return -1;
    }
    PyObject *now = write_view(&w);
    if (now == NULL) {
        write_abort(&w);
        return -1;
    }
    if (now == *view) {
        Py_CLEAR(*view);
    } else if (index >= PyList_GET_SIZE(now)
               || PyList_GET_ITEM(now, index) != PyList_GET_ITEM(*view, index)) {
        write_abort(&w);
        return 0;
    }
    return seq_finish(&w, OP_SPLICE, index, index + 1, NULL) < 0 ? -1 : 1;
}

PyObject *
dlist_remove(PyObject *op, PyObject *value)
{
    for (int attempt = 0; attempt < MAX_SEARCHES; attempt++) {
        PyObject *view = dlist_view(op);
        if (view == NULL) {
            return NULL;
        }
        Py_ssize_t index = search(view, value);
        int done = -1;
        if (index >= 0 && index == PyList_GET_SIZE(view)) {
            PyErr_SetString(PyExc_ValueError, "list.remove(x): x not in list");
        } else if (index >= 0) {
            done = take_out(op, &view, index);
        }
        Py_XDECREF(view);
        if (done != 0) {
            return seq_none(done);
        }
    }
    PyErr_SetString(PyExc_RuntimeError, "list changed each time it was searched");
    return NULL;
}

/* The same elements in the same order? */
static bool
same_items(PyObject *a, PyObject *b)
{
    Py_ssize_t length = PyList_GET_SIZE(a);
    if (length != PyList_GET_SIZE(b)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < length; i++) {
        if (PyList_GET_ITEM(a, i) != PyList_GET_ITEM(b, i)) {
            return false;
        }
    }
    return true;
}

/* Puts the list `sorted` in the place of `view`, which it was made from. */
static int
assign_sorted(PyObject *op, PyObject *view, PyObject *sorted)
{
    Write w;
    if (seq_begin(&w, op, KIND_LIST) < 0) {
        return -1;
    }
    PyObject *now = write_view(&w);
    if (now != view) {
        if (now != NULL) {
            PyErr_SetString(PyExc_ValueError, "list modified during sort");
        }
        write_abort(&w);
        return -1;
    }
    if (same_items(view, sorted)) {
        write_abort(&w);
        return 0;
    }
    return seq_finish(&w, OP_ASSIGN, 0, 0, sorted);
}

PyObject *
dlist_sort_method(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    PyObject *sorted = PyList_GetSlice(view, 0, PyList_GET_SIZE(view));
    if (sorted != NULL) {
        result = seq_call(list_sort, sorted, args, nargs, kwnames);
        if (result != NULL && assign_sorted(op, view, sorted) < 0) {
            Py_CLEAR(result);
        }
        Py_DECREF(sorted);
    }
    Py_DECREF(view);
    return result;
}

PyObject *
dlist_reverse(PyObject *op, PyObject *Py_UNUSED(unused))
{
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length < 0) {
        return NULL;
    }
    if (length < 2) {
        write_abort(&w);
        Py_RETURN_NONE;
    }
    PyObject *view = write_view(&w);
    PyObject *reversed = view != NULL ? PyList_GetSlice(view, 0, length) : NULL;
    if (reversed == NULL || PyList_Reverse(reversed) < 0) {
        Py_XDECREF(reversed);
        write_abort(&w);
        return NULL;
    }
    int status = seq_finish(&w, OP_ASSIGN, 0, 0, reversed);
    Py_DECREF(reversed);
    return seq_none(status);
}

/* ---- assignment and deletion ---- */

/*
 * Sets or (`item` NULL) deletes one element; `item` is adopted. `l[i] += x` ends by
 * storing the wrapper that stands there already: that is no change.
 */
static int
assign_adopted(PyObject *op, Py_ssize_t index, bool from_end, PyObject *item)
{
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length < 0) {
        return -1;
    }
    index += from_end && index < 0 ? length : 0;
    if (index < 0 || index >= length) {
        PyErr_SetString(PyExc_IndexError, "list assignment index out of range");
        write_abort(&w);
        return -1;
    }
    if (item == NULL) {
        return seq_finish(&w, OP_SPLICE, index, index + 1, NULL);
    }
    if (dobject_check(item)) {
        PyObject *old = written_item(op, index);
        bool same = old == item;
        Py_XDECREF(old); /* the view holds it */
        if (old == NULL || same) {
            write_abort(&w);
            return same ? 0 : -1;
        }
    }
    return seq_finish(&w, OP_ITEM, index, 0, item);
}

static int
assign_index(PyObject *op, Py_ssize_t index, bool from_end, PyObject *value)
{
    PyObject *item = NULL;
    if (value != NULL) {
        item = dobject_adopt((DObject *)op, value);
        if (item == NULL) {
            return -1;
        }
    }
    int status = assign_adopted(op, index, from_end, item);
    Py_XDECREF(item);
    return status;
}

int
dlist_ass_item(PyObject *op, Py_ssize_t index, PyObject *value)
{
    return assign_index(op, index, false, value);
}

/* A part of a list in which the elements of a slice are left out. */
static PyObject *
copy_without(PyObject *view, const SeqSlice *slice, Py_ssize_t lo, Py_ssize_t hi)
{
    PyObject *part = PyList_New(hi - lo - slice->count);
    if (part == NULL) {
        return NULL;
    }
    Py_ssize_t at = 0;
    for (Py_ssize_t i = lo; i < hi; i++) {
        if ((i - slice->start) % slice->step != 0) {
            PyList_SET_ITEM(part, at++, Py_NewRef(PyList_GET_ITEM(view, i)));
        }
    }
    return part;
}

/* A part of a list in which the elements of a slice are those of `items`. */
static PyObject *
copy_with(PyObject *view, const SeqSlice *slice, Py_ssize_t lo, Py_ssize_t hi,
          PyObject *items)
{
    PyObject *part = PyList_GetSlice(view, lo, hi);
    for (Py_ssize_t i = 0; part != NULL && i < slice->count; i++) {
        /* The view holds what is replaced here. */
        PyList_SetItem(part, slice->start + i * slice->step - lo,
                       Py_NewRef(PyList_GET_ITEM(items, i)));
    }
    return part;
}

/*
 * Ends the Write: an extended slice that is not empty is set to `items`, of the right
 * number, or (NULL) deleted. One splice of all that lies between its ends, so that it is
 * done as a whole.
 */
static int
splice_span(Write *w, SeqSlice slice, PyObject *items)
{
    Py_ssize_t last = slice.start + (slice.count - 1) * slice.step;
    Py_ssize_t lo = Py_MIN(slice.start, last);
    Py_ssize_t hi = Py_MAX(slice.start, last) + 1;
    PyObject *view = write_view(w);
    PyObject *part = NULL;
    if (view != NULL) {
        part = items != NULL ? copy_with(view, &slice, lo, hi, items)
                             : copy_without(view, &slice, lo, hi);
    }
    if (part == NULL) {
        write_abort(w);
        return -1;
    }
    int status = seq_finish(w, OP_SPLICE, lo, hi, part);
    Py_DECREF(part);
    return status;
}

/* `items`: an adopted list; NULL: delete. */
static int
assign_slice(PyObject *op, SeqSlice slice, PyObject *items)
{
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length < 0) {
        return -1;
    }
    seq_slice_fit(&slice, length);
    Py_ssize_t count = items != NULL ? PyList_GET_SIZE(items) : 0;
    if (slice.step != 1 && items != NULL && count != slice.count) {
        PyErr_Format(
            PyExc_ValueError,
            "attempt to assign sequence of size %zd to extended slice of size %zd", count,
            slice.count);
        write_abort(&w);
        return -1;
    }
    if (slice.count == 0 && count == 0) {
        write_abort(&w);
        return 0;
    }
    if (slice.step == 1) {
        return seq_finish(&w, OP_SPLICE, slice.start, slice.stop, items);
    }
    return splice_span(&w, slice, items);
}

static int
dlist_ass_slice(PyObject *op, PyObject *key, PyObject *value)
{
    SeqSlice slice;
    if (seq_slice_unpack(key, &slice) < 0) {
        return -1;
    }
    if (value == NULL) {
        return assign_slice(op, slice, NULL);
    }
    PyObject *fast = PySequence_Fast(
        value, slice.step == 1 ? "can only assign an iterable"
                               : "must assign iterable to extended slice");
    if (fast == NULL) {
        return -1;
    }
    PyObject *items = dobject_adopt_list((DObject *)op, fast);
    Py_DECREF(fast);
    if (items == NULL) {
        return -1;
    }
    int status = assign_slice(op, slice, items);
    Py_DECREF(items);
    return status;
}

int
dlist_ass_subscript(PyObject *op, PyObject *key, PyObject *value)
{
    if (!PyIndex_Check(key)) {
        if (PySlice_Check(key)) {
            return dlist_ass_slice(op, key, value);
        }
        dlist_raise_bad_key(key);
        return -1;
    }
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return -1;
    }
    return assign_index(op, index, true, value);
}

/* ---- filling a new one ---- */

/*
 * What __init__ is given; the builtin empties itself first, so of itself nothing is
 * left.
 */
static PyObject *
adopt_contents(PyObject *op, PyObject *iterable)
{
    if (iterable == NULL || iterable == op) {
        return PyList_New(0);
    }
    return dobject_adopt_list((DObject *)op, iterable);
}

static int
check_init_arguments(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyTypeObject *base = tosc_state->DList_Type;
    bool own_new = Py_IS_TYPE(op, base) || Py_TYPE(op)->tp_new == base->tp_new;
    if (own_new && kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "DList() takes no keyword arguments");
        return -1;
    }
    return seq_check_count("DList", PyTuple_GET_SIZE(args), 0, 1);
}

/* Of one that exists already it replaces the contents. */
int
dlist_init_object(PyObject *op, PyObject *args, PyObject *kwargs)
{
    if (check_init_arguments(op, args, kwargs) < 0) {
        return -1;
    }
    PyObject *iterable = PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0) : NULL;
    PyObject *items = adopt_contents(op, iterable);
    if (items == NULL) {
        return -1;
    }
    Write w;
    int status = -1;
    Py_ssize_t length = seq_begin(&w, op, KIND_LIST);
    if (length == 0 && PyList_GET_SIZE(items) == 0) {
        write_abort(&w);
        status = 0;
    } else if (length >= 0) {
        status = seq_finish(&w, OP_ASSIGN, 0, 0, items);
    }
    Py_DECREF(items);
    return status;
}

int
dlist_write_init(void)
{
    list_sort = seq_method(&PyList_Type, "sort");
    return list_sort != NULL ? 0 : -1;
}
