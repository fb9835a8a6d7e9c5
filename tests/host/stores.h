/*
 * What the tests of Managers and transactions share: stores with something in them, and
 * looking at it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_TESTS_HOST_STORES_H
#define TOSC_TESTS_HOST_STORES_H

#include <tosc/tosc.h>

#include "support.h"

/* A new Manager; with the backend, whose reference it takes over. */
tosc_manager *open_at(const char *uri);
tosc_manager *manager_over(tosc_backend *backend);

tosc_value *from_json(const char *text);
void write_json(tosc_manager *manager, const char *text);

/* What is stored, read anew from the store, as JSON text. */
#define stores(manager, json) stores_check((manager), (json), __FILE__, __LINE__)
void stores_check(tosc_manager *manager, const char *json, const char *file, int line);

int64_t number_at(tosc_value *value, tosc_at at);

/* Scripts get the Manager as `m`, and have imported tosc and threading. */
void give_to_scripts(tosc_manager *manager);

/* The thread sanitizer does not go on after a fork beside threads. */
bool can_fork_beside_threads(void);

#endif
