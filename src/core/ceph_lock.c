/*
 * The exclusive lock: an attribute that names the holder, and a lease that ends by
 * itself.
 *
 * Every change compares the attribute tosc.holder with what its maker is: nobody, or the
 * holder. So from the moment that the attribute is set, only the holder's changes are
 * done, without anybody looking. The right to set it is the lease: a lock of the OSD's
 * class "lock" (`rados lock info` shows it) with a duration, taken in the same compound
 * operation. While its last renewal is younger than the duration, nobody else can take
 * it; the OSD's clock decides. The keeper renews it while the lock is held.
 *
 * A holder that dies leaves the attribute behind. Whoever wants to change something then
 * waits until the lease is over, and takes the attribute away by an operation that
 * succeeds only with an expired lease. A holder that was only frozen that long finds its
 * changes refused, as it is not the one any more, and goes on as one who has not the
 * lock.
 *
 * Within this process the gate is the lock; it is taken first, and kept to the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/ceph_backend.h"
#include "core/error.h"
#include "core/fileio.h"

#define PAUSE_MIN_NS (TOSC__MS / 2)
#define PAUSE_MAX_NS (50 * TOSC__MS)
/* Between two questions for signals that came while this thread did not sleep. */
#define ASK_NS (100 * TOSC__MS)
/* Between two tries to take away what a dead holder has left. */
#define TIDY_NS (200 * TOSC__MS)
/* The deadline is for waiting for others; one attempt has at least so long. */
#define ATTEMPT_NS TOSC__SECOND

/* ---- whose it is ---- */

const uint8_t *
tosc__ceph_token(struct tosc__ceph *be, const void *holder,
                 uint8_t room[TOSC__HOLDER_SIZE])
{
    const uint8_t *token = NULL;

    if (tosc__gate_holds(&be->gate, holder)) {
        pthread_mutex_lock(&be->mutex);
        if (be->renew_at != 0) {
            memcpy(room, be->token, TOSC__HOLDER_SIZE);
            token = room;
        }
        pthread_mutex_unlock(&be->mutex);
    }
    return token;
}

static bool
is_free(const struct tosc__ceph_state *state)
{
    return tosc__is_zero(state->holder, sizeof(state->holder));
}

/* Waits for a notice, or as long as `pause_ns`. */
static int
pause_for(struct tosc__ceph_waiter *waiter, int64_t pause_ns, int64_t deadline,
          bool *pending)
{
    int64_t until = tosc__now() + pause_ns;
    struct tosc__ceph_limit limit = {.deadline = until < deadline ? until : deadline,
                                     .pending = pending};
    int status = tosc__ceph_sleep(waiter != NULL ? waiter->fd : -1, &limit);
    uint64_t count;

    if (waiter != NULL && read(waiter->fd, &count, sizeof(count)) < 0) {
        count = 0; /* nothing came */
    }
    return status == TOSC_ETIMEDOUT ? 0 : status;
}

static bool
heeds_signals(void)
{
    bool (*ask)(void) = __atomic_load_n(&tosc__heeds_signals, __ATOMIC_ACQUIRE);

    return ask != NULL && ask();
}

/* Takes away what a holder has left whose lease is over, if that is so. */
static void
tidy(struct tosc__ceph *be, const struct tosc__ceph_state *state, bool *pending)
{
    struct tosc__ceph_change change = {.lock = TOSC__CEPH_SET_FREE,
                                       .holder = state->holder};
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, NULL, pending);
    int status;

    if (tosc__ceph_apply(be, NULL, &change, "freeing the lock of", false, &limit, &status)
        == TOSC__CEPH_APPLIED) {
        tosc__ceph_tell_lock_free(be);
    }
}

static int
look(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
     struct tosc__ceph_state *ret)
{
    struct tosc__ceph_seen seen;
    int status = tosc__ceph_look(be, limit, NULL, false, &seen);

    if (status == 0) {
        tosc_blob_unref(seen.bytes);
        *ret = seen.state;
    }
    return status;
}

/* Until somebody else's lock is free; the first look has been. */
static int
await_free(struct tosc__ceph *be, const uint8_t *own, struct tosc__ceph_state *state,
           bool *pending)
{
    struct tosc__ceph_waiter *waiter = tosc__ceph_waiter_take(be);
    int64_t pause = PAUSE_MIN_NS;
    int64_t next_tidying = tosc__now() + TIDY_NS;
    int64_t next_question = tosc__now();
    int status = 0;

    while (status == 0 && !is_free(state)
           && (own == NULL || memcmp(own, state->holder, TOSC__HOLDER_SIZE) != 0)) {
        if (tosc__now() >= next_question) {
            *pending = *pending || heeds_signals();
            next_question = tosc__now() + ASK_NS;
        }
        status = pause_for(waiter, pause, TOSC__FOR_EVER, pending);
        pause = pause < PAUSE_MAX_NS / 2 ? pause * 2 : PAUSE_MAX_NS;
        if (status == 0 && tosc__now() >= next_tidying) {
            tidy(be, state, pending);
            next_tidying = tosc__now() + TIDY_NS;
        }
        if (status == 0) {
            struct tosc__ceph_limit limit = tosc__ceph_limit(be, NULL, pending);

            status = look(be, &limit, state);
        }
    }
    tosc__ceph_waiter_give(be, waiter);
    return status;
}

/* The lock is this backend object's: its end is heard of at once. Signals end it. */
static int
await_gate(struct tosc__ceph *be)
{
    int status = tosc__gate_enter(&be->gate, TOSC__FOR_EVER);

    if (status == 0) {
        tosc__gate_leave(&be->gate);
    }
    return status;
}

