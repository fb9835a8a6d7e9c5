/*
 * tosc-check-backend: what a store does when only one uses it: read, write, try_write,
 * versions, sizes, outputs.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cli/check_backend.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
table_is_complete(tosc_backend *b)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(b);
    unsigned have = ops_of(b);

    for (int i = 0; i < OPS_COUNT; i++) {
        expect((have & 1U << i) != 0 || (OPS_REQUIRED & 1U << i) == 0,
               "the required operation %s is missing", op_names[i]);
    }
    expect(ops->name != NULL && ops->name[0] != '\0', "the table has no name");
    expect(ops->size == sizeof(*ops),
           "the table's size is %zu, expected sizeof(struct tosc_backend_ops), %zu",
           ops->size, sizeof(*ops));
    expect(((have & OP_LOCK) == 0) == ((have & OP_UNLOCK) == 0),
           "of lock and unlock the table has only one");
    expect((have & OP_COMPACT) == 0 || (have & OP_APPEND) != 0,
           "the table has compact, but no append whose tail it could shorten");
}

static void
new_store_holds_nothing(tosc_backend *b)
{
    static const tosc_position nothing;
    tosc_data data;

    for (int i = 0; i < 2; i++) {
        memset(&data, 0x5a, sizeof(data));
        expect_ok(do_read(b, &data), "read of a new store");
        expect(!data.at.stored,
               "expected that a new store holds nothing, got version %lld (is it new? "
               "\"{}\" in the URI has to name a store of its own)",
               (long long)data.at.version);
        expect(same_position(&data.at, &nothing) && data.at.cookie[0] == 0
                   && data.at.cookie[1] == 0,
               "expected a position of zeros where nothing is stored");
        expect(data.bytes == NULL, "expected no bytes (NULL) where nothing is stored");
        expect(data.whole, "expected `whole` to be true of a read");
    }
}

static void
what_was_written_is_read(tosc_backend *b)
{
    tosc_position at;
    tosc_data data;

    expect_ok(do_write(b, "first", &at), "write");
    expect_holds(b, "first", &at, "after a write");
    expect_ok(do_write(b, "2", &at), "write");
    expect_holds(b, "2", &at, "after another write");
    expect_ok(do_read(b, &data), "read");
    expect(data.whole, "expected `whole` to be true of a read");
    tosc_blob_unref(data.bytes);
    expect_ok(do_try_write(b, "the third", 9, &at), "try_write at the newest version");
    expect_holds(b, "the third", &at, "after a try_write");
}

static void
another_object_finds_it(tosc_backend *b)
{
    tosc_backend *other = open_another();
    tosc_position at;

    expect_holds(other, "", NULL, "by another object before the first write");
    expect_ok(do_write(b, "shared", &at), "write");
    expect_holds(other, "shared", &at, "by another object");
    expect_ok(do_try_write(other, "back", 4, &at), "try_write by another object");
    expect_holds(b, "back", &at, "after another object's try_write");
    tosc_backend_unref(other);
    other = open_another();
    expect_holds(other, "back", &at, "by a third object");
    tosc_backend_unref(other);
}

static void
write_in_process(struct worker *worker)
{
    tosc_position *at = shared();

    expect_holds(worker->b, "here", at, "by another process");
    expect_ok(do_try_write(worker->b, "there", 5, at), "try_write by another process");
}

static void
another_process_finds_it(tosc_backend *b)
{
    tosc_position *at = shared();

    expect_ok(do_write(b, "here", at), "write");
    worker_start(0);
    workers_join();
    expect_holds(b, "there", at, "after another process's try_write");
}

static void
rises(int64_t *before, const tosc_position *at, const char *what)
{
    expect(at->stored, "%s: expected `stored` to be true afterwards", what);
    expect(at->version > *before, "%s: expected a version greater than %lld, got %lld",
           what, (long long)*before, (long long)at->version);
    *before = at->version;
}

static void
versions_rise(tosc_backend *b)
{
    int64_t version = INT64_MIN;
    tosc_position at = {.stored = false};

    for (int i = 0; i < 5; i++) {
        expect_ok(do_try_write(b, "x", 1, &at), "try_write");
        rises(&version, &at, "try_write");
        expect_ok(do_write(b, "x", &at), "write of the same bytes");
        rises(&version, &at, "write of the same bytes");
        expect_ok(do_write(b, "y", &at), "write");
        rises(&version, &at, "write");
        expect_holds(b, "y", &at, "after a write");
    }
}

static void
store_keeps_its_id(tosc_backend *b)
{
    tosc_position first;
    tosc_position at;
    tosc_data data;

    expect_ok(do_write(b, "one", &first), "write");
    if (!has_id(&first)) {
        skip("the backend gives its stores no id");
    }
    for (int i = 0; i < 3; i++) {
        expect_ok(do_write(b, "two", &at), "write");
        expect(memcmp(first.store_id, at.store_id, sizeof(at.store_id)) == 0,
               "expected that a write leaves the store's id as it is");
    }
    at = position_now(b);
    expect(memcmp(first.store_id, at.store_id, sizeof(at.store_id)) == 0,
           "expected that read tells the same store id as write");
    if ((ops_of(b) & OP_APPEND) != 0) {
        expect_ok(do_append_text(b, "+", &at), "append");
        expect(memcmp(first.store_id, at.store_id, sizeof(at.store_id)) == 0,
               "expected that an append leaves the store's id as it is");
    }
    if ((ops_of(b) & OP_COMPACT) != 0) {
        expect_ok(do_compact(b, "two+", 4, &at, &data), "compact");
        expect(memcmp(first.store_id, data.at.store_id, sizeof(at.store_id)) == 0,
               "expected that a compaction leaves the store's id as it is");
    }
}

/* Without touching anything: try_write with just these expectations. */
static int
try_with(tosc_backend *b, const int64_t *version, const uint8_t *id, tosc_position *ret)
{
    return begin(b, OP_TRY_WRITE)
        ->try_write(tosc_backend_impl(b), NULL, "lost", 4, version, id, ret);
}

