/*
 * Making a change of the object, and finding out what became of one whose reply was lost.
 *
 * A change that is not answered in time may have been done, may be done later (by an OSD
 * that was frozen), or never. To look for its commit id tells the first from the others.
 * Not finding it proves nothing yet; so a fence is put up: an operation that compares the
 * guard and sets another one which differs in nothing but its fence. When that succeeds,
 * the old guard, which the lost change compares with, is gone for good, and the lost
 * change can never be done. If it fails, the guard has changed, and we look again.
 *
 * A commit leads from version V to V + 1, and no store is ever at V + 1 twice. So the
 * question is which commit made V + 1, and the answer is in the guard, in the records,
 * or, if a compaction took these away, in the history. Only when that does not reach back
 * far enough, when the store was deleted, or when the cluster does not answer within the
 * limit, the outcome is unknown.
 *
 * A signal that ends waits (see fileio.h) does not end the wait for a change under way at
 * once: the reply mostly is a millisecond away. After GRACE_NS it does, and the outcome is
 * looked for as briefly.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/bytes.h"
#include "core/ceph_backend.h"
#include "core/ceph_frames.h"
#include "core/error.h"
#include "core/fileio.h"

#define GRACE_NS (TOSC__SECOND / 2)
#define PAUSE_NS (20 * TOSC__MS)

/* ---- making a change ---- */

/* Errors that come from an OSD, or from here, which has not done anything. */
static bool
is_refusal(int error)
{
    switch (error) {
    case EPERM:
    case EACCES:
    case ENOSPC:
    case EDQUOT:
    case EMSGSIZE:
    case EFBIG:
    case E2BIG:
    case EOPNOTSUPP:
    case EINVAL:
    case ENAMETOOLONG:
    case EROFS:
    case ENOMEM:
        return true;
    default:
        return false;
    }
}

static int
wait_for(struct tosc__ceph_op *op, const struct tosc__ceph_limit *limit, int *ret_error,
         bool *ret_interrupted)
{
    struct tosc__ceph_limit part = *limit;
    int status = tosc__ceph_op_wait(op, limit, ret_error);

    *ret_interrupted = status == TOSC_EINTR && !limit->patient;
    if (*ret_interrupted) {
        int64_t grace = tosc__now() + GRACE_NS;

        part.patient = true;
        part.stop = NULL;
        part.deadline = part.deadline < grace ? part.deadline : grace;
        status = tosc__ceph_op_wait(op, &part, ret_error);
        if (status == TOSC_ETIMEDOUT) {
            status = tosc__ceph_interrupted();
        }
    }
    return status;
}

static enum tosc__ceph_outcome
judge(struct tosc__ceph *be, struct tosc__ceph_link *link,
      const struct tosc__ceph_change *change, const char *doing, int error,
      const struct tosc__ceph_limit *limit, int *ret_status)
{
    switch (error) {
    case 0:
        return TOSC__CEPH_APPLIED;
    case EBUSY:
        return TOSC__CEPH_BUSY;
    case ECANCELED:
    case EEXIST:
        return TOSC__CEPH_OVERTAKEN;
    case ENOENT:
        *ret_status = tosc__ceph_check_pool(be, link, limit);
        if (*ret_status == 0 && change->create) {
            *ret_status = tosc__ceph_failed(ENOENT, &be->who, be->where, doing, 0);
        }
        return *ret_status == 0 ? TOSC__CEPH_OVERTAKEN : TOSC__CEPH_FAILED;
    case ESHUTDOWN:
        tosc__ceph_shut_out(be, link);
        *ret_status = TOSC__CEPH_AGAIN;
        return TOSC__CEPH_LOST;
    default:
        *ret_status = tosc__ceph_failed(error, &be->who, be->where, doing, change->size);
        return is_refusal(error) ? TOSC__CEPH_FAILED : TOSC__CEPH_LOST;
    }
}

