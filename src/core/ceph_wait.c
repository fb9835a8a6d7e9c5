/*
 * The Ceph backend's changes: asking, waiting, waking.
 *
 * One who waits makes sure that the object is watched, and that it was looked at after
 * the watch began and after whatever else happened (`events`). If what is remembered
 * since is where he is, nothing has to be asked: further commits bring a notice (`news`),
 * or, made through this backend object, change what is remembered; both wake him. If a
 * notice is lost all the same, a look every poll_ms finds out. Nobody is told "no change"
 * without a look during his wait.
 *
 * While nothing is stored there may be no object to watch; and some may not be permitted
 * to watch. They look at growing intervals.
 *
 * Of this object's own commits, which mostly come from the very Manager whose watcher
 * waits, one is reported every QUIET_NS.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/ceph_backend.h"
#include "core/error.h"
#include "core/sys.h"

#define QUIET_NS (2 * TOSC__MS)
#define BLIND_MIN_NS TOSC__MS
#define BLIND_MAX_NS (100 * TOSC__MS)
#define IDLE_MAX 2

/* ---- waking ---- */

/* With the mutex. */
static void
wake_all(struct tosc__ceph *be)
{
    for (struct tosc__ceph_waiter *waiter = be->waiting; waiter != NULL;
         waiter = waiter->next) {
        eventfd_write(waiter->fd, 1);
    }
}

void
tosc__ceph_disturb(struct tosc__ceph *be)
{
    pthread_mutex_lock(&be->mutex);
    be->events++;
    wake_all(be);
    pthread_mutex_unlock(&be->mutex);
}

static bool
is_newer(const tosc_position *a, const tosc_position *b)
{
    return memcmp(a->store_id, b->store_id, sizeof(a->store_id)) != 0
           || a->version > b->version;
}

void
tosc__ceph_heard(struct tosc__ceph *be, const tosc_position *news)
{
    tosc_position at;

    pthread_mutex_lock(&be->mutex);
    at = tosc__guard_position(&be->state.guard);
    if (news != NULL && (!be->knows || is_newer(news, &at))
        && (!be->has_news || is_newer(news, &be->news))) {
        be->has_news = true;
        be->news = *news;
        be->news_count++;
        be->doubt_at = 0;
    }
    wake_all(be);
    pthread_mutex_unlock(&be->mutex);
}

void
tosc__ceph_announce(struct tosc__ceph *be, const tosc_position *at)
{
    int64_t now = tosc__now();

    pthread_mutex_lock(&be->mutex);
    be->own_version = at->version;
    for (struct tosc__ceph_waiter *waiter = be->waiting; waiter != NULL;
         waiter = waiter->next) {
        if (now >= be->quiet_until || waiter->until > be->quiet_until) {
            eventfd_write(waiter->fd, 1);
        }
    }
    pthread_mutex_unlock(&be->mutex);
}

/* ---- waiters ---- */

struct tosc__ceph_waiter *
tosc__ceph_waiter_take(struct tosc__ceph *be)
{
    struct tosc__ceph_waiter *waiter;

    pthread_mutex_lock(&be->mutex);
    waiter = be->idle;
    if (waiter != NULL) {
        be->idle = waiter->next;
        be->idle_count--;
    }
    pthread_mutex_unlock(&be->mutex);
    if (waiter == NULL) {
        waiter = tosc__sys.malloc(sizeof(*waiter));
        if (waiter == NULL) {
            return NULL;
        }
        waiter->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (waiter->fd < 0) {
            free(waiter);
            return NULL;
        }
    }
    waiter->until = INT64_MAX;
    pthread_mutex_lock(&be->mutex);
    waiter->next = be->waiting;
    be->waiting = waiter;
    pthread_mutex_unlock(&be->mutex);
    return waiter;
}

static void
drain(struct tosc__ceph_waiter *waiter)
{
    uint64_t count;

    while (read(waiter->fd, &count, sizeof(count)) > 0) {
    }
}

