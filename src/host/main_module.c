/*
 * The module __main__, and what else a script finds: sys.argv, sys.path.
 *
 * A file or module runs in a new module __main__, which replaces the one in sys.modules;
 * that dies with the last function of it that somebody holds. sys.argv is the latest
 * script's. Its directory comes first on sys.path, as with python3, as long as it runs or
 * is __main__, so that functions that are called later can still import what lies beside
 * the script. Since scripts may run in several threads at a time, `places` counts how
 * often each directory is in use.
 *
 * All of it is guarded by Python's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"
#include "host/script.h"

static PyObject *places; /* list of str: a directory once for each use, or NULL: none */
static PyObject *main_place; /* __main__'s use, or NULL */

/* ---- sys.path ---- */

/* 1, 0, or -1 with an exception. */
static int
list_has(PyObject *list, PyObject *item)
{
    return PySequence_Contains(list, item);
}

static PyObject *
sys_path(void)
{
    PyObject *path = PySys_GetObject("path");
    if (path == NULL || !PyList_Check(path)) {
        PyErr_SetString(PyExc_RuntimeError, "sys.path is lost, or no list");
        return NULL;
    }
    return path;
}

/* Unless it stands there anyway. */
int
place_use(PyObject *dir)
{
    PyObject *path = sys_path();
    if (path == NULL || (places == NULL && (places = PyList_New(0)) == NULL)) {
        return -1;
    }
    int used = list_has(places, dir);
    int there = used == 0 ? list_has(path, dir) : used;
    if (there < 0 || (!there && PyList_Insert(path, 0, dir) < 0)) {
        return -1;
    }
    /* What others have put there is not ours to take away. */
    return used || !there ? PyList_Append(places, dir) : 0;
}

static void
list_remove(PyObject *list, PyObject *item)
{
    Py_ssize_t at = PySequence_Index(list, item);
    if (at < 0 || PyList_SetSlice(list, at, at + 1, NULL) < 0) {
        PyErr_Clear();
    }
}

void
place_leave(PyObject *dir)
{
    if (places == NULL || list_has(places, dir) <= 0) {
        PyErr_Clear();
        return;
    }
    list_remove(places, dir);
    PyObject *path = list_has(places, dir) == 0 ? sys_path() : NULL;
    if (path != NULL) {
        list_remove(path, dir);
    }
    PyErr_Clear();
}

void
main_stop(void)
{
    Py_CLEAR(places);
    Py_CLEAR(main_place);
}

/* ---- __main__ ---- */

static int
set_name(PyObject *globals, const char *name, PyObject *value)
{
    return PyDict_SetItemString(globals, name, value != NULL ? value : Py_None);
}

/* A module __main__ that is in no table yet. */
static PyObject *
new_main(const Script *script)
{
    PyObject *module = PyModule_New("__main__");
    if (module == NULL) {
        return NULL;
    }
    PyObject *globals = PyModule_GetDict(module);
    PyObject *notes = PyDict_New();
    PyObject *builtins = PyImport_ImportModule("builtins");
    if (notes == NULL || set_name(globals, "__annotations__", notes) < 0
        || builtins == NULL || set_name(globals, "__builtins__", builtins) < 0
        || set_name(globals, "__file__", script->file) < 0
        || set_name(globals, "__cached__", NULL) < 0
        || set_name(globals, "__spec__", script->spec) < 0
        || set_name(globals, "__loader__", script->loader) < 0
        || set_name(globals, "__package__", script->package) < 0) {
        Py_CLEAR(module);
    }
    Py_XDECREF(builtins);
    Py_XDECREF(notes);
    return module;
}

static PyObject *
new_argv(PyObject *first, const char *const *rest)
{
    PyObject *argv = PyList_New(0);
    int result = argv != NULL ? PyList_Append(argv, first) : -1;
    for (size_t i = 0; result == 0 && rest != NULL && rest[i] != NULL; i++) {
        PyObject *word = PyUnicode_DecodeFSDefault(rest[i]);
        result = word != NULL ? PyList_Append(argv, word) : -1;
        Py_XDECREF(word);
    }
    if (result < 0) {
        Py_CLEAR(argv);
    }
    return argv;
}

static int
publish_main(PyObject *module, PyObject *argv, PyObject *place)
{
    if ((place != NULL && place_use(place) < 0) || PySys_SetObject("argv", argv) < 0
        || PyDict_SetItemString(PyImport_GetModuleDict(), "__main__", module) < 0) {
        return -1;
    }
    PyObject *before = main_place;
    main_place = Py_XNewRef(place);
    if (before != NULL) {
        place_leave(before);
        Py_DECREF(before);
    }
    return 0;
}

/* What scripts have printed is to be seen; what cannot be printed is their affair. */
static void
flush_output(void)
{
    static const char *const names[] = {"stdout", "stderr"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        PyObject *file = PySys_GetObject(names[i]);
        if (file != NULL && file != Py_None) {
            Py_INCREF(file);
            PyObject *done = PyObject_CallMethod(file, "flush", NULL);
            Py_XDECREF(done);
            Py_DECREF(file);
            PyErr_Clear();
        }
    }
}

int
main_ended(PyObject *result)
{
    int status = 0;
    if (result == NULL && !host_exited_well()) {
        status = host_failed();
    }
    Py_XDECREF(result);
    flush_output();
    return status;
}

int
main_run(const Script *script, const char *const *argv)
{
    PyObject *module = new_main(script);
    PyObject *list = module != NULL ? new_argv(script->argv0, argv) : NULL;
    PyObject *result = NULL;
    bool placed = false;
    if (list != NULL && publish_main(module, list, script->place) == 0) {
        /* A use of its own, as another __main__ may come meanwhile. */
        placed = script->place != NULL && place_use(script->place) == 0;
        PyErr_Clear();
        PyObject *globals = PyModule_GetDict(module);
        result = PyEval_EvalCode(script->code, globals, globals);
    }
    int status = main_ended(result);
    if (placed) {
        place_leave(script->place);
    }
    Py_XDECREF(list);
    Py_XDECREF(module);
    return status;
}
