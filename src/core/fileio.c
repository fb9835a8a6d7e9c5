/*
 * Dealings with the system: whole reads and writes, flushing, filesystem kinds, sleeping.
 *
 * Every function leaves its sentence on failure and can be called from any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/fileio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/sys.h"

/*
 * More than one call may take at once is split; the kernel's own limit is a little less.
 */
#define CALL_MAX ((size_t)1 << 30)

int
tosc__pread_full(int fd, void *bytes, size_t size, uint64_t offset, const char *path,
                 size_t *ret_read)
{
    size_t done = 0;

    while (done < size) {
        size_t part = size - done < CALL_MAX ? size - done : CALL_MAX;
        ssize_t n =
            tosc__sys.pread(fd, (char *)bytes + done, part, (off_t)(offset + done));

        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return tosc__fail_errno(errno, path, "cannot read");
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    if (ret_read != NULL) {
        *ret_read = done;
    }
    return 0;
}

int
tosc__pwrite_full(int fd, struct iovec *parts, int count, uint64_t offset,
                  const char *path)
{
    while (count > 0) {
        ssize_t n;

        if (parts->iov_len == 0) {
            parts++;
            count--;
            continue;
        }
        /* One part is the common case, and pwrite() is quicker. */
        n = count == 1
                ? tosc__sys.pwrite(fd, parts->iov_base, parts->iov_len, (off_t)offset)
                : tosc__sys.pwritev(fd, parts, count, (off_t)offset);
        if (n <= 0) {
            int error = n == 0 ? EIO : errno;

            if (error == EINTR) {
                continue;
            }
            return tosc__fail_errno(error, path, "cannot write to");
        }
        offset += (uint64_t)n;
        while (count > 0 && (size_t)n >= parts->iov_len) {
            n -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + n;
            parts->iov_len -= (size_t)n;
        }
    }
    return 0;
}

int
tosc__sync_data(int fd, const char *path)
{
    while (tosc__sys.fdatasync(fd) < 0) {
        if (errno != EINTR) {
            return tosc__fail_errno(errno, path, "cannot flush to the device");
        }
    }
    return 0;
}

int
tosc__truncate(int fd, uint64_t size, const char *path)
{
    while (tosc__sys.ftruncate(fd, (off_t)size) < 0) {
        if (errno != EINTR) {
            return tosc__fail_errno(errno, path, "cannot cut to its valid length");
        }
    }
    return 0;
}

bool
tosc__is_linked(int fd, uint64_t *ret_size)
{
    struct statx about;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_NLINK | STATX_SIZE, &about) == 0) {
        *ret_size = about.stx_size;
        return about.stx_nlink > 0;
    }
    return false;
}

int
tosc__open(const char *path, int flags, mode_t mode)
{
    int fd;

    do {
        fd = open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

int
tosc__sync_directory(const char *directory)
{
    int fd = tosc__open(directory, O_RDONLY | O_DIRECTORY, 0);
    int status = 0;

    if (fd < 0) {
        return tosc__fail_errno(errno, directory, "cannot open directory");
    }
    while (status == 0 && tosc__sys.fsync(fd) < 0) {
        /* Some network filesystems cannot, and need not. */
        if (errno == EINVAL || errno == ENOTSUP) {
            break;
        }
        if (errno != EINTR) {
            status = tosc__fail_errno(errno, directory, "cannot flush directory");
        }
    }
    close(fd);
    return status;
}

int
tosc__random(void *bytes, size_t size)
{
    ssize_t n;

    do {
        n = getrandom(bytes, size, 0);
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)size) {
        return tosc__fail_errno(n < 0 ? errno : EIO, NULL, "cannot get random bytes");
    }
    return 0;
}

/* Those that other hosts, or a server process that we cannot see into, may change. */
static bool
is_network(unsigned long magic)
{
    switch (magic) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case 0xff534d42: /* CIFS */
    case 0xfe534d42: /* SMB2 */
    case 0x00c36400: /* Ceph */
    case 0x65735546: /* FUSE, virtiofs */
    case V9FS_MAGIC:
    case AFS_SUPER_MAGIC:
    case AFS_FS_MAGIC:
    case CODA_SUPER_MAGIC:
    case 0x0bd00bd0: /* Lustre */
    case 0x47504653: /* GPFS */
    case 0x01161970: /* GFS2 */
    case OCFS2_SUPER_MAGIC:
    case 0x19830326: /* BeeGFS */
    case 0xaad7aaea: /* PanFS */
    case 0x20030528: /* OrangeFS */
    case 0x786f4256: /* VirtualBox shared folder */
    case 0xbacbacbc: /* VMware shared folder */
        return true;
    default:
        return false;
    }
}

