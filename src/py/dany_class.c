/*
 * The wrapper types that are made for each class of custom objects and opaque values.
 *
 * Python looks special methods up on the type, so the wrapper of an object with __len__ must
 * be of a type that has __len__, and that of an object without must not. So each class gets
 * a wrapper type of its own: a subtype of DAny or DOpaque, with the same layout, whose dict
 * holds a forwarder for every special method in the class's method resolution order
 * (object's own excepted). A forwarder finds the method on the class when it is called, so
 * later changes of the class count, and calls it with the wrapper as self. The class itself is
 * no base: nothing of it runs when a wrapper type is made.
 *
 * Other names of the class get a data descriptor, for two reasons: type(x).name works, and
 * so do object.__getattribute__(x, name) and object.__setattr__(x, name, value), which look
 * at the type only; without it a class that stores its attributes by object.__setattr__()
 * could not be wrapped. The names are those of the class's attributes, annotations and
 * slots, and the constants of methods that mention __setattr__. For other names
 * object.__setattr__() raises AttributeError.
 *
 * What must stay true: a wrapper type holds its class by weak references only, so that both
 * go when the class goes; its tp_setattro is the interpreter's own (that is: __setattr__ is
 * found in a dict), else object.__setattr__() refuses the wrapper.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dany.h"

#include <string.h>

typedef struct Forward {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *name;
    PyObject *class_ref; /* weak reference to the class */
} Forward;

/* Owned by the dict of DAny. */
static PyTypeObject *special_type;
static PyTypeObject *name_type;

/* Set while we make a subtype of DAny or DOpaque, which nobody else may. */
static bool making_type;

static const char class_key[] = "__wrapped_class__";

/* Special names that are not forwarded. */
static const char *const not_forwarded[] = {
    "__new__",
    "__init__",
    "__del__",
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getattr__",
    "__getattribute__",
    "__setattr__",
    "__delattr__",
    "__dict__",
    "__weakref__",
    "__slots__",
    "__class__",
    "__module__",
    "__qualname__",
    "__doc__",
    "__init_subclass__",
    "__subclasshook__",
    "__class_getitem__",
    "__set_name__",
    "__annotations__",
    "__abstractmethods__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__hash__",
    "__wrapped_class__",
    "__classcell__",
    "__prepare__",
    "__static_attributes__",
    "__firstlineno__",
};

/* ---- forwarders ---- */

static PyObject *
forward_class(Forward *self)
{
    PyObject *cls = PyWeakref_GetObject(self->class_ref);
    if (cls == NULL || cls == Py_None) {
        PyErr_Format(PyExc_ReferenceError, "the class that has %R is gone", self->name);
        return NULL;
    }
    return Py_NewRef(cls);
}

/* The class's own attribute, for type(x).name. */
static PyObject *
forward_class_attribute(Forward *self)
{
    PyObject *cls = forward_class(self);
    PyObject *found = cls == NULL ? NULL : PyObject_GetAttr(cls, self->name);
    Py_XDECREF(cls);
    return found;
}

static int
forward_traverse(PyObject *op, visitproc visit, void *arg)
{
    Forward *self = (Forward *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->class_ref);
    return 0;
}

