/*
 * The attributes of a store's RADOS object, to and from bytes: its guard, which every
 * change compares and sets, and its history. docs/ceph.md has the layout. Pure memory.
 * Private.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_CEPH_GUARD_H
#define TOSC_CORE_CEPH_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tosc/sys/backend.h>

#define TOSC__GUARD_NAME "tosc.guard"
#define TOSC__GUARD_SIZE 96
#define TOSC__HOLDER_NAME "tosc.holder"
#define TOSC__HOLDER_SIZE 16
#define TOSC__HISTORY_NAME "tosc.history"
#define TOSC__HISTORY_MAX 32
#define TOSC__HISTORY_ROOM (16 + 16 * TOSC__HISTORY_MAX)

/* What the object is at. */
struct tosc__guard {
    uint8_t store_id[16];
    uint64_t generation;
    int64_t version; /* 0: nothing is stored; then all up to `fence` is zero */
    int64_t base_version;
    uint64_t base_end;     /* offset after the base record */
    uint64_t tail;         /* offset after the last record */
    uint8_t commit_id[16]; /* of the last record */
    uint64_t fence;        /* another random number whenever something else changes */
};

void tosc__guard_encode(const struct tosc__guard *guard,
                        unsigned char to[TOSC__GUARD_SIZE]);
/* False: these bytes are no guard. */
bool tosc__guard_decode(const unsigned char *from, size_t size, struct tosc__guard *ret);

tosc_position tosc__guard_position(const struct tosc__guard *guard);
/* Whether the two name the same state of the same store. */
bool tosc__same_position(const tosc_position *a, const tosc_position *b);

/* The commit ids of the last versions up to `newest`, without a gap. */
struct tosc__history {
    int64_t newest;
    int count;                          /* 0: nothing is known */
    uint8_t ids[TOSC__HISTORY_MAX][16]; /* of newest, newest - 1, … */
};

/*
 * Ids of versions that do not join on to what is there replace it; older ones are
 * dropped.
 */
void tosc__history_add(struct tosc__history *history, int64_t version,
                       const uint8_t id[16]);
/* Adds what `from` has. */
void tosc__history_merge(struct tosc__history *history, const struct tosc__history *from);
/* The id of this version, or NULL. */
const uint8_t *tosc__history_find(const struct tosc__history *history, int64_t version);
/* Returns the number of bytes. */
size_t tosc__history_encode(const struct tosc__history *history,
                            unsigned char to[TOSC__HISTORY_ROOM]);
/* What cannot be understood is no history. */
void tosc__history_decode(const unsigned char *from, size_t size,
                          struct tosc__history *ret);

#endif
