/*
 * The control block.
 *
 * Fields are published under a sequence that is odd while they change. Every store of a
 * field is a release and every load an acquire, so a reader that sees a new field also
 * sees the odd sequence before it; no fences are needed. Readers never wait for a writer:
 * after a few tries they go to the data file instead.
 *
 * `dirty` is the writer's own mark. It is set before the first byte of the data file
 * changes and cleared when the result is published, so whoever takes the lock and finds
 * it set knows that its last holder died in between.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/control.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#define TRIES 100

#define LOAD(field) __atomic_load_n(&control->field, __ATOMIC_ACQUIRE)
#define STORE(field, value) __atomic_store_n(&control->field, (value), __ATOMIC_RELEASE)

static_assert(offsetof(struct tosc__control, sequence) == 24, "documented layout");
static_assert(offsetof(struct tosc__control, device) == 32, "documented layout");
static_assert(offsetof(struct tosc__control, tail) == 96, "documented layout");
static_assert(offsetof(struct tosc__control, waiters) == 128, "documented layout");

static const unsigned char magic[8] = {'T', 'O', 'S', 'C', 'l', 'c', 'k', '1'};

static uint64_t
magic_word(void)
{
    uint64_t word;

    memcpy(&word, magic, sizeof(word));
    return word;
}

bool
tosc__control_is_magic(const unsigned char bytes[8])
{
    return memcmp(bytes, magic, sizeof(magic)) == 0;
}

bool
tosc__control_usable(const struct tosc__control *control, const uint8_t boot_id[16])
{
    uint64_t words[2];

    memcpy(words, boot_id, sizeof(words));
    return LOAD(magic) == magic_word() && LOAD(boot_id[0]) == words[0]
           && LOAD(boot_id[1]) == words[1];
}

bool
tosc__control_is_dirty(const struct tosc__control *control)
{
    return LOAD(dirty) != 0;
}

bool
tosc__control_read(const struct tosc__control *control, struct tosc__state *ret)
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t before = LOAD(sequence);
        struct tosc__state state;
        uint64_t id[2];

        if (before % 2 != 0) {
            continue;
        }
        state.device = LOAD(device);
        state.inode = LOAD(inode);
        id[0] = LOAD(store_id[0]);
        id[1] = LOAD(store_id[1]);
        state.generation = LOAD(generation);
        state.version = LOAD(version);
        state.base_version = LOAD(base_version);
        state.base_end = LOAD(base_end);
        state.tail = LOAD(tail);
        state.file_size = LOAD(file_size);
        if (LOAD(sequence) == before) {
            memcpy(state.store_id, id, sizeof(id));
            state.stored = state.version != 0;
            *ret = state;
            return true;
        }
    }
    return false;
}

void
tosc__control_begin(struct tosc__control *control)
{
    STORE(dirty, 1);
}

void
tosc__control_publish(struct tosc__control *control, const uint8_t boot_id[16],
                      const struct tosc__state *state)
{
    uint32_t sequence = LOAD(sequence) | 1;
    uint64_t words[2];

    STORE(sequence, sequence);
    memcpy(words, boot_id, sizeof(words));
    STORE(boot_id[0], words[0]);
    STORE(boot_id[1], words[1]);
    STORE(device, state->device);
    STORE(inode, state->inode);
    memcpy(words, state->store_id, sizeof(words));
    STORE(store_id[0], words[0]);
    STORE(store_id[1], words[1]);
    STORE(generation, state->generation);
    STORE(base_version, state->base_version);
    STORE(base_end, state->base_end);
    STORE(tail, state->tail);
    STORE(file_size, state->file_size);
    STORE(version, state->version);
    STORE(magic, magic_word());
    STORE(sequence, sequence + 1);
    STORE(dirty, 0);
}

void
tosc__control_advance(struct tosc__control *control, int64_t version, uint64_t tail,
                      uint64_t file_size)
{
    uint32_t sequence = LOAD(sequence) | 1;

    STORE(sequence, sequence);
    STORE(tail, tail);
    STORE(file_size, file_size);
    STORE(version, version);
    STORE(sequence, sequence + 1);
    STORE(dirty, 0);
}
