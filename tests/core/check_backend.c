/*
 * What every backend with all operations must do: run for the in-process backend, and for
 * the file backend on a local filesystem without and with flushing, and as on a network
 * filesystem.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

static bool
bytes_are(const tosc_blob *bytes, const char *text)
{
    return bytes != NULL && bytes->size == strlen(text)
           && memcmp(bytes->data, text, bytes->size) == 0;
}

START_TEST(new_store_holds_nothing)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_data data;

    ok(do_read(b, &data));
    ck_assert(!data.at.stored && data.whole && data.bytes == NULL);
    ck_assert_int_eq(data.at.version, 0);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(first_version_is_one_and_each_change_adds_one)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position at;

    ok(do_write(b, "one", &at));
    ck_assert_int_eq(at.version, 1);
    ok(do_write(b, "two", &at));
    ck_assert_int_eq(at.version, 2);
    ok(do_append(b, "+three", &at));
    ck_assert_int_eq(at.version, 3);
    holds(b, "two+three", 3);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(store_keeps_its_id)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position first;
    tosc_position at;
    uint8_t none[16] = {0};

    ok(do_write(b, "one", &first));
    ck_assert_mem_ne(first.store_id, none, 16);
    ok(do_write(b, "two", &at));
    ck_assert_mem_eq(first.store_id, at.store_id, 16);
    ok(do_append(b, "x", &at));
    ok(do_compact(b, "twox", &at, &at));
    ck_assert_mem_eq(first.store_id, at.store_id, 16);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(try_write_succeeds_only_at_the_expected_version)
{
    tosc_backend *b = store_of_kind(_i);
    const struct tosc_backend_ops *ops = tosc_backend_ops(b);
    void *impl = tosc_backend_impl(b);
    tosc_position at = {.stored = false};
    tosc_position before;
    int64_t expected = 0;

    fails(TOSC_ECONFLICT, ops->try_write(impl, NULL, "a", 1, &expected, NULL, &at));
    ok(ops->try_write(impl, NULL, "a", 1, NULL, NULL, &at));
    before = at;
    fails(TOSC_ECONFLICT, ops->try_write(impl, NULL, "b", 1, NULL, NULL, &at));
    expected = 2;
    fails(TOSC_ECONFLICT, ops->try_write(impl, NULL, "b", 1, &expected, NULL, &at));
    ck_assert_mem_eq(&before, &at, sizeof(at));
    expected = 1;
    ok(ops->try_write(impl, NULL, "b", 1, &expected, NULL, &at));
    holds(b, "b", 2);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(try_write_looks_at_the_store_id_if_it_is_given)
{
    tosc_backend *b = store_of_kind(_i);
    const struct tosc_backend_ops *ops = tosc_backend_ops(b);
    void *impl = tosc_backend_impl(b);
    tosc_position at;
    uint8_t other[16] = {1, 2, 3};
    int64_t expected = 1;

    ok(do_write(b, "a", &at));
    fails(TOSC_ECONFLICT, ops->try_write(impl, NULL, "b", 1, &expected, other, &at));
    ok(ops->try_write(impl, NULL, "b", 1, &expected, at.store_id, &at));
    holds(b, "b", 2);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(append_succeeds_only_at_the_known_position)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position at;
    tosc_position old;
    tosc_position other;

    ok(do_write(b, "a", &at));
    old = at;
    ok(do_append(b, "b", &at));
    fails(TOSC_ECONFLICT, do_append(b, "c", &old));
    other = at;
    other.store_id[3] ^= 1;
    fails(TOSC_ECONFLICT, do_append(b, "c", &other));
    other = (tosc_position){.stored = false};
    fails(TOSC_ECONFLICT, do_append(b, "c", &other));
    holds(b, "ab", 2);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(append_to_nothing_makes_the_store)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position at = {.stored = false};
    tosc_data data;

    ok(do_append(b, "first", &at));
    ck_assert_int_eq(at.version, 1);
    ok(do_append(b, " second", &at));
    holds(b, "first second", 2);
    ok(do_read(b, &data));
    ck_assert_uint_eq(data.base_bytes, 5);
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(empty_payloads_are_data_too)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position at;
    tosc_data data;

    ok(do_write(b, "", &at));
    ok(do_read(b, &data));
    ck_assert(data.at.stored && data.bytes != NULL && data.bytes->size == 0);
    tosc_blob_unref(data.bytes);
    ok(do_append(b, "", &at));
    holds(b, "", 2);
    ok(do_append(b, "x", &at));
    holds(b, "x", 3);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(payloads_of_every_size_come_back)
{
    static const size_t sizes[] = {1,      7,      8,      9,      448,   455,   456,
                                   457,    511,    512,    513,    4030,  4032,  4040,
                                   4095,   4096,   4097,   65535,  65536, 65537, 131000,
                                   131072, 131073, 300000, 1000000};
    tosc_backend *b = store_of_kind(_i);
    size_t room = 4000000;
    unsigned char *all = malloc(room);
    size_t used = 0;
    tosc_position at = {.stored = false};
    tosc_data data;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        tosc_position before = at;

        for (size_t k = 0; k < sizes[i]; k++) {
            all[used + k] = i % 3 == 0 ? 0 : (unsigned char)(i * 31 + k * 7);
        }
        ok(do_append_bytes(b, all + used, sizes[i], &at));
        ok(do_read_since(b, &before, &data));
        ck_assert_uint_eq(data.bytes->size, sizes[i]);
        ck_assert_mem_eq(data.bytes->data, all + used, sizes[i]);
        tosc_blob_unref(data.bytes);
        used += sizes[i];
    }
    ok(do_read(b, &data));
    ck_assert_uint_eq(data.bytes->size, used);
    ck_assert_mem_eq(data.bytes->data, all, used);
    tosc_blob_unref(data.bytes);
    free(all);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(read_since_gives_only_the_news)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position start;
    tosc_position at;
    tosc_data data;

    ok(do_write(b, "base", &start));
    at = start;
    ok(do_append(b, "-a", &at));
    ok(do_append(b, "-b", &at));
    ok(do_read_since(b, &start, &data));
    ck_assert(!data.whole && data.at.version == 3 && bytes_are(data.bytes, "-a-b"));
    tosc_blob_unref(data.bytes);
    ok(do_read_since(b, &at, &data));
    ck_assert(!data.whole && data.bytes == NULL && data.at.version == 3);
    start = (tosc_position){.stored = false};
    ok(do_read_since(b, &start, &data));
    ck_assert(data.whole && bytes_are(data.bytes, "base-a-b"));
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(read_since_a_wrong_cookie_is_right_all_the_same)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position start;
    tosc_position at;
    tosc_data data;

    ok(do_write(b, "base", &start));
    at = start;
    ok(do_append(b, "-a", &at));
    ok(do_append(b, "-b", &at));
    for (int i = 0; i < 100; i++) {
        tosc_position known = start;

        known.version = 2;
        known.cookie[1] = i < 50 ? start.cookie[1] + (uint64_t)i * 8 : random_number();
        known.cookie[0] ^= i % 3 == 0;
        ok(do_read_since(b, &known, &data));
        ck_assert(!data.whole && data.at.version == 3 && bytes_are(data.bytes, "-b"));
        tosc_blob_unref(data.bytes);
        known.version = 3;
        ok(do_read_since(b, &known, &data));
        ck_assert(!data.whole && data.at.version == 3 && data.bytes == NULL);
    }
    tosc_backend_unref(b);
}
END_TEST

START_TEST(read_since_another_store_gives_everything)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position at;
    tosc_data data;

    ok(do_write(b, "base", &at));
    ok(do_append(b, "-a", &at));
    at.store_id[0] ^= 1;
    ok(do_read_since(b, &at, &data));
    ck_assert(data.whole && bytes_are(data.bytes, "base-a"));
    tosc_blob_unref(data.bytes);
    at.store_id[0] ^= 1;
    at.version = 77;
    ok(do_read_since(b, &at, &data));
    ck_assert(data.whole && bytes_are(data.bytes, "base-a"));
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(replacement_is_news_from_the_start)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position old;
    tosc_position at;
    tosc_data data;

    ok(do_write(b, "old", &old));
    ok(do_write(b, "new", &at));
    ok(do_append(b, "er", &at));
    ok(do_read_since(b, &old, &data));
    ck_assert(data.whole && data.at.version == 3 && bytes_are(data.bytes, "newer"));
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(compaction_keeps_version_and_what_came_after)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position of;
    tosc_position before;
    tosc_position at;
    tosc_data data;

    ok(do_write(b, "a", &at));
    before = at;
    ok(do_append(b, "b", &at));
    of = at;
    ok(do_append(b, "c", &at));
    ok(do_append(b, "d", &at));
    ok(do_compact(b, "AB", &of, &at));
    ck_assert_int_eq(at.version, 4);
    holds(b, "ABcd", 4);
    ok(do_read_since(b, &of, &data));
    ck_assert(!data.whole && bytes_are(data.bytes, "cd"));
    tosc_blob_unref(data.bytes);
    ok(do_read_since(b, &before, &data));
    ck_assert(data.whole && bytes_are(data.bytes, "ABcd"));
    ck_assert_uint_eq(data.base_bytes, 2);
    tosc_blob_unref(data.bytes);
    ck_assert_int_ne(do_changed(b, &at), 1);
    ok(do_append(b, "e", &at));
    holds(b, "ABcde", 5);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(compaction_of_everything_leaves_no_tail)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position at;
    tosc_data data;

    ok(do_write(b, "a", &at));
    for (int i = 0; i < 50; i++) {
        ok(do_append(b, "b", &at));
    }
    ok(do_compact(b, "short", &at, &at));
    ok(do_read(b, &data));
    ck_assert_uint_eq(data.tail_bytes, 0);
    ck_assert_uint_eq(data.base_bytes, 5);
    tosc_blob_unref(data.bytes);
    holds(b, "short", 51);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(compaction_of_a_base_that_is_gone_is_refused)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position old;
    tosc_position at;

    ok(do_write(b, "a", &old));
    ok(do_write(b, "b", &at));
    fails(TOSC_ECONFLICT, do_compact(b, "A", &old, NULL));
    ok(do_compact(b, "B", &at, &at));
    old = at;
    ok(do_compact(b, "C", &at, &at));
    fails(TOSC_ECONFLICT, do_compact(b, "D", &old, NULL));
    old.store_id[0] ^= 1;
    fails(TOSC_ECONFLICT, do_compact(b, "D", &old, NULL));
    holds(b, "C", 2);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(changed_tells_whether_the_store_has_moved_on)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position nothing = {.stored = false};
    tosc_position at;
    tosc_position old;

    ok(do_write(b, "a", &at));
    if (_i == KIND_NETWORK) {
        ck_assert_int_eq(do_changed(b, &at), TOSC_EUNSUPPORTED);
    } else {
        ck_assert_int_eq(do_changed(b, &at), 0);
        ck_assert_int_eq(do_changed(b, &nothing), 1);
        old = at;
        ok(do_append(b, "b", &at));
        ck_assert_int_eq(do_changed(b, &old), 1);
        ck_assert_int_eq(do_changed(b, &at), 0);
        old = at;
        old.store_id[5] ^= 1;
        ck_assert_int_eq(do_changed(b, &old), 1);
    }
    tosc_backend_unref(b);
}
END_TEST

START_TEST(failures_leave_outputs_untouched)
{
    tosc_backend *b = store_of_kind(_i);
    const struct tosc_backend_ops *ops = tosc_backend_ops(b);
    tosc_position at;
    tosc_data data;
    tosc_data before;
    tosc_position wrong = {.stored = true, .version = 9};

    ok(do_write(b, "a", &at));
    memset(&data, 0x5a, sizeof(data));
    before = data;
    fails(TOSC_ECONFLICT,
          ops->append(tosc_backend_impl(b), NULL, "x", 1, NULL, &wrong, &data));
    ck_assert_mem_eq(&before, &data, sizeof(data));
    tosc_backend_unref(b);
}
END_TEST

/* ---- waiting ---- */

