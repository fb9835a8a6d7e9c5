/*
 * The stored object: reading and replacing it, asking about what is in it.
 *
 * These are the Manager's own operations, for the methods of the Python type (manager.c)
 * and for C programs alike: arguments are converted already, results are not yet. All see
 * what this context may see, so inside a transaction its state. What blocks does so
 * without the GIL.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backends.h"
#include "manager.h"
#include "state.h"
#include "wrap.h"

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

static int
up_to_date(Manager *m)
{
    return transaction_current(m) != NULL ? sync_enter(m) : sync_freshen(m);
}

int
stored_read(Manager *m, PyObject **ret)
{
    return up_to_date(m) < 0 ? -1 : get_root(m, ret);
}

int
stored_refresh(Manager *m, PyObject **ret)
{
    return sync_pull(m) < 0 ? -1 : get_root(m, ret);
}

int
stored_snapshot(Manager *m, PyObject **ret)
{
    PyObject *root;
    int stored = stored_read(m, &root);
    if (stored <= 0) {
        return stored;
    }
    *ret = dobject_plain(root);
    Py_DECREF(root);
    return *ret == NULL ? -1 : 1;
}

int
stored_version(Manager *m, int64_t *ret)
{
    if (sync_load(m) < 0) {
        return -1;
    }
    Transaction *top = transaction_current(m);
    if (top == NULL && m->at.stored && m->at.version == TOSC_VERSION_UNKNOWN
        && sync_pull(m) < 0) { /* somebody overtook our last commit at once */
        return -1;
    }
    const tosc_position *at = top != NULL ? &top->at : &m->at;
    if (at->stored) {
        *ret = at->version;
    }
    return at->stored;
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

/* Outside of transactions: others' commits are no reason to fail. */
static int
replace_now(Manager *m, PyObject *list)
{
    int result = sync_enter(m) < 0 ? -1 : turn_take(m, INT64_MAX);
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
    return result;
}

int
stored_write(Manager *m, PyObject *value)
{
    bool inside = transaction_current(m) != NULL;
    if ((inside ? sync_load(m) : sync_freshen(m)) < 0) {
        if (inside || PyErr_Occurred() != tosc_state->SerializationError) {
            return -1;
        }
        return overwrite(m, value);
    }
    PyObject *list = adopt_root(m, value);
    if (list == NULL) {
        return -1;
    }
    int result = inside ? dobject_change(m->cell, OP_ASSIGN, 0, 0, list, NULL)
                        : replace_now(m, list);
    Py_DECREF(list);
    return result;
}

static bool
version_is(const tosc_position *at, const int64_t *expected)
{
    if (expected == NULL || !at->stored) {
        return expected == NULL && !at->stored;
    }
    return *expected == at->version && *expected != TOSC_VERSION_UNKNOWN;
}

static int
try_write_now(Manager *m, PyObject *list, const int64_t *expected)
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

int
stored_try_write(Manager *m, PyObject *value, const int64_t *expected)
{
    if (sync_load(m) < 0) {
        return -1;
    }
    PyObject *list = adopt_root(m, value);
    if (list == NULL) {
        return -1;
    }
    Transaction *top = transaction_current(m);
    int result;
    if (top == NULL) {
        result = try_write_now(m, list, expected);
    } else {
        result = version_is(&top->at, expected);
        if (result == 1 && dobject_change(m->cell, OP_ASSIGN, 0, 0, list, NULL) < 0) {
            result = -1;
        }
    }
    Py_DECREF(list);
    return result;
}

/* ---- questions ---- */

int
stored_is_linked(Manager *m, DObject *object)
{
    if (sync_enter(m) < 0) {
        return -1;
    }
    if (object->manager != m) {
        return 0;
    }
    Transaction *top = transaction_current(m);
    bool walk = m->suspects > 0
                || (top != NULL && (top->changes != NULL || top->start != m->seq));
    return walk ? graph_reaches(m, top, object) : object->oid != 0;
}

int
stored_is_dirty(Manager *m, DObject *object)
{
    if (sync_enter(m) < 0) {
        return -1;
    }
    Transaction *top = object->manager == m ? transaction_current(m) : NULL;
    Change *change = top == NULL ? NULL : transaction_find(top, object);
    if (change != NULL && object->kind == KIND_OPAQUE && change->full != NULL) {
        PyObject *before = graph_state_at(object, top->start);
        PyObject *settled = opaque_settle(object, before, change->full);
        if (settled == NULL) {
            return -1;
        }
        Py_DECREF(settled);
        return settled != before;
    }
    for (; change != NULL; change = change->below) {
        if (change->whole || change->ops.count > 0) {
            return 1;
        }
    }
    return 0;
}
