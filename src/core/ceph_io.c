/*
 * Compound operations on one RADOS object.
 *
 * Each is sent asynchronously, and whoever waits sleeps on an eventfd of the operation's
 * own, so that signals, stop events and deadlines end the wait. The struct and all that
 * librados writes to (buffers, results) are shared with it: who gives an operation up
 * cancels it and drops his reference, and librados's goes with the completion, whenever
 * that comes. The completion's callback takes no lock and calls nobody.
 *
 * The lease of the exclusive lock is a lock of the OSD's class "lock" ("rados lock" in
 * the tools). librados has calls for it, but they block; so its requests are encoded
 * here, as parts of compound operations.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_RADOS

#include "core/ceph_io.h"

#include <errno.h>
#include <rados/librados.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/sys.h"

/* Full: fail at once instead of waiting until there is room. */
#define CHANGE_FLAGS LIBRADOS_OPERATION_FULL_TRY

struct tosc__ceph_op {
    int refs; /* atomic: who waits, librados */
    int fd;   /* eventfd, -1: nobody waits */
    int done; /* atomic */
    int error;
    int64_t began;
    unsigned forks; /* that there had been when it was made */
    struct tosc__ceph_link *link;
    rados_completion_t completion;
    rados_read_op_t read;
    rados_xattrs_iter_t attributes;
    int attributes_rc;
    int bytes_rc;
    size_t have;
    tosc_blob *blob;
};

