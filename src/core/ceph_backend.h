/*
 * The Ceph backend's object, and what its files share: backend_ceph.c (options, table),
 * ceph_life.c (making, fork, the end, links), ceph_read.c (reading), ceph_write.c
 * (changing), ceph_settle.c (outcomes), ceph_lock.c (exclusive lock), ceph_keeper.c (what
 * is due at certain times), ceph_wait.c (waiting), ceph_watch.c (watching), ceph_notices.c
 * (telling those who watch). Private to core; only where librados is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_CEPH_BACKEND_H
#define TOSC_CORE_CEPH_BACKEND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <tosc/backend.h>

#include "core/ceph_connection.h"
#include "core/ceph_failures.h"
#include "core/ceph_frames.h"
#include "core/ceph_guard.h"
#include "core/ceph_io.h"
#include "core/ceph_topic.h"
#include "core/clock.h"
#include "core/fork.h"
#include "core/lock.h"

/* What the object is at. */
struct tosc__ceph_state {
    bool exists;
    bool guarded; /* else `guard` was derived from its content */
    struct tosc__guard guard;
    uint8_t holder[TOSC__HOLDER_SIZE]; /* of the exclusive lock; zero: nobody */
};

/*
 * Which notices and events a look at the object, begun now, will have seen the cause of.
 */
struct tosc__ceph_mark {
    uint64_t events;
    uint64_t news;
    uint64_t topic;
    uint64_t learned;
};

/* One who sleeps for changes, or for the lock; kept for the next. */
struct tosc__ceph_waiter {
    int fd;        /* eventfd */
    int64_t until; /* he wakes by himself */
    struct tosc__ceph_waiter *next;
};

struct tosc__ceph_watch;
struct tosc__ceph_notices;

struct tosc__ceph {
    /* Constant. */
    char *pool;
    char *object;
    char *name_space;
    char *where; /* "pool/object" */
    struct tosc__ceph_identity who;
    int max_retries;
    int64_t connect_ns;
    int64_t timeout_ns;
    int64_t lease_ms;
    int64_t poll_ns;
    struct tosc__ceph_topic *topic;

    struct tosc__fork_node node;
    struct tosc__gate gate; /* who has the exclusive lock through this object */

    pthread_mutex_t mutex; /* guards all below; never held while anything is waited for */
    uint8_t sender[8];     /* tells our notices from others' */
    struct tosc__ceph_link *link; /* NULL: none yet, or not usable any more */

    bool knows; /* what the object was at when last looked at or changed by us: */
    struct tosc__ceph_state state;
    uint64_t learned;             /* how often that was set */
    uint64_t state_events;        /* `events` when that look began */
    struct tosc__history history; /* commit ids that we have come across */
    uint64_t events;              /* rises when anything may have happened */
    bool has_news;                /* a notice told of a commit: */
    tosc_position news;
    uint64_t news_count;
    int64_t doubt_at; /* they seemed not to be true: when to look again; 0: not at all, */
    int64_t doubt_ns; /* and so long after the last look */
    int64_t own_version; /* of our last change, */
    int64_t quiet_until; /* which waiters need not be woken for before */
    uint64_t size_hint;  /* of the object */

    struct tosc__ceph_watch *watch; /* NULL: none */
    bool watch_refused;             /* we are not permitted to */
    struct tosc__ceph_waiter *waiting;
    struct tosc__ceph_waiter *idle;
    int idle_count;
    struct tosc__ceph_notices *notices; /* NULL: none yet */

    uint8_t token[TOSC__HOLDER_SIZE]; /* by which we are known as the lock's holder */
    int64_t renew_at;                 /* the lease; 0: we have not the lock */
    int64_t notice_at;                /* that is to be sent, 0: none: */
    tosc_position notice;
    int64_t noticed_at;   /* the last one */
    int64_t committed_at; /* the last commit was done */
    int64_t overtaken_at; /* somebody else was faster */
    int stream;           /* so many commits without a pause */
    bool has_keeper;
    bool ending;
    pthread_cond_t changed; /* the keeper has something to do */
    pthread_t keeper;
};

/* ---- ceph_life.c ---- */

/* Connects. `options` are complete: no defaults are left in them. */
int tosc__ceph_new(const tosc_ceph_options *options, struct tosc__ceph **ret);
void tosc__ceph_destroy(void *impl);

/* For a part of an operation, which keeps `pending` (may be NULL) from part to part. */
struct tosc__ceph_limit tosc__ceph_limit(const struct tosc__ceph *be,
                                         const tosc_event *stop, bool *pending);
/* A link that can be used, with a reference, made where needed. */
int tosc__ceph_link(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
                    struct tosc__ceph_link **ret);
/*
 * After an operation that found nothing: whether there is a pool. If it is another one by
 * the same name, `link` is not usable any more.
 */
