/*
 * Which objects hold which.
 *
 * Objects know what they hold, not what holds them. While somebody watches, this table knows
 * for each linked object the objects that hold it (its parents), how often each does, and a
 * hint where: a key or an index. It is filled once by a walk of the graph and then kept up to
 * date from the links that each commit makes and cuts.
 *
 * Objects are named by their oids, which are never used again. So entries of objects that are
 * no longer linked need not be sought out: a parent that is not in the Manager's table is none,
 * and all is made anew when there are twice as many entries as after the last time.
 *
 * Counts are exact, hints are not: insertions into a list move what follows, and only the last
 * of several places is known. Whoever uses a hint verifies it, and sets it right.
 *
 * Most objects have one parent, which stands in the object's own entry; a second one makes a
 * table of parents. Python's memory is used, and its lock is held; keys that are kept are exact
 * texts and ints, so that letting go of them runs no code.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "parents.h"

#define FEW 1024 /* entries that are no reason to make the table anew */

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

void
place_set_hint(Place *place, int how, PyObject *key, Py_ssize_t index)
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
child_slot(const Parents *p, uint64_t oid)
{
    size_t mask = p->index_size - 1;
    size_t i = hash_oid(oid) & mask;
    while (p->index[i] != 0 && p->children[p->index[i] - 1].oid != oid) {
        i = (i + 1) & mask;
    }
    return i;
}

Child *
parents_of(const Parents *p, uint64_t oid)
{
    uint32_t at = p->index_size == 0 ? 0 : p->index[child_slot(p, oid)];
    return at == 0 ? NULL : &p->children[at - 1];
}

static int
grow_index(Parents *p)
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
get_child(Parents *p, uint64_t oid)
{
    Child *child = parents_of(p, oid);
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
get_place(Parents *p, uint64_t oid, uint64_t parent)
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
drop_place(Parents *p, Child *child, uint64_t parent)
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

void
parents_clear(Parents *p)
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
    Parents *parents;
    uint64_t parent;
    PyObject *key;
    Py_ssize_t index;
    int how;
    bool counts; /* what is visited makes links; else only hints are new */
} Spot;

static Place *
known_place(const Parents *p, uint64_t oid, uint64_t parent)
{
    Child *child = parents_of(p, oid);
    return child == NULL ? NULL : find_place(child, parent);
}

static int
note_spot(DObject *child, void *arg)
{
    Spot *spot = arg;
    if (child->oid == 0) {
        return 0;
    }
    Place *place = spot->counts ? get_place(spot->parents, child->oid, spot->parent)
                                : known_place(spot->parents, child->oid, spot->parent);
    if (place == NULL) {
        return spot->counts ? -1 : 0;
    }
    place->count += spot->counts;
    place_set_hint(place, spot->how, spot->key, spot->index);
    return 0;
}

bool
key_can_be_step(PyObject *key)
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
    spot->how = key_can_be_step(key) ? AT_KEY : AT_PART;
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
fill_table(Parents *p)
{
    Manager *m = p->manager;
    for (size_t i = 0; i < m->table.size; i++) {
        DObject *object = m->table.slots[i];
        if (object != NULL) {
            Spot spot = {.parents = p, .parent = object->oid, .counts = true};
            if (visit_state(&spot, object->kind, object->state) != 0) {
                return -1;
            }
        }
    }
    return 0;
}

int
parents_make(Parents *p)
{
    parents_clear(p);
    p->valid = fill_table(p) == 0;
    p->places_first = p->places;
    if (!p->valid) {
        PyErr_Clear(); /* an iterator that there was no memory for */
        parents_clear(p);
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
    Place *place = get_place(spot->parents, child->oid, spot->parent);
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
        child->oid == 0 ? NULL : known_place(spot->parents, child->oid, spot->parent);
    if (place != NULL && --place->count == 0) {
        drop_place(spot->parents, parents_of(spot->parents, child->oid), spot->parent);
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
follow_delta(Parents *p, const Delta *delta)
{
    const DObject *object = delta->object;
    Spot spot = {.parents = p, .parent = object->oid};
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
parents_follow(Parents *p, const DeltaList *deltas)
{
    for (Py_ssize_t i = 0; i < deltas->count && p->valid; i++) {
        p->valid = follow_delta(p, &deltas->items[i]) == 0;
    }
    p->valid = p->valid && p->places <= 2 * p->places_first + FEW
               && p->count <= 2 * p->manager->table.used + FEW;
    PyErr_Clear();
}
