/*
 * What to run: a source file, a directory or zip file with a __main__.py, or a module.
 *
 * Code is found and compiled here, not by runpy, so that tracebacks show the script's own
 * frames only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"
#include "host/script.h"

#include <string.h>

void
script_clear(Script *script)
{
    Py_CLEAR(script->code);
    Py_CLEAR(script->argv0);
    Py_CLEAR(script->file);
    Py_CLEAR(script->place);
    Py_CLEAR(script->spec);
    Py_CLEAR(script->loader);
    Py_CLEAR(script->package);
}

PyObject *
script_compile(const char *source, PyObject *name, int start)
{
    PyCompilerFlags flags = {.cf_flags = 0, .cf_feature_version = PY_MINOR_VERSION};
    return Py_CompileStringObject(source, name, start, &flags, -1);
}

/* TOSC_ESYSTEM, or a status of what Python raised. */
static int
read_source(PyObject *path, PyObject **ret)
{
    PyObject *file = PyFile_OpenCodeObject(path);
    PyObject *source = file != NULL ? PyObject_CallMethod(file, "read", NULL) : NULL;
    if (source == NULL) {
        int status =
            host_failed_as(PyErr_ExceptionMatches(PyExc_OSError) ? TOSC_ESYSTEM : 0);
        Py_XDECREF(file);
        return status;
    }
    PyObject *closed = PyObject_CallMethod(file, "close", NULL);
    Py_XDECREF(closed);
    PyErr_Clear();
    Py_DECREF(file);
    *ret = source;
    return 0;
}

static PyObject *
compile_source(PyObject *source, PyObject *path)
{
    if (!PyBytes_Check(source)
        || strlen(PyBytes_AS_STRING(source)) != (size_t)PyBytes_GET_SIZE(source)) {
        PyErr_SetString(PyExc_SyntaxError,
                        "source code string cannot contain null bytes");
        return NULL;
    }
    return script_compile(PyBytes_AS_STRING(source), path, Py_file_input);
}

static PyObject *
call_module(const char *module_name, const char *function, PyObject *a, PyObject *b)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *result = module != NULL ? PyObject_CallMethod(module, function,
                                                            b != NULL ? "OO" : "O", a, b)
                                      : NULL;
    Py_XDECREF(module);
    return result;
}

/* The directory in which the script lies, links followed. */
static PyObject *
place_of(PyObject *path)
{
    PyObject *real = call_module("os.path", "realpath", path, NULL);
    PyObject *dir = real != NULL ? call_module("os.path", "dirname", real, NULL) : NULL;
    Py_XDECREF(real);
    return dir;
}

static PyObject *
file_loader(PyObject *path)
{
    PyObject *name = PyUnicode_FromString("__main__");
    PyObject *loader =
        name != NULL ? call_module("importlib.machinery", "SourceFileLoader", name, path)
                     : NULL;
    Py_XDECREF(name);
    return loader;
}

static int
find_in_file(PyObject *path, Script *script)
{
    PyObject *source = NULL;
    int status = read_source(path, &source);
    if (status < 0) {
        return status;
    }
    script->file = Py_NewRef(path);
    script->code = compile_source(source, path);
    Py_DECREF(source);
    script->place = script->code != NULL ? place_of(path) : NULL;
    script->loader = script->place != NULL ? file_loader(path) : NULL;
    return script->loader != NULL ? 0 : host_failed();
}

/* The rest of what a module's spec tells. TOSC_ENOTFOUND: there is nothing to run. */
static int
find_by_spec(PyObject *spec, Script *script)
{
    script->spec = Py_NewRef(spec);
    script->loader = PyObject_GetAttrString(spec, "loader");
    script->package = PyObject_GetAttrString(spec, "parent");
    script->file = PyObject_GetAttrString(spec, "origin");
    PyObject *name = PyObject_GetAttrString(spec, "name");
    if (name != NULL && script->loader != NULL && script->package != NULL
        && script->file != NULL && PyObject_HasAttrString(script->loader, "get_code")) {
        script->code = PyObject_CallMethod(script->loader, "get_code", "O", name);
    }
    Py_XDECREF(name);
    if (PyErr_Occurred()) {
        return host_failed();
    }
    if (script->code == NULL || !PyCode_Check(script->code)
        || !PyUnicode_Check(script->file)) {
        return tosc__fail(TOSC_ENOTFOUND, "the module has no code that could be run");
    }
    return 0;
}

