/*
 * The background: a thread that waits for changes, and compaction.
 *
 * The watcher waits in the backend, without the GIL. What it shares with the Manager is a
 * small struct that lives until both are done with it: the position that memory is at, an
 * event that ends the wait, and a weak reference to the Manager, so that the watcher keeps no
 * Manager alive. When there is something new it takes the GIL, then the turn if that is free,
 * and fetches. If the turn is not free, somebody is committing and will be up to date
 * afterwards; it looks again a moment later.
 *
 * A fault is reported once through warnings and tried again, at growing intervals.
 *
 * Compaction runs in a thread of its own that lives only for it. It reads the graph inside a
 * transaction, so commits go on meanwhile.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "errors.h"
#include "state.h"

#include "core/error.h"

#include <pthread.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#define BUSY_NS 300000  /* waits that are shorter than this … */
#define BUSY_COUNT 8    /* … and that many in a row: changes are taken together, … */
#define BUSY_PAUSE_MS 1 /* … with pauses of at least this */
#define LONGEST_BREATHER_MS 50
#define LONGEST_PAUSE_MS 2000
#define COMPACT_AGAIN_NS INT64_C(10000000000)

/* Threads of ours that have not ended, under the GIL. */
static int running_threads;

struct Watcher {
    pthread_t thread;
    pthread_t compactor;
    tosc_backend *backend;
    tosc_event *stop;
    PyObject *manager;    /* weak reference, or NULL: it has gone; guarded by the GIL */
    pthread_mutex_t lock; /* guards `at` */
    tosc_position at;
    bool stopping;   /* under the GIL */
    bool compacting; /* under the GIL */
    bool has_compactor;
    bool compaction_failed; /* the last one: the next one is not before */
    int64_t compact_at;     /* this time; both under the GIL */
    int refs;               /* under the GIL: the Manager, each thread */
};

static void
watcher_unref(struct Watcher *w)
{
    if (--w->refs == 0) {
        tosc_backend_unref(w->backend);
        Py_CLEAR(w->manager);
        tosc_event_free(w->stop);
        pthread_mutex_destroy(&w->lock);
        PyMem_RawFree(w);
    }
}

/* Sleeps; true: told to stop. */
static bool
pause_ms(struct Watcher *w, int ms)
{
    struct pollfd fd = {.fd = tosc_event_fd(w->stop), .events = POLLIN};
    poll(&fd, 1, ms);
    return tosc_event_is_set(w->stop);
}

/* The GIL is held, an exception is set. */
static void
report(struct Watcher *w, const char *what)
{
    PyObject *type, *value, *traceback;
    if (PyErr_ExceptionMatches(tosc_state->StorageError)
        && tosc_error_errno() == ESHUTDOWN) {
        return; /* the process ends */
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                         "tosc: %s the store failed, trying again: %S", what, value)
        < 0) {
        PyErr_WriteUnraisable(w->manager);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/*
 * A new reference to the Manager, or NULL. It takes a weak reference to know whether it is
 * still there: the garbage collector clears those before it touches anything.
 */
static Manager *
get_manager(struct Watcher *w)
{
    PyObject *manager = w->manager == NULL ? Py_None : PyWeakref_GetObject(w->manager);
    return manager == Py_None || manager == NULL ? NULL : (Manager *)Py_NewRef(manager);
}

/* Takes the GIL and fetches: 1 done, 0 somebody else is at it, -1 it failed, -2 the end. */
static int
fetch(struct Watcher *w, int failures)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    Manager *m = get_manager(w);
    int result;
    if (m == NULL || w->stopping || m->closed) {
        result = -2;
    } else if (!m->loaded && !m->behind) {
        result = 1; /* nobody has looked at the store yet: nothing to keep up to date */
    } else if (m->turn_first != NULL || !turn_try(m)) {
        result = 0;
    } else {
        result = sync_pull(m) < 0 ? -1 : 1;
        turn_release(m);
        if (result < 0) {
            if (failures == 0) {
                report(w, "watching");
            }
            PyErr_Clear();
        }
    }
    manager_let_go(m);
    if (w->stopping) {
        result = -2;
    }
    PyGILState_Release(gil);
    return result;
}

