/* I/O past the page cache, for files that other hosts change as well. Private to core. */
#ifndef TOSC_CORE_DIRECTIO_H
#define TOSC_CORE_DIRECTIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * tosc__open() for direct I/O, or as usual where the filesystem has none. One that has it
 * for aligned memory only is found out by the first transfer that it refuses, and from then
 * on used as usual.
 */
int tosc__open_direct(const char *path, int flags, mode_t mode);

/* Where it is not direct: asks the kernel to give up the pages of the file that it has. */
void tosc__forget_pages(int fd);

/* What their like in fileio.h do. TOSC_ENOMEM besides their errors. */
int tosc__pread_direct(int fd, void *bytes, size_t size, uint64_t offset,
                       const char *path, size_t *ret_read);
int tosc__pwrite_direct(int fd, struct iovec *parts, int count, uint64_t offset,
                        const char *path);

#endif
