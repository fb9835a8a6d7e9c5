/*
 * Stopping Python at all times, and threads that come and go.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tosc/tosc.h>

#include "support.h"

static void
silence(int fd)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must(null >= 0 && dup2(null, fd) == fd);
    close(null);
}

/* ---- stopping ---- */

static void *
run_a_while(void *arg)
{
    (void)arg;
    int status = tosc_host_run_string("import time\n"
                                      "started = True\n"
                                      "time.sleep(0.3)\n"
                                      "open(where, 'w').write('done')\n",
                                      NULL);
    must(status == 0);
    return NULL;
}

static void
set_where(void)
{
    char *text = NULL;
    must(asprintf(&text, "where = '%s'; started = False", path_in("done")) > 0);
    python(text);
    free(text);
}

static bool
is_done(void)
{
    char *text = text_of("done");
    bool result = text != NULL && strcmp(text, "done") == 0;
    free(text);
    return result;
}

START_TEST(stop_waits_for_calls_of_other_threads)
{
    pthread_t thread;
    host_start();
    set_where();
    must(pthread_create(&thread, NULL, run_a_while, NULL) == 0);
    while (!python_true("started")) {
        sleep_us(1000);
    }
    host_stop();
    ck_assert(is_done());
    must(pthread_join(thread, NULL) == 0);
}
END_TEST

static void *
stay_in_a_scope(void *arg)
{
    tosc_scope scope;
    tosc_value *value = NULL;
    int64_t number = 0;
    must(tosc_scope_enter(&scope) == 0);
    must(tosc_value_new_int64(7, &value) == 0);
    must(tosc_scope_pause(&scope) == 0);
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
    sleep_us(200000);
    must(tosc_get_int64(value, tosc_self(), &number) == 0); /* while it is stopping */
    must(number == 7);
    must(tosc_scope_resume(&scope) == 0);
    tosc_value_unref(value);
    must(tosc_scope_leave(&scope) == 0);
    return NULL;
}

static void *
run_for_ever(void *arg)
{
    (void)arg;
    must(tosc_host_run_string("started = True\nwhile True: pass\n", NULL) == TOSC_EINTR);
    return NULL;
}

static void *
interrupt_soon(void *arg)
{
    (void)arg;
    while (tosc_host_is_running()) {
        sleep_us(1000);
    }
    sleep_us(50000);
    must(tosc_host_run_string("1", NULL) == TOSC_ECLOSED);
    must(tosc_host_interrupt() == 0);
    return NULL;
}

