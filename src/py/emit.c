/*
 * A pickler for the few types that nearly all data consist of.
 *
 * It writes protocol 5, which the pickle module reads. It knows None, bool, int of up to 64
 * bits, float, str, bytes, tuple, and the flat builtins behind wrappers; everything else is
 * left to the pickle module (emit_extra). Since wrappers are written as references, the only
 * nesting is that of tuples in tuples, for which there is a stack on the heap.
 *
 * Each pickle is one frame, so that the unpickler reads it with one call. Nothing here runs
 * Python code; but in a very long state the GIL is offered to others now and then, which is
 * why states are held by a reference while they are written (see the rule in dobject.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "emit.h"

#include "opcodes.h"
#include "ops.h"

#include <string.h>

#define FRAME_AT 3     /* where the frame's length stands */
#define HEADER_SIZE 11 /* PROTO, FRAME and its length */
#define BATCH 1000     /* elements between MARK and APPENDS, SETITEMS or ADDITEMS */
#define BREATH_EVERY 20000

/* ---- bytes ---- */

int
buffer_reserve(Buffer *b, size_t more)
{
    if (b->room - b->size >= more) {
        return 0;
    }
    size_t room = b->room ? b->room : 256;
    while (room - b->size < more) {
        room *= 2;
    }
    char *data = PyMem_RawRealloc(b->data, room);
    if (data == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    b->data = data;
    b->room = room;
    return 0;
}

int
buffer_put(Buffer *b, const void *data, size_t size)
{
    if (buffer_reserve(b, size) < 0) {
        return -1;
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return 0;
}

int
buffer_varint(Buffer *b, uint64_t value)
{
    unsigned char bytes[10];
    size_t n = 0;
    do {
        bytes[n] = (unsigned char)(value & 0x7f);
        value >>= 7;
        bytes[n++] |= value ? 0x80 : 0;
    } while (value);
    return buffer_put(b, bytes, n);
}

void
buffer_free(Buffer *b)
{
    PyMem_RawFree(b->data);
    *b = (Buffer){0};
}

static inline int
put_op(Emitter *e, int op)
{
    if (e->out.size == e->out.room && buffer_reserve(&e->out, 1) < 0) {
        return -1;
    }
    e->out.data[e->out.size++] = (char)op;
    return 0;
}

/* An opcode and a little-endian number of `width` bytes. */
static int
put_number(Emitter *e, int op, uint64_t value, int width)
{
    char bytes[9] = {(char)op};
    for (int i = 1; i <= width; i++) {
        bytes[i] = (char)(value & 0xff);
        value >>= 8;
    }
    return buffer_put(&e->out, bytes, (size_t)width + 1);
}

/* ---- start and end ---- */

int
emit_start(Emitter *e)
{
    static const unsigned char header[HEADER_SIZE] = {OP_PROTO, 5, OP_FRAME};
    if (buffer_put(&e->out, header, HEADER_SIZE) < 0 || put_op(e, OP_EMPTY_LIST) < 0) {
        return -1;
    }
    return put_op(e, OP_MARK);
}

int
emit_finish(Emitter *e)
{
    if (put_op(e, OP_APPENDS) < 0 || put_op(e, OP_STOP) < 0) {
        return -1;
    }
    uint64_t length = e->out.size - HEADER_SIZE;
    for (int i = 0; i < 8; i++) {
        e->out.data[FRAME_AT + i] = (char)(length >> (8 * i));
    }
    return 0;
}

void
emit_free(Emitter *e)
{
    buffer_free(&e->out);
    for (size_t i = 0; i < e->memo_size; i++) {
        Py_XDECREF(e->memo[i]);
    }
    PyMem_Free(e->memo);
    PyMem_Free(e->memo_index);
    Py_CLEAR(e->extras);
}

/* ---- strings, remembered by address ---- */

static size_t
memo_slot(const Emitter *e, PyObject *text)
{
    size_t mask = e->memo_size - 1;
    size_t i = ((uintptr_t)text >> 4) * 0x9E3779B97F4A7C15u >> 20 & mask;
    while (e->memo[i] != NULL && e->memo[i] != text) {
        i = (i + 1) & mask;
    }
    return i;
}

static int
memo_grow(Emitter *e)
{
    size_t size = e->memo_size ? e->memo_size * 4 : 64;
    PyObject **memo = PyMem_Calloc(size, sizeof(*memo));
    uint32_t *index = PyMem_Calloc(size, sizeof(*index));
    if (memo == NULL || index == NULL) {
        PyMem_Free(memo);
        PyMem_Free(index);
        PyErr_NoMemory();
        return -1;
    }
    Emitter old = *e;
    e->memo = memo;
    e->memo_index = index;
    e->memo_size = size;
    for (size_t i = 0; i < old.memo_size; i++) {
        if (old.memo[i] != NULL) {
            size_t slot = memo_slot(e, old.memo[i]);
            e->memo[slot] = old.memo[i];
            e->memo_index[slot] = old.memo_index[i];
        }
    }
    PyMem_Free(old.memo);
    PyMem_Free(old.memo_index);
    return 0;
}

static int
put_text(Emitter *e, const char *data, Py_ssize_t size)
{
    int result;
    if (size < 256) {
        result = put_number(e, OP_SHORT_BINUNICODE, (uint64_t)size, 1);
    } else if ((uint64_t)size <= UINT32_MAX) {
        result = put_number(e, OP_BINUNICODE, (uint64_t)size, 4);
    } else {
        result = put_number(e, OP_BINUNICODE8, (uint64_t)size, 8);
    }
    return result < 0 ? -1 : buffer_put(&e->out, data, (size_t)size);
}

static int
put_unicode(Emitter *e, PyObject *text)
{
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        return put_text(e, (const char *)PyUnicode_1BYTE_DATA(text),
                        PyUnicode_GET_LENGTH(text));
    }
    /* Not PyUnicode_AsUTF8: it would keep the bytes with the string for ever. */
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (bytes == NULL) {
        return -1;
    }
    int result = put_text(e, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return result;
}

static int
emit_text(Emitter *e, PyObject *text)
{
    if (Py_REFCNT(text) == 1) {
        return put_unicode(e, text); /* it cannot come again */
    }
    if (e->memo_used * 2 >= e->memo_size && memo_grow(e) < 0) {
        return -1;
    }
    size_t slot = memo_slot(e, text);
    if (e->memo[slot] != NULL) {
        uint32_t index = e->memo_index[slot];
        return index < 256 ? put_number(e, OP_BINGET, index, 1)
                           : put_number(e, OP_LONG_BINGET, index, 4);
    }
    if (put_unicode(e, text) < 0) {
        return -1;
    }
    if (e->memo_used >= UINT32_MAX) {
        return 0;
    }
    e->memo[slot] = Py_NewRef(text);
    e->memo_index[slot] = (uint32_t)e->memo_used++;
    return put_op(e, OP_MEMOIZE);
}

/* ---- numbers and bytes ---- */

int
emit_int(Emitter *e, int64_t value)
{
    if (value >= 0 && value < 256) {
        return put_number(e, OP_BININT1, (uint64_t)value, 1);
    }
    if (value >= 0 && value < 65536) {
        return put_number(e, OP_BININT2, (uint64_t)value, 2);
    }
    if (value >= INT32_MIN && value <= INT32_MAX) {
        return put_number(e, OP_BININT, (uint64_t)value, 4);
    }
    int result = put_number(e, OP_LONG1, 8, 1);
    for (int i = 0; i < 8 && result == 0; i++) {
        result = put_op(e, (char)((uint64_t)value >> (8 * i)));
    }
    return result;
}

static int
emit_long(Emitter *e, PyObject *number)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    return overflow ? emit_extra(e, number) : emit_int(e, value);
}

static int
emit_float(Emitter *e, PyObject *number)
{
    char bytes[9] = {OP_BINFLOAT};
    if (PyFloat_Pack8(PyFloat_AS_DOUBLE(number), bytes + 1, 0) < 0) {
        return -1;
    }
    return buffer_put(&e->out, bytes, sizeof(bytes));
}

int
emit_bytes(Emitter *e, const char *data, Py_ssize_t size)
{
    int result;
    if (size < 256) {
        result = put_number(e, OP_SHORT_BINBYTES, (uint64_t)size, 1);
    } else if ((uint64_t)size <= UINT32_MAX) {
        result = put_number(e, OP_BINBYTES, (uint64_t)size, 4);
    } else {
        result = put_number(e, OP_BINBYTES8, (uint64_t)size, 8);
    }
    return result < 0 ? -1 : buffer_put(&e->out, data, (size_t)size);
}

int
emit_bytearray(Emitter *e, PyObject *array)
{
    size_t size = (size_t)PyByteArray_GET_SIZE(array);
    if (put_number(e, OP_BYTEARRAY8, size, 8) < 0) {
        return -1;
    }
    return buffer_put(&e->out, PyByteArray_AS_STRING(array), size);
}

/* ---- references and what we leave to the pickle module ---- */

int
emit_ref(Emitter *e, DObject *wrapper)
{
    uint64_t oid = e->oid_of(wrapper, e->arg);
    if (oid == 0 || emit_int(e, (int64_t)(oid * 8 + wrapper->kind)) < 0) {
        return -1;
    }
    return put_op(e, OP_BINPERSID);
}

int
emit_extra(Emitter *e, PyObject *value)
{
    if (e->extras == NULL && (e->extras = PyList_New(0)) == NULL) {
        return -1;
    }
    /* Frozen sets and the like are hashed when the pickle module makes them anew. */
    if (value_visit(value, e->hashed, e->arg) != 0) {
        return -1;
    }
    Py_ssize_t index = PyList_GET_SIZE(e->extras);
    if (PyList_Append(e->extras, value) < 0 || emit_int(e, -1 - (int64_t)index) < 0) {
        return -1;
    }
    return put_op(e, OP_BINPERSID);
}

/* ---- values ---- */

/* Everything but a non-empty tuple: 0, -1; 1: it is such a tuple. */
static int
emit_simple(Emitter *e, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type) {
        return emit_text(e, value);
    }
    if (type == &PyLong_Type) {
        return emit_long(e, value);
    }
    if (value == Py_None) {
        return put_op(e, OP_NONE);
    }
    if (type == &PyFloat_Type) {
        return emit_float(e, value);
    }
    if (type == &PyBool_Type) {
        return put_op(e, value == Py_True ? OP_NEWTRUE : OP_NEWFALSE);
    }
    if (type == &PyBytes_Type) {
        return emit_bytes(e, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    }
    if (type == &PyTuple_Type) {
        return PyTuple_GET_SIZE(value) == 0 ? put_op(e, OP_EMPTY_TUPLE) : 1;
    }
    return dobject_check(value) ? emit_ref(e, (DObject *)value) : emit_extra(e, value);
}

typedef struct Level {
    PyObject *tuple; /* borrowed: the outermost is held by the caller */
    Py_ssize_t next;
} Level;

static int
close_tuple(Emitter *e, Py_ssize_t size)
{
    static const unsigned char ops[] = {0, OP_TUPLE1, OP_TUPLE2, OP_TUPLE3};
    return put_op(e, size <= 3 ? ops[size] : OP_TUPLE);
}

static int
open_tuple(Emitter *e, PyObject *tuple)
{
    return PyTuple_GET_SIZE(tuple) > 3 ? put_op(e, OP_MARK) : 0;
}

static int
emit_tuple(Emitter *e, PyObject *tuple)
{
    Level few[8];
    Level *stack = few;
    size_t room = 8;
    size_t depth = 1;
    stack[0] = (Level){tuple, 0};
    int result = open_tuple(e, tuple);
    while (result == 0 && depth > 0) {
        Level *top = &stack[depth - 1];
        if (top->next == PyTuple_GET_SIZE(top->tuple)) {
            result = close_tuple(e, top->next);
            depth--;
            continue;
        }
        PyObject *item = PyTuple_GET_ITEM(top->tuple, top->next++);
        result = emit_simple(e, item);
        if (result <= 0) {
            continue;
        }
        if (depth == room) {
            Level *more = PyMem_Malloc(room * 2 * sizeof(*more));
            if (more == NULL) {
                PyErr_NoMemory();
                result = -1;
                break;
            }
            memcpy(more, stack, room * sizeof(*more));
            if (stack != few) {
                PyMem_Free(stack);
            }
            stack = more;
            room *= 2;
        }
        stack[depth++] = (Level){item, 0};
        result = open_tuple(e, item);
    }
    if (stack != few) {
        PyMem_Free(stack);
    }
    return result;
}

int
emit_value(Emitter *e, PyObject *value)
{
    int result = emit_simple(e, value);
    return result <= 0 ? result : emit_tuple(e, value);
}

int
emit_key(Emitter *e, PyObject *key)
{
    return value_visit(key, e->hashed, e->arg) != 0 ? -1 : emit_value(e, key);
}

/* ---- the builtins behind wrappers ---- */

static inline void
breathe(Emitter *e)
{
    if (++e->since_breath >= BREATH_EVERY && e->breathe) {
        e->since_breath = 0;
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
}

/* Between MARK and the closing opcode the unpickler keeps all on its stack: not too many. */
static int
next_batch(Emitter *e, Py_ssize_t done, int close)
{
    if (done > 0 && done % BATCH == 0) {
        return put_op(e, close) < 0 ? -1 : put_op(e, OP_MARK);
    }
    return 0;
}

int
emit_list(Emitter *e, PyObject *list)
{
    if (put_op(e, OP_EMPTY_LIST) < 0 || put_op(e, OP_MARK) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (next_batch(e, i, OP_APPENDS) < 0
            || emit_value(e, PyList_GET_ITEM(list, i)) < 0) {
            return -1;
        }
        breathe(e);
    }
    return put_op(e, OP_APPENDS);
}

int
emit_dict(Emitter *e, PyObject *dict)
{
    if (put_op(e, OP_EMPTY_DICT) < 0 || put_op(e, OP_MARK) < 0) {
        return -1;
    }
    Py_ssize_t pos = 0;
    Py_ssize_t done = 0;
    PyObject *key;
    PyObject *value;
    while (PyDict_Next(dict, &pos, &key, &value)) {
        if (next_batch(e, done++, OP_SETITEMS) < 0 || emit_key(e, key) < 0
            || emit_value(e, value) < 0) {
            return -1;
        }
        breathe(e);
    }
    return put_op(e, OP_SETITEMS);
}

int
emit_set(Emitter *e, PyObject *set)
{
    PyObject *iterator = PyObject_GetIter(set);
    if (iterator == NULL) {
        return -1;
    }
    int result = put_op(e, OP_EMPTY_SET) < 0 ? -1 : put_op(e, OP_MARK);
    Py_ssize_t done = 0;
    PyObject *item;
    while (result == 0 && (item = PyIter_Next(iterator)) != NULL) {
        result = next_batch(e, done++, OP_ADDITEMS);
        if (result == 0) {
            result = emit_key(e, item);
        }
        Py_DECREF(item);
        breathe(e);
    }
    Py_DECREF(iterator);
    if (result < 0 || PyErr_Occurred()) {
        return -1;
    }
    return put_op(e, OP_ADDITEMS);
}