static void
try_write_needs_the_version(tosc_backend *b)
{
    tosc_position at = {.stored = false};
    tosc_position ignored;
    int64_t version = 0;
    int64_t old;

    expect_status(TOSC_ECONFLICT, try_with(b, &version, NULL, &ignored),
                  "try_write that expects version 0 of a store with nothing in it");
    version = 1;
    expect_status(TOSC_ECONFLICT, try_with(b, &version, NULL, &ignored),
                  "try_write that expects version 1 of a store with nothing in it");
    expect_holds(b, "", NULL, "after these conflicts");
    expect_ok(do_try_write(b, "a", 1, &at), "try_write that expects nothing stored");
    expect_holds(b, "a", &at, "after the first try_write");
    expect_status(TOSC_ECONFLICT, try_with(b, NULL, NULL, &ignored),
                  "try_write that expects nothing stored where something is");
    old = at.version;
    expect_ok(do_try_write(b, "b", 1, &at), "try_write at the newest version");
    expect_status(TOSC_ECONFLICT, try_with(b, &old, NULL, &ignored),
                  "try_write that expects an old version");
    version = at.version + 1;
    expect_status(TOSC_ECONFLICT, try_with(b, &version, NULL, &ignored),
                  "try_write that expects a version that is not there yet");
    version = at.version ^ INT64_C(1) << 40;
    expect_status(TOSC_ECONFLICT, try_with(b, &version, NULL, &ignored),
                  "try_write that expects a version that differs in one high bit");
    expect_holds(b, "b", &at, "after conflicts");
    expect_ok(try_with(b, &at.version, NULL, &ignored),
              "try_write with a version and no id");
}

