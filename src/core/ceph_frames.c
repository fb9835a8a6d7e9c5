/*
 * Records in memory.
 *
 * What is valid is said in docs/file-format.md; the pieces come from record.c. Nothing
 * here is ever torn: RADOS applies an operation wholly or not at all, so whatever does
 * not fit is damage, and that is for the caller to say.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/ceph_frames.h"

#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/sys.h"

void
tosc__frames_free(struct tosc__frames *frames)
{
    free(frames->bytes);
    *frames = (struct tosc__frames){.bytes = NULL};
}

/* Room for `more` bytes, which it returns, or NULL. */
static unsigned char *
grow(struct tosc__frames *frames, uint64_t more)
{
    unsigned char *at;

    if (more > SIZE_MAX / 4 || frames->size > SIZE_MAX / 4) {
        return NULL;
    }
    if (frames->size + more > frames->room) {
        size_t room = frames->size + (size_t)more;
        unsigned char *bytes;

        room += frames->size > 0 ? room / 2 : 0;
        bytes = tosc__sys.malloc(room);
        if (bytes == NULL) {
            return NULL;
        }
        if (frames->size > 0) {
            memcpy(bytes, frames->bytes, frames->size);
        }
        free(frames->bytes);
        frames->bytes = bytes;
        frames->room = room;
    }
    at = frames->bytes + frames->size;
    frames->size += (size_t)more;
    return at;
}

bool
tosc__frames_header(struct tosc__frames *frames, const struct tosc__identity *identity)
{
    unsigned char *at = grow(frames, TOSC__HEADER_SIZE);

    if (at != NULL) {
        tosc__header_encode(identity, at);
    }
    return at != NULL;
}

bool
tosc__frames_record(struct tosc__frames *frames, const struct tosc__identity *identity,
                    enum tosc__kind kind, int64_t version, const uint8_t *id,
                    const void *data, size_t size)
{
    struct tosc__record record = {.kind = kind, .version = version, .length = size};
    uint64_t offset = frames->offset + frames->size;
    unsigned char *at = grow(frames, tosc__record_extent(size));

    if (at == NULL) {
        return false;
    }
    if (id != NULL) {
        memcpy(record.commit_id, id, sizeof(record.commit_id));
    }
    record.payload_crc = tosc__crc32c(0, data, size);
    if (kind == TOSC__APPEND) {
        record.empty_pieces = tosc__payload_empty_pieces(data, size, offset);
    }
    tosc__record_encode(&record, identity, offset, at);
    if (size > 0) {
        memcpy(at + TOSC__RECORD_SIZE, data, size);
    }
    memset(at + TOSC__RECORD_SIZE + size, 0, tosc__padding(size));
    return true;
}

bool
tosc__walk_next(struct tosc__walk *walk)
{
    uint64_t from = walk->offset - walk->start;
    const unsigned char *at = walk->bytes + from;
    struct tosc__record *record = &walk->record;
    uint64_t extent;

    if (walk->offset < walk->start || from > walk->size
        || walk->size - from < TOSC__RECORD_SIZE
        || !tosc__record_decode(at, walk->identity, walk->offset, record)
        || record->version != walk->version + 1
        || (record->kind == TOSC__BASE) != (walk->offset == TOSC__HEADER_SIZE)) {
        return false;
    }
    extent = tosc__record_extent(record->length);
    walk->payload = at + TOSC__RECORD_SIZE;
    if (extent > walk->size - from
        || tosc__crc32c(0, walk->payload, (size_t)record->length) != record->payload_crc
        || !tosc__is_zero(walk->payload + record->length,
                          tosc__padding(record->length))) {
        return false;
    }
    walk->offset += extent;
    walk->version = record->version;
    return true;
}
