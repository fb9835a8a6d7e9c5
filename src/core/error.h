/* Leaving a fault's sentence for the caller: the private side of <tosc/error.h>. */
#ifndef TOSC_CORE_ERROR_H
#define TOSC_CORE_ERROR_H

#include <tosc/error.h>

/*
 * Keeps the sentence and returns `status`, so that a caller can `return tosc__fail(…)`.
 */
int tosc__fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * The same for a system call on `path` (may be NULL) that set errno: TOSC_ESYSTEM
 * (TOSC_ENOMEM for ENOMEM). The message reads "what path: strerror".
 */
int tosc__fail_errno(int error, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same as tosc__fail, with a path that tosc_error_path() then tells. */
int tosc__fail_path(int status, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with both, as they are: the sentence says all that is to be said. */
int tosc__fail_as(int status, int error, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* How many faults this thread has had. */
unsigned long tosc__fault_number(void);

#endif
