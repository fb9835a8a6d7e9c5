/*
 * Reading the pickle opcodes that emit.c writes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_PARSE_H
#define TOSC_PY_PARSE_H

#include "ops.h"

/* The values that have been read and not yet taken: whole items, in order, strong. */
typedef struct Items {
    PyObject **values;
    Py_ssize_t count;
    Py_ssize_t room;
    Py_ssize_t next;
    int keys; /* what the keys of the last value are like, see ops.h */
} Items;

typedef struct Parser {
    /* The value of a persistent id: a new reference. */
    PyObject *(*reference)(int64_t id, void *arg);
    /*
     * Called when the items on the stack are complete: takes what it needs of them. What is
     * left is released.
     */
    int (*take)(Items *items, void *arg);
    void *arg;
    /* private */
    const unsigned char *data;
    size_t left;
    Items stack;
    PyObject **memo;
    Py_ssize_t memo_count;
    Py_ssize_t memo_room;
    PyObject *container; /* that is being filled, or NULL */
    Py_ssize_t base;     /* where its elements begin on the stack */
    Py_ssize_t *marks;   /* where tuples begin */
    Py_ssize_t n_marks;
    Py_ssize_t marks_room;
} Parser;

/* Reads a main pickle to its end. -1: exception. May run Python code: __hash__, __eq__. */
int parse_pickle(Parser *p, const unsigned char *data, size_t size);

/*
 * Is it a pickle as the pickle module writes it, protocol 5, whose sizes fit its length? The
 * module itself allocates what a damaged size says before it looks.
 */
bool parse_is_sane(const unsigned char *data, size_t size);

#endif
