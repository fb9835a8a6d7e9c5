/*
 * States (the builtins behind wrappers) and the operations on them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_OPS_H
#define TOSC_PY_OPS_H

#include "dobject.h"

/* One operation. Strong references. See enum op_code. */
typedef struct Op {
    int code;
    Py_ssize_t lo;
    Py_ssize_t hi;
    PyObject *a;
    PyObject *b;
} Op;

typedef struct OpList {
    Op *items;
    Py_ssize_t count;
    Py_ssize_t room;
} OpList;

int oplist_add(OpList *list, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a,
               PyObject *b);
void oplist_drop_last(OpList *list);
void oplist_clear(OpList *list); /* releases everything; may run Python code */

/* A growing array of strong references. */
typedef struct RefList {
    PyObject **items;
    Py_ssize_t count;
    Py_ssize_t room;
} RefList;

int reflist_add(RefList *list, PyObject *item);
int reflist_reserve(RefList *list, Py_ssize_t more);
void reflist_clear(RefList *list); /* may run Python code */

/* What an operation put in and took out, so that links can be counted. */
typedef struct Traffic {
    RefList in;
    RefList out; /* also keeps alive what was replaced until it is safe to let go */
    int keys;    /* what the keys of the state are like (in and out) */
} Traffic;

/*
 * Does one operation on a state that nobody else sees. What it replaces goes to traffic->out
 * (traffic may be NULL: released at once). -1: exception; the state is then as before.
 */
int op_apply(int kind, PyObject *state, const Op *op, Traffic *traffic);
/* May it be done on `state` without running Python code? */
bool op_is_plain(int kind, const Op *op);

PyObject *state_new(int kind);                   /* an empty one */
PyObject *state_copy(int kind, PyObject *state); /* shallow */
Py_ssize_t state_len(int kind, PyObject *state);

typedef int (*ref_visitor)(DObject *wrapper, void *arg);
/* Calls visit for each wrapper in a value (a wrapper, or tuples and frozensets that hold some). */
int value_visit(PyObject *value, ref_visitor visit, void *arg);
/* The same for all elements of a state. Runs no Python code of its own. */
int state_visit(int kind, PyObject *state, ref_visitor visit, void *arg);

/* What the keys of a dict, or the elements of a set, are like. */
enum key_traits {
    KEYS_REF = 1, /* some is a wrapper, or a tuple that holds one */
    KEYS_ODD = 2  /* hashing or comparing some may run Python code */
};
int state_key_traits(int kind, PyObject *state);
int key_traits(PyObject *key);

/* Stands in overlays for "not there". An immortal object of no use elsewhere. */
extern PyObject *tosc_gone;

#endif
