/*
 * Callbacks of watches: when they are called, what they may do, and what ends them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watches.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* ThreadSanitizer does not bear new threads in the child of a process that has some. */
#ifdef __SANITIZE_THREAD__
#define THREADS_IN_A_CHILD false
#else
#define THREADS_IN_A_CHILD true
#endif

/* ---- callbacks ---- */

static struct record {
    pthread_mutex_t mutex;
    int calls;
    int depth;
    int64_t versions[1000];
    int64_t last_before;
    char paths[1000][64];
    bool wrong;
    bool own;
    int hold_ms; /* how long each call takes */
    int in_it;   /* atomic */
} record = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void
note(tosc_manager *m, const tosc_change *told, void *arg)
{
    (void)arg;
    __atomic_add_fetch(&record.in_it, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&record.mutex);
    if (record.depth++ > 0 || m != manager) {
        record.wrong = true;
    }
    pthread_mutex_unlock(&record.mutex);
    sleep_us(record.hold_ms * 1000);
    pthread_mutex_lock(&record.mutex);
    int i = record.calls % 1000;
    record.versions[i] = told->version;
    record.last_before = told->before;
    record.own = told->own;
    snprintf(record.paths[i], sizeof(record.paths[i]), "%s",
             told->all ? "all" : told->paths[0]);
    record.calls++;
    record.depth--;
    pthread_mutex_unlock(&record.mutex);
    __atomic_sub_fetch(&record.in_it, 1, __ATOMIC_SEQ_CST);
}

static int
calls_so_far(void)
{
    pthread_mutex_lock(&record.mutex);
    int calls = record.calls;
    pthread_mutex_unlock(&record.mutex);
    return calls;
}

static void
wait_for_calls(int calls)
{
    double limit = seconds() + 20;
    while (calls_so_far() < calls && seconds() < limit) {
        sleep_us(1000);
    }
    ck_assert_int_ge(calls_so_far(), calls);
}

START_TEST(callbacks_come_one_after_the_other_in_order)
{
    begin_with("{'a': 0}");
    ok(tosc_watch_new(manager, NULL, note, NULL, &watch));
    for (int i = 1; i <= 20; i++) {
        python("r['a'] += 1");
        wait_for_calls(i);
        ck_assert_str_eq(record.paths[i - 1], "a");
        ck_assert_int_eq(record.versions[i - 1], version_now());
    }
    ck_assert(record.own);
    ck_assert_int_eq(tosc_watch_fd(watch), -1);
    end();
    ck_assert(!record.wrong);
    ck_assert_int_eq(calls_so_far(), 20);
}
END_TEST

START_TEST(what_comes_while_a_callback_runs_is_told_together)
{
    begin_with("{'a': 0}");
    record.hold_ms = 200;
    ok(tosc_watch_new(manager, NULL, note, NULL, &watch));
    python("r['a'] += 1");
    sleep_us(50000);
    int64_t first = version_now();
    python("for i in range(100): r['a'] += 1");
    ck_assert_int_eq(python_int("m.read()['a']"), 101);
    wait_for_calls(2);
    ck_assert_int_eq(record.versions[1], version_now());
    ck_assert_int_eq(record.versions[0], first);
    ck_assert_int_eq(record.last_before, first);
    end();
    ck_assert_int_eq(calls_so_far(), 2);
}
END_TEST

START_TEST(commits_of_other_processes_call_back)
{
    char source[8192];
    begin_with("{'a': 0}");
    ok(tosc_watch_new(manager, "a", note, NULL, &watch));
    snprintf(source, sizeof(source),
             "import tosc, time\n"
             "m = tosc.Manager(tosc.FileBackend('%s', durable=False))\n"
             "r = m.read()\n"
             "for i in range(50): r['a'] += 1; time.sleep(0.005)\n",
             path_in("store"));
    ck_assert_int_eq(tosc_run(source), 0);
    double limit = seconds() + 20;
    while (seconds() < limit
           && record.versions[(calls_so_far() + 999) % 1000] < version_now()) {
        sleep_us(1000);
    }
    ck_assert_int_eq(record.versions[calls_so_far() - 1], version_now());
    ck_assert_int_ge(calls_so_far(), 10);
    ck_assert(!record.own);
    for (int i = 1; i < calls_so_far(); i++) {
        must(record.versions[i] > record.versions[i - 1]);
    }
    end();
}
END_TEST

