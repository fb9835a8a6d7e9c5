/*
 * From objects to paths.
 *
 * Objects know what they hold; what holds them is known by a table (parents.c). So telling a
 * path costs what the depth of the object costs, not the size of the store.
 *
 * The table's hints are verified; a wrong one is put right by a search of the parent, in a list
 * outwards from the hint. An object that stands in one container more than once has that
 * container searched every time. The table's counts are checked as well: together they must be
 * what the object says (its `links`). Where they are not, everything is told, and the table is
 * made anew.
 *
 * A path goes up from the object by all of its parents, so an aliased object is told by each
 * of its paths, one that is in itself by those that do not go round. A step that no path can
 * have (an element of a set, a part of an opaque object, a key that is neither text nor int)
 * ends the path above it: the container is told. Ways up can be more than anybody wants, so
 * WALK_MOST nodes are looked at for one commit; beyond that, everything is told.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "paths.h"

#include "parents.h"
#include "wrap.h"

#include <string.h>

#define CELL_OID 1
#define WALK_MOST 16384
#define ALIASES_MOST 64 /* in one container; more are told as the container */

/* ---- the way up ---- */

/* A step of a way that was found. Its text, in the walk's buffer, leads from object to … */
typedef struct Node {
    DObject *object; /* borrowed */
    size_t from;     /* … the object of this node */
    size_t text;
    size_t size; /* 0: the root's, or no step leads there */
    bool ends;   /* the path ends with this step: none leads on to the object */
} Node;

typedef struct Walk {
    Node *nodes;
    size_t count;
    size_t room;
    char *text;
    size_t used;
    size_t text_room;
    char *path;
    size_t path_size;
    size_t path_room;
    size_t ends[ELEMENTS_MOST]; /* of the elements' steps in `text`, which come first */
    size_t elements;
} Walk;

struct Paths {
    Parents parents;
    size_t walked; /* nodes, since paths_told() */
    Walk walk;
};

static char *
text_room(char **text, size_t *room, size_t used, size_t more)
{
    if (used + more > *room) {
        size_t size = 2 * (used + more) + 256;
        char *grown = PyMem_Realloc(*text, size);
        if (grown == NULL) {
            return NULL;
        }
        *text = grown;
        *room = size;
    }
    return *text + used;
}

static int
add_text(Walk *w, const char *text, size_t size)
{
    char *to = text_room(&w->text, &w->text_room, w->used, 2 * size);
    if (to == NULL) {
        return -1;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '~' || text[i] == '/') {
            *to++ = '~';
            *to++ = text[i] == '~' ? '0' : '1';
        } else {
            *to++ = text[i];
        }
    }
    w->used = (size_t)(to - w->text);
    return 0;
}

static int
add_index(Walk *w, long long index)
{
    char digits[24];
    int size = snprintf(digits, sizeof(digits), "%lld", index);
    return add_text(w, digits, (size_t)size);
}

/* Is there a key of this text as well? It would be found first. */
static int
text_is_key(PyObject *dict, long long number)
{
    PyObject *text = PyUnicode_FromFormat("%lld", number);
    int found = text == NULL ? -1 : PyDict_Contains(dict, text);
    Py_XDECREF(text);
    return found;
}

/*
 * The step of a key: 1; 0: no path can have it; -1: no memory. What stands in a path has to be
 * found by it, so that an int needs a dict in which nothing else can be meant.
 */
static int
add_key(Walk *w, const DObject *object, PyObject *key)
{
    if (PyUnicode_CheckExact(key)) {
        Py_ssize_t size;
        const char *text = PyUnicode_AsUTF8AndSize(key, &size);
        if (text == NULL) { /* a lone surrogate */
            PyErr_Clear();
            return 0;
        }
        if (size == 0 || strlen(text) != (size_t)size) {
            return 0;
        }
        return add_text(w, text, (size_t)size) < 0 ? -1 : 1;
    }
    if (!PyLong_CheckExact(key) || object->flags & KEYS_ODD) {
        return 0;
    }
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(key, &overflow);
    int also_text = overflow ? 1 : text_is_key(object->state, number);
    if (also_text != 0) {
        return also_text < 0 ? -1 : 0;
    }
    return add_index(w, number) < 0 ? -1 : 1;
}

