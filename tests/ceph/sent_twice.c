/*
 * A commit of which librados has sent two copies, the first of which is done last.
 *
 *     sent_twice URI same|other|first
 *
 * It is refused while somebody else has the lock, and waits. Its other copy (here it is the
 * lock's holder who commits under the same id) is done meanwhile. So it is stored, once, and
 * no conflict. With `other` the holder's commit is one of his own, which is a conflict; with
 * `first` nothing has been stored before.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tosc/backend.h>
#include <tosc/error.h>
#include <tosc/sys/backend.h>

#define must(condition) \
    ((condition) ? (void)0 : failed(#condition, __LINE__, tosc_error_message()))

static const tosc_commit_id id = {{1, 2, 3}};
static const tosc_commit_id other_id = {{4, 5, 6}};
static char holder;

struct commit {
    tosc_backend *backend;
    tosc_position known;
    tosc_data data;
    int status;
    bool done; /* atomic */
};

static void
failed(const char *condition, int line, const char *message)
{
    fprintf(stderr, "sent_twice.c:%d: %s is not so (%s)\n", line, condition, message);
    exit(1);
}

static void
rest(int ms)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};

    nanosleep(&pause, NULL);
}

static void *
make_commit(void *arg)
{
    struct commit *commit = arg;
    tosc_backend *b = commit->backend;

    commit->status = tosc_backend_ops(b)->append(tosc_backend_impl(b), NULL, "+new", 4,
                                                 &id, &commit->known, &commit->data);
    __atomic_store_n(&commit->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void
expect_holds(tosc_backend *b, const char *text, int64_t version)
{
    tosc_data data;

    must(tosc_backend_ops(b)->read(tosc_backend_impl(b), &data) == 0);
    must(data.at.version == version);
    must(data.bytes != NULL && data.bytes->size == strlen(text));
    must(memcmp(data.bytes->data, text, strlen(text)) == 0);
    tosc_blob_unref(data.bytes);
}

int
main(int argc, char **argv)
{
    bool first = argc == 3 && strcmp(argv[2], "first") == 0;
    bool same = first || (argc == 3 && strcmp(argv[2], "same") == 0);
    struct commit commit = {.status = 0};
    const struct tosc_backend_ops *ops;
    tosc_backend *locker;
    tosc_position at = {.stored = false};
    tosc_data data;
    pthread_t thread;
    void *impl;

    must(argc == 3);
    must(tosc_backend_open(argv[1], &commit.backend) == 0);
    must(tosc_backend_open(argv[1], &locker) == 0);
    ops = tosc_backend_ops(locker);
    impl = tosc_backend_impl(locker);
    if (!first) {
        must(ops->write(impl, NULL, "old", 3, &at) == 0);
    }
    commit.known = at;
    must(ops->lock(impl, &holder, INT64_MAX) == 0);
    must(pthread_create(&thread, NULL, make_commit, &commit) == 0);
    rest(1500);
    must(!__atomic_load_n(&commit.done, __ATOMIC_ACQUIRE));
    must(ops->append(impl, &holder, "+new", 4, same ? &id : &other_id, &at, &data) == 0);
    must(data.at.version == at.version + 1);
    must(ops->unlock(impl, &holder) == 0);
    must(pthread_join(thread, NULL) == 0);
    must(commit.status == (same ? 0 : TOSC_ECONFLICT));
    must(!same || commit.data.at.version == at.version + 1);
    expect_holds(commit.backend, first ? "+new" : "old+new", at.version + 1);
    /* And the next commit goes on from there; a real copy would have made the same store. */
    if (same && !first) {
        must(ops->append(tosc_backend_impl(commit.backend), NULL, "!", 1, &other_id,
                         &commit.data.at, &data)
             == 0);
        expect_holds(locker, "old+new!", at.version + 2);
    }
    tosc_backend_unref(commit.backend);
    tosc_backend_unref(locker);
    return 0;
}