static tosc_watch *inner;
static int inner_calls;

static void
count_inner(tosc_manager *m, const tosc_change *told, void *arg)
{
    (void)m;
    (void)told;
    (void)arg;
    __atomic_add_fetch(&inner_calls, 1, __ATOMIC_SEQ_CST);
}

static void
free_myself(tosc_manager *m, const tosc_change *told, void *arg)
{
    tosc_watch **mine = arg;
    *mine = tosc_watch_free(*mine);
    must(tosc_watch_new(m, NULL, count_inner, NULL, &inner) == 0);
    note(m, told, NULL);
}

START_TEST(a_callback_may_end_its_own_watch_and_begin_others)
{
    begin_with("{'a': 0}");
    ok(tosc_watch_new(manager, NULL, free_myself, &watch, &watch));
    python("r['a'] += 1");
    wait_for_calls(1);
    ck_assert_ptr_null(watch);
    python("r['a'] += 1");
    for (double limit = seconds() + 10;
         seconds() < limit && __atomic_load_n(&inner_calls, __ATOMIC_SEQ_CST) == 0;) {
        sleep_us(1000);
    }
    ck_assert_int_eq(__atomic_load_n(&inner_calls, __ATOMIC_SEQ_CST), 1);
    ck_assert_int_eq(calls_so_far(), 1);
    inner = tosc_watch_free(inner);
    end();
}
END_TEST

static int
add_one(tosc_manager *m, tosc_value *root, void *arg)
{
    (void)m;
    (void)arg;
    return tosc_add_int64(root, tosc_key("b"), 1, NULL);
}

/* Changes the store until b is 5: each change is told by another call. */
static void
answer(tosc_manager *m, const tosc_change *told, void *arg)
{
    tosc_value *root;
    int64_t b = 0;
    must(tosc_manager_read(m, &root) == 0);
    must(tosc_get_int64(root, tosc_key("b"), &b) == 0);
    if (b < 5) {
        must(tosc_transact(m, add_one, NULL, NULL) == 0);
    }
    tosc_value_unref(root);
    note(m, told, arg);
}

START_TEST(a_callback_may_change_the_store)
{
    begin_with("{'a': 0, 'b': 0}");
    ok(tosc_watch_new(manager, NULL, answer, NULL, &watch));
    python("r['a'] += 1");
    wait_for_calls(6);
    sleep_us(20000);
    ck_assert_int_eq(calls_so_far(), 6);
    ck_assert(!record.wrong);
    ck_assert_int_eq(python_int("m.read()['b']"), 5);
    end();
}
END_TEST

static void
read_twice(tosc_manager *m, const tosc_change *told, void *arg)
{
    tosc_value *root;
    int64_t a = -1;
    must(tosc_manager_read(m, &root) == 0);
    must(tosc_get_int64(root, tosc_key("a"), &a) == 0);
    must(
        tosc_host_run_string("import __main__; __main__.seen.append(m.read()['a'])", "cb")
        == 0);
    *(int64_t *)arg = a;
    tosc_value_unref(root);
    note(m, told, NULL);
}

START_TEST(callbacks_see_what_is_committed_while_transactions_are_open)
{
    int64_t seen = -1;
    tosc_transaction *transaction;
    tosc_value *root;
    begin_with("{'a': 0, 'b': 0}");
    python("seen = []");
    ok(tosc_watch_new(manager, NULL, read_twice, &seen, &watch));
    ok(tosc_transaction_begin(manager, &transaction));
    ok(tosc_manager_read(manager, &root));
    ok(tosc_set_int64(root, tosc_key("a"), 50));
    sleep_us(20000);
    ck_assert_int_eq(calls_so_far(), 0);
    /* Another thread commits; this one's transaction is open and sees nothing of it. */
    in_threads(1, change_soon, NULL);
    wait_for_calls(1);
    ck_assert_int_eq(seen, 99);
    int64_t mine = 0;
    ok(tosc_get_int64(root, tosc_key("a"), &mine));
    ck_assert_int_eq(mine, 50);
    fails(TOSC_ECONFLICT, tosc_transaction_commit(transaction));
    sleep_us(20000);
    ck_assert_int_eq(calls_so_far(), 1);
    ck_assert(python_true("seen == [99]"));
    tosc_value_unref(root);
    end();
}
END_TEST

