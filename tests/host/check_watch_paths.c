/*
 * The paths that watches are told, compared with what has changed in random histories: see
 * watch_paths.py. TOSC_WATCH_STEPS and TOSC_WATCH_SEED in the environment: how many commits,
 * and which.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 64

static tosc_watch *watches[MOST];

static int
watch_of(const tosc_arguments *arguments, tosc_watch **ret)
{
    int64_t number;
    int status = tosc_get_int64(arguments->values[0], tosc_self(), &number);
    if (status == 0) {
        *ret = watches[number];
    }
    return status;
}

/* new(manager, path): its number. */
static int
make(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    tosc_manager *manager;
    char *path = NULL;
    int number = 0;
    (void)arg;
    while (watches[number] != NULL) {
        number++;
    }
    int status = tosc_manager_of(arguments->values[0], &manager);
    if (status == 0 && tosc_type_of(arguments->values[1], tosc_self()) == TOSC_TEXT) {
        status = tosc_get_text(arguments->values[1], tosc_self(), &path, NULL);
    }
    if (status == 0) {
        status = tosc_watch_new(manager, path, NULL, NULL, &watches[number]);
    }
    if (status == 0) {
        tosc_manager_unref(manager);
        status = tosc_value_new_int64(number, ret);
    }
    free(path);
    return status;
}

static int
as_list(const tosc_change *change, tosc_value *list)
{
    tosc_value *flag;
    int status = tosc_value_new_bool(change->all, &flag);
    for (int i = 0; i < 2 && status == 0; i++) {
        status = tosc_append(list, tosc_self(), flag);
        tosc_value_unref(flag);
        if (status == 0) {
            status = tosc_value_new_bool(change->own, &flag);
        }
    }
    tosc_value_unref(flag);
    if (status == 0) {
        status = tosc_append_int64(list, tosc_self(), change->version);
    }
    if (status == 0) {
        status = tosc_append_int64(list, tosc_self(), change->before);
    }
    for (size_t i = 0; i < change->path_count && status == 0; i++) {
        status = tosc_append_text(list, tosc_self(), change->paths[i], TOSC_TEXT_END);
    }
    return status;
}

/* take(watch): None, or [all, own, version, before, path, ...]. */
static int
take(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    tosc_watch *watch;
    const tosc_change *change;
    (void)arg;
    int status = watch_of(arguments, &watch);
    if (status == 0) {
        status = tosc_watch_next(watch, 0, &change);
    }
    if (status == 1) {
        status = tosc_value_new_list(ret);
        if (status == 0) {
            status = as_list(change, *ret);
        }
    }
    return status;
}

static int
end(const tosc_arguments *arguments, tosc_value **ret, void *arg)
{
    int64_t number;
    (void)ret;
    (void)arg;
    int status = tosc_get_int64(arguments->values[0], tosc_self(), &number);
    if (status == 0) {
        watches[number] = tosc_watch_free(watches[number]);
    }
    return status;
}

static long
from_environment(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? atol(text) : otherwise;
}

static void
run(const char *kind, long part)
{
    char here[] = __FILE__;
    char source[4096];
    host_start();
    ok(tosc_host_register("watching", "new", make, NULL, NULL));
    ok(tosc_host_register("watching", "take", take, NULL, NULL));
    ok(tosc_host_register("watching", "free", end, NULL, NULL));
    snprintf(source, sizeof(source), "import sys; sys.path.insert(0, '%s')",
             dirname(here));
    python(source);
    long steps = from_environment("TOSC_WATCH_STEPS", sanitized() ? 600 : 3000) / part;
    long seed = from_environment("TOSC_WATCH_SEED", 1);
    for (long done = 0; done < steps; done += 100) {
        snprintf(source, sizeof(source),
                 "import watch_paths; watch_paths.run('%s', '%s', %ld, 100)", kind,
                 path_in("store"), seed++);
        python(source);
        unlink(path_in("store"));
    }
    host_stop();
}

START_TEST(all_that_changes_is_told_in_memory)
{
    run("inproc", 1);
}
END_TEST

START_TEST(all_that_changes_is_told_in_a_file)
{
    run("file", 3);
}
END_TEST

START_TEST(all_that_changes_is_told_where_everything_is_read)
{
    run("bytes", 3);
}
END_TEST

static void
add_case(Suite *suite, const char *name, const TTest *test)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, directory_make, directory_remove);
    tcase_add_test(tcase, test);
    suite_add_tcase(suite, tcase);
}

int
main(void)
{
    Suite *suite = suite_create("watch paths");
    add_case(suite, "memory", all_that_changes_is_told_in_memory);
    add_case(suite, "file", all_that_changes_is_told_in_a_file);
    add_case(suite, "bytes", all_that_changes_is_told_where_everything_is_read);
    return run_suite(suite);
}
