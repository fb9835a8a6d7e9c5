/*
 * Scopes: what is borrowed in them, leaving and pausing them, threads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "values.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

size_t handle_count(void); /* inside of the library: how many are in use */

START_TEST(what_is_borrowed_ends_with_its_scope)
{
    tosc_scope outer;
    tosc_scope inner;
    tosc_value *a;
    tosc_value *b;
    tosc_value *mine;
    int64_t number;
    values_start();
    take("{'a': 1, 'b': 2}");
    size_t before = handle_count();
    ok(tosc_scope_enter(&outer));
    ok(tosc_borrow(root, tosc_path("x/a"), &a));
    ok(tosc_scope_enter(&inner));
    ok(tosc_borrow(root, tosc_path("x/b"), &b));
    ok(tosc_get_int64(a, tosc_self(), &number));
    ok(tosc_get_int64(b, tosc_self(), &number));
    mine = tosc_value_ref(b);
    ok(tosc_scope_leave(&inner));
    ok(tosc_get_int64(a, tosc_self(), &number));
    ck_assert_int_eq(number, 1);
    fails(TOSC_EINVAL, tosc_get_int64(b, tosc_self(), &number));
    told("not valid any more");
    ok(tosc_scope_leave(&outer));
    fails(TOSC_EINVAL, tosc_get_int64(a, tosc_self(), &number));
    ok(tosc_get_int64(mine, tosc_self(), &number));
    ck_assert_int_eq(number, 2);
    tosc_value_unref(mine);
    ck_assert_uint_eq(handle_count(), before);
    values_stop();
}
END_TEST

START_TEST(nothing_is_borrowed_outside_of_a_scope)
{
    tosc_value *value = NULL;
    const char *text = NULL;
    const void *bytes = NULL;
    values_start();
    take("'text'");
    fails(TOSC_EINVAL, tosc_borrow(root, tosc_key("x"), &value));
    told("outside of a scope");
    fails(TOSC_EINVAL, tosc_borrow_text(root, tosc_key("x"), &text, NULL));
    take("b'bytes'");
    fails(TOSC_EINVAL, tosc_borrow_bytes(root, tosc_key("x"), &bytes, NULL));
    ck_assert(value == NULL && text == NULL && bytes == NULL);
    values_stop();
}
END_TEST

START_TEST(what_is_borrowed_is_not_given_back)
{
    tosc_scope scope;
    tosc_value *value;
    int64_t length;
    values_start();
    ok(tosc_scope_enter(&scope));
    ok(tosc_borrow(root, tosc_self(), &value));
    ck_assert_ptr_null(tosc_value_unref(value));
    told("borrowed");
    ok(tosc_length(value, tosc_self(), &length));
    ok(tosc_scope_leave(&scope));
    values_stop();
}
END_TEST

START_TEST(scopes_are_left_innermost_first_and_once)
{
    tosc_scope outer;
    tosc_scope inner;
    tosc_scope never;
    values_start();
    memset(&never, 0, sizeof(never));
    ok(tosc_scope_enter(&outer));
    fails(TOSC_EINVAL, tosc_scope_enter(&outer));
    told("entered already");
    ok(tosc_scope_enter(&inner));
    fails(TOSC_EINVAL, tosc_scope_leave(&outer));
    told("later have to be left first");
    fails(TOSC_EINVAL, tosc_scope_pause(&outer));
    fails(TOSC_EINVAL, tosc_scope_resume(&outer));
    fails(TOSC_EINVAL, tosc_scope_leave(&never));
    fails(TOSC_EINVAL, tosc_scope_resume(&inner));
    told("not paused");
    ok(tosc_scope_leave(&inner));
    fails(TOSC_EINVAL, tosc_scope_leave(&inner));
    told("was left");
    ok(tosc_scope_leave(&outer));
    fails(TOSC_EINVAL, tosc_scope_leave(&outer));
    fails(TOSC_EINVAL, tosc_scope_pause(&outer));
    fails(TOSC_EINVAL, tosc_scope_enter(NULL));
    fails(TOSC_EINVAL, tosc_scope_leave(NULL));
    fails(TOSC_EINVAL, tosc_scope_pause(NULL));
    fails(TOSC_EINVAL, tosc_scope_resume(NULL));
    told("scope is NULL");
    ok(tosc_scope_enter(&outer)); /* and can be used again */
    ok(tosc_scope_leave(&outer));
    values_stop();
}
END_TEST

