/*
 * Which wrapper a value needs, and the hooks by which each kind says how it is taken apart
 * and put together.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_WRAP_H
#define TOSC_PY_WRAP_H

#include "dobject.h"

/* What a value is to the tree. */
enum value_class {
    VALUE_LEAF,      /* cannot change (as far as its type says); stored by value */
    VALUE_TUPLE,     /* exact tuple or named tuple: leaf if all its elements are */
    VALUE_LIST,      /* exact list */
    VALUE_DICT,      /* exact dict */
    VALUE_SET,       /* exact set */
    VALUE_BYTES,     /* exact bytearray */
    VALUE_FROZENSET, /* exact frozenset: leaf if all its elements are */
    VALUE_WRAPPER,   /* a wrapper already */
    VALUE_ANY,       /* custom object whose attributes we can keep ourselves (dany.c) */
    VALUE_OPAQUE,    /* mutable and none of these: compared at commit (opaque.c) */
    VALUE_COPY /* looks into a wrapper (vars(x), a part of an opaque): stored as a plain copy */
};

/* wrap.c. -1 with TypeError for what can be neither kept nor compared (a lock, a file, …). */
int value_classify(PyObject *value);

/* As dobject_adopt(), for what has no owner yet, such as a root: the wrappers belong to `manager`. */
PyObject *adopt_for(Manager *manager, PyObject *value);

/* ---- dany.c ---- */

/* Is it an instance of a plain Python class (attributes in __dict__/__slots__, default pickling)? 1, 0, -1. */
int dany_suits(PyObject *value);
/* A new dict of its attributes and set slots, not adopted. */
PyObject *dany_take_apart(PyObject *value);
/* An empty shell (no class yet), and giving it its class (once; changes the wrapper's type). */
DObject *dany_new_shell(void);
int dany_set_class(DObject *self, PyObject *cls);
/* The plain object: an instance of the class made without __init__, still without attributes … */
PyObject *dany_put_together(PyObject *cls);
/* … and its attributes, from a dict of plain values. */
int dany_fill(PyObject *plain, PyObject *attributes);

/* ---- opaque.c ---- */

/*
 * An opaque's committed state: the bytes of a pickle of the real object, and the tuple of the
 * wrappers that it refers to (which the pickle names by their place in that tuple). These
 * never change. The live object is made from them when it is needed, and may be taken away
 * again: it belongs to whoever works on it.
 */
typedef struct OpaqueState {
    PyObject_HEAD
    PyObject *pickle; /* bytes */
    PyObject *refs;   /* tuple of wrappers */
    PyObject *live;   /* the object, or NULL */
    PyObject
        *baseline; /* the pickle of `live` before anybody worked on it; NULL: not known */
    PyObject *origin; /* the state whose object this one's copy was, unchanged; or NULL */
    bool worked;      /* a transaction works on `live`: the pickle may be older */
    bool derived;     /* a transaction's copy */
    bool captured;    /* the program has something that `live` holds on to */
} OpaqueState;

/* From a record. New references are taken. */
PyObject *opaque_state_from(PyObject *pickle, PyObject *refs);
DObject *opaque_new_shell(void);
int opaque_set_class(DObject *self, PyObject *cls);
/* A new plain copy of the object for a snapshot; `plain_refs` are the plain forms of its refs. */
PyObject *opaque_plain(DObject *owner, PyObject *state, PyObject *plain_refs);
/*
 * What the transaction's copy has become: a new OpaqueState if it differs from `before`,
 * else a new reference to `before`. `live` is the copy's live object, or, which is quicker, the copy itself
 * (an OpaqueState).
 */
PyObject *opaque_settle(DObject *self, PyObject *before, PyObject *live);

#endif
