/*
 * A store in memory behind a mutex. What was appended is kept in one blob, with the place
 * at which each version ends, so that the part after a version can be given.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "memory_store.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tosc/error.h>

#define VERSIONS 100000

struct memory_store {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    tosc_blob *bytes;
    bool stored;
    int64_t version;
    int64_t base;          /* the version that the first byte belongs to */
    size_t ends[VERSIONS]; /* of base, base + 1, … */
    enum mishap mishap;
    struct memory_counts *counts;
    struct memory_counts own_counts;
};

static tosc_position
position(const struct memory_store *store)
{
    tosc_position at = {.stored = store->stored, .version = store->version};
    return at;
}

static void
describe(const struct memory_store *store, tosc_data *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->at = position(store);
    if (store->stored) {
        ret->base_bytes = store->ends[0];
        ret->tail_bytes = store->bytes->size - store->ends[0];
    }
}

/* ---- operations ---- */

static void
memory_destroy(void *impl)
{
    struct memory_store *store = impl;
    __atomic_fetch_add(&store->counts->destroyed, 1, __ATOMIC_RELEASE);
    tosc_blob_unref(store->bytes);
    pthread_mutex_destroy(&store->mutex);
    pthread_cond_destroy(&store->changed);
    free(store);
}

static int
memory_read(void *impl, tosc_data *ret)
{
    struct memory_store *store = impl;
    int ms = __atomic_load_n(&store->counts->reading_ms, __ATOMIC_ACQUIRE);
    __atomic_fetch_add(&store->counts->reads, 1, __ATOMIC_ACQ_REL);
    if (ms > 0) {
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    }
    pthread_mutex_lock(&store->mutex);
    describe(store, ret);
    ret->whole = true;
    ret->bytes = tosc_blob_ref(store->bytes);
    pthread_mutex_unlock(&store->mutex);
    return 0;
}

/* Stores it, or does what it was told: with the mutex. */
static int
change(struct memory_store *store, const void *data, size_t size, bool append)
{
    enum mishap mishap = store->mishap;
    size_t before = append ? store->bytes->size : 0;
    store->mishap = MISHAP_NONE;
    if (mishap == MISHAP_REFUSED) {
        return TOSC_ESYSTEM;
    }
    if (mishap == MISHAP_LOST_REQUEST) {
        return TOSC_EUNKNOWN;
    }
    tosc_blob *bytes = tosc_blob_new(before + size);
    if (bytes == NULL) {
        return TOSC_ENOMEM;
    }
    if (before > 0) {
        memcpy(bytes->data, store->bytes->data, before);
    }
    memcpy(bytes->data + before, data, size);
    tosc_blob_unref(store->bytes);
    store->bytes = bytes;
    store->stored = true;
    store->version++;
    if (!append) {
        store->base = store->version;
    }
    store->ends[store->version - store->base] = bytes->size;
    pthread_cond_broadcast(&store->changed);
    return mishap == MISHAP_LOST_REPLY ? TOSC_EUNKNOWN : 0;
}

