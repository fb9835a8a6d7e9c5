/*
 * The Ceph backend's reading.
 *
 * A look gets the attributes and a run of content in one compound operation, so both are
 * of one moment. The guard says how far the content goes and which generation it is of.
 * What did not fit into the first operation is fetched by further ones; as the content of
 * one generation only grows, what they bring belongs to the guard that was seen first as
 * long as the generation is the same. If it is not, the base was replaced, and the look
 * begins again.
 *
 * Reading since a position asks for what comes after the offset in its cookie. If the
 * guard then says that the offset means nothing any more, a further operation gets what
 * is needed. A cookie that is simply wrong shows by records that do not fit; then
 * everything is read.
 *
 * Where an older copy was put in the place of the object, versions are made again, by
 * other commits. So the commit that a position comes from is compared with whatever the
 * same operation brings: guard, history, records. That these have its version among them is
 * seen to by reading its record once more, unless that is large. If it is another commit,
 * the position means nothing, and everything is read.
 *
 * An object without a guard, but with the content of a data file, is a store too:
 * somebody has put a copy there. Its guard is derived from its content, and written by
 * the next change.
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

#define TAIL_GUESS ((size_t)64 << 10)
#define CHUNK ((size_t)8 << 20)
/* No cluster has so large an object. */
#define MOST_BYTES ((uint64_t)4 << 30)
#define RECONNECTS 3
/* Pauses between looks for a commit that was told of: together, longer than a commit takes
 * of which no second notice is sent. */
#define DOUBT_MIN_NS TOSC__MS
#define DOUBT_MAX_NS (16 * TOSC__MS)
/* Of an object: from here on compactions are asked for, as the cluster's limit (128 MiB
 * unless changed) comes near. */
#define PRESSING ((uint64_t)96 << 20)

static int
no_memory(const struct tosc__ceph *be)
{
    return tosc__fail_path(TOSC_ENOMEM, be->where, "not enough memory for the data of %s",
                           be->where);
}

int
tosc__ceph_damaged(const struct tosc__ceph *be, uint64_t offset, int64_t version)
{
    return tosc__fail_path(
        TOSC_ECORRUPT, be->where,
        "the object %s is damaged: no valid record of version %lld at offset %llu; it "
        "was "
        "left as it is, remove it (`rados rm`) or put a good copy in its place",
        be->where, (long long)version, (unsigned long long)offset);
}

/* ---- what is remembered ---- */

struct tosc__ceph_mark
tosc__ceph_mark(struct tosc__ceph *be)
{
    struct tosc__ceph_mark mark;

    pthread_mutex_lock(&be->mutex);
    mark = (struct tosc__ceph_mark){
        .events = be->events, .news = be->news_count, .learned = be->learned};
    pthread_mutex_unlock(&be->mutex);
    mark.topic = tosc__ceph_topic_serial(be->topic);
    return mark;
}

/* Whether `a` is an earlier state of the store that `b` is of. */
static bool
is_before(const struct tosc__guard *a, const struct tosc__guard *b)
{
    return a->version < b->version
           && memcmp(a->store_id, b->store_id, sizeof(a->store_id)) == 0;
}

/*
 * What a look that found `guard` says about the news. They come ahead of the commit that
 * they tell of. A look begun thereafter that does not find it was too early, or the commit
 * was refused: a few more looks find out. With the mutex.
 */
static void
weigh_news(struct tosc__ceph *be, const struct tosc__guard *guard,
           const struct tosc__ceph_mark *mark)
{
    int64_t now = tosc__now();

    if (be->news.version <= guard->version
        && memcmp(be->news.store_id, guard->store_id, 16) == 0) {
        be->has_news = false;
        be->doubt_at = 0;
    } else if (be->has_news && be->news_count == mark->news) {
        be->has_news = false;
        be->doubt_ns = DOUBT_MIN_NS;
        be->doubt_at = now + be->doubt_ns;
    } else if (be->doubt_at != 0 && now >= be->doubt_at) {
        be->doubt_ns *= 2;
        be->doubt_at = be->doubt_ns <= DOUBT_MAX_NS ? now + be->doubt_ns : 0;
    }
}

