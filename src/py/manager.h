/*
 * Manager and Transaction: their structs, and what the files that implement them offer to
 * each other.
 *
 *   graph.c        which objects are linked (by oid), counting links, applying a commit
 *   encode.c       records: commits and the whole graph as bytes
 *   decode.c       and back
 *   turn.c         which thread may talk to the store
 *   sync.c         turning changes into commits and commits into changes
 *   watcher.c      the background thread; compaction
 *   transaction.c  Transaction, and which one belongs to this context
 *   watching.c     what has changed, for those who watch (paths.c, parents.c, telling.c)
 *   live.c         all Managers of the process: forks, the end
 *   stored.c       the stored object: reading and replacing it
 *   transactional.c  running something in a transaction until it succeeds
 *   manager.c      the Python type; opening, closing
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_MANAGER_H
#define TOSC_PY_MANAGER_H

#include "changes.h"
#include "oidtable.h"

#include <tosc/backend.h>

struct Waiter;
struct Watcher;
struct Watching;

/* An older state of an object, as long as some open transaction may need it. */
struct OldState {
    PyObject *state;
    int64_t since;
    OldState *next; /* older still */
};

/* One object's part of a commit. */
typedef struct Delta {
    DObject *object; /* strong */
    uint64_t oid;    /* in a record that was read: what the object is called in it */
    PyObject *whole; /* its new state, or NULL */
    Op *ops;         /* else what to do; owned if owns_ops */
    Py_ssize_t n_ops;
    bool fresh; /* was not linked before */
    bool owns_ops;
    bool held; /* the committer holds a reference to the object's present state */
    int keys;  /* enum key_traits of `whole`; only in a record that was read */
    /* private to graph_apply */
    PyObject *next;
    Traffic *traffic; /* NULL for fresh objects */
} Delta;

typedef struct DeltaList {
    Delta *items;
    Py_ssize_t count;
    Py_ssize_t room;
} DeltaList;

/* A Manager of which C has given back the last handle: who else keeps it. */
enum left { LEFT_NOT, LEFT_IN_USE, LEFT_TO_VALUES };

struct Manager {
    PyObject_HEAD
    Py_ssize_t open_transactions; /* must come first: struct ManagerHead */
    PyObject *weakrefs;

    PyObject *backend_object;
    tosc_backend *backend;
    const struct tosc_backend_ops *ops;
    void *impl;
    PyObject *key; /* bytes or NULL: authenticates records */
    PyObject
        *allowed; /* frozenset of "module.qualname", or NULL: all classes may be loaded */
    PyObject *chain; /* bytes: what the next record is authenticated with, or NULL */

    /* The state that memory holds. */
    tosc_position at;
    bool loaded;
    bool closed;
    bool
        behind; /* a commit is stored that memory could not take in: the watcher fetches it */
    bool
        tolerant; /* takes placeholders for classes that cannot be loaded, see missing.c */
    int64_t seq;  /* rises by one with each commit that is applied */
    uint64_t base_bytes;
    uint64_t tail_bytes;

    /* The graph: the linked objects. */
    DObject *
        cell; /* a hidden list with the root as its only element; empty: nothing stored */
    OidTable table;
    uint64_t next_oid;
    uint64_t suspects; /* how often something may have become cyclic garbage, unnoticed */
    RefList aged;      /* objects that have older states */

    Transaction *open; /* outermost open transactions, linked */

    /* The turn: who may talk to the store. Guarded by the GIL. */
    bool turn_taken;
    unsigned long turn_owner;
    struct Waiter *turn_first;
    struct Waiter *turn_last;
    bool lent;      /* the turn is held by sync_lock, for a transaction's commit to use */
    bool exclusive; /* the owner of the turn also holds the backend's lock */
    int recent_conflicts;
    DeltaList spent; /* what commits have replaced, released when the turn is */
    RefList drops;

    enum left left; /* to be ended by who lets it go last, see live.c */
    struct Watcher *watcher;
    struct Watching *watching; /* who is to be told of changes; NULL: nobody */
    unsigned fork_generation;
    Manager *previous; /* all live managers, for exit and fork */
    Manager *following;
};

enum transaction_state { TX_NEW, TX_OPEN, TX_COMMITTING, TX_DONE };

struct Transaction {
    PyObject_HEAD
    Manager *manager;
    Transaction
        *outer; /* strong: the one that was open in this context before (any Manager) */
    Transaction *
        top; /* the outermost of this Manager; itself: this is it (then not a reference) */
    int state;
    int level;
    unsigned long thread;
    PyObject *task; /* the asyncio task that opened it, or NULL */
    PyObject *weakrefs;
    /* in the outermost only */
    int depth; /* level of the innermost open block */
    int64_t
        deadline; /* for the waits of its commit (CLOCK_MONOTONIC, ns); INT64_MAX: none */
    int64_t start; /* sequence number of the state that it sees */
    tosc_position at;
    Change *changes;
    Transaction *previous; /* open ones of the Manager */
    Transaction *next;
};

