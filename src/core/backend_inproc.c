/*
 * The in-process backend: a base blob and the blobs appended to it, in memory.
 *
 * One mutex guards everything; it is held for a copy of pointers, never for a copy of
 * bytes, so readers do not wait for writers to speak of. `version` is also read without
 * it, by changed(). Appended blobs lie in an array, the i-th leading to version
 * base_version + i + 1, so that what came after a version is found by subtraction.
 *
 * The exclusive lock is the field `holder`; those who wait for it sleep on the futex
 * `unlocks`. Those who wait for a change sleep in poll() on an eventfd of their own, a few
 * of which are kept for the next wait. Since every commit comes from this process, and mostly from the very
 * Manager whose watcher waits, a waiter that has reported a change takes no wake-up for
 * QUIET_NS: a loop of commits then costs its watcher a few hundred wake-ups a second, not
 * one for each.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <tosc/backend.h>

#include "core/backend_kind.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/fileio.h"
#include "core/fork.h"
#include "core/lock.h"
#include "core/sys.h"

#define QUIET_NS (2 * TOSC__MS)
#define IDLE_MAX 2

struct waiter {
    int fd; /* eventfd */
    bool armed;
    struct waiter *next;
};

struct inproc {
    pthread_mutex_t mutex; /* guards all below, except as said */
    struct tosc__fork_node node;
    uint8_t store_id[16]; /* constant */
    int64_t version;      /* atomic; 0: nothing stored. Written under the mutex */
    int64_t base_version;
    uint64_t base_serial; /* another one for every base; the positions' cookie */
    tosc_blob *base;
    tosc_blob **tail;
    size_t tail_count;
    size_t tail_room;
    uint64_t tail_bytes;
    const void *holder; /* of the exclusive lock, NULL: nobody */
    int lock_waiters;
    int unlocks; /* futex; atomic */
    struct waiter *waiting;
    struct waiter *idle; /* at most IDLE_MAX */
    int idle_count;
    int64_t quiet_until;
};

/* ---- the state; with the mutex held ---- */

static tosc_position
position_of(const struct inproc *in, int64_t version)
{
    tosc_position at = {.stored = version != 0};

    if (at.stored) {
        at.version = version;
        memcpy(at.store_id, in->store_id, sizeof(at.store_id));
        at.cookie[0] = in->base_serial;
    }
    return at;
}

static bool
is_at(const struct inproc *in, const tosc_position *known)
{
    int64_t version = __atomic_load_n(&in->version, __ATOMIC_ACQUIRE);

    if (!known->stored) {
        return version == 0;
    }
    return version == known->version
           && memcmp(known->store_id, in->store_id, sizeof(in->store_id)) == 0;
}

static void
describe(const struct inproc *in, tosc_data *ret)
{
    *ret = (tosc_data){.at = position_of(in, in->version),
                       .base_bytes = in->base != NULL ? in->base->size : 0,
                       .tail_bytes = in->tail_bytes};
}

static void
wake_waiters(struct inproc *in)
{
    for (struct waiter *waiter = in->waiting; waiter != NULL; waiter = waiter->next) {
        if (waiter->armed) {
            waiter->armed = false;
            eventfd_write(waiter->fd, 1);
        }
    }
}

static void
set_version(struct inproc *in, int64_t version)
{
    __atomic_store_n(&in->version, version, __ATOMIC_RELEASE);
    if (in->waiting != NULL) {
        wake_waiters(in);
    }
}

/* Takes the mutex when no other holder has the lock. */
static int
enter(struct inproc *in, const void *holder, int64_t deadline_ns)
{
    pthread_mutex_lock(&in->mutex);
    while (in->holder != NULL && in->holder != holder) {
        int seen = __atomic_load_n(&in->unlocks, __ATOMIC_RELAXED);
        int status;

        in->lock_waiters++;
        pthread_mutex_unlock(&in->mutex);
        status = tosc__futex_wait(&in->unlocks, seen, deadline_ns);
        pthread_mutex_lock(&in->mutex);
        in->lock_waiters--;
        if (status != 0) {
            pthread_mutex_unlock(&in->mutex);
            return status == TOSC_EINTR ? tosc__lock_interrupted()
                                        : tosc__lock_timed_out();
        }
    }
    return 0;
}

