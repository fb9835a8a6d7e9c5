/*
 * Transactions from C: begin, commit, roll back, nest, conflict; who sees what, in
 * threads, scripts and processes; and all ways to use them wrongly. See check_retry.c for
 * tosc_transact().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory_store.h"
#include "stores.h"

/* ---- helpers ---- */

static tosc_manager *manager;
static tosc_value *root;

/* Python, and a Manager of a store with {"n": 0, "list": []}; scripts have it as `m`. */
static void
begin_test_with(tosc_manager *of)
{
    manager = of;
    write_json(manager, "{\"n\": 0, \"list\": []}");
    ok(tosc_manager_read(manager, &root));
    give_to_scripts(manager);
    python("data = m.read()");
}

static void
begin_test(void)
{
    host_start();
    begin_test_with(open_at("inproc:test"));
}

static void
end_test(void)
{
    tosc_value_unref(root);
    tosc_manager_unref(manager);
    host_stop();
}

static int64_t
number(tosc_value *value, const char *path)
{
    int64_t result = INT64_MIN;
    ok(tosc_get_int64(value, tosc_path(path), &result));
    return result;
}

#define n() number(root, "n")

static void
set_n(int64_t value)
{
    ok(tosc_set_int64(root, tosc_key("n"), value));
}

static tosc_transaction *
begin(void)
{
    tosc_transaction *tx = NULL;
    ok(tosc_transaction_begin(manager, &tx));
    return tx;
}

/* What nobody's transaction sees: the number as another thread reads it. */
static void *
read_n(void *ret)
{
    must(tosc_get_int64(root, tosc_key("n"), ret) == 0);
    return NULL;
}

static int64_t
n_for_others(void)
{
    int64_t result = INT64_MIN;
    in_threads(1, read_n, &result);
    return result;
}

/* ---- begin, commit, roll back ---- */

START_TEST(changes_are_kept_together_or_not_at_all)
{
    begin_test();
    tosc_transaction *tx = begin();
    set_n(1);
    ok(tosc_append_int64(root, tosc_key("list"), 5));
    ok(tosc_transaction_commit(tx));
    ck_assert_int_eq(n(), 1);
    tx = begin();
    set_n(2);
    ok(tosc_append_int64(root, tosc_key("list"), 6));
    ck_assert_int_eq(n(), 2);
    ok(tosc_transaction_rollback(tx));
    ck_assert_int_eq(n(), 1);
    ck_assert(python_true("m.snapshot() == {'n': 1, 'list': [5]}"));
    end_test();
}
END_TEST

START_TEST(nested_ones_are_savepoints)
{
    begin_test();
    tosc_transaction *outer = begin();
    set_n(1);
    tosc_transaction *inner = begin();
    set_n(2);
    tosc_transaction *innermost = begin();
    set_n(3);
    ok(tosc_transaction_commit(innermost));
    ck_assert_int_eq(n(), 3);
    ok(tosc_transaction_rollback(inner));
    ck_assert_int_eq(n(), 1);
    inner = begin();
    ok(tosc_append_int64(root, tosc_key("list"), 4));
    ok(tosc_transaction_commit(inner));
    ck_assert_int_eq(n_for_others(), 0);
    ok(tosc_transaction_commit(outer));
    ck_assert_int_eq(n_for_others(), 1);
    ck_assert(python_true("m.snapshot() == {'n': 1, 'list': [4]}"));
    end_test();
}
END_TEST

START_TEST(others_see_nothing_before_the_commit_and_all_after)
{
    begin_test();
    python("seen = []\n"
           "ask, answer = threading.Event(), threading.Event()\n"
           "def look():\n"
           "    while True:\n"
           "        ask.wait(); ask.clear()\n"
           "        seen.append(data['n'])\n"
           "        answer.set()\n"
           "threading.Thread(target=look, daemon=True).start()\n"
           "def told():\n"
           "    answer.clear(); ask.set(); answer.wait()\n"
           "    return seen[-1]");
    tosc_transaction *tx = begin();
    set_n(7);
    ck_assert_int_eq(n_for_others(), 0);
    ck_assert_int_eq(python_int("told()"), 0);
    ck_assert_int_eq(python_int("data['n']"), 7); /* a script that this thread calls */
    ok(tosc_transaction_commit(tx));
    ck_assert_int_eq(n_for_others(), 7);
    ck_assert_int_eq(python_int("told()"), 7);
    end_test();
}
END_TEST

