/*
 * Which objects hold which, and where.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_PARENTS_H
#define TOSC_PY_PARENTS_H

#include "manager.h"

enum place_how {
    AT_PART,  /* no path leads there: the parent is told */
    AT_KEY,   /* hint.key */
    AT_INDEX, /* hint.index */
    AT_MANY   /* in a Child only: hint.table */
};

typedef struct Place {
    uint64_t parent; /* 0: free */
    union {
        PyObject *key; /* strong: an exact str or int */
        Py_ssize_t index;
        struct PlaceTable *table;
    } hint;
    uint32_t count; /* elements of the parent that refer to the child; AT_MANY: unused */
    uint8_t how;
} Place;

/* Open addressing by parent. */
typedef struct PlaceTable {
    size_t size;
    size_t used;
    Place slots[];
} PlaceTable;

typedef struct Child {
    uint64_t oid;
    Place place; /* parent 0 and not AT_MANY: none */
} Child;

typedef struct Parents {
    Manager *manager; /* which owns this */
    bool valid;       /* else parents_make() is needed */
    uint32_t *index;  /* of children + 1, by oid; 0: free */
    size_t index_size;
    Child *children;
    size_t count;
    size_t room;
    size_t places;       /* entries of all tables */
    size_t places_first; /* … when it was made */
} Parents;

/* For the graph as it is now; -1: no memory (no exception), it is empty then. */
int parents_make(Parents *p);
void parents_clear(Parents *p);
/*
 * A commit was applied. Where that fails, or too much has been left behind, it is not valid any
 * more. Python's garbage collector must be off.
 */
void parents_follow(Parents *p, const DeltaList *deltas);
/* Who holds the object with this oid: NULL, or good until the table is changed. */
Child *parents_of(const Parents *p, uint64_t oid);

void place_set_hint(Place *place, int how, PyObject *key, Py_ssize_t index);
/* Is it a key that a path can have? */
bool key_can_be_step(PyObject *key);

#endif
