/*
 * tosc-check-backend: several at a time, with the required operations.
 *
 * What is stored here is a struct tally: how often each worker has changed it, and filling
 * of a length and pattern that follow from these numbers. So torn bytes show, and so does
 * a change that was acknowledged and is not there, or one that overtook another.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cli/check_backend.h"

#include <stdlib.h>
#include <string.h>

#define WRITERS 4
#define WRITERS_BESIDE_READERS 2
#define READER 1          /* a role; 0 is a writer */
#define CHANGES_MAX 10000 /* of one worker */
#define FILLING_MAX 20000
#define SAMPLES 4096

struct tally {
    uint64_t serial; /* the sum of the counts */
    uint64_t counts[WORKERS_MAX];
    uint32_t filling; /* bytes that follow */
    uint32_t check;
};

struct race {
    int stop;                   /* atomic */
    int reading;                /* atomic: readers that are at work */
    int ended;                  /* atomic: writers that have stopped */
    uint64_t done[WORKERS_MAX]; /* acknowledged changes of each */
    uint64_t conflicts[WORKERS_MAX];
    int64_t version_of[1 << 16]; /* atomic: of each serial, as its writer was told it */
};

/* ---- tallies ---- */

static size_t
tally_put(unsigned char *to, struct tally *tally)
{
    tally->filling =
        (uint32_t)(tally->serial * 7919 % (tally->serial % 8 == 0 ? FILLING_MAX : 300));
    tally->check = (uint32_t)(tally->serial * 2654435761U) ^ tally->filling;
    memcpy(to, tally, sizeof(*tally));
    memset(to + sizeof(*tally), (int)(tally->serial & 0xff), tally->filling);
    return sizeof(*tally) + tally->filling;
}

static void
tally_get(const tosc_data *data, struct tally *ret)
{
    uint64_t sum = 0;
    size_t size = data->bytes != NULL ? data->bytes->size : 0;

    *ret = (struct tally){.serial = 0};
    if (!data->at.stored) {
        return;
    }
    expect(size >= sizeof(*ret),
           "read beside writes: got %zu bytes, fewer than any wrote", size);
    memcpy(ret, data->bytes->data, sizeof(*ret));
    for (int i = 0; i < WORKERS_MAX; i++) {
        sum += ret->counts[i];
    }
    expect(sum == ret->serial
               && ret->check == ((uint32_t)(ret->serial * 2654435761U) ^ ret->filling)
               && size == sizeof(*ret) + ret->filling,
           "read beside writes: got a mixture of what was written (%zu bytes)", size);
    for (size_t i = sizeof(*ret); i < size; i++) {
        expect(data->bytes->data[i] == (ret->serial & 0xff),
               "read beside writes: got a mixture of what was written (byte %zu of %zu)",
               i, size);
    }
}

/* ---- nothing is lost ---- */

static bool
knows_version(const tosc_position *at)
{
    return at->version
           != INT64_MIN; /* all that a backend in Python may be able to tell */
}

/* Reads, counts, tries to write, until it works. */
static void
count_once(tosc_backend *b, int index, struct race *race)
{
    static __thread unsigned char bytes[sizeof(struct tally) + FILLING_MAX];

    for (;;) {
        struct tally tally;
        tosc_data data;
        size_t size;
        int status;

        expect_ok(do_read(b, &data), "read beside writes");
        tally_get(&data, &tally);
        tosc_blob_unref(data.bytes);
        tally.counts[index]++;
        tally.serial++;
        size = tally_put(bytes, &tally);
        status = do_try_write(b, bytes, size, &data.at);
        if (status == 0) {
            if (tally.serial < 1 << 16 && knows_version(&data.at)) {
                __atomic_store_n(&race->version_of[tally.serial], data.at.version,
                                 __ATOMIC_RELEASE);
            }
            race->done[index]++;
            return;
        }
        expect_status(TOSC_ECONFLICT, status, "try_write beside others");
        race->conflicts[index]++;
    }
}