static void
try_to_stop(tosc_manager *m, const tosc_change *told, void *arg)
{
    int *statuses = arg;
    statuses[0] = tosc_host_stop();
    statuses[1] = tosc_manager_close(m);
    note(m, told, NULL);
}

START_TEST(a_callback_cannot_stop_or_close)
{
    int statuses[2] = {0, 0};
    begin_with("{'a': 0}");
    ok(tosc_watch_new(manager, NULL, try_to_stop, statuses, &watch));
    python("r['a'] += 1");
    wait_for_calls(1);
    ck_assert_int_eq(statuses[0], TOSC_EINVAL);
    ck_assert_int_eq(statuses[1], TOSC_EINVAL);
    end();
}
END_TEST

static void
forget_scopes(tosc_manager *m, const tosc_change *told, void *arg)
{
    static tosc_scope scopes[8]; /* the next calls' must not overwrite them */
    int i = 2 * calls_so_far();
    must(tosc_scope_enter(&scopes[i]) == 0);
    must(tosc_scope_enter(&scopes[i + 1]) == 0);
    if (calls_so_far() % 2) {
        must(tosc_scope_pause(&scopes[i + 1]) == 0);
    }
    note(m, told, arg);
}

START_TEST(scopes_that_a_callback_forgets_are_left)
{
    begin_with("{'a': 0}");
    ok(tosc_watch_new(manager, NULL, forget_scopes, NULL, &watch));
    for (int i = 1; i <= 4; i++) {
        python("r['a'] += 1");
        wait_for_calls(i);
    }
    end();
}
END_TEST

START_TEST(free_waits_for_the_callback)
{
    begin_with("{'a': 0}");
    record.hold_ms = 200;
    ok(tosc_watch_new(manager, NULL, note, NULL, &watch));
    python("r['a'] += 1");
    while (__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST) == 0) {
        sleep_us(1000);
    }
    tosc_scope scope;
    ok(tosc_scope_enter(&scope)); /* does not hold up a callback that needs Python */
    watch = tosc_watch_free(watch);
    ck_assert_int_eq(__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST), 0);
    ok(tosc_scope_leave(&scope));
    ck_assert_int_eq(calls_so_far(), 1);
    python("r['a'] += 1");
    sleep_us(20000);
    ck_assert_int_eq(calls_so_far(), 1);
    end();
}
END_TEST

START_TEST(a_slow_callback_keeps_nobody_from_being_up_to_date)
{
    begin_with("{'a': 0}");
    record.hold_ms = 600;
    tosc_watch *asked;
    ok(tosc_watch_new(manager, NULL, NULL, NULL, &asked));
    ok(tosc_watch_new(manager, NULL, note, NULL, &watch));
    python("r['a'] += 1");
    gives(1, tosc_watch_next(asked, 1000, &change));
    while (__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST) == 0) {
        sleep_us(1000);
    }
    tosc_manager *other = open_store("store");
    tosc_value *root;
    ok(tosc_manager_read(other, &root));
    ok(tosc_set_int64(root, tosc_key("a"), 33));
    gives(1, tosc_watch_next(asked, 300, &change)); /* the watcher goes on meanwhile */
    ck_assert_int_eq(python_int("m.read()['a']"), 33);
    ck_assert_int_eq(__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST), 1);
    tosc_value_unref(root);
    tosc_manager_unref(other);
    tosc_watch_free(asked);
    end();
}
END_TEST

/* ---- many, long ---- */

