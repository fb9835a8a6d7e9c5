/*
 * DAny: the wrapper of a custom object.
 *
 * Its state is one dict of the object's attributes and set slots. The object itself is gone:
 * reading an attribute does what object.__getattribute__ does, with the class's method
 * resolution order and that dict; methods and properties run with the wrapper as self, so
 * that what they change is tracked. The wrapper says that its class is the user's; for its
 * special methods see dany_class.c.
 *
 * A class that has a __setattr__, __delattr__ or __getattribute__ of its own ends up in
 * object's, which would look at the wrapper instead of the state. So these three run on a
 * scratch instance of the class that has the same attributes; what they have changed in it
 * is then stored.
 *
 * What must stay true: the state's values have been adopted; nothing that changes an
 * attribute bypasses dany_store() or dany_assign_dict().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dany.h"
#include "wrap.h"

/* ---- taking objects apart and putting them together ---- */

int
dany_suits(PyObject *value)
{
    int kind = value_classify(value);
    if (kind < 0) {
        PyErr_Clear();
    }
    return kind == VALUE_ANY;
}

/* The set slots of an object, by name, into a dict. */
static int
take_slots(PyObject *value, PyObject *attributes)
{
    PyTypeObject *type = Py_TYPE(value);
    for (Py_ssize_t i = PyTuple_GET_SIZE(type->tp_mro); i-- > 0;) {
        PyObject *dict = ((PyTypeObject *)PyTuple_GET_ITEM(type->tp_mro, i))->tp_dict;
        PyObject *name;
        PyObject *descriptor;
        Py_ssize_t position = 0;
        while (dict != NULL && PyDict_Next(dict, &position, &name, &descriptor)) {
            if (!value_is_slot(descriptor)) {
                continue;
            }
            PyObject *slot = Py_TYPE(descriptor)->tp_descr_get(descriptor, value, (PyObject *)type);
            if (slot == NULL) {
                if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
                    return -1;
                }
                PyErr_Clear();
                continue;
            }
            int result = PyDict_SetItem(attributes, name, slot);
            Py_DECREF(slot);
            if (result < 0) {
                return -1;
            }
        }
    }
    return 0;
}

PyObject *
dany_take_apart(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    PyObject *attributes;
    if (class_has_dict(type)) {
        PyObject *dict = PyObject_GenericGetDict(value, NULL);
        attributes = dict == NULL ? NULL : PyDict_Copy(dict);
        Py_XDECREF(dict);
    } else {
        attributes = PyDict_New();
    }
    if (attributes != NULL && class_has_slots(type) && take_slots(value, attributes) < 0) {
        Py_CLEAR(attributes);
    }
    return attributes;
}

PyObject *
dany_put_together(PyObject *cls)
{
    if (!PyType_Check(cls)) {
        PyErr_Format(PyExc_TypeError, "%R is not a class", cls);
        return NULL;
    }
    PyObject *empty = PyTuple_New(0);
    PyObject *plain =
        empty == NULL ? NULL : PyBaseObject_Type.tp_new((PyTypeObject *)cls, empty, NULL);
    Py_XDECREF(empty);
    return plain;
}