static int
memory_write(void *impl, const void *holder, const void *data, size_t size,
             tosc_position *ret)
{
    struct memory_store *store = impl;
    (void)holder;
    pthread_mutex_lock(&store->mutex);
    store->counts->writes++;
    int status = change(store, data, size, false);
    if (status == 0) {
        *ret = position(store);
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

static int
memory_try_write(void *impl, const void *holder, const void *data, size_t size,
                 const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    struct memory_store *store = impl;
    int status = TOSC_ECONFLICT;
    (void)holder;
    (void)expected_id;
    pthread_mutex_lock(&store->mutex);
    store->counts->writes++;
    if (expected == NULL ? !store->stored
                         : store->stored && store->version == *expected) {
        status = change(store, data, size, false);
    }
    if (status == 0) {
        *ret = position(store);
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

static bool
has_left(const struct memory_store *store, const tosc_position *known)
{
    return store->stored != known->stored
           || (store->stored && store->version != known->version);
}

/* The end of the wait is looked for every few milliseconds: good enough for tests. */
static int
memory_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
            const tosc_event *stop, bool *ret_changed)
{
    struct memory_store *store = impl;
    int status = 0;
    pthread_mutex_lock(&store->mutex);
    for (int64_t waited = 0; !has_left(store, known); waited += 5) {
        struct timespec until;
        if (stop != NULL && tosc_event_is_set(stop)) {
            status = TOSC_EINTR;
            break;
        }
        if (timeout_ms >= 0 && waited >= timeout_ms) {
            break;
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 5000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&store->changed, &store->mutex, &until);
    }
    if (status == 0) {
        *ret_changed = has_left(store, known);
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

static int
memory_append(void *impl, const void *holder, const void *data, size_t size,
              const tosc_commit_id *id, const tosc_position *known, tosc_data *ret)
{
    struct memory_store *store = impl;
    int status = TOSC_ECONFLICT;
    (void)holder;
    (void)id;
    pthread_mutex_lock(&store->mutex);
    store->counts->appends++;
    if (store->version - store->base + 1 >= VERSIONS) {
        status = TOSC_ENOMEM;
    } else if (!has_left(store, known)) {
        status = change(store, data, size, true);
    }
    if (status == 0) {
        describe(store, ret);
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

static int
memory_read_since(void *impl, const tosc_position *known, tosc_data *ret)
{
    struct memory_store *store = impl;
    pthread_mutex_lock(&store->mutex);
    bool here = store->stored && known->stored && known->version >= store->base
                && known->version <= store->version;
    if (!here) {
        pthread_mutex_unlock(&store->mutex);
        return memory_read(impl, ret);
    }
    size_t from = store->ends[known->version - store->base];
    size_t size = store->bytes->size - from;
    tosc_blob *bytes = size > 0 ? tosc_blob_new(size) : NULL;
    int status = size > 0 && bytes == NULL ? TOSC_ENOMEM : 0;
    if (status == 0) {
        describe(store, ret);
        ret->bytes = bytes;
        if (bytes != NULL) {
            memcpy(bytes->data, store->bytes->data + from, size);
        }
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

static int
memory_changed(void *impl, const tosc_position *known)
{
    struct memory_store *store = impl;
    pthread_mutex_lock(&store->mutex);
    int answer = has_left(store, known);
    pthread_mutex_unlock(&store->mutex);
    return answer;
}

static const struct tosc_backend_ops four_operations = {
    .size = sizeof(four_operations),
    .name = "memory",
    .destroy = memory_destroy,
    .read = memory_read,
    .write = memory_write,
    .try_write = memory_try_write,
    .wait = memory_wait,
};

static const struct tosc_backend_ops appending_operations = {
    .size = sizeof(appending_operations),
    .name = "appending memory",
    .destroy = memory_destroy,
    .read = memory_read,
    .write = memory_write,
    .try_write = memory_try_write,
    .wait = memory_wait,
    .append = memory_append,
    .read_since = memory_read_since,
    .changed = memory_changed,
};

/* ---- making ---- */

tosc_backend *
memory_store_new(bool can_append, struct memory_counts *counts)
{
    struct memory_store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        return NULL;
    }
    pthread_mutex_init(&store->mutex, NULL);
    pthread_cond_init(&store->changed, NULL);
    store->counts = counts != NULL ? counts : &store->own_counts;
    tosc_backend *backend =
        tosc_backend_new(can_append ? &appending_operations : &four_operations, store);
    if (backend == NULL) {
        memory_destroy(store);
    }
    return backend;
}

void
memory_store_fail(tosc_backend *backend, enum mishap mishap)
{
    struct memory_store *store = tosc_backend_impl(backend);
    pthread_mutex_lock(&store->mutex);
    store->mishap = mishap;
    pthread_mutex_unlock(&store->mutex);
}
