/*
 * What a value is to the tree.
 *
 * The type decides nearly everything, so the verdict on a type is kept in a small table
 * whose key is the type and its version tag: the interpreter gives each state of each type
 * a tag that is never used twice, so an entry for a type that has been changed or freed can
 * never match, and the table needs no references. Few verdicts look at the value as well:
 * the instance dict of a subclass of int, the name of a function.
 *
 * Types of modules that may never be imported (decimal, pathlib, …) are found by name, and
 * only in modules that are loaded: no value of such a type exists before.
 *
 * What must stay true: a value that is called a leaf is never changed in a way that we do
 * not see; where that is unknown the value is called opaque and compared at commit.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "classify.h"
#include "state.h"

#include <string.h>

enum verdict {
    VERDICT_LEAF,
    VERDICT_BARE_LEAF, /* leaf without attributes of its own, else opaque */
    VERDICT_TUPLE,
    VERDICT_FROZENSET,
    VERDICT_SEALED, /* other subclass of tuple or frozenset: leaf if all in it is, else opaque */
    VERDICT_CLASS,
    VERDICT_FUNCTION,
    VERDICT_BUILTIN,
    VERDICT_METHOD,
    VERDICT_LIST,
    VERDICT_DICT,
    VERDICT_SET,
    VERDICT_BYTES,
    VERDICT_WRAPPER,
    VERDICT_COPY,
    VERDICT_ANY,
    VERDICT_OPAQUE,
    VERDICT_REFUSED
};

static const struct {
    const char *module;
    const char *name;
} known_leaves[] = {
    {"datetime", "date"},
    {"datetime", "time"},
    {"datetime", "timedelta"},
    {"datetime", "timezone"},
    {"decimal", "Decimal"},
    {"fractions", "Fraction"},
    {"uuid", "UUID"},
    {"pathlib", "PurePath"},
    {"ipaddress", "IPv4Address"},
    {"ipaddress", "IPv6Address"},
    {"ipaddress", "IPv4Network"},
    {"ipaddress", "IPv6Network"},
    {"re", "Pattern"},
    {"zoneinfo", "ZoneInfo"},
    {"_zoneinfo", "ZoneInfo"},
    {"types", "UnionType"},
};

/* Attributes by which a class takes its pickling into its own hands. */
static const char *const pickling_names[] = {"__reduce__",     "__reduce_ex__",
                                             "__getstate__",   "__setstate__",
                                             "__getnewargs__", "__getnewargs_ex__"};

/* ---- the table of verdicts ---- */

#define VERDICT_SLOTS 1024

static struct {
    PyTypeObject *type;
    unsigned int version;
    int verdict;
} verdicts[VERDICT_SLOTS];

static inline size_t
verdict_slot(PyTypeObject *type)
{
    uintptr_t bits = (uintptr_t)type >> 4;
    return (bits ^ (bits >> 10)) % VERDICT_SLOTS;
}

/* ---- looking at types ---- */

/* The attribute `name` of the loaded module `module`; NULL without an exception if there is none. */
static PyObject *
loaded_attribute(const char *module, const char *name)
{
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *found = PyDict_GetItemString(modules, module);
    if (found == NULL || !PyModule_Check(found)) {
        return NULL;
    }
    PyObject *attribute = PyDict_GetItemString(PyModule_GetDict(found), name);
    return Py_XNewRef(attribute);
}

bool
value_is_loaded_type(PyTypeObject *type, const char *module, const char *name)
{
    PyObject *loaded = loaded_attribute(module, name);
    bool same = loaded == (PyObject *)type;
    Py_XDECREF(loaded);
    return same;
}

static bool
has_loaded_base(PyTypeObject *type, const char *module, const char *name)
{
    PyObject *loaded = loaded_attribute(module, name);
    bool found = loaded != NULL && PyType_Check(loaded)
                 && PyType_IsSubtype(type, (PyTypeObject *)loaded);
    Py_XDECREF(loaded);
    return found;
}

struct LookupEntry value_lookups[LOOKUP_SLOTS];

