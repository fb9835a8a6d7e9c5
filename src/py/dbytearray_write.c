/*
 * DByteArray: changes.
 *
 * As for DList: arguments are converted first (by a bytearray made for the purpose, so
 * that what is accepted and refused is the builtin's choice), then a Write is opened,
 * the place is found, and one splice of bytes is noted. Nothing in a Write here runs
 * Python code. What changes nothing commits nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dbytearray.h"

#include "state.h"

#include <string.h>

static const PyMethodDef *bytearray_extend;

static PyObject *
bytes_of(PyObject *array)
{
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(array),
                                     PyByteArray_GET_SIZE(array));
}

/* One byte, as a bytes object, of what a bytearray takes as an element. */
static PyObject *
one_byte(PyObject *value)
{
    int overflow;
    long number = PyLong_AsLongAndOverflow(value, &overflow);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (overflow != 0 || number < 0 || number > 255) {
        PyErr_SetString(PyExc_ValueError, "byte must be in range(0, 256)");
        return NULL;
    }
    char byte = (char)number;
    return PyBytes_FromStringAndSize(&byte, 1);
}

/* ---- adding ---- */

static PyObject *
insert_byte(PyObject *op, Py_ssize_t index, PyObject *value)
{
    PyObject *byte = one_byte(value);
    if (byte == NULL) {
        return NULL;
    }
    Write w;
    int status = -1;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length >= 0) {
        index = seq_clamp(index, length);
        status = seq_finish(&w, OP_SPLICE, index, index, byte);
    }
    Py_DECREF(byte);
    return seq_none(status);
}

PyObject *
dbytearray_append(PyObject *op, PyObject *value)
{
    return insert_byte(op, PY_SSIZE_T_MAX, value);
}

PyObject *
dbytearray_insert(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t index;
    if (seq_check_count("insert", nargs, 2, 2) < 0 || seq_index(args[0], &index) < 0) {
        return NULL;
    }
    return insert_byte(op, index, args[1]);
}

/* Adds the contents of a bytearray that was made for it. */
static int
extend_by(PyObject *op, PyObject *array)
{
    if (PyByteArray_GET_SIZE(array) == 0) {
        return 0;
    }
    PyObject *bytes = bytes_of(array);
    if (bytes == NULL) {
        return -1;
    }
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    int status = length < 0 ? -1 : seq_finish(&w, OP_SPLICE, length, length, bytes);
    Py_DECREF(bytes);
    return status;
}

PyObject *
dbytearray_extend(PyObject *op, PyObject *source)
{
    PyObject *array = PyByteArray_FromStringAndSize(NULL, 0);
    if (array == NULL) {
        return NULL;
    }
    PyObject *result = seq_call(bytearray_extend, array, &source, 1, NULL);
    if (result != NULL && extend_by(op, array) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(array);
    return result;
}

/* Unlike extend() it takes nothing but buffers. */
PyObject *
dbytearray_inplace_concat(PyObject *op, PyObject *other)
{
    PyObject *empty = PyByteArray_FromStringAndSize(NULL, 0);
    PyObject *array = empty != NULL ? PySequence_Concat(empty, other) : NULL;
    Py_XDECREF(empty);
    if (array == NULL) {
        return NULL;
    }
    int status = extend_by(op, array);
    Py_DECREF(array);
    return status < 0 ? NULL : Py_NewRef(op);
}

/* ---- the whole ---- */

/* Makes `array`, which is given away, the contents. */
static int
assign(PyObject *op, PyObject *array)
{
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length < 0) {
        return -1;
    }
    if (length == 0 && PyByteArray_GET_SIZE(array) == 0) {
        write_abort(&w);
        return 0;
    }
    return seq_finish(&w, OP_ASSIGN, 0, 0, array);
}

static int
clear(PyObject *op)
{
    PyObject *empty = PyByteArray_FromStringAndSize(NULL, 0);
    if (empty == NULL) {
        return -1;
    }
    int status = assign(op, empty);
    Py_DECREF(empty);
    return status;
}

PyObject *
dbytearray_clear_method(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return seq_none(clear(op));
}

/*
 * The builtin empties itself before it looks at its arguments, so of itself nothing is
 * left.
 */
int
dbytearray_init_object(PyObject *op, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) == 1 && PyTuple_GET_ITEM(args, 0) == op
        && kwargs == NULL) {
        return clear(op);
    }
    PyObject *array = PyObject_Call((PyObject *)&PyByteArray_Type, args, kwargs);
    if (array == NULL) {
        return -1;
    }
    int status = assign(op, array);
    Py_DECREF(array);
    return status;
}

