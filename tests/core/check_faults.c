/*
 * System calls and allocations that fail at every step of every operation: the store
 * holds the old state or the new one, whoever looks, and goes on working.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "support.h"

enum operation { WRITE_FIRST, WRITE, APPEND, APPEND_LARGE, COMPACT, OPERATIONS };

static char large[20000];

struct scene {
    const char *path;
    tosc_backend *backend;
    tosc_position at;
    const char *old_text;
    int64_t old_version;
    char new_text[sizeof(large) + 64];
    int64_t new_version;
};

static void
set_scene(struct scene *scene, enum operation operation, bool durable)
{
    const tosc_file_options options = {.not_durable = !durable};

    memset(large, 'l', sizeof(large) - 1);
    scene->path = path_in("store");
    unlink(scene->path);
    forget_control_block(scene->path);
    scene->backend = file_store_with(scene->path, &options);
    scene->at = (tosc_position){.stored = false};
    scene->old_text = "";
    scene->old_version = 0;
    if (operation != WRITE_FIRST) {
        ok(do_append(scene->backend, "base", &scene->at));
        ok(do_append(scene->backend, "+1", &scene->at));
        scene->old_text = "base+1";
        scene->old_version = 2;
    }
    scene->new_version = scene->old_version + (operation != COMPACT);
    switch (operation) {
    case WRITE_FIRST:
    case WRITE:
        strcpy(scene->new_text, "written");
        break;
    case APPEND:
        strcpy(scene->new_text, "base+1+2");
        break;
    case APPEND_LARGE:
        snprintf(scene->new_text, sizeof(scene->new_text), "base+1%s", large);
        break;
    default:
        strcpy(scene->new_text, "BASE1");
        break;
    }
}

static int
act(struct scene *scene, enum operation operation)
{
    tosc_backend *b = scene->backend;

    switch (operation) {
    case WRITE_FIRST:
    case WRITE:
        return do_write(b, "written", &scene->at);
    case APPEND:
        return do_append(b, "+2", &scene->at);
    case APPEND_LARGE:
        return do_append(b, large, &scene->at);
    default:
        return do_compact(b, "BASE1", &scene->at, &scene->at);
    }
}

/* What the store holds for this backend: 1 the new state, 0 the old one. */
static int
state_of(const struct scene *scene, tosc_backend *b)
{
    tosc_data data;
    const char *text;
    int is_new;

    ok(do_read(b, &data));
    if (!data.at.stored) {
        ck_assert_int_eq(scene->old_version, 0);
        return 0;
    }
    is_new = data.at.version == scene->new_version
             && data.bytes->size == strlen(scene->new_text)
             && memcmp(data.bytes->data, scene->new_text, data.bytes->size) == 0;
    text = is_new ? scene->new_text : scene->old_text;
    ck_assert_int_eq(data.at.version, is_new ? scene->new_version : scene->old_version);
    ck_assert_uint_eq(data.bytes->size, strlen(text));
    ck_assert_mem_eq(data.bytes->data, text, data.bytes->size);
    tosc_blob_unref(data.bytes);
    return is_new;
}

static void
no_litter(const struct scene *scene)
{
    char name[600];

    snprintf(name, sizeof(name), "%s.tosc-new", scene->path);
    ck_assert_msg(!exists(name), "a temporary file is left");
    snprintf(name, sizeof(name), "%s.tosc-compact", scene->path);
    ck_assert_msg(!exists(name), "a temporary file is left");
}

/* The same answer from this backend, from a new one, and from one after a reboot. */
static void
everybody_sees(const struct scene *scene, int is_new)
{
    tosc_backend *b;

    ck_assert_int_eq(state_of(scene, scene->backend), is_new);
    b = file_store(scene->path);
    ck_assert_int_eq(state_of(scene, b), is_new);
    tosc_backend_unref(b);
}

static void
goes_on(struct scene *scene)
{
    tosc_data data;
    tosc_backend *b;

    int status;

    /* After an unknown outcome, taking the lock may find that the store has moved on. */
    do {
        ok(do_read(scene->backend, &data));
        status = do_append(scene->backend, "!", &data.at);
        tosc_blob_unref(data.bytes);
    } while (status == TOSC_ECONFLICT);
    ok(status);
    tosc_backend_unref(scene->backend);
    forget_control_block(scene->path);
    b = file_store(scene->path);
    ok(do_read(b, &data));
    ck_assert_int_eq(data.bytes->data[data.bytes->size - 1], '!');
    tosc_blob_unref(data.bytes);
    ok(do_write(b, "again", NULL));
    tosc_backend_unref(b);
}

