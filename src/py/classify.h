/*
 * What a value is to the tree, for wrap.c, dany.c and opaque.c. See wrap.h for the classes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_CLASSIFY_H
#define TOSC_PY_CLASSIFY_H

#include "state.h"
#include "wrap.h"

/* Fills state->leaf_types; called by dany_init(). */
int classify_init(ToscState *state);

/* "module.Name", without the module for builtins. */
PyObject *value_type_name(PyTypeObject *type);

/* The attribute that the type and its bases have under `name`, borrowed, not bound; NULL with or without
 * an exception. */
PyObject *value_type_lookup(PyTypeObject *type, PyObject *name);

/* Is it the descriptor that `__slots__` has made for one slot? */
bool value_is_slot(PyObject *descriptor);

/* Is the type the one that the module, if it is loaded, has under that name? */
bool value_is_loaded_type(PyTypeObject *type, const char *module, const char *name);

#endif
