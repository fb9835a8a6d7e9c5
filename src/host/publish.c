/*
 * Managers by name, for the program: the same table that scripts use (src/py/shared.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "py/shared.h"

#include <string.h>

/* A new reference; NULL with an exception. */
static PyObject *
name_text(const char *name)
{
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), NULL);
}

static int
publish(const char *name, tosc_manager *manager)
{
    PyObject *object = Py_None;
    if (manager != NULL) {
        object = handle_get(manager, HANDLE_MANAGER, "manager");
        if (object == NULL) {
            return TOSC_EINVAL;
        }
    }
    PyObject *text = name_text(name);
    int result = text != NULL ? shared_publish(text, object) : -1;
    Py_XDECREF(text);
    return result < 0 ? host_failed() : 0;
}

int
tosc_host_publish(const char *name, tosc_manager *manager)
{
    HostEntry entry;
    if (name == NULL) {
        return tosc__fail(TOSC_EINVAL, "name is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    return host_leave(&entry, publish(name, manager));
}

int
tosc_host_shared(const char *name, tosc_manager **ret)
{
    HostEntry entry;
    if (name == NULL || ret == NULL) {
        return tosc__fail(TOSC_EINVAL, "%s is NULL", name == NULL ? "name" : "ret");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *text = name_text(name);
    PyObject *manager = text != NULL ? shared_find(text) : NULL;
    Py_XDECREF(text);
    if (manager == NULL) {
        status = host_failed_as(PyErr_ExceptionMatches(PyExc_LookupError)
                                        && !PyErr_ExceptionMatches(PyExc_UnicodeError)
                                    ? TOSC_ENOTFOUND
                                    : 0);
    } else {
        void *handle = handle_new(HANDLE_MANAGER, manager);
        status = handle != NULL ? 0 : TOSC_ENOMEM;
        if (handle != NULL) {
            *ret = handle;
        }
    }
    return host_leave(&entry, status);
}
