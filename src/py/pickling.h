/*
 * The pickle module at our service. `persistent_id` and `persistent_load` are METH_O
 * functions whose self is a capsule (no name) that holds `context`.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_PICKLING_H
#define TOSC_PY_PICKLING_H

#include "codec.h"

PyObject *pickling_dump(PyObject *object, PyMethodDef *persistent_id, void *context);
PyObject *pickling_load(Manager *m, PyObject *bytes, PyMethodDef *persistent_load,
                        void *context);

/* Something that takes part in reading, and is no value: data that contain it are refused. */
bool pickling_is_stand_in(PyObject *value);

#endif
