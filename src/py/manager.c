/*
 * Manager: the Python type, opening and closing. What it does is done in stored.c, sync.c,
 * graph.c and transaction.c; here are the arguments of its methods.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backends.h"
#include "codec.h"
#include "errors.h"
#include "manager.h"
#include "state.h"

/* ---- opening and closing ---- */

static int
set_key(Manager *m, PyObject *key)
{
    if (key == NULL || key == Py_None) {
        return 0;
    }
    if (!PyObject_CheckBuffer(key)) {
        PyErr_Format(PyExc_TypeError, "key must be a bytes-like object, not %.100s",
                     Py_TYPE(key)->tp_name);
        return -1;
    }
    m->key = PyBytes_FromObject(key);
    if (m->key != NULL && PyBytes_GET_SIZE(m->key) == 0) {
        PyErr_SetString(PyExc_ValueError, "key must not be empty");
        return -1;
    }
    return m->key == NULL ? -1 : 0;
}

int
manager_open(Manager *m, PyObject *backend, PyObject *key, PyObject *allowed)
{
    if (set_key(m, key) < 0) {
        return -1;
    }
    if (allowed != NULL && allowed != Py_None
        && (m->allowed = codec_allowed(allowed)) == NULL) {
        return -1;
    }
    m->backend = tosc_backend_of(backend);
    if (m->backend == NULL) {
        return -1;
    }
    m->backend_object = Py_NewRef(backend);
    m->ops = tosc_backend_ops(m->backend);
    m->impl = tosc_backend_impl(m->backend);
    if (watcher_start(m) < 0) {
        return -1;
    }
    m->closed = false;
    live_join(m);
    return 0;
}

void
manager_close(Manager *m)
{
    if (m->closed) {
        return;
    }
    m->closed = true;
    live_stop_watching(m, true);
    if (!m->turn_taken && m->open_transactions == 0) {
        graph_release(m);
    }
}

static PyObject *
manager_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Manager *m = (Manager *)type->tp_alloc(type, 0);
    if (m == NULL) {
        return NULL;
    }
    m->closed = true; /* until it has a backend */
    m->fork_generation = tosc_fork_generation;
    if (graph_init(m) < 0) {
        Py_DECREF(m);
        return NULL;
    }
    return (PyObject *)m;
}

static int
manager_init_object(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"backend", "key", "allowed_classes", NULL};
    Manager *m = (Manager *)op;
    PyObject *backend;
    PyObject *key = NULL;
    PyObject *allowed = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OO:Manager", names, &backend, &key,
                                     &allowed)) {
        return -1;
    }
    if (m->backend != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a Manager can be initialised only once");
        return -1;
    }
    return manager_open(m, backend, key, allowed);
}

static int
manager_traverse(PyObject *op, visitproc visit, void *arg)
{
    Manager *m = (Manager *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(m->backend_object);
    Py_VISIT(m->allowed);
    for (Py_ssize_t i = 0; i < m->drops.count; i++) {
        Py_VISIT(m->drops.items[i]);
    }
    return graph_traverse(m, visit, arg);
}

static int
manager_clear(PyObject *op)
{
    Manager *m = (Manager *)op;
    m->closed = true;
    /* The garbage collector may be at work: nothing is waited for. */
    live_stop_watching(m, false);
    graph_free(m);
    Py_CLEAR(m->backend_object);
    Py_CLEAR(m->allowed);
    return 0;
}

static void
manager_dealloc(PyObject *op)
{
    Manager *m = (Manager *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (m->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    live_leave(m);
    manager_clear(op);
    deltas_clear(&m->spent);
    reflist_clear(&m->drops);
    Py_CLEAR(m->key);
    Py_CLEAR(m->chain);
    if (m->backend != NULL) {
        Py_BEGIN_ALLOW_THREADS /* its end may wait for whatever it likes */
        tosc_backend_unref(m->backend);
        Py_END_ALLOW_THREADS
    }
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- reading ---- */

/* What a reading function has given (1, 0 nothing is stored, -1), as a method's result. */
static PyObject *
result_or_default(int stored, PyObject *root, PyObject *fallback, const char *name)
{
    if (stored != 0) {
        return stored < 0 ? NULL : root;
    }
    if (fallback != NULL) {
        return Py_NewRef(fallback);
    }
    return tosc_raise_format(
        tosc_state->EmptyStoreError,
        "nothing is stored yet: write something first, or give %s() a default", name);
}

/* The one argument that a method may have, by position or by its name; borrowed. */
static int
one_argument(PyObject *const *args, Py_ssize_t nargs, PyObject *names, const char *method,
             const char *name, PyObject **ret)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    *ret = nargs + named > 0 ? args[0] : NULL;
    if (nargs + named > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument (%zd given)", method,
                     nargs + named);
        return -1;
    }
    if (named > 0
        && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), name) != 0) {
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R",
                     method, PyTuple_GET_ITEM(names, 0));
        return -1;
    }
    return 0;
}

