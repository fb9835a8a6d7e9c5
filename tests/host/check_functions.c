/*
 * C functions that scripts call, and Managers that both share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tosc/tosc.h>

#include "support.h"

/* ---- functions to be called ---- */

/* add(a, b, *, times=1) */
static int
add(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    int64_t sum = 0;
    int64_t times = 1;
    (void)arg;
    for (size_t i = 0; i < arguments->count; i++) {
        int64_t number;
        int status = tosc_get_int64(arguments->values[i], tosc_self(), &number);
        if (status < 0) {
            return status;
        }
        sum += number;
    }
    if (arguments->named != NULL) {
        int status = tosc_get_int64(arguments->named, tosc_key("times"), &times);
        if (status < 0) {
            return status;
        }
    }
    return tosc_value_new_int64(sum * times, ret);
}

static int
give_back(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    (void)arg;
    *ret = arguments->values[0]; /* a borrowed one will do */
    return 0;
}

static int
count(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    (void)arguments;
    (void)ret;
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
    return 0;
}

/* fail(status) or fail(type, message) */
static int
fail_as_told(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    int64_t status = 0;
    (void)ret;
    (void)arg;
    if (arguments->count == 2) {
        char *type = NULL;
        char *message = NULL;
        must(tosc_get_text(arguments->values[0], tosc_self(), &type, NULL) == 0);
        must(tosc_get_text(arguments->values[1], tosc_self(), &message, NULL) == 0);
        int result = tosc_fail(type, "%s", message);
        free(type);
        free(message);
        must(result == TOSC_EPYTHON);
        return result;
    }
    must(tosc_get_int64(arguments->values[0], tosc_self(), &status) == 0);
    return (int)status;
}

/* call(f, *args): what f does, also its exception. */
static int
call_it(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    const tosc_arguments rest = {.values = arguments->values + 1,
                                 .count = arguments->count - 1};
    (void)arg;
    return tosc_call(arguments->values[0], &rest, ret);
}

static void
register_all(void)
{
    static int counted;
    ok(tosc_host_register("app", "add", add, NULL,
                          "add($module, *numbers, times=1)\n--\n\nAdds."));
    ok(tosc_host_register("app", "give_back", give_back, NULL, NULL));
    ok(tosc_host_register("app", "count", count, &counted, NULL));
    ok(tosc_host_register("app", "fail", fail_as_told, NULL, NULL));
    ok(tosc_host_register("app", "call", call_it, NULL, NULL));
    python("import app, tosc, sys");
}

/* ---- calling them ---- */

START_TEST(arguments_and_results_pass)
{
    host_start();
    register_all();
    ck_assert_int_eq(python_int("app.add()"), 0);
    ck_assert_int_eq(python_int("app.add(1, 2)"), 3);
    ck_assert_int_eq(python_int("app.add(1, 2, times=10)"), 30);
    ck_assert_int_eq(python_int("app.add(*range(100))"), 4950);
    ck_assert(python_true("app.count() is None"));
    python("thing = object()");
    ck_assert(python_true("app.give_back(thing) is thing"));
    ck_assert(python_true("sys.getrefcount(thing) == 2"));
    ck_assert(python_true("app.add.__name__ == 'add' and app.add.__module__ == 'app'"));
    ck_assert(python_true("app.add.__doc__ == 'Adds.'"));
    ck_assert(
        python_true("app.add.__text_signature__ == '($module, *numbers, times=1)'"));
    ck_assert(python_true("app.count.__doc__ is None"));
    fails(TOSC_EPYTHON, tosc_host_run_string("app.add('x')", NULL));
    told_type("TypeError");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.add(2**70)", NULL));
    told_type("OverflowError");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.add(1, by=2)", NULL));
    told_type("LookupError");
    host_stop();
}
END_TEST

