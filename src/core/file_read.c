/*
 * The file backend's reading, and the positions that readers remember.
 *
 * Readers take no lock. On a local filesystem the control block tells them where
 * committed data end, and what they find before that must be valid. Without a block that
 * is about the file at hand they read up to the first thing that is not valid, which may
 * be a write under way: see settle(). A reader that began without and finds a block in
 * the end reads again, so nobody is shown an append that is not committed yet. A reader
 * who finds the block dirty and the lock free finishes what a dead writer left.
 *
 * Readers never touch be->file, which a writer may be working with; they have
 * be->read_file.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/error.h"
#include "core/file_backend.h"
#include "core/fileio.h"

#define READ_TRIES 10
#define SETTLE_NS TOSC__SECOND

/* ---- positions ---- */

/*
 * The offset of the tail, with 16 bits over it that tie it to version and generation: an
 * offset of another position is seen to be wrong without reading the file.
 */
static uint64_t
seal(uint64_t offset, int64_t version, uint64_t generation)
{
    uint64_t mix =
        (generation ^ (uint64_t)version * UINT64_C(0x9e3779b97f4a7c15) ^ offset)
        * UINT64_C(0xbf58476d1ce4e5b9);

    return (offset & UINT64_C(0xffffffffffff)) | mix >> 48 << 48;
}

static tosc_position
position_of(const uint8_t store_id[16], int64_t version, uint64_t generation,
            uint64_t tail)
{
    tosc_position at = {.stored = true, .version = version};

    memcpy(at.store_id, store_id, sizeof(at.store_id));
    at.cookie[0] = generation;
    at.cookie[1] = seal(tail, version, generation);
    return at;
}

tosc_position
tosc__fb_position(const struct tosc__state *state)
{
    if (!state->stored) {
        return (tosc_position){.stored = false};
    }
    return position_of(state->store_id, state->version, state->generation, state->tail);
}

bool
tosc__fb_is_at(const struct tosc__state *state, const tosc_position *known)
{
    if (!known->stored || !state->stored) {
        return known->stored == state->stored;
    }
    return known->version == state->version
           && memcmp(known->store_id, state->store_id, sizeof(state->store_id)) == 0;
}

void
tosc__fb_describe(const struct tosc__state *state, const struct tosc__file *file,
                  tosc_data *ret)
{
    *ret = (tosc_data){.at = tosc__fb_position(state),
                       .base_bytes = state->stored ? file->base_length : 0,
                       .tail_bytes = state->stored ? state->tail - state->base_end : 0};
}

/* ---- reading ---- */

/* A data file and how far it may be read. */
struct view {
    struct tosc__file *file; /* NULL: nothing is stored */
    bool bounded;            /* by the block: all up to `tail` is committed */
    uint64_t tail;
    int64_t version;
};

static bool
still_named(const struct tosc__file_backend *be, const struct tosc__file *file,
            bool thorough)
{
    struct stat about;
    uint64_t size;

    if (thorough) {
        return lstat(be->path, &about) == 0 && about.st_dev == file->device
               && about.st_ino == file->inode;
    }
    return tosc__is_linked(file->fd, &size);
}

static bool
same_file(const struct tosc__file *file, const struct tosc__state *state)
{
    return file != NULL && file->identity.generation == state->generation
           && file->inode == state->inode && file->device == state->device;
}

static void
set_bounds(struct view *view, const struct tosc__state *state)
{
    view->bounded = true;
    view->tail = state->tail;
    view->version = state->version;
}

static bool
block_is_about(struct tosc__file_backend *be, const struct tosc__file *file,
               struct tosc__state *ret)
{
    struct tosc__control *control = tosc__fb_control(be);

    return control != NULL && tosc__control_read(control, ret) && ret->stored
           && same_file(file, ret);
}

/*
 * `thorough`: a file that was moved away counts as gone, not only one that was removed.
 */
