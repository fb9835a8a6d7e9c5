/*
 * Running scripts, calling their functions, interrupting both.
 *
 * A file or module runs in a new module __main__, which replaces the one in sys.modules; that
 * dies with the last function of it that somebody holds. sys.argv is the latest script's. Its
 * directory comes first on sys.path, as with python3, as long as it runs or is __main__, so that
 * functions that are called later can still import what lies beside the script. Since scripts
 * may run in several threads at a time, `places` counts how often each directory is in use.
 *
 * Code is compiled and run by this file, not by runpy, so that tracebacks show the script's own
 * frames only. What python3 can run, runs: a source file, a directory or zip file with a
 * __main__.py.
 *
 * All runs and calls from C are in a list while they last, so that they can be interrupted. An
 * interrupt that comes too late, when the outermost run of its thread has ended, is taken back.
 *
 * The list, `places` and `main_place` are guarded by Python's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"

#include <stdlib.h>
#include <string.h>

typedef struct Run {
    struct Run *next; /* begun before this one */
    unsigned long thread;
    bool interrupted;
} Run;

static Run *runs;
static PyObject *places; /* list of str: a directory once for each use, or NULL: none */
static PyObject *main_place; /* __main__'s use, or NULL */

/* ---- the list of runs ---- */

static void
run_begin(Run *run)
{
    *run = (Run){.next = runs, .thread = PyThread_get_thread_ident()};
    runs = run;
}

static void
run_end(Run *run)
{
    bool outermost = true;
    Run **link = &runs;
    while (*link != run) {
        link = &(*link)->next;
    }
    *link = run->next;
    for (const Run *other = runs; other != NULL; other = other->next) {
        outermost = outermost && other->thread != run->thread;
    }
    if (run->interrupted && outermost) {
        PyThreadState_SetAsyncExc(run->thread, NULL);
    }
}

void
runs_forked(void)
{
    unsigned long thread = PyThread_get_thread_ident();
    Run **link = &runs;
    while (*link != NULL) {
        if ((*link)->thread != thread) {
            *link = (*link)->next;
        } else {
            link = &(*link)->next;
        }
    }
}

int
tosc_host_interrupt(void)
{
    HostEntry entry;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    for (Run *run = runs; run != NULL; run = run->next) {
        run->interrupted = true;
        PyThreadState_SetAsyncExc(run->thread, PyExc_KeyboardInterrupt);
    }
    return host_leave(&entry, 0);
}

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

/* Puts the directory first on sys.path, unless it stands there anyway. -1: exception. */
static int
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

/* Ends one use. No exception may be set. */
static void
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
runs_stop(void)
{
    Py_CLEAR(places);
    Py_CLEAR(main_place);
}

/* ---- __main__ ---- */

/* What a script is and where. */
typedef struct Script {
    PyObject *code;
    PyObject *argv0;   /* str: first of sys.argv */
    PyObject *file;    /* str: __file__ */
    PyObject *place;   /* str: its directory, or NULL: none */
    PyObject *spec;    /* of a module, or NULL */
    PyObject *loader;  /* may be NULL */
    PyObject *package; /* may be NULL */
} Script;

static void
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

/* The status of a whole script; takes over the result. */
static int
script_ended(PyObject *result)
{
    int status = 0;
    if (result == NULL && !host_exited_well()) {
        status = host_failed();
    }
    Py_XDECREF(result);
    flush_output();
    return status;
}

static int
run_script(const Script *script, const char *const *argv)
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
    int status = script_ended(result);
    if (placed) {
        place_leave(script->place);
    }
    Py_XDECREF(list);
    Py_XDECREF(module);
    return status;
}

/* ---- finding scripts ---- */

static PyObject *
compile_text(const char *source, PyObject *name, int start)
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
    return compile_text(PyBytes_AS_STRING(source), path, Py_file_input);
}

static PyObject *
call_module(const char *module_name, const char *function, PyObject *a, PyObject *b)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *result =
        module != NULL ? PyObject_CallMethod(module, function, b != NULL ? "OO" : "O", a, b)
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
    PyObject *loader = name != NULL ? call_module("importlib.machinery",
                                                  "SourceFileLoader", name, path)
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
        status = tosc__fail_path(TOSC_ENOTFOUND, shown,
                                 "there is no __main__.py in %s", shown);
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

static int
find_at_path(const char *given, Script *script)
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

static int
import_failed(PyObject *name)
{
    return host_failed_as(is_missing(name) ? TOSC_ENOTFOUND : 0);
}

