/*
 * Records: encoding and decoding.
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
#include "codec.h"

#include "errors.h"
#include "pickling.h"
#include "state.h"
#include "wrap.h"

#include <string.h>

#define MAGIC "TSC1"
#define HEADER_SIZE 32
#define MAC_SIZE 32
#define FLAG_DEFINED 4 /* DObject.flags of a shell: its state has been read */
#define CODE_EARLY 9    /* the same, ahead of the record that hashes it */
#define FLAG_EARLY 16   /* listed in Encoding.early */
#define FLAG_GONE 8     /* found to be garbage by the commit that is being encoded */
#define CODE_DEFINE 8  /* beside enum op_code: the whole state of an object */

/* ---- authentication ---- */

/* HMAC-SHA256 over the parts: new bytes. */
static PyObject *
mac_of(PyObject *key, const char *const *parts, const size_t *sizes, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        total += sizes[i];
    }
    PyObject *message = PyBytes_FromStringAndSize(NULL, (Py_ssize_t) total);
    if (message == NULL) {
        return NULL;
    }
    char *to = PyBytes_AS_STRING(message);
    for (int i = 0; i < n; i++) {
        memcpy(to, parts[i], sizes[i]);
        to += sizes[i];
    }
    PyObject *hmac = PyImport_ImportModule("hmac");
    PyObject *mac =
        hmac == NULL ? NULL : PyObject_CallMethod(hmac, "digest", "OOs", key, message, "sha256");
    Py_XDECREF(hmac);
    Py_DECREF(message);
    return mac;
}

static bool
same_mac(PyObject *mac, const char *stored)
{
    unsigned char difference = 0;
    const char *ours = PyBytes_AS_STRING(mac);
    for (int i = 0; i < MAC_SIZE; i++) {
        difference |= (unsigned char) (ours[i] ^ stored[i]);
    }
    return difference == 0;
}

/*
 * A base starts a chain: the next record's HMAC covers the base's chain value, and each
 * further one's the HMAC before it. A compacted base takes over the value that the records
 * behind it were made with.
 */
static PyObject *
record_mac(PyObject *key, bool base, const char *header, const char *chain, const char *body,
           size_t size)
{
    const char *parts[] = {header, chain, body};
    const size_t sizes[] = {HEADER_SIZE, MAC_SIZE, size};
    (void) base;
    return mac_of(key, parts, sizes, 3);
}

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
 * have its attributes by then. So its state is written ahead, in a segment of its own.
 */