void
tosc__ceph_waiter_give(struct tosc__ceph *be, struct tosc__ceph_waiter *waiter)
{
    struct tosc__ceph_waiter **at = &be->waiting;
    bool keep;

    if (waiter == NULL) {
        return;
    }
    pthread_mutex_lock(&be->mutex);
    while (*at != NULL && *at != waiter) {
        at = &(*at)->next;
    }
    if (*at == NULL) {
        /* A signal's handler has forked, in a wait of its thread: this is the child. */
        pthread_mutex_unlock(&be->mutex);
        free(waiter);
        return;
    }
    *at = waiter->next;
    drain(waiter);
    keep = be->idle_count < IDLE_MAX;
    if (keep) {
        waiter->next = be->idle;
        be->idle = waiter;
        be->idle_count++;
    }
    pthread_mutex_unlock(&be->mutex);
    if (!keep) {
        close(waiter->fd);
        free(waiter);
    }
}

/* ---- asking ---- */

/* Whether it is known that the store has left `known`. With the mutex. */
static bool
has_left(const struct tosc__ceph *be, const tosc_position *known)
{
    tosc_position at = tosc__guard_position(&be->state.guard);

    if (be->has_news && !tosc__same_position(&be->news, known)
        && (!known->stored || is_newer(&be->news, known))) {
        return true;
    }
    return be->knows && at.stored && (!known->stored || is_newer(&at, known));
}

int
tosc__ceph_changed(void *impl, const tosc_position *known)
{
    struct tosc__ceph *be = impl;
    bool left;

    pthread_mutex_lock(&be->mutex);
    left = has_left(be, known);
    pthread_mutex_unlock(&be->mutex);
    left = left || tosc__ceph_topic_has_left(be->topic, known);
    /* That nothing is known of a change says nothing. */
    return left ? 1 : TOSC_EUNSUPPORTED;
}

/* ---- waiting ---- */

struct wait {
    const tosc_position *known;
    int64_t deadline;
    const tosc_event *stop;
    struct tosc__ceph_waiter *waiter;
    bool looked;     /* at least once in this wait, */
    uint64_t events; /* at this count, */
    int64_t looked_at;
    bool blind; /* nobody tells us of changes */
    int64_t blind_pause;
};

enum answer { ANSWER_CHANGED, ANSWER_LOOK, ANSWER_SLEEP };

/* *ret_until: of ANSWER_SLEEP. */
static enum answer
consider(struct tosc__ceph *be, const struct wait *wait, int64_t now, int64_t *ret_until)
{
    enum answer answer = ANSWER_LOOK;
    tosc_position at;

    pthread_mutex_lock(&be->mutex);
    at = tosc__guard_position(&be->state.guard);
    *ret_until = wait->deadline;
    if (has_left(be, wait->known)) {
        bool own = !be->has_news && at.version == be->own_version;

        if (own && now < be->quiet_until && be->quiet_until < wait->deadline) {
            *ret_until = be->quiet_until;
            answer = ANSWER_SLEEP;
        } else {
            be->quiet_until = own ? now + QUIET_NS : be->quiet_until;
            answer = ANSWER_CHANGED;
        }
    } else if (tosc__ceph_topic_has_left(be->topic, wait->known)
               || (be->doubt_at != 0 && now >= be->doubt_at)) {
        answer = ANSWER_LOOK;
    } else if (be->knows && be->state_events == be->events
               && tosc__same_position(&at, wait->known)) {
        answer = ANSWER_SLEEP;
    } else if (wait->looked && wait->events == be->events) {
        answer = ANSWER_SLEEP;
    }
    if (be->doubt_at != 0 && be->doubt_at < *ret_until) {
        *ret_until = be->doubt_at;
    }
    if (wait->waiter != NULL) {
        wait->waiter->until = *ret_until;
    }
    pthread_mutex_unlock(&be->mutex);
    return answer;
}

