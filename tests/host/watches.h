/*
 * What the tests of watches share: a Manager that scripts know as `m`, its root as `r`, a watch,
 * and what that tells.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_TESTS_HOST_WATCHES_H
#define TOSC_TESTS_HOST_WATCHES_H

#include "support.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

static tosc_manager *manager;
static tosc_watch *watch;
static const tosc_change *change;

static inline tosc_manager *
open_store(const char *name)
{
    tosc_manager *opened;
    ok(tosc_manager_open(store_in(name), NULL, &opened));
    return opened;
}

/* Python, a Manager that scripts know as `m`, its root as `r`. */
static inline void
begin_with(const char *root)
{
    char source[4096];
    host_start();
    manager = open_store("store");
    ok(tosc_host_publish("m", manager));
    snprintf(source, sizeof(source),
             "import tosc, collections, enum\n"
             "class Thing: pass\n"
             "class Colour(enum.Enum): RED = 1\n"
             "m = tosc.shared('m')\n"
             "m.write(%s)\n"
             "r = m.read()\n",
             root);
    python(source);
}

static inline void
end(void)
{
    watch = tosc_watch_free(watch);
    python("del m, r");
    ok(tosc_host_publish("m", NULL));
    manager = tosc_manager_unref(manager);
    host_stop();
}

static inline void
watch_path(const char *path)
{
    ok(tosc_watch_new(manager, path, NULL, NULL, &watch));
}

/* The paths of the next change, sorted, with a space between them; "all"; "-": none. */
static inline const char *
next_of(tosc_watch *which, int64_t timeout_ms)
{
    static char text[4096];
    int status = tosc_watch_next(which, timeout_ms, &change);
    if (status == 0) {
        return "-";
    }
    gives(1, status);
    if (change->all) {
        must(change->path_count == 0);
        return "all";
    }
    text[0] = '\0';
    const char *last = NULL;
    for (size_t i = 0; i < change->path_count; i++) {
        const char *least = NULL;
        for (size_t k = 0; k < change->path_count; k++) {
            const char *path = change->paths[k];
            if ((last == NULL || strcmp(path, last) > 0)
                && (least == NULL || strcmp(path, least) < 0)) {
                least = path;
            }
        }
        must(least != NULL); /* none is told twice */
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s",
                 i > 0 ? " " : "", least[0] != '\0' ? least : "(root)");
        last = least;
    }
    return text;
}

#define told_paths(paths) ck_assert_str_eq(next_of(watch, 0), paths)
#define told_within(paths, ms) ck_assert_str_eq(next_of(watch, ms), paths)

/* What one statement of a script tells. */
static inline void
changes(const char *statement, const char *paths)
{
    python(statement);
    const char *told = next_of(watch, 0);
    if (strcmp(told, paths) != 0) {
        ck_abort_msg("%s tells \"%s\", not \"%s\"", statement, told, paths);
    }
}

static inline int64_t
version_now(void)
{
    int64_t version = 0;
    gives(1, tosc_manager_version(manager, &version));
    return version;
}

static inline bool
is_readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, 0) > 0;
}

/* For a thread: another one changes the store. */
static inline void *
change_soon(void *arg)
{
    tosc_value *root;
    (void)arg;
    sleep_us(50000);
    must(tosc_manager_read(manager, &root) == 0);
    must(tosc_set_int64(root, tosc_key("a"), 99) == 0);
    tosc_value_unref(root);
    return NULL;
}

#endif
