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
 * <tosc/error.h>. Nothing here ever ends or aborts the program: an exception of a script
 * is TOSC_EPYTHON with message, type and traceback; sys.exit() is TOSC_EEXIT; Ctrl-C and
 * tosc_host_interrupt() are TOSC_EINTR.
 *
 * Threads. A thread keeps Python's context, and an open transaction, from call to call.
 * Do not end one (or exit from it by longjmp) inside a scope or a callback.
 *
 * fork() waits for Python's lock; in the child, scripts and Managers work, in the one
 * thread that there is. Forks by vfork() and posix_spawn() are not noticed, and need not
 * be.
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
    /*
     * Heed VIRTUAL_ENV, PYTHON… variables and the user's site directory as tosc-run does,
     * and the locale's encoding. Else Python's isolated configuration, with UTF-8.
     */
    bool use_environment;
    /*
     * Python's own: Ctrl-C becomes KeyboardInterrupt in the thread that starts Python,
     * unless the program has a handler for it; SIGPIPE is ignored. Else signals are the
     * program's. Either way tosc_host_stop() puts back what Python has changed.
     */
    bool install_signal_handlers;
    const char *const *argv; /* sys.argv, NULL-terminated; NULL: [""] */
    const char *venv;        /* absolute path of a virtual environment */
    const char *const
        *search_path; /* directories that come first on sys.path; NULL-terminated */
    /*
     * sys.executable, which multiprocessing and the like start: an absolute path. NULL: the
     * installed tosc-run, or else python3. Never this program itself.
     */
    const char *executable;
} tosc_host_options;

/*
 * Starts Python with the module `tosc`; `options` may be NULL, and is copied. The calling
 * thread becomes Python's main thread, and may end. Python's lock is not held afterwards.
 *
 * If the program has initialised Python itself, joins that: the options are not used, the
 * thread holds Python's lock afterwards if it did before, and tosc_host_stop() leaves the
 * interpreter running. From then on C code may call the library with the lock or without.
 *
 * TOSC_EINVAL: it is running already, or an option is wrong; that can be mended.
 * TOSC_EPYTHON: Python does not start, and cannot be started any more. TOSC_ECLOSED: that
 * has happened, or it was stopped; it can be started once. TOSC_ENOMEM.
 */
int tosc_host_start(const tosc_host_options *options);
/*
 * Ends all Managers and the interpreter; any thread may do so. Blocks: waits for calls,
 * scopes and scripts that other threads are in (tosc_host_interrupt() can end these
 * meanwhile), and for threads of scripts as python3 does at its end. New calls return
 * TOSC_ECLOSED from the beginning, but those of functions that scripts call, which work
 * to the end. TOSC_EINVAL: called from inside a scope, a script or a callback.
 * TOSC_ECLOSED: it is not running.
 */
int tosc_host_stop(void);
bool tosc_host_is_running(void);

/* ---- running ---- */

/*
 * Like `python3 path argv…` (a source file, or a directory or zip file with a
 * __main__.py) and `python3 -m name argv…`: in a fresh module __main__, which stays until
 * the next file or module is run, so that its functions can be called ("__main__:name").
 * As long, its directory comes first on sys.path, and sys.argv is its own; argv
 * (NULL-terminated, NULL: none) are the arguments after the script's name. Scripts may
 * run in several threads at a time: each has its own module, the names __main__ and
 * sys.argv are those of the latest.
 *
 * sys.exit(0) is success. What has been printed is flushed. TOSC_ESYSTEM: the file cannot
 * be read; TOSC_ENOTFOUND: no such module, or nothing in it to run; TOSC_EPYTHON,
 * TOSC_EEXIT, TOSC_EINTR, and the codes of Managers if the script raised their
 * exceptions, as TOSC_ECONFLICT: with type and traceback.
 */
int tosc_host_run_file(const char *path, const char *const *argv);
int tosc_host_run_module(const char *name, const char *const *argv);
/*
 * In the present __main__, as at the interactive prompt. `name` stands in tracebacks (NULL:
 * "<string>"). The same errors.
 */
int tosc_host_run_string(const char *source, const char *name);
/*
 * The value of an expression in the present __main__. Owned; ret may be NULL. The same.
 */
int tosc_host_eval(const char *expression, tosc_value **ret);
/*
 * "module:function", "module:Class.method": imports the module where it is not loaded.
 * Owned; keep it to call it often. TOSC_ENOTFOUND; what the module raised.
 */
int tosc_host_find(const char *name, tosc_value **ret);
/* tosc_host_find and tosc_call. */
int tosc_host_call(const char *name, const tosc_arguments *arguments, tosc_value **ret);
/*
 * Raises KeyboardInterrupt in all scripts and calls that are running by the functions
 * above, in whatever thread; their runs return TOSC_EINTR unless the script catches it. A
 * script that sleeps in C code notices when that returns. For a program whose own handler
 * has seen Ctrl-C; not async-signal-safe.
 */
int tosc_host_interrupt(void);

/* ---- C functions for scripts ---- */

/*
 * A C function that scripts call. Called in a scope; `arguments` are borrowed. 0 with
 * *ret owned by the library from then on (left NULL: None), as it is on failure; or a
 * negative code: the script gets the exception that belongs to it, with
 * tosc_error_message(), or with the code's name if the function has left no message; see
 * tosc_fail().
 */
typedef int (*tosc_function)(const tosc_arguments *arguments, tosc_value **ret,
                             void *arg);

/*
 * Makes `function` callable as `module.name` (`import module`). The module is made by the
 * first registration; TOSC_EINVAL if there is a real one of that name, or if a name is
 * no identifier of Python's or a keyword. `doc` may be NULL.
 * `arg` must live until tosc_host_stop(). A second one of the same name replaces the
 * first.
 */
int tosc_host_register(const char *module, const char *name, tosc_function function,
                       void *arg, const char *doc);
/*
 * For a tosc_function: `return tosc_fail("ValueError", "…")`. A builtin exception, or
 * "module:Class"; NULL: RuntimeError. Returns TOSC_EPYTHON. Elsewhere it is as if a
 * script had raised it: message, type and traceback can be asked for.
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
