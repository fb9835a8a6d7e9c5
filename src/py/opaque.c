/*
 * DOpaque: the wrapper of what is mutable and none of our own kinds: subclasses of the
 * builtins, OrderedDict, Counter, deque, arrays, classes with a pickling of their own.
 *
 * We cannot know what such an object's methods do. So it is kept as it is, the wrapper lets
 * through whatever is asked of it, and afterwards the object's pickle tells what has changed.
 * The pieces:
 *
 *   opaque_state.c    the committed state, a pickle; the live object made from it
 *   opaque_session.c  one operation, from getting hold of the live object to storing
 *   opaque_call.c     calling methods; arguments
 *   opaque_part.c     inner objects that an operation has given
 *   opaque_known.c    methods that are known to change nothing
 *
 * Here: the type, and attribute access, which DOpaque and DPart share.
 *
 * What must stay true: no real inner object that can change gets into the program's hands,
 * only parts of it, because what is done to a part is noticed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "opaque.h"

#include "codec.h"

DObject *
opaque_new_shell(void)
{
    PyObject *nothing = PyBytes_FromStringAndSize("\x80\x05N.", 4); /* None, pickled */
    PyObject *refs = nothing == NULL ? NULL : PyTuple_New(0);
    PyObject *state = refs == NULL ? NULL : opaque_state_from(nothing, refs);
    Py_XDECREF(nothing);
    Py_XDECREF(refs);
    return dobject_new(tosc_state->DOpaque_Type, KIND_OPAQUE, state);
}

int
opaque_set_class(DObject *self, PyObject *cls)
{
    return class_assign(self, tosc_state->DOpaque_Type, cls);
}

/* ---- attributes ---- */

static bool
is_own_name(PyObject *name)
{
    static const char *const names[] = {"__reduce_ex__", "__reduce__",
                                        "__copy__",      "__deepcopy__",
                                        "__dir__",       "__init_subclass__"};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Is the name that of a method, which is looked up again when it is called? 1, 0, -1. */
static int
is_method(PyObject *self, PyTypeObject *cls, PyObject *descriptor, PyObject *name)
{
    if (descriptor == NULL || cls->tp_getattro != PyObject_GenericGetAttr
        || !PyType_HasFeature(Py_TYPE(descriptor), Py_TPFLAGS_METHOD_DESCRIPTOR)) {
        return 0;
    }
    if (!class_has_dict(cls)) {
        return 1;
    }
    Session s; /* an attribute of the object itself hides the method */
    if (session_begin(&s, self, true) < 0) {
        return -1;
    }
    PyObject *dict = PyObject_GenericGetDict(s.target, NULL);
    int hidden = dict == NULL ? -1 : PyDict_Contains(dict, name);
    Py_XDECREF(dict);
    session_drop(&s);
    return hidden < 0 ? -1 : !hidden;
}

PyObject *
opaque_getattro(PyObject *self, PyObject *name)
{
    PyTypeObject *cls = (PyTypeObject *)opaque_class_of(self);
    if (cls == NULL || !PyUnicode_Check(name)) {
        return PyObject_GenericGetAttr(self, name);
    }
    if (PyUnicode_Compare(name, tosc_state->str_class) == 0) {
        return Py_NewRef(cls);
    }
    if (PyUnicode_READ_CHAR(name, 0) == '_' && is_own_name(name)) {
        return PyObject_GenericGetAttr(self, name);
    }
    PyObject *descriptor = value_type_lookup(cls, name);
    if (descriptor == NULL && PyErr_Occurred()) {
        return NULL;
    }
    int method = is_method(self, cls, descriptor, name);
    if (method != 0) {
        return method < 0 ? NULL : opaque_method_new(self, name);
    }
    Session s;
    bool plain = descriptor == NULL && cls->tp_getattro == PyObject_GenericGetAttr;
    bool safe = plain || opaque_is_safe(cls, name);
    if (session_begin(&s, self, safe) < 0) {
        return NULL;
    }
    return session_end(&s, PyObject_GetAttr(s.target, name));
}

int
opaque_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    Session s;
    if (PyUnicode_Check(name) && PyUnicode_Compare(name, tosc_state->str_class) == 0) {
        PyErr_Format(PyExc_TypeError,
                     "the class of a stored object cannot be changed: store a new object "
                     "instead of this %.200s",
                     Py_TYPE(self)->tp_name);
        return -1;
    }
    if (session_begin(&s, self, false) < 0) {
        return -1;
    }
    PyObject *argument =
        value == NULL ? NULL : opaque_argument(&s, value, ARGUMENT_STORE);
    PyObject *done = NULL;
    if ((value == NULL || argument != NULL)
        && PyObject_SetAttr(s.target, name, argument) == 0) {
        done = Py_NewRef(Py_None);
    }
    Py_XDECREF(argument);
    done = session_end(&s, done);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *
opaque_dir(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Session s;
    if (session_begin(&s, self, true) < 0) {
        return NULL;
    }
    PyObject *names = PyObject_Dir(s.target);
    session_drop(&s);
    return names;
}

/* ---- methods ---- */

static PyObject *
dopaque_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return opaque_copy_of(self);
}

static PyObject *
dopaque_deepcopy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    return dobject_plain(self);
}

