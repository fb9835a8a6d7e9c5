/*
 * DList: a list that can live in a store. The type, and its readings.
 *
 * A DList wraps a plain list, its state, and has the builtin's whole surface. What it
 * gives back is plain: slices, sums and copies are lists. Readings work on the view
 * that this context may see; a view that is held is never changed by anybody, so an
 * iterator is simply the builtin's over the view, and user code that a comparison or a
 * key function runs may change the list as it likes. The hot paths (an element, the
 * length) look straight into the state where no transaction is open. Changes are in
 * dlist_write.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dlist.h"

#include "state.h"

#include <opcode.h>

static const PyMethodDef *list_index;
static const PyMethodDef *list_sizeof;

/* ---- reading ---- */

static bool
is_dlist(PyObject *value)
{
    return dobject_kind(value) == KIND_LIST;
}

static Py_ssize_t
dlist_length(PyObject *op)
{
    PyObject *list = dlist_quiet(op);
    return list != NULL ? PyList_GET_SIZE(list) : dobject_len((DObject *)op);
}

static PyObject *
raise_range(void)
{
    PyErr_SetString(PyExc_IndexError, "list index out of range");
    return NULL;
}

/* The element at an index that is not negative, inside or outside of a transaction. */
static PyObject *
slow_item(PyObject *op, Py_ssize_t index)
{
    if (seq_check_kind(op, KIND_LIST) < 0) {
        return NULL;
    }
    PyObject *item = dobject_item((DObject *)op, index);
    return item != NULL || PyErr_Occurred() ? item : raise_range();
}

static PyObject *
dlist_item(PyObject *op, Py_ssize_t index)
{
    PyObject *list = dlist_quiet(op);
    if (list != NULL && (size_t)index < (size_t)PyList_GET_SIZE(list)) {
        return Py_NewRef(PyList_GET_ITEM(list, index));
    }
    return list != NULL || index < 0 ? raise_range() : slow_item(op, index);
}

static PyObject *
copy_slice(PyObject *op, PyObject *key)
{
    SeqSlice slice;
    if (seq_slice_unpack(key, &slice) < 0) {
        return NULL;
    }
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    seq_slice_fit(&slice, PyList_GET_SIZE(view));
    PyObject *result;
    if (slice.step == 1) {
        result = PyList_GetSlice(view, slice.start, slice.stop);
    } else if ((result = PyList_New(slice.count)) != NULL) {
        for (Py_ssize_t i = 0; i < slice.count; i++) {
            PyObject *item = PyList_GET_ITEM(view, slice.start + i * slice.step);
            PyList_SET_ITEM(result, i, Py_NewRef(item));
        }
    }
    Py_DECREF(view);
    return result;
}

PyObject *
dlist_raise_bad_key(PyObject *key)
{
    PyErr_Format(PyExc_TypeError, "list indices must be integers or slices, not %.200s",
                 Py_TYPE(key)->tp_name);
    return NULL;
}

/* Any other key than an int, one that is out of range, and what a transaction sees. */
static PyObject *
slow_subscript(PyObject *op, PyObject *key)
{
    if (!PyIndex_Check(key)) {
        return PySlice_Check(key) ? copy_slice(op, key) : dlist_raise_bad_key(key);
    }
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index < 0) {
        Py_ssize_t length = dlist_length(op);
        if (length < 0) {
            return NULL;
        }
        index += length;
    }
    return dlist_item(op, index);
}

/* The way of `l[i]`: an int that is in range, and no transaction. */
static PyObject *
dlist_subscript(PyObject *op, PyObject *key)
{
    PyObject *list = dlist_quiet(op);
    if (list != NULL && PyLong_CheckExact(key)) {
        Py_ssize_t index = PyLong_AsSsize_t(key);
        if (index == -1 && PyErr_Occurred()) {
            PyErr_Clear(); /* too large: the slow way tells */
            return slow_subscript(op, key);
        }
        index += index < 0 ? PyList_GET_SIZE(list) : 0;
        if ((size_t)index < (size_t)PyList_GET_SIZE(list)) {
            return Py_NewRef(PyList_GET_ITEM(list, index));
        }
    }
    return slow_subscript(op, key);
}

