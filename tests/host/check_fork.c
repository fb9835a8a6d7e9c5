/*
 * fork() in the program: before Python is started and after, in a scope and out of it,
 * beside threads that run scripts, and os.fork() in a script.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tosc/tosc.h>

#include "support.h"

/* In child processes check's own assertions must not be used. */
#define well(call) must((call) >= 0)

static void
use_everything(void *arg)
{
    char *text = NULL;
    (void)arg;
    must(tosc_host_is_running());
    well(tosc_host_run_string(
        "import threading, tosc\n"
        "out = []\n"
        "t = threading.Thread(target=out.append, args=(1,))\n"
        "t.start(); t.join()\n"
        "assert out == [1]\n"
        "assert threading.current_thread() is threading.main_thread()\n"
        "import colorsys, wave\n",
        NULL));
    must(tosc_host_run_string("1/0", NULL) == TOSC_EPYTHON);
    must(asprintf(&text,
                  "m2 = tosc.Manager(tosc.open_backend('%s'))\n"
                  "@tosc.transactional(m2)\n"
                  "def add(): m2.read()['n'] += 1\n"
                  "add()\n",
                  store_in("store"))
         > 0);
    well(tosc_host_run_string(text, NULL));
    free(text);
}

static void
use_everything_and_stop(void *arg)
{
    use_everything(arg);
    well(tosc_host_stop());
}

static void
make_store(void)
{
    char *text = NULL;
    must(asprintf(&text,
                  "import tosc\n"
                  "m = tosc.Manager(tosc.open_backend('%s'))\n"
                  "m.write({'n': 0})\n",
                  store_in("store"))
         > 0);
    python(text);
    free(text);
}

static int64_t
stored(void)
{
    return python_int("m.refresh()['n']");
}

static void
start_here(void *arg)
{
    (void)arg;
    host_start();
    make_store();
    use_everything(NULL);
    must(stored() == 1);
    host_stop();
}

START_TEST(fork_before_start)
{
    child_join(child_start(start_here, NULL));
    host_start();
    make_store();
    child_join(child_start(use_everything_and_stop, NULL));
    ck_assert_int_eq(stored(), 1);
    host_stop();
}
END_TEST

START_TEST(fork_after_start)
{
    host_start();
    make_store();
    for (int i = 0; i < 5; i++) {
        child_join(child_start(i % 2 ? use_everything : use_everything_and_stop, NULL));
    }
    use_everything(NULL);
    ck_assert_int_eq(stored(), 6);
    host_stop();
}
END_TEST

static void
fork_again(void *arg)
{
    use_everything(NULL);
    child_join(child_start(use_everything_and_stop, arg));
    use_everything_and_stop(NULL);
}

START_TEST(children_fork)
{
    host_start();
    make_store();
    child_join(child_start(fork_again, NULL));
    ck_assert_int_eq(stored(), 3);
    host_stop();
}
END_TEST

static void *
fork_here(void *arg)
{
    (void)arg;
    child_join(child_start(use_everything_and_stop, NULL));
    return NULL;
}

START_TEST(threads_fork)
{
    host_start();
    make_store();
    in_threads(1, fork_here, NULL); /* that Python has never seen */
    in_threads(4, fork_here, NULL);
    ck_assert_int_eq(stored(), 5);
    host_stop();
}
END_TEST

static void *
run_scripts(void *arg)
{
    const int *stop = arg;
    while (__atomic_load_n(stop, __ATOMIC_ACQUIRE) == 0) {
        must(tosc_host_run_string("sum(range(2000)); m.read()['n']", NULL) == 0);
    }
    return NULL;
}

START_TEST(fork_beside_threads_that_run_scripts)
{
    pthread_t threads[4];
    int stop = 0;
    host_start();
    make_store();
    python("import threading, time\n"
           "busy = True\n"
           "def work():\n"
           "    while busy: m.read()['n']\n"
           "threading.Thread(target=work, daemon=True).start()\n");
    for (int i = 0; i < 4; i++) {
        must(pthread_create(&threads[i], NULL, run_scripts, &stop) == 0);
    }
    for (int i = 0; i < 10; i++) {
        child_join(child_start(use_everything_and_stop, NULL));
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 4; i++) {
        must(pthread_join(threads[i], NULL) == 0);
    }
    python("busy = False");
    ck_assert_int_eq(stored(), 10);
    host_stop();
}
END_TEST

static tosc_scope scope;
static tosc_value *borrowed;

static void
use_scope_in_child(void *arg)
{
    int64_t number = 0;
    if (*(const bool *)arg) {
        well(tosc_scope_resume(&scope));
    }
    well(tosc_get_int64(borrowed, tosc_index(1), &number));
    must(number == 8);
    must(tosc_host_stop() == TOSC_EINVAL);
    use_everything(NULL);
    well(tosc_scope_leave(&scope));
    use_everything_and_stop(NULL);
}

