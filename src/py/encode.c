/*
 * Records: encoding.
 *
 *     offset  size
 *      0       4   "TSC1"
 *      4       1   'B' the whole graph, 'C' a commit
 *      5       1   1: authenticated
 *      6       2   0
 *      8       8   length of the body, little-endian
 *     16      16   commit id
 *    [32      32   base records, if authenticated: what the next record is chained to]
 *    [..      32   if authenticated: HMAC-SHA256]
 *      .       .   body
 *
 * The body, with numbers as base-128 varints: the oid counter; the count of suspects; the
 * number of objects found to be garbage, and their oids; the number of segments. Then the
 * segments, each: length of the extras pickle (0: none), length of the main pickle, both
 * pickles. The main pickle is a flat list of items: a code, the object, arguments. The extras
 * are a list of the values that the emitter left to the pickle module. There is more than one
 * segment only when such a value turns out to hold a container that was not linked before,
 * or when reading will hash a custom object, whose state is then written ahead.
 *
 * The record of a commit and of a whole graph differ in the letter only, and there is one
 * encoder and one decoder.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record_parts.h"

#include "errors.h"
#include "pickling.h"
#include "state.h"
#include "wrap.h"

#include <string.h>

#define FLAG_GONE 8   /* DObject.flags: garbage, in the commit that is being encoded */
#define FLAG_EARLY 16 /* listed in Encoding.early */

/* ---- encoding ---- */

typedef struct Encoding {
    Commit *commit;
    Emitter emitter;
    Buffer body;
    bool base;
    Py_ssize_t defined; /* fresh deltas before this one have been written */
    uint64_t segments;
    RefList early; /* objects that reading the record will hash, as keys */
} Encoding;

/* What the commit makes of an object: borrowed; NULL: exception. */
static PyObject *
view_of(Commit *commit, DObject *object)
{
    if (commit->own != NULL) {
        return graph_view(object, commit->own);
    }
    for (Change *change = commit->changes; change != NULL; change = change->next) {
        if (change->object == object) {
            return change_view(change);
        }
    }
    return object->state;
}

/* Emitter's question; an object that is not linked is from now on. */
static uint64_t
oid_of(DObject *wrapper, void *arg)
{
    Encoding *encoding = arg;
    Commit *commit = encoding->commit;
    if (wrapper->oid != 0 && wrapper->manager == commit->manager) {
        return wrapper->oid;
    }
    if (wrapper->manager != commit->manager) {
        PyErr_Format(PyExc_ValueError, "a %.100s of another Manager cannot be stored",
                     Py_TYPE(wrapper)->tp_name);
        return 0;
    }
    Delta *delta = deltas_add(&commit->deltas, wrapper);
    if (delta == NULL) {
        return 0;
    }
    delta->fresh = true;
    wrapper->oid = commit->next_oid++;
    wrapper->links = 0;
    return wrapper->oid;
}

/*
 * A dict is made anew when it is read, which hashes its keys; a custom object among them must
 * have its attributes by then, and so must all that these lead to, since a __hash__ may look
 * at any of it. So their states are written ahead, in a segment of their own.
 */
static int
hashed(DObject *wrapper, void *arg)
{
    Encoding *encoding = arg;
    if (wrapper->flags & FLAG_EARLY) {
        return 0;
    }
    if (!encoding->base && wrapper->oid != 0
        && graph_find(encoding->commit->manager, wrapper->oid) == wrapper) {
        return 0; /* everybody has it already */
    }
    if (oid_of(wrapper, arg) == 0
        || reflist_add(&encoding->early, (PyObject *)wrapper) < 0) {
        return -1;
    }
    wrapper->flags |= FLAG_EARLY;
    return 0;
}

/* Emitter's question while early objects are written: what they lead to is early as well. */
static uint64_t
oid_of_early(DObject *wrapper, void *arg)
{
    return hashed(wrapper, arg) < 0 ? 0 : oid_of(wrapper, arg);
}