START_TEST(many_watches_are_told_each_what_concerns_it)
{
    static tosc_watch *many[500];
    char path[32];
    begin_with("{str(i): {} for i in range(500)}");
    for (int i = 0; i < 500; i++) {
        snprintf(path, sizeof(path), "%d", i);
        ok(tosc_watch_new(manager, path, i % 2 ? note : NULL, NULL, &many[i]));
    }
    python("for i in range(500): r[str(i)]['x'] = 1");
    wait_for_calls(250);
    for (int i = 0; i < 500; i += 2) {
        snprintf(path, sizeof(path), "%d/x", i);
        must(strcmp(next_of(many[i], 0), path) == 0);
        must(strcmp(next_of(many[i], 0), "-") == 0);
    }
    for (int i = 0; i < 500; i++) {
        tosc_watch_free(many[i]);
    }
    ck_assert(!record.wrong);
    ck_assert_int_eq(calls_so_far(), 250);
    end();
}
END_TEST

START_TEST(watches_come_and_go_without_growth)
{
    begin_with("{'a': 0, 'd': {}}");
    int64_t before = 0;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 300; i++) {
            ok(tosc_watch_new(manager, "a", i % 2 ? note : NULL, NULL, &watch));
            if (i % 10 == 0) {
                python("r['a'] += 1\nr['d']['x'] = {'y': [[], []]}\nr['d']['x']['y'][0] "
                       "= 1");
            }
            watch = tosc_watch_free(watch);
            python("r['a'] += 1");
        }
        /* One that is never asked. */
        watch_path(NULL);
        python("for i in range(3000): r['d'][i % 500] = {'x': [i]}");
        watch = tosc_watch_free(watch);
        if (round == 1) {
            before = resident_bytes();
        }
    }
    ck_assert_msg(sanitized() || resident_bytes() - before < 3 * 1024 * 1024,
                  "%lld bytes more", (long long)(resident_bytes() - before));
    end();
}
END_TEST

static atomic_bool going;

static void *
watch_and_free(void *arg)
{
    (void)arg;
    while (going) {
        tosc_watch *mine;
        const tosc_change *what;
        int kind = rand() % 2;
        must(tosc_watch_new(manager, kind ? NULL : "a", kind ? note : NULL, NULL, &mine)
             == 0);
        if (!kind) {
            must(tosc_watch_next(mine, 1, &what) >= 0);
        } else {
            sleep_us(200);
        }
        tosc_watch_free(mine);
    }
    return NULL;
}

static void *
commit_and_read(void *arg)
{
    tosc_value *root;
    (void)arg;
    must(tosc_manager_read(manager, &root) == 0);
    while (going) {
        int status = tosc_add_int64(root, tosc_key("a"), 1, NULL);
        must(status == 0 || status == TOSC_ECONFLICT);
    }
    tosc_value_unref(root);
    return NULL;
}

static void *
do_either(void *arg)
{
    int *next = arg;
    return __atomic_fetch_add(next, 1, __ATOMIC_SEQ_CST) % 2 ? watch_and_free(NULL)
                                                             : commit_and_read(NULL);
}

static void *
end_soon(void *arg)
{
    (void)arg;
    sleep_us(1500000);
    going = false;
    return NULL;
}

START_TEST(threads_watch_free_and_commit_at_the_same_time)
{
    int next = 0;
    pthread_t clock;
    begin_with("{'a': 0}");
    going = true;
    ok(tosc_watch_new(manager, NULL, note, NULL, &watch));
    pthread_create(&clock, NULL, end_soon, NULL);
    in_threads(6, do_either, &next);
    pthread_join(clock, NULL);
    ck_assert_int_gt(calls_so_far(), 0);
    end();
}
END_TEST

/* ---- the end ---- */

START_TEST(closing_the_manager_ends_its_watches)
{
    begin_with("{'a': 0}");
    tosc_watch *called;
    watch_path(NULL);
    ok(tosc_watch_new(manager, NULL, note, NULL, &called));
    record.hold_ms = 100;
    python("r['a'] += 1");
    while (__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST) == 0) {
        sleep_us(1000);
    }
    ok(tosc_manager_close(manager)); /* waits for the callback */
    ck_assert_int_eq(__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST), 0);
    ck_assert(is_readable(tosc_watch_fd(watch)));
    fails(TOSC_ECLOSED, tosc_watch_next(watch, 0, &change));
    fails(TOSC_ECLOSED, tosc_watch_next(watch, -1, &change));
    tosc_watch *late;
    fails(TOSC_ECLOSED, tosc_watch_new(manager, NULL, NULL, NULL, &late));
    tosc_watch_free(called);
    end();
}
END_TEST

