/*
 * The keeper: what a Ceph backend has to do at certain times. A thread of its own, made
 * when it is first needed, that sleeps most of the time.
 *
 * While the exclusive lock is held it renews the lease. And it sends notices in a stream
 * of commits: where one follows the other without a pause, a notice for each would cost
 * as much as a quarter of the commits themselves, so one is sent every STREAM_NS; fewer
 * where those before are not acknowledged. Else a commit after a pause is told of at once,
 * by who made it; what is decided about that is here too.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <signal.h>
#include <string.h>

#include "core/ceph_backend.h"

#define STREAM_NS (5 * TOSC__MS)
/* A commit that begins so soon after the last one belongs to a stream, */
#define BREATH_NS (TOSC__MS / 8)
/* which is one from this many on. */
#define STREAM_COMMITS 4
/* Takes no noticeable time to send. */
#define SMALL ((size_t)16 << 10)
/* Nobody else has been faster for so long. */
#define CALM_NS (100 * TOSC__MS)

static void
renew_lease(struct tosc__ceph *be, const uint8_t *token)
{
    struct tosc__ceph_limit now = {.deadline = tosc__now(), .patient = true};
    struct tosc__ceph_change change = {
        .lock = TOSC__CEPH_RENEW, .holder = token, .lease_ms = be->lease_ms};
    struct tosc__ceph_link *link;

    /* Without a link there is no lease of ours to renew either. */
    if (tosc__ceph_link(be, &now, &link) == 0) {
        tosc__ceph_change_send(link, be->object, &change);
        tosc__ceph_link_unref(link);
    }
}

static int64_t
lease_part(const struct tosc__ceph *be)
{
    return be->lease_ms * TOSC__MS / 3;
}

/* A notice that is due counts as work under way: the process does not end without it. */
static void
tell(struct tosc__ceph *be, const tosc_position *at)
{
    tosc__ceph_tell_commit(be, at);
    tosc__ceph_busy(-1);
}

/* With the mutex, which it gives up meanwhile. */
static void
do_due(struct tosc__ceph *be, int64_t now)
{
    uint8_t token[TOSC__HOLDER_SIZE];
    tosc_position at = be->notice;
    bool renew = be->renew_at != 0 && now >= be->renew_at;
    bool notify = be->notice_at != 0 && now >= be->notice_at;

    memcpy(token, be->token, sizeof(token));
    if (renew) {
        be->renew_at = now + lease_part(be);
    }
    if (notify) {
        be->notice_at = 0;
        be->noticed_at = now;
    }
    pthread_mutex_unlock(&be->mutex);
    if (notify) {
        tell(be, &at);
    }
    if (renew) {
        renew_lease(be, token);
    }
    pthread_mutex_lock(&be->mutex);
}

static void *
keeper_main(void *arg)
{
    struct tosc__ceph *be = arg;

    pthread_mutex_lock(&be->mutex);
    while (!be->ending) {
        int64_t next = be->renew_at != 0 ? be->renew_at : TOSC__FOR_EVER;
        int64_t now = tosc__now();

        if (be->notice_at != 0 && be->notice_at < next) {
            next = be->notice_at;
        }
        if (next <= now) {
            do_due(be, now);
        } else if (next == TOSC__FOR_EVER) {
            pthread_cond_wait(&be->changed, &be->mutex);
        } else {
            struct timespec until = tosc__timespec(next);

            pthread_cond_timedwait(&be->changed, &be->mutex, &until);
        }
    }
    pthread_mutex_unlock(&be->mutex);
    return NULL;
}

