/*
 * Being told of changes.
 *
 * What is told and when is the business of src/py/watching.c and telling.c; here are the
 * handles. They are not those of handle.c, which Python's lock guards: an event loop that asks
 * what has changed should not have to wait for a script. So watches have a table of their own,
 * with a mutex, of slots that are used again under another generation. Their handles are even
 * numbers, so that neither kind is taken for the other.
 *
 * Whatever waits (for a change, for a callback to return) lets Python's lock go if the thread
 * has it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/host.h"

#include "host/life.h"

#include "core/fork.h"
#include "py/watching.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- handles ---- */

#define HALF_BITS (sizeof(uintptr_t) * 4)
#define SLOTS_MOST (((uintptr_t)1 << (HALF_BITS - 1)) - 2)
#define NO_SLOT SIZE_MAX

typedef struct Slot {
    Watch *watch; /* a reference; NULL: free */
    uintptr_t generation;
} Slot;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static Slot *slots;
static size_t slot_count;
static size_t slot_room;
static size_t first_unused; /* none below it is free */

static void
freeze(struct tosc__fork_node *Py_UNUSED(node))
{
    pthread_mutex_lock(&mutex);
}

static void
thaw(struct tosc__fork_node *Py_UNUSED(node))
{
    pthread_mutex_unlock(&mutex);
}

static struct tosc__fork_node fork_node = {.freeze = freeze, .thaw = thaw, .renew = thaw};
static pthread_once_t forks_noted = PTHREAD_ONCE_INIT;

static void
note_forks(void)
{
    tosc__fork_add(&fork_node);
}

/* A free slot, the mutex held; NO_SLOT: no memory. */
static size_t
find_free(void)
{
    size_t i = first_unused;
    while (i < slot_count && slots[i].watch != NULL) {
        i++;
    }
    if (i == slot_room) {
        size_t room = slot_room == 0 ? 16 : 2 * slot_room;
        Slot *grown = room > SLOTS_MOST ? NULL : realloc(slots, room * sizeof(*grown));
        if (grown == NULL) {
            return NO_SLOT;
        }
        slots = grown;
        slot_room = room;
    }
    if (i == slot_count) {
        slots[slot_count++] = (Slot){.generation = 1};
    }
    first_unused = i;
    return i;
}

/* Takes over the reference, but not on failure. */
static int
slot_add(Watch *watch, tosc_watch **ret)
{
    pthread_mutex_lock(&mutex);
    size_t i = find_free();
    if (i != NO_SLOT) {
        slots[i].watch = watch;
        first_unused = i + 1;
        uintptr_t bits = slots[i].generation << HALF_BITS | (uintptr_t)(i + 1) << 1;
        *ret = (tosc_watch *)bits; // NOLINT: never followed
    }
    pthread_mutex_unlock(&mutex);
    return i == NO_SLOT ? tosc__fail(TOSC_ENOMEM, "no memory for one more watch") : 0;
}

/* The slot of a handle that is good, the mutex held; else NULL. */
static Slot *
slot_of(const tosc_watch *handle)
{
    uintptr_t bits = (uintptr_t)handle;
    uintptr_t low = bits & (((uintptr_t)1 << HALF_BITS) - 1);
    if (low < 2 || (low & 1) != 0 || low / 2 > slot_count) {
        return NULL;
    }
    Slot *slot = &slots[low / 2 - 1];
    return slot->watch != NULL && slot->generation == bits >> HALF_BITS ? slot : NULL;
}

static Watch *
tell_bad(const tosc_watch *handle)
{
    if (handle == NULL) {
        tosc__fail(TOSC_EINVAL, "watch is NULL");
    } else {
        tosc__fail(TOSC_EINVAL, "watch is not one, or was freed");
    }
    return NULL;
}

/* A new reference, or NULL, and told. */
static Watch *
watch_of(const tosc_watch *handle)
{
    pthread_mutex_lock(&mutex);
    const Slot *slot = slot_of(handle);
    Watch *watch = slot != NULL ? watch_ref(slot->watch) : NULL;
    pthread_mutex_unlock(&mutex);
    return watch != NULL ? watch : tell_bad(handle);
}

/* The slot's reference, which is free then. */
static Watch *
slot_take(const tosc_watch *handle)
{
    Watch *watch = NULL;
    pthread_mutex_lock(&mutex);
    Slot *slot = slot_of(handle);
    if (slot != NULL) {
        watch = slot->watch;
        slot->watch = NULL;
        slot->generation = (slot->generation + 1) & (UINTPTR_MAX >> HALF_BITS);
        if ((size_t)(slot - slots) < first_unused) {
            first_unused = (size_t)(slot - slots);
        }
    }
    pthread_mutex_unlock(&mutex);
    return watch != NULL ? watch : tell_bad(handle);
}

