/*
 * Helpers of the tests of core.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/sys.h"

void
support_ok(int status, const char *call, const char *file, int line)
{
    if (status != 0) {
        ck_abort_msg("%s:%d: %s returned %s: %s", file, line, call,
                     tosc_status_name(status), tosc_error_message());
    }
}

void
support_fails(int expected, int status, const char *call, const char *file, int line)
{
    if (status != expected) {
        ck_abort_msg("%s:%d: %s returned %s, not %s: %s", file, line, call,
                     tosc_status_name(status), tosc_status_name(expected),
                     tosc_error_message());
    }
}

void
support_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not true: %s (last fault: %s)\n", file, line, condition,
            tosc_error_message());
    abort();
}

/* ---- stores ---- */

tosc_backend *
file_store_with(const char *path, const tosc_file_options *options)
{
    tosc_backend *b = NULL;

    ok(tosc_backend_file_new(path, options, &b));
    return b;
}

tosc_backend *
file_store(const char *path)
{
    return file_store_with(path, NULL);
}

tosc_backend *
store_of_kind(int kind)
{
    tosc_file_options options = {.not_durable = kind != KIND_DURABLE,
                                 .shared_by_hosts = kind == KIND_NETWORK,
                                 .poll_ms = 20};
    tosc_backend *b = NULL;

    if (kind == KIND_INPROC) {
        ok(tosc_backend_inproc_new(&b));
        return b;
    }
    return file_store_with(path_in("store"), &options);
}

#define OPS(b) tosc_backend_ops(b)
#define IMPL(b) tosc_backend_impl(b)

int
do_write(tosc_backend *b, const char *text, tosc_position *at)
{
    tosc_position ignored;

    return OPS(b)->write(IMPL(b), NULL, text, strlen(text), at != NULL ? at : &ignored);
}

int
do_append_bytes(tosc_backend *b, const void *data, size_t size, tosc_position *at)
{
    tosc_commit_id id;
    tosc_data result;
    uint64_t random[2] = {random_number(), random_number()};
    int status;

    memcpy(&id, random, sizeof(id));
    status = OPS(b)->append(IMPL(b), NULL, data, size, &id, at, &result);
    if (status == 0) {
        must(!result.whole && result.bytes == NULL);
        *at = result.at;
    }
    return status;
}

int
do_append(tosc_backend *b, const char *text, tosc_position *at)
{
    return do_append_bytes(b, text, strlen(text), at);
}

int
do_read(tosc_backend *b, tosc_data *data)
{
    return OPS(b)->read(IMPL(b), data);
}

int
do_read_since(tosc_backend *b, const tosc_position *known, tosc_data *data)
{
    return OPS(b)->read_since(IMPL(b), known, data);
}

int
do_compact(tosc_backend *b, const char *text, const tosc_position *of, tosc_position *at)
{
    tosc_data result;
    int status = OPS(b)->compact(IMPL(b), NULL, text, strlen(text), of, &result);

    if (status == 0 && at != NULL) {
        *at = result.at;
    }
    return status;
}

int
do_lock(tosc_backend *b, const void *holder, int64_t timeout_ms)
{
    return OPS(b)->lock(IMPL(b), holder, tosc__deadline(timeout_ms));
}

int
do_unlock(tosc_backend *b, const void *holder)
{
    return OPS(b)->unlock(IMPL(b), holder);
}

int
do_changed(tosc_backend *b, const tosc_position *known)
{
    return OPS(b)->changed(IMPL(b), known);
}

int
do_wait(tosc_backend *b, const tosc_position *known, int64_t timeout_ms,
        const tosc_event *stop, bool *changed)
{
    return OPS(b)->wait(IMPL(b), known, timeout_ms, stop, changed);
}

void
support_holds(tosc_backend *b, const char *text, int64_t version, const char *file,
              int line)
{
    tosc_data data;

    support_ok(do_read(b, &data), "read", file, line);
    if (version == 0) {
        ck_assert_msg(!data.at.stored && data.bytes == NULL,
                      "%s:%d: the store should hold nothing", file, line);
        return;
    }
    ck_assert_msg(data.at.stored && data.at.version == version,
                  "%s:%d: version %lld instead of %lld", file, line,
                  (long long)data.at.version, (long long)version);
    ck_assert_msg(data.bytes != NULL && data.bytes->size == strlen(text)
                      && memcmp(data.bytes->data, text, strlen(text)) == 0,
                  "%s:%d: holds \"%.*s\" instead of \"%s\"", file, line,
                  data.bytes != NULL ? (int)data.bytes->size : 0,
                  data.bytes != NULL ? (const char *)data.bytes->data : "", text);
    tosc_blob_unref(data.bytes);
}

void
stored_at(const char *path, const char *text, int64_t version)
{
    tosc_backend *b = file_store(path);

    holds(b, text, version);
    tosc_backend_unref(b);
}

