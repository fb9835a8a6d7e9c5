/*
 * The Ceph backend's operations that change a store.
 *
 * Each is one compound operation: compare the guard and the lock's holder, put the bytes,
 * set the guard. What the guard must be is remembered from the last look or change, so a
 * commit is one round trip. When the comparison fails, we look: at another version it is
 * a conflict; at the same one somebody has, or had, the lock, or has put up a fence, and
 * it is tried again.
 *
 * Replacing (a first commit, `write`, a compaction) writes a whole new object under a new
 * generation in the same way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/ceph_backend.h"
#include "core/ceph_frames.h"
#include "core/error.h"
#include "core/fileio.h"

/* Beyond this nothing is even sent; what a cluster accepts is far less. */
#define MOST_BYTES ((uint64_t)1 << 30)
/* What is done in this time went straight through. */
#define SWIFT_NS (20 * TOSC__MS)
/* Beyond this librados may have sent it more than once. */
#define ONCE_NS (100 * TOSC__MS)
/* A compaction that was overtaken so often takes the lock, */
#define POLITE_TRIES 3
/* and waits for it for so long. */
#define LOCK_NS (5 * TOSC__SECOND)

static int
no_memory(const struct tosc__ceph *be)
{
    return tosc__fail_path(TOSC_ENOMEM, be->where, "not enough memory for a change of %s",
                           be->where);
}

static int
overtaken_too_often(const struct tosc__ceph *be)
{
    return tosc__fail_errno(EAGAIN, be->where,
                            "others were faster %d times in a row while changing",
                            be->max_retries + 1);
}

static int
check_size(const struct tosc__ceph *be, size_t size)
{
    return size <= MOST_BYTES
               ? 0
               : tosc__ceph_failed(EFBIG, &be->who, be->where, "writing", size);
}

/*
 * What is remembered, if it is `known` (NULL: anything will do); else what a look finds.
 */
static int
state_for(struct tosc__ceph *be, const tosc_position *known,
          const struct tosc__ceph_limit *limit, struct tosc__ceph_state *ret)
{
    struct tosc__ceph_seen seen;
    bool knows;
    int status;

    pthread_mutex_lock(&be->mutex);
    knows = be->knows;
    if (knows && known != NULL) {
        tosc_position at = tosc__guard_position(&be->state.guard);

        knows = tosc__same_position(&at, known);
    }
    if (knows) {
        *ret = be->state;
    }
    pthread_mutex_unlock(&be->mutex);
    if (knows) {
        return 0;
    }
    status = tosc__ceph_look(be, limit, NULL, false, &seen);
    if (status == 0) {
        tosc_blob_unref(seen.bytes);
        *ret = seen.state;
    }
    return status;
}

/* What became of one try. */
enum step { STEP_DONE, STEP_AGAIN, STEP_CONFLICT, STEP_FAILED };

/* Two thirds of the time for a commit, the rest for the question what became of it. */
static struct tosc__ceph_limit
limit_of_commit(const struct tosc__ceph_limit *limit)
{
    struct tosc__ceph_limit part = *limit;
    int64_t left = limit->deadline - tosc__now();

    part.deadline -= left > 0 ? left / 3 : 0;
    return part;
}

/*
 * Sends the change, and waits for it. Where nobody else seems to commit, the notice of it
 * is sent just ahead of it. Who is woken by that asks for the object while the OSD still
 * writes; the OSD answers him when it has written. So he sees the commit about when we
 * know that it is done. If that took long, he may have asked too early.
 */
static enum tosc__ceph_outcome
send(struct tosc__ceph *be, const struct tosc__ceph_state *from,
     struct tosc__ceph_change *change, const struct tosc__ceph_limit *limit,
     enum tosc__ceph_telling *ret_telling, bool *late, int *ret_status)
{
    struct tosc__ceph_limit part = limit_of_commit(limit);
    enum tosc__ceph_telling telling = tosc__ceph_begin_commit(be, change->size);
    int64_t began = tosc__now();
    enum tosc__ceph_outcome outcome =
        tosc__ceph_apply(be, from, change, "writing", telling == TOSC__CEPH_TELL_BEFORE,
                         &part, ret_status);
    int64_t took = tosc__now() - began;