START_TEST(registering_again_replaces)
{
    int first = 0;
    int second = 0;
    host_start();
    ok(tosc_host_register("app", "f", count, &first, NULL));
    python("import app; kept = app.f");
    ok(tosc_host_register("app", "f", count, &second, NULL));
    python("app.f(); kept()");
    ck_assert_int_eq(first, 1);
    ck_assert_int_eq(second, 1);
    fails(TOSC_EINVAL, tosc_host_register("json", "f", count, &first, NULL));
    told("json");
    fails(TOSC_EINVAL, tosc_host_register("sys", "f", count, &first, NULL));
    fails(TOSC_EINVAL, tosc_host_register("__main__", "f", count, &first, NULL));
    fails(TOSC_EINVAL, tosc_host_register("tosc", "f", count, &first, NULL));
    static const char *const bad[] = {"class", "None", "a b", "a.b", "1a", "", "\xff"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fails(TOSC_EINVAL, tosc_host_register("app", bad[i], count, &first, NULL));
        told("cannot be the name");
        fails(TOSC_EINVAL, tosc_host_register(bad[i], "f", count, &first, NULL));
        told("cannot be the name");
    }
    fails(TOSC_EINVAL, tosc_host_register("app", "class", count, &first, NULL));
    told("'class' is a keyword");
    ok(tosc_host_register("app", "match", count, &first,
                          NULL)); /* no keyword as a name */
    python("import json; assert json.dumps([]) == '[]'");
    python("import importlib.util; assert importlib.util.find_spec('app')");
    host_stop();
}
END_TEST

START_TEST(statuses_become_exceptions)
{
    static const struct {
        int status;
        const char *type;
    } cases[] = {
        {TOSC_ENOMEM, "MemoryError"},
        {TOSC_EINVAL, "ValueError"},
        {TOSC_ESYSTEM, "tosc.StorageError"},
        {TOSC_ECONFLICT, "tosc.TransactionError"},
        {TOSC_ECORRUPT, "tosc.DataError"},
        {TOSC_EUNKNOWN, "tosc.UnknownOutcomeError"},
        {TOSC_EINTR, "KeyboardInterrupt"},
        {TOSC_ETIMEDOUT, "tosc.TransactionTimeoutError"},
        {TOSC_ECLOSED, "tosc.ClosedError"},
        {TOSC_EUNSUPPORTED, "NotImplementedError"},
        {TOSC_EPYTHON, "RuntimeError"},
        {TOSC_ENOTFOUND, "LookupError"},
        {TOSC_ETYPE, "TypeError"},
        {TOSC_ERANGE, "OverflowError"},
        {TOSC_ESERIALIZE, "tosc.SerializationError"},
        {TOSC_ERETRY, "tosc.TransactionRetryError"},
        {TOSC_EEXIT, "SystemExit"},
        {-99, "SystemError"},
    };
    host_start();
    register_all();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = NULL;
        must(asprintf(&text,
                      "try: app.fail(%d)\n"
                      "except BaseException as e: caught = e\n"
                      "name = type(caught).__qualname__\n"
                      "if type(caught).__module__ == 'tosc': name = 'tosc.' + name\n",
                      cases[i].status)
             > 0);
        python(text);
        char *name = python_text("name");
        ck_assert_str_eq(name, cases[i].type);
        free(name);
        free(text);
    }
    host_stop();
}
END_TEST

START_TEST(a_status_without_a_message_is_told_by_its_name)
{
    host_start();
    register_all();
    python("def fail(status):\n"
           "    try: app.add('x')\n" /* leaves a message, about something else */
           "    except TypeError: pass\n"
           "    app.fail(status)\n");
    for (int status = TOSC_ERETRY; status < 0; status++) {
        static const int with_words[] = {TOSC_ENOMEM, TOSC_ECONFLICT, TOSC_EINTR,
                                         TOSC_ETIMEDOUT};
        char *source = NULL;
        bool of_its_own = false;
        for (size_t i = 0; i < sizeof(with_words) / sizeof(with_words[0]); i++) {
            of_its_own = of_its_own || with_words[i] == status;
        }
        must(asprintf(&source, "fail(%d)", status) > 0);
        must(tosc_host_run_string(source, NULL) < 0);
        if (!of_its_own) {
            told("the function returned");
            told(tosc_status_name(status));
        }
        ck_assert_ptr_null(strstr(tosc_error_message(), "'x'"));
        ck_assert_ptr_null(strstr(tosc_error_message(), "type str"));
        free(source);
    }
    python("try: app.call(sys.exit, 7)\n"
           "except SystemExit: pass\n");
    python("app.fail(-17)");     /* sys.exit(0), and not that older one */
    python("try: app.add('x')\n" /* the function's own message */
           "except TypeError as e: assert 'of type str' in str(e), e\n");
    host_stop();
}
END_TEST

