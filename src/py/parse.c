/*
 * Reading the pickle opcodes that emit.c writes.
 *
 * The main pickle of a record is a list of items in a small part of pickle's language: atoms,
 * tuples of these, references, and one flat container at the end of an item. The pickle
 * module could read it, but this reads it without making the list, calls C functions for
 * references, and believes no size that the data do not bear out. Whatever else stands there
 * is damage: nothing in it can name a class or call anything.
 *
 * Values are put on a stack; a tuple's opcode replaces the uppermost by a tuple. A container
 * is filled whenever a batch of its elements is complete; when it is, so are all items on the
 * stack, and they are handed over. So memory holds little more than what comes out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "parse.h"

#include "opcodes.h"
#include "state.h"

#include <string.h>

static int
damaged(const char *what)
{
    PyErr_Format(tosc_state->DataError, "damaged data: %s", what);
    return -1;
}

/* ---- the stack ---- */

/* Steals the value, also on failure; NULL passes an exception on. */
static inline int
push(Parser *p, PyObject *value)
{
    Items *stack = &p->stack;
    if (value == NULL) {
        return -1;
    }
    if (stack->count == stack->room) {
        Py_ssize_t room = stack->room ? stack->room * 2 : 64;
        PyObject **values = PyMem_Realloc(stack->values, (size_t)room * sizeof(*values));
        if (values == NULL) {
            Py_DECREF(value);
            PyErr_NoMemory();
            return -1;
        }
        stack->values = values;
        stack->room = room;
    }
    stack->values[stack->count++] = value;
    return 0;
}

static void
drop_to(Items *stack, Py_ssize_t count)
{
    while (stack->count > count) {
        Py_DECREF(stack->values[--stack->count]);
    }
}

/* How far down the values of what is being read go. */
static inline Py_ssize_t
floor_of(const Parser *p)
{
    return p->n_marks > 0 ? p->marks[p->n_marks - 1] : p->container != NULL ? p->base : 0;
}

