/*
 * A plugin with backends that are broken on purpose: tosc-check-backend has to find out.
 *
 *     broken:/path?fault=NAME
 *
 * Each is a file backend in a wrapping that passes every call on but those which its fault
 * is about.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <tosc/backend.h>

struct broken {
    struct tosc_backend_ops ops;
    const struct tosc_backend_ops *inner; /* operations, */
    void *impl;                           /* and implementation of what is wrapped */
    tosc_backend *backend;
    char *lock_path;
    int64_t own_version; /* atomic: of the last change through this object */
    pthread_mutex_t mutex;
    const void *holder; /* guarded by the mutex */
};

static void
pause_us(long us)
{
    const struct timespec pause = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&pause, NULL);
}

static int64_t
now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* ---- what is right: passing on ---- */

static int
pass_read(void *impl, tosc_data *ret)
{
    struct broken *b = impl;

    return b->inner->read(b->impl, ret);
}

static void
note_version(struct broken *b, int status, const tosc_position *at)
{
    if (status == 0) {
        __atomic_store_n(&b->own_version, at->version, __ATOMIC_RELEASE);
    }
}

static int
pass_write(void *impl, const void *holder, const void *data, size_t size,
           tosc_position *ret)
{
    struct broken *b = impl;
    int status = b->inner->write(b->impl, holder, data, size, ret);

    note_version(b, status, ret);
    return status;
}

static int
pass_try_write(void *impl, const void *holder, const void *data, size_t size,
               const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    struct broken *b = impl;
    int status =
        b->inner->try_write(b->impl, holder, data, size, expected, expected_id, ret);

    note_version(b, status, ret);
    return status;
}

static int
pass_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
          const tosc_event *stop, bool *ret_changed)
{
    struct broken *b = impl;

    return b->inner->wait(b->impl, known, timeout_ms, stop, ret_changed);
}

static int
pass_append(void *impl, const void *holder, const void *data, size_t size,
            const tosc_commit_id *id, const tosc_position *known, tosc_data *ret)
{
    struct broken *b = impl;
    int status = b->inner->append(b->impl, holder, data, size, id, known, ret);

    note_version(b, status, &ret->at);
    return status;
}

static int
pass_read_since(void *impl, const tosc_position *known, tosc_data *ret)
{
    struct broken *b = impl;

    return b->inner->read_since(b->impl, known, ret);
}

static int
pass_changed(void *impl, const tosc_position *known)
{
    struct broken *b = impl;

    return b->inner->changed(b->impl, known);
}

static int
pass_compact(void *impl, const void *holder, const void *data, size_t size,
             const tosc_position *of, tosc_data *ret)
{
    struct broken *b = impl;

    return b->inner->compact(b->impl, holder, data, size, of, ret);
}

static int
pass_lock(void *impl, const void *holder, int64_t deadline_ns)
{
    struct broken *b = impl;

    return b->inner->lock(b->impl, holder, deadline_ns);
}

static int
pass_unlock(void *impl, const void *holder)
{
    struct broken *b = impl;

    return b->inner->unlock(b->impl, holder);
}

static void
end(void *impl)
{
    struct broken *b = impl;

    tosc_backend_unref(b->backend);
    pthread_mutex_destroy(&b->mutex);
    free(b->lock_path);
    free(b);
}

static tosc_position
position_now(struct broken *b)
{
    tosc_data data = {.bytes = NULL};

    b->inner->read(b->impl, &data);
    tosc_blob_unref(data.bytes);
    return data.at;
}

/* ---- what is wrong: reading and writing ---- */

static int
read_blob_of_nothing(void *impl, tosc_data *ret)
{
    int status = pass_read(impl, ret);

    if (status == 0 && !ret->at.stored) {
        ret->bytes = tosc_blob_new(0);
    }
    return status;
}

/* The bytes of one version with the position of an earlier one. */
static int
read_torn(void *impl, tosc_data *ret)
{
    tosc_data first;
    int status = pass_read(impl, &first);

    if (status != 0) {
        return status;
    }
    pause_us(100);
    status = pass_read(impl, ret);
    ret->at = status == 0 && first.at.stored ? first.at : ret->at;
    tosc_blob_unref(first.bytes);
    return status;
}

/* Bytes that are as they were are not stored again. */
static int
write_only_what_differs(void *impl, const void *holder, const void *data, size_t size,
                        tosc_position *ret)
{
    tosc_data now;
    int status = pass_read(impl, &now);
    bool same = status == 0 && now.at.stored && now.bytes->size == size
                && memcmp(now.bytes->data, data, size) == 0;

    tosc_blob_unref(status == 0 ? now.bytes : NULL);
    if (same) {
        *ret = now.at;
        return 0;
    }
    return pass_write(impl, holder, data, size, ret);
}

