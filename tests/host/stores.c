/*
 * Helpers of the tests of Managers and transactions, see stores.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stores.h"

#include <stdlib.h>
#include <string.h>

tosc_manager *
open_at(const char *uri)
{
    tosc_manager *manager = NULL;
    ok(tosc_manager_open(uri, NULL, &manager));
    return manager;
}

tosc_manager *
manager_over(tosc_backend *backend)
{
    tosc_manager *manager = NULL;
    ok(tosc_manager_new(backend, NULL, &manager));
    tosc_backend_unref(backend);
    return manager;
}

tosc_value *
from_json(const char *text)
{
    tosc_value *value = NULL;
    ok(tosc_value_new_json(text, TOSC_TEXT_END, &value));
    return value;
}

void
write_json(tosc_manager *manager, const char *text)
{
    tosc_value *value = from_json(text);
    ok(tosc_manager_write(manager, value));
    tosc_value_unref(value);
}

void
stores_check(tosc_manager *manager, const char *json, const char *file, int line)
{
    tosc_value *root;
    char *text;
    ok(tosc_manager_refresh(manager, &root));
    ok(tosc_get_json(root, tosc_self(), &text, NULL));
    if (strcmp(text, json) != 0) {
        ck_abort_msg("%s:%d: stored is %s, not %s", file, line, text, json);
    }
    free(text);
    tosc_value_unref(root);
}

int64_t
number_at(tosc_value *value, tosc_at at)
{
    int64_t number = INT64_MIN;
    ok(tosc_get_int64(value, at, &number));
    return number;
}

void
give_to_scripts(tosc_manager *manager)
{
    ok(tosc_host_publish("m", manager));
    python("import tosc, threading\n"
           "m = tosc.shared('m')");
}

bool
can_fork_beside_threads(void)
{
#if defined(__SANITIZE_THREAD__)
    return false;
#else
    return true;
#endif
}