/*
 * A look that was overtaken by another one, or by a commit, is forgotten, so that what is
 * remembered does not go back. If it began after that was learned, the store really went
 * back: an old copy was put there.
 */
void
tosc__ceph_learn(struct tosc__ceph *be, const struct tosc__ceph_state *state,
                 const struct tosc__history *history, const struct tosc__ceph_mark *mark)
{
    const struct tosc__guard *guard = &state->guard;
    tosc_position at = tosc__guard_position(guard);
    struct tosc__history found = {.count = 0};

    if (history != NULL) {
        found = *history;
    }
    if (guard->version > 0) {
        tosc__history_add(&found, guard->version, guard->commit_id);
    }
    tosc__ceph_topic_tell(be->topic, &at, mark->topic);
    pthread_mutex_lock(&be->mutex);
    if (memcmp(guard->store_id, be->state.guard.store_id, 16) != 0) {
        be->history = found;
    } else {
        tosc__history_merge(&be->history, &found);
    }
    if (!be->knows || mark->learned == be->learned
        || !is_before(guard, &be->state.guard)) {
        be->knows = true;
        be->learned++;
        be->state = *state;
        be->state_events = mark->events;
        be->size_hint = guard->tail;
    }
    weigh_news(be, guard, mark);
    pthread_mutex_unlock(&be->mutex);
}

void
tosc__ceph_forget(struct tosc__ceph *be)
{
    pthread_mutex_lock(&be->mutex);
    be->knows = false;
    pthread_mutex_unlock(&be->mutex);
}

/* ---- one operation ---- */

static bool
was_there(struct tosc__ceph *be)
{
    bool there;

    pthread_mutex_lock(&be->mutex);
    there = be->knows && be->state.exists;
    pthread_mutex_unlock(&be->mutex);
    return there;
}

struct range {
    uint64_t offset;
    tosc_blob *blob;
    size_t at;
    size_t length;
};

static int
look_over(struct tosc__ceph *be, struct tosc__ceph_link *link,
          const struct tosc__ceph_limit *limit, const struct range *range,
          struct tosc__ceph_found *ret, int *ret_error)
{
    struct tosc__ceph_op *op;
    int status = tosc__ceph_read_start(link, be->object, range->offset, range->blob,
                                       range->at, range->length, &op);

    if (status != 0) {
        return status;
    }
    status = tosc__ceph_op_wait(op, limit, ret_error);
    if (status == 0 && *ret_error == 0) {
        tosc__ceph_read_result(op, ret);
    }
    tosc__ceph_op_abandon(op);
    return status == TOSC_ETIMEDOUT
               ? tosc__ceph_failed(ETIMEDOUT, &be->who, be->where, "reading", 0)
               : status;
}

/* *ret_exists false: no such object. */
static int
look_once(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
          const struct range *range, struct tosc__ceph_found *ret, bool *ret_exists)
{
    for (int tries = 0;; tries++) {
        struct tosc__ceph_link *link;
        int error = 0;
        int status = tosc__ceph_link(be, limit, &link);

        if (status != 0) {
            return status;
        }
        status = look_over(be, link, limit, range, ret, &error);
        if (status == 0 && error == ESHUTDOWN && tries < RECONNECTS) {
            tosc__ceph_shut_out(be, link);
            tosc__ceph_link_unref(link);
            continue;
        }
        if (status == 0 && error == ENOENT && was_there(be)) {
            status = tosc__ceph_check_pool(be, link, limit);
            if (status == 0 && !tosc__ceph_link_is_usable(link) && tries < RECONNECTS) {
                tosc__ceph_link_unref(link);
                continue;
            }
        }
        tosc__ceph_link_unref(link);
        if (status == 0 && error != 0 && error != ENOENT) {
            status = tosc__ceph_failed(error, &be->who, be->where, "reading", 0);
        }
        *ret_exists = error != ENOENT;
        return status;
    }
}

/* ---- content ---- */

/*
 * Fetches [offset, offset + size) of this generation; the first `have` bytes are in *blob
 * already. *ret_same false: the base was replaced meanwhile.
 */
