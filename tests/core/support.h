/* What the tests of core share: stores in temporary directories, faults, processes. */
#ifndef TOSC_TESTS_SUPPORT_H
#define TOSC_TESTS_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <tosc/backend.h>

#include "../common/process.h"

/* Fails the test with the library's own sentence unless the call returned 0. */
#define ok(call) support_ok((call), #call, __FILE__, __LINE__)
void support_ok(int status, const char *call, const char *file, int line);

/* The call has to return this status. */
#define fails(status, call) support_fails((status), (call), #call, __FILE__, __LINE__)
void support_fails(int expected, int status, const char *call, const char *file,
                   int line);

/* A backend opened on `path` with defaults, or of the kind that a loop test is about. */
tosc_backend *file_store(const char *path);
tosc_backend *file_store_with(const char *path, const tosc_file_options *options);

enum kind { KIND_INPROC, KIND_LOCAL, KIND_DURABLE, KIND_NETWORK, KINDS };
tosc_backend *store_of_kind(int kind);

/* The operations, shorter. */
int do_write(tosc_backend *b, const char *text, tosc_position *at);
int do_append(tosc_backend *b, const char *text, tosc_position *at);
int do_append_bytes(tosc_backend *b, const void *data, size_t size, tosc_position *at);
int do_read(tosc_backend *b, tosc_data *data);
int do_read_since(tosc_backend *b, const tosc_position *known, tosc_data *data);
int do_compact(tosc_backend *b, const char *text, const tosc_position *of,
               tosc_position *at);
int do_lock(tosc_backend *b, const void *holder, int64_t timeout_ms);
int do_unlock(tosc_backend *b, const void *holder);
int do_changed(tosc_backend *b, const tosc_position *known);
int do_wait(tosc_backend *b, const tosc_position *known, int64_t timeout_ms,
            const tosc_event *stop, bool *changed);

/*
 * What is stored must be this text at this version, for this backend (version 0:
 * nothing).
 */
#define holds(b, text, version) support_holds((b), (text), (version), __FILE__, __LINE__)
void support_holds(tosc_backend *b, const char *text, int64_t version, const char *file,
                   int line);
/* The same through a new backend on `path`. */
void stored_at(const char *path, const char *text, int64_t version);

/* Files. */
void put_file(const char *path, const void *bytes, size_t size);
unsigned char *get_file(const char *path, size_t *ret_size); /* to be freed */
int64_t size_of(const char *path);
bool exists(const char *path);
/* Makes the machine look rebooted: nobody knows more than the data file says. */
void forget_control_block(const char *path);

/*
 * Faults: the call number `after` (from 0) of a kind fails, and all later ones if
 * `for_good`.
 */
enum fault {
    FAULT_MALLOC,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_SHORT_WRITE, /* writes a part, then fails */
    FAULT_LATE_WRITE,  /* writes everything, and fails then */
    FAULT_FDATASYNC,
    FAULT_FSYNC,
    FAULT_TRUNCATE,
    FAULT_RENAME,
    FAULTS
};
void fault_arm(enum fault kind, int after, int error, bool for_good);
/* Another kind that fails every time while armed. */
void fault_also(enum fault kind, int error);
bool fault_disarm(void); /* whether it struck */

uint64_t random_number(void);

#endif
