/*
 * Notices: what is said between the users of an object, by RADOS's notify, and who there
 * is to say it to.
 *
 * A notice tells of a commit, of a lock that is free, or is a greeting. It is a hint: it
 * can be lost, come twice, tell of something that was refused, or come from anybody who
 * may read the pool. It makes others look, nothing more. Nobody waits for a notice to be
 * acknowledged: a frozen watcher would hold him up.
 *
 * But the acknowledgements say who watches. If only we do, our notices are left out, as
 * they would cost a good part of the commits that they tell of. That holds until there is
 * a sign of somebody else. Whoever begins to watch greets, and looks at the object once
 * more when all have acknowledged that; so he sees what was done before they knew of him.
 * A greeting can be lost as well: so being alone is proven anew every ALONE_NS, by one
 * notice that is sent all the same.
 *
 * A notice is under way until all who watch have acknowledged it, or NOTICE_TIMEOUT_MS are
 * over: somebody has just died, is frozen, or out of reach. The more are under way, the
 * slower further ones follow. For after an interruption librados sends all of them again,
 * each to everybody: that must be less than what the connection can take. Beyond NOTICES_MAX
 * one is sent for several, when another has come back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <rados/librados.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/ceph_backend.h"
#include "core/sys.h"

#define NOTICE_TIMEOUT_MS 1000
#define NOTICES_MAX 24
/*
 * The pause after n that are under way is n * n times this. So there are 16 where each takes
 * a second, and where each takes a few milliseconds the pause is as short as a commit.
 */
#define PACE_NS (TOSC__MS / 4)
#define PACE_MAX_NS (64 * TOSC__MS)
_Static_assert(PACE_MAX_NS < TOSC__CEPH_REST_NS, "the end of the process waits for it");
#define NOTICE_SIZE 48
#define ALONE_NS TOSC__SECOND

/* In the place of a version. */
#define LOCK_IS_FREE INT64_C(0)
#define GREETING INT64_C(-1)

/* None of ours: makes everybody look. */
static const unsigned char look[NOTICE_SIZE];
static const unsigned char notice_magic[8] = {'T', 'O', 'S', 'C', 'n', 'o', 't', '1'};

/* Those of one backend object; outlives it while some are under way. */
struct tosc__ceph_notices {
    int refs;              /* atomic */
    pthread_mutex_t mutex; /* guards all below; after the backend's */
    int under_way;
    bool due;         /* one more, as soon as one has come back */
    uint64_t signs;   /* that others watch, or that our own watch is another one */
    int64_t alone_at; /* nobody else watched at this time; 0: not known */
};

struct notice {
    struct tosc__ceph_notices *notices;
    struct tosc__ceph_link *link;
    struct tosc__ceph_watch *greeter; /* NULL: not a greeting */
    uint64_t cookie;                  /* of our watch, 0: none */
    uint64_t signs;                   /* when this was sent, */
    int64_t sent_at;                  /* and when that was */
    char *reply;
    size_t reply_size;
    char object[];
};

/* ---- the text of a notice ---- */

static void
encode(const uint8_t sender[8], int64_t version, const tosc_position *at,
       unsigned char to[NOTICE_SIZE])
{
    memset(to, 0, NOTICE_SIZE);
    memcpy(to, notice_magic, 8);
    memcpy(to + 8, sender, 8);
    tosc__put64(to + 16, (uint64_t)version);
    if (at != NULL) {
        memcpy(to + 24, at->store_id, 16);
        tosc__put64(to + 40, at->cookie[0]);
    }
}

