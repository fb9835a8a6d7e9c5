/*
 * The gate: a futex that can be timed and interrupted. The file lock: fcntl's OFD locks.
 *
 * pthread mutexes cannot be interrupted by signals, which Ctrl-C needs. The gate is a
 * plain three-state futex lock. A caller first spins for about as long as a commit takes.
 *
 * A file lock without a deadline sleeps in the kernel's queue and is woken at once, also
 * when the holder dies. fcntl knows no deadline, so with one we try again and again, with
 * pauses up to a millisecond.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

#define SPINS 200

static inline void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int
tosc__futex_wait(int *word, int expected, int64_t deadline_ns)
{
    struct timespec until = tosc__timespec(deadline_ns);
    const struct timespec *limit = deadline_ns == TOSC__FOR_EVER ? NULL : &until;

    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, limit,
                NULL, FUTEX_BITSET_MATCH_ANY)
        < 0) {
        return errno == EINTR ? TOSC_EINTR : errno == ETIMEDOUT ? TOSC_ETIMEDOUT : 0;
    }
    return 0;
}

void
tosc__futex_wake(int *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
}

int
tosc__lock_interrupted(void)
{
    return tosc__fail(TOSC_EINTR, "a signal ended the wait for the store's lock");
}

int
tosc__lock_timed_out(void)
{
    return tosc__fail(TOSC_ETIMEDOUT, "the store's lock was not free in time");
}

static bool
try_gate(struct tosc__gate *gate)
{
    int free_word = 0;

    return __atomic_compare_exchange_n(&gate->word, &free_word, 1, false,
                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

int
tosc__gate_enter(struct tosc__gate *gate, int64_t deadline_ns)
{
    if (try_gate(gate)) {
        return 0;
    }
    if (deadline_ns <= 0) {
        return tosc__lock_timed_out();
    }
    for (int i = 0; i < SPINS; i++) {
        relax();
        if (__atomic_load_n(&gate->word, __ATOMIC_RELAXED) == 0 && try_gate(gate)) {
            return 0;
        }
    }
    while (__atomic_exchange_n(&gate->word, 2, __ATOMIC_ACQUIRE) != 0) {
        int status = tosc__futex_wait(&gate->word, 2, deadline_ns);

        if (status != 0) {
            return status == TOSC_EINTR ? tosc__lock_interrupted()
                                        : tosc__lock_timed_out();
        }
    }
    return 0;
}

void
tosc__gate_leave(struct tosc__gate *gate)
{
    if (__atomic_exchange_n(&gate->word, 0, __ATOMIC_RELEASE) == 2) {
        tosc__futex_wake(&gate->word, 1);
    }
}

static int
set_lock(int fd, int command, short type, off_t byte)
{
    struct flock lock = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_pid = 0};

    return fcntl(fd, command, &lock) == 0 ? 0 : errno;
}

static int
lock_failed(int error, const char *path)
{
    if (error == EINTR) {
        return tosc__lock_interrupted();
    }
    return tosc__fail_errno(error, path, "cannot lock");
}

/* Tries until the deadline; a signal ends the pause between two tries. */
static int
lock_by_trying(int fd, off_t byte, int64_t deadline_ns, const char *path)
{
    int64_t pause_ns = 20000;

    for (;;) {
        int error = set_lock(fd, F_OFD_SETLK, F_WRLCK, byte);
        int64_t left;
        struct timespec pause;

        if (error == 0) {
            return 0;
        }
        if (error != EAGAIN && error != EACCES) {
            return lock_failed(error, path);
        }
        left = deadline_ns <= 0 ? 0 : deadline_ns - tosc__now();
        if (left <= 0) {
            return tosc__lock_timed_out();
        }
        pause = tosc__timespec(pause_ns < left ? pause_ns : left);
        if (nanosleep(&pause, NULL) < 0 && errno == EINTR) {
            return tosc__lock_interrupted();
        }
        pause_ns = pause_ns < TOSC__MS / 2 ? pause_ns * 2 : TOSC__MS;
    }
}

int
tosc__file_lock(int fd, off_t byte, int64_t deadline_ns, const char *path)
{
    int error;

    if (deadline_ns != TOSC__FOR_EVER) {
        return lock_by_trying(fd, byte, deadline_ns, path);
    }
    error = set_lock(fd, F_OFD_SETLKW, F_WRLCK, byte);
    return error == 0 ? 0 : lock_failed(error, path);
}

void
tosc__file_unlock(int fd, off_t byte)
{
    set_lock(fd, F_OFD_SETLK, F_UNLCK, byte);
}