/* The state in which an object enters the record: a new reference. */
static PyObject *
settled_view(Commit *commit, DObject *object)
{
    PyObject *view = Py_XNewRef(view_of(commit, object));
    if (view != NULL && object->kind == KIND_OPAQUE
        && ((OpaqueState *)view)->live != NULL) {
        Py_SETREF(view, opaque_settle(object, view, ((OpaqueState *)view)->live));
    }
    return view;
}

void
codec_forget_oids(Commit *commit)
{
    for (Py_ssize_t i = 0; i < commit->deltas.count; i++) {
        if (commit->deltas.items[i].fresh) {
            commit->deltas.items[i].object->oid = 0;
        }
    }
}

static int
emit_state(Emitter *e, DObject *object, PyObject *state)
{
    switch (object->kind) {
    case KIND_LIST:
        return emit_list(e, state);
    case KIND_DICT:
        return emit_dict(e, state);
    case KIND_SET:
        return emit_set(e, state);
    case KIND_BYTES:
        return emit_bytearray(e, state);
    case KIND_ANY:
        return emit_extra(e, ((DAnyObject *)object)->cls) < 0 ? -1 : emit_dict(e, state);
    default: {
        OpaqueState *opaque = (OpaqueState *)state;
        if (emit_extra(e, ((DAnyObject *)object)->cls) < 0
            || emit_bytes(e, PyBytes_AS_STRING(opaque->pickle),
                          PyBytes_GET_SIZE(opaque->pickle))
                   < 0) {
            return -1;
        }
        return emit_value(e, opaque->refs);
    }
    }
}

static int
emit_define(Emitter *e, int code, DObject *object, PyObject *state)
{
    if (emit_int(e, code) < 0 || emit_ref(e, object) < 0) {
        return -1;
    }
    Py_INCREF(state); /* so that nobody changes it in place meanwhile */
    int result = emit_state(e, object, state);
    Py_DECREF(state);
    return result;
}

static int
emit_op(Emitter *e, DObject *object, const Op *op)
{
    if (emit_int(e, op->code) < 0 || emit_ref(e, object) < 0) {
        return -1;
    }
    switch (op->code) {
    case OP_SET:
        return emit_value(e, op->a) < 0 ? -1 : emit_value(e, op->b);
    case OP_DEL:
        return emit_value(e, op->a);
    case OP_UPDATE:
        return emit_dict(e, op->a);
    case OP_ITEM:
        return emit_int(e, op->lo) < 0 ? -1 : emit_value(e, op->a);
    case OP_ADD:
    case OP_DISCARD:
        return emit_set(e, op->a);
    default: /* OP_SPLICE */
        if (emit_int(e, op->lo) < 0 || emit_int(e, op->hi) < 0) {
            return -1;
        }
        if (op->a == NULL) {
            return emit_value(e, Py_None);
        }
        return PyList_Check(op->a) ? emit_list(e, op->a) : emit_value(e, op->a);
    }
}

