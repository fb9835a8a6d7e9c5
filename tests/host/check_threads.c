/*
 * Threads of the program and of scripts, all at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tosc/tosc.h>

#include "support.h"

#define THREADS 10

static int
rounds(int count)
{
    return sanitized() ? count / 5 : count;
}

/* ---- scripts in threads ---- */

static void *
run_own_script(void *arg)
{
    static int next;
    const int number = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
    char name[64];
    char text[512];
    (void)arg;
    snprintf(name, sizeof(name), "script%d.py", number);
    snprintf(text, sizeof(text),
             "import threading, types\n"
             "me = types.SimpleNamespace(number=%d)\n"
             "def work(n):\n"
             "    return sum(me.number for i in range(n))\n"
             "assert work(100) == 100 * %d\n"
             "results[%d].append(threading.get_ident())\n",
             number, number, number);
    char with_import[600];
    snprintf(with_import, sizeof(with_import), "from shared_results import results\n%s",
             text);
    char path[512];
    snprintf(path, sizeof(path), "%s", script(name, with_import));
    for (int i = 0; i < rounds(50); i++) {
        must(tosc_host_run_file(path, NULL) == 0);
        must(tosc_host_run_string("raise KeyError(1)", NULL) == TOSC_EPYTHON);
        must(strcmp(tosc_error_type(), "KeyError") == 0);
    }
    return NULL;
}

START_TEST(ten_threads_run_scripts)
{
    script("shared_results.py",
           "import collections\nresults = collections.defaultdict(list)\n");
    host_start();
    in_threads(THREADS, run_own_script, NULL);
    char *text = NULL;
    must(asprintf(
             &text,
             "import sys; sys.path.append('%s')\n"
             "from shared_results import results\n"
             "assert sorted(results) == list(range(%d))\n"
             "assert all(len(r) == %d and len(set(r)) == 1 for r in results.values())\n",
             directory(), THREADS, rounds(50))
         > 0);
    python(text);
    free(text);
    host_stop();
}
END_TEST

/* ---- one Manager ---- */

static void *
increment(void *arg)
{
    tosc_manager *manager = arg;
    tosc_value *root = NULL;
    must(tosc_manager_read(manager, &root) == 0);
    for (int i = 0; i < rounds(100); i++) {
        must(tosc_host_call("__main__:increment", NULL, NULL) == 0);
        must(tosc_add_int64(root, tosc_key("alone"), 1, NULL) == 0);
    }
    tosc_value_unref(root);
    return NULL;
}

START_TEST(c_and_python_threads_count_exactly)
{
    tosc_manager *manager = NULL;
    tosc_value *root = NULL;
    int64_t number = 0;
    char *text = NULL;
    host_start();
    ok(tosc_manager_open("inproc:counters", NULL, &manager));
    ok(tosc_host_publish("counters", manager));
    must(asprintf(&text,
                  "import threading, tosc\n"
                  "m = tosc.shared('counters')\n"
                  "m.write({'n': 0, 'alone': 0})\n"
                  "@tosc.transactional(m)\n"
                  "def increment():\n"
                  "    m.read()['n'] += 1\n"
                  "def work():\n"
                  "    for i in range(%d): increment()\n"
                  "threads = [threading.Thread(target=work) for i in range(%d)]\n"
                  "for t in threads: t.start()\n",
                  rounds(100), THREADS)
         > 0);
    python(text);
    free(text);
    in_threads(THREADS, increment, manager);
    python("for t in threads: t.join()");
    ok(tosc_manager_refresh(manager, &root));
    ok(tosc_get_int64(root, tosc_key("n"), &number));
    ck_assert_int_eq(number, 2 * THREADS * rounds(100));
    ok(tosc_get_int64(root, tosc_key("alone"), &number));
    ck_assert_int_eq(number, THREADS * rounds(100));
    tosc_value_unref(root);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

/* ---- callbacks both ways ---- */

static int
twice(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    int64_t number;
    tosc_value *half = NULL;
    (void)arg;
    int status = tosc_get_int64(arguments->values[0], tosc_self(), &number);
    if (status < 0 || number == 0) {
        return status < 0 ? status : tosc_value_new_int64(0, ret);
    }
    status = tosc_value_new_int64(number - 1, &half);
    if (status == 0) {
        const tosc_arguments rest = {.values = &half, .count = 1};
        status = tosc_host_call("__main__:down", &rest, ret);
        tosc_value_unref(half);
    }
    return status;
}

static void *
go_down(void *arg)
{
    (void)arg;
    for (int i = 0; i < rounds(50); i++) {
        must(tosc_host_run_string("assert down(20) == 20", NULL) == 0);
    }
    return NULL;
}

START_TEST(callbacks_nest_in_all_threads)
{
    host_start();
    ok(tosc_host_register("app", "twice", twice, NULL, NULL));
    python("import app\n"
           "def down(n):\n"
           "    return app.twice(n) + (1 if n else 0)\n");
    in_threads(THREADS, go_down, NULL);
    host_stop();
}
END_TEST

/* ---- scopes ---- */

static void *
use_scopes(void *arg)
{
    tosc_value *list = arg;
    for (int i = 0; i < rounds(500); i++) {
        tosc_scope scope;
        tosc_value *item = NULL;
        int64_t number = 0;
        must(tosc_scope_enter(&scope) == 0);
        must(tosc_borrow(list, tosc_index(i % 10), &item) == 0);
        if (i % 7 == 0) {
            must(tosc_scope_pause(&scope) == 0);
            must(tosc_get_int64(list, tosc_index(3), &number) == 0);
            must(tosc_scope_resume(&scope) == 0);
        }
        must(tosc_get_int64(item, tosc_self(), &number) == 0);
        must(number == i % 10);
        must(tosc_scope_leave(&scope) == 0);
    }
    return NULL;
}

START_TEST(scopes_in_all_threads)
{
    tosc_value *list = NULL;
    host_start();
    ok(tosc_host_eval("list(range(10))", &list));
    in_threads(THREADS, use_scopes, list);
    tosc_value_unref(list);
    host_stop();
}
END_TEST

static pthread_key_t cache; /* of the program, as one value for each thread */

static void
drop_cached(void *value)
{
    tosc_value_unref(value);
}

static void *
fill_cache(void *arg)
{
    tosc_value *value = NULL;
    (void)arg;
    must(tosc_value_new_int64(7, &value) == 0);
    must(pthread_setspecific(cache, value) == 0);
    return NULL;
}

START_TEST(threads_whose_keys_call_the_library_at_their_end_leave_nothing_behind)
{
    int64_t before = 0;
    host_start();
    must(pthread_key_create(&cache, drop_cached) == 0);
    for (int i = 0; i < rounds(10000); i++) {
        pthread_t thread;
        must(pthread_create(&thread, NULL, fill_cache, NULL) == 0);
        must(pthread_join(thread, NULL) == 0);
        if (i == 1000) {
            before = resident_bytes();
        }
    }
    ck_assert_msg(sanitized() || resident_bytes() - before < 1 << 20,
                  "grown by %ld bytes", (long)(resident_bytes() - before));
    host_stop();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("threads");
    TCase *all = tcase_create("all");

    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_test(all, ten_threads_run_scripts);
    tcase_add_test(all, c_and_python_threads_count_exactly);
    tcase_add_test(all, callbacks_nest_in_all_threads);
    tcase_add_test(all, scopes_in_all_threads);
    tcase_add_test(all,
                   threads_whose_keys_call_the_library_at_their_end_leave_nothing_behind);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
