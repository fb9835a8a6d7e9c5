/*
 * tosc-run: a Python interpreter that has the module `tosc` built in.
 *
 * It is python3 in all but two things: `tosc` is registered before the interpreter
 * starts, and sys.executable is this program, so that what a script starts again by it
 * (the spawn and forkserver methods of multiprocessing, subprocess) has `tosc` as well.
 * Arguments, environment, exit status and signals are left to CPython.
 *
 * Where the standard library is must not depend on where this program lies: see
 * host_config.c for the cases that programs which embed scripts have as well. One more is
 * ours: if we lie in a virtual environment (a link in its bin/), CPython finds it out by
 * itself. VIRTUAL_ENV names one for us.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

PyMODINIT_FUNC PyInit_tosc(void);

/* The options of CPython's command line; a colon follows those that take a value. */
static const char PYTHON_OPTIONS[] = "bBc:dEhiIJm:OPqRsStuvVW:xX:?";

/* What the system says that it runs, links resolved; NULL where it does not tell. */
static char *
running_file(void)
{
    size_t size = 256;
    char *path = NULL;
    for (;;) {
        char *larger = realloc(path, size);
        if (larger == NULL) {
            break;
        }
        path = larger;
        ssize_t length = readlink("/proc/self/exe", path, size);
        if (length < 0) {
            break;
        }
        if ((size_t)length < size) {
            path[length] = '\0';
            return path;
        }
        size *= 2;
    }
    free(path);
    return NULL;
}

/* Whether `path` is the file that runs (or, where that is not known, could be). */
static bool
is_this_program(const char *path, const char *running)
{
    struct stat a;
    struct stat b;
    if (stat(path, &a) != 0 || !S_ISREG(a.st_mode) || access(path, X_OK) != 0) {
        return false;
    }
    return running == NULL || stat(running, &b) != 0
           || (a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

static char *
absolute_path(const char *path)
{
    if (path[0] == '/') {
        return strdup(path);
    }
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
    }
    char *cwd = getcwd(NULL, 0);
    char *result = cwd != NULL ? config_path(cwd, strlen(cwd), path) : NULL;
    free(cwd);
    return result;
}

/* The first program of this name along PATH that is this one. */
static char *
search_path(const char *name, const char *running)
{
    const char *dir = getenv("PATH");
    while (dir != NULL && *name != '\0') {
        size_t length = strcspn(dir, ":");
        char *entry = length > 0 ? config_path(dir, length, name) : strdup(name);
        char *path = entry != NULL ? absolute_path(entry) : NULL;
        free(entry);
        if (path != NULL && is_this_program(path, running)) {
            return path;
        }
        free(path);
        dir = dir[length] == ':' ? dir + length + 1 : NULL;
    }
    return NULL;
}

/*
 * This program's absolute path under the name that it was started by, links unresolved as
 * CPython does. argv[0] is only believed if it leads to the file that runs.
 */
static char *
own_path(const char *name)
{
    char *running = running_file();
    char *path = strchr(name, '/') ? absolute_path(name) : search_path(name, running);
    if (path != NULL && is_this_program(path, running)) {
        free(running);
        return path;
    }
    free(path);
    return running;
}

/*
 * Whether pyvenv.cfg lies beside the program or a directory above, as site.py looks for
 * it.
 */
static bool
lies_in_venv(const char *program)
{
    bool found = false;
    char *dir = strdup(program);
    for (int up = 0; up < 2 && dir != NULL && !found; up++) {
        char *slash = strrchr(dir, '/');
        if (slash != NULL) {
            *slash = '\0';
            found = config_has_file(dir, "pyvenv.cfg", S_IFREG);
        }
    }
    free(dir);
    return found;
}

/*
 * VIRTUAL_ENV where it names an environment of this Python, else NULL (and a word why).
 */
static const char *
usable_venv(void)
{
    const char *venv = getenv("VIRTUAL_ENV");
    if (venv == NULL || *venv == '\0') {
        return NULL;
    }
    if (config_is_venv(venv)) {
        return venv;
    }
    fprintf(stderr,
            "tosc-run: VIRTUAL_ENV is ignored: %s is not a virtual environment of Python "
            "%d.%d\n",
            venv, PY_MAJOR_VERSION, PY_MINOR_VERSION);
    return NULL;
}

/* The option that makes CPython print about itself and end: 'h', 'V', or 0. */
static char
informative_option(int argc, char **argv)
{
    char result = 0;
    for (int i = 1; i < argc && argv[i][0] == '-' && argv[i][1] != '\0'; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            return 'h';
        }
        if (strcmp(argv[i], "--version") == 0) {
            result = 'V';
            continue;
        }
        if (strcmp(argv[i], "--check-hash-based-pycs") == 0) {
            i++;
            continue;
        }
        if (argv[i][1] == '-') {
            return argv[i][2] == '\0' ? result : 0;
        }
        for (const char *option = argv[i] + 1; *option != '\0'; option++) {
            const char *known = *option != ':' ? strchr(PYTHON_OPTIONS, *option) : NULL;
            if (known == NULL) {
                return 0;
            }
            if (*option == 'h' || *option == '?') {
                return 'h';
            }
            if (*option == 'c' || *option == 'm') {
                return result;
            }
            if (*option == 'V') {
                result = 'V';
            }
            if (known[1] == ':') {
                i += option[1] == '\0';
                break;
            }
        }
    }
    return result;
}

/* Our own lines go before what CPython then prints about itself. */
static void
print_about(char option)
{
    if (option == 'h') {
        puts("tosc-run (libtosc " PACKAGE_VERSION
             ") is python3 with the module `tosc` built in:");
        puts("`import tosc` shares lists, dicts, sets and objects between processes.");
        puts("See tosc-run(1), and help('tosc') inside. All else is as with python3:\n");
    } else if (option == 'V') {
        puts("libtosc " PACKAGE_VERSION);
    }
}

static PyStatus
start_python(int argc, char **argv, const char *program, const char *venv)
{
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyStatus status = PyConfig_SetBytesArgv(&config, argc, argv);
    if (!PyStatus_Exception(status)) {
        status = config_set_paths(&config, program, venv, lies_in_venv(program));
    }
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    return status;
}

int
main(int argc, char **argv)
{
    char *program = own_path(argc > 0 ? argv[0] : "");
    if (program == NULL || PyImport_AppendInittab("tosc", PyInit_tosc) != 0) {
        fputs("tosc-run: cannot start: no memory, or /proc is not mounted\n", stderr);
        free(program);
        return EXIT_FAILURE;
    }
    print_about(informative_option(argc, argv));
    const char *venv = lies_in_venv(program) ? NULL : usable_venv();
    PyStatus status = start_python(argc, argv, program, venv);
    bool started = !PyStatus_Exception(status);
    if (started && venv != NULL && config_set_executable(program) != 0) {
        PyErr_Print();
    }
    free(program);
    if (!started) {
        Py_ExitStatusException(status); /* also the end of --help and --version */
    }
    return Py_RunMain();
}
