/*
 * The module `tosc`: its state, its front page, and the order in which its parts are
 * made.
 *
 * Each file of this room brings its own types and functions by a function `…_init`
 * (state.h); this one calls them, and fills the part of the state that belongs to
 * nobody: the interned names and the helpers from the standard library. There is one
 * such module in a process: types are reached through the plain pointer `tosc_state`,
 * so a second copy, or one in a subinterpreter, is refused.
 *
 * At the interpreter's end the collector may clear the state while objects of our types
 * still wait to be freed: the members may then be NULL, `tosc_state` itself stays until
 * the module is freed, which is after the last object, as each type holds the module.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "state.h"

ToscState *tosc_state;

PyDoc_STRVAR(
    module_doc,
    "Easy distributed data structures.\n"
    "\n"
    "Threads, processes and machines share plain lists, dicts, sets and objects.\n"
    "Data are always consistent, and changes are applied by transactions: all of\n"
    "them or none.\n"
    "\n"
    "    import tosc\n"
    "\n"
    "    manager = tosc.Manager(tosc.FileBackend('/tmp/some-file'))\n"
    "    manager.write({'users': [], 'counter': 0})\n"
    "\n"
    "    data = manager.read()                 # the same in each process\n"
    "    data['users'].append({'name': 'Ann'}) # one change, stored at once\n"
    "\n"
    "    with manager.transaction():           # several changes, stored together\n"
    "        data['counter'] += 1\n"
    "        data['users'][0]['seen'] = True\n"
    "\n"
    "    @tosc.transactional(manager)          # tried again if somebody else was first\n"
    "    def increment(data):\n"
    "        data['counter'] += 1\n"
    "\n"
    "    increment(data)\n"
    "\n"
    "Manager\n"
    "    Looks after the objects of one store: read, write, transaction, snapshot. What\n"
    "    other processes change shows up in the objects that a program holds, except\n"
    "    within a transaction, which sees the state as of its start plus its own\n"
    "    changes.\n"
    "\n"
    "Transaction, transactional\n"
    "    A block, or a function, whose changes are stored at its end, at one blow. If\n"
    "    the store was changed by somebody else meanwhile, a block raises\n"
    "    TransactionError and leaves nothing behind; a function is run again. An\n"
    "    exception takes the changes back. A change outside any transaction is a\n"
    "    transaction by itself.\n"
    "\n"
    "publish, shared\n"
    "    Hand a Manager by name to other scripts of the process, and to the program\n"
    "    that they are embedded in; get the one that these have published.\n"
    "\n"
    "DList, DDict, DSet, DByteArray, DAny, DOpaque, DObject\n"
    "    What lists, dicts, sets, bytearrays, custom objects and all else that can\n"
    "    change become in the store. They behave like the originals; copies, slices\n"
    "    and Manager.snapshot() are plain again. isinstance(value, DObject) tells them\n"
    "    from plain values.\n"
    "\n"
    "InprocBackend, FileBackend, CephBackend, BackendBase, open_backend\n"
    "    Where the bytes are kept: in this process's memory, in a file, in a Ceph\n"
    "    cluster, or wherever a class with the four methods of BackendBase keeps them.\n"
    "    open_backend('file:/path') gives one by its URI.\n"
    "\n"
    "Error and its subclasses\n"
    "    A conflict (TransactionError), a refusal of the system (StorageError),\n"
    "    damaged data (DataError), a value that cannot be stored (SerializationError),\n"
    "    an outcome that is not known (UnknownOutcomeError), a closed Manager\n"
    "    (ClosedError) and an empty store (EmptyStoreError) are never mistaken for one\n"
    "    another. Each one's help says what has become of the data and what to do.\n");

/* ---- what the state needs from elsewhere ---- */

struct state_string {
    size_t offset;
    const char *text;
};

