/*
 * tosc_transact(): running a function until its transaction commits. Its limits, its
 * errors, and exact results of many threads, scripts and processes at once.
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
static tosc_manager *other; /* of the same store, for conflicts */

static void
begin_test_at(const char *uri)
{
    host_start();
    manager = open_at(uri);
    other = open_at(uri);
    write_json(manager, "{\"n\": 0, \"list\": []}");
    give_to_scripts(manager);
    python("data = m.read()");
}

static void
begin_test(void)
{
    begin_test_at("inproc:test");
}

static void
end_test(void)
{
    tosc_manager_unref(manager);
    tosc_manager_unref(other);
    host_stop();
}

static int64_t
n_of(tosc_manager *of)
{
    tosc_value *root;
    int64_t result = INT64_MIN;
    ok(tosc_manager_refresh(of, &root));
    ok(tosc_get_int64(root, tosc_key("n"), &result));
    tosc_value_unref(root);
    return result;
}

#define n() n_of(manager)

static int
increment(tosc_manager *of, tosc_value *root, void *calls)
{
    (void)of;
    if (calls != NULL) {
        ++*(int *)calls;
    }
    return tosc_add_int64(root, tosc_key("n"), 1, NULL);
}

/* Somebody else's commit. */
static void
interfere(void)
{
    tosc_value *root;
    must(tosc_manager_read(other, &root) == 0);
    must(tosc_add_int64(root, tosc_key("n"), 1000, NULL) == 0);
    tosc_value_unref(root);
}

/* What the function of a test does, and what it has seen. */
struct plan {
    int conflicts; /* so many runs meet one */
    int status;    /* what it returns then */
    int calls;
    tosc_value *root; /* of the last call */
};

static int
follow_plan(tosc_manager *of, tosc_value *root, void *arg)
{
    struct plan *plan = arg;
    plan->root = root;
    int status = increment(of, root, &plan->calls);
    if (status == 0 && plan->calls <= plan->conflicts) {
        interfere();
    }
    return status < 0 ? status : plan->status;
}

/* ---- the function ---- */

START_TEST(what_the_function_did_is_kept)
{
    int calls = 0;
    begin_test();
    ok(tosc_transact(manager, increment, &calls, NULL));
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(n(), 1);
    ck_assert(python_true("data['n'] == 1"));
    end_test();
}
END_TEST

START_TEST(it_is_run_again_after_a_conflict)
{
    struct plan plan = {.conflicts = 2}; /* the third is under the store's lock */
    begin_test();
    ok(tosc_transact(manager, follow_plan, &plan, NULL));
    ck_assert_int_eq(plan.calls, 3);
    ck_assert_int_eq(n(), 2001);
    int64_t number;
    fails(TOSC_EINVAL, tosc_get_int64(plan.root, tosc_key("n"), &number));
    told("not valid any more");
    end_test();
}
END_TEST

START_TEST(its_failure_rolls_back_and_is_returned)
{
    struct plan plan = {.status = -12345};
    begin_test();
    ck_assert_int_eq(tosc_transact(manager, follow_plan, &plan, NULL), -12345);
    ck_assert_int_eq(plan.calls, 1);
    ck_assert_int_eq(n(), 0);
    plan.status = TOSC_ECONFLICT; /* not one of this transaction */
    fails(TOSC_ECONFLICT, tosc_transact(manager, follow_plan, &plan, NULL));
    ck_assert_int_eq(plan.calls, 2);
    plan.status = 7;
    fails(TOSC_EINVAL, tosc_transact(manager, follow_plan, &plan, NULL));
    told("returned 7");
    ck_assert_int_eq(n(), 0);
    end_test();
}
END_TEST

static int
look_for_missing(tosc_manager *of, tosc_value *root, void *arg)
{
    int64_t number;
    (void)of;
    (void)arg;
    must(tosc_set_int64(root, tosc_key("n"), 9) == 0);
    return tosc_get_int64(root, tosc_key("missing"), &number);
}

static int
call_script(tosc_manager *of, tosc_value *root, void *name)
{
    tosc_value *const values[] = {root};
    const tosc_arguments arguments = {values, 1, NULL};
    (void)of;
    return tosc_host_call(name, &arguments, NULL);
}

