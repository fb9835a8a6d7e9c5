/*
 * What errors of librados mean, in sentences that say what to do.
 *
 * One number means different things at different stages (EINVAL: a malformed key, or an
 * address; ENOENT: no keyring, no pool, no object), so there is a function for each
 * stage. A key appears in no sentence.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/ceph_failures.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"

int
tosc__ceph_unreachable(const struct tosc__ceph_identity *who, const char *where)
{
    return tosc__fail_errno(ETIMEDOUT, where,
                            "no monitor of the Ceph cluster%s%s answered in time (check "
                            "mon_host, the network, and whether the monitors run), "
                            "wanted for",
                            who->mon_host != NULL ? " at " : "",
                            who->mon_host != NULL ? who->mon_host : "");
}

static int
conf_failed(const struct tosc__ceph_identity *who, int error, const char *where)
{
    const char *conf = who->conf;

    if (conf == NULL && error == ENOENT) {
        return tosc__fail_errno(ENOENT, where,
                                "there is no ceph.conf in the usual places: give "
                                "mon_host, or conf, the path of one, for");
    }
    return tosc__fail_errno(error, conf != NULL ? conf : where,
                            "cannot read the configuration%s",
                            conf != NULL ? "" : " of the cluster for");
}

static int
not_let_in(const struct tosc__ceph_identity *who, int error, const char *where)
{
    if (who->key == NULL && who->keyring == NULL) {
        return tosc__fail_errno(
            error, where,
            "the Ceph cluster does not let client.%s in: no key was "
            "given (give key, or keyring, the path of a file that has "
            "it), or not the right one, for",
            who->client);
    }
    return tosc__fail_errno(
        error, where,
        "the Ceph cluster does not let client.%s in: it has no such "
        "user, or the user has another key (check client, and %s%s), for",
        who->client, who->key != NULL ? "key" : "keyring ",
        who->key != NULL ? "" : who->keyring);
}

/* Whether it is base64, as keys are. */
static bool
looks_like_key(const char *key)
{
    size_t size = strlen(key);

    return size >= 16 && size % 4 == 0
           && strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                          "+/=")
                  == size;
}

static int
not_understood(const struct tosc__ceph_identity *who, const char *where)
{
    if (who->key != NULL && !looks_like_key(who->key)) {
        return tosc__fail_errno(EINVAL, where,
                                "the key of client.%s is not a cephx key, which is what "
                                "`ceph auth get-key client.%s` prints, for",
                                who->client, who->client);
    }
    return tosc__fail_errno(EINVAL, where,
                            "librados does not understand mon_host%s%s (addresses or "
                            "names, separated by commas), or the key or another setting "
                            "of client.%s, for",
                            who->mon_host != NULL ? " " : "",
                            who->mon_host != NULL ? who->mon_host : "", who->client);
}

static int
cannot_connect(const struct tosc__ceph_identity *who, int error, const char *where)
{
    return tosc__fail_errno(error, where,
                            "cannot connect to the Ceph cluster as client.%s, for",
                            who->client);
}

int
tosc__ceph_connect_failed(const struct tosc__ceph_identity *who,
                          enum tosc__ceph_stage stage, int error, const char *where)
{
    if (stage == TOSC__CEPH_CONF) {
        return conf_failed(who, error, where);
    }
    if (error != ETIMEDOUT && who->key == NULL && who->keyring != NULL
        && strchr(who->keyring, ',') == NULL && access(who->keyring, R_OK) != 0) {
        return tosc__fail_errno(errno, who->keyring, "cannot read the keyring");
    }
    switch (error) {
    case ENAMETOOLONG:
        return tosc__fail_errno(error, where, "the name of the user is too long, for");
    case ETIMEDOUT:
        return tosc__ceph_unreachable(who, where);
    case EACCES:
    case EPERM:
        return not_let_in(who, error, where);
    case EIO:
    case EISDIR:
        if (who->key == NULL && who->keyring != NULL) {
            return tosc__fail_errno(error, who->keyring,
                                    "there is something else than a keyring in");
        }
        return cannot_connect(who, error, where);
    case EINVAL:
        return not_understood(who, where);
    case ENOENT:
        return tosc__fail_errno(
            ENOENT, where,
            "no key for client.%s was found%s%s (give key, or a "
            "keyring that has it), or mon_host is an unknown name, for",
            who->client, who->keyring != NULL ? " in " : "",
            who->keyring != NULL ? who->keyring : "");
    default:
        return cannot_connect(who, error, where);
    }
}

int
tosc__ceph_failed(int error, const struct tosc__ceph_identity *who, const char *where,
                  const char *doing, uint64_t size)
{
    switch (error) {
    case ENOMEM:
        return tosc__fail(TOSC_ENOMEM, "not enough memory while %s %s", doing, where);
    case ETIMEDOUT:
        return tosc__fail_errno(ETIMEDOUT, where,
                                "the Ceph cluster did not answer in time (check whether "
                                "its OSDs run and can be reached; `timeout` sets the "
                                "limit) while %s",
                                doing);
    case EPERM:
    case EACCES:
        return tosc__fail_errno(
            error, where,
            "client.%s lacks a capability (it needs mon 'allow r' and "
            "osd 'allow rwx pool=%.*s': see `ceph auth caps`) while %s",
            who->client, (int)strcspn(where, "/"), where, doing);
    case ENOSPC:
        return tosc__fail_errno(ENOSPC, where,
                                "the Ceph cluster is full: add space, or remove "
                                "something; while %s",
                                doing);
    case EDQUOT:
        return tosc__fail_errno(EDQUOT, where,
                                "the pool is full or its quota is used up (see `ceph osd "
                                "pool get-quota`); while %s",
                                doing);
    case EMSGSIZE:
        return tosc__fail_errno(
            EMSGSIZE, where,
            "%llu bytes are more than the cluster accepts in one write "
            "(its osd_max_write_size, 90 MiB unless changed): store "
            "less, or have it raised; while %s",
            (unsigned long long)size, doing);
    case EFBIG:
        return tosc__fail_errno(
            EFBIG, where,
            "the object would be larger than the cluster allows (its "
            "osd_max_object_size, 128 MiB unless changed): store less, "
            "or have it raised; while %s",
            doing);
    case EOPNOTSUPP:
        return tosc__fail_errno(EOPNOTSUPP, where,
                                "the pool does not support what a store needs: use a "
                                "replicated pool, or an erasure-coded one with "
                                "allow_ec_overwrites; while %s",
                                doing);
    case ENAMETOOLONG:
        return tosc__fail_errno(ENAMETOOLONG, where,
                                "the name of the object or namespace is longer than the "
                                "cluster allows (osd_max_object_name_len, 2048 bytes "
                                "unless changed): choose a shorter one than");
    default:
        return tosc__fail_errno(error, where, "the Ceph cluster refused %s", doing);
    }
}
