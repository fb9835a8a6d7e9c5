/*
 * What managers.c and transact.c share: entering with a Manager.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_HOST_MANAGERS_H
#define TOSC_HOST_MANAGERS_H

#include "host/host.h"
#include "py/manager.h"

/*
 * host_enter() and the Manager of a handle: 0 with a reference in *ret, as the handle may
 * be given back by another thread while this one waits. Else a status, and nothing to
 * leave.
 */
int manager_enter(HostEntry *entry, const tosc_manager *handle, Manager **ret);
/* host_leave(); drops the reference. TOSC_EPYTHON: for the exception that is set. */
int manager_leave(HostEntry *entry, Manager *m, int status);

#endif
