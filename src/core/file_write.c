/*
 * The file backend's operations that change a store.
 *
 * Writers enter (file_sync.c), change the data file, publish, wake, leave. Between
 * `begin` and `publish` the control block is dirty, so a writer that dies there is
 * noticed by the next. Whatever fails leaves the data file as it was, or it is said that
 * nobody knows (TOSC_EUNKNOWN).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/file_backend.h"
#include "core/fileio.h"
#include "core/sys.h"

#define AHEAD ((uint64_t)64 << 10)
#define COMPACTION_BYTE 1

/* ---- replacing ---- */

static int64_t
next_version(const struct tosc__state *state)
{
    return state->stored ? state->version + 1 : 1;
}

/* The identity of the file that will take the place of be->file. */
static int
next_identity(struct tosc__file_backend *be, struct tosc__identity *ret)
{
    uint64_t random[3] = {0, 0, 0};
    uint8_t store_id[16];

    while (random[0] == 0) {
        int status = tosc__random(random, sizeof(random));

        if (status != 0) {
            return status;
        }
    }
    memcpy(store_id, be->state.stored ? (void *)be->state.store_id : (void *)(random + 1),
           sizeof(store_id));
    tosc__identity_init(ret, store_id, random[0]);
    return 0;
}

static int
sync_if_durable(struct tosc__file_backend *be, int fd, const char *path)
{
    return be->durable ? tosc__sync_data(fd, path) : 0;
}

/*
 * Somebody who removed the lock file may have let another process at our temporary name.
 */
static int
check_temporary(struct tosc__file_backend *be, const struct tosc__file *file,
                const char *temporary)
{
    struct stat about;

    if (lstat(temporary, &about) < 0) {
        return tosc__fail_errno(errno, temporary, "cannot find the file just written,");
    }
    if (about.st_ino != file->inode || about.st_dev != file->device) {
        return tosc__fail_path(
            TOSC_ESYSTEM, be->path,
            "%s was exchanged while it was written; is the lock file %s "
            "removed while the store is in use?",
            temporary, be->lock_path);
    }
    return 0;
}

/*
 * Puts a finished file into the store's place: flush, rename, publish. `tail` is where
 * its records end. When the directory cannot be flushed after the rename, everybody sees
 * the new file, but nobody knows whether it would survive a power cut.
 */
static int
install(struct tosc__file_backend *be, struct tosc__file *file, const char *temporary,
        const struct tosc__place *tail)
{
    int status = sync_if_durable(be, file->fd, temporary);

    if (status == 0) {
        status = check_temporary(be, file, temporary);
    }
    if (status == 0) {
        if (be->control != NULL) {
            tosc__control_begin(be->control);
        }
        if (tosc__sys.rename(temporary, be->path) < 0) {
            status = tosc__fail_errno(errno, be->path, "cannot replace");
            tosc__fb_publish(be); /* nothing changed: be->state is still the truth */
        }
    }
    if (status != 0) {
        unlink(temporary);
        return status;
    }
    be->state = (struct tosc__state){.stored = true,
                                     .device = file->device,
                                     .inode = file->inode,
                                     .generation = file->identity.generation,
                                     .version = tail->version,
                                     .base_version = file->base_version,
                                     .base_end = file->base_end,
                                     .tail = tail->offset,
                                     .file_size = tail->offset};
    memcpy(be->state.store_id, file->identity.store_id, sizeof(be->state.store_id));
    if (be->durable && tosc__sync_directory(be->directory) != 0) {
        char reason[512];

        snprintf(reason, sizeof(reason), "%s", tosc_error_message());
        status = tosc__fail_path(
            TOSC_EUNKNOWN, be->path,
            "%s was replaced, but it may not survive a power cut: %s", be->path, reason);
    }
    tosc__fb_adopt(be, file);
    tosc__fb_publish(be);
    tosc__fb_wake(be);
    return status;
}