START_TEST(a_script_threads_transaction_is_not_seen)
{
    begin_test();
    python("go, begun = threading.Event(), threading.Event()\n"
           "def work():\n"
           "    with m.transaction():\n"
           "        data['n'] = 5\n"
           "        begun.set()\n"
           "        go.wait()\n"
           "t = threading.Thread(target=work)\n"
           "t.start()\n"
           "begun.wait()");
    ck_assert_int_eq(n(), 0);
    tosc_transaction *tx = begin();
    python("go.set()\n"
           "t.join()");
    ck_assert_int_eq(n(), 0); /* the state as of its beginning */
    ck_assert_int_eq(n_for_others(), 5);
    ok(tosc_transaction_rollback(tx));
    ck_assert_int_eq(n(), 5);
    end_test();
}
END_TEST

START_TEST(who_commits_second_has_a_conflict)
{
    begin_test();
    tosc_manager *other = open_at("inproc:test");
    tosc_transaction *tx = begin();
    set_n(1);
    write_json(other, "{\"n\": 10}");
    fails(TOSC_ECONFLICT, tosc_transaction_commit(tx));
    told("changed by somebody else");
    tosc_value *now;
    ok(tosc_manager_read(manager, &now));
    ck_assert_int_eq(number(now, "n"), 10);
    tosc_value_unref(now);
    tosc_manager_unref(other);
    end_test();
}
END_TEST

START_TEST(one_that_changed_nothing_never_conflicts)
{
    begin_test();
    tosc_transaction *tx = begin();
    ck_assert_int_eq(n(), 0);
    tosc_manager *other = open_at("inproc:test");
    write_json(other, "{\"n\": 10}");
    ck_assert_int_eq(n(), 0);
    ok(tosc_transaction_commit(tx));
    tosc_manager_unref(other);
    end_test();
}
END_TEST

START_TEST(two_managers_of_one_file_in_one_thread_are_strangers)
{
    host_start();
    const char *uri = store_in("two");
    begin_test_with(open_at(uri));
    tosc_manager *other = open_at(uri);
    tosc_value *theirs;
    tosc_transaction *tx = begin();
    tosc_transaction *second;
    ok(tosc_manager_read(other, &theirs));
    ok(tosc_transaction_begin(other, &second));
    set_n(1);
    ck_assert_int_eq(number(theirs, "n"), 0);
    ok(tosc_set_int64(theirs, tosc_key("n"), 2));
    ck_assert_int_eq(n(), 1);
    ok(tosc_transaction_commit(tx)); /* their order does not matter */
    ck_assert_int_eq(number(theirs, "n"), 2);
    fails(TOSC_ECONFLICT, tosc_transaction_commit(second));
    ok(tosc_manager_refresh(other, NULL));
    ck_assert_int_eq(number(theirs, "n"), 1);
    tosc_value_unref(theirs);
    tosc_manager_unref(other);
    end_test();
}
END_TEST

START_TEST(an_unknown_outcome_is_told_as_such)
{
    host_start();
    tosc_backend *backend = memory_store_new(_i != 0, NULL);
    ok(tosc_manager_new(backend, NULL, &manager));
    begin_test_with(manager);
    for (int i = 1; i < 3; i++) {
        tosc_transaction *tx = begin();
        set_n(i);
        memory_store_fail(backend, i == 1 ? MISHAP_LOST_REPLY : MISHAP_LOST_REQUEST);
        fails(TOSC_EUNKNOWN, tosc_transaction_commit(tx));
        ok(tosc_manager_refresh(manager, NULL));
        ck_assert_int_eq(n(), 1);
    }
    tosc_transaction *tx = begin();
    set_n(3);
    memory_store_fail(backend, MISHAP_REFUSED);
    fails(TOSC_ESYSTEM, tosc_transaction_commit(tx));
    ck_assert_int_eq(n(), 1);
    tosc_backend_unref(backend);
    end_test();
}
END_TEST

