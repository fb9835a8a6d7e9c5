/*
 * The file backend's lock, and getting to know the truth under it.
 *
 * Whoever has entered holds the gate (other threads of this object are out), the lock on
 * byte 0 of the lock file (other objects and processes are out), and has be->state and
 * be->file agreeing with the data file that the path names now. On a local filesystem
 * that agreement comes from the control block in a few nanoseconds, plus one fstat()
 * which shows a file that somebody has removed or cut, plus now and then a look at the
 * paths. When anything does not fit, everything is derived again from the data file: that
 * is the recovery.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file_backend.h"
#include "core/fileio.h"
#include "core/sys.h"

#define LOCK_BYTE 0
#define PATHS_EVERY (50 * TOSC__MS)
#define FRESH_NS (5 * TOSC__MS)

/* ---- the lock file ---- */

static int
lock_failed(struct tosc__file_backend *be, int error, const char *what)
{
    if (error == ELOOP) {
        return tosc__fail_errno(
            error, be->lock_path,
            "a lock file must not be a symbolic link, which this is:");
    }
    if (error == EACCES || error == EPERM || error == EROFS) {
        return tosc__fail_errno(
            error, be->lock_path,
            "%s the lock file (changing a store needs write permission "
            "for it and its directory)",
            what);
    }
    return tosc__fail_errno(error, be->lock_path, "%s the lock file", what);
}

/*
 * A lock file made beside an existing store serves those who may write to that. Not those
 * who may only read it: with a read lock they could keep the writers out.
 */
static void
follow_data_file(struct tosc__file_backend *be, int fd)
{
    struct stat about;
    mode_t writers;

    if (lstat(be->path, &about) < 0 || !S_ISREG(about.st_mode)) {
        return;
    }
    if ((about.st_uid != geteuid() || about.st_gid != getegid())
        && fchown(fd, about.st_uid, about.st_gid) < 0
        && fchown(fd, (uid_t)-1, about.st_gid) < 0) {
        return; /* we may not; then it stays ours alone */
    }
    writers = about.st_mode & 0222;
    if (fchmod(fd, writers | writers << 1) < 0) {
        return;
    }
}

/* Opens, or with `create` makes, the lock file. *ret_fd -1: there is none. */
static int
open_lock_file(struct tosc__file_backend *be, bool create, int *ret_fd,
               bool *ret_writable)
{
    const int flags = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    int fd = tosc__open(be->lock_path, O_RDWR | flags, 0);

    *ret_writable = true;
    if (fd < 0 && errno == ENOENT && create) {
        fd = tosc__open(be->lock_path, O_RDWR | O_CREAT | O_EXCL | flags, 0600);
        if (fd >= 0) {
            follow_data_file(be, fd);
        } else if (errno == EEXIST) {
            fd = tosc__open(be->lock_path, O_RDWR | flags, 0);
        } else {
            return lock_failed(be, errno, "cannot create");
        }
    }
    if (fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
        *ret_writable = false;
        fd = tosc__open(be->lock_path, O_RDONLY | flags, 0);
    }
    if (fd < 0 && !(errno == ENOENT && !create)) {
        return lock_failed(be, errno, "cannot open");
    }
    *ret_fd = fd;
    return 0;
}

/*
 * Refuses what is no lock file. One that is too short gets its last byte: two processes
 * that do so at a time write the same, and neither touches the block.
 */
static int
prepare_lock_file(struct tosc__file_backend *be, int fd, bool writable,
                  struct stat *about)
{
    unsigned char head[8] = {0};
    unsigned char zero = 0;
    struct iovec part = {&zero, 1};
    static const unsigned char none[8];
    int status;

    if (fstat(fd, about) < 0) {
        return lock_failed(be, errno, "cannot examine");
    }
    if (!S_ISREG(about->st_mode)) {
        return tosc__fail_errno(S_ISDIR(about->st_mode) ? EISDIR : EINVAL, be->lock_path,
                                "a lock file must be a regular file, which this is not:");
    }
    if (!be->local) {
        return 0;
    }
    status = tosc__pread_full(fd, head, sizeof(head), 0, be->lock_path, NULL);
    if (status != 0) {
        return status;
    }
    if (about->st_size > 0 && !tosc__control_is_magic(head)
        && !(about->st_size == TOSC__CONTROL_SIZE
             && memcmp(head, none, sizeof(none)) == 0)) {
        return tosc__fail_path(
            TOSC_EINVAL, be->lock_path,
            "%s is not a lock file of a tosc store and was left as it is; "
            "choose another lock_path",
            be->lock_path);
    }
    if (about->st_size < TOSC__CONTROL_SIZE && writable) {
        status = tosc__pwrite_full(fd, &part, 1, TOSC__CONTROL_POKE_AT, be->lock_path);
    }
    return status;
}

