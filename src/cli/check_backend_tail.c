/*
 * tosc-check-backend: the optional operations that make commits cheap: append,
 * read_since, changed, compact.
 *
 * Where several are at work, what is stored is an unbroken run of entries with rising
 * numbers, each made from the one before. A replacement or a compaction keeps only the
 * newest. So whatever was lost, stored twice, torn or put behind the wrong one shows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cli/check_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
expect_news(const tosc_data *data, bool whole, const char *text, const char *what)
{
    expect(data->whole == whole, "%s: expected %s, got %s", what,
           whole ? "everything (`whole` true)" : "only what is new (`whole` false)",
           data->whole ? "everything" : "only what is new");
    if (text == NULL) {
        expect(data->bytes == NULL, "%s: expected no bytes (NULL), got %zu", what,
               data->bytes != NULL ? data->bytes->size : 0);
    } else {
        expect_bytes(data, text, strlen(text), what);
    }
    tosc_blob_unref(data->bytes);
}

/* ---- append ---- */

static void
append_adds(tosc_backend *b)
{
    tosc_position at;
    int64_t before;
    tosc_data data;

    expect_ok(do_write(b, "base", &at), "write");
    for (int i = 0; i < 3; i++) {
        before = at.version;
        expect_ok(do_append(b, "+", 1, &at, &data), "append at the newest version");
        expect(at.stored && at.version > before,
               "append: expected a version greater than %lld, got %lld",
               (long long)before, (long long)at.version);
        expect(!data.whole, "append: expected `whole` to be false in what it returns");
    }
    expect_holds(b, "base+++", &at, "after three appends");
    expect_ok(do_try_write(b, "new", 3, &at), "try_write after appends");
    expect_ok(do_append_text(b, "er", &at), "append after a try_write");
    expect_holds(b, "newer", &at, "after try_write and append");
    expect_ok(do_write(b, "", &at), "write of no bytes");
    expect_ok(do_append_text(b, "", &at), "append of no bytes");
    expect_ok(do_append_text(b, "x", &at), "append");
    expect_holds(b, "x", &at, "after an append of no bytes and one of a byte");
}

static void
append_to_nothing(tosc_backend *b)
{
    tosc_position at = {.stored = false};

    expect_ok(do_append_text(b, "first", &at), "append to a store with nothing in it");
    expect(at.stored, "append: expected `stored` to be true afterwards");
    expect_holds(b, "first", &at, "after an append to nothing");
    expect_ok(do_append_text(b, " second", &at), "append");
    expect_holds(b, "first second", &at, "after another append");
}

static void
append_fails_at(tosc_backend *b, tosc_position at, const char *what)
{
    const tosc_position wrong = at;

    expect_status(TOSC_ECONFLICT, do_append_text(b, "lost", &at), "%s", what);
    expect(memcmp(&wrong, &at, sizeof(at)) == 0, "%s: the position has changed", what);
}

static void
append_needs_the_position(tosc_backend *b)
{
    tosc_position nothing = {.stored = false};
    tosc_position old;
    tosc_position wrong;
    tosc_position at;

    expect_ok(do_write(b, "a", &old), "write");
    at = old;
    append_fails_at(b, nothing,
                    "append where nothing is expected and something is stored");
    expect_ok(do_append_text(b, "b", &at), "append");
    append_fails_at(b, old, "append at an old position");
    wrong = at;
    wrong.version++;
    append_fails_at(b, wrong, "append at a version that is not there yet");
    if (has_id(&at)) {
        wrong = at;
        wrong.store_id[3] ^= 1;
        append_fails_at(b, wrong, "append at this version of another store");
    }
    expect_holds(b, "ab", &at, "after conflicts");
    old = at;
    expect_ok(do_write(b, "c", &at), "write");
    append_fails_at(b, old, "append at a position from before a write");
    expect_ok(do_append_text(b, "d", &at), "append");
    expect_holds(b, "cd", &at, "after an append");
}

