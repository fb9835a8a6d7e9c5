/*
 * Calling the methods of the real object behind an opaque value.
 *
 * A method taken from an opaque value (x.append) is not the real object's bound method, which
 * would work past the comparison: it is a small object that remembers the value and the
 * name, and finds the method when it is called. Special methods arrive here through the
 * forwarders of dany_class.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "opaque.h"

/* Special methods whose operands are only looked at. */
static const char *const operators[] = {
    "__add__",    "__radd__",    "__iadd__",    "__sub__",      "__rsub__", "__isub__",
    "__mul__",    "__rmul__",    "__imul__",    "__or__",       "__ror__",  "__ior__",
    "__and__",    "__rand__",    "__iand__",    "__xor__",      "__rxor__", "__ixor__",
    "__eq__",     "__ne__",      "__lt__",      "__le__",       "__gt__",   "__ge__",
    "__matmul__", "__rmatmul__", "__truediv__", "__rtruediv__", "__mod__",  "__rmod__",
};

static bool
is_operator(PyObject *name)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(operators); i++) {
        if (PyUnicode_CompareWithASCIIString(name, operators[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- calling ---- */

static PyObject *
find_method(PyObject *target, PyObject *name, bool special)
{
    if (!special) {
        return PyObject_GetAttr(target, name);
    }
    PyTypeObject *type = Py_TYPE(target);
    PyObject *method = value_type_lookup(type, name);
    if (method == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "'%.200s' object has no method %U",
                         type->tp_name, name);
        }
        return NULL;
    }
    descrgetfunc get = Py_TYPE(method)->tp_descr_get;
    if (get == NULL) {
        return Py_NewRef(method);
    }
    Py_INCREF(method);
    PyObject *bound = get(method, target, (PyObject *)type);
    Py_DECREF(method);
    return bound;
}

static int
use_of_arguments(PyTypeObject *type, PyObject *name, bool special, bool safe)
{
    if (special && is_operator(name)) {
        return ARGUMENT_OPERAND;
    }
    if (safe) {
        return ARGUMENT_READ;
    }
    return opaque_is_builtin_method(type, name) ? ARGUMENT_STORE : ARGUMENT_UNKNOWN;
}

static PyObject *
call_target(Session *s, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, bool special, bool safe)
{
    Arguments a;
    Py_ssize_t total = nargs + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    int use = use_of_arguments(Py_TYPE(s->target), name, special, safe);
    if (arguments_take(&a, s, args, total, use) < 0) {
        return NULL;
    }
    PyObject *method = find_method(s->target, name, special);
    PyObject *result = NULL;
    if (method != NULL) {
        result = PyObject_Vectorcall(method, a.passed, (size_t)nargs, kwnames);
        Py_DECREF(method);
        if (arguments_settle(&a, s) < 0) {
            Py_CLEAR(result);
        }
    }
    arguments_free(&a);
    return result;
}

/* x.copy() of a collection gives a plain one, as all copies are. `result` is stolen. */
static PyObject *
plain_copy(Session *s, PyObject *result)
{
    int kind = value_classify(result);
    PyErr_Clear();
    if (kind != VALUE_OPAQUE || Py_REFCNT(result) > 1) {
        return session_show(s, result);
    }
    PyObject *copy = opaque_deep_copy(result);
    Py_DECREF(result);
    return copy;
}

static PyObject *
call(PyObject *self, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
     PyObject *kwnames, bool special)
{
    Session s;
    PyObject *cls = opaque_class_of(self);
    if (cls == NULL) {
        PyErr_SetString(PyExc_TypeError, "this object has no class yet");
        return NULL;
    }
    bool safe = opaque_is_safe((PyTypeObject *)cls, name);
    if (session_begin(&s, self, safe) < 0) {
        return NULL;
    }
    PyObject *result = call_target(&s, name, args, nargs, kwnames, special, safe);
    if (result != NULL && safe && PyUnicode_CompareWithASCIIString(name, "copy") == 0) {
        PyObject *copy = plain_copy(&s, result);
        session_drop(&s);
        return copy;
    }
    return session_end(&s, result);
}

PyObject *
opaque_call_special(PyObject *self, PyObject *name, PyObject *const *args,
                    Py_ssize_t nargs, PyObject *kwnames)
{
    return call(self, name, args, nargs, kwnames, true);
}

/* ---- methods ---- */

typedef struct OpaqueMethod {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *self; /* a DOpaque or a DPart */
    PyObject *name;
} OpaqueMethod;

static PyTypeObject *method_type; /* owned by the dict of DOpaque */

static PyObject *
method_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    OpaqueMethod *method = (OpaqueMethod *)op;
    return call(method->self, method->name, args, PyVectorcall_NARGS(nargsf), kwnames,
                false);
}

PyObject *
opaque_method_new(PyObject *self, PyObject *name)
{
    OpaqueMethod *method = (OpaqueMethod *)method_type->tp_alloc(method_type, 0);
    if (method != NULL) {
        method->vectorcall = method_vectorcall;
        method->self = Py_NewRef(self);
        method->name = Py_NewRef(name);
    }
    return (PyObject *)method;
}

static int
method_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((OpaqueMethod *)op)->self);
    return 0;
}