static int
take_view(struct tosc__file_backend *be, bool thorough, struct view *ret)
{
    struct tosc__control *control = tosc__fb_control(be);
    struct tosc__state state = {.stored = false};
    struct view view = {.file = NULL};
    int status;

    if (control != NULL && tosc__control_read(control, &state) && state.stored) {
        view.file = tosc__fb_find_file(be, &state);
        if (view.file != NULL && still_named(be, view.file, thorough)) {
            set_bounds(&view, &state);
            *ret = view;
            return 0;
        }
        tosc__file_unref(view.file);
    }
    status = tosc__file_open(be->path, !be->local, &view.file);
    if (status != 0) {
        return status;
    }
    if (view.file != NULL) {
        /* The block may have followed a replacement while we opened. */
        if (block_is_about(be, view.file, &state)) {
            set_bounds(&view, &state);
        }
        tosc__fb_adopt_for_reading(be, view.file);
    }
    *ret = view;
    return 0;
}

/* Where to go on reading for somebody who is at `known`. False: only from the start. */
static bool
can_continue(const struct view *view, const tosc_position *known, struct tosc__place *ret)
{
    const struct tosc__file *file = view->file;
    uint64_t offset;

    if (known == NULL || !known->stored || known->version < file->base_version
        || (view->bounded && known->version > view->version)
        || memcmp(known->store_id, file->identity.store_id, sizeof(known->store_id))
               != 0) {
        return false;
    }
    offset = known->cookie[1] & UINT64_C(0xffffffffffff);
    if (known->cookie[0] == file->identity.generation && offset >= file->base_end
        && offset % TOSC__RECORD_ALIGN == 0 && (!view->bounded || offset <= view->tail)
        && known->cookie[1] == seal(offset, known->version, known->cookie[0])) {
        *ret = (struct tosc__place){offset, known->version};
    } else {
        *ret = tosc__file_after_base(file);
    }
    return true;
}

/* How often a read was tried, and until when it may try to settle() something. */
struct effort {
    int tries;
    int64_t deadline; /* 0: nothing was unsettled yet */
};

/*
 * The header of a later record was seen, which is only written when the one at `place` is
 * complete. If that is still not valid now, no write under way explains it.
 */
static int
is_invalid_for_good(struct tosc__file_backend *be, const struct tosc__file *file,
                    struct tosc__place place, bool *ret)
{
    const struct tosc__load load = {.limit = TOSC__NO_LIMIT, .after = INT64_MAX};
    const uint64_t offset = place.offset;
    enum tosc__stop stop = TOSC__STOP_END;
    int status = tosc__file_load(file, be->path, &load, &place, &stop, NULL, NULL);

    *ret = place.offset == offset && stop == TOSC__STOP_INVALID;
    return status;
}

/*
 * Something invalid is at `place`, and no block says that it should be valid. It may be a
 * write under way: "not there yet". With the lock held there is none: then it is a torn
 * tail, or damage. Others who are judging the same file may have the lock, so a while is
 * given to get it; who has it for longer is taken for the writer. *ret_again: read again.
 */
