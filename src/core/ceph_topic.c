/*
 * Topics: a Manager's backend and another backend object for the same RADOS object hear
 * of changes each by a notice of its own. A program that is told of a change by the one
 * expects to see it through the other. So whatever one of them finds is kept here, and
 * asked for by all: that costs no operation.
 *
 * What is kept goes forward; back only by a look that began after it was set, which is
 * how a store that was made anew or put back is noticed.
 *
 * One mutex for all topics, innermost. It is held for copying a few words.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/ceph_topic.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/fork.h"
#include "core/sys.h"

struct tosc__ceph_topic {
    int refs;
    bool known;
    tosc_position at;
    uint64_t serial;
    struct tosc__ceph_topic *next;
    char name[];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards all topics */
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static struct tosc__ceph_topic *topics;

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

/* Frozen after the backends, which are added later. */
static struct tosc__fork_node fork_node = {.freeze = freeze, .thaw = thaw, .renew = thaw};

static void
prepare(void)
{
    tosc__fork_add(&fork_node);
}

struct tosc__ceph_topic *
tosc__ceph_topic_get(const char *name)
{
    struct tosc__ceph_topic *topic;
    size_t size = strlen(name) + 1;

    pthread_once(&prepared, prepare);
    pthread_mutex_lock(&mutex);
    for (topic = topics; topic != NULL && strcmp(topic->name, name) != 0;
         topic = topic->next) {
    }
    if (topic == NULL) {
        topic = tosc__sys.malloc(sizeof(*topic) + size);
        if (topic != NULL) {
            *topic = (struct tosc__ceph_topic){.next = topics};
            memcpy(topic->name, name, size);
            topics = topic;
        }
    }
    if (topic != NULL) {
        topic->refs++;
    }
    pthread_mutex_unlock(&mutex);
    return topic;
}

void
tosc__ceph_topic_unref(struct tosc__ceph_topic *topic)
{
    struct tosc__ceph_topic **at = &topics;

    if (topic == NULL) {
        return;
    }
    pthread_mutex_lock(&mutex);
    if (--topic->refs == 0) {
        while (*at != topic) {
            at = &(*at)->next;
        }
        *at = topic->next;
        free(topic);
    }
    pthread_mutex_unlock(&mutex);
}

uint64_t
tosc__ceph_topic_serial(struct tosc__ceph_topic *topic)
{
    uint64_t serial;

    pthread_mutex_lock(&mutex);
    serial = topic->serial;
    pthread_mutex_unlock(&mutex);
    return serial;
}

static bool
is_same_store(const tosc_position *a, const tosc_position *b)
{
    return a->stored && b->stored
           && memcmp(a->store_id, b->store_id, sizeof(a->store_id)) == 0;
}

void
tosc__ceph_topic_tell(struct tosc__ceph_topic *topic, const tosc_position *at,
                      uint64_t serial)
{
    pthread_mutex_lock(&mutex);
    if (!topic->known || serial == topic->serial
        || (is_same_store(at, &topic->at) && at->version > topic->at.version)) {
        topic->known = true;
        topic->at = *at;
        topic->serial++;
    }
    pthread_mutex_unlock(&mutex);
}

bool
tosc__ceph_topic_has_left(struct tosc__ceph_topic *topic, const tosc_position *known)
{
    bool left;

    pthread_mutex_lock(&mutex);
    if (!topic->known) {
        left = false;
    } else if (is_same_store(&topic->at, known)) {
        left = topic->at.version > known->version;
    } else {
        left = topic->at.stored || known->stored;
    }
    pthread_mutex_unlock(&mutex);
    return left;
}
