/*
 * The pickle module at our service: for values that emit.c leaves to it, and for reading.
 *
 * Persistent ids carry what is ours: in a record a number that names a wrapper or an extra
 * value (emit.h); in an opaque object's pickle the place of a wrapper in a tuple. The
 * functions behind them are bound to a capsule with the C struct that they work on. Reading
 * uses a subclass of Unpickler whose find_class asks the Manager's list of allowed classes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "pickling.h"

#include "errors.h"
#include "parse.h"
#include "state.h"
#include "wrap.h"

/* What may be loaded even where a list of allowed classes is given: immutable or inert. */
static const char *const harmless[] = {
    "builtins.bool",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.deque",
    "copyreg._reconstructor",
    "copyreg.__newobj__",
    "copyreg.__newobj_ex__",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "uuid.UUID",
    "uuid.SafeUUID",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pathlib.PureWindowsPath",
    "pathlib.Path",
    "pathlib.PurePath",
    "ipaddress.IPv4Address",
    "ipaddress.IPv6Address",
    "ipaddress.IPv4Network",
    "ipaddress.IPv6Network",
    "array.array",
    "array._array_reconstructor",
    "_codecs.encode",
    NULL,
};

static PyObject *
call_with_capsule(PyMethodDef *def, void *context)
{
    PyObject *capsule = PyCapsule_New(context, NULL, NULL);
    if (capsule == NULL) {
        return NULL;
    }
    PyObject *function = PyCFunction_New(def, capsule);
    Py_DECREF(capsule);
    return function;
}

PyObject *
pickling_dump(PyObject *object, PyMethodDef *persistent_id, void *context)
{
    PyObject *file = PyObject_CallNoArgs(tosc_state->io_BytesIO);
    PyObject *function = file == NULL ? NULL : call_with_capsule(persistent_id, context);
    PyObject *pickler = NULL;
    PyObject *result = NULL;
    if (function != NULL) {
        pickler =
            PyObject_CallFunction((PyObject *)tosc_state->Pickler_Type, "Oi", file, 5);
    }
    if (pickler != NULL
        && PyObject_SetAttr(pickler, tosc_state->str_persistent_id, function) == 0) {
        PyObject *none = PyObject_CallMethodOneArg(pickler, tosc_state->str_dump, object);
        if (none != NULL) {
            Py_DECREF(none);
            result = PyObject_CallMethodNoArgs(file, tosc_state->str_getvalue);
        }
    }
    Py_XDECREF(pickler);
    Py_XDECREF(function);
    Py_XDECREF(file);
    return result;
}

/* What find_class may give out, as it is kept in the unpickler: None, a set, or a Manager. */
static PyObject *
permission(Manager *m)
{
    if (m != NULL && m->tolerant) {
        return Py_NewRef((PyObject *)m);
    }
    return Py_NewRef(m != NULL && m->allowed != NULL ? m->allowed : Py_None);
}

/* An Unpickler on the bytes. */
static PyObject *
open_unpickler(Manager *m, PyObject *bytes)
{
    PyObject *file = PyObject_CallOneArg(tosc_state->io_BytesIO, bytes);
    PyObject *allowed = file == NULL ? NULL : permission(m);
    PyObject *unpickler = NULL;
    if (allowed != NULL) {
        unpickler = PyObject_CallOneArg((PyObject *)tosc_state->Unpickler_Type, file);
    }
    if (unpickler != NULL && PyObject_SetAttrString(unpickler, "allowed", allowed) < 0) {
        Py_CLEAR(unpickler);
    }
    Py_XDECREF(allowed);
    Py_XDECREF(file);
    return unpickler;
}

PyObject *
pickling_load(Manager *m, PyObject *bytes, PyMethodDef *persistent_load, void *context)
{
    if (!parse_is_sane((const unsigned char *)PyBytes_AS_STRING(bytes),
                       (size_t)PyBytes_GET_SIZE(bytes))) {
        return tosc_raise_format(tosc_state->DataError,
                                 "damaged data: a pickle that is none");
    }
    PyObject *unpickler = open_unpickler(m, bytes);
    PyObject *function =
        unpickler == NULL ? NULL : call_with_capsule(persistent_load, context);
    PyObject *result = NULL;
    if (function != NULL
        && PyObject_SetAttr(unpickler, tosc_state->str_persistent_load, function) == 0) {
        result = PyObject_CallMethodNoArgs(unpickler, tosc_state->str_load);
    }
    Py_XDECREF(function);
    Py_XDECREF(unpickler);
    return result;
}

/*
 * Python 3.11 pickles an enumeration's member as getattr(class, name). Where classes are
 * restricted that must not be any getattr, but one that does just this.
 */
