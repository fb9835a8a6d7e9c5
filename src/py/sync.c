/*
 * The synchroniser: turns changes into commits, and commits into changes.
 *
 * All that moves a Manager from one version to the next, a commit of ours or fetching those
 * of others, is done by the one thread that has the turn (turn.c). While a thread waits for
 * it, or for the store, it does not hold the GIL. Readers never need it.
 *
 * A commit: encode the record; append it to the store, on condition that the store is where
 * the transaction started; only then apply the very same operations to memory. So a commit
 * that fails, in whatever way, has changed nothing in memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec.h"
#include "errors.h"
#include "signals.h"
#include "state.h"
#include "watching.h"
#include "wrap.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* A tail is replaced by a new base when it has outgrown the base and this many bytes. */
#define COMPACT_FROM (256 * 1024)
#define SUSPECTS_FROM 1000
#define MOST_CONFLICTS 16 /* as many are remembered; see transactional.c */

int64_t
tosc_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* How many Managers hold their backend's lock: mostly none, and then nobody need look. */
static int exclusive_managers;

/* ---- entry ---- */

int
sync_enter(Manager *m)
{
    if (m->fork_generation != tosc_fork_generation) {
        managers_after_fork(m);
    }
    if (m->closed) {
        PyErr_SetString(tosc_state->ClosedError, "this Manager is closed");
        return -1;
    }
    return 0;
}

static bool
same_position(const tosc_position *a, const tosc_position *b)
{
    return a->stored == b->stored && a->version == b->version
           && memcmp(a->store_id, b->store_id, sizeof(a->store_id)) == 0;
}

static void
moved(Manager *m, const tosc_data *data)
{
    m->at = data->at;
    m->base_bytes = data->base_bytes;
    m->tail_bytes = data->tail_bytes;
    watcher_moved(m);
}

/* ---- fetching ---- */

static int
empty_graph(Manager *m)
{
    DeltaList deltas = {0};
    Delta *delta = deltas_add(&deltas, m->cell);
    int result = -1;
    if (delta != NULL && (delta->whole = PyList_New(0)) != NULL) {
        result = graph_replace(m, &deltas, &m->drops);
    }
    deltas_clear(&deltas);
    return result;
}

static int
apply_record(Manager *m, Record *record)
{
    graph_mark_fresh(m, &record->deltas);
    int result;
    if (record->base) {
        result = graph_replace(m, &record->deltas, &m->drops);
        m->suspects = record->suspects;
    } else {
        result = graph_apply(m, &record->deltas, record->gone, record->n_gone, NULL,
                             &m->drops);
    }
    if (result == 0) {
        m->next_oid = record->next_oid;
        return 0;
    }
    m->loaded = false;
    if (!PyErr_ExceptionMatches(tosc_state->Error)
        && !PyErr_ExceptionMatches(PyExc_MemoryError)
        && PyErr_ExceptionMatches(PyExc_LookupError)) {
        PyErr_SetString(tosc_state->DataError,
                        "damaged data: a stored operation does not fit its object");
    }
    return -1;
}

int
sync_apply(Manager *m, const tosc_data *data)
{
    bool reuse =
        !data->whole
        || (memcmp(m->at.store_id, data->at.store_id, sizeof(m->at.store_id)) == 0
            && data->at.version >= m->at.version);
    RecordList records;
    int collecting = PyGC_Disable(); /* nothing here is garbage, and it is much */
    int result = codec_decode(m, data->bytes->data, data->bytes->size, reuse, &records);
    if (result < 0) {
        records = (RecordList){0};
    }
    if (result == 0 && data->whole && (records.count == 0 || !records.items[0].base)) {
        PyErr_SetString(tosc_state->DataError,
                        "the stored data do not begin with a whole state");
        result = -1;
    }
    for (size_t i = 0; i < records.count && result == 0; i++) {
        result = apply_record(m, &records.items[i]);
    }
    if (result == 0) {
        Py_XSETREF(m->chain, Py_XNewRef(records.chain));
    }
    /* What the records replaced is released when the turn is. */
    for (size_t i = 0; i < records.count; i++) {
        if (m->spent.count == 0) {
            PyMem_Free(m->spent.items);
            m->spent = records.items[i].deltas;
            records.items[i].deltas = (DeltaList){0};
        }
    }
    codec_records_clear(&records);
    if (collecting) {
        PyGC_Enable();
    }
    return result;
}

