/*
 * DSet: a set in the tree.
 *
 * Whatever reads it (operators, comparisons, union() and its kin) is done by the builtin
 * on the set that this context sees; other DSets and live views among the operands are
 * replaced by their builtin forms first. Results are plain.
 *
 * Whatever changes it is first turned into a plain set of elements, which may run Python
 * code, and then decided inside a Write: which of them are not there and will be added,
 * which are there and will be discarded. Only these are noted, and if there are none
 * nothing is written. What is discarded is named by the stored element, not by an equal
 * one, as a commit must not speak of objects that are not in the tree.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "ddict.h"

/* ---- operands ---- */

/* The view, after a check that the object is what its class promises. New reference. */
static PyObject *
view_of(PyObject *self)
{
    return seq_check_kind(self, KIND_SET) < 0 ? NULL : dobject_view((DObject *)self);
}

static bool
is_set(PyObject *value)
{
    return PySet_Check(value) || dobject_kind(value) == KIND_SET;
}

/* What methods take elements from: of a wrapper the builtin, which is quicker. */
static PyObject *
source_of(PyObject *iterable)
{
    if (Py_IS_TYPE(iterable, tosc_state->DDict_Type)
        || Py_IS_TYPE(iterable, tosc_state->DList_Type)) {
        return dobject_view((DObject *)iterable);
    }
    return ddict_operand(iterable);
}

/* A new plain set of the elements of an iterable. */
static PyObject *
collect(PyObject *iterable)
{
    PyObject *source = source_of(iterable);
    PyObject *set = source != NULL ? PySet_New(source) : NULL;
    Py_XDECREF(source);
    return set;
}

/* set.union() of some iterables, or set.intersection(). */
static PyObject *
collect_all(PyObject *const *args, Py_ssize_t nargs, const char *method)
{
    PyObject *set = nargs > 0 ? collect(args[0]) : PySet_New(NULL);
    for (Py_ssize_t i = 1; set != NULL && i < nargs; i++) {
        PyObject *source = source_of(args[i]);
        PyObject *next = source != NULL ? hashed_ask(set, method, &source, 1) : NULL;
        Py_XDECREF(source);
        Py_SETREF(set, next);
    }
    return set;
}

/* set's remedy for `{1} in s`: a set, which has no hash, is looked up as a frozenset. */
static PyObject *
hashable_key(PyObject *key)
{
    if (PyObject_Hash(key) != -1) {
        return Py_NewRef(key);
    }
    if (!is_set(key) || !PyErr_ExceptionMatches(PyExc_TypeError)) {
        return NULL;
    }
    PyErr_Clear();
    PyObject *set = dobject_unwrap(key);
    PyObject *frozen = set != NULL ? PyFrozenSet_New(set) : NULL;
    Py_XDECREF(set);
    return frozen;
}

/* ---- reading ---- */

static int
look_up(DObject *self, PyObject *key)
{
    if (!dobject_quiet(self) || self->kind != KIND_SET) {
        return seq_check_kind((PyObject *)self, KIND_SET) < 0
                   ? -1
                   : dobject_contains(self, key);
    }
    PyObject *state = Py_NewRef(self->state); /* comparing may run Python code */
    int found = PySet_Contains(state, key);
    Py_DECREF(state);
    return found;
}

static int
dset_contains(PyObject *self, PyObject *key)
{
    int found = look_up((DObject *)self, key);
    if (found >= 0 || !is_set(key) || !PyErr_ExceptionMatches(PyExc_TypeError)) {
        return found;
    }
    PyErr_Clear();
    PyObject *frozen = hashable_key(key);
    found = frozen != NULL ? look_up((DObject *)self, frozen) : -1;
    Py_XDECREF(frozen);
    return found;
}

static PyObject *
dset_contains_method(PyObject *self, PyObject *key)
{
    int found = dset_contains(self, key);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

static Py_ssize_t
dset_length(PyObject *self)
{
    return seq_check_kind(self, KIND_SET) < 0 ? -1 : dobject_len((DObject *)self);
}

static PyObject *
dset_iter(PyObject *self)
{
    PyObject *view = view_of(self);
    PyObject *iterator = view != NULL ? PyObject_GetIter(view) : NULL;
    Py_XDECREF(view);
    return iterator;
}

static PyObject *
dset_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *view = view_of(self);
    PyObject *copy = view != NULL ? PySet_New(view) : NULL;
    Py_XDECREF(view);
    return copy;
}

