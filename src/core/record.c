/*
 * Framing: header and records of a data file, to and from bytes.
 *
 * docs/file-format.md is the specification. What must stay true: the first and the last
 * eight bytes of a record's header are never all zero (so a half-written header shows),
 * and a header's checksum starts from the identity of the file and the record's offset
 * (so bytes from elsewhere never pass).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/record.h"

#include <string.h>

#include "core/bytes.h"
#include "core/checksum.h"

static const unsigned char magic[8] = {0x89, 'T', 'O', 'S', 'C', '\r', '\n', 0x1a};
static const unsigned char begin_mark[4] = {'T', 'R', 'e', 'c'};
static const unsigned char end_mark[4] = {'c', 'e', 'R', 'T'};

#define FORMAT_VERSION 1
#define RECORD_CRC_AT 48
#define HEADER_CRC_AT 60

void
tosc__identity_init(struct tosc__identity *identity, const uint8_t store_id[16],
                    uint64_t generation)
{
    unsigned char bytes[24];

    memcpy(bytes, store_id, 16);
    tosc__put64(bytes + 16, generation);
    memcpy(identity->store_id, store_id, 16);
    identity->generation = generation;
    identity->seed = tosc__crc32c(0, bytes, sizeof(bytes));
}

void
tosc__header_encode(const struct tosc__identity *identity,
                    unsigned char to[TOSC__HEADER_SIZE])
{
    memset(to, 0, TOSC__HEADER_SIZE);
    memcpy(to, magic, sizeof(magic));
    tosc__put32(to + 8, FORMAT_VERSION);
    tosc__put32(to + 12, TOSC__HEADER_SIZE);
    memcpy(to + 16, identity->store_id, 16);
    tosc__put64(to + 32, identity->generation);
    tosc__put32(to + HEADER_CRC_AT, tosc__crc32c(0, to, HEADER_CRC_AT));
}

enum tosc__header_verdict
tosc__header_decode(const unsigned char *from, size_t size, struct tosc__identity *ret)
{
    size_t seen = size < sizeof(magic) ? size : sizeof(magic);

    if (memcmp(from, magic, seen) != 0) {
        return TOSC__HEADER_FOREIGN;
    }
    if (size < TOSC__HEADER_SIZE
        || tosc__get32(from + HEADER_CRC_AT) != tosc__crc32c(0, from, HEADER_CRC_AT)) {
        return TOSC__HEADER_DAMAGED;
    }
    if (tosc__get32(from + 8) != FORMAT_VERSION) {
        return TOSC__HEADER_NEWER;
    }
    if (tosc__get32(from + 12) != TOSC__HEADER_SIZE || tosc__get64(from + 32) == 0) {
        return TOSC__HEADER_DAMAGED;
    }
    tosc__identity_init(ret, from + 16, tosc__get64(from + 32));
    return TOSC__HEADER_GOOD;
}

static uint32_t
record_crc(const unsigned char *bytes, const struct tosc__identity *identity,
           uint64_t offset)
{
    unsigned char place[8];

    tosc__put64(place, offset);
    return tosc__crc32c(tosc__crc32c(identity->seed, place, sizeof(place)), bytes,
                        RECORD_CRC_AT);
}

void
tosc__record_encode(const struct tosc__record *record,
                    const struct tosc__identity *identity, uint64_t offset,
                    unsigned char to[TOSC__RECORD_SIZE])
{
    memcpy(to, begin_mark, 4);
    tosc__put32(to + 4, (uint32_t)record->kind);
    tosc__put64(to + 8, (uint64_t)record->version);
    memcpy(to + 16, record->commit_id, 16);
    tosc__put64(to + 32, record->length);
    tosc__put32(to + 40, record->payload_crc);
    tosc__put32(to + 44, record->empty_pieces);
    tosc__put32(to + RECORD_CRC_AT, record_crc(to, identity, offset));
    memcpy(to + 52, end_mark, 4);
}

bool
tosc__record_decode(const unsigned char from[TOSC__RECORD_SIZE],
                    const struct tosc__identity *identity, uint64_t offset,
                    struct tosc__record *ret)
{
    uint32_t kind;

    if (memcmp(from, begin_mark, 4) != 0 || memcmp(from + 52, end_mark, 4) != 0
        || tosc__get32(from + RECORD_CRC_AT) != record_crc(from, identity, offset)) {
        return false;
    }
    kind = tosc__get32(from + 4);
    ret->version = (int64_t)tosc__get64(from + 8);
    ret->length = tosc__get64(from + 32);
    if ((kind != TOSC__BASE && kind != TOSC__APPEND) || ret->version < 1
        || ret->length >= TOSC__PAYLOAD_MAX) {
        return false;
    }
    ret->kind = (enum tosc__kind)kind;
    memcpy(ret->commit_id, from + 16, 16);
    ret->payload_crc = tosc__get32(from + 40);
    ret->empty_pieces = tosc__get32(from + 44);
    return true;
}

uint64_t
tosc__count_empty_pieces(const unsigned char *bytes, uint64_t size, uint64_t offset)
{
    uint64_t empty = 0;

    while (size > 0) {
        uint64_t piece = TOSC__SECTOR - offset % TOSC__SECTOR;

        if (piece > size) {
            piece = size;
        }
        empty += tosc__is_zero(bytes, piece);
        bytes += piece;
        offset += piece;
        size -= piece;
    }
    return empty;
}

/*
 * The piece in which the record's header ends is never empty, so only sectors that begin
 * within the payload count. The padding is zero and takes no part, unless it is alone in
 * the last sector, which cannot be: payload and padding end on a multiple of 8, as
 * sectors do, and padding is shorter than that.
 */
uint32_t
tosc__payload_empty_pieces(const unsigned char *payload, uint64_t length, uint64_t offset)
{
    uint64_t start = offset + TOSC__RECORD_SIZE;
    uint64_t skip = -start % TOSC__SECTOR;
    uint64_t empty;

    if (skip >= length) {
        return 0;
    }
    empty = tosc__count_empty_pieces(payload + skip, length - skip, start + skip);
    return empty > UINT32_MAX ? UINT32_MAX : (uint32_t)empty;
}