/* A cookie is a hint. */
static void
append_with_a_wrong_cookie(tosc_backend *b)
{
    tosc_position at;
    tosc_position odd;

    expect_ok(do_write(b, "a", &at), "write");
    for (int i = 0; i < 20; i++) {
        odd = at;
        odd.cookie[0] ^= i % 3 == 0 ? 0 : random_number();
        odd.cookie[1] = i % 2 == 0 ? random_number() : odd.cookie[1] + (uint64_t)i * 8;
        expect_ok(do_append_text(b, "b", &odd), "append with a wrong cookie");
        at = odd;
    }
    expect_holds(b, "abbbbbbbbbbbbbbbbbbbb", &at, "after appends with wrong cookies");
}

static void
append_takes_every_size(tosc_backend *b)
{
    /* Round the sizes of headers, blocks and pages. */
    static const size_t sizes[] = {1,      0,      7,      8,      9,       448,   455,
                                   456,    457,    511,    512,    513,     4030,  4032,
                                   4040,   4095,   4096,   4097,   65535,   65536, 65537,
                                   131000, 131072, 131073, 300000, 1 << 20, 3};
    size_t room = 4 << 20;
    unsigned char *all = malloc(room);
    size_t used = 0;
    tosc_position at = {.stored = false};
    tosc_data data;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        tosc_position before = at;

        for (size_t k = 0; k < sizes[i]; k++) {
            all[used + k] = (unsigned char)(i % 3 == 0 ? 0 : i * 31 + k * 7);
        }
        expect_ok(do_append(b, all + used, sizes[i], &at, NULL), "append of %zu bytes",
                  sizes[i]);
        if ((ops_of(b) & OP_READ_SINCE) != 0) {
            expect_ok(do_read_since(b, &before, &data), "read_since");
            if (!data.whole) {
                expect_bytes(&data, all + used, sizes[i], "bytes that were appended");
            }
            tosc_blob_unref(data.bytes);
        }
        used += sizes[i];
    }
    expect_ok(do_read(b, &data), "read");
    expect_bytes(&data, all, used, "bytes that were appended in several pieces");
    tosc_blob_unref(data.bytes);
    free(all);
}

static void
sizes_of_base_and_tail(tosc_backend *b)
{
    tosc_position at;
    tosc_data written;
    tosc_data data;

    expect_ok(do_write(b, "base of the store", &at), "write");
    expect_ok(do_read(b, &written), "read");
    tosc_blob_unref(written.bytes);
    expect(written.base_bytes >= 17 && written.tail_bytes == 0,
           "after a write of 17 bytes: expected base_bytes of 17 or a few more and "
           "tail_bytes of 0, got %llu and %llu",
           (unsigned long long)written.base_bytes,
           (unsigned long long)written.tail_bytes);
    for (int i = 1; i <= 5; i++) {
        expect_ok(do_append(b, "0123456789", 10, &at, &data), "append");
        expect(data.base_bytes == written.base_bytes
                   && data.tail_bytes >= (uint64_t)i * 10,
               "after appends of %d bytes: expected base_bytes of %llu still and "
               "tail_bytes of %d or more, got %llu and %llu",
               i * 10, (unsigned long long)written.base_bytes, i * 10,
               (unsigned long long)data.base_bytes, (unsigned long long)data.tail_bytes);
    }
    expect_ok(do_read(b, &written), "read");
    tosc_blob_unref(written.bytes);
    expect(data.base_bytes == written.base_bytes && data.tail_bytes == written.tail_bytes,
           "expected that read and append tell the same base_bytes and tail_bytes");
}

/* ---- read_since ---- */

