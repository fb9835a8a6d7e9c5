/* Managers by name, within a process. */
#ifndef TOSC_PY_SHARED_H
#define TOSC_PY_SHARED_H

#include "compat.h"

/* A Manager, or None to take it back. -1: exception. */
int shared_publish(PyObject *name, PyObject *manager);
/* A new reference; NULL with LookupError. */
PyObject *shared_find(PyObject *name);

#endif
