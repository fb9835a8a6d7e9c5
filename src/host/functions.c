/*
 * C functions that scripts call.
 *
 * Each is a builtin function object, whose `self` is a capsule with the C function, its
 * argument, and the name and documentation that the function object refers to. The
 * modules they stand in are real modules in sys.modules; `modules` knows which of them
 * are ours.
 *
 * A call runs in a scope, in which the arguments are borrowed. Scopes of its own that the
 * function has not left are given up, and the script is told.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"

#include <stdlib.h>
#include <string.h>

static const char capsule_name[] = "tosc.host_function";

typedef struct Function {
    tosc_function call;
    void *arg;
    PyMethodDef def; /* name and doc are ours */
} Function;

static PyObject *modules; /* dict: name to module; guarded by Python's lock */

/* ---- a call ---- */

#define FEW 8

typedef struct Call {
    tosc_scope scope;
    tosc_value *few[FEW];
    tosc_value **values;
    tosc_arguments arguments;
} Call;

/* Borrows what is given by position: 0, or a status. */
static int
lend_values(Call *call, PyObject *const *args, Py_ssize_t count)
{
    HostThread *thread = host_thread();
    if (count > FEW) {
        tosc_value **room = calloc((size_t)count, sizeof(tosc_value *));
        if (room == NULL) {
            return tosc__fail(TOSC_ENOMEM, "no memory for %zd arguments", count);
        }
        call->values = room;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        int status = value_return_borrowed(thread, Py_NewRef(args[i]), &call->values[i]);
        if (status < 0) {
            return status;
        }
    }
    call->arguments.values = call->values;
    call->arguments.count = (size_t)count;
    return 0;
}

static int
lend_named(Call *call, PyObject *const *values, PyObject *names)
{
    Py_ssize_t count = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    if (count == 0) {
        return 0;
    }
    PyObject *named = PyDict_New();
    for (Py_ssize_t i = 0; named != NULL && i < count; i++) {
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(names, i), values[i]) < 0) {
            Py_CLEAR(named);
        }
    }
    return value_return_borrowed(host_thread(), named, &call->arguments.named);
}