static void
read_since_gives_the_news(tosc_backend *b)
{
    const tosc_position nothing = {.stored = false};
    tosc_position start;
    tosc_position at;
    tosc_data data;

    expect_ok(do_read_since(b, &nothing, &data), "read_since of a new store");
    expect(!data.at.stored && data.bytes == NULL,
           "read_since of a new store: expected nothing");
    expect_ok(do_write(b, "base", &start), "write");
    expect_ok(do_read_since(b, &nothing, &data), "read_since nothing");
    expect(same_position(&start, &data.at), "read_since: expected the newest position");
    expect_news(&data, true, "base", "read_since nothing");
    at = start;
    expect_ok(do_append_text(b, "-a", &at), "append");
    expect_ok(do_append_text(b, "-b", &at), "append");
    expect_ok(do_read_since(b, &start, &data), "read_since the base");
    expect(same_position(&at, &data.at), "read_since: expected the newest position");
    expect_news(&data, false, "-a-b", "read_since the base");
    expect_ok(do_read_since(b, &data.at, &data), "read_since the newest position");
    expect(same_position(&at, &data.at),
           "read_since the newest position: expected the same position");
    expect_news(&data, false, NULL, "read_since the newest position");
    expect_ok(do_read_since(b, &nothing, &data), "read_since nothing");
    expect_news(&data, true, "base-a-b", "read_since nothing");
}

static void
read_since_with_a_wrong_cookie(tosc_backend *b)
{
    tosc_position middle;
    tosc_position at;
    tosc_data data;

    expect_ok(do_write(b, "base", &middle), "write");
    expect_ok(do_append_text(b, "-a", &middle), "append");
    at = middle;
    expect_ok(do_append_text(b, "-b", &at), "append");
    for (int i = 0; i < 50; i++) {
        tosc_position known = i % 2 == 0 ? middle : at;

        known.cookie[1] = i < 25 ? known.cookie[1] + (uint64_t)i * 8 : random_number();
        known.cookie[0] ^= i % 3 == 0;
        expect_ok(do_read_since(b, &known, &data), "read_since with a wrong cookie");
        if (data.whole) {
            expect_news(&data, true, "base-a-b", "read_since with a wrong cookie");
        } else {
            expect_news(&data, false, i % 2 == 0 ? "-b" : NULL,
                        "read_since with a wrong cookie");
        }
    }
}

static void
read_since_what_is_gone(tosc_backend *b)
{
    tosc_position old;
    tosc_position at;
    tosc_position other;
    tosc_data data;

    expect_ok(do_write(b, "old", &old), "write");
    expect_ok(do_append_text(b, "+", &old), "append");
    expect_ok(do_write(b, "new", &at), "write");
    expect_ok(do_append_text(b, "er", &at), "append");
    expect_ok(do_read_since(b, &old, &data), "read_since a base that was replaced");
    expect_news(&data, true, "newer", "read_since a base that was replaced");
    other = at;
    other.version += 1000;
    expect_ok(do_read_since(b, &other, &data), "read_since a version that never was");
    expect_news(&data, true, "newer", "read_since a version that never was");
    if (has_id(&at)) {
        other = at;
        other.store_id[0] ^= 1;
        expect_ok(do_read_since(b, &other, &data), "read_since another store");
        expect_news(&data, true, "newer", "read_since another store");
    }
}

/* ---- changed ---- */

static void
changed_is(tosc_backend *b, int expected, const tosc_position *known, const char *what)
{
    int answer = do_changed(b, known);

    if (answer == TOSC_EUNSUPPORTED) {
        skip("changed says that it cannot tell (TOSC_EUNSUPPORTED)");
    }
    expect(answer == expected, "changed, %s: expected %d, got %d", what, expected,
           answer);
}

static void
changed_tells(tosc_backend *b)
{
    static const tosc_position nothing;
    tosc_position old;
    tosc_position at;

    changed_is(b, 0, &nothing, "of a new store that is known to be one");
    expect_ok(do_write(b, "a", &at), "write");
    changed_is(b, 0, &at, "after a write");
    changed_is(b, 1, &nothing, "after the first write");
    for (int i = 0; i < 5; i++) {
        old = at;
        expect_ok(do_try_write(b, "b", 1, &at), "try_write");
        changed_is(b, 1, &old, "of an old position");
        changed_is(b, 0, &at, "of the newest position");
    }
    if (has_id(&at)) {
        at.store_id[5] ^= 1;
        changed_is(b, 1, &at, "of this version of another store");
    }
}

