/*
 * Telling programs what has changed.
 *
 * A Hub belongs to one Manager and has its watches. Whoever moved the Manager to another
 * version publishes the paths that changed. Each watch takes those that concern it into its
 * `pending` set, where several changes become one until somebody looks: the program, which the
 * watch's eventfd has told (readable exactly while something is pending, or the watch is
 * over), or the hub's thread, the teller, which calls the watch's function. The teller is a
 * thread of its own, not the watcher: a function that takes long keeps neither the Manager
 * from fetching what is new nor other watches from being told, and one that is still running
 * when the interpreter ends is a thread that knows nothing of Python.
 *
 * One mutex for each hub guards all of it. It is never held while a function of the program
 * runs, nor while anything is waited for. Where it is taken, Python's lock may be held; the
 * other way round never.
 *
 * References: a Hub is held by its Manager, by each watch and by the teller, a Watch by its
 * owner, by calls that use it and by the teller while it calls. A fork gives the child new
 * descriptors and no teller: hub_renew() starts one, when the child first uses the Manager.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "telling.h"

#include "core/clock.h"
#include "core/error.h"
#include "core/fork.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FLAGS (EFD_CLOEXEC | EFD_NONBLOCK)

struct Watch {
    Hub *hub;
    Watch *next; /* of the hub */
    Watch *previous;
    Watch *due_next; /* of those whose functions are to be called */
    int refs;        /* atomic */
    bool due;
    bool ended;
    char *path; /* NULL: everything */
    tosc_change_fn fn;
    tosc_manager *manager;
    void *arg;
    void (*call)(tosc_change_fn, tosc_manager *, const tosc_change *, void *);
    int fd;     /* -1 with a function */
    int64_t at; /* the version told last */
    PathSet pending;
    int64_t version; /* of what is pending */
    bool own;
    PathSet told; /* belongs to whoever was told, until the next time */
    tosc_change change;
};

struct Hub {
    struct tosc__fork_node fork;
    pthread_mutex_t mutex;
    pthread_cond_t work; /* the teller has something to do */
    pthread_cond_t idle; /* a function has returned */
    int refs;
    unsigned generation; /* counts forks */
    bool closed;
    Watch *first; /* in the order in which they were made */
    Watch *last;
    size_t callbacks; /* watches with a function */
    Watch *due_first;
    Watch *due_last;
    bool has_teller;
    pthread_t teller;
    Watch
        *running;  /* the one whose function the teller is in; it has a reference of it */
    Watch *orphan; /* in a child: the one that was running in the parent */
};

/* In a teller: the watch whose function is running. */
static _Thread_local Watch *telling;

/* All tellers that have not ended. A leaf: nothing is locked under it. */
static pthread_mutex_t tellers_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t tellers_idle = PTHREAD_COND_INITIALIZER;
static int tellers_busy; /* functions that are running, guarded by tellers_mutex */

/* ---- hubs ---- */

static Hub *
hub_of(struct tosc__fork_node *node)
{
    return (Hub *)((char *)node - offsetof(Hub, fork));
}

static void
freeze(struct tosc__fork_node *node)
{
    pthread_mutex_lock(&hub_of(node)->mutex);
}

static void
thaw(struct tosc__fork_node *node)
{
    pthread_mutex_unlock(&hub_of(node)->mutex);
}

/* The descriptors were shared with the parent: others take their numbers. */
static void
renew_fd(Watch *watch)
{
    bool readable = !pathset_is_empty(&watch->pending) || watch->hub->closed;
    close(watch->fd); /* first, so that it works with a full table */
    int fd = eventfd(readable, FLAGS);
    if (fd >= 0 && fd != watch->fd) {
        dup3(fd, watch->fd, O_CLOEXEC);
        close(fd);
    }
}

static void
renew(struct tosc__fork_node *node)
{
    Hub *hub = hub_of(node);
    for (Watch *watch = hub->first; watch != NULL; watch = watch->next) {
        if (watch->fd >= 0) {
            renew_fd(watch);
        }
    }
    hub->generation++;
    hub->refs -= hub->has_teller && hub->refs > 1;
    hub->has_teller = false;
    hub->orphan = hub->running;
    hub->running = NULL;
    tellers_busy = 0;
    pthread_mutex_init(&tellers_mutex, NULL);
    pthread_cond_init(&hub->work, NULL);
    pthread_cond_init(&hub->idle, NULL);
    pthread_mutex_unlock(&hub->mutex);
}

