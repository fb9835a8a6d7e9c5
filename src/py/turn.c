/*
 * The turn: which thread may move a Manager from one version to the next.
 *
 * It is handed from thread to thread in the order of asking. Everything here is guarded by
 * the GIL; a thread that waits sleeps on a lock of its own, without the GIL. What a commit has
 * replaced is released after the turn is, since that can run finalisers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "errors.h"
#include "manager.h"
#include "state.h"

typedef struct Waiter {
    PyThread_type_lock lock; /* released to wake us */
    bool granted;
    struct Waiter *next;
} Waiter;

bool
turn_is_mine(Manager *m)
{
    return m->turn_taken && m->turn_owner == PyThread_get_thread_ident();
}

bool
turn_try(Manager *m)
{
    if (m->turn_taken) {
        return false;
    }
    m->turn_taken = true;
    m->turn_owner = PyThread_get_thread_ident();
    return true;
}

static void
leave_queue(Manager *m, Waiter *self)
{
    Waiter **link = &m->turn_first;
    Waiter *before = NULL;
    while (*link != self) {
        before = *link;
        link = &before->next;
    }
    *link = self->next;
    if (m->turn_last == self) {
        m->turn_last = before;
    }
}

/* Sleeps until it is granted: 0; -1 with an exception, no longer in the queue. */
static int
wait_in_queue(Manager *m, Waiter *self, int64_t deadline_ns)
{
    while (!self->granted) {
        PY_TIMEOUT_T wait_us = -1;
        if (deadline_ns != INT64_MAX) {
            int64_t left = (deadline_ns - tosc_monotonic_ns()) / 1000;
            wait_us = left > 0 ? left : 0;
        }
        PyLockStatus status;
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(self->lock, wait_us, 1);
        Py_END_ALLOW_THREADS
        if (self->granted) {
            break;
        }
        if (status == PY_LOCK_INTR && PyErr_CheckSignals() < 0) {
            if (!self->granted) {
                leave_queue(m, self);
                return -1;
            }
            /* The handler took long enough for the turn to come: pass it on. */
            m->turn_owner = PyThread_get_thread_ident();
            turn_release(m);
            return -1;
        }
        if (status == PY_LOCK_FAILURE && !self->granted) {
            leave_queue(m, self);
            PyErr_SetString(tosc_state->TransactionTimeoutError,
                            "timed out while other threads were committing");
            return -1;
        }
    }
    return 0;
}

int
turn_take(Manager *m, int64_t deadline_ns)
{
    if (turn_try(m)) {
        return 0;
    }
    if (turn_is_mine(m)) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "a commit of this Manager is going on in this thread: nothing can be "
            "changed before it has ended");
        return -1;
    }
    Waiter self = {.lock = PyThread_allocate_lock()};
    if (self.lock == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyThread_acquire_lock(self.lock, 1);
    if (m->turn_last != NULL) {
        m->turn_last->next = &self;
    } else {
        m->turn_first = &self;
    }
    m->turn_last = &self;
    int result = wait_in_queue(m, &self, deadline_ns);
    if (result == 0) {
        m->turn_owner = PyThread_get_thread_ident();
    }
    if (!self.granted) {
        PyThread_release_lock(self.lock);
    }
    PyThread_free_lock(self.lock);
    return result;
}

void
turn_release(Manager *m)
{
    DeltaList spent = m->spent;
    RefList drops = m->drops;
    m->spent = (DeltaList){0};
    m->drops = (RefList){0};
    Waiter *next = m->turn_first;
    if (next == NULL) {
        m->turn_taken = false;
    } else {
        m->turn_first = next->next;
        if (m->turn_first == NULL) {
            m->turn_last = NULL;
        }
        m->turn_owner = 0;
        next->granted = true; /* handed over: it stays taken */
        PyThread_release_lock(next->lock);
    }
    if (spent.count > 0 || drops.count > 0) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        deltas_clear(&spent);
        reflist_clear(&drops);
        PyErr_Restore(type, value, traceback);
    }
    PyMem_Free(spent.items);
    PyMem_Free(drops.items);
}
