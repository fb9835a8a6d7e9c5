/*
 * Records: decoding. The layout is described in docs/records.md.
 *
 * All that is in a record is checked before anything is changed: sizes against the data,
 * values against the kind of the object, and that each object appears once. The result is a
 * list of deltas for graph.c. Objects that the Manager has are themselves in it; others are
 * shells, which get their states on the way and come into the graph when the record is
 * applied.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record_parts.h"

#include "errors.h"
#include "parse.h"
#include "pickling.h"
#include "state.h"
#include "wrap.h"

#include <string.h>

/* DObject.flags */
#define FLAG_DEFINED 4 /* a shell whose state has been read */
#define FLAG_EARLY 16  /* its state was written ahead in the record that is being read */
#define FLAG_NAMED 32  /* the record that is being read changes or defines it */

#define OID_LIMIT ((uint64_t)1 << 59)

typedef struct Decoder {
    Manager *m;
    bool reuse;
    bool clash;       /* an object that the Manager has is another one in the data */
    OidTable shells;  /* wrappers made by this decoder */
    PyObject *extras; /* of the current segment */
    Record *record;   /* the current one */
    uint64_t last_counter;
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
    DObject *shell = (DObject *)type->tp_alloc(type, 0);
    if (shell != NULL) {
        shell->kind = (uint8_t)kind;
    }
    return shell;
}

/* The data come from another history: an object of ours stands for something else there. */
static int
clashes(Decoder *d)
{
    d->clash = d->reuse;
    return damaged("an object that has become another one");
}

static PyObject *
make_shell(Decoder *d, uint64_t oid, int kind)
{
    if (oid == 0 || oid >= d->record->next_oid) {
        damaged("an object whose number was never given");
        return NULL;
    }
    if (oidtable_reserve(&d->shells, 1) < 0) {
        return NULL;
    }
    DObject *shell = new_shell(kind);
    if (shell != NULL) {
        shell->manager = (Manager *)Py_NewRef((PyObject *)d->m);
        shell->oid = oid; /* not in the Manager's table yet: nobody can find it by that */
        oidtable_insert(&d->shells, shell);
    }
    return (PyObject *)shell;
}

/* The wrapper of an oid: the Manager's, one met before, or a new shell. A new reference. */
static PyObject *
find_wrapper(Decoder *d, uint64_t oid, int kind)
{
    DObject *cell = d->m->cell;
    DObject *found = oid == cell->oid ? cell : oidtable_find(&d->shells, oid);
    bool ours = false;
    if (found == NULL && d->reuse) {
        found = graph_find(d->m, oid);
        ours = found != NULL;
    }
    if (found == NULL) {
        return make_shell(d, oid, kind);
    }
    if (found->kind != kind) {
        ours ? clashes(d) : damaged("an object of two kinds");
        return NULL;
    }
    return Py_NewRef((PyObject *)found);
}

static PyObject *
find_value(Decoder *d, int64_t number)
{
    if (number >= 0) {
        return find_wrapper(d, (uint64_t)number / 8, (int)(number % 8));
    }
    uint64_t index = (uint64_t)(-1 - number);
    if (d->extras == NULL || index >= (uint64_t)PyList_GET_SIZE(d->extras)) {
        damaged("a value that is not there");
        return NULL;
    }
    PyObject *value = PyList_GET_ITEM(d->extras, index);
    if (pickling_is_stand_in(value)) {
        return tosc_raise_format(
            tosc_state->SerializationError,
            "stored data name 'builtins.getattr', which is not among the "
            "allowed classes");
    }
    return Py_NewRef(value);
}

/* What the main pickle refers to. */
static PyObject *
main_reference(int64_t number, void *arg)
{
    return find_value(arg, number);
}

/* What an extras pickle refers to. */
static PyObject *
load_reference(PyObject *capsule, PyObject *pid)
{
    Decoder *d = PyCapsule_GetPointer(capsule, NULL);
    long long number = d == NULL ? -1 : PyLong_AsLongLong(pid);
    if (d == NULL || (number == -1 && PyErr_Occurred())) {
        return NULL;
    }
    return find_value(d, number);
}

