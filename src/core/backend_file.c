/*
 * The file backend's life: its paths, what kind of filesystem they are on, the lock that
 * users take, fork, and the end.
 *
 * A store is a data file and a lock file, see docs/file-format.md. Reading is in
 * file_read.c, changing in file_write.c, locking and recovery in file_sync.c, waiting in
 * file_wait.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/backend_kind.h"
#include "core/error.h"
#include "core/file_backend.h"
#include "core/fileio.h"
#include "core/sys.h"

/* ---- the lock ---- */

static int
file_lock(void *impl, const void *holder, int64_t deadline_ns)
{
    struct tosc__file_backend *be = impl;
    int status;

    if (holder == NULL) {
        return tosc__fail(TOSC_EINVAL, "the lock needs a holder");
    }
    status = tosc__fb_enter(be, NULL, deadline_ns);
    if (status == 0) {
        be->locked_at = tosc__now_coarse();
        tosc__gate_name(&be->gate, holder);
    }
    return status;
}

static int
file_unlock(void *impl, const void *holder)
{
    struct tosc__file_backend *be = impl;

    if (!tosc__gate_holds(&be->gate, holder)) {
        return tosc__fail(TOSC_EINVAL, "the lock is not held by this holder");
    }
    tosc__gate_name(&be->gate, NULL);
    tosc__fb_leave(be, NULL);
    return 0;
}

/* ---- life ---- */

static struct tosc__file_backend *
of_node(struct tosc__fork_node *node)
{
    return (struct tosc__file_backend *)((char *)node
                                         - offsetof(struct tosc__file_backend, node));
}

static void
freeze(struct tosc__fork_node *node)
{
    pthread_mutex_lock(&of_node(node)->mutex);
}

static void
thaw(struct tosc__fork_node *node)
{
    pthread_mutex_unlock(&of_node(node)->mutex);
}

/*
 * The child lets go of the open file description that carries its parent's lock, and of
 * its inotify queues. The mappings may stay, and the data file, which is only used with
 * offsets.
 */
static void
renew(struct tosc__fork_node *node)
{
    struct tosc__file_backend *be = of_node(node);

    if (be->lock_fd >= 0) {
        close(be->lock_fd);
        be->lock_fd = -1;
    }
    for (struct tosc__waiter *waiter = be->waiters; waiter != NULL;
         waiter = waiter->next) {
        if (waiter->fd >= 0) {
            close(waiter->fd);
        }
        waiter->fd = -1;
        waiter->busy = false;
    }
    be->own_waiters = 0;
    be->armed = 0;
    be->gate = (struct tosc__gate){.word = 0};
    be->compaction = (struct tosc__gate){.word = 0};
    pthread_mutex_unlock(&be->mutex); /* which the thread that forked took: we are it */
}

static void
free_backend(struct tosc__file_backend *be)
{
    free(be->path);
    free(be->lock_path);
    free(be->directory);
    free(be->new_path);
    free(be->compact_path);
    free(be);
}

static void
file_destroy(void *impl)
{
    struct tosc__file_backend *be = impl;

    tosc__fork_remove(&be->node);
    while (be->waiters != NULL) {
        struct tosc__waiter *waiter = be->waiters;

        be->waiters = waiter->next;
        if (waiter->fd >= 0) {
            close(waiter->fd);
        }
        free(waiter);
    }
    while (be->old_mappings != NULL) {
        struct tosc__old_mapping *old = be->old_mappings;

        be->old_mappings = old->next;
        munmap(old->control, TOSC__CONTROL_SIZE);
        free(old);
    }
    if (be->control != NULL) {
        munmap(be->control, TOSC__CONTROL_SIZE);
    }
    if (be->lock_fd >= 0) {
        close(be->lock_fd);
    }
    tosc__file_unref(be->file);
    tosc__file_unref(be->read_file);
    pthread_mutex_destroy(&be->mutex);
    free_backend(be);
}

static const struct tosc_backend_ops file_ops = {
    .size = sizeof(file_ops),
    .name = "file",
    .destroy = file_destroy,
    .read = tosc__fb_read,
    .write = tosc__fb_write,
    .try_write = tosc__fb_try_write,
    .wait = tosc__fb_wait,
    .append = tosc__fb_append,
    .read_since = tosc__fb_read_since,
    .changed = tosc__fb_changed,
    .compact = tosc__fb_compact,
    .lock = file_lock,
    .unlock = file_unlock,
};

static int
no_memory(void)
{
    return tosc__fail(TOSC_ENOMEM, "not enough memory for a file backend");
}

static char *
join(const char *a, const char *between, const char *b)
{
    size_t size = strlen(a) + strlen(between) + strlen(b) + 1;
    char *joined = tosc__sys.malloc(size);

    if (joined != NULL) {
        snprintf(joined, size, "%s%s%s", a, between, b);
    }
    return joined;
}

/*
 * The path with its directory made absolute, so that a later chdir() does not matter. A
 * link to an existing file is followed here once and for all: replacing shall replace its
 * target.
 */