START_TEST(wait_reports_a_change_that_came_before)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position old;
    tosc_position at;
    bool changed = false;

    ok(do_write(b, "a", &at));
    old = at;
    ok(do_append(b, "b", &at));
    ok(do_wait(b, &old, 1000, NULL, &changed));
    ck_assert(changed);
    old = (tosc_position){.stored = false};
    changed = false;
    ok(do_wait(b, &old, 1000, NULL, &changed));
    ck_assert(changed);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(wait_ends_at_its_timeout)
{
    tosc_backend *b = store_of_kind(_i);
    tosc_position at;
    bool changed = true;
    double start = seconds();

    ok(do_write(b, "a", &at));
    ok(do_wait(b, &at, 60, NULL, &changed));
    ck_assert(!changed);
    ck_assert_double_ge(seconds() - start, 0.059);
    ck_assert_double_lt(seconds() - start, 2.0);
    ok(do_wait(b, &at, 0, NULL, &changed));
    ck_assert(!changed);
    tosc_backend_unref(b);
}
END_TEST

struct later {
    tosc_backend *backend;
    tosc_position at;
    tosc_event *event;
    pthread_t target;
    long us;
    int over; /* atomic */
};

static void *
append_later(void *argument)
{
    struct later *later = argument;

    sleep_us(later->us);
    ok(do_append(later->backend, "+", &later->at));
    return NULL;
}