static int
read_store(Manager *m, bool since, tosc_data *ret)
{
    for (;;) {
        int status;
        tosc_position at = m->at;
        CALL_BACKEND(status, since ? m->ops->read_since(m->impl, &at, ret)
                                   : m->ops->read(m->impl, ret));
        if (status == TOSC_OK) {
            return 0;
        }
        if (tosc_raise(status) < 0) {
            return -1;
        }
    }
}

/* Data that could not be applied: once more without what is only history in them. */
static int
apply_present(Manager *m, tosc_data *data)
{
    if (!PyErr_ExceptionMatches(tosc_state->SerializationError)) {
        return -1;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    tosc_data whole = {0};
    tosc_blob *state = NULL;
    if (read_store(m, false, &whole) == 0 && whole.bytes != NULL) {
        state = missing_skip(m, &whole);
    }
    PyErr_Clear();
    tosc_blob_unref(whole.bytes);
    if (state == NULL) {
        PyErr_Restore(type, value, traceback);
        return -1;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    tosc_blob_unref(data->bytes);
    *data = whole;
    data->bytes = state;
    return sync_apply(m, data);
}

/* The turn is ours. */
static int
pull(Manager *m)
{
    tosc_data data = {0};
    bool since = m->loaded && m->ops->read_since != NULL;
    if (read_store(m, since, &data) < 0) {
        return -1;
    }
    int result = 0;
    /* Everything, after we have asked for what came since: ours is no state of this store. */
    bool news = data.whole ? since || !m->loaded || !same_position(&m->at, &data.at)
                           : data.bytes != NULL;
    if (news) {
        result =
            data.at.stored && data.bytes != NULL ? sync_apply(m, &data) : empty_graph(m);
        if (result < 0 && data.bytes != NULL) {
            result = apply_present(m, &data);
        }
    }
    if (result == 0) {
        m->loaded = true;
        m->behind = false;
        moved(m, &data);
        if (m->watching != NULL) {
            watching_publish(m, false);
        }
    }
    tosc_blob_unref(data.bytes);
    return result;
}

int
sync_pull(Manager *m)
{
    if (sync_enter(m) < 0) {
        return -1;
    }
    if (turn_is_mine(m)) {
        return pull(m);
    }
    if (turn_take(m, INT64_MAX) < 0) {
        return -1;
    }
    int result = m->closed ? sync_enter(m) : pull(m);
    turn_release(m);
    return result;
}

int
sync_load(Manager *m)
{
    if (sync_enter(m) < 0) {
        return -1;
    }
    return m->loaded ? 0 : sync_pull(m);
}

int
sync_catch_up(Manager *m)
{
    if (m->closed) {
        return sync_enter(m);
    }
    if (m->loaded && (m->ops->changed == NULL || m->ops->changed(m->impl, &m->at) != 1)) {
        return 0;
    }
    return pull(m);
}

int
sync_freshen(Manager *m)
{
    if (sync_load(m) < 0) {
        return -1;
    }
    if (m->ops->changed == NULL || m->turn_taken
        || m->ops->changed(m->impl, &m->at) != 1) {
        return 0;
    }
    if (!turn_try(m)) {
        return 0; /* whoever has it will catch up */
    }
    int result = pull(m);
    turn_release(m);
    return result;
}

/* ---- committing ---- */

static int
conflict(Manager *m, const Transaction *own)
{
    if (m->recent_conflicts < MOST_CONFLICTS) {
        m->recent_conflicts += 4;
    }
    /* So that the next try starts from what is there now. Its faults are for the next try.
     * For the transaction, which is over, no older states need be kept. */
    m->open_transactions -= own != NULL;
    if (pull(m) < 0) {
        PyErr_Clear();
    }
    m->open_transactions += own != NULL;
    PyErr_SetString(tosc_state->TransactionError,
                    "the store was changed by somebody else since the transaction began; "
                    "nothing of it was kept");
    return -1;
}

/* What a transaction's copy of an opaque object has become; 1 if that is nothing new. */
static int
settle_opaque(Change *change)
{
    DObject *object = change->object;
    if (change->full == NULL) {
        return 1;
    }
    PyObject *settled = opaque_settle(object, object->state, change->full);
    if (settled == NULL) {
        return -1;
    }
    Py_SETREF(change->full, settled);
    return settled == object->state;
}

static int
add_change(Commit *commit, Change *change)
{
    DObject *object = change->object;
    if (object->kind == KIND_OPAQUE && object->oid != 0) {
        int same = settle_opaque(change);
        if (same != 0) {
            return same < 0 ? -1 : 0;
        }
    }
    if (object->oid == 0 || (!change->whole && change->ops.count == 0)) {
        return 0; /* not linked: perhaps this commit links it, then it is met on the way */
    }
    Delta *delta = deltas_add(&commit->deltas, object);
    if (delta == NULL) {
        return -1;
    }
    delta->whole = Py_XNewRef(change->full);
    delta->held = change->base == object->state;
    if (!change->whole) {
        delta->ops = change->ops.items;
        delta->n_ops = change->ops.count;
    }
    return 0;
}

/* An id for ever: random once per process, then counted. */
static int
new_commit_id(tosc_commit_id *ret)
{
    static unsigned char prefix[8];
    static uint64_t count;
    static unsigned generation;
    if (count == 0 || generation != tosc_fork_generation) {
        PyObject *os = PyImport_ImportModule("os");
        PyObject *bytes = os == NULL ? NULL : PyObject_CallMethod(os, "urandom", "i", 8);
        Py_XDECREF(os);
        if (bytes == NULL) {
            return -1;
        }
        memcpy(prefix, PyBytes_AS_STRING(bytes), 8);
        Py_DECREF(bytes);
        generation = tosc_fork_generation;
    }
    count++;
    memcpy(ret->bytes, prefix, 8);
    memcpy(ret->bytes + 8, &count, 8);
    return 0;
}

/* One try: a status of core. */
static int
store_once(Manager *m, const Commit *commit, const Buffer *record, bool base,
           tosc_data *ret)
{
    int status;
    tosc_position at = m->at;
    const void *holder = m->exclusive ? m : NULL;
    *ret = (tosc_data){0};
    if (base) {
        CALL_BACKEND(status,
                     m->ops->try_write(m->impl, holder, record->data, record->size,
                                       at.stored ? &at.version : NULL,
                                       at.stored ? at.store_id : NULL, &ret->at));
        ret->base_bytes = record->size;
    } else {
        CALL_BACKEND(status, m->ops->append(m->impl, holder, record->data, record->size,
                                            &commit->id, &at, ret));
    }
    tosc_blob_unref(ret->bytes);
    ret->bytes = NULL;
    return status;
}

/* 1: there is no room to append; a new base might be smaller than what there is. */
static int
store(Manager *m, const Commit *commit, const Buffer *record, bool base, tosc_data *ret)
{
    for (;;) {
        int status = store_once(m, commit, record, base, ret);
        if (status == TOSC_OK) {
            return 0;
        }
        if (status == TOSC_ESYSTEM && !base && tosc_error_errno() == EFBIG) {
            return 1;
        }
        if (status == TOSC_ECONFLICT) {
            return conflict(m, commit->own);
        }
        if (status == TOSC_EUNKNOWN) {
            m->loaded = false; /* whatever is there now, the next use will see it */
        }
        if (tosc_raise(status) < 0) {
            return -1;
        }
    }
}

/* Changes of objects that are in no store, even now. */
static void
apply_local(Manager *m, Change *changes)
{
    for (Change *change = changes; change != NULL; change = change->next) {
        DObject *object = change->object;
        if (object->oid == 0 && change->below == NULL
            && (change->whole || change->ops.count > 0)) {
            PyObject *view = change_view(change);
            if (view == NULL) {
                PyErr_Clear();
                continue;
            }
            PyObject *old = object->state;
            object->state = Py_NewRef(view);
            if (reflist_add(&m->drops, old) < 0) {
                PyErr_Clear();
            }
            Py_DECREF(old);
        }
    }
}

/* The commit is in the store: now in memory. */
static int
apply_own(Manager *m, Commit *commit, Transaction *own)
{
    m->next_oid = commit->next_oid;
    if (commit->chain != NULL) {
        Py_XSETREF(m->chain, Py_NewRef(commit->chain));
    }
    apply_local(m, commit->changes);
    int result =
        graph_apply(m, &commit->deltas, commit->gone, commit->n_gone, own, &m->drops);
    if (result < 0) {
        /* It is stored, and that is what counts: read it back, now or a little later. */
        PyErr_Clear();
        m->loaded = false;
        m->behind = pull(m) < 0;
        PyErr_Clear();
    }
    return 0;
}

/* The operations belong to the changes, which the caller frees. */
static void
disown_ops(DeltaList *deltas)
{
    for (Py_ssize_t i = 0; i < deltas->count; i++) {
        deltas->items[i].ops = NULL;
        deltas->items[i].n_ops = 0;
    }
}

/* Looking for cyclic garbage costs a walk of the graph: not before that many may be some. */
static bool
much_garbage(const Manager *m)
{
    return m->suspects > SUSPECTS_FROM && m->suspects > m->table.used / 4;
}

/* 1: it has to be tried again, with `replace`: the whole state takes the store's place. */
static int
commit_deltas(Manager *m, Commit *commit, Transaction *own, bool replace)
{
    bool base = replace || !m->at.stored || m->ops->append == NULL;
    Buffer record = {0};
    tosc_data data;
    if (exclusive_managers > 0 && managers_check_lock(m) < 0) {
        return -1;
    }
    int result = new_commit_id(&commit->id);
    if (result == 0) {
        result = codec_encode(commit, base, &record);
    }
    if (result == 0) {
        result = store(m, commit, &record, base, &data);
    }
    buffer_free(&record);
    if (result != 0) {
        codec_forget_oids(commit);
        return result;
    }
    moved(m, &data);
    result = apply_own(m, commit, own);
    if (m->watching != NULL) {
        watching_publish(m, true);
    }
    if (m->recent_conflicts > 0 && !m->lent) {
        m->recent_conflicts--;
    }
    bool long_tail = m->ops->compact != NULL && m->tail_bytes > COMPACT_FROM
                     && m->tail_bytes > m->base_bytes;
    if (long_tail || much_garbage(m)) {
        watcher_compact(m);
    }
    return result;
}

/* As commit_deltas(). */
static int
commit_changes(Manager *m, Change *changes, Transaction *own, bool replace)
{
    Commit commit = {
        .manager = m, .own = own, .changes = changes, .next_oid = m->next_oid};
    int result = 0;
    for (Change *change = changes; change != NULL && result == 0; change = change->next) {
        if (change->top == NULL || change == transaction_find(own, change->object)) {
            result = add_change(&commit, change);
        }
    }
    if (result == 0 && commit.deltas.count > 0) {
        result = commit_deltas(m, &commit, own, replace);
    } else if (result == 0) {
        apply_local(m, changes);
    }
    Py_XDECREF(commit.chain);
    disown_ops(&commit.deltas);
    if (m->spent.count == 0) {
        PyMem_Free(m->spent.items);
        m->spent = commit.deltas;
    } else {
        deltas_clear(&commit.deltas);
    }
    return result;
}

int
sync_commit(Manager *m, Change *changes, const tosc_position *at, Transaction *own)
{
    if (sync_enter(m) < 0) {
        return -1;
    }
    tosc_position from = *at;
    if (!m->loaded && pull(m) < 0) {
        return -1;
    }
    if (!same_position(&from, &m->at)) {
        return conflict(m, own);
    }
    int result = commit_changes(m, changes, own, false);
    return result > 0 ? commit_changes(m, changes, own, true) : result;
}

/* The record says all, and refers to nothing that is there now. */
static int
put_over(Manager *m, Commit *commit, const Buffer *record)
{
    for (;;) {
        int status;
        tosc_position at;
        CALL_BACKEND(status, m->ops->write(m->impl, m->exclusive ? m : NULL, record->data,
                                           record->size, &at));
        codec_forget_oids(commit);
        if (status == TOSC_OK) {
            m->loaded = false;
            return pull(m);
        }
        if (tosc_raise(status) < 0) {
            return -1;
        }
    }
}

int
sync_overwrite(Manager *m, Change *change)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* What the counter stands at cannot be read: far beyond it. */
    uint64_t counter = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    Commit commit = {.manager = m, .changes = change, .next_oid = counter};
    Buffer record = {0};
    int result = new_commit_id(&commit.id);
    if (result == 0) {
        result = codec_encode(&commit, true, &record);
    }
    if (result == 0) {
        result = put_over(m, &commit, &record);
    } else {
        codec_forget_oids(&commit);
    }
    buffer_free(&record);
    Py_XDECREF(commit.chain);
    deltas_clear(&commit.deltas);
    return result;
}

/* As commit_deltas(). */
static int
sweep(Manager *m, bool replace)
{
    Commit commit = {.manager = m, .next_oid = m->next_oid};
    int result = graph_garbage(m, NULL, &commit.gone, &commit.n_gone);
    if (result == 0 && commit.n_gone == 0) {
        m->suspects = 0;
    } else if (result == 0) {
        result = commit_deltas(m, &commit, NULL, replace);
    }
    PyMem_Free(commit.gone);
    Py_XDECREF(commit.chain);
    deltas_clear(&commit.deltas);
    return result;
}

int
sync_sweep(Manager *m)
{
    if (sync_enter(m) < 0 || turn_take(m, INT64_MAX) < 0) {
        return -1;
    }
    int result = m->closed ? sync_enter(m) : pull(m);
    if (result == 0 && much_garbage(m)) {
        result = sweep(m, false);
        result = result > 0 ? sweep(m, true) : result;
    }
    turn_release(m);
    return result;
}

/* ---- the exclusive lock ---- */

int
sync_lock_as_is(Manager *m, int64_t deadline_ns)
{
    if (sync_enter(m) < 0 || turn_take(m, deadline_ns) < 0) {
        return -1;
    }
    m->lent = true;
    if (exclusive_managers > 0 && managers_check_lock(m) < 0) {
        sync_unlock(m);
        return -1;
    }
    while (m->ops->lock != NULL) {
        int status;
        /* Plainly, as who waits for a lock of another process may hold one of this: signals
           end the call, and their handlers run after it. */
        Py_BEGIN_ALLOW_THREADS
        status = m->ops->lock(m->impl, m, deadline_ns);
        Py_END_ALLOW_THREADS
        if (status == TOSC_OK) {
            m->exclusive = true;
            exclusive_managers++;
            break;
        }
        if (tosc_raise(status) < 0) {
            sync_unlock(m);
            return -1;
        }
    }
    return 0;
}

int
sync_lock(Manager *m, int64_t deadline_ns)
{
    if (sync_lock_as_is(m, deadline_ns) < 0) {
        return -1;
    }
    int64_t seq = m->seq;
    if (pull(m) < 0) {
        sync_unlock(m);
        return -1;
    }
    /* A success under the lock is no sign of peace: that nobody else wants it is. */
    if (m->seq != seq || m->turn_first != NULL) {
        m->recent_conflicts += m->recent_conflicts < MOST_CONFLICTS;
    } else {
        m->recent_conflicts -= m->recent_conflicts > 0;
    }
    return 0;
}

void
sync_unlock(Manager *m)
{
    if (m->exclusive) {
        m->exclusive = false;
        exclusive_managers--;
        Py_BEGIN_ALLOW_THREADS
        m->ops->unlock(m->impl, m);
        Py_END_ALLOW_THREADS
    }
    m->lent = false;
    turn_release(m);
}
