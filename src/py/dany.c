/*
 * DAny: the wrapper of a custom object.
 *
 * Its state is one dict of the object's attributes and set slots. The object itself is gone:
 * reading an attribute does what object.__getattribute__ does, with the class's method
 * resolution order and that dict; methods and properties run with the wrapper as self, so
 * that what they change is tracked. The wrapper says that its class is the user's; for its
 * special methods see dany_class.c.
 *
 * For classes with a __setattr__, __delattr__ or __getattribute__ of their own see
 * dany_scratch.c.
 *
 * What must stay true: the state's values have been adopted; nothing that changes an
 * attribute bypasses dany_store() or dany_assign_dict().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dany.h"
#include "wrap.h"

/* ---- changing ---- */

static int
raise_missing(PyObject *self, PyObject *name)
{
    PyErr_Format(PyExc_AttributeError, "'%.200s' object has no attribute %R",
                 Py_TYPE(self)->tp_name, name);
    return -1;
}

static int
store_deletion(DObject *self, PyObject *name, bool *ret_missing)
{
    Write w;
    PyObject *old;
    if (write_begin(&w, self) < 0) {
        return -1;
    }
    int found = write_get(&w, name, &old);
    Py_XDECREF(old);
    if (found <= 0 || write_op(&w, OP_DEL, 0, 0, name, NULL) < 0) {
        write_abort(&w);
        *ret_missing = found == 0;
        return found == 0 ? 0 : -1;
    }
    return write_commit(&w);
}

int
dany_store(DObject *self, PyObject *name, PyObject *value, bool *ret_missing)
{
    *ret_missing = false;
    if (value == NULL) {
        return store_deletion(self, name, ret_missing);
    }
    PyObject *adopted = dobject_adopt(self, value);
    if (adopted == NULL) {
        return -1;
    }
    if (dobject_check(adopted)) { /* x.items += [1] ends by putting back what is there */
        PyObject *there;
        int found = dobject_get(self, name, &there);
        Py_XDECREF(there);
        if (found < 0 || (found > 0 && there == adopted)) {
            Py_DECREF(adopted);
            return found < 0 ? -1 : 0;
        }
    }
    PyObject *key = Py_NewRef(name);
    if (PyUnicode_CheckExact(key)) {
        PyUnicode_InternInPlace(&key);
    }
    int result = dobject_change(self, OP_SET, 0, 0, key, adopted);
    Py_DECREF(key);
    Py_DECREF(adopted);
    return result;
}

int
dany_assign_dict(DAnyObject *self, PyObject *dict)
{
    if (dict == NULL || !PyMapping_Check(dict)) {
        PyErr_Format(PyExc_TypeError,
                     "__dict__ must be set to a dictionary, not a '%.200s'",
                     dict == NULL ? "deletion" : Py_TYPE(dict)->tp_name);
        return -1;
    }
    PyObject *plain = PyDict_New();
    PyObject *adopted = NULL;
    PyObject *view = NULL;
    int result = -1;
    if (plain != NULL && PyDict_Update(plain, dict) == 0) {
        adopted = dobject_adopt_dict(&self->base, plain);
    }
    view = adopted == NULL ? NULL : dobject_view(&self->base);
    if (view != NULL) {
        PyObject *name;
        PyObject *value;
        Py_ssize_t position = 0;
        result = 0;
        while (result == 0 && PyDict_Next(view, &position, &name, &value)) {
            PyObject *slot = value_type_lookup((PyTypeObject *)self->cls, name);
            if (slot != NULL && value_is_slot(slot)) {
                result = PyDict_SetItem(adopted, name, value);
            }
        }
        if (result == 0) {
            result = dobject_change(&self->base, OP_ASSIGN, 0, 0, adopted, NULL);
        }
    }
    Py_XDECREF(plain);
    Py_XDECREF(adopted);
    Py_XDECREF(view);
    return result;
}

/* ---- reading ---- */

static inline bool
is_dunder(PyObject *name)
{
    return PyUnicode_READ_CHAR(name, 0) == '_' && PyUnicode_GET_LENGTH(name) > 4
           && PyUnicode_READ_CHAR(name, 1) == '_'
           && PyUnicode_READ_CHAR(name, PyUnicode_GET_LENGTH(name) - 1) == '_';
}

/*
 * Names that we answer ourselves: what the wrapper is, and what the class only inherits from
 * object (whose C code would look at the wrapper's insides). NULL without an exception: none
 * of these.
 */