/* ---- Python's lock ---- */

/* Lets it go if this thread has it: what take_back() needs. */
static PyThreadState *
let_go(void)
{
    PyThreadState *current = tosc_current_state();
    return current != NULL && current == PyGILState_GetThisThreadState()
               ? PyEval_SaveThread()
               : NULL;
}

static void
take_back(PyThreadState *state)
{
    if (state != NULL) {
        PyEval_RestoreThread(state);
    }
}

/* ---- the functions ---- */

/* A callback has returned with scopes that it had not left: else Python's lock would be gone. */
static void
unwind(HostThread *thread)
{
    HostThread outside = *thread;
    outside.depth = 0;
    outside.counted = 0;
    outside.paused = false;
    outside.scope = NULL;
    host_unwind(thread, &outside);
    PyEval_SaveThread();
}

/* From inside a callback nothing is stopped or closed that would wait for it. */
static void
call_back(tosc_change_fn fn, tosc_manager *manager, const tosc_change *change, void *arg)
{
    HostThread *thread = host_thread();
    thread->callbacks++;
    fn(manager, change, arg);
    if (thread->scope != NULL) {
        unwind(thread);
    }
    thread->callbacks--;
}

static void
end_watch(Watch *watch)
{
    PyThreadState *state = let_go();
    watch_end(watch);
    take_back(state);
}

static int
new_watch(tosc_manager *manager, WatchOptions *options, tosc_watch **ret)
{
    PyObject *object = handle_get(manager, HANDLE_MANAGER, "manager");
    Watch *watch;
    if (object == NULL) {
        return TOSC_EINVAL;
    }
    Py_INCREF(object);
    int status = watching_add((Manager *)object, options, &watch);
    if (status == -1 && PyErr_Occurred()) {
        status = host_failed();
    }
    Py_DECREF(object);
    if (status < 0) {
        return status;
    }
    status = slot_add(watch, ret);
    if (status < 0) {
        end_watch(watch);
        watch_unref(watch);
    }
    return status;
}

int
tosc_watch_new(tosc_manager *manager, const char *path, tosc_change_fn fn, void *arg,
               tosc_watch **ret)
{
    HostEntry entry;
    if (ret == NULL) {
        return tosc__fail(TOSC_EINVAL, "ret is NULL");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    pthread_once(&forks_noted, note_forks);
    WatchOptions options = {
        .path = path, .fn = fn, .manager = manager, .arg = arg, .call = call_back};
    return host_leave(&entry, new_watch(manager, &options, ret));
}

tosc_watch *
tosc_watch_free(tosc_watch *handle)
{
    Watch *watch = handle == NULL ? NULL : slot_take(handle);
    if (watch != NULL) {
        end_watch(watch);
        watch_unref(watch);
    }
    return NULL;
}

int
tosc_watch_fd(tosc_watch *handle)
{
    Watch *watch = watch_of(handle);
    int fd = -1;
    if (watch != NULL) {
        fd = watch_fd(watch);
        watch_unref(watch);
    }
    return fd;
}

int
tosc_watch_next(tosc_watch *handle, int64_t timeout_ms, const tosc_change **ret)
{
    if (ret == NULL) {
        return tosc__fail(TOSC_EINVAL, "ret is NULL");
    }
    Watch *watch = watch_of(handle);
    if (watch == NULL) {
        return TOSC_EINVAL;
    }
    PyThreadState *state = timeout_ms == 0 ? NULL : let_go();
    int status = watch_next(watch, timeout_ms, ret);
    take_back(state);
    watch_unref(watch);
    return status;
}

/* ---- the end ---- */

/* Any watch that has not ended; a new reference, or NULL. `from` moves on. */
static Watch *
next_watch(size_t *from)
{
    Watch *watch = NULL;
    pthread_mutex_lock(&mutex);
    while (watch == NULL && *from < slot_count) {
        watch = slots[*from].watch;
        ++*from;
    }
    if (watch != NULL) {
        watch_ref(watch);
    }
    pthread_mutex_unlock(&mutex);
    return watch;
}

void
watches_stop(void)
{
    size_t i = 0;
    Watch *watch;
    while ((watch = next_watch(&i)) != NULL) {
        end_watch(watch);
        watch_unref(watch);
    }
}
