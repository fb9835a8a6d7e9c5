/*
 * Watching an object: RADOS's watch.
 *
 * A backend that somebody waits on watches its object; librados keeps the watch up over
 * restarts of OSDs, and tells us when it could not. What comes is a notice
 * (ceph_notices.c).
 *
 * The callbacks run in librados's threads. They take the watch's mutex and then, shortly,
 * the backend's, and write to eventfds. A watch that is given up is cut off from its
 * backend first; it is freed when librados has said that no callback can come any more.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <errno.h>
#include <rados/librados.h>
#include <stdlib.h>
#include <string.h>

#include "core/ceph_backend.h"
#include "core/error.h"
#include "core/sys.h"

/* Shared by the backend, its callbacks and who waits for it to begin. */
struct tosc__ceph_watch {
    int refs;              /* atomic */
    pthread_mutex_t mutex; /* guards `be`; before the backend's */
    struct tosc__ceph *be; /* NULL: given up */
    struct tosc__ceph_link *link;
    char *object;
    uint64_t cookie;
    int broken;   /* atomic */
    bool dropped; /* guarded by `mutex` */
    bool done;    /* the same: the answer to the beginning has come: */
    int error;
    tosc_event *answered; /* the same; NULL: nobody waits for it */
};

static void
watch_unref(struct tosc__ceph_watch *watch)
{
    if (__atomic_sub_fetch(&watch->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        bool dropped = watch->dropped;

        tosc__ceph_link_unref(watch->link);
        pthread_mutex_destroy(&watch->mutex);
        free(watch->object);
        free(watch);
        if (dropped) {
            tosc__ceph_busy(-1);
        }
    }
}

/* ---- notices coming in; in librados's threads ---- */

/* With the watch's mutex. */
static void
take_notice(struct tosc__ceph *be, const void *data, size_t size)
{
    uint8_t sender[8];
    tosc_position at;
    enum tosc__ceph_news news = tosc__ceph_notice_decode(data, size, sender, &at);
    bool own = false;

    if (news != TOSC__CEPH_STRANGE) {
        pthread_mutex_lock(&be->mutex);
        own = memcmp(sender, be->sender, sizeof(sender)) == 0;
        pthread_mutex_unlock(&be->mutex);
    }
    if (own) {
        return;
    }
    tosc__ceph_not_alone(be);
    switch (news) {
    case TOSC__CEPH_COMMIT:
        tosc__ceph_heard(be, &at);
        break;
    case TOSC__CEPH_LOCK_FREE:
        tosc__ceph_heard(be, NULL);
        break;
    case TOSC__CEPH_GREETING:
        break;
    case TOSC__CEPH_STRANGE:
        tosc__ceph_disturb(be);
        break;
    }
}

static void
notified(void *arg, uint64_t notify_id, uint64_t handle, uint64_t notifier_id, void *data,
         size_t size)
{
    struct tosc__ceph_watch *watch = arg;

    (void)notifier_id;
    pthread_mutex_lock(&watch->mutex);
    if (watch->be != NULL) {
        take_notice(watch->be, data, size);
    }
    pthread_mutex_unlock(&watch->mutex);
    rados_notify_ack(tosc__ceph_link_io(watch->link), watch->object, notify_id, handle,
                     NULL, 0);
}

static void
lost(void *arg, uint64_t cookie, int error)
{
    struct tosc__ceph_watch *watch = arg;

    (void)cookie;
    (void)error;
    __atomic_store_n(&watch->broken, 1, __ATOMIC_RELEASE);
    pthread_mutex_lock(&watch->mutex);
    if (watch->be != NULL) {
        tosc__ceph_not_alone(watch->be);
        tosc__ceph_disturb(watch->be);
    }
    pthread_mutex_unlock(&watch->mutex);
}

/* ---- ending a watch: unwatch, then let the callbacks run out, then free ---- */

static void
flushed(rados_completion_t completion, void *arg)
{
    rados_aio_release(completion);
    watch_unref(arg);
}

static void
ended(rados_completion_t completion, void *arg)
{
    struct tosc__ceph_watch *watch = arg;
    rados_completion_t next;

    rados_aio_release(completion);
    if (rados_aio_create_completion2(watch, flushed, &next) < 0) {
        return; /* never freed, rather than too early */
    }
    if (rados_aio_watch_flush(tosc__ceph_link_cluster(watch->link), next) < 0) {
        rados_aio_release(next);
    }
}

/* Gives up the reference of whoever had the watch. */
static void
unwatch(struct tosc__ceph_watch *watch)
{
    rados_completion_t completion;

    if (watch->error != 0) {
        watch_unref(watch); /* librados has forgotten it already */
        return;
    }
    if (rados_aio_create_completion2(watch, ended, &completion) == 0
        && rados_aio_unwatch(tosc__ceph_link_io(watch->link), watch->cookie, completion)
               < 0) {
        rados_aio_release(completion);
    }
}

/* A watch must not be ended before it has begun: then begun() does it. */
void
tosc__ceph_watch_drop(struct tosc__ceph_watch *watch)
{
    bool entered;
    bool done;

    if (watch == NULL) {
        return;
    }
    entered = tosc__ceph_enter();
    pthread_mutex_lock(&watch->mutex);
    watch->be = NULL;
    watch->dropped = entered;
    done = watch->done;
    pthread_mutex_unlock(&watch->mutex);
    if (done && entered) {
        unwatch(watch);
    }
}

static void
begun(rados_completion_t completion, void *arg)
{
    struct tosc__ceph_watch *watch = arg;
    bool dropped;

    pthread_mutex_lock(&watch->mutex);
    watch->error = -rados_aio_get_return_value(completion);
    watch->done = true;
    dropped = watch->dropped;
    if (watch->answered != NULL) {
        tosc_event_set(watch->answered);
    }
    pthread_mutex_unlock(&watch->mutex);
    rados_aio_release(completion);
    if (dropped) {
        unwatch(watch);
    }
    watch_unref(watch);
    tosc__ceph_busy(-1);
}

/* ---- beginning ---- */

static struct tosc__ceph_watch *
watch_new(struct tosc__ceph *be, struct tosc__ceph_link *link, tosc_event *answered)
{
    struct tosc__ceph_watch *watch = tosc__sys.malloc(sizeof(*watch));

    if (watch == NULL) {
        return NULL;
    }
    *watch = (struct tosc__ceph_watch){.refs = 1, .be = be, .answered = answered};
    watch->link = tosc__ceph_link_ref(link);
    watch->object = strdup(be->object);
    pthread_mutex_init(&watch->mutex, NULL);
    if (watch->object == NULL) {
        watch_unref(watch);
        return NULL;
    }
    return watch;
}

/* Sends the request. On success there is a reference more, which begun() drops. */
static int
register_watch(struct tosc__ceph_watch *watch)
{
    rados_completion_t completion;
    int rc = tosc__ceph_enter() ? 0 : -ESHUTDOWN;

    if (rc < 0) {
        return rc;
    }
    rc = rados_aio_create_completion2(watch, begun, &completion);
    if (rc < 0) {
        tosc__ceph_busy(-1);
        return rc;
    }
    watch->refs++;
    rc = rados_aio_watch2(tosc__ceph_link_io(watch->link), watch->object, completion,
                          &watch->cookie, notified, lost, 0, watch);
    if (rc < 0) {
        rados_aio_release(completion);
        watch->refs--;
        tosc__ceph_busy(-1);
    }
    return rc;
}

/* Waits for begun(), and then lets it not touch `answered` any more. */
static int
await_answer(struct tosc__ceph_watch *watch, tosc_event *answered,
             const struct tosc__ceph_limit *limit, int *ret_error)
{
    int status = 0;

    while (status == 0 && !tosc_event_is_set(answered)) {
        status = tosc__ceph_sleep(tosc_event_fd(answered), limit);
    }
    pthread_mutex_lock(&watch->mutex);
    watch->answered = NULL;
    if (watch->done) {
        status = 0;
        *ret_error = watch->error;
    }
    pthread_mutex_unlock(&watch->mutex);
    return status;
}

/* All that watch know of us; what they did before that, they have told nobody of. */
void
tosc__ceph_watch_greeted(struct tosc__ceph_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    pthread_mutex_lock(&watch->mutex);
    if (watch->be != NULL) {
        tosc__ceph_disturb(watch->be);
    }
    pthread_mutex_unlock(&watch->mutex);
    watch_unref(watch);
}

uint64_t
tosc__ceph_watch_cookie(const struct tosc__ceph *be)
{
    const struct tosc__ceph_watch *watch = be->watch;

    return watch != NULL && __atomic_load_n(&watch->broken, __ATOMIC_ACQUIRE) == 0
                   && watch->link == be->link
               ? watch->cookie
               : 0;
}

static void
install(struct tosc__ceph *be, struct tosc__ceph_watch *watch)
{
    struct tosc__ceph_watch *old;

    pthread_mutex_lock(&be->mutex);
    old = be->watch;
    be->watch = watch;
    __atomic_add_fetch(&watch->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&be->mutex);
    tosc__ceph_watch_drop(old);
    /* What happened before it began, it does not tell. */
    tosc__ceph_disturb(be);
    tosc__ceph_not_alone(be);
    tosc__ceph_greet(be, watch);
}

static int
no_memory(void)
{
    return tosc__fail(TOSC_ENOMEM, "not enough memory or descriptors for a watch");
}

static int
start_over(struct tosc__ceph *be, struct tosc__ceph_link *link, tosc_event *answered,
           const struct tosc__ceph_limit *limit)
{
    struct tosc__ceph_watch *watch = watch_new(be, link, answered);
    int error = 0;
    int status;

    if (watch == NULL) {
        return no_memory();
    }
    error = -register_watch(watch);
    if (error > 0) {
        watch_unref(watch);
        return tosc__ceph_failed(error, &be->who, be->where, "watching", 0);
    }
    status = await_answer(watch, answered, limit, &error);
    if (status == 0 && error == 0) {
        install(be, watch);
        return 0;
    }
    tosc__ceph_watch_drop(watch);
    if (error == ESHUTDOWN) {
        tosc__ceph_shut_out(be, link);
    }
    if (status == TOSC_ETIMEDOUT) {
        error = ETIMEDOUT;
        status = 0;
    }
    return status != 0 ? status
                       : tosc__ceph_failed(error, &be->who, be->where, "watching", 0);
}

int
tosc__ceph_watch_start(struct tosc__ceph *be, const struct tosc__ceph_limit *limit)
{
    tosc_event *answered = tosc_event_new();
    struct tosc__ceph_link *link;
    int status = answered != NULL ? tosc__ceph_link(be, limit, &link) : no_memory();

    if (status == 0) {
        status = start_over(be, link, answered, limit);
        tosc__ceph_link_unref(link);
    }
    tosc_event_free(answered);
    return status;
}

/* With the mutex, as another thread might end the watch meanwhile. */
static bool
is_alive(struct tosc__ceph_watch *watch)
{
    bool alive = true;

    pthread_mutex_lock(&watch->mutex);
    if (watch->be == NULL) {
        alive = false;
    } else if (tosc__ceph_enter()) {
        alive = rados_watch_check(tosc__ceph_link_io(watch->link), watch->cookie) >= 0;
        tosc__ceph_busy(-1);
    }
    pthread_mutex_unlock(&watch->mutex);
    return alive;
}

bool
tosc__ceph_watch_is_good(struct tosc__ceph *be)
{
    struct tosc__ceph_watch *watch;
    bool good;

    pthread_mutex_lock(&be->mutex);
    watch = be->watch;
    good = watch != NULL && __atomic_load_n(&watch->broken, __ATOMIC_ACQUIRE) == 0
           && watch->link == be->link && tosc__ceph_link_is_usable(watch->link);
    if (good) {
        __atomic_add_fetch(&watch->refs, 1, __ATOMIC_RELAXED);
    } else {
        be->watch = NULL;
    }
    pthread_mutex_unlock(&be->mutex);
    if (!good) {
        tosc__ceph_not_alone(be);
        tosc__ceph_watch_drop(watch);
        return false;
    }
    if (!is_alive(watch)) {
        __atomic_store_n(&watch->broken, 1, __ATOMIC_RELEASE);
        good = false;
    }
    watch_unref(watch);
    return good || tosc__ceph_watch_is_good(be);
}

#endif