static PyMethodDef load_reference_def = {"persistent_load", load_reference, METH_O, NULL};

/* ---- items ---- */

static PyObject *
take(Items *items)
{
    if (items->next >= items->count) {
        damaged("a record ends too early");
        return NULL;
    }
    return items->values[items->next++];
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

/* A shell gets its class; an object that has one must have this one. */
static int
check_class(Decoder *d, DObject *object, PyObject *cls)
{
    PyObject *known = ((DAnyObject *)object)->cls;
    if (known == NULL) {
        return object->kind == KIND_ANY ? dany_set_class(object, cls)
                                        : opaque_set_class(object, cls);
    }
    return known == cls || d->m->tolerant ? 0 : clashes(d);
}

static PyObject *
take_opaque(Decoder *d, Items *items, DObject *object)
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
    if (check_class(d, object, cls) < 0) {
        return NULL;
    }
    return opaque_state_from(pickle, refs);
}

static PyObject *
take_any(Decoder *d, Items *items, DObject *object)
{
    PyObject *cls = take_class(items);
    PyObject *attributes = cls == NULL ? NULL : take_as(items, &PyDict_Type);
    if (attributes == NULL || check_class(d, object, cls) < 0) {
        return NULL;
    }
    return Py_NewRef(attributes);
}

static PyObject *
take_state(Decoder *d, Items *items, DObject *object)
{
    static PyTypeObject *const types[] = {&PyList_Type, &PyDict_Type, &PySet_Type,
                                          &PyByteArray_Type};
    switch (object->kind) {
    case KIND_ANY:
        return take_any(d, items, object);
    case KIND_OPAQUE:
        return take_opaque(d, items, object);
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
        return PyErr_Occurred() ? -1
                                : damaged("an operation that does not fit its object");
    }
    op->code = code;
    op->a = Py_XNewRef(a);
    op->b = Py_XNewRef(b);
    return 0;
}

/* ---- deltas ---- */

/* The record's delta of an object that it has not named before: all of it comes together. */
static Delta *
add_delta(Record *record, DObject *object)
{
    if (object->flags & FLAG_NAMED) {
        damaged("an object that is changed twice");
        return NULL;
    }
    Delta *delta = deltas_add(&record->deltas, object);
    if (delta != NULL) {
        delta->oid = object->oid;
        object->flags |= FLAG_NAMED;
    }
    return delta;
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
    Delta *delta = add_delta(record, object);
    if (delta != NULL) {
        delta->owns_ops = true;
    }
    return delta;
}

/* Steals what the operation holds, also on failure. */
static int
add_op(Record *record, DObject *object, Op *op)
{
    Delta *delta = delta_for(record, object);
    Op *ops = delta == NULL ? NULL : delta->ops;
    /* Room for powers of two only: the count tells when there is none left. */
    if (delta != NULL && (delta->n_ops & (delta->n_ops - 1)) == 0) {
        Py_ssize_t room = delta->n_ops ? delta->n_ops * 2 : 1;
        ops = PyMem_Realloc(ops, (size_t)room * sizeof(*ops));
        if (ops == NULL) {
            PyErr_NoMemory();
        } else {
            delta->ops = ops;
        }
    }
    if (ops == NULL) {
        Py_XDECREF(op->a);
        Py_XDECREF(op->b);
        return -1;
    }
    ops[delta->n_ops++] = *op;
    return 0;
}

/* A whole state. Until it is in the graph, a shell can be asked for it already (hashed, say). */
static int
add_state(Decoder *d, DObject *object, int code, PyObject *state, int keys)
{
    Delta *delta = add_delta(d->record, object);
    if (delta == NULL) {
        return -1;
    }
    delta->whole = Py_NewRef(state);
    delta->keys = object->kind == KIND_DICT || object->kind == KIND_SET ? keys : 0;
    if (object != d->m->cell && graph_find(d->m, object->oid) != object) {
        Py_XSETREF(object->state, Py_NewRef(state));
    }
    object->flags |= code == CODE_EARLY ? FLAG_DEFINED | FLAG_EARLY : FLAG_DEFINED;
    return 0;
}

