/*
 * DPart: a part of an opaque value, such as a list inside a deque, or an iterator over it.
 *
 * It forwards every operation to the inner object and belongs to the opaque value: after
 * the operation the whole value is compared. See opaque_session.c for when it is out of date.
 * Stored elsewhere, copied or pickled it is a plain copy of what it stands for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "opaque.h"

PyObject *
part_new(DAnyObject *owner, PyObject *inner, PyObject *live)
{
    PyTypeObject *type =
        class_wrapper_type(tosc_state->DPart_Type, (PyObject *)Py_TYPE(inner));
    DPart *self = type == NULL ? NULL : (DPart *)type->tp_alloc(type, 0);
    Py_XDECREF(type);
    if (self != NULL) {
        self->owner = (DAnyObject *)Py_NewRef(owner);
        self->inner = Py_NewRef(inner);
        self->live = Py_NewRef(live);
    }
    return (PyObject *)self;
}

PyObject *
opaque_class_of(PyObject *self)
{
    if (PyObject_TypeCheck(self, tosc_state->DPart_Type)) {
        return (PyObject *)Py_TYPE(((DPart *)self)->inner);
    }
    return ((DAnyObject *)self)->cls;
}

PyObject *
opaque_copy_of(PyObject *value)
{
    if (Py_IS_TYPE(value, tosc_state->DAttrs_Type)) {
        return PyObject_CallMethod(value, "copy", NULL);
    }
    Session s;
    if (session_begin(&s, value, true) < 0) {
        return NULL;
    }
    PyObject *copy = opaque_deep_copy(s.target);
    session_drop(&s);
    return copy;
}

/* ---- methods ---- */

static PyObject *
part_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return opaque_copy_of(self);
}

static PyObject *
part_deepcopy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    PyObject *copy = opaque_copy_of(self);
    PyObject *plain = copy == NULL ? NULL : dobject_plain(copy);
    Py_XDECREF(copy);
    return plain;
}

static PyObject *
part_reduce_ex(PyObject *self, PyObject *protocol)
{
    opaque_parts_pickled++;
    return PyObject_CallMethodObjArgs(((DPart *)self)->inner, tosc_state->str_reduce_ex,
                                      protocol, NULL);
}

static PyMethodDef part_methods[] = {
    {"__copy__", part_copy, METH_NOARGS, "A plain copy."},
    {"__deepcopy__", part_deepcopy, METH_O, "A plain copy."},
    {"__reduce_ex__", part_reduce_ex, METH_O, "Pickled as what it stands for."},
    {"__dir__", opaque_dir, METH_NOARGS, "The names of the real object's attributes."},
    {NULL, NULL, 0, NULL},
};

/* ---- the type ---- */

static int
part_traverse(PyObject *op, visitproc visit, void *arg)
{
    DPart *self = (DPart *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->owner);
    Py_VISIT(self->inner);
    Py_VISIT(self->live);
    return 0;
}

static void
part_dealloc(PyObject *op)
{
    DPart *self = (DPart *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    Py_CLEAR(self->inner);
    Py_CLEAR(self->live);
    Py_CLEAR(self->owner);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef part_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(DPart, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot part_slots[] = {
    {Py_tp_doc, "A part of a stored object: changes of it are changes of the object."},
    {Py_tp_traverse, part_traverse},
    {Py_tp_dealloc, part_dealloc},
    {Py_tp_getattro, opaque_getattro},
    {Py_tp_setattro, opaque_setattro},
    {Py_tp_methods, part_methods},
    {Py_tp_members, part_members},
    {0, NULL},
};

static PyType_Spec part_spec = {
    .name = "tosc.DPart",
    .basicsize = sizeof(DPart),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = part_slots,
};

int
opaque_part_init(PyObject *module, ToscState *state)
{
    return tosc_add_type(module, &state->DPart_Type, &part_spec, NULL, NULL);
}
