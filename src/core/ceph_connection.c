/*
 * Connections to Ceph clusters.
 *
 * There is one connection for each cluster and identity in a process, in a list, counted;
 * it is shut down when its last link goes. What librados cannot do in a bounded time
 * (connecting, finding a pool, shutting down) is done by threads that can be given up:
 * each shares a counted object with whoever waits for it, and cleans up after itself if
 * he has gone. All signals are blocked in them, and so in the threads that librados makes
 * there: signals are for the program's threads, whose waits they are to end.
 *
 * After a fork the child forgets its parent's connections without touching them, as
 * librados would hang: what they hold is leaked, and the next use connects anew.
 *
 * Time limits are kept by whoever waits, not by librados, as one connection serves
 * backends with different ones. librados is told to look often whether something that
 * does not answer is still there, and has limits of its own far beyond ours as a last
 * resort.
 *
 * The key is in the connection's identity and nowhere else; no message contains it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include "core/ceph_connection.h"
#include "core/ceph_failures.h"

#include <errno.h>
#include <pthread.h>
#include <rados/librados.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/fileio.h"
#include "core/fork.h"
#include "core/lock.h"
#include "core/sys.h"

#define LAST_RESORT_S "3700"
#define EXIT_NS (TOSC__SECOND / 2)
#define RETRY_NS (TOSC__SECOND / 2)

struct connection {
    int refs;          /* guarded by the list's mutex */
    bool listed;       /* the same */
    int broken;        /* atomic */
    tosc_event *ready; /* set when the fields below are final */
    struct tosc__ceph_identity identity;
    rados_t cluster; /* NULL: not connected */
    int error;       /* errno, 0: connected */
    enum tosc__ceph_stage stage;
    struct connection *next;
};

struct tosc__ceph_link {
    int refs; /* atomic */
    unsigned forks;
    struct connection *connection;
    rados_ioctx_t io;
    int gone; /* atomic: the pool has been deleted */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list, counts */
static struct connection *connections;
static int ending; /* atomic: the process ends, librados is not called any more */
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static pthread_once_t first_connected = PTHREAD_ONCE_INIT;
static unsigned forks;
static int open_count; /* atomic: connections that are not shut down */
static int busy;       /* atomic, futex: what is being made or closed behind the scenes */

/* ---- fork, exit ---- */

static void
freeze(struct tosc__fork_node *node)
{
    (void)node;
    pthread_mutex_lock(&mutex);
}

static void
thaw(struct tosc__fork_node *node)
{
    (void)node;
    pthread_mutex_unlock(&mutex);
}

static void
renew(struct tosc__fork_node *node)
{
    (void)node;
    connections = NULL;
    open_count = 0;
    busy = 0;
    forks++;
    pthread_mutex_unlock(&mutex);
}

static struct tosc__fork_node fork_node = {
    .freeze = freeze, .thaw = thaw, .renew = renew};

unsigned
tosc__ceph_forks(void)
{
    return forks;
}

void
tosc__ceph_wait_idle(int64_t deadline)
{
    int count;

    while ((count = __atomic_load_n(&busy, __ATOMIC_ACQUIRE)) > 0
           && tosc__now() < deadline) {
        tosc__futex_wait(&busy, count, deadline);
    }
}

/* ---- threads and waiting ---- */

bool
tosc__ceph_spawn(void *(*job)(void *arg), void *arg)
{
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, NULL, job, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        pthread_detach(thread);
    }
    return error == 0;
}

int
tosc__ceph_interrupted(void)
{
    return tosc__fail(TOSC_EINTR, "a signal ended the wait for the Ceph cluster");
}

int
tosc__ceph_sleep(int fd, const struct tosc__ceph_limit *limit)
{
    int64_t heed_from = limit->patient ? TOSC__FOR_EVER : limit->heed_from;
    bool pending = false;
    int status = tosc__sleep_heeding(fd, limit->stop, limit->deadline, heed_from,
                                     limit->pending != NULL ? limit->pending : &pending);

    if (status == TOSC_EINTR) {
        return tosc__ceph_interrupted();
    }
    return status == 0 && tosc__now() >= limit->deadline ? TOSC_ETIMEDOUT : status;
}

