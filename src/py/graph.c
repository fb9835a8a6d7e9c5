/*
 * The graph of linked objects: finding them by oid, counting their links, and making a
 * commit visible.
 *
 * A linked object is in the Manager's table, which owns a reference to it. Its `links` say
 * how many elements of linked states refer to it. An object whose count falls to zero is
 * unlinked: it leaves the table, its oid becomes 0, and the links that went out of it are
 * taken back in turn. All processes count alike, since they apply the same commits, so
 * nobody has to tell anybody which objects are gone. Only cycles must be told: a committer
 * looks for them now and then and names them in its record.
 *
 * A commit is applied in two steps. The first prepares everything that can fail or run
 * Python code: copies, room in tables. The second swaps the new states in; it runs no Python
 * code, so nobody can see half a commit. What it replaces is kept until the caller has let
 * go of everything. Should the second step fail for want of memory all the same, the Manager
 * forgets that it has loaded the store and reads it anew at the next use.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "state.h"
#include "watching.h"
#include "wrap.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#define CELL_OID 1
#define MANY_DELTAS 20000
#define FLAGS_KEYS (KEYS_REF | KEYS_ODD) /* 1, 2: enum key_traits */
#define FLAG_LISTED 64                   /* named by the graph that is being read */

/* ---- lists of deltas ---- */

Delta *
deltas_add(DeltaList *list, DObject *object)
{
    if (list->count == list->room) {
        Py_ssize_t room = list->room ? list->room * 2 : 4;
        Delta *items = PyMem_Realloc(list->items, (size_t)room * sizeof(*items));
        if (items == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        list->items = items;
        list->room = room;
    }
    Delta *delta = &list->items[list->count++];
    *delta = (Delta){.object = (DObject *)Py_NewRef((PyObject *)object)};
    return delta;
}

void
deltas_clear(DeltaList *list)
{
    DeltaList old = *list;
    *list = (DeltaList){0};
    for (Py_ssize_t i = 0; i < old.count; i++) {
        Delta *delta = &old.items[i];
        Py_XDECREF(delta->whole);
        Py_XDECREF(delta->next);
        if (delta->owns_ops) {
            OpList ops = {delta->ops, delta->n_ops, delta->n_ops};
            oplist_clear(&ops);
        }
        if (delta->traffic != NULL) {
            reflist_clear(&delta->traffic->in);
            reflist_clear(&delta->traffic->out);
            PyMem_Free(delta->traffic);
        }
        Py_DECREF(delta->object);
    }
    PyMem_Free(old.items);
#ifdef __GLIBC__
    if (old.count >= MANY_DELTAS) {
        malloc_trim(
            0); /* as much memory as half of the data, and the next need is far off */
    }
#endif
}

DObject *
graph_find(Manager *m, uint64_t oid)
{
    return oidtable_find(&m->table, oid);
}

int
graph_init(Manager *m)
{
    PyObject *state = PyList_New(0);
    m->cell = dobject_new(tosc_state->DList_Type, KIND_LIST, state);
    if (m->cell == NULL || oidtable_reserve(&m->table, 1) < 0) {
        return -1;
    }
    m->cell->manager = (Manager *)Py_NewRef((PyObject *)m);
    m->cell->oid = CELL_OID;
    m->cell->links = 1;
    m->next_oid = CELL_OID + 1;
    oidtable_insert(&m->table, m->cell);
    return 0;
}

int
graph_traverse(Manager *m, visitproc visit, void *arg)
{
    Py_VISIT(m->cell);
    for (size_t i = 0; i < m->table.size; i++) {
        Py_VISIT(m->table.slots[i]);
    }
    for (Py_ssize_t i = 0; i < m->aged.count; i++) {
        Py_VISIT(m->aged.items[i]);
    }
    return 0;
}

void
graph_free(Manager *m)
{
    OidTable table = m->table;
    m->table = (OidTable){0};
    m->loaded = false;
    for (size_t i = 0; i < table.size; i++) {
        if (table.slots[i] != NULL) {
            table.slots[i]->oid = 0;
            table.slots[i]->links = 0;
            Py_DECREF(table.slots[i]);
        }
    }
    PyMem_Free(table.slots);
    reflist_clear(&m->aged);
    Py_CLEAR(m->cell);
}

void
graph_release(Manager *m)
{
    PyObject *empty = PyList_New(0);
    if (empty == NULL) {
        PyErr_Clear(); /* the garbage collector will do it */
        return;
    }
    PyObject *cell = Py_NewRef((PyObject *)m->cell);
    PyObject *root = m->cell->state;
    m->cell->state = empty;
    graph_free(m);
    m->cell = (DObject *)cell;
    Py_DECREF(root);
}

/* ---- older states ---- */

static int64_t
oldest_start(const Manager *m)
{
    int64_t oldest = INT64_MAX;
    for (Transaction *tx = m->open; tx != NULL; tx = tx->next) {
        if (tx->start < oldest) {
            oldest = tx->start;
        }
    }
    return oldest;
}

/* Cuts off the states that nobody can need; true if none is left. */
static bool
cut_older(DObject *object, int64_t oldest, RefList *drops)
{
    OldState **link = &object->older;
    int64_t newer_since = object->since;
    while (*link != NULL && newer_since > oldest) {
        newer_since = (*link)->since;
        link = &(*link)->next;
    }
    OldState *old = *link;
    *link = NULL;
    while (old != NULL) {
        OldState *next = old->next;
        if (reflist_add(drops, old->state) < 0) {
            PyErr_Clear(); /* then it is released here, which may run finalisers early */
        }
        Py_DECREF(old->state);
        PyMem_Free(old);
        old = next;
    }
    return object->older == NULL;
}

void
graph_forget(Manager *m, RefList *drops)
{
    if (m->aged.count == 0 || (m->open != NULL && m->aged.count < 64)) {
        return;
    }
    int64_t oldest = oldest_start(m);
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = 0; i < m->aged.count; i++) {
        PyObject *object = m->aged.items[i];
        if (!cut_older((DObject *)object, oldest, drops)) {
            m->aged.items[kept++] = object;
        } else {
            if (reflist_add(drops, object) < 0) {
                PyErr_Clear();
            }
            Py_DECREF(object);
        }
    }
    m->aged.count = kept;
}

