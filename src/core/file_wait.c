/*
 * The file backend's changes: asking, waiting, waking.
 *
 * Asking is a look at the control block. One who waits adds himself to the block's number
 * of waiters, looks once more, and sleeps until the lock file is written to. A committer
 * publishes first and looks at that number afterwards, by read-modify-write on both
 * sides, so that one of the two always sees the other. It writes to the lock file only if
 * somebody of another backend object waits, or if a waiter of its own is `armed`.
 *
 * Two brakes keep a stream of commits from waking waiters for each of them. Of this
 * object's own appends, which mostly come from the very Manager whose watcher waits, one
 * is reported every QUIET_NS. And when several versions went by between two looks, the
 * waiter stays away (not registered, so that nobody pays for it) for a pause that doubles
 * up to STREAM_MAX_NS. A single change after a silence is always reported at once.
 *
 * Every CHECK_NS a waiter also looks whether the path still names the file of the block,
 * which is how a store that was removed or put there by hand is noticed. Where there is
 * no block (network filesystems), or it may not be written to, waiting is looking at
 * growing intervals.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file_backend.h"
#include "core/fileio.h"
#include "core/notify.h"
#include "core/sys.h"

#define QUIET_NS (2 * TOSC__MS)
#define STREAM_MIN_NS (TOSC__MS / 4)
#define STREAM_MAX_NS (2 * TOSC__MS)
#define STREAM_VERSIONS 3
#define CHECK_NS (500 * TOSC__MS)
#define POLL_MIN_NS TOSC__MS
#define SEEK_NS TOSC__MS
#define IDLE_MAX 2

static bool
is_at(const struct tosc__control *control, const tosc_position *known)
{
    uint64_t id[2];

    memcpy(id, known->store_id, sizeof(id));
    return known->stored ? tosc__control_is_at(control, known->version, id)
                         : __atomic_load_n(&control->version, __ATOMIC_ACQUIRE) == 0;
}

/*
 * Before the first write by anybody there is no lock file to map. Looking for it takes a
 * system call, so that is done every few milliseconds only.
 */
static int
changed_without_block(struct tosc__file_backend *be, const tosc_position *known)
{
    int64_t now = tosc__now_coarse();
    struct tosc__control *control;

    if (!be->local) {
        return TOSC_EUNSUPPORTED;
    }
    if (now - __atomic_load_n(&be->block_sought, __ATOMIC_RELAXED) >= SEEK_NS) {
        __atomic_store_n(&be->block_sought, now, __ATOMIC_RELAXED);
        if (tosc__fb_attach(be, false) != 0) {
            __atomic_store_n(&be->block_refused, 1, __ATOMIC_RELAXED);
        }
    }
    control = tosc__fb_control(be);
    if (control != NULL) {
        return !is_at(control, known);
    }
    /* Nobody has ever written, unless there is a lock file after all. */
    return known->stored || __atomic_load_n(&be->block_refused, __ATOMIC_RELAXED) != 0
                   || __atomic_load_n(&be->lock_fd, __ATOMIC_ACQUIRE) >= 0
               ? TOSC_EUNSUPPORTED
               : 0;
}

int
tosc__fb_changed(void *impl, const tosc_position *known)
{
    struct tosc__file_backend *be = impl;
    struct tosc__control *control = tosc__fb_control(be);

    return control != NULL ? !is_at(control, known) : changed_without_block(be, known);
}

/* ---- waking ---- */

static void
poke(struct tosc__file_backend *be)
{
    const unsigned char byte = 0;

    /* A failure (a full disk cannot be one: the byte exists) only delays the waiters. */
    while (pwrite(be->lock_fd, &byte, 1, TOSC__CONTROL_POKE_AT) < 0 && errno == EINTR) {
    }
}