/* ---- scripts inside ---- */

START_TEST(a_called_script_function_takes_part)
{
    begin_test();
    python("def work():\n"
           "    assert data['n'] == 1\n"
           "    data['n'] += 1\n"
           "    with m.transaction():\n"
           "        data['list'].append('kept')\n"
           "    try:\n"
           "        with m.transaction():\n"
           "            data['list'].append('lost')\n"
           "            raise KeyError\n"
           "    except KeyError:\n"
           "        pass\n"
           "def fail():\n"
           "    data['n'] = 100\n"
           "    with m.transaction():\n"
           "        data['n'] = 200\n"
           "        raise ValueError('no more')");
    tosc_transaction *tx = begin();
    set_n(1);
    ok(tosc_host_call("__main__:work", NULL, NULL));
    ck_assert_int_eq(n(), 2);
    tosc_transaction *inner = begin();
    fails(TOSC_EPYTHON, tosc_host_call("__main__:fail", NULL, NULL));
    told_type("ValueError");
    told("no more");
    ck_assert_int_eq(n(), 100); /* what the script kept before it failed */
    ok(tosc_transaction_rollback(inner));
    ck_assert_int_eq(n(), 2);
    ck_assert_int_eq(n_for_others(), 0);
    ok(tosc_transaction_commit(tx));
    ck_assert(python_true("m.snapshot() == {'n': 2, 'list': ['kept']}"));
    end_test();
}
END_TEST

START_TEST(blocks_that_a_script_leaves_open_end_with_the_transaction)
{
    begin_test();
    python("def forget():\n"
           "    global block\n"
           "    block = m.transaction()\n"
           "    block.__enter__()\n"
           "    data['n'] = 5");
    tosc_transaction *tx = begin();
    ok(tosc_host_call("__main__:forget", NULL, NULL));
    fails(TOSC_EINVAL, tosc_transaction_commit(tx));
    told("still open");
    ok(tosc_transaction_rollback(tx));
    ck_assert(python_true("not block.active and data['n'] == 0"));
    set_n(6);
    ck_assert_int_eq(n_for_others(), 6);
    end_test();
}
END_TEST

static int
increment_by_transaction(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    tosc_transaction *tx = NULL;
    int status = tosc_transaction_begin(arg, &tx);
    (void)ret;
    if (status == 0) {
        status = tosc_add_int64(arguments->values[0], tosc_key("n"), 1, NULL);
    }
    return status < 0 ? status : tosc_transaction_commit(tx);
}

START_TEST(a_c_function_takes_part_in_the_scripts_transaction)
{
    begin_test();
    ok(tosc_host_register("counting", "increment", increment_by_transaction, manager,
                          NULL));
    python("import counting\n"
           "with m.transaction() as t:\n"
           "    counting.increment(data)\n"
           "    counting.increment(data)\n"
           "    assert data['n'] == 2\n"
           "    t.rollback()\n"
           "assert data['n'] == 0\n"
           "counting.increment(data)\n"
           "assert data['n'] == 1\n"
           "import asyncio\n"
           "async def task():\n"
           "    with m.transaction():\n"
           "        counting.increment(data)\n"
           "        await asyncio.sleep(0)\n"
           "        counting.increment(data)\n"
           "async def all():\n"
           "    await task()\n"
           "asyncio.run(all())\n"
           "assert data['n'] == 3");
    end_test();
}
END_TEST

/* ---- scopes ---- */