/* ---- applying a commit ---- */

static int
collect(DObject *wrapper, void *arg)
{
    return reflist_add(arg, (PyObject *)wrapper);
}

static bool
all_plain(const Delta *delta)
{
    for (Py_ssize_t i = 0; i < delta->n_ops; i++) {
        if (!op_is_plain(delta->object->kind, &delta->ops[i])) {
            return false;
        }
    }
    return true;
}

static int
do_ops(Delta *delta, PyObject *state)
{
    int kind = delta->object->kind;
    delta->traffic->keys = delta->object->flags & FLAGS_KEYS;
    for (Py_ssize_t i = 0; i < delta->n_ops; i++) {
        if (op_apply(kind, state, &delta->ops[i], delta->traffic) < 0) {
            return -1;
        }
    }
    delta->object->flags |= (uint8_t)delta->traffic->keys;
    return 0;
}

static void
note_keys(const Delta *delta)
{
    DObject *object = delta->object;
    int keys =
        delta->oid != 0 ? delta->keys : state_key_traits(object->kind, delta->whole);
    object->flags |= (uint8_t)keys;
}

static int
prepare_whole(Delta *delta)
{
    DObject *object = delta->object;
    delta->next = Py_NewRef(delta->whole);
    note_keys(delta);
    if (delta->fresh) {
        return 0;
    }
    if (state_visit(object->kind, object->state, collect, &delta->traffic->out) != 0) {
        return -1;
    }
    return state_visit(object->kind, delta->next, collect, &delta->traffic->in);
}

/* An object that is not in the table must come with its state; one that has left it is over. */
static int
check_stored(const Delta *delta)
{
    if (delta->object->oid != 0 && (!delta->fresh || delta->whole != NULL)) {
        return 0;
    }
    PyErr_SetString(tosc_state->DataError,
                    "damaged data: an object that is not stored is changed");
    return -1;
}

