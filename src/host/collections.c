/*
 * Changing lists and sets, and emptying containers.
 *
 * The methods that a script would call are called, so that every list-like and set-like value
 * is served: plain, distributed, or a subclass that is kept as an opaque value.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include <string.h>

/*
 * container.name(arguments…), the last of which is an element; TOSC_ETYPE says `wanted` where
 * there is no such method. arguments[0] is free for the call.
 */
static int
call_method(PyObject *container, tosc_at at, const char *name, const char *wanted,
            PyObject **arguments, size_t count)
{
    PyObject *str = name_of(name, strlen(name));
    if (str == NULL) {
        return host_failed();
    }
    PyObject *method = PyObject_GetAttr(container, str);
    bool missing = method == NULL && failed_by_attribute(container, str);
    Py_DECREF(str);
    if (missing) {
        PyErr_Clear();
        return wrong_type(at, container, wanted);
    }
    if (method == NULL) {
        return host_failed();
    }
    PyObject *result = PyObject_Vectorcall(method, arguments + 1,
                                           count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(method);
    Py_XDECREF(result);
    return result != NULL ? 0
                          : store_failed(container, count > 0 ? arguments[count] : NULL);
}

/* ---- lists ---- */

static bool
is_list(PyObject *object)
{
    enum shape shape = shape_of(object);
    return shape == SHAPE_LIST || shape == SHAPE_SEQUENCE;
}

static int
append(PyObject *container, tosc_at at, PyObject *element)
{
    if (!is_list(container)) {
        return wrong_type(at, container, "a list");
    }
    if (PyList_CheckExact(container)) {
        return PyList_Append(container, element) == 0 ? 0 : host_failed();
    }
    PyObject *arguments[] = {NULL, element};
    return call_method(container, at, "append", "a list", arguments, 1);
}

/* Takes over the element; NULL: an exception is set. */
static int
append_new(tosc_value *value, tosc_at at, PyObject *element)
{
    PyObject *container;
    if (element == NULL) {
        return host_failed();
    }
    PyObject *object = value_get(value, "value");
    int status = object != NULL ? at_find(object, at, &container) : TOSC_EINVAL;
    if (status == 0) {
        status = append(container, at, element);
        Py_DECREF(container);
    }
    Py_DECREF(element);
    return status;
}

int
tosc_append(tosc_value *value, tosc_at at, tosc_value *element)
{
    HostEntry entry;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = Py_XNewRef(value_get(element, "element"));
    return host_leave(&entry,
                      object != NULL ? append_new(value, at, object) : TOSC_EINVAL);
}

int
tosc_append_int64(tosc_value *value, tosc_at at, int64_t element)
{
    HostEntry entry;
    int status = host_enter(&entry);
    return status < 0
               ? status
               : host_leave(&entry, append_new(value, at, PyLong_FromLongLong(element)));
}

int
tosc_append_double(tosc_value *value, tosc_at at, double element)
{
    HostEntry entry;
    int status = host_enter(&entry);
    return status < 0
               ? status
               : host_leave(&entry, append_new(value, at, PyFloat_FromDouble(element)));
}

int
tosc_append_text(tosc_value *value, tosc_at at, const char *text, size_t size)
{
    HostEntry entry;
    PyObject *element;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    status = text_new(text, size, "text", &element);
    return host_leave(&entry, status < 0 ? status : append_new(value, at, element));
}

static int
insert(PyObject *container, tosc_at at, int64_t before, PyObject *element)
{
    if (!is_list(container)) {
        return wrong_type(at, container, "a list");
    }
    PyObject *index = PyLong_FromLongLong(before);
    if (index == NULL) {
        return host_failed();
    }
    PyObject *arguments[] = {NULL, index, element};
    int status = call_method(container, at, "insert", "a list", arguments, 2);
    Py_DECREF(index);
    return status;
}

int
tosc_insert(tosc_value *value, tosc_at at, int64_t before, tosc_value *element)
{
    HostEntry entry;
    PyObject *container;
    int status = enter_and_find(&entry, value, at, &container);
    if (status < 0) {
        return status;
    }
    PyObject *object = Py_XNewRef(value_get(element, "element"));
    status = object != NULL ? insert(container, at, before, object) : TOSC_EINVAL;
    Py_XDECREF(object);
    return found_leave(&entry, container, status);
}

/* ---- sets ---- */

/* Runs one of the three on a set and a member. */
static int
on_member(tosc_value *value, tosc_at at, tosc_value *member,
          int (*act)(PyObject *set, tosc_at at, PyObject *member))
{
    HostEntry entry;
    PyObject *set;
    int status = enter_and_find(&entry, value, at, &set);
    if (status < 0) {
        return status;
    }
    PyObject *object = Py_XNewRef(value_get(member, "member"));
    status = object != NULL ? value_type(set) : TOSC_EINVAL;
    if (status == TOSC_SET) {
        status = act(set, at, object);
    } else if (status > 0) {
        status = wrong_type(at, set, "a set");
    }
    Py_XDECREF(object);
    return found_leave(&entry, set, status);
}

static int
member_add(PyObject *set, tosc_at at, PyObject *member)
{
    PyObject *arguments[] = {NULL, member};
    return call_method(set, at, "add", "a set that can be changed", arguments, 1);
}

static int
member_discard(PyObject *set, tosc_at at, PyObject *member)
{
    PyObject *arguments[] = {NULL, member};
    return call_method(set, at, "discard", "a set that can be changed", arguments, 1);
}

static int
member_has(PyObject *set, tosc_at Py_UNUSED(at), PyObject *member)
{
    int found = PySequence_Contains(set, member);
    return found >= 0 ? found : value_failed();
}

int
tosc_member_add(tosc_value *value, tosc_at at, tosc_value *member)
{
    return on_member(value, at, member, member_add);
}

int
tosc_member_discard(tosc_value *value, tosc_at at, tosc_value *member)
{
    return on_member(value, at, member, member_discard);
}

int
tosc_member_has(tosc_value *value, tosc_at at, tosc_value *member)
{
    return on_member(value, at, member, member_has);
}

/* ---- any container ---- */

static int
clear(PyObject *container, tosc_at at)
{
    static const char wanted[] = "a container that can be emptied";
    int type = value_type(container);
    enum shape shape = shape_of(container);
    if (type < 0) {
        return type;
    }
    if (type == TOSC_OBJECT && shape != SHAPE_MAPPING && shape != SHAPE_SEQUENCE) {
        return wrong_type(at, container, wanted);
    }
    PyObject *arguments[] = {NULL};
    return call_method(container, at, "clear", wanted, arguments, 0);
}

int
tosc_clear(tosc_value *value, tosc_at at)
{
    HostEntry entry;
    PyObject *container;
    int status = enter_and_find(&entry, value, at, &container);
    if (status < 0) {
        return status;
    }
    return found_leave(&entry, container, clear(container, at));
}