static void
forward_dealloc(PyObject *op)
{
    Forward *self = (Forward *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(self->name);
    Py_CLEAR(self->class_ref);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
raise_no_method(PyObject *self, PyObject *name)
{
    PyErr_Format(PyExc_TypeError, "'%.200s' object has no method %U",
                 Py_TYPE(self)->tp_name, name);
    return NULL;
}

/* Calls a method of a custom object's class, found now, with the wrapper as self. */
static PyObject *
call_custom(PyObject *self, PyObject *name, PyObject *const *args, size_t nargsf,
            PyObject *kwnames)
{
    PyObject *cls = ((DAnyObject *)self)->cls;
    PyObject *method = cls == NULL ? NULL : value_type_lookup((PyTypeObject *)cls, name);
    if (method == NULL) {
        return PyErr_Occurred() ? NULL : raise_no_method(self, name);
    }
    Py_INCREF(method);
    PyObject *result;
    if (PyType_HasFeature(Py_TYPE(method), Py_TPFLAGS_METHOD_DESCRIPTOR)) {
        result = PyObject_Vectorcall(method, args, nargsf, kwnames);
    } else {
        descrgetfunc get = Py_TYPE(method)->tp_descr_get;
        PyObject *bound = get != NULL ? get(method, self, cls) : Py_NewRef(method);
        result =
            bound == NULL
                ? NULL
                : PyObject_Vectorcall(bound, args + 1,
                                      (size_t)PyVectorcall_NARGS(nargsf) - 1, kwnames);
        Py_XDECREF(bound);
    }
    Py_DECREF(method);
    return result;
}

static PyObject *
special_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Forward *self = (Forward *)op;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs < 1) {
        PyErr_Format(PyExc_TypeError, "%U needs an object", self->name);
        return NULL;
    }
    if (PyObject_TypeCheck(args[0], tosc_state->DAny_Type)) {
        return call_custom(args[0], self->name, args, nargsf, kwnames);
    }
    if (PyObject_TypeCheck(args[0], tosc_state->DOpaque_Type)
        || PyObject_TypeCheck(args[0], tosc_state->DPart_Type)) {
        return opaque_call_special(args[0], self->name, args + 1, nargs - 1, kwnames);
    }
    PyObject *method = forward_class_attribute(self); /* type(x).__len__(a real object) */
    PyObject *result =
        method == NULL ? NULL : PyObject_Vectorcall(method, args, nargsf, kwnames);
    Py_XDECREF(method);
    return result;
}

static PyObject *
special_get(PyObject *op, PyObject *object, PyObject *type)
{
    if (object == NULL || object == Py_None) {
        return Py_NewRef(op);
    }
    PyObject *cls = PyObject_TypeCheck(object, tosc_state->DAny_Type)
                        ? ((DAnyObject *)object)->cls
                        : NULL;
    if (cls == NULL) {
        return PyMethod_New(op, object);
    }
    PyObject *method = value_type_lookup((PyTypeObject *)cls, ((Forward *)op)->name);
    if (method == NULL) {
        return PyErr_Occurred() ? NULL : raise_no_method(object, ((Forward *)op)->name);
    }
    descrgetfunc get = Py_TYPE(method)->tp_descr_get;
    if (get == NULL) {
        return Py_NewRef(method);
    }
    Py_INCREF(method);
    PyObject *bound = get(method, object, cls);
    Py_DECREF(method);
    return bound;
}

static PyMemberDef special_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Forward, vectorcall), READONLY, NULL},
    {"__name__", T_OBJECT, offsetof(Forward, name), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot special_slots[] = {
    {Py_tp_doc, "A special method of the class of a wrapped object."},
    {Py_tp_traverse, forward_traverse},
    {Py_tp_dealloc, forward_dealloc},
    {Py_tp_descr_get, special_get},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, special_members},
    {0, NULL},
};

static PyType_Spec special_spec = {
    .name = "tosc.SpecialMethod",
    .basicsize = sizeof(Forward),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
             | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = special_slots,
};

static PyObject *
name_get(PyObject *op, PyObject *object, PyObject *type)
{
    Forward *self = (Forward *)op;
    if (object == NULL || object == Py_None) {
        return forward_class_attribute(self);
    }
    if (PyObject_TypeCheck(object, tosc_state->DAny_Type)) {
        return dany_get(object, self->name);
    }
    return PyObject_GetAttr(object, self->name);
}

static int
name_set(PyObject *op, PyObject *object, PyObject *value)
{
    if (PyObject_TypeCheck(object, tosc_state->DAny_Type)) {
        return dany_set(object, ((Forward *)op)->name, value);
    }
    return PyObject_SetAttr(object, ((Forward *)op)->name, value);
}

static PyType_Slot name_slots[] = {
    {Py_tp_doc, "An attribute of a wrapped object."},
    {Py_tp_traverse, forward_traverse},
    {Py_tp_dealloc, forward_dealloc},
    {Py_tp_descr_get, name_get},
    {Py_tp_descr_set, name_set},
    {0, NULL},
};

static PyType_Spec name_spec = {
    .name = "tosc.Attribute",
    .basicsize = sizeof(Forward),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = name_slots,
};

static PyObject *
forward_new(PyTypeObject *type, PyObject *name, PyObject *class_ref)
{
    Forward *self = (Forward *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = special_vectorcall;
        self->name = Py_NewRef(name);
        self->class_ref = Py_NewRef(class_ref);
    }
    return (PyObject *)self;
}

/* ---- the dict of a wrapper type ---- */

