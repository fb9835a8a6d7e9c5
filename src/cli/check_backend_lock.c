/*
 * tosc-check-backend: the exclusive lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cli/check_backend.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* Addresses that identify holders. */
static char me;
static char other;

static const tosc_commit_id some_id = {{1, 2, 3, 4}};

static void
holder_may_change(tosc_backend *b)
{
    void *impl = tosc_backend_impl(b);
    unsigned have = ops_of(b);
    tosc_position at;
    tosc_position next;
    tosc_data data;
    const char *now = "c";

    expect_ok(do_write(b, "a", &at), "write");
    expect_ok(do_lock(b, &me, 5000), "lock");
    expect_ok(
        begin(b, OP_TRY_WRITE)->try_write(impl, &me, "b", 1, &at.version, NULL, &next),
        "try_write by the lock's holder");
    expect_ok(begin(b, OP_WRITE)->write(impl, &me, "c", 1, &at),
              "write by the lock's holder");
    if ((have & OP_APPEND) != 0) {
        expect_ok(begin(b, OP_APPEND)->append(impl, &me, "d", 1, &some_id, &at, &data),
                  "append by the lock's holder");
        at = data.at;
        now = "cd";
    }
    if ((have & OP_COMPACT) != 0) {
        expect_ok(begin(b, OP_COMPACT)->compact(impl, &me, "CD", 2, &at, &data),
                  "compact by the lock's holder");
        now = "CD";
    }
    expect_holds(b, now, &at, "while the lock is held");
    expect_ok(do_unlock(b, &me), "unlock");
    expect_ok(do_lock(b, &other, 5000), "lock by another holder after unlock");
    expect_ok(do_unlock(b, &other), "unlock");
    expect_ok(do_write(b, "free", &at), "write after unlock");
    expect_holds(b, "free", &at, "after unlock");
}

/* Who else asks for the lock is refused in time. */
static void
expect_locked(tosc_backend *b, const char *whose)
{
    double start = seconds();
    double took;

    expect_status(TOSC_ETIMEDOUT, do_lock(b, &other, 200),
                  "lock with a deadline, the lock being held %s,", whose);
    took = (seconds() - start) * 1e3;
    expect(took >= 199, "lock gave up after %.0f ms, its deadline was after 200 ms",
           took);
    expect(took < 5000, "lock gave up after %.0f ms, its deadline was after 200 ms",
           took);
    start = seconds();
    expect_status(TOSC_ETIMEDOUT, do_lock(b, &other, 0),
                  "lock with a deadline that is over, the lock being held %s,", whose);
    took = (seconds() - start) * 1e3;
    expect(took < 5000, "lock with a deadline that is over took %.0f ms", took);
}

static void
lock_ends_at_its_deadline(tosc_backend *b)
{
    expect_ok(do_lock(b, &me, 5000), "lock");
    expect_locked(b, "by another holder");
    expect_ok(do_unlock(b, &me), "unlock");
    expect_ok(do_lock(b, &other, 0), "lock with a deadline that is over, the lock being "
                                     "free,");
    expect_ok(do_unlock(b, &other), "unlock");
}

static void
only_the_holder_unlocks(tosc_backend *b)
{
    expect_status(TOSC_EINVAL, do_lock(b, NULL, 0), "lock without a holder");
    expect_status(TOSC_EINVAL, do_unlock(b, &me), "unlock of a lock that is free");
    expect_ok(do_lock(b, &me, 5000), "lock");
    expect_status(TOSC_EINVAL, do_unlock(b, &other), "unlock by another holder");
    expect_status(TOSC_EINVAL, do_unlock(b, NULL), "unlock without a holder");
    expect_status(TOSC_ETIMEDOUT, do_lock(b, &other, 0),
                  "lock after others tried to unlock");
    expect_ok(do_unlock(b, &me), "unlock by the holder");
    expect_status(TOSC_EINVAL, do_unlock(b, &me), "unlock for the second time");
}

static void
reading_needs_no_lock(tosc_backend *b)
{
    tosc_position at;
    bool changed = false;
    double start;

    expect_ok(do_write(b, "a", &at), "write");
    expect_ok(do_lock(b, &me, 5000), "lock");
    start = seconds();
    expect_holds(b, "a", &at, "while the lock is held");
    at.version--;
    expect_ok(do_wait(b, &at, 1000, NULL, &changed), "wait while the lock is held");
    expect(seconds() - start < 5.0, "read and wait took %.1f s beside the lock's holder",
           seconds() - start);
    expect_ok(do_unlock(b, &me), "unlock");
}