static void
leave(struct inproc *in)
{
    pthread_mutex_unlock(&in->mutex);
}

static int
no_memory(void)
{
    return tosc__fail(TOSC_ENOMEM, "not enough memory for the stored data");
}

static tosc_blob *
blob_of(const void *data, size_t size)
{
    tosc_blob *blob = tosc_blob_new(size);

    if (blob != NULL && size > 0) {
        memcpy(blob->data, data, size);
    }
    return blob;
}

/* ---- reading ---- */

/* References to a run of blobs, taken under the mutex and joined after it. */
struct run {
    tosc_blob **blobs;
    size_t count;
    size_t bytes;
    tosc_blob *few[16];
};

static int
run_take(struct run *run, tosc_blob *first, tosc_blob *const *rest, size_t count)
{
    size_t all = count + (first != NULL);

    *run = (struct run){.blobs = run->few};
    if (all > sizeof(run->few) / sizeof(run->few[0])) {
        run->blobs = tosc__sys.malloc(all * sizeof(*run->blobs));
        if (run->blobs == NULL) {
            return no_memory();
        }
    }
    if (first != NULL) {
        run->blobs[run->count++] = tosc_blob_ref(first);
        run->bytes += first->size;
    }
    for (size_t i = 0; i < count; i++) {
        run->blobs[run->count++] = tosc_blob_ref(rest[i]);
        run->bytes += rest[i]->size;
    }
    return 0;
}

/*
 * Joins the blobs and gives the run up. NULL: no memory. A single one is handed on as it
 * is.
 */
static tosc_blob *
run_join(struct run *run)
{
    tosc_blob *joined;
    size_t at = 0;

    if (run->count == 1) {
        joined = run->blobs[0];
    } else {
        joined = tosc_blob_new(run->bytes);
        for (size_t i = 0; i < run->count; i++) {
            if (joined != NULL && run->blobs[i]->size > 0) {
                memcpy(joined->data + at, run->blobs[i]->data, run->blobs[i]->size);
                at += run->blobs[i]->size;
            }
            tosc_blob_unref(run->blobs[i]);
        }
    }
    if (run->blobs != run->few) {
        free(run->blobs);
    }
    return joined;
}

static bool
can_continue(const struct inproc *in, const tosc_position *known)
{
    return known != NULL && known->stored && in->version != 0
           && known->version >= in->base_version && known->version <= in->version
           && memcmp(known->store_id, in->store_id, sizeof(in->store_id)) == 0;
}

static int
inproc_read_since(void *impl, const tosc_position *known, tosc_data *ret)
{
    struct inproc *in = impl;
    struct run run = {.count = 0};
    tosc_data data;
    int status = 0;

    pthread_mutex_lock(&in->mutex);
    describe(in, &data);
    data.whole = !can_continue(in, known);
    if (data.whole) {
        status = run_take(&run, in->base, in->tail, in->tail_count);
    } else if (known->version < in->version) {
        size_t skip = (size_t)(known->version - in->base_version);

        status = run_take(&run, NULL, in->tail + skip, in->tail_count - skip);
    }
    pthread_mutex_unlock(&in->mutex);
    if (status == 0 && run.count > 0) {
        data.bytes = run_join(&run);
        status = data.bytes == NULL ? no_memory() : 0;
    }
    if (status == 0) {
        *ret = data;
    }
    return status;
}

static int
inproc_read(void *impl, tosc_data *ret)
{
    return inproc_read_since(impl, NULL, ret);
}

static int
inproc_changed(void *impl, const tosc_position *known)
{
    return !is_at(impl, known);
}

/* ---- writing ---- */

/* What a change took out of the store, dropped when the mutex is free again. */
struct dropped {
    tosc_blob *base;
    tosc_blob **tail;
    size_t count;
    bool free_tail;
};

static void
drop(const struct dropped *dropped)
{
    tosc_blob_unref(dropped->base);
    for (size_t i = 0; i < dropped->count; i++) {
        tosc_blob_unref(dropped->tail[i]);
    }
    if (dropped->free_tail) {
        free(dropped->tail);
    }
}