/*
 * A mapping keeps the open file description that it was made with, and with that the
 * locks. So it gets one of its own: a child that inherits the mapping must not keep its
 * parent's lock.
 */
static int
map_apart(struct tosc__file_backend *be, const struct stat *expected, bool writable,
          void **ret)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int fd = tosc__open(be->lock_path, (writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW, 0);
    struct stat about;
    int status = 0;

    *ret = NULL;
    if (fd < 0) {
        return lock_failed(be, errno, "cannot open");
    }
    if (fstat(fd, &about) < 0 || about.st_ino != expected->st_ino
        || about.st_dev != expected->st_dev) {
        status = lock_failed(be, ESTALE, "somebody has just exchanged");
    } else if (about.st_size >= TOSC__CONTROL_SIZE) {
        *ret = mmap(NULL, TOSC__CONTROL_SIZE, protection, MAP_SHARED, fd, 0);
        if (*ret == MAP_FAILED) {
            status = lock_failed(be, errno, "cannot map");
        }
    } /* else its maker has not lengthened it yet, and reading would be a fault */
    close(fd);
    return status;
}

/* Under the mutex. */
static int
map_lock_file(struct tosc__file_backend *be, const struct stat *about, bool writable)
{
    void *mapping;
    int status = map_apart(be, about, writable, &mapping);

    if (status != 0 || mapping == NULL) {
        return status;
    }
    if (be->control != NULL) {
        struct tosc__old_mapping *old = tosc__sys.malloc(sizeof(*old));

        if (old == NULL) {
            munmap(mapping, TOSC__CONTROL_SIZE);
            return tosc__fail(TOSC_ENOMEM,
                              "not enough memory for the lock file's mapping");
        }
        *old = (struct tosc__old_mapping){be->control, be->old_mappings};
        be->old_mappings = old;
    }
    __atomic_store_n(&be->control, mapping, __ATOMIC_RELEASE);
    return 0;
}

static int
attach_locked(struct tosc__file_backend *be, bool create)
{
    struct stat about;
    bool writable;
    bool same;
    int fd = -1;
    int status = open_lock_file(be, create, &fd, &writable);

    if (status != 0 || fd < 0) {
        return status;
    }
    status = prepare_lock_file(be, fd, writable, &about);
    same = status == 0 && be->control != NULL && be->lock_device == about.st_dev
           && be->lock_inode == about.st_ino;
    if (status == 0 && be->local && !same) {
        status = map_lock_file(be, &about, writable);
    }
    if (status != 0) {
        close(fd);
        return status;
    }
    be->lock_device = about.st_dev;
    be->lock_inode = about.st_ino;
    __atomic_store_n(&be->lock_writable, writable, __ATOMIC_RELAXED);
    __atomic_store_n(&be->lock_fd, fd, __ATOMIC_RELEASE);
    return 0;
}

int
tosc__fb_attach(struct tosc__file_backend *be, bool create)
{
    int status = 0;

    if (__atomic_load_n(&be->lock_fd, __ATOMIC_ACQUIRE) >= 0) {
        return 0;
    }
    pthread_mutex_lock(&be->mutex);
    if (be->lock_fd < 0) {
        status = attach_locked(be, create);
    }
    pthread_mutex_unlock(&be->mutex);
    return status;
}

/* Whether the lock file that we hold is still the one that the path names. */
static bool
lock_file_is_current(struct tosc__file_backend *be)
{
    struct stat about;

    return lstat(be->lock_path, &about) == 0 && about.st_dev == be->lock_device
           && about.st_ino == be->lock_inode;
}

/* With the gate. Its old mapping stays for readers who are looking at it. */
static void
detach(struct tosc__file_backend *be)
{
    pthread_mutex_lock(&be->mutex);
    close(be->lock_fd);
    __atomic_store_n(&be->lock_fd, -1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&be->mutex);
}

/* ---- what we know ---- */

static bool
is_file_of(const struct tosc__file *file, const struct tosc__state *state)
{
    return file != NULL && state->stored && file->identity.generation == state->generation
           && memcmp(file->identity.store_id, state->store_id, sizeof(state->store_id))
                  == 0
           && file->device == state->device && file->inode == state->inode;
}

struct tosc__file *
tosc__fb_find_file(struct tosc__file_backend *be, const struct tosc__state *state)
{
    struct tosc__file *file = NULL;

    pthread_mutex_lock(&be->mutex);
    if (is_file_of(be->file, state)) {
        file = tosc__file_ref(be->file);
    } else if (is_file_of(be->read_file, state)) {
        file = tosc__file_ref(be->read_file);
    }
    pthread_mutex_unlock(&be->mutex);
    return file;
}