static int
is_child(DObject *wrapper, void *arg)
{
    return wrapper == arg;
}

/* How a value holds an object: 1 it is the object, 2 a tuple (…) that has it, 0 not at all. */
static int
holds(PyObject *value, DObject *child)
{
    if (value == (PyObject *)child) {
        return 1;
    }
    return dobject_check(value) ? 0 : 2 * (value_visit(value, is_child, child) != 0);
}

/* Within an element: which item of a tuple it is, if that is clear: 1, 0, -1 no memory. */
static int
add_item_of(Walk *w, PyObject *tuple, DObject *child)
{
    Py_ssize_t found = -1;
    if (!PyTuple_CheckExact(tuple)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        if (item == (PyObject *)child && found < 0) {
            found = i;
        } else if (!dobject_check(item) && value_visit(item, is_child, child)) {
            return 0;
        } else if (item == (PyObject *)child) {
            return 0;
        }
    }
    if (found < 0) {
        return 0;
    }
    char *slash = text_room(&w->text, &w->text_room, w->used, 1);
    if (slash == NULL) {
        return -1;
    }
    *slash = '/';
    w->used++;
    return add_index(w, found) < 0 ? -1 : 1;
}

static int
add_node(Walk *w, const Node *node)
{
    if (w->count == w->room) {
        size_t room = w->room == 0 ? 32 : 2 * w->room;
        Node *nodes = PyMem_Realloc(w->nodes, room * sizeof(*nodes));
        if (nodes == NULL) {
            return -1;
        }
        w->nodes = nodes;
        w->room = room;
    }
    w->nodes[w->count++] = *node;
    return 0;
}

/* Does the way lead through this node's object before it comes there? */
static bool
goes_round(const Walk *w, size_t node)
{
    const DObject *object = w->nodes[node].object;
    size_t i = node;
    while (i != 0) {
        i = w->nodes[i].from;
        if (w->nodes[i].object == object) {
            return true;
        }
    }
    return false;
}

/* ---- one step up ---- */

/* From a node to one of its object's parents. */
typedef struct Climb {
    Walk *walk;
    size_t from;
    DObject *child;
    DObject *parent;
    Place *place;
    int found; /* nodes that were added */
} Climb;

static int
climb_to_part(Climb *c)
{
    Node node = {.object = c->parent, .from = c->from, .ends = true};
    c->found++;
    return add_node(c->walk, &node);
}

/* By an element whose step (1; 0: it has none) has been added behind `text`. */
static int
climb_by(Climb *c, int step, size_t text, PyObject *value)
{
    if (step <= 0) {
        return step < 0 ? -1 : climb_to_part(c);
    }
    int within =
        value == (PyObject *)c->child ? 1 : add_item_of(c->walk, value, c->child);
    Node node = {.object = c->parent,
                 .from = c->from,
                 .text = text,
                 .size = c->walk->used - text,
                 .ends = within == 0};
    c->found++;
    return within < 0 ? -1 : add_node(c->walk, &node);
}

static int
climb_by_key(Climb *c, PyObject *key, PyObject *value)
{
    size_t text = c->walk->used;
    return climb_by(c, add_key(c->walk, c->parent, key), text, value);
}

static int
climb_by_index(Climb *c, Py_ssize_t index)
{
    PyObject *value = PyList_GET_ITEM(c->parent->state, index);
    size_t text = c->walk->used;
    if (c->parent->oid == CELL_OID) {
        Node node = {
            .object = c->parent, .from = c->from, .ends = value != (PyObject *)c->child};
        c->found++;
        return add_node(c->walk, &node);
    }
    return climb_by(c, add_index(c->walk, index) < 0 ? -1 : 1, text, value);
}