/* `times` copies of the contents, as bytes. */
static PyObject *
repeat(PyObject *view, Py_ssize_t times)
{
    PyObject *bytes = view != NULL ? bytes_of(view) : NULL;
    PyObject *result = bytes != NULL ? PySequence_Repeat(bytes, times) : NULL;
    Py_XDECREF(bytes);
    return result;
}

PyObject *
dbytearray_inplace_repeat(PyObject *op, Py_ssize_t count)
{
    if (count <= 0) {
        return clear(op) < 0 ? NULL : Py_NewRef(op);
    }
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length < 0) {
        return NULL;
    }
    if (length == 0 || count == 1) {
        write_abort(&w);
        return Py_NewRef(op);
    }
    PyObject *more = repeat(write_view(&w), count - 1);
    if (more == NULL) {
        write_abort(&w);
        return NULL;
    }
    int status = seq_finish(&w, OP_SPLICE, length, length, more);
    Py_DECREF(more);
    return status < 0 ? NULL : Py_NewRef(op);
}

PyObject *
dbytearray_reverse(PyObject *op, PyObject *Py_UNUSED(unused))
{
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length < 0) {
        return NULL;
    }
    if (length < 2) {
        write_abort(&w);
        Py_RETURN_NONE;
    }
    PyObject *view = write_view(&w);
    PyObject *array = view != NULL ? PyByteArray_FromStringAndSize(NULL, length) : NULL;
    if (array == NULL) {
        write_abort(&w);
        return NULL;
    }
    const char *from = PyByteArray_AS_STRING(view);
    char *to = PyByteArray_AS_STRING(array);
    for (Py_ssize_t i = 0; i < length; i++) {
        to[i] = from[length - 1 - i];
    }
    int status = seq_finish(&w, OP_ASSIGN, 0, 0, array);
    Py_DECREF(array);
    return seq_none(status);
}

/* ---- taking out ---- */

PyObject *
dbytearray_pop(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t index = -1;
    if (seq_check_count("pop", nargs, 0, 1) < 0
        || (nargs == 1 && seq_index(args[0], &index) < 0)) {
        return NULL;
    }
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length < 0) {
        return NULL;
    }
    index += index < 0 ? length : 0;
    if (index < 0 || index >= length) {
        PyErr_SetString(PyExc_IndexError, length == 0 ? "pop from empty bytearray"
                                                      : "pop index out of range");
        write_abort(&w);
        return NULL;
    }
    PyObject *view = write_view(&w);
    if (view == NULL) {
        write_abort(&w);
        return NULL;
    }
    unsigned char byte = (unsigned char)PyByteArray_AS_STRING(view)[index];
    if (seq_finish(&w, OP_SPLICE, index, index + 1, NULL) < 0) {
        return NULL;
    }
    return PyLong_FromLong(byte);
}

PyObject *
dbytearray_remove(PyObject *op, PyObject *value)
{
    PyObject *byte = one_byte(value);
    if (byte == NULL) {
        return NULL;
    }
    int wanted = (unsigned char)PyBytes_AS_STRING(byte)[0];
    Py_DECREF(byte);
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length < 0) {
        return NULL;
    }
    PyObject *view = write_view(&w);
    if (view == NULL) {
        write_abort(&w);
        return NULL;
    }
    const char *start = PyByteArray_AS_STRING(view);
    const char *found = length > 0 ? memchr(start, wanted, (size_t)length) : NULL;
    if (found == NULL) {
        PyErr_SetString(PyExc_ValueError, "value not found in bytearray");
        write_abort(&w);
        return NULL;
    }
    return seq_none(seq_finish(&w, OP_SPLICE, found - start, found - start + 1, NULL));
}

/* ---- assignment and deletion ---- */

/* Sets or (byte NULL) deletes one byte. */
static int
assign_byte(PyObject *op, Py_ssize_t index, bool from_end, PyObject *byte)
{
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length < 0) {
        return -1;
    }
    index += from_end && index < 0 ? length : 0;
    if (index < 0 || index >= length) {
        PyErr_SetString(PyExc_IndexError, "bytearray index out of range");
        write_abort(&w);
        return -1;
    }
    return seq_finish(&w, OP_SPLICE, index, index + 1, byte);
}

static int
assign_index(PyObject *op, Py_ssize_t index, bool from_end, PyObject *value)
{
    PyObject *byte = NULL;
    if (value != NULL) {
        byte = one_byte(value);
        if (byte == NULL) {
            return -1;
        }
    }
    int status = assign_byte(op, index, from_end, byte);
    Py_XDECREF(byte);
    return status;
}