/* As soon as the change of somebody else has returned. */
static void
changed_tells_of_others(tosc_backend *b)
{
    tosc_backend *other = open_another();
    tosc_position at;

    expect_ok(do_write(b, "a", &at), "write");
    for (int i = 0; i < 20; i++) {
        tosc_position known = at;

        changed_is(b, 0, &known, "of the newest position");
        expect_ok(do_try_write(other, "b", 1, &at), "try_write through another object");
        changed_is(b, 1, &known, "after a change through another object");
        changed_is(other, 0, &at, "through the object that made the change");
    }
    tosc_backend_unref(other);
}

/* ---- compact ---- */

static void
compact_keeps_what_came_after(tosc_backend *b)
{
    tosc_position before;
    tosc_position of;
    tosc_position at;
    tosc_data data;

    expect_ok(do_write(b, "a", &before), "write");
    at = before;
    expect_ok(do_append_text(b, "b", &at), "append");
    of = at;
    expect_ok(do_append_text(b, "c", &at), "append");
    expect_ok(do_append_text(b, "d", &at), "append");
    expect_ok(do_compact(b, "AB", 2, &of, &data), "compact of an earlier position");
    expect(same_position(&at, &data.at),
           "compact: expected that version %lld stays, got %lld", (long long)at.version,
           (long long)data.at.version);
    expect_holds(b, "ABcd", &at, "after compact");
    if ((ops_of(b) & OP_READ_SINCE) != 0) {
        expect_ok(do_read_since(b, &of, &data), "read_since where the new base ends");
        if (data.whole) {
            expect_news(&data, true, "ABcd", "read_since where the new base ends");
        } else {
            expect_news(&data, false, "cd", "read_since where the new base ends");
        }
        expect_ok(do_read_since(b, &before, &data), "read_since before the new base");
        expect_news(&data, true, "ABcd", "read_since before the new base");
        expect_ok(do_read_since(b, &at, &data), "read_since the newest position");
        if (!data.whole) {
            expect_news(&data, false, NULL, "read_since the newest position");
        } else {
            expect_news(&data, true, "ABcd", "read_since the newest position");
        }
    }
    if ((ops_of(b) & OP_CHANGED) != 0) {
        expect(do_changed(b, &at) != 1, "changed, after compact: expected no, got 1");
    }
    expect_ok(do_append_text(b, "e", &at), "append at the position from before compact");
    expect_holds(b, "ABcde", &at, "after compact and append");
}

static void
compact_of_everything(tosc_backend *b)
{
    tosc_position at;
    tosc_data data;

    expect_ok(do_write(b, "a", &at), "write");
    for (int i = 0; i < 50; i++) {
        expect_ok(do_append_text(b, "b", &at), "append");
    }
    expect_ok(do_compact(b, "short", 5, &at, &data), "compact of the newest position");
    expect(data.tail_bytes == 0,
           "compact of everything: expected tail_bytes of 0, got "
           "%llu",
           (unsigned long long)data.tail_bytes);
    expect_holds(b, "short", &at, "after compact of everything");
    expect_ok(do_read(b, &data), "read");
    tosc_blob_unref(data.bytes);
    expect(data.tail_bytes == 0 && data.base_bytes < 50,
           "read after compact: expected base_bytes of 5 or a few more and tail_bytes of "
           "0, got %llu and %llu",
           (unsigned long long)data.base_bytes, (unsigned long long)data.tail_bytes);
}

static void
compact_fails_of(tosc_backend *b, const tosc_position *of, const char *what)
{
    tosc_data data;

    expect_status(TOSC_ECONFLICT, do_compact(b, "lost", 4, of, &data), "%s", what);
}

