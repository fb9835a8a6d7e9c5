/*
 * What the tests of the C interface share. They use the public headers only, so that they
 * are examples as well.
 *
 * Each test runs in a process of its own, and starts Python itself: host_start().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_TESTS_HOST_SUPPORT_H
#define TOSC_TESTS_HOST_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <tosc/host.h>

#include "../common/process.h"

/*
 * Fails the test with the library's own sentence (and traceback) unless the call returned
 * 0.
 */
#define ok(call) support_ok((call), #call, __FILE__, __LINE__)
void support_ok(int status, const char *call, const char *file, int line);

/* The call has to return this status (or 1 or 0, of those that answer so). */
#define gives(expected, call) support_gives((expected), (call), #call, __FILE__, __LINE__)
#define fails(status, call) gives(status, call)
void support_gives(int expected, int status, const char *call, const char *file,
                   int line);

/* The last fault's message (type, traceback) has to hold these words. */
#define told(words) \
    support_holds("message", tosc_error_message(), (words), __FILE__, __LINE__)
#define told_type(name) support_is("type", tosc_error_type(), (name), __FILE__, __LINE__)
#define told_traceback(words) \
    support_holds("traceback", tosc_error_traceback(), (words), __FILE__, __LINE__)
void support_holds(const char *what, const char *text, const char *words,
                   const char *file, int line);
void support_is(const char *what, const char *text, const char *wanted, const char *file,
                int line);

/* The URI of a file store in the directory, which does not flush to the device. */
const char *store_in(const char *name);

/* Writes a file there; its path. */
const char *script(const char *name, const char *text);
/* What stands in a file there, to be freed; NULL: there is no such file. */
char *text_of(const char *name);

/* Starts Python with defaults and the tosc-run under test as sys.executable. */
void host_start(void);
void host_stop(void);

/* Runs a string, which has to succeed. */
#define python(source) support_python((source), __FILE__, __LINE__)
void support_python(const char *source, const char *file, int line);
/* The value of an expression. */
int64_t python_int(const char *expression);
bool python_true(const char *expression);
char *python_text(const char *expression); /* str() of it, to be freed */

/*
 * The tosc-run under test (TOSC_RUN in the environment), running a script's text in a
 * child process; its exit status. Or only started: to be joined, which tells the exit
 * status.
 */
const char *tosc_run_path(void);
int tosc_run(const char *text);
pid_t tosc_run_start(const char *text);

/* `count` threads; joined, each must return NULL. */
void in_threads(int count, void *(*body)(void *), void *argument);
int64_t resident_bytes(void); /* of this process */
bool sanitized(void); /* compiled with ASan or TSan: no limits of time and memory */

#endif
