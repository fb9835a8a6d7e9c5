/*
 * What the files of custom objects and opaque values share: the wrapper types that are made
 * for each class.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_DANY_H
#define TOSC_PY_DANY_H

#include "classify.h"

/* ---- dany_class.c ---- */

/*
 * The type of the wrappers around instances of `cls`: a subtype of `base` (DAny or DOpaque), which has the
 * special methods that `cls` has. New reference.
 */
PyTypeObject *class_wrapper_type(PyTypeObject *base, PyObject *cls);
/* The class for whose instances the wrapper type was made: new reference; NULL without an exception: none. */
PyObject *class_of_wrapper_type(PyTypeObject *type);
/* Gives a shell its class and its type. */
int class_assign(DObject *self, PyTypeObject *base, PyObject *cls);
/* From now on only we make subtypes of it. */
int class_seal(PyTypeObject *type);
int class_init(PyObject *module, ToscState *state);

static inline bool
class_has_dict(PyTypeObject *cls)
{
    return cls->tp_dictoffset != 0;
}

/* Has an instance more than a head, a dict and weak references? */
static inline bool
class_has_slots(PyTypeObject *cls)
{
    Py_ssize_t size = (Py_ssize_t)sizeof(PyObject);
    size += cls->tp_dictoffset > 0 ? (Py_ssize_t)sizeof(PyObject *) : 0;
    size += cls->tp_weaklistoffset > 0 ? (Py_ssize_t)sizeof(PyObject *) : 0;
    return cls->tp_basicsize > size;
}

/* ---- dany.c ---- */

/* Reading and setting as object does it, without __getattr__ and __setattr__ of the class. */
PyObject *dany_get(PyObject *self, PyObject *name);
int dany_set(PyObject *self, PyObject *name, PyObject *value);
/* One attribute's state: value NULL deletes it (*ret_missing: it was not there). */
int dany_store(DObject *self, PyObject *name, PyObject *value, bool *ret_missing);
/* Replaces all that stands in the instance dict. */
int dany_assign_dict(DAnyObject *self, PyObject *dict);

/* ---- dany_plain.c ---- */

/* An instance of the class with the attributes as they are, wrappers included. */
PyObject *dany_shallow(DAnyObject *self);

/* ---- dany_scratch.c ---- */

/* Setting (value NULL: deleting) by the class's own hook, reading by its own `getattribute`. */
int dany_scratch_set(DAnyObject *self, PyObject *name, PyObject *value);
PyObject *dany_scratch_get(DAnyObject *self, PyObject *getattribute, PyObject *name);

/* ---- dany_attrs.c ---- */

PyObject *dattrs_new(DAnyObject *owner);
/* The attributes that `x.__dict__` shows: a new dict, or the view itself, which must not be changed. */
PyObject *dattrs_view(DAnyObject *owner);
int dattrs_init(PyObject *module, ToscState *state);

/* ---- opaque_forward.c ---- */

/* The call of the special method `name` of an opaque's class. */
PyObject *opaque_call_special(PyObject *self, PyObject *name, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames);

#endif