/* ---- graph.c ---- */

Delta *deltas_add(DeltaList *list, DObject *object);
void deltas_clear(DeltaList *list);

DObject *graph_find(Manager *m, uint64_t oid); /* borrowed; NULL: none (no exception) */
int graph_init(Manager *m);
void graph_free(Manager *m);
/* Lets go of all objects that the program does not hold. */
void graph_release(Manager *m);
int graph_traverse(Manager *m, visitproc visit, void *arg);
/*
 * Makes a commit visible: prepares all that can fail, then swaps at one blow. `own` is the
 * transaction that made it, or NULL. `gone`: oids that the committer found to be garbage.
 * What is dropped goes to `drops`, to be released by the caller when it holds nothing.
 */
int graph_apply(Manager *m, DeltaList *deltas, const uint64_t *gone, size_t n_gone,
                Transaction *own, RefList *drops);
/*
 * Sets delta->fresh: which objects are not in the table. An object that has just left it, by a
 * base that is older than what we knew, gets its oid again.
 */
void graph_mark_fresh(Manager *m, DeltaList *deltas);
/* The same for a whole graph: objects that it does not name are no longer linked. */
int graph_replace(Manager *m, DeltaList *deltas, RefList *drops);
/* Is it reachable from the root, as this transaction (or NULL: everybody) sees the graph? */
int graph_reaches(Manager *m, Transaction *top, DObject *object);
/* All objects that can be reached, states being what `viewer` says: strong references. */
typedef PyObject *(*graph_viewer)(DObject *object, void *arg);
int graph_reachable(Manager *m, graph_viewer viewer, void *arg, RefList *ret);
/* Adds to ret the wrappers that an object's state holds less often than before. */
int graph_net_losses(const Traffic *traffic, RefList *ret);
/*
 * Of the objects that have lost a link and kept another: which hang only on a cycle? They and
 * what hangs on them are added to ret. Where the answer would take long, the object is counted
 * as a suspect instead.
 */
int graph_small_cycles(Manager *m, const RefList *losers, RefList *ret);
/* The new objects of a commit that only hang on each other are added to ret. */
int graph_orphans(const DeltaList *deltas, RefList *ret);
/* Do these objects hang on nothing but each other? */
int graph_is_garbage(Manager *m, const uint64_t *oids, size_t count);
/* The linked objects that are not reachable: a new array of oids. */
int graph_garbage(Manager *m, Transaction *top, uint64_t **ret, size_t *ret_count);
/* "root['a'][3]" for a value that stands in the graph; a new reference. */
PyObject *graph_path(Manager *m, Transaction *top, PyObject *value);
/* Lets go of older states that no open transaction can need. */
void graph_forget(Manager *m, RefList *drops);
/* The state of an object at a sequence number: borrowed. */
PyObject *graph_state_at(DObject *object, int64_t seq);
/* What a transaction (NULL: nobody's) sees of an object: borrowed; NULL: exception. */
PyObject *graph_view(DObject *object, Transaction *top);

/* ---- turn.c ---- */

/*
 * Waits for the turn until deadline_ns (CLOCK_MONOTONIC; INT64_MAX: for ever), the GIL
 * released. -1: exception (timeout, signal handler, re-entered by its owner).
 */
int turn_take(Manager *m, int64_t deadline_ns);
bool turn_try(Manager *m);
bool turn_is_mine(Manager *m);
void turn_release(Manager *m);

/* ---- sync.c ---- */

/* Common entry: not closed, and after a fork made usable again. -1: ClosedError. */
int sync_enter(Manager *m);
/* Memory holds something: reads the store if it was never read. */
int sync_load(Manager *m);
/* Applies what was read, everything or what follows `at`. The turn is the caller's. */
int sync_apply(Manager *m, const tosc_data *data);
/* Replaces all that is stored by `change`, without having to know what it is. The same. */
int sync_overwrite(Manager *m, Change *change);
/* If the backend can tell for nothing that there is something newer, fetches it (not waiting for others). */
int sync_freshen(Manager *m);
/* The same for who has the turn: nothing that ended before is missing afterwards. */
int sync_catch_up(Manager *m);
/* Fetches what is new. Takes the turn unless it is the caller's. */
int sync_pull(Manager *m);
/*
 * Stores changes that started from `at` and applies them. The turn is the caller's, and so
 * remain the changes. -1: exception, exactly TransactionError if it is a conflict.
 */