/* ---- with workers ---- */

#define TURNS_MAX 10000 /* of one worker */

enum { WRITE_ONCE, HOLD_OFTEN, HOLD_ON, INTERRUPT }; /* roles */

struct scene {
    int begun;  /* atomic */
    int held;   /* atomic */
    int let_go; /* atomic */
    int inside; /* atomic: how many hold the lock */
    int stop;   /* atomic */
    uint64_t turns[WORKERS_MAX];
    tosc_position at;
    pthread_t target;
};

static void
write_once(struct worker *worker, struct scene *scene)
{
    flag_set(&scene->begun, 1);
    expect_ok(do_write(worker->b, "late", &scene->at), "write that had to wait");
}

/* Between lock and unlock nobody else is inside, and what one reads stays. */
static void
hold_often(struct worker *worker, struct scene *scene)
{
    while (flag_get(&scene->stop) == 0 && scene->turns[worker->index] < TURNS_MAX) {
        tosc_position at;
        int64_t count = 0;
        tosc_data data;

        expect_ok(do_lock(worker->b, worker, random_number() % 2 == 0 ? -1 : 60000),
                  "lock beside others");
        expect(__atomic_add_fetch(&scene->inside, 1, __ATOMIC_ACQ_REL) == 1,
               "two hold the lock at a time");
        expect_ok(do_read(worker->b, &data), "read by the lock's holder");
        if (data.bytes != NULL && data.bytes->size == sizeof(count)) {
            memcpy(&count, data.bytes->data, sizeof(count));
        }
        tosc_blob_unref(data.bytes);
        count++;
        expect_ok(begin(worker->b, OP_TRY_WRITE)
                      ->try_write(tosc_backend_impl(worker->b), worker, &count,
                                  sizeof(count), data.at.stored ? &data.at.version : NULL,
                                  NULL, &at),
                  "try_write by the lock's holder at the version that it has read");
        expect(__atomic_sub_fetch(&scene->inside, 1, __ATOMIC_ACQ_REL) == 0,
               "two hold the lock at a time");
        expect_ok(do_unlock(worker->b, worker), "unlock");
        scene->turns[worker->index]++;
    }
}

static void
hold_on(struct worker *worker, struct scene *scene)
{
    expect_ok(do_lock(worker->b, worker, 60000), "lock");
    flag_set(&scene->held, 1);
    while (flag_get(&scene->let_go) == 0) {
        sleep_us(1000);
    }
    expect_ok(do_unlock(worker->b, worker), "unlock");
}

static void
work(struct worker *worker)
{
    struct scene *scene = shared();

    switch (worker->role) {
    case WRITE_ONCE:
        write_once(worker, scene);
        break;
    case HOLD_OFTEN:
        hold_often(worker, scene);
        break;
    case HOLD_ON:
        hold_on(worker, scene);
        break;
    default:
        while (flag_get(&scene->stop) == 0) {
            sleep_us(50000);
            pthread_kill(scene->target, SIGUSR1);
        }
    }
}

static void
others_wait_for_the_lock(tosc_backend *b)
{
    struct scene *scene = shared();
    tosc_position at;

    expect_ok(do_write(b, "a", &at), "write");
    expect_ok(do_lock(b, &me, 5000), "lock");
    worker_start(WRITE_ONCE);
    await(&scene->begun, 1);
    sleep_us(200000);
    expect_holds(b, "a", &at, "while the lock is held and another wants to write");
    expect_ok(do_unlock(b, &me), "unlock");
    workers_join();
    expect_holds(b, "late", &scene->at, "after unlock, when the other has written");
}

static void
one_holds_at_a_time(tosc_backend *b)
{
    struct scene *scene = shared();
    uint64_t turns = 0;
    int64_t count = 0;
    tosc_data data;

    for (int i = 0; i < 3; i++) {
        worker_start(HOLD_OFTEN);
    }
    workers_let_work(0.5);
    flag_set(&scene->stop, 1);
    workers_join();
    for (int i = 0; i < 3; i++) {
        turns += scene->turns[i];
    }
    expect_ok(do_read(b, &data), "read");
    if (data.bytes != NULL && data.bytes->size == sizeof(count)) {
        memcpy(&count, data.bytes->data, sizeof(count));
    }
    tosc_blob_unref(data.bytes);
    expect((uint64_t)count == turns, "%llu took turns, and their sum is %lld",
           (unsigned long long)turns, (long long)count);
    note("%llu turns", (unsigned long long)turns);
}