START_TEST(the_message_of_its_failure_is_kept)
{
    char work[] = "__main__:work";
    char fail[] = "__main__:fail";
    char leave[] = "__main__:leave";
    begin_test();
    python("def work(data): data['n'] += 1\n"
           "def fail(data):\n"
           "    data['n'] = 50\n"
           "    raise RuntimeError('not today')\n"
           "def leave(data):\n"
           "    data['n'] = 60\n"
           "    raise SystemExit(3)");
    fails(TOSC_ENOTFOUND, tosc_transact(manager, look_for_missing, NULL, NULL));
    told("'missing'");
    ok(tosc_transact(manager, call_script, work, NULL));
    fails(TOSC_EPYTHON, tosc_transact(manager, call_script, fail, NULL));
    told_type("RuntimeError");
    told("not today");
    told_traceback("in fail");
    fails(TOSC_EEXIT, tosc_transact(manager, call_script, leave, NULL));
    ck_assert_int_eq(tosc_error_exit_status(), 3);
    ck_assert_int_eq(n(), 1);
    end_test();
}
END_TEST

static int
only_fail(tosc_manager *of, tosc_value *value, void *status)
{
    (void)of;
    (void)value;
    return *(const int *)status;
}

START_TEST(a_failure_without_a_message_is_told_by_its_name)
{
    static const int codes[] = {TOSC_ECONFLICT, TOSC_ENOTFOUND, TOSC_EPYTHON,
                                TOSC_ESYSTEM};
    begin_test();
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        int status = codes[i];
        fails(TOSC_ESYSTEM, tosc_host_run_file("/missing", NULL)); /* an older fault */
        fails(status, tosc_transact(manager, only_fail, &status, NULL));
        told("the function returned");
        told(tosc_status_name(status));
        ck_assert_int_eq(tosc_error_errno(), 0);
        ck_assert_str_eq(tosc_error_path(), "");
    }
    end_test();
}
END_TEST

static int
fill(tosc_manager *of, tosc_value *root, void *arg)
{
    tosc_value *value;
    (void)arg;
    must(root == NULL);
    must(tosc_value_new_list(&value) == 0);
    int status = tosc_manager_write(of, value);
    tosc_value_unref(value);
    return status;
}

START_TEST(an_empty_store_has_no_root)
{
    begin_test();
    tosc_manager *empty = open_at("inproc:empty");
    tosc_value *root;
    ok(tosc_transact(empty, fill, NULL, NULL));
    ok(tosc_manager_read(empty, &root));
    ck_assert_int_eq(tosc_type_of(root, tosc_self()), TOSC_LIST);
    tosc_value_unref(root);
    tosc_manager_unref(empty);
    end_test();
}
END_TEST

/* ---- limits ---- */

START_TEST(retries_are_counted)
{
    static const struct {
        int64_t retries;
        int conflicts;
        int calls;
        int status;
    } cases[] = {
        {-1, 0, 1, 0},        {-1, 1, 1, TOSC_ERETRY},
        {1, 1, 2, 0},         {1, 2, 2, TOSC_ERETRY},
        {2, 2, 3, 0},         {0, 2, 3, 0},
        {INT64_MAX, 2, 3, 0},
    };
    begin_test();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct plan plan = {.conflicts = cases[i].conflicts};
        const tosc_transact_options options = {.retries = cases[i].retries};
        int64_t before = n();
        gives(cases[i].status, tosc_transact(manager, follow_plan, &plan, &options));
        ck_assert_int_eq(plan.calls, cases[i].calls);
        ck_assert_int_eq(n() - before,
                         1000 * cases[i].conflicts + (cases[i].status == 0));
        for (int quiet = 0; quiet < 20; quiet++) { /* the conflicts are forgotten */
            ok(tosc_transact(manager, increment, NULL, NULL));
        }
    }
    struct plan plan = {.conflicts = 1};
    const tosc_transact_options never = {.retries = -1};
    fails(TOSC_ERETRY, tosc_transact(manager, follow_plan, &plan, &never));
    told("1 tries");
    end_test();
}
END_TEST

static int
take_long(tosc_manager *of, tosc_value *root, void *arg)
{
    tosc_scope scope;
    int status = increment(of, root, arg);
    must(tosc_scope_enter(&scope) == 0);
    must(tosc_scope_pause(&scope) == 0);
    sleep_us(40000);
    must(tosc_scope_resume(&scope) == 0);
    must(tosc_scope_leave(&scope) == 0);
    interfere();
    return status;
}

START_TEST(the_time_is_limited)
{
    int calls = 0;
    const tosc_transact_options options = {.timeout_ms = 30};
    begin_test();
    fails(TOSC_ETIMEDOUT, tosc_transact(manager, take_long, &calls, &options));
    told("timed out");
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(n(), 1000);
    end_test();
}
END_TEST

