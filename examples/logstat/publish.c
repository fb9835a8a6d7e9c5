/*
 * The statistics in the store: see publish.h. What it looks like is in `first_contents`;
 * everything in it is plain data, for scripts to read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "publish.h"

#include <stdio.h>

#include <tosc/host.h>

enum { MOST_PATHS = 1000, MOST_LAST = 10 };

static const char first_contents[] =
    "{\"position\": {\"inode\": 0, \"offset\": 0}, \"log\": \"\","
    " \"lines\": 0, \"malformed\": 0, \"bytes\": 0,"
    " \"statuses\": {}, \"paths\": {}, \"bins\": {},"
    " \"percentiles_us\": {}, \"last\": []}";

static tosc_manager *manager;

bool
same_position(Position a, Position b)
{
    return a.inode == b.inode && a.offset == b.offset;
}

static int
get_position(tosc_value *root, Position *ret)
{
    int status = tosc_get_int64(root, tosc_path("position/inode"), &ret->inode);
    if (status == TOSC_OK) {
        status = tosc_get_int64(root, tosc_path("position/offset"), &ret->offset);
    }
    return status;
}

/* ---- parts of the transaction; all in its scope ---- */

static int
add(tosc_value *root, const char *name, int64_t count)
{
    return count == 0 ? TOSC_OK : tosc_add_int64(root, tosc_key(name), count, NULL);
}

static int
add_statuses(tosc_value *root, const Tally *tally)
{
    char path[32];
    int status = TOSC_OK;
    for (int i = 0; status == TOSC_OK && i < TALLY_STATUSES; i++) {
        if (tally->statuses[i] > 0) {
            snprintf(path, sizeof path, "statuses/%d", i);
            status = tosc_add_int64(root, tosc_path(path), tally->statuses[i], NULL);
        }
    }
    return status;
}

/* A log can have any number of paths; the store has not. */
static int
add_paths(tosc_value *root, const Tally *tally)
{
    tosc_value *paths;
    int64_t length;
    int status = tosc_borrow(root, tosc_key("paths"), &paths);
    for (int i = 0; status >= 0 && i < TALLY_PATHS; i++) {
        const TallyPath *entry = &tally->paths[i];
        const char *name = entry->path;
        if (entry->count == 0) {
            continue;
        }
        status = tosc_length(paths, tosc_self(), &length);
        if (status == TOSC_OK && length >= MOST_PATHS) {
            status = tosc_contains(paths, tosc_key(name));
            name = status == 0 ? "(other)" : name;
        }
        if (status >= 0) {
            status = tosc_add_int64(paths, tosc_key(name), entry->count, NULL);
        }
    }
    return status;
}

static int
add_last(tosc_value *root, const Tally *tally)
{
    tosc_value *last;
    int64_t length = 0;
    int64_t from = tally->lines > TALLY_LAST ? tally->lines - TALLY_LAST : 0;
    int status = tosc_borrow(root, tosc_key("last"), &last);
    for (int64_t i = from; status == TOSC_OK && i < tally->lines; i++) {
        status = tosc_append_text(last, tosc_self(), tally->last[i % TALLY_LAST],
                                  TOSC_TEXT_END);
    }
    if (status == TOSC_OK) {
        status = tosc_length(last, tosc_self(), &length);
    }
    for (; status == TOSC_OK && length > MOST_LAST; length--) {
        status = tosc_delete(last, tosc_index(0));
    }
    return status;
}

/* Adds the bins, and gives in `all` how many there are of each now. */
static int
add_bins(tosc_value *root, const Tally *tally, int64_t all[TALLY_BINS])
{
    tosc_value *bins;
    tosc_value *key;
    tosc_value *item;
    tosc_iterator *each = NULL;
    int status = tosc_borrow(root, tosc_key("bins"), &bins);
    for (int i = 0; status == TOSC_OK && i < TALLY_BINS; i++) {
        if (tally->bins[i] > 0) {
            status = tosc_add_int64(bins, tosc_index(i), tally->bins[i], NULL);
        }
    }
    if (status == TOSC_OK) {
        status = tosc_iterator_new(bins, tosc_self(), &each);
    }
    while (status == TOSC_OK && (status = tosc_iterator_next(each, &key, &item)) == 1) {
        int64_t bin;
        int64_t count;
        status = tosc_get_int64(key, tosc_self(), &bin);
        if (status == TOSC_OK) {
            status = tosc_get_int64(item, tosc_self(), &count);
        }
        if (status == TOSC_OK && bin >= 0 && bin < TALLY_BINS) {
            all[bin] = count;
        }
    }
    tosc_iterator_free(each);
    return status;
}

