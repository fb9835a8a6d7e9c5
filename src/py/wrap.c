/*
 * Adopting: from plain values to what may stand in a state.
 *
 * The walk is the engine's; here is what each kind of value becomes, how wrappers that
 * belong to nobody or to another Manager are taken in, and how the path to a value that
 * cannot be kept is put into words.
 *
 * What must stay true: an adopted wrapper's state holds leaves, wrappers of the same Manager,
 * and tuples and frozensets of these, nothing else; a stand-alone wrapper reaches stand-alone
 * wrappers only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wrap.h"

#include "classify.h"
#include "engine.h"
#include "opaque.h"
#include "state.h"

/* ---- adopting ---- */

static PyObject *
placeholder(Engine *e, int kind)
{
    if (e->empty[kind] == NULL) {
        e->empty[kind] = kind == KIND_LIST   ? PyList_New(0)
                         : kind == KIND_DICT ? PyDict_New()
                                             : PySet_New(NULL);
    }
    return Py_XNewRef(e->empty[kind]);
}

static DObject *
owned(Engine *e, DObject *wrapper)
{
    if (wrapper != NULL && wrapper->manager == NULL && e->manager != NULL) {
        wrapper->manager = (Manager *)Py_NewRef((PyObject *)e->manager);
    }
    return wrapper;
}

static PyObject *
new_wrapper(Engine *e, int kind)
{
    ToscState *state = tosc_state;
    PyTypeObject *type = kind == KIND_LIST   ? state->DList_Type
                         : kind == KIND_DICT ? state->DDict_Type
                                             : state->DSet_Type;
    return (PyObject *)owned(e, dobject_new(type, kind, placeholder(e, kind)));
}

/* Everything that can be reached from a stand-alone wrapper and has no Manager gets one. */
static int
claim(Manager *m, DObject *root)
{
    PyObject *pending = PyList_New(0);
    int result = pending == NULL ? -1 : PyList_Append(pending, (PyObject *)root);
    while (result == 0 && PyList_GET_SIZE(pending) > 0) {
        Py_ssize_t last = PyList_GET_SIZE(pending) - 1;
        PyObject *value = Py_NewRef(PyList_GET_ITEM(pending, last));
        PyObject *inside = NULL;
        result = PyList_SetSlice(pending, last, last + 1, NULL);
        if (result == 0 && (PyTuple_Check(value) || PyFrozenSet_Check(value))) {
            inside = PySequence_List(value);
            result = inside == NULL ? -1 : 0;
        } else if (result == 0 && dobject_check(value)
                   && ((DObject *)value)->manager == NULL) {
            DObject *wrapper = (DObject *)value;
            PyObject *state = Py_NewRef(wrapper->state);
            wrapper->manager = (Manager *)Py_NewRef((PyObject *)m);
            if (wrapper->kind == KIND_OPAQUE) {
                inside = PySequence_List(((OpaqueState *)state)->refs);
            } else if (PyDict_CheckExact(state)) {
                inside = engine_pairs(state);
            } else if (wrapper->kind != KIND_BYTES) {
                inside = PySequence_List(state);
            }
            Py_DECREF(state);
            result = inside == NULL && wrapper->kind != KIND_BYTES ? -1 : 0;
        }
        for (Py_ssize_t i = 0;
             result == 0 && inside != NULL && i < PyList_GET_SIZE(inside); i++) {
            PyObject *item = PyList_GET_ITEM(inside, i);
            if (PyTuple_Check(item) || PyFrozenSet_Check(item) || dobject_check(item)) {
                result = PyList_Append(pending, item);
            }
        }
        Py_XDECREF(inside);
        Py_DECREF(value);
    }
    Py_XDECREF(pending);
    return result;
}

