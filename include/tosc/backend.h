/*
 * Backends: where a store keeps its bytes.
 *
 * A backend may serve several Managers and threads at a time. See <tosc/sys/backend.h> to
 * write one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_BACKEND_H
#define TOSC_BACKEND_H

#include <tosc/error.h>
#include <tosc/sys/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

tosc_backend *tosc_backend_ref(tosc_backend *backend);
/* Drops a reference; the last one ends the backend. NULL is accepted; returns NULL. */
tosc_backend *tosc_backend_unref(tosc_backend *backend);
const struct tosc_backend_ops *tosc_backend_ops(const tosc_backend *backend);
void *tosc_backend_impl(const tosc_backend *backend);

/* A new store in this process's memory. Does not block. TOSC_ENOMEM. */
int tosc_backend_inproc_new(tosc_backend **ret);

/* How a file store behaves; zero is the default everywhere. */
typedef struct tosc_file_options {
    const char *lock_path; /* NULL: the path with ".lock" added */
    bool not_durable;      /* do not flush to the device at each commit */
    bool shared_by_hosts;  /* treat the filesystem as a network one whatever it says */
    int poll_ms;           /* longest pause between looks where nobody notifies; 0: 100 */
} tosc_file_options;

/*
 * A store in the regular file `path`. Nothing is created or opened yet except that the
 * directory must exist; the file is made (0600) by the first write. TOSC_ESYSTEM,
 * TOSC_EINVAL, TOSC_ENOMEM. `options` may be NULL; its strings are copied.
 */
int tosc_backend_file_new(const char *path, const tosc_file_options *options,
                          tosc_backend **ret);

#ifdef __cplusplus
}
#endif

#endif
