/*
 * What the files of DDict share with each other and with DSet.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_DDICT_H
#define TOSC_PY_DDICT_H

#include "hashed.h"
#include "state.h"

/* ---- ddict_views.c ---- */

int ddict_views_init(PyObject *module, ToscState *state);

/* A live view (DDictKeys_Type, DDictValues_Type or DDictItems_Type) of a DDict. */
PyObject *ddict_view_new(PyTypeObject *type, PyObject *dict);

/*
 * An operand of a set operation in builtin terms: a DSet as a set, a view of ours as the
 * builtin's view, both of what this context sees now; anything else as it is. New
 * reference.
 */
PyObject *ddict_operand(PyObject *operand);

/* Is it a set, frozenset, DSet, or view of keys or items (the builtin's or ours)? */
bool ddict_is_setlike(PyObject *value);

/* ---- ddict_write.c: the slots and methods that change a DDict ---- */

/* update(): `source` is a mapping or an iterable of pairs, both may be NULL. */
int ddict_merge(DObject *self, PyObject *source, PyObject *keywords);
int ddict_ass_subscript(PyObject *self, PyObject *key, PyObject *value);
PyObject *ddict_inplace_or(PyObject *self, PyObject *other);
PyObject *ddict_setdefault(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *ddict_pop(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *ddict_popitem(PyObject *self, PyObject *ignored);
PyObject *ddict_update(PyObject *self, PyObject *args, PyObject *kwds);
PyObject *ddict_clear(PyObject *self, PyObject *ignored);

#endif
