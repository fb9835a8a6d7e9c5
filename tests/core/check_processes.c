/*
 * Several processes on one store of ours: writers that are killed, fairness, waking, the
 * lock, fork. What holds for every backend is checked by tosc-check-backend.
 *
 * The stores here hold entries that check themselves: entry n belongs to version n, and
 * what is stored is an unbroken run of entries up to the newest. So whatever was lost,
 * mixed or torn shows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/checksum.h"
#include "support.h"

/*
 * The allocators of the address and thread sanitizers (as of GCC 12) take no care of fork():
 * in the child of a process whose other threads allocate, they may wait for ever for one of
 * them.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WITH_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WITH_SANITIZER 1
#endif
#endif
#ifndef WITH_SANITIZER
#define WITH_SANITIZER 0
#endif

/* ---- entries ---- */

struct entry {
    uint64_t number;
    uint32_t size;
    uint32_t crc; /* of the two above */
};

static size_t
size_of_entry(uint64_t number)
{
    return sizeof(struct entry) + (number % 50 == 0 ? 9000 : number % 7 * 40);
}

static size_t
put_entry(unsigned char *to, uint64_t number)
{
    struct entry entry = {.number = number, .size = (uint32_t)size_of_entry(number)};

    entry.crc = tosc__crc32c(0, &entry, 12);
    memcpy(to, &entry, sizeof(entry));
    memset(to + sizeof(entry), (int)(number & 0xff), entry.size - sizeof(entry));
    return entry.size;
}

/*
 * Checks a run of entries that ends with `last`; `first`: with what it has to begin, 0:
 * any.
 */
static void
check_entries(const tosc_blob *bytes, uint64_t first, uint64_t last)
{
    size_t at = 0;
    uint64_t expected = first;

    must(bytes != NULL);
    while (at < bytes->size) {
        struct entry entry;

        must(bytes->size - at >= sizeof(entry));
        memcpy(&entry, bytes->data + at, sizeof(entry));
        must(entry.crc == tosc__crc32c(0, &entry, 12));
        expected = expected == 0 ? entry.number : expected;
        must(entry.number == expected);
        must(entry.size == size_of_entry(entry.number));
        must(bytes->size - at >= entry.size);
        for (size_t i = sizeof(entry); i < entry.size; i++) {
            must(bytes->data[at + i] == (entry.number & 0xff));
        }
        at += entry.size;
        expected++;
    }
    must(expected == last + 1);
}

static tosc_backend *
open_kind(const char *path, int kind)
{
    const tosc_file_options options = {.not_durable = kind != KIND_DURABLE,
                                       .shared_by_hosts = kind == KIND_NETWORK,
                                       .poll_ms = 10};

    return file_store_with(path, &options);
}

/*
 * One change: mostly an append, at times a replacement that drops the past, or a
 * compaction.
 */
static int
change_once(tosc_backend *b, tosc_position *at)
{
    static __thread unsigned char bytes[10000];
    uint64_t next = (uint64_t)at->version + 1;
    size_t size = put_entry(bytes, next);
    uint64_t dice = random_number() % 100;
    tosc_data data;
    tosc_data compacted;
    int status;

    if (dice < 3 && at->stored) {
        ok(do_read(b, &data));
        if (data.at.version == at->version) {
            status =
                tosc_backend_ops(b)->compact(tosc_backend_impl(b), NULL, data.bytes->data,
                                             data.bytes->size, &data.at, &compacted);
            if (status != TOSC_ECONFLICT) {
                ok(status);
            }
        }
        tosc_blob_unref(data.bytes);
    }
    if (dice > 97) {
        return tosc_backend_ops(b)->try_write(tosc_backend_impl(b), NULL, bytes, size,
                                              at->stored ? &at->version : NULL,
                                              at->stored ? at->store_id : NULL, at);
    }
    return do_append_bytes(b, bytes, size, at);
}

static tosc_position
position_now(tosc_backend *b)
{
    tosc_data data;

    ok(do_read(b, &data));
    if (data.at.stored) {
        check_entries(data.bytes, 0, (uint64_t)data.at.version);
    }
    tosc_blob_unref(data.bytes);
    return data.at;
}

/* ---- killed writers ---- */