/* A wait failed: reported like a failed fetch. True: the end. */
static bool
wait_failed(struct Watcher *w, int status, int failures)
{
    if (failures > 0 && status != TOSC_EPYTHON) {
        return false;
    }
    PyGILState_STATE gil = PyGILState_Ensure();
    bool end = w->stopping;
    if (!end) {
        tosc_raise(status);
        if (PyErr_Occurred() && failures == 0) {
            report(w, "watching");
        }
    }
    PyErr_Clear();
    PyGILState_Release(gil);
    return end;
}

/* After work of this length: at least as long, so that the program gets its share. */
static int
breather_ms(int64_t worked_ns)
{
    int64_t ms = worked_ns / 1000000 + BUSY_PAUSE_MS;
    return ms < LONGEST_BREATHER_MS ? (int)ms : LONGEST_BREATHER_MS;
}

static void
watch(struct Watcher *w)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(w->backend);
    void *impl = tosc_backend_impl(w->backend);
    int failures = 0;
    int busy = 0;
    while (!tosc_event_is_set(w->stop)) {
        pthread_mutex_lock(&w->lock);
        tosc_position at = w->at;
        pthread_mutex_unlock(&w->lock);
        bool changed = false;
        int64_t began = tosc_monotonic_ns();
        int status = ops->wait(impl, &at, -1, w->stop, &changed);
        int64_t woken = tosc_monotonic_ns();
        int result = 1;
        if (status != TOSC_OK && status != TOSC_EINTR) {
            if (wait_failed(w, status, failures)) {
                return;
            }
            result = -1;
        } else if (status == TOSC_OK && changed && !tosc_event_is_set(w->stop)) {
            result = fetch(w, failures);
        }
        if (result == -2) {
            return;
        }
        if (result < 0) {
            int pause = failures > 7 ? LONGEST_PAUSE_MS : 10 << failures;
            failures++;
            if (pause_ms(w, pause)) {
                return;
            }
            continue;
        }
        failures = 0;
        busy = woken - began < BUSY_NS ? busy + 1 : 0;
        if ((result == 0 || busy > BUSY_COUNT)
            && pause_ms(w, breather_ms(tosc_monotonic_ns() - woken))) {
            return;
        }
    }
}

static void *
watcher_main(void *arg)
{
    /* One thread state for all its life, so that a backend in Python sees one thread. */
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_BEGIN_ALLOW_THREADS
    watch(arg);
    Py_END_ALLOW_THREADS
    watcher_unref(arg);
    running_threads--;
    PyGILState_Release(gil);
    return NULL;
}

/* Signals are for the main thread. */
static int
start_thread(pthread_t *ret, void *(*main)(void *), void *arg)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(ret, NULL, main, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        return tosc_raise(tosc__fail_errno(error, NULL, "a thread for a Manager"));
    }
    running_threads++;
    return 0;
}

void
watchers_wait_for_end(void)
{
    for (int i = 0; i < 300 && running_threads > 0; i++) {
        Py_BEGIN_ALLOW_THREADS
        poll(NULL, 0, 1);
        Py_END_ALLOW_THREADS
    }
}

void
watchers_after_fork(void)
{
    running_threads = 0; /* they are the parent's */
}

int
watcher_start(Manager *m)
{
    struct Watcher *w = PyMem_RawCalloc(1, sizeof(*w));
    if (w == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    w->stop = tosc_event_new();
    if (w->stop == NULL) {
        int error = errno;
        PyMem_RawFree(w);
        return tosc_raise(tosc__fail_errno(error, NULL, "a Manager's watcher"));
    }
    w->manager = PyWeakref_NewRef((PyObject *)m, NULL);
    if (w->manager == NULL) {
        tosc_event_free(w->stop);
        PyMem_RawFree(w);
        return -1;
    }
    w->backend = tosc_backend_ref(m->backend);
    w->at = m->at;
    w->refs = 2;
    pthread_mutex_init(&w->lock, NULL);
    if (start_thread(&w->thread, watcher_main, w) < 0) {
        w->refs = 1;
        watcher_unref(w);
        return -1;
    }
    m->watcher = w;
    return 0;
}

void
watcher_moved(Manager *m)
{
    struct Watcher *w = m->watcher;
    if (w != NULL) {
        pthread_mutex_lock(&w->lock);
        w->at = m->at;
        pthread_mutex_unlock(&w->lock);
    }
}

/*
 * Waits for the thread, but not for ever: a wait in a backend that is written in Python may
 * not notice that it should end. Such a thread is left behind; it finds no Manager when it
 * wakes, and drops its reference to what it shared with it.
 */
static void
join(pthread_t thread)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 300000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
        pthread_detach(thread);
    }
}