int
tosc__filesystem_of(const char *directory, struct tosc__filesystem *ret)
{
    struct statfs about;
    unsigned long magic;

    while (statfs(directory, &about) < 0) {
        if (errno != EINTR) {
            return tosc__fail_errno(errno, directory, "cannot ask for the filesystem of");
        }
    }
    magic = (unsigned long)about.f_type & 0xffffffffUL;
    ret->network = is_network(magic);
    ret->volatile_memory = magic == TMPFS_MAGIC || magic == RAMFS_MAGIC;
    return 0;
}

static int
digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
tosc__boot_id(uint8_t ret[16])
{
    char text[64];
    int fd = tosc__open("/proc/sys/kernel/random/boot_id", O_RDONLY, 0);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    int digits = 0;

    if (fd >= 0) {
        close(fd);
    }
    for (ssize_t i = 0; i < n && digits < 32; i++) {
        int value = digit(text[i]);

        if (value >= 0) {
            ret[digits / 2] =
                (uint8_t)(digits % 2 == 0 ? value << 4 : ret[digits / 2] | value);
            digits++;
        }
    }
    return digits == 32;
}

/* 0: something is readable, or (*ret_ready false) the deadline; else errno. */
static int
poll_until(int fd, const tosc_event *stop, int64_t deadline_ns, bool *ret_ready)
{
    struct pollfd fds[2];
    struct timespec left = {0, 0};
    int ready;
    nfds_t count = 0;

    if (stop != NULL) {
        fds[count++] = (struct pollfd){.fd = tosc_event_fd(stop), .events = POLLIN};
    }
    if (fd >= 0) {
        fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    if (deadline_ns != TOSC__FOR_EVER) {
        int64_t ns = deadline_ns - tosc__now();

        left = tosc__timespec(ns > 0 ? ns : 0);
    }
    ready = ppoll(fds, count, deadline_ns == TOSC__FOR_EVER ? NULL : &left, NULL);
    *ret_ready = ready > 0;
    return ready < 0 ? errno : 0;
}

int (*tosc__on_signal)(void);
bool (*tosc__heeds_signals)(void);

static bool
may_go_on(void)
{
    int (*ask)(void) = __atomic_load_n(&tosc__on_signal, __ATOMIC_ACQUIRE);

    return ask != NULL && ask() == 0;
}

/*
 * A signal that comes before `heed_from` is asked about then, if the sleep lasts so long.
 * Signals may come faster than poll() can see that the time is over.
 */
int
tosc__sleep_heeding(int fd, const tosc_event *stop, int64_t deadline_ns,
                    int64_t heed_from, bool *pending)
{
    bool ready = false;

    while (!ready) {
        bool soon = *pending && heed_from < deadline_ns;
        int error = poll_until(fd, stop, soon ? heed_from : deadline_ns, &ready);

        if (error != 0 && error != EINTR) {
            return tosc__fail_errno(error, NULL, "cannot wait for changes");
        }
        *pending = *pending || error == EINTR;
        if (!ready && *pending && tosc__now() >= heed_from) {
            *pending = false;
            if (!may_go_on()) {
                return tosc__fail(TOSC_EINTR, "a signal ended the wait for a change");
            }
        }
        if (!ready && tosc__now() >= deadline_ns) {
            break;
        }
    }
    if (stop != NULL && tosc_event_is_set(stop)) {
        return tosc__fail(TOSC_EINTR, "the wait for a change was stopped");
    }
    return 0;
}

int
tosc__sleep_on(int fd, const tosc_event *stop, int64_t deadline_ns)
{
    bool pending = false;

    return tosc__sleep_heeding(fd, stop, deadline_ns, 0, &pending);
}
