/*
 * What has changed, for those who watch a Manager.
 *
 * graph.c says which objects a commit has changed and how; here that becomes paths (paths.c),
 * which are collected in `news`. When sync.c has moved the Manager to the new version, they
 * are published (telling.c). New objects are not told: what links them is, and stands above.
 *
 * When the whole graph was read anew (another base, or a backend that knows nothing smaller),
 * nobody has said what changed: old and new states are compared. Only values whose comparison
 * runs no code of the program are compared by value; others count as changed.
 *
 * What is published must not be less than what has changed. So a commit that memory took in
 * only in part, or that there was no memory to describe, is told as "everything".
 *
 * The struct is made with the first watch, and dropped by the first commit that finds none.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watching.h"

#include "backends.h"
#include "paths.h"
#include "state.h"
#include "wrap.h"

#include <string.h>

struct Watching {
    Hub *hub;
    Paths *paths;
    PathSet news; /* not published yet */
};

static void
drop(Manager *m)
{
    struct Watching *w = m->watching;
    m->watching = NULL;
    hub_close(w->hub, false);
    hub_unref(w->hub);
    paths_free(w->paths);
    pathset_clear(&w->news);
    PyMem_Free(w);
}

static int
make(Manager *m)
{
    struct Watching *w = PyMem_Calloc(1, sizeof(*w));
    if (w == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int collecting = PyGC_Disable();
    w->paths = paths_new(m);
    if (collecting) {
        PyGC_Enable();
    }
    if (w->paths != NULL && (w->hub = hub_new()) == NULL) {
        PyErr_NoMemory();
        paths_free(w->paths);
    }
    if (w->hub == NULL) {
        PyMem_Free(w);
        return -1;
    }
    m->watching = w;
    return 0;
}

int
watching_add(Manager *m, WatchOptions *options, Watch **ret)
{
    if (sync_load(m) < 0 || (m->watching == NULL && make(m) < 0)) {
        return -1;
    }
    options->version = m->at.stored ? m->at.version : 0;
    return watch_new(m->watching->hub, options, ret);
}

/* ---- what a commit has changed ---- */

typedef struct Gathered {
    PyObject *keys[ELEMENTS_MOST];
    Py_ssize_t indices[ELEMENTS_MOST];
    Elements elements;
} Gathered;

/* False: they are too many. */
static bool
gather_key(Gathered *g, PyObject *key)
{
    if (g->elements.count == ELEMENTS_MOST) {
        return false;
    }
    g->elements.keys = g->keys;
    g->keys[g->elements.count++] = key;
    return true;
}

static bool
gather_index(Gathered *g, Py_ssize_t index)
{
    if (g->elements.count == ELEMENTS_MOST) {
        return false;
    }
    g->elements.indices = g->indices;
    g->indices[g->elements.count++] = index;
    return true;
}

static bool
gather_keys(Gathered *g, PyObject *dict)
{
    Py_ssize_t pos = 0;
    PyObject *key;
    while (PyDict_Next(dict, &pos, &key, NULL)) {
        if (!gather_key(g, key)) {
            return false;
        }
    }
    return true;
}

/* False: not an element has changed, but the object. */
static bool
gather_op(Gathered *g, const Op *op)
{
    switch (op->code) {
    case OP_SET:
    case OP_DEL:
        return gather_key(g, op->a);
    case OP_UPDATE:
        return gather_keys(g, op->a);
    case OP_ITEM:
        return gather_index(g, op->lo);
    default:
        return false;
    }
}

static void
tell_delta(struct Watching *w, const Delta *delta)
{
    Gathered g;
    g.elements = (Elements){0};
    bool whole = delta->n_ops == 0;
    for (Py_ssize_t i = 0; i < delta->n_ops && !whole; i++) {
        whole = !gather_op(&g, &delta->ops[i]);
    }
    if (whole) {
        g.elements = (Elements){0};
    }
    paths_tell(w->paths, delta->object, &g.elements, &w->news);
}

/* Is there somebody, and something to find out? */
static bool
is_to_be_told(Manager *m, bool done)
{
    struct Watching *w = m->watching;
    bool used = hub_is_used(w->hub);
    if (!used) {
        drop(m);
    } else if (!done) {
        paths_forget(w->paths);
        pathset_add_all(&w->news);
    }
    return used && done;
}

void
watching_applied(Manager *m, const DeltaList *deltas, bool done)
{
    struct Watching *w = m->watching;
    if (!is_to_be_told(m, done)) {
        return;
    }
    paths_follow(w->paths, deltas);
    for (Py_ssize_t i = 0; i < deltas->count && !w->news.all; i++) {
        if (!deltas->items[i].fresh) {
            tell_delta(w, &deltas->items[i]);
        }
    }
    paths_told(w->paths);
}

/* ---- what another graph has changed ---- */

#define DEEPEST 20 /* tuples in tuples */

static bool same_tuple(PyObject *a, PyObject *b, int depth);

/*
 * Leaves of types in C that refer to no other objects are compared as they say themselves:
 * that runs no code of the program. Times do, for their zones, unless they have the same.
 */
static bool
same_leaf(PyObject *a, PyObject *b)
{
    PyTypeObject *type = Py_TYPE(a);
    if (type != Py_TYPE(b) || PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)
        || PyType_IS_GC(type)) {
        return false;
    }
    if (PyFloat_CheckExact(a)) {
        double x = PyFloat_AS_DOUBLE(a);
        double y = PyFloat_AS_DOUBLE(b);
        return memcmp(&x, &y, sizeof(x)) == 0;
    }
    bool same = true;
    if (!PyUnicode_CheckExact(a) && !PyLong_CheckExact(a)
        && PyObject_HasAttrString((PyObject *)type, "tzinfo")) {
        PyObject *here = PyObject_GetAttrString(a, "tzinfo");
        PyObject *there = PyObject_GetAttrString(b, "tzinfo");
        same = here == there;
        Py_XDECREF(here);
        Py_XDECREF(there);
    }
    same = same && PyObject_RichCompareBool(a, b, Py_EQ) > 0;
    PyErr_Clear();
    return same;
}

