/*
 * Signals during calls of a backend: their handlers run, and the call goes on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_SIGNALS_H
#define TOSC_PY_SIGNALS_H

#include "compat.h"

/* One call of a backend, made without the GIL. */
typedef struct BackendCall {
    PyThreadState *thread;
    PyObject *raised; /* by a signal's handler meanwhile; NULL: nothing */
    struct BackendCall *outer;
} BackendCall;

/* Releases the GIL; while the call waits it may be taken for handlers of signals. */
void signals_begin_call(BackendCall *call);

/*
 * Takes the GIL. What a handler has raised is the exception that is set if the call gave
 * TOSC_EINTR or TOSC_EUNKNOWN. After anything else it is raised soon, in the main thread's
 * next bytecode, as the call has its result.
 */
void signals_end_call(BackendCall *call, int status);

/* status = expression, without the GIL. Not for the operation `lock`, see signals.c. */
#define CALL_BACKEND(status, expression) \
    do { \
        BackendCall backend_call_; \
        signals_begin_call(&backend_call_); \
        (status) = (expression); \
        signals_end_call(&backend_call_, status); \
    } while (0)

/* Python code is run inside a call, with the GIL; returns what signals_resume() wants. */
BackendCall *signals_suspend(void);
void signals_resume(BackendCall *call);

/* The exception that is set, normalised and no longer set; and the other way round. */
PyObject *signals_take_exception(void);
void signals_set_exception(PyObject *stolen);

/* Has core ask. */
void signals_install(void);

#endif
