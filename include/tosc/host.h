/*
 * Scripts inside a C program: the interpreter, its life, running and calling.
 *
 *     tosc_host_start(NULL);
 *     if (tosc_host_run_file("policy.py", NULL) < 0) {
 *         fprintf(stderr, "%s\n", tosc_error_traceback());
 *     }
 *     tosc_host_stop();
 *
 * Every function may be called from any thread, and returns 0 or a negative code of
 * <tosc/error.h>. Nothing here ever ends or aborts the program: an exception of a script is
 * TOSC_EPYTHON with message, type and traceback; sys.exit() is TOSC_EEXIT; Ctrl-C and
 * tosc_host_interrupt() are TOSC_EINTR.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_HOST_H
#define TOSC_HOST_H

#include <tosc/manager.h>
#include <tosc/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How to start; zero is the default everywhere. */
typedef struct tosc_host_options {
    bool
        use_environment; /* heed PYTHON… variables and the user's site directory as python3
                             does; else Python's isolated configuration */
    bool
        install_signal_handlers; /* Python's own: Ctrl-C becomes KeyboardInterrupt, SIGPIPE is
                                     ignored. Else the program's handlers are left alone */
    const char *const *argv;     /* sys.argv, NULL-terminated; NULL: [""] */
    const char *venv;            /* directory of a virtual environment */
    const char *const *search_path; /* directories that come first on sys.path */
    const char *executable; /* sys.executable, which multiprocessing starts; NULL: the
                               installed tosc-run */
} tosc_host_options;

/*
 * Starts Python with the module `tosc`; `options` may be NULL. If the program has initialised
 * Python itself, joins that (the options are not used, and tosc_host_stop() leaves the
 * interpreter running). Calling it again while it runs is TOSC_EINVAL. Once stopped it cannot
 * be started again: TOSC_ECLOSED. The interpreter's lock is not held afterwards.
 */
int tosc_host_start(const tosc_host_options *options);
/*
 * Ends all Managers and the interpreter; waits for calls that other threads are in, and for
 * threads of scripts as python3 does at its end. From then on every other function returns
 * TOSC_ECLOSED. TOSC_EINVAL: called from inside a scope, a script or a callback.
 */
int tosc_host_stop(void);
bool tosc_host_is_running(void);

/* ---- running ---- */

/*
 * Like `python3 path argv…`: in a fresh module __main__, which stays until the next file or
 * module is run, so that its functions can be called ("__main__:name"). argv (NULL-terminated,
 * NULL: none) are the arguments after the script's name. sys.exit(0) is success.
 */
int tosc_host_run_file(const char *path, const char *const *argv);
int tosc_host_run_module(const char *name, const char *const *argv);
/* In the present __main__, as at the interactive prompt. `name` stands in tracebacks. */
int tosc_host_run_string(const char *source, const char *name);
/* The value of an expression in the present __main__. Owned. */
int tosc_host_eval(const char *expression, tosc_value **ret);
/*
 * "module:function", "module:Class.method": imports the module where it is not loaded. Owned;
 * keep it to call it often. TOSC_ENOTFOUND; what the module raised.
 */
int tosc_host_find(const char *name, tosc_value **ret);
/* tosc_host_find and tosc_call. */
int tosc_host_call(const char *name, const tosc_arguments *arguments, tosc_value **ret);
/*
 * Raises KeyboardInterrupt in all scripts that are running by the functions above, in whatever
 * thread; their runs return TOSC_EINTR. A script that sleeps in C code notices when that
 * returns. For a program whose own handler has seen Ctrl-C; not async-signal-safe.
 */
int tosc_host_interrupt(void);

/* ---- C functions for scripts ---- */

/*
 * A C function that scripts call. Called in a scope; `arguments` are borrowed. 0 with *ret
 * owned by the library from then on (left NULL: None); or a negative code: the script gets the
 * exception that belongs to it, with tosc_error_message(); see tosc_fail().
 */
typedef int (*tosc_function)(const tosc_arguments *arguments, tosc_value **ret,
                             void *arg);

/*
 * Makes `function` callable as `module.name` (`import module`). The module is made by the first
 * registration; TOSC_EINVAL if there is a real one of that name. `doc` may be NULL. `arg` must
 * live until tosc_host_stop(). A second one of the same name replaces the first.
 */
int tosc_host_register(const char *module, const char *name, tosc_function function,
                       void *arg, const char *doc);
/*
 * For a tosc_function: `return tosc_fail("ValueError", "…")`. A builtin exception, or
 * "module:Class"; NULL: RuntimeError. Returns TOSC_EPYTHON. Elsewhere it is as if a script had
 * raised it: message, type and traceback can be asked for.
 */
int tosc_fail(const char *type, const char *format, ...);

/* ---- sharing Managers with scripts ---- */

/* Scripts get the very same Manager by tosc.shared(name). NULL takes it back. */
int tosc_host_publish(const char *name, tosc_manager *manager);
/* What this program, or a script by tosc.publish(name, manager), has published. Owned.
 * TOSC_ENOTFOUND. */
int tosc_host_shared(const char *name, tosc_manager **ret);

#ifdef __cplusplus
}
#endif

#endif
