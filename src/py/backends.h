/*
 * Backends as Python objects (backends.c), and Python objects as backends (pybackend.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_BACKENDS_H
#define TOSC_PY_BACKENDS_H

#include "compat.h"

#include <tosc/backend.h>

/*
 * The backend that a Manager uses for the object that it was given: the C backend of an
 * InprocBackend, FileBackend or CephBackend (unless the class, or the instance, overrides read, write,
 * try_write or target_wait), else an adapter that calls the object's four methods. A new
 * reference (tosc_backend_unref), or NULL with TypeError if it is no backend. The adapter
 * holds a strong reference to the object and drops it with the GIL.
 */
tosc_backend *tosc_backend_of(PyObject *object);

/*
 * The other way: an object for a backend that C code has made, which tosc_backend_of() turns
 * into the same backend again. A new reference; NULL with ValueError if it lacks an operation.
 */
PyObject *tosc_backend_object(tosc_backend *backend);

/* Which of InprocBackend, FileBackend, CephBackend and _CBackend it is an instance of, else
 * NULL. */
PyTypeObject *backend_native_type(PyObject *object);

/* The C backend of one of these (borrowed), else NULL. */
tosc_backend *tosc_backend_native(PyObject *object);

/*
 * ---- The adapter: what its operations do beyond <tosc/sys/backend.h> ----
 *
 * They may be called with the GIL or without, and take it where they need it. A thread
 * that has a Python thread state (its own, or one made by PyGILState_Ensure) is left
 * with the exception set in that state when they return TOSC_EPYTHON, also if it had
 * released the GIL meanwhile: it is there after Py_END_ALLOW_THREADS or the next
 * PyGILState_Ensure. A thread without a thread state gets TOSC_EPYTHON with the
 * sentence in tosc_error_message(). Once the interpreter is being finalised they return
 * TOSC_ECLOSED.
 *
 * try_write() of Python tells only whether it has stored, so the new version is looked
 * for with a read() after it. If somebody else was faster than that read, or the read
 * raises, the commit is stored all the same: the operation returns 0 and a position
 * whose version is TOSC_VERSION_UNKNOWN, which no store ever has: wait() with it
 * returns changed at once, try_write() with it is a conflict.
 *
 * If try_write() raises, a read() decides as well: the bytes are there (0), or the
 * store is at the expected version still (TOSC_EPYTHON, nothing was stored), or it
 * cannot be told: TOSC_EUNKNOWN with an UnknownOutcomeError set (tosc_raise keeps it),
 * whose __cause__ is what was raised.
 *
 * wait() first reads and compares, then calls target_wait(), once. A target_wait() that
 * has a parameter `timeout` is called with a fraction of a second again and again, so
 * that `stop` and timeout_ms are heeded; any other may block for as long as it likes,
 * and nothing ends it.
 */
#define TOSC_VERSION_UNKNOWN INT64_MIN

/* An adapter over an object that has the four methods; NULL with an exception. */
tosc_backend *tosc_backend_python_new(PyObject *object);

/* The object behind an adapter: borrowed, NULL for other backends. */
PyObject *tosc_backend_python_object(const tosc_backend *backend);

/* Do `stop` and the timeout end wait()? Join no thread that waits where they do not. */
bool tosc_backend_wait_can_stop(const tosc_backend *backend);

#endif
