/*
 * How Python is configured: where it finds its library, what the module search path is,
 * and that it finds `tosc`.
 *
 * Where the standard library is must not depend on where the program lies that starts
 * Python. Two cases, the same for tosc-run and for programs that embed scripts
 * (config_set_paths):
 * - a virtual environment is to be used: Python is started as that environment's python3,
 *   so that it and site.py do what they do there, and sys.executable is put right
 *   afterwards;
 * - else: the prefix of the python3 that we were configured for.
 * PYTHONHOME overrides both, where the environment is heeded.
 *
 * sys.executable is never the program, which is no Python interpreter: multiprocessing
 * would start the whole program once more. It is tosc-run where that is installed, else
 * python3.
 *
 * Python's settings that reach beyond Python are left as the program has them: the
 * locale, the buffering of stdio, signals unless asked for. Text is UTF-8 unless the
 * environment is heeded and says otherwise.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"
#include "py/state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

PyMODINIT_FUNC PyInit_tosc(void);

static const tosc_host_options defaults;

/* The options that count. */
static tosc_host_options
options_of(const tosc_host_options *given)
{
    tosc_host_options options = given != NULL ? *given : defaults;
    const char *venv = options.use_environment ? getenv("VIRTUAL_ENV") : NULL;
    if (options.venv == NULL && venv != NULL && config_is_venv(venv)) {
        options.venv = venv;
    }
    return options;
}

/* ---- files ---- */

char *
config_path(const char *dir, size_t dir_length, const char *rest)
{
    size_t size = dir_length + 1 + strlen(rest) + 1;
    char *path = malloc(size);
    if (path != NULL) {
        snprintf(path, size, "%.*s/%s", (int)dir_length, dir, rest);
    }
    return path;
}

bool
config_has_file(const char *dir, const char *name, mode_t type)
{
    struct stat status;
    char *path = config_path(dir, strlen(dir), name);
    bool found =
        path != NULL && stat(path, &status) == 0 && (status.st_mode & S_IFMT) == type;
    free(path);
    return found;
}

bool
config_is_venv(const char *dir)
{
    char packages[64];
    snprintf(packages, sizeof packages, "lib/python%d.%d/site-packages", PY_MAJOR_VERSION,
             PY_MINOR_VERSION);
    return dir[0] == '/' && config_has_file(dir, "pyvenv.cfg", S_IFREG)
           && config_has_file(dir, packages, S_IFDIR);
}

/* ---- shared with tosc-run ---- */

PyStatus
config_set_paths(PyConfig *config, const char *program, const char *venv,
                 bool program_in_venv)
{
    PyStatus status;
    if (venv != NULL) {
        char *python = config_path(venv, strlen(venv), "bin/python3");
        if (python == NULL) {
            return PyStatus_NoMemory();
        }
        status = PyConfig_SetBytesString(config, &config->executable, python);
        free(python);
        return status;
    }
    status = PyConfig_SetBytesString(config, &config->executable, program);
    if (!PyStatus_Exception(status)) {
        /* What `-m venv` links into the environments that it makes. */
        status = PyConfig_SetBytesString(config, &config->base_executable, TOSC_PYTHON);
    }
    if (!PyStatus_Exception(status) && !program_in_venv) {
        status = PyConfig_SetBytesString(config, &config->prefix, PYTHON_PREFIX);
        if (!PyStatus_Exception(status)) {
            status = PyConfig_SetBytesString(config, &config->exec_prefix, PYTHON_PREFIX);
        }
    }
    return status;
}

int
config_set_executable(const char *program)
{
    PyObject *path = PyUnicode_DecodeFSDefault(program);
    int result = path != NULL ? PySys_SetObject("executable", path) : -1;
    Py_XDECREF(path);
    return result;
}

/* ---- starting ---- */

/* What sys.executable is to be. */
static const char *
executable_of(const tosc_host_options *options)
{
    if (options->executable != NULL) {
        return options->executable;
    }
    return access(TOSC_RUN_PATH, X_OK) == 0 ? TOSC_RUN_PATH : TOSC_PYTHON;
}

int
config_check(const tosc_host_options *given)
{
    const tosc_host_options *options = given != NULL ? given : &defaults;
    if (options->venv != NULL && !config_is_venv(options->venv)) {
        return tosc__fail_path(
            TOSC_EINVAL, options->venv,
            "options->venv: %s is not the absolute path of a virtual environment of "
            "Python %d.%d",
            options->venv, PY_MAJOR_VERSION, PY_MINOR_VERSION);
    }
    if (options->executable != NULL
        && (options->executable[0] != '/' || access(options->executable, X_OK) != 0)) {
        return tosc__fail_path(
            TOSC_EINVAL, options->executable,
            "options->executable: %s is not the absolute path of a program",
            options->executable);
    }
    return 0;
}

