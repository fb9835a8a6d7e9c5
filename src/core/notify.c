/*
 * inotify on one file.
 *
 * Stores into a mapping make no event, so only a waker's write() to the lock file does.
 * The events themselves say nothing that we need.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/notify.h"

#include <errno.h>
#include <limits.h>
#include <sys/inotify.h>
#include <unistd.h>

int
tosc__notify_open(const char *path)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    int error;

    if (fd < 0) {
        return -errno;
    }
    if (inotify_add_watch(fd, path, IN_MODIFY | IN_DONT_FOLLOW) < 0) {
        error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

void
tosc__notify_drain(int fd)
{
    char events[4096];

    while (read(fd, events, sizeof(events)) == (ssize_t)sizeof(events)) {
        /* more than a bufferful were waiting */
    }
}