/* *ret_changed: the object is not at `known`. */
static int
look(struct tosc__ceph *be, struct wait *wait, bool *ret_changed)
{
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, wait->stop, NULL);
    struct tosc__ceph_mark mark = tosc__ceph_mark(be);
    struct tosc__ceph_seen seen;
    tosc_position at;
    int status;

    limit.heed_ns = 0;
    status = tosc__ceph_look(be, &limit, NULL, false, &seen);
    if (status != 0) {
        return status;
    }
    tosc_blob_unref(seen.bytes);
    at = tosc__guard_position(&seen.state.guard);
    *ret_changed = !tosc__same_position(&at, wait->known);
    wait->looked = true;
    wait->events = mark.events;
    wait->looked_at = tosc__now();
    if (!at.stored) {
        wait->blind = true; /* there may be no object to watch */
    }
    return 0;
}

/* Has the object watched, or makes this a blind wait. */
static int
ensure_watch(struct tosc__ceph *be, struct wait *wait)
{
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, wait->stop, NULL);
    int status;
    bool refused;

    pthread_mutex_lock(&be->mutex);
    refused = be->watch_refused;
    pthread_mutex_unlock(&be->mutex);
    wait->blind = refused || wait->waiter == NULL;
    if (wait->blind || tosc__ceph_watch_is_good(be)) {
        return 0;
    }
    status = tosc__ceph_watch_start(be, &limit);
    if (status != TOSC_ESYSTEM) {
        return status;
    }
    switch (tosc_error_errno()) {
    case EPERM:
    case EACCES:
        pthread_mutex_lock(&be->mutex);
        be->watch_refused = true;
        pthread_mutex_unlock(&be->mutex);
        wait->blind = true;
        return 0;
    case ENOENT:
        wait->blind = true;
        return 0;
    case ESHUTDOWN:
        return 0; /* next time, over a new connection */
    default:
        return status;
    }
}

static int
sleep_until(struct wait *wait, int64_t until)
{
    const struct tosc__ceph_limit limit = {.deadline = until, .stop = wait->stop};
    int status = tosc__ceph_sleep(wait->waiter != NULL ? wait->waiter->fd : -1, &limit);

    if (wait->waiter != NULL) {
        drain(wait->waiter);
    }
    return status == TOSC_ETIMEDOUT ? 0 : status;
}

/* How long nobody needs to look. */
static int64_t
next_look(struct tosc__ceph *be, struct wait *wait)
{
    int64_t pause = be->poll_ns;

    if (wait->blind) {
        wait->blind_pause = wait->blind_pause == 0                 ? BLIND_MIN_NS
                            : wait->blind_pause < BLIND_MAX_NS / 2 ? 2 * wait->blind_pause
                                                                   : BLIND_MAX_NS;
        pause = wait->blind_pause < pause ? wait->blind_pause : pause;
    }
    return tosc__now() + pause;
}

static int
wait_for_change(struct tosc__ceph *be, struct wait *wait, bool *ret_changed)
{
    int64_t due = INT64_MAX; /* for a look because none was for so long */
    bool changed = false;

    for (;;) {
        int64_t now = tosc__now();
        int64_t until;
        int status = ensure_watch(be, wait);
        enum answer answer = consider(be, wait, now, &until);

        if (status != 0) {
            return status;
        }
        if (answer == ANSWER_CHANGED) {
            *ret_changed = true;
            return 0;
        }
        if (answer == ANSWER_LOOK || now >= due
            || (now >= wait->deadline && !wait->looked)) {
            status = look(be, wait, &changed);
            if (status != 0 || changed) {
                *ret_changed = changed;
                return status;
            }
            due = INT64_MAX;
            continue;
        }
        if (now >= wait->deadline) {
            *ret_changed = false;
            return 0;
        }
        if (due == INT64_MAX) {
            due = next_look(be, wait);
        }
        status = sleep_until(wait, until < due ? until : due);
        if (status != 0) {
            return status;
        }
    }
}

int
tosc__ceph_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
                const tosc_event *stop, bool *ret_changed)
{
    struct tosc__ceph *be = impl;
    struct wait wait = {
        .known = known, .deadline = tosc__deadline(timeout_ms), .stop = stop};
    bool changed = false;
    int status;

    wait.waiter = tosc__ceph_waiter_take(be);
    status = wait_for_change(be, &wait, &changed);
    tosc__ceph_waiter_give(be, wait.waiter);
    if (status == 0) {
        *ret_changed = changed;
    }
    return status;
}

#endif