void
watcher_stop(Manager *m, bool wait)
{
    struct Watcher *w = m->watcher;
    if (w == NULL) {
        return;
    }
    m->watcher = NULL;
    w->stopping = true;
    tosc_event_set(w->stop);
    bool watching = wait && !pthread_equal(w->thread, pthread_self());
    bool compacting =
        wait && w->has_compactor && !pthread_equal(w->compactor, pthread_self());
    if (!watching) {
        pthread_detach(w->thread);
    }
    if (w->has_compactor && !compacting) {
        pthread_detach(w->compactor);
    }
    if (watching || compacting) {
        Py_BEGIN_ALLOW_THREADS
        if (watching) {
            join(w->thread);
        }
        if (compacting) {
            pthread_join(w->compactor, NULL);
        }
        Py_END_ALLOW_THREADS
    }
    watcher_unref(w);
}

/* ---- compaction ---- */

/* 0, or -1 and an exception. */
static int
write_base(Manager *m, Transaction *tx)
{
    tosc_position of = tx->at;
    Commit commit = {
        .manager = m, .own = tx, .next_oid = m->next_oid, .carry = Py_XNewRef(m->chain)};
    Buffer record = {0};
    tosc_data data = {0};
    int result = codec_encode(&commit, true, &record);
    Py_XDECREF(commit.chain);
    Py_XDECREF(commit.carry);
    deltas_clear(&commit.deltas);
    transaction_rollback(tx); /* what follows needs no older states any more */
    if (result < 0) {
        buffer_free(&record);
        return -1;
    }
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = m->ops->compact(m->impl, NULL, record.data, record.size, &of, &data);
    Py_END_ALLOW_THREADS
    buffer_free(&record);
    tosc_blob_unref(data.bytes);
    if (status == TOSC_OK) {
        m->base_bytes = data.base_bytes;
        m->tail_bytes = data.tail_bytes;
    } else if (status != TOSC_ECONFLICT) {
        tosc_raise(status);
        return -1;
    }
    return 0; /* after a conflict, somebody else has done it */
}

/* One that fails would be tried again with each commit, and encodes everything. */
static void
note_compaction(struct Watcher *w, int result)
{
    if (result < 0 && !w->compaction_failed && PyErr_Occurred()) {
        report(w, "compacting");
    }
    w->compaction_failed = result < 0;
    w->compact_at = result < 0 ? tosc_monotonic_ns() + COMPACT_AGAIN_NS : 0;
}

static void
compact(struct Watcher *w)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    Manager *m = w->stopping ? NULL : get_manager(w);
    if (m != NULL && !m->closed && m->loaded) {
        if (sync_sweep(m) < 0) {
            PyErr_Clear(); /* it is tried again with the next compaction */
        }
        Transaction *tx = m->ops->compact == NULL ? NULL : transaction_new(m);
        if (tx != NULL && transaction_begin(tx) == 0) {
            note_compaction(w, write_base(m, tx));
        }
        Py_XDECREF((PyObject *)tx);
        PyErr_Clear();
    }
    manager_let_go(m);
    running_threads--;
    w->compacting = false; /* last: whoever sees it may wait for us with the GIL held */
    watcher_unref(w);
    PyGILState_Release(gil);
}

static void *
compactor_main(void *arg)
{
    compact(arg);
    return NULL;
}

void
watcher_compact(Manager *m)
{
    struct Watcher *w = m->watcher;
    if (w == NULL || w->compacting || w->stopping
        || (w->compaction_failed && tosc_monotonic_ns() < w->compact_at)) {
        return;
    }
    if (w->has_compactor) {
        pthread_join(w->compactor,
                     NULL); /* it has ended, but for its last few instructions */
        w->has_compactor = false;
    }
    w->compacting = true;
    w->refs++;
    if (start_thread(&w->compactor, compactor_main, w) < 0) {
        PyErr_Clear();
        w->compacting = false;
        w->refs--;
        return;
    }
    w->has_compactor = true;
}
