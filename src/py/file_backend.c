/*
 * FileBackend: its arguments, its attributes, how it is shown, copied and pickled.
 *
 * All paths are made absolute when the object is made, so that a later chdir() or another
 * process means the same file.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backend_object.h"

#include <stdlib.h>
#include <unistd.h>

typedef struct FileObject {
    BackendObject base;
    PyObject *lock_path; /* str, absolute */
    char durable;
    char shared_by_hosts;
    double poll_interval;
} FileObject;

PyObject *
backend_absolute_path(PyObject *given, const char *argument)
{
    PyObject *encoded = NULL;
    PyObject *result = NULL;
    PyObject *path = PyOS_FSPath(given);
    if (path == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError,
                         "%s must be str, bytes or os.PathLike, not '%.200s'", argument,
                         Py_TYPE(given)->tp_name);
        }
        return NULL;
    }
    int converted = PyUnicode_FSConverter(path, &encoded);
    Py_DECREF(path);
    if (!converted) {
        if (PyErr_ExceptionMatches(PyExc_ValueError)
            && !PyErr_ExceptionMatches(PyExc_UnicodeError)) {
            PyErr_Format(PyExc_ValueError, "%s must not contain a null character",
                         argument);
        }
        return NULL;
    }
    const char *text = PyBytes_AS_STRING(encoded);
    if (*text == '/') {
        result = PyUnicode_DecodeFSDefault(text);
    } else if (*text == '\0') {
        PyErr_Format(PyExc_ValueError, "%s must not be empty", argument);
    } else {
        char *cwd = getcwd(NULL, 0);
        PyObject *joined = cwd != NULL ? PyBytes_FromFormat("%s/%s", cwd, text) : NULL;
        if (cwd == NULL) {
            PyErr_SetFromErrno(tosc_state->StorageError);
        }
        free(cwd);
        if (joined != NULL) {
            result = PyUnicode_DecodeFSDefault(PyBytes_AS_STRING(joined));
            Py_DECREF(joined);
        }
    }
    Py_DECREF(encoded);
    return result;
}

/* ---- FileBackend ---- */

PyDoc_STRVAR(
    file_doc,
    "FileBackend(file_path, lock_path=None, *, durable=True, shared_by_hosts=False,\n"
    "            poll_interval=0.1)\n"
    "--\n"
    "\n"
    "A store in a regular file, shared by all processes that name the same file.\n"
    "\n"
    "The file is made by the first write, readable by its owner only; its\n"
    "directory must exist. What was stored survives a process that is killed at\n"
    "any moment.\n"
    "\n"
    "file_path        str, bytes or os.PathLike; a relative path is made absolute now.\n"
    "lock_path        The file whose lock orders the writers, the same for all who\n"
    "                 share the store. Default: file_path with '.lock' added.\n"
    "durable          True: what is stored survives power loss as well, as each change\n"
    "                 waits for the device. False: much faster.\n"
    "shared_by_hosts  True: other machines write to it too. A network filesystem\n"
    "                 that is recognised needs no saying.\n"
    "poll_interval    Longest pause in seconds between looks for changes, where the\n"
    "                 filesystem does not tell of them.\n"
    "\n"
    "An object can be pickled, so it can be sent to another process.");

static tosc_backend *
open_file_backend(const FileObject *self)
{
    tosc_backend *backend = NULL;
    PyObject *path = PyUnicode_EncodeFSDefault(self->base.file_path);
    PyObject *lock = PyUnicode_EncodeFSDefault(self->lock_path);
    if (path != NULL && lock != NULL) {
        tosc_file_options options = {
            .lock_path = PyBytes_AS_STRING(lock),
            .not_durable = !self->durable,
            .shared_by_hosts = self->shared_by_hosts,
            .poll_ms = (int)(self->poll_interval * 1e3),
        };
        int status = 0;
        CALL_CORE(status,
                  tosc_backend_file_new(PyBytes_AS_STRING(path), &options, &backend));
        check_status(status);
    }
    Py_XDECREF(path);
    Py_XDECREF(lock);
    return backend;
}

static int
set_paths(FileObject *self, PyObject *file_path, PyObject *lock_path)
{
    Py_XSETREF(self->base.file_path, backend_absolute_path(file_path, "file_path"));
    if (self->base.file_path == NULL) {
        return -1;
    }
    Py_XSETREF(self->lock_path,
               lock_path != Py_None
                   ? backend_absolute_path(lock_path, "lock_path")
                   : PyUnicode_FromFormat("%U.lock", self->base.file_path));
    if (self->lock_path == NULL) {
        return -1;
    }
    if (PyUnicode_Compare(self->base.file_path, self->lock_path) == 0) {
        PyErr_Format(PyExc_ValueError, "lock_path must not be the store's own file: %R",
                     lock_path);
        return -1;
    }
    return 0;
}

static int
set_poll_interval(FileObject *self, PyObject *given)
{
    if (given != NULL
        && backend_parse_seconds(given, "poll_interval", &self->poll_interval) < 0) {
        return -1;
    }
    if (self->poll_interval < 0.001 || self->poll_interval > 3600) {
        PyErr_Format(PyExc_ValueError,
                     "poll_interval must be from 0.001 to 3600 seconds: %R", given);
        return -1;
    }
    return 0;
}

