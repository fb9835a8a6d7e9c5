/*
 * One data file of the format in docs/file-format.md: opening it, and writing to it.
 *
 * Opening checks the header and the base's record header, so that whoever has a
 * struct tosc__file has a store of ours. Writing puts records where the caller says that
 * the tail is; flushing, and undoing what failed, are his. filestore_load.c reads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/filestore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/directio.h"
#include "core/error.h"
#include "core/fileio.h"
#include "core/sys.h"

int
tosc__file_no_memory(const char *path)
{
    return tosc__fail_path(TOSC_ENOMEM, path, "not enough memory for the data of %s",
                           path);
}

/* ---- opening ---- */

static int
foreign(const char *path)
{
    return tosc__fail_path(
        TOSC_ECORRUPT, path,
        "%s is not a tosc store and was left as it is; move it away or "
        "choose another path",
        path);
}

static int
damaged_start(const char *path, const char *what, unsigned offset)
{
    return tosc__fail_path(
        TOSC_ECORRUPT, path,
        "%s is damaged: its %s at offset %u is not valid; it was left as "
        "it is, move a good copy into its place or move it away",
        path, what, offset);
}

int
tosc__file_damaged(const char *path, const struct tosc__place *place)
{
    return tosc__fail_path(
        TOSC_ECORRUPT, path,
        "%s is damaged: no valid record of version %lld at offset %llu, and "
        "it is no interrupted write; the file was left as it is, move a "
        "good copy into its place or move it away",
        path, (long long)place->version + 1, (unsigned long long)place->offset);
}

static int
open_file(const char *path, bool shared, int flags)
{
    return shared ? tosc__open_direct(path, flags, 0600) : tosc__open(path, flags, 0600);
}

static int
open_descriptor(const char *path, struct tosc__file *file)
{
    const int flags = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;

    file->writable = true;
    file->fd = open_file(path, file->shared, O_RDWR | flags);
    if (file->fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
        file->writable = false;
        file->fd = open_file(path, file->shared, O_RDONLY | flags);
    }
    if (file->fd >= 0 || errno == ENOENT) {
        return 0;
    }
    if (errno == EISDIR) {
        return tosc__fail_errno(errno, path,
                                "a store is a regular file, but there is a directory:");
    }
    return tosc__fail_errno(errno, path, "cannot open");
}

static int
check_start(struct tosc__file *file, const char *path, size_t size,
            const unsigned char *bytes)
{
    struct tosc__record base;

    switch (tosc__header_decode(bytes, size, &file->identity)) {
    case TOSC__HEADER_FOREIGN:
        return foreign(path);
    case TOSC__HEADER_NEWER:
        return tosc__fail_path(
            TOSC_ECORRUPT, path,
            "%s has a format version that this library does not know; it "
            "was left as it is",
            path);
    case TOSC__HEADER_DAMAGED:
        return damaged_start(path, "header", 0);
    case TOSC__HEADER_GOOD:
        break;
    }
    if (size < TOSC__HEADER_SIZE + TOSC__RECORD_SIZE
        || !tosc__record_decode(bytes + TOSC__HEADER_SIZE, &file->identity,
                                TOSC__HEADER_SIZE, &base)
        || base.kind != TOSC__BASE) {
        return damaged_start(path, "base", TOSC__HEADER_SIZE);
    }
    file->base_version = base.version;
    file->base_length = base.length;
    file->base_end = TOSC__HEADER_SIZE + tosc__record_extent(base.length);
    return 0;
}

/* Fills *file from its descriptor; *ret_empty: nothing is in it. */
static int
examine(struct tosc__file *file, const char *path, bool *ret_empty)
{
    unsigned char bytes[TOSC__HEADER_SIZE + TOSC__RECORD_SIZE];
    struct stat about;
    size_t size;
    int status;

    if (fstat(file->fd, &about) < 0) {
        return tosc__fail_errno(errno, path, "cannot ask for the state of");
    }
    if (!S_ISREG(about.st_mode)) {
        return tosc__fail_errno(S_ISDIR(about.st_mode) ? EISDIR : EINVAL, path,
                                "a store must be a regular file, which this is not:");
    }
    file->device = about.st_dev;
    file->inode = about.st_ino;
    tosc__file_forget_pages(file);
    status = tosc__file_pread(file, path, bytes, sizeof(bytes), 0, &size);
    if (status != 0) {
        return status;
    }
    *ret_empty = size == 0;
    return size == 0 ? 0 : check_start(file, path, size, bytes);
}

