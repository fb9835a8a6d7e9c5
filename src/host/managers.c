/*
 * Managers and the stored object, for C.
 *
 * A tosc_manager is a handle (handle.c) to the very Manager object that scripts have; the
 * work is done by its own operations (py/stored.c), so a script's subclass that overrides
 * methods is not asked. A backend that C has made gets a Python object, as scripts can
 * ask for it.
 *
 * Whatever is used while Python's lock may be let go, a commit say, is held by a
 * reference: other threads can give back handles meanwhile.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/managers.h"

#include "py/backends.h"
#include "py/state.h"
#include "py/telling.h"

/* ---- entering ---- */

int
manager_enter(HostEntry *entry, const tosc_manager *handle, Manager **ret)
{
    int status = host_enter(entry);
    if (status < 0) {
        return status;
    }
    PyObject *manager = handle_get(handle, HANDLE_MANAGER, "manager");
    if (manager == NULL) {
        return host_leave(entry, TOSC_EINVAL);
    }
    *ret = (Manager *)Py_NewRef(manager);
    return 0;
}

int
manager_failed(Manager *m)
{
    bool held = false;
    if (m != NULL && PyErr_Occurred() == PyExc_RuntimeError) {
        PyObject *type;
        PyObject *value;
        PyObject *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        held = managers_check_lock(m) < 0;
        PyErr_Restore(type, value, traceback);
    }
    return host_failed_as(held ? TOSC_EINVAL : 0);
}

int
manager_leave(HostEntry *entry, Manager *m, int status)
{
    if (status == TOSC_EPYTHON && PyErr_Occurred()) {
        status = manager_failed(m);
    }
    manager_let_go(m);
    return host_leave(entry, status);
}

static int
no_place(const char *what)
{
    return tosc__fail(TOSC_EINVAL, "%s is NULL: there is no place for the result", what);
}

/* A new handle for a new reference (NULL: an exception is set). */
static int
manager_return(PyObject *manager, tosc_manager **ret)
{
    if (manager == NULL) {
        return host_failed();
    }
    void *handle = handle_new(HANDLE_MANAGER, manager);
    if (handle == NULL) {
        return TOSC_ENOMEM;
    }
    *ret = handle;
    return 0;
}

/* ---- making ---- */

static int
check_options(const tosc_manager_options *options)
{
    if (options != NULL && (options->key == NULL) != (options->key_size == 0)) {
        return tosc__fail(TOSC_EINVAL, "key has to have a key_size, and not 0");
    }
    if (options != NULL && options->key_size > PY_SSIZE_T_MAX) {
        return tosc__fail(TOSC_EINVAL, "key_size is too large");
    }
    return 0;
}

static PyObject *
key_of(const tosc_manager_options *options)
{
    if (options == NULL || options->key == NULL) {
        return Py_NewRef(Py_None);
    }
    return PyBytes_FromStringAndSize(options->key, (Py_ssize_t)options->key_size);
}