static void
try_write_needs_the_id(tosc_backend *b)
{
    tosc_position at;
    tosc_position ignored;
    uint8_t other[16];

    expect_ok(do_write(b, "a", &at), "write");
    if (!has_id(&at)) {
        skip("the backend gives its stores no id");
    }
    memcpy(other, at.store_id, sizeof(other));
    other[7] ^= 0x10;
    expect_status(TOSC_ECONFLICT, try_with(b, &at.version, other, &ignored),
                  "try_write that expects this version of another store");
    expect_holds(b, "a", &at, "after a conflict");
    expect_ok(do_try_write(b, "b", 1, &at), "try_write with the store's own id");
}

/* ---- bytes ---- */

static void
fill(unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(i % 251 == 0 ? 0 : random_number() >> 13);
    }
}

static void
bytes_come_back(tosc_backend *b)
{
    static const size_t sizes[] = {0,     1,     7,       255,      256,  511,
                                   512,   513,   4095,    4096,     4097, 65535,
                                   65536, 65537, 1 << 20, 10 << 20, 1};
    unsigned char *bytes = malloc(10 << 20);
    char where[64];
    tosc_position at = {.stored = false};
    tosc_data data;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        fill(bytes, sizes[i]);
        snprintf(where, sizeof(where), "of %zu bytes", sizes[i]);
        if (i % 2 == 0) {
            expect_ok(do_write_bytes(b, bytes, sizes[i], &at), "write %s", where);
        } else {
            expect_ok(do_try_write(b, bytes, sizes[i], &at), "try_write %s", where);
        }
        expect_ok(do_read(b, &data), "read %s", where);
        expect(data.at.stored, "read %s: expected `stored` to be true", where);
        expect_bytes(&data, bytes, sizes[i], where);
        tosc_blob_unref(data.bytes);
    }
    free(bytes);
}

/* What was read must not change under its reader. */
static void
bytes_stay_as_they_were_read(tosc_backend *b)
{
    tosc_position at;
    tosc_data data;
    tosc_data other;

    expect_ok(do_write(b, "as it was", &at), "write");
    expect_ok(do_read(b, &data), "read");
    expect_ok(do_read(b, &other), "read");
    expect_ok(do_write(b, "different", &at), "write");
    tosc_blob_unref(other.bytes);
    if ((ops_of(b) & OP_APPEND) != 0) {
        expect_ok(do_append_text(b, "+", &at), "append");
    }
    expect_bytes(&data, "as it was", 9, "bytes that were read before a write");
    tosc_blob_unref(data.bytes);
}

/* ---- outputs ---- */

#define GARBAGE 0x5a

/* After a call that failed: `bytes` must be garbage still. */
static void
expect_untouched(const void *bytes, size_t size, const char *what)
{
    for (size_t i = 0; i < size; i++) {
        expect(((const unsigned char *)bytes)[i] == GARBAGE,
               "%s failed, as it should, but changed its output (byte %zu of %zu)", what,
               i, size);
    }
}

static void
failed_append_and_compact(tosc_backend *b, const tosc_position *wrong, tosc_data *data)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(b);
    const tosc_commit_id id = {{1, 2, 3}};

    if (ops->append != NULL) {
        memset(data, GARBAGE, sizeof(*data));
        expect_status(TOSC_ECONFLICT,
                      begin(b, OP_APPEND)
                          ->append(tosc_backend_impl(b), NULL, "x", 1, &id, wrong, data),
                      "append at a wrong version");
        expect_untouched(data, sizeof(*data), "append");
    }
    if (ops->compact != NULL) {
        memset(data, GARBAGE, sizeof(*data));
        expect_status(TOSC_ECONFLICT,
                      begin(b, OP_COMPACT)
                          ->compact(tosc_backend_impl(b), NULL, "x", 1, wrong, data),
                      "compact of a wrong version");
        expect_untouched(data, sizeof(*data), "compact");
    }
}