int
tosc__ceph_look_again(struct tosc__ceph *be, const void *holder,
                      struct tosc__ceph_limit *limit)
{
    uint8_t room[TOSC__HOLDER_SIZE];
    const uint8_t *own = tosc__ceph_token(be, holder, room);
    struct tosc__ceph_state state;
    bool ours;
    int status = look(be, limit, &state);

    if (status != 0) {
        return status;
    }
    if (own != NULL) {
        if (memcmp(own, state.holder, TOSC__HOLDER_SIZE) == 0) {
            return 0;
        }
        tosc__ceph_end_renewing(be); /* the lease was over, and somebody else had it */
        own = NULL;
    }
    if (is_free(&state)) {
        return 0;
    }
    pthread_mutex_lock(&be->mutex);
    ours = be->renew_at != 0 && memcmp(be->token, state.holder, sizeof(be->token)) == 0;
    pthread_mutex_unlock(&be->mutex);
    if (ours) {
        status = limit->pending != NULL && *limit->pending ? tosc__ceph_interrupted()
                                                           : await_gate(be);
    }
    if (status == 0) {
        status = await_free(be, own, &state, limit->pending);
    }
    limit->deadline = tosc__now() + be->timeout_ns;
    return status;
}

/* ---- taking and giving ---- */

/*
 * Nobody waits for the reply: what this connection sends later comes later, and if it
 * does not get through, the lease ends.
 */
static void
drop(struct tosc__ceph *be, const uint8_t *token)
{
    struct tosc__ceph_limit now = {.deadline = tosc__now(), .patient = true};
    struct tosc__ceph_change change = {.lock = TOSC__CEPH_DROP, .holder = token};
    struct tosc__ceph_link *link;

    if (tosc__ceph_link(be, &now, &link) == 0) {
        tosc__ceph_change_send(link, be->object, &change);
        tosc__ceph_link_unref(link);
        tosc__ceph_tell_lock_free(be);
    }
}

/* One try to take it: 0, TOSC__CEPH_AGAIN while somebody else has it, or a failure. */
static int
try_take(struct tosc__ceph *be, const uint8_t *token, int64_t deadline, bool *pending)
{
    struct tosc__ceph_change change = {
        .lock = TOSC__CEPH_TAKE, .holder = token, .lease_ms = be->lease_ms};
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, NULL, pending);
    int status;

    if (limit.deadline > deadline) {
        int64_t least = tosc__now() + ATTEMPT_NS;

        limit.deadline = deadline > least ? deadline : least;
    }
    switch (tosc__ceph_apply(be, NULL, &change, "locking", false, &limit, &status)) {
    case TOSC__CEPH_APPLIED:
        return 0;
    case TOSC__CEPH_BUSY:
    case TOSC__CEPH_OVERTAKEN:
        return TOSC__CEPH_AGAIN;
    case TOSC__CEPH_FAILED:
        break;
    case TOSC__CEPH_LOST:
        drop(be, token); /* should it still be done */
        break;
    }
    return status == TOSC_ESYSTEM && tosc__now() >= deadline ? tosc__lock_timed_out()
                                                             : status;
}

static int
take(struct tosc__ceph *be, int64_t deadline)
{
    struct tosc__ceph_waiter *waiter = NULL;
    uint8_t token[TOSC__HOLDER_SIZE];
    int64_t pause = PAUSE_MIN_NS;
    bool pending = false;
    int status = tosc__random(token, sizeof(token));

    if (status == 0) {
        status = try_take(be, token, deadline, &pending);
    }
    while (status == TOSC__CEPH_AGAIN) {
        if (tosc__now() >= deadline) {
            status = tosc__lock_timed_out();
            break;
        }
        waiter = waiter != NULL ? waiter : tosc__ceph_waiter_take(be);
        status = pause_for(waiter, pause, deadline, &pending);
        pause = pause < PAUSE_MAX_NS / 2 ? pause * 2 : PAUSE_MAX_NS;
        if (status == 0) {
            status = try_take(be, token, deadline, &pending);
        }
    }
    tosc__ceph_waiter_give(be, waiter);
    if (status == 0) {
        tosc__ceph_begin_renewing(be, token);
    }
    return status;
}

int
tosc__ceph_lock(void *impl, const void *holder, int64_t deadline_ns)
{
    struct tosc__ceph *be = impl;
    int status;

    if (holder == NULL) {
        return tosc__fail(TOSC_EINVAL, "the lock needs a holder");
    }
    status = tosc__gate_enter(&be->gate, deadline_ns);
    if (status != 0) {
        return status;
    }
    status = take(be, deadline_ns);
    if (status != 0) {
        tosc__gate_leave(&be->gate);
        return status;
    }
    tosc__gate_name(&be->gate, holder);
    return 0;
}

int
tosc__ceph_unlock(void *impl, const void *holder)
{
    struct tosc__ceph *be = impl;
    uint8_t room[TOSC__HOLDER_SIZE];
    const uint8_t *token;

    if (!tosc__gate_holds(&be->gate, holder)) {
        return tosc__fail(TOSC_EINVAL, "the lock is not held by this holder");
    }
    token = tosc__ceph_token(be, holder, room);
    tosc__ceph_end_renewing(be);
    if (token != NULL) {
        drop(be, token);
    }
    tosc__gate_name(&be->gate, NULL);
    tosc__gate_leave(&be->gate);
    return 0;
}

#endif
