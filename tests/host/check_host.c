/*
 * The interpreter's life: starting it in all ways, stopping it at all times, what it leaves
 * alone, and misuse.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
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
               "import multiprocessing, sys, tosc\n"
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

START_TEST(scripts_may_call_the_program_until_the_end)
{
    int64_t sum = 0;
    host_start();
    ok(tosc_host_register("program", "note", note_call, &sum, NULL));
    python("import program, atexit, threading, time\n"
           "atexit.register(program.note, 1)\n"
           "def late():\n"
           "    time.sleep(0.1)\n"
           "    program.note(10)\n"
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

/* All functions of host.h, with arguments that are right: they say that Python is not there. */
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
    TCase *stopping = tcase_create("stopping");
    TCase *rest = tcase_create("the rest");

    tcase_set_timeout(starting, 20);
    tcase_add_checked_fixture(starting, directory_make, directory_remove);
    tcase_add_test(starting, starts_and_stops_once);
    tcase_add_test(starting, starts_without_options);
    tcase_add_test(starting, isolated_unless_asked);
    tcase_add_test(starting, environment_is_heeded_if_asked);
    tcase_add_test(starting, arguments_and_search_path_are_the_callers);
    tcase_add_test(starting, modules_are_found_in_the_search_path);
    tcase_add_test(starting, virtual_environment_is_used);
    tcase_add_test(starting, wrong_options_are_told_and_can_be_mended);
    tcase_add_test(starting, python_that_cannot_be_started_is_a_status);
    tcase_add_test(starting, threads_may_start_use_and_stop_it);
    tcase_add_test(starting, one_of_many_starts_and_one_stops);
    tcase_add_test(starting, text_is_utf8_whatever_the_locale);
    tcase_add_test(starting, multiprocessing_does_not_start_the_program_again);
    suite_add_tcase(suite, starting);
    tcase_set_timeout(stopping, 30);
    tcase_add_checked_fixture(stopping, directory_make, directory_remove);
    tcase_add_test(stopping, stop_waits_for_calls_of_other_threads);
    tcase_add_test(stopping, stop_waits_for_scopes_of_other_threads);
    tcase_add_test(stopping, stop_waits_for_threads_of_scripts);
    tcase_add_test(stopping, stop_does_not_wait_for_daemon_threads);
    tcase_add_test(stopping, scripts_may_call_the_program_until_the_end);
    tcase_add_test(stopping, stop_from_inside_is_refused);
    tcase_add_test(stopping, faults_at_the_end_harm_nobody);
    tcase_add_test(stopping, stop_while_watchers_are_busy);
    tcase_add_test(stopping, output_is_there_after_a_run_and_after_stop);
    tcase_add_test(stopping, context_of_a_thread_lasts_from_call_to_call);
    tcase_add_test(stopping, threads_that_end_leave_nothing_behind);
    tcase_add_test(stopping, stop_among_threads_that_come_and_go);
    suite_add_tcase(suite, stopping);
    tcase_set_timeout(rest, 20);
    tcase_add_checked_fixture(rest, directory_make, directory_remove);
    tcase_add_test(rest, handlers_of_the_program_are_left_alone);
    tcase_add_test(rest, handlers_that_python_replaces_come_back);
    tcase_add_test(rest, ctrl_c_is_a_status);
    tcase_add_test(rest, calls_before_start_and_after_stop_are_told);
    tcase_add_test(rest, null_is_told);
    tcase_add_test(rest, statuses_have_names);
    suite_add_tcase(suite, rest);
    return run_suite(suite);
}