Hub *
hub_new(void)
{
    Hub *hub = calloc(1, sizeof(*hub));
    if (hub != NULL) {
        hub->refs = 1;
        hub->fork.freeze = freeze;
        hub->fork.thaw = thaw;
        hub->fork.renew = renew;
        pthread_mutex_init(&hub->mutex, NULL);
        pthread_cond_init(&hub->work, NULL);
        pthread_cond_init(&hub->idle, NULL);
        tosc__fork_add(&hub->fork);
    }
    return hub;
}

void
hub_unref(Hub *hub)
{
    pthread_mutex_lock(&hub->mutex);
    bool last = --hub->refs == 0;
    pthread_mutex_unlock(&hub->mutex);
    if (last) {
        tosc__fork_remove(&hub->fork);
        pthread_cond_destroy(&hub->work);
        pthread_cond_destroy(&hub->idle);
        pthread_mutex_destroy(&hub->mutex);
        free(hub);
    }
}

bool
hub_is_used(Hub *hub)
{
    pthread_mutex_lock(&hub->mutex);
    bool used = hub->first != NULL || hub->running != NULL;
    pthread_mutex_unlock(&hub->mutex);
    return used;
}

/* ---- watches ---- */

static Watch *
watch_make(const WatchOptions *options)
{
    Watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return NULL;
    }
    watch->refs = 1;
    watch->fd = -1;
    watch->fn = options->fn;
    watch->manager = options->manager;
    watch->arg = options->arg;
    watch->call = options->call;
    watch->at = options->version;
    if (options->path != NULL) {
        watch->path = strdup(options->path + (options->path[0] == '/'));
        if (watch->path == NULL) {
            free(watch);
            return NULL;
        }
    }
    return watch;
}

static void
watch_destroy(Watch *watch)
{
    if (watch->fd >= 0) {
        close(watch->fd);
    }
    pathset_clear(&watch->pending);
    pathset_clear(&watch->told);
    free(watch->path);
    free(watch);
}

Watch *
watch_ref(Watch *watch)
{
    __atomic_add_fetch(&watch->refs, 1, __ATOMIC_RELAXED);
    return watch;
}