static int
dlist_contains(PyObject *op, PyObject *value)
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return -1;
    }
    int found = PySequence_Contains(view, value);
    Py_DECREF(view);
    return found;
}

static PyObject *
dlist_iter(PyObject *op)
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *iterator = PyObject_GetIter(view);
    Py_DECREF(view);
    return iterator;
}

static PyObject *
dlist_reversed(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *iterator = PyObject_CallOneArg((PyObject *)&PyReversed_Type, view);
    Py_DECREF(view);
    return iterator;
}

static PyObject *
dlist_index(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = seq_call(list_index, view, args, nargs, NULL);
    Py_DECREF(view);
    return result;
}

static PyObject *
dlist_count(PyObject *op, PyObject *value)
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    Py_ssize_t count = PySequence_Count(view, value);
    Py_DECREF(view);
    return count < 0 ? NULL : PyLong_FromSsize_t(count);
}

/*
 * Guarded by the wrapper as well as by its view, which may be another one at each
 * depth.
 */
static PyObject *
dlist_repr(PyObject *op)
{
    int entered = Py_ReprEnter(op);
    if (entered != 0) {
        return entered > 0 ? PyUnicode_FromString("[...]") : NULL;
    }
    PyObject *view = dlist_view(op);
    PyObject *text = view != NULL ? PyObject_Repr(view) : NULL;
    Py_XDECREF(view);
    Py_ReprLeave(op);
    return text;
}

static PyObject *
dlist_richcompare(PyObject *op, PyObject *other, int how)
{
    bool wrapped = is_dlist(other);
    if (!wrapped && !PyList_Check(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *left = dlist_view(op);
    if (left == NULL) {
        return NULL;
    }
    PyObject *right = wrapped ? dlist_view(other) : Py_NewRef(other);
    PyObject *result = right != NULL ? PyObject_RichCompare(left, right, how) : NULL;
    Py_XDECREF(right);
    Py_DECREF(left);
    return result;
}

/* ---- sums and products, which are plain lists ---- */

static PyObject *
dlist_concat(PyObject *op, PyObject *other)
{
    PyObject *left = dlist_view(op);
    if (left == NULL) {
        return NULL;
    }
    PyObject *right = is_dlist(other) ? dlist_view(other) : Py_NewRef(other);
    PyObject *result = right != NULL ? PySequence_Concat(left, right) : NULL;
    Py_XDECREF(right);
    Py_DECREF(left);
    return result;
}

static PyObject *
dlist_repeat(PyObject *op, Py_ssize_t count)
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = PySequence_Repeat(view, count);
    Py_DECREF(view);
    return result;
}

/* Does the Python code that runs execute a `+=`? */
static bool
in_augmented_assignment(void)
{
    bool augmented = false;
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) {
        return false;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *instructions = PyCode_GetCode(code);
    Py_DECREF(code);
    if (instructions == NULL) {
        PyErr_Clear();
        return false;
    }
    int last = PyFrame_GetLasti(frame);
    if (last >= 0 && last + 1 < PyBytes_GET_SIZE(instructions)) {
        const unsigned char *at = (unsigned char *)PyBytes_AS_STRING(instructions) + last;
        augmented = at[0] == BINARY_OP && at[1] == NB_INPLACE_ADD;
    }
    Py_DECREF(instructions);
    return augmented;
}

/*
 * DList + list, DList + DList, list + DList. The last needs this slot of numbers, as a
 * list adds nothing but lists; but CPython then asks it for `list += DList` too, before
 * the list's own +=, which takes any iterable. The result would be right, but a new
 * list: whoever else holds the old one would miss the elements. So the two are told
 * apart.
 */
static PyObject *
dlist_add(PyObject *left, PyObject *right)
{
    if (is_dlist(left)) {
        if (is_dlist(right) || PyList_Check(right)) {
            return dlist_concat(left, right);
        }
    } else if (PyList_Check(left)) {
        if (in_augmented_assignment()) {
            return PySequence_InPlaceConcat(left, right);
        }
        PyObject *view = dlist_view(right);
        PyObject *sum = view != NULL ? PySequence_Concat(left, view) : NULL;
        Py_XDECREF(view);
        return sum;
    }
    Py_RETURN_NOTIMPLEMENTED;
}

/* ---- copies ---- */

static PyObject *
dlist_copy(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *copy = PyList_GetSlice(view, 0, PyList_GET_SIZE(view));
    Py_DECREF(view);
    return copy;
}

static PyObject *
dlist_deepcopy(PyObject *op, PyObject *Py_UNUSED(memo))
{
    return dobject_plain(op);
}

/*
 * Pickles as a plain list. Its elements are handed to the pickler one by one, so that
 * wrappers among them do the same, and cycles and aliases within one pickle are kept.
 */
static PyObject *
dlist_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *iterator = dlist_iter(op);
    if (iterator == NULL) {
        return NULL;
    }
    return Py_BuildValue("O()ON", (PyObject *)&PyList_Type, Py_None, iterator);
}

