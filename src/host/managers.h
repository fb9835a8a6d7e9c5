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
/*
 * C has given back a handle of the Manager, or of an object that alone has kept it. Takes over
 * the reference. If nobody else uses the Manager it ends: otherwise when the last one has done
 * so; but what scripts hold keeps it until Python's next garbage collection.
 */
void manager_given_back(Manager *m);
/* How many are kept by values alone; some of them may have gone. Guarded by Python's lock. */
extern int managers_kept;
/* The Manager that this object keeps, of which C has no handle any more: a reference, or NULL. */
Manager *manager_kept_by(PyObject *object);
/*
 * host_failed() for an operation on m's store (NULL: on none); but TOSC_EINVAL if it was refused
 * because this thread holds the store's lock through another Manager.
 */
int manager_failed(Manager *m);

#endif