    if (telling == TOSC__CEPH_TELL_BEFORE
        && (took >= SWIFT_NS || outcome != TOSC__CEPH_APPLIED)) {
        telling = TOSC__CEPH_TELL_AFTER;
    }
    if (outcome != TOSC__CEPH_APPLIED) {
        pthread_mutex_lock(&be->mutex);
        be->overtaken_at = tosc__now();
        pthread_mutex_unlock(&be->mutex);
    }
    *ret_telling = telling;
    *late = *late || took >= ONCE_NS;
    return outcome;
}

/* Somebody has, or had, the lock, or has put up a fence. *ret_status: of STEP_FAILED. */
static enum step
try_again(struct tosc__ceph *be, const void *holder, struct tosc__ceph_limit *limit,
          int *ret_status)
{
    *ret_status = tosc__ceph_look_again(be, holder, limit);
    return *ret_status == 0 ? STEP_AGAIN : STEP_FAILED;
}

/* A commit was refused, or cannot be made any more: perhaps a copy of it was done. */
static int
was_done(struct tosc__ceph *be, const struct tosc__ceph_state *from, const uint8_t id[16],
         bool late, const struct tosc__ceph_limit *limit)
{
    return late
               ? tosc__ceph_settle(be, from, id, false, TOSC__CEPH_AGAIN, limit->deadline)
               : tosc__ceph_refused(be, from, id, limit);
}

/*
 * A commit from `from` to the change's guard. *late: this or an earlier try of it took so
 * long that there may be further copies of it. *ret_status: of STEP_FAILED.
 */
static enum step
commit(struct tosc__ceph *be, const void *holder, const struct tosc__ceph_state *from,
       struct tosc__ceph_change *change, struct tosc__ceph_limit *limit, bool *late,
       int *ret_status)
{
    struct tosc__ceph_state after = *from;
    struct tosc__ceph_mark mark = tosc__ceph_mark(be);
    const uint8_t *id = change->guard->commit_id;
    tosc_position at = tosc__guard_position(change->guard);
    uint8_t room[TOSC__HOLDER_SIZE];
    enum tosc__ceph_telling telling;
    enum tosc__ceph_outcome outcome;
    int status;

    change->holder = tosc__ceph_token(be, holder, room);
    outcome = send(be, from, change, limit, &telling, late, &status);
    if (outcome == TOSC__CEPH_APPLIED) {
        status = 0;
    } else if (outcome == TOSC__CEPH_LOST) {
        status = tosc__ceph_settle(be, from, id, true, status, limit->deadline);
    } else if (outcome != TOSC__CEPH_FAILED) {
        /* What was remembered is refuted, even if what there is now is an older copy. */
        tosc__ceph_forget(be);
        status = was_done(be, from, id, *late, limit);
    }
    if (status == TOSC__CEPH_AGAIN) {
        enum step step = try_again(be, holder, limit, ret_status);

        if (step != STEP_FAILED || !*late) {
            return step;
        }
        status = tosc__ceph_settle(be, from, id, true, *ret_status,
                                   tosc__now() + be->timeout_ns / 3);
    }
    if (status != 0) {
        *ret_status = status;
        return status == TOSC_ECONFLICT ? STEP_CONFLICT : STEP_FAILED;
    }
    after.exists = true;
    after.guarded = true;
    after.guard = *change->guard;
    tosc__ceph_learn(be, &after, NULL, &mark);
    tosc__ceph_announce(be, &at);
    tosc__ceph_end_commit(be, &at, telling);
    return STEP_DONE;
}

/*
 * The store is `now`, where a change cannot be made. If that was sent before and refused, as
 * somebody had the lock, this may be its own doing: when a connection breaks librados sends
 * another copy, and the OSD may come to the two in any order. `sent` is what it was sent
 * from, NULL: it was not. *ret is the guard that it sets. 0 it is stored; TOSC__CEPH_AGAIN;
 * TOSC_ECONFLICT, or a failure.
 */
static int
moved_on(struct tosc__ceph *be, const struct tosc__ceph_state *now,
         const struct tosc__ceph_state *sent, bool late, const struct tosc__guard *ret,
         const struct tosc__ceph_limit *limit)
{
    int status;

    if (sent == NULL || now->guard.version <= sent->guard.version
        || (sent->guard.version > 0
            && memcmp(now->guard.store_id, sent->guard.store_id, 16) != 0)) {
        return TOSC_ECONFLICT;
    }
    status = was_done(be, sent, ret->commit_id, late, limit);
    if (status == 0) {
        tosc_position at = tosc__guard_position(ret);

        tosc__ceph_announce(be, &at);
        tosc__ceph_end_commit(be, &at, TOSC__CEPH_TELL_AFTER);
    } else if (status == TOSC__CEPH_AGAIN) {
        tosc__ceph_forget(be);
    }
    return status;
}