/* The type's version tag; gives it one if it has none. 0: cannot have one. */
static unsigned int
version_of(PyTypeObject *type)
{
    if (type->tp_version_tag == 0) { /* a look-up of the interpreter's own gives it one */
        PyObject *looked =
            PyType_Type.tp_getattro((PyObject *)type, tosc_state->str_module);
        if (looked == NULL) {
            PyErr_Clear();
        }
        Py_XDECREF(looked);
    }
    return type->tp_version_tag;
}

static PyObject *
walk_mro(PyTypeObject *type, PyObject *name)
{
    PyObject *mro = type->tp_mro;
    if (mro == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(mro);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *dict = value_type_dict((PyTypeObject *)PyTuple_GET_ITEM(mro, i));
        PyObject *found = dict != NULL ? PyDict_GetItemWithError(dict, name) : NULL;
        if (found != NULL || PyErr_Occurred()) {
            return found;
        }
    }
    return NULL;
}

PyObject *
value_type_lookup_slow(PyTypeObject *type, PyObject *name)
{
    unsigned int version = PyUnicode_CheckExact(name) ? version_of(type) : 0;
    PyObject *found = walk_mro(type, name);
    if (version != 0 && version == type->tp_version_tag && !PyErr_Occurred()) {
        *value_lookup_entry(version, name) = (struct LookupEntry){
            .version = version,
            .name = name,
            .hash = PyObject_Hash(name),
            .found = found,
        };
    }
    return found;
}

bool
value_is_slot(PyObject *descriptor)
{
    if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
        return false;
    }
    PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
    return member->type == T_OBJECT_EX && (member->flags & READONLY) == 0;
}

/* How many words of an instance the slots of the class and its bases take. */
static Py_ssize_t
count_slots(PyTypeObject *type)
{
    Py_ssize_t slots = 0;
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *dict = value_type_dict((PyTypeObject *)PyTuple_GET_ITEM(mro, i));
        PyObject *key;
        PyObject *value;
        Py_ssize_t position = 0;
        while (dict != NULL && PyDict_Next(dict, &position, &key, &value)) {
            slots += value_is_slot(value);
        }
    }
    return slots;
}

/* Has an instance nothing but a head, a dict, weak references and slots? */
static bool
is_bare_class(PyTypeObject *type)
{
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || type->tp_itemsize != 0) {
        return false;
    }
    Py_ssize_t size = (Py_ssize_t)sizeof(PyObject);
    size += type->tp_dictoffset > 0 ? (Py_ssize_t)sizeof(PyObject *) : 0;
    size += type->tp_weaklistoffset > 0 ? (Py_ssize_t)sizeof(PyObject *) : 0;
    size += count_slots(type) * (Py_ssize_t)sizeof(PyObject *);
    return type->tp_basicsize <= size;
}

/* dataclass(slots=True, frozen=True) adds a __getstate__ that does what the default does. */
static bool
is_of_dataclasses(PyObject *function)
{
    PyObject *globals =
        PyFunction_Check(function) ? PyFunction_GetGlobals(function) : NULL;
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = PyDict_GetItemString(modules, "dataclasses");
    return globals != NULL && module != NULL && PyModule_Check(module)
           && PyModule_GetDict(module) == globals;
}

/* 1: pickled as object does it; 0: in a way of its own; -1: exception. */
static int
has_default_pickling(PyTypeObject *type)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(pickling_names); i++) {
        PyObject *name = PyUnicode_InternFromString(pickling_names[i]);
        if (name == NULL) {
            return -1;
        }
        PyObject *mine = value_type_lookup(type, name);
        PyObject *plain =
            mine != NULL ? value_type_lookup(&PyBaseObject_Type, name) : NULL;
        Py_DECREF(name);
        if (PyErr_Occurred()) {
            return -1;
        }
        if (mine != plain && !is_of_dataclasses(mine)) {
            return 0;
        }
    }
    PyObject *table = loaded_attribute("copyreg", "dispatch_table");
    int registered = table != NULL && PyDict_Check(table)
                         ? PyDict_Contains(table, (PyObject *)type)
                         : 0;
    Py_XDECREF(table);
    return registered < 0 ? -1 : !registered;
}

