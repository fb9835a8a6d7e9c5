/*
 * The exceptions of the module, and the one place that turns core's codes into them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_ERRORS_H
#define TOSC_PY_ERRORS_H

#include "compat.h"

#include <tosc/error.h>

/*
 * Sets the exception for a negative status of core, with the message, errno and path
 * that core left in this thread. TOSC_EPYTHON keeps the exception that is set, as
 * TOSC_EUNKNOWN keeps an UnknownOutcomeError. TOSC_EINTR keeps what a signal's handler has
 * raised; else it runs handlers, and sets nothing (returns 0) if they raise nothing: call
 * again. Returns -1 when an exception is set.
 */
int tosc_raise(int status);

/* Raises `type`, a member of the module's state; always returns NULL. */
PyObject *tosc_raise_format(PyObject *type, const char *format, ...);

#endif