/* Holds the store's lock, as a script's third try. */
START_TEST(also_while_waiting_for_the_lock)
{
    const tosc_transact_options options = {.timeout_ms = 60};
    int calls = 0;
    begin_test_at(store_in("locked"));
    python("begun, go = threading.Event(), threading.Event()\n"
           "holder = tosc.Manager(m.backend)\n"
           "tries = []\n"
           "@tosc.transactional(holder)\n"
           "def hold(theirs):\n"
           "    theirs['n'] += 1\n"
           "    tries.append(1)\n"
           "    if len(tries) < 3:\n"
           "        data['n'] += 1\n"
           "    else:\n"
           "        begun.set()\n"
           "        go.wait()\n"
           "t = threading.Thread(target=hold, args=(holder.read(),))\n"
           "t.start()\n"
           "begun.wait()");
    double start = seconds();
    fails(TOSC_ETIMEDOUT, tosc_transact(manager, increment, &calls, &options));
    ck_assert(seconds() - start >= 0.05);
    ck_assert_int_eq(calls, 1);
    python("go.set()\n"
           "t.join()\n"
           "holder.close()");
    ck_assert_int_eq(n(), 3);
    end_test();
}
END_TEST

START_TEST(nonsense_is_refused)
{
    const tosc_transact_options wrong[] = {
        {.retries = -2}, {.retries = INT64_MIN}, {.timeout_ms = -1}};
    int calls = 0;
    begin_test();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        fails(TOSC_EINVAL, tosc_transact(manager, increment, &calls, &wrong[i]));
        told(i < 2 ? "retries" : "timeout_ms");
    }
    const tosc_transact_options long_time = {.timeout_ms = INT64_MAX};
    ok(tosc_transact(manager, increment, &calls, &long_time));
    ck_assert_int_eq(calls, 1);
    fails(TOSC_EINVAL, tosc_transact(manager, NULL, NULL, NULL));
    told("fn is NULL");
    fails(TOSC_EINVAL, tosc_transact(NULL, increment, NULL, NULL));
    told("manager is NULL");
    ok(tosc_manager_close(manager));
    fails(TOSC_ECLOSED, tosc_transact(manager, increment, &calls, NULL));
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(n_of(other), 1);
    end_test();
    fails(TOSC_ECLOSED, tosc_transact(manager, increment, &calls, NULL));
}
END_TEST

