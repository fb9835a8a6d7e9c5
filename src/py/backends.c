/*
 * BackendBase, InprocBackend, and the methods that FileBackend and CephBackend have as well:
 * stores as Python sees them.
 *
 * BackendBase only says what a backend has to offer; it has no state, so that a Python
 * class can derive from it without calling anything. The others are handles of a
 * backend of core (`backend`), which copies share. They do no more than convert
 * arguments and results: each call takes a reference to the backend, releases the GIL,
 * and repeats the call when a signal ended it and its handler raised nothing.
 *
 * What core writes must not change meanwhile, so data that are not bytes are copied
 * first.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backend_object.h"

#include <math.h>

tosc_backend *
backend_object_take(BackendObject *self)
{
    if (self->backend == NULL) {
        PyErr_Format(PyExc_ValueError, "%s.__init__() has not been called",
                     Py_TYPE(self)->tp_name);
        return NULL;
    }
    return tosc_backend_ref(self->backend);
}

PyTypeObject *
backend_native_type(PyObject *object)
{
    PyTypeObject *types[] = {tosc_state->InprocBackend_Type, tosc_state->FileBackend_Type,
                             tosc_state->CephBackend_Type, tosc_state->CBackend_Type};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (PyObject_TypeCheck(object, types[i])) {
            return types[i];
        }
    }
    return NULL;
}

tosc_backend *
tosc_backend_native(PyObject *object)
{
    return backend_native_type(object) != NULL ? ((BackendObject *)object)->backend
                                               : NULL;
}

/* ---- arguments ---- */

/* The data that a method was given, as bytes that nobody can change. */
static PyObject *
stable_bytes(PyObject *data, const char *method)
{
    Py_buffer view;
    if (PyBytes_CheckExact(data)) {
        return Py_NewRef(data);
    }
    if (!PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError,
                     "%s() argument 'new' must be bytes-like, not '%.200s'", method,
                     Py_TYPE(data)->tp_name);
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        if (PyErr_ExceptionMatches(PyExc_BufferError)) {
            PyErr_Format(PyExc_TypeError, "%s() argument 'new' must be C-contiguous",
                         method);
        }
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(view.buf, view.len);
    PyBuffer_Release(&view);
    return bytes;
}

enum expectation { EXPECT_EMPTY, EXPECT_VERSION, EXPECT_IMPOSSIBLE };

/* What `expected` asks for: an enum expectation, or -1. */
static int
parse_expected(PyObject *expected, int64_t *ret_version)
{
    int overflow = 0;
    if (expected == Py_None) {
        return EXPECT_EMPTY;
    }
    if (!PyLong_Check(expected)) {
        PyErr_Format(PyExc_TypeError,
                     "try_write() argument 'expected' must be int or None, not '%.200s'",
                     Py_TYPE(expected)->tp_name);
        return -1;
    }
    long long version = PyLong_AsLongLongAndOverflow(expected, &overflow);
    if (version == -1 && PyErr_Occurred()) {
        return -1;
    }
    *ret_version = version;
    return overflow != 0 ? EXPECT_IMPOSSIBLE : EXPECT_VERSION;
}

int
backend_parse_seconds(PyObject *given, const char *argument, double *ret_seconds)
{
    if (!PyFloat_Check(given) && !PyIndex_Check(given)) {
        PyErr_Format(PyExc_TypeError, "%s must be a number of seconds, not '%.200s'",
                     argument, Py_TYPE(given)->tp_name);
        return -1;
    }
    double seconds = PyFloat_AsDouble(given);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds) || seconds < 0) {
        PyErr_Format(PyExc_ValueError, "%s must not be negative: %R", argument, given);
        return -1;
    }
    *ret_seconds = seconds;
    return 0;
}

/* ---- BackendBase ---- */

PyDoc_STRVAR(
    base_doc,
    "The base class of all backends: where the data of a store are kept.\n"
    "\n"
    "A backend holds one piece of data (bytes) and its version, an int that is\n"
    "another one after each change. It replaces both at once, so that nobody sees\n"
    "the one without the other, and can do so on condition that the version is\n"
    "still the one that the caller knows. Several Managers and threads may use\n"
    "one at a time.\n"
    "\n"
    "To write one in Python, derive from this class and define read, write,\n"
    "try_write and target_wait as their docstrings say. Versions must fit in 64\n"
    "bits, and none may ever come back. An exception from try_write should mean\n"
    "that nothing was stored; where that is not certain, the Manager looks for\n"
    "its data before it reports a failure. A target_wait that has an argument\n"
    "`timeout` lets a Manager be closed at once; without it, its thread ends when\n"
    "target_wait next returns.");

