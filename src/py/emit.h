/*
 * Writing pickle opcodes: what a record's values look like as bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_EMIT_H
#define TOSC_PY_EMIT_H

#include "dobject.h"

typedef struct Buffer {
    char *data;
    size_t size;
    size_t room;
} Buffer;

int buffer_reserve(Buffer *b, size_t more); /* -1: MemoryError */
int buffer_put(Buffer *b, const void *data, size_t size);
int buffer_varint(Buffer *b, uint64_t value);
void buffer_free(Buffer *b);

/*
 * One pickle in the making. Wrappers become persistent ids, oid * 8 + kind; values that are
 * no builtin atoms become -1 - i, where i is their place in `extras`, which is pickled by the
 * pickle module. Strings that are used more than once are written once.
 */
typedef struct Emitter {
    Buffer out;
    PyObject *extras;                                /* list */
    uint64_t (*oid_of)(DObject *wrapper, void *arg); /* 0: exception */
    int (*hashed)(DObject *wrapper, void *arg);      /* told of what reading will hash */
    void *arg;
    /* strings that have been written: address -> place in the unpickler's memo */
    PyObject **memo;
    size_t memo_size;
    size_t memo_used;
    uint32_t *memo_index;
    size_t since_breath; /* values written since the GIL was last offered */
    bool breathe;        /* let other threads run in long states */
} Emitter;

int emit_start(Emitter *e);  /* header and opening of the list of items */
int emit_finish(Emitter *e); /* closes it */
void emit_free(Emitter *e);

int emit_int(Emitter *e, int64_t value);
int emit_ref(Emitter *e, DObject *wrapper);
int emit_value(Emitter *e, PyObject *value);
int emit_key(Emitter *e, PyObject *key); /* of a dict, or element of a set */
int emit_extra(Emitter *e, PyObject *value);
int emit_list(Emitter *e, PyObject *list);
int emit_dict(Emitter *e, PyObject *dict);
int emit_set(Emitter *e, PyObject *set); /* any iterable; read back as a set */
int emit_bytes(Emitter *e, const char *data, Py_ssize_t size);
int emit_bytearray(Emitter *e, PyObject *array);

#endif