/* ---- replacing ---- */

/* The guard and the identity of what takes the place of `from`, but for its lengths. */
static int
next_generation(const struct tosc__guard *from, struct tosc__guard *ret,
                struct tosc__identity *ret_identity)
{
    struct {
        uint64_t generation;
        uint64_t fence;
        uint8_t store_id[16];
    } fresh = {.generation = 0};

    while (fresh.generation == 0) {
        int status = tosc__random(&fresh, sizeof(fresh));

        if (status != 0) {
            return status;
        }
    }
    *ret = *from;
    ret->generation = fresh.generation;
    ret->fence = fresh.fence;
    if (from->version == 0) {
        memcpy(ret->store_id, fresh.store_id, sizeof(ret->store_id));
    }
    tosc__identity_init(ret_identity, ret->store_id, ret->generation);
    return 0;
}

/* Adds what is known of the commits up to that of `guard`, for the object after it. */
static void
add_history(struct tosc__ceph *be, const struct tosc__guard *guard,
            struct tosc__history *history)
{
    struct tosc__history known = {.count = 0};

    if (guard->version == 0) {
        return;
    }
    tosc__history_add(history, guard->version, guard->commit_id);
    pthread_mutex_lock(&be->mutex);
    if (memcmp(be->state.guard.store_id, guard->store_id, 16) == 0) {
        known = be->history;
    }
    pthread_mutex_unlock(&be->mutex);
    tosc__history_cut(&known, guard->version);
    if (!tosc__history_differs(history, &known)) {
        tosc__history_merge(history, &known);
    }
}

/* One try to make `data` the whole content. */
static enum step
replace(struct tosc__ceph *be, const void *holder, const struct tosc__ceph_state *from,
        const void *data, size_t size, const uint8_t id[16],
        struct tosc__ceph_limit *limit, bool *late, struct tosc__guard *ret,
        int *ret_status)
{
    struct tosc__frames frames = {.bytes = NULL};
    struct tosc__history history = {.count = 0};
    struct tosc__identity identity;
    struct tosc__guard guard;
    struct tosc__ceph_change change = {
        .guard = &guard, .history = &history, .what = TOSC__CEPH_REPLACE};
    enum step step = STEP_FAILED;

    *ret_status = next_generation(&from->guard, &guard, &identity);
    if (*ret_status != 0) {
        return STEP_FAILED;
    }
    guard.version++;
    guard.base_version = guard.version;
    memcpy(guard.commit_id, id, sizeof(guard.commit_id));
    add_history(be, &from->guard, &history);
    tosc__history_add(&history, guard.version, id);
    if (!tosc__frames_header(&frames, &identity)
        || !tosc__frames_record(&frames, &identity, TOSC__BASE, guard.version, id, data,
                                size)) {
        *ret_status = no_memory(be);
    } else {
        guard.base_end = frames.size;
        guard.tail = frames.size;
        guard.last = 0;
        change.bytes = frames.bytes;
        change.size = frames.size;
        step = commit(be, holder, from, &change, limit, late, ret_status);
    }
    tosc__frames_free(&frames);
    *ret = guard;
    return step;
}

/* What the store has to be at before it is replaced. */
struct demand {
    const int64_t *version;  /* NULL: nothing may be stored */
    const uint8_t *store_id; /* NULL: any */
    bool anything;           /* never mind the above */
};

static bool
is_met(const struct demand *demand, const struct tosc__guard *guard)
{
    if (demand->anything) {
        return true;
    }
    if (demand->version == NULL) {
        return guard->version == 0;
    }
    return guard->version > 0 && guard->version == *demand->version
           && (demand->store_id == NULL
               || memcmp(demand->store_id, guard->store_id, 16) == 0);
}

/* What is remembered, if it meets the demand; else what a look finds. */
static int
state_to_replace(struct tosc__ceph *be, const struct demand *demand,
                 const struct tosc__ceph_limit *limit, struct tosc__ceph_state *ret)
{
    int status = state_for(be, NULL, limit, ret);

    if (status == 0 && !is_met(demand, &ret->guard)) {
        tosc__ceph_forget(be);
        status = state_for(be, NULL, limit, ret);
    }
    return status;
}