static int
needed_argument(PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                const char *method, const char *name, PyObject **ret)
{
    if (one_argument(args, nargs, names, method, name, ret) < 0) {
        return -1;
    }
    if (*ret == NULL) {
        PyErr_Format(PyExc_TypeError, "%s() missing its argument '%s'", method, name);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(
    read_doc,
    "read($self, default=<unrepresentable>)\n--\n\n"
    "The stored object.\n\n"
    "The same object as last time while it is in the store, up to date. The store is\n"
    "asked only where there may be something new. On an empty store: the default, or\n"
    "EmptyStoreError if there is none.");

static PyObject *
manager_read(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *root = NULL;
    PyObject *fallback;
    if (one_argument(args, nargs, names, "read", "default", &fallback) < 0) {
        return NULL;
    }
    int stored = stored_read((Manager *)op, &root);
    return result_or_default(stored, root, fallback, "read");
}

PyDoc_STRVAR(
    refresh_doc,
    "refresh($self, default=<unrepresentable>)\n--\n\n"
    "Ask the store for what is new, then the same as read().\n\n"
    "Blocks until the store has answered. Inside a transaction the program goes on\n"
    "seeing the state as of its start.");

static PyObject *
manager_refresh(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *root = NULL;
    PyObject *fallback;
    if (one_argument(args, nargs, names, "refresh", "default", &fallback) < 0) {
        return NULL;
    }
    int stored = stored_refresh((Manager *)op, &root);
    return result_or_default(stored, root, fallback, "refresh");
}

PyDoc_STRVAR(snapshot_doc,
             "snapshot($self, default=<unrepresentable>)\n--\n\n"
             "A deep copy of the stored object in the original types.\n\n"
             "It is not distributed: changes to it stay with it. Taken at one version.");

static PyObject *
manager_snapshot(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *root = NULL;
    PyObject *fallback;
    if (one_argument(args, nargs, names, "snapshot", "default", &fallback) < 0) {
        return NULL;
    }
    int stored = stored_snapshot((Manager *)op, &root);
    return result_or_default(stored, root, fallback, "snapshot");
}

/* ---- writing ---- */

PyDoc_STRVAR(
    write_doc,
    "write($self, new)\n--\n\n"
    "Replace the stored object, whatever it is.\n\n"
    "Containers and custom objects are copied into their distributed forms, at any\n"
    "depth; read() gives these. Inside a transaction the replacement is part of it.\n"
    "Outside of one it does not fail because of others: the last writer wins. Blocks "
    "until\n"
    "it is stored. SerializationError or TypeError: something in it cannot be stored;\n"
    "StorageError: the store failed; nothing has changed then.");

static PyObject *
manager_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *value;
    if (needed_argument(args, nargs, names, "write", "new", &value) < 0
        || stored_write((Manager *)op, value) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    try_write_doc,
    "try_write($self, new, expected)\n--\n\n"
    "Replace the stored object if its version is `expected` (None: if nothing is\n"
    "stored). Returns whether it was replaced.\n\n"
    "Blocks until the store has answered. Raises the errors of write().");

/* `expected` as a version. One that does not fit becomes one that no store ever has. */
static int
parse_version(PyObject *expected, int64_t *ret)
{
    if (!PyLong_Check(expected)) {
        PyErr_Format(PyExc_TypeError, "expected must be an int or None, not %.100s",
                     Py_TYPE(expected)->tp_name);
        return -1;
    }
    int overflow;
    long long version = PyLong_AsLongLongAndOverflow(expected, &overflow);
    *ret = overflow ? TOSC_VERSION_UNKNOWN : version;
    return 0;
}

static PyObject *
manager_try_write(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"new", "expected", NULL};
    PyObject *value;
    PyObject *expected;
    int64_t version = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:try_write", names, &value,
                                     &expected)
        || (expected != Py_None && parse_version(expected, &version) < 0)) {
        return NULL;
    }
    int written =
        stored_try_write((Manager *)op, value, expected != Py_None ? &version : NULL);
    return written < 0 ? NULL : PyBool_FromLong(written);
}

