/*
 * From objects to paths.
 *
 * Objects know what they hold, not where they are held. While somebody watches, this table
 * knows for each linked object the objects that hold it (its parents), how often each does,
 * and a hint where: a key or an index. It is filled once by a walk of the graph and then kept
 * up to date from the links that each commit makes and cuts, so that telling a path costs what
 * the depth of the object costs, not the size of the store.
 *
 * Objects are named by their oids, which are never used again. So entries of objects that are
 * no longer linked need not be sought out: a parent that is not in the Manager's table is
 * dropped when it is met, and the whole is made anew when it has twice as many entries as it
 * then had.
 *
 * Counts are exact, hints are not: insertions into a list move what follows. A hint is
 * verified; a wrong one is put right by a search of the parent, in a list outwards from the
 * hint. An object that stands in one container more than once has that container searched
 * every time. Counts are checked as well: together they must be what the object says (its
 * `links`). Where they are not, everything is told, and the table is made anew.
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

#include "wrap.h"

#include <string.h>

#define CELL_OID 1
#define WALK_MOST 16384
#define ALIASES_MOST 64 /* in one container; more are told as the container */
#define FEW 1024        /* entries that are no reason to make the table anew */

/* ---- the table ---- */

enum place_how {
    AT_PART,  /* no path leads there: the parent is told */
    AT_KEY,   /* hint.key */
    AT_INDEX, /* hint.index */
    AT_MANY   /* in a Child only: hint.table */
};

typedef struct Place {
    uint64_t parent; /* 0: free */
    union {
        PyObject *key; /* strong: an exact str or int */
        Py_ssize_t index;
        struct PlaceTable *table;
    } hint;
    uint32_t count; /* elements of the parent that refer to the child; AT_MANY: unused */
    uint8_t how;
} Place;

/* Open addressing by parent. */
typedef struct PlaceTable {
    size_t size;
    size_t used;
    Place slots[];
} PlaceTable;

typedef struct Child {
    uint64_t oid;
    Place place; /* parent 0 and not AT_MANY: none */
} Child;

typedef struct Walk Walk;

struct Paths {
    Manager *manager; /* which owns this */
    bool valid;
    size_t walked; /* nodes, since paths_told() */
    uint32_t *index; /* of children + 1, by oid; 0: free */
    size_t index_size;
    Child *children;
    size_t count;
    size_t room;
    size_t places;       /* entries of all tables */
    size_t places_first; /* … when it was made */
    Walk *walk;
};

static inline size_t
hash_oid(uint64_t oid)
{
    return (size_t)((oid * UINT64_C(0x9E3779B97F4A7C15)) >> 24);
}

static void
drop_hint(Place *place)
{
    if (place->how == AT_KEY) {
        Py_DECREF(place->hint.key);
    }
    place->how = AT_PART;
}

static void
set_hint(Place *place, int how, PyObject *key, Py_ssize_t index)
{
    if (place->how == AT_KEY && how == AT_KEY && place->hint.key == key) {
        return;
    }
    drop_hint(place);
    place->how = (uint8_t)how;
    if (how == AT_KEY) {
        place->hint.key = Py_NewRef(key);
    } else if (how == AT_INDEX) {
        place->hint.index = index;
    }
}

static size_t
child_slot(const Paths *p, uint64_t oid)
{
    size_t mask = p->index_size - 1;
    size_t i = hash_oid(oid) & mask;
    while (p->index[i] != 0 && p->children[p->index[i] - 1].oid != oid) {
        i = (i + 1) & mask;
    }
    return i;
}

static Child *
find_child(const Paths *p, uint64_t oid)
{
    uint32_t at = p->index_size == 0 ? 0 : p->index[child_slot(p, oid)];
    return at == 0 ? NULL : &p->children[at - 1];
}

static int
grow_index(Paths *p)
{
    size_t size = p->index_size == 0 ? 64 : 2 * p->index_size;
    uint32_t *index = PyMem_Calloc(size, sizeof(*index));
    if (index == NULL) {
        return -1;
    }
    PyMem_Free(p->index);
    p->index = index;
    p->index_size = size;
    for (size_t i = 0; i < p->count; i++) {
        p->index[child_slot(p, p->children[i].oid)] = (uint32_t)i + 1;
    }
    return 0;
}

