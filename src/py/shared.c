/*
 * Managers by name, within a process: what a program and its scripts, or several scripts,
 * give to each other.
 *
 * A dict in the module's state, which owns the Managers. The functions for C
 * (shared_publish, shared_find) are the same as those for scripts.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "shared.h"

#include "errors.h"
#include "manager.h"
#include "state.h"

static bool
is_manager(PyObject *object)
{
    return PyObject_TypeCheck(object, tosc_state->Manager_Type);
}

int
shared_publish(PyObject *name, PyObject *manager)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %.100s",
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    if (manager == Py_None) {
        /* What is taken back may be the last reference, so it goes at the end. */
        PyObject *before = NULL;
        int found = tosc_dict_get(tosc_state->published, name, &before);
        int result = found > 0 ? PyDict_DelItem(tosc_state->published, name) : found;
        manager_let_go((Manager *)before);
        return result;
    }
    if (!is_manager(manager)) {
        PyErr_Format(PyExc_TypeError, "manager must be a Manager or None, not %.100s",
                     Py_TYPE(manager)->tp_name);
        return -1;
    }
    return PyDict_SetItem(tosc_state->published, name, manager);
}

/* LookupError: says what there is. */
static void
raise_unknown(PyObject *name)
{
    PyObject *names = PySequence_List(tosc_state->published);
    if (names != NULL && PyList_Sort(names) == 0) {
        if (PyList_GET_SIZE(names) > 0) {
            PyErr_Format(PyExc_LookupError,
                         "no Manager is published as %R in this process; there are %R",
                         name, names);
        } else {
            PyErr_Format(
                PyExc_LookupError,
                "no Manager is published as %R in this process, nor is any other", name);
        }
    }
    Py_XDECREF(names);
}

PyObject *
shared_find(PyObject *name)
{
    PyObject *manager = NULL;
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %.100s",
                     Py_TYPE(name)->tp_name);
    } else if (tosc_dict_get(tosc_state->published, name, &manager) == 0) {
        raise_unknown(name);
    }
    return manager;
}

/* ---- for scripts ---- */

PyDoc_STRVAR(
    shared_doc,
    "shared($module, name, /)\n--\n\n"
    "The Manager that was published under this name in this process.\n\n"
    "By the program that scripts are embedded in (tosc_host_publish), or by\n"
    "publish(): the very same object. LookupError if there is none of that name.");

static PyObject *
module_shared(PyObject *Py_UNUSED(module), PyObject *name)
{
    return shared_find(name);
}

PyDoc_STRVAR(
    publish_doc,
    "publish($module, name, manager, /)\n--\n\n"
    "Give other scripts in this process, and the program that they are embedded in,\n"
    "a Manager by name: see shared().\n\n"
    "One that was published under that name before is replaced; None takes it back.");

static PyObject *
module_publish(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError,
                     "publish() takes 2 arguments, name and manager (%zd "
                     "given)",
                     nargs);
        return NULL;
    }
    if (shared_publish(args[0], args[1]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef shared_functions[] = {
    {"shared", module_shared, METH_O, shared_doc},
    {"publish", (PyCFunction)(void (*)(void))module_publish, METH_FASTCALL, publish_doc},
    {NULL},
};

int
shared_init(PyObject *module, ToscState *state)
{
    state->published = PyDict_New();
    return state->published != NULL ? PyModule_AddFunctions(module, shared_functions)
                                    : -1;
}
