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
    tosc_blob *pending;
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

static void flush(struct broken *b);

static void
end(void *impl)
{
    struct broken *b = impl;

    if (b->backend != NULL) {
        flush(b);
    }
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
    int status = pass_try_write(impl, holder, data, size, expected, expected_id, ret);

    if (status != 0) {
        memset(ret, 0, sizeof(*ret));
    }
    return status;
}

/* Keeps what was written in this process until it is asked for something else. */
static void
flush(struct broken *b)
{
    tosc_position at;

    if (b->pending != NULL) {
        b->inner->write(b->impl, NULL, b->pending->data, b->pending->size, &at);
        b->pending = tosc_blob_unref(b->pending);
    }
}

static int
read_after_flushing(void *impl, tosc_data *ret)
{
    flush(impl);
    return pass_read(impl, ret);
}

static int
try_write_later(void *impl, const void *holder, const void *data, size_t size,
                const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    struct broken *b = impl;
    tosc_position now;

    flush(b);
    now = position_now(b);
    if (!now.stored) {
        return pass_try_write(impl, holder, data, size, expected, expected_id, ret);
    }
    if (expected == NULL || *expected != now.version) {
        return TOSC_ECONFLICT;
    }
    b->pending = tosc_blob_new(size);
    memcpy(b->pending->data, data, size);
    *ret = now;
    ret->version++;
    return 0;
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
    pause_us(3600 * 1000000L);
    return 0;
}

/* The new base takes the place of everything, also of what came after `of`. */
static int
compact_and_drop_the_tail(void *impl, const void *holder, const void *data, size_t size,
                          const tosc_position *of, tosc_data *ret)
{
    tosc_position now = position_now(impl);

    if (memcmp(of->store_id, now.store_id, 16) == 0 && of->cookie[0] == now.cookie[0]) {
        of = &now;
    }
    return pass_compact(impl, holder, data, size, of, ret);
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

/* What differs from the right one; with `bare`, it has only what is required. */
struct fault {
    const char *name;
    bool bare;
    struct tosc_backend_ops ops;
};

static const struct fault faults[] = {
    {.name = "none"},
    {.name = "no-wait"},
    {.name = "no-unlock"},
    {"blob-of-nothing", false, {.read = read_blob_of_nothing}},
    {"torn-read", true, {.read = read_torn}},
    {"same-version", false, {.write = write_only_what_differs}},
    {"megabyte", false, {.write = write_up_to_a_megabyte}},
    {"any-id", false, {.try_write = try_write_any_id}},
    {"32-bits", false, {.try_write = try_write_32_bits}},
    {"two-steps", true, {.try_write = try_write_in_two_steps}},
    {"lost-write", true, {.try_write = try_write_and_lose}},
    {"later", true, {.read = read_after_flushing, .try_write = try_write_later}},
    {"outputs", false, {.try_write = try_write_and_clear}},
    {"descriptors", false, {.destroy = end_but_leave_a_descriptor}},
    {"late-wait", false, {.wait = wait_from_now}},
    {"own-wait", false, {.wait = wait_for_own_changes}},
    {"no-event", false, {.wait = wait_without_event}},
    {"no-signal", false, {.wait = wait_on_after_signals}},
    {"append-anywhere", false, {.append = append_anywhere}},
    {"all-is-news", false, {.read_since = read_since_everything}},
    {"stale-base", false, {.read_since = read_since_as_if_nothing_was_replaced}},
    {"unchanged", false, {.changed = changed_never}},
    {"hang", false, {.changed = changed_hangs}},
    {"lost-tail", false, {.compact = compact_and_drop_the_tail}},
    {"any-base", false, {.compact = compact_what_is_gone}},
    {"crash", false, {.compact = compact_crashes}},
    {"no-lock", false, {.lock = lock_nothing, .unlock = unlock_nothing}},
    {"object-lock", false, {.lock = lock_object, .unlock = unlock_object}},
    {"lock-stays", false, {.lock = lock_by_file, .unlock = unlock_by_file}},
};

#define REPLACE(operation) \
    (b->ops.operation = fault->ops.operation != NULL ? fault->ops.operation \
                        : fault->bare                ? NULL \
                                                     : b->ops.operation)
#define REPLACE_REQUIRED(operation) \
    (b->ops.operation = \
         fault->ops.operation != NULL ? fault->ops.operation : b->ops.operation)

static void
break_it(struct broken *b, const struct fault *fault)
{
    REPLACE_REQUIRED(destroy);
    REPLACE_REQUIRED(read);
    REPLACE_REQUIRED(write);
    REPLACE_REQUIRED(try_write);
    REPLACE_REQUIRED(wait);
    REPLACE(append);
    REPLACE(read_since);
    REPLACE(changed);
    REPLACE(compact);
    REPLACE(lock);
    REPLACE(unlock);
    if (strcmp(fault->name, "no-wait") == 0) {
        b->ops.wait = NULL;
    } else if (strcmp(fault->name, "no-unlock") == 0) {
        b->ops.unlock = NULL;
    }
}

static const struct fault *
find_fault(const char *name)
{
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (strcmp(faults[i].name, name) == 0) {
            return &faults[i];
        }
    }
    return NULL;
}

static int
open_broken(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    const tosc_file_options options = {.not_durable = true};
    const char *name = tosc_uri_parameter(uri, "fault");
    const struct fault *fault = find_fault(name != NULL ? name : "none");
    struct broken *b;
    size_t size = strlen(tosc_uri_path(uri)) + sizeof(".held");
    int status = tosc_uri_check(uri);

    (void)arg;
    if (status == 0 && fault == NULL) {
        status = tosc_backend_fail(TOSC_EINVAL, "there is no fault \"%s\"", name);
    }
    if (status != 0) {
        return status;
    }
    b = calloc(1, sizeof(*b));
    b->lock_path = malloc(size);
    snprintf(b->lock_path, size, "%s.held", tosc_uri_path(uri));
    pthread_mutex_init(&b->mutex, NULL);
    b->ops = passing;
    break_it(b, fault);
    status = tosc_backend_file_new(tosc_uri_path(uri), &options, &b->backend);
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
