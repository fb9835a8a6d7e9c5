/*
 * Whole reads and writes, opening with care, and other dealings with the system. Private.
 */
#ifndef TOSC_CORE_FILEIO_H
#define TOSC_CORE_FILEIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <tosc/sys/backend.h>

/* All of these repeat what a signal interrupted. `path` is for messages only. */

/* Reads up to `size` bytes; fewer only at the end of the file. *ret_read may be NULL. */
int tosc__pread_full(int fd, void *bytes, size_t size, uint64_t offset, const char *path,
                     size_t *ret_read);
/* Writes all parts, whose descriptions it may change. */
int tosc__pwrite_full(int fd, struct iovec *parts, int count, uint64_t offset,
                      const char *path);
int tosc__sync_data(int fd, const char *path);
int tosc__truncate(int fd, uint64_t size, const char *path);
int tosc__sync_directory(const char *directory);

/* open() with O_CLOEXEC, again after EINTR; negative: failed, see errno. */
int tosc__open(const char *path, int flags, mode_t mode);

/*
 * Whether the file still has a name, and its size. Not fstat(): that asks for the times
 * too, and a kernel that has told them makes the next write take a new, finer one, which
 * costs more than the question.
 */
bool tosc__is_linked(int fd, uint64_t *ret_size);

int tosc__random(void *bytes, size_t size);

/*
 * Whether other hosts may see files of this filesystem, and whether it outlives the
 * machine's.
 */
struct tosc__filesystem {
    bool network;
    bool volatile_memory;
};
int tosc__filesystem_of(const char *directory, struct tosc__filesystem *ret);

/* The machine's boot id; false if it cannot be told. */
bool tosc__boot_id(uint8_t ret[16]);

/*
 * Asked when a signal has interrupted a sleep: 0 to sleep on, else it ends. May run any
 * code of the program's, which may use the same backend. So waits for the gate and for
 * file locks end unasked (lock.h), and the operation `lock`, which has the gate while it
 * sleeps, is called so that the answer is no. Atomic; NULL, without Python: it ends.
 */
extern int (*tosc__on_signal)(void);

/*
 * Whether that would ask anybody in this thread, now. A signal that comes while a thread
 * works ends no sleep, so a long wait of short sleeps has to ask unprompted. Atomic; NULL:
 * no.
 */
extern bool (*tosc__heeds_signals)(void);

/*
 * Sleeps until `fd` (-1: none) is readable or the deadline: 0. A set `stop` (may be
 * NULL), or a signal unless tosc__on_signal() says 0: TOSC_EINTR. To be called with no
 * mutex held.
 */
int tosc__sleep_on(int fd, const tosc_event *stop, int64_t deadline_ns);
/*
 * The same, but signals are heeded only from this time on (TOSC__FOR_EVER: never): one that
 * has come before is asked about then. *pending: one has come and was not asked about, which
 * the next sleep is to be told.
 */
int tosc__sleep_heeding(int fd, const tosc_event *stop, int64_t deadline_ns,
                        int64_t heed_from, bool *pending);

#endif