static PyObject *
dset_deepcopy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    return dobject_plain(self);
}

/*
 * Pickles as a plain set, which is filled by set.update(). The pickler knows the set
 * before it meets the elements, so a cycle through an element is kept.
 */
static PyObject *
dset_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *view = view_of(self);
    PyObject *elements = view != NULL ? PySequence_List(view) : NULL;
    PyObject *update = elements != NULL
                           ? PyObject_GetAttrString((PyObject *)&PySet_Type, "update")
                           : NULL;
    Py_XDECREF(view);
    if (update == NULL) {
        Py_XDECREF(elements);
        return NULL;
    }
    return Py_BuildValue("O()NOON", &PySet_Type, elements, Py_None, Py_None, update);
}

static PyObject *
dset_sizeof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *view = view_of(self);
    PyObject *size = view != NULL ? hashed_ask(view, "__sizeof__", NULL, 0) : NULL;
    Py_XDECREF(view);
    return seq_sizeof(self, size);
}

/* `{1, 2}`; a subclass puts its name around it, as a subclass of set does. */
static PyObject *
repr_of(PyObject *self, PyObject *view)
{
    if (Py_IS_TYPE(self, tosc_state->DSet_Type)) {
        return PyObject_Repr(view);
    }
    PyObject *name =
        PyObject_GetAttr((PyObject *)Py_TYPE(self), tosc_state->str_qualname);
    PyObject *text = NULL;
    if (name != NULL && PySet_GET_SIZE(view) == 0) {
        text = PyUnicode_FromFormat("%S()", name);
    } else if (name != NULL) {
        text = PyUnicode_FromFormat("%S(%R)", name, view);
    }
    Py_XDECREF(name);
    return text;
}

static PyObject *
dset_repr(PyObject *self)
{
    int entered = Py_ReprEnter(self);
    if (entered != 0) {
        return entered < 0 ? NULL : PyUnicode_FromString("set(...)");
    }
    PyObject *view = view_of(self);
    PyObject *text = view != NULL ? repr_of(self, view) : NULL;
    Py_XDECREF(view);
    Py_ReprLeave(self);
    return text;
}

/*
 * What an operator of set is given for `value`. Code of others must not get its hands on
 * a state: with a subclass of set or frozenset on the other side a DSet is copied.
 */
static PyObject *
operand(PyObject *value, PyObject *other)
{
    bool foreign = PyAnySet_Check(other) && !PyAnySet_CheckExact(other);
    if (foreign && dobject_kind(value) == KIND_SET) {
        return dset_copy(value, NULL);
    }
    return ddict_operand(value);
}

static PyObject *
dset_richcompare(PyObject *self, PyObject *other, int op)
{
    if (!ddict_is_setlike(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *left = operand(self, other);
    PyObject *right = left != NULL ? operand(other, self) : NULL;
    PyObject *result = right != NULL ? PyObject_RichCompare(left, right, op) : NULL;
    Py_XDECREF(right);
    Py_XDECREF(left);
    return result;
}

static PyObject *
binary(PyObject *left, PyObject *right, binaryfunc function)
{
    if (!ddict_is_setlike(left) || !ddict_is_setlike(right)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *a = operand(left, right);
    PyObject *b = a != NULL ? operand(right, left) : NULL;
    PyObject *result = b != NULL ? function(a, b) : NULL;
    Py_XDECREF(b);
    Py_XDECREF(a);
    return result;
}

static PyObject *
dset_and(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_And);
}

static PyObject *
dset_or(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_Or);
}

static PyObject *
dset_xor(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_Xor);
}

static PyObject *
dset_subtract(PyObject *left, PyObject *right)
{
    return binary(left, right, PyNumber_Subtract);
}

/* A method of set on the view; what it says of wrong arguments is said by the builtin. */
static PyObject *
ask(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *view = view_of(self);
    PyObject *sources = view != NULL ? PyTuple_New(nargs) : NULL;
    for (Py_ssize_t i = 0; sources != NULL && i < nargs; i++) {
        PyObject *source = source_of(args[i]);
        if (source == NULL) {
            Py_CLEAR(sources);
        } else {
            PyTuple_SET_ITEM(sources, i, source);
        }
    }
    PyObject *result = NULL;
    if (sources != NULL) {
        result = hashed_ask(view, name, PySequence_Fast_ITEMS(sources), nargs);
    }
    Py_XDECREF(sources);
    Py_XDECREF(view);
    return result;
}