static void
try_every_step(enum operation operation, enum fault kind, int error, bool for_good,
               bool durable)
{
    static struct scene scene;
    bool struck = true;

    for (int step = 0; struck; step++) {
        int status;

        set_scene(&scene, operation, durable);
        fault_arm(kind, step, error, for_good);
        status = act(&scene, operation);
        struck = fault_disarm();
        if (status == 0) {
            everybody_sees(&scene, 1);
        } else if (status == TOSC_EUNKNOWN) {
            ck_assert(struck);
            everybody_sees(&scene, state_of(&scene, scene.backend));
        } else {
            ck_assert(struck);
            support_fails(kind == FAULT_MALLOC ? TOSC_ENOMEM : TOSC_ESYSTEM, status,
                          "act", __FILE__, __LINE__);
            if (kind != FAULT_MALLOC) {
                ck_assert_int_eq(tosc_error_errno(), error);
                ck_assert_ptr_nonnull(strstr(tosc_error_path(), "/"));
                ck_assert_ptr_nonnull(strstr(tosc_error_message(), strerror(error)));
            }
            everybody_sees(&scene, 0);
        }
        no_litter(&scene);
        goes_on(&scene);
        ck_assert_int_lt(step, 50);
    }
}

START_TEST(any_single_failure_leaves_the_old_or_the_new_state)
{
    static const struct {
        enum fault kind;
        int error;
    } faults[] = {{FAULT_MALLOC, ENOMEM},      {FAULT_READ, EIO},
                  {FAULT_WRITE, ENOSPC},       {FAULT_WRITE, EIO},
                  {FAULT_SHORT_WRITE, ENOSPC}, {FAULT_LATE_WRITE, EIO},
                  {FAULT_FDATASYNC, EIO},      {FAULT_FSYNC, EIO},
                  {FAULT_RENAME, EACCES},      {FAULT_TRUNCATE, EIO}};

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        for (int for_good = 0; for_good < 2; for_good++) {
            try_every_step((enum operation)_i, faults[i].kind, faults[i].error, for_good,
                           true);
        }
    }
}
END_TEST

START_TEST(failed_append_that_cannot_be_undone_is_unknown)
{
    static struct scene scene;
    tosc_backend *b;
    int is_new;

    for (int i = 0; i < 4; i++) {
        set_scene(&scene, APPEND_LARGE, true);
        fault_arm(i % 2 == 0 ? FAULT_SHORT_WRITE : FAULT_FDATASYNC, 0, EIO, true);
        fault_also(i < 2 ? FAULT_TRUNCATE : FAULT_FDATASYNC, EIO);
        fails(TOSC_EUNKNOWN, act(&scene, APPEND_LARGE));
        ck_assert(fault_disarm());
        is_new = state_of(&scene, scene.backend);
        /* Whatever it was, the next one to take the lock settles it for all. */
        b = file_store(scene.path);
        ok(do_lock(b, &is_new, 1000));
        ok(do_unlock(b, &is_new));
        is_new = state_of(&scene, b);
        ck_assert_int_eq(state_of(&scene, scene.backend), is_new);
        tosc_backend_unref(b);
        goes_on(&scene);
    }
}
END_TEST

START_TEST(append_that_was_stored_in_spite_of_an_error_succeeds)
{
    static struct scene scene;

    for (int i = 0; i < 2; i++) {
        enum operation operation = i == 0 ? APPEND : APPEND_LARGE;

        set_scene(&scene, operation, false);
        fault_arm(FAULT_LATE_WRITE, 0, EIO, true);
        fault_also(FAULT_TRUNCATE, EIO);
        ok(act(&scene, operation));
        ck_assert(fault_disarm());
        everybody_sees(&scene, 1);
        goes_on(&scene);
    }
}
END_TEST

START_TEST(append_without_an_id_that_cannot_be_undone_is_unknown)
{
    static struct scene scene;
    tosc_data data;

    set_scene(&scene, APPEND, false);
    fault_arm(FAULT_LATE_WRITE, 0, EIO, true);
    fault_also(FAULT_TRUNCATE, EIO);
    fails(TOSC_EUNKNOWN, tosc_backend_ops(scene.backend)
                             ->append(tosc_backend_impl(scene.backend), NULL, "+2", 2,
                                      NULL, &scene.at, &data));
    ck_assert(fault_disarm());
    goes_on(&scene);
}
END_TEST

START_TEST(failures_of_reading_are_reported_and_pass)
{
    static struct scene scene;
    tosc_data data;

    for (int step = 0; step < 8; step++) {
        tosc_backend *b;
        int status;

        set_scene(&scene, APPEND, false);
        b = file_store(scene.path);
        fault_arm(step < 4 ? FAULT_READ : FAULT_MALLOC, step % 4, step < 4 ? EIO : ENOMEM,
                  true);
        status = do_read(b, &data);
        if (fault_disarm()) {
            support_fails(step < 4 ? TOSC_ESYSTEM : TOSC_ENOMEM, status, "read", __FILE__,
                          __LINE__);
        } else {
            ok(status);
            tosc_blob_unref(data.bytes);
        }
        holds(b, "base+1", 2);
        tosc_backend_unref(b);
        goes_on(&scene);
    }
}
END_TEST