#define STRING(name, text) \
    { \
        offsetof(ToscState, str_##name), text \
    }

static const struct state_string state_strings[] = {
    STRING(class, "__class__"),
    STRING(dict, "__dict__"),
    STRING(slots, "__slots__"),
    STRING(weakref, "__weakref__"),
    STRING(persistent_id, "persistent_id"),
    STRING(persistent_load, "persistent_load"),
    STRING(find_class, "find_class"),
    STRING(dump, "dump"),
    STRING(load, "load"),
    STRING(write, "write"),
    STRING(getvalue, "getvalue"),
    STRING(read, "read"),
    STRING(try_write, "try_write"),
    STRING(target_wait, "target_wait"),
    STRING(module, "__module__"),
    STRING(qualname, "__qualname__"),
    STRING(reduce_ex, "__reduce_ex__"),
    STRING(fields, "_fields"),
    STRING(asyncio, "asyncio"),
    STRING(getattr, "__getattr__"),
    STRING(setattr, "__setattr__"),
    STRING(delattr, "__delattr__"),
    STRING(getattribute, "__getattribute__"),
};

struct state_import {
    size_t offset;
    const char *module;
    const char *attribute;
};

#define IMPORT(name, module, attribute) \
    { \
        offsetof(ToscState, name), module, attribute \
    }

static const struct state_import state_imports[] = {
    IMPORT(io_BytesIO, "io", "BytesIO"),
    IMPORT(functools_update_wrapper, "functools", "update_wrapper"),
    IMPORT(enum_Enum, "enum", "Enum"),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static PyObject **
state_object(ToscState *state, size_t offset)
{
    return (PyObject **)((char *)state + offset);
}

static int
fill_strings(ToscState *state)
{
    for (size_t i = 0; i < COUNT(state_strings); i++) {
        PyObject *text = PyUnicode_InternFromString(state_strings[i].text);
        if (text == NULL) {
            return -1;
        }
        *state_object(state, state_strings[i].offset) = text;
    }
    return 0;
}

static int
fill_imports(ToscState *state)
{
    for (size_t i = 0; i < COUNT(state_imports); i++) {
        const struct state_import *wanted = &state_imports[i];
        PyObject *module = PyImport_ImportModule(wanted->module);
        if (module == NULL) {
            return -1;
        }
        PyObject *value = PyObject_GetAttrString(module, wanted->attribute);
        Py_DECREF(module);
        if (value == NULL) {
            return -1;
        }
        *state_object(state, wanted->offset) = value;
    }
    return 0;
}

/* ---- making the module ---- */

int
tosc_add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec,
              PyTypeObject *base, const char *name)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    if (type == NULL) {
        return -1;
    }
    Py_XSETREF(*slot, (PyTypeObject *)type);
    return name != NULL ? PyModule_AddObjectRef(module, name, type) : 0;
}

typedef int (*part_init)(PyObject *module, ToscState *state);

/* Exceptions first, as anything may need them; what has a base after its base. */
static const part_init parts[] = {
    errors_init,     dobject_init,     dlist_init,         ddict_init,  dset_init,
    dbytearray_init, dany_init,        opaque_init,        codec_init,  backends_init,
    manager_init,    transaction_init, transactional_init, shared_init,
};

static int
make_parts(PyObject *module, ToscState *state)
{
    for (size_t i = 0; i < COUNT(parts); i++) {
        if (parts[i](module, state) < 0) {
            return -1;
        }
    }
    return 0;
}

/* All that the parts have added under a public name. */
static int
add_all(PyObject *module)
{
    PyObject *name = NULL;
    PyObject *value = NULL;
    Py_ssize_t pos = 0;
    PyObject *all = PyList_New(0);
    if (all == NULL) {
        return -1;
    }
    while (PyDict_Next(PyModule_GetDict(module), &pos, &name, &value)) {
        if (PyUnicode_ReadChar(name, 0) != '_' && PyList_Append(all, name) < 0) {
            Py_DECREF(all);
            return -1;
        }
    }
    int status =
        PyList_Sort(all) < 0 ? -1 : PyModule_AddObjectRef(module, "__all__", all);
    Py_DECREF(all);
    return status;
}

static int
fill_module(PyObject *module, ToscState *state)
{
    state->current_var = PyContextVar_New("tosc.current_transaction", NULL);
    if (state->current_var == NULL || fill_strings(state) < 0 || fill_imports(state) < 0
        || make_parts(module, state) < 0
        || PyModule_AddStringConstant(module, "__version__", PACKAGE_VERSION) < 0) {
        return -1;
    }
    return add_all(module);
}

static int
module_exec(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(
            PyExc_ImportError,
            "tosc works in the main interpreter only, not in a subinterpreter");
        return -1;
    }
    if (tosc_state != NULL) {
        PyErr_SetString(
            PyExc_ImportError,
            "tosc is loaded in this process already, and cannot be loaded twice; "
            "keep the module that the first import gave");
        return -1;
    }
    tosc_state = PyModule_GetState(module);
    if (fill_module(module, tosc_state) < 0) {
        tosc_state = NULL;
        return -1;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ToscState *state = PyModule_GetState(module);
#define X(name) Py_VISIT(state->name);
    TOSC_STATE_TYPES(X)
    TOSC_STATE_OBJECTS(X)
#undef X
    return 0;
}

static int
module_clear(PyObject *module)
{
    ToscState *state = PyModule_GetState(module);
#define X(name) Py_CLEAR(state->name);
    TOSC_STATE_TYPES(X)
    TOSC_STATE_OBJECTS(X)
#undef X
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
    if (tosc_state == PyModule_GetState(module)) {
        tosc_state = NULL;
    }
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "tosc",
    .m_doc = module_doc,
    .m_size = sizeof(ToscState),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit_tosc(void);

PyMODINIT_FUNC
PyInit_tosc(void)
{
    return PyModuleDef_Init(&module_def);
}
