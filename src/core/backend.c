/*
 * Backends as their users see them: an implementation, its operations, a reference count.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include <tosc/backend.h>

#include "core/sys.h"

struct tosc_backend {
    const struct tosc_backend_ops *ops;
    void *impl;
    int refs; /* atomic */
};

tosc_backend *
tosc_backend_new(const struct tosc_backend_ops *ops, void *impl)
{
    tosc_backend *backend = tosc__sys.malloc(sizeof(*backend));

    if (backend == NULL) {
        return NULL;
    }
    backend->ops = ops;
    backend->impl = impl;
    backend->refs = 1;
    return backend;
}

tosc_backend *
tosc_backend_ref(tosc_backend *backend)
{
    if (backend != NULL) {
        __atomic_fetch_add(&backend->refs, 1, __ATOMIC_RELAXED);
    }
    return backend;
}

tosc_backend *
tosc_backend_unref(tosc_backend *backend)
{
    if (backend != NULL && __atomic_sub_fetch(&backend->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        if (backend->ops->destroy != NULL) {
            backend->ops->destroy(backend->impl);
        }
        free(backend);
    }
    return NULL;
}

const struct tosc_backend_ops *
tosc_backend_ops(const tosc_backend *backend)
{
    return backend->ops;
}

void *
tosc_backend_impl(const tosc_backend *backend)
{
    return backend->impl;
}
