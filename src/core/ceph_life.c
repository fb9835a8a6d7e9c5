/*
 * The life of a Ceph backend: its links, fork, the end.
 *
 * A link is made when it is needed, and given up when the cluster shuts the connection
 * out or the process forks; whatever is needed next makes another one. The child of a
 * fork forgets the link, the watch and the lock without a word to librados: its parent
 * has them. At the end the watch is dropped and the link closed by other threads; the end
 * of the last backend waits for them a little, so that a program that goes on to exit
 * leaves none running.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/ceph_backend.h"
#include "core/error.h"
#include "core/fileio.h"
#include "core/sys.h"

#define END_NS (TOSC__SECOND / 2)
/*
 * Handlers of signals run in the midst of a Manager's operation only if it takes so long:
 * what they may do there is less than after it (change the same Manager, for one).
 */
#define HEED_NS (TOSC__SECOND / 4)

/* Backends that there are; atomic. */
static int live;

struct tosc__ceph_limit
tosc__ceph_limit(const struct tosc__ceph *be, const tosc_event *stop, bool *pending)
{
    return (struct tosc__ceph_limit){.deadline = tosc__now() + be->timeout_ns,
                                     .stop = stop,
                                     .heed_ns = HEED_NS,
                                     .pending = pending};
}

/* ---- links ---- */

/* A reference to the link that we have, if it can be used. */
static struct tosc__ceph_link *
present_link(struct tosc__ceph *be)
{
    struct tosc__ceph_link *unusable = NULL;
    struct tosc__ceph_link *link;

    pthread_mutex_lock(&be->mutex);
    if (be->link != NULL && !tosc__ceph_link_is_usable(be->link)) {
        unusable = be->link;
        be->link = NULL;
    }
    link = tosc__ceph_link_ref(be->link);
    pthread_mutex_unlock(&be->mutex);
    tosc__ceph_link_unref(unusable);
    return link;
}

int
tosc__ceph_link(struct tosc__ceph *be, const struct tosc__ceph_limit *limit,
                struct tosc__ceph_link **ret)
{
    struct tosc__ceph_limit connect = *limit;
    struct tosc__ceph_link *link = present_link(be);
    int status;

    if (link != NULL) {
        *ret = link;
        return 0;
    }
    if (connect.deadline - tosc__now() > be->connect_ns) {
        connect.deadline = tosc__now() + be->connect_ns;
    }
    status = tosc__ceph_link_open(&be->who, be->pool, be->name_space, be->where, &connect,
                                  &link);
    if (status != 0) {
        return status;
    }
    pthread_mutex_lock(&be->mutex);
    if (be->link == NULL) {
        be->link = tosc__ceph_link_ref(link);
    }
    pthread_mutex_unlock(&be->mutex);
    *ret = link;
    return 0;
}

int
tosc__ceph_check_pool(struct tosc__ceph *be, struct tosc__ceph_link *link,
                      const struct tosc__ceph_limit *limit)
{
    int status = tosc__ceph_link_check_pool(link, be->pool, be->where, limit);

    if (status != 0 && !tosc__ceph_link_is_usable(link)) {
        status = tosc__ceph_link(be, limit, &link);
        if (status == 0) {
            tosc__ceph_link_unref(link);
        }
    }
    return status;
}

void
tosc__ceph_shut_out(struct tosc__ceph *be, struct tosc__ceph_link *link)
{
    tosc__ceph_link_break(link);
    tosc__ceph_link_unref(present_link(be));
    tosc__ceph_disturb(be);
}

/* ---- fork ---- */

static struct tosc__ceph *
of_node(struct tosc__fork_node *node)
{
    return (struct tosc__ceph *)((char *)node - offsetof(struct tosc__ceph, node));
}

static void
freeze(struct tosc__fork_node *node)
{
    pthread_mutex_lock(&of_node(node)->mutex);
}

static void
thaw(struct tosc__fork_node *node)
{
    pthread_mutex_unlock(&of_node(node)->mutex);
}

static void
init_cond(struct tosc__ceph *be)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&be->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void
free_idle(struct tosc__ceph *be)
{
    while (be->idle != NULL) {
        struct tosc__ceph_waiter *waiter = be->idle;

        be->idle = waiter->next;
        close(waiter->fd);
        free(waiter);
    }
    be->idle_count = 0;
}

/* So that parent and child are told apart. */
static void
mix_in_process(struct tosc__ceph *be)
{
    uint32_t process = (uint32_t)getpid();

    for (size_t i = 0; i < sizeof(process); i++) {
        be->sender[i] ^= (uint8_t)(process >> 8 * i);
    }
}

