/*
 * What a backend of ours is, for those who show it to people. Private to the library.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CORE_BACKEND_KIND_H
#define TOSC_CORE_BACKEND_KIND_H

#include <tosc/backend.h>

/* Is it in this process's memory, with or without a name? */
bool tosc__backend_is_inproc(const tosc_backend *backend);

/*
 * The path of the file that it keeps its data in, and with what it was opened; all borrowed
 * from it. NULL: it is no file backend.
 */
const char *tosc__backend_file_path(const tosc_backend *backend,
                                    tosc_file_options *ret_options);

/*
 * Where a Ceph backend's store is, found out in at most timeout_ms, without its bytes.
 * TOSC_EUNSUPPORTED: it is no Ceph backend; else as its read operation.
 */
int tosc__backend_ceph_where(const tosc_backend *backend, int64_t timeout_ms,
                             tosc_position *ret);

#endif