static void
method_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(((OpaqueMethod *)op)->self);
    Py_CLEAR(((OpaqueMethod *)op)->name);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
method_repr(PyObject *op)
{
    OpaqueMethod *method = (OpaqueMethod *)op;
    return PyUnicode_FromFormat("<method %U of %.200s object at %p>", method->name,
                                Py_TYPE(method->self)->tp_name, method->self);
}

static PyObject *
method_richcompare(PyObject *a, PyObject *b, int op)
{
    if (!Py_IS_TYPE(b, Py_TYPE(a)) || (op != Py_EQ && op != Py_NE)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    OpaqueMethod *left = (OpaqueMethod *)a;
    OpaqueMethod *right = (OpaqueMethod *)b;
    bool equal =
        left->self == right->self && PyUnicode_Compare(left->name, right->name) == 0;
    return PyBool_FromLong(equal == (op == Py_EQ));
}

static Py_hash_t
method_hash(PyObject *op)
{
    Py_hash_t hash = PyObject_Hash(((OpaqueMethod *)op)->name);
    hash ^= (Py_hash_t)((uintptr_t)((OpaqueMethod *)op)->self >> 4);
    return hash == -1 ? -2 : hash;
}

static PyObject *
method_doc(PyObject *op, void *Py_UNUSED(closure))
{
    OpaqueMethod *method = (OpaqueMethod *)op;
    PyObject *cls = opaque_class_of(method->self);
    PyObject *real = cls == NULL ? NULL : PyObject_GetAttr(cls, method->name);
    PyObject *doc = real == NULL ? NULL : PyObject_GetAttrString(real, "__doc__");
    Py_XDECREF(real);
    return doc;
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(OpaqueMethod, vectorcall), READONLY,
     NULL},
    {"__self__", T_OBJECT, offsetof(OpaqueMethod, self), READONLY,
     "What the method is of."},
    {"__name__", T_OBJECT, offsetof(OpaqueMethod, name), READONLY, "The method's name."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef method_getset[] = {
    {"__doc__", method_doc, NULL, "The real method's docstring.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_traverse, method_traverse},
    {Py_tp_dealloc, method_dealloc},
    {Py_tp_repr, method_repr},
    {Py_tp_richcompare, method_richcompare},
    {Py_tp_hash, method_hash},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, method_members},
    {Py_tp_getset, method_getset},
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "tosc.OpaqueMethod",
    .basicsize = sizeof(OpaqueMethod),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = method_slots,
};

int
opaque_call_init(PyObject *module, ToscState *state)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &method_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    method_type = (PyTypeObject *)type;
    int result = PyDict_SetItemString(value_type_dict(state->DOpaque_Type),
                                      "__method_type__", type);
    Py_DECREF(type);
    return result;
}
