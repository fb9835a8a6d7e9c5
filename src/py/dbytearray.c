/*
 * DByteArray: a bytearray that can live in a store. The type, and its readings.
 *
 * The builtin's many methods that only read are forwarded to the view that this context
 * may see, by a table that is filled from the builtin's own: their results (plain
 * bytearrays, ints, tuples), errors and docstrings are those of the CPython that runs.
 * Changes are in dbytearray_write.c.
 *
 * A buffer that is exported is the view's, and keeps it: a memoryview is a stable
 * snapshot, like an iterator. It is read-only, since what is written through a buffer
 * would never reach the store; and the wrapper stands as the exporter, so that nobody
 * gets hold of the state by memoryview.obj.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dbytearray.h"

#include "state.h"

/* The methods that are forwarded. */
/* clang-format off */
#define FORWARDED(X) \
    X(__alloc__) X(capitalize) X(center) X(copy) X(count) X(decode) X(endswith) X(expandtabs) \
    X(find) X(hex) X(index) X(isalnum) X(isalpha) X(isascii) X(isdigit) X(islower) X(isspace) \
    X(istitle) X(isupper) X(join) X(ljust) X(lower) X(lstrip) X(partition) X(removeprefix) \
    X(removesuffix) X(replace) X(rfind) X(rindex) X(rjust) X(rpartition) X(rsplit) X(rstrip) \
    X(split) X(splitlines) X(startswith) X(strip) X(swapcase) X(title) X(translate) X(upper) \
    X(zfill)
/* clang-format on */

enum forwarded_method {
#define X(name) FORWARD_##name,
    FORWARDED(X)
#undef X
        FORWARDED_COUNT
};

static const PyMethodDef *forwarded[FORWARDED_COUNT];
static const PyMethodDef *bytearray_fromhex;
static const PyMethodDef *bytearray_maketrans;
static const PyMethodDef *bytearray_sizeof;

static bool
is_dbytearray(PyObject *value)
{
    return dobject_kind(value) == KIND_BYTES;
}

/*
 * The same arguments with bytearrays in the place of DByteArrays, for what takes no
 * buffer.
 */
static PyObject *
unwrap_arguments(PyObject *const *args, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *arg =
            is_dbytearray(args[i]) ? dbytearray_view(args[i]) : Py_NewRef(args[i]);
        if (arg == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, arg);
        }
    }
    return tuple;
}

static PyObject *
forward(PyObject *op, enum forwarded_method which, PyObject *const *args,
        Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *unwrapped = NULL;
    Py_ssize_t count = nargs + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (is_dbytearray(args[i])) {
            unwrapped = unwrap_arguments(args, count);
            if (unwrapped == NULL) {
                Py_DECREF(view);
                return NULL;
            }
            args = PySequence_Fast_ITEMS(unwrapped);
            break;
        }
    }
    PyObject *result = seq_call(forwarded[which], view, args, nargs, kwnames);
    Py_XDECREF(unwrapped);
    Py_DECREF(view);
    return result;
}

#define X(name) \
    static PyObject *forward_##name(PyObject *op, PyObject *const *args, \
                                    Py_ssize_t nargs, PyObject *kwnames) \
    { \
        return forward(op, FORWARD_##name, args, nargs, kwnames); \
    }
FORWARDED(X)
#undef X

/* ---- elements ---- */

static Py_ssize_t
dbytearray_length(PyObject *op)
{
    PyObject *bytes = dbytearray_quiet(op);
    return bytes != NULL ? PyByteArray_GET_SIZE(bytes) : dobject_len((DObject *)op);
}

/* The byte at an index; `from_end`: a negative one counts from the end. */
static PyObject *
byte_at(PyObject *op, Py_ssize_t index, bool from_end)
{
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *byte = NULL;
    Py_ssize_t length = PyByteArray_GET_SIZE(view);
    index += from_end && index < 0 ? length : 0;
    if (index >= 0 && index < length) {
        byte = PyLong_FromLong((unsigned char)PyByteArray_AS_STRING(view)[index]);
    } else {
        PyErr_SetString(PyExc_IndexError, "bytearray index out of range");
    }
    Py_DECREF(view);
    return byte;
}

static PyObject *
dbytearray_item(PyObject *op, Py_ssize_t index)
{
    return byte_at(op, index, false);
}

static PyObject *
copy_slice(PyObject *op, PyObject *key)
{
    SeqSlice slice;
    if (seq_slice_unpack(key, &slice) < 0) {
        return NULL;
    }
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return NULL;
    }
    seq_slice_fit(&slice, PyByteArray_GET_SIZE(view));
    const char *from = PyByteArray_AS_STRING(view) + slice.start;
    PyObject *result =
        PyByteArray_FromStringAndSize(slice.step == 1 ? from : NULL, slice.count);
    if (result != NULL && slice.step != 1) {
        char *to = PyByteArray_AS_STRING(result);
        for (Py_ssize_t i = 0; i < slice.count; i++) {
            to[i] = from[i * slice.step];
        }
    }
    Py_DECREF(view);
    return result;
}

