/*
 * A backend as a program outside the library would write it: with the four operations
 * that are required, or with those that make commits cheap as well. It can be told to
 * fail.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_TESTS_HOST_MEMORY_STORE_H
#define TOSC_TESTS_HOST_MEMORY_STORE_H

#include <tosc/backend.h>

/* What happens to the next change, once. */
enum mishap {
    MISHAP_NONE,
    MISHAP_REFUSED,     /* TOSC_ESYSTEM, nothing is stored */
    MISHAP_LOST_REPLY,  /* TOSC_EUNKNOWN, and it is stored */
    MISHAP_LOST_REQUEST /* TOSC_EUNKNOWN, and it is not */
};

struct memory_counts {
    int reads; /* of everything; atomic */
    int writes;
    int appends;
    int destroyed;  /* atomic */
    int reading_ms; /* to be set: how long reading everything takes; atomic */
};

/*
 * A new store with one reference. `counts` (may be NULL) is kept up to date until the
 * store is destroyed, and then told of that.
 */
tosc_backend *memory_store_new(bool can_append, struct memory_counts *counts);
void memory_store_fail(tosc_backend *backend, enum mishap mishap);

#endif
