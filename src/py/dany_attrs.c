/*
 * DAttrs: what x.__dict__ and vars(x) are for a wrapped custom object x.
 *
 * A mapping that keeps nothing of its own: it reads the attributes from the wrapper's state
 * and stores what is set through it there. What stands in slots is not shown, as in a real
 * __dict__. keys(), values(), items() and iteration work on the attributes as they were when
 * they were asked for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dany.h"

typedef struct DAttrs {
    PyObject_HEAD
    DAnyObject *owner;
} DAttrs;

static DAnyObject *
owner_of(PyObject *op)
{
    return ((DAttrs *)op)->owner;
}

PyObject *
dattrs_new(DAnyObject *owner)
{
    PyTypeObject *type = tosc_state->DAttrs_Type;
    DAttrs *self = (DAttrs *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->owner = (DAnyObject *)Py_NewRef(owner);
    }
    return (PyObject *)self;
}

static bool
is_hidden(DAnyObject *owner, PyObject *name)
{
    PyTypeObject *cls = (PyTypeObject *)owner->cls;
    if (cls == NULL || !class_has_slots(cls) || !PyUnicode_Check(name)) {
        return false;
    }
    PyObject *descriptor = value_type_lookup(cls, name);
    return descriptor != NULL && value_is_slot(descriptor);
}

PyObject *
dattrs_view(DAnyObject *owner)
{
    PyObject *view = dobject_view(&owner->base);
    if (view == NULL || owner->cls == NULL
        || !class_has_slots((PyTypeObject *)owner->cls)) {
        return view;
    }
    PyObject *shown = PyDict_New();
    PyObject *name;
    PyObject *value;
    Py_ssize_t position = 0;
    while (shown != NULL && PyDict_Next(view, &position, &name, &value)) {
        if (!is_hidden(owner, name) && PyDict_SetItem(shown, name, value) < 0) {
            Py_CLEAR(shown);
        }
    }
    Py_DECREF(view);
    return shown;
}

/* A dict of the caller's own. */
static PyObject *
copied(DAnyObject *owner)
{
    PyObject *view = dattrs_view(owner);
    PyObject *copy = view == NULL ? NULL : PyDict_Copy(view);
    Py_XDECREF(view);
    return copy;
}

/* 1 found, 0 missing, -1 exception. */
static int
find(PyObject *op, PyObject *name, PyObject **ret)
{
    *ret = NULL;
    return is_hidden(owner_of(op), name) ? 0
                                         : dobject_get(&owner_of(op)->base, name, ret);
}

/* ---- the mapping ---- */

static Py_ssize_t
dattrs_length(PyObject *op)
{
    PyObject *view = dattrs_view(owner_of(op));
    Py_ssize_t length = view == NULL ? -1 : PyDict_GET_SIZE(view);
    Py_XDECREF(view);
    return length;
}

static PyObject *
dattrs_subscript(PyObject *op, PyObject *name)
{
    PyObject *value;
    if (find(op, name, &value) == 0) {
        PyErr_SetObject(PyExc_KeyError, name);
    }
    return value;
}

static int
dattrs_ass_subscript(PyObject *op, PyObject *name, PyObject *value)
{
    bool missing;
    if (PyObject_Hash(name) == -1) {
        return -1;
    }
    PyObject *key = dobject_adopt(&owner_of(op)->base, name);
    int result = key == NULL ? -1 : dany_store(&owner_of(op)->base, key, value, &missing);
    Py_XDECREF(key);
    if (result == 0 && missing) {
        PyErr_SetObject(PyExc_KeyError, name);
        return -1;
    }
    return result;
}

static int
dattrs_contains(PyObject *op, PyObject *name)
{
    PyObject *value;
    int found = find(op, name, &value);
    Py_XDECREF(value);
    return found;
}

static PyObject *
dattrs_iter(PyObject *op)
{
    PyObject *view = dattrs_view(owner_of(op));
    PyObject *iterator = view == NULL ? NULL : PyObject_GetIter(view);
    Py_XDECREF(view);
    return iterator;
}

static PyObject *
dattrs_repr(PyObject *op)
{
    int entered = Py_ReprEnter((PyObject *)owner_of(op));
    if (entered != 0) {
        return entered > 0 ? PyUnicode_FromString("{...}") : NULL;
    }
    PyObject *view = dattrs_view(owner_of(op));
    PyObject *text = view == NULL ? NULL : PyObject_Repr(view);
    Py_XDECREF(view);
    Py_ReprLeave((PyObject *)owner_of(op));
    return text;
}

/* The dict behind a mapping of either kind; NULL without an exception: no mapping. */
static PyObject *
as_dict(PyObject *value)
{
    if (Py_IS_TYPE(value, tosc_state->DAttrs_Type)) {
        return dattrs_view(owner_of(value));
    }
    if (dobject_kind(value) == KIND_DICT) {
        return dobject_view((DObject *)value);
    }
    return PyDict_Check(value) ? Py_NewRef(value) : NULL;
}

