/*
 * I/O past the page cache.
 *
 * The pages of this host's cache may be older than what another host has stored; and those
 * of ceph-fuse with its default options hold bytes of another offset when they were read
 * beside a write. Asking the kernel to give them up leaves those that are just being read.
 *
 * Transfers go through a mapping that fork() shares. When another thread forks while the
 * kernel reads into private memory, what comes may be seen by the child only (open(2), NOTES;
 * newer kernels do better on some filesystems).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/directio.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "core/error.h"
#include "core/fileio.h"

#define ROOM_MAX ((size_t)1 << 20)

int
tosc__open_direct(const char *path, int flags, mode_t mode)
{
    int fd = tosc__open(path, flags | O_DIRECT, mode);

    return fd < 0 && errno == EINVAL ? tosc__open(path, flags, mode) : fd;
}

static bool
is_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_DIRECT) != 0;
}

void
tosc__forget_pages(int fd)
{
    if (!is_direct(fd)) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

/*
 * Whether the filesystem has refused direct I/O with this memory or offset. Then it is used
 * as usual from now on; perhaps another thread has seen to that since the transfer began.
 */
static bool
was_refused(int status, int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (status != TOSC_ESYSTEM || tosc_error_errno() != EINVAL || flags < 0) {
        return false;
    }
    fcntl(fd, F_SETFL, flags & ~O_DIRECT);
    tosc__forget_pages(fd);
    return true;
}

/* Memory for up to `size` bytes at a time; NULL without it. */
static unsigned char *
get_room(size_t size, const char *path, size_t *ret_room)
{
    void *room;

    *ret_room = size < ROOM_MAX ? size : ROOM_MAX;
    room =
        mmap(NULL, *ret_room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) {
        tosc__fail_path(TOSC_ENOMEM, path, "not enough memory for the data of %s", path);
        return NULL;
    }
    return room;
}

int
tosc__pread_direct(int fd, void *bytes, size_t size, uint64_t offset, const char *path,
                   size_t *ret_read)
{
    unsigned char *room;
    size_t capacity;
    size_t done = 0;
    bool more = true;
    int status = 0;

    if (size == 0 || !is_direct(fd)) {
        return tosc__pread_full(fd, bytes, size, offset, path, ret_read);
    }
    room = get_room(size, path, &capacity);
    if (room == NULL) {
        return TOSC_ENOMEM;
    }
    while (status == 0 && more && done < size) {
        size_t want = size - done < capacity ? size - done : capacity;
        size_t have = 0;

        status = tosc__pread_full(fd, room, want, offset + done, path, &have);
        if (was_refused(status, fd)) {
            status = tosc__pread_full(fd, room, want, offset + done, path, &have);
        }
        memcpy((unsigned char *)bytes + done, room, have);
        done += have;
        more = have == want;
    }
    munmap(room, capacity);
    *ret_read = done;
    return status;
}

/* Moves what has room of the parts, and the parts along. */
static size_t
take(struct iovec **parts, int *count, unsigned char *room, size_t capacity)
{
    size_t used = 0;

    while (*count > 0 && used < capacity) {
        struct iovec *part = *parts;
        size_t piece = part->iov_len < capacity - used ? part->iov_len : capacity - used;

        memcpy(room + used, part->iov_base, piece);
        used += piece;
        part->iov_base = (char *)part->iov_base + piece;
        part->iov_len -= piece;
        if (part->iov_len == 0) {
            (*parts)++;
            (*count)--;
        }
    }
    return used;
}

int
tosc__pwrite_direct(int fd, struct iovec *parts, int count, uint64_t offset,
                    const char *path)
{
    unsigned char *room;
    size_t capacity;
    size_t total = 0;
    int status = 0;

    if (!is_direct(fd)) {
        return tosc__pwrite_full(fd, parts, count, offset, path);
    }
    for (int i = 0; i < count; i++) {
        total += parts[i].iov_len;
    }
    room = get_room(total, path, &capacity);
    if (room == NULL) {
        return TOSC_ENOMEM;
    }
    while (status == 0 && count > 0) {
        size_t size = take(&parts, &count, room, capacity);
        struct iovec part = {room, size};

        status = tosc__pwrite_full(fd, &part, 1, offset, path);
        if (was_refused(status, fd)) {
            part = (struct iovec){room, size};
            status = tosc__pwrite_full(fd, &part, 1, offset, path);
        }
        offset += size;
    }
    munmap(room, capacity);
    return status;
}