static int
judge_custom(PyTypeObject *type)
{
    if (!is_bare_class(type)) {
        return VERDICT_OPAQUE;
    }
    int plain = has_default_pickling(type);
    if (plain < 0) {
        return -1;
    }
    return plain ? VERDICT_ANY : VERDICT_OPAQUE;
}

/* A subclass of an immutable type: does it add slots of its own? */
static int
judge_leaf_subclass(PyTypeObject *type, PyTypeObject *base)
{
    if (type == base) {
        return VERDICT_LEAF;
    }
    if (count_slots(type) > count_slots(base)) {
        return VERDICT_OPAQUE;
    }
    return type->tp_dictoffset != 0 ? VERDICT_BARE_LEAF : VERDICT_LEAF;
}

static int
judge_tuple(PyTypeObject *type)
{
    PyObject *fields = value_type_lookup(type, tosc_state->str_fields);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (type->tp_dictoffset != 0) {
        return VERDICT_OPAQUE;
    }
    return fields != NULL && PyTuple_Check(fields) ? VERDICT_TUPLE : VERDICT_SEALED;
}

/* Builtin machinery that nothing can store and that may pretend to be picklable. */
static bool
is_machinery(PyTypeObject *type)
{
    if (has_loaded_base(type, "_io", "BytesIO")
        || has_loaded_base(type, "_io", "StringIO")) {
        return false;
    }
    if (has_loaded_base(type, "_io", "_IOBase")
        || has_loaded_base(type, "_socket", "socket")) {
        return true;
    }
    if (type == &PyMemoryView_Type || type == &PyDictKeys_Type
        || type == &PyDictValues_Type || type == &PyDictItems_Type || type == &PyCode_Type
        || type == &PyFrame_Type || type == &PyTraceBack_Type || type == &PyCapsule_Type
        || type == &PyCell_Type || type == &PyDictProxy_Type || type == &PyProperty_Type
        || type == &PySuper_Type) {
        return true;
    }
    bool builtin = !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
    return (builtin && type->tp_iternext != NULL)
           || has_loaded_base(type, "_weakref", "ref")
           || has_loaded_base(type, "_weakref", "ProxyType")
           || has_loaded_base(type, "_thread", "LockType")
           || has_loaded_base(type, "_thread", "RLock") || type == &PyGen_Type
           || type == &PyCoro_Type || type == &PyAsyncGen_Type;
}

static int
judge_leaf(PyTypeObject *type)
{
    PyObject *leaves = tosc_state->leaf_types;
    if (has_loaded_base(type, "enum", "Enum")) {
        return VERDICT_LEAF;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(leaves); i++) {
        PyTypeObject *leaf = (PyTypeObject *)PyTuple_GET_ITEM(leaves, i);
        if (PyType_IsSubtype(type, leaf)) {
            return judge_leaf_subclass(type, leaf);
        }
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(known_leaves); i++) {
        if (!has_loaded_base(type, known_leaves[i].module, known_leaves[i].name)) {
            continue;
        }
        /* A class of the standard library's own, such as PosixPath or datetime, is one; of
         * others what their instances carry is looked at. */
        PyObject *module = value_type_lookup(type, tosc_state->str_module);
        if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)
            || (module != NULL && PyUnicode_Check(module)
                && PyUnicode_CompareWithASCIIString(module, known_leaves[i].module)
                       == 0)) {
            return VERDICT_LEAF;
        }
        PyObject *base = loaded_attribute(known_leaves[i].module, known_leaves[i].name);
        int verdict = judge_leaf_subclass(type, (PyTypeObject *)base);
        Py_XDECREF(base);
        return verdict;
    }
    return VERDICT_REFUSED;
}