int
dany_fill(PyObject *plain, PyObject *attributes)
{
    PyTypeObject *type = Py_TYPE(plain);
    PyObject *name;
    PyObject *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(attributes, &position, &name, &value)) {
        PyObject *descriptor = PyUnicode_Check(name) ? value_type_lookup(type, name) : NULL;
        int result;
        if (PyErr_Occurred()) {
            return -1;
        }
        if (PyUnicode_Check(name) &&
            (descriptor == NULL || value_is_slot(descriptor) ||
             Py_TYPE(descriptor)->tp_descr_set == NULL)) {
            result = PyObject_GenericSetAttr(plain, name, value);
        } else { /* hidden by a property, or not even a string */
            PyObject *dict = PyObject_GenericGetDict(plain, NULL);
            result = dict == NULL ? -1 : PyDict_SetItem(dict, name, value);
            Py_XDECREF(dict);
        }
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

DObject *
dany_new_shell(void)
{
    return dobject_new(tosc_state->DAny_Type, KIND_ANY, PyDict_New());
}

int
dany_set_class(DObject *self, PyObject *cls)
{
    return class_assign(self, tosc_state->DAny_Type, cls);
}

/* An instance of the class with the attributes as they are, wrappers included. */
static PyObject *
shallow(DAnyObject *self)
{
    if (self->cls == NULL) {
        PyErr_SetString(PyExc_TypeError, "this object has no class yet");
        return NULL;
    }
    PyObject *view = dobject_view(&self->base);
    PyObject *plain = view == NULL ? NULL : dany_put_together(self->cls);
    if (plain != NULL && dany_fill(plain, view) < 0) {
        Py_CLEAR(plain);
    }
    Py_XDECREF(view);
    return plain;
}

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
        PyErr_Format(PyExc_TypeError, "__dict__ must be set to a dictionary, not a '%.200s'",
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

/* ---- running on a scratch instance ---- */

/* Stores one attribute that the scratch instance has got. */
static int
record_one(DAnyObject *self, PyObject *scratch, PyObject *name, PyObject *value)
{
    bool missing;
    if (value == scratch) {
        value = (PyObject *)self;
    }
    return dany_store(&self->base, name, value, &missing);
}

/* Stores what differs between the attributes that the scratch instance began with and has now. */
static int
record(DAnyObject *self, PyObject *scratch, PyObject *before)
{
    PyObject *after = dany_take_apart(scratch);
    PyObject *name;
    PyObject *value;
    Py_ssize_t position = 0;
    int result = after == NULL ? -1 : 0;
    while (result == 0 && PyDict_Next(after, &position, &name, &value)) {
        PyObject *old = PyDict_GetItemWithError(before, name);
        if (old != value) {
            result = PyErr_Occurred() ? -1 : record_one(self, scratch, name, value);
        }
    }
    position = 0;
    while (result == 0 && PyDict_Next(before, &position, &name, &value)) {
        int there = PyDict_Contains(after, name);
        bool missing;
        if (there == 0) {
            result = dany_store(&self->base, name, NULL, &missing);
        } else if (there < 0) {
            result = -1;
        }
    }
    Py_XDECREF(after);
    return result;
}

/* The same after the class's own code has raised (result < 0): its exception stays. */
static int
record_after(DAnyObject *self, PyObject *scratch, PyObject *before, int result)
{
    if (result >= 0) {
        return record(self, scratch, before);
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (record(self, scratch, before) < 0) { /* that it could not be stored matters more */
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return -1;
    }
    PyErr_Restore(type, value, traceback);
    return -1;
}

static int
scratch_set(DAnyObject *self, PyObject *name, PyObject *value)
{
    PyObject *scratch = shallow(self);
    PyObject *before = scratch == NULL ? NULL : dany_take_apart(scratch);
    int result = -1;
    if (before != NULL) {
        result = record_after(self, scratch, before, PyObject_SetAttr(scratch, name, value));
    }
    Py_XDECREF(before);
    Py_XDECREF(scratch);
    return result;
}

/* What the class's __getattribute__ has found, as if it had been asked about the wrapper. */
static PyObject *
rebind(PyObject *self, PyObject *scratch, PyObject *found)
{
    PyObject *result = found;
    if (found == scratch) {
        result = Py_NewRef(self);
    } else if (PyMethod_Check(found) && PyMethod_GET_SELF(found) == scratch) {
        result = PyMethod_New(PyMethod_GET_FUNCTION(found), self);
    } else {
        return found;
    }
    Py_DECREF(found);
    return result;
}

static PyObject *
scratch_get(DAnyObject *self, PyObject *getattribute, PyObject *name)
{
    PyObject *scratch = shallow(self);
    PyObject *before = scratch == NULL ? NULL : dany_take_apart(scratch);
    PyObject *found = NULL;
    if (before != NULL) {
        found = PyObject_CallFunctionObjArgs(getattribute, scratch, name, NULL);
        if (record_after(self, scratch, before, found == NULL ? -1 : 0) < 0) {
            Py_CLEAR(found);
        }
    }
    if (found != NULL) {
        found = rebind((PyObject *)self, scratch, found);
    }
    Py_XDECREF(before);
    Py_XDECREF(scratch);
    return found;
}

/* ---- reading ---- */

static inline bool
is_dunder(PyObject *name)
{
    return PyUnicode_GET_LENGTH(name) > 4 && PyUnicode_READ_CHAR(name, 0) == '_' &&
           PyUnicode_READ_CHAR(name, 1) == '_' &&
           PyUnicode_READ_CHAR(name, PyUnicode_GET_LENGTH(name) - 1) == '_';
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
        bool copying = PyUnicode_CompareWithASCIIString(name, "__copy__") == 0 ||
                       PyUnicode_CompareWithASCIIString(name, "__deepcopy__") == 0;
        return copying && found != NULL ? PyObject_GenericGetAttr((PyObject *)self, name) : NULL;
    }
    if (found == value_type_lookup(&PyBaseObject_Type, name)) {
        return PyObject_GenericGetAttr((PyObject *)self, name);
    }
    return NULL;
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
        if (get != NULL && Py_TYPE(descriptor)->tp_descr_set != NULL && !value_is_slot(descriptor)) {
            value = get(descriptor, op, (PyObject *)cls);
            Py_DECREF(descriptor);
            return value;
        }
    } else if (PyErr_Occurred()) {
        return NULL;
    }
    int found = dobject_get(&self->base, name, &value);
    if (found == 0 && descriptor != NULL && !value_is_slot(descriptor)) {
        value = get != NULL ? get(descriptor, op, (PyObject *)cls) : Py_NewRef(descriptor);
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
    bool ours = is_dunder(name) && (PyUnicode_Compare(name, state->str_class) == 0 ||
                                    PyUnicode_Compare(name, state->str_dict) == 0 ||
                                    PyUnicode_Compare(name, state->str_reduce_ex) == 0);
    if (mine == plain || ours) {
        value = dany_get((PyObject *)self, name);
    } else {
        Py_INCREF(mine);
        value = scratch_get(self, mine, name);
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
    if (cls == NULL || ((PyTypeObject *)cls)->tp_getattro == PyObject_GenericGetAttr ||
        !PyUnicode_Check(name)) {
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
    if (cls != NULL && cls->tp_setattro != PyObject_GenericSetAttr && PyUnicode_Check(name)) {
        PyObject *hook = value == NULL ? tosc_state->str_delattr : tosc_state->str_setattr;
        PyObject *mine = value_type_lookup(cls, hook);
        PyObject *plain = value_type_lookup(&PyBaseObject_Type, hook);
        if (mine == NULL) {
            return -1;
        }
        if (mine != plain && refuse_special(self, name)) {
            return -1;
        }
        if (mine != plain) {
            return scratch_set(self, name, value);
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
        names == NULL ? NULL : PyObject_Dir(self->cls != NULL ? self->cls : (PyObject *)Py_TYPE(op));
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
    return shallow((DAnyObject *)self);
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
    PyObject *plain = shallow((DAnyObject *)self);
    PyObject *reduced =
        plain == NULL ? NULL
                      : PyObject_CallMethodObjArgs(plain, tosc_state->str_reduce_ex, protocol, NULL);
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
            PyErr_Format(PyExc_TypeError, "cannot create '%.200s' instances", type->tp_name);
        }
        return made;
    }
    PyObject *value;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) || !PyArg_ParseTuple(args, "O:DAny", &value)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "DAny() takes no keyword arguments");
        }
        return NULL;
    }
    if (!dany_suits(value) && !PyObject_TypeCheck(value, type)) {
        PyErr_Format(PyExc_TypeError,
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

PyDoc_STRVAR(dany_doc,
             "DAny(object, /)\n--\n\n"
             "The wrapper of a custom object: one that keeps its attributes in __dict__ or\n"
             "__slots__. Custom objects become DAny when they are stored; DAny(x) wraps a copy of\n"
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
    {"__dir__", dany_dir, METH_NOARGS, "The names of the object's and its class's attributes."},
    {"__copy__", dany_copy, METH_NOARGS, "A plain object with the same attributes."},
    {"__deepcopy__", dany_deepcopy, METH_O, "A plain object, plain all the way down."},
    {"__reduce_ex__", dany_reduce_ex, METH_O, "Pickled as a plain object."},
    {"__reduce__", dany_reduce, METH_NOARGS, "Pickled as a plain object."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef dany_getset[] = {
    {"__class__", dany_get_class, dany_set_class_attribute, "The class of the object.", NULL},
    {"__dict__", dany_get_dict, dany_set_dict, "A live mapping of the attributes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot dany_slots[] = {
    {Py_tp_doc, (void *)dany_doc},
    {Py_tp_new, dany_new},
    {Py_tp_dealloc, dany_dealloc},
    {Py_tp_traverse, dany_traverse},
    {Py_tp_clear, dobject_clear},
    {Py_tp_getattro, dany_getattro},
    {Py_tp_methods, dany_methods},
    {Py_tp_getset, dany_getset},
    {Py_tp_members, dobject_members},
    {0, NULL},
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
    if (classify_init(state) < 0 || dattrs_init(module, state) < 0 ||
        tosc_add_type(module, &state->DAny_Type, &dany_spec, state->DObject_Type, "DAny") < 0) {
        return -1;
    }
    return class_init(module, state);
}
