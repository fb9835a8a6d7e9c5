/*
 * One data file: opening, loading, judging what ends it, appending, making a new one. No
 * locks and no control block here; docs/file-format.md has the rules. Private to core.
 */
#ifndef TOSC_CORE_FILESTORE_H
#define TOSC_CORE_FILESTORE_H

#include <stdbool.h>
#include <stdint.h>

#include <tosc/sys/backend.h>

#include "core/record.h"

#define TOSC__NO_LIMIT UINT64_MAX

/* An open data file. Only the count changes, so any thread may use it. */
struct tosc__file {
    int refs; /* atomic */
    int fd;
    bool writable;
    bool shared; /* other hosts may write to it */
    uint64_t device;
    uint64_t inode;
    struct tosc__identity identity;
    int64_t base_version;
    uint64_t base_length;
    uint64_t base_end; /* offset after the base record */
};

/*
 * Opens a data file and checks its header and the base's. *ret NULL: missing, or of
 * length 0. TOSC_ECORRUPT, TOSC_ESYSTEM, TOSC_ENOMEM.
 */
int tosc__file_open(const char *path, bool shared, struct tosc__file **ret);

/*
 * To be called before reading what may be new, for the filesystems that cannot do without
 * the page cache: what other hosts have written is not in there.
 */
void tosc__file_forget_pages(const struct tosc__file *file);
/* tosc__pread_full(), past the page cache if other hosts may write. */
int tosc__file_pread(const struct tosc__file *file, const char *path, void *bytes,
                     size_t size, uint64_t offset, size_t *ret_read);
struct tosc__file *tosc__file_ref(struct tosc__file *file);
struct tosc__file *tosc__file_unref(struct tosc__file *file);

/* Where loading starts, and where it ended. */
struct tosc__place {
    uint64_t offset; /* after the last good record */
    int64_t version; /* of that record */
};

/* The very start of a file, with the base still to come. */
struct tosc__place tosc__file_start(const struct tosc__file *file);
/* After the base. */
struct tosc__place tosc__file_after_base(const struct tosc__file *file);

enum tosc__stop {
    TOSC__STOP_END, /* the limit, the end of the file, or nothing but zero bytes after */
    TOSC__STOP_INVALID
};

/*
 * Goes from *place over valid records up to offset `limit` and moves *place along. With
 * `ret_bytes` not NULL, the payloads of versions above `after` are put there, one behind
 * the other (NULL if there are none). With `id` not NULL, *ret_found says whether a
 * record with it was met.
 */
struct tosc__load {
    uint64_t limit;
    int64_t after;
    const tosc_commit_id *id;
};
int tosc__file_load(const struct tosc__file *file, const char *path,
                    const struct tosc__load *load, struct tosc__place *place,
                    enum tosc__stop *ret_stop, tosc_blob **ret_bytes, bool *ret_found);

enum tosc__verdict { TOSC__CLEAN, TOSC__TORN, TOSC__DAMAGED };

/*
 * Judges what begins at `place`, where loading stopped, up to the file's end.
 * *ret_followed (may be NULL): the header of a later record was seen, so that whatever is
 * at `place` was complete when it was written.
 */
int tosc__file_judge(const struct tosc__file *file, const char *path,
                     const struct tosc__place *place, enum tosc__verdict *ret,
                     bool *ret_followed);

/* TOSC_ECORRUPT with the sentence for damage at `place`. */
int tosc__file_damaged(const char *path, const struct tosc__place *place);
/* TOSC_ENOMEM with its sentence. */
int tosc__file_no_memory(const char *path);

/*
 * Writes an append record at `place`, and `ahead` zero bytes after it. Does not flush and
 * does not clean up after a failure.
 */
int tosc__file_append(const struct tosc__file *file, const char *path,
                      const struct tosc__place *place, const void *data, size_t size,
                      const tosc_commit_id *id, uint64_t ahead);

/*
 * A new data file under a temporary name, with a base. It gets mode and owner of `model`
 * (an open descriptor; -1: 0600). Not flushed. What a killed writer left under the name
 * is removed.
 */
int tosc__file_create(const char *path, bool shared, int model,
                      const struct tosc__identity *identity, int64_t version,
                      const tosc_commit_id *id, const void *data, size_t size,
                      struct tosc__file **ret);

/*
 * Copies the records from *from up to offset `limit` behind `place` in another file,
 * under that file's identity, and moves *place along.
 */
int tosc__file_copy_tail(const struct tosc__file *from, const char *from_path,
                         struct tosc__place start, uint64_t limit,
                         const struct tosc__file *to, const char *to_path,
                         struct tosc__place *place);

#endif