static PyObject *
get_dunder(DAnyObject *self, PyObject *name)
{
    ToscState *state = tosc_state;
    PyTypeObject *cls = (PyTypeObject *)self->cls;
    if (PyUnicode_Compare(name, state->str_class) == 0) {
        return Py_NewRef(cls);
    }
    if (PyUnicode_Compare(name, state->str_dict) == 0) {
        return class_has_dict(cls) ? dattrs_new(self) : NULL;
    }
    if (PyUnicode_Compare(name, state->str_weakref) == 0) {
        if (cls->tp_weaklistoffset == 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    PyObject *found = value_type_lookup(cls, name);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (found == NULL) {
        found = value_type_lookup(state->DAny_Type, name);
        bool copying = PyUnicode_CompareWithASCIIString(name, "__copy__") == 0
                       || PyUnicode_CompareWithASCIIString(name, "__deepcopy__") == 0;
        return copying && found != NULL ? PyObject_GenericGetAttr((PyObject *)self, name)
                                        : NULL;
    }
    if (found == value_type_lookup(&PyBaseObject_Type, name)) {
        return PyObject_GenericGetAttr((PyObject *)self, name);
    }
    return NULL;
}

/* One attribute of the state: 1 found, 0 not there, -1 exception. */
static inline int
get_stored(DObject *self, PyObject *name, PyObject **ret)
{
    PyObject *state = self->state;
    if (!dobject_quiet(self)) {
        return dobject_get(self, name, ret);
    }
    Py_INCREF(state); /* comparing names may run Python code */
    int found = tosc_dict_get(state, name, ret);
    Py_DECREF(state);
    return found;
}

PyObject *
dany_get(PyObject *op, PyObject *name)
{
    DAnyObject *self = (DAnyObject *)op;
    PyTypeObject *cls = (PyTypeObject *)self->cls;
    if (cls == NULL || !PyUnicode_Check(name)) {
        return PyObject_GenericGetAttr(op, name);
    }
    if (is_dunder(name)) {
        PyObject *known = get_dunder(self, name);
        if (known != NULL || PyErr_Occurred()) {
            return known;
        }
    }
    PyObject *descriptor = value_type_lookup(cls, name);
    descrgetfunc get = NULL;
    PyObject *value;
    if (descriptor != NULL) {
        Py_INCREF(descriptor);
        get = Py_TYPE(descriptor)->tp_descr_get;
        if (get != NULL && Py_TYPE(descriptor)->tp_descr_set != NULL
            && !value_is_slot(descriptor)) {
            value = get(descriptor, op, (PyObject *)cls);
            Py_DECREF(descriptor);
            return value;
        }
    } else if (PyErr_Occurred()) {
        return NULL;
    }
    int found = get_stored(&self->base, name, &value);
    if (found == 0 && descriptor != NULL && !value_is_slot(descriptor)) {
        value =
            get != NULL ? get(descriptor, op, (PyObject *)cls) : Py_NewRef(descriptor);
    } else if (found == 0) {
        raise_missing(op, name);
        value = NULL;
    }
    Py_XDECREF(descriptor);
    return found < 0 ? NULL : value;
}

/* The class has a __getattribute__ or a __getattr__ of its own. */
static PyObject *
get_custom(DAnyObject *self, PyObject *name)
{
    ToscState *state = tosc_state;
    PyTypeObject *cls = (PyTypeObject *)self->cls;
    PyObject *mine = value_type_lookup(cls, state->str_getattribute);
    PyObject *plain = value_type_lookup(&PyBaseObject_Type, state->str_getattribute);
    PyObject *value;
    if (mine == NULL) {
        return NULL;
    }
    bool ours = is_dunder(name)
                && (PyUnicode_Compare(name, state->str_class) == 0
                    || PyUnicode_Compare(name, state->str_dict) == 0
                    || PyUnicode_Compare(name, state->str_reduce_ex) == 0);
    if (mine == plain || ours) {
        value = dany_get((PyObject *)self, name);
    } else {
        Py_INCREF(mine);
        value = dany_scratch_get(self, mine, name);
        Py_DECREF(mine);
    }
    if (value != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return value;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *getattr = value_type_lookup(cls, state->str_getattr);
    if (getattr == NULL) {
        PyErr_Restore(type, error, traceback);
        return NULL;
    }
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    Py_INCREF(getattr);
    value = PyObject_CallFunctionObjArgs(getattr, self, name, NULL);
    Py_DECREF(getattr);
    return value;
}

static PyObject *
dany_getattro(PyObject *op, PyObject *name)
{
    PyObject *cls = ((DAnyObject *)op)->cls;
    if (cls == NULL || ((PyTypeObject *)cls)->tp_getattro == PyObject_GenericGetAttr
        || !PyUnicode_Check(name)) {
        return dany_get(op, name);
    }
    return get_custom((DAnyObject *)op, name);
}

/* ---- setting ---- */

/* 1: the name is not for us to store, and an exception says so; 0: go on. */
static int
refuse_special(DAnyObject *self, PyObject *name)
{
    if (PyUnicode_Compare(name, tosc_state->str_class) == 0) {
        PyErr_Format(PyExc_TypeError,
                     "the class of a stored object cannot be changed: store a new object "
                     "instead of this %.200s",
                     Py_TYPE(self)->tp_name);
        return 1;
    }
    if (PyUnicode_Compare(name, tosc_state->str_weakref) == 0) {
        PyErr_Format(PyExc_AttributeError,
                     "attribute '__weakref__' of '%.200s' objects is not writable",
                     Py_TYPE(self)->tp_name);
        return 1;
    }
    return 0;
}

int
dany_set(PyObject *op, PyObject *name, PyObject *value)
{
    DAnyObject *self = (DAnyObject *)op;
    PyTypeObject *cls = (PyTypeObject *)self->cls;
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "attribute name must be string, not '%.200s'",
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    if (cls == NULL) {
        return raise_missing(op, name);
    }
    if (is_dunder(name)) {
        if (refuse_special(self, name)) {
            return -1;
        }
        if (class_has_dict(cls) && PyUnicode_Compare(name, tosc_state->str_dict) == 0) {
            return dany_assign_dict(self, value);
        }
    }
    PyObject *descriptor = value_type_lookup(cls, name);
    if (descriptor == NULL && PyErr_Occurred()) {
        return -1;
    }
    bool slot = descriptor != NULL && value_is_slot(descriptor);
    if (descriptor != NULL && !slot && Py_TYPE(descriptor)->tp_descr_set != NULL) {
        Py_INCREF(descriptor);
        int result = Py_TYPE(descriptor)->tp_descr_set(descriptor, op, value);
        Py_DECREF(descriptor);
        return result;
    }
    if (!slot && !class_has_dict(cls)) {
        if (descriptor == NULL) {
            return raise_missing(op, name);
        }
        PyErr_Format(PyExc_AttributeError, "'%.200s' object attribute %R is read-only",
                     Py_TYPE(op)->tp_name, name);
        return -1;
    }
    bool missing;
    int result = dany_store(&self->base, name, value, &missing);
    return result == 0 && missing ? raise_missing(op, name) : result;
}

static int
set_attribute(PyObject *op, PyObject *name, PyObject *value)
{
    DAnyObject *self = (DAnyObject *)op;
    PyTypeObject *cls = (PyTypeObject *)self->cls;
    if (cls != NULL && cls->tp_setattro != PyObject_GenericSetAttr
        && PyUnicode_Check(name)) {
        PyObject *hook =
            value == NULL ? tosc_state->str_delattr : tosc_state->str_setattr;
        PyObject *mine = value_type_lookup(cls, hook);
        PyObject *plain = value_type_lookup(&PyBaseObject_Type, hook);
        if (mine == NULL) {
            return -1;
        }
        if (mine != plain && refuse_special(self, name)) {
            return -1;
        }
        if (mine != plain) {
            return dany_scratch_set(self, name, value);
        }
    }
    return dany_set(op, name, value);
}

/* ---- methods of the type ---- */

static PyObject *
dany_setattr(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "__setattr__ takes a name and a value");
        return NULL;
    }
    return set_attribute(self, args[0], args[1]) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
dany_delattr(PyObject *self, PyObject *name)
{
    return set_attribute(self, name, NULL) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
dany_dir(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    DAnyObject *self = (DAnyObject *)op;
    PyObject *view = dobject_view(&self->base);
    PyObject *names = view == NULL ? NULL : PySet_New(view);
    PyObject *more =
        names == NULL
            ? NULL
            : PyObject_Dir(self->cls != NULL ? self->cls : (PyObject *)Py_TYPE(op));
    PyObject *result = NULL;
    int status = more == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(more); i++) {
        status = PySet_Add(names, PyList_GET_ITEM(more, i));
    }
    if (status == 0) {
        result = PySequence_List(names);
    }
    Py_XDECREF(view);
    Py_XDECREF(names);
    Py_XDECREF(more);
    return result;
}

static PyObject *
dany_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return dany_shallow((DAnyObject *)self);
}

static PyObject *
dany_deepcopy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    return dobject_plain(self);
}