static int
push_mark(Parser *p)
{
    if (p->n_marks == p->marks_room) {
        Py_ssize_t room = p->marks_room ? p->marks_room * 2 : 16;
        Py_ssize_t *marks = PyMem_Realloc(p->marks, (size_t)room * sizeof(*marks));
        if (marks == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        p->marks = marks;
        p->marks_room = room;
    }
    p->marks[p->n_marks++] = p->stack.count;
    return 0;
}

/* The uppermost `size` values become one. */
static int
fold_tuple(Parser *p, Py_ssize_t size)
{
    Items *stack = &p->stack;
    if (stack->count - floor_of(p) < size) {
        return damaged("a tuple without elements");
    }
    PyObject *tuple = PyTuple_New(size);
    if (tuple == NULL) {
        return -1;
    }
    stack->count -= size;
    for (Py_ssize_t i = 0; i < size; i++) {
        PyTuple_SET_ITEM(tuple, i, stack->values[stack->count + i]);
    }
    return push(p, tuple);
}

static int
close_marked(Parser *p)
{
    if (p->n_marks == 0) {
        return damaged("a tuple that was not begun");
    }
    Py_ssize_t size = p->stack.count - p->marks[p->n_marks - 1];
    p->n_marks--;
    return fold_tuple(p, size);
}

/* ---- bytes ---- */

/* A little-endian number of `width` bytes. */
static int
read_size(Parser *p, int width, uint64_t *ret)
{
    if (p->left < (size_t)width) {
        return damaged("a record ends too early");
    }
    uint64_t value = 0;
    for (int i = 0; i < width; i++) {
        value |= (uint64_t)p->data[i] << (8 * i);
    }
    p->data += width;
    p->left -= (size_t)width;
    *ret = value;
    return 0;
}

/* That many bytes, preceded by their number in `width` bytes. */
static const char *
read_block(Parser *p, int width, Py_ssize_t *ret_size)
{
    uint64_t size;
    if (read_size(p, width, &size) < 0) {
        return NULL;
    }
    if (size > p->left) {
        damaged("a record ends too early");
        return NULL;
    }
    const char *block = (const char *)p->data;
    p->data += size;
    p->left -= size;
    *ret_size = (Py_ssize_t)size;
    return block;
}

static int
read_text(Parser *p, int width)
{
    Py_ssize_t size;
    const char *text = read_block(p, width, &size);
    return text == NULL ? -1 : push(p, PyUnicode_DecodeUTF8(text, size, "surrogatepass"));
}

static int
read_bytes(Parser *p, int width)
{
    Py_ssize_t size;
    const char *bytes = read_block(p, width, &size);
    return bytes == NULL ? -1 : push(p, PyBytes_FromStringAndSize(bytes, size));
}

static int
read_float(Parser *p)
{
    if (p->left < 8) {
        return damaged("a record ends too early");
    }
    double value = PyFloat_Unpack8((const char *)p->data, 0);
    p->data += 8;
    p->left -= 8;
    if (value == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    return push(p, PyFloat_FromDouble(value));
}

/* ---- strings that come again ---- */

static int
memoize(Parser *p)
{
    if (p->stack.count <= floor_of(p)) {
        return damaged("nothing to remember");
    }
    if (p->memo_count == p->memo_room) {
        Py_ssize_t room = p->memo_room ? p->memo_room * 2 : 64;
        PyObject **memo = PyMem_Realloc(p->memo, (size_t)room * sizeof(*memo));
        if (memo == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        p->memo = memo;
        p->memo_room = room;
    }
    p->memo[p->memo_count++] = Py_NewRef(p->stack.values[p->stack.count - 1]);
    return 0;
}

static int
recall(Parser *p, int width)
{
    uint64_t index;
    if (read_size(p, width, &index) < 0) {
        return -1;
    }
    if (index >= (uint64_t)p->memo_count) {
        return damaged("a string that is not there");
    }
    return push(p, Py_NewRef(p->memo[index]));
}

/* ---- numbers and references ---- */

/* A number is either itself or, before BINPERSID, says what is meant. */
static int
push_number(Parser *p, int64_t value)
{
    if (p->left == 0 || *p->data != OP_BINPERSID) {
        return push(p, PyLong_FromLongLong(value));
    }
    p->data++;
    p->left--;
    return push(p, p->reference(value, p->arg));
}

static int
read_number(Parser *p, int width)
{
    uint64_t value;
    if (read_size(p, width, &value) < 0) {
        return -1;
    }
    return push_number(p, width == 4 ? (int32_t)value : (int64_t)value);
}

static int
read_long(Parser *p)
{
    uint64_t width;
    uint64_t value;
    if (read_size(p, 1, &width) < 0 || (width != 8 && damaged("a number of odd size") < 0)
        || read_size(p, 8, &value) < 0) {
        return -1;
    }
    return push_number(p, (int64_t)value);
}

/* ---- containers ---- */

static int
begin_container(Parser *p, PyObject *container)
{
    if (container == NULL) {
        return -1;
    }
    if (p->container != NULL || p->n_marks > 0 || p->left == 0 || *p->data != OP_MARK) {
        Py_DECREF(container);
        return damaged("a container in a place where none can be");
    }
    p->data++;
    p->left--;
    p->container = container;
    p->base = p->stack.count;
    p->stack.keys = 0;
    return 0;
}

static int
fill_list(PyObject *list, PyObject **values, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyList_Append(list, values[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
fill_dict(PyObject *dict, PyObject **values, Py_ssize_t count, int *keys)
{
    if (count % 2 != 0) {
        return damaged("a key without a value");
    }
    for (Py_ssize_t i = 0; i < count; i += 2) {
        if (PyDict_SetItem(dict, values[i], values[i + 1]) < 0) {
            return -1;
        }
        *keys |= PyUnicode_CheckExact(values[i]) ? 0 : key_traits(values[i]);
    }
    return 0;
}

static int
fill_set(PyObject *set, PyObject **values, Py_ssize_t count, int *keys)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PySet_Add(set, values[i]) < 0) {
            return -1;
        }
        *keys |= key_traits(values[i]);
    }
    return 0;
}

static int
fill(PyObject *container, int op, PyObject **values, Py_ssize_t count, int *keys)
{
    if (op == OP_APPENDS && PyList_CheckExact(container)) {
        return fill_list(container, values, count);
    }
    if (op == OP_SETITEMS && PyDict_CheckExact(container)) {
        return fill_dict(container, values, count, keys);
    }
    if (op == OP_ADDITEMS && PyAnySet_CheckExact(container)) {
        return fill_set(container, values, count, keys);
    }
    return damaged("a container of another kind");
}

/* Hands over what is on the stack, and clears it. */
static int
hand_over(Parser *p)
{
    p->stack.next = 0;
    int result = p->take(&p->stack, p->arg);
    drop_to(&p->stack, 0);
    return result;
}

/* A batch of elements is complete; another one may follow. */
static int
close_batch(Parser *p, int op)
{
    if (p->n_marks > 0) {
        return damaged("a tuple that does not end");
    }
    Items *stack = &p->stack;
    PyObject **values = stack->values + p->base;
    if (fill(p->container, op, values, stack->count - p->base, &stack->keys) < 0) {
        return -1;
    }
    drop_to(stack, p->base);
    if (p->left > 0 && *p->data == OP_MARK) {
        p->data++;
        p->left--;
        return 0;
    }
    PyObject *container = p->container;
    p->container = NULL;
    return push(p, container) < 0 ? -1 : hand_over(p);
}

static int
read_bytearray(Parser *p)
{
    Py_ssize_t size;
    if (p->container != NULL || p->n_marks > 0) {
        return damaged("a container in a place where none can be");
    }
    const char *data = read_block(p, 8, &size);
    if (data == NULL || push(p, PyByteArray_FromStringAndSize(data, size)) < 0) {
        return -1;
    }
    return hand_over(p);
}

/* ---- the loop ---- */

static int
read_atom(Parser *p, int op)
{
    switch (op) {
    case OP_SHORT_BINUNICODE:
        return read_text(p, 1);
    case OP_BINUNICODE:
        return read_text(p, 4);
    case OP_BINUNICODE8:
        return read_text(p, 8);
    case OP_BINGET:
        return recall(p, 1);
    case OP_LONG_BINGET:
        return recall(p, 4);
    case OP_MEMOIZE:
        return memoize(p);
    case OP_BININT1:
        return read_number(p, 1);
    case OP_BININT2:
        return read_number(p, 2);
    case OP_BININT:
        return read_number(p, 4);
    case OP_LONG1:
        return read_long(p);
    case OP_BINFLOAT:
        return read_float(p);
    case OP_NONE:
        return push(p, Py_NewRef(Py_None));
    case OP_NEWTRUE:
        return push(p, Py_NewRef(Py_True));
    case OP_NEWFALSE:
        return push(p, Py_NewRef(Py_False));
    case OP_SHORT_BINBYTES:
        return read_bytes(p, 1);
    case OP_BINBYTES:
        return read_bytes(p, 4);
    case OP_BINBYTES8:
        return read_bytes(p, 8);
    default:
        return damaged("an opcode that no record has");
    }
}

static int
read_value(Parser *p, int op)
{
    switch (op) {
    case OP_EMPTY_TUPLE:
        return fold_tuple(p, 0);
    case OP_TUPLE1:
        return fold_tuple(p, 1);
    case OP_TUPLE2:
        return fold_tuple(p, 2);
    case OP_TUPLE3:
        return fold_tuple(p, 3);
    case OP_MARK:
        return push_mark(p);
    case OP_TUPLE:
        return close_marked(p);
    case OP_EMPTY_LIST:
        return begin_container(p, PyList_New(0));
    case OP_EMPTY_DICT:
        return begin_container(p, PyDict_New());
    case OP_EMPTY_SET:
        return begin_container(p, PySet_New(NULL));
    case OP_BYTEARRAY8:
        return read_bytearray(p);
    default:
        return read_atom(p, op);
    }
}

static bool
closes(int op)
{
    return op == OP_APPENDS || op == OP_SETITEMS || op == OP_ADDITEMS;
}

/* Everything up to the end of the list of items. */
static int
read_items(Parser *p)
{
    while (p->left > 0) {
        int op = *p->data++;
        p->left--;
        int result;
        if (!closes(op)) {
            result = read_value(p, op);
        } else if (p->container != NULL) {
            result = close_batch(p, op);
        } else if (op != OP_APPENDS || p->n_marks > 0 || p->left != 1
                   || *p->data != OP_STOP) {
            result = damaged("a record whose end is not one");
        } else {
            return hand_over(p);
        }
        if (result < 0) {
            return -1;
        }
    }
    return damaged("a record ends too early");
}

int
parse_pickle(Parser *p, const unsigned char *data, size_t size)
{
    int result = -1;
    if (size < 13 || data[0] != OP_PROTO || data[2] != OP_FRAME
        || data[11] != OP_EMPTY_LIST || data[12] != OP_MARK) {
        damaged("a record that is no list");
    } else {
        p->data = data + 13;
        p->left = size - 13;
        result = read_items(p);
    }
    drop_to(&p->stack, 0);
    while (p->memo_count > 0) {
        Py_DECREF(p->memo[--p->memo_count]);
    }
    Py_CLEAR(p->container);
    PyMem_Free(p->stack.values);
    PyMem_Free(p->memo);
    PyMem_Free(p->marks);
    return result;
}

/* ---- what is left to the pickle module ---- */

#define ARG_NONE 1  /* no argument */
#define ARG_SKIP 16 /* + number of bytes to skip */
#define ARG_SIZE 32 /* + width of the size of what follows */

/* How the argument of each opcode looks that a pickler of protocol 5 writes; 0: it does not. */
static const unsigned char arguments[256] = {
    ['('] = ARG_NONE,      ['.'] = ARG_NONE,      ['0'] = ARG_NONE,
    ['1'] = ARG_NONE,      ['N'] = ARG_NONE,      ['Q'] = ARG_NONE,
    ['R'] = ARG_NONE,      ['a'] = ARG_NONE,      ['b'] = ARG_NONE,
    ['e'] = ARG_NONE,      ['s'] = ARG_NONE,      ['t'] = ARG_NONE,
    ['u'] = ARG_NONE,      [')'] = ARG_NONE,      [']'] = ARG_NONE,
    ['}'] = ARG_NONE,      [0x81] = ARG_NONE,     [0x92] = ARG_NONE,
    [0x85] = ARG_NONE,     [0x86] = ARG_NONE,     [0x87] = ARG_NONE,
    [0x88] = ARG_NONE,     [0x89] = ARG_NONE,     [0x8f] = ARG_NONE,
    [0x90] = ARG_NONE,     [0x91] = ARG_NONE,     [0x93] = ARG_NONE,
    [0x94] = ARG_NONE,     [0x80] = ARG_SKIP + 1, ['K'] = ARG_SKIP + 1,
    ['M'] = ARG_SKIP + 2,  ['J'] = ARG_SKIP + 4,  ['G'] = ARG_SKIP + 8,
    ['h'] = ARG_SKIP + 1,  ['j'] = ARG_SKIP + 4,  [0x95] = ARG_SKIP + 8,
    [0x82] = ARG_SKIP + 1, [0x83] = ARG_SKIP + 2, [0x84] = ARG_SKIP + 4,
    [0x8a] = ARG_SIZE + 1, [0x8b] = ARG_SIZE + 4, ['U'] = ARG_SIZE + 1,
    ['T'] = ARG_SIZE + 4,  ['X'] = ARG_SIZE + 4,  [0x8c] = ARG_SIZE + 1,
    [0x8d] = ARG_SIZE + 8, ['C'] = ARG_SIZE + 1,  ['B'] = ARG_SIZE + 4,
    [0x8e] = ARG_SIZE + 8, [0x96] = ARG_SIZE + 8,
};

bool
parse_is_sane(const unsigned char *data, size_t size)
{
    size_t at = 0;
    while (at < size) {
        unsigned char op = data[at++];
        unsigned char kind = arguments[op];
        if (kind == 0) {
            return false;
        }
        size_t width = kind & 15u;
        if (kind == ARG_NONE) {
            width = 0;
        }
        if (width > size - at) {
            return false;
        }
        uint64_t length = 0;
        for (size_t i = 0; kind >= ARG_SIZE && i < width; i++) {
            length |= (uint64_t)data[at + i] << (8 * i);
        }
        at += width;
        if (length > size - at) {
            return false;
        }
        at += length;
        if (op == OP_STOP) {
            return at == size;
        }
    }
    return false;
}