static int
decode_state(Decoder *d, Items *items, DObject *object, int code)
{
    PyObject *state = take_state(d, items, object);
    if (state == NULL) {
        return -1;
    }
    int result = 0;
    if (code == OP_ASSIGN
        || !(object->flags & FLAG_EARLY)) { /* else it is the same again */
        result = add_state(d, object, code, state, items->keys);
    }
    Py_DECREF(state);
    return result;
}

static int
decode_item(Decoder *d, Items *items)
{
    Py_ssize_t code;
    if (take_number(items, &code) < 0) {
        return -1;
    }
    PyObject *target = take(items);
    if (target == NULL) {
        return -1;
    }
    if (!dobject_check(target) || ((DObject *)target)->manager != d->m) {
        return damaged("an object that is none");
    }
    DObject *object = (DObject *)target;
    if (code == CODE_DEFINE || code == CODE_EARLY || code == OP_ASSIGN) {
        return decode_state(d, items, object, (int)code);
    }
    Op op = {0};
    return take_op(items, object, (int)code, &op) < 0 ? -1
                                                      : add_op(d->record, object, &op);
}

static int
decode_items(Items *items, void *arg)
{
    while (items->next < items->count) {
        if (decode_item(arg, items) < 0) {
            return -1;
        }
    }
    return 0;
}

/* What is said of objects while their record is read is forgotten with it. */
static void
forget_flags(Record *record)
{
    for (Py_ssize_t i = 0; i < record->deltas.count; i++) {
        record->deltas.items[i].object->flags &= (uint8_t) ~(FLAG_EARLY | FLAG_NAMED);
    }
}

static PyObject *
load_extras(Decoder *d, const unsigned char *data, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *list = pickling_load(d->m, bytes, &load_reference_def, d);
    Py_DECREF(bytes);
    if (list != NULL && !PyList_CheckExact(list)) {
        Py_DECREF(list);
        damaged("a record that is no list");
        return NULL;
    }
    return list;
}

void
codec_explain(void)
{
    if (PyErr_ExceptionMatches(tosc_state->Error)
        || PyErr_ExceptionMatches(PyExc_MemoryError)
        || !PyErr_ExceptionMatches(PyExc_Exception)) {
        return;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyErr_Format(tosc_state->DataError, "the stored data cannot be decoded: %.200s: %S",
                 ((PyTypeObject *)type)->tp_name, error);
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
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return 0;
        }
    }
    return damaged("a record ends too early");
}

static int
decode_segment(Decoder *d, Cursor *c)
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
    if (extras_size > 0 && (d->extras = load_extras(d, c->data, extras_size)) == NULL) {
        codec_explain();
        return -1;
    }
    Parser parser = {.reference = main_reference, .take = decode_items, .arg = d};
    if (parse_pickle(&parser, c->data + extras_size, main_size) < 0) {
        codec_explain();
        return -1;
    }
    c->data += extras_size + main_size;
    c->left -= extras_size + main_size;
    return 0;
}

/* Oids are given once, and fit an int with the kind beside them. */
static int
decode_counter(Decoder *d, Record *record, Cursor *c)
{
    if (read_varint(c, &record->next_oid) < 0) {
        return -1;
    }
    if (record->next_oid > OID_LIMIT
        || (!record->base && record->next_oid < d->last_counter)) {
        return damaged("a counter that cannot be");
    }
    d->last_counter = record->next_oid;
    if (!record->base) {
        return 0;
    }
    /* Room for all objects at once: one of them takes 8 bytes at least. */
    uint64_t most = c->left / 8;
    return oidtable_reserve(&d->shells,
                            record->next_oid < most ? record->next_oid : most);
}

static int
decode_gone(Decoder *d, Record *record, Cursor *c)
{
    uint64_t n_gone;
    if (read_varint(c, &n_gone) < 0) {
        return -1;
    }
    if (n_gone > c->left) {
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
        uint64_t *oid = &record->gone[record->n_gone];
        if (read_varint(c, oid) < 0) {
            return -1;
        }
        if (*oid == d->m->cell->oid) {
            return damaged("the root as garbage");
        }
    }
    return 0;
}