static PyObject *
dattrs_richcompare(PyObject *a, PyObject *b, int op)
{
    if (op != Py_EQ && op != Py_NE) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *left = as_dict(a);
    PyObject *right = left == NULL ? NULL : as_dict(b);
    PyObject *result = NULL;
    if (right != NULL) {
        result = PyObject_RichCompare(left, right, op);
    } else if (!PyErr_Occurred()) {
        result = Py_NewRef(Py_NotImplemented);
    }
    Py_XDECREF(left);
    Py_XDECREF(right);
    return result;
}

static PyObject *
dattrs_or(PyObject *a, PyObject *b)
{
    PyObject *left = as_dict(a);
    PyObject *right = left == NULL ? NULL : as_dict(b);
    PyObject *result = NULL;
    if (right != NULL) {
        result = PyDict_Copy(left);
        if (result != NULL && PyDict_Update(result, right) < 0) {
            Py_CLEAR(result);
        }
    } else if (!PyErr_Occurred()) {
        result = Py_NewRef(Py_NotImplemented);
    }
    Py_XDECREF(left);
    Py_XDECREF(right);
    return result;
}

/* ---- methods ---- */

static PyObject *
dattrs_get(PyObject *op, PyObject *args)
{
    PyObject *name;
    PyObject *fallback = Py_None;
    PyObject *value;
    if (!PyArg_ParseTuple(args, "O|O:get", &name, &fallback)) {
        return NULL;
    }
    int found = find(op, name, &value);
    return found == 0 ? Py_NewRef(fallback) : value;
}

static PyObject *
call_on_view(PyObject *op, const char *method)
{
    PyObject *view = dattrs_view(owner_of(op));
    PyObject *result = view == NULL ? NULL : PyObject_CallMethod(view, method, NULL);
    Py_XDECREF(view);
    return result;
}

static PyObject *
dattrs_keys(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return call_on_view(op, "keys");
}

static PyObject *
dattrs_values(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return call_on_view(op, "values");
}

static PyObject *
dattrs_items(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return call_on_view(op, "items");
}

static PyObject *
dattrs_reversed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return call_on_view(op, "__reversed__");
}

static PyObject *
dattrs_copy(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return copied(owner_of(op));
}

static PyObject *
dattrs_deepcopy(PyObject *op, PyObject *Py_UNUSED(memo))
{
    PyObject *copy = copied(owner_of(op));
    PyObject *plain = copy == NULL ? NULL : dobject_plain(copy);
    Py_XDECREF(copy);
    return plain;
}

static PyObject *
dattrs_reduce(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("O(N)", &PyDict_Type, copied(owner_of(op)));
}

