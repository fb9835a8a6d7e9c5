/*
 * The file backend and its surroundings: paths, links, modes, permissions, files that are
 * removed, exchanged or lie about, other lock files, space written ahead.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

static const tosc_file_options fast = {.not_durable = true};

/* The fault has to be told with this errno and these words. */
static void
told(int error, const char *words)
{
    ck_assert_int_eq(tosc_error_errno(), error);
    ck_assert_msg(strstr(tosc_error_message(), words) != NULL, "the message is: %s",
                  tosc_error_message());
}

static mode_t
mode_of(const char *path)
{
    struct stat about;

    ck_assert_int_eq(stat(path, &about), 0);
    return about.st_mode & 07777;
}

static ino_t
inode_of(const char *path)
{
    struct stat about;

    ck_assert_int_eq(stat(path, &about), 0);
    return about.st_ino;
}

static void
append_now(tosc_backend *b, const char *text)
{
    tosc_data data;

    ok(do_read(b, &data));
    ok(do_append(b, text, &data.at));
    tosc_blob_unref(data.bytes);
}

/* ---- paths ---- */

START_TEST(bad_paths_are_told_apart)
{
    tosc_backend *b = NULL;
    char name[5000];

    fails(TOSC_EINVAL, tosc_backend_file_new("", NULL, &b));
    fails(TOSC_EINVAL, tosc_backend_file_new(NULL, NULL, &b));
    fails(TOSC_ESYSTEM, tosc_backend_file_new(path_in("no/such/store"), NULL, &b));
    told(ENOENT, "no/such/store");
    told(ENOENT, "directory");
    fails(TOSC_ESYSTEM, tosc_backend_file_new(directory(), NULL, &b));
    told(EISDIR, "not a directory");
    put_file(path_in("file"), "x", 1);
    fails(TOSC_ESYSTEM, tosc_backend_file_new(path_in("file/store"), NULL, &b));
    told(ENOTDIR, "file/store");
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    fails(TOSC_ESYSTEM, tosc_backend_file_new(name, NULL, &b));
    told(ENAMETOOLONG, "nnn");
    ck_assert_ptr_null(b);
}
END_TEST

START_TEST(nothing_is_made_before_the_first_write)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);

    holds(b, "", 0);
    ck_assert(!exists(path) && !exists(path_in("store.lock")));
    ok(do_write(b, "x", NULL));
    ck_assert(exists(path) && exists(path_in("store.lock")));
    tosc_backend_unref(b);
}
END_TEST

