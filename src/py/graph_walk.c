/*
 * Questions about the graph that need a walk: what is reachable, what is garbage, where does
 * a value stand. None is asked on a path that a commit or a read takes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "manager.h"
#include "state.h"

/* A set of objects in the order in which they came, with their places in it: a work list. */
typedef struct Visited {
    Py_ssize_t *slots; /* place + 1; 0: free */
    size_t size;
    RefList order;
} Visited;

static size_t
visited_slot(const Visited *v, PyObject *object)
{
    size_t mask = v->size - 1;
    size_t i = (size_t)(((uintptr_t)object >> 4) * 0x9E3779B97F4A7C15u >> 16) & mask;
    while (v->slots[i] != 0 && v->order.items[v->slots[i] - 1] != object) {
        i = (i + 1) & mask;
    }
    return i;
}

/* Its place, or -1. */
static Py_ssize_t
visited_place(const Visited *v, PyObject *object)
{
    return v->size > 0 ? v->slots[visited_slot(v, object)] - 1 : -1;
}

static int
visited_grow(Visited *v)
{
    size_t size = v->size ? v->size * 2 : 64;
    Py_ssize_t *slots = PyMem_Calloc(size, sizeof(*slots));
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyMem_Free(v->slots);
    v->slots = slots;
    v->size = size;
    for (Py_ssize_t i = 0; i < v->order.count; i++) {
        v->slots[visited_slot(v, v->order.items[i])] = i + 1;
    }
    return 0;
}

/* 1: new, 0: known, -1: exception. */
static int
visited_add(Visited *v, PyObject *object)
{
    if ((size_t)v->order.count * 2 >= v->size && visited_grow(v) < 0) {
        return -1;
    }
    size_t slot = visited_slot(v, object);
    if (v->slots[slot] != 0) {
        return 0;
    }
    if (reflist_add(&v->order, object) < 0) {
        return -1;
    }
    v->slots[slot] = v->order.count;
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
    return visited_add(arg, (PyObject *)wrapper) < 0 ? -1 : 0;
}

/* What a caller takes an object's state to be: borrowed; NULL: exception. */
static PyObject *
view_in_transaction(DObject *object, void *top)
{
    return graph_view(object, top);
}

