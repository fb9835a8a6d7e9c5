/*
 * The file backend's object, and what its files share: backend_file.c (life), file_read.c
 * (reading), file_write.c (changing), file_sync.c (lock file, locking, recovery),
 * file_wait.c (changes). Private to core.
 */
#ifndef TOSC_CORE_FILE_BACKEND_H
#define TOSC_CORE_FILE_BACKEND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <tosc/backend.h>

#include "core/clock.h"
#include "core/control.h"
#include "core/filestore.h"
#include "core/fork.h"
#include "core/lock.h"

/* One who sleeps for changes; kept for the next. */
struct tosc__waiter {
    int fd;              /* from tosc__notify_open(); negative: not opened yet */
    uint64_t lock_inode; /* of the lock file that it watches */
    bool busy;
    struct tosc__waiter *next;
};

/*
 * A mapping of a lock file that somebody has removed since; readers may still look at it.
 */
struct tosc__old_mapping {
    struct tosc__control *control;
    struct tosc__old_mapping *next;
};

struct tosc__file_backend {
    /* Constant. */
    char *path;
    char *lock_path;
    char *directory;
    char *new_path;
    char *compact_path;
    bool local;   /* no other host changes the store, so there is a control block */
    bool durable; /* flush at each commit */
    bool asked_not_durable, asked_shared; /* the options, whatever became of them */
    int poll_ms;
    uint8_t boot_id[16];

    struct tosc__fork_node node;
    struct tosc__gate gate;
    struct tosc__gate compaction;  /* taken by who prepares one; never while waiting */
    struct tosc__control *control; /* atomic; NULL until the lock file is mapped */
    int64_t own_version;           /* atomic: of the last append through this object */
    uint64_t own_waiters; /* atomic: ours among the registered, as control->waiters */
    int armed;            /* atomic: our waiters want to hear of our own appends */
    int suspect;          /* atomic: look at the paths before the next change */
    int64_t block_sought; /* atomic: when changed() last tried to map the block */
    int block_refused;    /* atomic: and whether it was not allowed to */

    pthread_mutex_t
        mutex; /* guards up to the next blank line, and changes of `control` */
    struct tosc__file *file; /* as last seen under the lock; changed only with the gate */
    struct tosc__file *read_file; /* as last opened by a reader */
    struct tosc__waiter *waiters;
    struct tosc__old_mapping *old_mappings;
    uint64_t lock_device;
    uint64_t lock_inode;
    int64_t quiet_until;  /* own appends are not reported before */
    int64_t stream_until; /* nothing is reported before */
    int64_t stream_pause;
    int64_t next_check; /* of the path */
    int64_t poll_pause;

    /* The gate guards these. */
    int lock_fd;              /* -1: not opened. Also changed under `mutex` */
    bool lock_writable;       /* atomic */
    struct tosc__state state; /* what the store is at, while we have the lock */
    int64_t paths_checked;    /* coarse clock */
    int64_t locked_at;        /* coarse clock: by `lock`, 0: something was done since */
};

/* ---- file_sync.c ---- */

/*
 * Opens and maps the lock file; made if `create`. 0 with no lock file when there is none.
 */
int tosc__fb_attach(struct tosc__file_backend *be, bool create);

/* Takes the lock (if `holder` has it not) and finds out what the store is at. */
int tosc__fb_enter(struct tosc__file_backend *be, const void *holder,
                   int64_t deadline_ns);
void tosc__fb_leave(struct tosc__file_backend *be, const void *holder);

/*
 * Makes `file` (a reference is taken; NULL: none) the data file that we know. With the
 * gate.
 */
void tosc__fb_adopt(struct tosc__file_backend *be, struct tosc__file *file);
/* The same for readers, who must not change what a writer is working with. */
void tosc__fb_adopt_for_reading(struct tosc__file_backend *be, struct tosc__file *file);
/* A reference to the file that `state` is about, if it is open, or NULL. */
struct tosc__file *tosc__fb_find_file(struct tosc__file_backend *be,
                                      const struct tosc__state *state);

/* The block, if it can be used without the lock; else NULL. */
struct tosc__control *tosc__fb_control(struct tosc__file_backend *be);

/* Publishes be->state, after it changed by more than an append. */
void tosc__fb_publish(struct tosc__file_backend *be);

/* ---- file_wait.c ---- */

/* Wakes those who wait for what was just published. With the lock. */
void tosc__fb_wake(struct tosc__file_backend *be);

int tosc__fb_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
                  const tosc_event *stop, bool *ret_changed);
int tosc__fb_changed(void *impl, const tosc_position *known);

/* ---- file_write.c ---- */

int tosc__fb_write(void *impl, const void *holder, const void *data, size_t size,
                   tosc_position *ret);
int tosc__fb_try_write(void *impl, const void *holder, const void *data, size_t size,
                       const int64_t *expected, const uint8_t *expected_id,
                       tosc_position *ret);
int tosc__fb_append(void *impl, const void *holder, const void *data, size_t size,
                    const tosc_commit_id *id, const tosc_position *known, tosc_data *ret);
int tosc__fb_compact(void *impl, const void *holder, const void *data, size_t size,
                     const tosc_position *of, tosc_data *ret);

/* ---- file_read.c ---- */

tosc_position tosc__fb_position(const struct tosc__state *state);
bool tosc__fb_is_at(const struct tosc__state *state, const tosc_position *known);
void tosc__fb_describe(const struct tosc__state *state, const struct tosc__file *file,
                       tosc_data *ret);

/*
 * Where what came after `known` begins, or a place before that; false if `known` is not
 * of this store or is older than its base.
 */
bool tosc__fb_place_of(const struct tosc__file *file, const struct tosc__state *state,
                       const tosc_position *known, struct tosc__place *ret);

int tosc__fb_read(void *impl, tosc_data *ret);
int tosc__fb_read_since(void *impl, const tosc_position *known, tosc_data *ret);

/* Whether the store has left `known`, without its bytes. Takes no lock. */
int tosc__fb_peek(struct tosc__file_backend *be, const tosc_position *known,
                  bool *ret_changed);

#endif