static int
fetch(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
      const struct tosc__guard *guard, uint64_t offset, uint64_t size, size_t have,
      tosc_blob **blob, bool *ret_same)
{
    tosc_blob *larger;
    int status = 0;

    *ret_same = true;
    if (size > MOST_BYTES) {
        return tosc__ceph_damaged(be, offset, guard->version);
    }
    if (size > SIZE_MAX / 2) {
        return no_memory(be);
    }
    if (*blob == NULL || (*blob)->size < size) {
        larger = tosc_blob_new((size_t)size);
        if (larger == NULL) {
            return no_memory(be);
        }
        if (have > 0) {
            memcpy(larger->data, (*blob)->data, have);
        }
        tosc_blob_unref(*blob);
        *blob = larger;
    }
    while (status == 0 && *ret_same && have < size) {
        size_t more = size - have < CHUNK ? (size_t)(size - have) : CHUNK;
        const struct range range = {offset + have, *blob, have, more};
        struct tosc__ceph_found found = {.have = 0};
        bool exists = false;

        status = look_once(be, limit, &range, &found, &exists);
        *ret_same = exists && found.is_guard && found.guard.version > 0
                    && found.guard.generation == guard->generation && found.have > 0;
        have += found.have;
        if (status == 0 && exists && found.is_guard && found.have == 0
            && found.guard.generation == guard->generation) {
            return tosc__ceph_damaged(be, offset + have, guard->version);
        }
    }
    return status;
}

/* Everything there is in an object without a guard. */
static int
fetch_all(struct tosc__ceph *be, const struct tosc__ceph_limit *limit, tosc_blob **ret)
{
    tosc_blob *blob = NULL;
    size_t size = 0;

    for (;;) {
        size_t more = size == 0 ? TAIL_GUESS : CHUNK;
        tosc_blob *larger = tosc_blob_new(size + more);
        struct tosc__ceph_found found = {.have = 0};
        bool exists = false;
        int status = larger == NULL ? no_memory(be) : 0;

        if (status == 0) {
            const struct range range = {size, larger, size, more};

            if (size > 0) {
                memcpy(larger->data, blob->data, size);
            }
            status = look_once(be, limit, &range, &found, &exists);
        }
        tosc_blob_unref(blob);
        if (status != 0) {
            tosc_blob_unref(larger);
            return status;
        }
        blob = larger;
        size += found.have;
        if (!exists || found.have < more) {
            blob->size = size;
            *ret = blob;
            return 0;
        }
    }
}

static int
not_a_store(const struct tosc__ceph *be, const char *why)
{
    return tosc__fail_path(
        TOSC_ECORRUPT, be->where,
        "the object %s %s and was left as it is; remove it (`rados rm`) "
        "or choose another name",
        be->where, why);
}

/* Derives a guard from the content of a data file. */
static int
derive(const struct tosc__ceph *be, const tosc_blob *content, struct tosc__guard *ret)
{
    struct tosc__identity identity;
    struct tosc__walk walk = {.identity = &identity,
                              .bytes = content->data,
                              .size = content->size,
                              .offset = TOSC__HEADER_SIZE};
    struct tosc__record base;
    enum tosc__header_verdict verdict =
        tosc__header_decode(content->data, content->size, &identity);

    if (verdict == TOSC__HEADER_FOREIGN) {
        return not_a_store(be, "is not a tosc store");
    }
    if (verdict == TOSC__HEADER_NEWER) {
        return not_a_store(be, "has a format version that this library does not know");
    }
    if (verdict == TOSC__HEADER_DAMAGED
        || content->size < TOSC__HEADER_SIZE + TOSC__RECORD_SIZE
        || !tosc__record_decode(content->data + TOSC__HEADER_SIZE, &identity,
                                TOSC__HEADER_SIZE, &base)) {
        return tosc__ceph_damaged(be, 0, 1);
    }
    walk.version = base.version - 1;
    *ret = (struct tosc__guard){.generation = identity.generation,
                                .base_version = base.version,
                                .base_end =
                                    TOSC__HEADER_SIZE + tosc__record_extent(base.length)};
    memcpy(ret->store_id, identity.store_id, sizeof(ret->store_id));
    while (tosc__walk_next(&walk)) {
        ret->version = walk.version;
        ret->tail = walk.offset;
        memcpy(ret->commit_id, walk.record.commit_id, sizeof(ret->commit_id));
    }
    if (ret->version == 0
        || !tosc__is_zero(content->data + ret->tail, content->size - ret->tail)) {
        return tosc__ceph_damaged(be, walk.offset, walk.version + 1);
    }
    return 0;
}

