/*
 * What DList and DByteArray share.
 *
 * Two things here deserve a word. The methods of a builtin are reached through its
 * table of PyMethodDefs and called as CPython would call them, whatever calling
 * convention this version of CPython gives them: that costs no lookup, and what goes
 * wrong with the arguments is told in the builtin's own words. And a slice is first
 * unpacked, which may run Python code, and then fitted to a length, which runs none and
 * so can be done inside a Write.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "seq.h"

#include <string.h>

int
seq_slice_unpack(PyObject *slice, SeqSlice *ret)
{
    ret->count = 0;
    return PySlice_Unpack(slice, &ret->start, &ret->stop, &ret->step);
}

void
seq_slice_fit(SeqSlice *slice, Py_ssize_t length)
{
    slice->count =
        PySlice_AdjustIndices(length, &slice->start, &slice->stop, slice->step);
    if ((slice->step > 0 && slice->start > slice->stop)
        || (slice->step < 0 && slice->start < slice->stop)) {
        slice->stop = slice->start;
    }
}

int
seq_check_count(const char *name, Py_ssize_t count, Py_ssize_t min, Py_ssize_t max)
{
    if (count >= min && count <= max) {
        return 0;
    }
    Py_ssize_t limit = count < min ? min : max;
    const char *bound = min == max ? "" : count < min ? "at least " : "at most ";
    PyErr_Format(PyExc_TypeError, "%s expected %s%zd argument%s, got %zd", name, bound,
                 limit, limit == 1 ? "" : "s", count);
    return -1;
}

int
seq_index(PyObject *value, Py_ssize_t *ret)
{
    PyObject *number = PyNumber_Index(value);
    if (number == NULL) {
        return -1;
    }
    *ret = PyLong_AsSsize_t(number);
    Py_DECREF(number);
    return *ret == -1 && PyErr_Occurred() ? -1 : 0;
}

Py_ssize_t
seq_clamp(Py_ssize_t index, Py_ssize_t length)
{
    if (index < 0) {
        index += length;
        return index < 0 ? 0 : index;
    }
    return index > length ? length : index;
}

const PyMethodDef *
seq_method(const PyTypeObject *type, const char *name)
{
    for (const PyMethodDef *method = type->tp_methods; method->ml_name != NULL;
         method++) {
        if (strcmp(method->ml_name, name) == 0) {
            return method;
        }
    }
    PyErr_Format(PyExc_SystemError, "%s has no method %s", type->tp_name, name);
    return NULL;
}

/* For the two conventions that want the arguments in a tuple. */
static PyObject *
call_with_tuple(const PyMethodDef *method, PyObject *view, PyObject *const *args,
                Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *result = NULL;
    PyObject *kwargs = NULL;
    PyObject *tuple = PyTuple_New(nargs);
    if (tuple == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    if (!(method->ml_flags & METH_KEYWORDS)) {
        result = method->ml_meth(view, tuple);
        Py_DECREF(tuple);
        return result;
    }
    Py_ssize_t count = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (count > 0) {
        kwargs = PyDict_New();
    }
    int status = count > 0 && kwargs == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; i < count && status == 0; i++) {
        status = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(kwnames, i), args[nargs + i]);
    }
    if (status == 0) {
        PyCFunctionWithKeywords call =
            (PyCFunctionWithKeywords)(void (*)(void))method->ml_meth;
        result = call(view, tuple, kwargs);
    }
    Py_XDECREF(kwargs);
    Py_DECREF(tuple);
    return result;
}

typedef PyObject *(*fast_call)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fast_call_keywords)(PyObject *, PyObject *const *, Py_ssize_t,
                                        PyObject *);

PyObject *
seq_call(const PyMethodDef *method, PyObject *view, PyObject *const *args,
         Py_ssize_t nargs, PyObject *kwnames)
{
    int convention =
        method->ml_flags
        & (METH_VARARGS | METH_KEYWORDS | METH_FASTCALL | METH_NOARGS | METH_O);
    void (*function)(void) = (void (*)(void))method->ml_meth;

    if (!(convention & METH_KEYWORDS) && kwnames != NULL
        && PyTuple_GET_SIZE(kwnames) > 0) {
        PyErr_Format(PyExc_TypeError, "%s.%s() takes no keyword arguments",
                     Py_TYPE(view)->tp_name, method->ml_name);
        return NULL;
    }
    switch (convention) {
    case METH_NOARGS:
    case METH_O:
        if (nargs != (convention == METH_O)) {
            PyErr_Format(PyExc_TypeError, "%s.%s() takes %s (%zd given)",
                         Py_TYPE(view)->tp_name, method->ml_name,
                         convention == METH_O ? "exactly one argument" : "no arguments",
                         nargs);
            return NULL;
        }
        return method->ml_meth(view, convention == METH_O ? args[0] : NULL);
    case METH_FASTCALL:
        return ((fast_call)function)(view, args, nargs);
    case METH_FASTCALL | METH_KEYWORDS:
        return ((fast_call_keywords)function)(view, args, nargs, kwnames);
    case METH_VARARGS:
    case METH_VARARGS | METH_KEYWORDS:
        return call_with_tuple(method, view, args, nargs, kwnames);
    default:
        PyErr_Format(PyExc_SystemError, "%s.%s cannot be called", Py_TYPE(view)->tp_name,
                     method->ml_name);
        return NULL;
    }
}

int
seq_register(PyTypeObject *type, const char *abc)
{
    PyObject *module = PyImport_ImportModule("collections.abc");
    if (module == NULL) {
        return -1;
    }
    PyObject *done = NULL;
    PyObject *class = PyObject_GetAttrString(module, abc);
    if (class != NULL) {
        done = PyObject_CallMethod(class, "register", "O", type);
        Py_DECREF(class);
    }
    Py_DECREF(module);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

PyObject *
seq_sizeof(PyObject *self, PyObject *view_size)
{
    if (view_size == NULL) {
        return NULL;
    }
    Py_ssize_t size = PyLong_AsSsize_t(view_size);
    Py_DECREF(view_size);
    return size < 0 ? NULL : PyLong_FromSsize_t(Py_TYPE(self)->tp_basicsize + size);
}

int
seq_check_kind(PyObject *self, int kind)
{
    if (((DObject *)self)->kind == kind) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "'%.200s' object has the contents of another type",
                 Py_TYPE(self)->tp_name);
    return -1;
}

Py_ssize_t
seq_begin(Write *w, PyObject *self, int kind)
{
    if (seq_check_kind(self, kind) < 0 || write_begin(w, (DObject *)self) < 0) {
        return -1;
    }
    Py_ssize_t length = write_len(w);
    if (length < 0) {
        write_abort(w);
    }
    return length;
}

int
seq_finish(Write *w, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a)
{
    if (write_op(w, code, lo, hi, a, NULL) < 0) {
        write_abort(w);
        return -1;
    }
    return write_commit(w);
}
