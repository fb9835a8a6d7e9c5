/*
 * Blobs: reference-counted bytes, the currency between backends and their callers.
 *
 * Header and bytes are one allocation. The maker fills a blob while it holds the only
 * reference; from then on nobody changes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include <tosc/sys/backend.h>

#include "core/sys.h"

tosc_blob *
tosc_blob_new(size_t size)
{
    tosc_blob *blob;

    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    blob = tosc__sys.malloc(sizeof(*blob) + size);
    if (blob == NULL) {
        return NULL;
    }
    blob->size = size;
    blob->refs = 1;
    return blob;
}

tosc_blob *
tosc_blob_ref(tosc_blob *blob)
{
    if (blob != NULL) {
        __atomic_fetch_add(&blob->refs, 1, __ATOMIC_RELAXED);
    }
    return blob;
}

tosc_blob *
tosc_blob_unref(tosc_blob *blob)
{
    if (blob != NULL && __atomic_sub_fetch(&blob->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        free(blob);
    }
    return NULL;
}