static Child *
get_child(Paths *p, uint64_t oid)
{
    Child *child = find_child(p, oid);
    if (child != NULL) {
        return child;
    }
    if (p->count * 3 >= p->index_size * 2 && grow_index(p) < 0) {
        return NULL;
    }
    if (p->count == p->room) {
        size_t room = p->room == 0 ? 64 : p->room + p->room / 2;
        Child *children = PyMem_Realloc(p->children, room * sizeof(*children));
        if (children == NULL || room > UINT32_MAX - 1) {
            p->children = children != NULL ? children : p->children;
            return NULL;
        }
        p->children = children;
        p->room = room;
    }
    child = &p->children[p->count++];
    *child = (Child){.oid = oid};
    p->index[child_slot(p, oid)] = (uint32_t)p->count;
    return child;
}

/* ---- the parents of one child ---- */

static size_t
place_slot(const PlaceTable *table, uint64_t parent)
{
    size_t mask = table->size - 1;
    size_t i = hash_oid(parent) & mask;
    while (table->slots[i].parent != 0 && table->slots[i].parent != parent) {
        i = (i + 1) & mask;
    }
    return i;
}

static PlaceTable *
new_table(size_t size)
{
    PlaceTable *table = PyMem_Calloc(1, sizeof(*table) + size * sizeof(Place));
    if (table != NULL) {
        table->size = size;
    }
    return table;
}

/* The table of a child that has several parents, with room for one more; NULL: no memory. */
static PlaceTable *
make_table(Child *child)
{
    PlaceTable *old = child->place.how == AT_MANY ? child->place.hint.table : NULL;
    if (old != NULL && (old->used + 1) * 3 <= old->size * 2) {
        return old;
    }
    PlaceTable *table = new_table(old == NULL ? 4 : 2 * old->size);
    if (table == NULL) {
        return NULL;
    }
    if (old == NULL) {
        table->slots[place_slot(table, child->place.parent)] = child->place;
        table->used = 1;
    }
    for (size_t i = 0; old != NULL && i < old->size; i++) {
        if (old->slots[i].parent != 0) {
            table->slots[place_slot(table, old->slots[i].parent)] = old->slots[i];
            table->used++;
        }
    }
    PyMem_Free(old);
    child->place = (Place){.how = AT_MANY, .hint.table = table};
    return table;
}

static Place *
find_place(Child *child, uint64_t parent)
{
    Place *place = &child->place;
    if (place->how == AT_MANY) {
        place = &place->hint.table->slots[place_slot(place->hint.table, parent)];
    }
    return place->parent == parent ? place : NULL;
}

static Place *
get_place(Paths *p, uint64_t oid, uint64_t parent)
{
    Child *child = get_child(p, oid);
    Place *place = child == NULL ? NULL : find_place(child, parent);
    if (child == NULL || place != NULL) {
        return place;
    }
    place = &child->place;
    if (place->how == AT_MANY || place->parent != 0) {
        PlaceTable *table = make_table(child);
        if (table == NULL) {
            return NULL;
        }
        place = &table->slots[place_slot(table, parent)];
        table->used++;
    }
    p->places++;
    *place = (Place){.parent = parent};
    return place;
}

/* The gap is closed, so that probing needs no marks of what was there. */
static void
remove_from(PlaceTable *table, size_t hole)
{
    size_t mask = table->size - 1;
    for (size_t i = (hole + 1) & mask; table->slots[i].parent != 0; i = (i + 1) & mask) {
        size_t home = hash_oid(table->slots[i].parent) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table->slots[hole] = table->slots[i];
            hole = i;
        }
    }
    table->slots[hole] = (Place){0};
    table->used--;
}

static void
drop_place(Paths *p, Child *child, uint64_t parent)
{
    Place *place = find_place(child, parent);
    if (place == NULL) {
        return;
    }
    drop_hint(place);
    p->places--;
    if (child->place.how == AT_MANY) {
        PlaceTable *table = child->place.hint.table;
        remove_from(table, (size_t)(place - table->slots));
        if (table->used == 0) {
            PyMem_Free(table);
            child->place = (Place){0};
        }
    } else {
        *place = (Place){0};
    }
}

static void
clear_table(Paths *p)
{
    for (size_t i = 0; i < p->count; i++) {
        Place *place = &p->children[i].place;
        if (place->how != AT_MANY) {
            drop_hint(place);
            continue;
        }
        PlaceTable *table = place->hint.table;
        for (size_t k = 0; k < table->size; k++) {
            drop_hint(&table->slots[k]);
        }
        PyMem_Free(table);
    }
    PyMem_Free(p->children);
    PyMem_Free(p->index);
    p->children = NULL;
    p->index = NULL;
    p->count = p->room = p->index_size = p->places = 0;
}