int tosc__ceph_check_pool(struct tosc__ceph *be, struct tosc__ceph_link *link,
                          const struct tosc__ceph_limit *limit);
/* The cluster has shut `link` out. */
void tosc__ceph_shut_out(struct tosc__ceph *be, struct tosc__ceph_link *link);

/* ---- ceph_read.c ---- */

/* What a look at the object found. */
struct tosc__ceph_seen {
    struct tosc__ceph_state state;
    struct tosc__history history;
    tosc_blob *bytes; /* raw content from `from` up to the tail; NULL: none was wanted */
    uint64_t from;
    int64_t before; /* the version before the first record in `bytes` */
};

/*
 * Looks at the object. With `known`, gets the raw content after it, maybe with the record
 * of its version ahead; if it turns out that the base is another one, from wherever
 * needed. With `whole`, all.
 */
int tosc__ceph_look(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
                    const tosc_position *known, bool whole, struct tosc__ceph_seen *ret);
/* A walk over what a look has brought. `identity` is set from its guard. */
void tosc__ceph_walk(const struct tosc__ceph_seen *seen, struct tosc__identity *identity,
                     struct tosc__walk *ret);
int tosc__ceph_read(void *impl, tosc_data *ret);
int tosc__ceph_read_since(void *impl, const tosc_position *known, tosc_data *ret);
void tosc__ceph_describe(const struct tosc__guard *guard, tosc_data *ret);
/* TOSC_ECORRUPT. */
int tosc__ceph_damaged(const struct tosc__ceph *be, uint64_t offset, int64_t version);

struct tosc__ceph_mark tosc__ceph_mark(struct tosc__ceph *be);
/* Remembers what a look begun at `mark`, or a change, has found. */
void tosc__ceph_learn(struct tosc__ceph *be, const struct tosc__ceph_state *state,
                      const struct tosc__history *history,
                      const struct tosc__ceph_mark *mark);
/* What is remembered is not so. */
void tosc__ceph_forget(struct tosc__ceph *be);

/* ---- ceph_write.c ---- */

int tosc__ceph_write(void *impl, const void *holder, const void *data, size_t size,
                     tosc_position *ret);
int tosc__ceph_try_write(void *impl, const void *holder, const void *data, size_t size,
                         const int64_t *expected, const uint8_t *expected_id,
                         tosc_position *ret);
int tosc__ceph_append(void *impl, const void *holder, const void *data, size_t size,
                      const tosc_commit_id *id, const tosc_position *known,
                      tosc_data *ret);
int tosc__ceph_compact(void *impl, const void *holder, const void *data, size_t size,
                       const tosc_position *of, tosc_data *ret);

/* ---- ceph_settle.c ---- */

#define TOSC__CEPH_AGAIN 1

enum tosc__ceph_outcome {
    TOSC__CEPH_APPLIED,
    TOSC__CEPH_OVERTAKEN, /* the guard was another one */
    TOSC__CEPH_BUSY,      /* somebody else has the lease */
    TOSC__CEPH_FAILED,    /* nothing was done, and will not be; with a message */
    TOSC__CEPH_LOST       /* nobody knows; with a message of what ended the wait */
};

/*
 * Makes a change that was built from `from` (NULL: whatever is there): the conditions
 * about the guard are filled in. `notify`: a notice of the new guard goes ahead of it.
 * `doing` is for messages. *ret_status: of FAILED and LOST; of LOST it may be
 * TOSC__CEPH_AGAIN: if it was not stored, do it again.
 */
enum tosc__ceph_outcome
tosc__ceph_apply(struct tosc__ceph *be, const struct tosc__ceph_state *from,
                 struct tosc__ceph_change *change, const char *doing, bool notify,
                 const struct tosc__ceph_limit *limit, int *ret_status);
/*
 * Finds out what became of a commit that was to lead from `from` to the next version, and
 * has not been answered, or so late that librados may have sent it more than once: then an
 * OSD that knows the repetition no more compares the guard with what we had made of it.
 * 0 it was stored; `cause`, the status of the loss, if it was not and never will be;
 * TOSC_ECONFLICT if another one was; TOSC_EUNKNOWN. `under_way`: it may still be done.
 */
int tosc__ceph_settle(struct tosc__ceph *be, const struct tosc__ceph_state *from,
                      const uint8_t id[16], bool under_way, int cause, int64_t deadline);
/*
 * The same of one that was OVERTAKEN at once, which costs one look mostly. TOSC__CEPH_AGAIN:
 * nobody has changed the store. TOSC_ECONFLICT also if it is not to be found.
 */
int tosc__ceph_refused(struct tosc__ceph *be, const struct tosc__ceph_state *from,
                       const uint8_t id[16], const struct tosc__ceph_limit *limit);

/* ---- ceph_lock.c ---- */

