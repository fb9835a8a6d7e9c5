/*
 * What DList and DByteArray share: arguments as the builtins read them, slices, and the
 * builtin's own methods called on a view.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_SEQ_H
#define TOSC_PY_SEQ_H

#include "dobject.h"

/* A slice as three numbers; `count` is only known once it has been fitted to a length. */
typedef struct SeqSlice {
    Py_ssize_t start;
    Py_ssize_t stop;
    Py_ssize_t step;
    Py_ssize_t count;
} SeqSlice;

/* Runs Python code where the bounds are objects with __index__. */
int seq_slice_unpack(PyObject *slice, SeqSlice *ret);
/*
 * Runs none. Afterwards start <= stop for a positive step: `l[5:2] = x` inserts before
 * 5.
 */
void seq_slice_fit(SeqSlice *slice, Py_ssize_t length);
/*
 * May a method be called with so many positional arguments? -1: TypeError in the
 * builtin's words.
 */
int seq_check_count(const char *name, Py_ssize_t count, Py_ssize_t min, Py_ssize_t max);

/*
 * The number that is meant by an argument such as pop()'s: OverflowError if it is too
 * large.
 */
int seq_index(PyObject *value, Py_ssize_t *ret);

/* Where insert(index, …) puts it in a sequence of this length. */
Py_ssize_t seq_clamp(Py_ssize_t index, Py_ssize_t length);

/* The method of a builtin type by its name; it is an error of ours if there is none. */
const PyMethodDef *seq_method(const PyTypeObject *type, const char *name);

/*
 * Calls a method of a builtin type on `view`, which is kept alive by the caller: errors
 * about the arguments are the builtin's own.
 */
PyObject *seq_call(const PyMethodDef *method, PyObject *view, PyObject *const *args,
                   Py_ssize_t nargs, PyObject *kwnames);

/* Makes isinstance() say that it is a collections.abc.<abc>. */
int seq_register(PyTypeObject *type, const char *abc);

/* What a method that returns nothing returns: None, or NULL for a negative status. */
static inline PyObject *
seq_none(int status)
{
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* Ends a Write with one operation. -1: exception, nothing has changed. */
int seq_finish(Write *w, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a);

/* write_begin and write_len in one. -1: exception, nothing to end. */
Py_ssize_t seq_begin(Write *w, PyObject *self, int kind);

/*
 * TypeError: an object whose kind is not what its class promises (its __class__ was
 * changed).
 */
int seq_check_kind(PyObject *self, int kind);

/*
 * __sizeof__: the wrapper's own size and that of its view (a new reference, NULL:
 * passed on).
 */
PyObject *seq_sizeof(PyObject *self, PyObject *view_size);

/* A method of a type of ours that has the signature of METH_FASTCALL. */
#define SEQ_FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

#endif
