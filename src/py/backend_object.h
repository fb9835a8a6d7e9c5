/*
 * The private side of InprocBackend, FileBackend and CephBackend: what backends.c (the first, and
 * the methods of all), target_wait.c, file_backend.c and ceph_backend.c share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_BACKEND_OBJECT_H
#define TOSC_PY_BACKEND_OBJECT_H

#include "backends.h"

#include "errors.h"
#include "signals.h"
#include "state.h"

#include <sys/types.h>
#include <time.h>

/* By what a file is recognised as unchanged, without reading it. */
struct file_marks {
    bool exists;
    bool trusted; /* false: it could change again without changing the marks */
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
};

typedef struct BackendObject {
    PyObject_HEAD
    PyObject *weakrefs;
    tosc_backend *backend; /* NULL: __init__ has not run */
    PyObject *file_path;   /* FileBackend: str, absolute; else NULL */
    bool has_seen;
    tosc_position seen;     /* what target_wait has last reported */
    struct file_marks made; /* FileBackend: when the object was made */
    int64_t patience_ms;    /* CephBackend: how long making one may wait for the store */
} BackendObject;

/* Calls core without the GIL, again after a signal whose handler raised nothing. */
#define CALL_CORE(status, call) \
    do { \
        CALL_BACKEND(status, call); \
    } while ((status) == TOSC_EINTR && tosc_raise(TOSC_EINTR) == 0)

/* The exception for what CALL_CORE has left in `status`: 0, or -1. */
static inline int
check_status(int status)
{
    return status == TOSC_EINTR ? -1 : tosc_raise(status);
}

/* ---- backends.c ---- */

/* A reference to the object's backend for the time of a call; NULL with an exception. */
tosc_backend *backend_object_take(BackendObject *self);
void backend_object_dealloc(BackendObject *self);

/* Seconds, not negative, maybe infinite; -1 with an exception that names the argument. */
int backend_parse_seconds(PyObject *given, const char *argument, double *ret_seconds);

/* What a Python subclass has added to an instance, as object.__getstate__ gives it. */
PyObject *backend_subclass_state(PyObject *self);
int backend_set_subclass_state(PyObject *self, PyObject *state);
/* __setstate__: calls `init` with what stands in the dict, but for "subclass"; 0 or -1. */
int backend_init_from_state(PyObject *self, initproc init, PyObject *given);

PyObject *native_read(BackendObject *self, PyObject *ignored);
PyObject *native_write(BackendObject *self, PyObject *args, PyObject *kwargs);
PyObject *native_try_write(BackendObject *self, PyObject *args, PyObject *kwargs);
PyObject *native_copy(BackendObject *self, PyObject *ignored);

extern const char backend_read_doc[];
extern const char backend_write_doc[];
extern const char backend_try_write_doc[];
extern const char backend_target_wait_doc[];
extern const char backend_copy_doc[];

#define WITH_KEYWORDS(name, function, doc) \
    { \
        name, (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS, doc \
    }

#define NATIVE_METHODS \
    {"read", (PyCFunction)native_read, METH_NOARGS, backend_read_doc}, \
        WITH_KEYWORDS("write", native_write, backend_write_doc), \
        WITH_KEYWORDS("try_write", native_try_write, backend_try_write_doc), \
        WITH_KEYWORDS("target_wait", native_target_wait, backend_target_wait_doc), \
        {"copy", (PyCFunction)native_copy, METH_NOARGS, backend_copy_doc}, \
    { \
        "__copy__", (PyCFunction)native_copy, METH_NOARGS, backend_copy_doc \
    }

/* ---- target_wait.c ---- */

/*
 * Keeps what tells, at the first wait, whether the store has changed since now. That it
 * cannot be read is no failure here.
 */
int target_wait_start(BackendObject *self);
PyObject *native_target_wait(BackendObject *self, PyObject *args, PyObject *kwargs);

/* ---- file_backend.c ---- */

/* An absolute path of type str for what may be str, bytes or os.PathLike. */
PyObject *backend_absolute_path(PyObject *given, const char *argument);

int file_backend_init(PyObject *module, ToscState *state);
/* What a copy of a FileBackend takes over beside the backend. */
void file_backend_copy(BackendObject *to, BackendObject *from);
/* A FileBackend over a backend that is there already. */
PyObject *file_backend_wrap(tosc_backend *backend, const char *file_path,
                            const tosc_file_options *options);

/* ---- ceph_backend.c ---- */

int ceph_backend_init(PyObject *module, ToscState *state);
void ceph_backend_copy(BackendObject *to, BackendObject *from);

/* ---- c_backend.c ---- */

int c_backend_init(PyObject *module, ToscState *state);

#endif
