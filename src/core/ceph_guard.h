/*
 * The attributes of a store's RADOS object, to and from bytes: its guard, which every
 * change compares and sets, and its history (docs/ceph.md has the layout); and positions
 * in such a store. Pure memory. Private.
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
#define TOSC__HISTORY_MAX 128
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
    /* Not in the attribute: the offset of the last record; 0: not known, or the base. */
    uint64_t last;
};

void tosc__guard_encode(const struct tosc__guard *guard,
                        unsigned char to[TOSC__GUARD_SIZE]);
/* False: these bytes are no guard. */
bool tosc__guard_decode(const unsigned char *from, size_t size, struct tosc__guard *ret);

/* ---- positions ---- */

tosc_position tosc__guard_position(const struct tosc__guard *guard);
/*
 * Whether the two name the same state of the same store, which has the same version, made
 * by the same commit as far as their cookies tell.
 */
bool tosc__same_position(const tosc_position *a, const tosc_position *b);

/* What a position's cookie says. */
struct tosc__hint {
    bool valid;      /* else the cookie is none of ours, and nothing below is known */
    uint32_t base;   /* a digest of the generation, */
    uint32_t commit; /* and of the id of the commit that made its version */
    /* Where reading on begins: */
    uint64_t offset;
    bool at_record; /* with the record of its version; else after that */
};

struct tosc__hint tosc__position_hint(const tosc_position *at);
/* Whether the content that `at` comes from was of this generation. */
bool tosc__position_is_of(const tosc_position *at, uint64_t generation);
/* False: not this commit has made the version of `at`. */
bool tosc__position_may_be(const tosc_position *at, const uint8_t id[16]);

/* ---- history ---- */

/* Which commits made which versions, as far as known: the newest, in falling order. */
struct tosc__history {
    int count;
    struct tosc__made {
        int64_t version;
        uint8_t id[16];
    } made[TOSC__HISTORY_MAX];
};

/*
 * If another commit is known to have made this version, the store went back: that and all
 * newer ones are forgotten. An id of zeros is none, and not added.
 */
void tosc__history_add(struct tosc__history *history, int64_t version,
                       const uint8_t id[16]);
/*
 * Adds what `from` has. If the two contradict each other, what `history` has is of
 * something that was replaced by an older copy, and is all forgotten.
 */
void tosc__history_merge(struct tosc__history *history, const struct tosc__history *from);
/* Whether the two know of different commits for one version. */
bool tosc__history_differs(const struct tosc__history *a, const struct tosc__history *b);
/* Forgets versions above `newest`. */
void tosc__history_cut(struct tosc__history *history, int64_t newest);
/* The id of this version, or NULL. */
const uint8_t *tosc__history_find(const struct tosc__history *history, int64_t version);
/* The newest and those before it without a gap. Returns the number of bytes. */
size_t tosc__history_encode(const struct tosc__history *history,
                            unsigned char to[TOSC__HISTORY_ROOM]);
/* What cannot be understood is no history. */
void tosc__history_decode(const unsigned char *from, size_t size,
                          struct tosc__history *ret);

#endif