/* The child: the link is told apart by its fork count when it is next looked at. */
static void
renew(struct tosc__fork_node *node)
{
    struct tosc__ceph *be = of_node(node);

    be->watch = NULL;
    be->events++;
    be->notices = NULL;
    /* Their eventfds are the parent's too: who reads one takes the other's wake-up. */
    while (be->waiting != NULL) {
        close(be->waiting->fd);
        be->waiting = be->waiting->next;
    }
    free_idle(be);
    be->gate = (struct tosc__gate){.word = 0};
    be->renew_at = 0;
    be->notice_at = 0;
    be->has_keeper = false;
    mix_in_process(be);
    init_cond(be);
    pthread_mutex_unlock(&be->mutex);
}

/* ---- beginning and end ---- */

static bool
copy(char **to, const char *from)
{
    *to = from != NULL ? strdup(from) : NULL;
    return from == NULL || *to != NULL;
}

static void
clear(struct tosc__ceph *be)
{
    if (be->who.key != NULL) {
        explicit_bzero(be->who.key, strlen(be->who.key));
    }
    free(be->who.client);
    free(be->who.key);
    free(be->who.keyring);
    free(be->who.conf);
    free(be->who.mon_host);
    free(be->pool);
    free(be->object);
    free(be->name_space);
    free(be->where);
    tosc__ceph_topic_unref(be->topic);
    free(be);
}

/* Who names the same store in the same way shares its topic. */
static struct tosc__ceph_topic *
find_topic(const tosc_ceph_options *options)
{
    const char *parts[] = {options->conf, options->mon_host, options->pool,
                           options->name_space, options->object};
    struct tosc__ceph_topic *topic;
    size_t room = 1;
    size_t used = 0;
    char *name;

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        room += parts[i] != NULL ? strlen(parts[i]) + 24 : 24;
    }
    name = tosc__sys.malloc(room);
    if (name == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const char *part = parts[i] != NULL ? parts[i] : "";

        used +=
            (size_t)snprintf(name + used, room - used, "%zu:%s\n", strlen(part), part);
    }
    topic = tosc__ceph_topic_get(name);
    free(name);
    return topic;
}

static bool
fill(struct tosc__ceph *be, const tosc_ceph_options *options)
{
    size_t room = strlen(options->pool) + strlen(options->object) + 2;

    be->where = tosc__sys.malloc(room);
    if (be->where == NULL) {
        return false;
    }
    snprintf(be->where, room, "%s/%s", options->pool, options->object);
    be->who.connect_timeout_s = options->connect_timeout_s;
    be->max_retries = options->max_retries;
    be->connect_ns = options->connect_timeout_s * TOSC__SECOND;
    be->timeout_ns = options->timeout_s * TOSC__SECOND;
    be->lease_ms = options->lease_s * INT64_C(1000);
    be->poll_ns = options->poll_ms * TOSC__MS;
    return copy(&be->who.client, options->client) && copy(&be->who.key, options->key)
           && copy(&be->who.keyring, options->keyring)
           && copy(&be->who.conf, options->conf)
           && copy(&be->who.mon_host, options->mon_host) && copy(&be->pool, options->pool)
           && copy(&be->object, options->object)
           && copy(&be->name_space, options->name_space)
           && (be->topic = find_topic(options)) != NULL;
}

int
tosc__ceph_new(const tosc_ceph_options *options, struct tosc__ceph **ret)
{
    struct tosc__ceph *be = tosc__sys.malloc(sizeof(*be));
    struct tosc__ceph_limit limit = {.stop = NULL};
    int status;

    if (be != NULL) {
        *be = (struct tosc__ceph){.pool = NULL};
    }
    if (be == NULL || !fill(be, options)) {
        if (be != NULL) {
            clear(be);
        }
        return tosc__fail(TOSC_ENOMEM, "not enough memory for a Ceph backend");
    }
    limit.deadline = tosc__now() + be->connect_ns;
    status = tosc__random(be->sender, sizeof(be->sender));
    if (status == 0) {
        status = tosc__ceph_link_open(&be->who, be->pool, be->name_space, be->where,
                                      &limit, &be->link);
    }
    if (status != 0) {
        clear(be);
        return status;
    }
    pthread_mutex_init(&be->mutex, NULL);
    init_cond(be);
    be->node = (struct tosc__fork_node){.freeze = freeze, .thaw = thaw, .renew = renew};
    tosc__fork_add(&be->node);
    __atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
    *ret = be;
    return 0;
}

void
tosc__ceph_destroy(void *impl)
{
    struct tosc__ceph *be = impl;

    tosc__fork_remove(&be->node);
    tosc__ceph_end_keeper(be);
    tosc__ceph_watch_drop(be->watch);
    tosc__ceph_notices_unref(be->notices);
    tosc__ceph_link_unref(be->link);
    free_idle(be);
    pthread_cond_destroy(&be->changed);
    pthread_mutex_destroy(&be->mutex);
    clear(be);
    if (__atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED) == 0) {
        tosc__ceph_wait_idle(tosc__now() + END_NS);
    }
}

#endif
