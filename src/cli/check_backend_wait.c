/*
 * tosc-check-backend: waiting for changes.
 *
 * A wait may say "changed" where nothing has, so the tests that need it at rest first let
 * it come to rest.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cli/check_backend.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* A change must be told of within this time, even where only looking again shows it. */
#define LIMIT_MS 10000

/* What a worker does, after a pause. */
enum { CHANGE_STORE, SET_EVENT, SEND_SIGNALS, WAIT_TOO };

struct scene {
    int go;      /* atomic: the worker may begin its pause */
    int done;    /* atomic */
    int waiting; /* atomic: how many have begun to wait */
    long pause_us;
    tosc_position at;
    double changed_at;
    tosc_event *event;
    pthread_t target;
};

static void
act_later(struct worker *worker)
{
    struct scene *scene = shared();
    bool changed = false;

    while (flag_get(&scene->go) == 0) {
        sleep_us(100);
    }
    if (worker->role == WAIT_TOO) {
        __atomic_add_fetch(&scene->waiting, 1, __ATOMIC_ACQ_REL);
        expect_ok(do_wait(worker->b, &scene->at, LIMIT_MS, NULL, &changed),
                  "wait of one of several");
        expect(changed,
               "of several that waited at a time, one was not told of a change "
               "within %d ms",
               LIMIT_MS);
        return;
    }
    sleep_us(scene->pause_us);
    if (worker->role == CHANGE_STORE) {
        tosc_position at = scene->at;

        scene->changed_at = seconds();
        expect_ok(do_try_write(worker->b, "changed", 7, &at), "try_write beside a wait");
    } else if (worker->role == SET_EVENT) {
        tosc_event_set(scene->event);
    } else {
        do { /* one that comes between two sleeps of a wait does not end it */
            pthread_kill(scene->target, SIGUSR1);
            sleep_us(scene->pause_us);
        } while (flag_get(&scene->done) == 0);
    }
    flag_set(&scene->done, 1);
}

/* Waits until the backend says that nothing has changed, if it ever does unasked. */
static void
come_to_rest(tosc_backend *b, const tosc_position *at)
{
    bool changed = subject_wait_heeds_event(b);

    for (int i = 0; i < 5 && changed; i++) {
        expect_ok(do_wait(b, at, 30, NULL, &changed), "wait without a change");
    }
    expect(!changed, "wait said five times that a store has changed which has not");
}

static void
change_before_is_told(tosc_backend *b)
{
    static const tosc_position nothing;
    tosc_position old;
    tosc_position at;
    bool changed = false;
    double start = seconds();

    expect_ok(do_write(b, "a", &old), "write");
    expect_ok(do_wait(b, &nothing, LIMIT_MS, NULL, &changed),
              "wait, the store being known as empty,");
    expect(changed, "wait: expected to hear of the first write, which came before");
    expect_ok(do_write(b, "b", &at), "write");
    changed = false;
    expect_ok(do_wait(b, &old, LIMIT_MS, NULL, &changed), "wait at an old position");
    expect(changed, "wait: expected to hear of a change that came before the call");
    changed = false;
    expect_ok(do_wait(b, &old, 0, NULL, &changed),
              "wait without time at an old position");
    expect(changed, "wait with a timeout of 0: expected to hear of a change that came "
                    "before the call");
    expect(seconds() - start < LIMIT_MS / 1000.0,
           "expected to hear at once of changes that came before, it took %.1f s",
           seconds() - start);
}

static void
wait_ends_in_time(tosc_backend *b)
{
    tosc_position at;
    bool changed = true;
    double start;
    double took;

    if (!subject_wait_heeds_event(b)) {
        skip("target_wait() takes no timeout");
    }
    expect_ok(do_write(b, "a", &at), "write");
    come_to_rest(b, &at);
    start = seconds();
    expect_ok(do_wait(b, &at, 200, NULL, &changed), "wait for 200 ms");
    took = (seconds() - start) * 1e3;
    expect(changed || took >= 199, "wait for 200 ms ended after %.0f ms with nothing",
           took);
    expect(took < 5000, "wait for 200 ms took %.0f ms", took);
    start = seconds();
    expect_ok(do_wait(b, &at, 0, NULL, &changed), "wait without time");
    took = (seconds() - start) * 1e3;
    expect(took < 5000, "wait with a timeout of 0 took %.0f ms", took);
}

