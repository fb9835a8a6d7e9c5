/*
 * Stores by URI: taking apart, decoding, what is refused and how; schemes of one's own;
 * in-process stores with names.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

static tosc_backend *
open_uri(const char *format, const char *path)
{
    tosc_backend *b = NULL;
    char uri[2048];

    snprintf(uri, sizeof(uri), format, path);
    ok(tosc_backend_open(uri, &b));
    return b;
}

static int
open_fails(const char *uri)
{
    tosc_backend *b = NULL;
    int status = tosc_backend_open(uri, &b);

    ck_assert_ptr_null(b);
    return status;
}

/* The URI is refused with a message that has this in it. */
#define refused(uri, part) support_refused((uri), (part), __FILE__, __LINE__)
static void
support_refused(const char *uri, const char *part, const char *file, int line)
{
    support_fails(TOSC_EINVAL, open_fails(uri), uri, file, line);
    ck_assert_msg(strstr(tosc_error_message(), part) != NULL,
                  "%s:%d: \"%s\" lacks \"%s\"", file, line, tosc_error_message(), part);
}

/* ---- a scheme that shows what its opener is given ---- */

struct seen {
    char scheme[64];
    char authority[64];
    char path[64];
    char color[64];
    int number;
    bool truth;
    int calls;
    bool ask_authority;
};

static int
look(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    struct seen *seen = arg;
    const char *color = tosc_uri_parameter(uri, "color");
    const char *authority = seen->ask_authority ? tosc_uri_authority(uri) : NULL;
    int status;

    seen->calls++;
    snprintf(seen->scheme, sizeof(seen->scheme), "%s", tosc_uri_scheme(uri));
    snprintf(seen->authority, sizeof(seen->authority), "%s",
             authority != NULL ? authority : "(none)");
    snprintf(seen->path, sizeof(seen->path), "%s", tosc_uri_path(uri));
    snprintf(seen->color, sizeof(seen->color), "%s", color != NULL ? color : "(none)");
    status = tosc_uri_int(uri, "number", &seen->number);
    if (status == 0) {
        status = tosc_uri_bool(uri, "truth", &seen->truth);
    }
    return status == 0 ? tosc_backend_inproc_new(ret) : status;
}

static struct seen
see(const char *uri)
{
    static int serial;
    struct seen *seen = calloc(1, sizeof(*seen)); /* schemes stay */
    struct seen copy;
    char text[256];
    tosc_backend *b = NULL;

    seen->number = -1;
    seen->ask_authority = true;
    snprintf(text, sizeof(text), "see%d", serial);
    ok(tosc_backend_register(text, look, seen));
    snprintf(text, sizeof(text), "SEE%d:%s", serial++, uri);
    ok(tosc_backend_open(text, &b));
    tosc_backend_unref(b);
    copy = *seen;
    free(seen);
    return copy;
}

START_TEST(parts_are_decoded_after_they_were_told_apart)
{
    struct seen seen = see("a%2Fb%3f%23%26/c d+e?color=%41%3D%26b=c&number=17&truth=yes");

    ck_assert_str_eq(seen.path, "a/b?#&/c d+e");
    ck_assert_str_eq(seen.color, "A=&b=c");
    ck_assert_int_eq(seen.number, 17);
    ck_assert(seen.truth);
    ck_assert_str_eq(seen.authority, "(none)");
    ck_assert_str_eq(see("x?co%6cor=").color, "");
    ck_assert_str_eq(see("x?").color, "(none)");
    ck_assert_str_eq(see("").path, "");
    ck_assert_str_eq(see("%C3%A4\xc3\xa4").path, "\xc3\xa4\xc3\xa4");
    ck_assert_str_eq(see("a:b:c").path, "a:b:c");
}
END_TEST

START_TEST(authority_is_given_as_it_stands)
{
    struct seen seen = see("//u%40v:p@host:6379/0/%31?color=red");

    ck_assert_str_eq(seen.authority, "u%40v:p@host:6379");
    ck_assert_str_eq(seen.path, "/0/1");
    ck_assert_str_eq(seen.color, "red");
    seen = see("///path");
    ck_assert_str_eq(seen.authority, "");
    ck_assert_str_eq(seen.path, "/path");
    seen = see("//host");
    ck_assert_str_eq(seen.authority, "host");
    ck_assert_str_eq(seen.path, "");
    ck_assert_str_eq(see("//host?color=x").color, "x");
}
END_TEST

