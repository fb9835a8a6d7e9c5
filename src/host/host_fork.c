/*
 * When the program forks.
 *
 * os.fork() tells Python what goes on, and so does this for a fork() of the program:
 * Python's lock is taken before, by the forking thread, and Python told before and after.
 * Then scripts and Managers work in the child, whose only thread has all that the
 * parent's had: a scope that it is in, paused or not, stays what it is. The price is that
 * fork() waits for Python's lock.
 *
 * Python's own forks are not told twice: hooks of os.register_at_fork() mark the thread.
 * Other forks of a thread that holds the lock (in a scope) are told like all.
 *
 * Order. Python's lock comes before all mutexes of core, so this has to be done before
 * core's handlers, and after them in the end: which is what pthread_atfork() does for who
 * registers last. Where Python cannot be told (it is being stopped, no memory) it has
 * ended for the child.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "core/fork.h"
#include "host/life.h"

#include <pthread.h>

static __thread HostEntry entry;
static __thread bool entered; /* by before(): Python has been told */

static void
before(void)
{
    const HostThread *thread = host_thread();
    bool wanted = tosc_host_is_running() || thread->depth > 0 || thread->counted > 0;
    entered = wanted && !thread->forking && host_enter(&entry) == 0;
    if (entered) {
        PyOS_BeforeFork();
    }
}

static void
after_in_parent(void)
{
    if (entered) {
        PyOS_AfterFork_Parent();
        host_leave(&entry, 0);
    }
}

static void
after_in_child(void)
{
    bool usable = entered || host_thread()->forking;
    life_forked(usable);
    if (usable) {
        runs_forked();
    }
    if (entered) {
        PyOS_AfterFork_Child();
        host_leave(&entry, 0);
    }
}

/* ---- Python's own forks ---- */

static PyObject *
fork_begins(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    host_thread()->forking = true;
    Py_RETURN_NONE;
}

static PyObject *
fork_ended(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    host_thread()->forking = false;
    Py_RETURN_NONE;
}

static PyMethodDef hooks[] = {
    {"_tosc_fork_begins", fork_begins, METH_NOARGS, NULL},
    {"_tosc_fork_ended", fork_ended, METH_NOARGS, NULL},
};

static int
register_hooks(void)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *function =
        os != NULL ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *begins = PyCFunction_New(&hooks[0], NULL);
    PyObject *ended = PyCFunction_New(&hooks[1], NULL);
    PyObject *none = PyTuple_New(0);
    PyObject *names = NULL;
    PyObject *result = NULL;
    if (function != NULL && begins != NULL && ended != NULL && none != NULL) {
        names = Py_BuildValue("{sOsOsO}", "before", begins, "after_in_parent", ended,
                              "after_in_child", ended);
    }
    if (names != NULL) {
        result = PyObject_Call(function, none, names);
    }
    Py_XDECREF(result);
    Py_XDECREF(names);
    Py_XDECREF(none);
    Py_XDECREF(ended);
    Py_XDECREF(begins);
    Py_XDECREF(function);
    Py_XDECREF(os);
    return result != NULL ? 0 : -1;
}

int
fork_prepare(void)
{
    tosc__fork_install();
    if (register_hooks() < 0) {
        return -1;
    }
    if (pthread_atfork(before, after_in_parent, after_in_child) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}
