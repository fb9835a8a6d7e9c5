/*
 * What the core costs beside the least that anything could do.
 *
 *     core_floor DIRECTORY
 *
 * The floor is an open-file-description lock, one pwrite of 100 bytes and the unlock
 * (and, where the store flushes, an fdatasync into space written before). Floor and store
 * take turns in rounds, and medians are printed, so that other load on the machine hits
 * both.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <tosc/backend.h>

#define ROUNDS 9
#define PAYLOAD 100
#define WAKES 500

static char store_path[4096];
static char plain_path[4096];
static char lock_path[4096];
static volatile int sink;

static double
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double
median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_size);
    return values[count / 2];
}

static void
check(int status, const char *what)
{
    if (status != 0) {
        fprintf(stderr, "core_floor: %s: %s: %s\n", what, tosc_status_name(status),
                tosc_error_message());
        exit(1);
    }
}

static void
must(int bad, const char *what)
{
    if (bad) {
        fprintf(stderr, "core_floor: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void
remove_files(void)
{
    unlink(store_path);
    unlink(plain_path);
    unlink(lock_path);
}

/* ---- the floor ---- */

struct floor {
    int lock_fd;
    int data_fd;
    off_t at;
    bool flush;
};

static void
set_lock(int fd, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};

    must(fcntl(fd, F_OFD_SETLKW, &lock) < 0, "fcntl");
}

static void
floor_open(struct floor *f, bool flush)
{
    static const char zeros[1 << 20];

    f->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    f->data_fd = open(plain_path, O_RDWR | O_CREAT | O_CLOEXEC | O_TRUNC, 0600);
    must(f->lock_fd < 0 || f->data_fd < 0, "open");
    if (flush) {
        must(pwrite(f->data_fd, zeros, sizeof(zeros), 0) < 0 || fsync(f->data_fd) < 0,
             "pwrite");
    }
    f->at = 0;
    f->flush = flush;
}

static double
floor_round(struct floor *f, int count)
{
    static const char payload[PAYLOAD] = "x";
    double start = now_ns();

    for (int i = 0; i < count; i++) {
        set_lock(f->lock_fd, F_WRLCK);
        must(pwrite(f->data_fd, payload, sizeof(payload), f->at) < 0, "pwrite");
        if (f->flush) {
            must(fdatasync(f->data_fd) < 0, "fdatasync");
        }
        f->at += PAYLOAD;
        set_lock(f->lock_fd, F_UNLCK);
    }
    return (now_ns() - start) / count;
}

/* ---- the backends ---- */

static tosc_position
start_store(tosc_backend *backend)
{
    tosc_position at;

    check(tosc_backend_ops(backend)->write(tosc_backend_impl(backend), NULL, "base", 4,
                                           &at),
          "write");
    return at;
}

static double
append_round(tosc_backend *backend, tosc_position *at, int count)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(backend);
    void *impl = tosc_backend_impl(backend);
    static const char payload[PAYLOAD] = "x";
    const tosc_commit_id id = {{1}};
    double start = now_ns();

    for (int i = 0; i < count; i++) {
        tosc_data data;

        check(ops->append(impl, NULL, payload, sizeof(payload), &id, at, &data),
              "append");
        *at = data.at;
    }
    return (now_ns() - start) / count;
}

static double
changed_round(tosc_backend *backend, const tosc_position *at, int count)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(backend);
    void *impl = tosc_backend_impl(backend);
    double start = now_ns();

    for (int i = 0; i < count; i++) {
        sink += ops->changed(impl, at);
    }
    return (now_ns() - start) / count;
}

static void
commits(bool flush, tosc_backend *file, tosc_position *file_at)
{
    double least[ROUNDS];
    double ours[ROUNDS];
    double inproc[ROUNDS];
    double asked[ROUNDS];
    double asked_inproc[ROUNDS];
    int count = flush ? 300 : 20000;
    tosc_backend *memory;
    tosc_position memory_at;
    struct floor f;
    double base;
    double value;

    floor_open(&f, flush);
    check(tosc_backend_inproc_new(&memory), "inproc");
    memory_at = start_store(memory);
    for (int i = 0; i < ROUNDS; i++) {
        least[i] = floor_round(&f, count);
        ours[i] = append_round(file, file_at, count);
        inproc[i] = append_round(memory, &memory_at, 20000);
        asked[i] = changed_round(file, file_at, 1000000);
        asked_inproc[i] = changed_round(memory, &memory_at, 1000000);
    }
    base = median(least, ROUNDS);
    printf("%-42s %10.1f ns\n", "floor: lock, pwrite 100 B, unlock", base);
    value = median(ours, ROUNDS);
    printf("%-42s %10.1f ns   %.2f x floor\n", "file append of 100 B", value,
           value / base);
    value = median(inproc, ROUNDS);
    printf("%-42s %10.1f ns   %.3f x floor\n", "inproc append of 100 B", value,
           value / base);
    printf("%-42s %10.1f ns\n", "file changed()", median(asked, ROUNDS));
    printf("%-42s %10.1f ns\n", "inproc changed()", median(asked_inproc, ROUNDS));
    close(f.lock_fd);
    close(f.data_fd);
    tosc_backend_unref(memory);
}