/* ---- filling it ---- */

/* Where in an object a value stands that may be, or have in it, wrappers. */
typedef struct Spot {
    Paths *paths;
    uint64_t parent;
    PyObject *key;
    Py_ssize_t index;
    int how;
    bool counts; /* what is visited makes links; else only hints are new */
} Spot;

static Place *
known_place(const Paths *p, uint64_t oid, uint64_t parent)
{
    Child *child = find_child(p, oid);
    return child == NULL ? NULL : find_place(child, parent);
}

static int
note_spot(DObject *child, void *arg)
{
    Spot *spot = arg;
    if (child->oid == 0) {
        return 0;
    }
    Place *place = spot->counts ? get_place(spot->paths, child->oid, spot->parent)
                                : known_place(spot->paths, child->oid, spot->parent);
    if (place == NULL) {
        return spot->counts ? -1 : 0;
    }
    place->count += spot->counts;
    set_hint(place, spot->how, spot->key, spot->index);
    return 0;
}

static bool
can_be_step(PyObject *key)
{
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key);
}

static int
visit_item(Spot *spot, PyObject *value, Py_ssize_t index)
{
    spot->how = AT_INDEX;
    spot->index = index;
    return value_visit(value, note_spot, spot);
}

static int
visit_pair(Spot *spot, PyObject *key, PyObject *value)
{
    spot->how = AT_PART;
    if (value_visit(key, note_spot, spot) != 0) {
        return -1;
    }
    spot->how = can_be_step(key) ? AT_KEY : AT_PART;
    spot->key = key;
    return value_visit(value, note_spot, spot);
}

