/*
 * What a Manager does for those who watch it.
 *
 * All of it with Python's lock held. A Manager that nobody watches has no struct Watching, and
 * whoever moves it to another version looks at no more than that pointer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_WATCHING_H
#define TOSC_PY_WATCHING_H

#include "manager.h"
#include "telling.h"

/*
 * A new watch of this Manager, from the version that its memory is at (or, if nothing was read
 * yet, gets to by reading it). -1: exception; else 0, or a status of watch_new().
 */
int watching_add(Manager *m, WatchOptions *options, Watch **ret);

/* ---- hooks; only for Managers whose `watching` is not NULL ---- */

/* graph.c: a commit was applied, or the whole graph replaced; or (!done) that failed half-way. */
void watching_applied(Manager *m, const DeltaList *deltas, bool done);
void watching_replaced(Manager *m, const DeltaList *deltas, bool done);
/* sync.c: the Manager is at another version, to which own commits have brought it, or not. */
void watching_publish(Manager *m, bool own);

/* live.c: for all Managers. `wait`: until no callback is running, Python's lock released. */
void watching_close(Manager *m, bool wait);
void watching_after_fork(Manager *m);

#endif
