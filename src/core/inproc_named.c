/*
 * In-process stores with names, which is how parts of a program find the same one by URI.
 *
 * The registry holds one reference to the store behind each name, and counts the backends
 * that were given out for it. Such a backend is a handle of its own over the store's
 * implementation, with the store's operations; only its end is different: it takes itself
 * off the count, and the last one takes the name out and drops the store. So a name and
 * its store come and go under one mutex, and nobody can find a store that is ending.
 *
 * The mutex is never held while a store is made or dropped: these take the mutex of
 * fork.c, which comes before ours.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <tosc/backend.h>

#include "core/error.h"
#include "core/fork.h"
#include "core/sys.h"

struct named {
    tosc_backend *store;
    size_t users; /* the backends that were given out */
    struct named *next;
    char name[];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards `first`, the nodes */
static struct named *first;

static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static struct tosc_backend_ops named_ops; /* constant once `prepared` */

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

static struct tosc__fork_node fork_node = {.freeze = freeze, .thaw = thaw, .renew = thaw};

static void
forget(struct named *named)
{
    if (named != NULL) {
        tosc_backend_unref(named->store);
        free(named);
    }
}

static void
named_destroy(void *impl)
{
    struct named **link = &first;
    struct named *gone = NULL;

    pthread_mutex_lock(&mutex);
    while (tosc_backend_impl((*link)->store) != impl) {
        link = &(*link)->next;
    }
    if (--(*link)->users == 0) {
        gone = *link;
        *link = gone->next;
    }
    pthread_mutex_unlock(&mutex);
    forget(gone);
}

static void
prepare(void)
{
    tosc__fork_add(&fork_node);
}

static int
no_memory(void)
{
    return tosc__fail(TOSC_ENOMEM, "not enough memory for a store in memory");
}

static int
named_new(const char *name, struct named **ret)
{
    size_t size = strlen(name) + 1;
    struct named *named = tosc__sys.malloc(sizeof(*named) + size);
    int status;

    if (named == NULL) {
        return no_memory();
    }
    named->users = 0;
    memcpy(named->name, name, size);
    status = tosc_backend_inproc_new(&named->store);
    if (status != 0) {
        free(named);
        return status;
    }
    *ret = named;
    return 0;
}

static struct named *
find(const char *name)
{
    struct named *named = first;

    while (named != NULL && strcmp(named->name, name) != 0) {
        named = named->next;
    }
    return named;
}

/* With the mutex held. The operations are those of any in-process store but for the end. */
static tosc_backend *
give_out(struct named *named)
{
    tosc_backend *backend;

    if (named_ops.size == 0) {
        named_ops = *tosc_backend_ops(named->store);
        named_ops.destroy = named_destroy;
    }
    backend = tosc_backend_new(&named_ops, tosc_backend_impl(named->store));
    named->users += backend != NULL;
    return backend;
}

int
tosc_backend_inproc_named(const char *name, tosc_backend **ret)
{
    struct named *spare = NULL;
    struct named *named;
    tosc_backend *backend;
    int status;

    if (name == NULL || name[0] == '\0') {
        return tosc__fail(TOSC_EINVAL, "a named store in memory needs a name");
    }
    pthread_once(&prepared, prepare);
    status = named_new(name, &spare);
    if (status != 0) {
        return status;
    }
    pthread_mutex_lock(&mutex);
    named = find(name);
    backend = give_out(named != NULL ? named : spare);
    if (named == NULL && backend != NULL) {
        spare->next = first;
        first = spare;
        spare = NULL;
    }
    pthread_mutex_unlock(&mutex);
    forget(spare);
    if (backend == NULL) {
        return no_memory();
    }
    *ret = backend;
    return 0;
}