static int
file_init(FileObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"file_path",       "lock_path",     "durable",
                            "shared_by_hosts", "poll_interval", NULL};
    PyObject *file_path = NULL;
    PyObject *lock_path = Py_None;
    PyObject *poll_interval = NULL;
    int durable = 1;
    int shared_by_hosts = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O$ppO:FileBackend", names,
                                     &file_path, &lock_path, &durable, &shared_by_hosts,
                                     &poll_interval)) {
        return -1;
    }
    if (self->base.backend != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "FileBackend.__init__() was called twice");
        return -1;
    }
    self->durable = durable != 0;
    self->shared_by_hosts = shared_by_hosts != 0;
    self->poll_interval = 0.1;
    if (set_poll_interval(self, poll_interval) < 0
        || set_paths(self, file_path, lock_path) < 0) {
        return -1;
    }
    self->base.backend = open_file_backend(self);
    if (self->base.backend == NULL) {
        return -1;
    }
    return target_wait_start(&self->base);
}

static void
file_dealloc(FileObject *self)
{
    Py_CLEAR(self->lock_path);
    backend_object_dealloc(&self->base);
}

static PyObject *
file_repr(FileObject *self)
{
    PyObject *name = PyType_GetName(Py_TYPE(self));
    PyObject *usual = NULL;
    PyObject *lock = NULL;
    PyObject *result = NULL;
    if (self->base.backend == NULL || name == NULL) {
        result = name != NULL ? PyUnicode_FromFormat("<%U without a file>", name) : NULL;
        Py_XDECREF(name);
        return result;
    }
    usual = PyUnicode_FromFormat("%U.lock", self->base.file_path);
    if (usual != NULL) {
        lock = PyUnicode_Compare(usual, self->lock_path) == 0
                   ? PyUnicode_FromString("")
                   : PyUnicode_FromFormat(", %R", self->lock_path);
    }
    if (lock != NULL) {
        result =
            PyUnicode_FromFormat("%U(%R%U%s%s)", name, self->base.file_path, lock,
                                 self->durable ? "" : ", durable=False",
                                 self->shared_by_hosts ? ", shared_by_hosts=True" : "");
    }
    Py_XDECREF(lock);
    Py_XDECREF(usual);
    Py_DECREF(name);
    return result;
}

/* (the arguments of __init__, what a subclass has added) */
static PyObject *
file_getstate(FileObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->base.backend == NULL) {
        PyErr_SetString(PyExc_ValueError, "FileBackend.__init__() has not been called");
        return NULL;
    }
    PyObject *added = backend_subclass_state((PyObject *)self);
    if (added == NULL) {
        return NULL;
    }
    return Py_BuildValue("{s:O,s:O,s:N,s:N,s:d,s:N}", "file_path", self->base.file_path,
                         "lock_path", self->lock_path, "durable",
                         PyBool_FromLong(self->durable), "shared_by_hosts",
                         PyBool_FromLong(self->shared_by_hosts), "poll_interval",
                         self->poll_interval, "subclass", added);
}

static PyObject *
file_setstate(FileObject *self, PyObject *state)
{
    return backend_init_from_state((PyObject *)self, (initproc)file_init, state) < 0
               ? NULL
               : Py_NewRef(Py_None);
}

static PyMethodDef file_methods[] = {
    NATIVE_METHODS,
    {"__getstate__", (PyCFunction)file_getstate, METH_NOARGS, "What pickle stores."},
    {"__setstate__", (PyCFunction)file_setstate, METH_O,
     "Open the file that was pickled."},
    {NULL},
};

static PyMemberDef file_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(BackendObject, weakrefs), READONLY, NULL},
    {"file_path", T_OBJECT, offsetof(BackendObject, file_path), READONLY,
     "The store's file, an absolute path."},
    {"lock_path", T_OBJECT, offsetof(FileObject, lock_path), READONLY,
     "The file whose lock orders the writers, an absolute path."},
    {"durable", T_BOOL, offsetof(FileObject, durable), READONLY,
     "Whether each change waits for the device."},
    {"shared_by_hosts", T_BOOL, offsetof(FileObject, shared_by_hosts), READONLY,
     "Whether other machines are said to write to the file."},
    {"poll_interval", T_DOUBLE, offsetof(FileObject, poll_interval), READONLY,
     "Longest pause in seconds between looks for changes."},
    {NULL},
};

static PyType_Slot file_slots[] = {
    {Py_tp_doc, (void *)file_doc},
    {Py_tp_init, file_init},
    {Py_tp_dealloc, file_dealloc},
    {Py_tp_repr, file_repr},
    {Py_tp_methods, file_methods},
    {Py_tp_members, file_members},
    {0, NULL},
};

static PyType_Spec file_spec = {
    .name = "tosc.FileBackend",
    .basicsize = sizeof(FileObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = file_slots,
};

/* ---- the module's part ---- */

void
file_backend_copy(BackendObject *to, BackendObject *from)
{
    FileObject *copy = (FileObject *)to;
    const FileObject *self = (FileObject *)from;
    copy->base.file_path = Py_NewRef(self->base.file_path);
    copy->lock_path = Py_NewRef(self->lock_path);
    copy->durable = self->durable;
    copy->shared_by_hosts = self->shared_by_hosts;
    copy->poll_interval = self->poll_interval;
}

PyObject *
file_backend_wrap(tosc_backend *backend, const char *file_path,
                  const tosc_file_options *options)
{
    PyTypeObject *type = tosc_state->FileBackend_Type;
    FileObject *self = (FileObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->durable = !options->not_durable;
    self->shared_by_hosts = options->shared_by_hosts;
    self->poll_interval = options->poll_ms / 1e3;
    self->base.file_path = PyUnicode_DecodeFSDefault(file_path);
    self->lock_path = PyUnicode_DecodeFSDefault(options->lock_path);
    if (self->base.file_path == NULL || self->lock_path == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    self->base.backend = tosc_backend_ref(backend);
    return (PyObject *)self;
}

int
file_backend_init(PyObject *module, ToscState *state)
{
    return tosc_add_type(module, &state->FileBackend_Type, &file_spec,
                         state->BackendBase_Type, "FileBackend");
}