static void
count_until_told(struct worker *worker)
{
    struct race *race = shared();

    while (flag_get(&race->stop) == 0 && race->done[worker->index] < CHANGES_MAX) {
        count_once(worker->b, worker->index, race);
    }
}

static void
nothing_is_lost(tosc_backend *b)
{
    const int own = WORKERS_MAX - 1;
    struct race *race = shared();
    struct tally tally;
    tosc_data data;
    uint64_t conflicts = 0;

    for (int i = 0; i < WRITERS; i++) {
        worker_start(0);
    }
    for (double end = seconds() + 0.6;
         seconds() < end && race->done[own] < CHANGES_MAX;) {
        count_once(b, own, race);
    }
    workers_let_work(0.1);
    flag_set(&race->stop, 1);
    workers_join();
    expect_ok(do_read(b, &data), "read at the end");
    tally_get(&data, &tally);
    tosc_blob_unref(data.bytes);
    for (int i = 0; i < WORKERS_MAX; i++) {
        conflicts += race->conflicts[i];
        expect(tally.counts[i] == race->done[i],
               "of %llu changes by try_write that were acknowledged to one of several, "
               "%llu are there",
               (unsigned long long)race->done[i], (unsigned long long)tally.counts[i]);
    }
    note("%llu changes, %llu conflicts", (unsigned long long)tally.serial,
         (unsigned long long)conflicts);
}

/* ---- exactly one wins ---- */

struct contest {
    int round;   /* atomic: which one is open */
    int ended;   /* atomic: how many have tried in it */
    int winners; /* atomic */
    int over;    /* atomic */
    tosc_position at;
};

static void
compete(struct worker *worker)
{
    struct contest *contest = shared();

    for (int round = 1;; round++) {
        tosc_position at;
        int status;

        while (flag_get(&contest->round) < round) {
            if (flag_get(&contest->over) != 0) {
                return;
            }
            look_again();
        }
        at = contest->at;
        status = do_try_write(worker->b, &worker->index, sizeof(int), &at);
        if (status != TOSC_ECONFLICT) {
            expect_ok(status, "try_write beside others at the same version");
            __atomic_add_fetch(&contest->winners, 1, __ATOMIC_ACQ_REL);
        }
        __atomic_add_fetch(&contest->ended, 1, __ATOMIC_ACQ_REL);
    }
}

static void
exactly_one_wins(tosc_backend *b)
{
    struct contest *contest = shared();
    int rounds = 0;

    for (int i = 0; i < WRITERS; i++) {
        worker_start(0);
    }
    for (double end = seconds() + 0.5; seconds() < end && rounds < 200;) {
        contest->ended = 0;
        contest->winners = 0;
        flag_set(&contest->round, ++rounds);
        await(&contest->ended, WRITERS);
        expect(contest->winners == 1,
               "%d at a time tried to write at the same version: expected that exactly "
               "one does, %d did",
               WRITERS, contest->winners);
        contest->at = position_now(b);
    }
    flag_set(&contest->over, 1);
    workers_join();
    note("%d rounds", rounds);
}

/* ---- readers beside writers ---- */

struct sample {
    int64_t version;
    uint64_t serial;
};

/*
 * Which version a serial has is only known when its writer has been told, so it is
 * compared in the end.
 */
static void
read_until_told(struct worker *worker)
{
    struct race *race = shared();
    struct sample *samples = calloc(SAMPLES, sizeof(*samples));
    struct sample last = {INT64_MIN, 0};
    int count = 0;

    __atomic_add_fetch(&race->reading, 1, __ATOMIC_ACQ_REL);
    while (flag_get(&race->stop) == 0) {
        struct tally tally;
        tosc_data data;

        expect_ok(do_read(worker->b, &data), "read beside writes");
        tally_get(&data, &tally);
        tosc_blob_unref(data.bytes);
        if (!data.at.stored) {
            continue;
        }
        expect(data.at.version >= last.version && tally.serial >= last.serial,
               "read beside writes: after version %lld got the older %lld",
               (long long)last.version, (long long)data.at.version);
        expect((data.at.version == last.version) == (tally.serial == last.serial),
               "read beside writes: got the bytes of one version with the number of "
               "another (%lld)",
               (long long)data.at.version);
        last = (struct sample){data.at.version, tally.serial};
        if (tally.serial < 1 << 16) {
            samples[count++ % SAMPLES] = last;
        }
    }
    while (flag_get(&race->ended) < WRITERS_BESIDE_READERS) {
        sleep_us(1000);
    }
    for (int i = 0; i < count && i < SAMPLES; i++) {
        int64_t version =
            __atomic_load_n(&race->version_of[samples[i].serial], __ATOMIC_ACQUIRE);

        expect(version == 0 || version == samples[i].version,
               "read beside writes: got version %lld with the bytes of version %lld",
               (long long)samples[i].version, (long long)version);
    }
    free(samples);
}