static int
write_up_to_a_megabyte(void *impl, const void *holder, const void *data, size_t size,
                       tosc_position *ret)
{
    return pass_write(impl, holder, data, size < 1000000 ? size : 1000000, ret);
}

static int
try_write_any_id(void *impl, const void *holder, const void *data, size_t size,
                 const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    (void)expected_id;
    return pass_try_write(impl, holder, data, size, expected, NULL, ret);
}

static int
try_write_32_bits(void *impl, const void *holder, const void *data, size_t size,
                  const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    int64_t low = expected != NULL ? (int32_t)*expected : 0;

    return pass_try_write(impl, holder, data, size, expected != NULL ? &low : NULL,
                          expected_id, ret);
}

/* Compares, and then writes. */
static int
try_write_in_two_steps(void *impl, const void *holder, const void *data, size_t size,
                       const int64_t *expected, const uint8_t *expected_id,
                       tosc_position *ret)
{
    struct broken *b = impl;
    tosc_position now = position_now(b);

    if (expected == NULL ? now.stored
                         : !now.stored || now.version != *expected
                               || (expected_id != NULL
                                   && memcmp(expected_id, now.store_id, 16) != 0)) {
        return TOSC_ECONFLICT;
    }
    pause_us(300);
    return pass_write(impl, holder, data, size, ret);
}

/* Says that it has stored what somebody else has overtaken on the way. */
static int
try_write_and_lose(void *impl, const void *holder, const void *data, size_t size,
                   const int64_t *expected, const uint8_t *expected_id,
                   tosc_position *ret)
{
    struct broken *b = impl;
    tosc_position now = position_now(b);
    bool was_there =
        expected == NULL
            ? !now.stored
            : now.stored && now.version == *expected
                  && (expected_id == NULL || memcmp(expected_id, now.store_id, 16) == 0);
    int status;

    pause_us(300);
    status = pass_try_write(impl, holder, data, size, expected, expected_id, ret);
    if (status == TOSC_ECONFLICT && was_there) {
        *ret = now;
        ret->version++;
        return 0;
    }
    return status;
}

static int
try_write_and_clear(void *impl, const void *holder, const void *data, size_t size,
                    const int64_t *expected, const uint8_t *expected_id,
                    tosc_position *ret)
{
    memset(ret, 0, sizeof(*ret));
    return pass_try_write(impl, holder, data, size, expected, expected_id, ret);
}

static void
end_but_leave_a_descriptor(void *impl)
{
    end(impl);
    if (dup(0) < 0) {
        abort();
    }
}

/* ---- waiting ---- */

static int
wait_from_now(void *impl, const tosc_position *known, int64_t timeout_ms,
              const tosc_event *stop, bool *ret_changed)
{
    tosc_position now = position_now(impl);

    (void)known;
    return pass_wait(impl, &now, timeout_ms, stop, ret_changed);
}

/* Hears only of what this very object has changed. */
static int
wait_for_own_changes(void *impl, const tosc_position *known, int64_t timeout_ms,
                     const tosc_event *stop, bool *ret_changed)
{
    struct broken *b = impl;
    struct pollfd event = {.fd = stop != NULL ? tosc_event_fd(stop) : -1,
                           .events = POLLIN};
    int64_t end_ns = timeout_ms < 0 ? INT64_MAX : now_ns() + timeout_ms * 1000000;

    for (;;) {
        int64_t own = __atomic_load_n(&b->own_version, __ATOMIC_ACQUIRE);

        if (own > known->version || now_ns() >= end_ns) {
            *ret_changed = own > known->version;
            return 0;
        }
        if (poll(&event, 1, 1) != 0) {
            return TOSC_EINTR;
        }
    }
}

static int
wait_without_event(void *impl, const tosc_position *known, int64_t timeout_ms,
                   const tosc_event *stop, bool *ret_changed)
{
    (void)stop;
    return pass_wait(impl, known, timeout_ms, NULL, ret_changed);
}

static int
wait_on_after_signals(void *impl, const tosc_position *known, int64_t timeout_ms,
                      const tosc_event *stop, bool *ret_changed)
{
    int status;

    do {
        status = pass_wait(impl, known, timeout_ms, stop, ret_changed);
    } while (status == TOSC_EINTR && (stop == NULL || !tosc_event_is_set(stop)));
    return status;
}

/* ---- the tail ---- */

