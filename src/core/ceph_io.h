/*
 * Compound operations on one RADOS object, asynchronous underneath, so that waiting for
 * them can be limited and interrupted. Private to core; only where librados is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_CEPH_IO_H
#define TOSC_CORE_CEPH_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ceph_connection.h"
#include "core/ceph_guard.h"

/* One operation under way, shared by whoever waits for it and librados. */
struct tosc__ceph_op;

/*
 * Gives the operation up: it is cancelled if it still can be, and frees itself when
 * librados lets go of it. NULL is accepted.
 */
void tosc__ceph_op_abandon(struct tosc__ceph_op *op);

/*
 * Waits for its end and sets *ret_error to 0 or an errno. TOSC_EINTR; TOSC_ETIMEDOUT
 * (without a message) at the limit's deadline. The operation goes on in both cases.
 */
int tosc__ceph_op_wait(struct tosc__ceph_op *op, const struct tosc__ceph_limit *limit,
                       int *ret_error);

/* ---- reading ---- */

/* What a finished read found. */
struct tosc__ceph_found {
    size_t have;   /* bytes read */
    bool guarded;  /* there is a guard attribute, */
    bool is_guard; /* and it is one */
    struct tosc__guard guard;
    struct tosc__history history;
    uint8_t holder[TOSC__HOLDER_SIZE]; /* of the exclusive lock; zero: nobody */
    bool strange_holder;               /* the attribute is none that names one */
};

/*
 * Reads all attributes and `length` bytes from `offset` into `blob` at `at`, at one
 * moment. `blob` may be NULL with length 0; else a reference is taken.
 */
int tosc__ceph_read_start(struct tosc__ceph_link *link, const char *object,
                          uint64_t offset, tosc_blob *blob, size_t at, size_t length,
                          struct tosc__ceph_op **ret);
void tosc__ceph_read_result(struct tosc__ceph_op *op, struct tosc__ceph_found *ret);

/* ---- changing ---- */

enum tosc__ceph_bytes {
    TOSC__CEPH_NO_BYTES,
    TOSC__CEPH_PUT,    /* at `offset` */
    TOSC__CEPH_REPLACE /* the object's whole content */
};

/* About the exclusive lock: its lease, and the attribute that names its holder. */
enum tosc__ceph_lock {
    TOSC__CEPH_CHECK, /* the holder must be this one, else ECANCELED */
    TOSC__CEPH_TAKE,  /* EBUSY while somebody else has an unexpired lease */
    TOSC__CEPH_RENEW,
    TOSC__CEPH_DROP,    /* must be this one's */
    TOSC__CEPH_SET_FREE /* must be this one's, with an expired lease: else EBUSY */
};

/* All of it happens, or nothing. */
struct tosc__ceph_change {
    const struct tosc__guard *guard; /* the new one, NULL: it stays and is not compared */
    bool create;                     /* the object must not exist: else EEXIST; or */
    const struct tosc__guard *expect; /* this must be the guard, NULL: none: ECANCELED */
    const struct tosc__history *history; /* the new one, NULL: it stays */
    enum tosc__ceph_bytes what;
    const void *bytes; /* copied */
    size_t size;
    uint64_t offset;
    enum tosc__ceph_lock lock;
    const uint8_t *holder; /* NULL: nobody */
    int64_t lease_ms;
};

int tosc__ceph_change_start(struct tosc__ceph_link *link, const char *object,
                            const struct tosc__ceph_change *change,
                            struct tosc__ceph_op **ret);
/* The same where nobody wants to know what became of it. */
void tosc__ceph_change_send(struct tosc__ceph_link *link, const char *object,
                            const struct tosc__ceph_change *change);

#endif