int tosc__ceph_lock(void *impl, const void *holder, int64_t deadline_ns);
int tosc__ceph_unlock(void *impl, const void *holder);
/* The name under which `holder` may change the store, NULL if he has not the lock. */
const uint8_t *tosc__ceph_token(struct tosc__ceph *be, const void *holder,
                                uint8_t room[TOSC__HOLDER_SIZE]);
/*
 * After a change was OVERTAKEN: looks at the store, and if somebody else has the lock,
 * waits until he has not. *limit starts anew then.
 */
int tosc__ceph_look_again(struct tosc__ceph *be, const void *holder,
                          struct tosc__ceph_limit *limit);

/* ---- ceph_keeper.c ---- */

/* The lock is ours, under `token`, until tosc__ceph_end_renewing(). */
void tosc__ceph_begin_renewing(struct tosc__ceph *be, const uint8_t *token);
void tosc__ceph_end_renewing(struct tosc__ceph *be);
/* How others get to know of a commit. */
enum tosc__ceph_telling {
    TOSC__CEPH_TELL_NOBODY, /* there is nobody else */
    TOSC__CEPH_TELL_BEFORE, /* by a notice just ahead of it */
    TOSC__CEPH_TELL_AFTER
};

/* Before a commit of so many bytes. */
enum tosc__ceph_telling tosc__ceph_begin_commit(struct tosc__ceph *be, size_t size);
/* After one that led to `at`: tells of it, or has it told of later, if that is due. */
void tosc__ceph_end_commit(struct tosc__ceph *be, const tosc_position *at,
                           enum tosc__ceph_telling telling);
void tosc__ceph_end_keeper(struct tosc__ceph *be);

/* ---- ceph_wait.c ---- */

int tosc__ceph_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
                    const tosc_event *stop, bool *ret_changed);
int tosc__ceph_changed(void *impl, const tosc_position *known);
/* NULL: no memory, or no descriptors. */
struct tosc__ceph_waiter *tosc__ceph_waiter_take(struct tosc__ceph *be);
void tosc__ceph_waiter_give(struct tosc__ceph *be, struct tosc__ceph_waiter *waiter);
/* After a commit of ours that led to `at`: wakes all that wait on this object. */
void tosc__ceph_announce(struct tosc__ceph *be, const tosc_position *at);

/* Anything may have happened: whoever waits has to look. Any thread. */
void tosc__ceph_disturb(struct tosc__ceph *be);
/* A notice came: of a commit, or (NULL) that the lock is free. Any thread. */
void tosc__ceph_heard(struct tosc__ceph *be, const tosc_position *news);

/* ---- ceph_watch.c ---- */

/* Begins to watch. TOSC_ESYSTEM with ENOENT: there is no object. */
int tosc__ceph_watch_start(struct tosc__ceph *be, const struct tosc__ceph_limit *limit);
/* Whether there is a watch that works, as far as we know. */
bool tosc__ceph_watch_is_good(struct tosc__ceph *be);
/* Gives the watch up; does not wait for that. NULL is accepted. */
void tosc__ceph_watch_drop(struct tosc__ceph_watch *watch);
/* Its name among those who watch; 0: there is none that works. With the mutex. */
uint64_t tosc__ceph_watch_cookie(const struct tosc__ceph *be);
/* Its greeting was acknowledged, or not. Gives up a reference. NULL is accepted. */
void tosc__ceph_watch_greeted(struct tosc__ceph_watch *watch);

/* ---- ceph_notices.c ---- */

/* What a notice says; STRANGE: none of ours. */
enum tosc__ceph_news {
    TOSC__CEPH_STRANGE,
    TOSC__CEPH_COMMIT,
    TOSC__CEPH_LOCK_FREE,
    TOSC__CEPH_GREETING
};

enum tosc__ceph_news tosc__ceph_notice_decode(const void *data, size_t size,
                                              uint8_t sender[8], tosc_position *ret);
/* They send a notice, or have one sent when others have come back. */
void tosc__ceph_tell_commit(struct tosc__ceph *be, const tosc_position *at);
void tosc__ceph_tell_lock_free(struct tosc__ceph *be);
/* `greeter` is told when it is over; takes the caller's reference to it. */
void tosc__ceph_greet(struct tosc__ceph *be, struct tosc__ceph_watch *greeter);
/* There is, or may be, somebody else who watches. Any thread. */
void tosc__ceph_not_alone(struct tosc__ceph *be);
/* Whether it is known that nobody else watches. */
bool tosc__ceph_is_alone(struct tosc__ceph *be);
/*
 * So many nanoseconds should be between two notices of commits, as those sent before are not
 * acknowledged yet. With the mutex.
 */
int64_t tosc__ceph_notice_pace(const struct tosc__ceph *be);
/* NULL is accepted. */
void tosc__ceph_notices_unref(struct tosc__ceph_notices *notices);

#endif