static bool
same_value(PyObject *a, PyObject *b, int depth)
{
    if (a == b) {
        return true;
    }
    return PyTuple_CheckExact(a) && PyTuple_CheckExact(b) ? same_tuple(a, b, depth)
                                                          : same_leaf(a, b);
}

static bool
same_tuple(PyObject *a, PyObject *b, int depth)
{
    Py_ssize_t size = PyTuple_GET_SIZE(a);
    bool same = size == PyTuple_GET_SIZE(b) && depth < DEEPEST;
    for (Py_ssize_t i = 0; i < size && same; i++) {
        same = same_value(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i), depth + 1);
    }
    return same;
}

/* Mostly nothing has changed, and the order is the same: no look-ups. */
static bool
same_dict(PyObject *a, PyObject *b)
{
    Py_ssize_t pos = 0;
    Py_ssize_t other_pos = 0;
    PyObject *key;
    PyObject *other_key;
    PyObject *value;
    PyObject *other;
    if (PyDict_GET_SIZE(a) != PyDict_GET_SIZE(b)) {
        return false;
    }
    while (PyDict_Next(a, &pos, &key, &value)) {
        if (!PyDict_Next(b, &other_pos, &other_key, &other)
            || !same_value(key, other_key, 0) || !same_value(value, other, 0)) {
            return false;
        }
    }
    return true;
}

/* Keys of `a` that are not in `b`, or have another value there. False: too many. */
static bool
gather_different(Gathered *g, PyObject *a, PyObject *b)
{
    Py_ssize_t pos = 0;
    PyObject *key;
    PyObject *value;
    while (PyDict_Next(a, &pos, &key, &value)) {
        PyObject *other = PyDict_GetItemWithError(b, key);
        if ((other == NULL || !same_value(value, other, 0)) && !gather_key(g, key)) {
            return false;
        }
    }
    return true;
}

static bool
gather_items(Gathered *g, PyObject *old, PyObject *new)
{
    bool fits = PyList_GET_SIZE(old) == PyList_GET_SIZE(new);
    for (Py_ssize_t i = 0; fits && i < PyList_GET_SIZE(new); i++) {
        if (!same_value(PyList_GET_ITEM(old, i), PyList_GET_ITEM(new, i), 0)) {
            fits = gather_index(g, i);
        }
    }
    return fits;
}

