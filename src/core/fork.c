/*
 * fork(): a list of the objects that have something to do then.
 *
 * A child shares open file descriptions with its parent. If it kept the one that holds a
 * store's lock, the lock would stay taken after the parent's death; so a child drops such
 * descriptors at once, in pthread_atfork's handler, and not when it first uses the
 * object.
 *
 * Lock order: this list's mutex before any mutex that a freeze takes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/fork.h"

#include <pthread.h>
#include <stddef.h>

static pthread_mutex_t mutex =
    PTHREAD_MUTEX_INITIALIZER; /* guards `first` and the links */
static pthread_once_t installed = PTHREAD_ONCE_INIT;
static struct tosc__fork_node *first;

static void
before(void)
{
    pthread_mutex_lock(&mutex);
    for (struct tosc__fork_node *node = first; node != NULL; node = node->next) {
        node->freeze(node);
    }
}

static void
after_in_parent(void)
{
    for (struct tosc__fork_node *node = first; node != NULL; node = node->next) {
        node->thaw(node);
    }
    pthread_mutex_unlock(&mutex);
}

static void
after_in_child(void)
{
    for (struct tosc__fork_node *node = first; node != NULL; node = node->next) {
        node->renew(node);
    }
    pthread_mutex_unlock(&mutex);
}

static void
install(void)
{
    pthread_atfork(before, after_in_parent, after_in_child);
}

void
tosc__fork_install(void)
{
    pthread_once(&installed, install);
}

void
tosc__fork_add(struct tosc__fork_node *node)
{
    tosc__fork_install();
    pthread_mutex_lock(&mutex);
    node->previous = NULL;
    node->next = first;
    if (first != NULL) {
        first->previous = node;
    }
    first = node;
    pthread_mutex_unlock(&mutex);
}

void
tosc__fork_remove(struct tosc__fork_node *node)
{
    pthread_mutex_lock(&mutex);
    if (node->previous != NULL) {
        node->previous->next = node->next;
    } else {
        first = node->next;
    }
    if (node->next != NULL) {
        node->next->previous = node->previous;
    }
    pthread_mutex_unlock(&mutex);
}