/* All that can be reached from the root; stops early when `wanted` has been found. */
static int
reach(Manager *m, graph_viewer viewer, void *arg, DObject *wanted, Visited *v)
{
    if (visited_add(v, (PyObject *)m->cell) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < v->order.count; i++) {
        DObject *object = (DObject *)v->order.items[i];
        if (object == wanted) {
            return 0;
        }
        PyObject *view = viewer(object, arg);
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
graph_reachable(Manager *m, graph_viewer viewer, void *arg, RefList *ret)
{
    Visited v = {0};
    int result = reach(m, viewer, arg, NULL, &v);
    if (result == 0) {
        *ret = v.order;
        v.order = (RefList){0};
    }
    visited_free(&v);
    return result;
}

int
graph_reaches(Manager *m, Transaction *top, DObject *object)
{
    Visited v = {0};
    int result = reach(m, view_in_transaction, top, object, &v);
    if (result == 0) {
        result = visited_place(&v, (PyObject *)object) >= 0;
    }
    visited_free(&v);
    return result;
}

int
graph_garbage(Manager *m, Transaction *top, uint64_t **ret, size_t *ret_count)
{
    Visited v = {0};
    if (reach(m, view_in_transaction, top, NULL, &v) < 0) {
        visited_free(&v);
        return -1;
    }
    size_t count = 0;
    uint64_t *oids = PyMem_Calloc(m->table.used + 1, sizeof(*oids));
    if (oids == NULL) {
        visited_free(&v);
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < m->table.size; i++) {
        DObject *object = m->table.slots[i];
        if (object != NULL && visited_place(&v, (PyObject *)object) < 0) {
            oids[count++] = object->oid;
        }
    }
    visited_free(&v);
    *ret = oids;
    *ret_count = count;
    return 0;
}

/* ---- cycles that hang on nothing ---- */

/* How far is looked before an object is only suspected. Part of the format: all processes
 * must come to the same result. */
#define CYCLE_OBJECTS 128
#define CYCLE_LINKS 2048

typedef struct Cycle {
    Visited members;
    uint32_t inner[CYCLE_OBJECTS + 1]; /* links to each member that come from members */
    Py_ssize_t links;
    bool alive[CYCLE_OBJECTS + 1];
} Cycle;

/* 2 ends the walk: it has become too long. */
static int
add_member(DObject *wrapper, void *arg)
{
    Cycle *cycle = arg;
    if (++cycle->links > CYCLE_LINKS) {
        return 2;
    }
    Py_ssize_t place = visited_place(&cycle->members, (PyObject *)wrapper);
    if (place < 0) {
        place = cycle->members.order.count;
        if (place == CYCLE_OBJECTS) {
            return 2;
        }
        if (visited_add(&cycle->members, (PyObject *)wrapper) < 0) {
            return -1;
        }
    }
    cycle->inner[place]++;
    return 0;
}

static int
mark_alive(DObject *wrapper, void *arg)
{
    Cycle *cycle = arg;
    cycle->alive[visited_place(&cycle->members, (PyObject *)wrapper)] = true;
    return 0;
}

/* What has links from outside lives, and what it leads to. */
static int
spread_life(Cycle *cycle)
{
    bool done[CYCLE_OBJECTS + 1] = {false};
    Py_ssize_t count = cycle->members.order.count;
    for (Py_ssize_t i = 0; i < count; i++) {
        DObject *object = (DObject *)cycle->members.order.items[i];
        cycle->alive[i] = object->links > cycle->inner[i];
    }
    for (Py_ssize_t i = 0; i < count;) {
        if (!cycle->alive[i] || done[i]) {
            i++;
            continue;
        }
        DObject *object = (DObject *)cycle->members.order.items[i];
        done[i] = true;
        if (state_visit(object->kind, object->state, mark_alive, cycle) != 0) {
            return -1;
        }
        i = 0;
    }
    return 0;
}

/* 1: looked at to the end, 0: given up, -1. */
static int
examine(Cycle *cycle, PyObject *start)
{
    if (visited_add(&cycle->members, start) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < cycle->members.order.count; i++) {
        DObject *object = (DObject *)cycle->members.order.items[i];
        if (state_visit(object->kind, object->state, add_member, cycle) != 0) {
            return PyErr_Occurred() ? -1 : 0;
        }
    }
    return spread_life(cycle) < 0 ? -1 : 1;
}

static int
add_ref(DObject *wrapper, void *arg)
{
    return reflist_add(arg, (PyObject *)wrapper);
}

static int
visit_all(const RefList *values, RefList *ret)
{
    for (Py_ssize_t i = 0; i < values->count; i++) {
        if (value_visit(values->items[i], add_ref, ret) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The balance of each wrapper in `lost`, in the order of `losers`: a new array. */
static Py_ssize_t *
balance(const RefList *lost, const RefList *won, Visited *losers)
{
    for (Py_ssize_t i = 0; i < lost->count; i++) {
        if (visited_add(losers, lost->items[i]) < 0) {
            return NULL;
        }
    }
    Py_ssize_t *net = PyMem_Calloc((size_t)losers->order.count + 1, sizeof(*net));
    if (net == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < lost->count; i++) {
        net[visited_place(losers, lost->items[i])]++;
    }
    for (Py_ssize_t i = 0; i < won->count; i++) {
        Py_ssize_t place = visited_place(losers, won->items[i]);
        if (place >= 0) {
            net[place]--;
        }
    }
    return net;
}

int
graph_net_losses(const Traffic *traffic, RefList *ret)
{
    RefList lost = {0};
    RefList won = {0};
    Visited losers = {0};
    Py_ssize_t *net = NULL;
    int result = visit_all(&traffic->out, &lost);
    if (result == 0 && lost.count > 0) {
        result = visit_all(&traffic->in, &won);
        net = result == 0 ? balance(&lost, &won, &losers) : NULL;
        result = net == NULL ? -1 : 0;
    }
    for (Py_ssize_t i = 0; i < losers.order.count && result == 0; i++) {
        if (net[i] > 0) {
            result = reflist_add(ret, losers.order.items[i]);
        }
    }
    PyMem_Free(net);
    visited_free(&losers);
    reflist_clear(&lost);
    reflist_clear(&won);
    return result;
}

static int
find_cycle(Manager *m, PyObject *object, RefList *ret)
{
    Cycle cycle = {0};
    int result = examine(&cycle, object);
    m->suspects += result == 0;
    for (Py_ssize_t k = 0; k < cycle.members.order.count && result > 0; k++) {
        if (!cycle.alive[k] && reflist_add(ret, cycle.members.order.items[k]) < 0) {
            result = -1;
        }
    }
    visited_free(&cycle.members);
    return result < 0 ? -1 : 0;
}

int
graph_small_cycles(Manager *m, const RefList *losers, RefList *ret)
{
    Visited looked = {0};
    int result = 0;
    for (Py_ssize_t i = 0; i < losers->count && result == 0; i++) {
        int fresh = visited_add(&looked, losers->items[i]);
        result = fresh < 0 ? -1 : 0;
        if (fresh > 0 && ((DObject *)losers->items[i])->oid != 0) {
            result = find_cycle(m, losers->items[i], ret);
        }
    }
    visited_free(&looked);
    return result;
}

/* ---- new objects that nothing holds ---- */

typedef struct Orphans {
    Visited members;
    uint32_t *inner; /* links to each that come from others of them */
    bool *alive;
    RefList todo;
} Orphans;

static int
count_inner(DObject *wrapper, void *arg)
{
    Orphans *o = arg;
    Py_ssize_t place = visited_place(&o->members, (PyObject *)wrapper);
    if (place >= 0) {
        o->inner[place]++;
    }
    return 0;
}

static int
keep_alive(DObject *wrapper, void *arg)
{
    Orphans *o = arg;
    Py_ssize_t place = visited_place(&o->members, (PyObject *)wrapper);
    if (place < 0 || o->alive[place]) {
        return 0;
    }
    o->alive[place] = true;
    return reflist_add(&o->todo, (PyObject *)wrapper);
}

static int
list_members(const DeltaList *deltas, Orphans *o)
{
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        const Delta *delta = &deltas->items[i];
        if (delta->fresh && delta->object->oid != 0
            && visited_add(&o->members, (PyObject *)delta->object) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
count_links(Orphans *o)
{
    const RefList *members = &o->members.order;
    size_t room = (size_t)members->count + 1;
    o->inner = PyMem_Calloc(room, sizeof(*o->inner));
    o->alive = PyMem_Calloc(room, sizeof(*o->alive));
    if (o->inner == NULL || o->alive == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < members->count; i++) {
        DObject *object = (DObject *)members->items[i];
        if (state_visit(object->kind, object->state, count_inner, o) != 0) {
            return -1;
        }
    }
    return 0;
}

static void
free_orphans(Orphans *o)
{
    PyMem_Free(o->inner);
    PyMem_Free(o->alive);
    reflist_clear(&o->todo);
    visited_free(&o->members);
}

/* What has a link from outside lives, and what it leads to. */
static int
find_alive(Orphans *o)
{
    int result = 0;
    const RefList *members = &o->members.order;
    for (Py_ssize_t i = 0; i < members->count && result == 0; i++) {
        DObject *object = (DObject *)members->items[i];
        if (object->links > o->inner[i]) {
            result = keep_alive(object, o);
        }
    }
    while (o->todo.count > 0 && result == 0) {
        DObject *object = (DObject *)o->todo.items[--o->todo.count];
        result = state_visit(object->kind, object->state, keep_alive, o);
        Py_DECREF(object);
    }
    return result;
}

int
graph_orphans(const DeltaList *deltas, RefList *ret)
{
    Orphans o = {0};
    int result = list_members(deltas, &o);
    if (result == 0) {
        result = count_links(&o);
    }
    if (result == 0) {
        result = find_alive(&o);
    }
    for (Py_ssize_t i = 0; i < o.members.order.count && result == 0; i++) {
        if (!o.alive[i]) {
            result = reflist_add(ret, o.members.order.items[i]);
        }
    }
    free_orphans(&o);
    return result;
}

int
graph_is_garbage(Manager *m, const uint64_t *oids, size_t count)
{
    Orphans o = {0};
    int result = 1;
    for (size_t i = 0; i < count && result > 0; i++) {
        DObject *object = graph_find(m, oids[i]);
        if (object != NULL && visited_add(&o.members, (PyObject *)object) < 0) {
            result = -1;
        }
    }
    if (result > 0 && count_links(&o) < 0) {
        result = -1;
    }
    for (Py_ssize_t i = 0; i < o.members.order.count && result > 0; i++) {
        result = ((DObject *)o.members.order.items[i])->links == o.inner[i];
    }
    free_orphans(&o);
    return result;
}

/* ---- where does a value stand? ---- */

typedef struct Step {
    DObject *object; /* borrowed: the graph holds it */
    Py_ssize_t from; /* the step before; -1: the root cell */
    PyObject *how;   /* "['a']", "[3]", ".name" */
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
    int fresh = visited_add(&s->visited, (PyObject *)object);
    if (fresh <= 0) {
        return fresh;
    }
    if (s->count == s->room) {
        Py_ssize_t room = s->room ? s->room * 2 : 32;
        Step *steps = PyMem_Realloc(s->steps, (size_t)room * sizeof(*steps));
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
        return add_step(s, (DObject *)value, how);
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
    for (s.current = 0; result == 0 && s.found == NULL && s.current < s.count;
         s.current++) {
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
