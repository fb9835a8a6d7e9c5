/*
 * Taking custom objects apart, and putting them together again.
 *
 * What an object is made of is its instance dict and the slots that are set, under one name
 * each; slots are known by the descriptors that the class statement has made for them. A new
 * instance is made by object.__new__() alone: neither __new__ nor __init__ of the class run,
 * and its attributes are put where they belong past properties and __setattr__.
 *
 * What must stay true: apart and together again is the same object.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dany.h"
#include "wrap.h"

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
        PyObject *dict =
            value_type_dict((PyTypeObject *)PyTuple_GET_ITEM(type->tp_mro, i));
        PyObject *name;
        PyObject *descriptor;
        Py_ssize_t position = 0;
        while (dict != NULL && PyDict_Next(dict, &position, &name, &descriptor)) {
            if (!value_is_slot(descriptor)) {
                continue;
            }
            PyObject *slot =
                Py_TYPE(descriptor)->tp_descr_get(descriptor, value, (PyObject *)type);
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
    if (attributes != NULL && class_has_slots(type)
        && take_slots(value, attributes) < 0) {
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
        PyObject *descriptor =
            PyUnicode_Check(name) ? value_type_lookup(type, name) : NULL;
        int result;
        if (PyErr_Occurred()) {
            return -1;
        }
        if (PyUnicode_Check(name)
            && (descriptor == NULL || value_is_slot(descriptor)
                || Py_TYPE(descriptor)->tp_descr_set == NULL)) {
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
PyObject *
dany_shallow(DAnyObject *self)
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
