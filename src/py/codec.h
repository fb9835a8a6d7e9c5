/*
 * Records: a commit, or a whole graph, as bytes. The layout is described in docs/records.md.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_CODEC_H
#define TOSC_PY_CODEC_H

#include "emit.h"
#include "manager.h"

/* A commit on its way into the store. */
typedef struct Commit {
    Manager *manager;
    Transaction *own; /* NULL: an implicit one */
    Change *changes;  /* linked by `next` */
    DeltaList
        deltas; /* what graph_apply will do; objects that are linked now are added */
    uint64_t next_oid; /* the counter after the commit */
    uint64_t *gone;    /* garbage found */
    size_t n_gone;
    PyObject *chain; /* the authentication chain after it, or NULL */
    PyObject *carry; /* a base that replaces records: the chain after these, or NULL */
    tosc_commit_id id;
} Commit;

/*
 * Appends the record to `ret`: of the changes, or with `base` of the whole graph as it is
 * with them. New objects get their oids (codec_forget_oids takes them back). Runs Python code.
 */
int codec_encode(Commit *commit, bool base, Buffer *ret);
void codec_forget_oids(Commit *commit);

/* A record that was read. */
typedef struct Record {
    bool base;
    DeltaList deltas;
    uint64_t next_oid;
    uint64_t suspects;
    uint64_t *gone;
    size_t n_gone;
} Record;

typedef struct RecordList {
    Record *items;
    size_t count;
    PyObject *chain; /* after the last one */
} RecordList;

/*
 * Decodes all records in `data`. With `reuse`, objects that the Manager has are the same
 * objects in the result. Nothing is changed. -1: DataError or SerializationError.
 */
int codec_decode(Manager *m, const unsigned char *data, size_t size, bool reuse,
                 RecordList *ret);
void codec_records_clear(RecordList *list);
/* What went wrong with data that were read is damage, unless it says something more exact itself. */
void codec_explain(void);

/* For opaque.c: any object, with wrappers replaced by their place in the tuple of refs. */
PyObject *codec_dumps(PyObject *object, PyObject **ret_refs);
PyObject *codec_loads(Manager *m, PyObject *bytes, PyObject *refs);

/* From an iterable of classes and "module.name" strings to what Manager.allowed holds. */
PyObject *codec_allowed(PyObject *iterable);

#endif