START_TEST(fork_in_a_scope)
{
    tosc_value *value = NULL;
    bool paused = false;
    host_start();
    make_store();
    python("x = [[7, 8]]");
    ok(tosc_host_eval("x", &value));
    for (int i = 0; i < 2; i++) {
        ok(tosc_scope_enter(&scope));
        ok(tosc_borrow(value, tosc_index(0), &borrowed));
        paused = i == 1;
        if (paused) {
            ok(tosc_scope_pause(&scope));
        }
        child_join(child_start(use_scope_in_child, &paused));
        if (paused) {
            ok(tosc_scope_resume(&scope));
        }
        ok(tosc_scope_leave(&scope));
    }
    ck_assert_int_eq(stored(), 4);
    tosc_value_unref(value);
    host_stop();
}
END_TEST

START_TEST(scripts_fork)
{
    host_start();
    make_store();
    python("import os, multiprocessing, subprocess\n"
           "hooks = []\n"
           "os.register_at_fork(before=lambda: hooks.append('b'),\n"
           "                    after_in_parent=lambda: hooks.append('p'))\n"
           "pid = os.fork()\n"
           "if pid == 0:\n"
           "    try:\n"
           "        @tosc.transactional(m)\n"
           "        def add(): m.read()['n'] += 1\n"
           "        add()\n"
           "        os._exit(0)\n"
           "    except BaseException:\n"
           "        import traceback; traceback.print_exc()\n"
           "        os._exit(1)\n"
           "assert os.waitpid(pid, 0)[1] == 0\n"
           "assert hooks == ['b', 'p'], hooks\n"
           "def work():\n"
           "    m.read()['n'] += 1\n"
           "p = multiprocessing.get_context('fork').Process(target=work)\n"
           "p.start(); p.join()\n"
           "assert p.exitcode == 0\n"
           "assert subprocess.run(['true']).returncode == 0\n"
           "assert subprocess.run(['true'], preexec_fn=lambda: 0).returncode == 0\n");
    ck_assert_int_eq(stored(), 2);
    host_stop();
}
END_TEST

static int
fork_in_function(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    (void)arguments;
    (void)ret;
    (void)arg;
    child_join(child_start(use_everything, NULL));
    return 0;
}

START_TEST(functions_fork)
{
    host_start();
    make_store();
    ok(tosc_host_register("app", "fork", fork_in_function, NULL, NULL));
    python("import app, threading\n"
           "app.fork()\n"
           "t = threading.Thread(target=app.fork); t.start(); t.join()\n");
    ck_assert_int_eq(stored(), 2);
    host_stop();
}
END_TEST

static void *
fork_often(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++) {
        child_join(child_start(use_everything, NULL));
    }
    return NULL;
}

static void *
fork_in_python(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++) {
        must(tosc_host_run_string("import os\n"
                                  "pid = os.fork()\n"
                                  "if pid == 0:\n"
                                  "    os._exit(0)\n"
                                  "assert os.waitpid(pid, 0)[1] == 0\n",
                                  NULL)
             == 0);
    }
    return NULL;
}

static void *
fork_both(void *arg)
{
    static int next;
    return __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % 2 ? fork_often(arg)
                                                              : fork_in_python(arg);
}

START_TEST(program_and_scripts_fork_at_the_same_time)
{
    host_start();
    make_store();
    in_threads(2, fork_both, NULL);
    ck_assert_int_eq(stored(), 10);
    host_stop();
}
END_TEST

static void
find_nothing(void *arg)
{
    (void)arg;
    must(!tosc_host_is_running());
    must(tosc_host_run_string("1", NULL) == TOSC_ECLOSED);
    must(tosc_host_start(NULL) == TOSC_ECLOSED);
}

START_TEST(fork_after_stop)
{
    host_start();
    host_stop();
    child_join(child_start(find_nothing, NULL));
}
END_TEST

int
main(void)
{
#ifdef __SANITIZE_THREAD__
    return 77; /* it does not know that a child has none of its parent's other threads */
#endif
    Suite *suite = suite_create("fork");
    TCase *all = tcase_create("all");

    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_test(all, fork_after_stop);
    if (!sanitized()) {
        /* A sanitizer's allocator may be locked by a thread that is not in the child. */
        tcase_add_test(all, fork_before_start);
        tcase_add_test(all, fork_after_start);
        tcase_add_test(all, children_fork);
        tcase_add_test(all, fork_in_a_scope);
        tcase_add_test(all, scripts_fork);
        tcase_add_test(all, functions_fork);
        tcase_add_test(all, threads_fork);
        tcase_add_test(all, fork_beside_threads_that_run_scripts);
        tcase_add_test(all, program_and_scripts_fork_at_the_same_time);
    }
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