static bool
same_set(const DObject *object, PyObject *old, PyObject *new)
{
    if (PySet_GET_SIZE(old) != PySet_GET_SIZE(new) || object->flags & KEYS_ODD) {
        return false;
    }
    PyObject *iterator = PyObject_GetIter(new);
    PyObject *item;
    bool same = iterator != NULL;
    while (same && (item = PyIter_Next(iterator)) != NULL) {
        same = PySet_Contains(old, item) > 0;
        Py_DECREF(item);
    }
    Py_XDECREF(iterator);
    PyErr_Clear();
    return same;
}

static bool
same_opaque(PyObject *old, PyObject *new)
{
    if (old == Py_None || new == Py_None) {
        return old == new;
    }
    const OpaqueState *a = (OpaqueState *)old;
    const OpaqueState *b = (OpaqueState *)new;
    return same_value(a->pickle, b->pickle, 0) && same_value(a->refs, b->refs, 0);
}

static bool
same_bytes(PyObject *old, PyObject *new)
{
    Py_ssize_t size = PyByteArray_GET_SIZE(old);
    return size == PyByteArray_GET_SIZE(new)
           && memcmp(PyByteArray_AS_STRING(old), PyByteArray_AS_STRING(new), (size_t)size)
                  == 0;
}

/* False: nothing has changed. `g` says what, or, when it stays empty, the object. */
static bool
gather_changed(Gathered *g, const DObject *object, PyObject *old, PyObject *new)
{
    bool fits;
    switch (object->kind) {
    case KIND_LIST:
        fits = gather_items(g, old, new);
        break;
    case KIND_DICT:
    case KIND_ANY:
        if (same_dict(old, new)) {
            return false;
        }
        fits = !(object->flags & KEYS_ODD) && gather_different(g, old, new)
               && gather_different(g, new, old);
        break;
    case KIND_SET:
        return !same_set(object, old, new);
    case KIND_BYTES:
        return !same_bytes(old, new);
    default:
        return !same_opaque(old, new);
    }
    bool some = !fits || g->elements.count > 0;
    if (!fits) {
        g->elements = (Elements){0};
    }
    return some;
}

void
watching_replaced(Manager *m, const DeltaList *deltas, bool done)
{
    struct Watching *w = m->watching;
    if (!is_to_be_told(m, done)) {
        return;
    }
    paths_forget(w->paths);
    for (Py_ssize_t i = 0; i < deltas->count && !w->news.all; i++) {
        const Delta *delta = &deltas->items[i];
        Gathered g;
        g.elements = (Elements){0};
        if (!delta->fresh && delta->next != NULL
            && gather_changed(&g, delta->object, delta->next, delta->object->state)) {
            paths_tell(w->paths, delta->object, &g.elements, &w->news);
        }
    }
    paths_told(w->paths);
}

/* ---- telling ---- */

void
watching_publish(Manager *m, bool own)
{
    struct Watching *w = m->watching;
    if (pathset_is_empty(&w->news)
        || (m->at.stored && m->at.version == TOSC_VERSION_UNKNOWN)) {
        return; /* it is published when the version is known: fetching comes to the same */
    }
    hub_publish(w->hub, &w->news, m->at.stored ? m->at.version : 0, own);
    pathset_clear(&w->news);
}

void
watching_close(Manager *m, bool wait)
{
    struct Watching *w = m->watching;
    if (w == NULL) {
        return;
    }
    Hub *hub = w->hub;
    m->watching = NULL;
    w->hub = NULL;
    paths_free(w->paths);
    pathset_clear(&w->news);
    PyMem_Free(w);
    if (wait) {
        Py_BEGIN_ALLOW_THREADS
        hub_close(hub, true);
        hub_unref(hub);
        Py_END_ALLOW_THREADS
    } else {
        hub_close(hub, false);
        hub_unref(hub);
    }
}

void
watching_after_fork(Manager *m)
{
    if (m->watching != NULL) {
        hub_renew(m->watching->hub);
    }
}
