/*
 * The Ceph backend: its options, its table of operations, its URI; and what is left of it
 * where it was built without librados.
 *
 * docs/ceph.md says how a store lies in its RADOS object, and ceph_backend.h which file
 * does what.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <stdlib.h>
#include <string.h>

#include <tosc/backend.h>

#include "core/backend_kind.h"
#include "core/backend_uri.h"
#include "core/error.h"

#ifdef HAVE_RADOS

#include "core/ceph_backend.h"

#define CONNECT_TIMEOUT_S 10
#define TIMEOUT_S 30
#define LEASE_S 15
#define POLL_MS 1000
#define RETRIES 100
#define MOST_S 3600

static const struct tosc_backend_ops ceph_ops = {
    .size = sizeof(ceph_ops),
    .name = "ceph",
    .destroy = tosc__ceph_destroy,
    .read = tosc__ceph_read,
    .write = tosc__ceph_write,
    .try_write = tosc__ceph_try_write,
    .wait = tosc__ceph_wait,
    .append = tosc__ceph_append,
    .read_since = tosc__ceph_read_since,
    .changed = tosc__ceph_changed,
    .compact = tosc__ceph_compact,
    .lock = tosc__ceph_lock,
    .unlock = tosc__ceph_unlock,
};

static bool
is_empty(const char *text)
{
    return text == NULL || text[0] == '\0';
}

static int
check_seconds(const char *name, int value)
{
    if (value < 1 || value > MOST_S) {
        return tosc__fail(TOSC_EINVAL, "%s must be 1 to %d seconds, not %d", name, MOST_S,
                          value);
    }
    return 0;
}

/* Fills in the defaults. */
static int
complete(tosc_ceph_options *options)
{
    int status;

    if (is_empty(options->pool) || is_empty(options->object)) {
        return tosc__fail(TOSC_EINVAL, "the %s of a Ceph store is missing",
                          is_empty(options->pool) ? "pool" : "name of the object");
    }
    if (is_empty(options->client)) {
        options->client = "admin";
    }
    if (strncmp(options->client, "client.", 7) == 0) {
        options->client += 7;
    }
    if (options->keyring == NULL && options->key == NULL) {
        options->keyring = getenv("CEPH_KEYRING");
    }
    if (options->max_retries < 0 || options->poll_ms < 0) {
        return tosc__fail(TOSC_EINVAL, "max_retries and poll_ms must not be negative");
    }
    options->max_retries = options->max_retries > 0 ? options->max_retries : RETRIES;
    options->poll_ms = options->poll_ms > 0 ? options->poll_ms : POLL_MS;
    options->lease_s = options->lease_s != 0 ? options->lease_s : LEASE_S;
    options->timeout_s = options->timeout_s != 0 ? options->timeout_s : TIMEOUT_S;
    options->connect_timeout_s =
        options->connect_timeout_s != 0 ? options->connect_timeout_s : CONNECT_TIMEOUT_S;
    status = check_seconds("the lease", options->lease_s);
    status = status != 0 ? status : check_seconds("timeout", options->timeout_s);
    return status != 0 ? status
                       : check_seconds("connect_timeout", options->connect_timeout_s);
}

int
tosc_backend_ceph_new(const tosc_ceph_options *options, tosc_backend **ret)
{
    tosc_ceph_options complete_options = *options;
    struct tosc__ceph *be;
    tosc_backend *backend;
    int status = complete(&complete_options);

    if (status == 0) {
        status = tosc__ceph_new(&complete_options, &be);
    }
    if (status != 0) {
        return status;
    }
    backend = tosc_backend_new(&ceph_ops, be);
    if (backend == NULL) {
        tosc__ceph_destroy(be);
        return tosc__fail(TOSC_ENOMEM, "not enough memory for a Ceph backend");
    }
    *ret = backend;
    return 0;
}