static int
append_anywhere(void *impl, const void *holder, const void *data, size_t size,
                const tosc_commit_id *id, const tosc_position *known, tosc_data *ret)
{
    int status = pass_append(impl, holder, data, size, id, known, ret);

    while (status == TOSC_ECONFLICT) {
        tosc_position now = position_now(impl);

        status = pass_append(impl, holder, data, size, id, &now, ret);
    }
    return status;
}

static int
read_since_everything(void *impl, const tosc_position *known, tosc_data *ret)
{
    (void)known;
    return pass_read(impl, ret);
}

/* Believes that what came after a version is always there still. */
static int
read_since_as_if_nothing_was_replaced(void *impl, const tosc_position *known,
                                      tosc_data *ret)
{
    int status = pass_read_since(impl, known, ret);

    if (status == 0 && ret->whole && known->stored) {
        ret->whole = false;
    }
    return status;
}

static int
changed_never(void *impl, const tosc_position *known)
{
    (void)impl;
    (void)known;
    return 0;
}

static int
changed_hangs(void *impl, const tosc_position *known)
{
    (void)impl;
    (void)known;
    for (;;) {
        pause();
    }
}

/* The new base takes the place of everything, also of what came after `of`. */
static int
compact_and_drop_the_tail(void *impl, const void *holder, const void *data, size_t size,
                          const tosc_position *of, tosc_data *ret)
{
    tosc_position now = position_now(impl);

    return pass_compact(impl, holder, data, size,
                        of->cookie[0] == now.cookie[0] ? &now : of, ret);
}

static int
compact_what_is_gone(void *impl, const void *holder, const void *data, size_t size,
                     const tosc_position *of, tosc_data *ret)
{
    int status = pass_compact(impl, holder, data, size, of, ret);

    if (status == TOSC_ECONFLICT) {
        *ret = (tosc_data){.at = position_now(impl)};
        status = 0;
    }
    return status;
}

static int
compact_crashes(void *impl, const void *holder, const void *data, size_t size,
                const tosc_position *of, tosc_data *ret)
{
    (void)impl;
    (void)holder;
    (void)data;
    (void)size;
    (void)of;
    (void)ret;
    abort();
}

/* ---- the lock ---- */

static int
lock_nothing(void *impl, const void *holder, int64_t deadline_ns)
{
    (void)impl;
    (void)holder;
    (void)deadline_ns;
    return 0;
}

static int
unlock_nothing(void *impl, const void *holder)
{
    (void)impl;
    (void)holder;
    return 0;
}

/* Excludes who uses the same object only; their writes do not even wait for it. */
static int
lock_object(void *impl, const void *holder, int64_t deadline_ns)
{
    struct broken *b = impl;
    int status = 0;

    if (holder == NULL) {
        return TOSC_EINVAL;
    }
    pthread_mutex_lock(&b->mutex);
    while (b->holder != NULL && status == 0) {
        pthread_mutex_unlock(&b->mutex);
        if (now_ns() >= deadline_ns) {
            status = TOSC_ETIMEDOUT;
        } else if (poll(NULL, 0, 1) < 0) {
            status = TOSC_EINTR;
        }
        pthread_mutex_lock(&b->mutex);
    }
    b->holder = status == 0 ? holder : b->holder;
    pthread_mutex_unlock(&b->mutex);
    return status;
}

static int
unlock_object(void *impl, const void *holder)
{
    struct broken *b = impl;
    int status = TOSC_EINVAL;

    pthread_mutex_lock(&b->mutex);
    if (holder != NULL && b->holder == holder) {
        b->holder = NULL;
        status = 0;
    }
    pthread_mutex_unlock(&b->mutex);
    return status;
}

