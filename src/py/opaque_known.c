/*
 * Methods that are known to change nothing.
 *
 * An operation on an opaque value is followed by a comparison of its serialised form. For
 * the reading methods of the builtin and collections types that would be wasted, so they
 * are listed here. What counts is the method that would really run: a subclass that
 * overrides __len__ is compared after len(), one that does not is not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "opaque.h"

#include <string.h>

static const char *const read_any[] = {
    "__len__",      "__contains__", "__iter__",
    "__reversed__", "__eq__",       "__ne__",
    "__lt__",       "__le__",       "__gt__",
    "__ge__",       "__repr__",     "__add__",
    "__mul__",      "__rmul__",     "__or__",
    "__ror__",      "__and__",      "__rand__",
    "__sub__",      "__rsub__",     "__xor__",
    "__rxor__",     "__getitem__",  "__copy__",
    "__sizeof__",   "__str__",      "__format__",
    "__hash__",     "copy",         "count",
    "index",        "get",          "keys",
    "values",       "items",        "difference",
    "intersection", "union",        "symmetric_difference",
    "issubset",     "issuperset",   "isdisjoint",
    "tolist",       "tobytes",      "buffer_info",
    NULL,
};

/* Counter's own methods, written in Python: safe on an exact Counter only. */
static const char *const read_counter[] = {
    "most_common", "elements", "total",   "copy",     "__missing__", "__add__", "__sub__",
    "__or__",      "__and__",  "__eq__",  "__ne__",   "__le__",      "__lt__",  "__ge__",
    "__gt__",      "__pos__",  "__neg__", "__repr__", "__getitem__", NULL,
};

static const struct {
    const char *module;
    const char *name;
} known_types[] = {
    {"collections", "OrderedDict"},
    {"collections", "deque"},
    {"collections", "defaultdict"},
    {"array", "array"},
};

static bool
is_listed(const char *const *names, PyObject *name)
{
    for (; *names != NULL; names++) {
        if (PyUnicode_CompareWithASCIIString(name, *names) == 0) {
            return true;
        }
    }
    return false;
}

/* Is it an iterator or view of a builtin container, or one of the collections types? */
static bool
is_builtin_reader(PyTypeObject *type)
{
    if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || type == &PyCallIter_Type) {
        return false;
    }
    const char *name = strrchr(type->tp_name, '.');
    name = name == NULL ? type->tp_name : name + 1;
    return strstr(name, "iterator") != NULL || strncmp(name, "dict_", 5) == 0
           || strncmp(name, "odict_", 6) == 0;
}

/* Is the class one whose own C methods we know? */
static bool
is_known_type(PyTypeObject *type)
{
    if (type == &PyList_Type || type == &PyDict_Type || type == &PySet_Type
        || type == &PyByteArray_Type || type == &PyTuple_Type || type == &PyFrozenSet_Type
        || type == &PyBaseObject_Type) {
        return true;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(known_types); i++) {
        if (value_is_loaded_type(type, known_types[i].module, known_types[i].name)) {
            return true;
        }
    }
    return false;
}

/* dict[key] of a missing key asks __missing__, which may put it in. */
static bool
may_miss(PyTypeObject *type, PyObject *name)
{
    if (PyUnicode_CompareWithASCIIString(name, "__getitem__") != 0
        || !PyType_HasFeature(type, Py_TPFLAGS_DICT_SUBCLASS)) {
        return false;
    }
    PyObject *missing = PyUnicode_InternFromString("__missing__");
    bool found = missing == NULL || value_type_lookup(type, missing) != NULL;
    Py_XDECREF(missing);
    return found;
}

/* Verdicts, kept like look-ups (classify.h). */
#define SAFE_SLOTS 256

static struct {
    unsigned int version;
    PyObject *name;
    Py_hash_t hash;
    bool safe;
} verdicts[SAFE_SLOTS];

static bool
judge(PyTypeObject *type, PyObject *name)
{
    if (is_builtin_reader(type)) {
        return true;
    }
    if (is_listed(read_counter, name)
        && value_is_loaded_type(type, "collections", "Counter")) {
        return true;
    }
    PyObject *descriptor = value_type_lookup(type, name);
    if (descriptor == NULL) {
        return false;
    }
    PyTypeObject *kind = Py_TYPE(descriptor);
    bool method = kind == &PyMethodDescr_Type || kind == &PyWrapperDescr_Type;
    bool field = kind == &PyGetSetDescr_Type || kind == &PyMemberDescr_Type;
    if ((!method && !field) || !is_known_type(PyDescr_TYPE(descriptor))) {
        return false;
    }
    return field || (is_listed(read_any, name) && !may_miss(type, name));
}

bool
opaque_is_safe(PyTypeObject *type, PyObject *name)
{
    unsigned int version = type->tp_version_tag;
    Py_hash_t hash = PyObject_Hash(name);
    size_t slot = (version * 31 ^ ((uintptr_t)name >> 4)) % SAFE_SLOTS;
    if (version != 0 && verdicts[slot].version == version && verdicts[slot].name == name
        && verdicts[slot].hash == hash) {
        return verdicts[slot].safe;
    }
    bool safe = judge(type, name);
    verdicts[slot].version = version;
    verdicts[slot].name = name;
    verdicts[slot].hash = hash;
    verdicts[slot].safe = safe;
    return safe;
}

bool
opaque_is_builtin_method(PyTypeObject *type, PyObject *name)
{
    PyObject *descriptor = value_type_lookup(type, name);
    return descriptor != NULL
           && (Py_IS_TYPE(descriptor, &PyMethodDescr_Type)
               || Py_IS_TYPE(descriptor, &PyWrapperDescr_Type));
}

bool
opaque_is_collection(PyTypeObject *type)
{
    return value_is_loaded_type(type, "collections", "Counter")
           || (is_known_type(type) && type != &PyBaseObject_Type);
}