static int
settle(struct tosc__file_backend *be, const struct tosc__file *file,
       const struct tosc__place *place, struct effort *effort, bool *ret_again)
{
    struct timespec pause = {0, 200000L << (effort->tries < 5 ? effort->tries : 5)};
    enum tosc__verdict verdict;
    bool followed;
    int status = tosc__file_judge(file, be->path, place, &verdict, &followed);

    *ret_again = false;
    if (status != 0 || verdict != TOSC__DAMAGED) {
        return status;
    }
    if (followed && be->local) { /* elsewhere pages may come in any order */
        status = is_invalid_for_good(be, file, *place, ret_again);
        if (status != 0 || *ret_again) {
            *ret_again = false;
            return status != 0 ? status : tosc__file_damaged(be->path, place);
        }
    }
    if (effort->deadline == 0) {
        effort->deadline = tosc__now() + SETTLE_NS;
    }
    if (effort->tries >= 3) {
        status = tosc__fb_enter(be, NULL, effort->deadline);
        if (status == 0) {
            /* Entering has looked at everything, and found nothing wrong. */
            tosc__fb_leave(be, NULL);
            *ret_again = effort->tries < READ_TRIES;
            return 0;
        }
        if (status == TOSC_ETIMEDOUT) {
            return 0;
        }
        if (status == TOSC_ECORRUPT || status == TOSC_EINTR) {
            return status;
        }
        /* Not allowed to lock: then what stays as it is for that long is damage. */
        if (tosc__now() >= effort->deadline) {
            return tosc__file_damaged(be->path, place);
        }
    }
    nanosleep(&pause, NULL);
    *ret_again = true;
    return 0;
}

/* Reads what `view` has for somebody at `known`. */
static int
read_view(struct tosc__file_backend *be, const struct view *view,
          const tosc_position *known, bool want_bytes, struct effort *effort,
          tosc_data *ret, bool *ret_again)
{
    const struct tosc__file *file = view->file;
    struct tosc__place place = tosc__file_start(file);
    bool whole = !can_continue(view, known, &place);
    const struct tosc__load load = {.limit = view->bounded ? view->tail : TOSC__NO_LIMIT,
                                    .after = whole || known == NULL ? 0 : known->version};
    struct tosc__state state;
    tosc_blob *bytes = NULL;
    enum tosc__stop stop;
    int status = tosc__file_load(file, be->path, &load, &place, &stop,
                                 want_bytes ? &bytes : NULL, NULL);

    *ret_again = false;
    if (status != 0) {
        return status;
    }
    if (!view->bounded && block_is_about(be, file, &state)) {
        /* Published meanwhile, so what we read may include an append that is not yet. */
        *ret_again = true;
    } else if (view->bounded
               && (place.offset != view->tail || place.version != view->version)) {
        *ret_again = true; /* the file was replaced by hand, or is damaged */
        status = effort->tries < READ_TRIES ? 0 : tosc__file_damaged(be->path, &place);
    } else if (place.offset < file->base_end) {
        status = tosc__file_damaged(be->path, &place);
    } else if (!view->bounded && stop == TOSC__STOP_INVALID) {
        status = settle(be, file, &place, effort, ret_again);
    } else if (!whole && known->version > place.version) {
        /* The file holds less than `known`: another history, from the start then. */
        tosc_blob_unref(bytes);
        return read_view(be, view, NULL, want_bytes, effort, ret, ret_again);
    }
    if (status != 0 || *ret_again) {
        tosc_blob_unref(bytes);
        return status;
    }
    *ret = (tosc_data){.at = position_of(file->identity.store_id, place.version,
                                         file->identity.generation, place.offset),
                       .whole = whole,
                       .bytes = bytes,
                       .base_bytes = file->base_length,
                       .tail_bytes = place.offset - file->base_end};
    return 0;
}

/*
 * A whole read of an empty payload has a blob of no bytes, to tell it from nothing
 * stored.
 */
static int
complete(tosc_data *data)
{
    if (data->whole && data->at.stored && data->bytes == NULL) {
        data->bytes = tosc_blob_new(0);
        if (data->bytes == NULL) {
            return tosc__fail(TOSC_ENOMEM, "not enough memory for the stored data");
        }
    }
    return 0;
}

/*
 * The block does not fit the file (it was removed or put there by hand, or a writer
 * died). Taking the lock, if it is free, sets that right for everybody.
 */
static bool
mend_block(struct tosc__file_backend *be, const struct view *view)
{
    struct tosc__control *control = tosc__fb_control(be);

    if (control == NULL || view->bounded
        || (view->file == NULL
            && __atomic_load_n(&control->version, __ATOMIC_ACQUIRE) == 0)) {
        return false;
    }
    __atomic_store_n(&be->suspect, 1, __ATOMIC_RELAXED);
    if (tosc__fb_enter(be, NULL, 0) != 0) {
        return false;
    }
    tosc__fb_leave(be, NULL);
    return true;
}

