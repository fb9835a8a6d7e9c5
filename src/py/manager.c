/*
 * Manager, the Python type. What it does is done in sync.c, graph.c and transaction.c; here
 * are its arguments.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backends.h"
#include "codec.h"
#include "errors.h"
#include "manager.h"
#include "state.h"
#include "wrap.h"

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
    tosc_backend_unref(m->backend);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- reading ---- */

/* The root as this context sees it: 1, 0 empty, -1. */
static int
get_root(Manager *m, PyObject **ret)
{
    PyObject *view = dobject_view(m->cell);
    if (view == NULL) {
        return -1;
    }
    int stored = PyList_GET_SIZE(view) > 0;
    if (stored) {
        *ret = Py_NewRef(PyList_GET_ITEM(view, 0));
    }
    Py_DECREF(view);
    return stored;
}

static PyObject *
root_or_default(Manager *m, PyObject *fallback, const char *name)
{
    PyObject *root;
    int stored = get_root(m, &root);
    if (stored != 0) {
        return stored < 0 ? NULL : root;
    }
    if (fallback != NULL) {
        return Py_NewRef(fallback);
    }
    return tosc_raise_format(
        tosc_state->EmptyStoreError,
        "nothing is stored yet: write something first, or give %s() a "
        "default",
        name);
}