static void
compact_needs_its_base(tosc_backend *b)
{
    const tosc_position nothing = {.stored = false};
    tosc_position old;
    tosc_position at;
    tosc_data data;

    compact_fails_of(b, &nothing, "compact of a store with nothing in it");
    expect_ok(do_write(b, "a", &old), "write");
    expect_ok(do_write(b, "b", &at), "write");
    compact_fails_of(b, &old, "compact of a base that was replaced");
    expect_ok(do_append_text(b, "c", &at), "append");
    expect_ok(do_compact(b, "BC", 2, &at, &data), "compact");
    old = at;
    at = data.at;
    expect_ok(do_append_text(b, "d", &at), "append");
    expect_ok(do_compact(b, "BCD", 3, &at, &data), "compact");
    at = data.at;
    compact_fails_of(b, &old, "compact of a base that was compacted");
    if (has_id(&at)) {
        old = at;
        old.store_id[0] ^= 1;
        compact_fails_of(b, &old, "compact of another store");
    }
    expect_holds(b, "BCD", &at, "after conflicts");
}

/* ---- several at a time: the chain ---- */

enum { APPENDER, CHANGER, READER }; /* roles */

struct entry {
    uint64_t number;
    uint64_t tag; /* random: who finds its own has written it */
    uint32_t size;
    uint32_t check;
};

#define ENTRY_MAX 6000
#define CHANGES_MAX 20000 /* of one worker */
#define CHANGERS 2

struct chain {
    int stop;                   /* atomic */
    int reading;                /* atomic */
    int ended;                  /* atomic: changers */
    uint64_t done[WORKERS_MAX]; /* acknowledged changes of each */
    uint64_t compactions[WORKERS_MAX];
};

static uint32_t
entry_check(const struct entry *entry)
{
    return (uint32_t)(entry->number * 2654435761U ^ entry->tag ^ entry->size);
}

static size_t
entry_put(unsigned char *to, uint64_t number)
{
    struct entry entry = {.number = number, .tag = random_number()};

    entry.size = (uint32_t)(sizeof(entry) + (number % 50 == 0 ? 5000 : number % 7 * 40));
    entry.check = entry_check(&entry);
    memcpy(to, &entry, sizeof(entry));
    memset(to + sizeof(entry), (int)(number & 0xff), entry.size - sizeof(entry));
    return entry.size;
}

/* Checks a run of entries that begins with `first` (0: any); the number of its last. */
static uint64_t
entries_check(const tosc_blob *bytes, uint64_t first)
{
    size_t at = 0;
    size_t size = bytes != NULL ? bytes->size : 0;
    struct entry entry = {.number = first - 1};

    while (at < size) {
        uint64_t expected = at == 0 && first == 0 ? 0 : entry.number + 1;

        expect(size - at >= sizeof(entry), "the last entry of what is stored is torn");
        memcpy(&entry, bytes->data + at, sizeof(entry));
        expect(entry.check == entry_check(&entry) && size - at >= entry.size,
               "what is stored holds an entry that nobody wrote, or a torn one, at byte "
               "%zu of %zu",
               at, size);
        expect(expected == 0 || entry.number == expected,
               "after entry %llu comes %llu: one was lost, stored twice, or put behind a "
               "version that it was not made for",
               (unsigned long long)expected - 1, (unsigned long long)entry.number);
        for (size_t i = sizeof(entry); i < entry.size; i++) {
            expect(bytes->data[at + i] == (entry.number & 0xff),
                   "entry %llu is a mixture", (unsigned long long)entry.number);
        }
        at += entry.size;
    }
    return entry.number;
}

/* Where somebody is: a position, and the number of the last entry there. */
struct reader {
    tosc_position at;
    uint64_t last;
};

/* Reads what is new, if the backend can tell, else everything. */
static void
follow(tosc_backend *b, struct reader *reader)
{
    bool since = (ops_of(b) & OP_READ_SINCE) != 0 && random_number() % 16 != 0;
    tosc_data data;

    if (since) {
        expect_ok(do_read_since(b, &reader->at, &data), "read_since beside appends");
    } else {
        expect_ok(do_read(b, &data), "read beside appends");
    }
    expect(data.at.version >= reader->at.version,
           "after version %lld read_since or read gave the older %lld",
           (long long)reader->at.version, (long long)data.at.version);
    if (data.whole || data.bytes != NULL) {
        uint64_t last = entries_check(data.bytes, data.whole ? 0 : reader->last + 1);

        expect(!data.at.stored || last >= reader->last,
               "after entry %llu the newest that was read is %llu",
               (unsigned long long)reader->last, (unsigned long long)last);
        reader->last = data.at.stored ? last : 0;
    } else {
        expect(data.at.version == reader->at.version,
               "read_since gave no bytes but another version");
    }
    reader->at = data.at;
    tosc_blob_unref(data.bytes);
}

