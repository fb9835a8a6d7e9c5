/*
 * Running scripts, and interrupting them.
 *
 * All runs and calls from C are in a list while they last, so that they can be
 * interrupted. An interrupt that comes too late, when the outermost run of its thread has
 * ended, is taken back. The list is guarded by Python's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"
#include "host/script.h"

#include <string.h>
#include <time.h>

#define LONGEST_AIM 10000 /* looks, 100 us apart */

static Run *runs;
static unsigned long serial; /* of the last interrupt */

/* ---- the list of runs ---- */

void
run_begin(Run *run)
{
    *run = (Run){.next = runs,
                 .thread = PyThread_get_thread_ident(),
                 .state = PyThreadState_Get(),
                 .serial = serial};
    runs = run;
}

/*
 * Would PyThreadState_SetAsyncExc() with the run's thread meet the run? A thread that a script
 * has just made stands under its maker's number, and before it, until it has run for the first
 * time: the exception would end it before it has said that it began, which its maker waits for.
 */
static bool
is_aimed_at(const Run *run)
{
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
    while (state != NULL && state->thread_id != run->thread) {
        state = PyThreadState_Next(state);
    }
    return state == run->state;
}

/* Lets the others run. */
static void
let_go(void)
{
    struct timespec pause = {0, 100000};
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&pause, NULL);
    Py_END_ALLOW_THREADS
}

void
run_end(Run *run)
{
    bool outermost = true;
    Run **link = &runs;
    while (*link != run) {
        link = &(*link)->next;
    }
    *link = run->next;
    for (const Run *other = runs; other != NULL; other = other->next) {
        outermost = outermost && other->thread != run->thread;
    }
    if (run->interrupted && outermost) {
        for (int looks = 0; looks < LONGEST_AIM && !is_aimed_at(run); looks++) {
            let_go();
        }
        PyThreadState_SetAsyncExc(run->thread, NULL);
    }
}

void
runs_forked(void)
{
    unsigned long thread = PyThread_get_thread_ident();
    Run **link = &runs;
    while (*link != NULL) {
        if ((*link)->thread != thread) {
            *link = (*link)->next;
        } else {
            link = &(*link)->next;
        }
    }
}

int
tosc_host_interrupt(void)
{
    HostEntry entry;
    int status = host_enter_while_stopping(&entry);
    if (status < 0) {
        return status;
    }
    unsigned long mine = ++serial;
    int looks = 0;
    Run *run = runs;
    while (run != NULL) {
        if (run->serial >= mine) {
            run = run->next; /* done, or begun since */
        } else if (is_aimed_at(run) || looks == LONGEST_AIM) {
            run->serial = mine;
            run->interrupted = true;
            PyThreadState_SetAsyncExc(run->thread, PyExc_KeyboardInterrupt);
        } else {
            looks++;
            let_go();
            run = runs; /* which may be others now */
        }
    }
    return host_leave(&entry, 0);
}

/* ---- running ---- */

static int
missing(const char *what)
{
    return tosc__fail(TOSC_EINVAL, "%s is NULL or empty", what);
}

int
tosc_host_run_file(const char *path, const char *const *argv)
{
    HostEntry entry;
    Run run;
    Script script = {0};
    if (path == NULL || *path == '\0') {
        return missing("path");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = script_find_file(path, &script);
    if (status == 0) {
        status = main_run(&script, argv);
    }
    script_clear(&script);
    run_end(&run);
    return host_leave(&entry, status);
}

int
tosc_host_run_module(const char *name, const char *const *argv)
{
    HostEntry entry;
    Run run;
    Script script = {0};
    if (name == NULL || *name == '\0') {
        return missing("name");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = script_find_module(name, &script);
    if (status == 0) {
        status = main_run(&script, argv);
    }
    if (script.place != NULL) {
        place_leave(script.place);
    }
    script_clear(&script);
    run_end(&run);
    return host_leave(&entry, status);
}

/* In the present __main__: a new reference, or NULL with an exception. */
static PyObject *
evaluate(const char *source, const char *name, int start)
{
    PyObject *result = NULL;
    /* Compiling can run Python code (warnings), which can replace it. */
    PyObject *module = Py_XNewRef(PyImport_AddModule("__main__"));
    PyObject *file = module != NULL ? PyUnicode_DecodeFSDefault(name) : NULL;
    PyObject *code = file != NULL ? script_compile(source, file, start) : NULL;
    if (code != NULL) {
        PyObject *globals = Py_NewRef(PyModule_GetDict(module));
        result = PyEval_EvalCode(code, globals, globals);
        Py_DECREF(globals);
    }
    Py_XDECREF(code);
    Py_XDECREF(file);
    Py_XDECREF(module);
    return result;
}

int
tosc_host_run_string(const char *source, const char *name)
{
    HostEntry entry;
    Run run;
    if (source == NULL) {
        return tosc__fail(TOSC_EINVAL, "source is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status =
        main_ended(evaluate(source, name != NULL ? name : "<string>", Py_file_input));
    run_end(&run);
    return host_leave(&entry, status);
}

int
run_give(PyObject *result, tosc_value **ret)
{
    if (result != NULL && ret == NULL) {
        Py_DECREF(result);
        return 0;
    }
    return value_return(result, ret);
}

int
tosc_host_eval(const char *expression, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    if (expression == NULL) {
        return tosc__fail(TOSC_EINVAL, "expression is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = run_give(evaluate(expression + strspn(expression, " \t\r\n"), "<expression>",
                               Py_eval_input),
                      ret);
    run_end(&run);
    return host_leave(&entry, status);
}
