/*
 * The Managers of this process: forks, locks that one thread holds, the end.
 *
 * All live Managers are in a list, so that their watchers can be stopped before the
 * interpreter finalises, and so that a child of a fork can make its own usable: it has no
 * watcher thread, and nobody there will ever give the turn back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watching.h"

#include <pthread.h>
#include <string.h>

volatile unsigned tosc_fork_generation;
static Manager *live_managers; /* guarded by the GIL */

static void
forked(void)
{
    tosc_fork_generation++;
    watchers_after_fork();
}

void
managers_after_fork(Manager *m)
{
    m->fork_generation = tosc_fork_generation;
    m->watcher = NULL; /* its thread is the parent's; the struct is left alone */
    m->turn_taken = false;
    m->lent = false;
    m->exclusive = false;
    m->turn_first = NULL;
    m->turn_last = NULL;
    /* A thread that was fetching after its conflict (sync.c) had its transaction not counted. */
    m->open_transactions = 0;
    for (const Transaction *tx = m->open; tx != NULL; tx = tx->next) {
        m->open_transactions++;
    }
    /* Other threads' transactions will never end here. */
    unsigned long self = PyThread_get_thread_ident();
    for (Transaction *tx = m->open, *next; tx != NULL; tx = next) {
        next = tx->next;
        if (tx->thread != self) {
            transaction_rollback(tx);
        }
    }
    if (!m->closed && watcher_start(m) < 0) {
        PyErr_Clear(); /* then nothing is seen before it is asked for */
    }
    watching_after_fork(m);
}

static bool
same_store(const Manager *a, const Manager *b)
{
    return a->impl == b->impl
           || (a->at.stored && b->at.stored
               && memcmp(a->at.store_id, b->at.store_id, sizeof(a->at.store_id)) == 0
               && a->ops == b->ops);
}

int
managers_check_lock(Manager *m)
{
    unsigned long self = PyThread_get_thread_ident();
    for (Manager *other = live_managers; other != NULL; other = other->following) {
        if (other != m && other->exclusive && other->turn_owner == self
            && same_store(m, other)) {
            PyErr_SetString(
                PyExc_RuntimeError,
                "this thread holds the store's lock through another Manager (in "
                "a transactional function): it would wait for itself");
            return -1;
        }
    }
    return 0;
}

void
live_join(Manager *m)
{
    m->following = live_managers;
    if (live_managers != NULL) {
        live_managers->previous = m;
    }
    live_managers = m;
}

void
live_leave(Manager *m)
{
    if (m->previous != NULL) {
        m->previous->following = m->following;
    } else if (live_managers == m) {
        live_managers = m->following;
    }
    if (m->following != NULL) {
        m->following->previous = m->previous;
    }
    m->previous = NULL;
    m->following = NULL;
}

/*
 * A Manager and its objects refer to each other: left by all others it is there until the garbage
 * collector runs. Is the caller's reference the only other one?
 */
static bool
is_the_last(const Manager *m)
{
    return Py_REFCNT(m) - 1 <= (Py_ssize_t)m->table.used;
}

void
manager_let_go(Manager *m)
{
    bool ends = m != NULL && m->left == LEFT_IN_USE && is_the_last(m);
    if (ends) {
        m->left = LEFT_NOT; /* once: objects of it may be held by a script */
    }
    Py_XDECREF((PyObject *)m);
    if (ends) {
        PyGC_Collect();
    }
}

void
live_stop_watching(Manager *m, bool wait)
{
    if (m->fork_generation == tosc_fork_generation) {
        watcher_stop(m, wait);
    }
    m->watcher = NULL;
    watching_close(m, wait);
}

/* Before the interpreter finalises: no thread of ours may ask for the GIL after that. */
static PyObject *
stop_all(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Manager *m = live_managers;
    while (m != NULL) {
        if (m->watcher == NULL && m->watching == NULL) {
            m = m->following;
            continue;
        }
        Py_INCREF(m);
        live_stop_watching(m, true);
        Py_DECREF(m);
        m = live_managers; /* the list may have changed while the GIL was released */
    }
    Py_BEGIN_ALLOW_THREADS
    hubs_wait(); /* callbacks of Managers that are gone */
    Py_END_ALLOW_THREADS
    watchers_wait_for_end();
    Py_RETURN_NONE;
}

static PyMethodDef stop_all_def = {"_stop_all", stop_all, METH_NOARGS, NULL};

static int
register_exit(void)
{
    PyObject *atexit = PyImport_ImportModule("atexit");
    PyObject *function = atexit == NULL ? NULL : PyCFunction_New(&stop_all_def, NULL);
    PyObject *result =
        function == NULL ? NULL : PyObject_CallMethod(atexit, "register", "O", function);
    Py_XDECREF(atexit);
    Py_XDECREF(function);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
live_init(void)
{
    static bool watching_forks;
    if (!watching_forks) {
        watching_forks = pthread_atfork(NULL, NULL, forked) == 0;
    }
    return register_exit();
}
