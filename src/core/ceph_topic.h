/*
 * What all Ceph backends of this process that are about one object know of it together.
 * Private to core; only where librados is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_CEPH_TOPIC_H
#define TOSC_CORE_CEPH_TOPIC_H

#include <stdbool.h>
#include <stdint.h>

#include <tosc/sys/backend.h>

struct tosc__ceph_topic;

/* The topic of this name, made where there is none yet. NULL: no memory. */
struct tosc__ceph_topic *tosc__ceph_topic_get(const char *name);
void tosc__ceph_topic_unref(struct tosc__ceph_topic *topic);

/* Rises with what is known. */
uint64_t tosc__ceph_topic_serial(struct tosc__ceph_topic *topic);
/* A look that was begun at `serial` has found this. */
void tosc__ceph_topic_tell(struct tosc__ceph_topic *topic, const tosc_position *at,
                           uint64_t serial);
/* Whether somebody has found the object to have left `known`. */
bool tosc__ceph_topic_has_left(struct tosc__ceph_topic *topic,
                               const tosc_position *known);

#endif