static void *
close_soon(void *arg)
{
    (void)arg;
    sleep_us(50000);
    must(tosc_manager_close(manager) == 0);
    return NULL;
}

static void *
free_soon(void *arg)
{
    (void)arg;
    sleep_us(50000);
    tosc_watch_free(arg);
    return NULL;
}

START_TEST(a_wait_ends_with_the_manager_or_the_watch)
{
    pthread_t other;
    begin_with("{'a': 0}");
    watch_path(NULL);
    pthread_create(&other, NULL, free_soon, watch);
    fails(TOSC_ECLOSED, tosc_watch_next(watch, -1, &change));
    told("the watch was freed");
    pthread_join(other, NULL);
    watch_path(NULL);
    pthread_create(&other, NULL, close_soon, NULL);
    fails(TOSC_ECLOSED, tosc_watch_next(watch, -1, &change));
    told("the Manager that was watched is closed");
    pthread_join(other, NULL);
    end();
}
END_TEST

START_TEST(watches_do_not_keep_a_manager_alive)
{
    host_start();
    manager = open_store("store");
    watch_path(NULL);
    tosc_watch *called;
    ok(tosc_watch_new(manager, NULL, note, NULL, &called));
    manager = tosc_manager_unref(manager);
    while (tosc_watch_next(watch, 100, &change) == 0) {
        python("import gc; gc.collect()"); /* the watcher may have held it just then */
    }
    fails(TOSC_ECLOSED, tosc_watch_next(watch, -1, &change));
    tosc_watch_free(called);
    watch = tosc_watch_free(watch);
    host_stop();
}
END_TEST

START_TEST(stopping_waits_for_callbacks_and_ends_watches)
{
    begin_with("{'a': 0}");
    tosc_watch *called;
    watch_path(NULL);
    ok(tosc_watch_new(manager, NULL, note, NULL, &called));
    record.hold_ms = 300;
    python("r['a'] += 1");
    while (__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST) == 0) {
        sleep_us(1000);
    }
    ok(tosc_host_stop());
    ck_assert_int_eq(__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST), 0);
    ck_assert_int_eq(calls_so_far(), 1);
    fails(TOSC_ECLOSED, tosc_watch_next(watch, -1, &change));
    tosc_watch_free(called);
    watch = tosc_watch_free(watch);
    fails(TOSC_ECLOSED, tosc_watch_new(manager, NULL, NULL, NULL, &watch));
}
END_TEST

static void
use_python_late(tosc_manager *m, const tosc_change *told, void *arg)
{
    note(m, told, NULL);
    *(int *)arg = tosc_host_run_string("x = 1", "late");
}

START_TEST(a_callback_that_meets_the_end_is_told_so)
{
    int status = 1;
    begin_with("{'a': 0}");
    ok(tosc_watch_new(manager, NULL, use_python_late, &status, &watch));
    record.hold_ms = 300;
    python("r['a'] += 1");
    while (__atomic_load_n(&record.in_it, __ATOMIC_SEQ_CST) == 0) {
        sleep_us(1000);
    }
    ok(tosc_host_stop());
    ck_assert_int_eq(status, TOSC_ECLOSED);
    watch = tosc_watch_free(watch);
}
END_TEST

/* ---- forks ---- */

static int child_fd = -1;

static void
in_the_child(void *arg)
{
    (void)arg;
    /* What the parent's watches were about to tell is still there. */
    must(strcmp(next_of(watch, 0), "a") == 0);
    must(!is_readable(tosc_watch_fd(watch)));
    must(tosc_watch_fd(watch) == child_fd);
    python("r['b'] = 1");
    must(strcmp(next_of(watch, 0), "b") == 0);
    double limit = seconds() + 10;
    int before = 1;
    while (calls_so_far() <= before && seconds() < limit) {
        sleep_us(1000);
    }
    must(calls_so_far() > before);
    python("r['c'] = 1");
    must(is_readable(tosc_watch_fd(watch)));
    ok(tosc_host_stop());
}