static bool
is_special_name(PyObject *name)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(name);
    return length > 4 && PyUnicode_READ_CHAR(name, 0) == '_'
           && PyUnicode_READ_CHAR(name, 1) == '_'
           && PyUnicode_READ_CHAR(name, length - 1) == '_'
           && PyUnicode_READ_CHAR(name, length - 2) == '_';
}

/* Copies of opaque values are made by pickling, whatever their class says. */
static bool
is_copying(PyObject *name)
{
    return PyUnicode_CompareWithASCIIString(name, "__copy__") == 0
           || PyUnicode_CompareWithASCIIString(name, "__deepcopy__") == 0;
}

static bool
is_forwarded(PyObject *name)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(not_forwarded); i++) {
        if (PyUnicode_CompareWithASCIIString(name, not_forwarded[i]) == 0) {
            return false;
        }
    }
    return true;
}

static int
add_forward(PyObject *ns, PyTypeObject *type, PyObject *name, PyObject *class_ref)
{
    PyObject *forward = forward_new(type, name, class_ref);
    int result = forward == NULL ? -1 : PyDict_SetItem(ns, name, forward);
    Py_XDECREF(forward);
    return result;
}

static int
add_name(PyObject *ns, PyObject *name, PyObject *class_ref)
{
    if (!PyUnicode_CheckExact(name) || is_special_name(name)) {
        return 0;
    }
    int there = PyDict_Contains(ns, name);
    return there != 0 ? (there < 0 ? -1 : 0)
                      : add_forward(ns, name_type, name, class_ref);
}

/* The attribute names that a method may pass to object.__setattr__(). */
static int
add_constant_names(PyObject *ns, PyObject *function, PyObject *class_ref)
{
    PyObject *code = PyFunction_GetCode(function);
    PyObject *names = PyObject_GetAttrString(code, "co_names");
    PyObject *constants = PyObject_GetAttrString(code, "co_consts");
    int result = names == NULL || constants == NULL ? -1 : 0;
    if (result == 0 && PyTuple_Check(names) && PyTuple_Check(constants)) {
        int sets = PySequence_Contains(names, tosc_state->str_setattr);
        result = sets < 0 ? -1 : 0;
        for (Py_ssize_t i = 0; sets > 0 && result == 0 && i < PyTuple_GET_SIZE(constants);
             i++) {
            PyObject *constant = PyTuple_GET_ITEM(constants, i);
            if (PyUnicode_CheckExact(constant) && PyUnicode_IsIdentifier(constant) == 1) {
                result = add_name(ns, constant, class_ref);
            }
        }
    }
    Py_XDECREF(names);
    Py_XDECREF(constants);
    return result;
}

static int
add_annotated(PyObject *ns, PyObject *annotations, PyObject *class_ref)
{
    PyObject *key;
    PyObject *value;
    Py_ssize_t position = 0;
    while (PyDict_Check(annotations)
           && PyDict_Next(annotations, &position, &key, &value)) {
        if (add_name(ns, key, class_ref) < 0) {
            return -1;
        }
    }
    return 0;
}

/* One attribute of one class of the method resolution order, if a nearer class has not the same. */
static int
add_attribute(PyObject *ns, PyObject *name, PyObject *value, PyObject *class_ref,
              bool custom)
{
    if (!PyUnicode_CheckExact(name)) {
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "__annotations__") == 0) {
        return custom ? add_annotated(ns, value, class_ref) : 0;
    }
    if (PyFunction_Check(value) && custom
        && add_constant_names(ns, value, class_ref) < 0) {
        return -1;
    }
    if (!is_special_name(name)) {
        return add_name(ns, name, class_ref);
    }
    int there = PyDict_Contains(ns, name);
    if (there != 0 || !is_forwarded(name) || (!custom && is_copying(name))) {
        return there < 0 ? -1 : 0;
    }
    if (value == Py_None) {
        return PyDict_SetItem(ns, name, Py_None);
    }
    bool method = PyCallable_Check(value) || Py_TYPE(value)->tp_descr_get != NULL;
    return add_forward(ns, method ? special_type : name_type, name, class_ref);
}

static int
add_hash(PyObject *ns, PyTypeObject *cls, PyObject *class_ref)
{
    PyObject *name = PyUnicode_InternFromString("__hash__");
    PyObject *mine = name == NULL ? NULL : value_type_lookup(cls, name);
    PyObject *plain = mine == NULL ? NULL : value_type_lookup(&PyBaseObject_Type, name);
    int result = -1;
    if (plain != NULL) {
        result = mine == plain || mine == Py_None
                     ? PyDict_SetItem(ns, name, mine)
                     : add_forward(ns, special_type, name, class_ref);
    }
    Py_XDECREF(name);
    return result;
}

