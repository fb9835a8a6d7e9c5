/*
 * Directories, child processes and time for the tests in C.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- directories ---- */

static char base[256];
static char paths[16][PATH_ROOM];
static unsigned paths_used;

char *
next_path(void)
{
    return paths[__atomic_fetch_add(&paths_used, 1, __ATOMIC_RELAXED)
                 % (sizeof(paths) / PATH_ROOM)];
}

void
directory_make(void)
{
    const char *where = getenv("TOSC_TEST_DIRECTORY");

    snprintf(base, sizeof(base), "%s/tosc-test-XXXXXX", where != NULL ? where : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(base));
}

void
directory_make_in_memory(void)
{
    strcpy(base, "/dev/shm/tosc-test-XXXXXX");
    if (mkdtemp(base) == NULL) {
        directory_make();
    }
}

static void
remove_tree(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0
            && unlinkat(dirfd(dir), entry->d_name, 0) < 0) {
            remove_tree(dirfd(dir), entry->d_name);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    unlinkat(parent, name, AT_REMOVEDIR);
}

void
directory_remove(void)
{
    remove_tree(AT_FDCWD, base);
}

const char *
directory(void)
{
    return base;
}

const char *
path_in(const char *name)
{
    char *path = next_path();

    snprintf(path, PATH_ROOM, "%s/%s", base, name);
    return path;
}

/* ---- processes ---- */

pid_t
child_start(void (*body)(void *), void *argument)
{
    pid_t child;

    fflush(NULL);
    child = fork();
    must(child >= 0);
    if (child == 0) {
        body(argument);
        _exit(0);
    }
    return child;
}

int
child_status(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) != child) {
        must(errno == EINTR);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void
child_join(pid_t child)
{
    int status = child_status(child);

    ck_assert_msg(status == 0, "a child process failed (status %d)", status);
}

void *
shared_memory(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    must(memory != MAP_FAILED);
    return memory;
}

/* ---- time ---- */

double
seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void
sleep_us(long us)
{
    const struct timespec pause = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&pause, NULL);
}

/* ---- the program ---- */

int
run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
