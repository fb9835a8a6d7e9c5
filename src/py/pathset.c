/*
 * Sets of paths, and which of them concern a watch.
 *
 * A set has at most PATHSET_MOST items, so that looking through their hashes is all the search
 * that is needed. A change that is larger is told as "everything", as is one for which there
 * is no memory: nothing here can fail, and nothing is ever left out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "pathset.h"

#include <stdlib.h>
#include <string.h>

static void
drop_items(PathSet *set)
{
    for (size_t i = 0; i < set->count; i++) {
        free(set->items[i]);
    }
    free(set->items);
    free(set->hashes);
    *set = (PathSet){.all = set->all};
}

void
pathset_clear(PathSet *set)
{
    set->all = false;
    drop_items(set);
}

void
pathset_add_all(PathSet *set)
{
    set->all = true;
    drop_items(set);
}

/* FNV-1a. */
static uint32_t
hash_of(const char *path, size_t size)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (unsigned char)path[i]) * 16777619u;
    }
    return hash;
}

static bool
has(const PathSet *set, const char *path, size_t size, uint32_t hash)
{
    for (size_t i = 0; i < set->count; i++) {
        if (set->hashes[i] == hash && strlen(set->items[i]) == size
            && memcmp(set->items[i], path, size) == 0) {
            return true;
        }
    }
    return false;
}

static bool
grow(PathSet *set)
{
    size_t room = set->room == 0 ? 4 : 2 * set->room;
    char **items = realloc(set->items, room * sizeof(*items));
    if (items == NULL) {
        return false;
    }
    set->items = items;
    uint32_t *hashes = realloc(set->hashes, room * sizeof(*hashes));
    if (hashes == NULL) {
        return false;
    }
    set->hashes = hashes;
    set->room = room;
    return true;
}

void
pathset_add(PathSet *set, const char *path, size_t size)
{
    uint32_t hash = hash_of(path, size);
    if (set->all || has(set, path, size, hash)) {
        return;
    }
    char *copy = NULL;
    if (set->count < PATHSET_MOST && set->bytes + size < PATHSET_BYTES
        && (set->count < set->room || grow(set))) {
        copy = malloc(size + 1);
    }
    if (copy == NULL) {
        pathset_add_all(set);
        return;
    }
    memcpy(copy, path, size);
    copy[size] = '\0';
    set->items[set->count] = copy;
    set->hashes[set->count++] = hash;
    set->bytes += size;
}

/* ---- comparing ---- */

static bool
is_digits(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
    }
    return size > 0;
}

/* What is told has indices from the start; what is asked for may be counted from the end. */
static bool
same_step(const char *wanted, size_t m, const char *changed, size_t n)
{
    if (m == n && memcmp(wanted, changed, n) == 0) {
        return true;
    }
    return m > 1 && wanted[0] == '-' && is_digits(wanted + 1, m - 1)
           && is_digits(changed, n);
}

bool
path_concerns(const char *wanted, const char *changed)
{
    while (*wanted != '\0' && *changed != '\0') {
        size_t m = strcspn(wanted, "/");
        size_t n = strcspn(changed, "/");
        if (!same_step(wanted, m, changed, n)) {
            return false;
        }
        wanted += m + (wanted[m] == '/');
        changed += n + (changed[n] == '/');
    }
    return true;
}

bool
path_is_valid(const char *path)
{
    for (const char *at = strchr(path, '~'); at != NULL; at = strchr(at + 1, '~')) {
        if (at[1] != '0' && at[1] != '1') {
            return false;
        }
    }
    return true;
}
