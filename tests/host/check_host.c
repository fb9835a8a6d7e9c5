/*
 * Starting Python in all ways, what it leaves alone, and misuse.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tosc/tosc.h>

#include "support.h"

/* ---- starting ---- */

START_TEST(starts_and_stops_once)
{
    ck_assert(!tosc_host_is_running());
    host_start();
    ck_assert(tosc_host_is_running());
    fails(TOSC_EINVAL, tosc_host_start(NULL));
    told("running");
    python("import tosc; tosc.Manager(tosc.InprocBackend()).write([1])");
    host_stop();
    fails(TOSC_ECLOSED, tosc_host_stop());
    fails(TOSC_ECLOSED, tosc_host_start(NULL));
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
    told("stopped");
}
END_TEST

START_TEST(starts_without_options)
{
    ok(tosc_host_start(NULL));
    ck_assert(python_true("__import__('os').access(__import__('sys').executable, 1)"));
    char *name =
        python_text("__import__('os').path.basename(__import__('sys').executable)");
    ck_assert(strcmp(name, "tosc-run") == 0 || strncmp(name, "python3", 7) == 0);
    free(name);
    host_stop();
}
END_TEST

START_TEST(isolated_unless_asked)
{
    setenv("PYTHONPATH", "/nowhere/to/be/found", 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    host_start();
    python("import sys");
    ck_assert(python_true("sys.flags.isolated and not sys.dont_write_bytecode"));
    ck_assert(python_true("'/nowhere/to/be/found' not in sys.path"));
    ck_assert(python_true("sys.argv == ['']"));
    host_stop();
}
END_TEST

START_TEST(environment_is_heeded_if_asked)
{
    const tosc_host_options options = {.use_environment = true,
                                       .executable = tosc_run_path()};
    setenv("PYTHONPATH", "/nowhere/to/be/found", 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    ok(tosc_host_start(&options));
    python("import sys");
    ck_assert(python_true("not sys.flags.isolated and sys.dont_write_bytecode"));
    ck_assert(python_true("'/nowhere/to/be/found' in sys.path"));
    host_stop();
}
END_TEST

START_TEST(arguments_and_search_path_are_the_callers)
{
    const char *const argv[] = {"policy", "--strict", "w\303\266rter", NULL};
    const char *const path[] = {"/first/of/all", "/second", NULL};
    const tosc_host_options options = {
        .argv = argv, .search_path = path, .executable = tosc_run_path()};
    ok(tosc_host_start(&options));
    python("import sys");
    ck_assert(python_true("sys.argv == ['policy', '--strict', 'w\303\266rter']"));
    ck_assert(python_true("sys.path[:2] == ['/first/of/all', '/second']"));
    ck_assert(python_true("len(sys.path) > 3"));
    host_stop();
}
END_TEST

START_TEST(modules_are_found_in_the_search_path)
{
    const char *const path[] = {directory(), NULL};
    const tosc_host_options options = {.search_path = path,
                                       .executable = tosc_run_path()};
    script("besides.py", "answer = 42\n");
    ok(tosc_host_start(&options));
    python("import besides");
    ck_assert_int_eq(python_int("besides.answer"), 42);
    host_stop();
}
END_TEST

START_TEST(virtual_environment_is_used)
{
    char command[1024];
    char venv[600];
    snprintf(venv, sizeof(venv), "%s", path_in("venv"));
    snprintf(command, sizeof(command),
             "/usr/bin/python3 -m venv --without-pip '%s' >/dev/null 2>&1", venv);
    if (system(command) != 0) {
        return; /* there is no module venv on this machine */
    }
    const tosc_host_options options = {.venv = venv, .executable = tosc_run_path()};
    ok(tosc_host_start(&options));
    python("import sys, os");
    char *prefix = python_text("sys.prefix");
    ck_assert_str_eq(prefix, venv);
    free(prefix);
    ck_assert(python_true("sys.prefix != sys.base_prefix"));
    ck_assert(python_true("any(p.startswith(sys.prefix) for p in sys.path)"));
    char *executable = python_text("sys.executable");
    ck_assert_str_eq(executable, tosc_run_path());
    free(executable);
    host_stop();
}
END_TEST

START_TEST(active_environment_is_used_if_the_environment_is)
{
    char command[1024];
    char venv[600];
    const tosc_host_options options = {.use_environment = true,
                                       .executable = tosc_run_path()};
    snprintf(venv, sizeof(venv), "%s", path_in("venv"));
    snprintf(command, sizeof(command),
             "/usr/bin/python3 -m venv --without-pip '%s' >/dev/null 2>&1", venv);
    if (system(command) != 0) {
        return;
    }
    setenv("VIRTUAL_ENV", venv, 1);
    ok(tosc_host_start(&options));
    char *prefix = python_text("__import__('sys').prefix");
    ck_assert_str_eq(prefix, venv);
    free(prefix);
    host_stop();
}
END_TEST

START_TEST(wrong_options_are_told_and_can_be_mended)
{
    const tosc_host_options venv = {.venv = "/nowhere"};
    const tosc_host_options relative = {.executable = "tosc-run"};
    const tosc_host_options missing = {.executable = "/nowhere/python"};
    fails(TOSC_EINVAL, tosc_host_start(&venv));
    told("/nowhere");
    fails(TOSC_EINVAL, tosc_host_start(&relative));
    told("absolute");
    fails(TOSC_EINVAL, tosc_host_start(&missing));
    ck_assert_str_eq(tosc_error_path(), "/nowhere/python");
    ck_assert(!tosc_host_is_running());
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
    host_start();
    host_stop();
}
END_TEST

static void
silence(int fd)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must(null >= 0 && dup2(null, fd) == fd);
    close(null);
}

START_TEST(python_that_cannot_be_started_is_a_status)
{
    const tosc_host_options options = {.use_environment = true};
    setenv("PYTHONHOME", "/nowhere", 1);
    silence(2); /* Python tells its paths */
    fails(TOSC_EPYTHON, tosc_host_start(&options));
    told("Python cannot be started");
    ck_assert(!tosc_host_is_running());
    fails(TOSC_ECLOSED, tosc_host_start(NULL));
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
    fails(TOSC_ECLOSED, tosc_host_stop());
}
END_TEST

static void *
start_here(void *arg)
{
    (void)arg;
    host_start();
    python("kept = 1");
    return NULL;
}

static void *
stop_here(void *arg)
{
    (void)arg;
    host_stop();
    return NULL;
}

START_TEST(threads_may_start_use_and_stop_it)
{
    in_threads(1, start_here, NULL); /* that thread is gone then */
    ck_assert_int_eq(python_int("kept"), 1);
    in_threads(1, stop_here, NULL);
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
}
END_TEST

static void *
race_to_start(void *arg)
{
    const tosc_host_options options = {.executable = tosc_run_path()};
    int status = tosc_host_start(&options);
    must(status == 0 || status == TOSC_EINVAL);
    if (status == 0) {
        __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void *
race_to_stop(void *arg)
{
    int status = tosc_host_stop();
    must(status == 0 || status == TOSC_ECLOSED);
    if (status == 0) {
        __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

START_TEST(one_of_many_starts_and_one_stops)
{
    int started = 0;
    int stopped = 0;
    in_threads(8, race_to_start, &started);
    ck_assert_int_eq(started, 1);
    in_threads(8, race_to_stop, &stopped);
    ck_assert_int_eq(stopped, 1);
}
END_TEST

START_TEST(text_is_utf8_whatever_the_locale)
{
    host_start();
    python("import sys, locale");
    ck_assert(python_true("sys.stdout.encoding.lower() == 'utf-8'"));
    ck_assert(python_true("sys.getfilesystemencoding() == 'utf-8'"));
    host_stop();
}
END_TEST

/* ---- multiprocessing ---- */

START_TEST(multiprocessing_does_not_start_the_program_again)
{
    const char *path =
        script("spawning.py",
               "import multiprocessing, os, sys, tosc\n"
               "# What Python leaves behind in children is not what is tested here.\n"
               "os.environ['ASAN_OPTIONS'] = os.environ.get('ASAN_OPTIONS', '') "
               "+ ':detect_leaks=0'\n"
               "def work(uri, n):\n"
               "    m = tosc.Manager(tosc.open_backend(uri))\n"
               "    @tosc.transactional(m)\n"
               "    def add():\n"
               "        m.read()['sum'] += n\n"
               "    add()\n"
               "if __name__ == '__main__':\n"
               "    uri = sys.argv[1]\n"
               "    m = tosc.Manager(tosc.open_backend(uri))\n"
               "    m.write({'sum': 0})\n"
               "    c = multiprocessing.get_context('spawn')\n"
               "    ps = [c.Process(target=work, args=(uri, n)) for n in (1, 2)]\n"
               "    for p in ps: p.start()\n"
               "    for p in ps: p.join()\n"
               "    assert [p.exitcode for p in ps] == [0, 0]\n"
               "    assert m.refresh()['sum'] == 3\n");
    const char *const argv[] = {store_in("store"), NULL};
    host_start();
    ok(tosc_host_run_file(path, argv));
    host_stop();
}
END_TEST

/* ---- signals ---- */

static volatile sig_atomic_t caught[NSIG];

static void
on_signal(int number)
{
    caught[number]++;
}

static const int signals[] = {SIGINT, SIGTERM, SIGCHLD, SIGPIPE, SIGHUP, SIGUSR1};

static void
check_handlers(void)
{
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct sigaction now;
        sigaction(signals[i], NULL, &now);
        ck_assert_msg(now.sa_handler == on_signal, "signal %d has another handler",
                      signals[i]);
    }
}

static void
set_handlers(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], &action, NULL);
    }
}

static const char mixed_work[] = "import subprocess, threading, signal, tosc\n"
                                 "tosc.Manager(tosc.InprocBackend()).write([])\n"
                                 "subprocess.run(['true'], check=True)\n"
                                 "t = threading.Thread(target=print, args=('',))\n"
                                 "t.start(); t.join()\n";

START_TEST(handlers_of_the_program_are_left_alone)
{
    silence(1);
    set_handlers();
    host_start();
    check_handlers();
    python(mixed_work);
    check_handlers();
    caught[SIGINT] = 0;
    kill(getpid(), SIGINT);
    ck_assert_int_eq(caught[SIGINT], 1);
    python("pass"); /* no KeyboardInterrupt */
    host_stop();
    check_handlers();
}
END_TEST

START_TEST(handlers_that_python_replaces_come_back)
{
    const tosc_host_options options = {.install_signal_handlers = true,
                                       .executable = tosc_run_path()};
    struct sigaction now;
    silence(1);
    set_handlers();
    ok(tosc_host_start(&options));
    sigaction(SIGPIPE, NULL, &now);
    ck_assert(now.sa_handler == SIG_IGN); /* as with python3 */
    sigaction(SIGINT, NULL, &now);
    ck_assert(now.sa_handler == on_signal); /* Python only takes what nobody has */
    python(mixed_work);
    python("hit = []\n"
           "signal.signal(signal.SIGTERM, lambda *a: hit.append(a))\n"
           "signal.signal(signal.SIGUSR1, lambda *a: None)\n"
           "signal.raise_signal(signal.SIGTERM)\n"
           "assert hit\n");
    host_stop();
    check_handlers();
    caught[SIGTERM] = 0;
    kill(getpid(), SIGTERM);
    ck_assert_int_eq(caught[SIGTERM], 1);
}
END_TEST

START_TEST(ctrl_c_is_a_status)
{
    const tosc_host_options options = {.install_signal_handlers = true,
                                       .executable = tosc_run_path()};
    signal(SIGINT, SIG_DFL); /* check has a handler of its own */
    ok(tosc_host_start(&options));
    fails(TOSC_EINTR, tosc_host_run_string("import os, signal, time\n"
                                           "os.kill(os.getpid(), signal.SIGINT)\n"
                                           "time.sleep(10)\n",
                                           NULL));
    told_type("KeyboardInterrupt");
    python("pass");
    host_stop();
    struct sigaction now;
    sigaction(SIGINT, NULL, &now);
    ck_assert(now.sa_handler == SIG_DFL);
}
END_TEST

/* ---- misuse ---- */

static int
never(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    (void)arguments;
    (void)ret;
    (void)arg;
    return 0;
}

/*
 * All functions of host.h, with arguments that are right: they say that Python is not
 * there.
 */
static void
all_closed(void)
{
    tosc_value *value = NULL;
    tosc_manager *manager = NULL;
    tosc_scope scope;
    fails(TOSC_ECLOSED, tosc_host_run_file("/tmp/x.py", NULL));
    fails(TOSC_ECLOSED, tosc_host_run_module("this", NULL));
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
    fails(TOSC_ECLOSED, tosc_host_eval("1", &value));
    fails(TOSC_ECLOSED, tosc_host_find("sys:exit", &value));
    fails(TOSC_ECLOSED, tosc_host_call("sys:exit", NULL, &value));
    fails(TOSC_ECLOSED, tosc_host_interrupt());
    fails(TOSC_ECLOSED, tosc_host_register("a", "b", never, NULL, NULL));
    fails(TOSC_ECLOSED, tosc_fail("ValueError", "x"));
    fails(TOSC_ECLOSED, tosc_host_publish("a", NULL));
    fails(TOSC_ECLOSED, tosc_host_shared("a", &manager));
    fails(TOSC_ECLOSED, tosc_call(value, NULL, NULL));
    fails(TOSC_ECLOSED, tosc_call_method(value, "x", NULL, NULL));
    fails(TOSC_ECLOSED, tosc_scope_enter(&scope));
    fails(TOSC_ECLOSED, tosc_host_stop());
    ck_assert_str_ne(tosc_error_message(), "");
    ck_assert_ptr_null(value);
    ck_assert_ptr_null(manager);
}

START_TEST(calls_before_start_and_after_stop_are_told)
{
    all_closed();
    host_start();
    host_stop();
    all_closed();
}
END_TEST

START_TEST(null_is_told)
{
    tosc_value *value = NULL;
    tosc_manager *manager = NULL;
    const tosc_arguments bad = {.values = NULL, .count = 2};
    host_start();
    fails(TOSC_EINVAL, tosc_host_run_file(NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_run_file("", NULL));
    fails(TOSC_EINVAL, tosc_host_run_module(NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_run_module("", NULL));
    fails(TOSC_EINVAL, tosc_host_run_string(NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_eval(NULL, &value));
    ok(tosc_host_eval("1", NULL));
    fails(TOSC_EINVAL, tosc_host_find(NULL, &value));
    fails(TOSC_EINVAL, tosc_host_find("sys:exit", NULL));
    fails(TOSC_EINVAL, tosc_host_find("sys", &value));
    fails(TOSC_EINVAL, tosc_host_find(":exit", &value));
    fails(TOSC_EINVAL, tosc_host_find("sys:", &value));
    fails(TOSC_EINVAL, tosc_host_call(NULL, NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_call("builtins:len", &bad, NULL));
    fails(TOSC_EINVAL, tosc_host_register(NULL, "b", never, NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_register("a", NULL, never, NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_register("a", "b", NULL, NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_register("a.b", "c", never, NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_register("a", "1", never, NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_register("", "c", never, NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_publish(NULL, NULL));
    fails(TOSC_EINVAL, tosc_host_shared(NULL, &manager));
    fails(TOSC_EINVAL, tosc_host_shared("a", NULL));
    fails(TOSC_EINVAL, tosc_call(NULL, NULL, NULL));
    fails(TOSC_EINVAL, tosc_call_method(NULL, "x", NULL, NULL));
    fails(TOSC_EINVAL, tosc_call_method(value, NULL, NULL, NULL));
    fails(TOSC_EPYTHON, tosc_fail(NULL, NULL));
    ck_assert_ptr_null(value);
    ck_assert_ptr_null(manager);
    host_stop();
}
END_TEST

START_TEST(statuses_have_names)
{
    ck_assert_str_eq(tosc_status_name(0), "TOSC_OK");
    ck_assert_str_eq(tosc_status_name(TOSC_EPYTHON), "TOSC_EPYTHON");
    ck_assert_str_eq(tosc_status_name(TOSC_ENOTFOUND), "TOSC_ENOTFOUND");
    ck_assert_str_eq(tosc_status_name(TOSC_ETYPE), "TOSC_ETYPE");
    ck_assert_str_eq(tosc_status_name(TOSC_ERANGE), "TOSC_ERANGE");
    ck_assert_str_eq(tosc_status_name(TOSC_ESERIALIZE), "TOSC_ESERIALIZE");
    ck_assert_str_eq(tosc_status_name(TOSC_ERETRY), "TOSC_ERETRY");
    ck_assert_str_eq(tosc_status_name(TOSC_EEXIT), "TOSC_EEXIT");
    ck_assert_str_eq(tosc_status_name(-18), "unknown status");
    ck_assert_str_eq(tosc_error_type(), "");
    ck_assert_str_eq(tosc_error_traceback(), "");
    ck_assert_int_eq(tosc_error_exit_status(), 0);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("host");
    TCase *starting = tcase_create("starting");
    TCase *others = tcase_create("the rest");

    tcase_set_timeout(starting, 20);
    tcase_add_checked_fixture(starting, directory_make, directory_remove);
    tcase_add_test(starting, starts_and_stops_once);
    tcase_add_test(starting, starts_without_options);
    tcase_add_test(starting, isolated_unless_asked);
    tcase_add_test(starting, environment_is_heeded_if_asked);
    tcase_add_test(starting, arguments_and_search_path_are_the_callers);
    tcase_add_test(starting, modules_are_found_in_the_search_path);
    tcase_add_test(starting, virtual_environment_is_used);
    tcase_add_test(starting, active_environment_is_used_if_the_environment_is);
    tcase_add_test(starting, wrong_options_are_told_and_can_be_mended);
    tcase_add_test(starting, python_that_cannot_be_started_is_a_status);
    tcase_add_test(starting, threads_may_start_use_and_stop_it);
    tcase_add_test(starting, one_of_many_starts_and_one_stops);
    tcase_add_test(starting, text_is_utf8_whatever_the_locale);
    tcase_add_test(starting, multiprocessing_does_not_start_the_program_again);
    suite_add_tcase(suite, starting);
    tcase_set_timeout(others, 20);
    tcase_add_checked_fixture(others, directory_make, directory_remove);
    tcase_add_test(others, handlers_of_the_program_are_left_alone);
    tcase_add_test(others, handlers_that_python_replaces_come_back);
    tcase_add_test(others, ctrl_c_is_a_status);
    tcase_add_test(others, calls_before_start_and_after_stop_are_told);
    tcase_add_test(others, null_is_told);
    tcase_add_test(others, statuses_have_names);
    suite_add_tcase(suite, others);
    return run_suite(suite);
}