static int
add_identity(PyObject *ns, PyTypeObject *cls, PyObject *class_ref)
{
    PyObject *empty = PyTuple_New(0);
    PyObject *qualname = PyType_GetQualName(cls);
    PyObject *module = value_type_lookup(cls, tosc_state->str_module);
    PyObject *doc_name = PyUnicode_InternFromString("__doc__");
    PyObject *doc = doc_name == NULL ? NULL : value_type_lookup(cls, doc_name);
    int result = -1;
    if (empty != NULL && qualname != NULL && doc_name != NULL && !PyErr_Occurred()) {
        result = PyDict_SetItem(ns, tosc_state->str_slots, empty);
        result |= PyDict_SetItem(ns, tosc_state->str_qualname, qualname);
        result |= PyDict_SetItemString(ns, class_key, class_ref);
        if (doc != NULL && PyUnicode_Check(doc)) {
            result |= PyDict_SetItem(ns, doc_name, doc);
        }
        if (module != NULL && PyUnicode_Check(module)) {
            result |= PyDict_SetItem(ns, tosc_state->str_module, module);
        } else {
            result |= PyDict_SetItemString(ns, "__module__", qualname);
        }
    }
    Py_XDECREF(empty);
    Py_XDECREF(qualname);
    Py_XDECREF(doc_name);
    return result < 0 ? -1 : 0;
}