static int
adopt_wrapper(Engine *e, PyObject *value, PyObject **ret)
{
    DObject *wrapper = (DObject *)value;
    if (wrapper->manager == e->manager || wrapper->manager == NULL) {
        if (wrapper->manager != e->manager && claim(e->manager, wrapper) < 0) {
            return -1;
        }
        *ret = Py_NewRef(value);
        return 0;
    }
    if (e->copier == NULL) {
        e->copier = PyMem_Calloc(1, sizeof(Engine));
        if (e->copier == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    PyObject *copy = engine_run(e->copier, value);
    if (copy == NULL) {
        return -1;
    }
    /* The copier keeps its copies, so what the wrapper becomes is known by its copy. */
    e->remember_all = true;
    int result = engine_turn(e, copy, ret);
    e->remember_all = false;
    Py_DECREF(copy);
    return result;
}

static int
adopt_custom(Engine *e, PyObject *value)
{
    if (e->manager != NULL) {
        PyObject *name =
            PyObject_GetAttr((PyObject *)Py_TYPE(value), tosc_state->str_qualname);
        bool local =
            name != NULL && PyUnicode_Check(name)
            && PyUnicode_FindChar(name, '<', 0, PyUnicode_GET_LENGTH(name), 1) >= 0;
        if (local) {
            PyErr_Format(
                PyExc_TypeError,
                "%U objects cannot be stored: the class is local to a function, so "
                "nobody else could find it",
                name);
        }
        Py_XDECREF(name);
        if (name == NULL || local) {
            return -1;
        }
    }
    PyObject *attributes = dany_take_apart(value);
    DObject *wrapper = attributes == NULL ? NULL : owned(e, dany_new_shell());
    if (wrapper == NULL || dany_set_class(wrapper, (PyObject *)Py_TYPE(value)) < 0) {
        Py_XDECREF(attributes);
        Py_XDECREF(wrapper);
        return -1;
    }
    return engine_open(e, value, (PyObject *)wrapper, attributes, true);
}

static int
adopt_opaque(Engine *e, PyObject *value, PyObject **ret)
{
    DObject *wrapper = opaque_adopt(e->manager, value);
    if (wrapper == NULL) {
        return -1;
    }
    *ret = (PyObject *)wrapper;
    return memo_add(&e->memo, value, *ret);
}

/* Opens the frame of a plain container, which becomes a new wrapper. Steals `copy`. */
static int
open_new(Engine *e, PyObject *value, int kind, PyObject *copy)
{
    PyObject *wrapper = copy == NULL ? NULL : new_wrapper(e, kind);
    if (wrapper == NULL) {
        Py_XDECREF(copy);
        return -1;
    }
    return engine_open(e, value, wrapper, copy, false);
}

int
engine_adopt(Engine *e, PyObject *value, int kind, PyObject **ret)
{
    switch (kind) {
    case VALUE_LIST:
        return open_new(e, value, KIND_LIST,
                        PyList_GetSlice(value, 0, PyList_GET_SIZE(value)));
    case VALUE_DICT:
        return open_new(e, value, KIND_DICT, PyDict_Copy(value));
    case VALUE_SET:
        return open_new(e, value, KIND_SET, PySet_New(value));
    case VALUE_BYTES:
        *ret = (PyObject *)owned(e, dobject_new(tosc_state->DByteArray_Type, KIND_BYTES,
                                                PyByteArray_FromObject(value)));
        return *ret == NULL ? -1 : memo_add(&e->memo, value, *ret);
    case VALUE_WRAPPER:
        return adopt_wrapper(e, value, ret);
    case VALUE_ANY:
        return adopt_custom(e, value);
    case VALUE_OPAQUE:
        return adopt_opaque(e, value, ret);
    default: {
        PyObject *copy = opaque_copy_of(value);
        int result = copy == NULL ? -1 : engine_turn(e, copy, ret);
        Py_XDECREF(copy);
        return result;
    }
    }
}

/* ---- the path to what cannot be adopted ---- */

static PyObject *
describe_step(Frame *frame)
{
    if (frame->kind == FRAME_DICT) {
        const char *format = frame->custom ? ".%S" : "[%R]";
        return PyUnicode_FromFormat(format, frame->key);
    }
    if (frame->kind == FRAME_PAIRS) {
        Py_ssize_t at = frame->next - 1;
        PyObject *key = PyList_GET_ITEM(frame->items, at - at % 2);
        if (at % 2 == 0) {
            return PyUnicode_FromFormat("{%.100s key}", Py_TYPE(key)->tp_name);
        }
        bool plain = PyTuple_CheckExact(key) && engine_all_leaves(key);
        return plain ? PyUnicode_FromFormat("[%R]", key)
                     : PyUnicode_FromFormat("[%.100s]", Py_TYPE(key)->tp_name);
    }
    if (frame->kind == FRAME_SET || frame->kind == FRAME_FROZENSET) {
        return PyUnicode_FromString("{element}");
    }
    return PyUnicode_FromFormat("[%zd]", frame->next - 1);
}

/* The words of the steps; long paths keep both ends. */
static PyObject *
describe_path(Engine *e)
{
    PyObject *path = PyUnicode_FromString("value");
    for (size_t i = 0; path != NULL && i < e->depth; i++) {
        PyObject *step;
        if (e->depth > 40 && i == 20) {
            step = PyUnicode_FromString(" … ");
            i = e->depth - 20;
        } else {
            step = describe_step(&e->frames[i]);
        }
        PyObject *longer = step == NULL ? NULL : PyUnicode_Concat(path, step);
        Py_XDECREF(step);
        Py_SETREF(path, longer);
    }
    return path;
}

/* A TypeError gets the path to the value that it is about. */
static void
name_path(Engine *e)
{
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *path = describe_path(e);
    if (path == NULL) {
        PyErr_Restore(type, value, traceback);
        return;
    }
    PyErr_Format(PyExc_TypeError, "cannot keep %U: %S", path, value);
    Py_DECREF(path);
    PyObject *type2, *value2, *traceback2;
    PyErr_Fetch(&type2, &value2, &traceback2);
    PyErr_NormalizeException(&type2, &value2, &traceback2);
    PyObject *cause = PyException_GetCause(value);
    if (cause != NULL && value2 != NULL) {
        PyException_SetCause(value2, cause);
    } else {
        Py_XDECREF(cause);
    }
    PyErr_Restore(type2, value2, traceback2);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* ---- entry points ---- */

static PyObject *
adopt_value(Manager *manager, PyObject *value)
{
    Engine e = {.adopt = true, .manager = manager};
    PyObject *result = engine_run(&e, value);
    if (result == NULL) {
        name_path(&e);
    }
    engine_clear(&e);
    return result;
}

PyObject *
adopt_for(Manager *manager, PyObject *value)
{
    if (value_classify(value) == VALUE_LEAF) {
        return Py_NewRef(value);
    }
    PyErr_Clear();
    return adopt_value(manager, value);
}

PyObject *
dobject_adopt(DObject *owner, PyObject *value)
{
    return adopt_for(owner != NULL ? owner->manager : NULL, value);
}

/* The elements of `copy` (an exact list, dict or set of our own, stolen), adopted. */
static PyObject *
adopt_elements(DObject *owner, PyObject *copy)
{
    Engine e = {.adopt = true, .manager = owner != NULL ? owner->manager : NULL};
    PyObject *result = NULL;
    if (engine_open(&e, NULL, NULL, copy, false) == 0) {
        result = engine_finish(&e);
        if (result == NULL) {
            name_path(&e);
        }
    }
    engine_clear(&e);
    return result;
}

PyObject *
dobject_adopt_list(DObject *owner, PyObject *iterable)
{
    return adopt_elements(owner, PySequence_List(iterable));
}

PyObject *
dobject_adopt_dict(DObject *owner, PyObject *dict)
{
    return adopt_elements(owner, PyDict_Copy(dict));
}

PyObject *
dobject_adopt_set(DObject *owner, PyObject *iterable)
{
    PyObject *copy = PySet_New(iterable);
    if (copy == NULL) {
        return NULL;
    }
    /* Most sets hold leaves only, and need not be hashed again. */
    PyObject *elements = PySequence_Tuple(copy);
    bool leaves = elements != NULL && engine_all_leaves(elements);
    Py_XDECREF(elements);
    if (leaves || elements == NULL) {
        return leaves ? copy : (Py_DECREF(copy), NULL);
    }
    return adopt_elements(owner, copy);
}

PyObject *
dobject_plain(PyObject *value)
{
    Engine e = {.adopt = false};
    PyObject *result = engine_run(&e, value);
    engine_clear(&e);
    return result;
}
