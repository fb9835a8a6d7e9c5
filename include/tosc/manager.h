/*
 * The Manager from C: the same as the class tosc.Manager of scripts.
 *
 * Functions may be called from any thread, return 0 (or what they say) or a negative code of
 * <tosc/error.h>, leave outputs untouched on failure, and need tosc_host_start() before.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_MANAGER_H
#define TOSC_MANAGER_H

#include <tosc/backend.h>
#include <tosc/value.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tosc_manager tosc_manager;
typedef struct tosc_transaction tosc_transaction;

typedef struct tosc_manager_options {
    const void *key; /* authenticates all records; NULL: none */
    size_t key_size;
    const char *const
        *allowed_classes; /* "module.name", …, NULL: the only classes that may be
                             loaded; NULL: all. Another form is TOSC_EINVAL */
} tosc_manager_options;

/*
 * A Manager of the store in `backend` (which it takes a reference of), or at a URI (see
 * tosc_backend_open). Starts its watcher thread. `options` may be NULL; copied. Owned: give it
 * back with tosc_manager_unref(). Reads nothing yet, so that what is wrong with the stored data
 * or the key is told by the first use. TOSC_EINVAL (options; a backend without the required
 * operations), what tosc_backend_open() returns.
 */
int tosc_manager_new(tosc_backend *backend, const tosc_manager_options *options,
                     tosc_manager **ret);
int tosc_manager_open(const char *uri, const tosc_manager_options *options,
                      tosc_manager **ret);
/* One more owner of the handle, which is returned. NULL: it is not valid. */
tosc_manager *tosc_manager_ref(tosc_manager *manager);
/*
 * Gives back a reference; the last one ends it, without waiting for its watcher. Values of its
 * store that C holds, calls that are going on and open transactions are references too, and the
 * last one of all ends it at once. What scripts hold, the Manager or objects of its store, keeps
 * it until Python's next garbage collection after they let it go, as does an iterator over such
 * an object. tosc_manager_close() ends it whoever holds it. NULL is accepted; returns NULL.
 * Allowed after tosc_host_stop().
 */
tosc_manager *tosc_manager_unref(tosc_manager *manager);
/*
 * Ends the watcher now; waits for it. Using the Manager is TOSC_ECLOSED from then on, also for
 * scripts. The handle stays to be given back.
 */
int tosc_manager_close(tosc_manager *manager);
/* The Manager as a value (to give to a script's function), and back. Owned. TOSC_ETYPE. */
int tosc_manager_value(tosc_manager *manager, tosc_value **ret);
int tosc_manager_of(tosc_value *value, tosc_manager **ret);

/* ---- the stored object ---- */

/*
 * The stored object; owned, or borrowed from the scope. TOSC_ENOTFOUND: nothing is stored.
 * refresh first asks the store for what is new (blocks); read only where that costs nothing,
 * and the first time. snapshot gives a plain deep copy. What blocks lets Python's lock go
 * meanwhile, also in a scope. TOSC_ECORRUPT, TOSC_ESERIALIZE, TOSC_ESYSTEM: as the store is.
 */
int tosc_manager_read(tosc_manager *manager, tosc_value **ret);
int tosc_manager_borrow(tosc_manager *manager, tosc_value **ret);
/* `ret` may be NULL: it is only asked, and to find nothing is no fault. */
int tosc_manager_refresh(tosc_manager *manager, tosc_value **ret);
int tosc_manager_snapshot(tosc_manager *manager, tosc_value **ret);
/*
 * Replaces it, whatever it is. Blocks until it is stored, or is part of the open transaction.
 * TOSC_ESERIALIZE names what cannot be stored.
 */
int tosc_manager_write(tosc_manager *manager, tosc_value *value);
/* Replaces it if its version is *expected (NULL: if nothing is stored): 1; else 0. */
int tosc_manager_try_write(tosc_manager *manager, tosc_value *value,
                           const int64_t *expected);
/* 1 and the version that this thread sees; 0: nothing is stored. */
int tosc_manager_version(tosc_manager *manager, int64_t *ret);
/* 1, 0: does the distributed object stand in this Manager's store? TOSC_ETYPE: it is plain. */
int tosc_manager_is_linked(tosc_manager *manager, tosc_value *value);
/* 1, 0: has the transaction that this thread has open changed it? */
int tosc_manager_is_dirty(tosc_manager *manager, tosc_value *value);

/* ---- transactions ---- */

/*
 * Begins a transaction of the calling thread; inside another one of the same Manager and
 * thread, a savepoint. Until it ends, this thread sees the state as of its beginning plus its
 * own changes, and nobody else sees these. Also seen so by script functions that this thread
 * calls. It may outlive the scope that it was begun in. Ended by exactly one of commit and
 * rollback, in the same thread, and the handle is gone then in any case. What a thread has not
 * ended when it ends, or by tosc_host_stop(), is rolled back.
 */
