/*
 * What a value is to the tree, for wrap.c, dany.c and opaque.c. See wrap.h for the classes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_CLASSIFY_H
#define TOSC_PY_CLASSIFY_H

#include "state.h"
#include "wrap.h"

/* Fills state->leaf_types; called by dany_init(). */
int classify_init(ToscState *state);

/* "module.Name", without the module for builtins. */
PyObject *value_type_name(PyTypeObject *type);

/*
 * What look-ups have found, by the type's version tag and the name. The interpreter never uses a tag twice,
 * so an entry of a type that was changed or freed never matches, and `found` needs no reference. A
 * name that was freed may leave its address to another, hence the hash.
 */
struct LookupEntry {
    unsigned int version;
    PyObject *name;
    Py_hash_t hash;
    PyObject *found;
};

#define LOOKUP_SLOTS 2048
extern struct LookupEntry value_lookups[LOOKUP_SLOTS];
PyObject *value_type_lookup_slow(PyTypeObject *type, PyObject *name);

static inline struct LookupEntry *
value_lookup_entry(unsigned int version, PyObject *name)
{
    return &value_lookups[(version * 31 ^ ((uintptr_t)name >> 4)) % LOOKUP_SLOTS];
}

/*
 * The attribute that the type and its bases have under `name`, borrowed, not bound; NULL with
 * or without an exception.
 */
static inline PyObject *
value_type_lookup(PyTypeObject *type, PyObject *name)
{
    unsigned int version = type->tp_version_tag;
    struct LookupEntry *entry = value_lookup_entry(version, name);
    if (version != 0 && entry->version == version && entry->name == name
        && PyUnicode_CheckExact(name) && entry->hash == ((PyASCIIObject *)name)->hash) {
        return entry->found;
    }
    return value_type_lookup_slow(type, name);
}

/* The type's own dict, borrowed; since 3.12 the builtin types keep theirs elsewhere. */
static inline PyObject *
value_type_dict(PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030c0000
    PyObject *dict = PyType_GetDict(type);
    Py_XDECREF(dict);
    return dict;
#else
    return type->tp_dict;
#endif
}

/* Is it the descriptor that `__slots__` has made for one slot? */
bool value_is_slot(PyObject *descriptor);

/* Is the type the one that the module, if it is loaded, has under that name? */
bool value_is_loaded_type(PyTypeObject *type, const char *module, const char *name);

#endif
