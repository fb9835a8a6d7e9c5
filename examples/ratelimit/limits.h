/*
 * Who may do how much: the policy (a Python script) and the store that all daemons share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef RATELIMIT_LIMITS_H
#define RATELIMIT_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <tosc/host.h>

typedef struct Limits {
    const char *policy;          /* path of the script */
    struct timespec policy_time; /* when the file that was loaded last was changed */
    tosc_manager *manager;
    tosc_watch *watch;     /* of the settings in the store */
    tosc_value *configure; /* functions of the policy that is in force */
    tosc_value *limits;
    bool failing;     /* limits() has raised: it is in the log already */
    timer_t watchdog; /* ends calls of the policy that take too long; */
    bool guarded;     /* it is there */
} Limits;

/* One request that waits for its answer. */
typedef struct Decision {
    const char *client;
    int64_t interval_us; /* one request each so many microseconds, in the long run */
    int64_t burst;       /* that many at once */
    bool granted;
    int64_t wait_us; /* refused: try again after that */
} Decision;

/*
 * Starts Python, opens the store, loads the policy. 0 or -1; the log says what is wrong.
 * limits_stop is to be called in both cases.
 */
int limits_start(Limits *limits, const char *uri, const char *policy);
void limits_stop(Limits *limits);
/* Their parts in policy.c. */
int limits_start_policy(Limits *limits);
void limits_stop_policy(Limits *limits);
/*
 * Readable when the settings in the store have changed: then limits_configure is to be called. 0,
 * also if the policy refuses them; -1: there is no store any more.
 */
int limits_fd(const Limits *limits);
int limits_configure(Limits *limits);
/* Loads the policy; if it is no good, the one before stays in force. 0 or -1. */
int limits_load_policy(Limits *limits);
/* The same if the file has changed since. */
void limits_check_policy(Limits *limits);
/* Fills in interval and burst; without a valid answer of the policy, burst 0: refused. */
int limits_ask(Limits *limits, Decision *decisions, size_t count);
/* Decides all of them at once, in one transaction. 0 or -1: the store does not answer. */
int limits_decide(Limits *limits, Decision *decisions, size_t count);
/* Forgets the clients that have not been there for a while. */
void limits_prune(Limits *limits);
/* What the store holds, as JSON, to be freed; NULL: it does not answer. */
char *limits_json(Limits *limits);

/* The log of the daemon; what went wrong in a call of the library, with a traceback if any. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_failure(const char *what);

#endif