struct victim {
    const char *path;
    int kind;
    struct {
        int started;   /* atomic */
        int64_t acked; /* atomic: the newest version that the writer was told of */
    } * shared;
};

static void
write_until_killed(void *argument)
{
    struct victim *victim = argument;
    tosc_backend *b = open_kind(victim->path, victim->kind);
    tosc_position at = position_now(b);

    __atomic_store_n(&victim->shared->started, 1, __ATOMIC_RELEASE);
    for (;;) {
        int status = change_once(b, &at);

        if (status == TOSC_ECONFLICT) {
            at = position_now(b);
            continue;
        }
        ok(status);
        __atomic_store_n(&victim->shared->acked, at.version, __ATOMIC_RELEASE);
    }
}

START_TEST(killed_writers_lose_nothing_acknowledged)
{
    int rounds = _i == KIND_LOCAL ? 100 : 30;
    struct victim victim = {.path = path_in("store"), .kind = _i};

    victim.shared = shared_memory(sizeof(*victim.shared));
    for (int i = 0; i < rounds; i++) {
        tosc_backend *b;
        tosc_position at;
        double start;
        pid_t child;
        int64_t acked;

        victim.shared->started = 0;
        child = child_start(write_until_killed, &victim);
        while (!__atomic_load_n(&victim.shared->started, __ATOMIC_ACQUIRE)) {
            sleep_us(50);
        }
        sleep_us((long)(random_number() % (i % 2 == 0 ? 500 : 8000)));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        acked = victim.shared->acked;
        b = open_kind(victim.path, victim.kind);
        start = seconds();
        if (i % 3 == 0) {
            int me;

            ok(do_lock(b, &me, 1000));
            ok(do_unlock(b, &me));
        }
        at = position_now(b);
        must(at.version >= acked);
        if (_i == KIND_NETWORK) {
            do { /* entering may find one more, complete but not acknowledged */
                at = position_now(b);
            } while (change_once(b, &at) == TOSC_ECONFLICT);
        } else { /* the writer is dead, so what was read is final */
            ok(change_once(b, &at));
        }
        must(seconds() - start < 1.0);
        position_now(b);
        must(at.version <= acked + 2);
        victim.shared->acked = at.version;
        tosc_backend_unref(b);
    }
}
END_TEST