void
tosc__file_forget_pages(const struct tosc__file *file)
{
    if (file->shared) {
        tosc__forget_pages(file->fd);
    }
}

int
tosc__file_pread(const struct tosc__file *file, const char *path, void *bytes,
                 size_t size, uint64_t offset, size_t *ret_read)
{
    return file->shared
               ? tosc__pread_direct(file->fd, bytes, size, offset, path, ret_read)
               : tosc__pread_full(file->fd, bytes, size, offset, path, ret_read);
}

int
tosc__file_open(const char *path, bool shared, struct tosc__file **ret)
{
    struct tosc__file file = {.refs = 1, .shared = shared};
    bool empty = true;
    int status = open_descriptor(path, &file);

    if (status == 0 && file.fd >= 0) {
        status = examine(&file, path, &empty);
    }
    if (status == 0 && !empty) {
        struct tosc__file *kept = tosc__sys.malloc(sizeof(*kept));

        if (kept != NULL) {
            *kept = file;
            *ret = kept;
            return 0;
        }
        status = tosc__file_no_memory(path);
    }
    if (file.fd >= 0) {
        close(file.fd);
    }
    if (status == 0) {
        *ret = NULL;
    }
    return status;
}

struct tosc__file *
tosc__file_ref(struct tosc__file *file)
{
    if (file != NULL) {
        __atomic_fetch_add(&file->refs, 1, __ATOMIC_RELAXED);
    }
    return file;
}