static PyObject *
dlist_sizeof(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *view = dlist_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *size = seq_call(list_sizeof, view, NULL, 0, NULL);
    Py_DECREF(view);
    return seq_sizeof(op, size);
}

/* ---- the type ---- */

static PyObject *
dlist_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return (PyObject *)dobject_new(type, KIND_LIST, PyList_New(0));
}

PyDoc_STRVAR(
    dlist_doc,
    "DList(iterable=(), /)\n--\n\n"
    "What a list becomes when a Manager stores it.\n\n"
    "It has all of list's methods and operators. Slices, copies, and results of + and\n"
    "* are plain lists, and an iterator goes over the list as it was when it was made.\n"
    "One that is made here stands alone until it is put into something that is\n"
    "stored. Containers that are put in become tracked copies:\n"
    "`l.append([]); l[-1].append(1)`. A change is done as a whole, or, after an error,\n"
    "not at all.");
PyDoc_STRVAR(getitem_doc, "__getitem__($self, key, /)\n--\n\n"
                          "Return self[key]; of a slice a plain list.");
PyDoc_STRVAR(reversed_doc, "__reversed__($self, /)\n--\n\n"
                           "Return a reverse iterator over the list as it is now.");
PyDoc_STRVAR(sizeof_doc, "__sizeof__($self, /)\n--\n\n"
                         "Return the size of the list in memory, in bytes.");
PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($type, item, /)\n--\n\n"
                                "DList[item] for annotations, see PEP 585.");
PyDoc_STRVAR(copy_method_doc, "__copy__($self, /)\n--\n\nA shallow copy, a plain list.");
PyDoc_STRVAR(deepcopy_doc, "__deepcopy__($self, memo, /)\n--\n\n"
                           "A deep copy in the original types, a plain list.");
PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\nPickles as a plain list.");
PyDoc_STRVAR(append_doc, "append($self, object, /)\n--\n\n"
                         "Append object to the end of the list.");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove all items from list.");
PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\n"
                       "Return a shallow copy of the list, a plain list.");
PyDoc_STRVAR(count_doc, "count($self, value, /)\n--\n\n"
                        "Return number of occurrences of value.");
PyDoc_STRVAR(extend_doc,
             "extend($self, iterable, /)\n--\n\n"
             "Extend list by appending elements from the iterable.\n\n"
             "The iterable is exhausted before the first of them is appended.");
PyDoc_STRVAR(index_doc, "index($self, value, start=0, stop=sys.maxsize, /)\n--\n\n"
                        "Return first index of value.\n\n"
                        "Raises ValueError if the value is not present.");
PyDoc_STRVAR(insert_doc, "insert($self, index, object, /)\n--\n\n"
                         "Insert object before index.");
PyDoc_STRVAR(pop_doc, "pop($self, index=-1, /)\n--\n\n"
                      "Remove and return item at index (default last).\n\n"
                      "Raises IndexError if list is empty or index is out of range.");
PyDoc_STRVAR(remove_doc, "remove($self, value, /)\n--\n\n"
                         "Remove first occurrence of value.\n\n"
                         "Raises ValueError if the value is not present.");
