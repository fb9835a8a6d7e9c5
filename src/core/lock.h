/*
 * Exclusion: the gate (between the threads of one backend object) and the file lock
 * (between processes, and between backend objects of one process). Private to core.
 */
#ifndef TOSC_CORE_LOCK_H
#define TOSC_CORE_LOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Sleeps while *word is `expected`. 0 when woken or when it is not (look again), else
 * TOSC_EINTR, or TOSC_ETIMEDOUT at the deadline; these two leave no message.
 */
int tosc__futex_wait(int *word, int expected, int64_t deadline_ns);
void tosc__futex_wake(int *word, int count);

/* The failures of a wait for a store's lock, with their sentences. */
int tosc__lock_interrupted(void);
int tosc__lock_timed_out(void);

/* All zero is an open gate. */
struct tosc__gate {
    int word;           /* atomic: 0 free, 1 taken, 2 taken and somebody may sleep */
    const void *holder; /* atomic: who took it by `lock`, NULL for the length of a call */
};

/* 0, TOSC_EINTR or TOSC_ETIMEDOUT. A deadline in the past: does not wait. */
int tosc__gate_enter(struct tosc__gate *gate, int64_t deadline_ns);
void tosc__gate_leave(struct tosc__gate *gate);

/* Whether `holder` has the gate by name, so that the caller is inside already. */
static inline bool
tosc__gate_holds(const struct tosc__gate *gate, const void *holder)
{
    return holder != NULL && __atomic_load_n(&gate->holder, __ATOMIC_ACQUIRE) == holder;
}

static inline void
tosc__gate_name(struct tosc__gate *gate, const void *holder)
{
    __atomic_store_n(&gate->holder, holder, __ATOMIC_RELEASE);
}

/*
 * An open-file-description write lock on one byte of `fd`. `path` is for messages. 0,
 * TOSC_EINTR, TOSC_ETIMEDOUT, TOSC_ESYSTEM. A deadline in the past: does not wait.
 */
int tosc__file_lock(int fd, off_t byte, int64_t deadline_ns, const char *path);
void tosc__file_unlock(int fd, off_t byte);

#endif
