/*
 * What became of which object: a hash table by identity for the time of one walk.
 *
 * Holds references to both sides, so that no address is used again meanwhile.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_MEMO_H
#define TOSC_PY_MEMO_H

#include "compat.h"

typedef struct Memo {
    PyObject **pairs; /* object, what it became; NULL, NULL: free */
    size_t size;      /* a power of two, or 0 */
    size_t used;
} Memo;

static inline size_t
memo_hash(PyObject *object)
{
    uintptr_t bits = (uintptr_t)object >> 4;
    return (size_t)((bits * UINT64_C(0x9E3779B97F4A7C15)) >> 20);
}

/* The pair of the object, or the free one where it would be. */
static inline PyObject **
memo_find(const Memo *memo, PyObject *object)
{
    size_t mask = memo->size - 1;
    size_t i = memo_hash(object) & mask;
    while (memo->pairs[2 * i] != NULL && memo->pairs[2 * i] != object) {
        i = (i + 1) & mask;
    }
    return &memo->pairs[2 * i];
}

/* Borrowed; NULL: not known. */
static inline PyObject *
memo_get(const Memo *memo, PyObject *object)
{
    return memo->size == 0 ? NULL : memo_find(memo, object)[1];
}

static inline int
memo_grow(Memo *memo)
{
    Memo larger = {.size = memo->size == 0 ? 16 : memo->size * 2, .used = memo->used};
    larger.pairs = PyMem_Calloc(2 * larger.size, sizeof(PyObject *));
    if (larger.pairs == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < memo->size; i++) {
        if (memo->pairs[2 * i] != NULL) {
            PyObject **pair = memo_find(&larger, memo->pairs[2 * i]);
            pair[0] = memo->pairs[2 * i];
            pair[1] = memo->pairs[2 * i + 1];
        }
    }
    PyMem_Free(memo->pairs);
    *memo = larger;
    return 0;
}

/* The first thing that an object has become stays. */
static inline int
memo_add(Memo *memo, PyObject *object, PyObject *became)
{
    if (memo->used * 3 >= memo->size * 2 && memo_grow(memo) < 0) {
        return -1;
    }
    PyObject **pair = memo_find(memo, object);
    if (pair[0] == NULL) {
        pair[0] = Py_NewRef(object);
        pair[1] = Py_NewRef(became);
        memo->used++;
    }
    return 0;
}

static inline void
memo_clear(Memo *memo)
{
    PyObject **pairs = memo->pairs;
    size_t size = memo->size;
    *memo = (Memo){NULL, 0, 0};
    for (size_t i = 0; i < 2 * size; i++) {
        Py_XDECREF(pairs[i]);
    }
    PyMem_Free(pairs);
}

#endif