static PyObject *
make_namespace(PyTypeObject *cls, PyObject *class_ref, bool custom)
{
    PyObject *ns = PyDict_New();
    if (ns == NULL || add_identity(ns, cls, class_ref) < 0
        || add_hash(ns, cls, class_ref) < 0) {
        Py_XDECREF(ns);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(cls->tp_mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(cls->tp_mro, i);
        if (base == &PyBaseObject_Type || value_type_dict(base) == NULL) {
            continue;
        }
        PyObject *dict = PyDict_Copy(value_type_dict(base));
        PyObject *name;
        PyObject *value;
        Py_ssize_t position = 0;
        int result = dict == NULL ? -1 : 0;
        while (result == 0 && PyDict_Next(dict, &position, &name, &value)) {
            result = add_attribute(ns, name, value, class_ref, custom);
        }
        Py_XDECREF(dict);
        if (result < 0) {
            Py_DECREF(ns);
            return NULL;
        }
    }
    return ns;
}

/* ---- the types ---- */

static PyObject *
cache_key(PyTypeObject *base, PyObject *cls)
{
    /* Classes lie at addresses that are multiples of 8 at least. */
    uintptr_t bits = (uintptr_t)cls;
    bits |= base == tosc_state->DOpaque_Type ? 1 : base == tosc_state->DPart_Type ? 2 : 0;
    return PyLong_FromVoidPtr((void *)bits);
}

/* The class is gone: so may its wrapper type. `key` is our entry's. */
static PyObject *
forget(PyObject *key, PyObject *class_ref)
{
    PyObject *types = tosc_state != NULL ? tosc_state->any_types : NULL;
    PyObject *entry = types == NULL ? NULL : PyDict_GetItemWithError(types, key);
    if (entry != NULL && PyTuple_GET_ITEM(entry, 0) == class_ref
        && PyDict_DelItem(types, key) < 0) {
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

static PyMethodDef forget_method = {"forget", forget, METH_O, NULL};

static PyTypeObject *
make_type(PyTypeObject *base, PyTypeObject *cls, PyObject *class_ref)
{
    PyObject *ns = make_namespace(cls, class_ref, base == tosc_state->DAny_Type);
    PyObject *name = ns == NULL ? NULL : PyType_GetName(cls);
    PyObject *type = NULL;
    if (name != NULL) {
        bool before = making_type;
        making_type = true;
        type = PyObject_CallFunction((PyObject *)&PyType_Type, "O(O)O", name, base, ns);
        making_type = before;
    }
    if (type != NULL) {
        /* A match statement treats it as a sequence or mapping if the class is one. */
        ((PyTypeObject *)type)->tp_flags |=
            cls->tp_flags & (Py_TPFLAGS_SEQUENCE | Py_TPFLAGS_MAPPING);
    }
    Py_XDECREF(name);
    Py_XDECREF(ns);
    return (PyTypeObject *)type;
}

PyTypeObject *
class_wrapper_type(PyTypeObject *base, PyObject *cls)
{
    PyObject *types = tosc_state->any_types;
    PyObject *key = cache_key(base, cls);
    PyObject *entry = key == NULL ? NULL : PyDict_GetItemWithError(types, key);
    if (entry != NULL && PyWeakref_GetObject(PyTuple_GET_ITEM(entry, 0)) == cls) {
        Py_DECREF(key);
        return (PyTypeObject *)Py_NewRef(PyTuple_GET_ITEM(entry, 1));
    }
    PyObject *callback = key == NULL ? NULL : PyCFunction_New(&forget_method, key);
    PyObject *class_ref = callback == NULL ? NULL : PyWeakref_NewRef(cls, callback);
    PyTypeObject *type =
        class_ref == NULL ? NULL : make_type(base, (PyTypeObject *)cls, class_ref);
    entry = type == NULL ? NULL : PyTuple_Pack(2, class_ref, type);
    if (entry == NULL || PyDict_SetItem(types, key, entry) < 0) {
        Py_CLEAR(type);
    }
    Py_XDECREF(entry);
    Py_XDECREF(class_ref);
    Py_XDECREF(callback);
    Py_XDECREF(key);
    return type;
}

PyObject *
class_of_wrapper_type(PyTypeObject *type)
{
    PyObject *class_ref = value_type_dict(type) == NULL
                              ? NULL
                              : PyDict_GetItemString(value_type_dict(type), class_key);
    if (class_ref == NULL || !PyWeakref_Check(class_ref)) {
        return NULL;
    }
    PyObject *cls = PyWeakref_GetObject(class_ref);
    return cls == NULL || cls == Py_None ? NULL : Py_NewRef(cls);
}

int
class_assign(DObject *self, PyTypeObject *base, PyObject *cls)
{
    DAnyObject *wrapper = (DAnyObject *)self;
    if (!PyType_Check(cls)) {
        PyErr_Format(PyExc_TypeError,
                     "the class of a stored object is %.200s, not a class",
                     Py_TYPE(cls)->tp_name);
        return -1;
    }
    if (wrapper->cls != NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "the class of a stored object cannot be changed");
        return -1;
    }
    PyTypeObject *type = class_wrapper_type(base, cls);
    if (type == NULL) {
        return -1;
    }
    PyTypeObject *old = Py_TYPE(self);
    wrapper->cls = Py_NewRef(cls);
    Py_SET_TYPE(self, type);
    Py_DECREF(old);
    return 0;
}

/* __init_subclass__ of DAny and DOpaque. */
static PyObject *
refuse_subclass(PyObject *cls, PyObject *args, PyObject *kwargs)
{
    if (!making_type) {
        PyErr_SetString(
            PyExc_TypeError,
            "the wrapper of custom objects cannot be subclassed: derive from the "
            "class of the objects instead");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef refuse_method = {"__init_subclass__",
                                    (PyCFunction)(void (*)(void))refuse_subclass,
                                    METH_VARARGS | METH_KEYWORDS | METH_CLASS, NULL};

int
class_seal(PyTypeObject *type)
{
    PyObject *method = PyDescr_NewClassMethod(type, &refuse_method);
    int result = method == NULL ? -1
                                : PyDict_SetItemString(value_type_dict(type),
                                                       "__init_subclass__", method);
    Py_XDECREF(method);
    PyType_Modified(type);
    return result;
}

int
class_init(PyObject *module, ToscState *state)
{
    PyObject *special = PyType_FromModuleAndSpec(module, &special_spec, NULL);
    PyObject *name = PyType_FromModuleAndSpec(module, &name_spec, NULL);
    int result = special == NULL || name == NULL ? -1 : 0;
    if (result == 0) {
        special_type = (PyTypeObject *)special;
        name_type = (PyTypeObject *)name;
        PyObject *owner = value_type_dict(state->DAny_Type);
        result = PyDict_SetItemString(owner, "__special_method_type__", special);
        result |= PyDict_SetItemString(owner, "__attribute_type__", name);
        result |= class_seal(state->DAny_Type);
    }
    Py_XDECREF(special);
    Py_XDECREF(name);
    state->any_types = PyDict_New();
    return result < 0 || state->any_types == NULL ? -1 : 0;
}
