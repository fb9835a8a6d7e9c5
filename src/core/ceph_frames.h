/*
 * Records in memory: making the bytes that go into a RADOS object, and checking and
 * taking apart what came out of one. The format is that of data files. Private to core.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_CEPH_FRAMES_H
#define TOSC_CORE_CEPH_FRAMES_H

#include "core/ceph_guard.h"
#include "core/record.h"

/* Growing bytes. All zero is empty. */
struct tosc__frames {
    unsigned char *bytes;
    size_t size;
    size_t room;
    uint64_t offset; /* of the first byte in the object */
};

void tosc__frames_free(struct tosc__frames *frames);
/* The header of the object. False: no memory. */
bool tosc__frames_header(struct tosc__frames *frames,
                         const struct tosc__identity *identity);
/* One more record. `id` may be NULL. False: no memory. */
bool tosc__frames_record(struct tosc__frames *frames,
                         const struct tosc__identity *identity, enum tosc__kind kind,
                         int64_t version, const uint8_t *id, const void *data,
                         size_t size);

/* A walk over records that lie in memory. */
struct tosc__walk {
    const struct tosc__identity *identity;
    const unsigned char *bytes; /* what is in the object from `start` on */
    size_t size;
    uint64_t start;
    uint64_t offset;            /* in the object: of the next record, */
    int64_t version;            /* and the version before it */
    struct tosc__record record; /* the one just met, */
    const unsigned char *payload;
};

/* Goes to the next record. False: there is none, or it is not valid. */
bool tosc__walk_next(struct tosc__walk *walk);

#endif
