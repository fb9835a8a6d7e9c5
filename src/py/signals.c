/*
 * Signals during calls of a backend: their handlers run, and the call goes on.
 *
 * Core sleeps for long only without the GIL. When a signal ends such a sleep it asks
 * on_signal(), which takes the GIL, by the state of the thread that made the call, and has
 * Python run the handlers: that does so in the main thread only, and only for signals that
 * are Python's. If they raise nothing, core sleeps on. If one raises, core ends the call,
 * but has its result to look for first, which may be that of a success. So the exception
 * is kept with the call until that is over.
 *
 * Handlers may use any store, also through the same backend object. So they are not run
 * inside a wait for a lock, during which core has what keeps other threads out: that
 * ends by TOSC_EINTR, and the handlers run before the call is made again. A thread that
 * is in no call of ours (a watcher, one of the program's own that calls a backend) is
 * not asked: its sleep ends, if it lets signals in.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "signals.h"

#include <tosc/error.h>

#include "core/fileio.h"

#include <unistd.h>

static __thread BackendCall *innermost; /* NULL: none, or Python code runs in it */

BackendCall *
signals_suspend(void)
{
    BackendCall *call = innermost;
    innermost = NULL;
    return call;
}

void
signals_resume(BackendCall *call)
{
    innermost = call;
}

PyObject *
signals_take_exception(void)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value != NULL && traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

void
signals_set_exception(PyObject *stolen)
{
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(stolen)), stolen,
                  PyException_GetTraceback(stolen));
}

static bool
heeds_signals(void)
{
    return innermost != NULL && innermost->raised == NULL && !tosc_is_finalizing();
}

/* Core's question: 0 to sleep on, -1 to end the call. */
static int
on_signal(void)
{
    BackendCall *call = innermost;
    if (!heeds_signals()) {
        return -1;
    }
    pid_t process = getpid();
    innermost = NULL;
    PyEval_RestoreThread(call->thread);
    if (PyErr_CheckSignals() < 0) {
        call->raised = signals_take_exception();
    }
    PyEval_SaveThread();
    innermost = call;
    /* In the child of a fork, nobody will wake this sleep: the call has to be made again. */
    return call->raised != NULL || getpid() != process ? -1 : 0;
}

static int
raise_now(void *raised)
{
    signals_set_exception(raised);
    return -1;
}

void
signals_begin_call(BackendCall *call)
{
    *call = (BackendCall){.outer = innermost};
    innermost = call;
    call->thread = PyEval_SaveThread();
}

void
signals_end_call(BackendCall *call, int status)
{
    innermost = call->outer;
    PyEval_RestoreThread(call->thread);
    if (call->raised == NULL) {
        return;
    }
    if (status == TOSC_EINTR || status == TOSC_EUNKNOWN) {
        signals_set_exception(call->raised);
    } else if (Py_AddPendingCall(raise_now, call->raised) < 0) {
        /* Too many are pending: at least it is told. */
        signals_set_exception(call->raised);
        PyErr_WriteUnraisable(NULL);
    }
}

void
signals_install(void)
{
    __atomic_store_n(&tosc__on_signal, on_signal, __ATOMIC_RELEASE);
    __atomic_store_n(&tosc__heeds_signals, heeds_signals, __ATOMIC_RELEASE);
}