static PyObject *
dset_union(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return ask(self, "union", args, nargs);
}

static PyObject *
dset_intersection(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return ask(self, "intersection", args, nargs);
}

static PyObject *
dset_difference(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return ask(self, "difference", args, nargs);
}

static PyObject *
dset_symmetric_difference(PyObject *self, PyObject *other)
{
    return ask(self, "symmetric_difference", &other, 1);
}

static PyObject *
dset_isdisjoint(PyObject *self, PyObject *other)
{
    return ask(self, "isdisjoint", &other, 1);
}

static PyObject *
dset_issubset(PyObject *self, PyObject *other)
{
    return ask(self, "issubset", &other, 1);
}

static PyObject *
dset_issuperset(PyObject *self, PyObject *other)
{
    return ask(self, "issuperset", &other, 1);
}

/* ---- changing ---- */

enum how {
    ADD,     /* the elements are in afterwards */
    DISCARD, /* they are not */
    KEEP,    /* only they are, as far as they were */
    TOGGLE   /* those that were are not, the others are */
};

/* Splits `elements` into those that are in the object (as stored) and the others. */
static int
sort_out(Write *w, PyObject *elements, PyObject *here, PyObject *absent)
{
    PyObject *iterator = PyObject_GetIter(elements);
    PyObject *element;
    int result = iterator != NULL ? 0 : -1;
    while (result == 0 && (element = PyIter_Next(iterator)) != NULL) {
        PyObject *mark;
        result = write_get(w, element, &mark);
        Py_XDECREF(mark);
        if (result == 0 && absent != NULL) {
            result = PySet_Add(absent, element);
        } else if (result > 0 && here != NULL) {
            PyObject *stored = hashed_stored(w, element);
            result = stored != NULL ? PySet_Add(here, stored) : -1;
            Py_XDECREF(stored);
        } else if (result > 0) {
            result = 0;
        }
        Py_DECREF(element);
    }
    Py_XDECREF(iterator);
    return result < 0 || PyErr_Occurred() ? -1 : 0;
}

/* What is to be discarded and added; each is a new set, or NULL for none. */
static int
decide(Write *w, enum how how, PyObject *elements, PyObject **ret_gone,
       PyObject **ret_fresh)
{
    if (how == KEEP) {
        PyObject *view = write_view(w);
        *ret_gone = view != NULL ? PyNumber_Subtract(view, elements) : NULL;
        return *ret_gone != NULL ? 0 : -1;
    }
    if (how != ADD && (*ret_gone = PySet_New(NULL)) == NULL) {
        return -1;
    }
    if (how != DISCARD && (*ret_fresh = PySet_New(NULL)) == NULL) {
        return -1;
    }
    return sort_out(w, elements, *ret_gone, *ret_fresh);
}

static bool
has_any(PyObject *set)
{
    return set != NULL && PySet_GET_SIZE(set) > 0;
}

/*
 * `elements` is a plain set, adopted where something may be added. 1: changed, 0: there
 * was nothing to do, -1: exception.
 */
static int
change(DObject *self, enum how how, PyObject *elements)
{
    Write w;
    PyObject *gone = NULL;
    PyObject *fresh = NULL;
    if (seq_check_kind((PyObject *)self, KIND_SET) < 0 || write_begin(&w, self) < 0) {
        return -1;
    }
    int result = decide(&w, how, elements, &gone, &fresh);
    bool changes = has_any(gone) || has_any(fresh);
    if (result == 0 && has_any(gone)) {
        result = write_op(&w, OP_DISCARD, 0, 0, gone, NULL);
    }
    if (result == 0 && has_any(fresh)) {
        result = write_op(&w, OP_ADD, 0, 0, fresh, NULL);
    }
    if (result == 0 && changes) {
        result = write_commit(&w);
    } else {
        write_abort(&w);
    }
    Py_XDECREF(gone);
    Py_XDECREF(fresh);
    return result < 0 ? -1 : changes;
}

