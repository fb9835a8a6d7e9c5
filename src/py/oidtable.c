/*
 * The table of wrappers by oid. See oidtable.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "oidtable.h"

static size_t
find_slot(const OidTable *table, uint64_t oid)
{
    size_t mask = table->size - 1;
    size_t i = (size_t)oid & mask;
    while (table->slots[i] != NULL && table->slots[i]->oid != oid) {
        i = (i + 1) & mask;
    }
    return i;
}

DObject *
oidtable_find(const OidTable *table, uint64_t oid)
{
    return table->size == 0 ? NULL : table->slots[find_slot(table, oid)];
}

int
oidtable_reserve(OidTable *table, size_t more)
{
    size_t need = (table->used + more) * 3 / 2 + 8;
    if (need <= table->size) {
        return 0;
    }
    size_t size = table->size ? table->size : 16;
    while (size < need) {
        size *= 2;
    }
    DObject **slots = PyMem_Calloc(size, sizeof(*slots));
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    OidTable old = *table;
    table->slots = slots;
    table->size = size;
    for (size_t i = 0; i < old.size; i++) {
        if (old.slots[i] != NULL) {
            slots[find_slot(table, old.slots[i]->oid)] = old.slots[i];
        }
    }
    PyMem_Free(old.slots);
    return 0;
}

void
oidtable_insert(OidTable *table, DObject *object)
{
    size_t i = find_slot(table, object->oid);
    if (table->slots[i] == NULL) {
        table->slots[i] = (DObject *)Py_NewRef((PyObject *)object);
        table->used++;
    }
}

/* The gap is closed, so that probing needs no marks of what was there. */
DObject *
oidtable_remove(OidTable *table, uint64_t oid)
{
    if (table->size == 0) {
        return NULL;
    }
    size_t mask = table->size - 1;
    size_t hole = find_slot(table, oid);
    DObject *object = table->slots[hole];
    if (object == NULL) {
        return NULL;
    }
    for (size_t i = (hole + 1) & mask; table->slots[i] != NULL; i = (i + 1) & mask) {
        size_t home = (size_t)table->slots[i]->oid & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table->slots[hole] = table->slots[i];
            hole = i;
        }
    }
    table->slots[hole] = NULL;
    table->used--;
    return object;
}