static void *
leave_anothers(void *scope)
{
    tosc_value *value = root;
    bool refused = tosc_scope_leave(scope) == TOSC_EINVAL
                   && tosc_scope_pause(scope) == TOSC_EINVAL
                   && tosc_scope_resume(scope) == TOSC_EINVAL
                   && strstr(tosc_error_message(), "not entered by this thread") != NULL
                   && tosc_borrow(root, tosc_self(), &value) == TOSC_EINVAL;
    return refused ? NULL : scope;
}

START_TEST(a_scope_belongs_to_its_thread)
{
    tosc_scope scope;
    values_start();
    ok(tosc_scope_enter(&scope));
    ok(tosc_scope_pause(&scope));
    in_threads(1, leave_anothers, &scope);
    ok(tosc_scope_resume(&scope));
    ok(tosc_scope_leave(&scope));
    values_stop();
}
END_TEST

static void *
set_flag(void *flag)
{
    tosc_scope scope;
    if (tosc_scope_enter(&scope) < 0) {
        return flag;
    }
    atomic_store((atomic_bool *)flag, true);
    return tosc_scope_leave(&scope) == 0 ? NULL : flag;
}

START_TEST(no_other_thread_enters_until_a_scope_is_paused)
{
    static atomic_bool entered;
    tosc_scope scope;
    tosc_scope inner;
    tosc_value *kept;
    tosc_value *other;
    pthread_t thread;
    int64_t number;
    values_start();
    take("{'a': 1}");
    ok(tosc_scope_enter(&scope));
    ok(tosc_borrow(root, tosc_path("x/a"), &kept));
    ck_assert_int_eq(pthread_create(&thread, NULL, set_flag, &entered), 0);
    sleep_us(100000);
    ck_assert(!atomic_load(&entered));
    ok(tosc_scope_pause(&scope));
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(atomic_load(&entered));
    fails(TOSC_EINVAL, tosc_scope_pause(&scope));
    told("paused already");
    /* Everything can be called, and takes the lock each time. */
    ok(tosc_get_int64(kept, tosc_self(), &number));
    ok(tosc_scope_enter(&inner));
    ok(tosc_borrow(root, tosc_path("x/a"), &other));
    ok(tosc_scope_leave(&inner));
    fails(TOSC_EINVAL, tosc_get_int64(other, tosc_self(), &number));
    in_threads(1, set_flag, &entered);
    ok(tosc_scope_resume(&scope));
    ok(tosc_get_int64(kept, tosc_self(), &number));
    ck_assert_int_eq(number, 1);
    ok(tosc_scope_pause(&scope));
    ok(tosc_scope_leave(&scope)); /* also while it is paused */
    in_threads(1, set_flag, &entered);
    values_stop();
}
END_TEST

START_TEST(code_that_runs_when_a_scope_is_left_may_use_handles)
{
    tosc_scope scope;
    tosc_value *value;
    values_start();
    python("gone = []\n"
           "class Noisy:\n"
           "    def __del__(self): gone.append(len(d))\n"
           "box = [Noisy(), Noisy(), Noisy()]\n");
    ok(tosc_scope_enter(&scope));
    for (int i = 0; i < 3; i++) {
        ok(tosc_borrow(names, tosc_path("box/0"), &value));
        ok(tosc_delete(names, tosc_path("box/0")));
    }
    ck_assert(python_true("gone == []"));
    ok(tosc_scope_leave(&scope));
    ck_assert(python_true("gone == [0, 0, 0]"));
    values_stop();
}
END_TEST