/* A wait at `scene->at` that a worker ends by a change. */
static void
wait_for_change(tosc_backend *b, const char *whose)
{
    struct scene *scene = shared();
    bool changed;
    tosc_position now;
    double told;

    scene->pause_us = 100000;
    worker_start(CHANGE_STORE);
    flag_set(&scene->go, 1);
    do { /* once more where it was said without reason */
        double start = seconds();

        changed = false;
        expect_ok(do_wait(b, &scene->at, LIMIT_MS, NULL, &changed), "wait");
        told = seconds();
        expect(changed || told - start < LIMIT_MS / 1000.0,
               "wait was not told within %d ms of a change by %s", LIMIT_MS, whose);
        now = position_now(b);
    } while (!changed || same_position(&now, &scene->at));
    note("wait ended %.2f ms after the call that changed the store began",
         (told - scene->changed_at) * 1e3);
    workers_join();
}

static void
change_ends_wait(tosc_backend *b)
{
    struct scene *scene = shared();

    expect_ok(do_write(b, "a", &scene->at), "write");
    wait_for_change(b, "another thread");
}

static void
first_write_ends_wait(tosc_backend *b)
{
    wait_for_change(b, "another thread, the first of all");
}

static void
change_of_another_object_ends_wait(tosc_backend *b)
{
    struct scene *scene = shared();

    expect_ok(do_write(b, "a", &scene->at), "write");
    come_to_rest(b, &scene->at);
    wait_for_change(b, "another object");
}

static void
change_of_another_process_ends_wait(tosc_backend *b)
{
    struct scene *scene = shared();

    expect_ok(do_write(b, "a", &scene->at), "write");
    come_to_rest(b, &scene->at);
    wait_for_change(b, "another process");
}

static void
all_who_wait_are_told(tosc_backend *b)
{
    struct scene *scene = shared();
    tosc_position at;

    expect_ok(do_write(b, "a", &scene->at), "write");
    come_to_rest(b, &scene->at);
    for (int i = 0; i < 4; i++) {
        worker_start(WAIT_TOO);
    }
    flag_set(&scene->go, 1);
    await(&scene->waiting, 4);
    sleep_us(100000);
    at = scene->at;
    expect_ok(do_try_write(b, "b", 1, &at), "try_write beside several waits");
    workers_join();
}

static void
event_ends_wait(tosc_backend *b)
{
    struct scene *scene = shared();
    bool changed = true;
    double start = seconds();
    int status = 0;

    if (!subject_wait_heeds_event(b)) {
        skip("target_wait() takes no timeout, so nothing can end it");
    }
    expect_ok(do_write(b, "a", &scene->at), "write");
    come_to_rest(b, &scene->at);
    scene->event = tosc_event_new();
    scene->pause_us = 100000;
    worker_start(SET_EVENT);
    flag_set(&scene->go, 1);
    for (int i = 0; i < 5 && status == 0 && changed; i++) {
        status = do_wait(b, &scene->at, LIMIT_MS, scene->event, &changed);
    }
    expect_status(TOSC_EINTR, status, "wait, when its event is set meanwhile,");
    expect(seconds() - start < LIMIT_MS / 1000.0,
           "the event ended wait after %.1f s only", seconds() - start);
    workers_join();
    for (status = 0, start = seconds(); status == 0 && seconds() - start < 2;) {
        status = do_wait(b, &scene->at, -1, scene->event, &changed);
    }
    expect_status(TOSC_EINTR, status, "wait, when its event was set before,");
    tosc_event_free(scene->event);
}

static void
ignore(int number)
{
    (void)number;
}