static int
wait_for(const tosc_event *event, const struct tosc__ceph_limit *limit)
{
    while (!tosc_event_is_set(event)) {
        int status = tosc__ceph_sleep(tosc_event_fd(event), limit);

        if (status != 0 && !tosc_event_is_set(event)) {
            return status;
        }
    }
    return 0;
}

void
tosc__ceph_busy(int change)
{
    __atomic_add_fetch(&busy, change, __ATOMIC_SEQ_CST);
    tosc__futex_wake(&busy, INT32_MAX);
}

/* First one, then the other: at_exit() does it the other way round. */
bool
tosc__ceph_enter(void)
{
    tosc__ceph_busy(1);
    if (__atomic_load_n(&ending, __ATOMIC_SEQ_CST) == 0) {
        return true;
    }
    tosc__ceph_busy(-1);
    return false;
}

int
tosc__ceph_no_memory(const char *what)
{
    if (__atomic_load_n(&ending, __ATOMIC_SEQ_CST) != 0) {
        return tosc__fail_errno(ESHUTDOWN, NULL, "the process is ending, too late for %s",
                                what);
    }
    return tosc__fail(TOSC_ENOMEM, "not enough memory or descriptors for %s", what);
}

static int
no_memory(void)
{
    return tosc__ceph_no_memory("a connection to a Ceph cluster");
}

/* ---- identities ---- */

static void
identity_clear(struct tosc__ceph_identity *identity)
{
    if (identity->key != NULL) {
        explicit_bzero(identity->key, strlen(identity->key));
    }
    free(identity->client);
    free(identity->key);
    free(identity->keyring);
    free(identity->conf);
    free(identity->mon_host);
}

static bool
copy(char **to, const char *from)
{
    *to = from != NULL ? strdup(from) : NULL;
    return from == NULL || *to != NULL;
}

static bool
identity_copy(struct tosc__ceph_identity *to, const struct tosc__ceph_identity *from)
{
    *to = (struct tosc__ceph_identity){.connect_timeout_s = from->connect_timeout_s};
    return copy(&to->client, from->client) && copy(&to->key, from->key)
           && copy(&to->keyring, from->keyring) && copy(&to->conf, from->conf)
           && copy(&to->mon_host, from->mon_host);
}

static bool
same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
same_identity(const struct tosc__ceph_identity *a, const struct tosc__ceph_identity *b)
{
    return same(a->client, b->client) && same(a->key, b->key)
           && same(a->keyring, b->keyring) && same(a->conf, b->conf)
           && same(a->mon_host, b->mon_host);
}

/* ---- connecting; in a thread of its own ---- */

/* What this version of librados does not know is left. */
static void
tune(rados_t cluster, const char *option, const char *value)
{
    (void)rados_conf_set(cluster, option, value);
}

static void
tune_all(rados_t cluster, int connect_timeout_s)
{
    char seconds[16];

    snprintf(seconds, sizeof(seconds), "%d", connect_timeout_s);
    tune(cluster, "client_mount_timeout", seconds);
    tune(cluster, "rados_mon_op_timeout", seconds);
    tune(cluster, "rados_osd_op_timeout", LAST_RESORT_S);
    tune(cluster, "objecter_timeout", "1");
    tune(cluster, "objecter_tick_interval", "0.5");
    /* Submitting must not wait for earlier operations to be answered. */
    tune(cluster, "objecter_inflight_ops", "65536");
    tune(cluster, "objecter_inflight_op_bytes", "4294967296");
    /* A library does not print. */
    tune(cluster, "log_to_stderr", "false");
    tune(cluster, "err_to_stderr", "false");
}