const char backend_read_doc[] = PyDoc_STR(
    "read($self, /)\n--\n\n"
    "Return (version, data): what is stored, and the version of exactly these data.\n"
    "\n"
    "An empty store gives (None, None). The data are bytes (a Python backend may\n"
    "also return bytearray or memoryview). Takes no lock, so does not wait for\n"
    "writers. Raises StorageError, or DataError if the stored data are damaged.");

const char backend_write_doc[] = PyDoc_STR(
    "write($self, /, new)\n--\n\n"
    "Replace what is stored, whatever it is, by the bytes-like `new`, atomically.\n"
    "\n"
    "Returns the new version, an int. Waits for other writers. Raises StorageError,\n"
    "and then what was stored before is stored still.");

const char backend_try_write_doc[] = PyDoc_STR(
    "try_write($self, /, new, expected)\n"
    "--\n"
    "\n"
    "Replace what is stored by `new` only if its version is `expected`,\n"
    "atomically.\n"
    "\n"
    "`expected` is an int that read or write has returned, or None for a store\n"
    "that must be empty. Returns True if `new` was stored, False if the version\n"
    "is another one, in which case nothing has changed. Waits for other writers.\n"
    "Raises StorageError, and then what was stored before is stored still.");

const char backend_target_wait_doc[] = PyDoc_STR(
    "target_wait($self, /, timeout=None)\n--\n\n"
    "Wait until the store changes. Returns True if it did, False after `timeout`\n"
    "seconds (None: no limit).\n"
    "\n"
    "A change is anything that gives another version, also by this very object, since\n"
    "its last target_wait returned True, or since the object was made: so nothing that\n"
    "happens between two calls is missed. Rarely True comes without a change. Several\n"
    "threads may wait at a time, and each is told. Other threads go on meanwhile, and\n"
    "Ctrl-C interrupts it. A Manager calls it from a thread of its own.");

static PyObject *
not_implemented(PyObject *self, const char *method)
{
    PyErr_Format(PyExc_NotImplementedError,
                 "%.200s does not define %s(): a backend has to define read, write, "
                 "try_write and target_wait",
                 Py_TYPE(self)->tp_name, method);
    return NULL;
}

#define BASE_METHOD(name) \
    static PyObject *base_##name(PyObject *self, PyObject *Py_UNUSED(args), \
                                 PyObject *Py_UNUSED(kwargs)) \
    { \
        return not_implemented(self, #name); \
    }

BASE_METHOD(read)
BASE_METHOD(write)
BASE_METHOD(try_write)
BASE_METHOD(target_wait)

static PyMethodDef base_methods[] = {
    WITH_KEYWORDS("read", base_read, backend_read_doc),
    WITH_KEYWORDS("write", base_write, backend_write_doc),
    WITH_KEYWORDS("try_write", base_try_write, backend_try_write_doc),
    WITH_KEYWORDS("target_wait", base_target_wait, backend_target_wait_doc),
    {NULL},
};

static PyType_Slot base_slots[] = {
    {Py_tp_doc, (void *)base_doc},
    {Py_tp_methods, base_methods},
    {0, NULL},
};

static PyType_Spec base_spec = {
    .name = "tosc.BackendBase",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = base_slots,
};

/* ---- read, write, try_write ---- */

static PyObject *
data_as_tuple(const tosc_data *data)
{
    if (!data->at.stored) {
        return PyTuple_Pack(2, Py_None, Py_None);
    }
    const tosc_blob *blob = data->bytes;
    return Py_BuildValue("(Ly#)", (long long)data->at.version,
                         blob != NULL ? (const char *)blob->data : "",
                         blob != NULL ? (Py_ssize_t)blob->size : 0);
}

PyObject *
native_read(BackendObject *self, PyObject *Py_UNUSED(ignored))
{
    tosc_data data = {0};
    int status = 0;
    tosc_backend *backend = backend_object_take(self);
    if (backend == NULL) {
        return NULL;
    }
    CALL_CORE(status, tosc_backend_ops(backend)->read(tosc_backend_impl(backend), &data));
    tosc_backend_unref(backend);
    if (status < 0) {
        check_status(status);
        return NULL;
    }
    PyObject *result = data_as_tuple(&data);
    tosc_blob_unref(data.bytes);
    return result;
}

PyObject *
native_write(BackendObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"new", NULL};
    PyObject *given = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:write", names, &given)) {
        return NULL;
    }
    tosc_backend *backend = backend_object_take(self);
    PyObject *bytes = backend != NULL ? stable_bytes(given, "write") : NULL;
    if (bytes == NULL) {
        tosc_backend_unref(backend);
        return NULL;
    }
    tosc_position at = {0};
    int status = 0;
    CALL_CORE(status, tosc_backend_ops(backend)->write(
                          tosc_backend_impl(backend), NULL, PyBytes_AS_STRING(bytes),
                          (size_t)PyBytes_GET_SIZE(bytes), &at));
    tosc_backend_unref(backend);
    Py_DECREF(bytes);
    return check_status(status) < 0 ? NULL : PyLong_FromLongLong(at.version);
}

