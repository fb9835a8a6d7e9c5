/*
 * What our own backends promise beyond <tosc/sys/backend.h>, whose contract is checked by
 * tosc-check-backend (tests/cli/test_check_backend.py): run for the in-process backend, and
 * for the file backend on a local filesystem without and with flushing, and as on a network
 * filesystem. And the small things that all backends use.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static bool
bytes_are(const tosc_blob *bytes, const char *text)
{
    return bytes != NULL && bytes->size == strlen(text)
           && memcmp(bytes->data, text, bytes->size) == 0;
}

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

/* ---- waiting ---- */

struct later {
    tosc_backend *backend;
    tosc_position at;
    long us;
};

static void *
append_later(void *argument)
{
    struct later *later = argument;

    sleep_us(later->us);
    ok(do_append(later->backend, "+", &later->at));
    return NULL;
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
    TCase *all = tcase_create("our backends");
    TCase *small = tcase_create("small things");

    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_loop_test(all, first_version_is_one_and_each_change_adds_one, 0, KINDS);
    tcase_add_loop_test(all, empty_payloads_are_data_too, 0, KINDS);
    tcase_add_loop_test(all, read_since_a_wrong_cookie_is_right_all_the_same, 0, KINDS);
    tcase_add_loop_test(all, compaction_keeps_version_and_what_came_after, 0, KINDS);
    tcase_add_loop_test(all, wait_is_ended_by_an_append_in_another_thread, 0, KINDS);
    tcase_add_loop_test(all, many_waiters_leave_few_descriptors, 0, KINDS);
    suite_add_tcase(suite, all);
    tcase_add_test(small, blobs_and_backends_accept_null);
    tcase_add_test(small, status_codes_have_names);
    tcase_add_test(small, backend_ends_with_its_last_reference);
    tcase_add_test(small, messages_belong_to_their_thread);
    suite_add_tcase(suite, small);
    return run_suite(suite);
}