static void
exchange(struct tosc__file_backend *be, struct tosc__file **slot, struct tosc__file *file)
{
    struct tosc__file *old;

    tosc__file_ref(file);
    pthread_mutex_lock(&be->mutex);
    old = *slot;
    *slot = file;
    pthread_mutex_unlock(&be->mutex);
    tosc__file_unref(old);
}

void
tosc__fb_adopt(struct tosc__file_backend *be, struct tosc__file *file)
{
    exchange(be, &be->file, file);
    exchange(be, &be->read_file, NULL);
}

void
tosc__fb_adopt_for_reading(struct tosc__file_backend *be, struct tosc__file *file)
{
    exchange(be, &be->read_file, file);
}

struct tosc__control *
tosc__fb_control(struct tosc__file_backend *be)
{
    struct tosc__control *control = __atomic_load_n(&be->control, __ATOMIC_ACQUIRE);

    return control != NULL && tosc__control_usable(control, be->boot_id) ? control : NULL;
}

void
tosc__fb_publish(struct tosc__file_backend *be)
{
    if (be->control != NULL) {
        tosc__control_publish(be->control, be->boot_id, &be->state);
    }
}

/* ---- recovery ---- */

/*
 * Loads the file and cuts a torn tail off. What `hint` says was committed to this very
 * file cannot be torn. `from_hint`: and is good, so loading may start there.
 */
static int
find_tail(struct tosc__file_backend *be, struct tosc__file *file,
          const struct tosc__state *hint, bool from_hint, struct tosc__place *ret)
{
    const struct tosc__load load = {.limit = TOSC__NO_LIMIT, .after = INT64_MAX};
    struct tosc__place place = tosc__file_start(file);
    enum tosc__verdict verdict = TOSC__CLEAN;
    uint64_t committed = is_file_of(file, hint) ? hint->tail : 0;
    enum tosc__stop stop;
    uint64_t size;
    int status;

    if (from_hint && committed > 0 && tosc__is_linked(file->fd, &size)
        && size >= committed) {
        place = (struct tosc__place){hint->tail, hint->version};
    }
    status = tosc__file_load(file, be->path, &load, &place, &stop, NULL, NULL);
    if (status == 0 && stop == TOSC__STOP_INVALID) {
        status = tosc__file_judge(file, be->path, &place, &verdict, NULL);
    }
    if (status != 0) {
        return status;
    }
    if (verdict == TOSC__DAMAGED || place.offset < file->base_end
        || place.offset < committed) {
        return tosc__file_damaged(be->path, &place);
    }
    if (verdict == TOSC__TORN) {
        if (!file->writable) {
            return tosc__fail_errno(EACCES, be->path,
                                    "cannot cut the interrupted write from the end of");
        }
        status = tosc__truncate(file->fd, place.offset, be->path);
    }
    *ret = place;
    return status;
}

static int
derive(struct tosc__file_backend *be, struct tosc__file *file,
       const struct tosc__state *hint, bool from_hint)
{
    struct tosc__place place = {0, 0};
    struct stat about;
    int status = find_tail(be, file, hint, from_hint, &place);

    if (status != 0) {
        return status;
    }
    if (fstat(file->fd, &about) < 0) {
        return tosc__fail_errno(errno, be->path, "cannot ask for the size of");
    }
    be->state = (struct tosc__state){.stored = true,
                                     .device = file->device,
                                     .inode = file->inode,
                                     .generation = file->identity.generation,
                                     .version = place.version,
                                     .base_version = file->base_version,
                                     .base_end = file->base_end,
                                     .tail = place.offset,
                                     .file_size = (uint64_t)about.st_size};
    memcpy(be->state.store_id, file->identity.store_id, sizeof(be->state.store_id));
    return 0;
}

/* Everything again from the data file that the path names. */
static int
resync(struct tosc__file_backend *be, const struct tosc__state *hint, bool from_hint)
{
    struct tosc__file *file;
    int status = tosc__file_open(be->path, !be->local, &file);

    if (status != 0) {
        return status;
    }
    if (file == NULL) {
        be->state = (struct tosc__state){.stored = false};
    } else {
        status = derive(be, file, hint, from_hint);
    }
    if (status == 0) {
        tosc__fb_adopt(be, file);
        tosc__fb_publish(be);
        tosc__fb_wake(be);
    }
    tosc__file_unref(file);
    return status;
}

/* ---- entering ---- */