START_TEST(scripts_can_be_interrupted_while_stop_waits_for_them)
{
    pthread_t threads[2];
    host_start();
    python("started = False");
    must(pthread_create(&threads[0], NULL, run_for_ever, NULL) == 0);
    while (!python_true("started")) {
        sleep_us(1000);
    }
    must(pthread_create(&threads[1], NULL, interrupt_soon, NULL) == 0);
    host_stop();
    must(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
}
END_TEST

START_TEST(stop_waits_for_scopes_of_other_threads)
{
    pthread_t thread;
    int inside = 0;
    host_start();
    must(pthread_create(&thread, NULL, stay_in_a_scope, &inside) == 0);
    while (__atomic_load_n(&inside, __ATOMIC_ACQUIRE) == 0) {
        sleep_us(1000);
    }
    host_stop();
    must(pthread_join(thread, NULL) == 0);
}
END_TEST

START_TEST(stop_waits_for_threads_of_scripts)
{
    host_start();
    set_where();
    python("import threading, time\n"
           "def late():\n"
           "    time.sleep(0.2)\n"
           "    open(where, 'w').write('done')\n"
           "threading.Thread(target=late).start()\n");
    host_stop();
    ck_assert(is_done());
}
END_TEST

START_TEST(stop_does_not_wait_for_daemon_threads)
{
    host_start();
    python("import threading, time\n"
           "for i in range(3):\n"
           "    threading.Thread(target=time.sleep, args=(0.5,), daemon=True).start()\n"
           "def busy():\n"
           "    while True: pass\n"
           "threading.Thread(target=busy, daemon=True).start()\n");
    double began = seconds();
    host_stop();
    ck_assert(sanitized() || seconds() - began < 0.4);
    sleep_us(600000); /* they wake up now, and find no Python */
}
END_TEST

static int
note_call(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    int64_t number = 0;
    (void)ret;
    must(arguments->count == 1);
    must(tosc_get_int64(arguments->values[0], tosc_self(), &number) == 0);
    *(int64_t *)arg += number;
    return 0;
}

static int
note_slowly(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    tosc_scope scope;
    must(tosc_scope_enter(&scope) == 0);
    must(tosc_scope_pause(&scope) == 0);
    sleep_us(100000);
    must(tosc_scope_resume(&scope) == 0);
    must(tosc_scope_leave(&scope) == 0);
    return note_call(arguments, ret, arg);
}

START_TEST(scripts_may_call_the_program_until_the_end)
{
    int64_t sum = 0;
    host_start();
    ok(tosc_host_register("program", "note", note_call, &sum, NULL));
    ok(tosc_host_register("program", "note_slowly", note_slowly, &sum, NULL));
    python("import program, atexit, threading, time\n"
           "atexit.register(program.note, 1)\n"
           "def late():\n"
           "    time.sleep(0.1)\n"
           "    program.note_slowly(10)\n"
           "threading.Thread(target=late).start()\n"
           "class Last:\n"
           "    def __del__(self, note=program.note): note(100)\n"
           "last = Last()\n");
    host_stop();
    ck_assert_int_eq(sum, 111);
}
END_TEST

static int
stop_from_inside(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    tosc_scope scope;
    (void)arguments;
    (void)ret;
    *(int *)arg = tosc_host_stop();
    must(tosc_scope_enter(&scope) == 0);
    must(tosc_scope_pause(&scope) == 0);
    must(tosc_host_stop() == TOSC_EINVAL);
    must(tosc_scope_resume(&scope) == 0);
    must(tosc_scope_leave(&scope) == 0);
    return 0;
}

START_TEST(stop_from_inside_is_refused)
{
    tosc_scope scope;
    int status = 0;
    host_start();
    ok(tosc_scope_enter(&scope));
    fails(TOSC_EINVAL, tosc_host_stop());
    told("inside");
    ok(tosc_scope_pause(&scope));
    fails(TOSC_EINVAL, tosc_host_stop());
    ok(tosc_scope_resume(&scope));
    ok(tosc_scope_leave(&scope));
    ok(tosc_host_register("program", "stop", stop_from_inside, &status, NULL));
    python("import program, threading\n"
           "program.stop()\n");
    ck_assert_int_eq(status, TOSC_EINVAL);
    status = 0;
    python("t = threading.Thread(target=program.stop); t.start(); t.join()");
    ck_assert_int_eq(status, TOSC_EINVAL);
    host_stop();
}
END_TEST

START_TEST(faults_at_the_end_harm_nobody)
{
    silence(2);
    host_start();
    python("import atexit, sys\n"
           "def bad(): raise ValueError('late')\n"
           "atexit.register(bad)\n"
           "atexit.register(sys.exit, 3)\n"
           "class Bad:\n"
           "    def __del__(self): raise RuntimeError('later')\n"
           "bad_one = Bad()\n"
           "loop = Bad(); loop.self = loop\n");
    host_stop();
}
END_TEST

START_TEST(stop_while_watchers_are_busy)
{
    char *text = NULL;
    must(asprintf(&text,
                  "import tosc, sys\n"
                  "m = tosc.Manager(tosc.open_backend('%s'))\n"
                  "m.write({'n': 0})\n",
                  store_in("store"))
         > 0);
    host_start();
    python(text);
    free(text);
    must(asprintf(&text,
                  "import tosc, time\n"
                  "m = tosc.Manager(tosc.open_backend('%s'))\n"
                  "end = time.time() + 1\n"
                  "while time.time() < end: m.read()['n'] += 1\n",
                  store_in("store"))
         > 0);
    pid_t child = tosc_run_start(text);
    double limit = seconds() + 30;
    while (python_int("m.refresh()['n']") < 50) {
        must(seconds() < limit);
        sleep_us(1000);
    }
    double began = seconds();
    host_stop();
    ck_assert(sanitized() || seconds() - began < 2);
    child_join(child);
    free(text);
}
END_TEST

START_TEST(output_is_there_after_a_run_and_after_stop)
{
    const char *path = path_in("out");
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && dup2(fd, 1) == 1);
    host_start();
    python("print('one', end=' ')");
    char *text = text_of("out");
    ck_assert_str_eq(text, "one ");
    free(text);
    python("import atexit; atexit.register(print, 'two', end='')");
    host_stop();
    text = text_of("out");
    ck_assert_str_eq(text, "one two");
    free(text);
}
END_TEST

