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

/* How to reach a RADOS object; zero is the default everywhere. docs/ceph.md says more. */
typedef struct tosc_ceph_options {
    const char *client;  /* user name, with or without "client."; NULL: "admin" */
    const char *key;     /* its secret; NULL: from the keyring */
    const char *keyring; /* path; NULL: CEPH_KEYRING, else as the configuration says */
    /* Path of a ceph.conf. NULL: none where mon_host is given, else CEPH_CONF, else Ceph's
     * usual places. */
    const char *conf;
    const char *mon_host;   /* monitors, separated by commas; NULL: see conf */
    const char *pool;       /* required */
    const char *object;     /* required: name of the object that holds everything */
    const char *name_space; /* NULL: the pool's default one */
    int max_retries;        /* of a read or a change that others overtake; 0: 100 */
    int connect_timeout_s;  /* 0: 10; at most 3600, as the next two */
    int timeout_s;          /* of one operation; 0: 30 */
    int lease_s; /* after which a dead holder's exclusive lock is void; 0: 15 */
    int poll_ms; /* longest pause between looks, should a notice be lost; 0: 1000 */
} tosc_ceph_options;

/*
 * A store in one RADOS object. Connects, or shares a connection that this process has for the
 * same cluster and identity. Strings are copied; the key appears in no message.
 * Blocks for at most connect_timeout_s. TOSC_EUNSUPPORTED: built without librados;
 * TOSC_ESYSTEM (unreachable, key or pool unknown, not permitted), TOSC_EINVAL, TOSC_ENOMEM.
 */
int tosc_backend_ceph_new(const tosc_ceph_options *options, tosc_backend **ret);

/*
 * The store of this name in this process's memory: made by the first call, and the same one
 * for all until the last reference goes. Does not block. TOSC_EINVAL, TOSC_ENOMEM.
 */
int tosc_backend_inproc_named(const char *name, tosc_backend **ret);

/*
 * A store by its URI (percent-encoding as in RFC 3986; see tosc-backend(7)):
 *
 *     inproc:NAME
 *     file:/path?durable=0&lock=/path&shared_by_hosts=1&poll_ms=100
 *     ceph:pool/object?client=NAME&conf=PATH&keyring=PATH&mon_host=…&namespace=…&timeout=30
 *
 * and those whose scheme somebody has registered (<tosc/sys/backend.h>). Blocks as the
 * backend's own constructor does. TOSC_EINVAL names what is wrong with the URI; else the
 * errors of the constructor.
 */
int tosc_backend_open(const char *uri, tosc_backend **ret);

#ifdef __cplusplus
}
#endif

#endif
