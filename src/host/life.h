/*
 * What the files about the interpreter's life share. See host.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_HOST_LIFE_H
#define TOSC_HOST_LIFE_H

#include "host/host.h"

#include <sys/stat.h>

/* ---- host_config.c ---- */

/* Whether the options make sense, before Python is touched: 0 or TOSC_EINVAL. */
int config_check(const tosc_host_options *options);
/* Initialises Python; its lock is held afterwards. A failure leaves Python unusable. */
int config_start(const tosc_host_options *options);
/* What is done in the running interpreter: sys.path, sys.executable. */
int config_finish(const tosc_host_options *options);
/* Makes `import tosc` work and imports it: 0, or -1 with an exception. */
int config_add_tosc(bool joined);
/* An importlib.machinery.ModuleSpec: a new reference. */
PyObject *config_new_spec(const char *name);

/* The same for tosc-run: "dir/rest", to be freed; NULL: no memory. */
char *config_path(const char *dir, size_t dir_length, const char *rest);
/* Whether there is such a file (S_IFREG, S_IFDIR) in a directory. */
bool config_has_file(const char *dir, const char *name, mode_t type);
/* Whether it is the absolute path of a virtual environment of this Python. */
bool config_is_venv(const char *dir);
/*
 * Where Python looks for its library. `program`: what sys.executable is to be, in a
 * virtual environment itself or not; `venv`: the one to use, or NULL.
 */
PyStatus config_set_paths(PyConfig *config, const char *program, const char *venv,
                          bool program_in_venv);
/* Afterwards, if there was a venv: 0, or -1 with an exception. */
int config_set_executable(const char *program);

/* ---- failure.c ---- */

/* Frees what this thread keeps of its last fault. */
void failure_forget(void);

/* ---- host_signals.c ---- */

void signals_note_start(void); /* before Python is initialised */
void signals_note_end(void);   /* before it is ended */
void
signals_restore(bool installed); /* after; whether Python had installed its handlers */

/* ---- run.c, main_module.c ---- */

/* Python's lock is held. */
void runs_forked(void); /* in the child: other threads' runs are gone */
void main_stop(void);

/* ---- functions.c ---- */

void functions_stop(void);

/* ---- host_fork.c ---- */

/* The last step of starting, after the module: 0, or -1 with an exception. */
int fork_prepare(void);

/* ---- host.c ---- */

/* As host_enter(), and allowed while tosc_host_stop() waits for other threads' calls. */
int host_enter_while_stopping(HostEntry *entry);

/*
 * In the child of a fork: only this thread is left. `usable`: Python is so, else it has
 * ended.
 */
void life_forked(bool usable);

/*
 * Ends what C holds of the interpreter: handles, watches, functions. Python's lock is
 * held.
 */
void parts_stop(void);

#endif