PyObject *
dbytearray_raise_bad_key(PyObject *key)
{
    PyErr_Format(PyExc_TypeError,
                 "bytearray indices must be integers or slices, not %.200s",
                 Py_TYPE(key)->tp_name);
    return NULL;
}

static PyObject *
dbytearray_subscript(PyObject *op, PyObject *key)
{
    if (!PyIndex_Check(key)) {
        return PySlice_Check(key) ? copy_slice(op, key) : dbytearray_raise_bad_key(key);
    }
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return byte_at(op, index, true);
}

static int
dbytearray_contains(PyObject *op, PyObject *value)
{
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return -1;
    }
    int found = PySequence_Contains(view, value);
    Py_DECREF(view);
    return found;
}

/* ---- what is asked of the view as a whole ---- */

static PyObject *
ask_view(PyObject *op, PyObject *(*question)(PyObject *view))
{
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *answer = question(view);
    Py_DECREF(view);
    return answer;
}

static PyObject *
dbytearray_iter(PyObject *op)
{
    return ask_view(op, PyObject_GetIter);
}

static PyObject *
new_reversed(PyObject *view)
{
    return PyObject_CallOneArg((PyObject *)&PyReversed_Type, view);
}

/*
 * The builtin has none; without it reversed() would look at the array anew for each
 * byte.
 */
static PyObject *
dbytearray_reversed(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return ask_view(op, new_reversed);
}

static PyObject *
dbytearray_repr(PyObject *op)
{
    return ask_view(op, PyObject_Repr);
}

/* str() of a bytearray warns if Python was asked to. */
static PyObject *
dbytearray_str(PyObject *op)
{
    return ask_view(op, PyObject_Str);
}

static PyObject *
copy_view(PyObject *view)
{
    return PyByteArray_FromStringAndSize(PyByteArray_AS_STRING(view),
                                         PyByteArray_GET_SIZE(view));
}

static PyObject *
dbytearray_copy(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return ask_view(op, copy_view);
}

static PyObject *
reduce_view(PyObject *view)
{
    return Py_BuildValue("O(y#)", (PyObject *)&PyByteArray_Type,
                         PyByteArray_AS_STRING(view), PyByteArray_GET_SIZE(view));
}

static PyObject *
dbytearray_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return ask_view(op, reduce_view);
}

static PyObject *
size_of_view(PyObject *view)
{
    return seq_call(bytearray_sizeof, view, NULL, 0, NULL);
}

static PyObject *
dbytearray_sizeof(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return seq_sizeof(op, ask_view(op, size_of_view));
}

/* ---- operators ---- */

/*
 * A bytearray compares with whatever has a buffer; the rest is left to the other
 * operand, which is to see this object and not its view.
 */