int tosc_transaction_begin(tosc_manager *manager, tosc_transaction **ret);
/*
 * The outermost: blocks until it is stored. TOSC_ECONFLICT: somebody else committed since the
 * beginning, everything is rolled back. As with all other errors, nothing has changed (but
 * TOSC_EUNKNOWN). A savepoint becomes part of the one around it.
 *
 * TOSC_EINVAL: one that was begun inside is open still, or this is another thread (nothing has
 * happened, the handle stays good); or it has ended already, with the one around it.
 */
int tosc_transaction_commit(tosc_transaction *transaction);
/* Takes along those that were begun inside and are open still. TOSC_EINVAL: as of commit. */
int tosc_transaction_rollback(tosc_transaction *transaction);

typedef struct tosc_transact_options {
    int64_t retries;    /* how often to repeat after conflicts; 0: no limit; -1: never */
    int64_t timeout_ms; /* of all together, also of waiting; 0: none */
} tosc_transact_options;

/*
 * Called in a transaction and in a scope (around what blocks, enter one of your own and pause
 * that). `root` is the stored object, borrowed; NULL: nothing is stored. 0: commit; a negative
 * code: roll back, and tosc_transact returns it, whatever it is: only a conflict of this very
 * commit is tried again. It can be called several times: it should change nothing else. Scopes
 * and transactions that it has begun and not ended are TOSC_EINVAL, rolled back.
 */
typedef int (*tosc_transact_fn)(tosc_manager *manager, tosc_value *root, void *arg);

/*
 * Runs `fn` in a transaction until it commits: after a conflict again, with pauses, and after a
 * few conflicts under the store's exclusive lock. `options` may be NULL. TOSC_ERETRY,
 * TOSC_ETIMEDOUT; all other errors end it at once, with nothing changed (but TOSC_EUNKNOWN). A code
 * that `fn` returns without a message of its own is told by its name.
 * Inside a transaction of the same Manager and thread it runs once, as a savepoint. Under the
 * lock `fn` cannot change the same store through another Manager, in whatever way: TOSC_EINVAL.
 */
int tosc_transact(tosc_manager *manager, tosc_transact_fn fn, void *arg,
                  const tosc_transact_options *options);

/* ---- being told of changes ---- */

/* What has changed between two versions; valid during the callback, or until the next one. */
typedef struct tosc_change {
    int64_t version; /* now; 0: nothing is stored */
    int64_t before;  /* at the change told before this one, or when watching began */
    bool own;        /* all of it was committed through this Manager */
    bool all;        /* the paths are not known, or too many: look at everything */
    /*
     * What has changed, or is no longer there: for tosc_path(); "" is the root. Never
     * less than what has changed, but it may be more: an element that no path can name is
     * told as the container that holds it, and a list that has become longer or shorter
     * as a whole.
     */
    const char *const *paths;
    size_t path_count;
} tosc_change;

typedef struct tosc_watch tosc_watch;
/* `manager` is the handle that tosc_watch_new() was given: it should be kept as long. */
typedef void (*tosc_change_fn)(tosc_manager *manager, const tosc_change *change,
                               void *arg);

/*
 * From now on tells of commits, by whomever, that change something at, under or above
 * `path` (NULL: anything). A path leads through attributes that are stored, not through
 * properties. An object that can be reached by several paths is told by all of them that
 * do not go through an object twice.
 *
 * With `fn`: it is called in a thread of the Manager's, without Python's lock, one change
 * after the other and one callback at a time; commits that come meanwhile are told
 * together. It may call any function of the library but tosc_host_stop() and
 * tosc_manager_close(), and changes that it makes are told later. It may be called before
 * this function has returned. Without: ask with tosc_watch_next().
 *
 * A watch does not keep its Manager: after its end nothing more is told. In the child of
 * a fork watches go on, from the first use of the Manager there. Blocks where the store
 * was not read yet, and for as long as a walk of it takes if there is no other watch.
 * TOSC_ECLOSED, TOSC_EINVAL, TOSC_ENOMEM, TOSC_ESYSTEM, or why the store cannot be read.
 */
int tosc_watch_new(tosc_manager *manager, const char *path, tosc_change_fn fn, void *arg,
                   tosc_watch **ret);
/*
 * Ends it. When it returns, the callback is not running and is not called again (called
 * inside the callback itself: again). So what the callback waits for must not wait for
 * this. NULL is accepted; returns NULL; allowed after tosc_host_stop().
 */
tosc_watch *tosc_watch_free(tosc_watch *watch);
/*
 * A descriptor for poll(), epoll or an event loop: readable while there is a change to
 * tell, and from the end of the Manager on. Stays the watch's: do not read or close it.
 * In the child of a fork it is another one with the same number. -1 with a callback. Does
 * not block.
 */
int tosc_watch_fd(tosc_watch *watch);
/*
 * 1: a change, *ret borrowed from the watch until the next call; 0: there is none. Waits
 * for at most timeout_ms (0: not at all, not even for Python's lock; -1: for ever; a
 * signal ends it: TOSC_EINTR). TOSC_ECLOSED: the Manager is closed, or the watch was
 * freed meanwhile.
 */
int tosc_watch_next(tosc_watch *watch, int64_t timeout_ms, const tosc_change **ret);

#ifdef __cplusplus
}
#endif

#endif