static int
adopt(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
      struct tosc__ceph_seen *ret)
{
    tosc_blob *content = NULL;
    int status = fetch_all(be, limit, &content);

    if (status == 0 && content->size > 0) {
        status = derive(be, content, &ret->state.guard);
    }
    if (status == 0 && ret->state.guard.version > 0) {
        content->size = (size_t)ret->state.guard.tail;
        ret->bytes = content;
        ret->before = ret->state.guard.base_version - 1;
    } else {
        tosc_blob_unref(content);
    }
    return status;
}

/* ---- a look ---- */

/*
 * Whether what `known` names is a state of this store that its present content shows.
 * What its records say is not looked at.
 */
static bool
can_continue(const struct tosc__ceph_seen *seen, const tosc_position *known)
{
    const struct tosc__guard *guard = &seen->state.guard;
    const uint8_t *id;

    if (known == NULL || !known->stored || known->version < guard->base_version
        || known->version > guard->version
        || memcmp(known->store_id, guard->store_id, sizeof(guard->store_id)) != 0) {
        return false;
    }
    id = known->version == guard->version
             ? guard->commit_id
             : tosc__history_find(&seen->history, known->version);
    return id == NULL || tosc__position_may_be(known, id);
}

/* Sets where the content begins that is needed by one who is at `known`. */
static void
start_for(struct tosc__ceph_seen *seen, const tosc_position *known, bool whole)
{
    const struct tosc__guard *guard = &seen->state.guard;
    struct tosc__hint hint;

    seen->from = 0;
    seen->before = guard->base_version - 1;
    if (whole || !can_continue(seen, known)) {
        return;
    }
    hint = tosc__position_hint(known);
    seen->from = guard->base_end;
    seen->before = guard->base_version;
    if (tosc__position_is_of(known, guard->generation) && hint.offset >= guard->base_end
        && hint.offset <= guard->tail) {
        seen->from = hint.offset;
        seen->before = known->version - hint.at_record;
    }
}

static void
first_range(struct tosc__ceph *be, const tosc_position *known, bool whole,
            struct range *ret)
{
    uint64_t hint;

    *ret = (struct range){.offset = 0};
    if (whole) {
        pthread_mutex_lock(&be->mutex);
        hint = be->size_hint + TAIL_GUESS;
        pthread_mutex_unlock(&be->mutex);
        ret->length = hint < CHUNK ? (size_t)hint : CHUNK;
    } else if (known != NULL && known->stored) {
        ret->offset = tosc__position_hint(known).offset;
        ret->length = TAIL_GUESS;
    }
}

/* One try. *ret_again: the base was replaced while we looked. */
static int
try_look(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
         const tosc_position *known, bool whole, struct tosc__ceph_seen *seen,
         bool *ret_again)
{
    struct tosc__guard *guard = &seen->state.guard;
    struct tosc__ceph_found found = {.have = 0};
    struct range range;
    tosc_position at;
    bool same = true;
    int status;

    first_range(be, known, whole, &range);
    if (range.length > 0) {
        range.blob = tosc_blob_new(range.length);
        if (range.blob == NULL) {
            return no_memory(be);
        }
    }
    seen->bytes = range.blob;
    status = look_once(be, limit, &range, &found, &seen->state.exists);
    if (status != 0 || !seen->state.exists) {
        return status;
    }
    if (found.guarded && !found.is_guard) {
        return not_a_store(be, "has a tosc.guard attribute that is damaged or of a newer "
                               "format");
    }
    if (found.strange_holder) {
        return not_a_store(be, "has a tosc.holder attribute that is damaged");
    }
    seen->state.guarded = found.guarded;
    seen->history = found.history;
    memcpy(seen->state.holder, found.holder, sizeof(found.holder));
    if (!found.guarded) {
        seen->bytes = tosc_blob_unref(seen->bytes);
        return adopt(be, limit, seen);
    }
    *guard = found.guard;
    at = tosc__guard_position(guard);
    if (!at.stored || range.length == 0
        || (!whole && known != NULL && tosc__same_position(&at, known))) {
        seen->bytes = tosc_blob_unref(seen->bytes);
        return 0;
    }
    start_for(seen, known, whole);
    if (seen->from != range.offset) {
        found.have = 0;
    }
    status = fetch(be, limit, guard, seen->from, guard->tail - seen->from, found.have,
                   &seen->bytes, &same);
    if (status == 0 && same) {
        seen->bytes->size = (size_t)(guard->tail - seen->from);
    }
    *ret_again = !same;
    return status;
}