static void
failures_leave_outputs_untouched(tosc_backend *b)
{
    tosc_position at;
    tosc_position wrong;
    tosc_data data;

    expect_ok(do_write(b, "a", &at), "write");
    wrong = at;
    wrong.version += 7;
    wrong.cookie[0] ^= 1;
    memset(&at, GARBAGE, sizeof(at));
    expect_status(TOSC_ECONFLICT, try_with(b, &wrong.version, NULL, &at),
                  "try_write at a wrong version");
    expect_untouched(&at, sizeof(at), "try_write");
    failed_append_and_compact(b, &wrong, &data);
    if (subject_wait_heeds_event(b)) {
        tosc_event *stop = tosc_event_new();
        const tosc_position now = position_now(b);
        int status = 0;
        bool changed = false;

        tosc_event_set(stop);
        for (int i = 0; i < 5 && status == 0; i++) { /* it may say "changed" first */
            memset(&changed, 1, sizeof(changed));
            status = do_wait(b, &now, 1000, stop, &changed);
        }
        expect_status(TOSC_EINTR, status, "wait with an event that is set");
        expect(changed, "wait failed, as it should, but changed its output");
        tosc_event_free(stop);
    }
}

/* ---- life ---- */

static int
count_descriptors(void)
{
    DIR *descriptors = opendir("/proc/self/fd");
    int count = 0;

    while (descriptors != NULL && readdir(descriptors) != NULL) {
        count++;
    }
    if (descriptors != NULL) {
        closedir(descriptors);
    }
    return count;
}

static void
use_shortly(void)
{
    tosc_backend *b = open_another();
    tosc_position at = position_now(b);
    bool changed;

    expect_ok(do_try_write(b, "x", 1, &at), "try_write by a new object");
    expect_ok(do_wait(b, &at, 0, NULL, &changed), "wait of a new object");
    tosc_backend_unref(b);
}

static void
objects_leave_nothing_open(tosc_backend *b)
{
    int before;

    (void)b;
    for (int i = 0; i < 3; i++) {
        use_shortly();
    }
    before = count_descriptors();
    for (int i = 0; i < 20; i++) {
        use_shortly();
    }
    expect(count_descriptors() <= before + 2,
           "expected that an object that has ended leaves no descriptor open; 20 left %d",
           count_descriptors() - before);
}

const struct test store_tests[] = {
    {"table", "the table has all required operations", table_is_complete, 0, ALONE, NULL},
    {"store.empty", "a new store holds nothing", new_store_holds_nothing, 0, ALONE, NULL},
    {"store.reads", "what was written is read", what_was_written_is_read, 0, ALONE, NULL},
    {"store.objects", "another backend object finds the same store",
     another_object_finds_it, 0, OBJECTS, NULL},
    {"store.processes", "another process finds the same store", another_process_finds_it,
     0, PROCESSES, write_in_process},
    {"version.rises", "each change gives a greater version, which read tells",
     versions_rise, 0, ALONE, NULL},
    {"version.id", "a store keeps its id", store_keeps_its_id, 0, ALONE, NULL},
    {"try_write.version", "try_write stores only at the expected version",
     try_write_needs_the_version, 0, ALONE, NULL},
    {"try_write.id", "try_write stores only in the expected store",
     try_write_needs_the_id, 0, ALONE, NULL},
    {"bytes.exact", "bytes come back as they were, from none to 10 MiB", bytes_come_back,
     0, ALONE, NULL},
    {"bytes.stay", "what was read does not change any more", bytes_stay_as_they_were_read,
     0, ALONE, NULL},
    {"outputs.untouched", "an operation that fails leaves its outputs as they were",
     failures_leave_outputs_untouched, 0, ALONE, NULL},
    {"objects.end", "an object that ends leaves nothing open", objects_leave_nothing_open,
     0, OBJECTS, NULL},
    {NULL, NULL, NULL, 0, ALONE, NULL},
};
