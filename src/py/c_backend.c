/*
 * Backends that come from C: as Python objects, and by URI.
 *
 * A Manager that a C program makes has a backend that no script has made, but scripts can
 * ask for it (manager.backend) and give it to another Manager. A backend of ours becomes
 * an object of the class that a script would have used; any other a _CBackend, which only
 * has the methods that all have. Neither reads anything when it is made: the first
 * target_wait() may thus tell of a change that was none.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backend_object.h"

#include "core/backend_kind.h"

/* ---- _CBackend ---- */

PyDoc_STRVAR(c_backend_doc,
             "A store that the program, or a plugin, keeps by C functions.\n\n"
             "Made by open_backend(), or by the program; Manager.backend "
             "tells it. It cannot be\npickled.");

static PyObject *
c_backend_repr(BackendObject *self)
{
    return PyUnicode_FromFormat("<tosc backend '%s'>",
                                tosc_backend_ops(self->backend)->name);
}

static PyObject *
c_backend_reduce(BackendObject *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_Format(
        PyExc_TypeError,
        "cannot pickle a backend '%s': it is made by C functions; open it by its "
        "URI where it is needed",
        tosc_backend_ops(self->backend)->name);
    return NULL;
}

static PyMethodDef c_backend_methods[] = {
    NATIVE_METHODS,
    {"__reduce__", (PyCFunction)c_backend_reduce, METH_NOARGS,
     "Refuses: how the store is opened is not known."},
    {NULL},
};

static PyMemberDef c_backend_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(BackendObject, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot c_backend_slots[] = {
    {Py_tp_doc, (void *)c_backend_doc},      {Py_tp_repr, c_backend_repr},
    {Py_tp_dealloc, backend_object_dealloc}, {Py_tp_methods, c_backend_methods},
    {Py_tp_members, c_backend_members},      {0, NULL},
};

static PyType_Spec c_backend_spec = {
    .name = "tosc._CBackend",
    .basicsize = sizeof(BackendObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = c_backend_slots,
};

/* ---- objects for backends ---- */

/* Is it something that can be called at all? */
static int
check_operations(const tosc_backend *backend)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(backend);
    const char *wrong = NULL;
    if (ops == NULL || ops->size != sizeof(*ops)) {
        wrong = "its table of operations is of another version of the library";
    } else if (ops->read == NULL || ops->write == NULL || ops->try_write == NULL
               || ops->wait == NULL) {
        wrong = "it has to have the operations read, write, try_write and wait";
    } else if (ops->name == NULL) {
        wrong = "it has no name";
    } else if ((ops->lock == NULL) != (ops->unlock == NULL)) {
        wrong = "it has one of lock and unlock without the other";
    }
    if (wrong != NULL) {
        PyErr_Format(PyExc_ValueError, "this backend cannot be used: %s", wrong);
        return -1;
    }
    return 0;
}

PyObject *
tosc_backend_object(tosc_backend *backend)
{
    if (check_operations(backend) < 0) {
        return NULL;
    }
    PyObject *python = tosc_backend_python_object(backend);
    if (python != NULL) {
        return Py_NewRef(python);
    }
    tosc_file_options options;
    const char *file_path = tosc__backend_file_path(backend, &options);
    if (file_path != NULL) {
        return file_backend_wrap(backend, file_path, &options);
    }
    PyTypeObject *type = tosc__backend_is_inproc(backend) ? tosc_state->InprocBackend_Type
                                                          : tosc_state->CBackend_Type;
    BackendObject *self = (BackendObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->backend = tosc_backend_ref(backend);
    }
    return (PyObject *)self;
}

/* ---- open_backend ---- */

PyDoc_STRVAR(
    open_backend_doc,
    "open_backend(uri, /)\n--\n\n"
    "The backend that a URI means:\n"
    "\n"
    "    inproc:NAME\n"
    "    file:/path?durable=0&lock=/path&shared_by_hosts=1&poll_ms=100\n"
    "    ceph:pool/object?client=NAME&conf=PATH&keyring=PATH&mon_host=...\n"
    "\n"
    "or one of a scheme that the program or a plugin has registered. 'inproc:NAME' is\n"
    "the same store for all parts of the process that name it, C code among them.\n"
    "ValueError: what is wrong with the URI; else what the class of the backend raises.");

static PyObject *
open_backend(PyObject *Py_UNUSED(module), PyObject *uri)
{
    if (!PyUnicode_Check(uri)) {
        PyErr_Format(PyExc_TypeError, "open_backend() argument must be str, not %.100s",
                     Py_TYPE(uri)->tp_name);
        return NULL;
    }
    PyObject *encoded = PyUnicode_EncodeFSDefault(uri);
    if (encoded == NULL) {
        return NULL;
    }
    char *text;
    tosc_backend *backend = NULL;
    int status =
        PyBytes_AsStringAndSize(encoded, &text, NULL); /* refuses NUL characters */
    if (status == 0) {
        CALL_CORE(status, tosc_backend_open(text, &backend));
        status = check_status(status);
    }
    Py_DECREF(encoded);
    if (status < 0) {
        return NULL;
    }
    PyObject *object = tosc_backend_object(backend);
    Py_BEGIN_ALLOW_THREADS
    tosc_backend_unref(backend);
    Py_END_ALLOW_THREADS
    return object;
}

static PyMethodDef open_backend_def = {"open_backend", open_backend, METH_O,
                                       open_backend_doc};

/* ---- the module's part ---- */

int
c_backend_init(PyObject *module, ToscState *state)
{
    if (tosc_add_type(module, &state->CBackend_Type, &c_backend_spec,
                      state->BackendBase_Type, NULL)
        < 0) {
        return -1;
    }
    PyObject *name = PyUnicode_FromString("tosc");
    PyObject *function =
        name == NULL ? NULL : PyCFunction_NewEx(&open_backend_def, NULL, name);
    Py_XDECREF(name);
    if (function == NULL) {
        return -1;
    }
    int result = PyModule_AddObjectRef(module, "open_backend", function);
    Py_DECREF(function);
    return result;
}