static void
set_base(struct inproc *in, tosc_blob *base, int64_t version, struct dropped *ret_dropped)
{
    *ret_dropped = (struct dropped){in->base, in->tail, in->tail_count, true};
    in->base = base;
    in->base_version = version;
    in->base_serial++;
    in->tail = NULL;
    in->tail_count = 0;
    in->tail_room = 0;
    in->tail_bytes = 0;
    set_version(in, version);
}

static bool
write_allowed(const struct inproc *in, const int64_t *expected,
              const uint8_t *expected_id)
{
    if (expected == NULL) {
        return in->version == 0;
    }
    return in->version != 0 && in->version == *expected
           && (expected_id == NULL
               || memcmp(expected_id, in->store_id, sizeof(in->store_id)) == 0);
}

static int
replace(struct inproc *in, const void *holder, const void *data, size_t size,
        bool checked, const int64_t *expected, const uint8_t *expected_id,
        tosc_position *ret)
{
    tosc_blob *blob = blob_of(data, size);
    struct dropped dropped = {.count = 0};
    int status;

    if (blob == NULL) {
        return no_memory();
    }
    status = enter(in, holder, TOSC__FOR_EVER);
    if (status != 0) {
        tosc_blob_unref(blob);
        return status;
    }
    if (checked && !write_allowed(in, expected, expected_id)) {
        dropped.base = blob;
        status = TOSC_ECONFLICT;
    } else {
        set_base(in, blob, in->version + 1, &dropped);
        *ret = position_of(in, in->version);
    }
    leave(in);
    drop(&dropped);
    return status;
}

static int
inproc_write(void *impl, const void *holder, const void *data, size_t size,
             tosc_position *ret)
{
    return replace(impl, holder, data, size, false, NULL, NULL, ret);
}

static int
inproc_try_write(void *impl, const void *holder, const void *data, size_t size,
                 const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    return replace(impl, holder, data, size, true, expected, expected_id, ret);
}

static int
make_room(struct inproc *in)
{
    size_t room = in->tail_room < 8 ? 16 : in->tail_room * 2;
    tosc_blob **tail;

    if (in->tail_count < in->tail_room) {
        return 0;
    }
    tail = tosc__sys.malloc(room * sizeof(*tail));
    if (tail == NULL) {
        return no_memory();
    }
    if (in->tail_count > 0) {
        memcpy(tail, in->tail, in->tail_count * sizeof(*tail));
    }
    free(in->tail);
    in->tail = tail;
    in->tail_room = room;
    return 0;
}

static int
append_blob(struct inproc *in, tosc_blob *blob)
{
    int status = make_room(in);

    if (status != 0) {
        return status;
    }
    in->tail[in->tail_count++] = blob;
    in->tail_bytes += blob->size;
    set_version(in, in->version + 1);
    return 0;
}

static int
inproc_append(void *impl, const void *holder, const void *data, size_t size,
              const tosc_commit_id *id, const tosc_position *known, tosc_data *ret)
{
    struct inproc *in = impl;
    struct dropped dropped = {.count = 0};
    tosc_blob *blob;
    int status;

    (void)id; /* nothing is ever lost on the way, so nothing is looked up */
    blob = blob_of(data, size);
    if (blob == NULL) {
        return no_memory();
    }
    status = enter(in, holder, TOSC__FOR_EVER);
    if (status != 0) {
        tosc_blob_unref(blob);
        return status;
    }
    if (!is_at(in, known)) {
        status = TOSC_ECONFLICT;
    } else if (in->version == 0) {
        set_base(in, blob, 1, &dropped);
    } else {
        status = append_blob(in, blob);
    }
    if (status == 0) {
        describe(in, ret);
    }
    leave(in);
    drop(&dropped);
    if (status != 0) {
        tosc_blob_unref(blob);
    }
    return status;
}