START_TEST(an_unknown_outcome_ends_it)
{
    struct plan plan = {0};
    host_start();
    tosc_backend *backend = memory_store_new(true, NULL);
    ok(tosc_manager_new(backend, NULL, &manager));
    write_json(manager, "{\"n\": 0}");
    memory_store_fail(backend, MISHAP_LOST_REPLY);
    fails(TOSC_EUNKNOWN, tosc_transact(manager, follow_plan, &plan, NULL));
    ck_assert_int_eq(plan.calls, 1);
    ck_assert_int_eq(n(), 1);
    memory_store_fail(backend, MISHAP_REFUSED);
    fails(TOSC_ESYSTEM, tosc_transact(manager, follow_plan, &plan, NULL));
    ck_assert_int_eq(plan.calls, 2);
    ck_assert_int_eq(n(), 1);
    tosc_backend_unref(backend);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

/* ---- one inside another ---- */

struct nest {
    tosc_manager *inner;
    int status; /* of the inner function */
    int seen;   /* what the inner tosc_transact returned */
    int calls;
};

static int
nested(tosc_manager *of, tosc_value *root, void *arg)
{
    struct nest *nest = arg;
    struct plan plan = {.status = nest->status};
    int status = increment(of, root, &nest->calls);
    nest->seen = tosc_transact(nest->inner, follow_plan, &plan, NULL);
    must(plan.calls == 1);
    return status;
}

START_TEST(inside_another_of_the_same_manager_it_is_a_savepoint)
{
    begin_test();
    struct nest nest = {.inner = manager};
    ok(tosc_transact(manager, nested, &nest, NULL));
    ck_assert_int_eq(nest.seen, 0);
    ck_assert_int_eq(n(), 2);
    nest.status = TOSC_EINVAL;
    ok(tosc_transact(manager, nested, &nest, NULL));
    ck_assert_int_eq(nest.seen, TOSC_EINVAL);
    ck_assert_int_eq(n(), 3);
    tosc_transaction *tx;
    ok(tosc_transaction_begin(manager, &tx));
    ok(tosc_transact(manager, increment, NULL, NULL));
    ck_assert_int_eq(n_of(other), 3);
    ok(tosc_transaction_rollback(tx));
    ck_assert_int_eq(n(), 3);
    end_test();
}
END_TEST

START_TEST(inside_one_of_another_manager_it_is_on_its_own)
{
    begin_test();
    tosc_manager *elsewhere = open_at("inproc:elsewhere");
    write_json(elsewhere, "{\"n\": 0}");
    struct nest nest = {.inner = elsewhere};
    ok(tosc_transact(manager, nested, &nest, NULL));
    ck_assert_int_eq(n(), 1);
    ck_assert_int_eq(n_of(elsewhere), 1);
    nest.inner = other; /* of the same store: a conflict each time, then the lock */
    nest.calls = 0;
    const tosc_transact_options options = {.retries = 1};
    fails(TOSC_ERETRY, tosc_transact(manager, nested, &nest, &options));
    ck_assert_int_eq(nest.calls, 2);
    ck_assert_int_eq(n(), 3);
    tosc_manager_unref(elsewhere);
    end_test();
}
END_TEST

/* Changes the same store through another Manager: a conflict, until the lock is held. */
static int
change_through_other(tosc_manager *of, tosc_value *value, void *how)
{
    tosc_value *theirs = NULL;
    tosc_transaction *tx;
    int status = 0;
    (void)of;
    must(tosc_add_int64(value, tosc_key("n"), 1, NULL) == 0);
    must(tosc_manager_refresh(other, &theirs) == 0);
    switch (*(const int *)how) {
    case 0:
        status = tosc_transact(other, increment, NULL, NULL);
        break;
    case 1:
        status = tosc_set_int64(theirs, tosc_key("n"), 5);
        break;
    case 2:
        status = tosc_add_int64(theirs, tosc_key("n"), 5, NULL);
        break;
    case 3:
        status = tosc_append_int64(theirs, tosc_key("list"), 5);
        break;
    case 4:
        status = tosc_manager_write(other, theirs);
        break;
    default:
        must(tosc_transaction_begin(other, &tx) == 0);
        must(tosc_set_int64(theirs, tosc_key("n"), 5) == 0);
        status = tosc_transaction_commit(tx);
    }
    tosc_value_unref(theirs);
    return status;
}

START_TEST(who_holds_the_lock_cannot_use_it_through_another_manager)
{
    begin_test();
    for (int how = 0; how < 6; how++) {
        fails(TOSC_EINVAL, tosc_transact(manager, change_through_other, &how, NULL));
        told("through another Manager");
        told_type("");
    }
    write_json(manager, "{\"n\": 7}"); /* nothing holds the lock any more */
    ok(tosc_manager_refresh(other, NULL));
    ck_assert_int_eq(n_of(other), 7);
    end_test();
}
END_TEST

START_TEST(scripts_and_c_nest_in_each_other)
{
    char name[] = "__main__:decorated";
    begin_test();
    python("@tosc.transactional(m)\n"
           "def decorated(data):\n"
           "    data['n'] += 10");
    ok(tosc_transact(manager, call_script, name, NULL));
    ck_assert_int_eq(n(), 10);
    tosc_scope scope;
    ok(tosc_scope_enter(&scope));
    ok(tosc_transact(manager, call_script, name, NULL));
    ok(tosc_scope_leave(&scope));
    ck_assert_int_eq(n(), 20);
    end_test();
}
END_TEST

/* ---- a function that does not keep the rules ---- */

static tosc_scope forgotten_scopes[2];

static int
forget_scope(tosc_manager *of, tosc_value *root, void *paused)
{
    int status = increment(of, root, NULL);
    must(tosc_scope_enter(&forgotten_scopes[0]) == 0);
    must(tosc_scope_enter(&forgotten_scopes[1]) == 0);
    if (paused != NULL) {
        must(tosc_scope_pause(&forgotten_scopes[1]) == 0);
    }
    return status;
}

static int
forget_transaction(tosc_manager *of, tosc_value *root, void *arg)
{
    must(tosc_transaction_begin(of, arg) == 0);
    return increment(of, root, NULL);
}

static int
close_manager(tosc_manager *of, tosc_value *root, void *arg)
{
    int status = increment(of, root, arg);
    must(tosc_manager_close(of) == 0);
    tosc_manager_unref(of);
    return status;
}

START_TEST(what_it_leaves_open_fails_it)
{
    tosc_transaction *tx = NULL;
    begin_test();
    fails(TOSC_EINVAL, tosc_transact(manager, forget_scope, NULL, NULL));
    told("did not leave a scope");
    fails(TOSC_EINVAL, tosc_transact(manager, forget_scope, &tx, NULL));
    fails(TOSC_EINVAL, tosc_transact(manager, forget_transaction, &tx, NULL));
    told("did not end a transaction");
    ck_assert_int_eq(n(), 0);
    fails(TOSC_EINVAL, tosc_transaction_commit(tx));
    told("ended already");
    ok(tosc_transact(manager, increment, NULL, NULL));
    ck_assert_int_eq(n(), 1);
    end_test();
}
END_TEST

START_TEST(it_may_close_and_give_back_the_manager)
{
    begin_test();
    fails(TOSC_ECLOSED, tosc_transact(manager, close_manager, NULL, NULL));
    fails(TOSC_EINVAL, tosc_transact(manager, increment, NULL, NULL));
    ck_assert_int_eq(n_of(other), 0);
    end_test();
}
END_TEST

/* ---- many at once ---- */

#define THREADS 10
#define TIMES 100

static void *
count_in_thread(void *of)
{
    for (int i = 0; i < TIMES; i++) {
        must(tosc_transact(of, increment, NULL, NULL) == 0);
    }
    return NULL;
}

static const char python_threads[] =
    "@tosc.transactional(m)\n"
    "def count(data): data['n'] += 1\n"
    "def work():\n"
    "    for i in range(100): count(data)\n"
    "threads = [threading.Thread(target=work) for i in range(10)]\n"
    "for t in threads: t.start()";

/* _i: in memory, or in a file. */
START_TEST(c_threads_and_script_threads_count_exactly)
{
    begin_test_at(_i == 0 ? "inproc:counted" : store_in("counted"));
    python(python_threads);
    in_threads(THREADS, count_in_thread, manager);
    python("for t in threads: t.join()");
    ck_assert_int_eq(n(), 2 * THREADS * TIMES);
    ck_assert(python_true("m.read()['n'] == 2000"));
    end_test();
}
END_TEST

static void *
count_with_either(void *argument)
{
    static int turn;
    tosc_manager *of =
        __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % 2 ? manager : other;
    return count_in_thread(argument != NULL ? argument : of);
}

START_TEST(two_managers_of_one_file_count_exactly)
{
    begin_test_at(store_in("two"));
    in_threads(6, count_with_either, NULL);
    ck_assert_int_eq(n(), 6 * TIMES);
    ck_assert_int_eq(n_of(other), 6 * TIMES);
    end_test();
}
END_TEST

/* A program of its own, by a fork that has not started Python yet. */
static void
count_in_process(void *uri)
{
    must(tosc_host_start(NULL) == 0);
    tosc_manager *own = open_at(uri);
    in_threads(2, count_in_thread, own);
    tosc_manager_unref(own);
    must(tosc_host_stop() == 0);
}

START_TEST(processes_count_exactly)
{
    pid_t programs[2];
    pid_t scripts[2];
    char text[1500];
    char *uri = strdup(store_in("processes"));
    snprintf(text, sizeof(text),
             "import tosc\n"
             "m = tosc.Manager(tosc.open_backend('%s'))\n"
             "while m.refresh(None) is None: pass\n"
             "@tosc.transactional(m)\n"
             "def count(data): data['n'] += 1\n"
             "for i in range(100): count(m.read())",
             uri);
    for (int i = 0; i < 2; i++) {
        scripts[i] = tosc_run_start(text);
    }
    tosc_backend *backend;
    ok(tosc_backend_open(uri, &backend)); /* before Python, too */
    tosc_backend_unref(backend);
    int *go = shared_memory(sizeof(int));
    for (int i = 0; i < 2; i++) {
        programs[i] = fork();
        must(programs[i] >= 0);
        if (programs[i] == 0) {
            while (__atomic_load_n(go, __ATOMIC_ACQUIRE) == 0) {
                sleep_us(1000);
            }
            count_in_process(uri);
            _exit(0);
        }
    }
    begin_test_at(uri);
    __atomic_store_n(go, 1, __ATOMIC_RELEASE);
    count_in_thread(manager);
    for (int i = 0; i < 2; i++) {
        child_join(programs[i]);
        child_join(scripts[i]);
    }
    ck_assert_int_eq(n(), 2 * 2 * TIMES + 2 * 100 + TIMES);
    end_test();
    free(uri);
}
END_TEST

/* Moves amounts between accounts whose sum never changes, and looks. */
static int
transfer(tosc_manager *of, tosc_value *root, void *arg)
{
    unsigned *random = arg;
    int64_t sum = 0;
    int64_t one;
    int from = (int)(rand_r(random) % 8);
    int to = (int)(rand_r(random) % 8);
    (void)of;
    for (int i = 0; i < 8; i++) {
        must(tosc_get_int64(root, tosc_index(i), &one) == 0);
        sum += one;
    }
    must(sum == 800);
    must(tosc_get_int64(root, tosc_index(from), &one) == 0);
    must(tosc_set_int64(root, tosc_index(from), one - 1) == 0);
    must(tosc_get_int64(root, tosc_index(to), &one) == 0);
    must(tosc_set_int64(root, tosc_index(to), one + 1) == 0);
    return rand_r(random) % 10 == 0 ? TOSC_EINTR : 0;
}

static void *
transfer_in_thread(void *of)
{
    unsigned random = (unsigned)pthread_self();
    for (int i = 0; i < TIMES; i++) {
        int status = tosc_transact(of, transfer, &random, NULL);
        must(status == 0 || status == TOSC_EINTR);
    }
    return NULL;
}

START_TEST(sums_stay_what_they_are)
{
    begin_test();
    write_json(manager, "[100, 100, 100, 100, 100, 100, 100, 100]");
    python("stop = threading.Event()\n"
           "wrong = []\n"
           "def look():\n"
           "    while not stop.is_set():\n"
           "        if sum(m.snapshot()) != 800: wrong.append(m.snapshot())\n"
           "t = threading.Thread(target=look)\n"
           "t.start()");
    in_threads(6, transfer_in_thread, manager);
    python("stop.set()\n"
           "t.join()\n"
           "assert not wrong, wrong\n"
           "assert sum(m.read()) == 800");
    end_test();
}
END_TEST

START_TEST(many_runs_leave_nothing_behind)
{
    int64_t before = 0;
    begin_test();
    for (int i = 0; i < 20000; i++) {
        struct plan plan = {.conflicts = i % 50 == 0, .status = i % 9 == 0 ? -99 : 0};
        int status = tosc_transact(manager, follow_plan, &plan, NULL);
        must(status == plan.status);
        if (i == 5000) {
            before = resident_bytes();
        }
    }
    int64_t grown = resident_bytes() - before;
    ck_assert_msg(sanitized() || grown < 1000000, "grown by %lld bytes",
                  (long long)grown);
    end_test();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("retry");
    TCase *tests = tcase_create("retry");
    tcase_add_checked_fixture(tests, directory_make, directory_remove);
    tcase_set_timeout(tests, 240);
    tcase_add_test(tests, what_the_function_did_is_kept);
    tcase_add_test(tests, it_is_run_again_after_a_conflict);
    tcase_add_test(tests, its_failure_rolls_back_and_is_returned);
    tcase_add_test(tests, the_message_of_its_failure_is_kept);
    tcase_add_test(tests, a_failure_without_a_message_is_told_by_its_name);
    tcase_add_test(tests, an_empty_store_has_no_root);
    tcase_add_test(tests, retries_are_counted);
    tcase_add_test(tests, the_time_is_limited);
    tcase_add_test(tests, also_while_waiting_for_the_lock);
    tcase_add_test(tests, nonsense_is_refused);
    tcase_add_test(tests, an_unknown_outcome_ends_it);
    tcase_add_test(tests, inside_another_of_the_same_manager_it_is_a_savepoint);
    tcase_add_test(tests, inside_one_of_another_manager_it_is_on_its_own);
    tcase_add_test(tests, who_holds_the_lock_cannot_use_it_through_another_manager);
    tcase_add_test(tests, scripts_and_c_nest_in_each_other);
    tcase_add_test(tests, what_it_leaves_open_fails_it);
    tcase_add_test(tests, it_may_close_and_give_back_the_manager);
    tcase_add_loop_test(tests, c_threads_and_script_threads_count_exactly, 0, 2);
    tcase_add_test(tests, two_managers_of_one_file_count_exactly);
    tcase_add_test(tests, processes_count_exactly);
    tcase_add_test(tests, sums_stay_what_they_are);
    tcase_add_test(tests, many_runs_leave_nothing_behind);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