PyObject *
native_try_write(BackendObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"new", "expected", NULL};
    PyObject *given = NULL;
    PyObject *expected = NULL;
    int64_t version = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:try_write", names, &given,
                                     &expected)) {
        return NULL;
    }
    int expectation = parse_expected(expected, &version);
    tosc_backend *backend = expectation >= 0 ? backend_object_take(self) : NULL;
    PyObject *bytes = backend != NULL ? stable_bytes(given, "try_write") : NULL;
    if (bytes == NULL) {
        tosc_backend_unref(backend);
        return NULL;
    }
    tosc_position at = {0};
    int status = TOSC_ECONFLICT;
    if (expectation != EXPECT_IMPOSSIBLE) {
        CALL_CORE(status,
                  tosc_backend_ops(backend)->try_write(
                      tosc_backend_impl(backend), NULL, PyBytes_AS_STRING(bytes),
                      (size_t)PyBytes_GET_SIZE(bytes),
                      expectation == EXPECT_VERSION ? &version : NULL, NULL, &at));
    }
    tosc_backend_unref(backend);
    Py_DECREF(bytes);
    if (status == TOSC_ECONFLICT) {
        Py_RETURN_FALSE;
    }
    return check_status(status) < 0 ? NULL : Py_NewRef(Py_True);
}

/* ---- handles: making, copying, freeing ---- */

