/*
 * A hash table of wrappers, keyed by their oid. Owns a reference to each.
 *
 * Open addressing with linear probing. Oids are dense, so they are their own hash: objects
 * that were stored together stand together.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_OIDTABLE_H
#define TOSC_PY_OIDTABLE_H

#include "dobject.h"

typedef struct OidTable {
    DObject **slots;
    size_t size; /* a power of two, or 0 */
    size_t used;
} OidTable;

DObject *oidtable_find(const OidTable *table, uint64_t oid); /* borrowed, or NULL */
int oidtable_reserve(OidTable *table, size_t more);          /* -1: MemoryError */
/* Room was reserved. Takes a new reference; does nothing if the oid is there. */
void oidtable_insert(OidTable *table, DObject *object);
/* Gives the table's reference to the caller; NULL: not there. */
DObject *oidtable_remove(OidTable *table, uint64_t oid);

#endif