static int
configure(struct connection *c, rados_t cluster)
{
    const struct tosc__ceph_identity *who = &c->identity;
    int rc = 0;

    c->stage = TOSC__CEPH_CONF;
    if (who->conf != NULL || who->mon_host == NULL) {
        rc = rados_conf_read_file(cluster, who->conf);
    }
    if (rc < 0) {
        return rc;
    }
    c->stage = TOSC__CEPH_OPTION;
    tune_all(cluster, who->connect_timeout_s);
    if (who->mon_host != NULL) {
        rc = rados_conf_set(cluster, "mon_host", who->mon_host);
    }
    if (rc == 0 && who->keyring != NULL) {
        rc = rados_conf_set(cluster, "keyring", who->keyring);
    }
    if (rc == 0 && who->key != NULL) {
        rc = rados_conf_set(cluster, "key", who->key);
        if (rc == 0 && who->keyring == NULL) {
            rc = rados_conf_set(cluster, "keyring", "");
        }
    }
    return rc;
}

static int
connect_cluster(struct connection *c)
{
    char name[256];
    rados_t cluster;
    int rc;

    c->stage = TOSC__CEPH_OPTION;
    if (snprintf(name, sizeof(name), "client.%s", c->identity.client)
        >= (int)sizeof(name)) {
        return -ENAMETOOLONG;
    }
    rc = rados_create2(&cluster, "ceph", name, 0);
    if (rc < 0) {
        return rc;
    }
    rc = configure(c, cluster);
    if (rc == 0) {
        c->stage = TOSC__CEPH_CONNECT;
        rc = rados_connect(cluster);
    }
    if (rc < 0) {
        rados_shutdown(cluster);
        return rc;
    }
    c->cluster = cluster;
    __atomic_add_fetch(&open_count, 1, __ATOMIC_RELAXED);
    return 0;
}

static void
disconnect(struct connection *c)
{
    rados_shutdown(c->cluster);
    __atomic_sub_fetch(&open_count, 1, __ATOMIC_RELEASE);
}

/* With the mutex. */
static void
delist(struct connection *c)
{
    struct connection **at = &connections;

    if (c->listed) {
        while (*at != c) {
            at = &(*at)->next;
        }
        *at = c->next;
        c->listed = false;
    }
}

static void
connection_free(struct connection *c)
{
    if (c->cluster != NULL) {
        disconnect(c);
    }
    identity_clear(&c->identity);
    tosc_event_free(c->ready);
    free(c);
}

static void *
free_main(void *arg)
{
    connection_free(arg);
    tosc__ceph_busy(-1);
    return NULL;
}

/*
 * The last reference has it shut down by another thread: that takes a while, and the
 * caller may be one of librados's own threads, which would wait for itself.
 */
static void
connection_unref(struct connection *c)
{
    bool last;

    pthread_mutex_lock(&mutex);
    last = --c->refs == 0;
    if (last) {
        delist(c);
    }
    pthread_mutex_unlock(&mutex);
    if (last && c->cluster == NULL) {
        connection_free(c);
    } else if (last) {
        tosc__ceph_busy(1);
        if (!tosc__ceph_spawn(free_main, c)) {
            tosc__ceph_busy(-1); /* then it stays connected */
        }
    }
}

/* ---- the end of the process ---- */

static void *
end_main(void *arg)
{
    disconnect(arg);
    tosc__ceph_busy(-1);
    return NULL;
}

/* Shuts down what is connected, for ever: who has it keeps a struct without use. */
static void
end_connections(void)
{
    pthread_mutex_lock(&mutex);
    while (connections != NULL) {
        struct connection *c = connections;

        delist(c);
        c->refs++;
        __atomic_store_n(&c->broken, 1, __ATOMIC_RELAXED);
        if (c->cluster != NULL) {
            tosc__ceph_busy(1);
            if (!tosc__ceph_spawn(end_main, c)) {
                tosc__ceph_busy(-1);
            }
        }
    }
    pthread_mutex_unlock(&mutex);
}

static int flushed; /* atomic, futex */

static void *
flush_main(void *arg)
{
    fflush(NULL);
    __atomic_store_n(&flushed, 1, __ATOMIC_RELEASE);
    tosc__futex_wake(&flushed, INT32_MAX);
    return arg;
}