static int
prepare(Delta *delta, bool keep_old)
{
    if (!delta->fresh && (delta->traffic = PyMem_Calloc(1, sizeof(Traffic))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (delta->whole != NULL) {
        return prepare_whole(delta);
    }
    DObject *object = delta->object;
    if (!keep_old && Py_REFCNT(object->state) == 1 + delta->held
        && !(object->flags & KEYS_ODD) && all_plain(delta)) {
        return 0; /* in place, in the second step */
    }
    delta->next = state_copy(object->kind, object->state);
    return delta->next == NULL ? -1 : do_ops(delta, delta->next);
}

/* The first step for all: room for everything that the second one will need. */
static int
prepare_all(Manager *m, DeltaList *deltas, bool keep_old, OldState **spare)
{
    size_t fresh = 0;
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        Delta *delta = &deltas->items[i];
        fresh += delta->fresh;
        if (check_stored(delta) < 0 || prepare(delta, keep_old) < 0) {
            return -1;
        }
        if (keep_old && !delta->fresh) {
            OldState *old = PyMem_Calloc(1, sizeof(*old));
            if (old == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            old->next = *spare;
            *spare = old;
        }
    }
    if (keep_old && reflist_reserve(&m->aged, deltas->count) < 0) {
        return -1;
    }
    return oidtable_reserve(&m->table, fresh);
}

static void
keep_older(Manager *m, DObject *object, OldState **spare)
{
    OldState *old = *spare;
    *spare = old->next;
    if (object->older == NULL) {
        reflist_add(&m->aged, (PyObject *)object);
    }
    old->state = Py_NewRef(object->state);
    old->since = object->since;
    old->next = object->older;
    object->older = old;
}

static int
swap(Manager *m, Delta *delta, bool keep_old, OldState **spare)
{
    DObject *object = delta->object;
    if (delta->fresh) {
        oidtable_insert(&m->table, object);
    } else if (keep_old) {
        keep_older(m, object, spare);
    }
    object->since = m->seq;
    if (delta->next == NULL && Py_REFCNT(object->state) > 1 + delta->held) {
        /* Somebody has begun to look at it since the first step. */
        delta->next = state_copy(object->kind, object->state);
        if (delta->next == NULL || do_ops(delta, delta->next) < 0) {
            return -1;
        }
    }
    if (delta->next == NULL) {
        return do_ops(delta, object->state);
    }
    PyObject *old = object->state;
    object->state = delta->next;
    delta->next = old; /* released with the delta */
    return 0;
}

/* ---- links ---- */

typedef struct Recount {
    Manager *m;
    RefList doubtful; /* objects whose count fell to zero; strong, so that they stay */
    RefList losers;   /* objects that lost a link because others were unlinked */
    bool some_lost;   /* some object has lost a link and kept another */
    bool unlinking;
} Recount;

static int
link_in(DObject *wrapper, void *arg)
{
    (void)arg;
    if (wrapper->oid == 0) {
        PyErr_SetString(tosc_state->DataError,
                        "damaged data: an object that is not stored is referred to");
        return -1;
    }
    wrapper->links++;
    return 0;
}

static int
link_out(DObject *wrapper, void *arg)
{
    Recount *recount = arg;
    if (wrapper->oid == 0 || wrapper->links == 0) {
        return 0;
    }
    wrapper->links--;
    if (wrapper->links == 0) {
        return reflist_add(&recount->doubtful, (PyObject *)wrapper);
    }
    recount->some_lost = true;
    return recount->unlinking ? reflist_add(&recount->losers, (PyObject *)wrapper) : 0;
}

static int
unlink_object(Recount *recount, DObject *object, RefList *drops)
{
    PyObject *owned = (PyObject *)oidtable_remove(&recount->m->table, object->oid);
    int result = owned == NULL ? 0 : reflist_add(drops, owned);
    object->oid = 0;
    object->links = 0;
    if (result == 0) {
        result = state_visit(object->kind, object->state, link_out, recount);
    }
    Py_XDECREF(owned);
    return result;
}

static int
unlink_doubtful(Recount *recount, RefList *drops)
{
    while (recount->doubtful.count > 0) {
        DObject *object = (DObject *)recount->doubtful.items[--recount->doubtful.count];
        int result = 0;
        if (object->links == 0 && object->oid != 0) {
            result = unlink_object(recount, object, drops);
        }
        if (result == 0) {
            result = reflist_add(drops, (PyObject *)object);
        }
        Py_DECREF(object);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

/*
 * Operations can put a new cycle into an object and take it out again. A new object that is
 * in a whole state hangs on that.
 */
static bool
may_have_orphans(const DeltaList *deltas)
{
    bool fresh = false;
    bool several = false;
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        fresh = fresh || deltas->items[i].fresh;
        several = several || deltas->items[i].n_ops > 1;
    }
    return fresh && several;
}

/*
 * An object that has lost a link and kept another one may hang on a cycle only. Small cycles
 * are found at once. Every process that applies the commit must come to the same result, so
 * what is looked at follows from the states before and after it, however it was applied: the
 * objects that some other object refers to less often than before.
 */
static int
unlink_garbage(Recount *recount, RefList *garbage, RefList *drops)
{
    int result = 0;
    for (Py_ssize_t i = 0; i < garbage->count && result == 0; i++) {
        DObject *object = (DObject *)garbage->items[i];
        if (object->oid != 0) {
            result = unlink_object(recount, object, drops);
        }
    }
    if (result == 0) {
        result = unlink_doubtful(recount, drops);
    }
    for (Py_ssize_t i = 0; i < garbage->count && result == 0; i++) {
        result = reflist_add(drops, garbage->items[i]);
    }
    return result;
}

/*
 * In rounds: what goes in one may have been all that another cycle hung on. Within a round
 * all candidates are looked at before any goes, so that their order does not matter.
 */
static int
unlink_cycles(Recount *recount, DeltaList *deltas, RefList *drops)
{
    RefList garbage = {0};
    int result = may_have_orphans(deltas) ? graph_orphans(deltas, &garbage) : 0;
    for (Py_ssize_t i = 0; i < deltas->count && result == 0; i++) {
        const Traffic *traffic = deltas->items[i].traffic;
        result = traffic == NULL ? 0 : graph_net_losses(traffic, &recount->losers);
    }
    while (result == 0 && (recount->losers.count > 0 || garbage.count > 0)) {
        RefList losers = recount->losers;
        recount->losers = (RefList){0};
        result = graph_small_cycles(recount->m, &losers, &garbage);
        if (result == 0) {
            result = unlink_garbage(recount, &garbage, drops);
        }
        reflist_clear(&losers);
        reflist_clear(&garbage);
    }
    return result;
}

static int
count_in(const Delta *delta)
{
    if (delta->traffic == NULL) {
        return state_visit(delta->object->kind, delta->whole, link_in, NULL);
    }
    const RefList *in = &delta->traffic->in;
    for (Py_ssize_t k = 0; k < in->count; k++) {
        if (value_visit(in->items[k], link_in, NULL) != 0) {
            return -1;
        }
    }
    return 0;
}

/* What the committer found to be garbage. */
static int
unlink_gone(Recount *recount, const uint64_t *gone, size_t n_gone, RefList *drops)
{
    int garbage = graph_is_garbage(recount->m, gone, n_gone);
    if (garbage <= 0) {
        if (garbage == 0) {
            PyErr_SetString(tosc_state->DataError,
                            "damaged data: an object that is in use is called garbage");
        }
        return -1;
    }
    for (size_t i = 0; i < n_gone; i++) {
        DObject *object = graph_find(recount->m, gone[i]);
        if (object != NULL && unlink_object(recount, object, drops) < 0) {
            return -1;
        }
    }
    recount->m->suspects = 0;
    return 0;
}

static int
recount_links(Recount *recount, DeltaList *deltas, const uint64_t *gone, size_t n_gone,
              RefList *drops)
{
    static const RefList nothing = {0};
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        if (count_in(&deltas->items[i]) != 0) {
            return -1;
        }
    }
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        Delta *delta = &deltas->items[i];
        const RefList *out = delta->traffic == NULL ? &nothing : &delta->traffic->out;
        for (Py_ssize_t k = 0; k < out->count; k++) {
            if (value_visit(out->items[k], link_out, recount) != 0) {
                return -1;
            }
        }
        if (delta->fresh && delta->object->links == 0
            && reflist_add(&recount->doubtful, (PyObject *)delta->object) < 0) {
            return -1;
        }
    }
    recount->unlinking = true;
    if (n_gone > 0 && unlink_gone(recount, gone, n_gone, drops) < 0) {
        return -1;
    }
    if (unlink_doubtful(recount, drops) < 0) {
        return -1;
    }
    return recount->some_lost || may_have_orphans(deltas)
               ? unlink_cycles(recount, deltas, drops)
               : 0;
}

int
graph_apply(Manager *m, DeltaList *deltas, const uint64_t *gone, size_t n_gone,
            Transaction *own, RefList *drops)
{
    bool keep_old = m->open_transactions > (own != NULL ? 1 : 0);
    OldState *spare = NULL;
    Recount recount = {.m = m};
    int result = prepare_all(m, deltas, keep_old, &spare);
    if (result == 0) {
        int collecting = PyGC_Disable(); /* finalisers must not see half a commit */
        m->seq++;
        for (Py_ssize_t i = 0; i < deltas->count && result == 0; i++) {
            result = swap(m, &deltas->items[i], keep_old, &spare);
        }
        if (result == 0) {
            result = recount_links(&recount, deltas, gone, n_gone, drops);
        }
        if (result != 0) {
            m->loaded = false;
        }
        if (m->watching != NULL) {
            watching_applied(m, deltas, result == 0);
        }
        if (collecting) {
            PyGC_Enable();
        }
    }
    while (spare != NULL) {
        OldState *next = spare->next;
        PyMem_Free(spare);
        spare = next;
    }
    reflist_clear(&recount.doubtful);
    reflist_clear(&recount.losers);
    if (result != 0) {
        codec_explain();
    }
    return result == 0 ? 0 : -1;
}

void
graph_mark_fresh(Manager *m, DeltaList *deltas)
{
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        Delta *delta = &deltas->items[i];
        DObject *object = delta->object;
        if (object->oid == 0 && graph_find(m, delta->oid) == NULL) {
            object->oid = delta->oid;
        }
        delta->fresh = object != m->cell && graph_find(m, object->oid) != object;
    }
}