/* With the mutex. False: there is no thread. */
static bool
call_keeper(struct tosc__ceph *be)
{
    sigset_t all;
    sigset_t before;

    if (be->has_keeper) {
        pthread_cond_signal(&be->changed);
        return true;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    be->has_keeper = pthread_create(&be->keeper, NULL, keeper_main, be) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return be->has_keeper;
}

/* Without a thread the lease just ends when it ends. */
void
tosc__ceph_begin_renewing(struct tosc__ceph *be, const uint8_t *token)
{
    pthread_mutex_lock(&be->mutex);
    memcpy(be->token, token, sizeof(be->token));
    be->renew_at = tosc__now() + lease_part(be);
    call_keeper(be);
    pthread_mutex_unlock(&be->mutex);
}

/* The keeper need not know at once. */
void
tosc__ceph_end_renewing(struct tosc__ceph *be)
{
    pthread_mutex_lock(&be->mutex);
    be->renew_at = 0;
    pthread_mutex_unlock(&be->mutex);
}

/*
 * A notice ahead of a large commit would come too early; where others commit too, many
 * are refused, and a notice would be of nothing.
 */
enum tosc__ceph_telling
tosc__ceph_begin_commit(struct tosc__ceph *be, size_t size)
{
    enum tosc__ceph_telling telling = TOSC__CEPH_TELL_AFTER;
    bool alone = tosc__ceph_is_alone(be);
    int64_t now = tosc__now();

    pthread_mutex_lock(&be->mutex);
    be->stream = now - be->committed_at < BREATH_NS ? be->stream + 1 : 0;
    if (alone) {
        telling = TOSC__CEPH_TELL_NOBODY;
    } else if (be->stream < STREAM_COMMITS && be->notice_at == 0 && size <= SMALL
               && now - be->overtaken_at > CALM_NS
               && now - be->noticed_at >= tosc__ceph_notice_pace(be)) {
        telling = TOSC__CEPH_TELL_BEFORE;
        be->noticed_at = now;
    }
    pthread_mutex_unlock(&be->mutex);
    return telling;
}

/* Whether the keeper will tell of the commit that led to `at`. With the mutex. */
static bool
leave_to_keeper(struct tosc__ceph *be, const tosc_position *at, int64_t now)
{
    int64_t pace = tosc__ceph_notice_pace(be);

    if (pace < STREAM_NS && be->stream >= STREAM_COMMITS) {
        pace = STREAM_NS;
    }
    if (be->notice_at == 0 && now >= be->noticed_at + pace) {
        return false;
    }
    if (be->notice_at == 0 || at->version > be->notice.version
        || memcmp(at->store_id, be->notice.store_id, sizeof(at->store_id)) != 0) {
        be->notice = *at;
    }
    if (be->notice_at == 0) {
        be->notice_at = be->noticed_at + pace;
        if (call_keeper(be)) {
            tosc__ceph_busy(1);
        } else {
            be->notice_at = 0;
        }
    }
    return be->notice_at != 0;
}

void
tosc__ceph_end_commit(struct tosc__ceph *be, const tosc_position *at,
                      enum tosc__ceph_telling telling)
{
    /* Somebody may have come while the commit was under way. */
    bool tell = telling == TOSC__CEPH_TELL_AFTER
                || (telling == TOSC__CEPH_TELL_NOBODY && !tosc__ceph_is_alone(be));
    int64_t now = tosc__now();

    pthread_mutex_lock(&be->mutex);
    be->committed_at = now;
    if (tell && leave_to_keeper(be, at, now)) {
        tell = false;
    } else if (tell) {
        be->noticed_at = now;
    }
    pthread_mutex_unlock(&be->mutex);
    if (tell) {
        tosc__ceph_tell_commit(be, at);
    }
}

void
tosc__ceph_end_keeper(struct tosc__ceph *be)
{
    bool join;
    bool due;

    pthread_mutex_lock(&be->mutex);
    be->ending = true;
    join = be->has_keeper;
    due = be->notice_at != 0;
    pthread_cond_signal(&be->changed);
    pthread_mutex_unlock(&be->mutex);
    if (join) {
        pthread_join(be->keeper, NULL);
    }
    if (due) {
        tell(be, &be->notice);
    }
}

#endif