/* ---- questions ---- */

/* What is_linked and is_dirty ask of a distributed object. */
static PyObject *
ask(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
    const char *method, int (*question)(Manager *, DObject *))
{
    PyObject *object;
    if (needed_argument(args, nargs, names, method, "obj", &object) < 0) {
        return NULL;
    }
    if (!dobject_check(object)) {
        PyErr_Format(PyExc_TypeError,
                     "%s() argument must be a distributed object, not %.100s", method,
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    int answer = question((Manager *)op, (DObject *)object);
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

PyDoc_STRVAR(
    is_linked_doc,
    "is_linked($self, obj)\n--\n\n"
    "Whether a distributed object is in this Manager's store.\n\n"
    "False for one that was removed from the container that held it (it keeps its\n"
    "contents, and changes to it are local), was never stored, or belongs to another\n"
    "Manager. Inside a transaction: as the transaction sees it.");

static PyObject *
manager_is_linked(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return ask(op, args, nargs, names, "is_linked", stored_is_linked);
}

PyDoc_STRVAR(
    is_dirty_doc,
    "is_dirty($self, obj)\n--\n\n"
    "Whether the transaction that is open in this context has changed the object.\n\n"
    "Always false outside of a transaction: changes are then stored at once.");

static PyObject *
manager_is_dirty(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return ask(op, args, nargs, names, "is_dirty", stored_is_dirty);
}

/* ---- the rest ---- */

PyDoc_STRVAR(transaction_doc,
             "transaction($self, /)\n--\n\n"
             "A new transaction, to be used by 'with'. See Transaction.");

static PyObject *
manager_transaction(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (sync_enter((Manager *)op) < 0) {
        return NULL;
    }
    return (PyObject *)transaction_new((Manager *)op);
}

PyDoc_STRVAR(
    close_doc,
    "close($self, /)\n--\n\n"
    "Stop watching the store. May be called again.\n\n"
    "Objects that were read remain readable; changing them, and all other methods of\n"
    "the Manager, raise ClosedError. Waits for the watcher thread to end.");

static PyObject *
manager_close_method(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    manager_close((Manager *)op);
    Py_RETURN_NONE;
}

static PyObject *
manager_enter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return sync_enter((Manager *)op) < 0 ? NULL : Py_NewRef(op);
}

static PyObject *
manager_exit(PyObject *op, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return manager_close_method(op, NULL);
}

static PyObject *
manager_get_version(PyObject *op, void *Py_UNUSED(closure))
{
    int64_t version;
    int stored = stored_version((Manager *)op, &version);
    if (stored <= 0) {
        return stored < 0 ? NULL : Py_NewRef(Py_None);
    }
    return PyLong_FromLongLong(version);
}

static PyObject *
manager_get_backend(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *backend = ((Manager *)op)->backend_object;
    return Py_NewRef(backend != NULL ? backend : Py_None);
}

static PyObject *
manager_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Manager *)op)->closed);
}