/* A new reference to the spec; of a package that of its __main__. */
static int
find_spec(PyObject *name, PyObject **ret)
{
    PyObject *spec = call_module("importlib.util", "find_spec", name, NULL);
    if (spec == NULL) {
        return import_failed(name);
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
        return import_failed(name);
    }
    if (spec == Py_None) {
        Py_DECREF(spec);
        return tosc__fail(TOSC_ENOTFOUND, "there is no module %s that could be run",
                          PyUnicode_AsUTF8(name));
    }
    *ret = spec;
    return 0;
}

/* As `python3 -m`: the working directory comes first on sys.path where Python has it so. */
static int
set_module_place(Script *script)
{
    PyObject *flags = PySys_GetObject("flags");
    PyObject *safe =
        flags != NULL ? PyObject_GetAttrString(flags, "safe_path") : NULL;
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

static int
find_module(const char *given, Script *script)
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

/* ---- running ---- */

static int
missing(const char *what)
{
    return tosc__fail(TOSC_EINVAL, "%s is NULL or empty", what);
}

int
tosc_host_run_file(const char *path, const char *const *argv)
{
    HostEntry entry;
    Run run;
    Script script = {0};
    if (path == NULL || *path == '\0') {
        return missing("path");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = find_at_path(path, &script);
    if (status == 0) {
        status = run_script(&script, argv);
    }
    script_clear(&script);
    run_end(&run);
    return host_leave(&entry, status);
}

int
tosc_host_run_module(const char *name, const char *const *argv)
{
    HostEntry entry;
    Run run;
    Script script = {0};
    if (name == NULL || *name == '\0') {
        return missing("name");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = find_module(name, &script);
    if (status == 0) {
        status = run_script(&script, argv);
    }
    if (script.place != NULL) {
        place_leave(script.place);
    }
    script_clear(&script);
    run_end(&run);
    return host_leave(&entry, status);
}

/* In the present __main__: a new reference, or NULL with an exception. */
static PyObject *
evaluate(const char *source, const char *name, int start)
{
    PyObject *result = NULL;
    PyObject *module = PyImport_AddModule("__main__");
    PyObject *file = module != NULL ? PyUnicode_DecodeFSDefault(name) : NULL;
    PyObject *code = file != NULL ? compile_text(source, file, start) : NULL;
    if (code != NULL) {
        PyObject *globals = Py_NewRef(PyModule_GetDict(module));
        result = PyEval_EvalCode(code, globals, globals);
        Py_DECREF(globals);
    }
    Py_XDECREF(code);
    Py_XDECREF(file);
    return result;
}

int
tosc_host_run_string(const char *source, const char *name)
{
    HostEntry entry;
    Run run;
    if (source == NULL) {
        return tosc__fail(TOSC_EINVAL, "source is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = script_ended(evaluate(source, name != NULL ? name : "<string>",
                                   Py_file_input));
    run_end(&run);
    return host_leave(&entry, status);
}

/* The status of a call, whose result (taken over) is the caller's if he wants it. */
static int
give(PyObject *result, tosc_value **ret)
{
    if (result != NULL && ret == NULL) {
        Py_DECREF(result);
        return 0;
    }
    return value_return(result, ret);
}

int
tosc_host_eval(const char *expression, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    if (expression == NULL) {
        return tosc__fail(TOSC_EINVAL, "expression is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = give(evaluate(expression + strspn(expression, " \t\r\n"), "<expression>",
                           Py_eval_input),
                  ret);
    run_end(&run);
    return host_leave(&entry, status);
}

/* ---- finding and calling functions ---- */

/* Follows "attr.attr": takes over the reference; NULL with an exception. */
static PyObject *
get_attributes(PyObject *object, const char *names)
{
    while (object != NULL) {
        size_t length = strcspn(names, ".");
        PyObject *name = PyUnicode_DecodeUTF8(names, (Py_ssize_t)length, NULL);
        PyObject *value = name != NULL ? PyObject_GetAttr(object, name) : NULL;
        Py_XDECREF(name);
        Py_SETREF(object, value);
        if (names[length] == '\0') {
            break;
        }
        names += length + 1;
    }
    return object;
}

static int
find(const char *name, PyObject **ret)
{
    const char *colon = name != NULL ? strchr(name, ':') : NULL;
    if (colon == NULL || colon == name || colon[1] == '\0') {
        return tosc__fail(TOSC_EINVAL, "name has to be \"module:function\", not \"%s\"",
                          name != NULL ? name : "NULL");
    }
    PyObject *module_name = PyUnicode_DecodeUTF8(name, colon - name, NULL);
    if (module_name == NULL) {
        return host_failed();
    }
    PyObject *module = PyImport_Import(module_name);
    int status = module == NULL ? import_failed(module_name) : 0;
    Py_DECREF(module_name);
    if (status == 0) {
        *ret = get_attributes(module, colon + 1);
        if (*ret == NULL) {
            status = host_failed_as(
                PyErr_ExceptionMatches(PyExc_AttributeError) ? TOSC_ENOTFOUND : 0);
        }
    }
    return status;
}

int
tosc_host_find(const char *name, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    PyObject *found = NULL;
    if (ret == NULL) {
        return tosc__fail(TOSC_EINVAL, "ret is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = find(name, &found);
    if (status == 0) {
        status = value_return(found, ret);
    }
    run_end(&run);
    return host_leave(&entry, status);
}

#define FEW 8

/* The objects behind the handles, borrowed, and the named ones as a dict, new, or NULL. */
static int
get_arguments(const tosc_arguments *arguments, PyObject **objects, PyObject **ret_named)
{
    for (size_t i = 0; i < arguments->count; i++) {
        objects[i] = value_get(arguments->values[i], "an argument");
        if (objects[i] == NULL) {
            return TOSC_EINVAL;
        }
    }
    if (arguments->named == NULL) {
        return 0;
    }
    PyObject *named = value_get(arguments->named, "arguments->named");
    if (named == NULL) {
        return TOSC_EINVAL;
    }
    *ret_named = PyDict_New();
    if (*ret_named != NULL && PyDict_Update(*ret_named, named) < 0) {
        Py_CLEAR(*ret_named);
        PyErr_Clear();
        return tosc__fail(TOSC_ETYPE, "arguments->named is not a dict");
    }
    return *ret_named != NULL ? 0 : host_failed();
}

static int
call_with(PyObject *callable, const tosc_arguments *arguments, PyObject **objects,
          tosc_value **ret)
{
    PyObject *named = NULL;
    int status = get_arguments(arguments, objects, &named);
    if (status == 0) {
        /* The handles may be given back by what is called. */
        for (size_t i = 0; i < arguments->count; i++) {
            Py_INCREF(objects[i]);
        }
        status = give(PyObject_VectorcallDict(callable, objects, arguments->count, named),
                      ret);
        for (size_t i = 0; i < arguments->count; i++) {
            Py_DECREF(objects[i]);
        }
    }
    Py_XDECREF(named);
    return status;
}

static int
call(PyObject *callable, const tosc_arguments *given, tosc_value **ret)
{
    static const tosc_arguments none;
    const tosc_arguments *arguments = given != NULL ? given : &none;
    PyObject *few[FEW];
    PyObject **objects = few;
    if (arguments->count > 0 && arguments->values == NULL) {
        return tosc__fail(TOSC_EINVAL, "arguments->values is NULL");
    }
    if (!PyCallable_Check(callable)) {
        return tosc__fail(TOSC_ETYPE, "a value of type %s cannot be called",
                          Py_TYPE(callable)->tp_name);
    }
    if (arguments->count > FEW) {
        objects = calloc(arguments->count, sizeof(*objects));
        if (objects == NULL) {
            return tosc__fail(TOSC_ENOMEM, "no memory for %zu arguments",
                              arguments->count);
        }
    }
    Py_INCREF(callable);
    int status = call_with(callable, arguments, objects, ret);
    Py_DECREF(callable);
    if (objects != few) {
        free(objects);
    }
    return status;
}

int
tosc_host_call(const char *name, const tosc_arguments *arguments, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    PyObject *callable = NULL;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    status = find(name, &callable);
    if (status == 0) {
        status = call(callable, arguments, ret);
        Py_DECREF(callable);
    }
    run_end(&run);
    return host_leave(&entry, status);
}

int
tosc_call(tosc_value *callable, const tosc_arguments *arguments, tosc_value **ret)
{
    HostEntry entry;
    Run run;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    PyObject *object = value_get(callable, "callable");
    status = object != NULL ? call(object, arguments, ret) : TOSC_EINVAL;
    run_end(&run);
    return host_leave(&entry, status);
}

static int
call_method(PyObject *object, const char *name, const tosc_arguments *arguments,
            tosc_value **ret)
{
    PyObject *method = PyObject_GetAttrString(object, name);
    if (method == NULL) {
        return host_failed_as(
            PyErr_ExceptionMatches(PyExc_AttributeError) ? TOSC_ENOTFOUND : 0);
    }
    int status = call(method, arguments, ret);
    Py_DECREF(method);
    return status;
}

int
tosc_call_method(tosc_value *object, const char *name, const tosc_arguments *arguments,
                 tosc_value **ret)
{
    HostEntry entry;
    Run run;
    if (name == NULL) {
        return tosc__fail(TOSC_EINVAL, "name is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    run_begin(&run);
    PyObject *self = value_get(object, "object");
    if (self == NULL) {
        status = TOSC_EINVAL;
    } else {
        Py_INCREF(self);
        status = call_method(self, name, arguments, ret);
        Py_DECREF(self);
    }
    run_end(&run);
    return host_leave(&entry, status);
}
