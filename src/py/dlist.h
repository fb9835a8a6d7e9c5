/*
 * What dlist.c (the type, and reading) and dlist_write.c (changing) share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_DLIST_H
#define TOSC_PY_DLIST_H

#include "dobject.h"
#include "seq.h"

/*
 * The state where it is what this context sees, borrowed: good until Python code runs.
 * NULL where the slow way has to be taken.
 */
static inline PyObject *
dlist_quiet(PyObject *op)
{
    DObject *self = (DObject *)op;
    PyObject *state = self->state;
    if (state != NULL && PyList_CheckExact(state) && dobject_quiet(self)) {
        return state;
    }
    return NULL;
}

/*
 * The list that this context sees, held by a new reference and so not changed
 * meanwhile.
 */
static inline PyObject *
dlist_view(PyObject *op)
{
    PyObject *list = dlist_quiet(op);
    if (list != NULL) {
        return Py_NewRef(list);
    }
    return seq_check_kind(op, KIND_LIST) < 0 ? NULL : dobject_view((DObject *)op);
}

/* TypeError: neither an index nor a slice; always returns NULL. */
PyObject *dlist_raise_bad_key(PyObject *key);

/* ---- dlist_write.c: the slots and methods that change a list ---- */

int dlist_write_init(void);
int dlist_init_object(PyObject *op, PyObject *args, PyObject *kwargs);
int dlist_ass_item(PyObject *op, Py_ssize_t index, PyObject *value);
int dlist_ass_subscript(PyObject *op, PyObject *key, PyObject *value);
PyObject *dlist_inplace_concat(PyObject *op, PyObject *iterable);
PyObject *dlist_inplace_repeat(PyObject *op, Py_ssize_t count);
PyObject *dlist_append(PyObject *op, PyObject *value);
PyObject *dlist_clear_method(PyObject *op, PyObject *unused);
PyObject *dlist_extend(PyObject *op, PyObject *iterable);
PyObject *dlist_insert(PyObject *op, PyObject *const *args, Py_ssize_t nargs);
PyObject *dlist_pop(PyObject *op, PyObject *const *args, Py_ssize_t nargs);
PyObject *dlist_remove(PyObject *op, PyObject *value);
PyObject *dlist_reverse(PyObject *op, PyObject *unused);
PyObject *dlist_sort_method(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames);

#endif