static int
replace_on_demand(struct tosc__ceph *be, const void *holder, const void *data,
                  size_t size, const tosc_commit_id *id, const struct demand *demand,
                  struct tosc__guard *ret)
{
    bool pending = false;
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, NULL, &pending);
    const struct tosc__ceph_state *sent = NULL;
    struct tosc__ceph_state from;
    bool late = false;
    tosc_commit_id own;
    int status = check_size(be, size);

    if (status == 0 && id == NULL) {
        status = tosc__random(own.bytes, sizeof(own.bytes));
        id = &own;
    }
    for (int tries = 0; status == 0 && tries <= be->max_retries; tries++) {
        struct tosc__ceph_state now;
        enum step step;

        status = state_to_replace(be, demand, &limit, &now);
        if (status != 0) {
            return status;
        }
        if (!is_met(demand, &now.guard)
            || (sent != NULL && now.guard.version != sent->guard.version)) {
            status = moved_on(be, &now, sent, late, ret, &limit);
            if (status == TOSC_ECONFLICT && demand->anything) {
                sent = NULL;
            } else if (status != TOSC__CEPH_AGAIN) {
                return status;
            }
            status = 0;
            continue;
        }
        from = now;
        step = replace(be, holder, &from, data, size, id->bytes, &limit, &late, ret,
                       &status);
        sent = &from;
        if (step == STEP_DONE) {
            return 0;
        }
        if (step == STEP_FAILED || (step == STEP_CONFLICT && !demand->anything)) {
            return step == STEP_FAILED ? status : TOSC_ECONFLICT;
        }
        if (step == STEP_CONFLICT) {
            sent = NULL;
        }
        status = 0;
    }
    return status != 0 ? status : overtaken_too_often(be);
}

int
tosc__ceph_write(void *impl, const void *holder, const void *data, size_t size,
                 tosc_position *ret)
{
    const struct demand demand = {.anything = true};
    struct tosc__guard guard;
    int status = replace_on_demand(impl, holder, data, size, NULL, &demand, &guard);

    if (status == 0) {
        *ret = tosc__guard_position(&guard);
    }
    return status;
}

int
tosc__ceph_try_write(void *impl, const void *holder, const void *data, size_t size,
                     const int64_t *expected, const uint8_t *expected_id,
                     tosc_position *ret)
{
    const struct demand demand = {.version = expected, .store_id = expected_id};
    struct tosc__guard guard;
    int status = replace_on_demand(impl, holder, data, size, NULL, &demand, &guard);

    if (status == 0) {
        *ret = tosc__guard_position(&guard);
    }
    return status;
}

/* ---- appending ---- */

static enum step
append(struct tosc__ceph *be, const void *holder, const struct tosc__ceph_state *from,
       const void *data, size_t size, const tosc_commit_id *id,
       struct tosc__ceph_limit *limit, bool *late, struct tosc__guard *ret,
       int *ret_status)
{
    struct tosc__guard guard = from->guard;
    struct tosc__frames frames = {.offset = guard.tail};
    struct tosc__identity identity;
    struct tosc__ceph_change change = {.guard = &guard, .what = TOSC__CEPH_PUT};
    enum step step = STEP_FAILED;

    tosc__identity_init(&identity, guard.store_id, guard.generation);
    guard.version++;
    if (!tosc__frames_record(&frames, &identity, TOSC__APPEND, guard.version, id->bytes,
                             data, size)) {
        *ret_status = no_memory(be);
    } else {
        change.offset = guard.tail;
        change.bytes = frames.bytes;
        change.size = frames.size;
        guard.last = guard.tail;
        guard.tail += frames.size;
        memcpy(guard.commit_id, id->bytes, sizeof(guard.commit_id));
        step = commit(be, holder, from, &change, limit, late, ret_status);
    }
    tosc__frames_free(&frames);
    *ret = guard;
    return step;
}