/* Pickled, it is the real object; the wrappers in it follow in the same way. */
static PyObject *
dopaque_reduce_ex(PyObject *self, PyObject *protocol)
{
    PyObject *copy = opaque_copy_of(self);
    PyObject *copyreg = copy == NULL ? NULL : PyImport_ImportModule("copyreg");
    PyObject *table =
        copyreg == NULL ? NULL : PyObject_GetAttrString(copyreg, "dispatch_table");
    PyObject *reduced = NULL;
    if (table != NULL) {
        PyObject *reducer = PyObject_GetItem(table, (PyObject *)Py_TYPE(copy));
        if (reducer != NULL) {
            reduced = PyObject_CallOneArg(reducer, copy);
            Py_DECREF(reducer);
        } else if (PyErr_ExceptionMatches(PyExc_KeyError)) {
            PyErr_Clear();
            reduced = PyObject_CallMethodObjArgs(copy, tosc_state->str_reduce_ex,
                                                 protocol, NULL);
        }
    }
    Py_XDECREF(table);
    Py_XDECREF(copyreg);
    Py_XDECREF(copy);
    return reduced;
}

static PyMethodDef dopaque_methods[] = {
    {"__copy__", dopaque_copy, METH_NOARGS, "A plain copy."},
    {"__deepcopy__", dopaque_deepcopy, METH_O, "A plain copy, plain all the way down."},
    {"__reduce_ex__", dopaque_reduce_ex, METH_O, "Pickled as the real object."},
    {"__dir__", opaque_dir, METH_NOARGS, "The names of the real object's attributes."},
    {NULL, NULL, 0, NULL},
};

/* ---- the type ---- */

/* type(x)(…) is what methods write for "another of my kind". */
static PyObject *
dopaque_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (type != tosc_state->DOpaque_Type) {
        PyObject *cls = class_of_wrapper_type(type);
        PyObject *made = cls == NULL ? NULL : PyObject_Call(cls, args, kwargs);
        Py_XDECREF(cls);
        if (made == NULL && !PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "cannot create '%.200s' instances",
                         type->tp_name);
        }
        return made;
    }
    PyObject *value;
    if (!PyArg_ParseTuple(args, "O:DOpaque", &value)) {
        return NULL;
    }
    int kind = value_classify(value);
    if (kind == VALUE_OPAQUE || PyObject_TypeCheck(value, type)) {
        PyObject *plain = dobject_plain(value);
        PyObject *wrapper = plain == NULL ? NULL : dobject_adopt(NULL, plain);
        Py_XDECREF(plain);
        return wrapper;
    }
    if (kind >= 0) {
        PyErr_Format(PyExc_TypeError,
                     "DOpaque() is not for %.200s objects, which have a wrapper "
                     "of their own or need none",
                     Py_TYPE(value)->tp_name);
    }
    return NULL;
}

static int
dopaque_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(((DAnyObject *)op)->cls);
    return dobject_traverse(op, visit, arg);
}

static void
dopaque_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    PyObject *cls = ((DAnyObject *)op)->cls;
    ((DAnyObject *)op)->cls = NULL;
    dobject_dealloc(op);
    Py_XDECREF(cls);
}

PyDoc_STRVAR(
    dopaque_doc,
    "DOpaque(object, /)\n--\n\n"
    "The wrapper of a mutable object that is no list, dict, set, bytearray or plain\n"
    "custom object: an OrderedDict, Counter, deque, array, a subclass of a builtin, an\n"
    "object that pickles itself in its own way. Such objects become DOpaque when they\n"
    "are stored; DOpaque(x) wraps a copy of x that is in no store yet.\n"
    "\n"
    "Methods, operators and attributes are those of the real object. After each use\n"
    "that may have changed it, its pickle is compared with what is stored, and a\n"
    "difference is committed; in a transaction, at its end. So the cost of a change is\n"
    "that of pickling the whole object. What is found inside (a list in a deque) may\n"
    "be changed in the same way, until somebody else has changed the object: then\n"
    "ReferenceError says that it must be read again.");

static PyType_Slot dopaque_slots[] = {
    {Py_tp_doc, (void *)dopaque_doc},  {Py_tp_new, dopaque_new},
    {Py_tp_dealloc, dopaque_dealloc},  {Py_tp_traverse, dopaque_traverse},
    {Py_tp_clear, dobject_clear},      {Py_tp_getattro, opaque_getattro},
    {Py_tp_setattro, opaque_setattro}, {Py_tp_methods, dopaque_methods},
    {Py_tp_members, dobject_members},  {0, NULL},
};

static PyType_Spec dopaque_spec = {
    .name = "tosc.DOpaque",
    .basicsize = sizeof(DAnyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = dopaque_slots,
};

int
opaque_init(PyObject *module, ToscState *state)
{
    if (opaque_state_init(module, state) < 0 || opaque_part_init(module, state) < 0
        || tosc_add_type(module, &state->DOpaque_Type, &dopaque_spec, state->DObject_Type,
                         "DOpaque")
               < 0
        || class_seal(state->DOpaque_Type) < 0 || class_seal(state->DPart_Type) < 0) {
        return -1;
    }
    return opaque_call_init(module, state);
}
