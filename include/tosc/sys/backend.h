/*
 * For writers of backends: the table of operations that a store has to offer.
 *
 * A backend moves bytes and a version, nothing else. Four operations are required (read,
 * write, try_write, wait); the others make commits cheap and may be NULL. All may be called
 * from any thread, several at a time, and never with a lock of the caller's that a wait
 * could deadlock on. They return 0 or a negative code of <tosc/error.h>, and on failure
 * leave every `ret_` output untouched.
 *
 * Positions. A tosc_position names one state of one store. `version` and `stored` are what
 * users see. `store_id` tells a store from another one that later has the same name (a file
 * deleted and made again); a backend that cannot tell leaves it zero. `cookie` is the
 * backend's own (an offset, a generation) and is a hint: an operation that is given a
 * position with a wrong cookie is slower, never wrong.
 *
 * tosc-backend(7) says it at length; tosc-check-backend(1) checks a backend against it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_SYS_BACKEND_H
#define TOSC_SYS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tosc_position {
    bool stored; /* false: the store holds nothing, the rest is zero */
    int64_t version;
    uint8_t store_id[16];
    uint64_t cookie[2];
} tosc_position;

/* Reference-counted bytes that never change. */
typedef struct tosc_blob {
    size_t size;
    int refs; /* atomic */
    unsigned char data[];
} tosc_blob;

/* A new blob of `size` bytes to be filled by the caller, with one reference; NULL: no memory. */
tosc_blob *tosc_blob_new(size_t size);
tosc_blob *tosc_blob_ref(tosc_blob *blob);
/* Drops a reference. NULL is accepted; returns NULL. */
tosc_blob *tosc_blob_unref(tosc_blob *blob);

/* What a read found. */
typedef struct tosc_data {
    tosc_position at;    /* the state that these bytes lead to */
    bool whole;          /* all that is stored; else only what came after a position */
    tosc_blob *bytes;    /* owned by the receiver; NULL: no bytes */
    uint64_t base_bytes; /* size of the base, */
    uint64_t tail_bytes; /* and of what was appended to it since */
} tosc_data;

/* Identifies one commit for ever, so that a lost reply can be looked up. */
typedef struct tosc_commit_id {
    uint8_t bytes[16];
} tosc_commit_id;

/* Something that ends a wait: see tosc_event_set(). */
typedef struct tosc_event tosc_event;

tosc_event *tosc_event_new(void); /* NULL: no memory or no descriptors */
tosc_event *tosc_event_free(tosc_event *event);
void tosc_event_set(tosc_event *event); /* stays set; async-signal-safe; any thread */
bool tosc_event_is_set(const tosc_event *event);
int
tosc_event_fd(const tosc_event *event); /* readable once set; stays owned by the event */

/*
 * `holder`, where it appears, is an arbitrary address that identifies the caller who has
 * taken the exclusive lock with `lock`; NULL for a caller who has not. Operations of other
 * holders wait for the lock.
 */
struct tosc_backend_ops {
    size_t size;      /* sizeof(struct tosc_backend_ops) */
    const char *name; /* "file" */

    /* Ends the backend. Called once, when the last reference goes. */
    void (*destroy)(void *impl);

    /* All that is stored, atomically, with its version (ret->whole is true). */
    int (*read)(void *impl, tosc_data *ret);

    /* Replaces all that is stored, whatever it is. */
    int (*write)(void *impl, const void *holder, const void *data, size_t size,
                 tosc_position *ret);

    /*
     * Replaces all that is stored if its version is *expected (and its id is expected_id,
     * when that is not NULL); with expected NULL, if nothing is stored. TOSC_ECONFLICT else.
     */
    int (*try_write)(void *impl, const void *holder, const void *data, size_t size,
                     const int64_t *expected, const uint8_t *expected_id,
                     tosc_position *ret);

    /*
     * Waits until the store is no longer at `known`, for at most timeout_ms (-1: for ever).
     * `stop` (may be NULL) ends the wait early, as does a signal: TOSC_EINTR. A change that
     * came before the call counts. *ret_changed may be true without a change, not false with one.
     */
    int (*wait)(void *impl, const tosc_position *known, int64_t timeout_ms,
                const tosc_event *stop, bool *ret_changed);

    /* ---- optional ---- */

    /*
     * Adds bytes after what is stored if the store is at `known`, and makes that the next
     * version. TOSC_ECONFLICT if it is not. When it returns 0 the bytes are as durable as
     * the backend promises. TOSC_EUNKNOWN only after `id` has been looked for in vain.
     * TOSC_ESYSTEM with EFBIG: there is no room for more; the caller may replace everything.
     */
    int (*append)(void *impl, const void *holder, const void *data, size_t size,
                  const tosc_commit_id *id, const tosc_position *known, tosc_data *ret);

    /*
     * What was added after `known` (whole false), nothing (bytes NULL, whole false), or, when
     * that cannot be told because the base is another one, everything (whole true).
     */
    int (*read_since)(void *impl, const tosc_position *known, tosc_data *ret);

    /*
     * Whether the store has left `known`: 1 yes, 0 no, or TOSC_EUNSUPPORTED where only I/O
     * could tell. Takes well under a microsecond, never blocks.
     */
    int (*changed)(void *impl, const tosc_position *known);