static PyObject *
get_member(PyObject *Py_UNUSED(ignored), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyType_Check(args[0]) || !PyUnicode_Check(args[1])
        || PyObject_IsSubclass(args[0], tosc_state->enum_Enum) != 1) {
        PyErr_SetString(
            tosc_state->SerializationError,
            "stored data name 'builtins.getattr', which is not among the allowed "
            "classes");
        return NULL;
    }
    PyObject *member = PyObject_GetItem(args[0], args[1]); /* by its name, nothing else */
    return member;
}

static PyMethodDef get_member_def = {"getattr", (PyCFunction)(void (*)(void))get_member,
                                     METH_FASTCALL, NULL};

bool
pickling_is_stand_in(PyObject *value)
{
    return PyCFunction_Check(value)
           && PyCFunction_GetFunction(value) == (PyCFunction)(void (*)(void))get_member;
}

/* 1: may be loaded, 0: may not, 2: an enumeration's member is wanted, -1: exception. */
static int
check_allowed(PyObject *allowed, PyObject *module, PyObject *name)
{
    if (allowed == Py_None) {
        return 1;
    }
    PyObject *full = PyUnicode_FromFormat("%S.%S", module, name);
    if (full == NULL) {
        return -1;
    }
    int found = PySet_Contains(allowed, full);
    if (found == 0 && PyUnicode_CompareWithASCIIString(full, "builtins.getattr") == 0) {
        found = 2;
    } else if (found == 0) {
        PyErr_Format(tosc_state->SerializationError,
                     "stored data name %R, which is not among the allowed classes", full);
    }
    Py_DECREF(full);
    return found;
}

static PyObject *
import_class(PyObject *unpickler, PyObject *module, PyObject *name)
{
    PyObject *base = (PyObject *)tosc_state->Unpickler_Type->tp_base;
    PyObject *result = PyObject_CallMethodObjArgs(base, tosc_state->str_find_class,
                                                  unpickler, module, name, NULL);
    if (result == NULL
        && (PyErr_ExceptionMatches(PyExc_ImportError)
            || PyErr_ExceptionMatches(PyExc_AttributeError))) {
        tosc_raise_format(tosc_state->SerializationError,
                          "stored data need %U.%U, which cannot be imported here", module,
                          name);
    }
    return result;
}

static PyObject *
get_class(PyObject *unpickler, PyObject *allowed, PyObject *module, PyObject *name)
{
    switch (check_allowed(allowed, module, name)) {
    case 1:
        return import_class(unpickler, module, name);
    case 2:
        return PyCFunction_New(&get_member_def, NULL);
    default:
        return NULL;
    }
}

/* find_class(self, module, name), bound by PyInstanceMethod. */
static PyObject *
find_class(PyObject *Py_UNUSED(ignored), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "find_class expected 2 arguments");
        return NULL;
    }
    PyObject *allowed = PyObject_GetAttrString(args[0], "allowed");
    if (allowed == NULL) {
        return NULL;
    }
    Manager *tolerant = NULL;
    if (PyObject_TypeCheck(allowed, tosc_state->Manager_Type)) {
        tolerant = (Manager *)allowed;
        allowed = Py_NewRef(tolerant->allowed != NULL ? tolerant->allowed : Py_None);
    }
    PyObject *result = get_class(args[0], allowed, args[1], args[2]);
    if (result == NULL && tolerant != NULL
        && PyErr_ExceptionMatches(tosc_state->SerializationError)) {
        PyErr_Clear();
        result = missing_class(args[1], args[2]);
    }
    Py_DECREF(allowed);
    Py_XDECREF((PyObject *)tolerant);
    return result;
}

/* ---- opaque objects ---- */

static PyObject *
opaque_id(PyObject *capsule, PyObject *object)
{
    if (!dobject_check(object)) {
        Py_RETURN_NONE;
    }
    PyObject *refs = PyCapsule_GetPointer(capsule, NULL);
    if (refs == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(refs); i++) {
        if (PyList_GET_ITEM(refs, i) == object) {
            return PyLong_FromSsize_t(i);
        }
    }
    if (PyList_Append(refs, object) < 0) {
        return NULL;
    }
    return PyLong_FromSsize_t(PyList_GET_SIZE(refs) - 1);
}

static PyObject *
opaque_load(PyObject *capsule, PyObject *pid)
{
    PyObject *refs = PyCapsule_GetPointer(capsule, NULL);
    Py_ssize_t index = refs == NULL ? -1 : PyLong_AsSsize_t(pid);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index < 0 || index >= PyTuple_GET_SIZE(refs)) {
        PyErr_SetString(
            tosc_state->DataError,
            "damaged data: an object names a reference that it does not have");
        return NULL;
    }
    return Py_NewRef(PyTuple_GET_ITEM(refs, index));
}