/*
 * A store exists, so its block gets mapped before anything is believed, if that is
 * allowed: without it a reader cannot tell an append under way from a committed one.
 */
static bool
find_block(struct tosc__file_backend *be)
{
    if (!be->local || tosc__fb_control(be) != NULL) {
        return false;
    }
    tosc__fb_attach(be, true);
    if (tosc__fb_control(be) == NULL && be->control != NULL
        && tosc__fb_enter(be, NULL, 0) == 0) {
        tosc__fb_leave(be, NULL); /* the first of this boot */
    }
    return tosc__fb_control(be) != NULL;
}

/*
 * A dirty block is that of a writer at work, who has the lock, or of one that died. If
 * the lock is free, it is settled now whether what he wrote happened, and not when the
 * next writer comes: who knows that a process is dead may rely on what he reads. Only
 * looked at by the first tries, the second of which may be the first to have the block.
 */
static int
finish_for_the_dead(struct tosc__file_backend *be, int tries)
{
    const struct tosc__control *control = tosc__fb_control(be);
    int status;

    if (tries > 1 || control == NULL || !tosc__control_is_dirty(control)) {
        return 0;
    }
    status = tosc__fb_enter(be, NULL, 0);
    if (status == 0) {
        tosc__fb_leave(be, NULL);
    }
    /* A reader may lack the permission, and need not wait. */
    return status == TOSC_ECORRUPT ? status : 0;
}

static int
read_from(struct tosc__file_backend *be, const tosc_position *known, bool want_bytes,
          tosc_data *ret)
{
    struct effort effort = {.tries = 0};

    for (;; effort.tries++) {
        struct view view;
        bool again = false;
        int status = finish_for_the_dead(be, effort.tries);

        if (status == 0) {
            status = take_view(be, known == NULL || effort.tries > 0, &view);
        }
        if (status != 0) {
            return status;
        }
        if (effort.tries == 0
            && ((view.file != NULL && find_block(be)) || mend_block(be, &view))) {
            tosc__file_unref(view.file);
            continue;
        }
        if (view.file == NULL) {
            *ret = (tosc_data){.whole = true};
            return 0;
        }
        status = read_view(be, &view, known, want_bytes, &effort, ret, &again);
        tosc__file_unref(view.file);
        if (status != 0 || !again) {
            return status;
        }
    }
}

int
tosc__fb_read_since(void *impl, const tosc_position *known, tosc_data *ret)
{
    struct tosc__file_backend *be = impl;
    tosc_data data;
    int status;

    status = read_from(be, known, true, &data);
    if (status == 0) {
        status = complete(&data);
    }
    if (status == 0) {
        *ret = data;
    }
    return status;
}

int
tosc__fb_read(void *impl, tosc_data *ret)
{
    return tosc__fb_read_since(impl, NULL, ret);
}

int
tosc__fb_peek(struct tosc__file_backend *be, const tosc_position *known,
              bool *ret_changed)
{
    const tosc_position nothing = {.stored = false};
    tosc_data data;
    int status = read_from(be, known->stored ? known : &nothing, false, &data);

    if (status == 0) {
        *ret_changed = known->stored != data.at.stored
                       || known->version != data.at.version
                       || memcmp(known->store_id, data.at.store_id, 16) != 0;
    }
    return status;
}

bool
tosc__fb_place_of(const struct tosc__file *file, const struct tosc__state *state,
                  const tosc_position *known, struct tosc__place *ret)
{
    const struct view view = {(struct tosc__file *)(uintptr_t)file, true, state->tail,
                              state->version};

    return can_continue(&view, known, ret);
}