static int
inproc_compact(void *impl, const void *holder, const void *data, size_t size,
               const tosc_position *of, tosc_data *ret)
{
    struct inproc *in = impl;
    struct dropped dropped = {.count = 0};
    tosc_blob *blob = blob_of(data, size);
    int status;

    if (blob == NULL) {
        return no_memory();
    }
    status = enter(in, holder, TOSC__FOR_EVER);
    if (status != 0) {
        tosc_blob_unref(blob);
        return status;
    }
    if (!can_continue(in, of) || of->cookie[0] != in->base_serial) {
        dropped.base = blob;
        status = TOSC_ECONFLICT;
    } else {
        size_t merged = (size_t)(of->version - in->base_version);

        /* Dropping blobs takes time, so they are carried out of the mutex. */
        dropped = (struct dropped){.base = in->base, .count = merged, .free_tail = true};
        if (merged > 0) {
            dropped.tail = tosc__sys.malloc(merged * sizeof(*dropped.tail));
        }
        if (merged > 0 && dropped.tail == NULL) {
            dropped = (struct dropped){.base = blob};
            status = no_memory();
        } else {
            for (size_t i = 0; i < merged; i++) {
                dropped.tail[i] = in->tail[i];
                in->tail_bytes -= in->tail[i]->size;
            }
            in->tail_count -= merged;
            if (in->tail_count > 0) {
                memmove(in->tail, in->tail + merged, in->tail_count * sizeof(*in->tail));
            }
            in->base = blob;
            in->base_version = of->version;
            in->base_serial++;
            describe(in, ret);
        }
    }
    leave(in);
    drop(&dropped);
    return status;
}

static int
inproc_lock(void *impl, const void *holder, int64_t deadline_ns)
{
    struct inproc *in = impl;
    int status;

    if (holder == NULL) {
        return tosc__fail(TOSC_EINVAL, "the lock needs a holder");
    }
    status = enter(in, NULL, deadline_ns);
    if (status == 0) {
        in->holder = holder;
        leave(in);
    }
    return status;
}

static int
inproc_unlock(void *impl, const void *holder)
{
    struct inproc *in = impl;
    int status = 0;
    bool wake = false;

    pthread_mutex_lock(&in->mutex);
    if (holder == NULL || in->holder != holder) {
        status = tosc__fail(TOSC_EINVAL, "the lock is not held by this holder");
    } else {
        in->holder = NULL;
        __atomic_fetch_add(&in->unlocks, 1, __ATOMIC_RELAXED);
        wake = in->lock_waiters > 0;
    }
    pthread_mutex_unlock(&in->mutex);
    if (wake) {
        tosc__futex_wake(&in->unlocks, INT_MAX);
    }
    return status;
}

/* ---- waiting ---- */

/* NULL: failed, with *ret_status. */
static struct waiter *
waiter_take(struct inproc *in, int *ret_status)
{
    struct waiter *waiter;
    int error = ENOMEM;

    pthread_mutex_lock(&in->mutex);
    waiter = in->idle;
    if (waiter != NULL) {
        in->idle = waiter->next;
        in->idle_count--;
    }
    pthread_mutex_unlock(&in->mutex);
    if (waiter == NULL) {
        waiter = tosc__sys.malloc(sizeof(*waiter));
        if (waiter != NULL) {
            waiter->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
            error = errno;
        }
        if (waiter == NULL || waiter->fd < 0) {
            free(waiter);
            *ret_status = tosc__fail_errno(error, NULL, "cannot wait for changes");
            return NULL;
        }
    }
    waiter->armed = false;
    pthread_mutex_lock(&in->mutex);
    waiter->next = in->waiting;
    in->waiting = waiter;
    pthread_mutex_unlock(&in->mutex);
    return waiter;
}

static void
waiter_give(struct inproc *in, struct waiter *waiter)
{
    struct waiter **link = &in->waiting;
    eventfd_t ignored;
    bool keep;

    pthread_mutex_lock(&in->mutex);
    while (*link != waiter) {
        link = &(*link)->next;
    }
    *link = waiter->next;
    pthread_mutex_unlock(&in->mutex);
    eventfd_read(waiter->fd, &ignored);
    pthread_mutex_lock(&in->mutex);
    keep = in->idle_count < IDLE_MAX;
    if (keep) {
        waiter->next = in->idle;
        in->idle = waiter;
        in->idle_count++;
    }
    pthread_mutex_unlock(&in->mutex);
    if (!keep) {
        close(waiter->fd);
        free(waiter);
    }
}