static PyMethodDef opaque_id_def = {"persistent_id", opaque_id, METH_O, NULL};
static PyMethodDef opaque_load_def = {"persistent_load", opaque_load, METH_O, NULL};

PyObject *
codec_dumps(PyObject *object, PyObject **ret_refs)
{
    PyObject *refs = PyList_New(0);
    if (refs == NULL) {
        return NULL;
    }
    PyObject *bytes = pickling_dump(object, &opaque_id_def, refs);
    PyObject *tuple = bytes == NULL ? NULL : PyList_AsTuple(refs);
    Py_DECREF(refs);
    if (tuple == NULL) {
        Py_XDECREF(bytes);
        return NULL;
    }
    *ret_refs = tuple;
    return bytes;
}

PyObject *
codec_loads(Manager *m, PyObject *bytes, PyObject *refs)
{
    return pickling_load(m, bytes, &opaque_load_def, refs);
}

/* ---- the list of allowed classes ---- */

/* Without a module before it a name would never be met in stored data. */
static PyObject *
dotted(PyObject *name)
{
    Py_ssize_t size = PyUnicode_GET_LENGTH(name);
    Py_ssize_t dot = PyUnicode_FindChar(name, '.', 0, size, 1);
    if (dot > 0 && dot < size - 1) {
        return Py_NewRef(name);
    }
    if (dot != -2) {
        PyErr_Format(PyExc_ValueError,
                     "allowed_classes: expected classes or 'module.name' strings, not %R",
                     name);
    }
    return NULL;
}

static PyObject *
name_of(PyObject *item)
{
    if (PyUnicode_Check(item)) {
        return dotted(item);
    }
    if (!PyType_Check(item)) {
        PyErr_Format(
            PyExc_TypeError,
            "allowed_classes: expected classes or 'module.name' strings, not %.100s",
            Py_TYPE(item)->tp_name);
        return NULL;
    }
    PyObject *module = PyObject_GetAttr(item, tosc_state->str_module);
    PyObject *name =
        module == NULL ? NULL : PyObject_GetAttr(item, tosc_state->str_qualname);
    PyObject *result = name == NULL ? NULL : PyUnicode_FromFormat("%S.%S", module, name);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return result;
}

PyObject *
codec_allowed(PyObject *iterable)
{
    if (PyUnicode_Check(iterable)) {
        PyErr_SetString(PyExc_TypeError,
                        "allowed_classes must be an iterable of classes, not a string");
        return NULL;
    }
    PyObject *iterator = PyObject_GetIter(iterable);
    PyObject *set = iterator == NULL ? NULL : PySet_New(NULL);
    bool good = set != NULL;
    PyObject *item;
    while (good && (item = PyIter_Next(iterator)) != NULL) {
        PyObject *name = name_of(item);
        good = name != NULL && PySet_Add(set, name) == 0;
        Py_XDECREF(name);
        Py_DECREF(item);
    }
    for (size_t i = 0; good && harmless[i] != NULL; i++) {
        PyObject *name = PyUnicode_FromString(harmless[i]);
        good = name != NULL && PySet_Add(set, name) == 0;
        Py_XDECREF(name);
    }
    PyObject *result = good && !PyErr_Occurred() ? PyFrozenSet_New(set) : NULL;
    Py_XDECREF(iterator);
    Py_XDECREF(set);
    return result;
}

/* ---- init ---- */

static PyMethodDef find_class_def = {
    "find_class", (PyCFunction)(void (*)(void))find_class, METH_FASTCALL, NULL};

int
codec_init(PyObject *Py_UNUSED(module), ToscState *state)
{
    PyObject *pickle = PyImport_ImportModule("_pickle");
    if (pickle == NULL) {
        return -1;
    }
    state->Pickler_Type = (PyTypeObject *)PyObject_GetAttrString(pickle, "Pickler");
    PyObject *base = PyObject_GetAttrString(pickle, "Unpickler");
    Py_DECREF(pickle);
    PyObject *function = PyCFunction_New(&find_class_def, NULL);
    PyObject *method = function == NULL ? NULL : PyInstanceMethod_New(function);
    if (base != NULL && method != NULL) {
        state->Unpickler_Type = (PyTypeObject *)PyObject_CallFunction(
            (PyObject *)&PyType_Type, "s(O){sOss}", "Unpickler", base, "find_class",
            method, "__module__", "tosc");
    }
    Py_XDECREF(base);
    Py_XDECREF(function);
    Py_XDECREF(method);
    return state->Pickler_Type == NULL || state->Unpickler_Type == NULL ? -1 : 0;
}
