/*
 * Changing elements.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

/* Puts the element there; NULL: deletes what is there. */
static int
change(tosc_value *value, tosc_at at, PyObject *element)
{
    Place place;
    PyObject *object = value_get(value, "value");
    int status = object != NULL ? place_find(object, at, &place) : TOSC_EINVAL;
    if (status == 0) {
        status = place_set(&place, element, at);
        place_free(&place);
    }
    return status;
}

/* Takes over the element; NULL: an exception is set. */
static int
set_new(tosc_value *value, tosc_at at, PyObject *element)
{
    int status = element != NULL ? change(value, at, element) : host_failed();
    Py_XDECREF(element);
    return status;
}

/* Each is: enter, make an element, set it. */
#define SET_NEW(expression) \
    do { \
        HostEntry entry; \
        int status = host_enter(&entry); \
        return status < 0 ? status \
                          : host_leave(&entry, set_new(value, at, (expression))); \
    } while (0)

int
tosc_set(tosc_value *value, tosc_at at, tosc_value *element)
{
    HostEntry entry;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = Py_XNewRef(value_get(element, "element"));
    return host_leave(&entry, object != NULL ? set_new(value, at, object) : TOSC_EINVAL);
}

int
tosc_set_null(tosc_value *value, tosc_at at)
{
    SET_NEW(Py_NewRef(Py_None));
}

int
tosc_set_bool(tosc_value *value, tosc_at at, bool element)
{
    SET_NEW(PyBool_FromLong(element));
}

int
tosc_set_int64(tosc_value *value, tosc_at at, int64_t element)
{
    SET_NEW(PyLong_FromLongLong(element));
}

int
tosc_set_double(tosc_value *value, tosc_at at, double element)
{
    SET_NEW(PyFloat_FromDouble(element));
}

int
tosc_set_text(tosc_value *value, tosc_at at, const char *text, size_t size)
{
    HostEntry entry;
    PyObject *element;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    status = text_new(text, size, "text", &element);
    return host_leave(&entry, status < 0 ? status : set_new(value, at, element));
}

int
tosc_set_bytes(tosc_value *value, tosc_at at, const void *bytes, size_t size)
{
    HostEntry entry;
    PyObject *element;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    status = bytes_new(bytes, size, "bytes", &element);
    return host_leave(&entry, status < 0 ? status : set_new(value, at, element));
}

int
tosc_delete(tosc_value *value, tosc_at at)
{
    HostEntry entry;
    int status = host_enter(&entry);
    return status < 0 ? status : host_leave(&entry, change(value, at, NULL));
}