/* What exit() would have done; but a thread may have a stream that it reads. */
static void
flush_streams(void)
{
    int64_t deadline = tosc__now() + EXIT_NS;

    if (tosc__ceph_spawn(flush_main, NULL)) {
        while (__atomic_load_n(&flushed, __ATOMIC_ACQUIRE) == 0
               && tosc__now() < deadline) {
            tosc__futex_wait(&flushed, 0, deadline);
        }
    }
}

/*
 * exit() takes away, piece by piece, what librados's threads work with: OpenSSL's state,
 * its own static objects. So none must be left. If one is, the process ends here.
 */
static void
at_exit(int status, void *arg)
{
    (void)arg;
    tosc__ceph_wait_idle(tosc__now() + TOSC__CEPH_REST_NS);
    __atomic_store_n(&ending, 1, __ATOMIC_SEQ_CST);
    tosc__ceph_wait_idle(tosc__now() + EXIT_NS);
    if (__atomic_load_n(&busy, __ATOMIC_SEQ_CST) == 0) {
        end_connections();
        tosc__ceph_wait_idle(tosc__now() + EXIT_NS);
    }
    if (__atomic_load_n(&busy, __ATOMIC_SEQ_CST) > 0
        || __atomic_load_n(&open_count, __ATOMIC_ACQUIRE) > 0) {
        flush_streams();
        _exit(status);
    }
}

static void
register_exit(void)
{
    on_exit(at_exit, NULL);
}

static void
prepare(void)
{
    tosc__fork_add(&fork_node);
    register_exit();
}

static void *
connect_main(void *arg)
{
    struct connection *c = arg;
    int rc = connect_cluster(c);

    /* What is registered last is called first; OpenSSL's end is registered meanwhile. */
    pthread_once(&first_connected, register_exit);
    c->error = -rc;
    if (rc < 0) {
        pthread_mutex_lock(&mutex);
        delist(c);
        pthread_mutex_unlock(&mutex);
    }
    tosc_event_set(c->ready);
    connection_unref(c);
    tosc__ceph_busy(-1);
    return NULL;
}

static struct connection *
connection_new(const struct tosc__ceph_identity *identity)
{
    struct connection *c = tosc__sys.malloc(sizeof(*c));

    if (c == NULL) {
        return NULL;
    }
    *c = (struct connection){.refs = 2, .listed = true, .ready = tosc_event_new()};
    if (!identity_copy(&c->identity, identity) || c->ready == NULL) {
        identity_clear(&c->identity);
        tosc_event_free(c->ready);
        free(c);
        return NULL;
    }
    return c;
}

/* With the mutex. No thread could be made that connects it. NULL is accepted. */
static void
give_up(struct connection *c)
{
    if (c != NULL) {
        c->error = EAGAIN;
        delist(c);
        c->refs--;
        tosc_event_set(c->ready);
    }
}

/* One of the list, or a new one that a thread begins to connect. NULL: no memory. */
static struct connection *
connection_get(const struct tosc__ceph_identity *identity)
{
    struct connection *c;

    pthread_once(&prepared, prepare);
    pthread_mutex_lock(&mutex);
    for (c = connections; c != NULL && !same_identity(&c->identity, identity);
         c = c->next) {
    }
    if (c != NULL) {
        c->refs++;
    } else if (tosc__ceph_enter()) {
        c = connection_new(identity);
        if (c != NULL) {
            c->next = connections;
            connections = c;
        }
        if (c == NULL || !tosc__ceph_spawn(connect_main, c)) {
            tosc__ceph_busy(-1);
            give_up(c);
        }
    }
    pthread_mutex_unlock(&mutex);
    return c;
}

/* ---- pools; in a thread of its own ---- */

struct job {
    int refs; /* atomic */
    struct connection *connection;
    char *pool;
    char *name_space;
    tosc_event *done;
    rados_ioctx_t io; /* NULL: none, or somebody has taken it */
    int error;
    bool aligned;
    struct tosc__ceph_link *checked; /* the pool of this one is to be looked for */
};