static PyObject *
manager_repr(PyObject *op)
{
    Manager *m = (Manager *)op;
    return PyUnicode_FromFormat("<%s of %R%s>", Py_TYPE(op)->tp_name,
                                m->backend_object != NULL ? m->backend_object : Py_None,
                                m->closed ? ", closed" : "");
}

PyDoc_STRVAR(
    manager_doc,
    "Manager(backend, *, key=None, allowed_classes=None)\n--\n\n"
    "Keeps an object, and all that is in it, in a store that others share.\n\n"
    "backend: where the bytes are kept: an InprocBackend, a FileBackend, or any object\n"
    "with the four methods of BackendBase. It may serve several Managers.\n"
    "key: bytes; every record is then authenticated with it before it is decoded, and\n"
    "data that were written without it are refused (DataError).\n"
    "allowed_classes: classes, or 'module.name' strings; stored data that need any\n"
    "other class are refused (SerializationError) and nothing of them is run. Without\n"
    "it whoever can write to the store can run code in this process, as with pickle.\n\n"
    "A thread in the background sees what others commit. close(), or a 'with' block,\n"
    "ends it. All methods may be called from any thread.");

static PyMethodDef manager_methods[] = {
    {"read", (PyCFunction)(void (*)(void))manager_read, METH_FASTCALL | METH_KEYWORDS,
     read_doc},
    {"refresh", (PyCFunction)(void (*)(void))manager_refresh,
     METH_FASTCALL | METH_KEYWORDS, refresh_doc},
    {"snapshot", (PyCFunction)(void (*)(void))manager_snapshot,
     METH_FASTCALL | METH_KEYWORDS, snapshot_doc},
    {"write", (PyCFunction)(void (*)(void))manager_write, METH_FASTCALL | METH_KEYWORDS,
     write_doc},
    {"try_write", (PyCFunction)(void (*)(void))manager_try_write,
     METH_VARARGS | METH_KEYWORDS, try_write_doc},
    {"transaction", manager_transaction, METH_NOARGS, transaction_doc},
    {"is_linked", (PyCFunction)(void (*)(void))manager_is_linked,
     METH_FASTCALL | METH_KEYWORDS, is_linked_doc},
    {"is_dirty", (PyCFunction)(void (*)(void))manager_is_dirty,
     METH_FASTCALL | METH_KEYWORDS, is_dirty_doc},
    {"close", manager_close_method, METH_NOARGS, close_doc},
    {"__enter__", manager_enter, METH_NOARGS, "The Manager itself."},
    {"__exit__", (PyCFunction)(void (*)(void))manager_exit, METH_FASTCALL, "Close it."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef manager_getset[] = {
    {"version", manager_get_version, NULL,
     "The version of the state that this context sees: an int, or None if nothing is "
     "stored.",
     NULL},
    {"backend", manager_get_backend, NULL, "The backend that it was made with.", NULL},
    {"closed", manager_get_closed, NULL, "Whether close() was called.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef manager_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Manager, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot manager_slots[] = {
    {Py_tp_doc, (void *)manager_doc},
    {Py_tp_new, manager_new},
    {Py_tp_init, manager_init_object},
    {Py_tp_dealloc, manager_dealloc},
    {Py_tp_traverse, manager_traverse},
    {Py_tp_clear, manager_clear},
    {Py_tp_repr, manager_repr},
    {Py_tp_methods, manager_methods},
    {Py_tp_getset, manager_getset},
    {Py_tp_members, manager_members},
    {0, NULL},
};

static PyType_Spec manager_spec = {
    .name = "tosc.Manager",
    .basicsize = sizeof(Manager),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = manager_slots,
};

int
manager_init(PyObject *module, ToscState *state)
{
    if (live_init() < 0) {
        return -1;
    }
    return tosc_add_type(module, &state->Manager_Type, &manager_spec, NULL, "Manager");
}
