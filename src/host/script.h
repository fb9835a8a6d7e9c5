/*
 * What the files that run scripts share.
 *
 *   run.c     what runs at the moment, and the functions that run scripts
 *   main_module.c  the module __main__, sys.path and sys.argv
 *   script.c  what to run: files, directories, modules
 *   call.c    finding and calling functions
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_HOST_SCRIPT_H
#define TOSC_HOST_SCRIPT_H

#include "host/host.h"

/* ---- run.c ---- */

/* A run or call of C, in the list of those that can be interrupted. */
typedef struct Run {
    struct Run *next; /* begun before this one */
    unsigned long thread;
    PyThreadState *state;
    unsigned long serial; /* of the last interrupt that it knows of */
    bool interrupted;
} Run;

void run_begin(Run *run);
void run_end(Run *run);
/* The status of a call, whose result (taken over) is the caller's if he wants it. */
int run_give(PyObject *result, tosc_value **ret);

/* ---- script.c ---- */

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

/* 0, or TOSC_ESYSTEM, TOSC_ENOTFOUND, or what Python has raised. */
int script_find_file(const char *path, Script *script);
int script_find_module(const char *name, Script *script);
void script_clear(Script *script);
/* The code of a source text: a new reference, NULL with an exception. */
PyObject *script_compile(const char *source, PyObject *name, int start);
/*
 * The import of this module has failed, and an exception is set: TOSC_ENOTFOUND, or a
 * status.
 */
int script_import_failed(PyObject *name);

/* ---- main_module.c ---- */

/* Runs it as a new __main__. */
int main_run(const Script *script, const char *const *argv);
/* The status of a whole script, whose result is taken over. */
int main_ended(PyObject *result);
/* Puts a directory first on sys.path for some time: 0, or -1 with an exception. */
int place_use(PyObject *dir);
/* Ends one use. No exception may be set. */
void place_leave(PyObject *dir);

#endif