START_TEST(schemes_are_letters_of_either_case)
{
    ck_assert_int_eq(strncmp(see("x").scheme, "see", 3), 0);
    tosc_backend_unref(open_uri("InProc:%s", "case"));
    fails(TOSC_EINVAL, tosc_backend_register("", look, NULL));
    fails(TOSC_EINVAL, tosc_backend_register("1a", look, NULL));
    fails(TOSC_EINVAL, tosc_backend_register("a:b", look, NULL));
    fails(TOSC_EINVAL, tosc_backend_register("a b", look, NULL));
    fails(TOSC_EINVAL, tosc_backend_register("\xe4x", look, NULL));
    fails(TOSC_EINVAL, tosc_backend_register(NULL, look, NULL));
    fails(TOSC_EINVAL, tosc_backend_register("x", NULL, NULL));
    fails(TOSC_EINVAL, tosc_backend_register("File", look, NULL));
    ck_assert_ptr_nonnull(strstr(tosc_error_message(), "registered already"));
}
END_TEST

START_TEST(text_that_is_no_uri_is_refused)
{
    tosc_backend *b = NULL;

    refused("", "ceph, file, inproc");
    refused("/tmp/store", "begin with its scheme");
    refused(":x", "begin with its scheme");
    refused("my store:x", "begin with its scheme");
    refused("flie:/x", "unknown scheme \"flie\"");
    refused("flie:/x", "ceph, file, inproc");
    refused("file:/x#part", "#");
    refused("file:/x%", "\"%\" in the path");
    refused("file:/x%4", "\"%\" in the path");
    refused("file:/x%4g", "\"%\" in the path");
    refused("file:/x%00y", "NUL");
    refused("file:/x\ny", "control character");
    refused("file:/x?lock=%zz", "parameter \"lock\"");
    refused("file:/x?lock=a%00", "NUL");
    refused("file:/x?%00=a", "NUL");
    refused("file:/x?lock", "no value");
    refused("file:/x?=a", "without a name");
    refused("file:/x?durable=1&&lock=a", "without a name");
    refused("file:/x?durable=1&d%75rable=1", "twice");
    fails(TOSC_EINVAL, tosc_backend_open(NULL, &b));
    fails(TOSC_EINVAL, tosc_backend_open("inproc:x", NULL));
}
END_TEST

START_TEST(unknown_parameters_are_refused_and_the_known_ones_told)
{
    refused("file:/tmp/x?durabel=1", "unknown parameter \"durabel\"");
    refused("file:/tmp/x?durabel=1", "lock, durable, shared_by_hosts, poll_ms");
    refused("inproc:x?a=secret", "it knows none");
    ck_assert_ptr_null(strstr(tosc_error_message(), "secret"));
}
END_TEST

START_TEST(bad_values_are_refused_by_name)
{
    static const char *const numbers[] = {
        "", "-1", "+1", " 1", "1x", "0x10", "2147483648", "99999999999999999999"};
    char uri[128];

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        snprintf(uri, sizeof(uri), "file:/tmp/x?poll_ms=%s", numbers[i]);
        refused(uri, "\"poll_ms\"");
    }
    refused("file:/tmp/x?durable=2", "\"durable\"");
    refused("file:/tmp/x?durable=", "\"durable\"");
    refused("file:/tmp/x?shared_by_hosts=maybe", "\"shared_by_hosts\"");
    ck_assert_int_eq(see("x?number=2147483647").number, 2147483647);
    ck_assert_int_eq(see("x?number=007").number, 7);
    ck_assert(!see("x?truth=false").truth);
    ck_assert(see("x?truth=1").truth);
}
END_TEST

START_TEST(missing_paths_and_hosts_are_refused)
{
    refused("file:", "needs a path");
    refused("file:?durable=1", "needs a path");
    refused("inproc:", "needs a name");
    refused("file://host/path", "host");
    refused("file://relative", "host");
    refused("inproc://name", "host");
}
END_TEST

START_TEST(failures_of_the_constructor_are_passed_on)
{
    fails(TOSC_ESYSTEM, open_fails("file:/no/such/directory/store"));
    ck_assert_str_eq(tosc_error_path(), "/no/such/directory/store");
}
END_TEST

/* ---- file: ---- */

