/*
 * What dbytearray.c (the type, and reading) and dbytearray_write.c (changing) share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_DBYTEARRAY_H
#define TOSC_PY_DBYTEARRAY_H

#include "dobject.h"
#include "seq.h"

/* As dlist_quiet(): the state where it is what this context sees, borrowed, else NULL. */
static inline PyObject *
dbytearray_quiet(PyObject *op)
{
    DObject *self = (DObject *)op;
    PyObject *state = self->state;
    if (state != NULL && PyByteArray_CheckExact(state) && dobject_quiet(self)) {
        return state;
    }
    return NULL;
}

/*
 * The bytearray that this context sees, held by a new reference and so not changed
 * meanwhile.
 */
static inline PyObject *
dbytearray_view(PyObject *op)
{
    PyObject *bytes = dbytearray_quiet(op);
    if (bytes != NULL) {
        return Py_NewRef(bytes);
    }
    return seq_check_kind(op, KIND_BYTES) < 0 ? NULL : dobject_view((DObject *)op);
}

/* TypeError: neither an index nor a slice; always returns NULL. */
PyObject *dbytearray_raise_bad_key(PyObject *key);

/* ---- dbytearray_write.c: the slots and methods that change it ---- */

int dbytearray_write_init(void);
int dbytearray_init_object(PyObject *op, PyObject *args, PyObject *kwargs);
int dbytearray_ass_item(PyObject *op, Py_ssize_t index, PyObject *value);
int dbytearray_ass_subscript(PyObject *op, PyObject *key, PyObject *value);
PyObject *dbytearray_inplace_concat(PyObject *op, PyObject *other);
PyObject *dbytearray_inplace_repeat(PyObject *op, Py_ssize_t count);
PyObject *dbytearray_append(PyObject *op, PyObject *value);
PyObject *dbytearray_clear_method(PyObject *op, PyObject *unused);
PyObject *dbytearray_extend(PyObject *op, PyObject *source);
PyObject *dbytearray_insert(PyObject *op, PyObject *const *args, Py_ssize_t nargs);
PyObject *dbytearray_pop(PyObject *op, PyObject *const *args, Py_ssize_t nargs);
PyObject *dbytearray_remove(PyObject *op, PyObject *value);
PyObject *dbytearray_reverse(PyObject *op, PyObject *unused);

#endif
