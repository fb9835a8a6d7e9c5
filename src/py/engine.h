/*
 * The walk over a value that dobject_adopt() and dobject_plain() share; see engine.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_ENGINE_H
#define TOSC_PY_ENGINE_H

#include "memo.h"
#include "wrap.h"

enum frame_kind {
    FRAME_LIST,      /* items: list */
    FRAME_DICT,      /* items: dict all of whose keys are leaves */
    FRAME_PAIRS,     /* items: list of key, value, key, value …, becomes a dict */
    FRAME_SET,       /* items: list */
    FRAME_TUPLE,     /* items: list */
    FRAME_FROZENSET, /* items: list */
    FRAME_OPAQUE     /* items: list of the wrappers that an opaque refers to */
};

typedef struct Frame {
    int kind;
    bool custom;  /* the attributes of a custom object */
    bool changed; /* some element has become another object */
    PyObject
        *source; /* what is being turned; NULL for the elements of a bare container */
    PyObject *result; /* what it becomes; NULL: known at the end */
    PyObject *items;
    Py_ssize_t next; /* element to look at; of a dict the position for PyDict_Next */
    PyObject *key;   /* of a dict: where the element stands (borrowed from items) */
    PyObject *state; /* of an opaque: its OpaqueState */
    size_t met;      /* of an opaque: how many objects were known when it was opened */
} Frame;

typedef struct Engine {
    bool adopt;       /* else to plain */
    Manager *manager; /* of new wrappers; NULL: stand-alone */
    Frame *frames;
    size_t depth;
    size_t room;
    size_t custom_depth;
    Frame *late; /* dicts and sets to be filled when no custom object is open */
    size_t late_count;
    size_t late_room;
    Memo memo;
    bool remember_all;     /* also what cannot be met again */
    struct Engine *copier; /* makes plain copies of another Manager's wrappers */
    PyObject *empty[3];    /* what a wrapper holds until its frame is closed */
} Engine;

/*
 * Opens the frame of a list, dict or set. `copy`, an exact builtin of our own, holds the
 * elements; `result` is what it becomes. Both are stolen, also on failure.
 */
int engine_open(Engine *e, PyObject *source, PyObject *result, PyObject *copy,
                bool custom);
/*
 * What becomes of one value: *ret (a new reference) if that is known at once, or, with *ret
 * left NULL, a frame has been opened. -1: exception.
 */
int engine_turn(Engine *e, PyObject *value, PyObject **ret);
/* Closes all frames; what the first has become. NULL: exception; the frames left are the path to it. */
PyObject *engine_finish(Engine *e);
/* engine_turn() and engine_finish(). */
PyObject *engine_run(Engine *e, PyObject *value);
void engine_clear(Engine *e);

bool engine_all_leaves(PyObject *tuple);
PyObject *engine_pairs(PyObject *dict); /* a list of key, value, key, value … */

/* wrap.c: engine_turn() for what is no leaf, tuple or frozenset, when adopting. */
int engine_adopt(Engine *e, PyObject *value, int kind, PyObject **ret);

#endif
