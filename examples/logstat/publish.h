/*
 * The statistics in the store.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOGSTAT_PUBLISH_H
#define LOGSTAT_PUBLISH_H

#include <stdint.h>

#include "tally.h"

/* Up to where a log was counted: which file, how many bytes of it. Inode 0: none yet. */
typedef struct Position {
    int64_t inode;
    int64_t offset;
} Position;

bool same_position(Position a, Position b);

/* Starts the library, opens the store; gives the position in it. 0 or a negative code. */
int publish_open(const char *uri, const char *log, Position *ret);
void publish_close(void);

enum { PUBLISH_OVERTAKEN = 1 };

/*
 * Adds the tally, which has counted what lies between *published and `at`. 0, and *published
 * is `at`; PUBLISH_OVERTAKEN: the store is not at *published any more, nothing was added, and
 * *published is where it is; a negative code: nothing was added. `published` NULL: positions
 * do not matter.
 */
int publish_tally(const Tally *tally, Position *published, Position at);

#endif
