/* The system calls that tests can make fail, behind one table. Private to core. */
#ifndef TOSC_CORE_SYS_H
#define TOSC_CORE_SYS_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tosc__sys {
    void *(*malloc)(size_t size);
    ssize_t (*pread)(int fd, void *bytes, size_t size, off_t offset);
    ssize_t (*pwrite)(int fd, const void *bytes, size_t size, off_t offset);
    ssize_t (*pwritev)(int fd, const struct iovec *parts, int count, off_t offset);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*ftruncate)(int fd, off_t size);
    int (*rename)(const char *from, const char *to);
};

/* Only tests write to it, and only while no other thread is inside core. */
extern struct tosc__sys tosc__sys;

#endif
