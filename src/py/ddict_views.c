/*
 * The live views of a DDict: keys, values, items.
 *
 * A view of ours is only a reference to its DDict. Whatever it is asked, it makes the
 * builtin's view of the dict that this context sees at that moment and passes the
 * question on, so it is live, and iterators over it are over a stable snapshot. Only
 * look-ups (len, `in`) go straight to the DDict, which answers them without building the
 * whole dict inside a transaction.
 *
 * Set operators of views, and of DSet, are done by replacing each operand of ours by its
 * builtin form and asking the interpreter again, in the order in which the operands
 * stood.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ddict.h"

typedef struct DictView {
    PyObject_HEAD
    DObject *dict;
} DictView;

/* ---- the builtin forms ---- */

PyObject *
ddict_view_new(PyTypeObject *type, PyObject *dict)
{
    DictView *self = PyObject_GC_New(DictView, type);
    if (self == NULL) {
        return NULL;
    }
    self->dict = (DObject *)Py_NewRef(dict);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static bool
is_keys(PyObject *value)
{
    return Py_IS_TYPE(value, tosc_state->DDictKeys_Type);
}

static bool
is_items(PyObject *value)
{
    return Py_IS_TYPE(value, tosc_state->DDictItems_Type);
}

static const char *
builtin_method(PyObject *self)
{
    return is_keys(self) ? "keys" : is_items(self) ? "items" : "values";
}

/* dict.keys(), dict.values() or dict.items() of what this context sees of the DDict. */
static PyObject *
builtin_view(PyObject *self)
{
    PyObject *dict = dobject_view(((DictView *)self)->dict);
    if (dict == NULL) {
        return NULL;
    }
    PyObject *view = hashed_ask(dict, builtin_method(self), NULL, 0);
    Py_DECREF(dict);
    return view;
}

PyObject *
ddict_operand(PyObject *operand)
{
    if (is_keys(operand) || is_items(operand)) {
        return builtin_view(operand);
    }
    if (dobject_kind(operand) == KIND_SET) {
        return dobject_view((DObject *)operand);
    }
    return Py_NewRef(operand);
}

bool
ddict_is_setlike(PyObject *value)
{
    return PyAnySet_Check(value) || dobject_kind(value) == KIND_SET || is_keys(value)
           || is_items(value) || PyDictKeys_Check(value) || PyDictItems_Check(value);
}

/* ---- the view types ---- */

static int
view_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((DictView *)self)->dict);
    return 0;
}

/* No tp_clear: as with the builtin's views, every cycle also goes through the dict. */
static void
view_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_DECREF(((DictView *)self)->dict);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *
view_iter(PyObject *self)
{
    PyObject *iterable =
        is_keys(self) ? dobject_view(((DictView *)self)->dict) : builtin_view(self);
    PyObject *iterator = iterable != NULL ? PyObject_GetIter(iterable) : NULL;
    Py_XDECREF(iterable);
    return iterator;
}

static Py_ssize_t
view_length(PyObject *self)
{
    return dobject_len(((DictView *)self)->dict);
}

static int
keys_contains(PyObject *self, PyObject *key)
{
    return dobject_contains(((DictView *)self)->dict, key);
}

static int
items_contains(PyObject *self, PyObject *item)
{
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
        return 0;
    }
    PyObject *value;
    int found = dobject_get(((DictView *)self)->dict, PyTuple_GET_ITEM(item, 0), &value);
    if (found > 0) {
        found = PyObject_RichCompareBool(value, PyTuple_GET_ITEM(item, 1), Py_EQ);
        Py_DECREF(value);
    }
    return found;
}

static PyObject *
view_repr(PyObject *self)
{
    PyObject *view = builtin_view(self);
    PyObject *text = view != NULL ? PyObject_Repr(view) : NULL;
    Py_XDECREF(view);
    return text;
}

static PyObject *
view_richcompare(PyObject *self, PyObject *other, int op)
{
    if (!ddict_is_setlike(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *left = builtin_view(self);
    PyObject *right = left != NULL ? ddict_operand(other) : NULL;
    PyObject *result = right != NULL ? PyObject_RichCompare(left, right, op) : NULL;
    Py_XDECREF(right);
    Py_XDECREF(left);
    return result;
}

static PyObject *
binary(PyObject *left, PyObject *right, binaryfunc function)
{
    PyObject *a = ddict_operand(left);
    PyObject *b = a != NULL ? ddict_operand(right) : NULL;
    PyObject *result = b != NULL ? function(a, b) : NULL;
    Py_XDECREF(b);
    Py_XDECREF(a);
    return result;
}

static PyObject *
view_and(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_And);
}

static PyObject *
view_or(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_Or);
}

static PyObject *
view_xor(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_Xor);
}

static PyObject *
view_subtract(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_Subtract);
}

static PyObject *
view_isdisjoint(PyObject *self, PyObject *other)
{
    PyObject *view = builtin_view(self);
    PyObject *operand = view != NULL ? ddict_operand(other) : NULL;
    PyObject *result =
        operand != NULL ? hashed_ask(view, "isdisjoint", &operand, 1) : NULL;
    Py_XDECREF(operand);
    Py_XDECREF(view);
    return result;
}