START_TEST(file_paths_may_be_written_in_three_ways)
{
    char relative[600];
    tosc_backend *b = open_uri("file:%s", path_in("store"));

    ck_assert_str_eq(tosc_backend_ops(b)->name, "file");
    ok(do_write(b, "here", NULL));
    tosc_backend_unref(b);
    b = open_uri("file://%s?durable=0", path_in("store"));
    holds(b, "here", 1);
    tosc_backend_unref(b);
    ck_assert_int_eq(chdir(directory()), 0);
    snprintf(relative, sizeof(relative), "../%s/store", strrchr(directory(), '/') + 1);
    b = open_uri("file:%s", relative);
    holds(b, "here", 1);
    tosc_backend_unref(b);
    b = open_uri("file:%s", "st%6fre");
    holds(b, "here", 1);
    tosc_backend_unref(b);
    ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

START_TEST(file_parameters_reach_the_backend)
{
    char uri[1200];
    tosc_position at;
    tosc_backend *b;

    snprintf(uri, sizeof(uri), "file:%s?lock=%s&shared_by_hosts=1&durable=no&poll_ms=7",
             path_in("store"), path_in("other lock"));
    b = open_uri("%s", uri);
    ok(do_write(b, "x", &at));
    ck_assert(exists(path_in("other lock")));
    ck_assert(!exists(path_in("store.lock")));
    ck_assert_int_eq(do_changed(b, &at), TOSC_EUNSUPPORTED);
    tosc_backend_unref(b);
}
END_TEST

/* ---- inproc: ---- */

START_TEST(one_name_is_one_store_until_the_last_reference_goes)
{
    tosc_backend *a = open_uri("inproc:%s", "name");
    tosc_backend *b = open_uri("inproc:%s", "n%61me");
    tosc_backend *other = open_uri("inproc:%s", "other");

    ok(do_write(a, "shared", NULL));
    holds(b, "shared", 1);
    holds(other, "", 0);
    tosc_backend_unref(a);
    a = open_uri("inproc:%s", "name");
    holds(a, "shared", 1);
    tosc_backend_unref(a);
    holds(b, "shared", 1);
    tosc_backend_unref(b);
    a = open_uri("inproc:%s", "name");
    holds(a, "", 0);
    tosc_backend_unref(a);
    tosc_backend_unref(other);
    fails(TOSC_EINVAL, tosc_backend_inproc_named("", &a));
    fails(TOSC_EINVAL, tosc_backend_inproc_named(NULL, &a));
}
END_TEST

START_TEST(lock_of_a_named_store_excludes_its_other_backends)
{
    tosc_backend *a = open_uri("inproc:%s", "lock");
    tosc_backend *b = open_uri("inproc:%s", "lock");
    int me;
    int you;

    ok(do_lock(a, &me, 0));
    fails(TOSC_ETIMEDOUT, do_lock(b, &you, 10));
    ok(do_unlock(a, &me));
    ok(do_lock(b, &you, 0));
    ok(do_unlock(b, &you));
    tosc_backend_unref(a);
    tosc_backend_unref(b);
}
END_TEST

struct crowd {
    pthread_barrier_t together;
    int *stop;
};

/* Whoever makes a change and still has a reference finds it again by name. */
static void *
come_and_go(void *argument)
{
    struct crowd *crowd = argument;
    char name[32];

    pthread_barrier_wait(&crowd->together);
    while (!__atomic_load_n(crowd->stop, __ATOMIC_RELAXED)) {
        tosc_backend *a = NULL;
        tosc_backend *b = NULL;
        tosc_position at;
        tosc_data data;

        snprintf(name, sizeof(name), "crowd%d", (int)(random_number() % 2));
        support_ok(tosc_backend_inproc_named(name, &a), "named", __FILE__, __LINE__);
        must(do_write(a, "x", &at) == 0);
        support_ok(tosc_backend_inproc_named(name, &b), "named", __FILE__, __LINE__);
        must(do_read(b, &data) == 0 && data.at.version >= at.version);
        tosc_blob_unref(data.bytes);
        tosc_backend_unref(a);
        tosc_backend_unref(b);
    }
    return NULL;
}

START_TEST(names_come_and_go_beside_threads)
{
    enum { THREADS = 4 };
    int stop = 0;
    struct crowd crowd = {.stop = &stop};
    pthread_t threads[THREADS];
    tosc_backend *b;

    pthread_barrier_init(&crowd.together, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, come_and_go, &crowd);
    }
    pthread_barrier_wait(&crowd.together);
    sleep_us(200000);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&crowd.together);
    b = open_uri("inproc:%s", "crowd0");
    holds(b, "", 0);
    tosc_backend_unref(b);
}
END_TEST

/* ---- when things fail ---- */