    /*
     * Replaces the base by `data`, which says the same as everything stored up to `of`. What
     * was added after `of` is kept behind it, and the version stays. TOSC_ECONFLICT when the
     * base is no longer the one that `of` came from.
     */
    int (*compact)(void *impl, const void *holder, const void *data, size_t size,
                   const tosc_position *of, tosc_data *ret);

    /*
     * The exclusive lock: between lock and unlock no other holder, in this process or another,
     * can change the store. Waits until deadline_ns on CLOCK_MONOTONIC (INT64_MAX: for ever);
     * a signal gives TOSC_EINTR. A holder that dies frees it. Not recursive. Without a holder,
     * TOSC_EINVAL; so is unlock by anybody but the holder. A deadline in the past: does not
     * wait. To be had together or not at all.
     */
    int (*lock)(void *impl, const void *holder, int64_t deadline_ns);
    int (*unlock)(void *impl, const void *holder);
};

typedef struct tosc_backend tosc_backend;

/*
 * A backend with one reference, over `impl`, which it takes: ops->destroy(impl) is called
 * when the last reference goes. On failure (NULL: no memory) impl stays the caller's.
 * `ops` must outlive the backend.
 */
tosc_backend *tosc_backend_new(const struct tosc_backend_ops *ops, void *impl);

/*
 * Leaves a sentence for tosc_error_message() and returns `status`, so that an operation can
 * `return tosc_backend_fail(TOSC_ESYSTEM, "…")`. The second is for system calls and such
 * that told an errno: it adds strerror() to the sentence, and returns TOSC_ESYSTEM, or
 * TOSC_ENOMEM for ENOMEM. A conflict needs no sentence. Do not block; any thread.
 */
#if defined(__GNUC__)
#define TOSC_PRINTF_LIKE __attribute__((format(printf, 2, 3)))
#else
#define TOSC_PRINTF_LIKE
#endif
int tosc_backend_fail(int status, const char *format, ...) TOSC_PRINTF_LIKE;
int tosc_backend_fail_errno(int error, const char *format, ...) TOSC_PRINTF_LIKE;
#undef TOSC_PRINTF_LIKE

/*
 * ---- Backends by URI ----
 *
 * tosc_backend_open() takes a URI apart and calls the opener of its scheme:
 *
 *     scheme:path?name=value&name=value        scheme://authority/path?…
 *
 * Path, names and values are decoded ("%20"); a "+" is a plus sign. Neither NUL bytes nor a
 * parameter that is given twice or without "=" nor a fragment ("#…") reach an opener.
 */

/* A URI taken apart; valid during the call that is given it, as are the strings from it. */
typedef struct tosc_uri tosc_uri;

/* In small letters. */
const char *tosc_uri_scheme(const tosc_uri *uri);
/* What stands between scheme (or authority) and query: "/path", "pool/object", or "". */
const char *tosc_uri_path(const tosc_uri *uri);
/*
 * What stands between "//" and the next "/", not decoded, as its parts have delimiters of
 * their own: "host:port", "" in "file:///path". NULL: no "//". Marks it as known.
 */
const char *tosc_uri_authority(const tosc_uri *uri);
/* The value of a query parameter, NULL: not given. Marks it as known. */
const char *tosc_uri_parameter(const tosc_uri *uri, const char *name);
/*
 * The same as a number from 0 to INT_MAX, or a truth value (0/1, no/yes, false/true); left as
 * it is where it is not given. TOSC_EINVAL names the parameter.
 */
int tosc_uri_int(const tosc_uri *uri, const char *name, int *ret);
int tosc_uri_bool(const tosc_uri *uri, const char *name, bool *ret);
/*
 * TOSC_EINVAL if there is a parameter or an authority that was not asked for by the functions
 * above. To be called when all were, and before anything is opened or made.
 */
int tosc_uri_check(const tosc_uri *uri);

/*
 * Makes a backend for a URI; `arg` is what was registered. Returns as every operation does,
 * with a message on failure. May be called from several threads at a time; may block. The
 * caller checks the URI once more afterwards, and drops the backend if it does not pass.
 */
typedef int (*tosc_backend_opener)(const tosc_uri *uri, void *arg, tosc_backend **ret);

/*
 * From now on, for good, tosc_backend_open() has `open` make the backends of URIs with this
 * scheme (a letter, then letters, digits, "+", "-", "."; case does not matter). The name is
 * copied. Does not block; any thread. TOSC_EINVAL (no such name, or taken), TOSC_ENOMEM.
 */
int tosc_backend_register(const char *scheme, tosc_backend_opener open, void *arg);

/*
 * A shared object can bring backends to programs that know nothing of it. It defines this
 * function, which registers its schemes and returns what tosc_backend_register() did:
 *
 *     int
 *     tosc_backend_plugin(void)
 *     {
 *         return tosc_backend_register("redis", open_redis, NULL);
 *     }
 */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int
tosc_backend_plugin(void);

/*
 * Loads the shared object at `path` (with a slash in it; else it is searched for as any
 * library) and calls its tosc_backend_plugin. It is never unloaded. Blocks for I/O; any
 * thread. TOSC_ESYSTEM (cannot be loaded), TOSC_EINVAL (is no plugin, or was loaded before,
 * so that its schemes are taken), or what the function returned.
 */
int tosc_backend_load_plugin(const char *path);

#ifdef __cplusplus
}
#endif

#endif
