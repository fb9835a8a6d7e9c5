/*
 * Telling programs what has changed: watches, what each has still to be told, and the thread
 * that calls their functions. No Python here: nothing in telling.c needs its lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_TELLING_H
#define TOSC_PY_TELLING_H

#include "pathset.h"

#include <tosc/manager.h>

typedef struct Hub Hub;     /* the watches of one Manager */
typedef struct Watch Watch; /* one of them, counted */

/* ---- the Manager's side ---- */

Hub *hub_new(void); /* with one reference; NULL: no memory */
void hub_unref(Hub *hub);
/* Is there a watch, or a callback that has not returned? */
bool hub_is_used(Hub *hub);
/* Something has changed: for all watches that it concerns. Does not block. */
void hub_publish(Hub *hub, const PathSet *news, int64_t version, bool own);
/*
 * The Manager has gone: nothing more is told. `wait`: and when it returns, no callback is
 * running, but the one that it is called from, if it is.
 */
void hub_close(Hub *hub, bool wait);
/* In the child of a fork: callbacks are called again. */
void hub_renew(Hub *hub);
/* Until no callback of any Manager is running, but the one that it is called from. */
void hubs_wait(void);

/* ---- the program's side ---- */

typedef struct WatchOptions {
    const char *path;      /* copied; NULL: everything */
    tosc_change_fn fn;     /* NULL: it is asked */
    tosc_manager *manager; /* for fn */
    void *arg;
    /* Calls it, in the hub's thread. */
    void (*call)(tosc_change_fn fn, tosc_manager *manager, const tosc_change *change,
                 void *arg);
    int64_t version;
} WatchOptions;

/* With one reference: 0, TOSC_ENOMEM, TOSC_EINVAL, TOSC_ESYSTEM. */
int watch_new(Hub *hub, const WatchOptions *options, Watch **ret);
Watch *watch_ref(Watch *watch);
void watch_unref(Watch *watch);
/*
 * It is told nothing more. When this returns its callback is not running, unless it is that
 * which calls. A wait for a change ends with TOSC_ECLOSED.
 */
void watch_end(Watch *watch);
int watch_fd(const Watch *watch);
/* As tosc_watch_next(). */
int watch_next(Watch *watch, int64_t timeout_ms, const tosc_change **ret);
bool watch_is_called_back(const Watch *watch);
/* Is this thread in a callback? */
bool watch_is_telling(void);

#endif