static void
job_unref(struct job *job)
{
    if (__atomic_sub_fetch(&job->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    if (job->io != NULL) {
        rados_ioctx_destroy(job->io);
    }
    if (job->connection != NULL) {
        connection_unref(job->connection);
    }
    tosc__ceph_link_unref(job->checked);
    free(job->pool);
    free(job->name_space);
    tosc_event_free(job->done);
    free(job);
}

/* Takes the connection's reference, also when it fails. */
static struct job *
job_new(struct connection *c, const char *pool, const char *name_space)
{
    struct job *job = tosc__sys.malloc(sizeof(*job));

    if (job == NULL) {
        if (c != NULL) {
            connection_unref(c);
        }
        return NULL;
    }
    *job = (struct job){.refs = 1, .connection = c, .done = tosc_event_new()};
    if (!copy(&job->pool, pool) || !copy(&job->name_space, name_space)
        || job->done == NULL) {
        job_unref(job);
        return NULL;
    }
    return job;
}

static void *
pool_main(void *arg)
{
    struct job *job = arg;
    int needed = 0;
    int rc = rados_ioctx_create(job->connection->cluster, job->pool, &job->io);

    if (rc < 0) {
        job->io = NULL;
    } else {
        if (job->name_space != NULL) {
            rados_ioctx_set_namespace(job->io, job->name_space);
        }
        /* A full pool is told of at once, by watches as well as by changes. */
        rados_set_pool_full_try(job->io);
        rc = rados_ioctx_pool_requires_alignment2(job->io, &needed);
    }
    job->error = -rc;
    job->aligned = needed != 0;
    tosc_event_set(job->done);
    job_unref(job);
    tosc__ceph_busy(-1);
    return NULL;
}

static void *
check_main(void *arg)
{
    struct job *job = arg;
    char name[1024];
    int rc = rados_ioctx_get_pool_name(job->checked->io, name, sizeof(name));

    job->error = rc == -ENOENT ? ENOENT : 0;
    tosc_event_set(job->done);
    job_unref(job);
    tosc__ceph_busy(-1);
    return NULL;
}

/* Starts a job and waits for it. */
static int
run(struct job *job, void *(*main)(void *), const char *where,
    const struct tosc__ceph_identity *who, const struct tosc__ceph_limit *limit)
{
    int status;

    __atomic_add_fetch(&job->refs, 1, __ATOMIC_RELAXED);
    if (!tosc__ceph_enter()) {
        __atomic_sub_fetch(&job->refs, 1, __ATOMIC_RELAXED);
        return no_memory();
    }
    if (!tosc__ceph_spawn(main, job)) {
        tosc__ceph_busy(-1);
        __atomic_sub_fetch(&job->refs, 1, __ATOMIC_RELAXED);
        return tosc__fail_errno(EAGAIN, where, "cannot make a thread for");
    }
    status = wait_for(job->done, limit);
    return status == TOSC_ETIMEDOUT ? tosc__ceph_unreachable(who, where) : status;
}

static int
pool_failed(const struct job *job, const char *where)
{
    if (job->error == ENOENT) {
        return tosc__fail_errno(ENOENT, where,
                                "the Ceph cluster has no pool named %s (an administrator "
                                "can make it: `ceph osd pool create`), wanted for",
                                job->pool);
    }
    if (job->error == 0) {
        return tosc__fail_errno(
            EOPNOTSUPP, where,
            "pool %s is erasure-coded without overwrites, and a store "
            "needs them: use a replicated pool, or have `ceph osd pool "
            "set %s allow_ec_overwrites true` done, for",
            job->pool, job->pool);
    }
    return tosc__ceph_failed(job->error, &job->connection->identity, where,
                             "looking for the pool of", 0);
}

/* The link that a finished job has made. */
static int
link_of(struct job *job, const char *where, struct tosc__ceph_link **ret)
{
    struct tosc__ceph_link *link;

    if (job->error != 0 || job->aligned) {
        return pool_failed(job, where);
    }
    link = tosc__sys.malloc(sizeof(*link));
    if (link == NULL) {
        return no_memory();
    }
    pthread_mutex_lock(&mutex);
    job->connection->refs++;
    *link = (struct tosc__ceph_link){
        .refs = 1, .forks = forks, .connection = job->connection, .io = job->io};
    pthread_mutex_unlock(&mutex);
    job->io = NULL;
    *ret = link;
    return 0;
}

/*
 * A connection that is ready, with a reference. If one that somebody else began has
 * failed because his time was over, ours need not be.
 */
static int
connect_within(const struct tosc__ceph_identity *identity, const char *where,
               const struct tosc__ceph_limit *limit, struct connection **ret)
{
    for (;;) {
        struct connection *c = connection_get(identity);
        int status;

        if (c == NULL) {
            return no_memory();
        }
        status = wait_for(c->ready, limit);
        if (status == 0 && c->error == 0) {
            *ret = c;
            return 0;
        }
        if (status == TOSC_ETIMEDOUT) {
            status = tosc__ceph_unreachable(&c->identity, where);
        } else if (status == 0) {
            status = tosc__ceph_connect_failed(&c->identity, c->stage, c->error, where);
        }
        connection_unref(c);
        if (status != TOSC_ESYSTEM || tosc_error_errno() != ETIMEDOUT
            || tosc__now() + RETRY_NS > limit->deadline) {
            return status;
        }
    }
}

int
tosc__ceph_link_open(const struct tosc__ceph_identity *identity, const char *pool,
                     const char *name_space, const char *where,
                     const struct tosc__ceph_limit *limit, struct tosc__ceph_link **ret)
{
    struct connection *c = NULL;
    struct job *job;
    int status = connect_within(identity, where, limit, &c);

    if (status != 0) {
        return status;
    }
    job = job_new(c, pool, name_space);
    if (job == NULL) {
        return no_memory();
    }
    status = run(job, pool_main, where, identity, limit);
    if (status == 0) {
        status = link_of(job, where, ret);
    }
    job_unref(job);
    return status;
}

int
tosc__ceph_link_check_pool(struct tosc__ceph_link *link, const char *pool,
                           const char *where, const struct tosc__ceph_limit *limit)
{
    struct job *job = job_new(NULL, pool, NULL);
    int status;

    if (job == NULL) {
        return no_memory();
    }
    job->checked = tosc__ceph_link_ref(link);
    status = run(job, check_main, where, &link->connection->identity, limit);
    if (status == 0 && job->error != 0) {
        __atomic_store_n(&link->gone, 1, __ATOMIC_RELAXED);
        status = pool_failed(job, where);
    }
    job_unref(job);
    return status;
}

/* ---- links ---- */

struct tosc__ceph_link *
tosc__ceph_link_ref(struct tosc__ceph_link *link)
{
    if (link != NULL) {
        __atomic_fetch_add(&link->refs, 1, __ATOMIC_RELAXED);
    }
    return link;
}

struct tosc__ceph_link *
tosc__ceph_link_unref(struct tosc__ceph_link *link)
{
    if (link != NULL && __atomic_sub_fetch(&link->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        if (link->forks == forks) { /* else the rest is our parent's */
            rados_ioctx_destroy(link->io);
            connection_unref(link->connection);
        }
        free(link);
    }
    return NULL;
}

bool
tosc__ceph_link_is_usable(const struct tosc__ceph_link *link)
{
    return link->forks == forks && __atomic_load_n(&link->gone, __ATOMIC_RELAXED) == 0
           && __atomic_load_n(&link->connection->broken, __ATOMIC_RELAXED) == 0;
}

void
tosc__ceph_link_break(struct tosc__ceph_link *link)
{
    __atomic_store_n(&link->connection->broken, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&mutex);
    delist(link->connection);
    pthread_mutex_unlock(&mutex);
}

void *
tosc__ceph_link_io(const struct tosc__ceph_link *link)
{
    return link->io;
}

void *
tosc__ceph_link_cluster(const struct tosc__ceph_link *link)
{
    return link->connection->cluster;
}

#endif