static int
judge(PyTypeObject *type)
{
    ToscState *state = tosc_state;
    if (PyType_IsSubtype(type, state->DObject_Type)) {
        return VERDICT_WRAPPER;
    }
    if (type == state->DAttrs_Type
        || (state->DPart_Type != NULL && PyType_IsSubtype(type, state->DPart_Type))) {
        return VERDICT_COPY;
    }
    if (type == state->DDictKeys_Type || type == state->DDictValues_Type
        || type == state->DDictItems_Type || type == state->Manager_Type) {
        return VERDICT_REFUSED;
    }
    if (PyType_HasFeature(type, Py_TPFLAGS_TYPE_SUBCLASS)) {
        return VERDICT_CLASS;
    }
    if (type == &PyFunction_Type) {
        return VERDICT_FUNCTION;
    }
    if (type == &PyCFunction_Type || type == &PyCMethod_Type) {
        return VERDICT_BUILTIN;
    }
    if (type == &PyMethod_Type) {
        return VERDICT_METHOD;
    }
    int verdict = judge_leaf(type);
    if (verdict != VERDICT_REFUSED) {
        return verdict;
    }
    if (PyType_HasFeature(type, Py_TPFLAGS_TUPLE_SUBCLASS)) {
        return judge_tuple(type);
    }
    if (PyType_IsSubtype(type, &PyFrozenSet_Type)) {
        return type->tp_dictoffset != 0 ? VERDICT_OPAQUE : VERDICT_SEALED;
    }
    PyObject *module = value_type_lookup(type, state->str_module);
    if (module != NULL && PyUnicode_Check(module)
        && PyUnicode_CompareWithASCIIString(module, "typing") == 0) {
        return VERDICT_LEAF;
    }
    if (is_machinery(type)) {
        return VERDICT_REFUSED;
    }
    return PyErr_Occurred() ? -1 : judge_custom(type);
}

static int
verdict_of(PyTypeObject *type)
{
    size_t slot = verdict_slot(type);
    if (verdicts[slot].type == type && verdicts[slot].version == type->tp_version_tag
        && type->tp_version_tag != 0) {
        return verdicts[slot].verdict;
    }
    int verdict = judge(type);
    /* An enum or a class to come from a module that was not loaded cannot change it: the
     * type itself would be of that module. */
    if (verdict >= 0) {
        verdicts[slot].type = type;
        verdicts[slot].version = version_of(type);
        verdicts[slot].verdict = verdict;
    }
    return verdict;
}

/* ---- looking at values ---- */

PyObject *
value_type_name(PyTypeObject *type)
{
    PyObject *module = PyObject_GetAttr((PyObject *)type, tosc_state->str_module);
    PyObject *name = PyObject_GetAttr((PyObject *)type, tosc_state->str_qualname);
    PyObject *result = NULL;
    if (module != NULL && name != NULL && PyUnicode_Check(module)
        && PyUnicode_CompareWithASCIIString(module, "builtins") != 0) {
        result = PyUnicode_FromFormat("%U.%S", module, name);
    } else {
        PyErr_Clear();
        result = PyUnicode_FromString(type->tp_name);
    }
    Py_XDECREF(module);
    Py_XDECREF(name);
    return result;
}

static int
refuse(PyObject *value)
{
    PyObject *name = value_type_name(Py_TYPE(value));
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError, "%U objects cannot be stored", name);
        Py_DECREF(name);
    }
    return -1;
}

/* What is pickled by its name must be found by it. */
static int
classify_named(PyObject *value)
{
    PyObject *name = PyObject_GetAttr(value, tosc_state->str_qualname);
    if (name == NULL) {
        return -1;
    }
    if (PyUnicode_Check(name)
        && PyUnicode_FindChar(name, '<', 0, PyUnicode_GET_LENGTH(name), 1) >= 0) {
        PyErr_Format(
            PyExc_TypeError,
            "%.200s, which is stored by its name, cannot be found by the name %R",
            PyType_Check(value) ? "a class" : "a function", name);
        Py_DECREF(name);
        return -1;
    }
    Py_DECREF(name);
    return VALUE_LEAF;
}

/* Builtin functions and methods: of modules and classes only, others are bound to an object. */
static int
classify_bound(PyObject *value, PyObject *to)
{
    if (to == NULL || PyModule_Check(to) || PyType_Check(to)) {
        return VALUE_LEAF;
    }
    PyErr_Format(PyExc_TypeError, "a method that is bound to %s object cannot be stored",
                 Py_TYPE(to)->tp_name);
    return -1;
}

