/*
 * Floors: the least that any store in a file could do, for bench.py to compare with.
 *
 *     floor commit PATH COUNT BYTES SYNC       lock, write, [fdatasync,] unlock
 *     floor count PATH PROCESSES SECONDS OWN WORK_US   the same between processes: a counter
 *     floor wake PATH COUNT PAUSE_US           a write in one process seen in another (inotify)
 *
 * A lock is an open-file-description lock. Each prints numbers, one a line: nanoseconds for
 * each operation, or for `count` how often each process has counted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROOM (64 << 20) /* writes start again from the file's beginning after this much */

static void
die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int
open_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) {
        die(path);
    }
    return fd;
}

static void
lock(int fd, short type)
{
    struct flock region = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

    if (fcntl(fd, F_OFD_SETLKW, &region) < 0) {
        die("lock");
    }
}

static void
write_at(int fd, const void *bytes, size_t size, off_t offset)
{
    if (pwrite(fd, bytes, size, offset) != (ssize_t)size) {
        die("write");
    }
}

/* Into space that was written before: fdatasync need not store a new size. */
static void
commit(const char *path, long count, size_t size, int sync)
{
    int fd = open_file(path);
    char *bytes = calloc(1, size);
    int64_t *taken = calloc((size_t)count, sizeof(*taken));
    off_t room = sync ? (off_t)((size_t)count * size) : ROOM;
    off_t offset = 0;

    if (bytes == NULL || taken == NULL) {
        die("memory");
    }
    for (off_t at = 0; sync && at < room; at += (off_t)size) {
        write_at(fd, bytes, size, at);
    }
    memset(bytes, 'x', size);
    if (fdatasync(fd) < 0) {
        die("fdatasync");
    }
    for (long i = 0; i < count; i++) {
        int64_t start = now();

        lock(fd, F_WRLCK);
        write_at(fd, bytes, size, offset);
        if (sync && fdatasync(fd) < 0) {
            die("fdatasync");
        }
        lock(fd, F_UNLCK);
        taken[i] = now() - start;
        offset = offset + 2 * (off_t)size > room ? 0 : offset + (off_t)size;
    }
    for (long i = 0; i < count; i++) {
        printf("%lld\n", (long long)taken[i]);
    }
    free(taken);
    free(bytes);
    close(fd);
}

static void
work_for(int64_t ns)
{
    for (int64_t end = now() + ns; now() < end;) {
    }
}

/* One process of `count`: reads the number, counts up, writes it and 92 bytes more. */
static long
count_until(const char *path, int64_t start, int64_t end, off_t offset, long work_us)
{
    int fd = open_file(path);
    char bytes[100] = "";
    long done = 0;

    while (now() < start) {
    }
    while (now() < end) {
        int64_t number = 0;

        lock(fd, F_WRLCK);
        if (pread(fd, &number, sizeof(number), offset) < 0) {
            die("read");
        }
        work_for(work_us * 1000);
        number++;
        memcpy(bytes, &number, sizeof(number));
        write_at(fd, bytes, sizeof(bytes), offset);
        lock(fd, F_UNLCK);
        done++;
    }
    close(fd);
    return done;
}

static void
count(const char *path, int processes, double seconds, int own, long work_us)
{
    long *done =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int64_t start = now() + INT64_C(50000000);

    if (done == MAP_FAILED || processes > 512) {
        die("memory");
    }
    for (int i = 0; i < processes; i++) {
        pid_t pid = fork();

        if (pid < 0) {
            die("fork");
        }
        if (pid == 0) {
            done[i] = count_until(path, start, start + (int64_t)(seconds * 1e9),
                                  own ? i * 128 : 0, work_us);
            _exit(0);
        }
    }
    while (wait(NULL) > 0) {
    }
    for (int i = 0; i < processes; i++) {
        printf("%ld\n", done[i]);
    }
}

/* The child sleeps until the file is written to, and says when it woke up. */
static void
wake(const char *path, long count_of, long pause_us)
{
    int fd = open_file(path);
    int64_t *woken =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int watch = inotify_init1(IN_CLOEXEC);
    pid_t pid;

    if (woken == MAP_FAILED || watch < 0
        || inotify_add_watch(watch, path, IN_MODIFY) < 0) {
        die("inotify");
    }
    pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid == 0) {
        char events[4096];

        while (read(watch, events, sizeof(events)) > 0) {
            __atomic_store_n(woken, now(), __ATOMIC_RELEASE);
        }
        _exit(0);
    }
    for (long i = 0; i < count_of; i++) {
        char bytes[100] = "";
        int64_t start;

        usleep((useconds_t)pause_us);
        __atomic_store_n(woken, 0, __ATOMIC_RELEASE);
        start = now();
        lock(fd, F_WRLCK);
        write_at(fd, bytes, sizeof(bytes), 0);
        lock(fd, F_UNLCK);
        while (__atomic_load_n(woken, __ATOMIC_ACQUIRE) == 0) {
            usleep(50);
        }
        printf("%lld\n", (long long)(*woken - start));
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fd);
    close(watch);
}

int
main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "commit") == 0) {
        commit(argv[2], atol(argv[3]), (size_t)atol(argv[4]), atoi(argv[5]));
    } else if (argc == 7 && strcmp(argv[1], "count") == 0) {
        count(argv[2], atoi(argv[3]), atof(argv[4]), atoi(argv[5]), atol(argv[6]));
    } else if (argc == 5 && strcmp(argv[1], "wake") == 0) {
        wake(argv[2], atol(argv[3]), atol(argv[4]));
    } else {
        fputs("usage: floor commit|count|wake PATH ..., see the head of floor.c\n",
              stderr);
        return 2;
    }
    return 0;
}
