/*
 * Questions about the graph that need a walk: what is reachable, what is garbage, where does
 * a value stand. None is asked on a path that a commit or a read takes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "manager.h"
#include "state.h"

/* A set of addresses, and the order in which they came: a work list. */
typedef struct Visited {
    PyObject **slots;
    size_t size;
    RefList order;
} Visited;

static size_t
visited_slot(const Visited *v, PyObject *object)
{
    size_t mask = v->size - 1;
    size_t i = (size_t) (((uintptr_t) object >> 4) * 0x9E3779B97F4A7C15u >> 16) & mask;
    while (v->slots[i] != NULL && v->slots[i] != object) {
        i = (i + 1) & mask;
    }
    return i;
}

static bool
visited_has(const Visited *v, PyObject *object)
{
    return v->size > 0 && v->slots[visited_slot(v, object)] != NULL;
}

static int
visited_grow(Visited *v)
{
    size_t size = v->size ? v->size * 2 : 64;
    PyObject **slots = PyMem_Calloc(size, sizeof(*slots));
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyMem_Free(v->slots);
    v->slots = slots;
    v->size = size;
    for (Py_ssize_t i = 0; i < v->order.count; i++) {
        v->slots[visited_slot(v, v->order.items[i])] = v->order.items[i];
    }
    return 0;
}

/* 1: new, 0: known, -1: exception. */
static int
visited_add(Visited *v, PyObject *object)
{
    if ((size_t) v->order.count * 2 >= v->size && visited_grow(v) < 0) {
        return -1;
    }
    size_t slot = visited_slot(v, object);
    if (v->slots[slot] != NULL) {
        return 0;
    }
    if (reflist_add(&v->order, object) < 0) {
        return -1;
    }
    v->slots[slot] = object;
    return 1;
}

static void
visited_free(Visited *v)
{
    PyMem_Free(v->slots);
    reflist_clear(&v->order);
}

static int
add_visited(DObject *wrapper, void *arg)
{
    return visited_add(arg, (PyObject *) wrapper) < 0 ? -1 : 0;
}

