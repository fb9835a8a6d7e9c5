/*
 * What the files of this room share: entering Python, handles, faults.
 *
 *   host.c       state of the interpreter, threads that enter it, start and stop
 *   host_config.c  PyConfig from the options
 *   host_fork.c  forks of the program
 *   run.c        files, strings, modules, calls; interrupting them
 *   functions.c  C functions for scripts
 *   failure.c    exceptions as status codes, and the other way
 *   handle.c     handles and scopes
 *   make.c       values from C, values as text
 *   at.c         finding the element that a tosc_at means
 *   get.c set.c  typed reading and changing
 *   iterate.c    iterators
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
 * Inside a scope entering costs a few instructions. A thread keeps the Python thread state of
 * its first entry until it ends (or the interpreter does), so its context, and with it an open
 * transaction, lasts from call to call.
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

/* What a thread is doing here. One per thread, freed when the thread ends. */
typedef struct HostThread {
    bool attached; /* it has a Python thread state that we made */
    int depth;     /* entries that hold Python's lock, scopes among them, not paused */
    struct Scope *scope;  /* innermost, or NULL */
    bool paused;          /* the innermost scope is */
    PyThreadState *state; /* of the entry (while depth > 0) */
} HostThread;

typedef struct HostEntry {
    HostThread *thread;
    PyGILState_STATE gil;
    bool nested; /* the lock was held by an entry around this one */
} HostEntry;

/* 0, or TOSC_ECLOSED (not started, or stopping), TOSC_ENOMEM: then nothing to leave. */
int host_enter(HostEntry *entry);
/*
 * Ends it and returns `status`. If that is TOSC_EPYTHON and an exception is set it is taken as
 * by host_failed(); no exception is ever left behind.
 */
int host_leave(HostEntry *entry, int status);

/* ---- failure.c ---- */

/*
 * The exception that is set, as a status; message, type and traceback are kept for this
 * thread's tosc_error_…(), and the exception is cleared. Conflicts and all that core knows come
 * out as their own codes (the inverse of tosc_raise); KeyError, IndexError, AttributeError:
 * TOSC_EPYTHON: callers who mean an element of a value look for these before.
 */
int host_failed(void);
/* The other way: sets the exception for a status that a C function has returned; -1. */
int host_raise(int status);

/* ---- handle.c ---- */

enum handle_kind {
    HANDLE_VALUE = 1,
    HANDLE_MANAGER,
    HANDLE_TRANSACTION,
    HANDLE_ITERATOR,
    HANDLE_WATCH
};

/*
 * A handle to an object, whose reference is taken over (also on failure). It is a number that
 * looks like a pointer: slot and generation, so that one that was given back is recognised. All
 * of this is guarded by Python's lock. NULL: no memory, told to tosc__fail.
 */
void *handle_new(enum handle_kind kind, PyObject *object);
/* The same, given back when the thread's innermost scope is left. NULL also: not in a scope. */
void *handle_borrow(HostThread *thread, enum handle_kind kind, PyObject *object);
/*
 * The object: borrowed, NULL with TOSC_EINVAL told if it is no valid handle of this kind;
 * `what` names the argument in the message.
 */
PyObject *handle_get(const void *handle, enum handle_kind kind, const char *what);
/* One more owner of the handle; false: not valid. */
bool handle_ref(void *handle, enum handle_kind kind);
/* One owner less; the last takes the object with it. False: not valid, or borrowed. */
bool handle_unref(void *handle, enum handle_kind kind);
/* For iterators: another object under the same handle. Takes over the reference. */
void handle_replace(void *handle, PyObject *object);
/* How many are in use: for tests of leaks. */
size_t handle_count(void);
/* Keeps an object until the thread's innermost scope is left; takes over the reference. */
int scope_keep(HostThread *thread, PyObject *object);

static inline PyObject *
value_get(const tosc_value *value, const char *what)
{
    return handle_get(value, HANDLE_VALUE, what);
}

/* A new owned value handle for a new reference (NULL: an exception is set): 0 or a status. */
int value_return(PyObject *object, tosc_value **ret);
int value_return_borrowed(HostThread *thread, PyObject *object, tosc_value **ret);

/* ---- at.c ---- */

/* Finds the element: a new reference in *ret, or TOSC_ENOTFOUND, TOSC_ETYPE, TOSC_EINVAL. */
int at_find(PyObject *object, tosc_at at, PyObject **ret);

#endif