static void
compact_to_last(tosc_backend *b, struct reader *reader, uint64_t *count)
{
    static __thread unsigned char bytes[ENTRY_MAX];
    size_t size = entry_put(bytes, reader->last);
    tosc_data data;
    int status = do_compact(b, bytes, size, &reader->at, &data);

    if (status == 0) {
        expect(data.at.version >= reader->at.version,
               "compact returned an older version");
        ++*count;
    } else {
        expect_status(TOSC_ECONFLICT, status, "compact beside appends");
    }
}

/* One change, of which the appender's are all appends. */
static void
change_once(tosc_backend *b, struct reader *reader, int role, struct chain *chain,
            int index)
{
    static __thread unsigned char bytes[ENTRY_MAX];
    size_t size = entry_put(bytes, reader->last + 1);
    uint64_t dice = role == APPENDER ? 50 : random_number() % 100;
    int status;

    if (dice < 4 && (ops_of(b) & OP_COMPACT) != 0 && reader->at.stored) {
        compact_to_last(b, reader, &chain->compactions[index]);
    }
    status = dice > 97 ? do_try_write(b, bytes, size, &reader->at)
                       : do_append(b, bytes, size, &reader->at, NULL);
    if (status == 0) {
        reader->last++;
        chain->done[index]++;
    } else {
        expect_status(TOSC_ECONFLICT, status, "append beside others");
        follow(b, reader);
    }
}

static void
take_part(struct worker *worker)
{
    struct chain *chain = shared();
    struct reader reader = {.last = 0};

    follow(worker->b, &reader);
    if (worker->role == READER) {
        __atomic_add_fetch(&chain->reading, 1, __ATOMIC_ACQ_REL);
    }
    while (flag_get(&chain->stop) == 0 && chain->done[worker->index] < CHANGES_MAX) {
        if (worker->role == READER) {
            follow(worker->b, &reader);
        } else {
            change_once(worker->b, &reader, worker->role, chain, worker->index);
        }
    }
    if (worker->role == CHANGER
        && __atomic_add_fetch(&chain->ended, 1, __ATOMIC_ACQ_REL) == CHANGERS) {
        flag_set(&chain->stop, 1);
    }
}

static void
chain_ends(tosc_backend *b, struct chain *chain)
{
    struct reader reader = {.last = 0};
    uint64_t done = 0;
    uint64_t compactions = 0;

    flag_set(&chain->stop, 1);
    workers_join();
    follow(b, &reader);
    for (int i = 0; i < WORKERS_MAX; i++) {
        done += chain->done[i];
        compactions += chain->compactions[i];
    }
    expect(reader.last == done,
           "%llu changes were acknowledged, and the number of the newest entry is %llu",
           (unsigned long long)done, (unsigned long long)reader.last);
    note("%llu changes, %llu compactions", (unsigned long long)done,
         (unsigned long long)compactions);
}

static void
appends_lose_nothing(tosc_backend *b)
{
    struct chain *chain = shared();

    for (int i = 0; i < 3; i++) {
        worker_start(APPENDER);
    }
    workers_let_work(0.5);
    chain_ends(b, chain);
}

static void
readers_follow(tosc_backend *b)
{
    struct chain *chain = shared();

    worker_start(READER);
    worker_start(READER);
    await(&chain->reading, 2);
    for (int i = 0; i < CHANGERS; i++) {
        worker_start(CHANGER);
    }
    workers_let_work(0.5);
    chain_ends(b, chain);
}