/* Where something is stored. */
static int
append_after(struct tosc__ceph *be, const void *holder, const void *data, size_t size,
             const tosc_commit_id *id, const tosc_position *known,
             struct tosc__guard *ret)
{
    bool pending = false;
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, NULL, &pending);
    const struct tosc__ceph_state *sent = NULL;
    struct tosc__ceph_state from;
    bool late = false;
    int status = check_size(be, size);

    for (int tries = 0; status == 0 && tries <= be->max_retries; tries++) {
        struct tosc__ceph_state now;
        tosc_position at;
        enum step step;

        status = state_for(be, known, &limit, &now);
        if (status != 0) {
            return status;
        }
        at = tosc__guard_position(&now.guard);
        if (!tosc__same_position(&at, known)) {
            status = moved_on(be, &now, sent, late, ret, &limit);
            if (status != TOSC__CEPH_AGAIN) {
                return status;
            }
            status = 0;
            continue;
        }
        from = now;
        step = append(be, holder, &from, data, size, id, &limit, &late, ret, &status);
        sent = &from;
        if (step == STEP_DONE) {
            return 0;
        }
        if (step == STEP_FAILED || step == STEP_CONFLICT) {
            return step == STEP_FAILED ? status : TOSC_ECONFLICT;
        }
        status = 0;
    }
    return status != 0 ? status : overtaken_too_often(be);
}

int
tosc__ceph_append(void *impl, const void *holder, const void *data, size_t size,
                  const tosc_commit_id *id, const tosc_position *known, tosc_data *ret)
{
    const struct demand empty = {.version = NULL};
    struct tosc__guard guard;
    int status;

    if (known->stored) {
        status = append_after(impl, holder, data, size, id, known, &guard);
    } else {
        status = replace_on_demand(impl, holder, data, size, id, &empty, &guard);
    }
    if (status == 0) {
        tosc__ceph_describe(&guard, ret);
    }
    return status;
}

/* ---- compaction ---- */

/*
 * Goes to the place after version `of`, in what a look has brought. False: there is none.
 * *ret_other: another commit has made that version.
 */
static bool
walk_to(const struct tosc__ceph_seen *seen, const tosc_position *of,
        struct tosc__walk *walk, bool *ret_other)
{
    *ret_other = false;
    if (seen->bytes == NULL) {
        walk->offset = seen->state.guard.tail;
        walk->version = of->version;
    }
    while (walk->version < of->version) {
        if (!tosc__walk_next(walk)) {
            return false;
        }
        *ret_other = walk->version == of->version
                     && !tosc__position_may_be(of, walk->record.commit_id);
    }
    return true;
}

/* What was read from the start is damaged; else the place was perhaps a wrong one. */
static int
does_not_fit(const struct tosc__ceph *be, const struct tosc__ceph_seen *seen,
             const struct tosc__walk *walk)
{
    return seen->from > 0 ? TOSC_ECONFLICT
                          : tosc__ceph_damaged(be, walk->offset, walk->version + 1);
}

/*
 * The new object's content: `data` as its base, and what came after `of`. Adds the
 * commits of that to `history`. TOSC_ECONFLICT: `of` is no state of this store any more,
 * as an older copy of it was put in its place.
 */
static int
gather(struct tosc__ceph *be, const struct tosc__ceph_seen *seen,
       const struct tosc__identity *identity, const void *data, size_t size,
       const tosc_position *of, struct tosc__frames *frames, struct tosc__guard *ret,
       struct tosc__history *history)
{
    const struct tosc__guard *guard = &seen->state.guard;
    struct tosc__identity old;
    struct tosc__walk walk;
    bool other;

    if (!tosc__frames_header(frames, identity)
        || !tosc__frames_record(frames, identity, TOSC__BASE, of->version, NULL, data,
                                size)) {
        return no_memory(be);
    }
    ret->base_end = frames->size;
    ret->last = 0;
    tosc__ceph_walk(seen, &old, &walk);
    if (!walk_to(seen, of, &walk, &other)) {
        return does_not_fit(be, seen, &walk);
    }
    if (other) {
        return TOSC_ECONFLICT;
    }
    while (walk.version < guard->version) {
        if (!tosc__walk_next(&walk)) {
            return does_not_fit(be, seen, &walk);
        }
        ret->last = frames->size;
        if (!tosc__frames_record(frames, identity, TOSC__APPEND, walk.version,
                                 walk.record.commit_id, walk.payload,
                                 (size_t)walk.record.length)) {
            return no_memory(be);
        }
        tosc__history_add(history, walk.version, walk.record.commit_id);
    }
    ret->tail = frames->size;
    return walk.offset == guard->tail ? 0 : does_not_fit(be, seen, &walk);
}

