/*
 * Guard and history: the attributes of a store's RADOS object; and positions.
 *
 * The guard is compared as a whole, as bytes, by every operation that changes the object,
 * and set by it. So its encoding must be the same for the same content, and every change
 * must make it another one: a commit by its version, anything else by its fence.
 *
 * The history answers one question, "which commit made version V?", for versions whose
 * records a replacement or a compaction has taken away.
 *
 * A version is made twice only where an older copy was put in the place of the object:
 * then there are two states of the same version. So a position's cookie has a digest of the
 * id of the commit that made its version. It also says where the content goes on. Both are
 * believed only if the cookie's checksum is right, as others may make cookies up.
 *
 *     cookie[0]  a digest of the generation (high), a checksum of all the rest (low)
 *     cookie[1]  a digest of the commit id (28 bits), an offset (36 bits, of which the
 *                lowest is not needed: it says whether the last record begins or ends
 *                there)
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
    ret->last = 0;
    return ret->version >= 0 && ret->version < INT64_MAX && ret->base_version >= 0
           && ret->base_version <= ret->version && ret->base_end <= ret->tail
           && (ret->version == 0
               || (ret->base_version > 0
                   && ret->base_end >= TOSC__HEADER_SIZE + TOSC__RECORD_SIZE));
}

/* ---- positions ---- */

#define OFFSET_BITS 36
#define OFFSET_MASK ((UINT64_C(1) << OFFSET_BITS) - 1)
#define AT_RECORD UINT64_C(1)
/* A last record that is not larger is read once more, to see whether it is the same. */
#define PROOF_MAX 16384

/*
 * Depends on all of the id: half of it may be the same for all commits of a process. 0
 * for that of a base which a compaction has made; it is zero, and says nothing.
 */
static uint32_t
digest_of_id(const uint8_t id[16])
{
    uint64_t mix = tosc__get64(id) ^ tosc__get64(id + 8) * UINT64_C(0x9e3779b97f4a7c15);

    return (uint32_t)(mix * UINT64_C(0xbf58476d1ce4e5b9) >> OFFSET_BITS);
}

static uint32_t
digest_of_generation(uint64_t generation)
{
    return (uint32_t)(generation >> 32 ^ generation);
}

static uint32_t
seal(const tosc_position *at)
{
    unsigned char bytes[36];

    memcpy(bytes, at->store_id, 16);
    tosc__put64(bytes + 16, (uint64_t)at->version);
    tosc__put32(bytes + 24, (uint32_t)(at->cookie[0] >> 32));
    tosc__put64(bytes + 28, at->cookie[1]);
    return tosc__crc32c(0, bytes, sizeof(bytes));
}

tosc_position
tosc__guard_position(const struct tosc__guard *guard)
{
    tosc_position at = {.stored = guard->version > 0};

    if (at.stored) {
        bool prove = guard->last > 0 && guard->tail - guard->last <= PROOF_MAX;

        at.version = guard->version;
        memcpy(at.store_id, guard->store_id, sizeof(at.store_id));
        at.cookie[1] = (uint64_t)digest_of_id(guard->commit_id) << OFFSET_BITS;
        at.cookie[1] |= (prove ? guard->last | AT_RECORD : guard->tail) & OFFSET_MASK;
        at.cookie[0] = (uint64_t)digest_of_generation(guard->generation) << 32;
        at.cookie[0] |= seal(&at);
    }
    return at;
}

struct tosc__hint
tosc__position_hint(const tosc_position *at)
{
    return (struct tosc__hint){.valid = at->stored && (uint32_t)at->cookie[0] == seal(at),
                               .base = (uint32_t)(at->cookie[0] >> 32),
                               .commit = (uint32_t)(at->cookie[1] >> OFFSET_BITS),
                               .offset = at->cookie[1] & OFFSET_MASK & ~AT_RECORD,
                               .at_record = (at->cookie[1] & AT_RECORD) != 0};
}

bool
tosc__position_is_of(const tosc_position *at, uint64_t generation)
{
    const struct tosc__hint hint = tosc__position_hint(at);

    return hint.valid && hint.base == digest_of_generation(generation);
}

bool
tosc__position_may_be(const tosc_position *at, const uint8_t id[16])
{
    const struct tosc__hint hint = tosc__position_hint(at);
    uint32_t digest = digest_of_id(id);

    return !hint.valid || hint.commit == digest || hint.commit == 0 || digest == 0;
}

