/*
 * Programs that have initialised Python themselves. The only test of this room that uses
 * Python.h, as such a program does.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include <tosc/tosc.h>

#include "support.h"

PyMODINIT_FUNC PyInit_tosc(void);

/* The program's own Python code. */
#define own(source) must(PyRun_SimpleString(source) == 0)

static void *
use_it(void *arg)
{
    (void)arg;
    must(tosc_host_run_string("import tosc; x = tosc.InprocBackend()", NULL) == 0);
    must(tosc_host_run_string("1/0", NULL) == TOSC_EPYTHON);
    return NULL;
}

START_TEST(running_interpreter_is_joined_and_left)
{
    tosc_value *value = NULL;
    Py_InitializeEx(0);
    own("import sys; before = dict(argv=sys.argv, path=list(sys.path))");
    ok(tosc_host_start(NULL));
    ck_assert(PyGILState_Check());
    own("import tosc\n"
        "m = tosc.Manager(tosc.InprocBackend())\n"
        "m.write({'n': 1})\n"
        "assert tosc.__spec__.name == 'tosc'\n"
        "assert before == dict(argv=sys.argv, path=sys.path)\n"
        "import importlib; assert importlib.import_module('tosc') is tosc\n");
    python("m.read()['n'] += 1"); /* the same __main__ */
    ok(tosc_host_eval("m", &value));
    ck_assert(PyGILState_Check());
    fails(TOSC_EINVAL, tosc_host_start(NULL));
    Py_BEGIN_ALLOW_THREADS
    in_threads(4, use_it, NULL);
    ck_assert_int_eq(python_int("m.read()['n']"), 2);
    Py_END_ALLOW_THREADS
    host_stop();
    ck_assert(PyGILState_Check());
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
    fails(TOSC_ECLOSED, tosc_get_int64(value, tosc_self(), &(int64_t){0}));
    fails(TOSC_ECLOSED, tosc_host_start(NULL));
    own("m.read()['n'] += 1\n"
        "assert m.read()['n'] == 3\n"
        "tosc.Manager(tosc.InprocBackend()).write([])\n");
    ck_assert_int_eq(Py_FinalizeEx(), 0);
}
END_TEST

START_TEST(joining_without_the_lock)
{
    Py_InitializeEx(0);
    PyThreadState *state = PyEval_SaveThread();
    ok(tosc_host_start(NULL));
    in_threads(2, use_it, NULL);
    use_it(NULL);
    host_stop();
    PyEval_RestoreThread(state);
    own("import tosc, sys\n"
        "assert len(sys._current_frames()) == 1\n");
    ck_assert_int_eq(Py_FinalizeEx(), 0);
}
END_TEST

START_TEST(module_that_is_there_is_taken)
{
    ck_assert_int_eq(PyImport_AppendInittab("tosc", PyInit_tosc), 0);
    Py_InitializeEx(0);
    own("import tosc; kept = tosc.Manager(tosc.InprocBackend())\n"
        "tosc.publish('kept', kept)\n");
    ok(tosc_host_start(NULL));
    tosc_manager *manager = NULL;
    ok(tosc_host_shared("kept", &manager));
    tosc_manager_unref(manager);
    host_stop();
    ck_assert_int_eq(Py_FinalizeEx(), 0);
}
END_TEST

START_TEST(foreign_module_is_refused)
{
    Py_InitializeEx(0);
    own("import sys, types; sys.modules['tosc'] = types.ModuleType('tosc')");
    fails(TOSC_EPYTHON, tosc_host_start(NULL));
    told("another copy");
    ck_assert(PyGILState_Check());
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
    own("assert True");
    ck_assert_int_eq(Py_FinalizeEx(), 0);
}
END_TEST

START_TEST(program_may_end_python_without_stopping)
{
    tosc_value *value = NULL;
    Py_InitializeEx(0);
    ok(tosc_host_start(NULL));
    ok(tosc_host_eval("[1]", &value));
    ck_assert_int_eq(Py_FinalizeEx(), 0);
    ck_assert(!tosc_host_is_running());
    fails(TOSC_ECLOSED, tosc_host_run_string("1", NULL));
    fails(TOSC_ECLOSED, tosc_host_stop());
    tosc_value_unref(value);
}
END_TEST

static sem_t used;
static sem_t go_on;

static void *
outlive(void *arg)
{
    use_it(arg);
    must(sem_post(&used) == 0);
    must(sem_wait(&go_on) == 0);
    return NULL;
}

START_TEST(threads_may_end_after_stop_and_after_python)
{
    pthread_t threads[2];
    must(sem_init(&used, 0, 0) == 0 && sem_init(&go_on, 0, 0) == 0);
    Py_InitializeEx(0);
    ok(tosc_host_start(NULL));
    Py_BEGIN_ALLOW_THREADS
    for (int i = 0; i < 2; i++) {
        must(pthread_create(&threads[i], NULL, outlive, NULL) == 0);
    }
    must(sem_wait(&used) == 0 && sem_wait(&used) == 0);
    host_stop();
    must(sem_post(&go_on) == 0); /* one of them, whichever */
    sleep_us(100000);
    Py_END_ALLOW_THREADS
    own("import sys, _thread; assert _thread._count() == 0");
    ck_assert_int_eq(Py_FinalizeEx(), 0);
    must(sem_post(&go_on) == 0);
    for (int i = 0; i < 2; i++) {
        must(pthread_join(threads[i], NULL) == 0);
    }
}
END_TEST

static void *
with_own_state(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        PyGILState_STATE gil = PyGILState_Ensure();
        must(PyRun_SimpleString("x = 1") == 0);
        use_it(NULL);
        must(PyGILState_Check());
        Py_BEGIN_ALLOW_THREADS
        use_it(NULL);
        Py_END_ALLOW_THREADS
        PyGILState_Release(gil);
        use_it(NULL);
    }
    return NULL;
}

START_TEST(threads_with_states_of_the_program)
{
    Py_InitializeEx(0);
    ok(tosc_host_start(NULL));
    Py_BEGIN_ALLOW_THREADS
    in_threads(4, with_own_state, NULL);
    Py_END_ALLOW_THREADS
    host_stop();
    own("import sys; assert len(sys._current_frames()) == 1");
    ck_assert_int_eq(Py_FinalizeEx(), 0);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("joined");
    TCase *all = tcase_create("all");

    tcase_set_timeout(all, 20);
    tcase_add_test(all, running_interpreter_is_joined_and_left);
    tcase_add_test(all, joining_without_the_lock);
    tcase_add_test(all, module_that_is_there_is_taken);
    tcase_add_test(all, foreign_module_is_refused);
    tcase_add_test(all, program_may_end_python_without_stopping);
    tcase_add_test(all, threads_may_end_after_stop_and_after_python);
    tcase_add_test(all, threads_with_states_of_the_program);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