static void
read_or_write(struct worker *worker)
{
    struct race *race = shared();

    if (worker->role == READER) {
        read_until_told(worker);
    } else {
        count_until_told(worker);
        if (__atomic_add_fetch(&race->ended, 1, __ATOMIC_ACQ_REL)
            == WRITERS_BESIDE_READERS) {
            flag_set(&race->stop, 1);
        }
    }
}

static void
reads_are_atomic(tosc_backend *b)
{
    struct race *race = shared();

    (void)b;
    worker_start(READER);
    worker_start(READER);
    await(&race->reading, 2);
    for (int i = 0; i < WRITERS_BESIDE_READERS; i++) {
        worker_start(0);
    }
    workers_let_work(0.5);
    flag_set(&race->stop, 1);
    workers_join();
}

/* ---- killed writers ---- */

static void
writers_that_are_killed_lose_nothing(tosc_backend *b)
{
    struct race *race = shared();
    int rounds = 0;

    for (double end = seconds() + 3; rounds < 10 && seconds() < end; rounds++) {
        uint64_t before = race->done[0];
        struct tally tally;
        tosc_data data;

        worker_start(0);
        while (__atomic_load_n(&race->done[0], __ATOMIC_RELAXED) == before) {
            sleep_us(200);
            workers_check();
        }
        sleep_us((long)(random_number() % 8000));
        worker_kill(0);
        workers_join();
        expect_ok(do_read(b, &data), "read after a writer was killed");
        tally_get(&data, &tally);
        tosc_blob_unref(data.bytes);
        expect(tally.counts[0] >= race->done[0],
               "a writer was killed: of %llu changes that were acknowledged to it, %llu "
               "are there",
               (unsigned long long)race->done[0], (unsigned long long)tally.counts[0]);
        race->done[0] = tally.counts[0];
        count_once(b, WORKERS_MAX - 1, race);
    }
    note("%d kills, %llu changes", rounds, (unsigned long long)race->done[0]);
}

const struct test race_tests[] = {
    {"race.one.threads", "of threads that write at the same version, one wins",
     exactly_one_wins, 0, THREADS, compete},
    {"race.one.objects", "of backend objects, one wins", exactly_one_wins, 0, OBJECTS,
     compete},
    {"race.one.processes", "of processes, one wins", exactly_one_wins, 0, PROCESSES,
     compete},
    {"race.sum.threads", "threads lose nothing that was acknowledged", nothing_is_lost, 0,
     THREADS, count_until_told},
    {"race.sum.objects", "nor do backend objects", nothing_is_lost, 0, OBJECTS,
     count_until_told},
    {"race.sum.processes", "nor do processes", nothing_is_lost, 0, PROCESSES,
     count_until_told},
    {"race.read.threads", "read beside writes by threads is atomic", reads_are_atomic, 0,
     THREADS, read_or_write},
    {"race.read.objects", "and through other backend objects", reads_are_atomic, 0,
     OBJECTS, read_or_write},
    {"race.read.processes", "and by other processes", reads_are_atomic, 0, PROCESSES,
     read_or_write},
    {"kill.writer", "a writer that is killed takes nothing with it",
     writers_that_are_killed_lose_nothing, 0, PROCESSES, count_until_told},
    {NULL, NULL, NULL, 0, ALONE, NULL},
};