/* All that can be reached from the root; stops early when `wanted` has been found. */
static int
reach(Manager *m, Transaction *top, DObject *wanted, Visited *v)
{
    if (visited_add(v, (PyObject *) m->cell) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < v->order.count; i++) {
        DObject *object = (DObject *) v->order.items[i];
        if (object == wanted) {
            return 0;
        }
        PyObject *view = graph_view(object, top);
        if (view == NULL) {
            return -1;
        }
        Py_INCREF(view);
        int result = state_visit(object->kind, view, add_visited, v);
        Py_DECREF(view);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

int
graph_reaches(Manager *m, Transaction *top, DObject *object)
{
    Visited v = {0};
    int result = reach(m, top, object, &v);
    if (result == 0) {
        result = visited_has(&v, (PyObject *) object);
    }
    visited_free(&v);
    return result;
}

int
graph_garbage(Manager *m, Transaction *top, uint64_t **ret, size_t *ret_count)
{
    Visited v = {0};
    if (reach(m, top, NULL, &v) < 0) {
        visited_free(&v);
        return -1;
    }
    size_t count = 0;
    uint64_t *oids = PyMem_Calloc(m->table_used + 1, sizeof(*oids));
    if (oids == NULL) {
        visited_free(&v);
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < m->table_size; i++) {
        DObject *object = m->table[i];
        if (object != NULL && !visited_has(&v, (PyObject *) object)) {
            oids[count++] = object->oid;
        }
    }
    visited_free(&v);
    *ret = oids;
    *ret_count = count;
    return 0;
}

/* ---- where does a value stand? ---- */

typedef struct Step {
    DObject *object;  /* borrowed: the graph holds it */
    Py_ssize_t from;  /* the step before; -1: the root cell */
    PyObject *how;    /* "['a']", "[3]", ".name" */
} Step;

typedef struct Search {
    PyObject *target;
    Visited visited;
    Step *steps;
    Py_ssize_t count;
    Py_ssize_t room;
    Py_ssize_t current;
    PyObject *found; /* the path */
} Search;

/* The path of a step: new reference. */
static PyObject *
path_of(Search *s, Py_ssize_t step, PyObject *last)
{
    PyObject *path = Py_NewRef(last);
    while (step > 0 && path != NULL) {
        Py_SETREF(path, PyUnicode_FromFormat("%U%U", s->steps[step].how, path));
        step = s->steps[step].from;
    }
    if (path != NULL) {
        Py_SETREF(path, PyUnicode_FromFormat("root%U", path));
    }
    return path;
}

static int
add_step(Search *s, DObject *object, PyObject *how)
{
    int fresh = visited_add(&s->visited, (PyObject *) object);
    if (fresh <= 0) {
        return fresh;
    }
    if (s->count == s->room) {
        Py_ssize_t room = s->room ? s->room * 2 : 32;
        Step *steps = PyMem_Realloc(s->steps, (size_t) room * sizeof(*steps));
        if (steps == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        s->steps = steps;
        s->room = room;
    }
    s->steps[s->count++] = (Step){object, s->current, Py_NewRef(how)};
    return 0;
}

static int
look_at(Search *s, PyObject *value, PyObject *how)
{
    if (how == NULL) {
        return -1;
    }
    if (value == s->target) {
        s->found = path_of(s, s->current, how);
        return s->found == NULL ? -1 : 0;
    }
    if (dobject_check(value)) {
        return add_step(s, (DObject *) value, how);
    }
    if (!PyTuple_Check(value)) {
        return 0;
    }
    int result = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value) && result == 0 && !s->found; i++) {
        PyObject *deeper = PyUnicode_FromFormat("%U[%zd]", how, i);
        if (Py_EnterRecursiveCall(" while looking for a value's path")) {
            Py_XDECREF(deeper);
            return -1;
        }
        result = look_at(s, PyTuple_GET_ITEM(value, i), deeper);
        Py_LeaveRecursiveCall();
        Py_XDECREF(deeper);
    }
    return result;
}

static int
look_in_dict(Search *s, DObject *object, PyObject *dict)
{
    Py_ssize_t pos = 0;
    PyObject *key;
    PyObject *value;
    int result = 0;
    while (result == 0 && !s->found && PyDict_Next(dict, &pos, &key, &value)) {
        PyObject *how = object->kind == KIND_ANY ? PyUnicode_FromFormat(".%S", key)
                                                 : PyUnicode_FromFormat("[%R]", key);
        result = look_at(s, value, how);
        if (result == 0 && !s->found && how != NULL) {
            Py_SETREF(how, PyUnicode_FromFormat("%U (its key)", how));
            result = look_at(s, key, how);
        }
        Py_XDECREF(how);
    }
    return result;
}

static int
look_in(Search *s, DObject *object, PyObject *state)
{
    int result = 0;
    if (object->kind == KIND_DICT || object->kind == KIND_ANY) {
        return look_in_dict(s, object, state);
    }
    if (object->kind != KIND_LIST && object->kind != KIND_SET) {
        return 0;
    }
    PyObject *items = PySequence_List(state);
    if (items == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items) && result == 0 && !s->found; i++) {
        PyObject *how = object->kind == KIND_SET ? PyUnicode_FromString("{...}")
                        : s->current == 0        ? PyUnicode_FromString("")
                                                 : PyUnicode_FromFormat("[%zd]", i);
        result = look_at(s, PyList_GET_ITEM(items, i), how);
        Py_XDECREF(how);
    }
    Py_DECREF(items);
    return result;
}

PyObject *
graph_path(Manager *m, Transaction *top, PyObject *value)
{
    Search s = {.target = value, .current = -1};
    PyObject *nothing = PyUnicode_FromString("");
    int result = nothing == NULL ? -1 : add_step(&s, m->cell, nothing);
    for (s.current = 0; result == 0 && s.found == NULL && s.current < s.count; s.current++) {
        DObject *object = s.steps[s.current].object;
        PyObject *view = graph_view(object, top);
        if (view == NULL) {
            result = -1;
            break;
        }
        Py_INCREF(view);
        result = look_in(&s, object, view);
        Py_DECREF(view);
    }
    for (Py_ssize_t i = 0; i < s.count; i++) {
        Py_XDECREF(s.steps[i].how);
    }
    PyMem_Free(s.steps);
    visited_free(&s.visited);
    Py_XDECREF(nothing);
    return s.found;
}
