/*
 * Reading one data file: loading its records, and judging what ends them.
 *
 * The loader reads the file through a window, so that a run of small records costs one
 * read; a payload that does not fit goes straight to where it is wanted. It trusts
 * nothing but checksums. Whether what it stopped at is a torn tail or damage is decided
 * apart from it, in tosc__file_judge(), which must only be believed when no write can be
 * under way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/fileio.h"
#include "core/filestore.h"
#include "core/sys.h"

#define WINDOW ((size_t)128 << 10)
#define SMALL_WINDOW ((size_t)4 << 10)

/* ---- loading ---- */

struct loader {
    const struct tosc__file *file;
    const char *path;
    uint64_t limit; /* nothing is read at or beyond it */
    unsigned char *window;
    size_t room;
    uint64_t start; /* file offset of the window */
    size_t filled;
    tosc_blob *sink; /* NULL: payloads are only checked */
    size_t used;     /* of the sink, */
    size_t capacity; /* which has this much */
};

/*
 * Has the window hold up to `size` bytes from `offset`; *ret_have is less at the limit.
 */
static int
look_at(struct loader *loader, uint64_t offset, size_t size,
        const unsigned char **ret_bytes, size_t *ret_have)
{
    uint64_t end = loader->start + loader->filled;
    size_t want;
    int status;

    if (offset < loader->start || offset + size > end) {
        want = loader->room;
        if (offset >= loader->limit) {
            want = 0;
        } else if (want > loader->limit - offset) {
            want = (size_t)(loader->limit - offset);
        }
        loader->start = offset;
        status = tosc__file_pread(loader->file, loader->path, loader->window, want,
                                  offset, &loader->filled);
        if (status != 0) {
            loader->filled = 0;
            return status;
        }
        end = offset + loader->filled;
    }
    *ret_bytes = loader->window + (offset - loader->start);
    *ret_have = (size_t)(end - offset) < size ? (size_t)(end - offset) : size;
    return 0;
}

static bool
payload_is_good(const unsigned char *payload, const struct tosc__record *record)
{
    return tosc__crc32c(0, payload, record->length) == record->payload_crc
           && tosc__is_zero(payload + record->length, tosc__padding(record->length));
}

/* A payload too large for the window, straight into the sink. */
static int
load_large(struct loader *loader, const struct tosc__record *record, uint64_t offset,
           bool *ret_good)
{
    size_t size = (size_t)record->length + tosc__padding(record->length);
    unsigned char *to = loader->sink->data + loader->used;
    size_t have;
    int status = tosc__file_pread(loader->file, loader->path, to, size, offset, &have);

    if (status == 0) {
        *ret_good = have == size && payload_is_good(to, record);
    }
    return status;
}

/* The same when nobody wants the bytes. */
static int
check_large(struct loader *loader, const struct tosc__record *record, uint64_t offset,
            bool *ret_good)
{
    uint64_t left = record->length;
    uint32_t crc = 0;
    const unsigned char *bytes;
    size_t have;
    int status;

    *ret_good = false;
    while (left > 0) {
        size_t want = left < loader->room ? (size_t)left : loader->room;

        status = look_at(loader, offset, want, &bytes, &have);
        if (status != 0 || have < want) {
            return status;
        }
        crc = tosc__crc32c(crc, bytes, want);
        offset += want;
        left -= want;
    }
    status = look_at(loader, offset, tosc__padding(record->length), &bytes, &have);
    *ret_good = status == 0 && crc == record->payload_crc
                && have == tosc__padding(record->length) && tosc__is_zero(bytes, have);
    return status;
}

