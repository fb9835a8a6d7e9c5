/*
 * The store of the rate limiters, and their decisions: see limits.h.
 *
 * The store holds {"settings": {...}, "clients": {NAME: TIME}, "granted": NUMBER}. The policy
 * gets the settings, and says for each client how much is allowed.
 *
 * A client's whole state is one time: when it will have "paid" for all that it was granted,
 * each request costing 1/rate seconds. A request is granted while that lies less than the
 * burst ahead of now (the "generic cell rate algorithm"). So no more than burst + rate x T
 * requests can be granted in any T seconds, by all daemons together, as each decides in a
 * transaction. A client whose time has passed is as one never seen, and can be forgotten. A
 * refusal changes nothing, and so costs no commit: a client that storms the daemons is cheap.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "limits.h"

static const char first_contents[] =
    "{\"settings\": {\"rate\": 10, \"burst\": 20, \"clients\": {}},"
    " \"clients\": {}, \"granted\": 0}";

typedef struct Batch {
    Decision *decisions;
    size_t count;
} Batch;

static int64_t
now_us(void)
{
    struct timespec now; /* all machines should agree on it */
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int
decide_one(tosc_value *clients, Decision *decision, int64_t now)
{
    int64_t paid = now;
    int64_t soonest;
    int status = tosc_get_int64(clients, tosc_key(decision->client), &paid);
    if (status < 0 && status != TOSC_ENOTFOUND) {
        return status;
    }
    if (paid < now) {
        paid = now;
    }
    soonest = paid - (decision->burst - 1) * decision->interval_us;
    decision->granted = soonest <= now;
    decision->wait_us = soonest - now;
    if (!decision->granted) {
        return TOSC_OK;
    }
    return tosc_set_int64(clients, tosc_key(decision->client),
                          paid + decision->interval_us);
}

/* May be run again after a conflict, so it decides all anew. */
static int
decide_batch(tosc_manager *manager, tosc_value *root, void *arg)
{
    Batch *batch = arg;
    int64_t now = now_us();
    int64_t granted = 0;
    tosc_value *clients;
    int status = tosc_borrow(root, tosc_key("clients"), &clients);
    (void)manager;
    for (size_t i = 0; status == TOSC_OK && i < batch->count; i++) {
        status = decide_one(clients, &batch->decisions[i], now);
        granted += batch->decisions[i].granted;
    }
    if (status == TOSC_OK && granted > 0) {
        status = tosc_add_int64(root, tosc_key("granted"), granted, NULL);
    }
    return status;
}

int
limits_decide(Limits *limits, Decision *decisions, size_t count)
{
    static const tosc_transact_options options = {.timeout_ms = 5000};
    Batch batch = {.decisions = decisions, .count = count};
    if (limits_ask(limits, decisions, count) < 0
        || tosc_transact(limits->manager, decide_batch, &batch, &options) < 0) {
        log_failure("no decision");
        return -1;
    }
    return 0;
}

/* Those who have paid are as those who have never been there. */
static int
prune(tosc_manager *manager, tosc_value *root, void *arg)
{
    int64_t now = now_us();
    tosc_value *clients;
    tosc_value *name;
    tosc_value *paid;
    tosc_iterator *each = NULL;
    int status = tosc_borrow(root, tosc_key("clients"), &clients);
    (void)manager;
    (void)arg;
    if (status == TOSC_OK) {
        status = tosc_iterator_new(clients, tosc_self(), &each);
    }
    while (status == TOSC_OK && (status = tosc_iterator_next(each, &name, &paid)) == 1) {
        int64_t time;
        status = tosc_get_int64(paid, tosc_self(), &time);
        if (status == TOSC_OK && time < now) {
            status = tosc_delete(clients, tosc_item(name));
        }
    }
    tosc_iterator_free(each);
    return status;
}

void
limits_prune(Limits *limits)
{
    static const tosc_transact_options options = {.retries = 3, .timeout_ms = 1000};
    int status = tosc_transact(limits->manager, prune, NULL, &options);
    if (status < 0 && status != TOSC_ERETRY && status != TOSC_ETIMEDOUT) {
        log_failure("clients cannot be forgotten");
    }
}

char *
limits_json(Limits *limits)
{
    tosc_value *root = NULL;
    char *json = NULL;
    if (tosc_manager_read(limits->manager, &root) < 0
        || tosc_get_json(root, tosc_self(), &json, NULL) < 0) {
        log_failure("no status");
    }
    tosc_value_unref(root);
    return json;
}

/* ---- start and stop ---- */

static int
open_store(Limits *limits, const char *uri)
{
    tosc_value *first = NULL;
    int status = tosc_manager_open(uri, NULL, &limits->manager);
    if (status == TOSC_OK) {
        status = tosc_value_new_json(first_contents, TOSC_TEXT_END, &first);
    }
    if (status == TOSC_OK) {
        /* Only if nothing is stored yet. */
        status = tosc_manager_try_write(limits->manager, first, NULL);
    }
    tosc_value_unref(first);
    if (status >= 0) {
        status = tosc_watch_new(limits->manager, "settings", NULL, NULL, &limits->watch);
    }
    if (status >= 0) {
        status = tosc_host_publish("ratelimit", limits->manager);
    }
    return status;
}

int
limits_start(Limits *limits, const char *uri, const char *policy)
{
    *limits = (Limits){.policy = policy};
    if (tosc_host_start(NULL) < 0 || open_store(limits, uri) < 0) {
        log_failure("cannot start");
        return -1;
    }
    return limits_start_policy(limits);
}

void
limits_stop(Limits *limits)
{
    limits_stop_policy(limits);
    tosc_watch_free(limits->watch);
    tosc_manager_unref(limits->manager);
    if (tosc_host_stop() < 0) {
        log_failure("not stopped well");
    }
}

int
limits_fd(const Limits *limits)
{
    return tosc_watch_fd(limits->watch);
}