START_TEST(a_transaction_outlives_the_scope_it_began_in)
{
    tosc_scope scope;
    begin_test();
    ok(tosc_scope_enter(&scope));
    tosc_transaction *tx = begin();
    set_n(1);
    ok(tosc_scope_pause(&scope));
    ck_assert_int_eq(n_for_others(), 0);
    ok(tosc_scope_resume(&scope));
    ok(tosc_scope_leave(&scope));
    ck_assert_int_eq(n(), 1);
    ck_assert_int_eq(n_for_others(), 0);
    ok(tosc_scope_enter(&scope));
    ck_assert_int_eq(n(), 1);
    ok(tosc_transaction_commit(tx));
    ok(tosc_scope_leave(&scope));
    ck_assert_int_eq(n_for_others(), 1);
    end_test();
}
END_TEST

/* ---- wrong use ---- */

START_TEST(an_outer_one_cannot_be_committed_before_an_inner_one)
{
    begin_test();
    tosc_transaction *outer = begin();
    set_n(1);
    tosc_transaction *inner = begin();
    set_n(2);
    fails(TOSC_EINVAL, tosc_transaction_commit(outer));
    told("inside of this one is still open");
    ck_assert_int_eq(n(), 2);
    ok(tosc_transaction_commit(inner));
    ok(tosc_transaction_commit(outer));
    ck_assert_int_eq(n_for_others(), 2);
    end_test();
}
END_TEST

START_TEST(rolling_back_takes_along_what_is_inside)
{
    begin_test();
    tosc_transaction *outer = begin();
    tosc_transaction *middle = begin();
    set_n(1);
    tosc_transaction *inner = begin();
    set_n(2);
    ok(tosc_transaction_rollback(middle));
    ck_assert_int_eq(n(), 0);
    tosc_transaction *next = begin();
    set_n(3);
    fails(TOSC_EINVAL, tosc_transaction_commit(inner));
    told("has ended already, with the one around it");
    fails(TOSC_EINVAL, tosc_transaction_rollback(inner));
    told("not valid any more");
    ck_assert_int_eq(n(), 3);
    ok(tosc_transaction_commit(next));
    ok(tosc_transaction_commit(outer));
    ck_assert_int_eq(n_for_others(), 3);
    end_test();
}
END_TEST

START_TEST(each_is_ended_once)
{
    begin_test();
    tosc_transaction *tx = begin();
    ok(tosc_transaction_commit(tx));
    fails(TOSC_EINVAL, tosc_transaction_commit(tx));
    told("not valid any more");
    fails(TOSC_EINVAL, tosc_transaction_rollback(tx));
    fails(TOSC_EINVAL, tosc_transaction_commit(NULL));
    told("transaction is NULL");
    fails(TOSC_EINVAL, tosc_transaction_rollback((tosc_transaction *)root));
    fails(TOSC_EINVAL, tosc_transaction_rollback((tosc_transaction *)manager));
    told("a handle of a Manager, not of a transaction");
    tx = begin();
    set_n(1);
    tosc_manager_write(manager, root);
    fails(TOSC_EINVAL, tosc_manager_close((tosc_manager *)tx));
    ok(tosc_transaction_rollback(tx));
    ck_assert_int_eq(n(), 0);
    end_test();
}
END_TEST

static void *
end_of_another_thread(void *tx)
{
    must(tosc_transaction_commit(tx) == TOSC_EINVAL);
    must(strstr(tosc_error_message(), "thread") != NULL);
    must(tosc_transaction_rollback(tx) == TOSC_EINVAL);
    return NULL;
}

START_TEST(another_thread_cannot_end_it)
{
    begin_test();
    tosc_transaction *tx = begin();
    set_n(1);
    in_threads(2, end_of_another_thread, tx);
    ck_assert_int_eq(n(), 1);
    ok(tosc_transaction_commit(tx));
    ck_assert_int_eq(n_for_others(), 1);
    end_test();
}
END_TEST

