/*
 * The policy of the rate limiter, a Python script: see limits.h.
 *
 * It is run by file, and its functions are kept as values. If a new version of it raises, or
 * its configure() does, the functions that are kept are still the old ones, with the old
 * script's variables. Calls that take too long are ended by a timer, as one thread does
 * everything in this daemon.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "limits.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>

enum { LOAD_MS = 10000, CALL_MS = 1000 };

void
log_failure(const char *what)
{
    const char *traceback = tosc_error_traceback();
    if (*traceback == '\0') {
        log_line("%s: %s", what, tosc_error_message());
    } else {
        log_line("%s:\n%.*s", what, (int)strlen(traceback) - 1, traceback);
    }
}

/* daemon.log(text), for the policy. */
static int
script_log(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    const char *text;
    (void)ret;
    (void)arg;
    if (arguments->count != 1
        || tosc_borrow_text(arguments->values[0], tosc_self(), &text, NULL) < 0) {
        return tosc_fail("TypeError", "log() takes one str");
    }
    log_line("policy: %s", text);
    return TOSC_OK;
}

/* Runs in a thread of the C library's. The script gets KeyboardInterrupt. */
static void
interrupt(union sigval unused)
{
    (void)unused;
    tosc_host_interrupt();
}

/* A script that runs longer than that is ended; 0: it has come to its end. */
static void
guard(Limits *limits, long ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    const struct itimerspec when = {.it_value = time, .it_interval = time};
    timer_settime(limits->watchdog, 0, &when, NULL);
}

static int
call_configure(Limits *limits, tosc_value *configure)
{
    tosc_value *root = NULL;
    tosc_value *settings = NULL;
    int status = tosc_manager_read(limits->manager, &root);
    if (status == TOSC_OK) {
        status = tosc_get(root, tosc_key("settings"), &settings);
    }
    if (status == TOSC_OK) {
        const tosc_arguments arguments = {.values = &settings, .count = 1};
        guard(limits, CALL_MS);
        status = tosc_call(configure, &arguments, NULL);
        guard(limits, 0);
    }
    tosc_value_unref(settings);
    tosc_value_unref(root);
    return status;
}

int
limits_configure(Limits *limits)
{
    const tosc_change *change;
    bool changed = false;
    int status;
    while ((status = tosc_watch_next(limits->watch, 0, &change)) == 1) {
        changed = true;
    }
    if (status < 0) { /* such as a policy that closes the Manager */
        log_failure("the settings cannot be watched any more");
        return -1;
    }
    if (!changed) {
        return 0;
    }
    if (call_configure(limits, limits->configure) < 0) {
        log_failure("the policy does not take the new settings");
    } else {
        limits->failing = false;
        log_line("new settings are in force");
    }
    return 0;
}

static void
policy_time(const Limits *limits, struct timespec *ret)
{
    struct stat about;
    if (stat(limits->policy, &about) == 0) {
        *ret = about.st_mtim;
    }
}

int
limits_load_policy(Limits *limits)
{
    tosc_value *configure = NULL;
    tosc_value *function = NULL;
    int status;
    policy_time(limits, &limits->policy_time);
    guard(limits, LOAD_MS);
    status = tosc_host_run_file(limits->policy, NULL);
    guard(limits, 0);
    if (status == TOSC_OK) {
        status = tosc_host_find("__main__:configure", &configure);
    }
    if (status == TOSC_OK) {
        status = tosc_host_find("__main__:limits", &function);
    }
    if (status == TOSC_OK) {
        status = call_configure(limits, configure);
    }
    if (status < 0) {
        log_failure("the policy cannot be used");
        tosc_value_unref(configure);
        tosc_value_unref(function);
        return -1;
    }
    tosc_value_unref(limits->configure);
    tosc_value_unref(limits->limits);
    limits->configure = configure;
    limits->limits = function;
    limits->failing = false;
    log_line("%s is in force", limits->policy);
    return 0;
}

void
limits_check_policy(Limits *limits)
{
    struct timespec now = limits->policy_time;
    policy_time(limits, &now);
    if (now.tv_sec != limits->policy_time.tv_sec
        || now.tv_nsec != limits->policy_time.tv_nsec) {
        limits_load_policy(limits);
    }
}

/* Calls limits(client) -> (requests a second, requests at once). */
static int
ask_policy(Limits *limits, Decision *decision)
{
    tosc_value *name = NULL;
    tosc_value *answer = NULL;
    double rate = 0;
    int status = tosc_value_new_text(decision->client, TOSC_TEXT_END, &name);
    if (status == TOSC_OK) {
        const tosc_arguments arguments = {.values = &name, .count = 1};
        status = tosc_call(limits->limits, &arguments, &answer);
    }
    if (status == TOSC_OK) {
        status = tosc_get_double(answer, tosc_index(0), &rate);
    }
    if (status == TOSC_OK) {
        status = tosc_get_int64(answer, tosc_index(1), &decision->burst);
    }
    tosc_value_unref(answer);
    tosc_value_unref(name);
    if (status == TOSC_OK
        && !(rate >= 1.0 / 86400 && rate <= 1e6 && decision->burst >= 1
             && decision->burst <= 1000000)) {
        status = tosc_fail("ValueError", "rate %g and burst %lld", rate,
                           (long long)decision->burst);
    }
    if (status == TOSC_OK) {
        decision->interval_us = (int64_t)(1e6 / rate + 0.5);
    }
    return status;
}

/*
 * One scope for all: Python's lock is taken once. What fails is logged once; then there is
 * silence until there is another policy, or other settings.
 */
int
limits_ask(Limits *limits, Decision *decisions, size_t count)
{
    tosc_scope scope;
    int status = TOSC_OK;
    if (tosc_scope_enter(&scope) < 0) {
        return -1;
    }
    guard(limits, CALL_MS);
    for (size_t i = 0; i < count; i++) {
        /* After one that took too long the others are not asked. */
        status = status == TOSC_EINTR ? status : ask_policy(limits, &decisions[i]);
        if (status < 0) {
            decisions[i].burst = 0;
            decisions[i].interval_us = 1000000;
        }
        if (status < 0 && !limits->failing) {
            limits->failing = true;
            log_failure("limits() has failed; its clients are refused");
        }
    }
    guard(limits, 0);
    return tosc_scope_leave(&scope);
}

int
limits_start_policy(Limits *limits)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD};
    event.sigev_notify_function = interrupt;
    if (timer_create(CLOCK_MONOTONIC, &event, &limits->watchdog) < 0) {
        log_line("no timer");
        return -1;
    }
    limits->guarded = true;
    if (tosc_host_register("daemon", "log", script_log, NULL,
                           "log(text): writes a line to the daemon's log.")
        < 0) {
        log_failure("cannot start");
        return -1;
    }
    return limits_load_policy(limits);
}

void
limits_stop_policy(Limits *limits)
{
    if (limits->guarded) {
        timer_delete(limits->watchdog);
    }
    tosc_value_unref(limits->configure);
    tosc_value_unref(limits->limits);
}