int sync_commit(Manager *m, Change *changes, const tosc_position *at, Transaction *own);
/* Removes cyclic garbage by a commit that names it, if there may be much. Takes the turn. */
int sync_sweep(Manager *m);
/*
 * The turn, and the backend's exclusive lock if it has one. sync_lock fetches what is new,
 * and changes made until sync_unlock cannot conflict with those who heed the lock.
 */
int sync_lock(Manager *m, int64_t deadline_ns);
int sync_lock_as_is(Manager *m, int64_t deadline_ns); /* fetches nothing */
void sync_unlock(Manager *m);
int64_t tosc_monotonic_ns(void);

/* ---- missing.c ---- */

/*
 * What is stored needed a class that cannot be loaded. If that is history, and nothing of it
 * is left in the present state, the state as one whole record; else NULL with the exception
 * that was set at the call.
 */
struct tosc_blob *missing_skip(Manager *m, const tosc_data *whole);
/* A class to stand for one that cannot be loaded; cannot be pickled. */
PyObject *missing_class(PyObject *module, PyObject *name);

/* ---- transaction.c ---- */

/* The outermost transaction of `m` that is open in this context: borrowed, or NULL. */
Transaction *transaction_current(Manager *m);
Transaction *transaction_new(Manager *m);
int transaction_begin(Transaction *self);
/* May it be ended here and now? -1 with RuntimeError: it is not open, not of this thread and
 * task, or this code was called from inside of a use of one of its objects. */
int transaction_can_end(const Transaction *self);
/* Ends this block (and all open ones inside it). -1: exception; it is ended in any case. */
int transaction_commit(Transaction *self);
void transaction_rollback(Transaction *self);
/* This transaction's change of an object, innermost block: NULL if none. */
Change *transaction_find(Transaction *top, DObject *object);
/* The same for writing: belongs to the innermost block. NULL: exception. */
Change *transaction_change(Transaction *top, DObject *object);

/* ---- watcher.c ---- */

int watcher_start(Manager *m);
/* Ends it; `wait`: and does not return before that (the GIL released). */
void watcher_stop(Manager *m, bool wait);
void watchers_wait_for_end(void); /* at exit: for those that nobody waited for */
void watchers_after_fork(void);
void watcher_moved(Manager *m);   /* the Manager is at another version now */
void watcher_compact(Manager *m); /* replace the tail by a new base, in the background */

/* ---- stored.c ---- */

/*
 * What is stored, as this context sees it: 1 with a new reference, 0: nothing is stored, -1.
 * read asks the store only where that costs nothing; refresh asks it; snapshot is a plain deep
 * copy.
 */
int stored_read(Manager *m, PyObject **ret);
int stored_refresh(Manager *m, PyObject **ret);
int stored_snapshot(Manager *m, PyObject **ret);
int stored_version(Manager *m, int64_t *ret);
/* Replaces it, whatever it is; try_write: if its version is *expected (NULL: if nothing is
 * stored): 1, else 0. */
int stored_write(Manager *m, PyObject *value);
int stored_try_write(Manager *m, PyObject *value, const int64_t *expected);
/* 1, 0, -1. */
int stored_is_linked(Manager *m, DObject *object);
int stored_is_dirty(Manager *m, DObject *object);

/* ---- transactional.c ---- */

/* Something that is run in a transaction, perhaps several times. */
typedef struct Attempt {
    /* 0: commit; -1: roll back, and that is all. With or without an exception. */
    int (*run)(struct Attempt *self);
    PyObject
        *result; /* what it gave, strong or NULL; dropped where nothing was kept of it */
} Attempt;

/*
 * Runs it until its transaction commits: again after each conflict, at most `retries` times
 * (-1: without limit) and for timeout_ns (-1: without limit). Inside a transaction of this
 * context it runs once, as a nested block. -1: what it returned, or an exception.
 */
int transact(Manager *m, Attempt *attempt, int64_t retries, int64_t timeout_ns);

/* ---- manager.c ---- */

/*
 * Makes a Manager that tp_new has made work with a backend, an object as tosc_backend_of()
 * takes it. `key`: bytes-like; `allowed`: an iterable of classes and names; NULL, None: none.
 */
int manager_open(Manager *m, PyObject *backend, PyObject *key, PyObject *allowed);
/* Waits for the watcher to end. */
void manager_close(Manager *m);

/* ---- live.c ---- */

int live_init(void); /* told of forks, and of the interpreter's end */
void live_join(Manager *m);
void live_leave(Manager *m);
void live_stop_watching(Manager *m, bool wait);

/*
 * Gives back a reference (NULL: none). If C has given back its last handle meanwhile and this is
 * the last use, the Manager ends now: the garbage collector is run.
 */
void manager_let_go(Manager *m);

void managers_after_fork(Manager *m);
/* -1 with RuntimeError if this thread holds the lock of m's store through another Manager. */
int managers_check_lock(Manager *m);
extern volatile unsigned tosc_fork_generation;

#endif
