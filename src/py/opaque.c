/*
 * Opaque values: not there yet, refused.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dany.h"
#include "opaque.h"

#include "state.h"

static PyObject *
missing(void)
{
    PyErr_SetString(PyExc_TypeError, "such objects cannot be stored");
    return NULL;
}

DObject *
opaque_adopt(Manager *manager, PyObject *value)
{
    return (DObject *)missing();
}

PyObject *
opaque_copy_of(PyObject *value)
{
    return missing();
}

PyObject *
opaque_plain(PyObject *state, PyObject *plain_refs)
{
    return missing();
}

PyObject *
opaque_state_new(DObject *owner, PyObject *object)
{
    return missing();
}

PyObject *
opaque_state_from(PyObject *pickle, PyObject *refs)
{
    return missing();
}

DObject *
opaque_new_shell(void)
{
    return (DObject *)missing();
}

int
opaque_set_class(DObject *self, PyObject *cls)
{
    missing();
    return -1;
}

PyObject *
opaque_settle(DObject *self, PyObject *before, PyObject *live)
{
    return Py_NewRef(before);
}

int
opaque_init(PyObject *module, ToscState *state)
{
    return 0;
}

PyObject *
opaque_call_special(PyObject *self, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    return missing();
}
