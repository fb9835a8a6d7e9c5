/*
 * Scopes.
 *
 * A scope is an entry (host.c) that stays open, and the chain of what was borrowed in it. It
 * lies in the user's memory; the thread has a list of them, the innermost first, and a scope
 * that is not the first there is not touched.
 *
 * Pausing lets Python's lock go altogether, however many entries are open around: the thread's
 * depth is 0 meanwhile, so that whoever enters takes the lock anew. The entries stay open, so
 * tosc_host_stop() waits for them, and the lock can always be had again.
 *
 * What ends with a scope is released last of all, as that may run code written in Python, which
 * may enter and leave scopes of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

/* What stands in a tosc_scope. */
struct Scope {
    HostEntry entry;
    struct Scope *outer;
    PyThreadState *state; /* while it is paused */
    uint32_t chain;       /* slots that end with it */
    int depth;            /* the thread's, while it is paused */
    bool paused;
};

_Static_assert(sizeof(struct Scope) <= sizeof(tosc_scope), "tosc_scope is too small");

static inline struct Scope *
scope_of(tosc_scope *scope)
{
    return (struct Scope *)(void *)scope;
}

void *
handle_borrow(HostThread *thread, enum handle_kind kind, PyObject *object)
{
    if (thread->scope == NULL) {
        tosc__fail(TOSC_EINVAL, "nothing can be borrowed outside of a scope: see "
                                "tosc_scope_enter()");
        Py_DECREF(object);
        return NULL;
    }
    return chain_add(&thread->scope->chain, kind, object);
}

int
scope_keep(HostThread *thread, PyObject *object)
{
    if (handle_borrow(thread, HANDLE_KEPT, object) == NULL) {
        return thread->scope == NULL ? TOSC_EINVAL : TOSC_ENOMEM;
    }
    return 0;
}

/* Is it entered by this thread? */
static bool
is_entered(const HostThread *thread, const struct Scope *scope)
{
    const struct Scope *entered = thread->scope;
    while (entered != NULL && entered != scope) {
        entered = entered->outer;
    }
    return entered != NULL;
}

/* And still what this thread has entered: the struct may have been given to another thread. */
static inline bool
is_innermost(const HostThread *thread, const struct Scope *scope)
{
    return thread->scope == scope && scope->entry.thread == thread;
}

/* Why a scope cannot be left, paused or resumed. */
static int __attribute__((noinline, cold))
tell_not_innermost(const HostThread *thread, const struct Scope *scope)
{
    if (thread->scope == scope) {
        return tosc__fail(TOSC_EINVAL,
                          "scope was entered by another thread as well: each "
                          "needs a struct of its own");
    }
    if (is_entered(thread, scope)) {
        return tosc__fail(TOSC_EINVAL, "scope is not this thread's innermost one: those "
                                       "that were entered later have to be left first");
    }
    return tosc__fail(TOSC_EINVAL, "scope was not entered by this thread, or was left");
}

/* Enters, if it is the thread's innermost scope: then host_leave() is the caller's. */
static inline int
enter_innermost(HostEntry *entry, const struct Scope *scope)
{
    if (scope == NULL) {
        return tosc__fail(TOSC_EINVAL, "scope is NULL");
    }
    int status = host_enter(entry);
    if (status == 0 && !is_innermost(entry->thread, scope)) {
        status = host_leave(entry, tell_not_innermost(entry->thread, scope));
    }
    return status;
}

int
tosc_scope_enter(tosc_scope *given)
{
    HostEntry entry;
    struct Scope *scope = scope_of(given);
    if (given == NULL) {
        return tosc__fail(TOSC_EINVAL, "scope is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    HostThread *thread = entry.thread;
    if (is_entered(thread, scope)) {
        tosc__fail(TOSC_EINVAL, "scope is entered already");
        return host_leave(&entry, TOSC_EINVAL);
    }
    *scope = (struct Scope){.entry = entry, .outer = thread->scope, .chain = CHAIN_END};
    thread->scope = scope;
    thread->paused = false;
    return 0;
}

/* The entry holds Python's lock, or the scope is paused. */
static void
scope_take_lock(HostThread *thread, struct Scope *scope)
{
    PyEval_RestoreThread(scope->state);
    thread->depth = scope->depth;
    thread->paused = false;
    scope->paused = false;
    scope->state = NULL;
}

int
tosc_scope_leave(tosc_scope *given)
{
    HostEntry entry;
    struct Scope *scope = scope_of(given);
    int status = enter_innermost(&entry, scope);
    if (status < 0) {
        return status;
    }
    HostThread *thread = entry.thread;
    host_leave(&entry, 0);
    if (scope->paused) {
        scope_take_lock(thread, scope);
    }
    entry = scope->entry;
    thread->scope = scope->outer;
    thread->paused = scope->outer != NULL && scope->outer->paused;
    chain_drop(scope->chain);
    return host_leave(&entry, 0);
}

int
tosc_scope_pause(tosc_scope *given)
{
    HostEntry entry;
    struct Scope *scope = scope_of(given);
    int status = enter_innermost(&entry, scope);
    if (status < 0) {
        return status;
    }
    HostThread *thread = entry.thread;
    if (scope->paused) {
        tosc__fail(TOSC_EINVAL, "scope is paused already");
        return host_leave(&entry, TOSC_EINVAL);
    }
    host_leave(&entry, 0);
    scope->depth = thread->depth;
    scope->paused = true;
    thread->depth = 0;
    thread->paused = true;
    scope->state = PyEval_SaveThread();
    return 0;
}

int
tosc_scope_resume(tosc_scope *given)
{
    HostEntry entry;
    struct Scope *scope = scope_of(given);
    int status = enter_innermost(&entry, scope);
    if (status < 0) {
        return status;
    }
    HostThread *thread = entry.thread;
    if (!scope->paused) {
        tosc__fail(TOSC_EINVAL, "scope is not paused");
        return host_leave(&entry, TOSC_EINVAL);
    }
    host_leave(&entry, 0);
    scope_take_lock(thread, scope);
    return 0;
}

/*
 * Scopes that were entered in `to` and not left may lie in memory that is used for something else
 * by now. They are not looked at; what was borrowed in them stays until the host is stopped.
 */
bool
scope_unwind(HostThread *thread, tosc_scope *to, const HostThread *before)
{
    struct Scope *scope = scope_of(to);
    if (thread->scope == scope) {
        if (scope->paused) {
            scope_take_lock(thread, scope);
        }
        return true;
    }
    host_unwind(thread, before);
    scope->paused = false;
    scope->state = NULL;
    return false;
}