/* Says whether to report a change now; else until when to sleep. */
static bool
look(struct inproc *in, const tosc_position *known, struct waiter *waiter,
     int64_t *ret_until)
{
    int64_t now = tosc__now();
    bool report = false;

    pthread_mutex_lock(&in->mutex);
    if (now < in->quiet_until) {
        *ret_until = in->quiet_until;
    } else if (!is_at(in, known)) {
        in->quiet_until = now + QUIET_NS;
        report = true;
    } else {
        waiter->armed = true;
        *ret_until = TOSC__FOR_EVER;
    }
    pthread_mutex_unlock(&in->mutex);
    return report;
}

static int
inproc_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
            const tosc_event *stop, bool *ret_changed)
{
    struct inproc *in = impl;
    int64_t deadline = tosc__deadline(timeout_ms);
    bool changed = false;
    int status = 0;
    struct waiter *waiter = waiter_take(in, &status);

    if (waiter == NULL) {
        return status;
    }
    while (status == 0) {
        int64_t until;
        eventfd_t ignored;

        changed = look(in, known, waiter, &until);
        if (changed || tosc__now() >= deadline) {
            changed = changed || !is_at(in, known);
            break;
        }
        status = tosc__sleep_on(waiter->fd, stop, until < deadline ? until : deadline);
        eventfd_read(waiter->fd, &ignored);
    }
    waiter_give(in, waiter);
    if (status == 0) {
        *ret_changed = changed;
    }
    return status;
}

/* ---- life ---- */

static struct inproc *
of_node(struct tosc__fork_node *node)
{
    return (struct inproc *)((char *)node - offsetof(struct inproc, node));
}

static void
freeze(struct tosc__fork_node *node)
{
    pthread_mutex_lock(&of_node(node)->mutex);
}

static void
thaw(struct tosc__fork_node *node)
{
    pthread_mutex_unlock(&of_node(node)->mutex);
}

/* The waiters and the lock's holder are threads of the parent. */
static void
renew(struct tosc__fork_node *node)
{
    struct inproc *in = of_node(node);

    for (struct waiter *waiter = in->waiting; waiter != NULL; waiter = waiter->next) {
        close(waiter->fd);
    }
    for (struct waiter *waiter = in->idle; waiter != NULL; waiter = waiter->next) {
        close(waiter->fd);
    }
    in->waiting = NULL;
    in->idle = NULL;
    in->idle_count = 0;
    in->holder = NULL;
    in->lock_waiters = 0;
    pthread_mutex_unlock(&in->mutex); /* which the thread that forked took: we are it */
}

static void
inproc_destroy(void *impl)
{
    struct inproc *in = impl;
    struct dropped all = {in->base, in->tail, in->tail_count, true};

    tosc__fork_remove(&in->node);
    drop(&all);
    while (in->idle != NULL) {
        struct waiter *waiter = in->idle;

        in->idle = waiter->next;
        close(waiter->fd);
        free(waiter);
    }
    pthread_mutex_destroy(&in->mutex);
    free(in);
}

static const struct tosc_backend_ops inproc_ops = {
    .size = sizeof(inproc_ops),
    .name = "inproc",
    .destroy = inproc_destroy,
    .read = inproc_read,
    .write = inproc_write,
    .try_write = inproc_try_write,
    .wait = inproc_wait,
    .append = inproc_append,
    .read_since = inproc_read_since,
    .changed = inproc_changed,
    .compact = inproc_compact,
    .lock = inproc_lock,
    .unlock = inproc_unlock,
};

bool
tosc__backend_is_inproc(const tosc_backend *backend)
{
    return tosc_backend_ops(backend)->read == inproc_read; /* named ones end otherwise */
}

int
tosc_backend_inproc_new(tosc_backend **ret)
{
    struct inproc *in = tosc__sys.malloc(sizeof(*in));
    tosc_backend *backend;
    int status;

    if (in == NULL) {
        return no_memory();
    }
    memset(in, 0, sizeof(*in));
    status = tosc__random(in->store_id, sizeof(in->store_id));
    if (status != 0) {
        free(in);
        return status;
    }
    backend = tosc_backend_new(&inproc_ops, in);
    if (backend == NULL) {
        free(in);
        return no_memory();
    }
    pthread_mutex_init(&in->mutex, NULL);
    in->node = (struct tosc__fork_node){.freeze = freeze, .thaw = thaw, .renew = renew};
    tosc__fork_add(&in->node);
    *ret = backend;
    return 0;
}