static void
killed_appenders_lose_nothing(tosc_backend *b)
{
    struct chain *chain = shared();
    struct reader reader = {.last = 0};
    int rounds = 0;

    for (double end = seconds() + 3; rounds < 10 && seconds() < end; rounds++) {
        uint64_t before = chain->done[0];

        worker_start(CHANGER);
        while (__atomic_load_n(&chain->done[0], __ATOMIC_RELAXED) == before) {
            sleep_us(200);
            workers_check();
        }
        sleep_us((long)(random_number() % 8000));
        worker_kill(0);
        workers_join();
        follow(b, &reader);
        expect(reader.last >= chain->done[0],
               "a writer was killed: entry %llu was acknowledged to it, %llu is the "
               "newest",
               (unsigned long long)chain->done[0], (unsigned long long)reader.last);
        chain->done[0] = reader.last;
        while (reader.last == chain->done[0]) {
            change_once(b, &reader, APPENDER, chain, 1);
        }
        chain->done[0] = reader.last;
    }
    note("%d kills, %llu changes", rounds, (unsigned long long)reader.last);
}

const struct test tail_tests[] = {
    {"append.adds", "append adds to what is stored", append_adds, OP_APPEND, ALONE, NULL},
    {"append.first", "append to nothing makes the store", append_to_nothing, OP_APPEND,
     ALONE, NULL},
    {"append.position", "append stores only at the known position",
     append_needs_the_position, OP_APPEND, ALONE, NULL},
    {"append.cookie", "append with a wrong cookie is right all the same",
     append_with_a_wrong_cookie, OP_APPEND, ALONE, NULL},
    {"append.bytes", "what was appended comes back as it was", append_takes_every_size,
     OP_APPEND, ALONE, NULL},
    {"append.sizes", "base_bytes and tail_bytes tell base and tail",
     sizes_of_base_and_tail, OP_APPEND, ALONE, NULL},
    {"append.race.threads", "threads that append lose nothing", appends_lose_nothing,
     OP_APPEND, THREADS, take_part},
    {"append.race.objects", "nor do backend objects", appends_lose_nothing, OP_APPEND,
     OBJECTS, take_part},
    {"append.race.processes", "nor do processes", appends_lose_nothing, OP_APPEND,
     PROCESSES, take_part},
    {"read_since.news", "read_since gives only what is new", read_since_gives_the_news,
     OP_APPEND | OP_READ_SINCE, ALONE, NULL},
    {"read_since.cookie", "read_since with a wrong cookie is right all the same",
     read_since_with_a_wrong_cookie, OP_APPEND | OP_READ_SINCE, ALONE, NULL},
    {"read_since.gone", "read_since gives everything where the base is another one",
     read_since_what_is_gone, OP_APPEND | OP_READ_SINCE, ALONE, NULL},
    {"changed.tells", "changed tells whether the store has moved on", changed_tells,
     OP_CHANGED, ALONE, NULL},
    {"changed.objects", "and by what another object did", changed_tells_of_others,
     OP_CHANGED, OBJECTS, NULL},
    {"compact.keeps", "compact keeps the version and what came after",
     compact_keeps_what_came_after, OP_APPEND | OP_COMPACT, ALONE, NULL},
    {"compact.all", "compact of everything leaves no tail", compact_of_everything,
     OP_APPEND | OP_COMPACT, ALONE, NULL},
    {"compact.base", "compact is refused where the base is another one",
     compact_needs_its_base, OP_APPEND | OP_COMPACT, ALONE, NULL},
    {"chain.threads", "readers beside appends, writes and compactions by threads",
     readers_follow, OP_APPEND, THREADS, take_part},
    {"chain.objects", "and through other backend objects", readers_follow, OP_APPEND,
     OBJECTS, take_part},
    {"chain.processes", "and by other processes", readers_follow, OP_APPEND, PROCESSES,
     take_part},
    {"kill.appender", "an appender that is killed takes nothing with it",
     killed_appenders_lose_nothing, OP_APPEND, PROCESSES, take_part},
    {NULL, NULL, NULL, 0, ALONE, NULL},
};