static PyObject *
changed(int result)
{
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* Steals `elements`, which may be NULL with an exception. */
static int
change_taking(DObject *self, enum how how, PyObject *elements)
{
    int result = -1;
    if (elements != NULL && (how == ADD || how == TOGGLE)) {
        Py_SETREF(elements, dobject_adopt_set(self, elements));
    }
    if (elements != NULL) {
        result = how != KEEP && PySet_GET_SIZE(elements) == 0
                     ? 0
                     : change(self, how, elements);
    }
    Py_XDECREF(elements);
    return result;
}

static PyObject *
set_of_one(PyObject *element)
{
    PyObject *set = PySet_New(NULL);
    if (set != NULL && PySet_Add(set, element) < 0) {
        Py_CLEAR(set);
    }
    return set;
}

static PyObject *
dset_add(PyObject *self, PyObject *element)
{
    int found = look_up((DObject *)self, element);
    if (found != 0) {
        return changed(found);
    }
    PyObject *adopted = dobject_adopt((DObject *)self, element);
    PyObject *elements = adopted != NULL ? set_of_one(adopted) : NULL;
    Py_XDECREF(adopted);
    int result = elements != NULL ? change((DObject *)self, ADD, elements) : -1;
    Py_XDECREF(elements);
    return changed(result);
}

/* 1: it was there, 0: not, -1: exception. */
static int
discard(DObject *self, PyObject *element)
{
    PyObject *key = hashable_key(element);
    if (key == NULL) {
        return -1;
    }
    int result = look_up(self, key);
    if (result > 0) {
        result = change_taking(self, DISCARD, set_of_one(key));
    }
    Py_DECREF(key);
    return result;
}

static PyObject *
dset_discard(PyObject *self, PyObject *element)
{
    return changed(discard((DObject *)self, element));
}

static PyObject *
dset_remove(PyObject *self, PyObject *element)
{
    int found = discard((DObject *)self, element);
    return found == 0 ? hashed_key_error(element) : changed(found);
}

static PyObject *
dset_pop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Write w;
    if (seq_check_kind(self, KIND_SET) < 0 || write_begin(&w, (DObject *)self) < 0) {
        return NULL;
    }
    PyObject *view = write_view(&w);
    PyObject *element = view != NULL ? hashed_pick(&w, view) : NULL;
    if (element == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_KeyError, "pop from an empty set");
    }
    PyObject *gone = element != NULL ? set_of_one(element) : NULL;
    if (gone == NULL || write_op(&w, OP_DISCARD, 0, 0, gone, NULL) < 0) {
        write_abort(&w);
        Py_CLEAR(element);
    } else if (write_commit(&w) < 0) {
        Py_CLEAR(element);
    }
    Py_XDECREF(gone);
    return element;
}

/* `elements` (adopted) become the contents, unless that is nothing before and after. */
static int
assign(DObject *self, PyObject *elements)
{
    Write w;
    if (seq_check_kind((PyObject *)self, KIND_SET) < 0 || write_begin(&w, self) < 0) {
        return -1;
    }
    Py_ssize_t length = write_len(&w);
    if (length < 0 || (length == 0 && PySet_GET_SIZE(elements) == 0)) {
        write_abort(&w);
        return length < 0 ? -1 : 0;
    }
    if (write_op(&w, OP_ASSIGN, 0, 0, elements, NULL) < 0) {
        write_abort(&w);
        return -1;
    }
    return write_commit(&w);
}

static PyObject *
dset_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *empty = PySet_New(NULL);
    int result = empty != NULL ? assign((DObject *)self, empty) : -1;
    Py_XDECREF(empty);
    return changed(result);
}

static PyObject *
dset_update(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return changed(
        change_taking((DObject *)self, ADD, collect_all(args, nargs, "union")));
}

static PyObject *
dset_difference_update(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return changed(
        change_taking((DObject *)self, DISCARD, collect_all(args, nargs, "union")));
}

static PyObject *
dset_intersection_update(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs == 0) {
        Py_RETURN_NONE;
    }
    return changed(
        change_taking((DObject *)self, KEEP, collect_all(args, nargs, "intersection")));
}

static PyObject *
dset_symmetric_difference_update(PyObject *self, PyObject *other)
{
    return changed(change_taking((DObject *)self, TOGGLE, collect(other)));
}