static bool
in_transaction(Manager *m)
{
    return transaction_current(m) != NULL;
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

static int
up_to_date(Manager *m)
{
    return in_transaction(m) ? sync_enter(m) : sync_freshen(m);
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
    Manager *m = (Manager *)op;
    PyObject *fallback;
    if (one_argument(args, nargs, names, "read", "default", &fallback) < 0
        || up_to_date(m) < 0) {
        return NULL;
    }
    return root_or_default(m, fallback, "read");
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
    Manager *m = (Manager *)op;
    PyObject *fallback;
    if (one_argument(args, nargs, names, "refresh", "default", &fallback) < 0
        || sync_pull(m) < 0) {
        return NULL;
    }
    return root_or_default(m, fallback, "refresh");
}

PyDoc_STRVAR(snapshot_doc,
             "snapshot($self, default=<unrepresentable>)\n--\n\n"
             "A deep copy of the stored object in the original types.\n\n"
             "It is not distributed: changes to it stay with it. Taken at one version.");

static PyObject *
manager_snapshot(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Manager *m = (Manager *)op;
    PyObject *fallback;
    if (one_argument(args, nargs, names, "snapshot", "default", &fallback) < 0
        || up_to_date(m) < 0) {
        return NULL;
    }
    PyObject *root;
    int stored = get_root(m, &root);
    if (stored <= 0) {
        return stored < 0 ? NULL : root_or_default(m, fallback, "snapshot");
    }
    PyObject *plain = dobject_plain(root);
    Py_DECREF(root);
    return plain;
}

/* ---- writing ---- */

/* A list of one, the root to be. */
static PyObject *
adopt_root(Manager *m, PyObject *value)
{
    PyObject *adopted = dobject_adopt(m->cell, value);
    if (adopted == NULL) {
        return NULL;
    }
    PyObject *list = PyList_New(1);
    if (list == NULL) {
        Py_DECREF(adopted);
        return NULL;
    }
    PyList_SET_ITEM(list, 0, adopted);
    return list;
}

/* The turn is ours. */
static int
commit_root(Manager *m, PyObject *list)
{
    Change *change = change_new(m->cell, m->cell->state);
    int result = change == NULL ? -1 : change_add(change, OP_ASSIGN, 0, 0, list, NULL);
    if (result == 0) {
        result = sync_commit(m, change, &m->at, NULL);
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (change != NULL) {
        change_free(change);
    }
    PyErr_Restore(type, value, traceback);
    return result;
}

/* What is stored needs classes that are not here: it is replaced without being read. */
static int
overwrite(Manager *m, PyObject *value)
{
    PyErr_Clear();
    PyObject *list = adopt_root(m, value);
    if (list == NULL) {
        return -1;
    }
    int result = sync_lock_as_is(m, INT64_MAX);
    if (result == 0) {
        Change *change = change_new(m->cell, m->cell->state);
        result = change == NULL ? -1 : change_add(change, OP_ASSIGN, 0, 0, list, NULL);
        if (result == 0) {
            result = sync_overwrite(m, change);
        }
        if (change != NULL) {
            change_free(change);
        }
        sync_unlock(m);
    }
    Py_DECREF(list);
    return result;
}

static bool
is_conflict(void)
{
    PyObject *error = PyErr_Occurred();
    return error == tosc_state->TransactionError;
}

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
    Manager *m = (Manager *)op;
    PyObject *value;
    if (needed_argument(args, nargs, names, "write", "new", &value) < 0) {
        return NULL;
    }
    bool inside = transaction_current(m) != NULL;
    if ((inside ? sync_load(m) : sync_freshen(m)) < 0) {
        if (inside || PyErr_Occurred() != tosc_state->SerializationError
            || overwrite(m, value) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    PyObject *list = adopt_root(m, value);
    if (list == NULL) {
        return NULL;
    }
    int result;
    if (inside) {
        result = dobject_change(m->cell, OP_ASSIGN, 0, 0, list, NULL);
    } else {
        result = sync_enter(m) < 0 ? -1 : turn_take(m, INT64_MAX);
        if (result == 0) {
            result = commit_root(m, list);
            turn_release(m);
        }
        /* A conflict has made us catch up; the lock makes sure that it stays so. */
        while (result < 0 && is_conflict()) {
            PyErr_Clear();
            result = sync_lock(m, INT64_MAX);
            if (result == 0) {
                result = commit_root(m, list);
                sync_unlock(m);
            }
        }
    }
    Py_DECREF(list);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* 1: it is the expected version; 0: it is another. */
static int
version_is(const tosc_position *at, PyObject *expected)
{
    if (expected == Py_None || !at->stored) {
        return expected == Py_None && !at->stored;
    }
    int overflow;
    long long version = PyLong_AsLongLongAndOverflow(expected, &overflow);
    if (version == -1 && PyErr_Occurred()) {
        return -1;
    }
    return !overflow && version == at->version;
}

static int
try_write_now(Manager *m, PyObject *list, PyObject *expected)
{
    if (sync_enter(m) < 0 || turn_take(m, INT64_MAX) < 0) {
        return -1;
    }
    int result = sync_pull(m);
    if (result == 0) {
        result = version_is(&m->at, expected);
    }
    if (result == 1 && commit_root(m, list) < 0) {
        result = -1;
        if (is_conflict()) {
            PyErr_Clear();
            result = 0;
        }
    }
    turn_release(m);
    return result;
}

PyDoc_STRVAR(
    try_write_doc,
    "try_write($self, new, expected)\n--\n\n"
    "Replace the stored object if its version is `expected` (None: if nothing is\n"
    "stored). Returns whether it was replaced.\n\n"
    "Blocks until the store has answered. Raises the errors of write().");

static PyObject *
manager_try_write(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"new", "expected", NULL};
    Manager *m = (Manager *)op;
    PyObject *value;
    PyObject *expected;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:try_write", names, &value,
                                     &expected)) {
        return NULL;
    }
    if (expected != Py_None && !PyLong_Check(expected)) {
        PyErr_Format(PyExc_TypeError, "expected must be an int or None, not %.100s",
                     Py_TYPE(expected)->tp_name);
        return NULL;
    }
    if (sync_load(m) < 0) {
        return NULL;
    }
    PyObject *list = adopt_root(m, value);
    if (list == NULL) {
        return NULL;
    }
    Transaction *top = transaction_current(m);
    int result;
    if (top != NULL) {
        result = version_is(&top->at, expected);
        if (result == 1 && dobject_change(m->cell, OP_ASSIGN, 0, 0, list, NULL) < 0) {
            result = -1;
        }
    } else {
        result = try_write_now(m, list, expected);
    }
    Py_DECREF(list);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

/* ---- questions ---- */

static DObject *
wrapper_argument(PyObject *object, const char *name)
{
    if (!dobject_check(object)) {
        PyErr_Format(PyExc_TypeError,
                     "%s() argument must be a distributed object, not %.100s", name,
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return (DObject *)object;
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
    Manager *m = (Manager *)op;
    PyObject *arg;
    if (needed_argument(args, nargs, names, "is_linked", "obj", &arg) < 0) {
        return NULL;
    }
    DObject *object = wrapper_argument(arg, "is_linked");
    if (object == NULL || sync_enter(m) < 0) {
        return NULL;
    }
    if (object->manager != m) {
        Py_RETURN_FALSE;
    }
    Transaction *top = transaction_current(m);
    bool walk = m->suspects > 0
                || (top != NULL && (top->changes != NULL || top->start != m->seq));
    if (!walk) {
        return PyBool_FromLong(object->oid != 0);
    }
    int reached = graph_reaches(m, top, object);
    return reached < 0 ? NULL : PyBool_FromLong(reached);
}

PyDoc_STRVAR(
    is_dirty_doc,
    "is_dirty($self, obj)\n--\n\n"
    "Whether the transaction that is open in this context has changed the object.\n\n"
    "Always false outside of a transaction: changes are then stored at once.");

static PyObject *
manager_is_dirty(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Manager *m = (Manager *)op;
    PyObject *arg;
    if (needed_argument(args, nargs, names, "is_dirty", "obj", &arg) < 0) {
        return NULL;
    }
    DObject *object = wrapper_argument(arg, "is_dirty");
    if (object == NULL || sync_enter(m) < 0) {
        return NULL;
    }
    Transaction *top = object->manager == m ? transaction_current(m) : NULL;
    Change *change = top == NULL ? NULL : transaction_find(top, object);
    if (change != NULL && object->kind == KIND_OPAQUE && change->full != NULL) {
        PyObject *before = graph_state_at(object, top->start);
        PyObject *settled = opaque_settle(object, before, change->full);
        if (settled == NULL) {
            return NULL;
        }
        Py_DECREF(settled);
        return PyBool_FromLong(settled != before);
    }
    for (; change != NULL; change = change->below) {
        if (change->whole || change->ops.count > 0) {
            Py_RETURN_TRUE;
        }
    }
    Py_RETURN_FALSE;
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
manager_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Manager *m = (Manager *)op;
    if (!m->closed) {
        m->closed = true;
        live_stop_watching(m, true);
        if (!m->turn_taken && m->open_transactions == 0) {
            graph_release(m);
        }
    }
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
    return manager_close(op, NULL);
}

static PyObject *
manager_get_version(PyObject *op, void *Py_UNUSED(closure))
{
    Manager *m = (Manager *)op;
    if (sync_load(m) < 0) {
        return NULL;
    }
    Transaction *top = transaction_current(m);
    if (top == NULL && m->at.stored && m->at.version == TOSC_VERSION_UNKNOWN
        && sync_pull(m) < 0) { /* somebody overtook our last commit at once */
        return NULL;
    }
    const tosc_position *at = top != NULL ? &top->at : &m->at;
    if (!at->stored) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLongLong(at->version);
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
    {"close", manager_close, METH_NOARGS, close_doc},
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