/* The payload of the record at `offset`, whose header is good. */
static int
load_payload(struct loader *loader, const struct tosc__record *record, uint64_t offset,
             bool wanted, bool *ret_good)
{
    uint64_t extent = tosc__record_extent(record->length);
    const unsigned char *bytes;
    size_t have;
    int status;

    *ret_good = false;
    if (extent > loader->limit - offset) {
        return 0;
    }
    wanted = wanted && loader->sink != NULL;
    if (extent > loader->room) {
        status = wanted
                     ? load_large(loader, record, offset + TOSC__RECORD_SIZE, ret_good)
                     : check_large(loader, record, offset + TOSC__RECORD_SIZE, ret_good);
    } else {
        status = look_at(loader, offset, (size_t)extent, &bytes, &have);
        if (status != 0 || have < extent) {
            return status;
        }
        *ret_good = payload_is_good(bytes + TOSC__RECORD_SIZE, record);
        if (*ret_good && wanted && record->length > 0) {
            memcpy(loader->sink->data + loader->used, bytes + TOSC__RECORD_SIZE,
                   (size_t)record->length);
        }
    }
    if (status == 0 && *ret_good && wanted) {
        loader->used += (size_t)record->length;
    }
    return status;
}

static int
only_zeros_follow(struct loader *loader, uint64_t offset, bool *ret)
{
    for (;;) {
        const unsigned char *bytes;
        size_t have;
        int status = look_at(loader, offset, loader->room, &bytes, &have);

        if (status != 0) {
            return status;
        }
        if (have == 0 || !tosc__is_zero(bytes, have)) {
            *ret = have == 0;
            return 0;
        }
        offset += have;
    }
}

/* One record further. *ret_more false: the end or something invalid, see *ret_stop. */
static int
load_next(struct loader *loader, const struct tosc__load *load, struct tosc__place *place,
          bool *ret_more, enum tosc__stop *ret_stop, bool *ret_found)
{
    struct tosc__record record;
    const unsigned char *bytes;
    size_t have;
    bool good = false;
    int status = look_at(loader, place->offset, TOSC__RECORD_SIZE, &bytes, &have);

    *ret_more = false;
    if (status != 0) {
        return status;
    }
    if (have == TOSC__RECORD_SIZE
        && tosc__record_decode(bytes, &loader->file->identity, place->offset, &record)
        && record.version == place->version + 1
        && (record.kind == TOSC__BASE) == (place->offset == TOSC__HEADER_SIZE)) {
        status = load_payload(loader, &record, place->offset,
                              record.version > load->after, &good);
    }
    if (status != 0) {
        return status;
    }
    if (good) {
        if (load->id != NULL && memcmp(load->id, record.commit_id, 16) == 0) {
            *ret_found = true;
        }
        place->offset += tosc__record_extent(record.length);
        place->version = record.version;
        *ret_more = true;
        return 0;
    }
    status = only_zeros_follow(loader, place->offset, &good);
    *ret_stop = good ? TOSC__STOP_END : TOSC__STOP_INVALID;
    return status;
}

/* The payloads take less room than their records, so the sink never has to grow. */
static int
make_sink(struct loader *loader, uint64_t from)
{
    uint64_t size = loader->limit > from ? loader->limit - from : 0;

    if (size > SIZE_MAX / 2) {
        return tosc__file_no_memory(loader->path);
    }
    loader->sink = tosc_blob_new((size_t)size);
    loader->capacity = (size_t)size;
    return loader->sink != NULL ? 0 : tosc__file_no_memory(loader->path);
}

/* Gives up what the framing took, when that is worth a copy. */
static tosc_blob *
finish_sink(struct loader *loader)
{
    tosc_blob *blob = loader->sink;

    if (loader->capacity - loader->used > loader->used / 4 + 4096) {
        tosc_blob *shrunk = realloc(blob, sizeof(*blob) + loader->used);

        if (shrunk != NULL) {
            blob = shrunk;
        }
    }
    blob->size = loader->used;
    return blob;
}

static int
file_size(const struct tosc__file *file, const char *path, uint64_t *ret)
{
    struct stat about;

    if (fstat(file->fd, &about) < 0) {
        return tosc__fail_errno(errno, path, "cannot ask for the size of");
    }
    *ret = (uint64_t)about.st_size;
    return 0;
}