/* Takes over what the function has returned: a new reference. */
static PyObject *
take_result(tosc_value *value)
{
    if (value == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *result = Py_XNewRef(value_get(value, "the result of the function"));
    if (result == NULL) {
        host_raise(TOSC_EINVAL);
        return NULL;
    }
    handle_unref(value, HANDLE_VALUE); /* a borrowed one is as welcome */
    return result;
}

/* In the scope: a new reference, or NULL with an exception. */
static PyObject *
run_function(const Function *function, Call *call)
{
    HostThread *thread = host_thread();
    HostCallback callback;
    PyObject *result = NULL;
    tosc_value *value = NULL;
    host_callback_begin(thread, &callback);
    HostThread before = *thread;
    unsigned long faults = tosc__fault_number();
    int status = function->call(&call->arguments, &value, function->arg);
    status = host_returned(status, faults);
    if (!scope_unwind(thread, &call->scope, &before)) {
        PyErr_SetString(PyExc_SystemError,
                        "a C function returned with a scope that it had not left");
    } else if (status < 0) {
        host_raise(status);
    } else if (status > 0) {
        PyErr_Format(PyExc_SystemError, "a C function returned %d, and not 0 or a code",
                     status);
    } else {
        result = take_result(value);
    }
    if (result == NULL && value != NULL) {
        PyObject *error, *what, *traceback;
        PyErr_Fetch(&error, &what, &traceback);
        handle_unref(value, HANDLE_VALUE);
        PyErr_Restore(error, what, traceback);
    }
    host_callback_end(thread, &callback);
    return result;
}

/* The scope is left before the script gets an exception: no entry leaves one behind. */
static void
leave_scope(Call *call)
{
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    tosc_scope_leave(&call->scope);
    PyErr_Restore(type, value, traceback);
    if (call->values != call->few) {
        free(call->values);
    }
}

static PyObject *
call_function(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Call call = {.values = call.few};
    PyObject *result = NULL;
    const Function *function = PyCapsule_GetPointer(self, capsule_name);
    int status = function != NULL ? tosc_scope_enter(&call.scope) : TOSC_EPYTHON;
    if (status < 0) {
        if (!PyErr_Occurred()) {
            host_raise(status);
        }
        return NULL;
    }
    Py_INCREF(self); /* it may be replaced while it runs */
    status = lend_values(&call, args, count);
    if (status == 0) {
        status = lend_named(&call, args + count, names);
    }
    if (status == 0) {
        result = run_function(function, &call);
    } else {
        host_raise(status);
    }
    leave_scope(&call);
    Py_DECREF(self);
    return result;
}

/* ---- making one ---- */

static void
free_function(PyObject *capsule)
{
    Function *function = PyCapsule_GetPointer(capsule, capsule_name);
    if (function != NULL) {
        free((void *)(uintptr_t)function->def.ml_name);
        free((void *)(uintptr_t)function->def.ml_doc);
        free(function);
    }
}

/* A new reference, or NULL with an exception. */
static PyObject *
new_capsule(const char *name, tosc_function call, void *arg, const char *doc)
{
    Function *function = calloc(1, sizeof(*function));
    if (function == NULL) {
        return PyErr_NoMemory();
    }
    function->call = call;
    function->arg = arg;
    function->def.ml_name = strdup(name);
    function->def.ml_doc = doc != NULL ? strdup(doc) : NULL;
    function->def.ml_meth = (PyCFunction)(void (*)(void))call_function;
    function->def.ml_flags = METH_FASTCALL | METH_KEYWORDS;
    PyObject *capsule = NULL;
    if (function->def.ml_name != NULL && (doc == NULL || function->def.ml_doc != NULL)) {
        capsule = PyCapsule_New(function, capsule_name, free_function);
    } else {
        PyErr_NoMemory();
    }
    if (capsule == NULL) {
        free((void *)(uintptr_t)function->def.ml_name);
        free((void *)(uintptr_t)function->def.ml_doc);
        free(function);
    }
    return capsule;
}

static PyObject *
new_function(const char *module, const char *name, tosc_function call, void *arg,
             const char *doc)
{
    PyObject *capsule = new_capsule(name, call, arg, doc);
    PyObject *module_name = capsule != NULL ? PyUnicode_FromString(module) : NULL;
    PyObject *result = NULL;
    if (module_name != NULL) {
        Function *function = PyCapsule_GetPointer(capsule, capsule_name);
        result = PyCFunction_NewEx(&function->def, capsule, module_name);
    }
    Py_XDECREF(module_name);
    Py_XDECREF(capsule);
    return result;
}

/* ---- modules ---- */

/*
 * Can a module of this name be found, or is there one, that is not ours? -1: exception.
 */
static int
is_taken(const char *name)
{
    PyObject *loaded = PyDict_GetItemString(PyImport_GetModuleDict(), name);
    if (loaded != NULL) {
        return 1;
    }
    PyObject *util = PyImport_ImportModule("importlib.util");
    PyObject *spec =
        util != NULL ? PyObject_CallMethod(util, "find_spec", "s", name) : NULL;
    int result = spec != NULL ? spec != Py_None : -1;
    Py_XDECREF(spec);
    Py_XDECREF(util);
    return result;
}

static PyObject *
new_module(const char *name)
{
    PyObject *module = PyModule_New(name);
    PyObject *spec = module != NULL ? config_new_spec(name) : NULL;
    if (spec == NULL || PyObject_SetAttrString(module, "__spec__", spec) < 0
        || PyDict_SetItemString(modules, name, module) < 0) {
        Py_CLEAR(module);
    }
    Py_XDECREF(spec);
    return module;
}

/* The module of this name, made if need be, in sys.modules: a new reference in *ret. */
static int
get_module(const char *name, PyObject **ret)
{
    if (modules == NULL && (modules = PyDict_New()) == NULL) {
        return host_failed();
    }
    PyObject *module = Py_XNewRef(PyDict_GetItemString(modules, name));
    if (module == NULL) {
        int taken = is_taken(name);
        if (taken > 0) {
            return tosc__fail(TOSC_EINVAL,
                              "there is a module %s already, which is not one of C "
                              "functions: take another name",
                              name);
        }
        module = taken == 0 ? new_module(name) : NULL;
    }
    if (module == NULL
        || PyDict_SetItemString(PyImport_GetModuleDict(), name, module) < 0) {
        Py_XDECREF(module);
        return host_failed();
    }
    *ret = module;
    return 0;
}

/* Can a script write it? Python says that `class` is an identifier, too. */
static bool
is_name(const char *name)
{
    PyObject *text = PyUnicode_FromString(name);
    PyObject *module = text != NULL ? PyImport_ImportModule("keyword") : NULL;
    PyObject *keywords = module != NULL ? PyObject_GetAttrString(module, "kwlist") : NULL;
    bool result = keywords != NULL && PyUnicode_IsIdentifier(text) == 1
                  && PySequence_Contains(keywords, text) == 0;
    Py_XDECREF(keywords);
    Py_XDECREF(module);
    Py_XDECREF(text);
    PyErr_Clear();
    return result;
}

static int
register_function(const char *module_name, const char *name, tosc_function function,
                  void *arg, const char *doc)
{
    PyObject *module = NULL;
    if (!is_name(module_name) || !is_name(name)) {
        return tosc__fail(TOSC_EINVAL,
                          "%s.%s cannot be the name of a function: '%s' is a keyword, or "
                          "no identifier of Python",
                          module_name, name, is_name(module_name) ? name : module_name);
    }
    int status = get_module(module_name, &module);
    if (status < 0) {
        return status;
    }
    PyObject *object = new_function(module_name, name, function, arg, doc);
    if (object == NULL || PyObject_SetAttrString(module, name, object) < 0) {
        status = host_failed();
    }
    Py_XDECREF(object);
    Py_DECREF(module);
    return status;
}

int
tosc_host_register(const char *module, const char *name, tosc_function function,
                   void *arg, const char *doc)
{
    HostEntry entry;
    if (module == NULL || name == NULL || function == NULL) {
        return tosc__fail(TOSC_EINVAL, "%s is NULL",
                          module == NULL ? "module"
                          : name == NULL ? "name"
                                         : "function");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    return host_leave(&entry, register_function(module, name, function, arg, doc));
}

void
functions_stop(void)
{
    Py_CLEAR(modules);
}
