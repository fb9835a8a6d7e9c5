/*
 * What some lines of an access log add up to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOGSTAT_TALLY_H
#define LOGSTAT_TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TALLY_LINES = 5000, /* no more in one tally */
    TALLY_PATHS = 512,  /* different ones */
    TALLY_PATH_SIZE = 128,
    TALLY_LAST = 10,       /* lines that are kept, */
    TALLY_LAST_SIZE = 160, /* cut to that */
    TALLY_STATUSES = 600,
    TALLY_BINS = 1184
};

typedef struct TallyPath {
    char path[TALLY_PATH_SIZE];
    int64_t count; /* 0: the place is free */
} TallyPath;

typedef struct Tally {
    int64_t lines;
    int64_t malformed;
    int64_t bytes;
    int64_t statuses[TALLY_STATUSES];
    int64_t bins[TALLY_BINS]; /* how many answers took how long: see tally_bin */
    size_t path_count;
    TallyPath paths[TALLY_PATHS];           /* found by hash */
    char last[TALLY_LAST][TALLY_LAST_SIZE]; /* line n stands in place n % TALLY_LAST */
} Tally;

void tally_clear(Tally *tally);
/* Counts one line, without its end. */
void tally_add(Tally *tally, const char *line);
/* True: it can take no more. */
bool tally_is_full(const Tally *tally);

/*
 * Times are counted in bins that are 3 % wide: one for each number of microseconds below 32,
 * then 32 for each doubling. So percentiles can be had from counts that are added up, with an
 * error of 1.6 % at most.
 */
int tally_bin(int64_t us); /* not negative */
/* The middle of a bin. */
int64_t tally_bin_us(int bin);

#endif