START_TEST(change_of_an_empty_store_is_told_without_having_written)
{
    const char *path = path_in("store");
    const tosc_position nothing = {.stored = false};
    tosc_backend *a = file_store_with(path, &fast);
    tosc_backend *b = file_store_with(path, &fast);

    holds(a, "", 0);
    ck_assert_int_eq(do_changed(a, &nothing), 0);
    ok(do_write(b, "x", NULL));
    sleep_us(10000);
    ck_assert_int_eq(do_changed(a, &nothing), 1);
    holds(a, "x", 1);
    tosc_backend_unref(a);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(relative_path_survives_a_change_of_directory)
{
    tosc_backend *b;

    ck_assert_int_eq(chdir(directory()), 0);
    b = file_store_with("store", &fast);
    ck_assert_int_eq(chdir("/"), 0);
    ok(do_write(b, "x", NULL));
    ck_assert(exists(path_in("store")));
    tosc_backend_unref(b);
}
END_TEST

START_TEST(two_names_of_a_directory_are_one_store)
{
    char path[700];
    tosc_backend *a = file_store_with(path_in("store"), &fast);
    tosc_backend *b;
    int me;

    snprintf(path, sizeof(path), "%s/./../%s/store", directory(),
             strrchr(directory(), '/') + 1);
    b = file_store_with(path, &fast);
    ok(do_lock(a, &me, 0));
    fails(TOSC_ETIMEDOUT, do_lock(b, &me, 0));
    ok(do_unlock(a, &me));
    tosc_backend_unref(a);
    tosc_backend_unref(b);
}
END_TEST

/* ---- links ---- */

START_TEST(link_to_a_store_stays_a_link)
{
    const char *target = path_in("target");
    const char *link = path_in("link");
    tosc_backend *b = file_store_with(target, &fast);
    struct stat about;

    ok(do_write(b, "one", NULL));
    ck_assert_int_eq(symlink("target", link), 0);
    tosc_backend_unref(b);
    b = file_store_with(link, &fast);
    holds(b, "one", 1);
    ok(do_write(b, "two", NULL));
    append_now(b, "+");
    tosc_backend_unref(b);
    ck_assert_int_eq(lstat(link, &about), 0);
    ck_assert(S_ISLNK(about.st_mode));
    ck_assert(!exists(path_in("link.lock")));
    stored_at(target, "two+", 3);
}
END_TEST

START_TEST(link_to_nothing_is_refused)
{
    tosc_backend *b;

    ck_assert_int_eq(symlink("nothing", path_in("link")), 0);
    fails(TOSC_ESYSTEM, tosc_backend_file_new(path_in("link"), NULL, &b));
    told(ENOENT, "symbolic link");
    ck_assert(!exists(path_in("nothing")));
}
END_TEST

START_TEST(links_in_the_place_of_files_to_be_made_are_not_followed)
{
    const char *victim = path_in("victim");
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at;
    unsigned char *bytes;
    size_t size;

    put_file(victim, "precious", 8);
    ck_assert_int_eq(symlink("victim", path_in("store.tosc-new")), 0);
    ck_assert_int_eq(symlink("victim", path_in("store.tosc-compact")), 0);
    ok(do_write(b, "x", &at));
    ok(do_compact(b, "y", &at, &at));
    holds(b, "y", 1);
    tosc_backend_unref(b);
    ck_assert_int_eq(symlink("victim", path_in("other.lock")), 0);
    b = file_store_with(path_in("other"), &fast);
    fails(TOSC_ESYSTEM, do_write(b, "x", NULL));
    told(ELOOP, "symbolic link");
    tosc_backend_unref(b);
    bytes = get_file(victim, &size);
    ck_assert_uint_eq(size, 8);
    ck_assert_mem_eq(bytes, "precious", 8);
    free(bytes);
}
END_TEST

START_TEST(link_put_in_the_stores_place_is_not_followed)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_backend *other = file_store_with(path_in("other"), &fast);
    tosc_data data;

    ok(do_write(b, "x", NULL));
    ok(do_write(other, "secret", NULL));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("other", path), 0);
    fails(TOSC_ESYSTEM, do_read(b, &data));
    told(ELOOP, path);
    tosc_backend_unref(b);
    tosc_backend_unref(other);
}
END_TEST

/* ---- modes and permissions ---- */

START_TEST(files_are_for_their_owner_only_whatever_the_umask)
{
    mode_t before = umask(0);
    tosc_backend *b = file_store_with(path_in("store"), &fast);

    ok(do_write(b, "x", NULL));
    ck_assert_uint_eq(mode_of(path_in("store")), 0600);
    ck_assert_uint_eq(mode_of(path_in("store.lock")), 0600);
    umask(before);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(replacing_keeps_mode_and_owner)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    bool root = geteuid() == 0;
    struct stat about;
    tosc_position at;

    ok(do_write(b, "x", NULL));
    ck_assert_int_eq(chmod(path, 0664), 0);
    if (root) {
        ck_assert_int_eq(chown(path, 65534, 65534), 0);
    }
    ok(do_write(b, "y", &at));
    ok(do_append(b, "z", &at));
    ok(do_compact(b, "yz", &at, &at));
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_uint_eq(about.st_mode & 07777, 0664);
    if (root) {
        ck_assert_uint_eq(about.st_uid, 65534);
        ck_assert_uint_eq(about.st_gid, 65534);
    }
    tosc_backend_unref(b);
}
END_TEST

START_TEST(lock_file_made_for_an_existing_store_serves_its_writers)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    struct stat about;

    ok(do_write(b, "x", NULL));
    tosc_backend_unref(b);
    unlink(path_in("store.lock"));
    ck_assert_int_eq(chmod(path, 0664), 0);
    if (geteuid() == 0) {
        ck_assert_int_eq(chown(path, 65534, 65534), 0);
    }
    b = file_store_with(path, &fast);
    holds(b, "x", 1);
    ck_assert_int_eq(stat(path_in("store.lock"), &about), 0);
    ck_assert_uint_eq(about.st_mode & 07777, 0660);
    if (geteuid() == 0) {
        ck_assert_uint_eq(about.st_uid, 65534);
    }
    tosc_backend_unref(b);
}
END_TEST