enum tosc__ceph_outcome
tosc__ceph_apply(struct tosc__ceph *be, const struct tosc__ceph_state *from,
                 struct tosc__ceph_change *change, const char *doing, bool notify,
                 const struct tosc__ceph_limit *limit, int *ret_status)
{
    enum tosc__ceph_outcome outcome = TOSC__CEPH_FAILED;
    struct tosc__ceph_link *link;
    struct tosc__ceph_op *op;
    bool interrupted;
    int error = 0;
    int status = tosc__ceph_link(be, limit, &link);

    if (status != 0) {
        *ret_status = status;
        return TOSC__CEPH_FAILED;
    }
    if (from != NULL) {
        change->create = !from->exists;
        change->expect = from->guarded ? &from->guard : NULL;
    }
    if (notify) {
        tosc_position at = tosc__guard_position(change->guard);

        tosc__ceph_tell_commit(be, &at);
    }
    status = tosc__ceph_change_start(link, be->object, change, &op);
    if (status == 0) {
        status = wait_for(op, limit, &error, &interrupted);
        tosc__ceph_op_abandon(op);
        outcome = TOSC__CEPH_LOST;
        if (status == TOSC_ETIMEDOUT) {
            status = tosc__ceph_failed(ETIMEDOUT, &be->who, be->where, doing, 0);
        } else if (status == 0) {
            outcome = judge(be, link, change, doing, error, limit, &status);
        }
        if (interrupted
            && (outcome == TOSC__CEPH_OVERTAKEN || outcome == TOSC__CEPH_BUSY)) {
            /* What would be waited for next might last. */
            outcome = TOSC__CEPH_LOST;
            status = tosc__ceph_interrupted();
        }
    }
    tosc__ceph_link_unref(link);
    *ret_status = status;
    return outcome;
}

/* ---- settling ---- */

/* The id of `version` among the records that a look has brought. */
static bool
find_in_records(const struct tosc__ceph_seen *seen, int64_t version, uint8_t ret[16])
{
    struct tosc__identity identity;
    struct tosc__walk walk;

    if (seen->bytes == NULL) {
        return false;
    }
    tosc__ceph_walk(seen, &identity, &walk);
    while (tosc__walk_next(&walk)) {
        /* A base that a compaction has made bears no id. */
        if (walk.version == version) {
            memcpy(ret, walk.record.commit_id, 16);
            return !tosc__is_zero(ret, 16);
        }
    }
    return false;
}

static bool
find_id(struct tosc__ceph *be, const struct tosc__ceph_seen *seen, int64_t version,
        uint8_t ret[16])
{
    const struct tosc__guard *guard = &seen->state.guard;
    const uint8_t *found = tosc__history_find(&seen->history, version);

    if (guard->version == version) {
        found = guard->commit_id;
    }
    if (found != NULL) {
        memcpy(ret, found, 16);
        return true;
    }
    if (find_in_records(seen, version, ret)) {
        return true;
    }
    pthread_mutex_lock(&be->mutex);
    found = memcmp(be->state.guard.store_id, guard->store_id, 16) == 0
                ? tosc__history_find(&be->history, version)
                : NULL;
    if (found != NULL) {
        memcpy(ret, found, 16);
    }
    pthread_mutex_unlock(&be->mutex);
    return found != NULL;
}

/* Makes sure that no change that was built from `state` can be done any more. */
static enum tosc__ceph_outcome
put_up_fence(struct tosc__ceph *be, const struct tosc__ceph_state *state,
             const struct tosc__ceph_limit *limit, int *ret_status)
{
    struct tosc__guard guard = state->guard;
    struct tosc__ceph_change change = {.guard = &guard, .holder = state->holder};
    struct tosc__ceph_state after = *state;
    struct tosc__ceph_mark mark = tosc__ceph_mark(be);
    enum tosc__ceph_outcome outcome;

    *ret_status = tosc__random(&guard.fence, sizeof(guard.fence));
    if (*ret_status != 0) {
        return TOSC__CEPH_FAILED;
    }
    if (tosc__is_zero(state->holder, sizeof(state->holder))) {
        change.holder = NULL;
    }
    outcome = tosc__ceph_apply(be, state, &change, "settling a commit", false, limit,
                               ret_status);
    if (outcome == TOSC__CEPH_APPLIED) {
        after.exists = true;
        after.guarded = true;
        after.guard = guard;
        tosc__ceph_learn(be, &after, NULL, &mark);
    }
    return outcome;
}

enum verdict {
    STORED,
    NOT_STORED, /* and never will be */
    OTHER_STORED,
    NOT_TO_BE_FOUND,
    LOOK_AGAIN
};

/* What became of the commit with this id, from this state? */
struct question {
    const struct tosc__ceph_state *from;
    const uint8_t *id;
    bool under_way; /* it may be done later */
    bool thorough;  /* all that is stored may be read for the answer */
    int status;     /* of LOOK_AGAIN: what was in the way */
};

/* How much is looked at: the version and its commit, what came since, everything. */
enum depth { LAST, SINCE, ALL };

