/*
 * What errors of librados mean. Each function leaves a sentence and returns TOSC_ESYSTEM
 * (TOSC_ENOMEM for ENOMEM); `error` is an errno, `where` "pool/object". Private to core.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_CEPH_FAILURES_H
#define TOSC_CORE_CEPH_FAILURES_H

#include <stdint.h>

#include "core/ceph_connection.h"

enum tosc__ceph_stage { TOSC__CEPH_CONF, TOSC__CEPH_OPTION, TOSC__CEPH_CONNECT };

int tosc__ceph_connect_failed(const struct tosc__ceph_identity *who,
                              enum tosc__ceph_stage stage, int error, const char *where);
/* The monitors did not answer within the limit. */
int tosc__ceph_unreachable(const struct tosc__ceph_identity *who, const char *where);
/* An operation, while `doing` ("reading", …). `size`: bytes to be written, or 0. */
int tosc__ceph_failed(int error, const struct tosc__ceph_identity *who, const char *where,
                      const char *doing, uint64_t size);

#endif
