/*
 * What dicts and sets ask of their keys.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_HASHED_H
#define TOSC_PY_HASHED_H

#include "seq.h"

/* A method of an exact builtin, called without looking up its name as an attribute. */
PyObject *hashed_ask(PyObject *builtin, const char *method, PyObject *const *args,
                     Py_ssize_t nargs);

/* raise KeyError(key), also where the key is a tuple; always returns NULL. */
PyObject *hashed_key_error(PyObject *key);

/*
 * Does a key mean the same wherever it is read, so that it can stand in a commit for the
 * equal one that is stored? True of leaves and of tuples and frozensets of leaves.
 */
bool hashed_is_leaf(PyObject *key);

/*
 * The key (of a dict) or element (of a set) in the object being written that equals
 * `key`, and is known to be there; `key` itself where hashed_is_leaf. New reference.
 */
PyObject *hashed_stored(Write *w, PyObject *key);

/*
 * Some element of a view that is a set, and the newest item of a view that is a dict; new
 * references, NULL without an exception if there is none.
 *
 * A builtin keeps the empty slots of what was deleted, and an iterator that starts at the
 * same end each time steps over ever more of them: emptying a large dict or set one by
 * one would be quadratic. The builtin's own pop() and popitem() know where they have
 * been. So where nobody else looks at the view, the entry is popped and put back at once:
 * that changes nothing that can be seen, as to order either, and the next call starts
 * there. To put an element back may run its __hash__, so sets that others see are left
 * alone; of a dict the key is known before, and only builtin keys are treated so.
 */
PyObject *hashed_pick(const Write *w, PyObject *set);
PyObject *hashed_last(const Write *w, PyObject *dict);

#endif
