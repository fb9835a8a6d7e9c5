/*
 * Stored data that need a class which is not here.
 *
 * They are refused: to go on without the object would lose it. But a record in the log may
 * need a class that the present state no longer holds anything of. To find out, all records are
 * applied to a Manager that nobody sees, with placeholders for what cannot be loaded. If its
 * state can be encoded again then no placeholder is left in it (they refuse to be pickled),
 * and that encoding is what the store says now.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "errors.h"
#include "state.h"

#include <string.h>

/* Takes whatever a pickle does to an instance, and keeps nothing of it. */
static const char placeholder_source[] =
    "class Missing:\n"
    "    def __new__(cls, *args, **kwargs): return object.__new__(cls)\n"
    "    def __init__(self, *args, **kwargs): pass\n"
    "    def __setstate__(self, state): pass\n"
    "    def __setitem__(self, key, value): pass\n"
    "    def append(self, item): pass\n"
    "    def extend(self, items): pass\n"
    "    def add(self, item): pass\n"
    "    def __reduce_ex__(self, protocol): raise TypeError('a placeholder')\n";

static PyObject *
placeholder_base(void)
{
    if (tosc_state->missing_base == NULL) {
        PyObject *scope = PyDict_New();
        PyObject *name = PyUnicode_FromString("tosc");
        if (scope != NULL && name != NULL
            && PyDict_SetItemString(scope, "__builtins__", PyEval_GetBuiltins()) == 0
            && PyDict_SetItemString(scope, "__name__", name) == 0) {
            PyObject *done =
                PyRun_String(placeholder_source, Py_file_input, scope, scope);
            if (done != NULL) {
                Py_DECREF(done);
                tosc_state->missing_base =
                    Py_XNewRef(PyDict_GetItemString(scope, "Missing"));
            }
        }
        Py_XDECREF(name);
        Py_XDECREF(scope);
    }
    return tosc_state->missing_base;
}

PyObject *
missing_class(PyObject *module, PyObject *name)
{
    PyObject *base = placeholder_base();
    if (base == NULL) {
        return NULL;
    }
    return PyObject_CallFunction((PyObject *)&PyType_Type, "O(O){sO}", name, base,
                                 "__module__", module);
}

static tosc_blob *
encode_all(Manager *scratch)
{
    Commit commit = {.manager = scratch,
                     .next_oid = scratch->next_oid,
                     .carry = Py_XNewRef(scratch->chain)};
    Buffer record = {0};
    tosc_blob *blob = NULL;
    if (codec_encode(&commit, true, &record) == 0) {
        blob = tosc_blob_new(record.size);
        if (blob != NULL) {
            memcpy(blob->data, record.data, record.size);
        } else {
            PyErr_NoMemory();
        }
    }
    buffer_free(&record);
    Py_XDECREF(commit.chain);
    Py_XDECREF(commit.carry);
    deltas_clear(&commit.deltas);
    return blob;
}

tosc_blob *
missing_skip(Manager *m, const tosc_data *whole)
{
    PyTypeObject *type = tosc_state->Manager_Type;
    Manager *scratch = (Manager *)type->tp_new(type, NULL, NULL);
    if (scratch == NULL) {
        return NULL;
    }
    scratch->tolerant = true;
    scratch->key = Py_XNewRef(m->key);
    scratch->allowed = Py_XNewRef(m->allowed);
    tosc_blob *blob = NULL;
    if (sync_apply(scratch, whole) == 0) {
        blob = encode_all(scratch);
    }
    deltas_clear(&scratch->spent);
    Py_DECREF(scratch);
    return blob;
}