static int
set_percentile(tosc_value *root, const int64_t all[TALLY_BINS], int percent)
{
    char path[32];
    int64_t total = 0;
    int64_t below = 0;
    int bin = 0;
    for (int i = 0; i < TALLY_BINS; i++) {
        total += all[i];
    }
    if (total == 0) {
        return TOSC_OK;
    }
    while (bin < TALLY_BINS - 1 && (below + all[bin]) * 100 < total * percent) {
        below += all[bin++];
    }
    snprintf(path, sizeof path, "percentiles_us/%d", percent);
    return tosc_set_int64(root, tosc_path(path), tally_bin_us(bin));
}

static int
add_times(tosc_value *root, const Tally *tally)
{
    static const int percents[] = {50, 90, 99};
    int64_t all[TALLY_BINS] = {0};
    int status = add_bins(root, tally, all);
    for (size_t i = 0; status == TOSC_OK && i < sizeof percents / sizeof *percents; i++) {
        status = set_percentile(root, all, percents[i]);
    }
    return status;
}

/* ---- the transaction ---- */

typedef struct Update {
    const Tally *tally;
    const Position *from; /* NULL: positions do not matter */
    Position to;
    Position found; /* in the store */
} Update;

static int
add_all(tosc_value *root, const Tally *tally)
{
    int status = add(root, "lines", tally->lines);
    status = status < 0 ? status : add(root, "malformed", tally->malformed);
    status = status < 0 ? status : add(root, "bytes", tally->bytes);
    status = status < 0 ? status : add_statuses(root, tally);
    status = status < 0 ? status : add_paths(root, tally);
    status = status < 0 ? status : add_times(root, tally);
    status = status < 0 ? status : add_last(root, tally);
    return status;
}

/* Can be run several times: changes nothing but the store and `found`. */
static int
update_store(tosc_manager *unused, tosc_value *root, void *arg)
{
    Update *update = arg;
    int status = get_position(root, &update->found);
    (void)unused;
    if (status < 0 || update->from == NULL) {
        return status < 0 ? status : add_all(root, update->tally);
    }
    if (!same_position(update->found, *update->from)) {
        return TOSC_OK; /* nothing was changed: no commit */
    }
    status = add_all(root, update->tally);
    if (status >= 0) {
        status = tosc_set_int64(root, tosc_path("position/inode"), update->to.inode);
    }
    if (status >= 0) {
        status = tosc_set_int64(root, tosc_path("position/offset"), update->to.offset);
    }
    return status;
}

int
publish_tally(const Tally *tally, Position *published, Position at)
{
    Update update = {.tally = tally, .from = published, .to = at};
    int status = tosc_transact(manager, update_store, &update, NULL);
    if (status < 0 || published == NULL) {
        return status;
    }
    if (!same_position(update.found, *published)) {
        *published = update.found;
        return PUBLISH_OVERTAKEN;
    }
    *published = at;
    return 0;
}

/* ---- start and stop ---- */

static int
prepare(tosc_manager *unused, tosc_value *root, void *arg)
{
    (void)unused;
    return tosc_set_text(root, tosc_key("log"), arg, TOSC_TEXT_END);
}

int
publish_open(const char *uri, const char *log, Position *ret)
{
    tosc_value *first = NULL;
    tosc_value *root = NULL;
    int status = tosc_host_start(NULL);
    if (status == TOSC_OK) {
        status = tosc_manager_open(uri, NULL, &manager);
    }
    if (status == TOSC_OK) {
        status = tosc_value_new_json(first_contents, TOSC_TEXT_END, &first);
    }
    if (status == TOSC_OK) {
        status = tosc_manager_try_write(manager, first, NULL);
    }
    if (status >= 0) {
        status = tosc_transact(manager, prepare, (void *)log, NULL);
    }
    if (status >= 0) {
        status = tosc_manager_read(manager, &root);
    }
    if (status >= 0) {
        status = get_position(root, ret);
    }
    tosc_value_unref(root);
    tosc_value_unref(first);
    return status;
}

void
publish_close(void)
{
    tosc_manager_unref(manager);
    tosc_host_stop();
}