int
tosc__file_load(const struct tosc__file *file, const char *path,
                const struct tosc__load *load, struct tosc__place *place,
                enum tosc__stop *ret_stop, tosc_blob **ret_bytes, bool *ret_found)
{
    unsigned char small[SMALL_WINDOW];
    struct loader loader = {.file = file, .path = path, .limit = load->limit};
    int64_t before = place->version;
    bool found = false;
    bool more = true;
    int status = 0;

    tosc__file_forget_pages(file);
    if (loader.limit == TOSC__NO_LIMIT) {
        status = file_size(file, path, &loader.limit);
    }
    loader.window = small;
    loader.room = sizeof(small);
    if (status == 0 && loader.limit > place->offset + SMALL_WINDOW) {
        loader.window = tosc__sys.malloc(WINDOW);
        loader.room = WINDOW;
        status = loader.window == NULL ? tosc__file_no_memory(path) : 0;
    }
    if (status == 0 && ret_bytes != NULL) {
        status = make_sink(&loader, place->offset);
    }
    while (status == 0 && more) {
        status = load_next(&loader, load, place, &more, ret_stop, &found);
    }
    if (loader.window != small) {
        free(loader.window);
    }
    if (status != 0) {
        tosc_blob_unref(loader.sink);
        return status;
    }
    if (ret_bytes != NULL) {
        bool any = place->version > before && place->version > load->after;

        *ret_bytes = any ? finish_sink(&loader) : tosc_blob_unref(loader.sink);
    }
    if (ret_found != NULL) {
        *ret_found = found;
    }
    return 0;
}

/* ---- judging ---- */

struct judged {
    struct loader loader;
    uint64_t size;
    bool all_zero;
    bool record_follows;
};

/*
 * Looks at everything from `from` on for headers of records; the first byte is no start.
 */
static int
survey(struct judged *judged, uint64_t from)
{
    uint64_t offset = from;

    judged->all_zero = true;
    judged->record_follows = false;
    while (offset < judged->size && !judged->record_follows) {
        const unsigned char *bytes;
        struct tosc__record record;
        size_t have;
        int status = look_at(&judged->loader, offset, WINDOW, &bytes, &have);

        if (status != 0) {
            return status;
        }
        if (have == 0) {
            break;
        }
        judged->all_zero = judged->all_zero && tosc__is_zero(bytes, have);
        for (size_t i = 0; i + TOSC__RECORD_SIZE <= have; i += TOSC__RECORD_ALIGN) {
            if (offset + i != from && bytes[i] == 'T'
                && tosc__record_decode(bytes + i, &judged->loader.file->identity,
                                       offset + i, &record)) {
                judged->record_follows = true;
            }
        }
        /* Windows overlap, so that a header across two of them is seen whole. */
        offset += have > TOSC__RECORD_SIZE && offset + have < judged->size
                      ? have - TOSC__RECORD_SIZE
                      : have;
    }
    return 0;
}

static int
empty_pieces(struct judged *judged, uint64_t from, uint64_t extent, uint64_t *ret)
{
    uint64_t end = from + extent;

    *ret = 0;
    while (from < end) {
        uint64_t want = WINDOW - from % TOSC__SECTOR;
        const unsigned char *bytes;
        size_t have;
        int status;

        if (want > end - from) {
            want = end - from;
        }
        status = look_at(&judged->loader, from, (size_t)want, &bytes, &have);
        if (status != 0 || have < want) {
            return status;
        }
        *ret += tosc__count_empty_pieces(bytes, want, from);
        from += want;
    }
    return 0;
}

/* Whether the record at `offset` looks as if its write had been cut short. */
static int
looks_torn(struct judged *judged, uint64_t offset, bool *ret)
{
    struct tosc__record record;
    const unsigned char *bytes;
    uint64_t empty;
    size_t have;
    int status = look_at(&judged->loader, offset, TOSC__RECORD_SIZE, &bytes, &have);

    *ret = true;
    if (status != 0 || have < TOSC__RECORD_SIZE) {
        return status;
    }
    if (!tosc__record_decode(bytes, &judged->loader.file->identity, offset, &record)) {
        size_t first = (size_t)(TOSC__SECTOR - offset % TOSC__SECTOR);

        first = first < TOSC__RECORD_SIZE ? first : TOSC__RECORD_SIZE;
        *ret = tosc__is_zero(bytes, first)
               || (first < TOSC__RECORD_SIZE
                   && tosc__is_zero(bytes + first, TOSC__RECORD_SIZE - first));
        return 0;
    }
    if (tosc__record_extent(record.length) > judged->size - offset) {
        return 0;
    }
    status = empty_pieces(judged, offset, tosc__record_extent(record.length), &empty);
    *ret = empty > record.empty_pieces;
    return status;
}