START_TEST(its_manager_may_be_closed_or_given_back_meanwhile)
{
    begin_test();
    tosc_transaction *tx = begin();
    set_n(1);
    tosc_manager *other = open_at("inproc:test");
    ok(tosc_manager_close(manager));
    fails(TOSC_ECLOSED, tosc_transaction_commit(tx));
    tosc_value *theirs;
    ok(tosc_manager_read(other, &theirs));
    ck_assert_int_eq(number(theirs, "n"), 0);
    tosc_transaction *nested;
    ok(tosc_transaction_begin(other, &tx));
    ok(tosc_transaction_begin(other, &nested));
    ok(tosc_set_int64(theirs, tosc_key("n"), 5));
    tosc_manager_unref(other);
    ok(tosc_transaction_commit(nested));
    ok(tosc_transaction_commit(tx));
    ck_assert_int_eq(number(theirs, "n"), 5);
    tosc_value_unref(theirs);
    end_test();
}
END_TEST

static void *
leave_open(void *argument)
{
    tosc_transaction *outer;
    tosc_transaction *inner;
    tosc_manager *last = *(tosc_manager **)argument;
    must(tosc_transaction_begin(manager, &outer) == 0);
    must(tosc_set_int64(root, tosc_key("n"), 1) == 0);
    must(tosc_transaction_begin(manager, &inner) == 0);
    must(tosc_set_int64(root, tosc_key("n"), 2) == 0);
    must(tosc_transaction_begin(last, &inner) == 0);
    *(tosc_transaction **)argument = outer;
    return NULL;
}

START_TEST(a_thread_that_ends_rolls_back_what_it_left_open)
{
    begin_test();
    void *shared = open_at("inproc:last");
    tosc_manager *last = shared;
    in_threads(1, leave_open, &shared);
    ck_assert_int_eq(n(), 0);
    fails(TOSC_EINVAL, tosc_transaction_commit(shared));
    told("not valid any more");
    set_n(5);
    ck_assert_int_eq(n_for_others(), 5);
    tosc_manager_unref(last);
    end_test();
}
END_TEST

/* As a script's thread does. */
static int
begin_and_forget(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    tosc_transaction *tx;
    (void)arguments;
    (void)ret;
    int status = tosc_transaction_begin(arg, &tx);
    return status < 0 ? status : tosc_set_int64(root, tosc_key("n"), 3);
}

START_TEST(so_does_a_thread_of_a_script)
{
    begin_test();
    ok(tosc_host_register("careless", "begin", begin_and_forget, manager, NULL));
    python("import careless\n"
           "t = threading.Thread(target=careless.begin)\n"
           "t.start()\n"
           "t.join()");
    ck_assert_int_eq(n(), 0);
    set_n(5);
    ck_assert(python_true("data['n'] == 5"));
    end_test();
}
END_TEST

static pthread_barrier_t barrier;

static void *
be_inside_at_the_end(void *argument)
{
    tosc_transaction *tx;
    (void)argument;
    must(tosc_transaction_begin(manager, &tx) == 0);
    must(tosc_set_int64(root, tosc_key("n"), 2) == 0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); /* Python has ended */
    must(tosc_transaction_commit(tx) == TOSC_ECLOSED);
    must(tosc_transaction_rollback(tx) == TOSC_ECLOSED);
    return NULL;
}

START_TEST(stopping_rolls_back_what_is_open)
{
    pthread_t thread;
    int64_t left = -1;
    host_start();
    const char *uri = store_in("stopped");
    begin_test_with(open_at(uri));
    tosc_transaction *tx = begin();
    set_n(1);
    pthread_barrier_init(&barrier, NULL, 2);
    must(pthread_create(&thread, NULL, be_inside_at_the_end, NULL) == 0);
    pthread_barrier_wait(&barrier);
    host_stop();
    pthread_barrier_wait(&barrier);
    must(pthread_join(thread, NULL) == 0);
    fails(TOSC_ECLOSED, tosc_transaction_commit(tx));
    fails(TOSC_ECLOSED, tosc_transaction_begin(manager, &tx));
    fails(TOSC_ECLOSED, tosc_get_int64(root, tosc_key("n"), &left));
    char text[800];
    snprintf(text, sizeof(text),
             "import tosc\n"
             "assert tosc.Manager(tosc.FileBackend('%s')).read()['n'] == 0",
             path_in("stopped"));
    ck_assert_int_eq(tosc_run(text), 0);
}
END_TEST