int
dbytearray_ass_item(PyObject *op, Py_ssize_t index, PyObject *value)
{
    return assign_index(op, index, false, value);
}

/*
 * Ends the Write: an extended slice that is not empty is set to `bytes`, of the right
 * number, or (NULL) deleted. One splice of all that lies between its ends.
 */
static int
splice_span(Write *w, SeqSlice slice, PyObject *bytes)
{
    Py_ssize_t last = slice.start + (slice.count - 1) * slice.step;
    Py_ssize_t lo = Py_MIN(slice.start, last);
    Py_ssize_t hi = Py_MAX(slice.start, last) + 1;
    Py_ssize_t size = hi - lo - (bytes != NULL ? 0 : slice.count);
    PyObject *view = write_view(w);
    PyObject *part = view != NULL ? PyBytes_FromStringAndSize(NULL, size) : NULL;
    if (part == NULL) {
        write_abort(w);
        return -1;
    }
    const char *from = PyByteArray_AS_STRING(view);
    char *to = PyBytes_AS_STRING(part);
    if (bytes != NULL) {
        memcpy(to, from + lo, (size_t)size);
        for (Py_ssize_t i = 0; i < slice.count; i++) {
            to[slice.start + i * slice.step - lo] = PyBytes_AS_STRING(bytes)[i];
        }
    } else {
        for (Py_ssize_t i = lo; i < hi; i++) {
            if ((i - slice.start) % slice.step != 0) {
                *to++ = from[i];
            }
        }
    }
    int status = seq_finish(w, OP_SPLICE, lo, hi, part);
    Py_DECREF(part);
    return status;
}

/*
 * `bytes`: what to put there; NULL: delete. As the builtin, an extended slice is
 * deleted by b'' too.
 */
static int
assign_slice(PyObject *op, SeqSlice slice, PyObject *bytes)
{
    Write w;
    Py_ssize_t length = seq_begin(&w, op, KIND_BYTES);
    if (length < 0) {
        return -1;
    }
    seq_slice_fit(&slice, length);
    Py_ssize_t count = bytes != NULL ? PyBytes_GET_SIZE(bytes) : 0;
    if (slice.step != 1 && count == 0) {
        bytes = NULL;
    }
    if (slice.step != 1 && bytes != NULL && count != slice.count) {
        PyErr_Format(PyExc_ValueError,
                     "attempt to assign bytes of size %zd to extended slice of size %zd",
                     count, slice.count);
        write_abort(&w);
        return -1;
    }
    if (slice.count == 0 && count == 0) {
        write_abort(&w);
        return 0;
    }
    if (slice.step == 1) {
        return seq_finish(&w, OP_SPLICE, slice.start, slice.stop, bytes);
    }
    return splice_span(&w, slice, bytes);
}

/* The bytes of what a slice of a bytearray can be set to. */
static PyObject *
slice_bytes(PyObject *value)
{
    if (!PyByteArray_Check(value) && (PyNumber_Check(value) || PyUnicode_Check(value))) {
        PyErr_SetString(PyExc_TypeError,
                        "can assign only bytes, buffers, or iterables of ints "
                        "in range(0, 256)");
        return NULL;
    }
    PyObject *array = PyByteArray_FromObject(value);
    if (array == NULL) {
        return NULL;
    }
    PyObject *bytes = bytes_of(array);
    Py_DECREF(array);
    return bytes;
}

static int
dbytearray_ass_slice(PyObject *op, PyObject *key, PyObject *value)
{
    SeqSlice slice;
    if (seq_slice_unpack(key, &slice) < 0) {
        return -1;
    }
    PyObject *bytes = NULL;
    if (value != NULL) {
        bytes = slice_bytes(value);
        if (bytes == NULL) {
            return -1;
        }
    }
    int status = assign_slice(op, slice, bytes);
    Py_XDECREF(bytes);
    return status;
}

int
dbytearray_ass_subscript(PyObject *op, PyObject *key, PyObject *value)
{
    if (!PyIndex_Check(key)) {
        if (PySlice_Check(key)) {
            return dbytearray_ass_slice(op, key, value);
        }
        dbytearray_raise_bad_key(key);
        return -1;
    }
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return -1;
    }
    return assign_index(op, index, true, value);
}

int
dbytearray_write_init(void)
{
    bytearray_extend = seq_method(&PyByteArray_Type, "extend");
    return bytearray_extend != NULL ? 0 : -1;
}