static enum verdict
look_for(struct tosc__ceph *be, struct question *question,
         const struct tosc__ceph_limit *limit, enum depth depth)
{
    const struct tosc__guard *before = &question->from->guard;
    tosc_position known = tosc__guard_position(before);
    enum verdict verdict = NOT_TO_BE_FOUND;
    struct tosc__ceph_seen seen;
    const struct tosc__guard *guard = &seen.state.guard;
    uint8_t found[16];

    question->status =
        tosc__ceph_look(be, limit, depth == SINCE ? &known : NULL, depth == ALL, &seen);
    if (question->status != 0) {
        return LOOK_AGAIN;
    }
    if (known.stored
        && (guard->version < known.version
            || memcmp(guard->store_id, known.store_id, 16) != 0)) {
        /* Another store, or none: ours is not in it, if it is not still to come. */
        verdict = question->under_way ? NOT_TO_BE_FOUND : OTHER_STORED;
    } else if (guard->version == before->version) {
        verdict = !question->under_way
                          || put_up_fence(be, &seen.state, limit, &question->status)
                                 == TOSC__CEPH_APPLIED
                      ? NOT_STORED
                      : LOOK_AGAIN;
    } else if (find_id(be, &seen, before->version + 1, found)) {
        verdict = memcmp(found, question->id, 16) == 0 ? STORED : OTHER_STORED;
    } else if (depth == LAST && guard->generation == before->generation) {
        verdict = look_for(be, question, limit, SINCE);
    } else if (depth < ALL && question->thorough) {
        verdict = look_for(be, question, limit, ALL);
    }
    tosc_blob_unref(seen.bytes);
    return verdict;
}

int
tosc__ceph_refused(struct tosc__ceph *be, const struct tosc__ceph_state *from,
                   const uint8_t id[16], const struct tosc__ceph_limit *limit)
{
    struct question question = {.from = from, .id = id};

    switch (look_for(be, &question, limit, LAST)) {
    case STORED:
        return 0;
    case NOT_STORED:
        return TOSC__CEPH_AGAIN;
    case LOOK_AGAIN:
        return question.status;
    default:
        return TOSC_ECONFLICT;
    }
}

/* The failure that `cause` was, once more. */
static int
fail_again(const struct tosc__ceph *be, int cause, int error)
{
    if (cause == TOSC_EINTR) {
        return tosc__ceph_interrupted();
    }
    return cause == TOSC__CEPH_AGAIN
               ? cause
               : tosc__ceph_failed(error, &be->who, be->where, "changing", 0);
}

static const char *
reason_for_doubt(int cause, bool under_way)
{
    if (cause != TOSC__CEPH_AGAIN) {
        return tosc_error_message();
    }
    return under_way
               ? "the connection to the cluster was interrupted"
               : "the answer came late, and the store does not tell any more, as many "
                 "commits have been made since";
}

/* There is a grace period left, in which nothing interrupts. */
static void
hurry(struct tosc__ceph_limit *limit)
{
    int64_t end = tosc__now() + GRACE_NS;

    limit->patient = true;
    limit->deadline = limit->deadline < end ? limit->deadline : end;
}

int
tosc__ceph_settle(struct tosc__ceph *be, const struct tosc__ceph_state *from,
                  const uint8_t id[16], bool under_way, int cause, int64_t deadline)
{
    struct tosc__ceph_limit limit = {.deadline = deadline};
    int error = tosc_error_errno();
    struct question question = {
        .from = from, .id = id, .under_way = under_way, .thorough = true};
    enum verdict verdict = LOOK_AGAIN;
    char reason[512];

    snprintf(reason, sizeof(reason), "%s", reason_for_doubt(cause, under_way));
    if (cause == TOSC_EINTR) {
        hurry(&limit);
    }
    while (verdict == LOOK_AGAIN && tosc__now() < limit.deadline) {
        verdict = look_for(be, &question, &limit, LAST);
        if (verdict == LOOK_AGAIN && question.status != TOSC_EINTR) {
            struct tosc__ceph_limit pause = {.deadline = tosc__now() + PAUSE_NS,
                                             .patient = limit.patient};

            question.status = tosc__ceph_sleep(-1, &pause);
        }
        if (verdict == LOOK_AGAIN && question.status == TOSC_EINTR) {
            hurry(&limit);
        }
    }
    switch (verdict) {
    case STORED:
        return 0;
    case NOT_STORED:
        return fail_again(be, cause, error);
    case OTHER_STORED:
        return TOSC_ECONFLICT;
    default:
        return tosc__fail_path(TOSC_EUNKNOWN, be->where,
                               "it is not known whether a commit to %s was stored: %s",
                               be->where, reason);
    }
}

#endif
