/*
 * The control block: what all users of a store on one machine share through the mapped
 * lock file. docs/file-format.md has its layout. Private to core.
 */
#ifndef TOSC_CORE_CONTROL_H
#define TOSC_CORE_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#define TOSC__CONTROL_SIZE 4096
#define TOSC__CONTROL_POKE_AT 4095

/* What a data file holds up to its last whole record. */
struct tosc__state {
    bool stored; /* false: nothing, and the rest is zero */
    uint64_t device;
    uint64_t inode;
    uint8_t store_id[16];
    uint64_t generation;
    int64_t version;
    int64_t base_version;
    uint64_t base_end;
    uint64_t tail;
    uint64_t file_size;
};

/* Lies in the mapping; all fields are atomic. */
struct tosc__control {
    uint64_t magic;
    uint64_t boot_id[2];
    uint32_t sequence;
    uint32_t dirty;
    uint64_t device;
    uint64_t inode;
    uint64_t store_id[2];
    uint64_t generation;
    int64_t version;
    int64_t base_version;
    uint64_t base_end;
    uint64_t tail;
    uint64_t file_size;
    uint64_t spare[2];
    uint64_t waiters; /* epoch << 32 | number */
};

/* Whether `bytes`, the first eight of a lock file, are the block's magic. */
bool tosc__control_is_magic(const unsigned char bytes[8]);

/* Whether the block is one of this boot. */
bool tosc__control_usable(const struct tosc__control *control, const uint8_t boot_id[16]);
/* Whether the last writer died before it could publish. */
bool tosc__control_is_dirty(const struct tosc__control *control);

/* What was published last; false if a writer that died (or is slow) left it unstable. */
bool tosc__control_read(const struct tosc__control *control, struct tosc__state *ret);

/* Only the lock's holder calls these. */
void
tosc__control_begin(struct tosc__control *control); /* before the data file changes */
void tosc__control_publish(struct tosc__control *control, const uint8_t boot_id[16],
                           const struct tosc__state *state);
/* The same after an append, which moves only these. */
void tosc__control_advance(struct tosc__control *control, int64_t version, uint64_t tail,
                           uint64_t file_size);

/* Whether the store is at this version of this store; version 0: nothing is stored. */
static inline bool
tosc__control_is_at(const struct tosc__control *control, int64_t version,
                    const uint64_t store_id[2])
{
    return __atomic_load_n(&control->version, __ATOMIC_ACQUIRE) == version
           && __atomic_load_n(&control->store_id[0], __ATOMIC_RELAXED) == store_id[0]
           && __atomic_load_n(&control->store_id[1], __ATOMIC_RELAXED) == store_id[1];
}

/* The version, if the block is about this store, else 0. */
static inline int64_t
tosc__control_version_of(const struct tosc__control *control, const uint64_t store_id[2])
{
    int64_t version = __atomic_load_n(&control->version, __ATOMIC_ACQUIRE);

    return __atomic_load_n(&control->store_id[0], __ATOMIC_RELAXED) == store_id[0]
                   && __atomic_load_n(&control->store_id[1], __ATOMIC_RELAXED)
                          == store_id[1]
               ? version
               : 0;
}

#endif