static int
hashed(DObject *wrapper, void *arg)
{
    Encoding *encoding = arg;
    if (wrapper->kind != KIND_ANY || wrapper->flags & FLAG_EARLY) {
        return 0;
    }
    if (!encoding->base && wrapper->oid != 0
        && graph_find(encoding->commit->manager, wrapper->oid) == wrapper) {
        return 0; /* everybody has it already */
    }
    if (oid_of(wrapper, arg) == 0 || reflist_add(&encoding->early, (PyObject *) wrapper) < 0) {
        return -1;
    }
    wrapper->flags |= FLAG_EARLY;
    return 0;
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
        return emit_extra(e, ((DAnyObject *) object)->cls) < 0 ? -1 : emit_dict(e, state);
    default: {
        OpaqueState *opaque = (OpaqueState *) state;
        if (emit_extra(e, ((DAnyObject *) object)->cls) < 0
            || emit_bytes(e, PyBytes_AS_STRING(opaque->pickle),
                          PyBytes_GET_SIZE(opaque->pickle)) < 0) {
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

/* The state in which an object enters the store. */
static int
settle_fresh(Commit *commit, Py_ssize_t index)
{
    DObject *object = commit->deltas.items[index].object;
    PyObject *view = view_of(commit, object);
    if (view == NULL) {
        return -1;
    }
    Py_INCREF(view);
    if (object->kind == KIND_OPAQUE && ((OpaqueState *) view)->live != NULL) {
        Py_SETREF(view, opaque_settle(object, view, ((OpaqueState *) view)->live));
        if (view == NULL) {
            return -1;
        }
    }
    commit->deltas.items[index].whole = view;
    return 0;
}

/* The objects that have become linked, and those found through them, to the last. */
static int
emit_fresh(Encoding *encoding)
{
    DeltaList *deltas = &encoding->commit->deltas;
    for (; encoding->defined < deltas->count; encoding->defined++) {
        if (settle_fresh(encoding->commit, encoding->defined) < 0) {
            return -1;
        }
        Delta *delta = &deltas->items[encoding->defined];
        DObject *object = delta->object;
        if (emit_define(&encoding->emitter, CODE_DEFINE, object, delta->whole) < 0) {
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
            object->flags = (uint8_t) (gone ? object->flags | FLAG_GONE
                                            : object->flags & ~FLAG_GONE);
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
        if (((DObject *) all.items[i])->oid != 0) { /* else it is met as a fresh one */
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
    int result = reflist_reserve(ret, (Py_ssize_t) m->table.used);
    mark_gone(commit, true);
    for (size_t i = 0; i < m->table.size && result == 0; i++) {
        if (m->table.slots[i] != NULL && !(m->table.slots[i]->flags & FLAG_GONE)) {
            result = reflist_add(ret, (PyObject *) m->table.slots[i]);
        }
    }
    mark_gone(commit, false);
    return result;
}

static int
emit_graph(Encoding *encoding)
{
    RefList all = {0};
    int result = encoding->commit->changes != NULL ? list_reachable(encoding->commit, &all)
                                                     : list_linked(encoding->commit, &all);
    for (Py_ssize_t i = 0; i < all.count && result == 0; i++) {
        DObject *object = (DObject *) all.items[i];
        PyObject *state = view_of(encoding->commit, object);
        result = state == NULL ? -1
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
    uint64_t oid = oid_of((DObject *) object, PyCapsule_GetPointer(capsule, NULL));
    return oid == 0 ? NULL : PyLong_FromUnsignedLongLong(oid * 8 + ((DObject *) object)->kind);
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
    tosc_raise_format(tosc_state->SerializationError, "cannot store %V%sa %.200s: %S", path,
                      "", path != NULL ? ", " : "",
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
        extras_pickle == NULL ? 0 : (size_t) PyBytes_GET_SIZE(extras_pickle);
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
    for (Py_ssize_t i = first; i < end && result == 0; i++) {
        DObject *object = (DObject *) encoding->early.items[i];
        PyObject *view = view_of(encoding->commit, object);
        result = view == NULL ? -1
                              : emit_define(&encoding->emitter, CODE_EARLY, object, view);
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
    char header[HEADER_SIZE] = MAGIC;
    header[4] = encoding->base ? 'B' : 'C';
    header[5] = commit->manager->key != NULL;
    for (int i = 0; i < 8; i++) {
        header[8 + i] = (char) ((uint64_t) body_size >> (8 * i));
    }
    memcpy(header + 16, commit->id.bytes, 16);
    return buffer_put(ret, header, HEADER_SIZE);
}

/* Authentication fields behind the header at `start`. */
static int
put_mac(Encoding *encoding, Buffer *ret, size_t start, const Buffer *prefix)
{
    Commit *commit = encoding->commit;
    Manager *m = commit->manager;
    Buffer body = {0};
    char chain[MAC_SIZE] = {0};
    PyObject *before = encoding->base ? commit->carry : m->chain;
    if (before != NULL) {
        memcpy(chain, PyBytes_AS_STRING(before), MAC_SIZE);
    } else {
        memcpy(chain, commit->id.bytes, 16);
    }
    PyObject *mac = NULL;
    if (buffer_put(&body, prefix->data, prefix->size) == 0
        && buffer_put(&body, encoding->body.data, encoding->body.size) == 0) {
        mac = record_mac(m->key, encoding->base, ret->data + start, chain, body.data,
                         body.size);
    }
    buffer_free(&body);
    if (mac == NULL || (encoding->base && buffer_put(ret, chain, MAC_SIZE) < 0)
        || buffer_put(ret, PyBytes_AS_STRING(mac), MAC_SIZE) < 0) {
        Py_XDECREF(mac);
        return -1;
    }
    if (encoding->base) {
        Py_SETREF(mac, PyBytes_FromStringAndSize(chain, MAC_SIZE));
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
        ((DObject *) encoding.early.items[i])->flags &= (uint8_t) ~FLAG_EARLY;
    }
    reflist_clear(&encoding.early);
    buffer_free(&encoding.body);
    if (result < 0) {
        ret->size = start;
    }
    return result;
}

/* ---- decoding ---- */

typedef struct Decoder {
    Manager *m;
    bool reuse;
    OidTable shells;  /* wrappers made by this decoder */
    PyObject *extras; /* of the current segment */
    RefList early;    /* objects of the current record that were written ahead */
} Decoder;

static int
damaged(const char *what)
{
    PyErr_Format(tosc_state->DataError, "damaged data: %s", what);
    return -1;
}

static DObject *
new_shell(int kind)
{
    PyTypeObject *type;
    switch (kind) {
    case KIND_LIST:
        type = tosc_state->DList_Type;
        break;
    case KIND_DICT:
        type = tosc_state->DDict_Type;
        break;
    case KIND_SET:
        type = tosc_state->DSet_Type;
        break;
    case KIND_BYTES:
        type = tosc_state->DByteArray_Type;
        break;
    case KIND_ANY:
        return dany_new_shell();
    case KIND_OPAQUE:
        return opaque_new_shell();
    default:
        damaged("an object of unknown kind");
        return NULL;
    }
    DObject *shell = (DObject *) type->tp_alloc(type, 0);
    if (shell != NULL) {
        shell->kind = (uint8_t) kind;
    }
    return shell;
}

/* The wrapper of an oid: the Manager's, one met before, or a new shell. A new reference. */
static PyObject *
find_wrapper(Decoder *d, uint64_t oid, int kind)
{
    Manager *m = d->m;
    if (oid == m->cell->oid) {
        return Py_NewRef((PyObject *) m->cell);
    }
    DObject *known = d->reuse ? graph_find(m, oid) : NULL;
    if (known != NULL && known->kind == kind) {
        return Py_NewRef((PyObject *) known);
    }
    DObject *shell = oidtable_find(&d->shells, oid);
    if (shell != NULL) {
        return Py_NewRef((PyObject *) shell);
    }
    if (oidtable_reserve(&d->shells, 1) < 0 || (shell = new_shell(kind)) == NULL) {
        return NULL;
    }
    shell->manager = (Manager *) Py_NewRef((PyObject *) m);
    shell->oid = oid; /* not in the Manager's table yet: nobody can find it by that */
    oidtable_insert(&d->shells, shell);
    return (PyObject *) shell;
}

static PyObject *
load_reference(PyObject *capsule, PyObject *pid)
{
    Decoder *d = PyCapsule_GetPointer(capsule, NULL);
    long long number = d == NULL ? -1 : PyLong_AsLongLong(pid);
    if (d == NULL || (number == -1 && PyErr_Occurred())) {
        return NULL;
    }
    if (number >= 0) {
        return find_wrapper(d, (uint64_t) number / 8, (int) (number % 8));
    }
    Py_ssize_t index = (Py_ssize_t) (-1 - number);
    if (d->extras == NULL || index >= PyList_GET_SIZE(d->extras)) {
        damaged("a value that is not there");
        return NULL;
    }
    PyObject *value = PyList_GET_ITEM(d->extras, index);
    if (pickling_is_stand_in(value)) {
        return tosc_raise_format(tosc_state->SerializationError,
                                 "stored data name 'builtins.getattr', which is not among the "
                                 "allowed classes");
    }
    return Py_NewRef(value);
}

static PyMethodDef load_reference_def = {"persistent_load", load_reference, METH_O, NULL};

/* The items of a main pickle, taken from a list one by one. */
typedef struct Items {
    PyObject *list;
    Py_ssize_t next;
} Items;

static PyObject *
take(Items *items)
{
    if (items->next >= PyList_GET_SIZE(items->list)) {
        damaged("a record ends too early");
        return NULL;
    }
    return PyList_GET_ITEM(items->list, items->next++);
}

static PyObject *
take_as(Items *items, PyTypeObject *type)
{
    PyObject *item = take(items);
    if (item != NULL && Py_TYPE(item) != type) {
        damaged("a value of the wrong type");
        return NULL;
    }
    return item;
}

static int
take_number(Items *items, Py_ssize_t *ret)
{
    PyObject *item = take_as(items, &PyLong_Type);
    if (item == NULL) {
        return -1;
    }
    *ret = PyLong_AsSsize_t(item);
    return *ret == -1 && PyErr_Occurred() ? -1 : 0;
}

/* A class, of whatever metaclass. */
static PyObject *
take_class(Items *items)
{
    PyObject *cls = take(items);
    if (cls != NULL && !PyType_Check(cls)) {
        damaged("a class that is none");
        return NULL;
    }
    return cls;
}

static PyObject *
take_opaque(Items *items, DObject *object)
{
    PyObject *cls = take_class(items);
    PyObject *pickle = cls == NULL ? NULL : take_as(items, &PyBytes_Type);
    PyObject *refs = pickle == NULL ? NULL : take_as(items, &PyTuple_Type);
    if (refs == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(refs); i++) {
        if (!dobject_check(PyTuple_GET_ITEM(refs, i))) {
            damaged("a reference that is none");
            return NULL;
        }
    }
    if (((DAnyObject *) object)->cls == NULL && opaque_set_class(object, cls) < 0) {
        return NULL;
    }
    return opaque_state_from(pickle, refs);
}

static PyObject *
take_any(Items *items, DObject *object)
{
    PyObject *cls = take_class(items);
    PyObject *attributes = cls == NULL ? NULL : take_as(items, &PyDict_Type);
    if (attributes == NULL
        || (((DAnyObject *) object)->cls == NULL && dany_set_class(object, cls) < 0)) {
        return NULL;
    }
    return Py_NewRef(attributes);
}

static PyObject *
take_state(Items *items, DObject *object)
{
    static PyTypeObject *const types[] = {&PyList_Type, &PyDict_Type, &PySet_Type,
                                          &PyByteArray_Type};
    switch (object->kind) {
    case KIND_ANY:
        return take_any(items, object);
    case KIND_OPAQUE:
        return take_opaque(items, object);
    default:
        return Py_XNewRef(take_as(items, types[object->kind]));
    }
}

static PyTypeObject *
splice_type(DObject *object)
{
    return object->kind == KIND_BYTES ? &PyBytes_Type : &PyList_Type;
}

static int
take_op(Items *items, DObject *object, int code, Op *op)
{
    PyObject *a = NULL;
    PyObject *b = NULL;
    bool keyed = object->kind == KIND_DICT || object->kind == KIND_ANY;
    bool good;
    switch (code) {
    case OP_SET:
        good = keyed && (a = take(items)) != NULL && (b = take(items)) != NULL;
        break;
    case OP_DEL:
        good = keyed && (a = take(items)) != NULL;
        break;
    case OP_UPDATE:
        good = keyed && (a = take_as(items, &PyDict_Type)) != NULL;
        break;
    case OP_ITEM:
        good = object->kind == KIND_LIST && take_number(items, &op->lo) == 0
               && (a = take(items)) != NULL;
        break;
    case OP_SPLICE:
        good = (object->kind == KIND_LIST || object->kind == KIND_BYTES)
               && take_number(items, &op->lo) == 0 && take_number(items, &op->hi) == 0
               && (a = take(items)) != NULL;
        if (good && a == Py_None) {
            a = NULL;
        } else if (good && Py_TYPE(a) != splice_type(object)) {
            good = false;
        }
        break;
    case OP_ADD:
    case OP_DISCARD:
        good = object->kind == KIND_SET && (a = take_as(items, &PySet_Type)) != NULL;
        break;
    default:
        good = false;
    }
    if (!good) {
        return PyErr_Occurred() ? -1 : damaged("an operation that does not fit its object");
    }
    op->code = code;
    op->a = Py_XNewRef(a);
    op->b = Py_XNewRef(b);
    return 0;
}

/* The delta that an operation belongs to: the last one if it is of the same object. */
static Delta *
delta_for(Record *record, DObject *object)
{
    DeltaList *deltas = &record->deltas;
    if (deltas->count > 0) {
        Delta *last = &deltas->items[deltas->count - 1];
        if (last->object == object && last->owns_ops) {
            return last;
        }
    }
    Delta *delta = deltas_add(deltas, object);
    if (delta != NULL) {
        delta->owns_ops = true;
    }
    return delta;
}

static int
add_op(Record *record, DObject *object, Op *op)
{
    Delta *delta = delta_for(record, object);
    if (delta == NULL) {
        return -1;
    }
    OpList ops = {delta->ops, delta->n_ops, delta->n_ops};
    /* Room for powers of two only: the count tells when there is none left. */
    if ((ops.count & (ops.count - 1)) != 0) {
        ops.room = ops.count + 1;
    }
    if (ops.count == ops.room) {
        Py_ssize_t room = ops.count ? ops.count * 2 : 1;
        Op *items = PyMem_Realloc(ops.items, (size_t) room * sizeof(*items));
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        ops.items = items;
    }
    ops.items[ops.count] = *op;
    delta->ops = ops.items;
    delta->n_ops = ops.count + 1;
    return 0;
}

/* A whole state. Until it is in the graph, a shell can be asked for it already (hashed, say). */
static int
decode_state(Decoder *d, Record *record, Items *items, DObject *object, int code)
{
    PyObject *state = take_state(items, object);
    if (state == NULL) {
        return -1;
    }
    if (code == CODE_DEFINE && object->flags & FLAG_EARLY) {
        Py_DECREF(state); /* it is the same again */
        return 0;
    }
    if (code == CODE_EARLY) {
        if (reflist_add(&d->early, (PyObject *) object) < 0) {
            Py_DECREF(state);
            return -1;
        }
        object->flags |= FLAG_EARLY;
    }
    Delta *delta = deltas_add(&record->deltas, object);
    if (delta == NULL) {
        Py_DECREF(state);
        return -1;
    }
    delta->whole = state;
    if (object != d->m->cell && graph_find(d->m, object->oid) != object) {
        Py_XSETREF(object->state, Py_NewRef(state));
    }
    object->flags |= FLAG_DEFINED;
    return 0;
}

static void
forget_early(Decoder *d)
{
    for (Py_ssize_t i = 0; i < d->early.count; i++) {
        ((DObject *) d->early.items[i])->flags &= (uint8_t) ~FLAG_EARLY;
    }
    reflist_clear(&d->early);
}

static int
decode_item(Decoder *d, Record *record, Items *items)
{
    Py_ssize_t code;
    if (take_number(items, &code) < 0) {
        return -1;
    }
    PyObject *target = take(items);
    if (target == NULL) {
        return -1;
    }
    if (!dobject_check(target)) {
        return damaged("an object that is none");
    }
    DObject *object = (DObject *) target;
    if (code == CODE_DEFINE || code == CODE_EARLY || code == OP_ASSIGN) {
        return decode_state(d, record, items, object, (int) code);
    }
    Op op = {0};
    if (take_op(items, object, (int) code, &op) < 0) {
        return -1;
    }
    if (add_op(record, object, &op) < 0) {
        Py_XDECREF(op.a);
        Py_XDECREF(op.b);
        return -1;
    }
    return 0;
}

static PyObject *
load_list(Decoder *d, const unsigned char *data, size_t size, bool classes)
{
    PyObject *bytes = PyBytes_FromStringAndSize((const char *) data, (Py_ssize_t) size);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *list = pickling_load(d->m, classes, bytes, &load_reference_def, d);
    Py_DECREF(bytes);
    if (list != NULL && !PyList_CheckExact(list)) {
        Py_DECREF(list);
        damaged("a record that is no list");
        return NULL;
    }
    return list;
}

/* What went wrong in a pickle is damage, unless it says something more exact itself. */
static void
explain(void)
{
    if (PyErr_ExceptionMatches(tosc_state->Error) || PyErr_ExceptionMatches(PyExc_MemoryError)
        || !PyErr_ExceptionMatches(PyExc_Exception)) {
        return;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyErr_Format(tosc_state->DataError, "the stored data cannot be decoded: %S: %S",
                 ((PyTypeObject *) type)->tp_name ? PyType_GetName((PyTypeObject *) type)
                                                  : Py_None,
                 error);
    PyObject *type2, *error2, *traceback2;
    PyErr_Fetch(&type2, &error2, &traceback2);
    PyErr_NormalizeException(&type2, &error2, &traceback2);
    PyException_SetCause(error2, Py_NewRef(error));
    Py_DECREF(type);
    Py_DECREF(error);
    Py_XDECREF(traceback);
    PyErr_Restore(type2, error2, traceback2);
}

/* ---- bytes to records ---- */

typedef struct Cursor {
    const unsigned char *data;
    size_t left;
} Cursor;

static int
read_varint(Cursor *c, uint64_t *ret)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && c->left > 0; shift += 7) {
        unsigned char byte = *c->data++;
        c->left--;
        value |= (uint64_t) (byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return 0;
        }
    }
    return damaged("a record ends too early");
}

static int
decode_segment(Decoder *d, Record *record, Cursor *c)
{
    uint64_t extras_size;
    uint64_t main_size;
    if (read_varint(c, &extras_size) < 0 || read_varint(c, &main_size) < 0) {
        return -1;
    }
    if (extras_size > c->left || main_size > c->left - extras_size) {
        return damaged("a record ends too early");
    }
    Py_CLEAR(d->extras);
    if (extras_size > 0) {
        d->extras = load_list(d, c->data, extras_size, true);
        if (d->extras == NULL) {
            explain();
            return -1;
        }
    }
    PyObject *list = load_list(d, c->data + extras_size, main_size, false);
    if (list == NULL) {
        explain();
        return -1;
    }
    c->data += extras_size + main_size;
    c->left -= extras_size + main_size;
    Items items = {list, 0};
    int result = 0;
    while (result == 0 && items.next < PyList_GET_SIZE(list)) {
        result = decode_item(d, record, &items);
    }
    Py_DECREF(list);
    return result;
}

static int
decode_body(Decoder *d, Record *record, Cursor c)
{
    uint64_t segments;
    uint64_t n_gone;
    if (read_varint(&c, &record->next_oid) < 0 || read_varint(&c, &record->suspects) < 0
        || read_varint(&c, &n_gone) < 0) {
        return -1;
    }
    if (n_gone > c.left) {
        return damaged("a record ends too early");
    }
    if (n_gone > 0) {
        record->gone = PyMem_Calloc(n_gone, sizeof(*record->gone));
        if (record->gone == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    for (; record->n_gone < n_gone; record->n_gone++) {
        if (read_varint(&c, &record->gone[record->n_gone]) < 0) {
            return -1;
        }
    }
    if (read_varint(&c, &segments) < 0) {
        return -1;
    }
    for (uint64_t i = 0; i < segments; i++) {
        if (decode_segment(d, record, &c) < 0) {
            return -1;
        }
    }
    return c.left == 0 ? 0 : damaged("bytes that belong to no record");
}

/* Checks and skips the authentication fields; keeps the chain in list->chain. */
static int
check_mac(Manager *m, bool base, const unsigned char *header, Cursor *c, size_t body_size,
          RecordList *list)
{
    bool marked = header[5] == 1;
    if (m->key == NULL) {
        if (!marked) {
            return 0;
        }
        PyErr_SetString(tosc_state->DataError, "the stored data are authenticated: open them "
                                               "with Manager(backend, key=...)");
        return -1;
    }
    size_t fields = base ? 2 * MAC_SIZE : MAC_SIZE;
    if (!marked || c->left < fields + body_size) {
        PyErr_SetString(tosc_state->DataError, "the stored data are not authenticated with a "
                                               "key; nothing of them was decoded");
        return -1;
    }
    const char *chain = base                  ? (const char *) c->data
                        : list->chain != NULL ? PyBytes_AS_STRING(list->chain)
                                              : NULL;
    const char *stored = (const char *) c->data + fields - MAC_SIZE;
    PyObject *mac = NULL;
    if (chain != NULL) {
        mac = record_mac(m->key, base, (const char *) header, chain,
                         (const char *) c->data + fields, body_size);
        if (mac == NULL) {
            return -1;
        }
    }
    if (mac == NULL || !same_mac(mac, stored)) {
        Py_XDECREF(mac);
        PyErr_SetString(tosc_state->DataError, "the stored data were not written with this "
                                               "key, or were changed since; nothing of them "
                                               "was decoded");
        return -1;
    }
    if (base) {
        Py_SETREF(mac, PyBytes_FromStringAndSize(chain, MAC_SIZE));
    }
    Py_XSETREF(list->chain, mac);
    c->data += fields;
    c->left -= fields;
    return mac == NULL ? -1 : 0;
}

static int
decode_record(Decoder *d, Cursor *c, Record *record, RecordList *list)
{
    const unsigned char *header = c->data;
    if (c->left < HEADER_SIZE || memcmp(header, MAGIC, 4) != 0
        || (header[4] != 'B' && header[4] != 'C') || header[5] > 1) {
        PyErr_SetString(tosc_state->DataError,
                        "the stored data were not written by a Manager (or are damaged)");
        return -1;
    }
    uint64_t body_size = 0;
    for (int i = 0; i < 8; i++) {
        body_size |= (uint64_t) header[8 + i] << (8 * i);
    }
    c->data += HEADER_SIZE;
    c->left -= HEADER_SIZE;
    record->base = header[4] == 'B';
    if (body_size > c->left) {
        return damaged("a record ends too early");
    }
    if (check_mac(d->m, record->base, header, c, body_size, list) < 0) {
        return -1;
    }
    if (body_size > c->left) {
        return damaged("a record ends too early");
    }
    Cursor body = {c->data, body_size};
    c->data += body_size;
    c->left -= body_size;
    return decode_body(d, record, body);
}

/* Every object that was referred to must have been given its state by now. */
static int
check_shells(Decoder *d)
{
    for (size_t i = 0; i < d->shells.size; i++) {
        DObject *shell = d->shells.slots[i];
        if (shell != NULL && !(shell->flags & FLAG_DEFINED)) {
            return damaged("an object that is referred to but not stored");
        }
    }
    return 0;
}

/* After a fault they belong to nobody: they never came into the graph. */
static void
free_shells(Decoder *d, bool disown)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    OidTable shells = d->shells;
    d->shells = (OidTable){0};
    for (size_t i = 0; i < shells.size; i++) {
        if (shells.slots[i] != NULL) {
            if (disown) {
                shells.slots[i]->oid = 0;
            }
            Py_DECREF(shells.slots[i]);
        }
    }
    PyMem_Free(shells.slots);
    PyErr_Restore(type, error, traceback);
}

int
codec_decode(Manager *m, const unsigned char *data, size_t size, bool reuse, RecordList *ret)
{
    Decoder d = {.m = m, .reuse = reuse};
    Cursor c = {data, size};
    size_t room = 0;
    int result = 0;
    *ret = (RecordList){.chain = Py_XNewRef(m->chain)};
    while (result == 0 && c.left > 0) {
        if (ret->count == room) {
            room = room ? room * 2 : 4;
            Record *items = PyMem_Realloc(ret->items, room * sizeof(*items));
            if (items == NULL) {
                PyErr_NoMemory();
                result = -1;
                break;
            }
            ret->items = items;
        }
        ret->items[ret->count] = (Record){0};
        result = decode_record(&d, &c, &ret->items[ret->count++], ret);
        forget_early(&d);
    }
    if (result == 0) {
        result = check_shells(&d);
    }
    if (result < 0) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        codec_records_clear(ret);
        PyErr_Restore(type, error, traceback);
    }
    free_shells(&d, result < 0);
    Py_XDECREF(d.extras);
    return result;
}

void
codec_records_clear(RecordList *list)
{
    for (size_t i = 0; i < list->count; i++) {
        deltas_clear(&list->items[i].deltas);
        PyMem_Free(list->items[i].gone);
    }
    PyMem_Free(list->items);
    Py_XDECREF(list->chain);
    *list = (RecordList){0};
}
