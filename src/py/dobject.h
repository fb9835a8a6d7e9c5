/*
 * The one object behind DList, DDict, DSet, DByteArray, DAny and DOpaque, and its two doors.
 *
 * A wrapper is a small Python object that points at a plain builtin, its state: a list, a
 * dict, a set, a bytearray; the attributes of a custom object are a dict. The elements of a
 * state are leaves (values that cannot change), other wrappers, or tuples of these.
 *
 * Reading goes through one door, dobject_view(): which builtin may this context see? With
 * no transaction open that is the wrapper's state. A view is never changed while somebody
 * else holds a reference to it: whoever wants to change a state with more than one reference
 * copies it first. So an iterator, a memoryview or a C function that works on a view with a
 * reference of its own works on a stable snapshot, and two views are the same object exactly
 * if nothing was changed in between.
 *
 * Changing goes through the other door:
 *
 *     Write w;
 *     if (write_begin(&w, self) < 0) return -1;
 *     ... look at write_view(&w), decide ...
 *     if (write_op(&w, OP_SET, 0, 0, key, value) < 0) { write_abort(&w); return -1; }
 *     return write_commit(&w);
 *
 * Between begin and commit/abort nobody else can change what this context sees of the
 * object, so what was decided from the view holds. begin may wait for another thread's
 * commit; commit, outside a transaction, writes to the store and may raise TransactionError
 * or an I/O error, and then nothing has changed. Inside a transaction it only notes the
 * operation. Convert and check all arguments (which may run Python code) before begin;
 * between begin and the end run as little foreign code as possible: a change of the same
 * Manager from inside is refused with RuntimeError. Whether the view shows the operations
 * already noted in this Write is undefined: look first, then note.
 *
 * Every value that goes into a state must have passed dobject_adopt() first: it turns plain
 * containers and custom objects into wrappers, at any depth.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_DOBJECT_H
#define TOSC_PY_DOBJECT_H

#include "compat.h"

enum dobject_kind {
    KIND_LIST = 0,
    KIND_DICT = 1,
    KIND_SET = 2,
    KIND_BYTES = 3, /* bytearray */
    KIND_ANY = 4,   /* custom object: state is the dict of its attributes and slots */
    KIND_OPAQUE = 5 /* state is an OpaqueState, see opaque.h */
};

typedef struct Manager Manager; /* manager.h */
typedef struct Change Change;   /* changes.h */
typedef struct OldState OldState;

typedef struct DObject {
    PyObject_HEAD
    PyObject
        *state; /* the newest committed state; of an unlinked object simply its state */
    Manager *manager; /* strong; NULL: stand-alone */
    uint64_t oid;     /* 0: not linked */
    int64_t since;    /* sequence number of the Manager at which `state` became current */
    Change *changes;  /* what open transactions have changed */
    OldState *older;  /* states that open transactions may still need, newest first */
    PyObject *weakrefs;
    uint32_t links; /* how many elements of linked states refer to it */
    uint8_t kind;
    uint8_t flags;
} DObject;

/* DAny and DOpaque carry one thing more. */
typedef struct DAnyObject {
    DObject base;
    PyObject
        *cls; /* the user's class; NULL in a shell whose record has not been read yet */
} DAnyObject;

/* ---- type support (tp_ slots shared by all kinds) ---- */

/*
 * A new wrapper of a type of ours (or a subclass), stand-alone. Steals `state`, also on failure. The
 * wrapper is tracked by the garbage collector.
 */
DObject *dobject_new(PyTypeObject *type, int kind, PyObject *state);
int dobject_traverse(PyObject *self, visitproc visit, void *arg);
int dobject_clear(PyObject *self);
void dobject_dealloc(PyObject *self);
extern PyMemberDef dobject_members[]; /* __weaklistoffset__ */

/* Is it a wrapper (of any kind)? And its kind, -1 if it is none. */
bool dobject_check(PyObject *value);
int dobject_kind(PyObject *value);

/* ---- reading ---- */

/* What readers need to know of a Manager: the start of its struct, see manager.h. */
struct ManagerHead {
    PyObject_HEAD
    Py_ssize_t open_transactions;
};