void
watch_unref(Watch *watch)
{
    if (__atomic_sub_fetch(&watch->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        Hub *hub = watch->hub;
        watch_destroy(watch);
        hub_unref(hub);
    }
}

int
watch_fd(const Watch *watch)
{
    return watch->fd;
}

bool
watch_is_called_back(const Watch *watch)
{
    return watch->fn != NULL;
}

bool
watch_is_telling(void)
{
    return telling != NULL;
}

/* The mutex is held. */
static void
ring(const Watch *watch)
{
    const uint64_t one = 1;
    if (watch->fd >= 0) {
        ssize_t ignored = write(watch->fd, &one, sizeof(one));
        (void)ignored;
    }
}

static void
silence(const Watch *watch)
{
    uint64_t count;
    ssize_t ignored = read(watch->fd, &count, sizeof(count));
    (void)ignored;
}

/* What is pending becomes what is told. The mutex is held. */
static const tosc_change *
take_pending(Watch *watch)
{
    pathset_clear(&watch->told);
    watch->told = watch->pending;
    watch->pending = (PathSet){0};
    watch->change = (tosc_change){
        .version = watch->version,
        .before = watch->at,
        .own = watch->own,
        .all = watch->told.all,
        .paths = (const char *const *)watch->told.items,
        .path_count = watch->told.count,
    };
    watch->at = watch->version;
    return &watch->change;
}

/* ---- publishing ---- */

/* True: something of it concerns the watch. */
static bool
add_news(Watch *watch, const PathSet *news)
{
    bool some = news->all;
    if (news->all) {
        pathset_add_all(&watch->pending);
    }
    for (size_t i = 0; i < news->count; i++) {
        if (watch->path == NULL || path_concerns(watch->path, news->items[i])) {
            pathset_add(&watch->pending, news->items[i], strlen(news->items[i]));
            some = true;
        }
    }
    return some;
}

static void
make_due(Hub *hub, Watch *watch)
{
    if (watch->fn == NULL || watch->due) {
        return;
    }
    watch->due = true;
    watch->due_next = NULL;
    if (hub->due_last != NULL) {
        hub->due_last->due_next = watch;
    } else {
        hub->due_first = watch;
    }
    hub->due_last = watch;
}

void
hub_publish(Hub *hub, const PathSet *news, int64_t version, bool own)
{
    pthread_mutex_lock(&hub->mutex);
    for (Watch *watch = hub->first; watch != NULL; watch = watch->next) {
        bool first = pathset_is_empty(&watch->pending);
        if (!add_news(watch, news)) {
            continue;
        }
        watch->own = own && (first || watch->own);
        watch->version = version;
        make_due(hub, watch);
        if (first) {
            ring(watch);
        }
    }
    bool wake = hub->due_first != NULL && hub->running == NULL;
    pthread_mutex_unlock(&hub->mutex);
    if (wake) {
        pthread_cond_signal(&hub->work); /* the caller has a reference */
    }
}

/* ---- calling ---- */

/* The next watch to tell, with a reference; NULL: the end, or this is another process. */
static Watch *
next_due(Hub *hub, unsigned generation)
{
    while (!hub->closed && hub->generation == generation && hub->due_first == NULL) {
        pthread_cond_wait(&hub->work, &hub->mutex);
    }
    if (hub->closed || hub->generation != generation) {
        return NULL;
    }
    Watch *watch = hub->due_first;
    hub->due_first = watch->due_next;
    if (hub->due_first == NULL) {
        hub->due_last = NULL;
    }
    watch->due = false;
    return watch_ref(watch);
}

static void
count_busy(int change)
{
    pthread_mutex_lock(&tellers_mutex);
    tellers_busy += change;
    if (change < 0) {
        pthread_cond_broadcast(&tellers_idle);
    }
    pthread_mutex_unlock(&tellers_mutex);
}

static void
call(Watch *watch, const tosc_change *change)
{
    telling = watch;
    watch->call(watch->fn, watch->manager, change, watch->arg);
    telling = NULL;
}

/* False: the function has forked, and this is the child's only thread. */
static bool
tell(Hub *hub, Watch *watch, unsigned generation)
{
    const tosc_change *change = take_pending(watch);
    hub->running = watch;
    count_busy(1);
    pthread_mutex_unlock(&hub->mutex);
    call(watch, change);
    pthread_mutex_lock(&hub->mutex);
    if (hub->generation != generation) {
        return false;
    }
    hub->running = NULL;
    pthread_cond_broadcast(&hub->idle);
    pthread_mutex_unlock(&hub->mutex);
    count_busy(-1);
    watch_unref(watch);
    pthread_mutex_lock(&hub->mutex);
    return true;
}

static void *
teller_main(void *arg)
{
    Hub *hub = arg;
    Watch *watch;
    pthread_mutex_lock(&hub->mutex);
    unsigned generation = hub->generation;
    while ((watch = next_due(hub, generation)) != NULL) {
        if (!tell(hub, watch, generation)) {
            break;
        }
    }
    bool mine = hub->generation == generation;
    pthread_mutex_unlock(&hub->mutex);
    if (mine) {
        hub_unref(hub);
    }
    return NULL;
}

/* Signals are for other threads. The mutex is held. 0 or an errno. */
static int
start_teller(Hub *hub)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&hub->teller, NULL, teller_main, hub);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        hub->has_teller = true;
        hub->refs++;
    }
    return error;
}

void
hub_renew(Hub *hub)
{
    pthread_mutex_lock(&hub->mutex);
    Watch *orphan = hub->orphan;
    hub->orphan = NULL;
    if (hub->callbacks > 0 && !hub->has_teller && !hub->closed) {
        start_teller(hub); /* without memory for a thread: nothing is told */
    }
    pthread_mutex_unlock(&hub->mutex);
    if (orphan != NULL && orphan != telling) {
        watch_unref(orphan);
    }
}

/* ---- beginning and ending ---- */

static int
open_fd(Watch *watch)
{
    if (watch->fn == NULL) {
        watch->fd = eventfd(0, FLAGS);
        if (watch->fd < 0) {
            return tosc__fail_errno(errno, NULL, "a descriptor for a watch");
        }
    }
    return 0;
}

/* The mutex is held. */
static int
enlist(Hub *hub, Watch *watch)
{
    if (watch->fn != NULL && !hub->has_teller) {
        int error = start_teller(hub);
        if (error != 0) {
            return tosc__fail_errno(error, NULL, "a thread for callbacks");
        }
    }
    watch->hub = hub;
    hub->refs++;
    hub->callbacks += watch->fn != NULL;
    watch->previous = hub->last;
    *(hub->last != NULL ? &hub->last->next : &hub->first) = watch;
    hub->last = watch;
    return 0;
}

