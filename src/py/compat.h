/*
 * The only includer of Python.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_COMPAT_H
#define TOSC_PY_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030b0000
#error "libtosc needs Python 3.11 or newer"
#endif

/* The value of `key` as a new reference: 1 found, 0 missing, -1 an exception is set. */
static inline int
tosc_dict_get(PyObject *dict, PyObject *key, PyObject **ret)
{
#if PY_VERSION_HEX >= 0x030d0000
    return PyDict_GetItemRef(dict, key, ret);
#else
    PyObject *value = PyDict_GetItemWithError(dict, key);
    if (value != NULL) {
        *ret = Py_NewRef(value);
        return 1;
    }
    *ret = NULL;
    return PyErr_Occurred() ? -1 : 0;
#endif
}

/*
 * The state of the thread that has the GIL, or NULL; also asked by those who do not have
 * it.
 */
static inline PyThreadState *
tosc_current_state(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

/* Whether the interpreter ends: threads that take the GIL do not come back. */
static inline bool
tosc_is_finalizing(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

#endif