/* As somebody who may look but not touch. */
static void
use_as_guest(void *argument)
{
    const char *path = argument;
    tosc_backend *b;
    tosc_position at;
    tosc_data data;
    bool changed;

    if (geteuid() == 0) {
        must(setgid(65534) == 0 && setuid(65534) == 0);
    }
    b = file_store_with(path, &fast);
    ok(do_read(b, &data));
    must(data.at.version == 2);
    at = data.at;
    tosc_blob_unref(data.bytes);
    fails(TOSC_ESYSTEM, do_append(b, "!", &at));
    must(tosc_error_errno() == EACCES && strstr(tosc_error_message(), path) != NULL);
    fails(TOSC_ESYSTEM, do_write(b, "!", NULL));
    must(tosc_error_errno() == EACCES);
    fails(TOSC_ESYSTEM, do_lock(b, &at, 100));
    ok(do_wait(b, &at, 20, NULL, &changed));
    must(!changed);
    ok(do_wait(b, &at, 5000, NULL, &changed));
    must(changed);
    ok(do_read_since(b, &at, &data));
    must(data.at.version == 3 && !data.whole);
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}

static void
start_guest_store(const char *path, tosc_position *at, tosc_backend **ret)
{
    *ret = file_store_with(path, &fast);
    ok(do_write(*ret, "a", at));
    ok(do_append(*ret, "b", at));
    ck_assert_int_eq(chmod(directory(), 0755), 0);
    ck_assert_int_eq(chmod(path, 0644), 0);
}

START_TEST(guest_may_read_and_wait_but_not_write)
{
    char path[512];
    tosc_backend *b;
    tosc_position at;
    pid_t child;

    if (geteuid() != 0) {
        fprintf(stderr, "guest_may_read_and_wait_but_not_write: skipped, not root\n");
        return;
    }
    snprintf(path, sizeof(path), "%s", path_in("store"));
    start_guest_store(path, &at, &b);
    for (int i = 0; i < 2; i++) {
        char lock[600];

        /* With a lock file that may be read, and with one that may not. */
        snprintf(lock, sizeof(lock), "%s.lock", path);
        ck_assert_int_eq(chmod(lock, i == 0 ? 0644 : 0600), 0);
        child = child_start(use_as_guest, path);
        sleep_us(300000);
        ok(do_append(b, "c", &at));
        child_join(child);
        ok(do_write(b, "a", &at));
        tosc_backend_unref(b);
        unlink(path);
        unlink(lock);
        if (i == 0) {
            start_guest_store(path, &at, &b);
        }
    }
}
END_TEST

static void
write_without_permission(void *argument)
{
    const char *path = argument;
    tosc_backend *b;

    if (geteuid() == 0) {
        must(setgid(65534) == 0 && setuid(65534) == 0);
    }
    b = file_store_with(path, &fast);
    fails(TOSC_ESYSTEM, do_write(b, "x", NULL));
    must(tosc_error_errno() == EACCES && strstr(tosc_error_message(), path) != NULL);
    must(strstr(tosc_error_message(), "permission") != NULL);
    tosc_backend_unref(b);
}

START_TEST(directory_without_permission_is_told)
{
    char path[512];

    snprintf(path, sizeof(path), "%s", path_in("store"));
    ck_assert_int_eq(chmod(directory(), 0555), 0);
    child_join(child_start(write_without_permission, path));
    ck_assert(!exists(path));
    ck_assert_int_eq(chmod(directory(), 0755), 0);
}
END_TEST

/* ---- removed and exchanged files ---- */

START_TEST(append_never_goes_into_a_removed_file)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at;

    ok(do_write(b, "x", &at));
    for (int i = 0; i < 100; i++) {
        ok(do_append(b, "y", &at));
    }
    ck_assert_int_eq(unlink(path), 0);
    fails(TOSC_ECONFLICT, do_append(b, "lost", &at));
    holds(b, "", 0);
    ck_assert_int_eq(do_changed(b, &at), 1);
    at = (tosc_position){.stored = false};
    ok(do_append(b, "again", &at));
    holds(b, "again", 1);
    tosc_backend_unref(b);
}
END_TEST