static void
lock_keeps_out(tosc_backend *b)
{
    struct scene *scene = shared();

    worker_start(HOLD_ON);
    await(&scene->held, 1);
    expect_locked(b, "elsewhere");
    flag_set(&scene->let_go, 1);
    expect_ok(do_lock(b, &me, -1), "lock, which another gives free meanwhile,");
    expect_ok(do_unlock(b, &me), "unlock");
    workers_join();
}

static void
dead_holder_frees_the_lock(tosc_backend *b)
{
    struct scene *scene = shared();
    tosc_position at;
    double start;

    expect_ok(do_write(b, "a", &at), "write");
    worker_start(HOLD_ON);
    await(&scene->held, 1);
    expect_status(TOSC_ETIMEDOUT, do_lock(b, &me, 50),
                  "lock, while another process holds it,");
    worker_kill(0);
    start = seconds();
    expect_ok(do_lock(b, &me, -1), "lock, whose holder was killed,");
    note("the lock was free %.3f s after its holder's death", seconds() - start);
    expect_ok(do_unlock(b, &me), "unlock");
    expect_ok(do_write(b, "b", &at), "write after a holder was killed");
    workers_join();
}

static void
ignore(int number)
{
    (void)number;
}

static void
signal_ends_lock(tosc_backend *b)
{
    struct scene *scene = shared();
    struct sigaction action = {.sa_handler = ignore};
    double start = seconds();

    if (!subject_wait_heeds_signals(b)) {
        skip("Python tells only its main thread of signals");
    }
    sigaction(SIGUSR1, &action, NULL);
    scene->target = pthread_self();
    expect_ok(do_lock(b, &me, 5000), "lock");
    worker_start(INTERRUPT);
    expect_status(TOSC_EINTR, do_lock(b, &other, 10000),
                  "lock with a deadline, when a signal comes,");
    expect_status(TOSC_EINTR, do_lock(b, &other, -1), "lock, when a signal comes,");
    flag_set(&scene->stop, 1);
    workers_join();
    expect(seconds() - start < 10, "signals ended lock after %.1f s only",
           seconds() - start);
    expect_ok(do_unlock(b, &me), "unlock");
}

#define NEEDS (OP_LOCK | OP_UNLOCK)

const struct test lock_tests[] = {
    {"lock.holder", "the lock lets its holder change the store", holder_may_change, NEEDS,
     ALONE, NULL},
    {"lock.deadline", "lock ends at its deadline", lock_ends_at_its_deadline, NEEDS,
     ALONE, NULL},
    {"lock.owner", "only its holder can unlock", only_the_holder_unlocks, NEEDS, ALONE,
     NULL},
    {"lock.reads", "read and wait need no lock", reading_needs_no_lock, NEEDS, ALONE,
     NULL},
    {"lock.waits", "others who write wait for the lock", others_wait_for_the_lock, NEEDS,
     THREADS, work},
    {"lock.waits.objects", "also those with another backend object",
     others_wait_for_the_lock, NEEDS, OBJECTS, work},
    {"lock.waits.processes", "also those in another process", others_wait_for_the_lock,
     NEEDS, PROCESSES, work},
    {"lock.excludes.objects", "the lock excludes other backend objects", lock_keeps_out,
     NEEDS, OBJECTS, work},
    {"lock.excludes.processes", "the lock excludes other processes", lock_keeps_out,
     NEEDS, PROCESSES, work},
    {"lock.one.threads", "one thread holds the lock at a time", one_holds_at_a_time,
     NEEDS, THREADS, work},
    {"lock.one.objects", "one backend object at a time", one_holds_at_a_time, NEEDS,
     OBJECTS, work},
    {"lock.one.processes", "one process at a time", one_holds_at_a_time, NEEDS, PROCESSES,
     work},
    {"lock.killed", "a holder that is killed frees the lock", dead_holder_frees_the_lock,
     NEEDS, PROCESSES, work},
    {"lock.signal", "a signal ends the wait for the lock", signal_ends_lock, NEEDS,
     THREADS, work},
    {NULL, NULL, NULL, 0, ALONE, NULL},
};