/* Takes one attribute out and returns it; NULL without an exception: not there. */
static PyObject *
take(PyObject *op, PyObject *name)
{
    DObject *owner = &owner_of(op)->base;
    PyObject *value;
    Write w;
    if (is_hidden(owner_of(op), name)) {
        return NULL;
    }
    if (write_begin(&w, owner) < 0) {
        return NULL;
    }
    int found = write_get(&w, name, &value);
    if (found <= 0 || write_op(&w, OP_DEL, 0, 0, name, NULL) < 0) {
        write_abort(&w);
        Py_XDECREF(value);
        return NULL;
    }
    if (write_commit(&w) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

static PyObject *
dattrs_pop(PyObject *op, PyObject *args)
{
    PyObject *name;
    PyObject *fallback = NULL;
    if (!PyArg_ParseTuple(args, "O|O:pop", &name, &fallback)) {
        return NULL;
    }
    PyObject *value = take(op, name);
    if (value != NULL || PyErr_Occurred()) {
        return value;
    }
    if (fallback == NULL) {
        PyErr_SetObject(PyExc_KeyError, name);
    }
    return Py_XNewRef(fallback);
}

static PyObject *
dattrs_popitem(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    while (true) {
        PyObject *view = dattrs_view(owner_of(op));
        PyObject *names = view == NULL ? NULL : PyDict_Keys(view);
        Py_XDECREF(view);
        if (names == NULL) {
            return NULL;
        }
        if (PyList_GET_SIZE(names) == 0) {
            Py_DECREF(names);
            PyErr_SetString(PyExc_KeyError, "popitem(): dictionary is empty");
            return NULL;
        }
        PyObject *name = Py_NewRef(PyList_GET_ITEM(names, PyList_GET_SIZE(names) - 1));
        Py_DECREF(names);
        PyObject *value = take(op, name);
        if (value != NULL || PyErr_Occurred()) {
            return value == NULL ? (Py_DECREF(name), NULL)
                                 : Py_BuildValue("NN", name, value);
        }
        Py_DECREF(name); /* somebody else took it: look again */
    }
}

static PyObject *
dattrs_setdefault(PyObject *op, PyObject *args)
{
    PyObject *name;
    PyObject *fallback = Py_None;
    PyObject *value;
    if (!PyArg_ParseTuple(args, "O|O:setdefault", &name, &fallback)) {
        return NULL;
    }
    int found = find(op, name, &value);
    if (found != 0) {
        return value;
    }
    return dattrs_ass_subscript(op, name, fallback) < 0 ? NULL
                                                        : dattrs_subscript(op, name);
}

static int
update_from(PyObject *op, PyObject *plain)
{
    DObject *owner = &owner_of(op)->base;
    PyObject *adopted = dobject_adopt_dict(owner, plain);
    int result = adopted == NULL ? -1 : 0;
    if (result == 0 && PyDict_GET_SIZE(adopted) > 0) {
        result = dobject_change(owner, OP_UPDATE, 0, 0, adopted, NULL);
    }
    Py_XDECREF(adopted);
    return result;
}

static PyObject *
dattrs_update(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *plain = PyDict_New();
    PyObject *update = plain == NULL ? NULL : PyObject_GetAttrString(plain, "update");
    PyObject *done = update == NULL ? NULL : PyObject_Call(update, args, kwargs);
    int result = done == NULL ? -1 : update_from(op, plain);
    Py_XDECREF(done);
    Py_XDECREF(update);
    Py_XDECREF(plain);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
dattrs_inplace_or(PyObject *op, PyObject *other)
{
    PyObject *plain = PyDict_New();
    int result = -1;
    if (plain != NULL
        && (PyMapping_Check(other) ? PyDict_Update(plain, other)
                                   : PyDict_MergeFromSeq2(plain, other, 1))
               == 0) {
        result = update_from(op, plain);
    }
    Py_XDECREF(plain);
    return result < 0 ? NULL : Py_NewRef(op);
}

static PyObject *
dattrs_clear(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *empty = PyDict_New();
    int result = empty == NULL ? -1 : dany_assign_dict(owner_of(op), empty);
    Py_XDECREF(empty);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- the type ---- */

static int
dattrs_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(owner_of(op));
    return 0;
}

static void
dattrs_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_XDECREF(owner_of(op));
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef dattrs_methods[] = {
    {"get", dattrs_get, METH_VARARGS, "The attribute's value, or the default."},
    {"keys", dattrs_keys, METH_NOARGS, "The names, as they are now."},
    {"values", dattrs_values, METH_NOARGS, "The values, as they are now."},
    {"items", dattrs_items, METH_NOARGS, "Names and values, as they are now."},
    {"copy", dattrs_copy, METH_NOARGS, "A plain dict."},
    {"pop", dattrs_pop, METH_VARARGS, "Deletes an attribute and returns its value."},
    {"popitem", dattrs_popitem, METH_NOARGS,
     "Deletes the last attribute and returns it."},
    {"setdefault", dattrs_setdefault, METH_VARARGS,
     "The value, set first if it is missing."},
    {"update", (PyCFunction)(void (*)(void))dattrs_update, METH_VARARGS | METH_KEYWORDS,
     "Sets several attributes in one change."},
    {"clear", dattrs_clear, METH_NOARGS, "Deletes all attributes that are not slots."},
    {"__reversed__", dattrs_reversed, METH_NOARGS, "The names, last first."},
    {"__copy__", dattrs_copy, METH_NOARGS, "A plain dict."},
    {"__deepcopy__", dattrs_deepcopy, METH_O, "A plain dict, plain all the way down."},
    {"__reduce__", dattrs_reduce, METH_NOARGS, "Pickled as a plain dict."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot dattrs_slots[] = {
    {Py_tp_doc,
     "The attributes of a stored object: a live mapping, changes of which are stored."},
    {Py_tp_traverse, dattrs_traverse},
    {Py_tp_dealloc, dattrs_dealloc},
    {Py_tp_repr, dattrs_repr},
    {Py_tp_iter, dattrs_iter},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, dattrs_richcompare},
    {Py_tp_methods, dattrs_methods},
    {Py_mp_length, dattrs_length},
    {Py_mp_subscript, dattrs_subscript},
    {Py_mp_ass_subscript, dattrs_ass_subscript},
    {Py_sq_contains, dattrs_contains},
    {Py_nb_or, dattrs_or},
    {Py_nb_inplace_or, dattrs_inplace_or},
    {0, NULL},
};

static PyType_Spec dattrs_spec = {
    .name = "tosc.DAttrs",
    .basicsize = sizeof(DAttrs),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_MAPPING,
    .slots = dattrs_slots,
};

int
dattrs_init(PyObject *module, ToscState *state)
{
    if (tosc_add_type(module, &state->DAttrs_Type, &dattrs_spec, NULL, NULL) < 0) {
        return -1;
    }
    PyObject *abc = PyImport_ImportModule("collections.abc");
    PyObject *mapping =
        abc == NULL ? NULL : PyObject_GetAttrString(abc, "MutableMapping");
    PyObject *done = mapping == NULL ? NULL
                                     : PyObject_CallMethod(mapping, "register", "O",
                                                           state->DAttrs_Type);
    int result = done == NULL ? -1 : 0;
    Py_XDECREF(done);
    Py_XDECREF(mapping);
    Py_XDECREF(abc);
    return result;
}
