/*
 * What the files of this room share: entering Python, handles, faults.
 *
 *   host.c       state of the interpreter, threads that enter it, start and stop
 *   host_config.c  PyConfig from the options
 *   host_fork.c  forks of the program
 *   host_signals.c  the program's signal handlers
 *   run.c, script.c, main_module.c, call.c  scripts and calls: see script.h
 *   functions.c  C functions for scripts
 *   publish.c    Managers by name
 *   failure.c    exceptions as status codes, and the other way
 *   handle.c     handles
 *   scope.c      scopes
 *   make.c       values from C, values as text
 *   names.c      C text as str
 *   at.c         finding the element that a tosc_at means
 *   path.c       the same for paths
 *   place.c      where an element is, or will be
 *   value_errors.c  what an exception of such an operation means, and what to say
 *   ask.c        types, presence, lengths, equality
 *   get.c set.c  typed reading and changing
 *   collections.c  lists and sets
 *   add.c        adding to an int
 *   iterate.c    iterators
 *   json.c       values as JSON
 *   managers.c   Managers and the stored object
 *   transact.c   transactions
 *   watches.c    being told of changes
 *
 * Every public function that touches Python is
 *
 *     HostEntry entry;
 *     int status = host_enter(&entry);
 *     if (status < 0) { return status; }
 *     ... Python's lock is held ...
 *     return host_leave(&entry, status);
 *
 * Inside a scope entering costs a few instructions. A thread keeps the Python thread
 * state of its first entry until it ends (or the interpreter does), so its context, and
 * with it an open transaction, lasts from call to call.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_HOST_HOST_H
#define TOSC_HOST_HOST_H

#include "py/compat.h"

#include <tosc/host.h>

#include "core/error.h"

/* ---- host.c: entering ---- */

struct Scope; /* private part of tosc_scope, handle.c */

struct HostCallback; /* a C function that a script has called, failure.c */

/* What a thread is doing here. One per thread, made with it. */
typedef struct HostThread {
    PyThreadState *state; /* that the entries of this thread run with (while depth > 0) */
    int depth;   /* entries that hold Python's lock, scopes among them, not paused */
    int counted; /* of these and the paused ones: those that tosc_host_stop() waits for */
    bool attached;                 /* `state` is kept from entry to entry */
    bool made;                     /* and is ours to end, with the thread */
    bool noted;                    /* its end will be told */
    bool paused;                   /* the innermost scope is */
    bool forking;                  /* by Python's own os.fork() */
    struct Scope *scope;           /* innermost, or NULL */
    struct HostCallback *callback; /* innermost C function called by a script, or NULL */
    int callbacks; /* of ours that this thread is in: no stopping from there */
} HostThread;

/* How an entry has got Python's lock. */
enum host_entry_kind {
    ENTRY_NESTED,   /* it had it: by an entry around this one, or as a script's thread */
    ENTRY_RESTORED, /* with the state that the thread keeps */
    ENTRY_ENSURED /* by PyGILState_Ensure(), the thread being Python's or the program's */
};

typedef struct HostEntry {
    HostThread *thread;
    PyGILState_STATE gil;
    uint8_t kind; /* enum host_entry_kind */
    bool counted; /* tosc_host_stop() waits for it */
} HostEntry;

/* 0, or TOSC_ECLOSED (not started, or stopping), TOSC_ENOMEM: then nothing to leave. */
int host_enter(HostEntry *entry);
/*
 * Ends it and returns `status`. If that is TOSC_EPYTHON and an exception is set it is
 * taken as by host_failed(); no exception is ever left behind.
 */
int host_leave(HostEntry *entry, int status);
/* The calling thread's; also without an entry. */
HostThread *host_thread(void);
/*
 * Entries that a C function should have left, and has not, are ended: the thread holds
 * Python's lock, and is what it was before (a copy).
 */
void host_unwind(HostThread *thread, const HostThread *before);

/* ---- failure.c ---- */

/*
 * The exception that is set, as a status; message, type and traceback are kept for this
 * thread's tosc_error_…(), and the exception is cleared. Conflicts and all that core
 * knows come out as their own codes (the inverse of tosc_raise); KeyError, IndexError,
 * AttributeError: TOSC_EPYTHON: callers who mean an element of a value look for these
 * before.
 */
int host_failed(void);
/*
 * The same under another code, which the caller knows better; then without type and
 * traceback.
 */
