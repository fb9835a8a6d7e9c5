/*
 * The least that a commit and its notice can cost on a Ceph cluster: plain librados.
 *
 *     ceph_floor fill OBJECT BYTES              make the object, so large
 *     ceph_floor size OBJECT                    print its size
 *     ceph_floor append OBJECT COUNT BYTES      print what each operation takes
 *     ceph_floor listen OBJECT COUNT            print when notices come
 *     ceph_floor notify OBJECT COUNT PAUSE_MS [BYTES]
 *
 * `append` is one compound operation, as a commit needs it: compare an attribute with what it
 * was set to last, append the bytes, set two attributes. `notify` sends notices without waiting
 * for answers, each with the time at which it began; with BYTES it appends first. `listen` prints
 * "ready", then for each notice how long ago that was. All times are nanoseconds.
 *
 * Which cluster is said by the TOSC_CEPH_… variables of tests/ceph/ceph-test-cluster.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <rados/librados.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static rados_t cluster;
static rados_ioctx_t io;

static int64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void
must(int status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "ceph_floor: %s: %s\n", what, strerror(-status));
        exit(1);
    }
}

static const char *
setting(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL) {
        fprintf(stderr, "ceph_floor: %s is not set\n", name);
        exit(2);
    }
    return value;
}

static void
connect_to_cluster(void)
{
    must(rados_create(&cluster, setting("TOSC_CEPH_CLIENT")), "rados_create");
    must(rados_conf_set(cluster, "mon_host", setting("TOSC_CEPH_MON_HOST")), "mon_host");
    must(rados_conf_set(cluster, "keyring", setting("TOSC_CEPH_KEYRING")), "keyring");
    must(rados_connect(cluster), "rados_connect");
    must(rados_ioctx_create(cluster, setting("TOSC_CEPH_POOL"), &io),
         "rados_ioctx_create");
}

/* ---- appending ---- */

static uint64_t version;

static void
append(const char *object, const char *bytes, size_t size)
{
    uint64_t next[3] = {version + 1, 0, 0};
    char id[16] = {0};
    rados_write_op_t op = rados_create_write_op();
    rados_write_op_cmpxattr(op, "floor.version", LIBRADOS_CMPXATTR_OP_EQ,
                            (const char *)(uint64_t[3]){version, 0, 0}, sizeof next);
    rados_write_op_append(op, bytes, size);
    rados_write_op_setxattr(op, "floor.version", (const char *)next, sizeof next);
    rados_write_op_setxattr(op, "floor.id", id, sizeof id);
    must(rados_write_op_operate(op, io, object, NULL, 0), "append");
    rados_release_write_op(op);
    version++;
}

static char *
some_bytes(size_t size)
{
    char *bytes = malloc(size + 1);
    if (bytes == NULL) {
        exit(1);
    }
    memset(bytes, 'x', size);
    return bytes;
}

static void
restart_versions(const char *object)
{
    uint64_t none[3] = {0, 0, 0};
    version = 0;
    must(rados_setxattr(io, object, "floor.version", (const char *)none, sizeof none),
         "setxattr");
}

static void
fill(const char *object, size_t size)
{
    char *bytes = some_bytes(size);
    must(rados_write_full(io, object, bytes, size), "write_full");
    free(bytes);
}

static void
print_size(const char *object)
{
    uint64_t size = 0;
    must(rados_stat(io, object, &size, NULL), "stat");
    printf("%" PRIu64 "\n", size);
}

static void
time_appends(const char *object, int count, size_t size)
{
    char *bytes = some_bytes(size);
    restart_versions(object);
    append(object, bytes, size);
    for (int i = 0; i < count; i++) {
        int64_t begin = now_ns();
        append(object, bytes, size);
        printf("%" PRId64 "\n", now_ns() - begin);
    }
    free(bytes);
}

/* ---- notices ---- */

static int64_t *delays;
static int wanted;
static int came;
static sem_t all_came;

static void
on_notice(void *arg, uint64_t notify_id, uint64_t handle, uint64_t notifier_id,
          void *data, size_t size)
{
    int64_t now = now_ns();
    int64_t begin = 0;
    (void)notifier_id;
    if (size == sizeof begin && came < wanted) {
        memcpy(&begin, data, sizeof begin);
        delays[came++] = now - begin;
        if (came == wanted) {
            sem_post(&all_came);
        }
    }
    rados_notify_ack(io, arg, notify_id, handle, NULL, 0);
}

static void
on_error(void *arg, uint64_t handle, int error)
{
    (void)arg;
    (void)handle;
    must(error, "watch");
}

static void
listen_for_notices(const char *object, int count)
{
    uint64_t handle = 0;
    wanted = count;
    delays = calloc((size_t)count, sizeof *delays);
    if (delays == NULL || sem_init(&all_came, 0, 0) < 0) {
        exit(1);
    }
    must(rados_watch3(io, object, &handle, on_notice, on_error, 60, (void *)object),
         "watch");
    printf("ready\n");
    fflush(stdout);
    while (sem_wait(&all_came) < 0) {
    }
    for (int i = 0; i < count; i++) {
        printf("%" PRId64 "\n", delays[i]);
    }
    rados_unwatch2(io, handle);
}

static void
send_notices(const char *object, int count, int pause_ms, size_t size)
{
    struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000000L};
    char *bytes = some_bytes(size);
    if (size > 0) {
        restart_versions(object);
    }
    for (int i = 0; i < count; i++) {
        rados_completion_t done;
        nanosleep(&pause, NULL);
        int64_t begin = now_ns();
        if (size > 0) {
            append(object, bytes, size);
        }
        must(rados_aio_create_completion2(NULL, NULL, &done), "completion");
        must(rados_aio_notify(io, object, done, (const char *)&begin, sizeof begin, 5000,
                              NULL, NULL),
             "notify");
        rados_aio_release(done); /* the answers of the listeners are not waited for */
    }
    must(rados_aio_flush(io), "flush");
    nanosleep(&(struct timespec){0, 200000000}, NULL);
    free(bytes);
}

int
main(int argc, char **argv)
{
    const char *verb = argc > 2 ? argv[1] : "";
    const char *object = argc > 2 ? argv[2] : "";
    int count = argc > 3 ? atoi(argv[3]) : 0;
    int more = argc > 4 ? atoi(argv[4]) : 0;
    int bytes = argc > 5 ? atoi(argv[5]) : 0;
    connect_to_cluster();
    if (strcmp(verb, "fill") == 0) {
        fill(object, (size_t)count);
    } else if (strcmp(verb, "size") == 0) {
        print_size(object);
    } else if (strcmp(verb, "append") == 0) {
        time_appends(object, count, (size_t)more);
    } else if (strcmp(verb, "listen") == 0) {
        listen_for_notices(object, count);
    } else if (strcmp(verb, "notify") == 0) {
        send_notices(object, count, more, (size_t)bytes);
    } else {
        fprintf(stderr, "usage: see the head of ceph_floor.c\n");
        return 2;
    }
    rados_ioctx_destroy(io);
    rados_shutdown(cluster);
    return 0;
}
