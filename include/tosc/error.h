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
    TOSC_EPYTHON = -11       /* a Python exception is set in the calling thread */
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

/* The name of a status code, such as "TOSC_ECONFLICT". Static storage. */
const char *tosc_status_name(int status);

#ifdef __cplusplus
}
#endif

#endif