static void
op_unref(struct tosc__ceph_op *op)
{
    if (__atomic_sub_fetch(&op->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    if (op->completion != NULL) {
        rados_aio_release(op->completion);
    }
    if (op->attributes != NULL) {
        rados_getxattrs_end(op->attributes);
    }
    if (op->read != NULL) {
        rados_release_read_op(op->read);
    }
    if (op->fd >= 0) {
        close(op->fd);
    }
    tosc_blob_unref(op->blob);
    tosc__ceph_link_unref(op->link);
    free(op);
}

/* In a thread of librados's. */
static void
completed(rados_completion_t completion, void *arg)
{
    struct tosc__ceph_op *op = arg;
    int rc = rados_aio_get_return_value(completion);

    op->error = rc < 0 ? -rc : 0;
    __atomic_store_n(&op->done, 1, __ATOMIC_RELEASE);
    if (op->fd >= 0) {
        eventfd_write(op->fd, 1);
    }
    op_unref(op);
    tosc__ceph_busy(-1);
}

/* One that librados has not been given. */
static void
op_discard(struct tosc__ceph_op *op)
{
    op->refs = 1;
    op_unref(op);
    tosc__ceph_busy(-1);
}

/*
 * With two references, and entered until completed() is through with it. NULL: no memory, no
 * descriptors, or the process ends.
 */
static struct tosc__ceph_op *
op_new(struct tosc__ceph_link *link, bool waited_for)
{
    struct tosc__ceph_op *op;

    if (!tosc__ceph_enter()) {
        return NULL;
    }
    op = tosc__sys.malloc(sizeof(*op));
    if (op != NULL) {
        *op = (struct tosc__ceph_op){
            .refs = 2, .fd = -1, .forks = tosc__ceph_forks(), .began = tosc__now()};
        op->link = tosc__ceph_link_ref(link);
        if (waited_for) {
            op->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        }
        if ((!waited_for || op->fd >= 0)
            && rados_aio_create_completion2(op, completed, &op->completion) == 0) {
            return op;
        }
        op->completion = NULL;
        op_discard(op);
        return NULL;
    }
    tosc__ceph_busy(-1);
    return NULL;
}

/* For an operation that librados did not take. */
static void
op_failed(struct tosc__ceph_op *op, int rc)
{
    op->error = -rc;
    __atomic_store_n(&op->done, 1, __ATOMIC_RELEASE);
    op_unref(op);
    tosc__ceph_busy(-1);
}

static int
no_memory(void)
{
    return tosc__ceph_no_memory("an operation of the Ceph backend");
}

void
tosc__ceph_op_abandon(struct tosc__ceph_op *op)
{
    if (op == NULL || op->forks != tosc__ceph_forks()) {
        return; /* or the child of a fork: its parent has it */
    }
    if (__atomic_load_n(&op->done, __ATOMIC_ACQUIRE) == 0) {
        rados_aio_cancel(tosc__ceph_link_io(op->link), op->completion);
    }
    op_unref(op);
}

int
tosc__ceph_op_wait(struct tosc__ceph_op *op, const struct tosc__ceph_limit *limit,
                   int *ret_error)
{
    struct tosc__ceph_limit part = *limit;

    part.heed_from = op->began + limit->heed_ns;
    while (__atomic_load_n(&op->done, __ATOMIC_ACQUIRE) == 0) {
        int status = tosc__ceph_sleep(op->fd, &part);

        if (status != 0 && __atomic_load_n(&op->done, __ATOMIC_ACQUIRE) == 0) {
            return status;
        }
    }
    *ret_error = op->error;
    return 0;
}

/* ---- reading ---- */

int
tosc__ceph_read_start(struct tosc__ceph_link *link, const char *object, uint64_t offset,
                      tosc_blob *blob, size_t at, size_t length,
                      struct tosc__ceph_op **ret)
{
    struct tosc__ceph_op *op = op_new(link, true);
    int rc;

    if (op == NULL || (op->read = rados_create_read_op()) == NULL) {
        if (op != NULL) {
            op_discard(op);
        }
        return no_memory();
    }
    op->blob = tosc_blob_ref(blob);
    rados_read_op_getxattrs(op->read, &op->attributes, &op->attributes_rc);
    if (length > 0) {
        rados_read_op_read(op->read, offset, length, (char *)blob->data + at, &op->have,
                           &op->bytes_rc);
    }
    rc = rados_aio_read_op_operate(op->read, tosc__ceph_link_io(link), op->completion,
                                   object, 0);
    if (rc < 0) {
        op_failed(op, rc);
    }
    *ret = op;
    return 0;
}

void
tosc__ceph_read_result(struct tosc__ceph_op *op, struct tosc__ceph_found *ret)
{
    const char *name;
    const char *value;
    size_t size;

    *ret = (struct tosc__ceph_found){.have = op->have};
    while (rados_getxattrs_next(op->attributes, &name, &value, &size) == 0
           && name != NULL) {
        const unsigned char *bytes = (const unsigned char *)value;

        if (strcmp(name, TOSC__GUARD_NAME) == 0 && size > 0) {
            ret->guarded = true;
            ret->is_guard = tosc__guard_decode(bytes, size, &ret->guard);
        } else if (strcmp(name, TOSC__HISTORY_NAME) == 0) {
            tosc__history_decode(bytes, size, &ret->history);
        } else if (strcmp(name, TOSC__HOLDER_NAME) == 0 && size == TOSC__HOLDER_SIZE) {
            memcpy(ret->holder, bytes, TOSC__HOLDER_SIZE);
        } else if (strcmp(name, TOSC__HOLDER_NAME) == 0 && size > 0) {
            ret->strange_holder = true;
        }
    }
}

/* ---- the lease: requests to the OSD's class "lock" ---- */

#define LEASE_NAME "tosc"
#define LEASE_ROOM 256
#define LEASE_EXCLUSIVE 1
#define LEASE_MAY_RENEW 1
#define LEASE_MUST_RENEW 2

struct request {
    unsigned char bytes[LEASE_ROOM];
    size_t size;
};

static void
add_byte(struct request *request, unsigned char byte)
{
    request->bytes[request->size++] = byte;
}

static void
add_number(struct request *request, uint32_t number)
{
    tosc__put32(request->bytes + request->size, number);
    request->size += 4;
}

/* Owners are short: there is always room. */
static void
add_text(struct request *request, const char *text)
{
    size_t size = strlen(text);

    add_number(request, (uint32_t)size);
    memcpy(request->bytes + request->size, text, size);
    request->size += size;
}

/* Ceph's framing: version, oldest version that can read it, length of what follows. */
static void
begin_request(struct request *request)
{
    request->size = 0;
    add_byte(request, 1);
    add_byte(request, 1);
    add_number(request, 0);
}

static void
end_request(struct request *request)
{
    tosc__put32(request->bytes + 2, (uint32_t)(request->size - 6));
}

/* The lease's owner as text: the holder in hexadecimal. */
static void
owner_of(const uint8_t *holder, char ret[2 * TOSC__HOLDER_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < TOSC__HOLDER_SIZE; i++) {
        ret[2 * i] = digits[holder[i] >> 4];
        ret[2 * i + 1] = digits[holder[i] & 15];
    }
    ret[2 * TOSC__HOLDER_SIZE] = '\0';
}

static void
add_lease(rados_write_op_t op, const uint8_t *holder, int64_t ms, unsigned char flags)
{
    char owner[2 * TOSC__HOLDER_SIZE + 1];
    struct request request;

    owner_of(holder, owner);
    begin_request(&request);
    add_text(&request, LEASE_NAME);
    add_byte(&request, LEASE_EXCLUSIVE);
    add_text(&request, owner);
    add_text(&request, "");
    add_text(&request, "tosc: exclusive lock of a transaction");
    add_number(&request, (uint32_t)(ms / 1000));
    add_number(&request, (uint32_t)(ms % 1000) * 1000000);
    add_byte(&request, flags);
    end_request(&request);
    rados_write_op_exec(op, "lock", "lock", (const char *)request.bytes, request.size,
                        NULL);
}

static void
drop_lease(rados_write_op_t op, const uint8_t *holder)
{
    char owner[2 * TOSC__HOLDER_SIZE + 1];
    struct request request;

    owner_of(holder, owner);
    begin_request(&request);
    add_text(&request, LEASE_NAME);
    add_text(&request, owner);
    end_request(&request);
    rados_write_op_exec(op, "lock", "unlock", (const char *)request.bytes, request.size,
                        NULL);
    /* It may have expired: then there is nothing to drop. */
    rados_write_op_set_flags(op, LIBRADOS_OP_FLAG_FAILOK);
}

static void
check_holder(rados_write_op_t op, const uint8_t *holder)
{
    rados_write_op_cmpxattr(op, TOSC__HOLDER_NAME, LIBRADOS_CMPXATTR_OP_EQ,
                            (const char *)holder, holder != NULL ? TOSC__HOLDER_SIZE : 0);
}

static void
add_lock(rados_write_op_t op, const struct tosc__ceph_change *change)
{
    static const uint8_t tidier[TOSC__HOLDER_SIZE] = {0};

    switch (change->lock) {
    case TOSC__CEPH_CHECK:
        if (!change->create) {
            check_holder(op, change->holder);
        }
        break;
    case TOSC__CEPH_TAKE:
        add_lease(op, change->holder, change->lease_ms, LEASE_MAY_RENEW);
        rados_write_op_setxattr(op, TOSC__HOLDER_NAME, (const char *)change->holder,
                                TOSC__HOLDER_SIZE);
        break;
    case TOSC__CEPH_RENEW:
        add_lease(op, change->holder, change->lease_ms, LEASE_MUST_RENEW);
        break;
    case TOSC__CEPH_DROP:
        check_holder(op, change->holder);
        drop_lease(op, change->holder);
        rados_write_op_rmxattr(op, TOSC__HOLDER_NAME);
        break;
    case TOSC__CEPH_SET_FREE:
        check_holder(op, change->holder);
        add_lease(op, tidier, 1, LEASE_MAY_RENEW);
        rados_write_op_rmxattr(op, TOSC__HOLDER_NAME);
        break;
    }
}

/* ---- changing ---- */

static void
add_condition(rados_write_op_t op, const struct tosc__ceph_change *change)
{
    unsigned char guard[TOSC__GUARD_SIZE];

    if (change->create) {
        rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    } else if (change->guard != NULL) {
        if (change->expect != NULL) {
            tosc__guard_encode(change->expect, guard);
        }
        /* A missing attribute is equal to an empty one. */
        rados_write_op_cmpxattr(op, TOSC__GUARD_NAME, LIBRADOS_CMPXATTR_OP_EQ,
                                (const char *)guard,
                                change->expect != NULL ? sizeof(guard) : 0);
    }
}

static void
add_attributes(rados_write_op_t op, const struct tosc__ceph_change *change)
{
    unsigned char guard[TOSC__GUARD_SIZE];
    unsigned char history[TOSC__HISTORY_ROOM];

    if (change->guard != NULL) {
        tosc__guard_encode(change->guard, guard);
        rados_write_op_setxattr(op, TOSC__GUARD_NAME, (const char *)guard, sizeof(guard));
    }
    if (change->history != NULL) {
        size_t size = tosc__history_encode(change->history, history);

        rados_write_op_setxattr(op, TOSC__HISTORY_NAME, (const char *)history, size);
    }
}

static rados_write_op_t
build(const struct tosc__ceph_change *change)
{
    rados_write_op_t op = rados_create_write_op();

    if (op == NULL) {
        return NULL;
    }
    add_condition(op, change);
    add_lock(op, change);
    if (change->what == TOSC__CEPH_PUT) {
        rados_write_op_write(op, change->bytes, change->size, change->offset);
    } else if (change->what == TOSC__CEPH_REPLACE) {
        rados_write_op_write_full(op, change->bytes, change->size);
    }
    add_attributes(op, change);
    return op;
}

static struct tosc__ceph_op *
start(struct tosc__ceph_link *link, const char *object,
      const struct tosc__ceph_change *change, bool waited_for)
{
    struct tosc__ceph_op *op = op_new(link, waited_for);
    rados_write_op_t write = op != NULL ? build(change) : NULL;
    int rc;

    if (write == NULL) {
        if (op != NULL) {
            op_discard(op);
        }
        return NULL;
    }
    rc = rados_aio_write_op_operate(write, tosc__ceph_link_io(link), op->completion,
                                    object, NULL, CHANGE_FLAGS);
    rados_release_write_op(write);
    if (rc < 0) {
        op_failed(op, rc);
    }
    return op;
}

int
tosc__ceph_change_start(struct tosc__ceph_link *link, const char *object,
                        const struct tosc__ceph_change *change,
                        struct tosc__ceph_op **ret)
{
    struct tosc__ceph_op *op = start(link, object, change, true);

    if (op == NULL) {
        return no_memory();
    }
    *ret = op;
    return 0;
}

void
tosc__ceph_change_send(struct tosc__ceph_link *link, const char *object,
                       const struct tosc__ceph_change *change)
{
    struct tosc__ceph_op *op = start(link, object, change, false);

    if (op != NULL) {
        op_unref(op);
    }
}

#endif
