/*
 * Notices: RADOS's watch and notify.
 *
 * A backend that somebody waits on watches its object; librados keeps the watch up over
 * restarts of OSDs, and tells us when it could not. Whoever commits sends a notice with
 * the position that the commit led to. Nobody waits for a notice to be acknowledged: a
 * frozen watcher would hold him up. Notices are hints: they may be lost, come twice, or
 * come from anybody who may write to the pool, and make others look, nothing more.
 *
 * The callbacks run in librados's threads. They take the watch's mutex and then, shortly,
 * the backend's, and write to eventfds. A watch that is given up is cut off from its
 * backend first; it is freed when librados has said that no callback can come any more.
 *
 * So many notices may be under way; further ones are put together, and one is sent when
 * one of these has come back. That only happens when a watcher has died a moment ago.
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

#include "core/bytes.h"
#include "core/ceph_backend.h"
#include "core/error.h"
#include "core/sys.h"

#define NOTICES_MAX 128
#define NOTICE_TIMEOUT_MS 1000
#define NOTICE_SIZE 48

static const unsigned char notice_magic[8] = {'T', 'O', 'S', 'C', 'n', 'o', 't', '1'};

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

static bool
decode(const void *data, size_t size, uint8_t sender[8], tosc_position *ret)
{
    const unsigned char *from = data;

    if (size != NOTICE_SIZE || memcmp(from, notice_magic, 8) != 0) {
        return false;
    }
    memcpy(sender, from + 8, 8);
    *ret = (tosc_position){.version = (int64_t)tosc__get64(from + 16)};
    memcpy(ret->store_id, from + 24, 16);
    ret->cookie[0] = tosc__get64(from + 40);
    ret->stored = ret->version > 0;
    return ret->version >= 0;
}

/* With the watch's mutex. */
static void
take_notice(struct tosc__ceph *be, const void *data, size_t size)
{
    uint8_t sender[8];
    tosc_position at;
    bool own;

    if (!decode(data, size, sender, &at)) {
        tosc__ceph_disturb(be);
        return;
    }
    pthread_mutex_lock(&be->mutex);
    own = memcmp(sender, be->sender, sizeof(sender)) == 0;
    pthread_mutex_unlock(&be->mutex);
    if (!own) {
        tosc__ceph_heard(be, at.stored ? &at : NULL);
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
    bool done;

    if (watch == NULL) {
        return;
    }
    tosc__ceph_busy(1);
    pthread_mutex_lock(&watch->mutex);
    watch->be = NULL;
    watch->dropped = true;
    done = watch->done;
    pthread_mutex_unlock(&watch->mutex);
    if (done) {
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
    int rc = rados_aio_create_completion2(watch, begun, &completion);

    if (rc < 0) {
        return rc;
    }
    watch->refs++;
    rc = rados_aio_watch2(tosc__ceph_link_io(watch->link), watch->object, completion,
                          &watch->cookie, notified, lost, 0, watch);
    if (rc < 0) {
        rados_aio_release(completion);
        watch->refs--;
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

/* The new watch is the backend's, unless another thread was faster. */
static void
install(struct tosc__ceph *be, struct tosc__ceph_watch *watch)
{
    struct tosc__ceph_watch *old;

    pthread_mutex_lock(&be->mutex);
    old = be->watch;
    be->watch = watch;
    pthread_mutex_unlock(&be->mutex);
    tosc__ceph_watch_drop(old);
    /* What happened before it began, it does not tell. */
    tosc__ceph_disturb(be);
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
        tosc__ceph_watch_drop(watch);
        return false;
    }
    good = rados_watch_check(tosc__ceph_link_io(watch->link), watch->cookie) >= 0;
    if (!good) {
        __atomic_store_n(&watch->broken, 1, __ATOMIC_RELEASE);
    }
    watch_unref(watch);
    return good || tosc__ceph_watch_is_good(be);
}

/* ---- notices going out ---- */

/* Those of one backend; outlives it while some are under way. */
struct tosc__ceph_notices {
    int refs;              /* atomic */
    pthread_mutex_t mutex; /* guards all below */
    int under_way;
    bool due; /* one more, as soon as one has come back */
    unsigned char text[NOTICE_SIZE];
};

struct notice {
    struct tosc__ceph_notices *notices;
    struct tosc__ceph_link *link;
    char object[];
};

static void send_notice(struct tosc__ceph_notices *notices, struct tosc__ceph_link *link,
                        const char *object);

void
tosc__ceph_notices_unref(struct tosc__ceph_notices *notices)
{
    if (notices != NULL && __atomic_sub_fetch(&notices->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        pthread_mutex_destroy(&notices->mutex);
        free(notices);
    }
}

static void
notice_free(struct notice *notice)
{
    tosc__ceph_notices_unref(notice->notices);
    tosc__ceph_link_unref(notice->link);
    free(notice);
    tosc__ceph_busy(-1);
}

static void
returned(rados_completion_t completion, void *arg)
{
    struct notice *notice = arg;
    bool more;

    rados_aio_release(completion);
    pthread_mutex_lock(&notice->notices->mutex);
    notice->notices->under_way--;
    more = notice->notices->due;
    notice->notices->due = false;
    pthread_mutex_unlock(&notice->notices->mutex);
    if (more) {
        send_notice(notice->notices, notice->link, notice->object);
    }
    notice_free(notice);
}

static struct notice *
notice_new(struct tosc__ceph_notices *notices, struct tosc__ceph_link *link,
           const char *object)
{
    size_t room = strlen(object) + 1;
    struct notice *notice = tosc__sys.malloc(sizeof(*notice) + room);

    if (notice != NULL) {
        __atomic_add_fetch(&notices->refs, 1, __ATOMIC_RELAXED);
        notice->notices = notices;
        notice->link = tosc__ceph_link_ref(link);
        memcpy(notice->object, object, room);
        tosc__ceph_busy(1);
    }
    return notice;
}

/*
 * What cannot be sent is not: the pause between two looks of those who wait is limited.
 */
static void
send_notice(struct tosc__ceph_notices *notices, struct tosc__ceph_link *link,
            const char *object)
{
    unsigned char text[NOTICE_SIZE];
    rados_completion_t completion;
    struct notice *notice;
    bool full;

    pthread_mutex_lock(&notices->mutex);
    full = notices->under_way >= NOTICES_MAX;
    notices->due = full;
    notices->under_way += !full;
    memcpy(text, notices->text, sizeof(text));
    pthread_mutex_unlock(&notices->mutex);
    if (full) {
        return;
    }
    notice = notice_new(notices, link, object);
    if (notice != NULL
        && rados_aio_create_completion2(notice, returned, &completion) == 0) {
        if (rados_aio_notify(tosc__ceph_link_io(link), object, completion, (char *)text,
                             sizeof(text), NOTICE_TIMEOUT_MS, NULL, NULL)
            == 0) {
            return;
        }
        rados_aio_release(completion);
    }
    pthread_mutex_lock(&notices->mutex);
    notices->under_way--;
    pthread_mutex_unlock(&notices->mutex);
    if (notice != NULL) {
        notice_free(notice);
    }
}

static void
encode(const uint8_t sender[8], const tosc_position *at, unsigned char to[NOTICE_SIZE])
{
    memset(to, 0, NOTICE_SIZE);
    memcpy(to, notice_magic, 8);
    memcpy(to + 8, sender, 8);
    if (at != NULL) {
        tosc__put64(to + 16, (uint64_t)at->version);
        memcpy(to + 24, at->store_id, 16);
        tosc__put64(to + 40, at->cookie[0]);
    }
}

/* With the backend's mutex. */
static struct tosc__ceph_notices *
notices_of(struct tosc__ceph *be)
{
    if (be->notices == NULL) {
        be->notices = tosc__sys.malloc(sizeof(*be->notices));
        if (be->notices != NULL) {
            *be->notices = (struct tosc__ceph_notices){.refs = 1};
            pthread_mutex_init(&be->notices->mutex, NULL);
        }
    }
    return be->notices;
}

void
tosc__ceph_notify(struct tosc__ceph *be, const tosc_position *at)
{
    struct tosc__ceph_notices *notices;
    struct tosc__ceph_link *link;

    pthread_mutex_lock(&be->mutex);
    link = tosc__ceph_link_ref(be->link);
    notices = link != NULL ? notices_of(be) : NULL;
    if (notices != NULL) {
        pthread_mutex_lock(&notices->mutex);
        encode(be->sender, at, notices->text);
        pthread_mutex_unlock(&notices->mutex);
    }
    pthread_mutex_unlock(&be->mutex);
    if (notices != NULL) {
        send_notice(notices, link, be->object);
    }
    tosc__ceph_link_unref(link);
}

#endif