/* Mode and owner are those of the file that is there, even when it is an empty one. */
static int
open_model(struct tosc__file_backend *be)
{
    return be->state.stored ? be->file->fd
                            : tosc__open(be->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
}

static int
replace(struct tosc__file_backend *be, const void *data, size_t size,
        const tosc_commit_id *id)
{
    struct tosc__identity identity;
    struct tosc__file *file;
    struct tosc__place tail;
    int model;
    int status = next_identity(be, &identity);

    if (status != 0) {
        return status;
    }
    model = open_model(be);
    status = tosc__file_create(be->new_path, !be->local, model, &identity,
                               next_version(&be->state), id, data, size, &file);
    if (model >= 0 && !be->state.stored) {
        close(model);
    }
    if (status != 0) {
        return status;
    }
    tail = tosc__file_after_base(file);
    status = install(be, file, be->new_path, &tail);
    tosc__file_unref(file);
    return status;
}

static int
check_size(uint64_t size)
{
    return size < TOSC__PAYLOAD_MAX ? 0
                                    : tosc__fail(TOSC_EINVAL, "the data are too large");
}

int
tosc__fb_write(void *impl, const void *holder, const void *data, size_t size,
               tosc_position *ret)
{
    struct tosc__file_backend *be = impl;
    int status = check_size(size);

    if (status == 0) {
        status = tosc__fb_enter(be, holder, TOSC__FOR_EVER);
    }
    if (status != 0) {
        return status;
    }
    status = replace(be, data, size, NULL);
    if (status == 0) {
        *ret = tosc__fb_position(&be->state);
    }
    tosc__fb_leave(be, holder);
    return status;
}

static bool
write_allowed(const struct tosc__state *state, const int64_t *expected,
              const uint8_t *expected_id)
{
    if (expected == NULL) {
        return !state->stored;
    }
    return state->stored && state->version == *expected
           && (expected_id == NULL
               || memcmp(expected_id, state->store_id, sizeof(state->store_id)) == 0);
}

int
tosc__fb_try_write(void *impl, const void *holder, const void *data, size_t size,
                   const int64_t *expected, const uint8_t *expected_id,
                   tosc_position *ret)
{
    struct tosc__file_backend *be = impl;
    int status = check_size(size);

    if (status == 0) {
        status = tosc__fb_enter(be, holder, TOSC__FOR_EVER);
    }
    if (status != 0) {
        return status;
    }
    status = write_allowed(&be->state, expected, expected_id)
                 ? replace(be, data, size, NULL)
                 : TOSC_ECONFLICT;
    if (status == 0) {
        *ret = tosc__fb_position(&be->state);
    }
    tosc__fb_leave(be, holder);
    return status;
}

/* ---- appending ---- */

static void
publish_append(struct tosc__file_backend *be)
{
    __atomic_store_n(&be->own_version, be->state.version, __ATOMIC_RELAXED);
    if (be->control != NULL) {
        tosc__control_advance(be->control, be->state.version, be->state.tail,
                              be->state.file_size);
        tosc__fb_wake(be);
    }
}

/* Whether a record with this commit id lies behind the tail that we know. */
static bool
find_commit(struct tosc__file_backend *be, const tosc_commit_id *id,
            struct tosc__place *ret)
{
    const struct tosc__load load = {
        .limit = TOSC__NO_LIMIT, .after = INT64_MAX, .id = id};
    struct tosc__place place = {be->state.tail, be->state.version};
    enum tosc__stop stop;
    bool found = false;

    if (id == NULL || tosc__is_zero(id, sizeof(*id))
        || tosc__file_load(be->file, be->path, &load, &place, &stop, NULL, &found) != 0) {
        return false;
    }
    *ret = place;
    return found;
}

/*
 * After a failed append: cuts the file back to the tail, so that nothing of the record is
 * left. Where not even that works, and the record cannot be found whole where flushing
 * does not matter, nobody knows what a later reader will see: the block stays dirty, so
 * that the next one to take the lock looks at the file.
 */
static int
undo_append(struct tosc__file_backend *be, const tosc_commit_id *id, int failure)
{
    char reason[512];
    struct tosc__place place;

    snprintf(reason, sizeof(reason), "%s", tosc_error_message());

    if (tosc__truncate(be->file->fd, be->state.tail, be->path) == 0
        && sync_if_durable(be, be->file->fd, be->path) == 0) {
        be->state.file_size = be->state.tail;
        tosc__fb_publish(be);
        /* The undoing left no message, so the failure's own stands. */
        return failure;
    }
    if (!be->durable && find_commit(be, id, &place)) {
        be->state.tail = place.offset;
        be->state.version = place.version;
        be->state.file_size = place.offset;
        publish_append(be);
        return 0;
    }
    return tosc__fail_path(
        TOSC_EUNKNOWN, be->path,
        "it is not known whether a commit to %s was stored: %s, and it "
        "could not be undone: %s",
        be->path, reason, strerror(tosc_error_errno()));
}

static int
write_record(struct tosc__file_backend *be, const void *data, size_t size,
             const tosc_commit_id *id, uint64_t ahead)
{
    const struct tosc__place place = {be->state.tail, be->state.version};
    int status = tosc__file_append(be->file, be->path, &place, data, size, id, ahead);

    return status == 0 ? sync_if_durable(be, be->file->fd, be->path) : status;
}

static int
append(struct tosc__file_backend *be, const void *data, size_t size,
       const tosc_commit_id *id)
{
    uint64_t end = be->state.tail + tosc__record_extent(size);
    uint64_t ahead = be->durable && end > be->state.file_size ? AHEAD : 0;
    int status;

    if (!be->file->writable) {
        return tosc__fail_errno(EACCES, be->path, "cannot write to");
    }
    if (be->control != NULL) {
        tosc__control_begin(be->control);
    }
    status = write_record(be, data, size, id, ahead);
    if (status != 0 && ahead > 0 && tosc_error_errno() == ENOSPC) {
        /* The record itself may still fit. */
        status = undo_append(be, NULL, status);
        if (status == TOSC_ESYSTEM && be->control != NULL) {
            tosc__control_begin(be->control);
        }
        if (status == TOSC_ESYSTEM) {
            ahead = 0;
            status = write_record(be, data, size, id, 0);
        }
    }
    if (status != 0) {
        return undo_append(be, id, status);
    }
    be->state.version++;
    be->state.tail = end;
    if (end + ahead > be->state.file_size) {
        be->state.file_size = end + ahead;
    }
    publish_append(be);
    return 0;
}

/*
 * Whether the block says that this very store has gone on since `known`. Then an append
 * need not wait for the lock to learn that it comes too late.
 */
static bool
has_gone_on(struct tosc__file_backend *be, const tosc_position *known)
{
    const struct tosc__control *control = tosc__fb_control(be);
    uint64_t id[2];

    memcpy(id, known->store_id, sizeof(id));
    return control != NULL && known->stored
           && tosc__control_version_of(control, id) > known->version;
}

int
tosc__fb_append(void *impl, const void *holder, const void *data, size_t size,
                const tosc_commit_id *id, const tosc_position *known, tosc_data *ret)
{
    struct tosc__file_backend *be = impl;
    int status = check_size(size);

    if (status == 0 && has_gone_on(be, known)) {
        return TOSC_ECONFLICT;
    }
    if (status == 0) {
        status = tosc__fb_enter(be, holder, TOSC__FOR_EVER);
    }
    if (status != 0) {
        return status;
    }
    if (!tosc__fb_is_at(&be->state, known)) {
        status = TOSC_ECONFLICT;
    } else if (!be->state.stored) {
        status = replace(be, data, size, id);
    } else {
        status = append(be, data, size, id);
    }
    if (status == 0) {
        tosc__fb_describe(&be->state, be->file, ret);
    }
    tosc__fb_leave(be, holder);
    return status;
}

/* ---- compaction ---- */

/* The place after the record of version of->version in the present file. */
static int
find_place(struct tosc__file_backend *be, const tosc_position *of,
           struct tosc__place *ret)
{
    struct tosc__place place;

    if (!tosc__fb_place_of(be->file, &be->state, of, &place)) {
        return TOSC_ECONFLICT;
    }
    while (place.version < of->version) {
        unsigned char bytes[TOSC__RECORD_SIZE];
        struct tosc__record record;
        size_t have;
        int status = tosc__file_pread(be->file, be->path, bytes, sizeof(bytes),
                                      place.offset, &have);

        if (status != 0) {
            return status;
        }
        if (have < sizeof(bytes)
            || !tosc__record_decode(bytes, &be->file->identity, place.offset, &record)) {
            return tosc__file_damaged(be->path, &place);
        }
        place.offset += tosc__record_extent(record.length);
        place.version = record.version;
    }
    *ret = place;
    return 0;
}

/*
 * Only one compactor at a time prepares a file. Another one would fail anyway when the
 * first is done, as the base is a new one then; so it does not wait, which also keeps it
 * from waiting for somebody who waits for the lock that it holds itself.
 */
static int
begin_compaction(struct tosc__file_backend *be)
{
    int status;

    if (tosc__gate_enter(&be->compaction, 0) != 0) {
        return TOSC_ECONFLICT;
    }
    status = tosc__file_lock(be->lock_fd, COMPACTION_BYTE, 0, be->lock_path);
    if (status != 0) {
        tosc__gate_leave(&be->compaction);
    }
    return status == TOSC_ETIMEDOUT ? TOSC_ECONFLICT : status;
}

static void
end_compaction(struct tosc__file_backend *be)
{
    /* Without the gate, so a thread that finds another lock file may close this one. */
    pthread_mutex_lock(&be->mutex);
    tosc__file_unlock(be->lock_fd, COMPACTION_BYTE);
    pthread_mutex_unlock(&be->mutex);
    tosc__gate_leave(&be->compaction);
}

/* With the lock: whether the base is the one of `of`, and where its records end. */
static int
compaction_start(struct tosc__file_backend *be, const tosc_position *of,
                 struct tosc__place *ret)
{
    if (!of->stored || !be->state.stored || of->cookie[0] != be->state.generation) {
        return TOSC_ECONFLICT;
    }
    return find_place(be, of, ret);
}

/* Puts what was appended after `of` behind the new base, and the file into place. */
static int
finish_compaction(struct tosc__file_backend *be, struct tosc__file *file,
                  const tosc_position *of)
{
    struct tosc__place tail = tosc__file_after_base(file);
    struct tosc__place from;
    int status = compaction_start(be, of, &from);

    if (status == 0) {
        status = tosc__file_copy_tail(be->file, be->path, from, be->state.tail, file,
                                      be->compact_path, &tail);
    }
    if (status != 0) {
        unlink(be->compact_path);
        return status;
    }
    return install(be, file, be->compact_path, &tail);
}

/* The new base is written and flushed without the lock, as that takes long. */
static int
prepare_compaction(struct tosc__file_backend *be, const struct tosc__file *old,
                   const struct tosc__identity *identity, const void *data, size_t size,
                   const tosc_position *of, struct tosc__file **ret)
{
    int status = tosc__file_create(be->compact_path, !be->local, old->fd, identity,
                                   of->version, NULL, data, size, ret);

    if (status == 0) {
        status = sync_if_durable(be, (*ret)->fd, be->compact_path);
        if (status != 0) {
            unlink(be->compact_path);
            tosc__file_unref(*ret);
        }
    }
    return status;
}

int
tosc__fb_compact(void *impl, const void *holder, const void *data, size_t size,
                 const tosc_position *of, tosc_data *ret)
{
    struct tosc__file_backend *be = impl;
    struct tosc__identity identity;
    struct tosc__place from;
    struct tosc__file *old;
    struct tosc__file *file = NULL;
    int status = check_size(size);

    if (status == 0) {
        status = tosc__fb_enter(be, holder, TOSC__FOR_EVER);
    }
    if (status != 0) {
        return status;
    }
    status = compaction_start(be, of, &from);
    if (status == 0) {
        status = next_identity(be, &identity);
    }
    if (status == 0) {
        status = begin_compaction(be);
    }
    old = tosc__file_ref(be->file);
    tosc__fb_leave(be, holder);
    if (status == 0) {
        status = prepare_compaction(be, old, &identity, data, size, of, &file);
        if (status == 0) {
            status = tosc__fb_enter(be, holder, TOSC__FOR_EVER);
            if (status == 0) {
                status = finish_compaction(be, file, of);
                if (status == 0) {
                    tosc__fb_describe(&be->state, be->file, ret);
                }
                tosc__fb_leave(be, holder);
            } else {
                unlink(be->compact_path);
            }
            tosc__file_unref(file);
        }
        end_compaction(be);
    }
    tosc__file_unref(old);
    return status;
}
