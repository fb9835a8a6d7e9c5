/*
 * target_wait() of InprocBackend, FileBackend and CephBackend.
 *
 * It answers for one object: `seen` is the position that its last call has reported. To
 * know that from the start a FileBackend would have to read the whole file when it is
 * made; it keeps the file's marks (inode, size, time) instead, and compares them at the
 * first wait. A file that was changed just before could change again without changing
 * its marks; only then the position is read at once.
 *
 * A wait of core is ended by signals, so Ctrl-C works in the main thread; it is cut into
 * slices because a signal may come just before it begins.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backend_object.h"

#include "core/backend_kind.h"

#include <math.h>
#include <sys/stat.h>

/* Longest time in one wait of core: so late at most is a signal seen that just missed its sleep. */
#define WAIT_SLICE_MS 80

/* How old a file must be for its marks to be trusted: times may be 2 s coarse. */
#define MARKS_SETTLE_SECONDS 3

#define NS_PER_MS INT64_C(1000000)

static int64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 * NS_PER_MS + now.tv_nsec;
}

static bool
same_state(const tosc_position *a, const tosc_position *b)
{
    return a->stored == b->stored && a->version == b->version
           && memcmp(a->store_id, b->store_id, sizeof a->store_id) == 0;
}

/*
 * Where the store is now; `known` (may be NULL) saves the reading of what led there. A Ceph
 * store can say it without being read, and waits for at most timeout_ms (-1: its own limit).
 */
static int
look(tosc_backend *backend, const tosc_position *known, int64_t timeout_ms,
     tosc_position *ret)
{
    tosc_data data = {0};
    int status = 0;
    const struct tosc_backend_ops *ops = tosc_backend_ops(backend);
    void *impl = tosc_backend_impl(backend);
    if (strcmp(ops->name, "ceph") == 0) {
        CALL_CORE(status, tosc__backend_ceph_where(backend, timeout_ms, ret));
        if (status != TOSC_EUNSUPPORTED) { /* as somebody else's "ceph" would be */
            return check_status(status);
        }
    }
    if (known != NULL && ops->read_since != NULL) {
        CALL_CORE(status, ops->read_since(impl, known, &data));
    } else {
        CALL_CORE(status, ops->read(impl, &data));
    }
    if (check_status(status) < 0) {
        return -1;
    }
    tosc_blob_unref(data.bytes);
    *ret = data.at;
    return 0;
}

static struct file_marks
file_marks(PyObject *file_path)
{
    struct file_marks marks = {.trusted = true};
    struct stat status;
    PyObject *encoded = PyUnicode_EncodeFSDefault(file_path);
    if (encoded == NULL) {
        PyErr_Clear();
        return (struct file_marks){.trusted = false};
    }
    int found = 0;
    Py_BEGIN_ALLOW_THREADS
    found = stat(PyBytes_AS_STRING(encoded), &status);
    Py_END_ALLOW_THREADS
    Py_DECREF(encoded);
    if (found == 0) {
        marks.exists = true;
        marks.trusted = status.st_mtim.tv_sec < time(NULL) - MARKS_SETTLE_SECONDS;
        marks.dev = status.st_dev;
        marks.ino = status.st_ino;
        marks.size = status.st_size;
        marks.mtime = status.st_mtim;
    }
    return marks;
}

static bool
same_marks(const struct file_marks *a, const struct file_marks *b)
{
    if (!a->exists || !b->exists) {
        return a->exists == b->exists;
    }
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size
           && a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec;
}

int
target_wait_start(BackendObject *self)
{
    self->has_seen = false;
    if (self->file_path != NULL) {
        self->made = file_marks(self->file_path);
        if (self->made.trusted) {
            return 0;
        }
    }
    int64_t patience_ms = self->patience_ms > 0 ? self->patience_ms : -1;
    if (look(self->backend, NULL, patience_ms, &self->seen) == 0) {
        self->has_seen = true;
        return 0;
    }
    if (!PyErr_ExceptionMatches(tosc_state->Error)) {
        return -1; /* as when a signal's handler has raised it */
    }
    PyErr_Clear(); /* who reads or waits will be told */
    return 0;
}

/* For the first wait: sets self->seen; 1 if the store has changed since `made`. */
static int
first_look(BackendObject *self, tosc_backend *backend)
{
    bool changed = true;
    tosc_position at;
    if (self->file_path != NULL) {
        struct file_marks marks = file_marks(self->file_path);
        changed = !self->made.trusted || !same_marks(&marks, &self->made);
    }
    if (look(backend, NULL, -1, &at) < 0) {
        return -1;
    }
    self->seen = at;
    self->has_seen = true;
    return changed;
}

/* Waits until the store has left `known`: 1, 0 when the deadline has come, or -1. */
static int
wait_for_change(tosc_backend *backend, const tosc_position *known, int64_t deadline_ns)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(backend);
    for (;;) {
        bool changed = false;
        int64_t left = deadline_ns - now_ns();
        int64_t left_ms = left > 0 ? (left - 1) / NS_PER_MS + 1 : 0;
        int64_t slice_ms = left_ms > WAIT_SLICE_MS ? WAIT_SLICE_MS : left_ms;
        int status;
        CALL_BACKEND(status, ops->wait(tosc_backend_impl(backend), known, slice_ms, NULL,
                                       &changed));
        if (status < 0 && status != TOSC_ETIMEDOUT && tosc_raise(status) < 0) {
            return -1;
        }
        if (status == 0 && changed) {
            return 1;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        if (now_ns() >= deadline_ns) {
            return 0;
        }
    }
}

static int
wait_since_seen(BackendObject *self, tosc_backend *backend, int64_t deadline_ns)
{
    if (!self->has_seen) {
        int changed = first_look(self, backend);
        if (changed != 0) {
            return changed;
        }
    }
    tosc_position known = self->seen;
    for (;;) {
        int changed = wait_for_change(backend, &known, deadline_ns);
        if (changed <= 0) {
            return changed;
        }
        tosc_position at;
        if (look(backend, &known, -1, &at) < 0) {
            return -1;
        }
        if (!same_state(&at, &known)) {
            self->seen = at;
            return 1;
        }
        known = at; /* stored in another way (compacted), with nothing changed */
        if (now_ns() >= deadline_ns) {
            return 0;
        }
    }
}

PyObject *
native_target_wait(BackendObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    double seconds = INFINITY;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:target_wait", names, &timeout)
        || (timeout != Py_None
            && backend_parse_seconds(timeout, "timeout", &seconds) < 0)) {
        return NULL;
    }
    tosc_backend *backend = backend_object_take(self);
    if (backend == NULL) {
        return NULL;
    }
    int64_t deadline_ns = INT64_MAX;
    if (seconds < 1e9) {
        deadline_ns = now_ns() + (int64_t)(seconds * 1e9) + 1;
    }
    int changed = wait_since_seen(self, backend, deadline_ns);
    tosc_backend_unref(backend);
    return changed < 0 ? NULL : PyBool_FromLong(changed);
}
