/*
 * Managers from C: making and ending them, the stored object, what scripts see of it,
 * misuse.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory_store.h"
#include "stores.h"

static bool
is_destroyed(const struct memory_counts *counts)
{
    int times = __atomic_load_n(&counts->destroyed, __ATOMIC_ACQUIRE);
    ck_assert_int_le(times, 1);
    return times == 1;
}

/* ---- the stored object ---- */

START_TEST(what_is_written_is_read)
{
    host_start();
    tosc_manager *manager = open_at("inproc:one");
    write_json(manager, "{\"n\": 1, \"list\": [1, 2]}");
    tosc_value *root;
    tosc_value *again;
    ok(tosc_manager_read(manager, &root));
    ck_assert_int_eq(number_at(root, tosc_key("n")), 1);
    ok(tosc_set_int64(root, tosc_path("list/0"), 7));
    ok(tosc_manager_read(manager, &again));
    ck_assert_int_eq(number_at(again, tosc_path("list/0")), 7);
    stores(manager, "{\"n\": 1, \"list\": [7, 2]}");
    tosc_value_unref(root);
    tosc_value_unref(again);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(an_empty_store_is_told)
{
    host_start();
    tosc_manager *manager = open_at("inproc:empty");
    tosc_value *untouched = (tosc_value *)&untouched;
    tosc_value *value = untouched;
    int64_t version = 7;
    tosc_scope scope;
    fails(TOSC_ENOTFOUND, tosc_manager_read(manager, &value));
    told("nothing is stored");
    fails(TOSC_ENOTFOUND, tosc_manager_refresh(manager, &value));
    fails(TOSC_ENOTFOUND, tosc_manager_snapshot(manager, &value));
    ok(tosc_scope_enter(&scope));
    fails(TOSC_ENOTFOUND, tosc_manager_borrow(manager, &value));
    ok(tosc_scope_leave(&scope));
    ck_assert_ptr_eq(value, untouched);
    gives(0, tosc_manager_version(manager, &version));
    ck_assert_int_eq(version, 7);
    ok(tosc_manager_refresh(manager, NULL));
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_borrowed_root_needs_a_scope_and_ends_with_it)
{
    tosc_scope scope;
    tosc_value *root = NULL;
    host_start();
    tosc_manager *manager = open_at("inproc:borrow");
    write_json(manager, "[5]");
    fails(TOSC_EINVAL, tosc_manager_borrow(manager, &root));
    told("scope");
    ok(tosc_scope_enter(&scope));
    ok(tosc_manager_borrow(manager, &root));
    ck_assert_int_eq(number_at(root, tosc_index(0)), 5);
    ok(tosc_scope_leave(&scope));
    int64_t number;
    fails(TOSC_EINVAL, tosc_get_int64(root, tosc_index(0), &number));
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_snapshot_is_a_copy)
{
    tosc_value *copy;
    host_start();
    tosc_manager *manager = open_at("inproc:snapshot");
    write_json(manager, "{\"list\": [1]}");
    ok(tosc_manager_snapshot(manager, &copy));
    ok(tosc_append_int64(copy, tosc_key("list"), 2));
    stores(manager, "{\"list\": [1]}");
    fails(TOSC_ETYPE, tosc_manager_is_linked(manager, copy));
    told("not a distributed object but a plain dict");
    tosc_value_unref(copy);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(writing_replaces_the_root_under_one_who_holds_it)
{
    tosc_value *before;
    host_start();
    tosc_manager *manager = open_at("inproc:replace");
    write_json(manager, "{\"n\": 1}");
    ok(tosc_manager_read(manager, &before));
    gives(1, tosc_manager_is_linked(manager, before));
    write_json(manager, "[2]");
    gives(0, tosc_manager_is_linked(manager, before));
    ok(tosc_set_int64(before, tosc_key("n"), 9)); /* its own affair now */
    stores(manager, "[2]");
    tosc_value_unref(before);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(what_cannot_be_stored_is_refused)
{
    tosc_value *value;
    host_start();
    tosc_manager *manager = open_at("inproc:refused");
    write_json(manager, "[1]");
    ok(tosc_host_eval("(i for i in 'ab')", &value));
    fails(TOSC_ESERIALIZE, tosc_manager_write(manager, value));
    told("generator");
    fails(TOSC_ESERIALIZE, tosc_manager_try_write(manager, value, NULL));
    stores(manager, "[1]");
    tosc_value_unref(value);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(try_write_looks_at_the_version)
{
    int64_t version = -1;
    int64_t wrong;
    host_start();
    tosc_manager *manager = open_at("inproc:try");
    tosc_value *one = from_json("[1]");
    tosc_value *two = from_json("[2]");
    wrong = 1;
    gives(0, tosc_manager_try_write(manager, one, &wrong));
    gives(1, tosc_manager_try_write(manager, one, NULL));
    gives(0, tosc_manager_try_write(manager, two, NULL));
    stores(manager, "[1]");
    gives(1, tosc_manager_version(manager, &version));
    wrong = version + 1;
    gives(0, tosc_manager_try_write(manager, two, &wrong));
    wrong = INT64_MIN;
    gives(0, tosc_manager_try_write(manager, two, &wrong));
    stores(manager, "[1]");
    gives(1, tosc_manager_try_write(manager, two, &version));
    stores(manager, "[2]");
    gives(0, tosc_manager_try_write(manager, one, &version));
    wrong = version;
    gives(1, tosc_manager_version(manager, &version));
    ck_assert(version != wrong);
    tosc_value_unref(one);
    tosc_value_unref(two);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(in_a_transaction_try_write_and_version_are_of_its_state)
{
    int64_t version;
    int64_t now;
    tosc_transaction *tx;
    host_start();
    tosc_manager *manager = open_at("inproc:inside");
    tosc_manager *other = open_at("inproc:inside");
    write_json(manager, "[1]");
    gives(1, tosc_manager_version(manager, &version));
    ok(tosc_transaction_begin(manager, &tx));
    write_json(other, "[2]");
    ok(tosc_manager_refresh(manager, NULL));
    gives(1, tosc_manager_version(manager, &now));
    ck_assert_int_eq(now, version);
    tosc_value *three = from_json("[3]");
    gives(1, tosc_manager_try_write(manager, three, &version));
    gives(0, tosc_manager_try_write(manager, three, NULL));
    tosc_value *root;
    ok(tosc_manager_read(manager, &root));
    ck_assert_int_eq(number_at(root, tosc_index(0)), 3);
    gives(1, tosc_manager_is_linked(manager, root));
    fails(TOSC_ECONFLICT, tosc_transaction_commit(tx));
    gives(0, tosc_manager_is_linked(manager, root));
    stores(manager, "[2]");
    tosc_value_unref(root);
    tosc_value_unref(three);
    tosc_manager_unref(other);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(dirty_is_what_the_transaction_has_changed)
{
    tosc_transaction *tx;
    tosc_value *root;
    tosc_value *list;
    host_start();
    tosc_manager *manager = open_at("inproc:dirty");
    write_json(manager, "{\"list\": []}");
    ok(tosc_manager_read(manager, &root));
    ok(tosc_get(root, tosc_key("list"), &list));
    gives(0, tosc_manager_is_dirty(manager, list));
    ok(tosc_transaction_begin(manager, &tx));
    ok(tosc_append_int64(list, tosc_self(), 1));
    gives(1, tosc_manager_is_dirty(manager, list));
    gives(0, tosc_manager_is_dirty(manager, root));
    ok(tosc_transaction_commit(tx));
    gives(0, tosc_manager_is_dirty(manager, list));
    tosc_value_unref(list);
    tosc_value_unref(root);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

/* ---- one store, many users ---- */

START_TEST(scripts_and_c_use_the_same_manager)
{
    tosc_value *root;
    host_start();
    tosc_manager *manager = open_at("inproc:shared");
    write_json(manager, "{\"n\": 1}");
    give_to_scripts(manager);
    python("data = m.read()\n"
           "data['n'] += 1\n"
           "data['from'] = 'script'");
    ok(tosc_manager_read(manager, &root));
    ck_assert_int_eq(number_at(root, tosc_key("n")), 2);
    ok(tosc_set_int64(root, tosc_key("n"), 3));
    ck_assert(python_true("data['n'] == 3 and m.read() is data"));
    tosc_value_unref(root);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_manager_is_a_value_and_comes_back)
{
    tosc_value *value;
    tosc_value *text;
    tosc_manager *same;
    host_start();
    tosc_manager *manager = open_at("inproc:value");
    write_json(manager, "[4]");
    ok(tosc_manager_value(manager, &value));
    ok(tosc_manager_of(value, &same));
    stores(same, "[4]");
    tosc_manager_unref(same);
    tosc_value *const values[] = {value};
    const tosc_arguments arguments = {values, 1, NULL};
    python("def first(manager): return manager.read()[0]");
    tosc_value *result;
    ok(tosc_host_call("__main__:first", &arguments, &result));
    ck_assert_int_eq(number_at(result, tosc_self()), 4);
    ok(tosc_value_new_text("no Manager", TOSC_TEXT_END, &text));
    fails(TOSC_ETYPE, tosc_manager_of(text, &same));
    told("not a tosc.Manager but of type str");
    tosc_value_unref(text);
    tosc_value_unref(result);
    tosc_value_unref(value);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_script_made_manager_can_be_taken)
{
    tosc_value *value;
    tosc_manager *manager;
    host_start();
    python("import tosc\n"
           "class Mine(tosc.Manager): pass\n"
           "mine = Mine(tosc.InprocBackend())\n"
           "mine.write({'n': 5})");
    ok(tosc_host_eval("mine", &value));
    ok(tosc_manager_of(value, &manager));
    tosc_value_unref(value);
    stores(manager, "{\"n\": 5}");
    python("del mine");
    stores(manager, "{\"n\": 5}");
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_file_is_shared_with_other_managers_and_processes)
{
    char text[1200];
    host_start();
    tosc_manager *one = open_at(store_in("store"));
    tosc_manager *two = open_at(store_in("store"));
    write_json(one, "{\"n\": 1}");
    stores(two, "{\"n\": 1}");
    snprintf(text, sizeof(text),
             "import tosc\n"
             "m = tosc.Manager(tosc.FileBackend('%s'))\n"
             "m.read()['n'] += 1",
             path_in("store"));
    ck_assert_int_eq(tosc_run(text), 0);
    stores(one, "{\"n\": 2}");
    stores(two, "{\"n\": 2}");
    tosc_manager_unref(one);
    tosc_manager_unref(two);
    host_stop();
}
END_TEST

static void *
open_and_count(void *argument)
{
    for (int i = 0; i < 10; i++) {
        tosc_manager *manager = NULL;
        tosc_value *root = NULL;
        must(tosc_manager_open(argument, NULL, &manager) == 0);
        must(tosc_manager_read(manager, &root) == 0);
        must(tosc_add_int64(root, tosc_key("n"), 1, NULL) == 0);
        must(tosc_manager_close(manager) == 0);
        tosc_value_unref(root);
        tosc_manager_unref(manager);
    }
    return NULL;
}

START_TEST(threads_open_and_close_managers_of_their_own)
{
    host_start();
    char *uri = strdup(store_in("many"));
    tosc_manager *manager = open_at(uri);
    write_json(manager, "{\"n\": 0}");
    in_threads(6, open_and_count, uri);
    stores(manager, "{\"n\": 60}");
    tosc_manager_unref(manager);
    free(uri);
    host_stop();
}
END_TEST

/* ---- the end ---- */

START_TEST(a_closed_manager_says_so)
{
    tosc_value *root;
    tosc_transaction *tx;
    int64_t version;
    host_start();
    tosc_manager *manager = open_at("inproc:closed");
    write_json(manager, "{\"n\": 1}");
    ok(tosc_manager_read(manager, &root));
    give_to_scripts(manager);
    ok(tosc_manager_close(manager));
    ok(tosc_manager_close(manager));
    ck_assert(python_true("m.closed"));
    ck_assert_int_eq(number_at(root, tosc_key("n")), 1);
    fails(TOSC_ECLOSED, tosc_set_int64(root, tosc_key("n"), 2));
    fails(TOSC_ECLOSED, tosc_manager_read(manager, &root));
    fails(TOSC_ECLOSED, tosc_manager_refresh(manager, NULL));
    fails(TOSC_ECLOSED, tosc_manager_snapshot(manager, &root));
    fails(TOSC_ECLOSED, tosc_manager_write(manager, root));
    fails(TOSC_ECLOSED, tosc_manager_try_write(manager, root, NULL));
    fails(TOSC_ECLOSED, tosc_manager_version(manager, &version));
    fails(TOSC_ECLOSED, tosc_manager_is_linked(manager, root));
    fails(TOSC_ECLOSED, tosc_manager_is_dirty(manager, root));
    fails(TOSC_ECLOSED, tosc_transaction_begin(manager, &tx));
    told("closed");
    tosc_value_unref(root);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(the_last_reference_ends_it)
{
    struct memory_counts counts = {0};
    host_start();
    tosc_manager *manager = manager_over(memory_store_new(true, &counts));
    ck_assert_ptr_eq(tosc_manager_ref(manager), manager);
    ck_assert_ptr_null(tosc_manager_unref(manager));
    write_json(manager, "[1]");
    ck_assert(!is_destroyed(&counts));
    give_to_scripts(manager);
    tosc_manager_unref(manager);
    python("assert m.read() == [1]");
    ok(tosc_host_publish("m", NULL));
    python("del m\nimport gc; gc.collect()");
    for (int i = 0; !is_destroyed(&counts) && i < 500; i++) {
        sleep_us(10000); /* the watcher may have held it, or be on its way out */
        python("gc.collect()");
    }
    ck_assert(is_destroyed(&counts));
    host_stop();
}
END_TEST

/* Ends without Python's garbage collector having had a reason of its own. */
static bool
goes_soon(const struct memory_counts *counts)
{
    for (int i = 0; !is_destroyed(counts) && i < 200; i++) {
        sleep_us(10000); /* its watcher is on its way out */
    }
    return is_destroyed(counts);
}

/* Gives back the Manager before what keeps it, and then that. */
static void
give_back_first(tosc_manager *manager, int kept_by)
{
    tosc_scope scope;
    tosc_value *root;
    tosc_value *list;
    tosc_transaction *tx;
    ok(tosc_scope_enter(&scope));
    switch (kept_by) {
    case 0:
        ok(tosc_manager_read(manager, &root));
        ok(tosc_get(root, tosc_key("list"), &list));
        tosc_manager_unref(manager);
        tosc_value_unref(root);
        ok(tosc_append_int64(list, tosc_self(), 2));
        tosc_value_unref(list);
        break;
    case 1:
        ok(tosc_manager_borrow(manager, &root));
        ok(tosc_borrow(root, tosc_key("list"), &list));
        tosc_manager_unref(manager);
        ok(tosc_append_int64(list, tosc_self(), 2));
        break;
    case 2:
        ok(tosc_manager_value(manager, &root));
        tosc_manager_unref(manager);
        ok(tosc_manager_of(root, &manager));
        tosc_manager_unref(manager);
        tosc_value_unref(root);
        break;
    case 3:
        ok(tosc_transaction_begin(manager, &tx));
        tosc_manager_unref(manager);
        ok(tosc_transaction_commit(tx));
        break;
    default:
        ok(tosc_host_publish("kept", manager));
        tosc_manager_unref(manager);
        ok(tosc_host_shared("kept", &manager));
        tosc_manager_unref(manager);
        ok(tosc_host_publish("kept", NULL));
    }
    ok(tosc_scope_leave(&scope));
}

START_TEST(it_may_be_given_back_before_what_keeps_it)
{
    struct memory_counts counts = {0};
    host_start();
    python("import gc; gc.set_threshold(10 ** 9)");
    tosc_manager *manager = manager_over(memory_store_new(true, &counts));
    write_json(manager, "{\"list\": [{}]}");
    give_back_first(manager, _i);
    ck_assert(goes_soon(&counts));
    host_stop();
}
END_TEST

START_TEST(it_ends_although_its_watcher_is_just_fetching)
{
    struct memory_counts counts = {0};
    tosc_value *root;
    host_start();
    python("import gc; gc.set_threshold(10 ** 9)");
    tosc_backend *backend = memory_store_new(false, &counts);
    tosc_manager *manager = manager_over(tosc_backend_ref(backend));
    tosc_manager *other = manager_over(backend);
    write_json(other, "[1]");
    ok(tosc_manager_read(manager, &root));
    tosc_value_unref(root);
    __atomic_store_n(&counts.reading_ms, 300, __ATOMIC_RELEASE);
    int reads = __atomic_load_n(&counts.reads, __ATOMIC_ACQUIRE);
    write_json(other, "[2]");
    tosc_manager_unref(other);
    while (__atomic_load_n(&counts.reads, __ATOMIC_ACQUIRE) == reads) {
        sleep_us(100);
    }
    tosc_manager_unref(manager);
    ck_assert(!is_destroyed(&counts)); /* it was meant to be fetching */
    ck_assert(goes_soon(&counts));
    host_stop();
}
END_TEST

START_TEST(stopping_ends_managers_that_are_still_open)
{
    struct memory_counts counts = {0};
    int64_t version;
    host_start();
    tosc_manager *manager = manager_over(memory_store_new(true, &counts));
    write_json(manager, "[1]");
    host_stop();
    ck_assert(is_destroyed(&counts));
    fails(TOSC_ECLOSED, tosc_manager_version(manager, &version));
    fails(TOSC_ECLOSED, tosc_manager_close(manager));
    ck_assert_ptr_null(tosc_manager_ref(manager));
    ck_assert_ptr_null(tosc_manager_unref(manager));
}
END_TEST

static void
use_in_child(void *argument)
{
    tosc_value *root;
    must(tosc_manager_refresh(argument, &root) == 0);
    must(tosc_add_int64(root, tosc_key("n"), 10, NULL) == 0);
    must(tosc_manager_close(argument) == 0);
}

START_TEST(a_manager_is_good_in_the_child_of_a_fork)
{
    host_start();
    tosc_manager *manager = open_at(store_in("forked"));
    write_json(manager, "{\"n\": 1}");
    pid_t child = child_start(use_in_child, manager);
    child_join(child);
    stores(manager, "{\"n\": 11}");
    write_json(manager, "[2]");
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(opening_and_closing_leaves_nothing_behind)
{
    host_start();
    int64_t before = 0;
    for (int i = 0; i < 1200; i++) {
        tosc_manager *manager = open_at(i % 2 ? "inproc:again" : store_in("again"));
        write_json(manager, "{\"list\": [1, 2, 3], \"n\": 1}");
        tosc_value *root;
        ok(tosc_manager_read(manager, &root));
        ok(tosc_add_int64(root, tosc_key("n"), 1, NULL));
        tosc_value_unref(root);
        if (i % 3 != 0) {
            ok(tosc_manager_close(manager));
        }
        tosc_manager_unref(manager);
        if (i == 200) {
            before = resident_bytes();
        }
    }
    int64_t grown = resident_bytes() - before;
    ck_assert_msg(sanitized() || grown < 1500000, "grown by %lld bytes",
                  (long long)grown);
    host_stop();
}
END_TEST

/* ---- misuse ---- */

START_TEST(nothing_works_before_the_start)
{
    tosc_manager *manager = NULL;
    tosc_backend *backend;
    fails(TOSC_ECLOSED, tosc_manager_open("inproc:x", NULL, &manager));
    told("tosc_host_start");
    ok(tosc_backend_inproc_new(&backend));
    fails(TOSC_ECLOSED, tosc_manager_new(backend, NULL, &manager));
    tosc_backend_unref(backend);
    ck_assert_ptr_null(manager);
}
END_TEST

/* All functions of a Manager with this handle, each of which has to refuse it. */
static void
refused(tosc_manager *manager, tosc_value *value, const char *words)
{
    tosc_value *result = NULL;
    tosc_transaction *tx = NULL;
    int64_t version;
    fails(TOSC_EINVAL, tosc_manager_read(manager, &result));
    told(words);
    fails(TOSC_EINVAL, tosc_manager_borrow(manager, &result));
    fails(TOSC_EINVAL, tosc_manager_refresh(manager, &result));
    fails(TOSC_EINVAL, tosc_manager_refresh(manager, NULL));
    fails(TOSC_EINVAL, tosc_manager_snapshot(manager, &result));
    fails(TOSC_EINVAL, tosc_manager_write(manager, value));
    fails(TOSC_EINVAL, tosc_manager_try_write(manager, value, NULL));
    fails(TOSC_EINVAL, tosc_manager_version(manager, &version));
    fails(TOSC_EINVAL, tosc_manager_is_linked(manager, value));
    fails(TOSC_EINVAL, tosc_manager_is_dirty(manager, value));
    fails(TOSC_EINVAL, tosc_manager_value(manager, &result));
    fails(TOSC_EINVAL, tosc_manager_close(manager));
    fails(TOSC_EINVAL, tosc_transaction_begin(manager, &tx));
    told(words);
    ck_assert_ptr_null(result);
    ck_assert_ptr_null(tx);
    ck_assert_ptr_null(tosc_manager_unref(manager));
    ck_assert_ptr_null(tosc_manager_ref(manager));
}

START_TEST(wrong_handles_are_refused)
{
    host_start();
    tosc_value *value = from_json("[1]");
    tosc_manager *manager = open_at("inproc:handles");
    refused(NULL, value, "manager is NULL");
    refused((tosc_manager *)value, value, "a handle of a value, not of a Manager");
    refused((tosc_manager *)&manager, value, "not a handle");
    tosc_manager_unref(manager);
    refused(manager, value, "not valid any more");
    manager = open_at("inproc:handles");
    fails(TOSC_EINVAL, tosc_manager_write(manager, NULL));
    told("value is NULL");
    fails(TOSC_EINVAL, tosc_manager_write(manager, (tosc_value *)manager));
    tosc_value_unref(value);
    fails(TOSC_EINVAL, tosc_manager_try_write(manager, value, NULL));
    fails(TOSC_EINVAL, tosc_manager_is_linked(manager, value));
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(results_need_a_place)
{
    host_start();
    tosc_manager *manager = open_at("inproc:places");
    tosc_backend *backend;
    tosc_value *value = from_json("[1]");
    ok(tosc_backend_inproc_new(&backend));
    fails(TOSC_EINVAL, tosc_manager_new(NULL, NULL, &manager));
    fails(TOSC_EINVAL, tosc_manager_new(backend, NULL, NULL));
    fails(TOSC_EINVAL, tosc_manager_open("inproc:x", NULL, NULL));
    fails(TOSC_EINVAL, tosc_manager_read(manager, NULL));
    fails(TOSC_EINVAL, tosc_manager_borrow(manager, NULL));
    fails(TOSC_EINVAL, tosc_manager_snapshot(manager, NULL));
    fails(TOSC_EINVAL, tosc_manager_version(manager, NULL));
    fails(TOSC_EINVAL, tosc_manager_value(manager, NULL));
    fails(TOSC_EINVAL, tosc_manager_of(value, NULL));
    fails(TOSC_EINVAL, tosc_manager_of(NULL, &manager));
    fails(TOSC_EINVAL, tosc_transaction_begin(manager, NULL));
    tosc_value_unref(value);
    tosc_backend_unref(backend);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("managers");
    TCase *tests = tcase_create("managers");
    tcase_add_checked_fixture(tests, directory_make, directory_remove);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, what_is_written_is_read);
    tcase_add_test(tests, an_empty_store_is_told);
    tcase_add_test(tests, a_borrowed_root_needs_a_scope_and_ends_with_it);
    tcase_add_test(tests, a_snapshot_is_a_copy);
    tcase_add_test(tests, writing_replaces_the_root_under_one_who_holds_it);
    tcase_add_test(tests, what_cannot_be_stored_is_refused);
    tcase_add_test(tests, try_write_looks_at_the_version);
    tcase_add_test(tests, in_a_transaction_try_write_and_version_are_of_its_state);
    tcase_add_test(tests, dirty_is_what_the_transaction_has_changed);
    tcase_add_test(tests, scripts_and_c_use_the_same_manager);
    tcase_add_test(tests, a_manager_is_a_value_and_comes_back);
    tcase_add_test(tests, a_script_made_manager_can_be_taken);
    tcase_add_test(tests, a_file_is_shared_with_other_managers_and_processes);
    tcase_add_test(tests, threads_open_and_close_managers_of_their_own);
    tcase_add_test(tests, a_closed_manager_says_so);
    tcase_add_test(tests, the_last_reference_ends_it);
    tcase_add_loop_test(tests, it_may_be_given_back_before_what_keeps_it, 0, 5);
    tcase_add_test(tests, it_ends_although_its_watcher_is_just_fetching);
    tcase_add_test(tests, stopping_ends_managers_that_are_still_open);
    if (can_fork_beside_threads()) {
        tcase_add_test(tests, a_manager_is_good_in_the_child_of_a_fork);
    }
    tcase_add_test(tests, opening_and_closing_leaves_nothing_behind);
    tcase_add_test(tests, nothing_works_before_the_start);
    tcase_add_test(tests, wrong_handles_are_refused);
    tcase_add_test(tests, results_need_a_place);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