PyDoc_STRVAR(reverse_doc, "reverse($self, /)\n--\n\nReverse *IN PLACE*.");
PyDoc_STRVAR(
    sort_doc,
    "sort($self, /, *, key=None, reverse=False)\n--\n\n"
    "Sort the list in ascending order and return None.\n\n"
    "The sort is in-place (i.e. the list itself is modified) and stable (i.e. the\n"
    "order of two equal elements is maintained).\n\n"
    "If a key function is given, apply it once to each list item and sort them,\n"
    "ascending or descending, according to their function values.\n\n"
    "The reverse flag can be set to sort in descending order.\n\n"
    "Raises ValueError, and leaves the list alone, if somebody changed it meanwhile.");

static PyMethodDef dlist_methods[] = {
    {"__getitem__", dlist_subscript, METH_O | METH_COEXIST, getitem_doc},
    {"__reversed__", dlist_reversed, METH_NOARGS, reversed_doc},
    {"__sizeof__", dlist_sizeof, METH_NOARGS, sizeof_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {"__copy__", dlist_copy, METH_NOARGS, copy_method_doc},
    {"__deepcopy__", dlist_deepcopy, METH_O, deepcopy_doc},
    {"__reduce__", dlist_reduce, METH_NOARGS, reduce_doc},
    {"append", dlist_append, METH_O, append_doc},
    {"clear", dlist_clear_method, METH_NOARGS, clear_doc},
    {"copy", dlist_copy, METH_NOARGS, copy_doc},
    {"count", dlist_count, METH_O, count_doc},
    {"extend", dlist_extend, METH_O, extend_doc},
    {"index", SEQ_FASTCALL(dlist_index), METH_FASTCALL, index_doc},
    {"insert", SEQ_FASTCALL(dlist_insert), METH_FASTCALL, insert_doc},
    {"pop", SEQ_FASTCALL(dlist_pop), METH_FASTCALL, pop_doc},
    {"remove", dlist_remove, METH_O, remove_doc},
    {"reverse", dlist_reverse, METH_NOARGS, reverse_doc},
    {"sort", SEQ_FASTCALL(dlist_sort_method), METH_FASTCALL | METH_KEYWORDS, sort_doc},
    {NULL},
};

static PyType_Slot dlist_slots[] = {
    {Py_tp_doc, (void *)dlist_doc},
    {Py_tp_new, dlist_new},
    {Py_tp_init, dlist_init_object},
    {Py_tp_dealloc, dobject_dealloc},
    {Py_tp_traverse, dobject_traverse},
    {Py_tp_clear, dobject_clear},
    {Py_tp_members, dobject_members},
    {Py_tp_methods, dlist_methods},
    {Py_tp_repr, dlist_repr},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, dlist_richcompare},
    {Py_tp_iter, dlist_iter},
    {Py_nb_add, dlist_add},
    {Py_nb_inplace_add, dlist_inplace_concat},
    {Py_sq_length, dlist_length},
    {Py_sq_concat, dlist_concat},
    {Py_sq_repeat, dlist_repeat},
    {Py_sq_item, dlist_item},
    {Py_sq_ass_item, dlist_ass_item},
    {Py_sq_contains, dlist_contains},
    {Py_sq_inplace_concat, dlist_inplace_concat},
    {Py_sq_inplace_repeat, dlist_inplace_repeat},
    {Py_mp_length, dlist_length},
    {Py_mp_subscript, dlist_subscript},
    {Py_mp_ass_subscript, dlist_ass_subscript},
    {0, NULL},
};

/*
 * Immutable as the builtin is: so no class of another kind can be slipped under an
 * instance.
 */
static PyType_Spec dlist_spec = {
    .name = "tosc.DList",
    .basicsize = sizeof(DObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_SEQUENCE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = dlist_slots,
};

int
dlist_init(PyObject *module, ToscState *state)
{
    list_index = seq_method(&PyList_Type, "index");
    list_sizeof = seq_method(&PyList_Type, "__sizeof__");
    if (list_index == NULL || list_sizeof == NULL || dlist_write_init() < 0
        || tosc_add_type(module, &state->DList_Type, &dlist_spec, state->DObject_Type,
                         "DList")
               < 0) {
        return -1;
    }
    return seq_register(state->DList_Type, "MutableSequence");
}