/* No transaction is open on its Manager: everybody sees self->state. */
static inline bool
dobject_quiet(const DObject *self)
{
    return self->manager == NULL
           || ((const struct ManagerHead *)self->manager)->open_transactions == 0;
}

PyObject *dobject_view_slow(DObject *self);

/* The builtin that this context may see of it, as a new reference; NULL with an exception. */
static inline PyObject *
dobject_view(DObject *self)
{
    return dobject_quiet(self) ? Py_NewRef(self->state) : dobject_view_slow(self);
}

/*
 * Readings of one element, cheap also inside a transaction that has changed a large object
 * (dobject_view would copy it). New references.
 */
int dobject_get(DObject *self, PyObject *key, PyObject **ret); /* dict, attrs: 1, 0, -1 */
int dobject_contains(DObject *self, PyObject *key);      /* dict, attrs, set: 1, 0, -1 */
Py_ssize_t dobject_len(DObject *self);                   /* -1: exception */
PyObject *dobject_item(DObject *self, Py_ssize_t index); /* list; index >= 0; NULL
                                                                      without exception: out of range */

/* Either the view of a wrapper or the value itself: a new reference. */
PyObject *dobject_unwrap(PyObject *value);

/*
 * A deep copy in the original types, as this context sees it: aliases stay aliases, cycles
 * work, depth is bounded by memory. Leaves are returned as they are. New reference.
 */
PyObject *dobject_plain(PyObject *value);

/* ---- changing ---- */

/*
 * What may stand in a state of `owner` (whose Manager the new wrappers will belong to; NULL:
 * stand-alone) for `value`: a leaf as it is, a wrapper as it is (one of another Manager: a
 * copy), anything else that can change as a new wrapper around a copy, at any depth. A new
 * reference, or NULL with TypeError for what can be neither. May run Python code.
 */
PyObject *dobject_adopt(DObject *owner, PyObject *value);

/* The same for all elements: a new list / dict / set whose elements are adopted. */
PyObject *dobject_adopt_list(DObject *owner, PyObject *iterable);
PyObject *dobject_adopt_dict(DObject *owner, PyObject *dict); /* an exact dict */
PyObject *dobject_adopt_set(DObject *owner, PyObject *iterable);

enum op_code {
    OP_ASSIGN =
        0,      /* any kind: `a` (adopted, exact builtin, given away) is the new state */
    OP_SET = 1, /* dict, attrs: [a] = b */
    OP_DEL = 2, /* dict, attrs: del [a]; must be there */
    OP_UPDATE = 3, /* dict, attrs: update with the dict a (given away) */
    OP_ITEM = 4,   /* list: [lo] = a, 0 <= lo < len */
    OP_SPLICE = 5, /* list: [lo:hi] = a (an exact list, given away; NULL: none)
                       bytearray: the same with a bytes object; 0 <= lo <= hi <= len */
    OP_ADD = 6,    /* set: the elements of a (a set, given away) */
    OP_DISCARD = 7 /* set: the same, removed */
};
/* "Given away": the caller keeps its reference but must not change the object any more. */

typedef struct Write {
    DObject *object;
    PyObject *view; /* strong or NULL */
    void *change;   /* private */
    void *turn;     /* private */
    int mode;       /* private */
} Write;

int write_begin(Write *w, DObject *self); /* -1: exception, nothing to end */
PyObject *write_view(Write *w); /* borrowed until the end; NULL: exception, abort */
int write_get(Write *w, PyObject *key,
              PyObject **ret); /* as dobject_get, inside a Write */
Py_ssize_t write_len(Write *w);
int write_op(Write *w, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a, PyObject *b);
int write_commit(Write *w); /* ends it; -1: exception, nothing has changed */
void write_abort(Write *w); /* ends it; keeps a set exception */

/* For opaque.c: is a transaction of this Manager open in this context? And has its innermost block
 * changed (OP_ASSIGN) this object, so that the view belongs to that block alone? */
bool dobject_in_transaction(DObject *self);
bool dobject_is_private(DObject *self);

/* begin, one op, commit. */
int dobject_change(DObject *self, int code, Py_ssize_t lo, Py_ssize_t hi, PyObject *a,
                   PyObject *b);

#endif
