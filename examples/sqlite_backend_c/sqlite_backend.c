/*
 * A backend written in C, outside the library: a store is a row of an SQLite database.
 *
 *     cc -shared -fPIC -o sqlite_backend.so sqlite_backend.c \
 *         $(pkg-config --cflags --libs tosc sqlite3)
 *     tosc-check-backend --plugin ./sqlite_backend.so 'sqlite:/tmp/check-{}.db'
 *
 * A program calls tosc_backend_load_plugin("./sqlite_backend.so"), or is linked with this
 * file and calls tosc_backend_plugin(); then tosc_backend_open("sqlite:/tmp/my.db", &b).
 *
 * These four operations are all that a Manager needs. Each is one statement, which SQLite
 * makes atomic and durable. Every commit writes all of the store, though; with append(),
 * read_since() and compact() it would cost what was changed. A connection does not survive
 * fork(): a child has to open a backend of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>
#include <tosc/backend.h>

#define PAUSE_MS 5 /* between looks for changes, of which SQLite tells nobody */
#define SETUP \
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS" \
    " store (one INTEGER PRIMARY KEY, version INTEGER NOT NULL, data BLOB NOT NULL)"
#define LOOK "SELECT version, NULL FROM store"
#define READ "SELECT version, data FROM store"
#define INSERT "INSERT INTO store VALUES (1, 1, ?1) ON CONFLICT DO "
#define RESULT " RETURNING version, NULL"
#define WRITE INSERT "UPDATE SET version = version + 1, data = ?1" RESULT
#define FIRST INSERT "NOTHING" RESULT
#define NEXT "UPDATE store SET version = version + 1, data = ?1 WHERE version = ?2" RESULT

struct store {
    pthread_mutex_t mutex; /* one statement at a time, as they share one transaction */
    sqlite3 *db;
};

static int
failed(sqlite3 *db)
{
    return tosc_backend_fail(TOSC_ESYSTEM, "SQLite: %s", sqlite3_errmsg(db));
}

/* Runs a statement, which gives one row or none: ret->at.stored says which. */
static int
run(struct store *store, const char *sql, const void *bytes, size_t size, int64_t version,
    tosc_data *ret)
{
    sqlite3_stmt *row = NULL;
    tosc_data data = {.whole = true};
    int code;
    int status;

    pthread_mutex_lock(&store->mutex);
    code = sqlite3_prepare_v2(store->db, sql, -1, &row, NULL);
    sqlite3_bind_blob64(row, 1, size > 0 ? bytes : "", size, SQLITE_STATIC);
    sqlite3_bind_int64(row, 2, version);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(row);
        if (code == SQLITE_ROW) {
            data.at = (tosc_position){true, sqlite3_column_int64(row, 0), {0}, {0}};
            data.base_bytes = (uint64_t)sqlite3_column_bytes(row, 1);
            data.bytes = tosc_blob_new(data.base_bytes);
            if (data.base_bytes > 0 && data.bytes != NULL) {
                memcpy(data.bytes->data, sqlite3_column_blob(row, 1), data.base_bytes);
            }
        }
    }
    status = code == SQLITE_DONE ? 0 : failed(store->db);
    sqlite3_finalize(row);
    pthread_mutex_unlock(&store->mutex);
    if (status != 0 || (data.at.stored && data.bytes == NULL)) {
        tosc_blob_unref(data.bytes);
        return status != 0 ? status : TOSC_ENOMEM;
    }
    *ret = data;
    return 0;
}

static int
sq_read(void *impl, tosc_data *ret)
{
    return run(impl, READ, NULL, 0, 0, ret);
}

static int
change(void *impl, const char *sql, const void *data, size_t size, int64_t version,
       tosc_position *ret)
{
    tosc_data result;
    int status = run(impl, sql, data, size, version, &result);

    if (status != 0 || !result.at.stored) {
        return status != 0 ? status : TOSC_ECONFLICT;
    }
    tosc_blob_unref(result.bytes);
    *ret = result.at;
    return 0;
}

static int
sq_write(void *impl, const void *holder, const void *data, size_t size, tosc_position *at)
{
    (void)holder;
    return change(impl, WRITE, data, size, 0, at);
}

static int
sq_try_write(void *impl, const void *holder, const void *data, size_t size,
             const int64_t *expected, const uint8_t *expected_id, tosc_position *ret)
{
    (void)holder;
    (void)expected_id; /* our positions have none */
    return change(impl, expected == NULL ? FIRST : NEXT, data, size,
                  expected == NULL ? 0 : *expected, ret);
}

static int
sq_wait(void *impl, const tosc_position *known, int64_t timeout_ms,
        const tosc_event *stop, bool *ret_changed)
{
    struct pollfd event = {stop != NULL ? tosc_event_fd(stop) : -1, POLLIN, 0};

    for (int64_t waited_ms = 0;; waited_ms += PAUSE_MS) {
        tosc_data now;
        int status = run(impl, LOOK, NULL, 0, 0, &now);

        if (status != 0) {
            return status;
        }
        tosc_blob_unref(now.bytes);
        if (now.at.version != known->version
            || (timeout_ms >= 0 && waited_ms >= timeout_ms)) {
            *ret_changed = now.at.version != known->version;
            return 0;
        }
        if (poll(&event, 1, PAUSE_MS) != 0) {
            return TOSC_EINTR; /* the event, or a signal */
        }
    }
}

static void
sq_destroy(void *impl)
{
    struct store *store = impl;

    sqlite3_close(store->db);
    pthread_mutex_destroy(&store->mutex);
    free(store);
}

static const struct tosc_backend_ops sqlite_ops = {
    .size = sizeof(sqlite_ops),
    .name = "sqlite",
    .destroy = sq_destroy,
    .read = sq_read,
    .write = sq_write,
    .try_write = sq_try_write,
    .wait = sq_wait,
};

static int
open_sqlite(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    int code = tosc_uri_check(uri);
    struct store *store = code == 0 ? calloc(1, sizeof(*store)) : NULL;

    (void)arg;
    if (store == NULL) {
        return code != 0 ? code : TOSC_ENOMEM;
    }
    pthread_mutex_init(&store->mutex, NULL);
    code = sqlite3_open(tosc_uri_path(uri), &store->db);
    sqlite3_busy_timeout(store->db, 60000);
    if (code == SQLITE_OK) {
        do { /* busy: another is switching to the write-ahead log as well */
            code = sqlite3_exec(store->db, SETUP, NULL, NULL, NULL);
        } while (code == SQLITE_BUSY);
    }
    code = code == SQLITE_OK ? 0 : failed(store->db);
    *ret = code == 0 ? tosc_backend_new(&sqlite_ops, store) : NULL;
    if (*ret == NULL) {
        sq_destroy(store);
    }
    return *ret == NULL && code == 0 ? TOSC_ENOMEM : code;
}

int
tosc_backend_plugin(void)
{
    return tosc_backend_register("sqlite", open_sqlite, NULL);
}