static int
emit_delta(Emitter *e, const Delta *delta)
{
    if (delta->n_ops == 0) {
        return emit_define(e, OP_ASSIGN, delta->object, delta->whole);
    }
    for (Py_ssize_t i = 0; i < delta->n_ops; i++) {
        if (emit_op(e, delta->object, &delta->ops[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The objects that have become linked, and those found through them, to the last. */
static int
emit_fresh(Encoding *encoding)
{
    DeltaList *deltas = &encoding->commit->deltas;
    for (; encoding->defined < deltas->count; encoding->defined++) {
        DObject *object = deltas->items[encoding->defined].object;
        PyObject *view = settled_view(encoding->commit, object);
        if (view == NULL) {
            return -1;
        }
        deltas->items[encoding->defined].whole = view;
        if (!(object->flags & FLAG_EARLY)
            && emit_define(&encoding->emitter, CODE_DEFINE, object, view) < 0) {
            return -1;
        }
    }
    return 0;
}

static void
mark_gone(Commit *commit, bool gone)
{
    for (size_t i = 0; i < commit->n_gone; i++) {
        DObject *object = graph_find(commit->manager, commit->gone[i]);
        if (object != NULL) {
            object->flags =
                (uint8_t)(gone ? object->flags | FLAG_GONE : object->flags & ~FLAG_GONE);
        }
    }
}

static PyObject *
view_in_commit(DObject *object, void *commit)
{
    return view_of(commit, object);
}

/* After a commit that writes the whole graph everybody has just what can be reached. */
static int
list_reachable(Commit *commit, RefList *ret)
{
    RefList all = {0};
    int result = graph_reachable(commit->manager, view_in_commit, commit, &all);
    for (Py_ssize_t i = 0; i < all.count && result == 0; i++) {
        if (((DObject *)all.items[i])->oid != 0) { /* else it is met as a fresh one */
            result = reflist_add(ret, all.items[i]);
        }
    }
    reflist_clear(&all);
    return result;
}

/* All linked objects but those that this commit drops: what others have, cycles and all. */
static int
list_linked(Commit *commit, RefList *ret)
{
    Manager *m = commit->manager;
    int result = reflist_reserve(ret, (Py_ssize_t)m->table.used);
    mark_gone(commit, true);
    for (size_t i = 0; i < m->table.size && result == 0; i++) {
        if (m->table.slots[i] != NULL && !(m->table.slots[i]->flags & FLAG_GONE)) {
            result = reflist_add(ret, (PyObject *)m->table.slots[i]);
        }
    }
    mark_gone(commit, false);
    return result;
}

static int
emit_graph(Encoding *encoding)
{
    RefList all = {0};
    int result = encoding->commit->changes != NULL
                     ? list_reachable(encoding->commit, &all)
                     : list_linked(encoding->commit, &all);
    for (Py_ssize_t i = 0; i < all.count && result == 0; i++) {
        DObject *object = (DObject *)all.items[i];
        if (object->flags & FLAG_EARLY) {
            continue;
        }
        PyObject *state = view_of(encoding->commit, object);
        result = state == NULL
                     ? -1
                     : emit_define(&encoding->emitter, CODE_DEFINE, object, state);
    }
    reflist_clear(&all);
    return result;
}

static PyObject *
reference_id(PyObject *capsule, PyObject *object)
{
    if (!dobject_check(object)) {
        Py_RETURN_NONE;
    }
    uint64_t oid = oid_of((DObject *)object, PyCapsule_GetPointer(capsule, NULL));
    return oid == 0 ? NULL
                    : PyLong_FromUnsignedLongLong(oid * 8 + ((DObject *)object)->kind);
}

static PyMethodDef reference_id_def = {"persistent_id", reference_id, METH_O, NULL};

/* An extra value could not be pickled: find out which, and say where it stands. */
static void
blame(Encoding *encoding, PyObject *extras)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (!PyErr_GivenExceptionMatches(type, PyExc_Exception)
        || PyErr_GivenExceptionMatches(type, PyExc_MemoryError)) {
        PyErr_Restore(type, error, traceback);
        return;
    }
    PyObject *culprit = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(extras) && culprit == NULL; i++) {
        PyObject *bytes =
            pickling_dump(PyList_GET_ITEM(extras, i), &reference_id_def, encoding);
        if (bytes == NULL) {
            PyErr_Clear();
            culprit = PyList_GET_ITEM(extras, i);
        }
        Py_XDECREF(bytes);
    }
    PyObject *path = NULL;
    if (culprit != NULL) {
        path = graph_path(encoding->commit->manager, encoding->commit->own, culprit);
        PyErr_Clear();
    }
    tosc_raise_format(tosc_state->SerializationError, "cannot store %V%sa %.200s: %S",
                      path, "", path != NULL ? ", " : "",
                      culprit != NULL ? Py_TYPE(culprit)->tp_name : "value", error);
    Py_XDECREF(path);
    PyObject *type2, *error2, *traceback2;
    PyErr_Fetch(&type2, &error2, &traceback2);
    PyErr_NormalizeException(&type2, &error2, &traceback2);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    PyException_SetCause(error2, Py_NewRef(error));
    PyException_SetContext(error2, error);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    PyErr_Restore(type2, error2, traceback2);
}

static int
put_segment(Encoding *encoding, Buffer *body, PyObject *extras_pickle)
{
    Emitter *e = &encoding->emitter;
    size_t extras_size =
        extras_pickle == NULL ? 0 : (size_t)PyBytes_GET_SIZE(extras_pickle);
    encoding->segments++;
    if (buffer_varint(body, extras_size) < 0 || buffer_varint(body, e->out.size) < 0) {
        return -1;
    }
    if (extras_size > 0
        && buffer_put(body, PyBytes_AS_STRING(extras_pickle), extras_size) < 0) {
        return -1;
    }
    return buffer_put(body, e->out.data, e->out.size);
}

/* Pickles the extras and adds the segment to `body`. */
static int
close_segment(Encoding *encoding, Buffer *body)
{
    Emitter *e = &encoding->emitter;
    PyObject *extras = NULL;
    if (emit_finish(e) < 0) {
        return -1;
    }
    if (e->extras != NULL) {
        extras = pickling_dump(e->extras, &reference_id_def, encoding);
        if (extras == NULL) {
            blame(encoding, e->extras);
            return -1;
        }
    }
    int result = put_segment(encoding, body, extras);
    Py_XDECREF(extras);
    return result;
}

static int
open_segment(Encoding *encoding)
{
    encoding->emitter = (Emitter){
        .oid_of = oid_of,
        .hashed = hashed,
        .arg = encoding,
        .breathe = encoding->base && encoding->commit->changes == NULL,
    };
    return emit_start(&encoding->emitter);
}

/* What the commit has changed, or the whole graph. */
static int
emit_first(Encoding *encoding)
{
    Commit *commit = encoding->commit;
    if (encoding->base) {
        return emit_graph(encoding);
    }
    int result = 0;
    Py_ssize_t changed = encoding->defined;
    for (Py_ssize_t i = 0; i < changed && result == 0; i++) {
        Delta delta = commit->deltas.items[i]; /* the list may grow and move */
        result = emit_delta(&encoding->emitter, &delta);
    }
    return result;
}

static int
encode_segment(Encoding *encoding)
{
    int result = open_segment(encoding);
    if (result == 0 && encoding->segments == 0) {
        result = emit_first(encoding);
    }
    if (result == 0) {
        result = emit_fresh(encoding);
    }
    if (result == 0) {
        result = close_segment(encoding, &encoding->body);
    }
    emit_free(&encoding->emitter);
    return result;
}

/* The early objects from `first` on, in a segment before all others. */
static int
encode_early(Encoding *encoding, Py_ssize_t first)
{
    Buffer body = {0};
    int result = open_segment(encoding);
    Py_ssize_t end = encoding->early.count;
    encoding->emitter.oid_of = oid_of_early;
    for (Py_ssize_t i = first; i < end && result == 0; i++) {
        DObject *object = (DObject *)encoding->early.items[i];
        PyObject *view = settled_view(encoding->commit, object);
        result =
            view == NULL ? -1 : emit_define(&encoding->emitter, CODE_EARLY, object, view);
        Py_XDECREF(view);
    }
    if (result == 0) {
        result = close_segment(encoding, &body);
    }
    emit_free(&encoding->emitter);
    if (result == 0) {
        result = buffer_put(&body, encoding->body.data, encoding->body.size);
    }
    if (result < 0) {
        buffer_free(&body);
        return -1;
    }
    buffer_free(&encoding->body);
    encoding->body = body;
    return 0;
}

static int
encode_body(Encoding *encoding)
{
    DeltaList *deltas = &encoding->commit->deltas;
    Py_ssize_t early = 0;
    do {
        if (encode_segment(encoding) < 0) {
            return -1;
        }
        while (early < encoding->early.count) {
            Py_ssize_t end = encoding->early.count;
            if (encode_early(encoding, early) < 0) {
                return -1;
            }
            early = end;
        }
    } while (encoding->defined < deltas->count);
    return 0;
}

static int
put_header(Encoding *encoding, Buffer *ret, size_t body_size)
{
    Commit *commit = encoding->commit;
    char header[RECORD_HEADER] = RECORD_MAGIC;
    header[4] = encoding->base ? 'B' : 'C';
    header[5] = commit->manager->key != NULL;
    for (int i = 0; i < 8; i++) {
        header[8 + i] = (char)((uint64_t)body_size >> (8 * i));
    }
    memcpy(header + 16, commit->id.bytes, 16);
    return buffer_put(ret, header, RECORD_HEADER);
}

/* Authentication fields behind the header at `start`. */
static int
put_mac(Encoding *encoding, Buffer *ret, size_t start, const Buffer *prefix)
{
    Commit *commit = encoding->commit;
    Manager *m = commit->manager;
    Buffer body = {0};
    char chain[RECORD_MAC] = {0};
    PyObject *before = encoding->base ? commit->carry : m->chain;
    if (before != NULL) {
        memcpy(chain, PyBytes_AS_STRING(before), RECORD_MAC);
    } else {
        memcpy(chain, commit->id.bytes, 16);
    }
    PyObject *mac = NULL;
    if (buffer_put(&body, prefix->data, prefix->size) == 0
        && buffer_put(&body, encoding->body.data, encoding->body.size) == 0) {
        mac = record_mac(m->key, ret->data + start, chain, body.data, body.size);
    }
    buffer_free(&body);
    if (mac == NULL || (encoding->base && buffer_put(ret, chain, RECORD_MAC) < 0)
        || buffer_put(ret, PyBytes_AS_STRING(mac), RECORD_MAC) < 0) {
        Py_XDECREF(mac);
        return -1;
    }
    if (encoding->base) {
        Py_SETREF(mac, PyBytes_FromStringAndSize(chain, RECORD_MAC));
    }
    Py_XSETREF(commit->chain, mac);
    return mac == NULL ? -1 : 0;
}

static int
put_record(Encoding *encoding, Buffer *ret)
{
    Commit *commit = encoding->commit;
    Buffer prefix = {0};
    size_t start = ret->size;
    int result = buffer_varint(&prefix, commit->next_oid);
    result = result < 0 ? -1 : buffer_varint(&prefix, commit->manager->suspects);
    result = result < 0 ? -1 : buffer_varint(&prefix, commit->n_gone);
    for (size_t i = 0; i < commit->n_gone && result == 0; i++) {
        result = buffer_varint(&prefix, commit->gone[i]);
    }
    result = result < 0 ? -1 : buffer_varint(&prefix, encoding->segments);
    if (result == 0) {
        result = put_header(encoding, ret, prefix.size + encoding->body.size);
    }
    if (result == 0 && commit->manager->key != NULL) {
        result = put_mac(encoding, ret, start, &prefix);
    }
    if (result == 0) {
        result = buffer_put(ret, prefix.data, prefix.size);
    }
    if (result == 0) {
        result = buffer_put(ret, encoding->body.data, encoding->body.size);
    }
    buffer_free(&prefix);
    return result;
}

int
codec_encode(Commit *commit, bool base, Buffer *ret)
{
    Encoding encoding = {.commit = commit, .base = base, .defined = commit->deltas.count};
    size_t start = ret->size;
    int result = encode_body(&encoding);
    if (result == 0) {
        result = put_record(&encoding, ret);
    }
    for (Py_ssize_t i = 0; i < encoding.early.count; i++) {
        ((DObject *)encoding.early.items[i])->flags &= (uint8_t)~FLAG_EARLY;
    }
    reflist_clear(&encoding.early);
    buffer_free(&encoding.body);
    if (result < 0) {
        ret->size = start;
    }
    return result;
}