static void
signal_ends_wait(tosc_backend *b)
{
    struct scene *scene = shared();
    struct sigaction action = {.sa_handler = ignore};
    bool changed = true;
    double start = seconds();
    int status = 0;

    if (!subject_wait_heeds_signals(b)) {
        skip("Python tells only its main thread of signals");
    }
    expect_ok(do_write(b, "a", &scene->at), "write");
    come_to_rest(b, &scene->at);
    sigaction(SIGUSR1, &action, NULL);
    scene->target = pthread_self();
    scene->pause_us = 50000;
    worker_start(SEND_SIGNALS);
    flag_set(&scene->go, 1);
    for (int i = 0; i < 5 && status == 0 && changed; i++) {
        status = do_wait(b, &scene->at, LIMIT_MS, NULL, &changed);
    }
    flag_set(&scene->done, 1);
    expect_status(TOSC_EINTR, status, "wait, when a signal comes,");
    expect(seconds() - start < LIMIT_MS / 1000.0, "a signal ended wait after %.1f s only",
           seconds() - start);
    workers_join();
}

/* ---- changes at the very moment when a wait begins ---- */

struct burst {
    int64_t asked; /* atomic: rounds that the worker is to have done */
    int64_t made;  /* atomic */
    int over;      /* atomic */
    tosc_position at;
};

static void
change_when_asked(struct worker *worker)
{
    struct burst *burst = shared();
    int64_t made = 0;

    while (flag_get(&burst->over) == 0) {
        if (__atomic_load_n(&burst->asked, __ATOMIC_ACQUIRE) == made) {
            look_again();
            continue;
        }
        for (uint64_t spin = random_number() % 20000; spin > 0; spin--) {
            __atomic_signal_fence(__ATOMIC_SEQ_CST);
        }
        expect_ok(do_try_write(worker->b, &made, sizeof(made), &burst->at),
                  "try_write beside a wait");
        __atomic_store_n(&burst->made, ++made, __ATOMIC_RELEASE);
    }
}

static void
no_change_is_missed(tosc_backend *b)
{
    struct burst *burst = shared();
    tosc_position at;
    int rounds = 0;

    expect_ok(do_write(b, "a", &at), "write");
    burst->at = at;
    worker_start(0);
    for (double end = seconds() + 0.8; seconds() < end && rounds < 500; rounds++) {
        bool changed = false;
        double start = seconds();

        __atomic_store_n(&burst->asked, rounds + 1, __ATOMIC_RELEASE);
        while (!changed || __atomic_load_n(&burst->made, __ATOMIC_ACQUIRE) == rounds) {
            changed = false;
            expect_ok(do_wait(b, &at, LIMIT_MS / 2, NULL, &changed), "wait");
            expect(seconds() - start < LIMIT_MS / 2000.0,
                   "of %d changes that came just as wait began, it missed the last",
                   rounds + 1);
        }
        at = position_now(b);
    }
    flag_set(&burst->over, 1);
    workers_join();
    note("%d changes", rounds);
}

const struct test wait_tests[] = {
    {"wait.before", "wait reports a change that came before the call",
     change_before_is_told, 0, ALONE, NULL},
    {"wait.timeout", "wait ends at its timeout", wait_ends_in_time, 0, ALONE, NULL},
    {"wait.threads", "a change by another thread ends a wait", change_ends_wait, 0,
     THREADS, act_later},
    {"wait.empty", "the first write to a store ends a wait", first_write_ends_wait, 0,
     THREADS, act_later},
    {"wait.objects", "a change through another object ends a wait",
     change_of_another_object_ends_wait, 0, OBJECTS, act_later},
    {"wait.processes", "a change by another process ends a wait",
     change_of_another_process_ends_wait, 0, PROCESSES, act_later},
    {"wait.several", "all who wait at a time are told of a change", all_who_wait_are_told,
     0, THREADS, act_later},
    {"wait.event", "setting the event ends a wait", event_ends_wait, 0, THREADS,
     act_later},
    {"wait.signal", "a signal ends a wait", signal_ends_wait, 0, THREADS, act_later},
    {"wait.burst", "no change is missed that comes as a wait begins", no_change_is_missed,
     0, THREADS, change_when_asked},
    {"wait.burst.objects", "nor one through another object", no_change_is_missed, 0,
     OBJECTS, change_when_asked},
    {NULL, NULL, NULL, 0, ALONE, NULL},
};