static PyObject *
view_reversed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *view = builtin_view(self);
    PyObject *iterator = view != NULL ? hashed_ask(view, "__reversed__", NULL, 0) : NULL;
    Py_XDECREF(view);
    return iterator;
}

static PyObject *
view_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyErr_Format(PyExc_TypeError, "cannot pickle '%.200s' object",
                        Py_TYPE(self)->tp_name);
}

static PyObject *
view_mapping(PyObject *self, void *Py_UNUSED(closure))
{
    return PyDictProxy_New((PyObject *)((DictView *)self)->dict);
}

PyDoc_STRVAR(isdisjoint_doc,
             "isdisjoint($self, other, /)\n--\n\n"
             "Return True if the view and the given iterable have no element\n"
             "in common.");
PyDoc_STRVAR(keys_reversed_doc, "__reversed__($self, /)\n--\n\n"
                                "Return a reverse iterator over the dict's keys.");
PyDoc_STRVAR(values_reversed_doc, "__reversed__($self, /)\n--\n\n"
                                  "Return a reverse iterator over the dict's values.");
PyDoc_STRVAR(items_reversed_doc, "__reversed__($self, /)\n--\n\n"
                                 "Return a reverse iterator over the dict's items.");
PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\nViews cannot be pickled.");

static PyGetSetDef view_getset[] = {
    {"mapping", view_mapping, NULL,
     "A read-only proxy of the DDict that this view shows.", NULL},
    {NULL},
};

static PyMethodDef keys_methods[] = {
    {"isdisjoint", view_isdisjoint, METH_O, isdisjoint_doc},
    {"__reversed__", view_reversed, METH_NOARGS, keys_reversed_doc},
    {"__reduce__", view_reduce, METH_NOARGS, reduce_doc},
    {NULL},
};

static PyMethodDef values_methods[] = {
    {"__reversed__", view_reversed, METH_NOARGS, values_reversed_doc},
    {"__reduce__", view_reduce, METH_NOARGS, reduce_doc},
    {NULL},
};

static PyMethodDef items_methods[] = {
    {"isdisjoint", view_isdisjoint, METH_O, isdisjoint_doc},
    {"__reversed__", view_reversed, METH_NOARGS, items_reversed_doc},
    {"__reduce__", view_reduce, METH_NOARGS, reduce_doc},
    {NULL},
};

PyDoc_STRVAR(keys_doc, "A live view of the keys of a DDict, as dict.keys() gives one.");
PyDoc_STRVAR(values_doc,
             "A live view of the values of a DDict, as dict.values() gives one.");
PyDoc_STRVAR(items_doc,
             "A live view of the items of a DDict, as dict.items() gives one.");

#define SET_SLOTS \
    {Py_tp_richcompare, view_richcompare}, {Py_tp_hash, PyObject_HashNotImplemented}, \
        {Py_nb_and, view_and}, {Py_nb_or, view_or}, {Py_nb_xor, view_xor}, \
    { \
        Py_nb_subtract, view_subtract \
    }

#define COMMON_SLOTS \
    {Py_tp_dealloc, view_dealloc}, {Py_tp_traverse, view_traverse}, \
        {Py_tp_iter, view_iter}, {Py_tp_repr, view_repr}, {Py_tp_getset, view_getset}, \
    { \
        Py_sq_length, view_length \
    }

static PyType_Slot keys_slots[] = {
    COMMON_SLOTS,
    SET_SLOTS,
    {Py_sq_contains, keys_contains},
    {Py_tp_methods, keys_methods},
    {Py_tp_doc, (void *)keys_doc},
    {0, NULL},
};

static PyType_Slot values_slots[] = {
    COMMON_SLOTS,
    {Py_tp_methods, values_methods},
    {Py_tp_doc, (void *)values_doc},
    {0, NULL},
};

static PyType_Slot items_slots[] = {
    COMMON_SLOTS,
    SET_SLOTS,
    {Py_sq_contains, items_contains},
    {Py_tp_methods, items_methods},
    {Py_tp_doc, (void *)items_doc},
    {0, NULL},
};

#define VIEW_FLAGS \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION \
     | Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Spec keys_spec = {
    .name = "tosc.DDictKeys",
    .basicsize = sizeof(DictView),
    .flags = VIEW_FLAGS,
    .slots = keys_slots,
};

static PyType_Spec values_spec = {
    .name = "tosc.DDictValues",
    .basicsize = sizeof(DictView),
    .flags = VIEW_FLAGS,
    .slots = values_slots,
};

static PyType_Spec items_spec = {
    .name = "tosc.DDictItems",
    .basicsize = sizeof(DictView),
    .flags = VIEW_FLAGS,
    .slots = items_slots,
};

int
ddict_views_init(PyObject *module, ToscState *state)
{
    if (tosc_add_type(module, &state->DDictKeys_Type, &keys_spec, NULL, NULL) < 0
        || tosc_add_type(module, &state->DDictValues_Type, &values_spec, NULL, NULL) < 0
        || tosc_add_type(module, &state->DDictItems_Type, &items_spec, NULL, NULL) < 0) {
        return -1;
    }
    if (seq_register(state->DDictKeys_Type, "KeysView") < 0
        || seq_register(state->DDictValues_Type, "ValuesView") < 0
        || seq_register(state->DDictItems_Type, "ItemsView") < 0) {
        return -1;
    }
    return 0;
}
