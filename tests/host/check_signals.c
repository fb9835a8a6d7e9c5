/*
 * Signals during waits: what the program's own handlers end, and what Python's do.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <tosc/tosc.h>

#include "stores.h"
#include "support.h"

static volatile sig_atomic_t ticks;
static const int holder, waiter; /* their addresses are what counts */

static void
tick(int number)
{
    (void)number;
    ticks++;
}

/* Every 20 ms, from now on or not any more; system calls are not restarted. */
static void
set_ticking(bool on)
{
    struct sigaction action = {.sa_handler = tick};
    struct itimerval timer = {.it_value.tv_usec = on ? 20000 : 0,
                              .it_interval.tv_usec = on ? 20000 : 0};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static tosc_backend *
open_backend(const char *uri)
{
    tosc_backend *backend;
    ok(tosc_backend_open(uri, &backend));
    return backend;
}

static int
lock(tosc_backend *backend, const int *who)
{
    return tosc_backend_ops(backend)->lock(tosc_backend_impl(backend), who, INT64_MAX);
}

static void
unlock(tosc_backend *backend, const int *who)
{
    ok(tosc_backend_ops(backend)->unlock(tosc_backend_impl(backend), who));
}

/* Those who call a backend themselves are told of a signal, as tosc/sys/backend.h says. */
static void
check_direct_calls(const char *uri)
{
    tosc_backend *one = open_backend(uri);
    tosc_backend *two = open_backend(uri);
    tosc_data data;
    bool changed;
    ok(tosc_backend_ops(two)->read(tosc_backend_impl(two), &data));
    tosc_blob_unref(data.bytes);
    ok(lock(one, &holder));
    set_ticking(true);
    fails(TOSC_EINTR, lock(two, &waiter));
    fails(TOSC_EINTR, tosc_backend_ops(two)->wait(tosc_backend_impl(two), &data.at, -1,
                                                  NULL, &changed));
    set_ticking(false);
    unlock(one, &holder);
    tosc_backend_unref(two);
    tosc_backend_unref(one);
}

START_TEST(a_signal_ends_waits_without_python)
{
    check_direct_calls(store_in("store"));
}
END_TEST

START_TEST(a_signal_ends_waits_of_who_calls_a_backend_beside_python)
{
    host_start();
    tosc_manager *manager = open_at(store_in("store"));
    write_json(manager, "{\"n\": 1}");
    check_direct_calls(store_in("store"));
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

/* ---- operations of Managers ---- */

static void *
unlock_later(void *backend)
{
    const struct timespec pause = {.tv_nsec = 300000000};
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    nanosleep(&pause, NULL);
    unlock(backend, &holder);
    return NULL;
}

START_TEST(operations_of_managers_go_on_after_the_programs_signals)
{
    host_start();
    tosc_manager *manager = open_at(store_in("store"));
    write_json(manager, "{\"n\": 1}");
    tosc_backend *other = open_backend(store_in("store"));
    tosc_value *value = from_json("{\"n\": 2}");
    pthread_t thread;
    ok(lock(other, &holder));
    must(pthread_create(&thread, NULL, unlock_later, other) == 0);
    set_ticking(true);
    ok(tosc_manager_write(manager, value));
    set_ticking(false);
    ck_assert_int_ge(ticks, 5);
    pthread_join(thread, NULL);
    stores(manager, "{\"n\": 2}");
    tosc_value_unref(value);
    tosc_backend_unref(other);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_script_s_handler_that_raises_ends_operations_of_managers)
{
    host_start();
    tosc_manager *manager = open_at(store_in("store"));
    write_json(manager, "{\"n\": 1}");
    tosc_backend *other = open_backend(store_in("store"));
    tosc_value *value = from_json("{\"n\": 2}");
    ok(lock(other, &holder));
    python("import signal\n"
           "def ring(*args):\n"
           "    raise KeyboardInterrupt\n"
           "signal.signal(signal.SIGALRM, ring)\n"
           "signal.setitimer(signal.ITIMER_REAL, 0.2)\n");
    fails(TOSC_EINTR, tosc_manager_write(manager, value));
    told_type("KeyboardInterrupt");
    unlock(other, &holder);
    stores(manager, "{\"n\": 1}");
    tosc_value_unref(value);
    tosc_backend_unref(other);
    tosc_manager_unref(manager);
    host_stop();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("signals");
    TCase *all = tcase_create("all");

    tcase_set_timeout(all, 20);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_test(all, a_signal_ends_waits_without_python);
    tcase_add_test(all, a_signal_ends_waits_of_who_calls_a_backend_beside_python);
    tcase_add_test(all, operations_of_managers_go_on_after_the_programs_signals);
    tcase_add_test(all, a_script_s_handler_that_raises_ends_operations_of_managers);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