static PyStatus
pre_initialize(bool use_environment)
{
    PyPreConfig config;
    if (use_environment) {
        PyPreConfig_InitPythonConfig(&config);
    } else {
        PyPreConfig_InitIsolatedConfig(&config);
        config.utf8_mode = 1;
    }
    config.parse_argv = 0;
    config.configure_locale = 0;
    config.coerce_c_locale = 0;
    config.coerce_c_locale_warn = 0;
    /* For memory checkers, whose environment nobody isolates from. */
    const char *allocator = getenv("PYTHONMALLOC");
    if (allocator != NULL && strcmp(allocator, "malloc") == 0) {
        config.allocator = PYMEM_ALLOCATOR_MALLOC;
    }
    return Py_PreInitialize(&config);
}

static PyStatus
set_argv(PyConfig *config, const char *const *argv)
{
    static const char *const none[] = {"", NULL};
    Py_ssize_t count = 0;
    const char *const *given = argv != NULL && argv[0] != NULL ? argv : none;
    while (given[count] != NULL) {
        count++;
    }
    return PyConfig_SetBytesArgv(config, count, (char *const *)given);
}

static PyStatus
initialize(const tosc_host_options *options)
{
    PyStatus status = pre_initialize(options->use_environment);
    if (PyStatus_Exception(status)) {
        return status;
    }
    PyConfig config;
    if (options->use_environment) {
        PyConfig_InitPythonConfig(&config);
    } else {
        PyConfig_InitIsolatedConfig(&config);
    }
    config.parse_argv = 0;
    config.configure_c_stdio = 0;
    config.install_signal_handlers = options->install_signal_handlers;
    status = set_argv(&config, options->argv);
    if (!PyStatus_Exception(status)) {
        status = config_set_paths(&config, executable_of(options), options->venv, false);
    }
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    return status;
}

int
config_start(const tosc_host_options *given)
{
    tosc_host_options options = options_of(given);
    if (PyImport_AppendInittab("tosc", PyInit_tosc) != 0) {
        return tosc__fail(TOSC_ENOMEM, "no memory for starting Python");
    }
    PyStatus status = initialize(&options);
    if (PyStatus_Exception(status)) {
        return tosc__fail(TOSC_EPYTHON, "Python cannot be started: %s%s%s",
                          status.func != NULL ? status.func : "",
                          status.func != NULL ? ": " : "",
                          status.err_msg != NULL ? status.err_msg : "it wants to exit");
    }
    return 0;
}

static int
add_search_path(const char *const *search_path)
{
    PyObject *path = PySys_GetObject("path");
    if (path == NULL || !PyList_Check(path)) {
        PyErr_SetString(PyExc_RuntimeError, "sys.path is not a list");
        return -1;
    }
    for (Py_ssize_t i = 0; search_path[i] != NULL; i++) {
        PyObject *dir = PyUnicode_DecodeFSDefault(search_path[i]);
        int result = dir != NULL ? PyList_Insert(path, i, dir) : -1;
        Py_XDECREF(dir);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

int
config_finish(const tosc_host_options *given)
{
    tosc_host_options options = options_of(given);
    if ((options.venv != NULL && config_set_executable(executable_of(&options)) < 0)
        || (options.search_path != NULL && add_search_path(options.search_path) < 0)) {
        return host_failed();
    }
    return 0;
}

/* ---- the module tosc ---- */

PyObject *
config_new_spec(const char *name)
{
    PyObject *machinery = PyImport_ImportModule("importlib.machinery");
    PyObject *spec = machinery != NULL ? PyObject_CallMethod(machinery, "ModuleSpec",
                                                             "sO", name, Py_None)
                                       : NULL;
    Py_XDECREF(machinery);
    return spec;
}

/* In an interpreter that was started without us. */
static PyObject *
make_tosc(void)
{
    PyObject *spec = config_new_spec("tosc");
    PyModuleDef *def = (PyModuleDef *)PyInit_tosc();
    PyObject *module = spec != NULL ? PyModule_FromDefAndSpec(def, spec) : NULL;
    if (module == NULL || PyObject_SetAttrString(module, "__spec__", spec) < 0
        || PyModule_ExecDef(module, def) < 0) {
        Py_CLEAR(module);
    }
    Py_XDECREF(spec);
    return module;
}

int
config_add_tosc(bool joined)
{
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = NULL;
    if (tosc_state == NULL && PyDict_GetItemString(modules, "tosc") != NULL) {
        PyErr_SetString(PyExc_ImportError,
                        "a module tosc is loaded in this interpreter that comes from "
                        "another copy of the library");
        return -1;
    }
    if (tosc_state != NULL || !joined) {
        module = PyImport_ImportModule("tosc");
    } else {
        module = make_tosc();
        if (module != NULL && PyDict_SetItemString(modules, "tosc", module) < 0) {
            Py_CLEAR(module);
        }
    }
    Py_XDECREF(module);
    return module != NULL ? 0 : -1;
}
