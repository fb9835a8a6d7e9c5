/*
 * Connections to Ceph clusters, shared within the process, and links to one pool over
 * them. Private to core; only where librados is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_CEPH_CONNECTION_H
#define TOSC_CORE_CEPH_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include <tosc/sys/backend.h>

/* Which cluster, and who we are there. Strings may be NULL but for the first. */
struct tosc__ceph_identity {
    char *client;
    char *key;
    char *keyring;
    char *conf;
    char *mon_host;
    int connect_timeout_s; /* no part of the identity */
};

/* One pool over one connection. Only the count changes, so any thread may use it. */
struct tosc__ceph_link;

/* How long something may take, and what else ends it. */
struct tosc__ceph_limit {
    int64_t deadline;
    const tosc_event *stop; /* may be NULL */
    bool patient;           /* signals do not end it */
    int64_t heed_from;      /* else: not before this time, */
    int64_t heed_ns;        /* and not before an operation has taken so long */
    bool *pending; /* one has come, and was not heeded yet; NULL: then it is lost */
};

/*
 * A link for `where` ("pool/object", for messages), connecting where needed.
 * TOSC_ESYSTEM, TOSC_EINTR, TOSC_ENOMEM. Blocks up to the limit's deadline.
 */
int tosc__ceph_link_open(const struct tosc__ceph_identity *identity, const char *pool,
                         const char *name_space, const char *where,
                         const struct tosc__ceph_limit *limit,
                         struct tosc__ceph_link **ret);
struct tosc__ceph_link *tosc__ceph_link_ref(struct tosc__ceph_link *link);
/* The last link of a connection has it shut down by another thread. Never blocks. */
struct tosc__ceph_link *tosc__ceph_link_unref(struct tosc__ceph_link *link);

/* False after a fork, when the cluster has shut this connection out, or without a pool. */
bool tosc__ceph_link_is_usable(const struct tosc__ceph_link *link);
/* The cluster has shut the connection out: whoever wants one next gets a new one. */
void tosc__ceph_link_break(struct tosc__ceph_link *link);
/*
 * Whether the pool is known to be gone: then the link is not usable any more, though
 * there may be another pool by the same name. May block as tosc__ceph_link_open.
 */
int tosc__ceph_link_check_pool(struct tosc__ceph_link *link, const char *pool,
                               const char *where, const struct tosc__ceph_limit *limit);

/* rados_ioctx_t and rados_t. */
void *tosc__ceph_link_io(const struct tosc__ceph_link *link);
void *tosc__ceph_link_cluster(const struct tosc__ceph_link *link);

/*
 * The end of the process waits so long for what is still to be sent; nothing may be put off
 * for longer.
 */
#define TOSC__CEPH_REST_NS (80 * TOSC__MS)

/* librados is at work for us, mostly in other threads (1), or no more (-1). */
void tosc__ceph_busy(int change);
/* The same as tosc__ceph_busy(1). False: the process ends, and librados with it. */
bool tosc__ceph_enter(void);
/* TOSC_ENOMEM, or TOSC_ESYSTEM if that was why. */
int tosc__ceph_no_memory(const char *what);
/* Waits for what is being made or closed, but no longer than the deadline. */
void tosc__ceph_wait_idle(int64_t deadline);

/* How often this process is a child of a fork. */
unsigned tosc__ceph_forks(void);

/*
 * Runs `job(arg)` in a thread of its own, all signals blocked, that nobody joins. False:
 * no thread could be made.
 */
bool tosc__ceph_spawn(void *(*job)(void *arg), void *arg);

/* TOSC_EINTR, with its message. */
int tosc__ceph_interrupted(void);
/* As tosc__sleep_on(), within a limit. TOSC_ETIMEDOUT (without a message) at its end. */
int tosc__ceph_sleep(int fd, const struct tosc__ceph_limit *limit);

#endif