/* One try. */
static enum step
exchange_base(struct tosc__ceph *be, const void *holder,
              const struct tosc__ceph_seen *seen, const void *data, size_t size,
              const tosc_position *of, struct tosc__ceph_limit *limit,
              struct tosc__guard *ret, int *ret_status)
{
    struct tosc__frames frames = {.bytes = NULL};
    struct tosc__history history = seen->history;
    struct tosc__identity identity;
    struct tosc__guard guard;
    struct tosc__ceph_change change = {
        .guard = &guard, .history = &history, .what = TOSC__CEPH_REPLACE};
    struct tosc__ceph_mark mark = tosc__ceph_mark(be);
    struct tosc__ceph_state after = seen->state;
    uint8_t room[TOSC__HOLDER_SIZE];
    enum step step = STEP_FAILED;

    *ret_status = next_generation(&seen->state.guard, &guard, &identity);
    if (*ret_status == 0) {
        *ret_status =
            gather(be, seen, &identity, data, size, of, &frames, &guard, &history);
    }
    if (*ret_status == 0) {
        guard.base_version = of->version;
        add_history(be, &seen->state.guard, &history);
        change.bytes = frames.bytes;
        change.size = frames.size;
        change.holder = tosc__ceph_token(be, holder, room);
        switch (tosc__ceph_apply(be, &seen->state, &change, "compacting", false, limit,
                                 ret_status)) {
        case TOSC__CEPH_APPLIED:
            after.exists = true;
            after.guarded = true;
            after.guard = guard;
            tosc__ceph_learn(be, &after, &history, &mark);
            *ret = guard;
            step = STEP_DONE;
            break;
        case TOSC__CEPH_OVERTAKEN:
        case TOSC__CEPH_BUSY:
            tosc__ceph_forget(be);
            step = try_again(be, holder, limit, ret_status);
            break;
        case TOSC__CEPH_LOST:
            /* Nothing depends on whether it was done; it is the same content. */
            tosc__ceph_forget(be);
            step = *ret_status == TOSC__CEPH_AGAIN ? STEP_AGAIN : STEP_FAILED;
            break;
        case TOSC__CEPH_FAILED:
            break;
        }
    }
    tosc__frames_free(&frames);
    return step;
}

static int
compact_as(struct tosc__ceph *be, const void *holder, const void *data, size_t size,
           const tosc_position *of, int tries, struct tosc__guard *ret, bool *ret_again)
{
    bool pending = false;
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, NULL, &pending);
    int status = 0;

    *ret_again = false;
    for (int i = 0; i < tries; i++) {
        struct tosc__ceph_seen seen;
        const struct tosc__guard *guard = &seen.state.guard;
        enum step step;

        status = tosc__ceph_look(be, &limit, of, false, &seen);
        if (status != 0) {
            return status;
        }
        if (!tosc__position_is_of(of, guard->generation) || guard->version < of->version
            || guard->base_version > of->version
            || memcmp(guard->store_id, of->store_id, 16) != 0
            || (guard->version == of->version
                && !tosc__position_may_be(of, guard->commit_id))) {
            tosc_blob_unref(seen.bytes);
            return TOSC_ECONFLICT;
        }
        step = exchange_base(be, holder, &seen, data, size, of, &limit, ret, &status);
        tosc_blob_unref(seen.bytes);
        if (step != STEP_AGAIN) {
            return step == STEP_DONE ? 0 : status;
        }
    }
    *ret_again = true;
    return 0;
}

int
tosc__ceph_compact(void *impl, const void *holder, const void *data, size_t size,
                   const tosc_position *of, tosc_data *ret)
{
    struct tosc__ceph *be = impl;
    struct tosc__guard guard;
    bool again = false;
    int status = check_size(be, size);

    if (status == 0) {
        status = compact_as(be, holder, data, size, of, POLITE_TRIES, &guard, &again);
    }
    if (status == 0 && again && holder == NULL) {
        /* Commits come faster than a base can be sent: the lock keeps them off. */
        status = tosc__ceph_lock(be, &guard, tosc__now() + LOCK_NS);
        if (status == 0) {
            status =
                compact_as(be, &guard, data, size, of, be->max_retries, &guard, &again);
            tosc__ceph_unlock(be, &guard);
        }
    }
    if (status == 0 && again) {
        status = overtaken_too_often(be);
    }
    if (status == 0) {
        tosc__ceph_describe(&guard, ret);
    }
    return status;
}

#endif