/* ---- files ---- */

void
put_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

unsigned char *
get_file(const char *path, size_t *ret_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    unsigned char *bytes;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &about), 0);
    bytes = malloc((size_t)about.st_size + 1);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_int_eq(read(fd, bytes, (size_t)about.st_size), about.st_size);
    close(fd);
    *ret_size = (size_t)about.st_size;
    return bytes;
}

int64_t
size_of(const char *path)
{
    struct stat about;

    ck_assert_int_eq(stat(path, &about), 0);
    return about.st_size;
}

bool
exists(const char *path)
{
    return access(path, F_OK) == 0;
}

void
forget_control_block(const char *path)
{
    char lock[600];

    snprintf(lock, sizeof(lock), "%s.lock", path);
    unlink(lock);
}

/* ---- faults ---- */

static struct {
    bool armed;
    enum fault kind;
    int left;
    int error;
    bool for_good;
    bool struck;
    bool also;
    enum fault also_kind;
    int also_error;
} fault;

static struct tosc__sys real;

static bool
strikes(enum fault kind)
{
    if (!fault.armed) {
        return false;
    }
    if (fault.also && fault.struck && fault.also_kind == kind) {
        errno = fault.also_error;
        return true;
    }
    if (fault.kind != kind || fault.left-- > 0) {
        return false;
    }
    if (fault.struck && !fault.for_good) {
        return false;
    }
    fault.struck = true;
    errno = fault.error;
    return true;
}

static void *
faulty_malloc(size_t size)
{
    return strikes(FAULT_MALLOC) ? NULL : real.malloc(size);
}

static ssize_t
faulty_pread(int fd, void *bytes, size_t size, off_t offset)
{
    return strikes(FAULT_READ) ? -1 : real.pread(fd, bytes, size, offset);
}

static void
fail_the_rest(void)
{
    fault.kind = FAULT_WRITE;
    fault.left = 0;
    fault.for_good = true;
}

static ssize_t
faulty_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    if (strikes(FAULT_WRITE)) {
        return -1;
    }
    if (strikes(FAULT_LATE_WRITE)) {
        int error = errno;

        real.pwrite(fd, bytes, size, offset);
        errno = error;
        return -1;
    }
    if (strikes(FAULT_SHORT_WRITE)) {
        fail_the_rest();
        return size > 1 ? real.pwrite(fd, bytes, size / 2, offset) : -1;
    }
    return real.pwrite(fd, bytes, size, offset);
}

static ssize_t
faulty_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (strikes(FAULT_WRITE)) {
        return -1;
    }
    if (strikes(FAULT_LATE_WRITE)) {
        int error = errno;

        real.pwritev(fd, parts, count, offset);
        errno = error;
        return -1;
    }
    if (strikes(FAULT_SHORT_WRITE)) {
        fail_the_rest();
        return real.pwrite(fd, parts[0].iov_base, parts[0].iov_len, offset);
    }
    return real.pwritev(fd, parts, count, offset);
}

static int
faulty_fdatasync(int fd)
{
    return strikes(FAULT_FDATASYNC) ? -1 : real.fdatasync(fd);
}

static int
faulty_fsync(int fd)
{
    return strikes(FAULT_FSYNC) ? -1 : real.fsync(fd);
}

static int
faulty_ftruncate(int fd, off_t size)
{
    return strikes(FAULT_TRUNCATE) ? -1 : real.ftruncate(fd, size);
}

static int
faulty_rename(const char *from, const char *to)
{
    return strikes(FAULT_RENAME) ? -1 : real.rename(from, to);
}

void
fault_arm(enum fault kind, int after, int error, bool for_good)
{
    if (real.malloc == NULL) {
        real = tosc__sys;
    }
    memset(&fault, 0, sizeof(fault));
    fault.armed = true;
    fault.kind = kind;
    fault.left = after;
    fault.error = error;
    fault.for_good = for_good;
    tosc__sys = (struct tosc__sys){.malloc = faulty_malloc,
                                   .pread = faulty_pread,
                                   .pwrite = faulty_pwrite,
                                   .pwritev = faulty_pwritev,
                                   .fdatasync = faulty_fdatasync,
                                   .fsync = faulty_fsync,
                                   .ftruncate = faulty_ftruncate,
                                   .rename = faulty_rename};
}

void
fault_also(enum fault kind, int error)
{
    fault.also = true;
    fault.also_kind = kind;
    fault.also_error = error;
}

bool
fault_disarm(void)
{
    tosc__sys = real;
    fault.armed = false;
    return fault.struck;
}

uint64_t
random_number(void)
{
    static __thread uint64_t state;

    if (state == 0) {
        state = (uint64_t)tosc__now() ^ (uint64_t)getpid() << 40
                ^ (uint64_t)(uintptr_t)&state;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
