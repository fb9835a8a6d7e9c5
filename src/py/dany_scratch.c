/*
 * Custom objects whose class takes attribute access into its own hands.
 *
 * A __setattr__, __delattr__ or __getattribute__ of a class ends up in object's, which would
 * look at the wrapper instead of the state. So these three run on a scratch instance of the
 * class that has the same attributes, wrappers included; what they have changed in it is
 * then stored, in one change, also if they have raised.
 *
 * What must stay true: the scratch instance is not seen in what is stored or returned.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dany.h"
#include "wrap.h"

/* What stands in `after` and did not stand in `before`; the scratch instance itself is the wrapper. */
static PyObject *
find_changed(DAnyObject *self, PyObject *scratch, PyObject *before, PyObject *after)
{
    PyObject *changed = PyDict_New();
    PyObject *name;
    PyObject *value;
    Py_ssize_t position = 0;
    while (changed != NULL && PyDict_Next(after, &position, &name, &value)) {
        PyObject *old = PyDict_GetItemWithError(before, name);
        if (old == NULL && PyErr_Occurred()) {
            Py_CLEAR(changed);
        } else if (old != value
                   && PyDict_SetItem(changed, name,
                                     value == scratch ? (PyObject *)self : value)
                          < 0) {
            Py_CLEAR(changed);
        }
    }
    return changed;
}

/* Names that stand in `before` only. */
static PyObject *
find_deleted(PyObject *before, PyObject *after)
{
    PyObject *deleted = PyList_New(0);
    PyObject *name;
    Py_ssize_t position = 0;
    while (deleted != NULL && PyDict_Next(before, &position, &name, NULL)) {
        int there = PyDict_Contains(after, name);
        if (there < 0 || (there == 0 && PyList_Append(deleted, name) < 0)) {
            Py_CLEAR(deleted);
        }
    }
    return deleted;
}

/* Several attributes in one change: `changed` is an adopted dict, `deleted` a list of names. */
static int
store_several(DObject *self, PyObject *changed, PyObject *deleted)
{
    Write w;
    if (PyDict_GET_SIZE(changed) == 0 && PyList_GET_SIZE(deleted) == 0) {
        return 0;
    }
    if (write_begin(&w, self) < 0) {
        return -1;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(deleted); i++) {
        PyObject *old;
        PyObject *name = PyList_GET_ITEM(deleted, i);
        int found = write_get(&w, name, &old);
        Py_XDECREF(old);
        result = found > 0 ? write_op(&w, OP_DEL, 0, 0, name, NULL) : found;
    }
    if (result == 0 && PyDict_GET_SIZE(changed) > 0) {
        result = write_op(&w, OP_UPDATE, 0, 0, changed, NULL);
    }
    if (result < 0) {
        write_abort(&w);
        return -1;
    }
    return write_commit(&w);
}

/* Stores what differs between the attributes that the scratch instance began with and has now. */
static int
record(DAnyObject *self, PyObject *scratch, PyObject *before)
{
    PyObject *after = dany_take_apart(scratch);
    PyObject *changed = after == NULL ? NULL : find_changed(self, scratch, before, after);
    PyObject *deleted = changed == NULL ? NULL : find_deleted(before, after);
    PyObject *adopted = deleted == NULL ? NULL : dobject_adopt_dict(&self->base, changed);
    int result = adopted == NULL ? -1 : store_several(&self->base, adopted, deleted);
    Py_XDECREF(adopted);
    Py_XDECREF(deleted);
    Py_XDECREF(changed);
    Py_XDECREF(after);
    return result;
}

/* The same after the class's own code has raised (result < 0): its exception stays. */
static int
record_after(DAnyObject *self, PyObject *scratch, PyObject *before, int result)
{
    if (result >= 0) {
        return record(self, scratch, before);
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (record(self, scratch, before)
        < 0) { /* that it could not be stored matters more */
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return -1;
    }
    PyErr_Restore(type, value, traceback);
    return -1;
}

int
dany_scratch_set(DAnyObject *self, PyObject *name, PyObject *value)
{
    PyObject *scratch = dany_shallow(self);
    PyObject *before = scratch == NULL ? NULL : dany_take_apart(scratch);
    int result = -1;
    if (before != NULL) {
        result =
            record_after(self, scratch, before, PyObject_SetAttr(scratch, name, value));
    }
    Py_XDECREF(before);
    Py_XDECREF(scratch);
    return result;
}

/* What the class's __getattribute__ has found, as if it had been asked about the wrapper. */
static PyObject *
rebind(PyObject *self, PyObject *scratch, PyObject *found)
{
    PyObject *result = found;
    if (found == scratch) {
        result = Py_NewRef(self);
    } else if (PyMethod_Check(found) && PyMethod_GET_SELF(found) == scratch) {
        result = PyMethod_New(PyMethod_GET_FUNCTION(found), self);
    } else {
        return found;
    }
    Py_DECREF(found);
    return result;
}

PyObject *
dany_scratch_get(DAnyObject *self, PyObject *getattribute, PyObject *name)
{
    PyObject *scratch = dany_shallow(self);
    PyObject *before = scratch == NULL ? NULL : dany_take_apart(scratch);
    PyObject *found = NULL;
    if (before != NULL) {
        found = PyObject_CallFunctionObjArgs(getattribute, scratch, name, NULL);
        if (record_after(self, scratch, before, found == NULL ? -1 : 0) < 0) {
            Py_CLEAR(found);
        }
    }
    if (found != NULL) {
        found = rebind((PyObject *)self, scratch, found);
    }
    Py_XDECREF(before);
    Py_XDECREF(scratch);
    return found;
}