static void *
write_later(void *argument)
{
    struct later *later = argument;

    sleep_us(later->us);
    ok(do_write(later->backend, "first", NULL));
    return NULL;
}

static void *
set_later(void *argument)
{
    struct later *later = argument;

    sleep_us(later->us);
    tosc_event_set(later->event);
    return NULL;
}

/* Again and again: a signal that comes between two sleeps of a wait does not end it. */
static void *
signal_later(void *argument)
{
    struct later *later = argument;

    do {
        sleep_us(later->us);
        pthread_kill(later->target, SIGUSR1);
    } while (!__atomic_load_n(&later->over, __ATOMIC_ACQUIRE));
    return NULL;
}

static void
end_signals(struct later *later, pthread_t thread)
{
    __atomic_store_n(&later->over, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    later->over = 0;
}

START_TEST(wait_is_ended_by_an_append_in_another_thread)
{
    tosc_backend *b = store_of_kind(_i);
    struct later later = {.backend = b, .us = 30000};
    tosc_position at;
    pthread_t thread;
    bool changed = false;

    ok(do_write(b, "a", &at));
    for (int i = 0; i < 3; i++) {
        double start = seconds();

        later.at = at;
        pthread_create(&thread, NULL, append_later, &later);
        ok(do_wait(b, &at, 5000, NULL, &changed));
        ck_assert(changed);
        ck_assert_double_lt(seconds() - start, 0.4);
        pthread_join(thread, NULL);
        at = later.at;
    }
    tosc_backend_unref(b);
}
END_TEST

START_TEST(wait_on_an_empty_store_is_ended_by_its_first_write)
{
    tosc_backend *b = store_of_kind(_i);
    struct later later = {.backend = b, .us = 30000};
    tosc_position nothing = {.stored = false};
    pthread_t thread;
    bool changed = false;
    double start = seconds();

    pthread_create(&thread, NULL, write_later, &later);
    ok(do_wait(b, &nothing, 5000, NULL, &changed));
    ck_assert(changed);
    ck_assert_double_lt(seconds() - start, 0.4);
    pthread_join(thread, NULL);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(wait_is_ended_by_its_event)
{
    tosc_backend *b = store_of_kind(_i);
    struct later later = {.event = tosc_event_new(), .us = 30000};
    tosc_position at;
    pthread_t thread;
    bool changed = true;
    double start = seconds();

    ok(do_write(b, "a", &at));
    pthread_create(&thread, NULL, set_later, &later);
    fails(TOSC_EINTR, do_wait(b, &at, -1, later.event, &changed));
    ck_assert_double_lt(seconds() - start, 2.0);
    ck_assert(changed);
    pthread_join(thread, NULL);
    ck_assert(tosc_event_is_set(later.event));
    fails(TOSC_EINTR, do_wait(b, &at, -1, later.event, &changed));
    tosc_event_free(later.event);
    tosc_backend_unref(b);
}
END_TEST

static void
ignore(int signal_number)
{
    (void)signal_number;
}

static void
handle_signal(void)
{
    struct sigaction action = {.sa_handler = ignore};

    sigaction(SIGUSR1, &action, NULL);
}

START_TEST(wait_is_ended_by_a_signal)
{
    tosc_backend *b = store_of_kind(_i);
    struct later later = {.target = pthread_self(), .us = 30000};
    tosc_position at;
    pthread_t thread;
    bool changed;

    handle_signal();
    ok(do_write(b, "a", &at));
    pthread_create(&thread, NULL, signal_later, &later);
    fails(TOSC_EINTR, do_wait(b, &at, -1, NULL, &changed));
    end_signals(&later, thread);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(no_change_of_a_burst_is_missed_by_a_waiter)
{
    tosc_backend *b = store_of_kind(_i);
    struct later later = {.backend = b, .us = 0};
    tosc_position at;
    pthread_t thread;

    ok(do_write(b, "a", &at));
    for (int i = 0; i < 300; i++) {
        bool changed = false;
        double start = seconds();

        later.at = at;
        later.us = (long)(random_number() % 100);
        pthread_create(&thread, NULL, append_later, &later);
        ok(do_wait(b, &at, 3000, NULL, &changed));
        ck_assert(changed);
        ck_assert_double_lt(seconds() - start, 0.45);
        pthread_join(thread, NULL);
        at = later.at;
    }
    tosc_backend_unref(b);
}
END_TEST

/* ---- the lock ---- */

START_TEST(lock_keeps_other_holders_out_and_lets_its_own_in)
{
    tosc_backend *b = store_of_kind(_i);
    const struct tosc_backend_ops *ops = tosc_backend_ops(b);
    void *impl = tosc_backend_impl(b);
    const tosc_commit_id id = {{1}};
    tosc_position at;
    tosc_data data;
    int me;
    int other;

    ok(do_write(b, "a", &at));
    ok(do_lock(b, &me, 1000));
    fails(TOSC_ETIMEDOUT, do_lock(b, &other, 20));
    fails(TOSC_ETIMEDOUT, do_lock(b, &other, 0));
    ok(ops->append(impl, &me, "b", 1, &id, &at, &data));
    at = data.at;
    ok(ops->write(impl, &me, "c", 1, &at));
    ok(ops->try_write(impl, &me, "d", 1, &at.version, at.store_id, &at));
    ok(ops->append(impl, &me, "e", 1, &id, &at, &data));
    ok(ops->compact(impl, &me, "DE", 2, &data.at, &data));
    holds(b, "DE", 5);
    ok(do_unlock(b, &me));
    ok(do_lock(b, &other, 1000));
    ok(do_unlock(b, &other));
    tosc_backend_unref(b);
}
END_TEST

START_TEST(only_its_holder_can_unlock)
{
    tosc_backend *b = store_of_kind(_i);
    int me;
    int other;

    fails(TOSC_EINVAL, do_unlock(b, &me));
    ok(do_lock(b, &me, 1000));
    fails(TOSC_EINVAL, do_unlock(b, &other));
    fails(TOSC_EINVAL, do_unlock(b, NULL));
    ok(do_unlock(b, &me));
    fails(TOSC_EINVAL, do_unlock(b, &me));
    fails(TOSC_EINVAL, do_lock(b, NULL, 0));
    tosc_backend_unref(b);
}
END_TEST

START_TEST(append_of_another_thread_waits_for_the_lock)
{
    tosc_backend *b = store_of_kind(_i);
    struct later later = {.backend = b, .us = 0};
    pthread_t thread;
    int me;

    ok(do_write(b, "a", &later.at));
    ok(do_lock(b, &me, 1000));
    pthread_create(&thread, NULL, append_later, &later);
    sleep_us(50000);
    holds(b, "a", 1);
    ok(do_unlock(b, &me));
    pthread_join(thread, NULL);
    holds(b, "a+", 2);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(wait_for_the_lock_is_ended_by_a_signal)
{
    tosc_backend *b = store_of_kind(_i);
    struct later later = {.target = pthread_self(), .us = 30000};
    pthread_t thread;
    int me;
    int other;

    handle_signal();
    ok(do_lock(b, &me, 1000));
    pthread_create(&thread, NULL, signal_later, &later);
    fails(TOSC_EINTR, do_lock(b, &other, -1));
    end_signals(&later, thread);
    pthread_create(&thread, NULL, signal_later, &later);
    fails(TOSC_EINTR, do_lock(b, &other, 5000));
    end_signals(&later, thread);
    ok(do_unlock(b, &me));
    tosc_backend_unref(b);
}
END_TEST

static int
count_descriptors(void)
{
    DIR *descriptors = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(descriptors) != NULL) {
        count++;
    }
    closedir(descriptors);
    return count;
}

struct short_wait {
    tosc_backend *backend;
    pthread_barrier_t *together;
};

static void *
wait_shortly(void *argument)
{
    struct short_wait *wait = argument;
    tosc_data data;
    bool changed;

    ok(do_read(wait->backend, &data));
    tosc_blob_unref(data.bytes);
    pthread_barrier_wait(wait->together);
    ok(do_wait(wait->backend, &data.at, 300, NULL, &changed));
    return NULL;
}

START_TEST(many_waiters_leave_few_descriptors)
{
    enum { THREADS = 20 };
    tosc_backend *b = store_of_kind(_i);
    pthread_barrier_t together;
    struct short_wait wait = {b, &together};
    pthread_t threads[THREADS];
    int before;

    ok(do_write(b, "x", NULL));
    before = count_descriptors();
    for (int round = 0; round < 2; round++) {
        pthread_barrier_init(&together, NULL, THREADS);
        for (int i = 0; i < THREADS; i++) {
            pthread_create(&threads[i], NULL, wait_shortly, &wait);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        pthread_barrier_destroy(&together);
    }
    ck_assert_int_le(count_descriptors(), before + 2);
    tosc_backend_unref(b);
}
END_TEST

struct hammer {
    tosc_backend *backend;
    int rounds;
    int conflicts;
};

static void *
hammer(void *argument)
{
    struct hammer *hammer = argument;
    tosc_position at = {.stored = false};
    tosc_data data;

    for (int i = 0; i < hammer->rounds;) {
        int status = do_append(hammer->backend, ".", &at);

        if (status == 0) {
            i++;
            continue;
        }
        support_fails(TOSC_ECONFLICT, status, "append", __FILE__, __LINE__);
        hammer->conflicts++;
        ok(do_read_since(hammer->backend, &at, &data));
        at = data.at;
        tosc_blob_unref(data.bytes);
    }
    return NULL;
}

START_TEST(threads_that_append_lose_nothing)
{
    enum { THREADS = 6 };
    int rounds = _i == KIND_DURABLE ? 30 : 500;
    tosc_backend *b = store_of_kind(_i);
    struct hammer hammers[THREADS];
    pthread_t threads[THREADS];
    tosc_data data;

    for (int i = 0; i < THREADS; i++) {
        hammers[i] = (struct hammer){.backend = b, .rounds = rounds};
        pthread_create(&threads[i], NULL, hammer, &hammers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    ok(do_read(b, &data));
    ck_assert_int_eq(data.at.version, THREADS * rounds);
    ck_assert_uint_eq(data.bytes->size, (size_t)(THREADS * rounds));
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}
END_TEST

struct exclusion {
    tosc_backend *backend;
    int *inside;
};

static void *
hold_lock_often(void *argument)
{
    struct exclusion *exclusion = argument;

    for (int i = 0; i < 200; i++) {
        ok(do_lock(exclusion->backend, &i, i % 2 == 0 ? -1 : 20000));
        ck_assert_int_eq(__atomic_add_fetch(exclusion->inside, 1, __ATOMIC_RELAXED), 1);
        ck_assert_int_eq(__atomic_sub_fetch(exclusion->inside, 1, __ATOMIC_RELAXED), 0);
        ok(do_unlock(exclusion->backend, &i));
    }
    return NULL;
}

START_TEST(lock_is_held_by_one_thread_at_a_time)
{
    enum { THREADS = 4 };
    tosc_backend *b = store_of_kind(_i);
    int inside = 0;
    struct exclusion exclusion = {b, &inside};
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, hold_lock_often, &exclusion);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    tosc_backend_unref(b);
}
END_TEST

/* ---- the small ones ---- */

START_TEST(blobs_and_backends_accept_null)
{
    ck_assert_ptr_null(tosc_blob_unref(NULL));
    ck_assert_ptr_null(tosc_blob_ref(NULL));
    ck_assert_ptr_null(tosc_backend_unref(NULL));
    ck_assert_ptr_null(tosc_backend_ref(NULL));
    ck_assert_ptr_null(tosc_event_free(NULL));
    ck_assert_ptr_null(tosc_blob_new(SIZE_MAX));
}
END_TEST

START_TEST(status_codes_have_names)
{
    ck_assert_str_eq(tosc_status_name(0), "TOSC_OK");
    ck_assert_str_eq(tosc_status_name(TOSC_ECONFLICT), "TOSC_ECONFLICT");
    ck_assert_str_eq(tosc_status_name(TOSC_EPYTHON), "TOSC_EPYTHON");
    ck_assert_str_eq(tosc_status_name(-99), "unknown status");
    ck_assert_str_eq(tosc_status_name(1), "unknown status");
}
END_TEST

static int destroyed;

static void
count_destroy(void *impl)
{
    ck_assert_ptr_eq(impl, &destroyed);
    destroyed++;
}

START_TEST(backend_ends_with_its_last_reference)
{
    static const struct tosc_backend_ops ops = {
        .size = sizeof(ops), .name = "test", .destroy = count_destroy};
    tosc_backend *b = tosc_backend_new(&ops, &destroyed);

    ck_assert_ptr_eq(tosc_backend_ops(b), &ops);
    ck_assert_ptr_eq(tosc_backend_ref(b), b);
    tosc_backend_unref(b);
    ck_assert_int_eq(destroyed, 0);
    tosc_backend_unref(b);
    ck_assert_int_eq(destroyed, 1);
}
END_TEST

static void *
fail_elsewhere(void *argument)
{
    tosc_backend *b;

    (void)argument;
    ck_assert_str_eq(tosc_error_message(), "");
    fails(TOSC_EINVAL, tosc_backend_file_new("", NULL, &b));
    return NULL;
}

START_TEST(messages_belong_to_their_thread)
{
    tosc_backend *b;
    pthread_t thread;
    char before[512];

    fails(TOSC_ESYSTEM, tosc_backend_file_new("/no/such/directory/x", NULL, &b));
    snprintf(before, sizeof(before), "%s", tosc_error_message());
    pthread_create(&thread, NULL, fail_elsewhere, NULL);
    pthread_join(thread, NULL);
    ck_assert_str_eq(tosc_error_message(), before);
    ck_assert_str_eq(tosc_error_path(), "/no/such/directory/x");
    ck_assert_int_eq(tosc_error_errno(), 2);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("backend");
    TCase *all = tcase_create("every backend");
    TCase *small = tcase_create("small things");

    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_loop_test(all, new_store_holds_nothing, 0, KINDS);
    tcase_add_loop_test(all, first_version_is_one_and_each_change_adds_one, 0, KINDS);
    tcase_add_loop_test(all, store_keeps_its_id, 0, KINDS);
    tcase_add_loop_test(all, try_write_succeeds_only_at_the_expected_version, 0, KINDS);
    tcase_add_loop_test(all, try_write_looks_at_the_store_id_if_it_is_given, 0, KINDS);
    tcase_add_loop_test(all, append_succeeds_only_at_the_known_position, 0, KINDS);
    tcase_add_loop_test(all, append_to_nothing_makes_the_store, 0, KINDS);
    tcase_add_loop_test(all, empty_payloads_are_data_too, 0, KINDS);
    tcase_add_loop_test(all, payloads_of_every_size_come_back, 0, KINDS);
    tcase_add_loop_test(all, read_since_gives_only_the_news, 0, KINDS);
    tcase_add_loop_test(all, read_since_a_wrong_cookie_is_right_all_the_same, 0, KINDS);
    tcase_add_loop_test(all, read_since_another_store_gives_everything, 0, KINDS);
    tcase_add_loop_test(all, replacement_is_news_from_the_start, 0, KINDS);
    tcase_add_loop_test(all, compaction_keeps_version_and_what_came_after, 0, KINDS);
    tcase_add_loop_test(all, compaction_of_everything_leaves_no_tail, 0, KINDS);
    tcase_add_loop_test(all, compaction_of_a_base_that_is_gone_is_refused, 0, KINDS);
    tcase_add_loop_test(all, changed_tells_whether_the_store_has_moved_on, 0, KINDS);
    tcase_add_loop_test(all, failures_leave_outputs_untouched, 0, KINDS);
    tcase_add_loop_test(all, wait_reports_a_change_that_came_before, 0, KINDS);
    tcase_add_loop_test(all, wait_ends_at_its_timeout, 0, KINDS);
    tcase_add_loop_test(all, wait_is_ended_by_an_append_in_another_thread, 0, KINDS);
    tcase_add_loop_test(all, wait_on_an_empty_store_is_ended_by_its_first_write, 0,
                        KINDS);
    tcase_add_loop_test(all, wait_is_ended_by_its_event, 0, KINDS);
    tcase_add_loop_test(all, wait_is_ended_by_a_signal, 0, KINDS);
    tcase_add_loop_test(all, no_change_of_a_burst_is_missed_by_a_waiter, 0, KINDS);
    tcase_add_loop_test(all, lock_keeps_other_holders_out_and_lets_its_own_in, 0, KINDS);
    tcase_add_loop_test(all, only_its_holder_can_unlock, 0, KINDS);
    tcase_add_loop_test(all, append_of_another_thread_waits_for_the_lock, 0, KINDS);
    tcase_add_loop_test(all, wait_for_the_lock_is_ended_by_a_signal, 0, KINDS);
    tcase_add_loop_test(all, many_waiters_leave_few_descriptors, 0, KINDS);
    tcase_add_loop_test(all, threads_that_append_lose_nothing, 0, KINDS);
    tcase_add_loop_test(all, lock_is_held_by_one_thread_at_a_time, 0, KINDS);
    suite_add_tcase(suite, all);
    tcase_add_test(small, blobs_and_backends_accept_null);
    tcase_add_test(small, status_codes_have_names);
    tcase_add_test(small, backend_ends_with_its_last_reference);
    tcase_add_test(small, messages_belong_to_their_thread);
    suite_add_tcase(suite, small);
    return run_suite(suite);
}