static bool
path_names(const char *path, const struct tosc__state *state)
{
    struct stat about;

    if (lstat(path, &about) < 0) {
        return !state->stored && errno == ENOENT;
    }
    return state->stored ? about.st_dev == state->device && about.st_ino == state->inode
                         : S_ISREG(about.st_mode) && about.st_size == 0;
}

/*
 * Whether be->state, from a clean block, agrees with the files as far as is cheap to see.
 */
static bool
still_fits(struct tosc__file_backend *be)
{
    const struct tosc__state *state = &be->state;
    uint64_t size;
    int64_t now;

    if (!state->stored) {
        return path_names(be->path, state);
    }
    if (!is_file_of(be->file, state) || !tosc__is_linked(be->file->fd, &size)
        || size != state->file_size) {
        return false;
    }
    now = tosc__now_coarse();
    if (now - be->paths_checked > PATHS_EVERY
        || __atomic_load_n(&be->suspect, __ATOMIC_RELAXED) != 0) {
        __atomic_store_n(&be->suspect, 0, __ATOMIC_RELAXED);
        be->paths_checked = now;
        return path_names(be->path, state);
    }
    return true;
}

/* Another process has replaced the file: opens that, if it is what the block says. */
static int
follow_block(struct tosc__file_backend *be, bool *ret_fits)
{
    struct tosc__file *file;
    struct stat about;
    int status = tosc__file_open(be->path, !be->local, &file);

    *ret_fits = false;
    if (status == 0 && is_file_of(file, &be->state) && fstat(file->fd, &about) == 0
        && (uint64_t)about.st_size == be->state.file_size) {
        tosc__fb_adopt(be, file);
        *ret_fits = true;
    }
    tosc__file_unref(status == 0 ? file : NULL);
    return status;
}

static int
sync_state(struct tosc__file_backend *be)
{
    struct tosc__control *control = tosc__fb_control(be);
    struct tosc__state hint = {.stored = false};
    bool clean = false;
    bool fits;
    int status;

    if (!be->local) {
        hint = be->state;
    }
    if (control != NULL && tosc__control_read(control, &hint)) {
        clean = !tosc__control_is_dirty(control);
    }
    if (clean) {
        be->state = hint;
        if (still_fits(be)) {
            return 0;
        }
        if (hint.stored && !is_file_of(be->file, &hint)) {
            status = follow_block(be, &fits);
            if (status != 0 || fits) {
                return status;
            }
        }
    }
    /* A clean block that does not fit is a reason to look at everything. */
    return resync(be, &hint, !clean);
}

/* With the gate: takes the file lock, on the lock file that the path names now. */
static int
take_file_lock(struct tosc__file_backend *be, int64_t deadline_ns)
{
    for (;;) {
        int status = tosc__fb_attach(be, true);

        if (status != 0) {
            return status;
        }
        if (!be->lock_writable) {
            return tosc__fail_errno(
                EACCES, be->lock_path,
                "changing a store needs write permission for its lock file");
        }
        status = tosc__file_lock(be->lock_fd, LOCK_BYTE, deadline_ns, be->lock_path);
        if (status != 0) {
            return status;
        }
        if ((tosc__now_coarse() - be->paths_checked <= PATHS_EVERY
             && __atomic_load_n(&be->suspect, __ATOMIC_RELAXED) == 0)
            || lock_file_is_current(be)) {
            return 0;
        }
        detach(be); /* which unlocks */
    }
}

/*
 * The first operation after `lock` need not look again. If the file was removed since, it
 * was while lock and operation, one transaction, were under way; so that is as if it had
 * been removed after them. Not when that takes long, as then it does matter to somebody.
 */
static bool
is_fresh(struct tosc__file_backend *be)
{
    bool fresh = be->locked_at != 0 && tosc__now_coarse() - be->locked_at < FRESH_NS;

    be->locked_at = 0;
    return fresh;
}

int
tosc__fb_enter(struct tosc__file_backend *be, const void *holder, int64_t deadline_ns)
{
    int status;

    if (tosc__gate_holds(&be->gate, holder)) {
        return is_fresh(be) ? 0 : sync_state(be);
    }
    status = tosc__gate_enter(&be->gate, deadline_ns);
    if (status != 0) {
        return status;
    }
    status = take_file_lock(be, deadline_ns);
    if (status == 0) {
        status = sync_state(be);
        if (status != 0) {
            tosc__file_unlock(be->lock_fd, LOCK_BYTE);
        }
    }
    if (status != 0) {
        tosc__gate_leave(&be->gate);
    }
    return status;
}

void
tosc__fb_leave(struct tosc__file_backend *be, const void *holder)
{
    if (!tosc__gate_holds(&be->gate, holder)) {
        tosc__file_unlock(be->lock_fd, LOCK_BYTE);
        tosc__gate_leave(&be->gate);
    }
}
