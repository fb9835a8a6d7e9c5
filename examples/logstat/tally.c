/*
 * Counting lines: see tally.h. Everything that goes into the tally is plain ASCII, whatever
 * the log holds, as clients can write into it what they like.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
tally_clear(Tally *tally)
{
    memset(tally, 0, sizeof *tally);
}

bool
tally_is_full(const Tally *tally)
{
    return tally->lines >= TALLY_LINES || tally->path_count >= TALLY_PATHS / 2;
}

int
tally_bin(int64_t us)
{
    int doublings = 0;
    int bin;
    while (us >> doublings >= 64) {
        doublings++;
    }
    bin = 32 * doublings + (int)(us >> doublings);
    return bin < TALLY_BINS ? bin : TALLY_BINS - 1;
}

int64_t
tally_bin_us(int bin)
{
    int64_t width = bin < 32 ? 1 : (int64_t)1 << (bin / 32 - 1);
    return bin < 32 ? bin : (bin % 32 + 32) * width + width / 2;
}

/* Copies what fits, with "?" for what is not printable ASCII. */
static void
copy_plain(char *to, const char *from, size_t size)
{
    size_t i;
    for (i = 0; i < size - 1 && from[i] != '\0'; i++) {
        to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
    }
    to[i] = '\0';
}

static void
count_path(Tally *tally, const char *path)
{
    uint64_t hash = 14695981039346656037u;
    size_t at;
    for (const char *c = path; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    }
    at = hash % TALLY_PATHS;
    while (tally->paths[at].count > 0 && strcmp(tally->paths[at].path, path) != 0) {
        at = (at + 1) % TALLY_PATHS;
    }
    if (tally->paths[at].count++ == 0) {
        strcpy(tally->paths[at].path, path);
        tally->path_count++;
    }
}

void
tally_add(Tally *tally, const char *line)
{
    char found[TALLY_PATH_SIZE];
    char path[TALLY_PATH_SIZE];
    char size[24];
    int status;
    double seconds;
    const char *request = strchr(line, '"');
    copy_plain(tally->last[tally->lines++ % TALLY_LAST], line, TALLY_LAST_SIZE);
    if (request == NULL
        || sscanf(request, "\"%*[A-Z] %127[^ ?\"]%*[^\"]\" %d %23s %lf", found, &status,
                  size, &seconds)
               != 4
        || status < 100 || status >= TALLY_STATUSES || !(seconds >= 0 && seconds < 1e6)) {
        tally->malformed++;
        return;
    }
    copy_plain(path, found, sizeof path);
    count_path(tally, path);
    tally->statuses[status]++;
    tally->bytes += strtoll(size, NULL, 10);
    tally->bins[tally_bin((int64_t)(seconds * 1e6 + 0.5))]++;
}