static int
resolve(const char *path, const char *what, bool follow, char **ret_path,
        char **ret_directory)
{
    char resolved[PATH_MAX];
    char copy[PATH_MAX];
    const char *slash;
    const char *name;
    struct stat about;

    if (path == NULL || path[0] == '\0') {
        return tosc__fail(TOSC_EINVAL, "the %s is empty", what);
    }
    if (strlen(path) >= sizeof(copy)) {
        return tosc__fail_errno(ENAMETOOLONG, path, "cannot use the %s", what);
    }
    if (follow && lstat(path, &about) == 0 && S_ISLNK(about.st_mode)) {
        if (realpath(path, copy) == NULL) {
            return tosc__fail_errno(errno, path, "cannot follow the symbolic link");
        }
    } else {
        strcpy(copy, path);
    }
    slash = strrchr(copy, '/');
    name = slash != NULL ? slash + 1 : copy;
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0
        || (lstat(copy, &about) == 0 && S_ISDIR(about.st_mode))) {
        return tosc__fail_errno(EISDIR, path,
                                "the %s must name a file, not a directory:", what);
    }
    if (slash != NULL) {
        copy[slash - copy] = '\0';
    }
    if (realpath(slash == NULL ? "." : copy[0] == '\0' ? "/" : copy, resolved) == NULL) {
        return tosc__fail_errno(
            errno, path, "the directory of the %s must exist and be accessible:", what);
    }
    if (stat(resolved, &about) == 0 && !S_ISDIR(about.st_mode)) {
        return tosc__fail_errno(ENOTDIR, path,
                                "the directory of the %s is not one:", what);
    }
    *ret_path = join(resolved, strcmp(resolved, "/") == 0 ? "" : "/", name);
    *ret_directory = join(resolved, "", "");
    return *ret_path != NULL && *ret_directory != NULL ? 0 : no_memory();
}

static int
set_paths(struct tosc__file_backend *be, const char *path, const char *lock_path)
{
    char *lock_directory = NULL;
    int status = resolve(path, "path of the store", true, &be->path, &be->directory);

    if (status != 0) {
        return status;
    }
    be->new_path = join(be->path, ".tosc-new", "");
    be->compact_path = join(be->path, ".tosc-compact", "");
    if (lock_path == NULL) {
        be->lock_path = join(be->path, ".lock", "");
    } else {
        status = resolve(lock_path, "lock_path", false, &be->lock_path, &lock_directory);
        free(lock_directory);
        if (status != 0) {
            return status;
        }
    }
    if (be->new_path == NULL || be->compact_path == NULL || be->lock_path == NULL) {
        return no_memory();
    }
    if (strcmp(be->lock_path, be->path) == 0) {
        return tosc__fail_path(TOSC_EINVAL, be->path,
                               "lock_path must not be the path of the store itself: %s",
                               be->path);
    }
    return 0;
}

static int
set_kind(struct tosc__file_backend *be, const tosc_file_options *options)
{
    struct tosc__filesystem filesystem;
    int status = tosc__filesystem_of(be->directory, &filesystem);

    if (status != 0) {
        return status;
    }
    be->local =
        !filesystem.network && !options->shared_by_hosts && tosc__boot_id(be->boot_id);
    be->durable = !options->not_durable && !filesystem.volatile_memory;
    be->poll_ms = options->poll_ms > 0 ? options->poll_ms : 100;
    be->asked_not_durable = options->not_durable;
    be->asked_shared = options->shared_by_hosts;
    be->poll_pause = TOSC__MS;
    return 0;
}

int
tosc_backend_file_new(const char *path, const tosc_file_options *options,
                      tosc_backend **ret)
{
    const tosc_file_options defaults = {.lock_path = NULL};
    struct tosc__file_backend *be = tosc__sys.malloc(sizeof(*be));
    tosc_backend *backend = NULL;
    int status;

    if (be == NULL) {
        return no_memory();
    }
    *be = (struct tosc__file_backend){.lock_fd = -1};
    options = options != NULL ? options : &defaults;
    status = set_paths(be, path, options->lock_path);
    if (status == 0) {
        status = set_kind(be, options);
    }
    if (status == 0) {
        backend = tosc_backend_new(&file_ops, be);
        status = backend == NULL ? no_memory() : 0;
    }
    if (status != 0) {
        free_backend(be);
        return status;
    }
    pthread_mutex_init(&be->mutex, NULL);
    be->node = (struct tosc__fork_node){.freeze = freeze, .thaw = thaw, .renew = renew};
    tosc__fork_add(&be->node);
    *ret = backend;
    return 0;
}

const char *
tosc__backend_file_path(const tosc_backend *backend, tosc_file_options *ret_options)
{
    const struct tosc__file_backend *be = tosc_backend_impl(backend);

    if (tosc_backend_ops(backend) != &file_ops) {
        return NULL;
    }
    *ret_options = (tosc_file_options){
        .lock_path = be->lock_path,
        .not_durable = be->asked_not_durable,
        .shared_by_hosts = be->asked_shared,
        .poll_ms = be->poll_ms,
    };
    return be->path;
}