static PyObject *
dbytearray_richcompare(PyObject *op, PyObject *other, int how)
{
    PyObject *left = dbytearray_view(op);
    if (left == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    if (is_dbytearray(other)) {
        PyObject *right = dbytearray_view(other);
        result = right != NULL ? PyObject_RichCompare(left, right, how) : NULL;
        Py_XDECREF(right);
    } else if (PyObject_CheckBuffer(other)) {
        result = PyObject_RichCompare(left, other, how);
    } else {
        /* NotImplemented, with a BytesWarning about text where that is wanted. */
        result = PyByteArray_Type.tp_richcompare(left, other, how);
    }
    Py_DECREF(left);
    return result;
}

static PyObject *
dbytearray_concat(PyObject *op, PyObject *other)
{
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = PySequence_Concat(view, other);
    Py_DECREF(view);
    return result;
}

static PyObject *
dbytearray_repeat(PyObject *op, Py_ssize_t count)
{
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = PySequence_Repeat(view, count);
    Py_DECREF(view);
    return result;
}

static PyObject *
dbytearray_remainder(PyObject *op, PyObject *values)
{
    if (!is_dbytearray(op)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *view = dbytearray_view(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = PyNumber_Remainder(view, values);
    Py_DECREF(view);
    return result;
}

/* ---- the buffer ---- */

static int
dbytearray_getbuffer(PyObject *op, Py_buffer *buffer, int flags)
{
    buffer->obj = NULL;
    if ((flags & PyBUF_WRITABLE) == PyBUF_WRITABLE) {
        PyErr_SetString(
            PyExc_BufferError,
            "a DByteArray cannot be changed through a buffer, only by its methods");
        return -1;
    }
    Py_buffer *inner = PyMem_Malloc(sizeof(*inner));
    if (inner == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *view = dbytearray_view(op);
    int status = view != NULL ? PyObject_GetBuffer(view, inner, PyBUF_SIMPLE) : -1;
    Py_XDECREF(view);
    if (status < 0) {
        PyMem_Free(inner);
        return -1;
    }
    if (PyBuffer_FillInfo(buffer, op, inner->buf, inner->len, 1, flags) < 0) {
        PyBuffer_Release(inner);
        PyMem_Free(inner);
        return -1;
    }
    buffer->internal = inner;
    return 0;
}

static void
dbytearray_releasebuffer(PyObject *Py_UNUSED(op), Py_buffer *buffer)
{
    Py_buffer *inner = buffer->internal;
    buffer->internal = NULL;
    PyBuffer_Release(inner);
    PyMem_Free(inner);
}

/* ---- making ---- */

static PyObject *
dbytearray_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return (PyObject *)dobject_new(type, KIND_BYTES,
                                   PyByteArray_FromStringAndSize(NULL, 0));
}

static PyObject *
dbytearray_deepcopy(PyObject *op, PyObject *Py_UNUSED(memo))
{
    return dobject_plain(op);
}

static PyObject *
dbytearray_fromhex(PyObject *cls, PyObject *text)
{
    PyObject *bytes =
        seq_call(bytearray_fromhex, (PyObject *)&PyByteArray_Type, &text, 1, NULL);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_CallOneArg(cls, bytes);
    Py_DECREF(bytes);
    return result;
}

static PyObject *
dbytearray_maketrans(PyObject *Py_UNUSED(unused), PyObject *const *args, Py_ssize_t nargs)
{
    return seq_call(bytearray_maketrans, (PyObject *)&PyByteArray_Type, args, nargs,
                    NULL);
}

/* ---- the type ---- */

PyDoc_STRVAR(
    dbytearray_doc,
    "DByteArray(source=b'', encoding=None, errors=None)\n"
    "\n"
    "What a bytearray becomes when a Manager stores it; made of the same sources.\n"
    "\n"
    "It has all of bytearray's methods and operators; their results are plain. Its\n"
    "buffer is read-only: a memoryview, like an iterator, shows the bytes as they were\n"
    "when it was made. One that is made here stands alone until it is put into\n"
    "something that is stored. A change is done as a whole, or, after an error, not at\n"
    "all.");
PyDoc_STRVAR(copy_doc, "__copy__($self, /)\n--\n\nA copy, a plain bytearray.");
PyDoc_STRVAR(deepcopy_doc,
             "__deepcopy__($self, memo, /)\n--\n\nA copy, a plain bytearray.");
PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\nPickles as a plain bytearray.");
PyDoc_STRVAR(reversed_doc, "__reversed__($self, /)\n--\n\n"
                           "Return a reverse iterator over the bytes as they are now.");
PyDoc_STRVAR(sizeof_doc, "__sizeof__($self, /)\n--\n\n"
                         "Returns the size of the bytearray object in memory, in bytes.");
PyDoc_STRVAR(append_doc, "append($self, item, /)\n--\n\n"
                         "Append a single item to the end of the bytearray.");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove all items from the bytearray.");
PyDoc_STRVAR(
    extend_doc,
    "extend($self, iterable_of_ints, /)\n--\n\n"
    "Append all the items from the iterator or sequence to the end of the bytearray.");
PyDoc_STRVAR(fromhex_doc, "fromhex($type, string, /)\n--\n\n"
                          "Create a DByteArray from a string of hexadecimal numbers.\n\n"
                          "Spaces between two numbers are accepted.");
PyDoc_STRVAR(insert_doc,
             "insert($self, index, item, /)\n--\n\n"
             "Insert a single item into the bytearray before the given index.");
PyDoc_STRVAR(
    maketrans_doc,
    "maketrans(frm, to, /)\n--\n\n"
    "Return a translation table useable for the bytes or bytearray translate method.\n\n"
    "The table maps each byte in frm to the byte at the same position in to, which\n"
    "must be of the same length.");
PyDoc_STRVAR(pop_doc,
             "pop($self, index=-1, /)\n--\n\n"
             "Remove and return a single item from the bytearray (default the last).");
PyDoc_STRVAR(remove_doc, "remove($self, value, /)\n--\n\n"
                         "Remove the first occurrence of a value in the bytearray.");
PyDoc_STRVAR(reverse_doc, "reverse($self, /)\n--\n\n"
                          "Reverse the order of the values in the bytearray in place.");

/*
 * The forwarded ones come first, in the order of their numbers; their docstrings come
 * later.
 */
/* clang-format off */
static PyMethodDef dbytearray_methods[] = {
#define X(name) {#name, SEQ_FASTCALL(forward_##name), METH_FASTCALL | METH_KEYWORDS, NULL},
    FORWARDED(X)
#undef X
    {"__copy__", dbytearray_copy, METH_NOARGS, copy_doc},
    {"__deepcopy__", dbytearray_deepcopy, METH_O, deepcopy_doc},
    {"__reduce__", dbytearray_reduce, METH_NOARGS, reduce_doc},
    {"__reversed__", dbytearray_reversed, METH_NOARGS, reversed_doc},
    {"__sizeof__", dbytearray_sizeof, METH_NOARGS, sizeof_doc},
    {"append", dbytearray_append, METH_O, append_doc},
    {"clear", dbytearray_clear_method, METH_NOARGS, clear_doc},
    {"extend", dbytearray_extend, METH_O, extend_doc},
    {"fromhex", dbytearray_fromhex, METH_O | METH_CLASS, fromhex_doc},
    {"insert", SEQ_FASTCALL(dbytearray_insert), METH_FASTCALL, insert_doc},
    {"maketrans", SEQ_FASTCALL(dbytearray_maketrans), METH_FASTCALL | METH_STATIC,
     maketrans_doc},
    {"pop", SEQ_FASTCALL(dbytearray_pop), METH_FASTCALL, pop_doc},
    {"remove", dbytearray_remove, METH_O, remove_doc},
    {"reverse", dbytearray_reverse, METH_NOARGS, reverse_doc},
    {NULL},
};
/* clang-format on */

static PyType_Slot dbytearray_slots[] = {
    {Py_tp_doc, (void *)dbytearray_doc},
    {Py_tp_new, dbytearray_new},
    {Py_tp_init, dbytearray_init_object},
    {Py_tp_dealloc, dobject_dealloc},
    {Py_tp_traverse, dobject_traverse},
    {Py_tp_clear, dobject_clear},
    {Py_tp_members, dobject_members},
    {Py_tp_methods, dbytearray_methods},
    {Py_tp_repr, dbytearray_repr},
    {Py_tp_str, dbytearray_str},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, dbytearray_richcompare},
    {Py_tp_iter, dbytearray_iter},
    {Py_nb_remainder, dbytearray_remainder},
    {Py_sq_length, dbytearray_length},
    {Py_sq_concat, dbytearray_concat},
    {Py_sq_repeat, dbytearray_repeat},
    {Py_sq_item, dbytearray_item},
    {Py_sq_ass_item, dbytearray_ass_item},
    {Py_sq_contains, dbytearray_contains},
    {Py_sq_inplace_concat, dbytearray_inplace_concat},
    {Py_sq_inplace_repeat, dbytearray_inplace_repeat},
    {Py_mp_length, dbytearray_length},
    {Py_mp_subscript, dbytearray_subscript},
    {Py_mp_ass_subscript, dbytearray_ass_subscript},
    {Py_bf_getbuffer, dbytearray_getbuffer},
    {Py_bf_releasebuffer, dbytearray_releasebuffer},
    {0, NULL},
};

/*
 * No Py_TPFLAGS_SEQUENCE: as the builtin, it is no sequence to a match statement. Being
 * immutable it stays so when it is registered as a MutableSequence.
 */
static PyType_Spec dbytearray_spec = {
    .name = "tosc.DByteArray",
    .basicsize = sizeof(DObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = dbytearray_slots,
};

/* Finds the builtin's methods, and takes over their docstrings. */
static int
find_methods(void)
{
    for (int i = 0; i < FORWARDED_COUNT; i++) {
        forwarded[i] = seq_method(&PyByteArray_Type, dbytearray_methods[i].ml_name);
        if (forwarded[i] == NULL) {
            return -1;
        }
        dbytearray_methods[i].ml_doc = forwarded[i]->ml_doc;
    }
    bytearray_fromhex = seq_method(&PyByteArray_Type, "fromhex");
    bytearray_maketrans = seq_method(&PyByteArray_Type, "maketrans");
    bytearray_sizeof = seq_method(&PyByteArray_Type, "__sizeof__");
    return bytearray_fromhex == NULL || bytearray_maketrans == NULL
                   || bytearray_sizeof == NULL
               ? -1
               : 0;
}

int
dbytearray_init(PyObject *module, ToscState *state)
{
    if (find_methods() < 0 || dbytearray_write_init() < 0
        || tosc_add_type(module, &state->DByteArray_Type, &dbytearray_spec,
                         state->DObject_Type, "DByteArray")
               < 0) {
        return -1;
    }
#if PY_VERSION_HEX < 0x030c0000
    /* Deprecated since. */
    if (seq_register(state->DByteArray_Type, "ByteString") < 0) {
        return -1;
    }
#endif
    return seq_register(state->DByteArray_Type, "MutableSequence");
}
