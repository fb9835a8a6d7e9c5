/*
 * Handles.
 *
 * A handle is a number that looks like a pointer: the lowest bit is set, so that it can never
 * be the address of an object; above it stand the number of a slot and the slot's generation.
 * A slot holds one reference. Giving it back counts its generation up, so that a handle that
 * is used too late is recognised and never followed. A slot whose generations are used up is
 * retired. Slots live in chunks that are never moved nor freed; free ones are in a list, the
 * last freed first.
 *
 * An owned handle counts its owners. A lent one has none: it ends with the scope (scope.c) in
 * whose chain it stands, or with the iterator that made it, and cannot be given back by the
 * user. What a scope only keeps alive (the text behind a borrowed pointer) is a slot of kind
 * HANDLE_KEPT in the same chain, of which nobody is told the handle.
 *
 * All of this is guarded by Python's lock. Releasing a reference may run Python code that
 * comes back here, so it is always the last thing that is done to a slot.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/host.h"

#include "host/managers.h"
#include "host/values.h"

#include <stdlib.h>

/* ---- slots ---- */

#if UINTPTR_MAX > 0xffffffffu
#define SLOT_BITS 31
#else
#define SLOT_BITS 20
#endif
#define GENERATION_SHIFT (SLOT_BITS + 1)
#define GENERATION_MAX (UINTPTR_MAX >> GENERATION_SHIFT)
#define SLOT_MAX (((uintptr_t)1 << SLOT_BITS) - 1)

#define CHUNK_BITS 9
#define CHUNK_SLOTS (1u << CHUNK_BITS)

typedef struct Slot {
    PyObject *object; /* NULL: free, or retired */
    uint32_t generation;
    uint32_t owners; /* 0: lent */
    uint32_t next;   /* in the list of free slots, or in a scope's chain */
    uint8_t kind;
} Slot;

static Slot **chunks;
static uint32_t chunk_count;
static uint32_t chunk_room;
static uint32_t first_free = CHAIN_END;
static size_t in_use;

static inline Slot *
slot_at(uint32_t number)
{
    return &chunks[number >> CHUNK_BITS][number & (CHUNK_SLOTS - 1)];
}

static inline void *
handle_of(uint32_t number, const Slot *slot)
{
    uintptr_t bits =
        (uintptr_t)slot->generation << GENERATION_SHIFT | (uintptr_t)number << 1 | 1;
    return (void *)bits; // NOLINT: never followed
}

static inline uint32_t
number_of(const void *handle)
{
    return (uint32_t)((uintptr_t)handle >> 1 & SLOT_MAX);
}

/* The slot of a handle that is good, else NULL. */
static inline Slot *
slot_of(const void *handle)
{
    uintptr_t bits = (uintptr_t)handle;
    uint32_t number = number_of(handle);
    if ((bits & 1) == 0 || number >> CHUNK_BITS >= chunk_count) {
        return NULL;
    }
    Slot *slot = slot_at(number);
    bool good = slot->generation == bits >> GENERATION_SHIFT && slot->object != NULL;
    return good ? slot : NULL;
}

static int
add_chunk(void)
{
    if (((uintptr_t)chunk_count + 1) << CHUNK_BITS >= SLOT_MAX) {
        return -1;
    }
    if (chunk_count == chunk_room) {
        uint32_t room = chunk_room == 0 ? 16 : 2 * chunk_room;
        Slot **grown = realloc(chunks, room * sizeof(*grown));
        if (grown == NULL) {
            return -1;
        }
        chunks = grown;
        chunk_room = room;
    }
    Slot *chunk = calloc(CHUNK_SLOTS, sizeof(*chunk));
    if (chunk == NULL) {
        return -1;
    }
    uint32_t first = chunk_count << CHUNK_BITS;
    chunks[chunk_count++] = chunk;
    for (uint32_t i = CHUNK_SLOTS; i-- > 0;) {
        chunk[i].generation = 1;
        chunk[i].next = first_free;
        first_free = first + i;
    }
    return 0;
}

/* A slot for a reference that is taken over, also on failure; NULL is told. */
static Slot *
slot_take(int kind, PyObject *object, uint32_t *ret_number)
{
    if (first_free == CHAIN_END && add_chunk() < 0) {
        tosc__fail(TOSC_ENOMEM, "no memory for one more handle");
        Py_DECREF(object);
        return NULL;
    }
    uint32_t number = first_free;
    Slot *slot = slot_at(number);
    first_free = slot->next;
    slot->object = object;
    slot->owners = 0;
    slot->next = CHAIN_END;
    slot->kind = (uint8_t)kind;
    in_use++;
    *ret_number = number;
    return slot;
}

/* Frees it; the reference is the caller's then. */
static PyObject *
slot_free(uint32_t number, Slot *slot)
{
    PyObject *object = slot->object;
    slot->object = NULL;
    in_use--;
    if (slot->generation < GENERATION_MAX) {
        slot->generation++;
        slot->next = first_free;
        first_free = number;
    }
    return object;
}

/* What was in a slot goes, and with it perhaps its Manager. */
static void
release(PyObject *object)
{
    Manager *kept = managers_kept > 0 ? manager_kept_by(object) : NULL;
    Py_DECREF(object);
    if (kept != NULL) {
        manager_given_back(kept);
    }
}

/* ---- handles ---- */

static const char *
kind_name(int kind)
{
    static const char *const names[] = {"nothing",       "a value",     "a Manager",
                                        "a transaction", "an iterator", "a watch"};
    return kind >= 0 && kind <= HANDLE_WATCH ? names[kind] : names[0];
}