void
backend_object_dealloc(BackendObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (self->backend != NULL) {
        Py_BEGIN_ALLOW_THREADS
        tosc_backend_unref(self->backend);
        Py_END_ALLOW_THREADS
    }
    Py_XDECREF(self->file_path);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *
backend_subclass_state(PyObject *self)
{
    return PyObject_CallMethod((PyObject *)&PyBaseObject_Type, "__getstate__", "O", self);
}

static int
set_attributes(PyObject *self, PyObject *attributes)
{
    PyObject *name = NULL;
    PyObject *value = NULL;
    Py_ssize_t pos = 0;
    if (attributes == Py_None) {
        return 0;
    }
    if (!PyDict_Check(attributes)) {
        PyErr_SetString(PyExc_TypeError, "the state of a backend is no dict");
        return -1;
    }
    PyObject *copy = PyDict_Copy(attributes); /* setting may run code that changes it */
    int status = copy == NULL ? -1 : 0;
    while (status == 0 && PyDict_Next(copy, &pos, &name, &value)) {
        status = PyObject_SetAttr(self, name, value);
    }
    Py_XDECREF(copy);
    return status;
}

int
backend_set_subclass_state(PyObject *self, PyObject *state)
{
    if (!PyTuple_Check(state) || PyTuple_GET_SIZE(state) != 2) {
        return set_attributes(self, state);
    }
    if (set_attributes(self, PyTuple_GET_ITEM(state, 0)) < 0) {
        return -1;
    }
    return set_attributes(self, PyTuple_GET_ITEM(state, 1));
}

int
backend_init_from_state(PyObject *self, initproc init, PyObject *given)
{
    PyObject *added = NULL;
    if (!PyDict_Check(given)) {
        PyErr_Format(PyExc_TypeError, "the state of a %.200s is no dict",
                     Py_TYPE(self)->tp_name);
        return -1;
    }
    PyObject *state = PyDict_Copy(given);
    PyObject *no_args = PyTuple_New(0);
    PyObject *key = PyUnicode_FromString("subclass");
    int status = state != NULL && no_args != NULL && key != NULL ? 0 : -1;
    if (status == 0) {
        status = tosc_dict_get(state, key, &added);
    }
    if (status > 0) {
        status = PyDict_DelItem(state, key);
    }
    if (status == 0) {
        status = init(self, no_args, state);
    }
    if (status == 0 && added != NULL) {
        status = backend_set_subclass_state(self, added);
    }
    Py_XDECREF(added);
    Py_XDECREF(key);
    Py_XDECREF(no_args);
    Py_XDECREF(state);
    return status;
}

const char backend_copy_doc[] = PyDoc_STR(
    "copy($self, /)\n--\n\n"
    "Return another object for the same store. It has a target_wait of its own.");

PyObject *
native_copy(BackendObject *self, PyObject *Py_UNUSED(ignored))
{
    PyTypeObject *type = Py_TYPE(self);
    tosc_backend *backend = backend_object_take(self);
    if (backend == NULL) {
        return NULL;
    }
    BackendObject *copy = (BackendObject *)type->tp_alloc(type, 0);
    if (copy == NULL) {
        tosc_backend_unref(backend);
        return NULL;
    }
    copy->backend = backend;
    if (PyObject_TypeCheck(self, tosc_state->FileBackend_Type)) {
        file_backend_copy(copy, self);
    } else if (PyObject_TypeCheck(self, tosc_state->CephBackend_Type)) {
        ceph_backend_copy(copy, self);
    }
    PyObject *state = NULL;
    if (target_wait_start(copy) == 0) {
        state = backend_subclass_state((PyObject *)self);
    }
    if (state == NULL || backend_set_subclass_state((PyObject *)copy, state) < 0) {
        Py_CLEAR(copy);
    }
    Py_XDECREF(state);
    return (PyObject *)copy;
}

/* ---- InprocBackend ---- */

PyDoc_STRVAR(
    inproc_doc,
    "InprocBackend()\n--\n\n"
    "A store in the memory of this process.\n"
    "\n"
    "It is shared by the Managers that are given the same object, or copies of it, in\n"
    "any threads: so complex data can be changed atomically without locks. Nothing\n"
    "is kept when the process ends, and other processes do not see it (a fork has\n"
    "a store of its own from then on). It cannot be pickled.");

static PyObject *
inproc_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    bool has_arguments =
        PyTuple_GET_SIZE(args) > 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0);
    if (has_arguments && type->tp_init == PyBaseObject_Type.tp_init) {
        PyErr_Format(PyExc_TypeError, "%s() takes no arguments", type->tp_name);
        return NULL;
    }
    BackendObject *self = (BackendObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    if (tosc_raise(tosc_backend_inproc_new(&self->backend)) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->has_seen = true; /* and there is nothing in it */
    return (PyObject *)self;
}

static PyObject *
inproc_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_Format(
        PyExc_TypeError,
        "cannot pickle %s: its store lives in this process only; use a FileBackend to "
        "share data with other processes",
        Py_TYPE(self)->tp_name);
    return NULL;
}

static PyMethodDef inproc_methods[] = {
    NATIVE_METHODS,
    {"__reduce__", inproc_reduce, METH_NOARGS,
     "Refuses: the store lives in this process only."},
    {NULL},
};

static PyMemberDef native_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(BackendObject, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot inproc_slots[] = {
    {Py_tp_doc, (void *)inproc_doc},         {Py_tp_new, inproc_new},
    {Py_tp_dealloc, backend_object_dealloc}, {Py_tp_methods, inproc_methods},
    {Py_tp_members, native_members},         {0, NULL},
};

static PyType_Spec inproc_spec = {
    .name = "tosc.InprocBackend",
    .basicsize = sizeof(BackendObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = inproc_slots,
};

/* ---- the module's part ---- */

int
backends_init(PyObject *module, ToscState *state)
{
    signals_install();
    if (tosc_add_type(module, &state->BackendBase_Type, &base_spec, NULL, "BackendBase")
            < 0
        || tosc_add_type(module, &state->InprocBackend_Type, &inproc_spec,
                         state->BackendBase_Type, "InprocBackend")
               < 0) {
        return -1;
    }
    if (file_backend_init(module, state) < 0 || ceph_backend_init(module, state) < 0) {
        return -1;
    }
    return c_backend_init(module, state);
}