START_TEST(killed_writer_does_not_disturb_the_others)
{
    struct victim victim = {.path = path_in("store"), .kind = KIND_LOCAL};
    struct victim survivor = victim;
    pid_t other;
    int64_t before;

    victim.shared = shared_memory(sizeof(*victim.shared));
    survivor.shared = shared_memory(sizeof(*victim.shared));
    other = child_start(write_until_killed, &survivor);
    for (int i = 0; i < 40; i++) {
        pid_t child = child_start(write_until_killed, &victim);

        sleep_us((long)(random_number() % 10000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    before = __atomic_load_n(&survivor.shared->acked, __ATOMIC_ACQUIRE);
    sleep_us(100000);
    must(__atomic_load_n(&survivor.shared->acked, __ATOMIC_ACQUIRE) > before);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
}
END_TEST

/*
 * Makes the store at `path`, with two versions, look as if its last writer had died when
 * the record of a third was in the file, and not yet published. `reader` has seen two.
 */
static void
let_writer_die_before_publishing(const char *path, tosc_backend *reader,
                                 tosc_position *ret_at)
{
    const uint32_t dirty = 1;
    unsigned char block[128];
    tosc_backend *writer = open_kind(path, KIND_LOCAL);
    tosc_position at = {.stored = false};
    char lock_path[600];
    int fd;

    ok(do_append(writer, "one ", &at));
    ok(do_append(writer, "two ", &at));
    holds(reader, "one two ", 2);
    *ret_at = at;
    snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
    fd = open(lock_path, O_RDWR | O_CLOEXEC);
    must(pread(fd, block, sizeof(block), 0) == sizeof(block));
    memcpy(block + 28, &dirty, sizeof(dirty));
    ok(do_append(writer, "three", &at));
    must(pwrite(fd, block, sizeof(block), 0) == sizeof(block));
    close(fd);
    tosc_backend_unref(writer);
}

START_TEST(what_a_dead_writer_left_is_settled_by_the_first_who_reads)
{
    const char *path = path_in("store");
    tosc_backend *b = open_kind(path, KIND_LOCAL);
    tosc_position at;
    tosc_data data;

    let_writer_die_before_publishing(path, b, &at);
    if (_i == 0) {
        ok(do_read_since(b, &at, &data));
        must(data.at.version == 3 && !data.whole && data.bytes->size == 5);
        tosc_blob_unref(data.bytes);
        must(do_changed(b, &data.at) == 0);
    }
    stored_at(path, "one two three", 3);
    holds(b, "one two three", 3);
    at.version = 3;
    ok(do_append(b, ".", &at));
    tosc_backend_unref(b);
}
END_TEST

START_TEST(reader_does_not_wait_for_a_writer_at_work)
{
    const char *path = path_in("store");
    tosc_backend *b = open_kind(path, KIND_LOCAL);
    tosc_backend *other = open_kind(path, KIND_LOCAL);
    tosc_position at;
    char lock_path[600];
    const uint32_t dirty = 1;
    double start;
    int fd;

    snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
    let_writer_die_before_publishing(path, b, &at);
    ok(do_lock(other, &at, 1000)); /* which publishes the third */
    fd = open(lock_path, O_RDWR | O_CLOEXEC);
    must(pwrite(fd, &dirty, sizeof(dirty), 28) == sizeof(dirty));
    start = seconds();
    holds(b, "one two three", 3);
    holds(other, "one two three", 3);
    must(seconds() - start < 0.1);
    close(fd);
    ok(do_unlock(other, &at));
    tosc_backend_unref(other);
    tosc_backend_unref(b);
}
END_TEST

/* ---- fairness ---- */

struct share {
    const char *path;
    int64_t *count;
    int *stop;
};

static void
count_until_told(void *argument)
{
    struct share *share = argument;
    tosc_backend *b = file_store(share->path);
    tosc_position at = {.stored = false};

    while (!__atomic_load_n(share->stop, __ATOMIC_RELAXED)) {
        tosc_data data;
        int status = do_append(b, ".", &at);

        if (status == 0) {
            ++*share->count;
            continue;
        }
        support_fails(TOSC_ECONFLICT, status, "append", __FILE__, __LINE__);
        ok(do_read_since(b, &at, &data));
        tosc_blob_unref(data.bytes);
        at = data.at;
    }
    tosc_backend_unref(b);
}

START_TEST(processes_that_append_lose_nothing_and_nobody_starves)
{
    enum { PROCESSES = 4 };
    int *stop = shared_memory(4096);
    int64_t *counts = (int64_t *)(stop + 64);
    struct share share = {.path = path_in("store"), .stop = stop};
    pid_t children[PROCESSES];
    int64_t sum = 0;
    tosc_backend *b;
    tosc_data data;

    for (int i = 0; i < PROCESSES; i++) {
        share.count = counts + i * 8;
        children[i] = child_start(count_until_told, &share);
    }
    sleep_us(1500000);
    *stop = 1;
    for (int i = 0; i < PROCESSES; i++) {
        child_join(children[i]);
        sum += counts[i * 8];
    }
    for (int i = 0; i < PROCESSES; i++) {
        ck_assert_msg(counts[i * 8] * 50 > sum,
                      "process %d made only %lld of %lld commits", i,
                      (long long)counts[i * 8], (long long)sum);
    }
    b = file_store(share.path);
    ok(do_read(b, &data));
    must(data.at.version == sum);
    must(data.bytes->size == (size_t)sum);
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}
END_TEST

/* ---- waking ---- */

struct waker {
    const char *path;
    int rounds;
    struct {
        int64_t seen; /* atomic */
        double at[200];
    } * shared;
};

static void
wait_and_note(void *argument)
{
    struct waker *waker = argument;
    tosc_backend *b = file_store(waker->path);
    tosc_position at = {.stored = false};

    while (at.version < waker->rounds) {
        bool changed = false;
        tosc_data data;

        ok(do_wait(b, &at, 20000, NULL, &changed));
        must(changed);
        ok(do_read_since(b, &at, &data));
        tosc_blob_unref(data.bytes);
        at = data.at;
        waker->shared->at[at.version % 200] = seconds();
        __atomic_store_n(&waker->shared->seen, at.version, __ATOMIC_RELEASE);
    }
    tosc_backend_unref(b);
}

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

START_TEST(waiter_in_another_process_is_woken_at_once)
{
    struct waker waker = {.path = path_in("store"), .rounds = 150};
    tosc_backend *b = file_store(waker.path);
    tosc_position at = {.stored = false};
    double late[200];
    pid_t child;

    waker.shared = shared_memory(sizeof(*waker.shared));
    child = child_start(wait_and_note, &waker);
    sleep_us(100000);
    for (int i = 0; i < waker.rounds; i++) {
        double start = seconds();

        ok(do_append(b, ".", &at));
        while (__atomic_load_n(&waker.shared->seen, __ATOMIC_ACQUIRE) < at.version) {
            sleep_us(20);
            must(seconds() - start < 10);
        }
        late[i] = waker.shared->at[at.version % 200] - start;
        sleep_us((long)(random_number() % 400));
    }
    child_join(child);
    qsort(late, (size_t)waker.rounds, sizeof(late[0]), by_value);
    ck_assert_msg(late[waker.rounds / 2] < 0.02,
                  "half of the wake-ups took %.1f ms and more",
                  late[waker.rounds / 2] * 1e3);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(killed_waiters_are_forgotten)
{
    struct waker waker = {.path = path_in("store"), .rounds = 150};
    tosc_backend *b = file_store(waker.path);
    tosc_position at = {.stored = false};
    unsigned char *block;
    uint64_t waiters;
    size_t size;
    char lock[600];

    waker.shared = shared_memory(sizeof(*waker.shared));
    ok(do_append(b, ".", &at));
    for (int i = 0; i < 3; i++) {
        pid_t child = child_start(wait_and_note, &waker);

        while (__atomic_load_n(&waker.shared->seen, __ATOMIC_ACQUIRE) < at.version) {
            sleep_us(100);
        }
        sleep_us(20000);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    ok(do_append(b, ".", &at));
    snprintf(lock, sizeof(lock), "%s.lock", waker.path);
    block = get_file(lock, &size);
    memcpy(&waiters, block + 128, sizeof(waiters));
    must((uint32_t)waiters == 0);
    free(block);
    tosc_backend_unref(b);
}
END_TEST

/* ---- the lock ---- */

struct holder {
    const char *path;
    int kind;
    int *state; /* atomic: 1 has the lock, 2 may let go */
    pid_t *grandchild;
};

static void
hold_until_told(void *argument)
{
    struct holder *holder = argument;
    tosc_backend *b = open_kind(holder->path, holder->kind);

    ok(do_lock(b, holder, 5000));
    __atomic_store_n(holder->state, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(holder->state, __ATOMIC_ACQUIRE) != 2) {
        sleep_us(200);
    }
    ok(do_unlock(b, holder));
    tosc_backend_unref(b);
}

static void
await_state(const int *state, int value)
{
    while (__atomic_load_n(state, __ATOMIC_ACQUIRE) != value) {
        sleep_us(200);
    }
}

START_TEST(holder_that_dies_frees_the_lock)
{
    struct holder holder = {path_in("store"), _i, shared_memory(4096), NULL};
    tosc_backend *b = open_kind(holder.path, _i);
    pid_t child = child_start(hold_until_told, &holder);
    double start;
    int me;

    await_state(holder.state, 1);
    fails(TOSC_ETIMEDOUT, do_lock(b, &me, 30));
    kill(child, SIGKILL);
    start = seconds();
    ok(do_lock(b, &me, -1));
    must(seconds() - start < 1.0);
    ok(do_unlock(b, &me));
    waitpid(child, NULL, 0);
    tosc_backend_unref(b);
}
END_TEST

/* ---- fork ---- */

static void
hold_and_fork(void *argument)
{
    struct holder *holder = argument;
    tosc_backend *b = open_kind(holder->path, holder->kind);
    pid_t child;

    ok(do_lock(b, holder, 5000));
    child = fork();
    if (child == 0) {
        for (;;) {
            pause(); /* never touches the store */
        }
    }
    *holder->grandchild = child;
    __atomic_store_n(holder->state, 1, __ATOMIC_RELEASE);
    for (;;) {
        pause();
    }
}

START_TEST(child_of_a_holder_does_not_keep_its_lock)
{
    struct holder holder = {path_in("store"), _i, shared_memory(4096),
                            shared_memory(4096)};
    tosc_backend *b = open_kind(holder.path, _i);
    pid_t child = child_start(hold_and_fork, &holder);
    int me;

    await_state(holder.state, 1);
    fails(TOSC_ETIMEDOUT, do_lock(b, &me, 30));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    ok(do_lock(b, &me, 2000));
    ok(do_unlock(b, &me));
    kill(*holder.grandchild, SIGKILL);
    tosc_backend_unref(b);
}
END_TEST

struct forked {
    tosc_backend *backend;
    tosc_position at;
    const void *holder;
};

static void
append_as_child(void *argument)
{
    struct forked *forked = argument;
    tosc_backend *b = forked->backend;
    const tosc_commit_id id = {{1}};
    unsigned char bytes[10000];
    tosc_data data = {.whole = false};
    size_t size;

    ok(do_lock(b, &data, -1));
    data.at = position_now(b);
    size = put_entry(bytes, (uint64_t)data.at.version + 1);
    ok(tosc_backend_ops(b)->append(tosc_backend_impl(b), &data, bytes, size, &id,
                                   &data.at, &data));
    ok(do_unlock(b, &data));
    tosc_backend_unref(b);
}

static void
find_locked(void *argument)
{
    struct forked *forked = argument;
    int me;

    fails(TOSC_EINVAL, do_unlock(forked->backend, forked->holder));
    fails(TOSC_ETIMEDOUT, do_lock(forked->backend, &me, 50));
}

START_TEST(child_is_locked_out_by_its_parent)
{
    tosc_backend *b = open_kind(path_in("store"), _i);
    struct forked forked = {.backend = b, .holder = &forked};
    tosc_position at = {.stored = false};

    ok(change_once(b, &at));
    ok(do_lock(b, &forked, 1000));
    child_join(child_start(find_locked, &forked));
    ok(do_unlock(b, &forked));
    child_join(child_start(append_as_child, &forked));
    at = position_now(b);
    must(at.version == 2);
    ok(change_once(b, &at));
    tosc_backend_unref(b);
}
END_TEST

struct busy {
    tosc_backend *backend;
    tosc_event *stop;
};

static void *
append_busily(void *argument)
{
    struct busy *busy = argument;
    tosc_position at = position_now(busy->backend);

    while (!tosc_event_is_set(busy->stop)) {
        if (change_once(busy->backend, &at) == TOSC_ECONFLICT) {
            at = position_now(busy->backend);
        }
    }
    return NULL;
}

static void *
wait_busily(void *argument)
{
    struct busy *busy = argument;
    tosc_position at = {.stored = false};
    bool changed;
    int status;

    do {
        tosc_data data;

        status = do_wait(busy->backend, &at, -1, busy->stop, &changed);
        ok(do_read_since(busy->backend, &at, &data));
        tosc_blob_unref(data.bytes);
        at = data.at;
    } while (status == 0);
    fails(TOSC_EINTR, status);
    return NULL;
}

START_TEST(forks_beside_busy_threads_do_not_hang)
{
    tosc_backend *b = open_kind(path_in("store"), _i);
    struct busy busy = {b, tosc_event_new()};
    struct forked forked = {.backend = b};
    tosc_position at = {.stored = false};
    pthread_t threads[3];

    ok(change_once(b, &at));
    pthread_create(&threads[0], NULL, append_busily, &busy);
    pthread_create(&threads[1], NULL, append_busily, &busy);
    pthread_create(&threads[2], NULL, wait_busily, &busy);
    for (int i = 0; i < 40; i++) {
        child_join(child_start(append_as_child, &forked));
    }
    tosc_event_set(busy.stop);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    at = position_now(b);
    must(at.version >= 41);
    tosc_event_free(busy.stop);
    tosc_backend_unref(b);
}
END_TEST

static void *
open_by_name_busily(void *argument)
{
    const int *over = argument;

    while (!__atomic_load_n(over, __ATOMIC_RELAXED)) {
        tosc_backend *b = NULL;

        must(tosc_backend_open("inproc:busy", &b) == 0);
        tosc_backend_unref(b);
        must(tosc_backend_open("nobody:x", &b) == TOSC_EINVAL);
    }
    return NULL;
}

static int
refuse(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    (void)uri;
    (void)arg;
    (void)ret;
    return TOSC_EINVAL;
}

static void
open_by_name_as_child(void *argument)
{
    tosc_backend *b = NULL;

    (void)argument;
    must(tosc_backend_open("inproc:busy", &b) == 0);
    must(do_write(b, "child", NULL) == 0);
    tosc_backend_unref(b);
    must(tosc_backend_register("of-a-child", refuse, NULL) == 0);
    must(tosc_backend_open("of-a-child:x", &b) == TOSC_EINVAL);
}

START_TEST(forks_beside_threads_that_open_by_name_do_not_hang)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    int over = 0;

    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, open_by_name_busily, &over);
    }
    for (int i = 0; i < 40; i++) {
        child_join(child_start(open_by_name_as_child, NULL));
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}
END_TEST

static void
change_own_copy(void *argument)
{
    struct forked *forked = argument;
    tosc_position at = forked->at;
    int me;

    ok(do_append(forked->backend, "child", &at));
    holds(forked->backend, "acbchild", 3);
    ok(do_lock(forked->backend, &me, 0));
    ok(do_unlock(forked->backend, &me));
    tosc_backend_unref(forked->backend);
}

START_TEST(child_has_a_copy_of_an_in_process_store)
{
    struct forked forked;

    ok(tosc_backend_inproc_new(&forked.backend));
    ok(do_write(forked.backend, "ac", &forked.at));
    ok(do_append(forked.backend, "b", &forked.at));
    ok(do_lock(forked.backend, &forked, 0));
    child_join(child_start(change_own_copy, &forked));
    ok(do_unlock(forked.backend, &forked));
    holds(forked.backend, "acb", 2);
    tosc_backend_unref(forked.backend);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("processes");
    TCase *memory = tcase_create("in memory");
    TCase *disk = tcase_create("on disk");

    tcase_set_timeout(memory, 120);
    tcase_add_checked_fixture(memory, directory_make_in_memory, directory_remove);
    tcase_add_loop_test(memory, killed_writers_lose_nothing_acknowledged, KIND_LOCAL,
                        KIND_LOCAL + 1);
    tcase_add_loop_test(memory, killed_writers_lose_nothing_acknowledged, KIND_NETWORK,
                        KIND_NETWORK + 1);
    tcase_add_test(memory, killed_writer_does_not_disturb_the_others);
    tcase_add_loop_test(memory, what_a_dead_writer_left_is_settled_by_the_first_who_reads,
                        0, 2);
    tcase_add_test(memory, reader_does_not_wait_for_a_writer_at_work);
    tcase_add_test(memory, processes_that_append_lose_nothing_and_nobody_starves);
    tcase_add_test(memory, waiter_in_another_process_is_woken_at_once);
    tcase_add_test(memory, killed_waiters_are_forgotten);
    tcase_add_loop_test(memory, holder_that_dies_frees_the_lock, KIND_LOCAL, KINDS);
    tcase_add_loop_test(memory, child_of_a_holder_does_not_keep_its_lock, KIND_LOCAL,
                        KINDS);
    tcase_add_loop_test(memory, child_is_locked_out_by_its_parent, KIND_LOCAL, KINDS);
    if (!WITH_SANITIZER) {
        tcase_add_test(memory, forks_beside_threads_that_open_by_name_do_not_hang);
        tcase_add_loop_test(memory, forks_beside_busy_threads_do_not_hang, KIND_LOCAL,
                            KIND_LOCAL + 1);
    }
    tcase_add_test(memory, child_has_a_copy_of_an_in_process_store);
    suite_add_tcase(suite, memory);
    tcase_set_timeout(disk, 120);
    tcase_add_checked_fixture(disk, directory_make, directory_remove);
    tcase_add_loop_test(disk, killed_writers_lose_nothing_acknowledged, KIND_DURABLE,
                        KIND_DURABLE + 1);
    suite_add_tcase(suite, disk);
    return run_suite(suite);
}