int
tosc__ceph_look(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
                const tosc_position *known, bool whole, struct tosc__ceph_seen *ret)
{
    for (int tries = 0; tries <= be->max_retries; tries++) {
        struct tosc__ceph_mark mark = tosc__ceph_mark(be);
        struct tosc__ceph_seen seen = {.from = 0};
        bool again = false;
        int status = try_look(be, limit, known, whole, &seen, &again);

        if (status == 0 && !again) {
            tosc__ceph_learn(be, &seen.state, &seen.history, &mark);
            *ret = seen;
            return 0;
        }
        tosc_blob_unref(seen.bytes);
        if (status != 0) {
            return status;
        }
    }
    return tosc__fail_errno(EAGAIN, be->where,
                            "others replaced the base %d times while reading",
                            be->max_retries + 1);
}

/* ---- reading ---- */

void
tosc__ceph_describe(const struct tosc__guard *guard, tosc_data *ret)
{
    *ret = (tosc_data){.at = tosc__guard_position(guard)};
    if (ret->at.stored) {
        ret->base_bytes = guard->base_end - TOSC__HEADER_SIZE - TOSC__RECORD_SIZE;
        ret->tail_bytes = guard->tail - guard->base_end;
        if (guard->tail > PRESSING && ret->tail_bytes <= ret->base_bytes) {
            ret->tail_bytes = ret->base_bytes + 1;
        }
    }
}

/* A blob of the first `used` bytes, which takes the place of `blob`. */
static tosc_blob *
shrink(tosc_blob *blob, size_t room, size_t used)
{
    tosc_blob *smaller;

    if (room - used > used / 4 + 4096) {
        smaller = tosc_blob_new(used);
        if (smaller != NULL) {
            memcpy(smaller->data, blob->data, used);
            tosc_blob_unref(blob);
            return smaller;
        }
    }
    blob->size = used;
    return blob;
}

static bool
header_is_good(const struct tosc__ceph_seen *seen, const struct tosc__identity *identity)
{
    struct tosc__identity found;

    return seen->from > 0
           || (tosc__header_decode(seen->bytes->data, seen->bytes->size, &found)
                   == TOSC__HEADER_GOOD
               && found.generation == identity->generation
               && memcmp(found.store_id, identity->store_id, 16) == 0);
}

void
tosc__ceph_walk(const struct tosc__ceph_seen *seen, struct tosc__identity *identity,
                struct tosc__walk *ret)
{
    const struct tosc__guard *guard = &seen->state.guard;

    tosc__identity_init(identity, guard->store_id, guard->generation);
    *ret = (struct tosc__walk){.identity = identity,
                               .bytes = seen->bytes != NULL ? seen->bytes->data : NULL,
                               .size = seen->bytes != NULL ? seen->bytes->size : 0,
                               .start = seen->from,
                               .offset = seen->from > 0 ? seen->from : TOSC__HEADER_SIZE,
                               .version = seen->before};
}

/*
 * Moves the payloads of versions above that of `known` (NULL: of all) together at the
 * start of the bytes. False: the records are not what the guard says, *walk tells where;
 * or another commit has made the version of `known`: *ret_other.
 */