int
tosc__file_judge(const struct tosc__file *file, const char *path,
                 const struct tosc__place *place, enum tosc__verdict *ret,
                 bool *ret_followed)
{
    struct judged judged = {.loader = {.file = file, .path = path, .room = WINDOW}};
    bool torn = false;
    int status = file_size(file, path, &judged.size);

    tosc__file_forget_pages(file);
    if (status != 0) {
        return status;
    }
    judged.loader.limit = judged.size;
    judged.loader.window = tosc__sys.malloc(WINDOW);
    if (judged.loader.window == NULL) {
        return tosc__file_no_memory(path);
    }
    status = survey(&judged, place->offset);
    if (status == 0 && !judged.all_zero && !judged.record_follows) {
        status = looks_torn(&judged, place->offset, &torn);
    }
    free(judged.loader.window);
    if (status != 0) {
        return status;
    }
    if (place->offset < file->base_end) {
        *ret = TOSC__DAMAGED;
    } else {
        *ret = judged.all_zero ? TOSC__CLEAN : torn ? TOSC__TORN : TOSC__DAMAGED;
    }
    if (ret_followed != NULL) {
        *ret_followed = judged.record_follows;
    }
    return 0;
}

/* ---- copying ---- */

/* Appends one record of another file under this one's identity. */
static int
copy_record(struct loader *loader, const struct tosc__record *record, uint64_t offset,
            const struct tosc__file *to, const char *to_path, struct tosc__place *place)
{
    tosc_commit_id id;
    bool good;
    int status;

    loader->used = 0;
    status = load_payload(loader, record, offset, true, &good);
    if (status != 0) {
        return status;
    }
    if (!good) {
        const struct tosc__place bad = {offset, record->version - 1};

        return tosc__file_damaged(loader->path, &bad);
    }
    memcpy(id.bytes, record->commit_id, sizeof(id.bytes));
    status = tosc__file_append(to, to_path, place, loader->sink->data,
                               (size_t)record->length, &id, 0);
    place->offset += tosc__record_extent(record->length);
    place->version = record->version;
    return status;
}

int
tosc__file_copy_tail(const struct tosc__file *from, const char *from_path,
                     struct tosc__place start, uint64_t limit,
                     const struct tosc__file *to, const char *to_path,
                     struct tosc__place *place)
{
    struct loader loader = {
        .file = from, .path = from_path, .limit = limit, .room = WINDOW};
    int status = start.offset < limit ? make_sink(&loader, start.offset) : 0;

    if (start.offset >= limit || status != 0) {
        return status;
    }
    loader.window = tosc__sys.malloc(WINDOW);
    status = loader.window == NULL ? tosc__file_no_memory(from_path) : 0;
    while (status == 0 && start.offset < limit) {
        struct tosc__record record;
        const unsigned char *bytes;
        size_t have;

        status = look_at(&loader, start.offset, TOSC__RECORD_SIZE, &bytes, &have);
        if (status != 0) {
            break;
        }
        if (have < TOSC__RECORD_SIZE
            || !tosc__record_decode(bytes, &from->identity, start.offset, &record)
            || record.version != start.version + 1) {
            status = tosc__file_damaged(from_path, &start);
            break;
        }
        status = copy_record(&loader, &record, start.offset, to, to_path, place);
        start.offset += tosc__record_extent(record.length);
        start.version = record.version;
    }
    free(loader.window);
    tosc_blob_unref(loader.sink);
    return status;
}