/* By a file that somebody who is killed leaves behind. */
static int
lock_by_file(void *impl, const void *holder, int64_t deadline_ns)
{
    struct broken *b = impl;

    for (;;) {
        int status = pass_lock(impl, holder, deadline_ns);
        int fd;

        if (status != 0) {
            return status;
        }
        fd = open(b->lock_path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
        if (fd >= 0) {
            close(fd);
            return 0;
        }
        pass_unlock(impl, holder);
        if (now_ns() >= deadline_ns) {
            return TOSC_ETIMEDOUT;
        }
        if (poll(NULL, 0, 1) < 0) {
            return TOSC_EINTR;
        }
    }
}

static int
unlock_by_file(void *impl, const void *holder)
{
    struct broken *b = impl;
    int status = pass_unlock(impl, holder);

    if (status == 0) {
        unlink(b->lock_path);
    }
    return status;
}

/* ---- which is which ---- */

static const struct tosc_backend_ops passing = {
    .size = sizeof(passing),
    .name = "broken",
    .destroy = end,
    .read = pass_read,
    .write = pass_write,
    .try_write = pass_try_write,
    .wait = pass_wait,
    .append = pass_append,
    .read_since = pass_read_since,
    .changed = pass_changed,
    .compact = pass_compact,
    .lock = pass_lock,
    .unlock = pass_unlock,
};

static void
only_required(struct tosc_backend_ops *ops)
{
    ops->append = NULL;
    ops->read_since = NULL;
    ops->changed = NULL;
    ops->compact = NULL;
    ops->lock = NULL;
    ops->unlock = NULL;
}

static bool
is(const char *fault, const char *name)
{
    return strcmp(fault, name) == 0;
}

static int
break_it(struct tosc_backend_ops *ops, const char *fault)
{
    if (is(fault, "none")) {
    } else if (is(fault, "no-wait")) {
        ops->wait = NULL;
    } else if (is(fault, "no-unlock")) {
        ops->unlock = NULL;
    } else if (is(fault, "blob-of-nothing")) {
        ops->read = read_blob_of_nothing;
    } else if (is(fault, "torn-read")) {
        only_required(ops);
        ops->read = read_torn;
    } else if (is(fault, "same-version")) {
        ops->write = write_only_what_differs;
    } else if (is(fault, "megabyte")) {
        ops->write = write_up_to_a_megabyte;
    } else if (is(fault, "any-id")) {
        ops->try_write = try_write_any_id;
    } else if (is(fault, "32-bits")) {
        ops->try_write = try_write_32_bits;
    } else if (is(fault, "two-steps")) {
        only_required(ops);
        ops->try_write = try_write_in_two_steps;
    } else if (is(fault, "lost-write")) {
        only_required(ops);
        ops->try_write = try_write_and_lose;
    } else if (is(fault, "outputs")) {
        ops->try_write = try_write_and_clear;
    } else if (is(fault, "descriptors")) {
        ops->destroy = end_but_leave_a_descriptor;
    } else if (is(fault, "late-wait")) {
        ops->wait = wait_from_now;
    } else if (is(fault, "own-wait")) {
        ops->wait = wait_for_own_changes;
    } else if (is(fault, "no-event")) {
        ops->wait = wait_without_event;
    } else if (is(fault, "no-signal")) {
        ops->wait = wait_on_after_signals;
    } else if (is(fault, "append-anywhere")) {
        ops->append = append_anywhere;
    } else if (is(fault, "all-is-news")) {
        ops->read_since = read_since_everything;
    } else if (is(fault, "stale-base")) {
        ops->read_since = read_since_as_if_nothing_was_replaced;
    } else if (is(fault, "unchanged")) {
        ops->changed = changed_never;
    } else if (is(fault, "hang")) {
        ops->changed = changed_hangs;
    } else if (is(fault, "lost-tail")) {
        ops->compact = compact_and_drop_the_tail;
    } else if (is(fault, "any-base")) {
        ops->compact = compact_what_is_gone;
    } else if (is(fault, "crash")) {
        ops->compact = compact_crashes;
    } else if (is(fault, "no-lock")) {
        ops->lock = lock_nothing;
        ops->unlock = unlock_nothing;
    } else if (is(fault, "object-lock")) {
        ops->lock = lock_object;
        ops->unlock = unlock_object;
    } else if (is(fault, "lock-stays")) {
        ops->lock = lock_by_file;
        ops->unlock = unlock_by_file;
    } else {
        return tosc_backend_fail(TOSC_EINVAL, "unknown fault \"%s\"", fault);
    }
    return 0;
}

static int
open_broken(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    const tosc_file_options options = {.not_durable = true};
    const char *fault = tosc_uri_parameter(uri, "fault");
    struct broken *b = calloc(1, sizeof(*b));
    size_t size = strlen(tosc_uri_path(uri)) + sizeof(".held");
    int status;

    (void)arg;
    if (b == NULL || (b->lock_path = malloc(size)) == NULL) {
        abort();
    }
    snprintf(b->lock_path, size, "%s.held", tosc_uri_path(uri));
    b->ops = passing;
    pthread_mutex_init(&b->mutex, NULL);
    status = break_it(&b->ops, fault != NULL ? fault : "none");
    if (status == 0) {
        status = tosc_backend_file_new(tosc_uri_path(uri), &options, &b->backend);
    }
    if (status != 0) {
        end(b);
        return status;
    }
    b->inner = tosc_backend_ops(b->backend);
    b->impl = tosc_backend_impl(b->backend);
    b->own_version = position_now(b).version;
    *ret = tosc_backend_new(&b->ops, b);
    return 0;
}

int
tosc_backend_plugin(void)
{
    return tosc_backend_register("broken", open_broken, NULL);
}