/*
 * `s |= x` for what is a set or a view of a dict. With a view the builtin makes a new
 * set; that would leave the caller with a plain set in place of the tracked one.
 */
static PyObject *
change_in_place(PyObject *self, PyObject *other, enum how how)
{
    if (!ddict_is_setlike(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    return change_taking((DObject *)self, how, collect(other)) < 0 ? NULL
                                                                   : Py_NewRef(self);
}

static PyObject *
dset_inplace_or(PyObject *self, PyObject *other)
{
    return change_in_place(self, other, ADD);
}

static PyObject *
dset_inplace_and(PyObject *self, PyObject *other)
{
    return change_in_place(self, other, KEEP);
}

static PyObject *
dset_inplace_subtract(PyObject *self, PyObject *other)
{
    return change_in_place(self, other, DISCARD);
}

static PyObject *
dset_inplace_xor(PyObject *self, PyObject *other)
{
    return change_in_place(self, other, TOGGLE);
}

/* ---- making ---- */

static PyObject *
dset_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwds))
{
    PyObject *state = PySet_New(NULL);
    return state != NULL ? (PyObject *)dobject_new(type, KIND_SET, state) : NULL;
}

/* As with set, what was in it before is replaced. */
static int
dset_init_object(PyObject *self, PyObject *args, PyObject *kwds)
{
    PyObject *iterable = NULL;
    if (kwds != NULL && PyDict_GET_SIZE(kwds) > 0) {
        PyErr_Format(PyExc_TypeError, "%.200s() takes no keyword arguments",
                     Py_TYPE(self)->tp_name);
        return -1;
    }
    if (!PyArg_UnpackTuple(args, Py_TYPE(self)->tp_name, 0, 1, &iterable)) {
        return -1;
    }
    PyObject *elements = iterable != NULL ? collect(iterable) : PySet_New(NULL);
    if (elements != NULL) {
        Py_SETREF(elements, dobject_adopt_set((DObject *)self, elements));
    }
    int result = elements != NULL ? assign((DObject *)self, elements) : -1;
    Py_XDECREF(elements);
    return result;
}

/* ---- the type ---- */

#define DOC(name, signature, text) PyDoc_STRVAR(name##_doc, signature "\n--\n\n" text)

DOC(contains, "__contains__($self, element, /)", "Return element in self.");
DOC(sizeof, "__sizeof__($self, /)", "Size in memory, in bytes.");
DOC(copy_method, "__copy__($self, /)", "A shallow copy, a plain set.");
DOC(deepcopy, "__deepcopy__($self, memo, /)",
    "A deep copy in the original types, a plain set.");
DOC(reduce, "__reduce__($self, /)", "Pickles as a plain set.");
DOC(class_getitem, "__class_getitem__($type, item, /)", "DSet[element] for annotations.");
DOC(add, "add($self, element, /)",
    "Add an element. Does nothing if it is there already.");
DOC(discard, "discard($self, element, /)", "Remove an element if it is there.");
DOC(remove, "remove($self, element, /)",
    "Remove an element. Raises KeyError if it is not there.");
DOC(pop, "pop($self, /)",
    "Remove some element and return it. Raises KeyError if the set is empty.");
DOC(clear, "clear($self, /)", "Remove all elements.");
DOC(copy, "copy($self, /)", "A shallow copy, a plain set.");
DOC(update, "update($self, /, *others)", "Add the elements of all iterables.");
DOC(difference_update, "difference_update($self, /, *others)",
    "Remove the elements of all iterables.");
DOC(intersection_update, "intersection_update($self, /, *others)",
    "Keep only the elements that are also in each of the iterables.");
DOC(symmetric_difference_update, "symmetric_difference_update($self, other, /)",
    "Remove the elements of an iterable that are there, add those that are not.");
DOC(union, "union($self, /, *others)",
    "A plain set of its elements and those of all iterables.");
DOC(intersection, "intersection($self, /, *others)",
    "A plain set of its elements that are also in each of the iterables.");
DOC(difference, "difference($self, /, *others)",
    "A plain set of its elements that are in none of the iterables.");
DOC(symmetric_difference, "symmetric_difference($self, other, /)",
    "A plain set of the elements that are either here or in the iterable, not in both.");