static void
in_child_of_fork(void *argument)
{
    must(tosc_transaction_commit(argument) == 0);
    must(tosc_manager_refresh(manager, NULL) == 0);
    must(n() == 1);
}

START_TEST(the_child_of_a_fork_can_end_its_threads_transaction)
{
    host_start();
    begin_test_with(open_at(store_in("forked")));
    tosc_transaction *tx = begin();
    set_n(1);
    child_join(child_start(in_child_of_fork, tx));
    fails(TOSC_ECONFLICT, tosc_transaction_commit(tx));
    ok(tosc_manager_refresh(manager, NULL));
    ck_assert_int_eq(n(), 1);
    end_test();
}
END_TEST

START_TEST(many_transactions_leave_nothing_behind)
{
    int64_t before = 0;
    tosc_manager *other;
    begin_test();
    other = open_at("inproc:test");
    for (int i = 0; i < 60000; i++) {
        tosc_transaction *tx = begin();
        tosc_transaction *inner = begin();
        if (i % 10 == 0) {
            ok(tosc_set_int64(root, tosc_path("list"), i));
            set_n(i);
        }
        if (i % 100 == 1) {
            set_n(i);
            write_json(other, "{\"n\": 1}"); /* a conflict */
        }
        ok(i % 4 == 0 ? tosc_transaction_rollback(inner)
                      : tosc_transaction_commit(inner));
        int status =
            i % 7 == 0 ? tosc_transaction_rollback(tx) : tosc_transaction_commit(tx);
        must(status == 0 || status == TOSC_ECONFLICT);
        if (i % 100 == 1) {
            tosc_value_unref(root);
            ok(tosc_manager_refresh(manager, &root));
        }
        if (i == 10000) {
            before = resident_bytes();
        }
    }
    int64_t grown = resident_bytes() - before;
    ck_assert_msg(sanitized() || grown < 1000000, "grown by %lld bytes",
                  (long long)grown);
    tosc_manager_unref(other);
    end_test();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("transactions");
    TCase *tests = tcase_create("transactions");
    tcase_add_checked_fixture(tests, directory_make, directory_remove);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, changes_are_kept_together_or_not_at_all);
    tcase_add_test(tests, nested_ones_are_savepoints);
    tcase_add_test(tests, others_see_nothing_before_the_commit_and_all_after);
    tcase_add_test(tests, a_script_threads_transaction_is_not_seen);
    tcase_add_test(tests, who_commits_second_has_a_conflict);
    tcase_add_test(tests, one_that_changed_nothing_never_conflicts);
    tcase_add_test(tests, two_managers_of_one_file_in_one_thread_are_strangers);
    tcase_add_loop_test(tests, an_unknown_outcome_is_told_as_such, 0, 2);
    tcase_add_test(tests, a_called_script_function_takes_part);
    tcase_add_test(tests, blocks_that_a_script_leaves_open_end_with_the_transaction);
    tcase_add_test(tests, a_c_function_takes_part_in_the_scripts_transaction);
    tcase_add_test(tests, a_transaction_outlives_the_scope_it_began_in);
    tcase_add_test(tests, an_outer_one_cannot_be_committed_before_an_inner_one);
    tcase_add_test(tests, rolling_back_takes_along_what_is_inside);
    tcase_add_test(tests, each_is_ended_once);
    tcase_add_test(tests, another_thread_cannot_end_it);
    tcase_add_test(tests, its_manager_may_be_closed_or_given_back_meanwhile);
    tcase_add_test(tests, a_thread_that_ends_rolls_back_what_it_left_open);
    tcase_add_test(tests, so_does_a_thread_of_a_script);
    tcase_add_test(tests, stopping_rolls_back_what_is_open);
    if (can_fork_beside_threads()) {
        tcase_add_test(tests, the_child_of_a_fork_can_end_its_threads_transaction);
    }
    tcase_add_test(tests, many_transactions_leave_nothing_behind);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
