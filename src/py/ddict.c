/*
 * DDict: a dict in the tree.
 *
 * Reading: a look-up goes to the state that this context sees, found by dobject_quiet()
 * in one comparison while no transaction is open. The state is held while it is searched,
 * as comparing keys may run Python code that replaces it. What concerns the whole dict
 * (iterating, comparing, copying) is done by the builtin on the view.
 *
 * What changes it is in ddict_write.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ddict.h"

/* ---- helpers ---- */

static bool
is_dictlike(PyObject *value)
{
    return PyDict_Check(value) || dobject_kind(value) == KIND_DICT;
}

/* A class with two of our types as bases can pass an object that is no dict inside. */
static PyObject *
view_of(PyObject *self)
{
    return seq_check_kind(self, KIND_DICT) < 0 ? NULL : dobject_view((DObject *)self);
}

static inline bool
is_quiet_dict(const DObject *self)
{
    return dobject_quiet(self) && self->kind == KIND_DICT;
}

static inline int
look_up(DObject *self, PyObject *key, PyObject **ret)
{
    if (!is_quiet_dict(self)) {
        return seq_check_kind((PyObject *)self, KIND_DICT) < 0
                   ? -1
                   : dobject_get(self, key, ret);
    }
    PyObject *state = Py_NewRef(self->state);
    int found = tosc_dict_get(state, key, ret);
    Py_DECREF(state);
    return found;
}

/* ---- reading ---- */

/* The class's __missing__, found as the interpreter finds special methods; or NULL. */
static PyObject *
find_missing(PyObject *self)
{
    PyObject *mro = Py_TYPE(self)->tp_mro;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *dict = ((PyTypeObject *)PyTuple_GET_ITEM(mro, i))->tp_dict;
        PyObject *found =
            dict != NULL ? Py_XNewRef(PyDict_GetItemString(dict, "__missing__")) : NULL;
        descrgetfunc get = found != NULL ? Py_TYPE(found)->tp_descr_get : NULL;
        if (get != NULL) {
            Py_SETREF(found, get(found, self, (PyObject *)Py_TYPE(self)));
        }
        if (found != NULL || PyErr_Occurred()) {
            return found;
        }
    }
    return NULL;
}

static PyObject *
missing(PyObject *self, PyObject *key)
{
    if (!Py_IS_TYPE(self, tosc_state->DDict_Type)) {
        PyObject *method = find_missing(self);
        if (method != NULL) {
            PyObject *value = PyObject_CallOneArg(method, key);
            Py_DECREF(method);
            return value;
        }
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    return hashed_key_error(key);
}

static PyObject *
ddict_subscript(PyObject *self, PyObject *key)
{
    PyObject *value;
    int found = look_up((DObject *)self, key, &value);
    if (found > 0) {
        return value;
    }
    return found < 0 ? NULL : missing(self, key);
}

static int
ddict_contains(PyObject *op, PyObject *key)
{
    DObject *self = (DObject *)op;
    if (!is_quiet_dict(self)) {
        return seq_check_kind(op, KIND_DICT) < 0 ? -1 : dobject_contains(self, key);
    }
    PyObject *state = Py_NewRef(self->state);
    int found = PyDict_Contains(state, key);
    Py_DECREF(state);
    return found;
}

static PyObject *
ddict_contains_method(PyObject *self, PyObject *key)
{
    int found = ddict_contains(self, key);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

static Py_ssize_t
ddict_length(PyObject *op)
{
    DObject *self = (DObject *)op;
    if (is_quiet_dict(self)) {
        return PyDict_GET_SIZE(self->state);
    }
    return seq_check_kind(op, KIND_DICT) < 0 ? -1 : dobject_len(self);
}

static PyObject *
ddict_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *value;
    if (seq_check_count("get", nargs, 1, 2) < 0) {
        return NULL;
    }
    int found = look_up((DObject *)self, args[0], &value);
    if (found != 0) {
        return found < 0 ? NULL : value;
    }
    return Py_NewRef(nargs > 1 ? args[1] : Py_None);
}

static PyObject *
ddict_iter(PyObject *self)
{
    PyObject *view = view_of(self);
    PyObject *iterator = view != NULL ? PyObject_GetIter(view) : NULL;
    Py_XDECREF(view);
    return iterator;
}

/* The answer of a method of the builtin that takes no arguments. */
static PyObject *
ask_view(PyObject *self, const char *method)
{
    PyObject *view = view_of(self);
    PyObject *result = view != NULL ? hashed_ask(view, method, NULL, 0) : NULL;
    Py_XDECREF(view);
    return result;
}

static PyObject *
ddict_reversed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return ask_view(self, "__reversed__");
}