static PyObject *
allowed_of(const tosc_manager_options *options)
{
    if (options == NULL || options->allowed_classes == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *names = PyList_New(0);
    for (const char *const *text = options->allowed_classes; names != NULL && *text;
         text++) {
        PyObject *name = PyUnicode_FromString(*text);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    return names;
}

/* A new Manager, or NULL with an exception. */
static PyObject *
make_manager(tosc_backend *backend, const tosc_manager_options *options)
{
    PyObject *object = tosc_backend_object(backend);
    PyObject *key = object != NULL ? key_of(options) : NULL;
    PyObject *allowed = key != NULL ? allowed_of(options) : NULL;
    PyTypeObject *type = tosc_state->Manager_Type;
    PyObject *manager = allowed != NULL ? type->tp_new(type, NULL, NULL) : NULL;
    if (manager != NULL && manager_open((Manager *)manager, object, key, allowed) < 0) {
        PyObject *error, *value, *traceback;
        PyErr_Fetch(&error, &value, &traceback);
        Py_CLEAR(manager);
        PyErr_Restore(error, value, traceback);
    }
    Py_XDECREF(allowed);
    Py_XDECREF(key);
    Py_XDECREF(object);
    return manager;
}

/* What is wrong with options or backend is the caller's mistake, no script's. */
static int
return_new(PyObject *manager, tosc_manager **ret)
{
    bool mistaken = manager == NULL
                    && (PyErr_ExceptionMatches(PyExc_ValueError)
                        || PyErr_ExceptionMatches(PyExc_TypeError));
    int status = manager_return(manager, ret);
    return mistaken && status == TOSC_EPYTHON ? TOSC_EINVAL : status;
}

int
tosc_manager_new(tosc_backend *backend, const tosc_manager_options *options,
                 tosc_manager **ret)
{
    HostEntry entry;
    if (backend == NULL) {
        return tosc__fail(TOSC_EINVAL, "backend is NULL");
    }
    if (ret == NULL) {
        return no_place("ret");
    }
    int status = check_options(options);
    if (status == 0) {
        status = host_enter(&entry);
    }
    if (status < 0) {
        return status;
    }
    return host_leave(&entry, return_new(make_manager(backend, options), ret));
}

int
tosc_manager_open(const char *uri, const tosc_manager_options *options,
                  tosc_manager **ret)
{
    HostEntry entry;
    if (ret == NULL) {
        return no_place("ret");
    }
    int status = check_options(options);
    if (status == 0) {
        status = host_enter(&entry);
    }
    if (status < 0) {
        return status;
    }
    tosc_backend *backend = NULL;
    Py_BEGIN_ALLOW_THREADS
    status = tosc_backend_open(uri, &backend);
    Py_END_ALLOW_THREADS
    if (status == 0) {
        status = return_new(make_manager(backend, options), ret);
        Py_BEGIN_ALLOW_THREADS
        tosc_backend_unref(backend);
        Py_END_ALLOW_THREADS
    }
    return host_leave(&entry, status);
}

/* ---- handles ---- */

tosc_manager *
tosc_manager_ref(tosc_manager *manager)
{
    HostEntry entry;
    if (manager == NULL || host_enter(&entry) < 0) {
        return NULL;
    }
    tosc_manager *result = manager;
    if (!handle_ref(manager, HANDLE_MANAGER)) {
        /* One that the library has lent gets a handle of its own. */
        PyObject *object = handle_get(manager, HANDLE_MANAGER, "manager");
        result = NULL;
        if (object != NULL) {
            manager_return(Py_NewRef(object), &result);
        }
    }
    host_leave(&entry, 0);
    return result;
}

/* The Manager that a value refers to, borrowed, or NULL. */
static Manager *
manager_of(PyObject *object)
{
    if (dobject_check(object)) {
        return ((DObject *)object)->manager;
    }
    return PyObject_TypeCheck(object, tosc_state->Manager_Type) ? (Manager *)object
                                                                : NULL;
}

static bool
refers_to(PyObject *object, const void *manager)
{
    return manager_of(object) == manager;
}

int managers_kept;

Manager *
manager_kept_by(PyObject *object)
{
    Manager *m = manager_of(object);
    return m != NULL && m->left == LEFT_TO_VALUES ? (Manager *)Py_NewRef((PyObject *)m)
                                                  : NULL;
}

void
manager_given_back(Manager *m)
{
    bool kept = handle_holds(refers_to, m);
    managers_kept += kept - (m->left == LEFT_TO_VALUES);
    m->left = kept ? LEFT_TO_VALUES : LEFT_IN_USE;
    manager_let_go(m);
}

tosc_manager *
tosc_manager_unref(tosc_manager *manager)
{
    HostEntry entry;
    if (manager == NULL || host_enter(&entry) < 0) {
        return NULL;
    }
    PyObject *object = Py_XNewRef(handle_get(manager, HANDLE_MANAGER, "manager"));
    if (object != NULL) {
        handle_unref(manager, HANDLE_MANAGER);
        manager_given_back((Manager *)object);
    }
    host_leave(&entry, 0);
    return NULL;
}

int
tosc_manager_close(tosc_manager *manager)
{
    HostEntry entry;
    Manager *m;
    if (watch_is_telling()) {
        return tosc__fail(TOSC_EINVAL, "a change callback cannot close a Manager");
    }
    int status = manager_enter(&entry, manager, &m);
    if (status < 0) {
        return status;
    }
    manager_close(m);
    return manager_leave(&entry, m, 0);
}

int
tosc_manager_value(tosc_manager *manager, tosc_value **ret)
{
    HostEntry entry;
    Manager *m;
    if (ret == NULL) {
        return no_place("ret");
    }
    int status = manager_enter(&entry, manager, &m);
    if (status < 0) {
        return status;
    }
    return host_leave(&entry, value_return((PyObject *)m, ret));
}

int
tosc_manager_of(tosc_value *value, tosc_manager **ret)
{
    HostEntry entry;
    if (ret == NULL) {
        return no_place("ret");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = value_get(value, "value");
    if (object == NULL) {
        status = TOSC_EINVAL;
    } else if (!PyObject_TypeCheck(object, tosc_state->Manager_Type)) {
        status = tosc__fail(TOSC_ETYPE, "value is not a tosc.Manager but of type %.100s",
                            Py_TYPE(object)->tp_name);
    } else {
        status = manager_return(Py_NewRef(object), ret);
    }
    return host_leave(&entry, status);
}

/* ---- the stored object ---- */

static int
nothing_stored(void)
{
    return tosc__fail(TOSC_ENOTFOUND, "nothing is stored yet");
}

typedef int (*reading)(Manager *m, PyObject **ret);

static int
read_by(reading how, tosc_manager *manager, bool borrowed, tosc_value **ret)
{
    HostEntry entry;
    Manager *m;
    PyObject *object = NULL;
    int status = manager_enter(&entry, manager, &m);
    if (status < 0) {
        return status;
    }
    int stored = how(m, &object);
    if (stored <= 0) {
        status = stored < 0 ? TOSC_EPYTHON : nothing_stored();
    } else if (borrowed) {
        status = value_return_borrowed(entry.thread, object, ret);
    } else {
        status = value_return(object, ret);
    }
    return manager_leave(&entry, m, status);
}

int
tosc_manager_read(tosc_manager *manager, tosc_value **ret)
{
    return ret == NULL ? no_place("ret") : read_by(stored_read, manager, false, ret);
}

int
tosc_manager_borrow(tosc_manager *manager, tosc_value **ret)
{
    return ret == NULL ? no_place("ret") : read_by(stored_read, manager, true, ret);
}

int
tosc_manager_snapshot(tosc_manager *manager, tosc_value **ret)
{
    return ret == NULL ? no_place("ret") : read_by(stored_snapshot, manager, false, ret);
}

int
tosc_manager_refresh(tosc_manager *manager, tosc_value **ret)
{
    HostEntry entry;
    Manager *m;
    if (ret != NULL) {
        return read_by(stored_refresh, manager, false, ret);
    }
    int status = manager_enter(&entry, manager, &m);
    if (status < 0) {
        return status;
    }
    return manager_leave(&entry, m, sync_pull(m) < 0 ? TOSC_EPYTHON : 0);
}

int
tosc_manager_version(tosc_manager *manager, int64_t *ret)
{
    HostEntry entry;
    Manager *m;
    if (ret == NULL) {
        return no_place("ret");
    }
    int status = manager_enter(&entry, manager, &m);
    if (status < 0) {
        return status;
    }
    int stored = stored_version(m, ret);
    return manager_leave(&entry, m, stored < 0 ? TOSC_EPYTHON : stored);
}

/* ---- with a value ---- */

/* manager_enter(), and a reference to the object of a value. */
static int
enter_with(HostEntry *entry, tosc_manager *manager, const tosc_value *value,
           Manager **ret, PyObject **ret_object)
{
    int status = manager_enter(entry, manager, ret);
    if (status < 0) {
        return status;
    }
    PyObject *object = value_get(value, "value");
    if (object == NULL) {
        return manager_leave(entry, *ret, TOSC_EINVAL);
    }
    *ret_object = Py_NewRef(object);
    return 0;
}

static int
leave_with(HostEntry *entry, Manager *m, PyObject *object, int result)
{
    int status = result < 0 ? manager_failed(m) : result;
    Py_DECREF(object);
    return manager_leave(entry, m, status);
}

/*
 * The same for writing, where a TypeError says that something in the value cannot be
 * stored.
 */
static int
leave_written(HostEntry *entry, Manager *m, PyObject *object, int result)
{
    bool unfit = result < 0 && PyErr_ExceptionMatches(PyExc_TypeError);
    int status = leave_with(entry, m, object, result);
    return unfit && status == TOSC_EPYTHON ? TOSC_ESERIALIZE : status;
}

int
tosc_manager_write(tosc_manager *manager, tosc_value *value)
{
    HostEntry entry;
    Manager *m;
    PyObject *object;
    int status = enter_with(&entry, manager, value, &m, &object);
    if (status < 0) {
        return status;
    }
    return leave_written(&entry, m, object, stored_write(m, object));
}

int
tosc_manager_try_write(tosc_manager *manager, tosc_value *value, const int64_t *expected)
{
    HostEntry entry;
    Manager *m;
    PyObject *object;
    int status = enter_with(&entry, manager, value, &m, &object);
    if (status < 0) {
        return status;
    }
    return leave_written(&entry, m, object, stored_try_write(m, object, expected));
}

static int
ask(tosc_manager *manager, tosc_value *value, int (*question)(Manager *, DObject *))
{
    HostEntry entry;
    Manager *m;
    PyObject *object;
    int status = enter_with(&entry, manager, value, &m, &object);
    if (status < 0) {
        return status;
    }
    if (dobject_check(object)) {
        return leave_with(&entry, m, object, question(m, (DObject *)object));
    }
    status =
        tosc__fail(TOSC_ETYPE, "value is not a distributed object but a plain %.100s",
                   Py_TYPE(object)->tp_name);
    Py_DECREF(object);
    return manager_leave(&entry, m, status);
}

int
tosc_manager_is_linked(tosc_manager *manager, tosc_value *value)
{
    return ask(manager, value, stored_is_linked);
}

int
tosc_manager_is_dirty(tosc_manager *manager, tosc_value *value)
{
    return ask(manager, value, stored_is_dirty);
}