START_TEST(lack_of_memory_is_told_at_every_step)
{
    const char *uri = "file:/tmp/none?durable=0&lock=/tmp/none.lock";

    for (int at = 0;; at++) {
        tosc_backend *b = NULL;
        int status;
        bool struck;

        fault_arm(FAULT_MALLOC, at, 0, false);
        status = tosc_backend_open(at % 2 == 0 ? uri : "inproc:memory", &b);
        struck = fault_disarm();
        if (struck) {
            ck_assert_int_eq(status, TOSC_ENOMEM);
            ck_assert_ptr_null(b);
        } else {
            ok(status);
            tosc_backend_unref(b);
            if (at > 20) {
                break;
            }
        }
    }
    fault_arm(FAULT_MALLOC, 0, 0, false);
    fails(TOSC_ENOMEM, tosc_backend_register("memory", look, NULL));
    fault_disarm();
    refused("memory:x", "unknown scheme");
}
END_TEST

START_TEST(plugins_that_are_none_are_refused)
{
    put_file(path_in("text"), "no object", 9);
    fails(TOSC_ESYSTEM, tosc_backend_load_plugin(path_in("text")));
    fails(TOSC_ESYSTEM, tosc_backend_load_plugin("/no/such/plugin.so"));
    fails(TOSC_EINVAL, tosc_backend_load_plugin("libm.so.6"));
    ck_assert_ptr_nonnull(strstr(tosc_error_message(), "tosc_backend_plugin"));
    fails(TOSC_EINVAL, tosc_backend_load_plugin(""));
    fails(TOSC_EINVAL, tosc_backend_load_plugin(NULL));
}
END_TEST

START_TEST(backends_of_others_can_leave_a_sentence)
{
    fails(TOSC_EUNKNOWN, tosc_backend_fail(TOSC_EUNKNOWN, "reply %d of %s lost", 7, "x"));
    ck_assert_str_eq(tosc_error_message(), "reply 7 of x lost");
    ck_assert_int_eq(tosc_error_errno(), 0);
    fails(TOSC_ESYSTEM, tosc_backend_fail_errno(ECONNREFUSED, "cannot reach %s", "host"));
    ck_assert_str_eq(tosc_error_message(), "cannot reach host: Connection refused");
    ck_assert_int_eq(tosc_error_errno(), ECONNREFUSED);
    fails(TOSC_ENOMEM, tosc_backend_fail_errno(ENOMEM, "cannot"));
    fails(TOSC_EINVAL, tosc_backend_fail(TOSC_EINVAL, "%s!", tosc_error_message()));
    ck_assert_str_eq(tosc_error_message(), "cannot: Cannot allocate memory!");
}
END_TEST

static int
make_unchecked(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    (void)uri;
    (void)arg;
    return tosc_backend_inproc_new(ret);
}

START_TEST(backend_of_an_opener_that_checks_nothing_is_dropped_again)
{
    ok(tosc_backend_register("lazy", make_unchecked, NULL));
    refused("lazy:x?a=1", "unknown parameter \"a\"");
    refused("lazy://host/x", "host");
    tosc_backend_unref(open_uri("lazy:%s", "x"));
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("uri");
    TCase *tests = tcase_create("uri");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, directory_make_in_memory, directory_remove);
    tcase_add_test(tests, parts_are_decoded_after_they_were_told_apart);
    tcase_add_test(tests, authority_is_given_as_it_stands);
    tcase_add_test(tests, schemes_are_letters_of_either_case);
    tcase_add_test(tests, text_that_is_no_uri_is_refused);
    tcase_add_test(tests, unknown_parameters_are_refused_and_the_known_ones_told);
    tcase_add_test(tests, bad_values_are_refused_by_name);
    tcase_add_test(tests, missing_paths_and_hosts_are_refused);
    tcase_add_test(tests, failures_of_the_constructor_are_passed_on);
    tcase_add_test(tests, file_paths_may_be_written_in_three_ways);
    tcase_add_test(tests, file_parameters_reach_the_backend);
    tcase_add_test(tests, one_name_is_one_store_until_the_last_reference_goes);
    tcase_add_test(tests, lock_of_a_named_store_excludes_its_other_backends);
    tcase_add_test(tests, names_come_and_go_beside_threads);
    tcase_add_test(tests, lack_of_memory_is_told_at_every_step);
    tcase_add_test(tests, plugins_that_are_none_are_refused);
    tcase_add_test(tests, backends_of_others_can_leave_a_sentence);
    tcase_add_test(tests, backend_of_an_opener_that_checks_nothing_is_dropped_again);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
