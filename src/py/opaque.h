/*
 * Values that are mutable and that we cannot keep ourselves; see opaque.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_OPAQUE_H
#define TOSC_PY_OPAQUE_H

#include "dany.h"
#include "wrap.h"

/* ---- opaque_state.c ---- */

/* A new wrapper around a copy of `value`. TypeError for what cannot be pickled. */
DObject *opaque_adopt(Manager *manager, PyObject *value);
/* The pickle of an object and what it refers to, as a new state with no live object. */
OpaqueState *opaque_state_dump(Manager *manager, PyObject *object, bool *ret_keep);
/* The state's live object, made now if need be: new reference. */
PyObject *opaque_state_live(Manager *manager, OpaqueState *state);
/* Knows from now on what the live object's pickle is before it is worked on. */
int opaque_state_watch(OpaqueState *state);
/* A state that says what the live object is now: itself or a new one. New reference. */
OpaqueState *opaque_state_current(Manager *manager, OpaqueState *state);
/* A private copy for a transaction: takes the live object over where nobody can need it. */
OpaqueState *opaque_state_private(Manager *manager, OpaqueState *state);
bool opaque_state_same(OpaqueState *a, OpaqueState *b);
/* How many DParts have been pickled in this process. */
extern unsigned long opaque_parts_pickled;
/* A copy by pickling, wrappers inside kept as they are. */
PyObject *opaque_deep_copy(PyObject *object);
int opaque_state_init(PyObject *module, ToscState *state);

/* ---- opaque_session.c ---- */

/*
 * One operation on the live object: begin, work on session.target, end. `part` is the DPart
 * that it is on, or NULL. Safe: it is known to change nothing.
 */
typedef struct Session {
    DAnyObject *owner;
    PyObject *part;
    PyObject *target;   /* the live object, or the part's object */
    OpaqueState *state; /* what was seen at the start */
    PyObject *live;
    PyObject *baseline;
    int mode;
    bool captured; /* the object has kept an argument that the program has as well */
} Session;

/* `self` is a DOpaque or a DPart. -1: exception, nothing to end. */
int session_begin(Session *s, PyObject *self, bool safe);
/*
 * Ends it: stores what has changed. `result` (stolen; NULL: an exception is set) is what the
 * operation gave; returned as the program may have it.
 */
PyObject *session_end(Session *s, PyObject *result);
/* What an operation has given (stolen), as the program may have it. */
PyObject *session_show(Session *s, PyObject *value);
/* Ends it before any work was done; keeps the exception. */
void session_drop(Session *s);

/* ---- opaque_part.c ---- */

typedef struct DPart {
    PyObject_HEAD
    DAnyObject *owner;
    PyObject *inner;
    PyObject *live; /* the owner's object that it is part of */
    PyObject *weakrefs;
} DPart;

PyObject *part_new(DAnyObject *owner, PyObject *inner, PyObject *live);
/* The object behind a DOpaque or DPart whose class is asked for: borrowed class. */
PyObject *opaque_class_of(PyObject *self);
/* A plain copy of what a VALUE_COPY (vars(x), a part of an opaque) looks at. */
PyObject *opaque_copy_of(PyObject *value);
int opaque_part_init(PyObject *module, ToscState *state);

/* ---- opaque.c ---- */

/* Attribute access and methods of DOpaque and DPart. */
PyObject *opaque_getattro(PyObject *self, PyObject *name);
int opaque_setattro(PyObject *self, PyObject *name, PyObject *value);
PyObject *opaque_dir(PyObject *self, PyObject *ignored);

/* ---- opaque_call.c ---- */

/* A method that is looked up when it is called. `self` is a DOpaque or a DPart. */
PyObject *opaque_method_new(PyObject *self, PyObject *name);
int opaque_call_init(PyObject *module, ToscState *state);

/* ---- opaque_args.c ---- */

enum argument_use {
    ARGUMENT_READ,    /* only looked at */
    ARGUMENT_OPERAND, /* of an operator: C code insists on the builtin itself */
    ARGUMENT_STORE,   /* a builtin method may keep it: copied if it can change */
    ARGUMENT_UNKNOWN /* anything: containers are copied, and what was done to the copy is done
                         to the original */
};

/* An argument as the real object may have it. */
PyObject *opaque_argument(Session *s, PyObject *value, int use);

/* The arguments of one call. */
typedef struct Arguments {
    PyObject *const *given;
    PyObject **passed;
    PyObject **before; /* what a copied container held before the call; or NULL */
    Py_ssize_t *counts;
    Py_ssize_t total;
    int use;
} Arguments;

int arguments_take(Arguments *a, Session *s, PyObject *const *given, Py_ssize_t total,
                   int use);
/* After the call, whether it has failed or not: an exception that is set stays. -1: another one. */
int arguments_settle(Arguments *a, Session *s);
void arguments_free(Arguments *a);

/* ---- opaque_known.c ---- */

/* Is the method or attribute one that is known to change nothing? */
bool opaque_is_safe(PyTypeObject *type, PyObject *name);
/* Is the method one of a builtin or collections type, written in C? */
bool opaque_is_builtin_method(PyTypeObject *type, PyObject *name);
/* One of the collections types that hold nothing but their elements. */
bool opaque_is_collection(PyTypeObject *type);

#endif