struct tosc__file *
tosc__file_unref(struct tosc__file *file)
{
    if (file != NULL && __atomic_sub_fetch(&file->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        close(file->fd);
        free(file);
    }
    return NULL;
}

struct tosc__place
tosc__file_start(const struct tosc__file *file)
{
    return (struct tosc__place){TOSC__HEADER_SIZE, file->base_version - 1};
}

struct tosc__place
tosc__file_after_base(const struct tosc__file *file)
{
    return (struct tosc__place){file->base_end, file->base_version};
}

/* ---- writing ---- */

static void
describe(struct tosc__record *record, enum tosc__kind kind, int64_t version,
         const tosc_commit_id *id, const void *data, size_t size)
{
    *record = (struct tosc__record){.kind = kind, .version = version, .length = size};
    if (id != NULL) {
        memcpy(record->commit_id, id->bytes, sizeof(record->commit_id));
    }
    record->payload_crc = tosc__crc32c(0, data, size);
}

/* May change the parts. */
static int
put(const struct tosc__file *file, const char *path, struct iovec *parts, int count,
    uint64_t offset)
{
    return file->shared ? tosc__pwrite_direct(file->fd, parts, count, offset, path)
                        : tosc__pwrite_full(file->fd, parts, count, offset, path);
}

static const unsigned char zeros[64 << 10];

/*
 * Header, payload and padding at `offset`, and `ahead` zero bytes; at most sizeof(zeros).
 */
static int
put_record(const struct tosc__file *file, const char *path,
           const struct tosc__record *record, uint64_t offset, const void *data,
           uint64_t ahead)
{
    unsigned char together[4096];
    unsigned char *header = together;
    size_t size = (size_t)record->length;
    struct iovec parts[4];
    int count = 0;

    tosc__record_encode(record, &file->identity, offset, header);
    if (size <= sizeof(together) - TOSC__RECORD_SIZE - TOSC__RECORD_ALIGN) {
        size_t extent = (size_t)tosc__record_extent(size);

        if (size > 0) {
            memcpy(together + TOSC__RECORD_SIZE, data, size);
        }
        memset(together + TOSC__RECORD_SIZE + size, 0, tosc__padding(size));
        parts[count++] = (struct iovec){together, extent};
    } else {
        parts[count++] = (struct iovec){header, TOSC__RECORD_SIZE};
        parts[count++] = (struct iovec){(void *)(uintptr_t)data, size};
        parts[count++] = (struct iovec){(void *)(uintptr_t)zeros, tosc__padding(size)};
    }
    if (ahead > 0) {
        parts[count++] = (struct iovec){(void *)(uintptr_t)zeros, (size_t)ahead};
    }
    return put(file, path, parts, count, offset);
}

int
tosc__file_append(const struct tosc__file *file, const char *path,
                  const struct tosc__place *place, const void *data, size_t size,
                  const tosc_commit_id *id, uint64_t ahead)
{
    struct tosc__record record;

    describe(&record, TOSC__APPEND, place->version + 1, id, data, size);
    record.empty_pieces = tosc__payload_empty_pieces(data, size, place->offset);
    return put_record(file, path, &record, place->offset, data,
                      ahead < sizeof(zeros) ? ahead : sizeof(zeros));
}

/* Mode and owner as the file that will be replaced has them, as far as we may. */
static int
follow_model(int fd, int model, const char *path)
{
    struct stat about;
    struct stat ours;

    if (model < 0) {
        return 0;
    }
    if (fstat(model, &about) < 0 || fstat(fd, &ours) < 0) {
        return tosc__fail_errno(errno, path, "cannot ask for the mode of");
    }
    if (ours.st_uid != about.st_uid || ours.st_gid != about.st_gid) {
        if (fchown(fd, about.st_uid, about.st_gid) < 0
            && fchown(fd, (uid_t)-1, about.st_gid) < 0 && errno != EPERM
            && errno != EINVAL && errno != ENOTSUP) {
            return tosc__fail_errno(errno, path, "cannot set the owner of");
        }
    }
    if (fchmod(fd, about.st_mode & 07777) < 0 && errno != EPERM && errno != ENOTSUP) {
        return tosc__fail_errno(errno, path, "cannot set the mode of");
    }
    return 0;
}

static int
open_new(const char *path, bool shared)
{
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
    int fd = open_file(path, shared, flags);

    if (fd < 0 && errno == EEXIST && unlink(path) == 0) {
        fd = open_file(path, shared, flags);
    }
    return fd;
}

static int
fill_new(struct tosc__file *file, const char *path, int model, const tosc_commit_id *id,
         const void *data, size_t size)
{
    unsigned char header[TOSC__HEADER_SIZE];
    struct iovec part = {header, sizeof(header)};
    struct tosc__record record;
    struct stat about;
    int status = follow_model(file->fd, model, path);

    if (status == 0 && fstat(file->fd, &about) < 0) {
        status = tosc__fail_errno(errno, path, "cannot ask for the state of");
    }
    if (status != 0) {
        return status;
    }
    file->device = about.st_dev;
    file->inode = about.st_ino;
    tosc__header_encode(&file->identity, header);
    status = put(file, path, &part, 1, 0);
    if (status != 0) {
        return status;
    }
    describe(&record, TOSC__BASE, file->base_version, id, data, size);
    return put_record(file, path, &record, TOSC__HEADER_SIZE, data, 0);
}

int
tosc__file_create(const char *path, bool shared, int model,
                  const struct tosc__identity *identity, int64_t version,
                  const tosc_commit_id *id, const void *data, size_t size,
                  struct tosc__file **ret)
{
    struct tosc__file *file = tosc__sys.malloc(sizeof(*file));
    int status;

    if (file == NULL) {
        return tosc__file_no_memory(path);
    }
    *file =
        (struct tosc__file){.refs = 1,
                            .writable = true,
                            .shared = shared,
                            .identity = *identity,
                            .base_version = version,
                            .base_length = size,
                            .base_end = TOSC__HEADER_SIZE + tosc__record_extent(size)};
    file->fd = open_new(path, shared);
    if (file->fd < 0) {
        status = tosc__fail_errno(errno, path, "cannot create");
        free(file);
        return status;
    }
    status = fill_new(file, path, model, id, data, size);
    if (status != 0) {
        unlink(path);
        tosc__file_unref(file);
        return status;
    }
    *ret = file;
    return 0;
}