static int
visit_dict(Spot *spot, PyObject *dict)
{
    Py_ssize_t pos = 0;
    PyObject *key;
    PyObject *value;
    if (!PyObject_GC_IsTracked(dict)) {
        return 0; /* holds no wrapper */
    }
    while (PyDict_Next(dict, &pos, &key, &value)) {
        if (visit_pair(spot, key, value) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Notes all links of a state. */
static int
visit_state(Spot *spot, int kind, PyObject *state)
{
    if (kind == KIND_LIST) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(state); i++) {
            if (visit_item(spot, PyList_GET_ITEM(state, i), i) != 0) {
                return -1;
            }
        }
        return 0;
    }
    if (kind == KIND_DICT || kind == KIND_ANY) {
        return visit_dict(spot, state);
    }
    spot->how = AT_PART;
    return state_visit(kind, state, note_spot, spot);
}

static int
fill_table(Paths *p)
{
    Manager *m = p->manager;
    for (size_t i = 0; i < m->table.size; i++) {
        DObject *object = m->table.slots[i];
        if (object != NULL) {
            Spot spot = {.paths = p, .parent = object->oid, .counts = true};
            if (visit_state(&spot, object->kind, object->state) != 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int
make_anew(Paths *p)
{
    clear_table(p);
    p->valid = fill_table(p) == 0;
    p->places_first = p->places;
    if (!p->valid) {
        PyErr_Clear(); /* an iterator that there was no memory for */
        clear_table(p);
    }
    return p->valid ? 0 : -1;
}

/* ---- keeping it up to date ---- */

static int
link_added(DObject *child, void *arg)
{
    const Spot *spot = arg;
    if (child->oid == 0) {
        return 0;
    }
    Place *place = get_place(spot->paths, child->oid, spot->parent);
    if (place == NULL) {
        return -1;
    }
    place->count++;
    return 0;
}

static int
link_cut(DObject *child, void *arg)
{
    const Spot *spot = arg;
    Place *place =
        child->oid == 0 ? NULL : known_place(spot->paths, child->oid, spot->parent);
    if (place != NULL && --place->count == 0) {
        drop_place(spot->paths, find_child(spot->paths, child->oid), spot->parent);
    }
    return 0;
}

static int
note_op(Spot *spot, const Op *op)
{
    switch (op->code) {
    case OP_SET:
        return visit_pair(spot, op->a, op->b);
    case OP_UPDATE:
        return visit_dict(spot, op->a);
    case OP_ITEM:
        return visit_item(spot, op->a, op->lo);
    case OP_SPLICE:
        if (op->a == NULL || !PyList_Check(op->a)) {
            return 0;
        }
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(op->a); i++) {
            if (visit_item(spot, PyList_GET_ITEM(op->a, i), op->lo + i) != 0) {
                return -1;
            }
        }
        return 0;
    default:
        return 0; /* elements of sets are AT_PART, and so is what nobody has said more of */
    }
}

static int
visit_values(const RefList *values, ref_visitor visit, Spot *spot)
{
    for (Py_ssize_t i = 0; i < values->count; i++) {
        if (value_visit(values->items[i], visit, spot) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
follow_delta(Paths *p, const Delta *delta)
{
    const DObject *object = delta->object;
    Spot spot = {.paths = p, .parent = object->oid};
    if (object->oid == 0) {
        return 0; /* linked and cut off again */
    }
    if (delta->traffic == NULL) {
        spot.counts = true;
        return visit_state(&spot, object->kind, object->state);
    }
    if (visit_values(&delta->traffic->in, link_added, &spot) != 0
        || visit_values(&delta->traffic->out, link_cut, &spot) != 0) {
        return -1;
    }
    if (delta->n_ops == 0) {
        return visit_state(&spot, object->kind, object->state);
    }
    for (Py_ssize_t i = 0; i < delta->n_ops; i++) {
        if (note_op(&spot, &delta->ops[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

void
paths_follow(Paths *p, const DeltaList *deltas)
{
    for (Py_ssize_t i = 0; i < deltas->count && p->valid; i++) {
        p->valid = follow_delta(p, &deltas->items[i]) == 0;
    }
    p->valid = p->valid && p->places <= 2 * p->places_first + FEW
               && p->count <= 2 * p->manager->table.used + FEW;
    PyErr_Clear();
}

/* ---- the way up ---- */

/* A step of a way that was found. Its text, in the walk's buffer, leads from object to … */
typedef struct Node {
    DObject *object; /* borrowed */
    size_t from;     /* … the object of this node */
    size_t text;
    size_t size; /* 0: the root's, or no step leads there */
    bool ends;   /* the path ends with this step: none leads on to the object */
} Node;

struct Walk {
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
    int within = value == (PyObject *)c->child ? 1 : add_item_of(c->walk, value, c->child);
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
        Node node = {.object = c->parent,
                     .from = c->from,
                     .ends = value != (PyObject *)c->child};
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
        set_hint(c->place, AT_INDEX, NULL, index);
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
                set_hint(c->place, can_be_step(key) ? AT_KEY : AT_PART, key, 0);
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
    Walk *w = p->walk;
    Climb c = {.walk = w,
               .from = from,
               .child = w->nodes[from].object,
               .parent = graph_find(p->manager, place->parent),
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
    const DObject *object = p->walk->nodes[from].object;
    Child *child = find_child(p, object->oid);
    uint32_t links = 0;
    int result = 0;
    if (child == NULL) {
        return object->links == 0 ? 0 : -1;
    }
    if (child->place.how != AT_MANY) {
        result = child->place.parent == 0
                     ? 0
                     : climb_to(p, from, &child->place, &links);
    } else if (goes_round(p->walk, from)) {
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
    Walk *w = p->walk;
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
    bool anew = !p->valid;
    if (ret->all || object->oid == 0) {
        return;
    }
    if ((anew && make_anew(p) < 0) || walk(p, object, elements, ret) < 0) {
        pathset_add_all(ret);
        p->valid = p->valid && p->walked > WALK_MOST; /* else it is wrong somewhere */
    }
    PyErr_Clear();
}

void
paths_told(Paths *p)
{
    p->walked = 0;
}

/* ---- its life ---- */

Paths *
paths_new(Manager *m)
{
    Paths *p = PyMem_Calloc(1, sizeof(*p));
    if (p == NULL || (p->walk = PyMem_Calloc(1, sizeof(*p->walk))) == NULL) {
        PyMem_Free(p);
        PyErr_NoMemory();
        return NULL;
    }
    p->manager = m;
    if (make_anew(p) < 0) {
        paths_free(p);
        PyErr_NoMemory();
        return NULL;
    }
    return p;
}

void
paths_forget(Paths *p)
{
    p->valid = false;
}

void
paths_free(Paths *p)
{
    clear_table(p);
    PyMem_Free(p->walk->nodes);
    PyMem_Free(p->walk->text);
    PyMem_Free(p->walk->path);
    PyMem_Free(p->walk);
    PyMem_Free(p);
}