bool
tosc__same_position(const tosc_position *a, const tosc_position *b)
{
    struct tosc__hint one;
    struct tosc__hint other;

    if (!a->stored || !b->stored) {
        return a->stored == b->stored;
    }
    if (a->version != b->version
        || memcmp(a->store_id, b->store_id, sizeof(a->store_id)) != 0) {
        return false;
    }
    one = tosc__position_hint(a);
    other = tosc__position_hint(b);
    return !one.valid || !other.valid || one.commit == other.commit || one.commit == 0
           || other.commit == 0;
}

/* ---- history ---- */

/* How many are of newer versions; mostly without a gap, so the place is known. */
static int
newer_than(const struct tosc__history *history, int64_t version)
{
    const struct tosc__made *made = history->made;
    int newer = history->count;

    if (newer > 0 && made[0].version - version < newer) {
        newer = made[0].version > version ? (int)(made[0].version - version) : 0;
    }
    while (newer > 0 && made[newer - 1].version <= version) {
        newer--;
    }
    return newer;
}

/* Takes `count` away at `index`. */
static void
take_out(struct tosc__history *history, int index, int count)
{
    history->count -= count;
    memmove(&history->made[index], &history->made[index + count],
            (size_t)(history->count - index) * sizeof(history->made[0]));
}

void
tosc__history_add(struct tosc__history *history, int64_t version, const uint8_t id[16])
{
    struct tosc__made *made = history->made;
    int newer = newer_than(history, version);

    if (tosc__is_zero(id, sizeof(made->id))) {
        return;
    }
    if (newer < history->count && made[newer].version == version) {
        if (memcmp(made[newer].id, id, sizeof(made[newer].id)) == 0) {
            return;
        }
        take_out(history, 0, newer + 1);
        newer = 0;
    }
    if (newer == TOSC__HISTORY_MAX) {
        return;
    }
    if (history->count == TOSC__HISTORY_MAX) {
        history->count--;
    }
    memmove(&made[newer + 1], &made[newer],
            (size_t)(history->count - newer) * sizeof(made[0]));
    made[newer].version = version;
    memcpy(made[newer].id, id, sizeof(made[newer].id));
    history->count++;
}

void
tosc__history_merge(struct tosc__history *history, const struct tosc__history *from)
{
    if (tosc__history_differs(history, from)) {
        history->count = 0;
    }
    for (int i = 0; i < from->count; i++) {
        tosc__history_add(history, from->made[i].version, from->made[i].id);
    }
}

bool
tosc__history_differs(const struct tosc__history *a, const struct tosc__history *b)
{
    for (int i = 0; i < a->count; i++) {
        const uint8_t *id = tosc__history_find(b, a->made[i].version);

        if (id != NULL && memcmp(id, a->made[i].id, sizeof(a->made[i].id)) != 0) {
            return true;
        }
    }
    return false;
}

void
tosc__history_cut(struct tosc__history *history, int64_t newest)
{
    take_out(history, 0, newer_than(history, newest));
}

const uint8_t *
tosc__history_find(const struct tosc__history *history, int64_t version)
{
    int newer = newer_than(history, version);

    return newer < history->count && history->made[newer].version == version
               ? history->made[newer].id
               : NULL;
}

size_t
tosc__history_encode(const struct tosc__history *history,
                     unsigned char to[TOSC__HISTORY_ROOM])
{
    int64_t newest = history->count > 0 ? history->made[0].version : 0;
    size_t size = 16;
    int count = 0;

    while (count < history->count && history->made[count].version == newest - count) {
        memcpy(to + size, history->made[count].id, 16);
        size += 16;
        count++;
    }
    tosc__put64(to, (uint64_t)newest);
    tosc__put32(to + 8, (uint32_t)count);
    tosc__put32(to + 12, tosc__crc32c(tosc__crc32c(0, to, 12), to + 16, size - 16));
    return size;
}

void
tosc__history_decode(const unsigned char *from, size_t size, struct tosc__history *ret)
{
    uint32_t count = size >= 16 ? tosc__get32(from + 8) : 0;
    int64_t newest = size >= 16 ? (int64_t)tosc__get64(from) : 0;

    ret->count = 0;
    if (count == 0 || count > TOSC__HISTORY_MAX || size != 16 + 16 * (size_t)count
        || newest < (int64_t)count
        || tosc__get32(from + 12)
               != tosc__crc32c(tosc__crc32c(0, from, 12), from + 16, size - 16)) {
        return;
    }
    while (ret->count < (int)count) {
        ret->made[ret->count].version = newest - ret->count;
        memcpy(ret->made[ret->count].id, from + 16 + 16 * ret->count, 16);
        ret->count++;
    }
}
