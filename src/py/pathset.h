/*
 * Sets of paths, as in tosc_path(), and which of them concern a watch. No Python here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_PATHSET_H
#define TOSC_PY_PATHSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PATHSET_MOST 256           /* more paths than this, … */
#define PATHSET_BYTES (256 * 1024) /* … or longer ones, are told as "everything" */

typedef struct PathSet {
    char **items;     /* each with a NUL behind it */
    uint32_t *hashes; /* of the items */
    size_t count;
    size_t room;
    size_t bytes;
    bool all; /* everything: then there are no items */
} PathSet;

/* Adds a path that is not there yet; where there is no room or no memory, everything. */
void pathset_add(PathSet *set, const char *path, size_t size);
void pathset_add_all(PathSet *set);
void pathset_clear(PathSet *set);

static inline bool
pathset_is_empty(const PathSet *set)
{
    return set->count == 0 && !set->all;
}

/*
 * May something at or under `wanted` be different, if `changed` is? So if one is the other or
 * stands above it. "-1" in `wanted` concerns any index.
 */
bool path_concerns(const char *wanted, const char *changed);
/* Can this be a path? */
bool path_is_valid(const char *path);

#endif