/* Pickled, it is an object of its class; what it holds follows in the same way. */
static PyObject *
dany_reduce_ex(PyObject *self, PyObject *protocol)
{
    PyObject *plain = dany_shallow((DAnyObject *)self);
    PyObject *reduced = plain == NULL
                            ? NULL
                            : PyObject_CallMethodObjArgs(plain, tosc_state->str_reduce_ex,
                                                         protocol, NULL);
    Py_XDECREF(plain);
    return reduced;
}

static PyObject *
dany_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = PyLong_FromLong(0);
    PyObject *reduced = protocol == NULL ? NULL : dany_reduce_ex(self, protocol);
    Py_XDECREF(protocol);
    return reduced;
}

static PyObject *
dany_get_class(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *cls = ((DAnyObject *)op)->cls;
    return Py_NewRef(cls != NULL ? cls : (PyObject *)Py_TYPE(op));
}

static PyObject *
dany_get_dict(PyObject *op, void *Py_UNUSED(closure))
{
    DAnyObject *self = (DAnyObject *)op;
    if (self->cls == NULL || !class_has_dict((PyTypeObject *)self->cls)) {
        raise_missing(op, tosc_state->str_dict);
        return NULL;
    }
    return dattrs_new(self);
}

static int
dany_set_class_attribute(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return dany_set(op, tosc_state->str_class, value);
}