DOC(isdisjoint, "isdisjoint($self, other, /)",
    "True if no element is also in the iterable, else False.");
DOC(issubset, "issubset($self, other, /)",
    "True if each element is also in the iterable, else False.");
DOC(issuperset, "issuperset($self, other, /)",
    "True if each element of the iterable is also here, else False.");

static PyMethodDef dset_methods[] = {
    {"__contains__", dset_contains_method, METH_O | METH_COEXIST, contains_doc},
    {"__sizeof__", dset_sizeof, METH_NOARGS, sizeof_doc},
    {"__copy__", dset_copy, METH_NOARGS, copy_method_doc},
    {"__deepcopy__", dset_deepcopy, METH_O, deepcopy_doc},
    {"__reduce__", dset_reduce, METH_NOARGS, reduce_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {"add", dset_add, METH_O, add_doc},
    {"discard", dset_discard, METH_O, discard_doc},
    {"remove", dset_remove, METH_O, remove_doc},
    {"pop", dset_pop, METH_NOARGS, pop_doc},
    {"clear", dset_clear, METH_NOARGS, clear_doc},
    {"copy", dset_copy, METH_NOARGS, copy_doc},
    {"update", SEQ_FASTCALL(dset_update), METH_FASTCALL, update_doc},
    {"difference_update", SEQ_FASTCALL(dset_difference_update), METH_FASTCALL,
     difference_update_doc},
    {"intersection_update", SEQ_FASTCALL(dset_intersection_update), METH_FASTCALL,
     intersection_update_doc},
    {"symmetric_difference_update", dset_symmetric_difference_update, METH_O,
     symmetric_difference_update_doc},
    {"union", SEQ_FASTCALL(dset_union), METH_FASTCALL, union_doc},
    {"intersection", SEQ_FASTCALL(dset_intersection), METH_FASTCALL, intersection_doc},
    {"difference", SEQ_FASTCALL(dset_difference), METH_FASTCALL, difference_doc},
    {"symmetric_difference", dset_symmetric_difference, METH_O, symmetric_difference_doc},
    {"isdisjoint", dset_isdisjoint, METH_O, isdisjoint_doc},
    {"issubset", dset_issubset, METH_O, issubset_doc},
    {"issuperset", dset_issuperset, METH_O, issuperset_doc},
    {NULL},
};

PyDoc_STRVAR(
    dset_doc,
    "DSet() -> new empty distributed set\n"
    "DSet(iterable) -> with the elements of an iterable\n"
    "\n"
    "What a set becomes when a Manager stores it. It has all of set's methods and\n"
    "operators, also with plain sets on either side; copies and results are plain\n"
    "sets. One that is made here stands alone until it is put into something that\n"
    "is stored.");

static PyType_Slot dset_slots[] = {
    {Py_tp_doc, (void *)dset_doc},
    {Py_tp_new, dset_new},
    {Py_tp_init, dset_init_object},
    {Py_tp_dealloc, dobject_dealloc},
    {Py_tp_traverse, dobject_traverse},
    {Py_tp_clear, dobject_clear},
    {Py_tp_members, dobject_members},
    {Py_tp_methods, dset_methods},
    {Py_tp_repr, dset_repr},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, dset_richcompare},
    {Py_tp_iter, dset_iter},
    {Py_sq_length, dset_length},
    {Py_sq_contains, dset_contains},
    {Py_nb_and, dset_and},
    {Py_nb_or, dset_or},
    {Py_nb_xor, dset_xor},
    {Py_nb_subtract, dset_subtract},
    {Py_nb_inplace_and, dset_inplace_and},
    {Py_nb_inplace_or, dset_inplace_or},
    {Py_nb_inplace_xor, dset_inplace_xor},
    {Py_nb_inplace_subtract, dset_inplace_subtract},
    {0, NULL},
};

static PyType_Spec dset_spec = {
    .name = "tosc.DSet",
    .basicsize = sizeof(DObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = dset_slots,
};

int
dset_init(PyObject *module, ToscState *state)
{
    if (tosc_add_type(module, &state->DSet_Type, &dset_spec, state->DObject_Type, "DSet")
        < 0) {
        return -1;
    }
    return seq_register(state->DSet_Type, "MutableSet");
}