static int
decode_body(Decoder *d, Record *record, Cursor c)
{
    uint64_t segments;
    if (decode_counter(d, record, &c) < 0 || read_varint(&c, &record->suspects) < 0
        || decode_gone(d, record, &c) < 0 || read_varint(&c, &segments) < 0) {
        return -1;
    }
    for (uint64_t i = 0; i < segments; i++) {
        if (decode_segment(d, &c) < 0) {
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
        PyErr_SetString(tosc_state->DataError,
                        "the stored data are authenticated: open them "
                        "with Manager(backend, key=...)");
        return -1;
    }
    size_t fields = base ? 2 * RECORD_MAC : RECORD_MAC;
    if (!marked || c->left < fields + body_size) {
        PyErr_SetString(tosc_state->DataError,
                        "the stored data are not authenticated with a "
                        "key; nothing of them was decoded");
        return -1;
    }
    const char *chain = base                  ? (const char *)c->data
                        : list->chain != NULL ? PyBytes_AS_STRING(list->chain)
                                              : NULL;
    const char *stored = (const char *)c->data + fields - RECORD_MAC;
    PyObject *mac = NULL;
    if (chain != NULL) {
        mac = record_mac(m->key, (const char *)header, chain,
                         (const char *)c->data + fields, body_size);
        if (mac == NULL) {
            return -1;
        }
    }
    if (mac == NULL || !record_same_mac(mac, stored)) {
        Py_XDECREF(mac);
        PyErr_SetString(tosc_state->DataError,
                        "the stored data were not written with this "
                        "key, or were changed since; nothing of them "
                        "was decoded");
        return -1;
    }
    if (base) {
        Py_SETREF(mac, PyBytes_FromStringAndSize(chain, RECORD_MAC));
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
    if (c->left < RECORD_HEADER || memcmp(header, RECORD_MAGIC, 4) != 0
        || (header[4] != 'B' && header[4] != 'C') || header[5] > 1) {
        PyErr_SetString(tosc_state->DataError,
                        "the stored data were not written by a Manager (or are damaged)");
        return -1;
    }
    uint64_t body_size = 0;
    for (int i = 0; i < 8; i++) {
        body_size |= (uint64_t)header[8 + i] << (8 * i);
    }
    c->data += RECORD_HEADER;
    c->left -= RECORD_HEADER;
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
}

static Record *
add_record(RecordList *list)
{
    /* Room for powers of two only, as above. */
    if ((list->count & (list->count - 1)) == 0) {
        size_t room = list->count ? list->count * 2 : 1;
        Record *items = PyMem_Realloc(list->items, room * sizeof(*items));
        if (items == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        list->items = items;
    }
    list->items[list->count] = (Record){0};
    return &list->items[list->count++];
}

static int
decode_all(Decoder *d, Cursor c, RecordList *ret)
{
    int result = 0;
    *ret = (RecordList){.chain = Py_XNewRef(d->m->chain)};
    while (result == 0 && c.left > 0) {
        d->record = add_record(ret);
        if (d->record == NULL) {
            return -1;
        }
        result = decode_record(d, &c, d->record, ret);
        forget_flags(d->record);
    }
    return result < 0 ? -1 : check_shells(d);
}

int
codec_decode(Manager *m, const unsigned char *data, size_t size, bool reuse,
             RecordList *ret)
{
    Decoder d = {.m = m, .reuse = reuse, .last_counter = m->next_oid};
    int result = decode_all(&d, (Cursor){data, size}, ret);
    bool whole = ret->count > 0 && ret->items[0].base;
    PyObject *type = NULL, *error = NULL, *traceback = NULL;
    if (result < 0) {
        PyErr_Fetch(&type, &error, &traceback);
        codec_records_clear(ret);
    }
    free_shells(&d, result < 0);
    Py_XDECREF(d.extras);
    PyErr_Restore(type, error, traceback);
    if (result < 0 && d.clash && whole) {
        PyErr_Clear(); /* a whole state can be had without our objects as well */
        return codec_decode(m, data, size, false, ret);
    }
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