void *
handle_new(enum handle_kind kind, PyObject *object)
{
    uint32_t number;
    Slot *slot = slot_take(kind, object, &number);
    if (slot == NULL) {
        return NULL;
    }
    slot->owners = 1;
    return handle_of(number, slot);
}

void *
handle_lend(enum handle_kind kind, PyObject *object)
{
    uint32_t number;
    Slot *slot = slot_take(kind, object, &number);
    return slot != NULL ? handle_of(number, slot) : NULL;
}

static void __attribute__((noinline, cold))
tell_bad(const void *handle, enum handle_kind kind, const char *what)
{
    const Slot *slot = slot_of(handle);
    if (handle == NULL) {
        tosc__fail(TOSC_EINVAL, "%s is NULL", what);
    } else if (((uintptr_t)handle & 1) == 0) {
        tosc__fail(TOSC_EINVAL, "%s is not a handle", what);
    } else if (slot != NULL && slot->kind != HANDLE_KEPT) {
        tosc__fail(TOSC_EINVAL, "%s is a handle of %s, not of %s", what,
                   kind_name(slot->kind), kind_name((int)kind));
    } else {
        tosc__fail(TOSC_EINVAL,
                   "%s is not valid any more: it was given back, or was borrowed and its "
                   "time is over",
                   what);
    }
}

PyObject *
handle_get(const void *handle, enum handle_kind kind, const char *what)
{
    const Slot *slot = slot_of(handle);
    if (slot == NULL || slot->kind != kind) {
        tell_bad(handle, kind, what);
        return NULL;
    }
    return slot->object;
}

bool
handle_ref(void *handle, enum handle_kind kind)
{
    Slot *slot = slot_of(handle);
    if (slot == NULL || slot->kind != kind || slot->owners == 0
        || slot->owners == UINT32_MAX) {
        return false;
    }
    slot->owners++;
    return true;
}

bool
handle_unref(void *handle, enum handle_kind kind)
{
    Slot *slot = slot_of(handle);
    if (slot == NULL || slot->kind != kind) {
        tell_bad(handle, kind, "the handle");
        return false;
    }
    if (slot->owners == 0) {
        tosc__fail(TOSC_EINVAL, "the handle is borrowed: it is not to be given back");
        return false;
    }
    if (--slot->owners == 0) {
        release(slot_free(number_of(handle), slot));
    }
    return true;
}

void
handle_end(void *handle)
{
    Slot *slot = slot_of(handle);
    if (slot != NULL) {
        release(slot_free(number_of(handle), slot));
    }
}

void *
handle_replace(void *handle, PyObject *object)
{
    Slot *slot = slot_of(handle);
    if (slot == NULL || slot->generation == GENERATION_MAX) {
        int kind = slot != NULL ? slot->kind : HANDLE_VALUE;
        handle_end(handle);
        return handle_lend((enum handle_kind)kind, object);
    }
    PyObject *before = slot->object;
    slot->object = object;
    slot->generation++;
    void *result = handle_of(number_of(handle), slot);
    release(before);
    return result;
}

bool
handle_holds(bool (*holds)(PyObject *object, const void *of), const void *of)
{
    static uint32_t latest; /* for which it held */
    uint32_t count = chunk_count << CHUNK_BITS;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = (latest + i) % count;
        const Slot *slot = slot_at(number);
        if (slot->object != NULL && slot->kind == HANDLE_VALUE
            && holds(slot->object, of)) {
            latest = number;
            return true;
        }
    }
    return false;
}

size_t
handle_count(void)
{
    return in_use;
}

void
values_stop(void)
{
    names_drop();
    for (uint32_t number = 0; number >> CHUNK_BITS < chunk_count; number++) {
        Slot *slot = slot_at(number);
        if (slot->object != NULL) {
            Py_DECREF(slot_free(number, slot));
        }
    }
}

/* ---- chains ---- */

void *
chain_add(uint32_t *chain, int kind, PyObject *object)
{
    uint32_t number;
    Slot *slot = slot_take(kind, object, &number);
    if (slot == NULL) {
        return NULL;
    }
    slot->next = *chain;
    *chain = number;
    return handle_of(number, slot);
}

void
chain_drop(uint32_t chain)
{
    while (chain != CHAIN_END) {
        Slot *slot = slot_at(chain);
        uint32_t next = slot->next;
        release(slot_free(chain, slot));
        chain = next;
    }
}

/* ---- values ---- */

int
value_return(PyObject *object, tosc_value **ret)
{
    if (object == NULL) {
        return host_failed();
    }
    void *handle = handle_new(HANDLE_VALUE, object);
    if (handle == NULL) {
        return TOSC_ENOMEM;
    }
    *ret = handle;
    return 0;
}

int
value_return_borrowed(HostThread *thread, PyObject *object, tosc_value **ret)
{
    if (object == NULL) {
        return host_failed();
    }
    void *handle = handle_borrow(thread, HANDLE_VALUE, object);
    if (handle == NULL) {
        return thread->scope == NULL ? TOSC_EINVAL : TOSC_ENOMEM;
    }
    *ret = handle;
    return 0;
}

tosc_value *
tosc_value_ref(tosc_value *value)
{
    HostEntry entry;
    if (value == NULL || host_enter(&entry) < 0) {
        return NULL;
    }
    tosc_value *result = NULL;
    PyObject *object = value_get(value, "value");
    int status = object != NULL ? value_return(Py_NewRef(object), &result) : TOSC_EINVAL;
    host_leave(&entry, status);
    return result;
}

tosc_value *
tosc_value_unref(tosc_value *value)
{
    HostEntry entry;
    if (value != NULL && host_enter(&entry) == 0) {
        handle_unref(value, HANDLE_VALUE);
        host_leave(&entry, 0);
    }
    return NULL;
}