static PyObject *
ddict_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *view = view_of(self);
    PyObject *copy = view != NULL ? PyDict_Copy(view) : NULL;
    Py_XDECREF(view);
    return copy;
}

static PyObject *
ddict_deepcopy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    return dobject_plain(self);
}

/*
 * Pickles as a plain dict. Its items are handed to the pickler one by one, so that
 * wrappers among them do the same and cycles and aliases within one pickle are kept.
 */
static PyObject *
ddict_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *items = ask_view(self, "items");
    PyObject *iterator = items != NULL ? PyObject_GetIter(items) : NULL;
    Py_XDECREF(items);
    if (iterator == NULL) {
        return NULL;
    }
    return Py_BuildValue("O()OON", &PyDict_Type, Py_None, Py_None, iterator);
}

static PyObject *
ddict_sizeof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return seq_sizeof(self, ask_view(self, "__sizeof__"));
}

static PyObject *
ddict_repr(PyObject *self)
{
    int entered = Py_ReprEnter(self);
    if (entered != 0) {
        return entered < 0 ? NULL : PyUnicode_FromString("{...}");
    }
    PyObject *view = view_of(self);
    PyObject *text = view != NULL ? PyObject_Repr(view) : NULL;
    Py_XDECREF(view);
    Py_ReprLeave(self);
    return text;
}

/*
 * What an operator of dict is given for `value`. Code of others must not get its hands on
 * a state: with a subclass of dict, or no dict, on the other side a DDict is copied.
 */
static PyObject *
operand(PyObject *value, PyObject *other)
{
    if (dobject_kind(value) != KIND_DICT) {
        return Py_NewRef(value);
    }
    if (PyDict_CheckExact(other) || dobject_check(other)) {
        return dobject_view((DObject *)value);
    }
    return ddict_copy(value, NULL);
}

