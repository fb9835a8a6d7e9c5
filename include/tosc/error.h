/*
 * Status codes and the message that goes with them.
 *
 * Every function of libtosc that can fail returns 0 or one of these negative codes. The
 * place that detects a fault also leaves a sentence for people, kept per thread until the
 * next fault in that thread. A successful call leaves it alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_ERROR_H
#define TOSC_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

enum tosc_status {
    TOSC_OK = 0,
    TOSC_ENOMEM = -1,    /* no memory */
    TOSC_EINVAL = -2,    /* an argument is wrong; the message names it */
    TOSC_ESYSTEM = -3,   /* the system refused: see tosc_error_errno() */
    TOSC_ECONFLICT = -4, /* the store is not at the expected version */
    TOSC_ECORRUPT = -5,  /* stored data are damaged or foreign */
    TOSC_EUNKNOWN = -6,  /* whether the commit was stored could not be found out */
    TOSC_EINTR = -7,     /* a signal or a stop request ended the wait; nothing was done */
    TOSC_ETIMEDOUT = -8, /* the deadline passed; nothing was done */
    TOSC_ECLOSED = -9,   /* used after close */
    TOSC_EUNSUPPORTED = -10, /* this backend has no such operation */
    TOSC_EPYTHON = -11,   /* Python code raised: see tosc_error_type() and _traceback() */
    TOSC_ENOTFOUND = -12, /* no such key, index, attribute, name; nothing stored yet */
    TOSC_ETYPE = -13,     /* a value is of another type than was asked for */
    TOSC_ERANGE = -14,    /* a number does not fit */
    TOSC_ESERIALIZE = -15, /* a value cannot be stored, or a stored one not be loaded */
    TOSC_ERETRY = -16, /* conflicts as often as the caller allowed; nothing was done */
    TOSC_EEXIT = -17   /* a script ended by SystemExit: see tosc_error_exit_status() */
};

/*
 * The sentence that belongs to the last fault in this thread, "" if there was none.
 *
 * Borrowed until the next fault in this thread. Does not block; any thread.
 */
const char *tosc_error_message(void);

/* errno of the last fault in this thread, 0 if the system was not involved. */
int tosc_error_errno(void);

/*
 * The path that the last fault in this thread concerns, "" if none.
 *
 * Borrowed until the next fault in this thread.
 */
const char *tosc_error_path(void);

/*
 * Where Python code raised the last fault in this thread: the name of the exception's class
 * ("ValueError", "policy.Refused"), and the traceback as Python prints it. "" else.
 *
 * Borrowed until the next fault in this thread.
 */
const char *tosc_error_type(void);
const char *tosc_error_traceback(void);

/* What a script gave to sys.exit(), as a process's exit status (0 to 255), after TOSC_EEXIT. */
int tosc_error_exit_status(void);

/* The name of a status code, such as "TOSC_ECONFLICT". Static storage. */
const char *tosc_status_name(int status);

#ifdef __cplusplus
}
#endif

#endif