/* A directory or zip file with a __main__.py, for which `importer` is. */
static int
find_in_directory(PyObject *path, PyObject *importer, Script *script)
{
    PyObject *spec = PyObject_CallMethod(importer, "find_spec", "s", "__main__");
    if (spec == NULL) {
        return host_failed();
    }
    int status = 0;
    if (spec == Py_None) {
        PyObject *text = PyUnicode_EncodeFSDefault(path);
        PyErr_Clear();
        const char *shown = text != NULL ? PyBytes_AS_STRING(text) : "it";
        status = tosc__fail_path(TOSC_ENOTFOUND, shown, "there is no __main__.py in %s",
                                 shown);
        Py_XDECREF(text);
    } else {
        status = find_by_spec(spec, script);
    }
    Py_DECREF(spec);
    if (status == 0) {
        script->place = Py_NewRef(path);
    }
    return status;
}

int
script_find_file(const char *given, Script *script)
{
    PyObject *text = PyUnicode_DecodeFSDefault(given);
    PyObject *path = text != NULL ? call_module("os.path", "abspath", text, NULL) : NULL;
    PyObject *importer = path != NULL ? PyImport_GetImporter(path) : NULL;
    int status;
    if (importer == NULL) {
        status = host_failed();
    } else if (importer == Py_None) {
        status = find_in_file(path, script);
    } else {
        status = find_in_directory(path, importer, script);
    }
    script->argv0 = Py_XNewRef(text);
    Py_XDECREF(importer);
    Py_XDECREF(path);
    Py_XDECREF(text);
    return status;
}

/* Is the exception that is set about this module (or one above it) being nowhere? */
static bool
is_missing(PyObject *name)
{
    if (!PyErr_ExceptionMatches(PyExc_ModuleNotFoundError)) {
        return false;
    }
    PyObject *type;
    PyObject *exception;
    PyObject *traceback;
    PyErr_Fetch(&type, &exception, &traceback);
    PyErr_NormalizeException(&type, &exception, &traceback);
    PyObject *missing =
        exception != NULL ? PyObject_GetAttrString(exception, "name") : NULL;
    bool result = false;
    if (missing != NULL && PyUnicode_Check(missing)) {
        Py_ssize_t length = PyUnicode_GetLength(missing);
        result = PyUnicode_Tailmatch(name, missing, 0, PY_SSIZE_T_MAX, -1) == 1
                 && (PyUnicode_GetLength(name) == length
                     || PyUnicode_ReadChar(name, length) == '.');
    }
    Py_XDECREF(missing);
    PyErr_Clear();
    PyErr_Restore(type, exception, traceback);
    return result;
}

int
script_import_failed(PyObject *name)
{
    return host_failed_as(is_missing(name) ? TOSC_ENOTFOUND : 0);
}

/* A new reference to the spec; of a package that of its __main__. */
static int
find_spec(PyObject *name, PyObject **ret)
{
    PyObject *spec = call_module("importlib.util", "find_spec", name, NULL);
    if (spec == NULL) {
        return script_import_failed(name);
    }
    PyObject *inside = spec != Py_None
                           ? PyObject_GetAttrString(spec, "submodule_search_locations")
                           : NULL;
    PyErr_Clear();
    if (inside != NULL && inside != Py_None) {
        Py_DECREF(spec);
        PyObject *inner = PyUnicode_FromFormat("%U.__main__", name);
        spec = inner != NULL ? call_module("importlib.util", "find_spec", inner, NULL)
                             : NULL;
        Py_XDECREF(inner);
    }
    Py_XDECREF(inside);
    if (spec == NULL) {
        return script_import_failed(name);
    }
    if (spec == Py_None) {
        Py_DECREF(spec);
        return tosc__fail(TOSC_ENOTFOUND, "there is no module %s that could be run",
                          PyUnicode_AsUTF8(name));
    }
    *ret = spec;
    return 0;
}

/*
 * As `python3 -m`: the working directory comes first on sys.path where Python has it so.
 */
static int
set_module_place(Script *script)
{
    PyObject *flags = PySys_GetObject("flags");
    PyObject *safe = flags != NULL ? PyObject_GetAttrString(flags, "safe_path") : NULL;
    bool wanted = safe != NULL && PyObject_IsTrue(safe) == 0;
    Py_XDECREF(safe);
    PyErr_Clear();
    if (wanted) {
        PyObject *os = PyImport_ImportModule("os");
        script->place = os != NULL ? PyObject_CallMethod(os, "getcwd", NULL) : NULL;
        Py_XDECREF(os);
        PyErr_Clear(); /* a directory that was removed: then without */
    }
    return script->place != NULL ? place_use(script->place) : 0;
}

int
script_find_module(const char *given, Script *script)
{
    PyObject *spec = NULL;
    PyObject *name = PyUnicode_DecodeFSDefault(given);
    if (name == NULL || set_module_place(script) < 0) {
        Py_XDECREF(name);
        return host_failed();
    }
    int status = find_spec(name, &spec);
    if (status == 0) {
        status = find_by_spec(spec, script);
        script->argv0 = Py_XNewRef(script->file);
        Py_DECREF(spec);
    }
    Py_DECREF(name);
    return status;
}