/* ---- a whole graph ---- */

static int
check_listed(DObject *wrapper, void *arg)
{
    (void)arg;
    return wrapper->flags & FLAG_LISTED ? 0 : 1;
}

static void
mark_listed(DeltaList *deltas, bool listed)
{
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        DObject *object = deltas->items[i].object;
        object->flags = (uint8_t)(listed ? object->flags | FLAG_LISTED
                                         : object->flags & ~FLAG_LISTED);
    }
}

static int
check_graph(DeltaList *deltas)
{
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        Delta *delta = &deltas->items[i];
        if (delta->whole == NULL || check_stored(delta) < 0) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(tosc_state->DataError,
                                "damaged data: a whole state that is not whole");
            }
            return -1;
        }
        if (state_visit(delta->object->kind, delta->whole, check_listed, NULL) != 0) {
            if (!PyErr_Occurred()) {
                PyErr_Format(tosc_state->DataError,
                             "damaged data: object %llu refers to one that is not stored",
                             (unsigned long long)delta->object->oid);
            }
            return -1;
        }
    }
    return 0;
}

/* The objects that the new graph does not name leave the table. */
static int
drop_unlisted(Manager *m, RefList *drops)
{
    DObject **old = m->table.slots;
    for (size_t i = 0; i < m->table.size; i++) {
        if (old[i] != NULL && !(old[i]->flags & FLAG_LISTED) && old[i] != m->cell) {
            if (reflist_add(drops, (PyObject *)old[i]) < 0) {
                return -1;
            }
        }
    }
    for (Py_ssize_t i = 0; i < drops->count; i++) {
        DObject *object = (DObject *)drops->items[i];
        if (dobject_check((PyObject *)object) && object->oid != 0
            && !(object->flags & FLAG_LISTED) && object != m->cell
            && graph_find(m, object->oid) == object) {
            Py_XDECREF(oidtable_remove(&m->table, object->oid));
            object->oid = 0;
            object->links = 0;
        }
    }
    return 0;
}

