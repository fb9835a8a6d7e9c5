/*
 * Guard and history: the attributes of a store's RADOS object.
 *
 * The guard is compared as a whole, as bytes, by every operation that changes the object,
 * and set by it. So its encoding must be the same for the same content, and every change
 * must make it another one: a commit by its version, anything else by its fence.
 *
 * The history answers one question, "which commit made version V?", for versions whose
 * records a replacement or a compaction has taken away.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/ceph_guard.h"

#include <string.h>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/record.h"

static const unsigned char guard_magic[8] = {'T', 'O', 'S', 'C', 'o', 'b', 'j', '1'};

#define GUARD_CRC_AT (TOSC__GUARD_SIZE - 4)

void
tosc__guard_encode(const struct tosc__guard *guard, unsigned char to[TOSC__GUARD_SIZE])
{
    memcpy(to, guard_magic, 8);
    memcpy(to + 8, guard->store_id, 16);
    tosc__put64(to + 24, guard->generation);
    tosc__put64(to + 32, (uint64_t)guard->version);
    tosc__put64(to + 40, (uint64_t)guard->base_version);
    tosc__put64(to + 48, guard->base_end);
    tosc__put64(to + 56, guard->tail);
    memcpy(to + 64, guard->commit_id, 16);
    tosc__put64(to + 80, guard->fence);
    tosc__put32(to + 88, 0);
    tosc__put32(to + GUARD_CRC_AT, tosc__crc32c(0, to, GUARD_CRC_AT));
}

bool
tosc__guard_decode(const unsigned char *from, size_t size, struct tosc__guard *ret)
{
    if (size != TOSC__GUARD_SIZE || memcmp(from, guard_magic, 8) != 0
        || tosc__get32(from + GUARD_CRC_AT) != tosc__crc32c(0, from, GUARD_CRC_AT)) {
        return false;
    }
    memcpy(ret->store_id, from + 8, 16);
    ret->generation = tosc__get64(from + 24);
    ret->version = (int64_t)tosc__get64(from + 32);
    ret->base_version = (int64_t)tosc__get64(from + 40);
    ret->base_end = tosc__get64(from + 48);
    ret->tail = tosc__get64(from + 56);
    memcpy(ret->commit_id, from + 64, 16);
    ret->fence = tosc__get64(from + 80);
    return ret->version >= 0 && ret->version < INT64_MAX && ret->base_version >= 0
           && ret->base_version <= ret->version && ret->base_end <= ret->tail
           && (ret->version == 0
               || (ret->base_version > 0
                   && ret->base_end >= TOSC__HEADER_SIZE + TOSC__RECORD_SIZE));
}

tosc_position
tosc__guard_position(const struct tosc__guard *guard)
{
    tosc_position at = {.stored = guard->version > 0};

    if (at.stored) {
        at.version = guard->version;
        memcpy(at.store_id, guard->store_id, sizeof(at.store_id));
        at.cookie[0] = guard->generation;
        at.cookie[1] = guard->tail;
    }
    return at;
}

bool
tosc__same_position(const tosc_position *a, const tosc_position *b)
{
    if (!a->stored || !b->stored) {
        return a->stored == b->stored;
    }
    return a->version == b->version
           && memcmp(a->store_id, b->store_id, sizeof(a->store_id)) == 0;
}

/* ---- history ---- */

void
tosc__history_add(struct tosc__history *history, int64_t version, const uint8_t id[16])
{
    if (history->count > 0 && version <= history->newest) {
        return;
    }
    if (history->count == 0 || version != history->newest + 1) {
        history->count = 0;
    } else if (history->count == TOSC__HISTORY_MAX) {
        history->count--;
    }
    memmove(history->ids[1], history->ids[0],
            (size_t)history->count * sizeof(history->ids[0]));
    memcpy(history->ids[0], id, sizeof(history->ids[0]));
    history->count++;
    history->newest = version;
}

void
tosc__history_merge(struct tosc__history *history, const struct tosc__history *from)
{
    for (int i = from->count - 1; i >= 0; i--) {
        tosc__history_add(history, from->newest - i, from->ids[i]);
    }
}

const uint8_t *
tosc__history_find(const struct tosc__history *history, int64_t version)
{
    int64_t back = history->newest - version;

    return back >= 0 && back < history->count ? history->ids[back] : NULL;
}

size_t
tosc__history_encode(const struct tosc__history *history,
                     unsigned char to[TOSC__HISTORY_ROOM])
{
    size_t size = 16 + 16 * (size_t)history->count;

    tosc__put64(to, (uint64_t)history->newest);
    tosc__put32(to + 8, (uint32_t)history->count);
    memcpy(to + 16, history->ids, size - 16);
    tosc__put32(to + 12, tosc__crc32c(tosc__crc32c(0, to, 12), to + 16, size - 16));
    return size;
}

void
tosc__history_decode(const unsigned char *from, size_t size, struct tosc__history *ret)
{
    uint32_t count = size >= 16 ? tosc__get32(from + 8) : 0;

    ret->count = 0;
    ret->newest = 0;
    if (count == 0 || count > TOSC__HISTORY_MAX || size != 16 + 16 * (size_t)count
        || tosc__get32(from + 12)
               != tosc__crc32c(tosc__crc32c(0, from, 12), from + 16, size - 16)) {
        return;
    }
    ret->newest = (int64_t)tosc__get64(from);
    ret->count = ret->newest >= (int64_t)count ? (int)count : 0;
    memcpy(ret->ids, from + 16, size - 16);
}
