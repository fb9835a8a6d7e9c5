/*
 * Framing: the bytes of a data file's header and records, as docs/file-format.md has
 * them. Pure memory; nothing here touches a file. Private to core.
 */
#ifndef TOSC_CORE_RECORD_H
#define TOSC_CORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOSC__HEADER_SIZE 64
#define TOSC__RECORD_SIZE 56 /* of a record's own header */
#define TOSC__RECORD_ALIGN 8
#define TOSC__SECTOR 512
#define TOSC__PAYLOAD_MAX (UINT64_C(1) << 62)

enum tosc__kind { TOSC__BASE = 1, TOSC__APPEND = 2 };

/* Which file this is. `seed` is the checksum that every record's begins with. */
struct tosc__identity {
    uint8_t store_id[16];
    uint64_t generation;
    uint32_t seed;
};

struct tosc__record {
    enum tosc__kind kind;
    int64_t version;
    uint8_t commit_id[16];
    uint64_t length; /* of the payload */
    uint32_t payload_crc;
    uint32_t empty_pieces;
};

enum tosc__header_verdict {
    TOSC__HEADER_GOOD,
    TOSC__HEADER_FOREIGN, /* not the magic */
    TOSC__HEADER_NEWER,   /* another format version, undamaged */
    TOSC__HEADER_DAMAGED
};

void tosc__identity_init(struct tosc__identity *identity, const uint8_t store_id[16],
                         uint64_t generation);

void tosc__header_encode(const struct tosc__identity *identity,
                         unsigned char to[TOSC__HEADER_SIZE]);
/* `size` bytes of the file are there, which may be fewer than a header. */
enum tosc__header_verdict tosc__header_decode(const unsigned char *from, size_t size,
                                              struct tosc__identity *ret);

void tosc__record_encode(const struct tosc__record *record,
                         const struct tosc__identity *identity, uint64_t offset,
                         unsigned char to[TOSC__RECORD_SIZE]);
/* False if these are not the header of a record of this file at this offset. */
bool tosc__record_decode(const unsigned char from[TOSC__RECORD_SIZE],
                         const struct tosc__identity *identity, uint64_t offset,
                         struct tosc__record *ret);

static inline size_t
tosc__padding(uint64_t length)
{
    return (size_t)(-length % TOSC__RECORD_ALIGN);
}

/* Header, payload and padding. */
static inline uint64_t
tosc__record_extent(uint64_t length)
{
    return TOSC__RECORD_SIZE + length + tosc__padding(length);
}

/*
 * How many pieces of `size` bytes that begin at file offset `offset` are all zero, where
 * a piece is what lies in one sector. Feed a record in any cuts that fall on sector
 * bounds.
 */
uint64_t tosc__count_empty_pieces(const unsigned char *bytes, uint64_t size,
                                  uint64_t offset);

/* The same for a payload that follows a record's header at `offset`, padding included. */
uint32_t tosc__payload_empty_pieces(const unsigned char *payload, uint64_t length,
                                    uint64_t offset);

#endif