START_TEST(no_memory_in_process_leaves_the_store_as_it_was)
{
    tosc_backend *b;
    tosc_position at;
    tosc_data data;
    bool struck = true;

    for (int step = 0; struck; step++) {
        int status;

        fault_arm(FAULT_MALLOC, step, ENOMEM, true);
        status = tosc_backend_inproc_new(&b);
        struck = fault_disarm();
        if (!struck) {
            ok(status);
        } else {
            support_fails(TOSC_ENOMEM, status, "new", __FILE__, __LINE__);
        }
    }
    ok(do_write(b, "base", &at));
    for (int i = 0; i < 40; i++) {
        ok(do_append(b, "+", &at));
        fault_arm(FAULT_MALLOC, 0, ENOMEM, true);
        fails(TOSC_ENOMEM, do_append(b, "-", &at));
        fails(TOSC_ENOMEM, do_write(b, "-", NULL));
        fails(TOSC_ENOMEM, do_compact(b, "-", &at, NULL));
        fails(TOSC_ENOMEM, do_read(b, &data));
        fault_disarm();
    }
    fault_arm(FAULT_MALLOC, 1, ENOMEM, true);
    fails(TOSC_ENOMEM, do_compact(b, "-", &at, NULL));
    fault_disarm();
    ok(do_read(b, &data));
    ck_assert_uint_eq(data.bytes->size, 44);
    ck_assert_int_eq(data.at.version, 41);
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(no_memory_for_a_file_backend_is_reported)
{
    tosc_backend *b;
    bool struck = true;

    for (int step = 0; struck; step++) {
        int status;

        fault_arm(FAULT_MALLOC, step, ENOMEM, true);
        status = tosc_backend_file_new(path_in("store"), NULL, &b);
        struck = fault_disarm();
        if (struck) {
            support_fails(TOSC_ENOMEM, status, "new", __FILE__, __LINE__);
        } else {
            ok(status);
            tosc_backend_unref(b);
        }
    }
}
END_TEST

/* ---- a disk that is really full ---- */

static bool mounted;

static void
mount_small(void)
{
    directory_make();
    /* In a mount namespace of our own, so that nothing stays mounted if the test dies. */
    mounted = unshare(CLONE_NEWNS) == 0
              && mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == 0
              && mount("tosc-test", directory(), "tmpfs", 0, "size=200k") == 0;
}

static void
unmount_small(void)
{
    if (mounted) {
        umount2(directory(), MNT_DETACH);
    }
    directory_remove();
}

START_TEST(full_disk_leaves_the_store_as_it_was)
{
    const char *path;
    tosc_backend *b;
    tosc_position at = {.stored = false};
    tosc_data data;
    char block[5000];
    char *all;
    size_t appended = 0;
    int status;

    if (!mounted) {
        fprintf(stderr,
                "full_disk_leaves_the_store_as_it_was: skipped, cannot mount a tmpfs\n");
        return;
    }
    path = path_in("store");
    b = file_store(path);
    memset(block, 'x', sizeof(block));
    put_file(path_in("filler"), block, sizeof(block));
    put_file(path_in("filler2"), block, sizeof(block));
    ok(do_append(b, "base", &at));
    for (;;) {
        status = do_append_bytes(b, block, sizeof(block), &at);
        if (status != 0) {
            break;
        }
        appended++;
    }
    fails(TOSC_ESYSTEM, status);
    ck_assert_int_eq(tosc_error_errno(), ENOSPC);
    ck_assert_ptr_nonnull(strstr(tosc_error_message(), path));
    ck_assert_uint_gt(appended, 20);
    all = calloc(1, 300000);
    memset(all, 'y', 150000);
    fails(TOSC_ESYSTEM, do_write(b, all, NULL));
    ck_assert_int_eq(tosc_error_errno(), ENOSPC);
    fails(TOSC_ESYSTEM, do_compact(b, all, &at, NULL));
    free(all);
    ok(do_read(b, &data));
    ck_assert_uint_eq(data.bytes->size, 4 + appended * sizeof(block));
    ck_assert_int_eq(data.at.version, (int64_t)appended + 1);
    tosc_blob_unref(data.bytes);
    /* The new file is written beside the old one. */
    unlink(path_in("filler"));
    unlink(path_in("filler2"));
    ok(do_compact(b, "small", &at, &at));
    ok(do_append_bytes(b, block, sizeof(block), &at));
    tosc_backend_unref(b);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("faults");
    TCase *tests = tcase_create("injected faults");
    TCase *full = tcase_create("full disk");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, directory_make, directory_remove);
    tcase_add_loop_test(tests, any_single_failure_leaves_the_old_or_the_new_state, 0,
                        OPERATIONS);
    tcase_add_test(tests, failed_append_that_cannot_be_undone_is_unknown);
    tcase_add_test(tests, append_that_was_stored_in_spite_of_an_error_succeeds);
    tcase_add_test(tests, append_without_an_id_that_cannot_be_undone_is_unknown);
    tcase_add_test(tests, failures_of_reading_are_reported_and_pass);
    tcase_add_test(tests, no_memory_in_process_leaves_the_store_as_it_was);
    tcase_add_test(tests, no_memory_for_a_file_backend_is_reported);
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(full, mount_small, unmount_small);
    tcase_add_test(full, full_disk_leaves_the_store_as_it_was);
    suite_add_tcase(suite, full);
    return run_suite(suite);
}