enum tosc__ceph_news
tosc__ceph_notice_decode(const void *data, size_t size, uint8_t sender[8],
                         tosc_position *ret)
{
    const unsigned char *from = data;

    if (size != NOTICE_SIZE || memcmp(from, notice_magic, 8) != 0) {
        return TOSC__CEPH_STRANGE;
    }
    memcpy(sender, from + 8, 8);
    *ret = (tosc_position){.version = (int64_t)tosc__get64(from + 16)};
    memcpy(ret->store_id, from + 24, 16);
    ret->cookie[0] = tosc__get64(from + 40);
    ret->stored = ret->version > 0;
    switch (ret->version) {
    case LOCK_IS_FREE:
        return TOSC__CEPH_LOCK_FREE;
    case GREETING:
        return TOSC__CEPH_GREETING;
    default:
        return ret->stored ? TOSC__CEPH_COMMIT : TOSC__CEPH_STRANGE;
    }
}

/* ---- who else there is ---- */

/* With the backend's mutex. NULL: no memory. */
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
tosc__ceph_notices_unref(struct tosc__ceph_notices *notices)
{
    if (notices != NULL && __atomic_sub_fetch(&notices->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        pthread_mutex_destroy(&notices->mutex);
        free(notices);
    }
}

void
tosc__ceph_not_alone(struct tosc__ceph *be)
{
    struct tosc__ceph_notices *notices;

    pthread_mutex_lock(&be->mutex);
    notices = be->notices;
    if (notices != NULL) {
        pthread_mutex_lock(&notices->mutex);
        notices->signs++;
        notices->alone_at = 0;
        pthread_mutex_unlock(&notices->mutex);
    }
    pthread_mutex_unlock(&be->mutex);
}

bool
tosc__ceph_is_alone(struct tosc__ceph *be)
{
    int64_t alone_at = 0;

    pthread_mutex_lock(&be->mutex);
    if (be->notices != NULL) {
        pthread_mutex_lock(&be->notices->mutex);
        alone_at = be->notices->alone_at;
        pthread_mutex_unlock(&be->notices->mutex);
    }
    pthread_mutex_unlock(&be->mutex);
    return alone_at != 0 && tosc__now() - alone_at < ALONE_NS;
}

int64_t
tosc__ceph_notice_pace(const struct tosc__ceph *be)
{
    int64_t under_way = 0;
    int64_t pace;

    if (be->notices != NULL) {
        pthread_mutex_lock(&be->notices->mutex);
        under_way = be->notices->under_way;
        pthread_mutex_unlock(&be->notices->mutex);
    }
    pace = under_way * under_way * PACE_NS;
    return pace < PACE_MAX_NS ? pace : PACE_MAX_NS;
}

/* Whether the only answer is that of our own watch. */
static bool
only_we_answered(const struct notice *notice)
{
    uint64_t self = rados_get_instance_id(tosc__ceph_link_cluster(notice->link));
    struct notify_ack_t *acks = NULL;
    struct notify_timeout_t *silent = NULL;
    size_t ack_count = 0;
    size_t silent_count = 0;
    bool only = false;

    if (notice->cookie == 0 || notice->reply == NULL
        || rados_decode_notify_response(notice->reply, notice->reply_size, &acks,
                                        &ack_count, &silent, &silent_count)
               < 0) {
        return false;
    }
    if (ack_count == 1 && silent_count == 0) {
        only = acks[0].notifier_id == self && acks[0].cookie == notice->cookie;
    }
    rados_free_notify_response(acks, ack_count, silent);
    return only;
}

/* ---- sending ---- */

static void send_notice(struct notice *notice, const unsigned char *text);

static void
notice_free(struct notice *notice)
{
    tosc__ceph_watch_greeted(notice->greeter);
    if (notice->reply != NULL) {
        rados_buffer_free(notice->reply);
    }
    tosc__ceph_notices_unref(notice->notices);
    tosc__ceph_link_unref(notice->link);
    free(notice);
    tosc__ceph_busy(-1);
}

static struct notice *
notice_new(struct tosc__ceph_notices *notices, struct tosc__ceph_link *link,
           const char *object, uint64_t cookie)
{
    size_t room = strlen(object) + 1;
    struct notice *notice;

    if (!tosc__ceph_enter()) {
        return NULL;
    }
    notice = tosc__sys.malloc(sizeof(*notice) + room);
    if (notice == NULL) {
        tosc__ceph_busy(-1);
    } else {
        __atomic_add_fetch(&notices->refs, 1, __ATOMIC_RELAXED);
        *notice = (struct notice){.notices = notices,
                                  .link = tosc__ceph_link_ref(link),
                                  .cookie = cookie,
                                  .sent_at = tosc__now()};
        memcpy(notice->object, object, room);
    }
    return notice;
}

static void
returned(rados_completion_t completion, void *arg)
{
    struct notice *notice = arg;
    struct tosc__ceph_notices *notices = notice->notices;
    bool alone = rados_aio_get_return_value(completion) == 0 && only_we_answered(notice);
    struct notice *next = NULL;
    bool more;

    rados_aio_release(completion);
    pthread_mutex_lock(&notices->mutex);
    notices->under_way--;
    more = notices->due;
    notices->due = false;
    if (notices->signs == notice->signs) {
        notices->alone_at = alone ? notice->sent_at : 0;
    }
    pthread_mutex_unlock(&notices->mutex);
    if (more) {
        next = notice_new(notices, notice->link, notice->object, notice->cookie);
    }
    if (next != NULL) {
        send_notice(next, look);
    }
    notice_free(notice);
}

/*
 * Takes over the notice. What cannot be sent is not: the pause between two looks of those
 * who wait is limited. Where too many are under way, one that makes all look does for all.
 */
static void
send_notice(struct notice *notice, const unsigned char *text)
{
    struct tosc__ceph_notices *notices = notice->notices;
    rados_completion_t completion;
    bool full;

    pthread_mutex_lock(&notices->mutex);
    full = notices->under_way >= NOTICES_MAX;
    notices->due = notices->due || full;
    notices->under_way += !full;
    notice->signs = notices->signs;
    pthread_mutex_unlock(&notices->mutex);
    if (full) {
        notice_free(notice);
        return;
    }
    if (rados_aio_create_completion2(notice, returned, &completion) == 0) {
        if (rados_aio_notify(tosc__ceph_link_io(notice->link), notice->object, completion,
                             (const char *)text, NOTICE_SIZE, NOTICE_TIMEOUT_MS,
                             &notice->reply, &notice->reply_size)
            == 0) {
            return;
        }
        rados_aio_release(completion);
    }
    pthread_mutex_lock(&notices->mutex);
    notices->under_way--;
    pthread_mutex_unlock(&notices->mutex);
    notice_free(notice);
}

/* Takes over the reference to the greeter. */
static void
say(struct tosc__ceph *be, int64_t version, const tosc_position *at,
    struct tosc__ceph_watch *greeter)
{
    unsigned char text[NOTICE_SIZE];
    struct tosc__ceph_notices *notices;
    struct notice *notice = NULL;

    pthread_mutex_lock(&be->mutex);
    encode(be->sender, version, at, text);
    notices = be->link != NULL ? notices_of(be) : NULL;
    if (notices != NULL) {
        notice = notice_new(notices, be->link, be->object, tosc__ceph_watch_cookie(be));
    }
    pthread_mutex_unlock(&be->mutex);
    if (notice != NULL) {
        notice->greeter = greeter;
        send_notice(notice, text);
    } else {
        tosc__ceph_watch_greeted(greeter);
    }
}

void
tosc__ceph_tell_commit(struct tosc__ceph *be, const tosc_position *at)
{
    say(be, at->version, at, NULL);
}

/* Who waits for the lock looks often in any case: commits go first where there is no room. */
void
tosc__ceph_tell_lock_free(struct tosc__ceph *be)
{
    int64_t pace;

    pthread_mutex_lock(&be->mutex);
    pace = tosc__ceph_notice_pace(be);
    pthread_mutex_unlock(&be->mutex);
    if (pace == PACE_MAX_NS) {
        return;
    }
    say(be, LOCK_IS_FREE, NULL, NULL);
}

void
tosc__ceph_greet(struct tosc__ceph *be, struct tosc__ceph_watch *greeter)
{
    say(be, GREETING, NULL, greeter);
}

#endif