void
tosc__fb_wake(struct tosc__file_backend *be)
{
    uint64_t waiters;
    uint64_t own;

    if (be->control == NULL) {
        return;
    }
    waiters = __atomic_fetch_add(&be->control->waiters, 0, __ATOMIC_SEQ_CST);
    while ((uint32_t)waiters != 0) {
        own = __atomic_load_n(&be->own_waiters, __ATOMIC_ACQUIRE);
        if (waiters == own && __atomic_exchange_n(&be->armed, 0, __ATOMIC_ACQ_REL) == 0) {
            return;
        }
        if (__atomic_compare_exchange_n(&be->control->waiters, &waiters,
                                        ((waiters >> 32) + 1) << 32, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            poke(be);
            return;
        }
        __atomic_store_n(&be->armed, 1,
                         __ATOMIC_RELEASE); /* look again, with a new number */
    }
}

/* ---- waiting to be woken ---- */

/* Both return or take the epoch of the registration. */
static uint64_t
enlist(struct tosc__file_backend *be, struct tosc__control *control)
{
    uint64_t all;

    pthread_mutex_lock(&be->mutex);
    all = __atomic_add_fetch(&control->waiters, 1, __ATOMIC_SEQ_CST);
    if (be->own_waiters >> 32 != all >> 32) {
        __atomic_store_n(&be->own_waiters, all >> 32 << 32, __ATOMIC_RELEASE);
    }
    __atomic_add_fetch(&be->own_waiters, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&be->mutex);
    return all >> 32;
}

static void
resign(struct tosc__file_backend *be, struct tosc__control *control, uint64_t epoch)
{
    uint64_t all;

    pthread_mutex_lock(&be->mutex);
    all = __atomic_load_n(&control->waiters, __ATOMIC_ACQUIRE);
    while (all >> 32 == epoch && (uint32_t)all != 0
           && !__atomic_compare_exchange_n(&control->waiters, &all, all - 1, false,
                                           __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    if (be->own_waiters >> 32 == epoch && (uint32_t)be->own_waiters != 0) {
        __atomic_sub_fetch(&be->own_waiters, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&be->mutex);
}

/* NULL: no descriptor or memory; then waiting is looking. */
static struct tosc__waiter *
take_waiter(struct tosc__file_backend *be)
{
    struct tosc__waiter *waiter;

    pthread_mutex_lock(&be->mutex);
    waiter = NULL;
    for (struct tosc__waiter *each = be->waiters; each != NULL; each = each->next) {
        if (!each->busy && (waiter == NULL || each->fd >= 0)) {
            waiter = each;
        }
    }
    if (waiter == NULL) {
        waiter = tosc__sys.malloc(sizeof(*waiter));
        if (waiter != NULL) {
            *waiter = (struct tosc__waiter){.fd = -1, .next = be->waiters};
            be->waiters = waiter;
        }
    }
    if (waiter != NULL && waiter->fd >= 0 && waiter->lock_inode != be->lock_inode) {
        close(waiter->fd);
        waiter->fd = -1;
    }
    if (waiter != NULL && waiter->fd < 0) {
        waiter->fd = tosc__notify_open(be->lock_path);
        waiter->lock_inode = be->lock_inode;
    }
    if (waiter != NULL && waiter->fd < 0) {
        waiter = NULL;
    }
    if (waiter != NULL) {
        waiter->busy = true;
    }
    pthread_mutex_unlock(&be->mutex);
    return waiter;
}

/* Keeps a few for the next wait; of the others, which may be many, the descriptors go. */
static void
give_waiter(struct tosc__file_backend *be, struct tosc__waiter *waiter)
{
    int idle = 0;
    int fd = -1;

    pthread_mutex_lock(&be->mutex);
    waiter->busy = false;
    for (const struct tosc__waiter *each = be->waiters; each != NULL; each = each->next) {
        idle += !each->busy && each->fd >= 0;
    }
    if (idle > IDLE_MAX) {
        fd = waiter->fd;
        waiter->fd = -1;
    }
    pthread_mutex_unlock(&be->mutex);
    if (fd >= 0) {
        close(fd);
    }
}

/* Whether the paths do not name what the block and we mean. */
static bool
paths_differ(struct tosc__file_backend *be, struct tosc__control *control)
{
    struct tosc__state state;
    struct stat about;
    uint64_t lock_inode;
    bool there;

    pthread_mutex_lock(&be->mutex);
    lock_inode = be->lock_inode;
    pthread_mutex_unlock(&be->mutex);
    if (lstat(be->lock_path, &about) < 0 || about.st_ino != lock_inode) {
        return true;
    }
    there = lstat(be->path, &about) == 0 && about.st_size > 0;
    if (!tosc__control_read(control, &state)) {
        return true;
    }
    return there != state.stored
           || (there && (about.st_ino != state.inode || about.st_dev != state.device));
}

/*
 * The slow check. What is found different is set right by taking the lock, which
 * publishes it to everybody; if somebody has the lock, he will do it. *ret_report: cannot
 * be set right, so say that something changed and let a read find out.
 */
static void
check_paths(struct tosc__file_backend *be, struct tosc__control *control,
            bool *ret_report)
{
    int status;

    *ret_report = false;
    if (!paths_differ(be, control)) {
        return;
    }
    __atomic_store_n(&be->suspect, 1, __ATOMIC_RELAXED);
    status = tosc__fb_enter(be, NULL, 0);
    if (status == 0) {
        tosc__fb_leave(be, NULL);
    } else if (status != TOSC_ETIMEDOUT && status != TOSC_EINTR) {
        *ret_report = true;
    }
}

struct look {
    bool report;
    bool stay_away; /* do not register */
    bool arm;
    int64_t until;
};

/* Under the mutex. */
static void
look_locked(struct tosc__file_backend *be, const struct tosc__control *control,
            const tosc_position *known, int64_t now, struct look *look)
{
    int64_t version = __atomic_load_n(&control->version, __ATOMIC_ACQUIRE);
    bool own = version == __atomic_load_n(&be->own_version, __ATOMIC_RELAXED);

    look->until = be->next_check;
    if (now < be->stream_until) {
        look->stay_away = true;
        look->until = be->stream_until;
    } else if (now < be->quiet_until && (own || is_at(control, known))) {
        look->until = be->quiet_until;
    } else if (is_at(control, known)) {
        look->arm = true;
    } else {
        look->report = true;
        if (own) {
            be->quiet_until = now + QUIET_NS;
        }
        if (version - known->version >= STREAM_VERSIONS && known->stored) {
            be->stream_pause =
                be->stream_pause == 0 ? STREAM_MIN_NS : 2 * be->stream_pause;
            if (be->stream_pause > STREAM_MAX_NS) {
                be->stream_pause = STREAM_MAX_NS;
            }
            be->stream_until = now + be->stream_pause;
        } else {
            be->stream_pause = 0;
        }
    }
}

static void
look_at(struct tosc__file_backend *be, struct tosc__control *control,
        const tosc_position *known, struct look *ret)
{
    int64_t now = tosc__now();
    bool check;
    bool report = false;

    *ret = (struct look){.report = false};
    pthread_mutex_lock(&be->mutex);
    check = now >= be->next_check;
    if (check) {
        be->next_check = now + CHECK_NS;
    }
    pthread_mutex_unlock(&be->mutex);
    if (check) {
        check_paths(be, control, &report);
    }
    pthread_mutex_lock(&be->mutex);
    look_locked(be, control, known, now, ret);
    pthread_mutex_unlock(&be->mutex);
    ret->report = ret->report || report;
}

/* One sleep, after which to look again. */
static int
sleep_once(struct tosc__file_backend *be, struct tosc__control *control,
           const tosc_position *known, struct tosc__waiter *waiter,
           const struct look *look, const tosc_event *stop, int64_t deadline)
{
    int64_t until = look->until < deadline ? look->until : deadline;
    bool was_there = is_at(control, known);
    uint64_t epoch;
    int status = 0;

    if (look->stay_away) {
        return tosc__sleep_on(-1, stop, until);
    }
    epoch = enlist(be, control);
    if (look->arm) {
        __atomic_exchange_n(&be->armed, 1, __ATOMIC_SEQ_CST);
    }
    if (is_at(control, known) == was_there || !look->arm) {
        status = tosc__sleep_on(waiter->fd, stop, until);
    }
    resign(be, control, epoch);
    tosc__notify_drain(waiter->fd);
    return status;
}

static int
wait_by_notice(struct tosc__file_backend *be, struct tosc__control *control,
               const tosc_position *known, struct tosc__waiter *waiter, int64_t deadline,
               const tosc_event *stop, bool *ret_changed)
{
    for (;;) {
        struct look look;
        int status;

        look_at(be, control, known, &look);
        if (look.report) {
            *ret_changed = true;
            return 0;
        }
        if (tosc__now() >= deadline) {
            *ret_changed = !is_at(control, known);
            return 0;
        }
        status = sleep_once(be, control, known, waiter, &look, stop, deadline);
        if (status != 0) {
            return status;
        }
        if (__atomic_load_n(&be->control, __ATOMIC_ACQUIRE) != control) {
            *ret_changed =
                true; /* the lock file is another one now: look at everything */
            return 0;
        }
    }
}

/* ---- waiting by looking ---- */

static int
look_around(struct tosc__file_backend *be, const tosc_position *known, bool *ret_changed)
{
    struct tosc__control *control = tosc__fb_control(be);
    int64_t now = tosc__now();
    bool check = true;

    if (control != NULL) {
        pthread_mutex_lock(&be->mutex);
        check = now >= be->next_check;
        if (check) {
            be->next_check = now + CHECK_NS;
        }
        pthread_mutex_unlock(&be->mutex);
        *ret_changed = !is_at(control, known);
        if (!check || *ret_changed) {
            return 0;
        }
    }
    return tosc__fb_peek(be, known, ret_changed);
}

static int
wait_by_looking(struct tosc__file_backend *be, const tosc_position *known,
                int64_t deadline, const tosc_event *stop, bool *ret_changed)
{
    int64_t longest = be->poll_ms * TOSC__MS;
    bool changed = false;

    for (;;) {
        int64_t pause;
        int64_t now;
        int status = look_around(be, known, &changed);

        if (status != 0) {
            return status;
        }
        now = tosc__now();
        pthread_mutex_lock(&be->mutex);
        pause = be->poll_pause;
        be->poll_pause = changed ? POLL_MIN_NS : pause + pause / 4;
        if (be->poll_pause > longest) {
            be->poll_pause = longest;
        }
        pthread_mutex_unlock(&be->mutex);
        if (changed || now >= deadline) {
            *ret_changed = changed;
            return 0;
        }
        status =
            tosc__sleep_on(-1, stop, pause < deadline - now ? now + pause : deadline);
        if (status != 0) {
            return status;
        }
    }
}

int
tosc__fb_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
              const tosc_event *stop, bool *ret_changed)
{
    struct tosc__file_backend *be = impl;
    int64_t deadline = tosc__deadline(timeout_ms);
    struct tosc__control *control = NULL;
    struct tosc__waiter *waiter = NULL;
    int status;

    if (be->local && tosc__fb_attach(be, true) == 0
        && __atomic_load_n(&be->lock_writable, __ATOMIC_RELAXED)) {
        if (tosc__fb_control(be) == NULL && tosc__fb_enter(be, NULL, 0) == 0) {
            tosc__fb_leave(be, NULL); /* the first of this boot */
        }
        control = tosc__fb_control(be);
        waiter = control != NULL ? take_waiter(be) : NULL;
    }
    if (waiter == NULL) {
        return wait_by_looking(be, known, deadline, stop, ret_changed);
    }
    status = wait_by_notice(be, control, known, waiter, deadline, stop, ret_changed);
    give_waiter(be, waiter);
    return status;
}
