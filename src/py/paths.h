/*
 * From objects to paths: where in the graph does an object stand?
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_PATHS_H
#define TOSC_PY_PATHS_H

#include "manager.h"
#include "pathset.h"

typedef struct Paths Paths;

/* For the graph as it is. NULL: MemoryError. Runs no Python code. */
Paths *paths_new(Manager *m);
void paths_free(Paths *paths);
/* The graph is another one: everything is looked up anew when it is needed. */
void paths_forget(Paths *paths);
/*
 * A commit was applied. What goes wrong here makes paths_tell() start anew. No exception is
 * left behind; Python's garbage collector must be off.
 */
void paths_follow(Paths *paths, const DeltaList *deltas);

#define ELEMENTS_MOST 64 /* more elements of one object are told as the object */

/* The elements of an object that have changed; none: it as a whole. */
typedef struct Elements {
    PyObject **keys;     /* of dicts and attributes: borrowed */
    Py_ssize_t *indices; /* of lists: instead of keys */
    Py_ssize_t count;
} Elements;

/*
 * Adds the paths of what has changed in a linked object: all by which it can be reached, or
 * everything where these cannot be told. The same conditions.
 */
void paths_tell(Paths *paths, DObject *object, const Elements *elements, PathSet *ret);
/* Ends what belongs together: how much is searched is limited for all of it. */
void paths_told(Paths *paths);

#endif
