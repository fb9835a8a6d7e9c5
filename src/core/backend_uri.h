/*
 * Openers of backends by URI that live outside uri.c. Private to core.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_BACKEND_URI_H
#define TOSC_CORE_BACKEND_URI_H

#include <tosc/backend.h>

/* backend_ceph.c: ceph:pool/object?…; TOSC_EUNSUPPORTED where it was built without. */
int tosc__ceph_open(const tosc_uri *uri, void *arg, tosc_backend **ret);

#endif