START_TEST(in_a_child_watches_work_from_the_first_use_of_the_manager_on)
{
    tosc_watch *called;
    begin_with("{'a': 0}");
    watch_path(NULL);
    ok(tosc_watch_new(manager, NULL, note, NULL, &called));
    python("r['a'] += 1");
    wait_for_calls(1);
    child_fd = tosc_watch_fd(watch);
    pid_t child = child_start(in_the_child, NULL);
    child_join(child);
    /* The child's taking took nothing from us. */
    ck_assert(is_readable(child_fd));
    gives(1, tosc_watch_next(watch, 5000, &change));
    ck_assert_str_eq(change->paths[0], "a");
    wait_for_calls(2);
    tosc_watch_free(called);
    end();
}
END_TEST

static void
fork_here(tosc_manager *m, const tosc_change *told, void *arg)
{
    pid_t child = fork();
    if (child == 0) {
        int64_t version;
        _exit(tosc_manager_version(m, &version) == 1 && version == told->version ? 0 : 1);
    }
    *(int *)arg = child_status(child);
    note(m, told, NULL);
}

START_TEST(a_callback_may_fork)
{
    int status = -1;
    begin_with("{'a': 0}");
    ok(tosc_watch_new(manager, NULL, fork_here, &status, &watch));
    for (int i = 1; i <= 5; i++) {
        python("r['a'] += 1");
        wait_for_calls(i);
        ck_assert_int_eq(status, 0);
    }
    end();
}
END_TEST

static void
collect(tosc_manager *m, const tosc_change *told, void *arg)
{
    note(m, told, arg);
    manager = tosc_manager_unref(manager);
    must(tosc_host_run_string("import gc; gc.collect()", "collect") == 0);
    must(tosc_manager_refresh(m, NULL) == TOSC_EINVAL);
}

START_TEST(a_manager_may_go_while_its_callback_runs)
{
    host_start();
    manager = open_store("store");
    ok(tosc_watch_new(manager, NULL, collect, NULL, &watch));
    tosc_value *value;
    ok(tosc_value_new_json("{}", TOSC_TEXT_END, &value));
    ok(tosc_manager_write(manager, value));
    wait_for_calls(1);
    watch = tosc_watch_free(watch);
    ck_assert_ptr_null(manager);
    tosc_value_unref(value);
    host_stop();
}
END_TEST

static void
add_tests(TCase *tcase)
{
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, directory_make, directory_remove);
    tcase_add_test(tcase, callbacks_come_one_after_the_other_in_order);
    tcase_add_test(tcase, what_comes_while_a_callback_runs_is_told_together);
    tcase_add_test(tcase, commits_of_other_processes_call_back);
    tcase_add_test(tcase, a_callback_may_end_its_own_watch_and_begin_others);
    tcase_add_test(tcase, a_callback_may_change_the_store);
    tcase_add_test(tcase, callbacks_see_what_is_committed_while_transactions_are_open);
    tcase_add_test(tcase, a_callback_cannot_stop_or_close);
    tcase_add_test(tcase, scopes_that_a_callback_forgets_are_left);
    tcase_add_test(tcase, free_waits_for_the_callback);
    tcase_add_test(tcase, a_slow_callback_keeps_nobody_from_being_up_to_date);
    tcase_add_test(tcase, many_watches_are_told_each_what_concerns_it);
    tcase_add_test(tcase, watches_come_and_go_without_growth);
    tcase_add_test(tcase, threads_watch_free_and_commit_at_the_same_time);
    tcase_add_test(tcase, closing_the_manager_ends_its_watches);
    tcase_add_test(tcase, a_wait_ends_with_the_manager_or_the_watch);
    tcase_add_test(tcase, watches_do_not_keep_a_manager_alive);
    tcase_add_test(tcase, stopping_waits_for_callbacks_and_ends_watches);
    tcase_add_test(tcase, a_callback_that_meets_the_end_is_told_so);
    if (THREADS_IN_A_CHILD) {
        tcase_add_test(tcase,
                       in_a_child_watches_work_from_the_first_use_of_the_manager_on);
    }
    tcase_add_test(tcase, a_callback_may_fork);
    tcase_add_test(tcase, a_manager_may_go_while_its_callback_runs);
}

int
main(void)
{
    Suite *suite = suite_create("watch calls");
    TCase *tcase = tcase_create("all");
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