static int
replace_states(Manager *m, DeltaList *deltas, bool keep_old, OldState **spare,
               Recount *recount, RefList *drops)
{
    m->seq++;
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        Delta *delta = &deltas->items[i];
        delta->next = Py_NewRef(delta->whole);
        delta->object->links = delta->object == m->cell ? 1 : 0;
        swap(m, delta, keep_old, spare);
    }
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        DObject *object = deltas->items[i].object;
        if (state_visit(object->kind, object->state, link_in, NULL) != 0) {
            return -1;
        }
        note_keys(&deltas->items[i]);
    }
    /* A base may hold what the commit that it was made for has cut off. */
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        DObject *object = deltas->items[i].object;
        if (object->links == 0
            && reflist_add(&recount->doubtful, (PyObject *)object) < 0) {
            return -1;
        }
    }
    return unlink_doubtful(recount, drops);
}

int
graph_replace(Manager *m, DeltaList *deltas, RefList *drops)
{
    bool keep_old = m->open_transactions > 0;
    OldState *spare = NULL;
    Recount recount = {.m = m};
    mark_listed(deltas, true);
    int result = check_graph(deltas);
    for (Py_ssize_t i = 0; i < deltas->count && result == 0 && keep_old; i++) {
        OldState *old = PyMem_Calloc(1, sizeof(*old));
        if (old == NULL) {
            PyErr_NoMemory();
            result = -1;
        } else {
            old->next = spare;
            spare = old;
        }
    }
    if (result == 0
        && (oidtable_reserve(&m->table, (size_t)deltas->count) < 0
            || (keep_old && reflist_reserve(&m->aged, deltas->count) < 0))) {
        result = -1;
    }
    if (result == 0) {
        int collecting = PyGC_Disable();
        result = drop_unlisted(m, drops);
        if (result == 0) {
            result = replace_states(m, deltas, keep_old, &spare, &recount, drops);
        }
        m->suspects = 0;
        m->loaded = result == 0;
        if (m->watching != NULL) {
            watching_replaced(m, deltas, result == 0);
        }
        if (collecting) {
            PyGC_Enable();
        }
    }
    mark_listed(deltas, false);
    reflist_clear(&recount.doubtful);
    reflist_clear(&recount.losers);
    while (spare != NULL) {
        OldState *next = spare->next;
        PyMem_Free(spare);
        spare = next;
    }
    return result;
}