/* Where it is now, if it is there once: next to where it was. -1: nowhere. */
static Py_ssize_t
find_index(PyObject *list, DObject *child, Py_ssize_t hint)
{
    Py_ssize_t size = PyList_GET_SIZE(list);
    Py_ssize_t low = hint < size ? hint : size - 1;
    Py_ssize_t high = low + 1;
    while (low >= 0 || high < size) {
        if (low >= 0 && holds(PyList_GET_ITEM(list, low), child)) {
            return low;
        }
        if (high < size && holds(PyList_GET_ITEM(list, high), child)) {
            return high;
        }
        low--;
        high++;
    }
    return -1;
}

static int
climb_list(Climb *c)
{
    PyObject *list = c->parent->state;
    if (c->place->count == 1) {
        Py_ssize_t hint = c->place->how == AT_INDEX ? c->place->hint.index : 0;
        Py_ssize_t index = find_index(list, c->child, hint);
        if (index < 0) {
            return 0;
        }
        place_set_hint(c->place, AT_INDEX, NULL, index);
        return climb_by_index(c, index);
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (holds(PyList_GET_ITEM(list, i), c->child) && climb_by_index(c, i) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
search_dict(Climb *c)
{
    Py_ssize_t pos = 0;
    PyObject *key;
    PyObject *value;
    bool once = c->place->count == 1;
    while (PyDict_Next(c->parent->state, &pos, &key, &value)) {
        int result = 0;
        if (holds(value, c->child)) {
            if (once) {
                place_set_hint(c->place, key_can_be_step(key) ? AT_KEY : AT_PART, key, 0);
            }
            result = climb_by_key(c, key, value);
        }
        if (result == 0 && holds(key, c->child)) {
            result = climb_to_part(c);
        }
        if (result < 0 || (once && c->found > 0)) {
            return result;
        }
    }
    return 0;
}

static int
climb_dict(Climb *c)
{
    if (c->place->count == 1 && c->place->how == AT_PART) {
        return climb_to_part(c);
    }
    if (c->place->count == 1 && !(c->parent->flags & KEYS_ODD)) {
        PyObject *key = c->place->hint.key;
        PyObject *value = PyDict_GetItemWithError(c->parent->state, key);
        if (value != NULL && holds(value, c->child)) {
            return climb_by_key(c, key, value);
        }
    }
    return search_dict(c);
}

/* Adds a node for each of the child's places in the parent. -1: no memory, or it is not there. */
static int
climb(Climb *c)
{
    int result;
    if (c->place->count > ALIASES_MOST) {
        result = climb_to_part(c);
    } else if (c->parent->kind == KIND_LIST) {
        result = climb_list(c);
    } else if (c->parent->kind == KIND_DICT || c->parent->kind == KIND_ANY) {
        result = climb_dict(c);
    } else {
        result = climb_to_part(c);
    }
    return c->found == 0 ? -1 : result;
}

/* ---- all ways up ---- */

/* One of the parents; one that is no longer linked is none. */
static int
climb_to(Paths *p, size_t from, Place *place, uint32_t *links)
{
    Walk *w = &p->walk;
    Climb c = {.walk = w,
               .from = from,
               .child = w->nodes[from].object,
               .parent = graph_find(p->parents.manager, place->parent),
               .place = place};
    if (c.parent == NULL) {
        return 0;
    }
    *links += place->count;
    return climb(&c);
}

static int
climb_to_all(Paths *p, size_t from)
{
    const DObject *object = p->walk.nodes[from].object;
    Child *child = parents_of(&p->parents, object->oid);
    uint32_t links = 0;
    int result = 0;
    if (child == NULL) {
        return object->links == 0 ? 0 : -1;
    }
    if (child->place.how != AT_MANY) {
        result = child->place.parent == 0 ? 0 : climb_to(p, from, &child->place, &links);
    } else if (goes_round(&p->walk, from)) {
        return 0; /* some object of each cycle has another parent, where it is entered */
    } else {
        PlaceTable *table = child->place.hint.table;
        for (size_t i = 0; i < table->size && result == 0; i++) {
            if (table->slots[i].parent != 0) {
                result = climb_to(p, from, &table->slots[i], &links);
            }
        }
    }
    return result == 0 && links == object->links ? 0 : -1;
}

static int
add_to_path(Walk *w, const char *text, size_t size)
{
    char *to = text_room(&w->path, &w->path_room, w->path_size, size + 1);
    if (to == NULL) {
        return -1;
    }
    if (w->path_size > 0) {
        *to++ = '/';
        w->path_size++;
    }
    memcpy(to, text, size);
    w->path_size += size;
    return 0;
}

/* From the cell down to where the walk began, and on to each of the changed elements. */
static int
tell_way(Walk *w, size_t node, PathSet *ret)
{
    bool ends = node == 0; /* the cell itself has changed */
    w->path_size = 0;
    for (; node != 0 && !ends; node = w->nodes[node].from) {
        const Node *step = &w->nodes[node];
        if (step->size > 0 && add_to_path(w, w->text + step->text, step->size) < 0) {
            return -1;
        }
        ends = step->ends;
    }
    if (ends || w->elements == 0) {
        pathset_add(ret, w->path_size > 0 ? w->path : "", w->path_size);
        return 0;
    }
    size_t base = w->path_size;
    for (size_t i = 0; i < w->elements; i++) {
        size_t start = i == 0 ? 0 : w->ends[i - 1];
        w->path_size = base;
        if (add_to_path(w, w->text + start, w->ends[i] - start) < 0) {
            return -1;
        }
        pathset_add(ret, w->path, w->path_size);
    }
    return 0;
}

/* Texts of the changed elements; if one has none, or they are many, the object is told. */
static int
add_elements(Walk *w, const DObject *object, const Elements *elements)
{
    w->elements = 0;
    w->used = 0;
    if (elements->count == 0 || elements->count > ELEMENTS_MOST
        || object->oid == CELL_OID) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < elements->count; i++) {
        int result = elements->keys != NULL ? add_key(w, object, elements->keys[i])
                                            : add_index(w, elements->indices[i]) + 1;
        if (result <= 0) {
            w->elements = 0;
            return result;
        }
        w->ends[w->elements++] = w->used;
    }
    return 0;
}

static int
walk(Paths *p, DObject *object, const Elements *elements, PathSet *ret)
{
    Walk *w = &p->walk;
    Node start = {.object = object};
    w->count = 0;
    if (add_elements(w, object, elements) < 0 || add_node(w, &start) < 0) {
        return -1;
    }
    for (size_t i = 0; i < w->count && !ret->all; i++) {
        bool arrived = w->nodes[i].object->oid == CELL_OID;
        if (++p->walked > WALK_MOST
            || (arrived ? tell_way(w, i, ret) : climb_to_all(p, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

void
paths_tell(Paths *p, DObject *object, const Elements *elements, PathSet *ret)
{
    bool anew = !p->parents.valid;
    if (ret->all || object->oid == 0) {
        return;
    }
    if ((anew && parents_make(&p->parents) < 0) || walk(p, object, elements, ret) < 0) {
        pathset_add_all(ret);
        p->parents.valid =
            p->parents.valid && p->walked > WALK_MOST; /* else it is wrong somewhere */
    }
    PyErr_Clear();
}

void
paths_told(Paths *p)
{
    p->walked = 0;
}

/* ---- its life ---- */

void
paths_follow(Paths *p, const DeltaList *deltas)
{
    parents_follow(&p->parents, deltas);
}

Paths *
paths_new(Manager *m)
{
    Paths *p = PyMem_Calloc(1, sizeof(*p));
    if (p != NULL) {
        p->parents.manager = m;
        if (parents_make(&p->parents) < 0) {
            paths_free(p);
            p = NULL;
        }
    }
    if (p == NULL) {
        PyErr_NoMemory();
    }
    return p;
}

void
paths_forget(Paths *p)
{
    p->parents.valid = false;
}

void
paths_free(Paths *p)
{
    parents_clear(&p->parents);
    PyMem_Free(p->walk.nodes);
    PyMem_Free(p->walk.text);
    PyMem_Free(p->walk.path);
    PyMem_Free(p);
}
