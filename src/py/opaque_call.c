/*
 * Calling the methods of the real object behind an opaque value.
 *
 * A method taken from an opaque value (x.append) is not the real object's bound method, which
 * would work past the comparison: it is a small object that remembers the value and the
 * name, and finds the method when it is called. Special methods arrive here through the
 * forwarders of dany_class.c.
 *
 * Arguments. A part of the same value is replaced by what it stands for. Wrappers are passed
 * as they are, so that a container keeps them by reference; only operators get the plain
 * builtin behind them, as C code insists on its own types. What can change and is stored by
 * a builtin method is copied, as everywhere in the tree: else the program could change it
 * later behind our back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "opaque.h"

/* Special methods whose operands are only looked at. */
static const char *const operators[] = {
    "__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__",
    "__imul__", "__or__", "__ror__", "__ior__", "__and__", "__rand__", "__iand__", "__xor__",
    "__rxor__", "__ixor__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
    "__matmul__", "__rmatmul__", "__truediv__", "__rtruediv__", "__mod__", "__rmod__",
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

/* ---- arguments ---- */

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
    PyObject *copy = now == NULL ? NULL : codec_loads(wrapper->manager, now->pickle, now->refs);
    Py_XDECREF(now);
    Py_DECREF(view);
    return copy;
}

static PyObject *
tuple_argument(Session *s, PyObject *tuple, bool is_operand, bool copy)
{
    PyObject *result = PyTuple_New(PyTuple_GET_SIZE(tuple));
    if (result != NULL && Py_EnterRecursiveCall(" in the arguments of a stored object's method")) {
        Py_CLEAR(result);
    }
    if (result == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; result != NULL && i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = opaque_argument(s, PyTuple_GET_ITEM(tuple, i), is_operand, copy);
        if (item == NULL) {
            Py_CLEAR(result);
        } else {
            PyTuple_SET_ITEM(result, i, item);
        }
    }
    Py_LeaveRecursiveCall();
    return result;
}

PyObject *
opaque_argument(Session *s, PyObject *value, bool is_operand, bool copy)
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
        return is_operand ? operand(value) : Py_NewRef(value);
    }
    if (PyTuple_CheckExact(value)) {
        return tuple_argument(s, value, is_operand, copy);
    }
    if (!copy) {
        return Py_NewRef(value);
    }
    PyObject *copied = opaque_deep_copy(value);
    if (copied == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* an iterator, say: it is used up, not kept */
        copied = Py_NewRef(value);
    }
    return copied;
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
            PyErr_Format(PyExc_TypeError, "'%.200s' object has no method %U", type->tp_name, name);
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

/* May the object hold on to an argument that the program has as well? */
static void
note_captured(Session *s, PyObject *const *args, PyObject **stack, const Py_ssize_t *counts,
              Py_ssize_t total)
{
    for (Py_ssize_t i = 0; i < total; i++) {
        if (stack[i] != args[i] || Py_REFCNT(stack[i]) <= counts[i]) {
            continue;
        }
        int kind = value_classify(stack[i]);
        PyErr_Clear();
        s->captured |= kind != VALUE_LEAF && kind != VALUE_WRAPPER && kind >= 0;
    }
}

static PyObject *
call_target(Session *s, PyObject *name, PyObject *const *args, Py_ssize_t total, Py_ssize_t nargs,
            PyObject *kwnames, bool special, bool safe)
{
    PyObject **stack = PyMem_New(PyObject *, (size_t)total + 1);
    Py_ssize_t *counts = PyMem_New(Py_ssize_t, (size_t)total + 1);
    PyObject *result = NULL;
    PyObject *method = NULL;
    Py_ssize_t ready = 0;
    bool is_operand = special && is_operator(name);
    bool copy = !safe && !is_operand && opaque_is_builtin_method(Py_TYPE(s->target), name);
    if (stack == NULL || counts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (; ready < total; ready++) {
        stack[ready] = opaque_argument(s, args[ready], is_operand, copy);
        if (stack[ready] == NULL) {
            goto done;
        }
        counts[ready] = Py_REFCNT(stack[ready]);
    }
    method = find_method(s->target, name, special);
    if (method != NULL) {
        result = PyObject_Vectorcall(method, stack, (size_t)nargs, kwnames);
        note_captured(s, args, stack, counts, total);
    }
done:
    Py_XDECREF(method);
    while (ready > 0) {
        Py_DECREF(stack[--ready]);
    }
    PyMem_Free(stack);
    PyMem_Free(counts);
    return result;
}

static PyObject *
call(PyObject *self, PyObject *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
     bool special)
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
    Py_ssize_t total = nargs + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    return session_end(&s, call_target(&s, name, args, total, nargs, kwnames, special, safe));
}

PyObject *
opaque_call_special(PyObject *self, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
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
    if (PyUnicode_CompareWithASCIIString(method->name, "copy") == 0 &&
        PyVectorcall_NARGS(nargsf) == 0 && kwnames == NULL) {
        return opaque_copy_of(method->self);
    }
    return call(method->self, method->name, args, PyVectorcall_NARGS(nargsf), kwnames, false);
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
    bool equal = left->self == right->self && PyUnicode_Compare(left->name, right->name) == 0;
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
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(OpaqueMethod, vectorcall), READONLY, NULL},
    {"__self__", T_OBJECT, offsetof(OpaqueMethod, self), READONLY, "What the method is of."},
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
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
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
    int result = PyDict_SetItemString(state->DOpaque_Type->tp_dict, "__method_type__", type);
    Py_DECREF(type);
    return result;
}