static bool
squeeze(struct tosc__ceph_seen *seen, const tosc_position *known, struct tosc__walk *walk,
        size_t *ret_used, bool *ret_other)
{
    struct tosc__guard *guard = &seen->state.guard;
    struct tosc__identity identity;
    size_t used = 0;

    *ret_other = false;
    tosc__ceph_walk(seen, &identity, walk);
    if (!header_is_good(seen, &identity)) {
        return false;
    }
    while (walk->offset < guard->tail && tosc__walk_next(walk)) {
        const struct tosc__record *record = &walk->record;

        *ret_other = known != NULL && walk->version == known->version
                     && !tosc__position_may_be(known, record->commit_id);
        if (*ret_other) {
            return false;
        }
        tosc__history_add(&seen->history, walk->version, record->commit_id);
        if (known == NULL || walk->version > known->version) {
            memmove(seen->bytes->data + used, walk->payload, record->length);
            used += (size_t)record->length;
        }
        if (record->kind == TOSC__APPEND) {
            guard->last = walk->offset - tosc__record_extent(record->length);
        }
    }
    *ret_used = used;
    return walk->offset == guard->tail && walk->version == guard->version;
}

/* Remembers the commits of the records that a look has brought. */
static void
learn_history(struct tosc__ceph *be, const struct tosc__ceph_seen *seen)
{
    pthread_mutex_lock(&be->mutex);
    if (memcmp(be->state.guard.store_id, seen->state.guard.store_id, 16) == 0) {
        tosc__history_merge(&be->history, &seen->history);
    }
    pthread_mutex_unlock(&be->mutex);
}

enum finish {
    FINISH_DONE = 0,
    FINISH_WRONG_COOKIE = 1,
    FINISH_OTHER_COMMIT /* has made the version of `known` */
};

/* Makes of a look for `known` what the caller wants: how it ended, or a status. */
static int
finish_read(struct tosc__ceph *be, const tosc_position *known,
            struct tosc__ceph_seen *seen, tosc_data *ret)
{
    const struct tosc__guard *guard = &seen->state.guard;
    bool partial = can_continue(seen, known);
    struct tosc__walk walk;
    size_t room;
    size_t used;
    bool other;

    tosc__ceph_describe(guard, ret);
    ret->whole = !partial;
    if (!ret->at.stored || seen->bytes == NULL) {
        if (partial && tosc__position_is_of(known, guard->generation)) {
            ret->at = *known;
        }
        return FINISH_DONE;
    }
    room = seen->bytes->size;
    if (!squeeze(seen, partial ? known : NULL, &walk, &used, &other)) {
        if (other) {
            return FINISH_OTHER_COMMIT;
        }
        return seen->from > 0 ? FINISH_WRONG_COOKIE
                              : tosc__ceph_damaged(be, walk.offset, walk.version + 1);
    }
    learn_history(be, seen);
    ret->at = tosc__guard_position(guard);
    if (partial && used == 0 && known->version == guard->version) {
        return FINISH_DONE;
    }
    ret->bytes = shrink(seen->bytes, room < TAIL_GUESS ? TAIL_GUESS : room, used);
    seen->bytes = NULL;
    return FINISH_DONE;
}

int
tosc__ceph_read_since(void *impl, const tosc_position *known, tosc_data *ret)
{
    struct tosc__ceph *be = impl;
    bool pending = false;
    struct tosc__ceph_limit limit = tosc__ceph_limit(be, NULL, &pending);
    bool whole = known == NULL || !known->stored;

    for (;;) {
        struct tosc__ceph_seen seen;
        tosc_data data;
        int status = tosc__ceph_look(be, &limit, known, whole, &seen);

        if (status != 0) {
            return status;
        }
        status = finish_read(be, known, &seen, &data);
        tosc_blob_unref(seen.bytes);
        if (status == FINISH_DONE) {
            *ret = data;
        }
        if (status <= FINISH_DONE) {
            return status;
        }
        whole = true;
        known = status == FINISH_OTHER_COMMIT ? NULL : known;
    }
}

int
tosc__ceph_read(void *impl, tosc_data *ret)
{
    return tosc__ceph_read_since(impl, NULL, ret);
}

#endif