START_TEST(any_exception_can_be_raised)
{
    host_start();
    register_all();
    script("policy.py", "class Refused(Exception): pass\n");
    char *text = NULL;
    must(asprintf(&text, "sys.path.append('%s')", directory()) > 0);
    python(text);
    free(text);
    python("try: app.fail('ValueError', 'b\303\244d')\n"
           "except ValueError as e: assert str(e) == 'b\303\244d'\n");
    python("try: app.fail('policy:Refused', 'no')\n"
           "except Exception as e: assert type(e).__name__ == 'Refused' and str(e) == "
           "'no'\n");
    python("try: app.fail('tosc:TransactionError', 'no')\n"
           "except tosc.TransactionError as e: assert str(e) == 'no'\n");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.fail('int', 'x')", NULL));
    told_type("TypeError");
    told("int");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.fail('NoSuchError', 'x')", NULL));
    told_type("AttributeError");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.fail('nowhere:Error', 'x')", NULL));
    told_type("ModuleNotFoundError");
    fails(TOSC_EPYTHON,
          tosc_host_run_string("app.fail('UnicodeDecodeError', 'x')", NULL));
    /* outside of a function it is a fault like any other */
    fails(TOSC_EPYTHON, tosc_fail("KeyError", "%d", 5));
    told_type("KeyError");
    host_stop();
}
END_TEST

START_TEST(exceptions_pass_through_c_unchanged)
{
    host_start();
    register_all();
    python("class Mine(Exception): pass\n"
           "mine = Mine('own')\n"
           "def f(): raise mine\n"
           "try: app.call(f)\n"
           "except Mine as e: assert e is mine\n"
           "else: assert False\n"
           "import traceback\n"
           "try: app.call(app.call, app.call, f)\n"
           "except Mine as e:\n"
           "    assert e is mine\n"
           "    assert traceback.extract_tb(e.__traceback__)[-1].name == 'f'\n"
           "try: app.call(sys.exit, 7)\n"
           "except SystemExit as e: assert e.code == 7\n"
           "conflict = tosc.TransactionError('mine')\n"
           "def g(): raise conflict\n"
           "try: app.call(g)\n"
           "except tosc.TransactionError as e: assert e is conflict\n"
           "try: app.call(5)\n"
           "except TypeError: pass\n");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.call(f)", NULL));
    told_type("Mine");
    told_traceback("in f");
    python("mine.__traceback__ = conflict.__traceback__ = None\n"
           "assert sys.getrefcount(mine) == 2, sys.getrefcount(mine)\n");
    host_stop();
}
END_TEST

START_TEST(calls_nest_both_ways)
{
    host_start();
    register_all();
    python("def down(n):\n"
           "    return n + app.call(down, n - 1) if n else 0\n");
    ck_assert_int_eq(python_int("app.call(down, 100)"), 5050);
    fails(TOSC_EPYTHON, tosc_host_run_string("sys.setrecursionlimit(300)\n"
                                             "app.call(down, 10000)\n",
                                             NULL));
    told_type("RecursionError");
    ck_assert_int_eq(python_int("app.call(down, 10)"), 55);
    host_stop();
}
END_TEST

START_TEST(functions_work_in_threads_of_scripts)
{
    host_start();
    register_all();
    python("import threading\n"
           "sums = []\n"
           "def work():\n"
           "    for i in range(200): app.call(app.add, i, 1)\n"
           "    sums.append(app.call(sum, [1, 2]))\n"
           "ts = [threading.Thread(target=work) for _ in range(10)]\n"
           "for t in ts: t.start()\n"
           "for t in ts: t.join()\n"
           "assert sums == [3] * 10\n");
    host_stop();
}
END_TEST

/* ---- misbehaviour ---- */

static int
leave_open(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    static tosc_scope scope;
    (void)arguments;
    (void)ret;
    (void)arg;
    must(tosc_scope_enter(&scope) == 0);
    return 0;
}

static int
leave_open_and_paused(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    static tosc_scope scope;
    (void)arguments;
    (void)ret;
    (void)arg;
    must(tosc_scope_enter(&scope) == 0);
    must(tosc_scope_pause(&scope) == 0);
    return 0;
}

static int
give_nonsense(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    static int nonsense;
    (void)arguments;
    (void)arg;
    *ret = (tosc_value *)(void *)&nonsense;
    return 0;
}

