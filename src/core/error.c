/*
 * The last fault of each thread: sentence, errno, path.
 *
 * Kept in fixed thread-local buffers, so that reporting "no memory" needs none. A
 * sentence or path that is too long is cut. A fault replaces all three; nothing else
 * touches them. Faults are numbered, so that who keeps more about one (what Python code
 * raised, failure.c) can tell whether it still is the last.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static __thread struct {
    unsigned long number;
    int error;
    char message[1024];
    char path[4096];
} last_fault;

const char *
tosc_error_message(void)
{
    return last_fault.message;
}

int
tosc_error_errno(void)
{
    return last_fault.error;
}

const char *
tosc_error_path(void)
{
    return last_fault.path;
}

const char *
tosc_status_name(int status)
{
    static const char *const names[] = {
        "TOSC_OK",        "TOSC_ENOMEM",   "TOSC_EINVAL",       "TOSC_ESYSTEM",
        "TOSC_ECONFLICT", "TOSC_ECORRUPT", "TOSC_EUNKNOWN",     "TOSC_EINTR",
        "TOSC_ETIMEDOUT", "TOSC_ECLOSED",  "TOSC_EUNSUPPORTED", "TOSC_EPYTHON",
        "TOSC_ENOTFOUND", "TOSC_ETYPE",    "TOSC_ERANGE",       "TOSC_ESERIALIZE",
        "TOSC_ERETRY",    "TOSC_EEXIT",
    };

    if (status > 0 || status <= -(int)(sizeof(names) / sizeof(names[0]))) {
        return "unknown status";
    }
    return names[-status];
}

/*
 * The new text is made aside, as the arguments may point into the old one (a caller
 * adding to tosc_error_message()).
 */
static void
keep(int error, const char *path, const char *format, va_list arguments)
{
    char text[sizeof(last_fault.message)];
    char where[sizeof(last_fault.path)];

    vsnprintf(text, sizeof(text), format, arguments);
    snprintf(where, sizeof(where), "%s", path != NULL ? path : "");
    last_fault.number++;
    last_fault.error = error;
    strcpy(last_fault.message, text);
    strcpy(last_fault.path, where);
}

unsigned long
tosc__fault_number(void)
{
    return last_fault.number;
}

int
tosc__fail(int status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    keep(status == TOSC_ENOMEM ? ENOMEM : 0, NULL, format, arguments);
    va_end(arguments);
    return status;
}

int
tosc__fail_path(int status, const char *path, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    keep(0, path, format, arguments);
    va_end(arguments);
    return status;
}

int
tosc__fail_as(int status, int error, const char *path, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    keep(error, path, format, arguments);
    va_end(arguments);
    return status;
}

int
tosc__fail_errno(int error, const char *path, const char *format, ...)
{
    va_list arguments;
    size_t used;

    va_start(arguments, format);
    keep(error, path, format, arguments);
    va_end(arguments);
    used = strlen(last_fault.message);
    snprintf(last_fault.message + used, sizeof(last_fault.message) - used, "%s%s: %s",
             path != NULL ? " " : "", path != NULL ? path : "", strerror(error));
    return error == ENOMEM ? TOSC_ENOMEM : TOSC_ESYSTEM;
}
