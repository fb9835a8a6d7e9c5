/*
 * Backends under Managers of C: those of the library, by URI; those that C brings; keys
 * and allowed classes. What scripts see of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "memory_store.h"
#include "stores.h"

static bool
is_destroyed(const struct memory_counts *counts)
{
    int times = __atomic_load_n(&counts->destroyed, __ATOMIC_ACQUIRE);
    ck_assert_int_le(times, 1);
    return times == 1;
}

/* ---- backends ---- */

START_TEST(scripts_see_the_backend_that_c_has_opened)
{
    char expression[700];
    host_start();
    tosc_manager *manager = open_at(store_in("seen"));
    give_to_scripts(manager);
    snprintf(
        expression, sizeof(expression),
        "type(m.backend) is tosc.FileBackend and m.backend.file_path == '%s' and not "
        "m.backend.durable",
        path_in("seen"));
    ck_assert(python_true(expression));
    tosc_manager_unref(manager);
    manager = open_at("inproc:seen");
    write_json(manager, "[1]");
    give_to_scripts(manager);
    ck_assert(python_true("type(m.backend) is tosc.InprocBackend"));
    python("other = tosc.Manager(m.backend)\n"
           "assert other.read() == [1]\n"
           "other.read().append(2)\n"
           "other.close()\n"
           "assert tosc.Manager(tosc.open_backend('inproc:seen')).read() == [1, 2]");
    stores(manager, "[1, 2]");
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

/* _i: whether it can append. */
START_TEST(a_backend_written_in_c_serves_c_and_scripts)
{
    struct memory_counts counts = {0};
    host_start();
    tosc_backend *backend = memory_store_new(_i != 0, &counts);
    tosc_manager *one = manager_over(tosc_backend_ref(backend));
    tosc_manager *two = manager_over(backend);
    write_json(one, "{\"n\": 1, \"list\": []}");
    stores(two, "{\"n\": 1, \"list\": []}");
    give_to_scripts(two);
    python("data = m.read()\n"
           "with m.transaction():\n"
           "    data['n'] += 1\n"
           "    data['list'].append('x')\n"
           "assert m.backend.read()[0] == m.version\n"
           "third = tosc.Manager(m.backend)\n"
           "third.read()['n'] += 1");
    stores(one, "{\"n\": 3, \"list\": [\"x\"]}");
    stores(two, "{\"n\": 3, \"list\": [\"x\"]}");
    if (_i == 0) {
        ck_assert_int_eq(counts.appends, 0);
        ck_assert_int_ge(counts.writes, 3);
    } else {
        ck_assert_int_eq(counts.appends, 2);
        ck_assert_int_eq(counts.writes, 1);
    }
    python("third.close()\ndel third, data, m");
    ok(tosc_host_publish("m", NULL));
    tosc_manager_unref(one);
    tosc_manager_unref(two);
    python("import gc; gc.collect()");
    host_stop();
    ck_assert(is_destroyed(&counts));
}
END_TEST

START_TEST(a_backend_written_in_c_looks_like_one_to_scripts)
{
    host_start();
    tosc_manager *manager = manager_over(memory_store_new(false, NULL));
    give_to_scripts(manager);
    python(
        "import copy, pickle\n"
        "b = m.backend\n"
        "assert isinstance(b, tosc.BackendBase) and m.backend is b\n"
        "assert repr(b) == \"<tosc backend 'memory'>\", repr(b)\n"
        "assert b.read() == (None, None)\n"
        "assert b.try_write(b'x', 3) is False and b.try_write(b'x', None) is True\n"
        "version = b.write(b'y')\n"
        "assert b.read() == (version, b'y') == copy.copy(b).read() == b.copy().read()\n"
        "b.target_wait(timeout=0)\n"
        "assert b.target_wait(timeout=0) is False\n"
        "b.write(b'z')\n"
        "assert b.target_wait(timeout=1) is True\n"
        "for wrong, error in [(lambda: type(b)(), TypeError),\n"
        "                     (lambda: pickle.dumps(b), TypeError),\n"
        "                     (lambda: b.write('text'), TypeError)]:\n"
        "    try:\n"
        "        wrong()\n"
        "    except error:\n"
        "        continue\n"
        "    raise AssertionError(error)\n");
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(an_incomplete_backend_is_refused)
{
    static const struct {
        size_t missing;
        const char *words;
    } cases[] = {
        {offsetof(struct tosc_backend_ops, size), "another version"},
        {offsetof(struct tosc_backend_ops, name), "no name"},
        {offsetof(struct tosc_backend_ops, read), "has to have the operations"},
        {offsetof(struct tosc_backend_ops, write), "has to have the operations"},
        {offsetof(struct tosc_backend_ops, try_write), "has to have the operations"},
        {offsetof(struct tosc_backend_ops, wait), "has to have the operations"},
        {offsetof(struct tosc_backend_ops, unlock), "without the other"},
    };
    host_start();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tosc_backend *whole;
        tosc_manager *manager = NULL;
        ok(tosc_backend_inproc_new(&whole));
        struct tosc_backend_ops ops = *tosc_backend_ops(whole);
        ops.destroy = NULL;
        memset((char *)&ops + cases[i].missing, 0, sizeof(void *));
        tosc_backend *part = tosc_backend_new(&ops, tosc_backend_impl(whole));
        fails(TOSC_EINVAL, tosc_manager_new(part, NULL, &manager));
        told(cases[i].words);
        ck_assert_ptr_null(manager);
        tosc_backend_unref(part);
        tosc_backend_unref(whole);
    }
    host_stop();
}
END_TEST

START_TEST(what_a_backend_says_is_told)
{
    host_start();
    tosc_backend *backend = memory_store_new(true, NULL);
    tosc_manager *manager = manager_over(tosc_backend_ref(backend));
    write_json(manager, "{\"n\": 1}");
    tosc_value *root;
    ok(tosc_manager_read(manager, &root));
    memory_store_fail(backend, MISHAP_REFUSED);
    fails(TOSC_ESYSTEM, tosc_set_int64(root, tosc_key("n"), 2));
    ck_assert_int_eq(number_at(root, tosc_key("n")), 1);
    memory_store_fail(backend, MISHAP_LOST_REPLY);
    fails(TOSC_EUNKNOWN, tosc_set_int64(root, tosc_key("n"), 3));
    stores(manager, "{\"n\": 3}");
    memory_store_fail(backend, MISHAP_LOST_REQUEST);
    fails(TOSC_EUNKNOWN, tosc_set_int64(root, tosc_key("n"), 4));
    stores(manager, "{\"n\": 3}");
    ok(tosc_set_int64(root, tosc_key("n"), 5));
    stores(manager, "{\"n\": 5}");
    tosc_value_unref(root);
    tosc_manager_unref(manager);
    tosc_backend_unref(backend);
    host_stop();
}
END_TEST

/* ---- options ---- */

START_TEST(a_key_keeps_others_out)
{
    const tosc_manager_options good = {.key = "se\0cret", .key_size = 7};
    const tosc_manager_options other = {.key = "se", .key_size = 2};
    tosc_manager *manager;
    tosc_value *root;
    host_start();
    ok(tosc_manager_open(store_in("locked"), &good, &manager));
    write_json(manager, "[1]");
    tosc_manager_unref(manager);
    ok(tosc_manager_open(store_in("locked"), &other, &manager));
    fails(TOSC_ECORRUPT, tosc_manager_read(manager, &root));
    tosc_manager_unref(manager);
    ok(tosc_manager_open(store_in("locked"), NULL, &manager));
    fails(TOSC_ECORRUPT, tosc_manager_read(manager, &root));
    tosc_manager_unref(manager);
    ok(tosc_manager_open(store_in("locked"), &good, &manager));
    stores(manager, "[1]");
    tosc_manager_unref(manager);
    const tosc_manager_options wrong[] = {{.key = ""}, {.key_size = 3}};
    for (int i = 0; i < 2; i++) {
        manager = NULL;
        fails(TOSC_EINVAL, tosc_manager_open(store_in("locked"), &wrong[i], &manager));
        told("key_size");
        ck_assert_ptr_null(manager);
    }
    host_stop();
}
END_TEST

START_TEST(only_allowed_classes_are_loaded)
{
    const char *const allowed[] = {"argparse.Namespace", NULL};
    const char *const none[] = {NULL};
    const char *const nonsense[] = {"bad.\xff", NULL};
    tosc_manager_options options = {.allowed_classes = allowed};
    tosc_manager *manager;
    tosc_manager *strict;
    tosc_value *root;
    host_start();
    manager = open_at(store_in("classes"));
    give_to_scripts(manager);
    python("import argparse, types\n"
           "m.write([argparse.Namespace(x=1)])");
    ok(tosc_manager_open(store_in("classes"), &options, &strict));
    ok(tosc_manager_read(strict, &root));
    tosc_value_unref(root);
    python("m.read().append(types.SimpleNamespace(x=1))");
    fails(TOSC_ESERIALIZE, tosc_manager_refresh(strict, &root));
    told("SimpleNamespace");
    tosc_manager_unref(strict);
    options.allowed_classes = none;
    ok(tosc_manager_open(store_in("classes"), &options, &strict));
    fails(TOSC_ESERIALIZE, tosc_manager_read(strict, &root));
    tosc_manager_unref(strict);
    options.allowed_classes = nonsense;
    fails(TOSC_EINVAL, tosc_manager_open(store_in("classes"), &options, &strict));
    static const char *const undotted[] = {"Namespace", "", ".Namespace", "argparse.",
                                           "."};
    for (size_t i = 0; i < sizeof(undotted) / sizeof(undotted[0]); i++) {
        const char *const names[] = {"argparse.Namespace", undotted[i], NULL};
        options.allowed_classes = names;
        fails(TOSC_EINVAL, tosc_manager_open(store_in("classes"), &options, &strict));
        told("'module.name'");
        told(undotted[i]);
    }
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_wrong_uri_is_told)
{
    tosc_manager *manager = NULL;
    host_start();
    fails(TOSC_EINVAL, tosc_manager_open("what:ever", NULL, &manager));
    told("unknown scheme");
    fails(TOSC_EINVAL, tosc_manager_open(NULL, NULL, &manager));
    fails(TOSC_EINVAL, tosc_manager_open("file:/tmp/x?colour=red", NULL, &manager));
    told("colour");
    fails(TOSC_EINVAL, tosc_manager_open("inproc:x?colour=red", NULL, &manager));
    told("for the scheme inproc");
    fails(TOSC_ESYSTEM, tosc_manager_open("file:/missing/dir/store", NULL, &manager));
    ck_assert_int_eq(tosc_error_errno(), ENOENT);
    ck_assert_ptr_null(manager);
    host_stop();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("backends");
    TCase *tests = tcase_create("backends");
    tcase_add_checked_fixture(tests, directory_make, directory_remove);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, scripts_see_the_backend_that_c_has_opened);
    tcase_add_loop_test(tests, a_backend_written_in_c_serves_c_and_scripts, 0, 2);
    tcase_add_test(tests, a_backend_written_in_c_looks_like_one_to_scripts);
    tcase_add_test(tests, an_incomplete_backend_is_refused);
    tcase_add_test(tests, what_a_backend_says_is_told);
    tcase_add_test(tests, a_key_keeps_others_out);
    tcase_add_test(tests, only_allowed_classes_are_loaded);
    tcase_add_test(tests, a_wrong_uri_is_told);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