static int
classify_bare(PyObject *value)
{
    PyObject *dict = PyObject_GenericGetDict(value, NULL);
    if (dict == NULL) {
        return -1;
    }
    bool empty = PyDict_GET_SIZE(dict) == 0;
    Py_DECREF(dict);
    return empty ? VALUE_LEAF : VALUE_OPAQUE;
}

/* Is all below a tuple or frozenset a leaf? Keeps what is still to be looked at in a list. */
static int
classify_sealed(PyObject *value)
{
    PyObject *pending = PySequence_List(value);
    int result = pending != NULL ? VALUE_LEAF : -1;
    while (result == VALUE_LEAF && PyList_GET_SIZE(pending) > 0) {
        Py_ssize_t last = PyList_GET_SIZE(pending) - 1;
        PyObject *item = Py_NewRef(PyList_GET_ITEM(pending, last));
        if (PyList_SetSlice(pending, last, last + 1, NULL) < 0) {
            result = -1;
        } else if (PyTuple_Check(item) || PyFrozenSet_Check(item)) {
            PyObject *more = PySequence_List(item);
            Py_ssize_t end = PyList_GET_SIZE(pending);
            result = more == NULL || PyList_SetSlice(pending, end, end, more) < 0
                         ? -1
                         : VALUE_LEAF;
            Py_XDECREF(more);
        } else {
            int kind = value_classify(item);
            result = kind < 0 ? -1 : kind == VALUE_LEAF ? VALUE_LEAF : VALUE_OPAQUE;
        }
        Py_DECREF(item);
    }
    Py_XDECREF(pending);
    return result;
}

static int
classify_slowly(PyObject *value)
{
    int verdict = verdict_of(Py_TYPE(value));
    switch (verdict) {
    case VERDICT_LEAF:
        return VALUE_LEAF;
    case VERDICT_BARE_LEAF:
        return classify_bare(value);
    case VERDICT_TUPLE:
        return VALUE_TUPLE;
    case VERDICT_FROZENSET:
        return VALUE_FROZENSET;
    case VERDICT_SEALED:
        return classify_sealed(value);
    case VERDICT_CLASS:
    case VERDICT_FUNCTION:
        return classify_named(value);
    case VERDICT_BUILTIN:
        return classify_bound(value, PyCFunction_GetSelf(value));
    case VERDICT_METHOD:
        return classify_bound(value, PyMethod_GET_SELF(value));
    case VERDICT_WRAPPER:
        return VALUE_WRAPPER;
    case VERDICT_COPY:
        return VALUE_COPY;
    case VERDICT_ANY:
        return VALUE_ANY;
    case VERDICT_OPAQUE:
        return VALUE_OPAQUE;
    case VERDICT_REFUSED:
        return refuse(value);
    default:
        return -1;
    }
}

int
value_classify(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type || type == &PyLong_Type || value == Py_None
        || type == &PyFloat_Type || type == &PyBool_Type || type == &PyBytes_Type) {
        return VALUE_LEAF;
    }
    if (type == &PyDict_Type) {
        return VALUE_DICT;
    }
    if (type == &PyList_Type) {
        return VALUE_LIST;
    }
    if (type == &PyTuple_Type) {
        return VALUE_TUPLE;
    }
    if (type == &PySet_Type) {
        return VALUE_SET;
    }
    if (type == &PyByteArray_Type) {
        return VALUE_BYTES;
    }
    if (type == &PyFrozenSet_Type) {
        return VALUE_FROZENSET;
    }
    return classify_slowly(value);
}

/* ---- start ---- */

int
classify_init(ToscState *state)
{
    state->leaf_types =
        Py_BuildValue("(OOOOOOOOOOOOO)", &PyLong_Type, &PyFloat_Type, &PyUnicode_Type,
                      &PyBytes_Type, &PyComplex_Type, &PyRange_Type, &PySlice_Type,
                      &PyEllipsis_Type, Py_TYPE(Py_NotImplemented), &PyMethodDescr_Type,
                      &PyWrapperDescr_Type, &Py_GenericAliasType, Py_TYPE(Py_None));
    memset(verdicts, 0, sizeof(verdicts));
    memset(value_lookups, 0, sizeof(value_lookups));
    return state->leaf_types != NULL ? 0 : -1;
}