/* ---- waking another process ---- */

/* The child waits and answers with the time at which it saw the change. */
static void
answer_wakes(int to)
{
    tosc_backend *backend;
    const struct tosc_backend_ops *ops;
    tosc_data data;
    bool changed;

    check(tosc_backend_file_new(store_path, NULL, &backend), "open");
    ops = tosc_backend_ops(backend);
    check(ops->read(tosc_backend_impl(backend), &data), "read");
    for (int i = 0; i < WAKES; i++) {
        double seen;
        tosc_data more;

        check(ops->wait(tosc_backend_impl(backend), &data.at, -1, NULL, &changed),
              "wait");
        check(ops->read_since(tosc_backend_impl(backend), &data.at, &more), "read_since");
        seen = now_ns();
        tosc_blob_unref(data.bytes);
        data = more;
        must(write(to, &seen, sizeof(seen)) != sizeof(seen), "write");
    }
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(backend);
    _exit(0);
}

static void
answer_inotify(int to)
{
    int fd = inotify_init1(IN_CLOEXEC);

    must(fd < 0 || inotify_add_watch(fd, plain_path, IN_MODIFY) < 0, "inotify");
    for (int i = 0; i < WAKES; i++) {
        char events[4096];
        double seen;

        must(read(fd, events, sizeof(events)) < 0, "read");
        seen = now_ns();
        must(write(to, &seen, sizeof(seen)) != sizeof(seen), "write");
    }
    _exit(0);
}

static double
wakes(bool plain, tosc_backend *backend, tosc_position *at)
{
    static double latency[WAKES];
    const struct timespec pause = {0, 300000};
    int plain_fd = open(plain_path, O_RDWR | O_CLOEXEC);
    int channel[2];
    pid_t child;

    must(plain_fd < 0 || pipe(channel) < 0, "pipe");
    child = fork();
    must(child < 0, "fork");
    if (child == 0) {
        close(channel[0]);
        if (plain) {
            answer_inotify(channel[1]);
        }
        answer_wakes(channel[1]);
    }
    close(channel[1]);
    usleep(50000);
    for (int i = 0; i < WAKES; i++) {
        double start;
        double seen;

        nanosleep(&pause, NULL);
        start = now_ns();
        if (plain) {
            must(pwrite(plain_fd, "x", 1, 0) != 1, "pwrite");
        } else {
            append_round(backend, at, 1);
        }
        must(read(channel[0], &seen, sizeof(seen)) != sizeof(seen), "the waiter is gone");
        latency[i] = seen - start;
    }
    close(channel[0]);
    close(plain_fd);
    waitpid(child, NULL, 0);
    return median(latency, WAKES) / 1000;
}

int
main(int argc, char **argv)
{
    tosc_backend *file;
    tosc_position at;
    struct statfs about;
    double least;
    double ours;
    bool flush;

    if (argc != 2) {
        fprintf(stderr, "usage: core_floor DIRECTORY\n");
        return 2;
    }
    must(statfs(argv[1], &about) < 0, argv[1]);
    flush = about.f_type != TMPFS_MAGIC && about.f_type != RAMFS_MAGIC;
    snprintf(store_path, sizeof(store_path), "%s/core_floor.%d", argv[1], (int)getpid());
    snprintf(plain_path, sizeof(plain_path), "%s/core_floor.%d.plain", argv[1],
             (int)getpid());
    snprintf(lock_path, sizeof(lock_path), "%s/core_floor.%d.lock", argv[1],
             (int)getpid());
    check(tosc_backend_file_new(store_path, NULL, &file), "open");
    at = start_store(file);
    /* The floor's lock file is the store's, whose byte 0 both lock. */
    commits(flush, file, &at);
    /* Waking is compared without flushing, which would hide it. */
    tosc_backend_unref(file);
    check(tosc_backend_file_new(store_path, &(tosc_file_options){.not_durable = true},
                                &file),
          "open");
    least = wakes(true, file, &at);
    ours = wakes(false, file, &at);
    printf("%-42s %10.1f us\n", "floor: pwrite until inotify wakes another", least);
    printf("%-42s %10.1f us   %.2f x floor\n",
           "append until wait() + read_since() return", ours, ours / least);
    tosc_backend_unref(file);
    remove_files();
    return 0;
}
