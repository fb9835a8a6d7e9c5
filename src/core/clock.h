/* Time on CLOCK_MONOTONIC, in nanoseconds. Private to core. */
#ifndef TOSC_CORE_CLOCK_H
#define TOSC_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define TOSC__FOR_EVER INT64_MAX
#define TOSC__MS INT64_C(1000000)
#define TOSC__SECOND INT64_C(1000000000)

static inline int64_t
tosc__clock_read(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return now.tv_sec * TOSC__SECOND + now.tv_nsec;
}

static inline int64_t
tosc__now(void)
{
    return tosc__clock_read(CLOCK_MONOTONIC);
}

/* A few milliseconds coarse and four times as cheap. */
static inline int64_t
tosc__now_coarse(void)
{
    return tosc__clock_read(CLOCK_MONOTONIC_COARSE);
}

/* The deadline that is timeout_ms away; negative: for ever. */
static inline int64_t
tosc__deadline(int64_t timeout_ms)
{
    int64_t now = tosc__now();

    if (timeout_ms < 0 || timeout_ms > (TOSC__FOR_EVER - now) / TOSC__MS) {
        return TOSC__FOR_EVER;
    }
    return now + timeout_ms * TOSC__MS;
}

static inline struct timespec
tosc__timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / TOSC__SECOND, .tv_nsec = ns % TOSC__SECOND};
}

#endif