int
watch_new(Hub *hub, const WatchOptions *options, Watch **ret)
{
    if (options->path != NULL && !path_is_valid(options->path)) {
        return tosc__fail(TOSC_EINVAL, "path: in a path, ~ has to be followed by 0 or 1");
    }
    Watch *watch = watch_make(options);
    if (watch == NULL) {
        return tosc__fail(TOSC_ENOMEM, "no memory for a watch");
    }
    int status = open_fd(watch);
    if (status == 0) {
        pthread_mutex_lock(&hub->mutex);
        status = enlist(hub, watch);
        pthread_mutex_unlock(&hub->mutex);
    }
    if (status < 0) {
        watch_destroy(watch);
        return status;
    }
    *ret = watch;
    return 0;
}

static void
leave_due(Hub *hub, Watch *watch)
{
    if (!watch->due) {
        return;
    }
    Watch *before = NULL;
    Watch **link = &hub->due_first;
    while (*link != watch) {
        before = *link;
        link = &before->due_next;
    }
    *link = watch->due_next;
    if (hub->due_last == watch) {
        hub->due_last = before;
    }
    watch->due = false;
}

void
watch_end(Watch *watch)
{
    Hub *hub = watch->hub;
    pthread_mutex_lock(&hub->mutex);
    if (!watch->ended) {
        watch->ended = true;
        leave_due(hub, watch);
        hub->callbacks -= watch->fn != NULL;
        *(watch->previous != NULL ? &watch->previous->next : &hub->first) = watch->next;
        *(watch->next != NULL ? &watch->next->previous : &hub->last) = watch->previous;
        ring(watch);
    }
    while (hub->running == watch && telling != watch) {
        pthread_cond_wait(&hub->idle, &hub->mutex);
    }
    pthread_mutex_unlock(&hub->mutex);
}

void
hub_close(Hub *hub, bool wait)
{
    pthread_mutex_lock(&hub->mutex);
    hub->closed = true;
    for (Watch *watch = hub->first; watch != NULL; watch = watch->next) {
        ring(watch);
    }
    bool ending = hub->has_teller;
    bool inside = telling != NULL && telling == hub->running;
    pthread_t teller = hub->teller;
    hub->has_teller = false;
    pthread_cond_signal(&hub->work);
    pthread_mutex_unlock(&hub->mutex);
    if (ending && wait && !inside) {
        pthread_join(teller, NULL);
    } else if (ending) {
        pthread_detach(teller);
    }
}

void
hubs_wait(void)
{
    pthread_mutex_lock(&tellers_mutex);
    while (tellers_busy > (telling != NULL)) {
        pthread_cond_wait(&tellers_idle, &tellers_mutex);
    }
    pthread_mutex_unlock(&tellers_mutex);
}

/* ---- asking ---- */

/* 1, 0 or a status, without waiting. */
static int
take(Watch *watch, const tosc_change **ret)
{
    int status = 0;
    pthread_mutex_lock(&watch->hub->mutex);
    bool freed = watch->ended;
    if (watch->hub->closed || freed) {
        status = TOSC_ECLOSED;
    } else if (!pathset_is_empty(&watch->pending)) {
        silence(watch);
        *ret = take_pending(watch);
        status = 1;
    }
    pthread_mutex_unlock(&watch->hub->mutex);
    return status == TOSC_ECLOSED
               ? tosc__fail(status, freed ? "the watch was freed meanwhile"
                                          : "the Manager that was watched is closed")
               : status;
}

/* 1: perhaps; 0: the time is over; or a status. */
static int
wait_for_ring(const Watch *watch, int64_t deadline)
{
    struct pollfd poller = {.fd = watch->fd, .events = POLLIN};
    int64_t left = deadline - tosc__now();
    if (left <= 0) {
        return 0;
    }
    struct timespec limit = tosc__timespec(left);
    int ready = ppoll(&poller, 1, deadline == TOSC__FOR_EVER ? NULL : &limit, NULL);
    if (ready >= 0) {
        return 1;
    }
    return errno == EINTR ? tosc__fail(TOSC_EINTR, "a signal ended the wait for a change")
                          : tosc__fail_errno(errno, NULL, "waiting for a change");
}

int
watch_next(Watch *watch, int64_t timeout_ms, const tosc_change **ret)
{
    if (watch->fn != NULL) {
        return tosc__fail(TOSC_EINVAL, "watch: its changes are told to its callback");
    }
    int64_t deadline = timeout_ms == 0 ? 0 : tosc__deadline(timeout_ms);
    for (;;) {
        int status = take(watch, ret);
        if (status == 0 && timeout_ms != 0) {
            status = wait_for_ring(watch, deadline);
            if (status > 0) {
                continue;
            }
        }
        return status;
    }
}