static int
dany_set_dict(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return dany_set(op, tosc_state->str_dict, value);
}

/* ---- the type ---- */

/* type(x)(…) is what methods write for "another of my kind". */
static PyObject *
dany_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (type != tosc_state->DAny_Type) {
        PyObject *cls = class_of_wrapper_type(type);
        PyObject *made = NULL;
        if (cls != NULL) {
            made = PyObject_Call(cls, args, kwargs);
            Py_DECREF(cls);
        } else if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "cannot create '%.200s' instances",
                         type->tp_name);
        }
        return made;
    }
    PyObject *value;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)
        || !PyArg_ParseTuple(args, "O:DAny", &value)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "DAny() takes no keyword arguments");
        }
        return NULL;
    }
    if (!dany_suits(value) && !PyObject_TypeCheck(value, type)) {
        PyErr_Format(
            PyExc_TypeError,
            "DAny() needs an instance of a Python class that keeps its attributes in "
            "__dict__ or __slots__, not %.200s",
            Py_TYPE(value)->tp_name);
        return NULL;
    }
    PyObject *plain = dobject_plain(value);
    PyObject *wrapper = plain == NULL ? NULL : dobject_adopt(NULL, plain);
    Py_XDECREF(plain);
    return wrapper;
}

static int
dany_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(((DAnyObject *)op)->cls);
    return dobject_traverse(op, visit, arg);
}

static void
dany_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    PyObject *cls = ((DAnyObject *)op)->cls;
    ((DAnyObject *)op)->cls = NULL;
    dobject_dealloc(op);
    Py_XDECREF(cls);
}

PyDoc_STRVAR(
    dany_doc,
    "DAny(object, /)\n--\n\n"
    "The wrapper of a custom object: one that keeps its attributes in __dict__ or\n"
    "__slots__. Custom objects become DAny when they are stored; DAny(x) wraps a copy "
    "of\n"
    "x that is in no store yet.\n"
    "\n"
    "A wrapper is an instance of the object's class for isinstance(), and runs its\n"
    "methods, properties and operators. Attributes that are set or deleted are changes\n"
    "like those of a distributed dict, also when they are made through vars(x). Copies\n"
    "(copy.copy, copy.deepcopy, pickle) are plain objects of the class.");

static PyMethodDef dany_methods[] = {
    {"__setattr__", (PyCFunction)(void (*)(void))dany_setattr, METH_FASTCALL,
     "Set an attribute: a change of the store."},
    {"__delattr__", dany_delattr, METH_O, "Delete an attribute: a change of the store."},
    {"__dir__", dany_dir, METH_NOARGS,
     "The names of the object's and its class's attributes."},
    {"__copy__", dany_copy, METH_NOARGS, "A plain object with the same attributes."},
    {"__deepcopy__", dany_deepcopy, METH_O, "A plain object, plain all the way down."},
    {"__reduce_ex__", dany_reduce_ex, METH_O, "Pickled as a plain object."},
    {"__reduce__", dany_reduce, METH_NOARGS, "Pickled as a plain object."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef dany_getset[] = {
    {"__class__", dany_get_class, dany_set_class_attribute, "The class of the object.",
     NULL},
    {"__dict__", dany_get_dict, dany_set_dict, "A live mapping of the attributes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot dany_slots[] = {
    {Py_tp_doc, (void *)dany_doc},    {Py_tp_new, dany_new},
    {Py_tp_dealloc, dany_dealloc},    {Py_tp_traverse, dany_traverse},
    {Py_tp_clear, dobject_clear},     {Py_tp_getattro, dany_getattro},
    {Py_tp_methods, dany_methods},    {Py_tp_getset, dany_getset},
    {Py_tp_members, dobject_members}, {0, NULL},
};

static PyType_Spec dany_spec = {
    .name = "tosc.DAny",
    .basicsize = sizeof(DAnyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = dany_slots,
};

int
dany_init(PyObject *module, ToscState *state)
{
    if (classify_init(state) < 0 || dattrs_init(module, state) < 0
        || tosc_add_type(module, &state->DAny_Type, &dany_spec, state->DObject_Type,
                         "DAny")
               < 0) {
        return -1;
    }
    return class_init(module, state);
}
