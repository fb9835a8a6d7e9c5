/*
 * What a transaction has changed in one object, and how it is kept.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_CHANGES_H
#define TOSC_PY_CHANGES_H

#include "ops.h"

typedef struct Transaction Transaction; /* manager.h */

struct Change {
    DObject *object;  /* strong */
    Transaction *top; /* the outermost transaction; NULL in an implicit one */
    int level;        /* the nested block that it belongs to; 0: the outermost */
    PyObject *base;   /* the state that it started from */
    PyObject
        *full; /* base with all operations done, nobody else's; NULL: overlay in use */
    PyObject *
        over; /* overlay: dict/attrs/set: key -> value or tosc_gone; list: index -> value */
    PyObject *tail; /* overlay of a list: what follows base[:cut] */
    Py_ssize_t cut;
    Py_ssize_t length; /* of a dict, set in overlay form */
    OpList ops;        /* what was done, in order */
    bool whole;        /* the record holds the whole state: ops is empty */
    int readers;       /* look-ups in it that are running Python code, perhaps */
    bool writing;      /* a Write on it has begun and not ended */
    Change *below; /* the same object's change in an outer block, hidden by this one */
    Change *other; /* the same object's changes in other transactions */
    Change *next;  /* in the transaction */
};

/* A change of `object` that starts from `base`. Takes no reference but its own. */
Change *change_new(DObject *object, PyObject *base);
void change_free(Change *change); /* releases; may run Python code */

/* The state that it leads to: borrowed, materialised where it was an overlay. */
PyObject *change_view(Change *change);
int change_get(Change *change, PyObject *key, PyObject **ret);
Py_ssize_t change_len(Change *change);
PyObject *change_item(Change *change, Py_ssize_t index);
/* Notes one operation (arguments must fit the state). On failure nothing has changed. */
int change_add(Change *change, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a,
               PyObject *b);
/* Adds what `inner`, which started from our view, has done. */
int change_absorb(Change *change, Change *inner);

#endif