int host_failed_as(int status);
/* Is it the SystemExit of a script that ended well? Then it is cleared. */
bool host_exited_well(void);
/* The other way: sets the exception for a status that a C function has returned; -1. */
int host_raise(int status);
/*
 * What a function of the program has returned, which was called when this thread had met
 * `faults` faults. If it has left no message the last one is about something else: then the
 * code's name is told instead.
 */
int host_returned(int status, unsigned long faults);
/*
 * Round the call of a C function by a script: exceptions that it meets are kept, so that
 * host_raise() gives the script the very one.
 */
typedef struct HostCallback {
    struct HostCallback *outer;
    PyObject *exception;
    int status;
    unsigned long fault;
} HostCallback;
void host_callback_begin(HostThread *thread, HostCallback *callback);
void host_callback_end(HostThread *thread, HostCallback *callback);

/* ---- handle.c ---- */

enum handle_kind {
    HANDLE_VALUE = 1,
    HANDLE_MANAGER,
    HANDLE_TRANSACTION,
    HANDLE_ITERATOR,
    HANDLE_WATCH
};

/*
 * A handle to an object, whose reference is taken over (also on failure). It is a number
 * that looks like a pointer: slot and generation, so that one that was given back is
 * recognised. All of this is guarded by Python's lock. NULL: no memory, told to
 * tosc__fail.
 */
void *handle_new(enum handle_kind kind, PyObject *object);
/*
 * The same, given back when the thread's innermost scope is left. NULL also: not in a
 * scope.
 */
void *handle_borrow(HostThread *thread, enum handle_kind kind, PyObject *object);
/*
 * The object: borrowed, NULL with TOSC_EINVAL told if it is no valid handle of this kind;
 * `what` names the argument in the message.
 */
PyObject *handle_get(const void *handle, enum handle_kind kind, const char *what);
/*
 * One more owner of the handle; false, and nothing told: not valid, or lent to the user.
 */
bool handle_ref(void *handle, enum handle_kind kind);
/* One owner less; the last takes the object with it. False: not valid, or borrowed. */
bool handle_unref(void *handle, enum handle_kind kind);
/*
 * For iterators and the like: a handle that belongs to the library, which ends it with
 * handle_end(); the user cannot give it back. handle_replace puts another object into its
 * place and gives the handle that it has now: the one before is not valid any more. The
 * reference is taken over, also on failure (NULL, and told).
 */
void *handle_lend(enum handle_kind kind, PyObject *object);
void *handle_replace(void *handle, PyObject *object);
void handle_end(void *handle);
/*
 * Is there a handle of a value of which that holds? While the answer is yes for the same value
 * it costs nothing.
 */
bool handle_holds(bool (*holds)(PyObject *object, const void *of), const void *of);
/* How many are in use: for tests of leaks. */
size_t handle_count(void);
/*
 * Keeps an object until the thread's innermost scope is left; takes over the reference.
 */
int scope_keep(HostThread *thread, PyObject *object);

/*
 * For who has called a C function in the scope `to`: it is the thread's innermost again,
 * not paused, and Python's lock is held. false: the function had left scopes open.
 * `before`: what the thread was before the call.
 */
bool scope_unwind(HostThread *thread, tosc_scope *to, const HostThread *before);

/*
 * For tosc_host_stop(), with Python's lock held, before the interpreter ends: gives back
 * what all handles hold and what this part has cached.
 */
void values_stop(void);

static inline PyObject *
value_get(const tosc_value *value, const char *what)
{
    return handle_get(value, HANDLE_VALUE, what);
}

/*
 * A new owned value handle for a new reference (NULL: an exception is set): 0 or a
 * status.
 */
int value_return(PyObject *object, tosc_value **ret);
int value_return_borrowed(HostThread *thread, PyObject *object, tosc_value **ret);

/* ---- transact.c ---- */

/*
 * For tosc_host_stop(), before values_stop(): rolls back what C code has begun and not
 * ended.
 */
void transactions_stop(void);

/* ---- watches.c ---- */

/*
 * For tosc_host_stop(), before values_stop(), with Python's lock held, which is let go
 * while a callback has not returned: nothing more is told.
 */
void watches_stop(void);

/* ---- at.c ---- */

/*
 * Finds the element: a new reference in *ret, or TOSC_ENOTFOUND, TOSC_ETYPE, TOSC_EINVAL.
 */
int at_find(PyObject *object, tosc_at at, PyObject **ret);

#endif
