/*
 * Events: a flag that once set stays set, and a descriptor that poll() can wait for.
 *
 * An eventfd whose counter is never read, so that it stays readable for every waiter. The
 * flag beside it answers tosc_event_is_set() without a system call; it is set first, so
 * that whoever the descriptor wakes finds it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <tosc/sys/backend.h>

#include "core/sys.h"

struct tosc_event {
    int fd;
    int set; /* atomic */
};

tosc_event *
tosc_event_new(void)
{
    tosc_event *event = tosc__sys.malloc(sizeof(*event));

    if (event == NULL) {
        return NULL;
    }
    event->set = 0;
    event->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event->fd < 0) {
        free(event);
        return NULL;
    }
    return event;
}

tosc_event *
tosc_event_free(tosc_event *event)
{
    if (event != NULL) {
        close(event->fd);
        free(event);
    }
    return NULL;
}

void
tosc_event_set(tosc_event *event)
{
    const uint64_t one = 1;
    int error = errno;

    if (__atomic_exchange_n(&event->set, 1, __ATOMIC_ACQ_REL) == 0) {
        /* Cannot fail: the counter is far from full. */
        ssize_t ignored = write(event->fd, &one, sizeof(one));

        (void)ignored;
    }
    errno = error;
}

bool
tosc_event_is_set(const tosc_event *event)
{
    return __atomic_load_n(&event->set, __ATOMIC_ACQUIRE) != 0;
}

int
tosc_event_fd(const tosc_event *event)
{
    return event->fd;
}