static int
run_another(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    (void)arguments;
    (void)ret;
    return tosc_host_run_file(arg, NULL);
}

START_TEST(misbehaving_functions_are_told)
{
    const char *path = script("inner.py", "inner = 1\n");
    host_start();
    register_all();
    ok(tosc_host_register("app", "leave_open", leave_open, NULL, NULL));
    ok(tosc_host_register("app", "leave_paused", leave_open_and_paused, NULL, NULL));
    ok(tosc_host_register("app", "nonsense", give_nonsense, NULL, NULL));
    ok(tosc_host_register("app", "run", run_another, (void *)(uintptr_t)path, NULL));
    fails(TOSC_EPYTHON, tosc_host_run_string("app.leave_open()", NULL));
    told_type("SystemError");
    told("scope");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.leave_paused()", NULL));
    told_type("SystemError");
    fails(TOSC_EPYTHON, tosc_host_run_string("app.nonsense()", NULL));
    told_type("ValueError");
    ck_assert_int_eq(python_int("app.add(1, 2)"), 3);
    python("def keep(): return app.add(4)\n"
           "app.run()\n"
           "assert keep() == 4\n"); /* this __main__ lives on, under no name */
    ck_assert_int_eq(python_int("inner"), 1);
    host_stop();
}
END_TEST

/* ---- sharing ---- */

START_TEST(managers_are_shared_by_name)
{
    tosc_manager *manager = NULL;
    tosc_manager *other = NULL;
    tosc_value *root = NULL;
    int64_t number = 0;
    host_start();
    python("import tosc");
    ok(tosc_manager_open("inproc:shared", NULL, &manager));
    fails(TOSC_ENOTFOUND, tosc_host_shared("counters", &other));
    told("counters");
    ok(tosc_host_publish("counters", manager));
    python("m = tosc.shared('counters')\n"
           "m.write({'n': 1})\n"
           "assert tosc.shared('counters') is m\n");
    ok(tosc_host_shared("counters", &other));
    ok(tosc_manager_read(other, &root));
    ok(tosc_get_int64(root, tosc_key("n"), &number));
    ck_assert_int_eq(number, 1);
    tosc_value_unref(root);
    tosc_manager_unref(other);
    fails(TOSC_EPYTHON, tosc_host_run_string("tosc.shared('count')", NULL));
    told_type("LookupError");
    told("'count'");
    told("'counters'");
    ok(tosc_host_publish("counters", NULL));
    ok(tosc_host_publish("counters", NULL));
    fails(TOSC_ENOTFOUND, tosc_host_shared("counters", &other));
    python("tosc.publish('from script', m)");
    ok(tosc_host_shared("from script", &other));
    tosc_manager_unref(other);
    python("tosc.publish('from script', None); tosc.publish('nothing', None)");
    fails(TOSC_ENOTFOUND, tosc_host_shared("from script", &other));
    fails(TOSC_EPYTHON, tosc_host_run_string("tosc.publish('x', 5)", NULL));
    told_type("TypeError");
    fails(TOSC_EPYTHON, tosc_host_run_string("tosc.publish(5, m)", NULL));
    fails(TOSC_EPYTHON, tosc_host_run_string("tosc.publish(5)", NULL));
    fails(TOSC_EPYTHON, tosc_host_run_string("tosc.shared(5)", NULL));
    fails(TOSC_EPYTHON, tosc_host_shared("\377", &other));
    fails(TOSC_EINVAL, tosc_host_publish("x", (tosc_manager *)(void *)root));
    tosc_manager_unref(manager);
    fails(TOSC_EINVAL, tosc_host_publish("x", manager));
    host_stop();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("functions");
    TCase *all = tcase_create("all");

    tcase_set_timeout(all, 20);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_test(all, arguments_and_results_pass);
    tcase_add_test(all, registering_again_replaces);
    tcase_add_test(all, statuses_become_exceptions);
    tcase_add_test(all, a_status_without_a_message_is_told_by_its_name);
    tcase_add_test(all, any_exception_can_be_raised);
    tcase_add_test(all, exceptions_pass_through_c_unchanged);
    tcase_add_test(all, calls_nest_both_ways);
    tcase_add_test(all, functions_work_in_threads_of_scripts);
    tcase_add_test(all, misbehaving_functions_are_told);
    tcase_add_test(all, managers_are_shared_by_name);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