START_TEST(a_scope_may_hold_many)
{
    tosc_scope scope;
    tosc_value **all = malloc(100000 * sizeof(*all));
    int64_t number;
    values_start();
    take("list(range(100000))");
    tosc_value *x = eval("x");
    size_t before = handle_count();
    ok(tosc_scope_enter(&scope));
    for (int i = 0; i < 100000; i++) {
        must(tosc_borrow(x, tosc_index(i), &all[i]) == 0);
    }
    for (int i = 0; i < 100000; i++) {
        must(tosc_get_int64(all[i], tosc_self(), &number) == 0 && number == i);
    }
    ok(tosc_scope_leave(&scope));
    for (int i = 0; i < 100000; i++) {
        must(tosc_get_int64(all[i], tosc_self(), &number) == TOSC_EINVAL);
    }
    ck_assert_uint_eq(handle_count(), before);
    tosc_value_unref(x);
    free(all);
    values_stop();
}
END_TEST

static void *
work_in_scopes(void *unused)
{
    (void)unused;
    for (int i = 0; i < (sanitized() ? 300 : 3000); i++) {
        tosc_scope scope;
        tosc_value *owned;
        tosc_value *borrowed;
        tosc_value *late;
        int64_t number;
        must(tosc_get(root, tosc_key("x"), &owned) == 0);
        must(tosc_scope_enter(&scope) == 0);
        must(tosc_borrow(owned, tosc_key("l"), &borrowed) == 0);
        must(tosc_get_int64(borrowed, tosc_index(-1), &number) == 0 && number == 3);
        if (i % 10 == 0) {
            must(tosc_scope_pause(&scope) == 0);
            must(tosc_borrow(owned, tosc_key("l"), &late) == 0);
            must(tosc_scope_resume(&scope) == 0);
        }
        must(tosc_scope_leave(&scope) == 0);
        must(tosc_get_int64(borrowed, tosc_index(-1), &number) == TOSC_EINVAL);
        tosc_value_unref(owned);
    }
    return NULL;
}

static void *
enter_and_leave(void *scope)
{
    must(tosc_scope_enter(scope) == 0);
    must(tosc_scope_leave(scope) == 0);
    return NULL;
}

static void *
share_a_scope(void *arg)
{
    static tosc_scope shared; /* the mistake */
    pthread_t other;
    (void)arg;
    must(tosc_scope_enter(&shared) == 0);
    must(tosc_scope_pause(&shared) == 0);
    must(pthread_create(&other, NULL, enter_and_leave, &shared) == 0);
    must(pthread_join(other, NULL) == 0);
    must(tosc_scope_resume(&shared) == TOSC_EINVAL);
    must(tosc_scope_leave(&shared) == TOSC_EINVAL);
    return NULL;
}

/* What cannot be left keeps the host from stopping: the process just ends. */
START_TEST(a_scope_that_two_threads_share_is_told)
{
    pthread_t thread;
    host_start();
    must(pthread_create(&thread, NULL, share_a_scope, NULL) == 0);
    must(pthread_join(thread, NULL) == 0);
}
END_TEST

START_TEST(ten_threads_in_scopes)
{
    values_start();
    take("{'l': [1, 2, 3]}");
    size_t before = handle_count();
    in_threads(10, work_in_scopes, NULL);
    ck_assert_uint_eq(handle_count(), before);
    values_stop();
}
END_TEST

static Suite *
scopes_suite(void)
{
    Suite *suite = suite_create("scopes");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_test(all, what_is_borrowed_ends_with_its_scope);
    tcase_add_test(all, nothing_is_borrowed_outside_of_a_scope);
    tcase_add_test(all, what_is_borrowed_is_not_given_back);
    tcase_add_test(all, scopes_are_left_innermost_first_and_once);
    tcase_add_test(all, a_scope_belongs_to_its_thread);
    tcase_add_test(all, no_other_thread_enters_until_a_scope_is_paused);
    tcase_add_test(all, code_that_runs_when_a_scope_is_left_may_use_handles);
    tcase_add_test(all, a_scope_may_hold_many);
    tcase_add_test(all, a_scope_that_two_threads_share_is_told);
    tcase_add_test(all, ten_threads_in_scopes);
    suite_add_tcase(suite, all);
    return suite;
}

int
main(void)
{
    return run_suite(scopes_suite());
}