static int
append_as(tosc_backend *b, const void *holder, tosc_position *at)
{
    tosc_data data;
    int status = tosc_backend_ops(b)->append(tosc_backend_impl(b), holder, "+", 1, NULL,
                                             at, &data);

    *at = status == 0 ? data.at : *at;
    return status;
}

START_TEST(append_under_the_lock_never_goes_into_a_removed_file)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at;
    int me;

    for (int late = 0; late < 2; late++) {
        ok(do_write(b, "x", &at));
        ok(do_lock(b, &me, 1000));
        if (late) {
            sleep_us(30000);
        } else {
            ok(append_as(b, &me, &at));
        }
        ck_assert_int_eq(unlink(path), 0);
        fails(TOSC_ECONFLICT, append_as(b, &me, &at));
        ok(do_unlock(b, &me));
        holds(b, "", 0);
    }
    tosc_backend_unref(b);
}
END_TEST

START_TEST(store_made_again_has_another_id)
{
    const char *path = path_in("store");
    tosc_backend *a = file_store_with(path, &fast);
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at;
    tosc_position old;
    tosc_data data;

    ok(do_write(a, "old", &old));
    holds(b, "old", 1);
    ck_assert_int_eq(unlink(path), 0);
    ok(do_write(b, "new", &at));
    ck_assert_int_eq(at.version, 1);
    ck_assert_mem_ne(at.store_id, old.store_id, 16);
    ck_assert_int_eq(do_changed(a, &old), 1);
    fails(TOSC_ECONFLICT, do_append(a, "+", &old));
    ok(do_read_since(a, &old, &data));
    ck_assert(data.whole && data.at.version == 1 && data.bytes->data[0] == 'n');
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(a);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(waiter_notices_a_removed_store_within_a_second)
{
    const char *path = path_in("store");
    tosc_file_options options = {.not_durable = true,
                                 .shared_by_hosts = _i == KIND_NETWORK};
    tosc_backend *b = file_store_with(path, &options);
    tosc_position at;
    tosc_data data;
    bool changed = false;
    double start;

    ok(do_write(b, "x", &at));
    ok(do_wait(b, &at, 10, NULL, &changed));
    ck_assert(!changed);
    ck_assert_int_eq(unlink(path), 0);
    start = seconds();
    ok(do_wait(b, &at, 5000, NULL, &changed));
    ck_assert(changed);
    ck_assert_double_lt(seconds() - start, 1.2);
    ok(do_read_since(b, &at, &data));
    ck_assert(!data.at.stored && data.bytes == NULL && data.whole);
    changed = true;
    ok(do_wait(b, &data.at, 20, NULL, &changed));
    ck_assert(!changed);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(waiter_notices_a_store_that_is_moved_there_within_a_second)
{
    const char *path = path_in("store");
    tosc_file_options options = {.not_durable = true,
                                 .shared_by_hosts = _i == KIND_NETWORK};
    tosc_backend *b = file_store_with(path, &options);
    tosc_backend *other = file_store_with(path_in("other"), &fast);
    tosc_position at;
    bool changed = false;
    double start;

    ok(do_write(b, "x", &at));
    ok(do_write(other, "moved", NULL));
    ck_assert_int_eq(rename(path_in("other"), path), 0);
    start = seconds();
    ok(do_wait(b, &at, 5000, NULL, &changed));
    ck_assert(changed);
    ck_assert_double_lt(seconds() - start, 1.2);
    holds(b, "moved", 1);
    append_now(b, "+");
    holds(b, "moved+", 2);
    tosc_backend_unref(b);
    tosc_backend_unref(other);
}
END_TEST

START_TEST(store_that_was_moved_away_is_not_written_to)
{
    const char *path = path_in("store");
    const char *away = path_in("away");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at;

    ok(do_write(b, "x", &at));
    ck_assert_int_eq(rename(path, away), 0);
    sleep_us(80000);
    fails(TOSC_ECONFLICT, do_append(b, "y", &at));
    holds(b, "", 0);
    stored_at(away, "x", 1);
    tosc_backend_unref(b);
}
END_TEST

struct later {
    tosc_backend *backend;
    tosc_position at;
};

static void *
append_a_little_later(void *argument)
{
    struct later *later = argument;

    sleep_us(50000);
    ok(do_append(later->backend, "!", &later->at));
    return NULL;
}

START_TEST(removed_lock_file_is_noticed)
{
    const char *path = path_in("store");
    tosc_backend *a = file_store_with(path, &fast);
    tosc_backend *b;
    tosc_position at;
    struct later later;
    pthread_t thread;
    double start;
    bool changed;
    int me;

    ok(do_write(a, "x", &at));
    ok(do_wait(a, &at, 0, NULL, &changed));
    ck_assert_int_eq(unlink(path_in("store.lock")), 0);
    b = file_store_with(path, &fast);
    later.backend = b;
    ok(do_lock(b, &me, 0));
    sleep_us(80000);
    fails(TOSC_ETIMEDOUT, do_lock(a, &me, 20));
    ok(do_unlock(b, &me));
    ok(do_append(a, "y", &at));
    holds(b, "xy", 2);
    ok(do_append(b, "z", &at));
    holds(a, "xyz", 3);
    ck_assert_int_eq(do_changed(a, &at), 0);
    later.at = at;
    pthread_create(&thread, NULL, append_a_little_later, &later);
    start = seconds();
    changed = false;
    ok(do_wait(a, &at, 5000, NULL, &changed));
    ck_assert(changed);
    ck_assert_double_lt(seconds() - start, 0.45); /* woken, not found by the slow check */
    pthread_join(thread, NULL);
    tosc_backend_unref(a);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(leftovers_of_killed_writers_are_removed)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at;

    put_file(path_in("store.tosc-new"), "half a file", 11);
    put_file(path_in("store.tosc-compact"), "half a file", 11);
    ok(do_write(b, "x", &at));
    ok(do_compact(b, "y", &at, &at));
    ck_assert(!exists(path_in("store.tosc-new"))
              && !exists(path_in("store.tosc-compact")));
    tosc_backend_unref(b);
}
END_TEST

/* ---- other lock files ---- */

START_TEST(lock_file_may_be_elsewhere)
{
    char lock[512];
    tosc_file_options options = {.lock_path = lock, .not_durable = true};
    tosc_backend *a;
    tosc_backend *b;
    int me;

    snprintf(lock, sizeof(lock), "%s", path_in("my-lock"));
    a = file_store_with(path_in("store"), &options);
    b = file_store_with(path_in("store"), &options);
    lock[0] = '\0'; /* the string was copied */
    ok(do_write(a, "x", NULL));
    ck_assert(exists(path_in("my-lock")) && !exists(path_in("store.lock")));
    ok(do_lock(a, &me, 0));
    fails(TOSC_ETIMEDOUT, do_lock(b, &me, 0));
    ok(do_unlock(a, &me));
    tosc_backend_unref(a);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(lock_file_that_is_something_else_is_refused_and_left_alone)
{
    tosc_file_options options = {.lock_path = path_in("letter"), .not_durable = true};
    tosc_backend *b;
    unsigned char *bytes;
    size_t size;

    put_file(options.lock_path, "Dear John,", 10);
    b = file_store_with(path_in("store"), &options);
    fails(TOSC_EINVAL, do_write(b, "x", NULL));
    told(0, "not a lock file");
    ck_assert(!exists(path_in("store")));
    bytes = get_file(options.lock_path, &size);
    ck_assert_uint_eq(size, 10);
    ck_assert_mem_eq(bytes, "Dear John,", 10);
    free(bytes);
    tosc_backend_unref(b);
    options.lock_path = path_in("store");
    fails(TOSC_EINVAL, tosc_backend_file_new(path_in("store"), &options, &b));
    options.lock_path = directory();
    fails(TOSC_ESYSTEM, tosc_backend_file_new(path_in("store"), &options, &b));
    told(EISDIR, "lock_path");
    options.lock_path = "/no/such/place/lock";
    fails(TOSC_ESYSTEM, tosc_backend_file_new(path_in("store"), &options, &b));
    told(ENOENT, "lock_path");
}
END_TEST

START_TEST(control_block_of_another_boot_is_not_believed)
{
    const char *path = path_in("store");
    const char *lock = path_in("store.lock");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at;
    unsigned char *block;
    size_t size;

    ok(do_write(b, "x", &at));
    ok(do_append(b, "y", &at));
    tosc_backend_unref(b);
    block = get_file(lock, &size);
    block[8] ^= 1;                /* boot id */
    memset(block + 32, 0x77, 96); /* nonsense */
    put_file(lock, block, size);
    b = file_store_with(path, &fast);
    holds(b, "xy", 2);
    ok(do_append(b, "z", &at));
    tosc_backend_unref(b);
    block[8] ^= 1;
    block[28] = 1; /* dirty, with nonsense of this boot */
    put_file(lock, block, size);
    b = file_store_with(path, &fast);
    holds(b, "xyz", 3);
    ok(do_append(b, ".", &at));
    holds(b, "xyz.", 4);
    tosc_backend_unref(b);
    free(block);
}
END_TEST

/* ---- growth ---- */

START_TEST(append_grows_the_file_by_the_size_of_the_change)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store_with(path, &fast);
    char *big = malloc(1000001);
    tosc_position at;
    int64_t before;

    memset(big, 'x', 1000000);
    big[1000000] = '\0';
    ok(do_write(b, big, &at));
    before = size_of(path);
    for (int i = 0; i < 100; i++) {
        ok(do_append(b, "0123456789", &at));
    }
    ck_assert_int_eq(size_of(path) - before, 100 * 72);
    free(big);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(durable_appends_go_into_space_written_ahead)
{
    const char *path = path_in("store");
    tosc_backend *b = file_store(path);
    tosc_position at;
    ino_t inode;
    int64_t size;

    ok(do_write(b, "base", &at));
    ok(do_append(b, "+", &at));
    size = size_of(path);
    ck_assert_int_ge(size, 65536);
    inode = inode_of(path);
    for (int i = 0; i < 20; i++) {
        ok(do_append(b, "+", &at));
    }
    ck_assert_int_eq(size_of(path), size);
    ck_assert_uint_eq(inode_of(path), inode);
    tosc_backend_unref(b);
    forget_control_block(path);
    stored_at(path, "base+++++++++++++++++++++", 22);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("system");
    TCase *tests = tcase_create("surroundings");
    TCase *disk = tcase_create("on disk");

    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, directory_make_in_memory, directory_remove);
    tcase_add_test(tests, bad_paths_are_told_apart);
    tcase_add_test(tests, nothing_is_made_before_the_first_write);
    tcase_add_test(tests, change_of_an_empty_store_is_told_without_having_written);
    tcase_add_test(tests, relative_path_survives_a_change_of_directory);
    tcase_add_test(tests, two_names_of_a_directory_are_one_store);
    tcase_add_test(tests, link_to_a_store_stays_a_link);
    tcase_add_test(tests, link_to_nothing_is_refused);
    tcase_add_test(tests, links_in_the_place_of_files_to_be_made_are_not_followed);
    tcase_add_test(tests, link_put_in_the_stores_place_is_not_followed);
    tcase_add_test(tests, files_are_for_their_owner_only_whatever_the_umask);
    tcase_add_test(tests, replacing_keeps_mode_and_owner);
    tcase_add_test(tests, lock_file_made_for_an_existing_store_serves_its_writers);
    tcase_add_test(tests, guest_may_read_and_wait_but_not_write);
    tcase_add_test(tests, directory_without_permission_is_told);
    tcase_add_test(tests, append_never_goes_into_a_removed_file);
    tcase_add_test(tests, append_under_the_lock_never_goes_into_a_removed_file);
    tcase_add_test(tests, store_made_again_has_another_id);
    tcase_add_loop_test(tests, waiter_notices_a_removed_store_within_a_second, KIND_LOCAL,
                        KINDS);
    tcase_add_loop_test(tests, waiter_notices_a_store_that_is_moved_there_within_a_second,
                        KIND_LOCAL, KINDS);
    tcase_add_test(tests, store_that_was_moved_away_is_not_written_to);
    tcase_add_test(tests, removed_lock_file_is_noticed);
    tcase_add_test(tests, leftovers_of_killed_writers_are_removed);
    tcase_add_test(tests, lock_file_may_be_elsewhere);
    tcase_add_test(tests, lock_file_that_is_something_else_is_refused_and_left_alone);
    tcase_add_test(tests, control_block_of_another_boot_is_not_believed);
    tcase_add_test(tests, append_grows_the_file_by_the_size_of_the_change);
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(disk, directory_make, directory_remove);
    tcase_add_test(disk, durable_appends_go_into_space_written_ahead);
    suite_add_tcase(suite, disk);
    return run_suite(suite);
}