static PyObject *
ddict_richcompare(PyObject *self, PyObject *other, int op)
{
    if ((op != Py_EQ && op != Py_NE) || !is_dictlike(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *left = operand(self, other);
    PyObject *right = left != NULL ? operand(other, self) : NULL;
    PyObject *result = right != NULL ? PyObject_RichCompare(left, right, op) : NULL;
    Py_XDECREF(right);
    Py_XDECREF(left);
    return result;
}

/* Does it take part in `|` with a dict? UserDict does, with dict itself only. */
static bool
may_join(PyObject *value)
{
    if (is_dictlike(value)) {
        return true;
    }
    PyObject *name = PyUnicode_InternFromString("keys");
    bool found = name != NULL && PyObject_HasAttr(value, name);
    Py_XDECREF(name);
    return found;
}

static PyObject *
ddict_or(PyObject *left, PyObject *right)
{
    if (!may_join(left) || !may_join(right)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *a = operand(left, right);
    PyObject *b = a != NULL ? operand(right, left) : NULL;
    PyObject *result = b != NULL ? PyNumber_Or(a, b) : NULL;
    Py_XDECREF(b);
    Py_XDECREF(a);
    return result;
}

static PyObject *
make_view(PyTypeObject *type, PyObject *self)
{
    return seq_check_kind(self, KIND_DICT) < 0 ? NULL : ddict_view_new(type, self);
}

static PyObject *
ddict_keys(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return make_view(tosc_state->DDictKeys_Type, self);
}

static PyObject *
ddict_values(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return make_view(tosc_state->DDictValues_Type, self);
}

static PyObject *
ddict_items(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return make_view(tosc_state->DDictItems_Type, self);
}

/* ---- making ---- */

static PyObject *
ddict_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwds))
{
    PyObject *state = PyDict_New();
    return state != NULL ? (PyObject *)dobject_new(type, KIND_DICT, state) : NULL;
}

static int
ddict_init_object(PyObject *self, PyObject *args, PyObject *kwds)
{
    PyObject *source = NULL;
    if (!PyArg_UnpackTuple(args, "DDict", 0, 1, &source)) {
        return -1;
    }
    return ddict_merge((DObject *)self, source, kwds);
}

/* As the builtin does for subclasses: made by the class, filled by its __setitem__. */
static PyObject *
fill_subclass(PyObject *cls, PyObject *iterable, PyObject *value)
{
    PyObject *dict = PyObject_CallNoArgs(cls);
    PyObject *iterator = dict != NULL ? PyObject_GetIter(iterable) : NULL;
    PyObject *key;
    while (iterator != NULL && (key = PyIter_Next(iterator)) != NULL) {
        int result = PyObject_SetItem(dict, key, value);
        Py_DECREF(key);
        if (result < 0) {
            Py_CLEAR(iterator);
        }
    }
    if (iterator == NULL || PyErr_Occurred()) {
        Py_CLEAR(dict);
    }
    Py_XDECREF(iterator);
    return dict;
}

static PyObject *
ddict_fromkeys(PyObject *cls, PyObject *const *args, Py_ssize_t nargs)
{
    if (seq_check_count("fromkeys", nargs, 1, 2) < 0) {
        return NULL;
    }
    PyObject *value = dobject_adopt(NULL, nargs > 1 ? args[1] : Py_None);
    if (value == NULL) {
        return NULL;
    }
    PyObject *dict = NULL;
    if (cls != (PyObject *)tosc_state->DDict_Type) {
        dict = fill_subclass(cls, args[0], value);
    } else {
        PyObject *items = PyObject_CallMethod((PyObject *)&PyDict_Type, "fromkeys",
                                              "(OO)", args[0], value);
        PyObject *adopted = items != NULL ? dobject_adopt_dict(NULL, items) : NULL;
        Py_XDECREF(items);
        if (adopted != NULL) {
            dict = (PyObject *)dobject_new(tosc_state->DDict_Type, KIND_DICT, adopted);
        }
    }
    Py_DECREF(value);
    return dict;
}

/* ---- the type ---- */

PyDoc_STRVAR(getitem_doc, "__getitem__($self, key, /)\n--\n\nReturn self[key].");
PyDoc_STRVAR(contains_doc, "__contains__($self, key, /)\n--\n\n"
                           "True if the dictionary has the key, else False.");
PyDoc_STRVAR(reversed_doc, "__reversed__($self, /)\n--\n\n"
                           "Return an iterator over the keys, the newest first.");
PyDoc_STRVAR(sizeof_doc, "__sizeof__($self, /)\n--\n\nSize in memory, in bytes.");
PyDoc_STRVAR(copy_method_doc, "__copy__($self, /)\n--\n\nA shallow copy, a plain dict.");
PyDoc_STRVAR(deepcopy_doc, "__deepcopy__($self, memo, /)\n--\n\n"
                           "A deep copy in the original types, a plain dict.");
PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\nPickles as a plain dict.");
PyDoc_STRVAR(class_getitem_doc, "__class_getitem__($type, item, /)\n--\n\n"
                                "DDict[key, value] for annotations.");
PyDoc_STRVAR(get_doc, "get($self, key, default=None, /)\n--\n\n"
                      "Return the value of the key if there is one, else default.");
PyDoc_STRVAR(
    setdefault_doc,
    "setdefault($self, key, default=None, /)\n--\n\n"
    "Insert the key with the default if it is not there. Return its value: for a\n"
    "container that was inserted the tracked one.");
PyDoc_STRVAR(pop_doc,
             "pop($self, key, default=<unrepresentable>, /)\n--\n\n"
             "Remove the key and return its value. If it is not there, return the\n"
             "default if that was given, else raise KeyError.");
PyDoc_STRVAR(popitem_doc,
             "popitem($self, /)\n--\n\n"
             "Remove the newest entry and return it as a pair (key, value).\n"
             "Raises KeyError if the dictionary is empty.");
PyDoc_STRVAR(
    update_doc,
    "update([other], **kwargs) -> None.  Set the entries of a mapping (what has\n"
    "keys()) or of an iterable of pairs, then those of the keywords. All are set\n"
    "or, after an error, none.");
PyDoc_STRVAR(keys_doc, "keys($self, /)\n--\n\nA set-like live view of the keys.");
PyDoc_STRVAR(values_doc, "values($self, /)\n--\n\nA live view of the values.");
PyDoc_STRVAR(items_doc, "items($self, /)\n--\n\nA set-like live view of the items.");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove all entries.");
PyDoc_STRVAR(copy_doc, "copy($self, /)\n--\n\nA shallow copy, a plain dict.");
PyDoc_STRVAR(fromkeys_doc,
             "fromkeys($type, iterable, value=None, /)\n--\n\n"
             "A new dictionary with the keys of an iterable and one value.");

static PyMethodDef ddict_methods[] = {
    {"__getitem__", ddict_subscript, METH_O | METH_COEXIST, getitem_doc},
    {"__contains__", ddict_contains_method, METH_O | METH_COEXIST, contains_doc},
    {"__reversed__", ddict_reversed, METH_NOARGS, reversed_doc},
    {"__sizeof__", ddict_sizeof, METH_NOARGS, sizeof_doc},
    {"__copy__", ddict_copy, METH_NOARGS, copy_method_doc},
    {"__deepcopy__", ddict_deepcopy, METH_O, deepcopy_doc},
    {"__reduce__", ddict_reduce, METH_NOARGS, reduce_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {"get", SEQ_FASTCALL(ddict_get), METH_FASTCALL, get_doc},
    {"setdefault", SEQ_FASTCALL(ddict_setdefault), METH_FASTCALL, setdefault_doc},
    {"pop", SEQ_FASTCALL(ddict_pop), METH_FASTCALL, pop_doc},
    {"popitem", ddict_popitem, METH_NOARGS, popitem_doc},
    {"update", SEQ_FASTCALL(ddict_update), METH_VARARGS | METH_KEYWORDS, update_doc},
    {"keys", ddict_keys, METH_NOARGS, keys_doc},
    {"values", ddict_values, METH_NOARGS, values_doc},
    {"items", ddict_items, METH_NOARGS, items_doc},
    {"clear", ddict_clear, METH_NOARGS, clear_doc},
    {"copy", ddict_copy, METH_NOARGS, copy_doc},
    {"fromkeys", SEQ_FASTCALL(ddict_fromkeys), METH_FASTCALL | METH_CLASS, fromkeys_doc},
    {NULL},
};

PyDoc_STRVAR(
    ddict_doc,
    "DDict() -> new empty distributed dictionary\n"
    "DDict(mapping) -> with the entries of a mapping\n"
    "DDict(iterable) -> with the pairs (key, value) of an iterable\n"
    "DDict(**kwargs) -> with the name=value pairs of the keywords\n"
    "\n"
    "What a dict becomes when a Manager stores it. It has all of dict's methods and\n"
    "operators; copies, and results of |, are plain dicts. One that is made here\n"
    "stands alone until it is put into something that is stored. Containers that\n"
    "are put in become tracked copies: `d['x'] = []; d['x'].append(1)`.");

static PyType_Slot ddict_slots[] = {
    {Py_tp_doc, (void *)ddict_doc},
    {Py_tp_new, ddict_new},
    {Py_tp_init, ddict_init_object},
    {Py_tp_dealloc, dobject_dealloc},
    {Py_tp_traverse, dobject_traverse},
    {Py_tp_clear, dobject_clear},
    {Py_tp_members, dobject_members},
    {Py_tp_methods, ddict_methods},
    {Py_tp_repr, ddict_repr},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, ddict_richcompare},
    {Py_tp_iter, ddict_iter},
    {Py_mp_subscript, ddict_subscript},
    {Py_mp_ass_subscript, ddict_ass_subscript},
    {Py_mp_length, ddict_length},
    {Py_sq_contains, ddict_contains},
    {Py_nb_or, ddict_or},
    {Py_nb_inplace_or, ddict_inplace_or},
    {0, NULL},
};

static PyType_Spec ddict_spec = {
    .name = "tosc.DDict",
    .basicsize = sizeof(DObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_MAPPING | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ddict_slots,
};

int
ddict_init(PyObject *module, ToscState *state)
{
    if (tosc_add_type(module, &state->DDict_Type, &ddict_spec, state->DObject_Type,
                      "DDict")
            < 0
        || seq_register(state->DDict_Type, "MutableMapping") < 0) {
        return -1;
    }
    return ddict_views_init(module, state);
}