/* ---- threads ---- */

static void *
use_context(void *arg)
{
    (void)arg;
    must(tosc_host_run_string("variable.set(threading.get_ident())", NULL) == 0);
    for (int i = 0; i < 20; i++) {
        must(tosc_host_run_string("assert variable.get() == threading.get_ident()", NULL)
             == 0);
    }
    return NULL;
}

START_TEST(context_of_a_thread_lasts_from_call_to_call)
{
    host_start();
    python("import contextvars, threading\n"
           "variable = contextvars.ContextVar('variable')\n");
    in_threads(8, use_context, NULL);
    use_context(NULL);
    host_stop();
}
END_TEST

static void *
leave_something(void *arg)
{
    (void)arg;
    must(tosc_host_run_string("local = threading.local()\n"
                              "variable.set(Ends())\n",
                              NULL)
         == 0);
    return NULL;
}

START_TEST(threads_that_end_leave_nothing_behind)
{
    host_start();
    python("import contextvars, threading, sys\n"
           "ended = 0\n"
           "class Ends:\n"
           "    def __del__(self):\n"
           "        global ended\n"
           "        ended += 1\n"
           "variable = contextvars.ContextVar('variable')\n");
    for (int i = 0; i < 25; i++) {
        in_threads(8, leave_something, NULL);
    }
    ck_assert_int_eq(python_int("ended"), 200);
    ck_assert_int_eq(python_int("len(sys._current_frames())"), 1);
    host_stop();
}
END_TEST

static void *
come_and_go(void *arg)
{
    const int *stop = arg;
    while (__atomic_load_n(stop, __ATOMIC_ACQUIRE) == 0) {
        tosc_value *value = NULL;
        int status = tosc_host_eval("1 + 1", &value);
        must(status == 0 || status == TOSC_ECLOSED);
        tosc_value_unref(value);
    }
    return NULL;
}

static void *
come_once(void *arg)
{
    int status = tosc_host_run_string("pass", NULL);
    (void)arg;
    must(status == 0 || status == TOSC_ECLOSED);
    return NULL;
}

START_TEST(stop_among_threads_that_come_and_go)
{
    pthread_t threads[6];
    int stop = 0;
    host_start();
    for (int i = 0; i < 6; i++) {
        must(pthread_create(&threads[i], NULL, come_and_go, &stop) == 0);
    }
    for (int i = 0; i < 10; i++) {
        in_threads(4, come_once, NULL);
    }
    host_stop();
    in_threads(4, come_once, NULL);
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 6; i++) {
        must(pthread_join(threads[i], NULL) == 0);
    }
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("stop");
    TCase *all = tcase_create("all");

    tcase_set_timeout(all, 30);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_test(all, stop_waits_for_calls_of_other_threads);
    tcase_add_test(all, scripts_can_be_interrupted_while_stop_waits_for_them);
    tcase_add_test(all, stop_waits_for_scopes_of_other_threads);
    tcase_add_test(all, stop_waits_for_threads_of_scripts);
    if (!sanitized()) { /* Python frees nothing of the thread that it ends: told as leaks */
        tcase_add_test(all, stop_does_not_wait_for_daemon_threads);
    }
    tcase_add_test(all, scripts_may_call_the_program_until_the_end);
    tcase_add_test(all, stop_from_inside_is_refused);
    tcase_add_test(all, faults_at_the_end_harm_nobody);
    tcase_add_test(all, stop_while_watchers_are_busy);
    tcase_add_test(all, output_is_there_after_a_run_and_after_stop);
    tcase_add_test(all, context_of_a_thread_lasts_from_call_to_call);
    tcase_add_test(all, threads_that_end_leave_nothing_behind);
    tcase_add_test(all, stop_among_threads_that_come_and_go);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