int
tosc__backend_ceph_where(const tosc_backend *backend, int64_t timeout_ms,
                         tosc_position *ret)
{
    struct tosc__ceph_seen seen;
    struct tosc__ceph_limit limit;
    int64_t deadline = tosc__deadline(timeout_ms);
    struct tosc__ceph *be;
    int status;

    if (tosc_backend_ops(backend) != &ceph_ops) {
        return tosc__fail(TOSC_EUNSUPPORTED, "this is no Ceph backend");
    }
    be = tosc_backend_impl(backend);
    limit = tosc__ceph_limit(be, NULL, NULL);
    limit.heed_ns = 0;
    limit.deadline = limit.deadline < deadline ? limit.deadline : deadline;
    status = tosc__ceph_look(be, &limit, NULL, false, &seen);
    if (status == 0) {
        tosc_blob_unref(seen.bytes);
        *ret = tosc__guard_position(&seen.state.guard);
    }
    return status;
}

#else

int
tosc__backend_ceph_where(const tosc_backend *backend, int64_t timeout_ms,
                         tosc_position *ret)
{
    (void)backend;
    (void)timeout_ms;
    (void)ret;
    return tosc__fail(TOSC_EUNSUPPORTED, "this is no Ceph backend");
}

int
tosc_backend_ceph_new(const tosc_ceph_options *options, tosc_backend **ret)
{
    (void)options;
    (void)ret;
    return tosc__fail(
        TOSC_EUNSUPPORTED,
        "this libtosc was built without Ceph: install librados's headers "
        "(Debian: librados-dev) and build it with ./configure --with-rados");
}

#endif

/* ---- ceph:pool/object?… ---- */

static int
read_numbers(const tosc_uri *uri, tosc_ceph_options *options)
{
    int status = tosc_uri_int(uri, "timeout", &options->timeout_s);

    if (status == 0) {
        status = tosc_uri_int(uri, "connect_timeout", &options->connect_timeout_s);
    }
    if (status == 0) {
        status = tosc_uri_int(uri, "lease", &options->lease_s);
    }
    if (status == 0) {
        status = tosc_uri_int(uri, "poll_ms", &options->poll_ms);
    }
    if (status == 0) {
        status = tosc_uri_int(uri, "max_retries", &options->max_retries);
    }
    return status;
}

/* A key would stand in process lists and logs. */
static int
check(const tosc_uri *uri)
{
    int status = tosc_uri_check(uri);

    if (status == 0 || tosc_uri_parameter(uri, "key") == NULL) {
        return status;
    }
    return tosc__fail(TOSC_EINVAL, "a URI must not contain a key: give the path of a "
                                   "keyring file (keyring=), or set CEPH_KEYRING");
}

int
tosc__ceph_open(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    const char *path = tosc_uri_path(uri);
    const char *slash = strchr(path, '/');
    tosc_ceph_options options = {.client = tosc_uri_parameter(uri, "client"),
                                 .keyring = tosc_uri_parameter(uri, "keyring"),
                                 .conf = tosc_uri_parameter(uri, "conf"),
                                 .mon_host = tosc_uri_parameter(uri, "mon_host"),
                                 .name_space = tosc_uri_parameter(uri, "namespace")};
    char *pool;
    int status = read_numbers(uri, &options);

    (void)arg;
    if (status == 0) {
        status = check(uri);
    }
    if (status != 0) {
        return status;
    }
    if (slash == NULL || slash == path || slash[1] == '\0') {
        return tosc__fail(TOSC_EINVAL, "a Ceph store is named pool/object, not \"%s\"",
                          path);
    }
    pool = strndup(path, (size_t)(slash - path));
    if (pool == NULL) {
        return tosc__fail(TOSC_ENOMEM, "not enough memory for a Ceph backend");
    }
    options.pool = pool;
    options.object = slash + 1;
    status = tosc_backend_ceph_new(&options, ret);
    free(pool);
    return status;
}
