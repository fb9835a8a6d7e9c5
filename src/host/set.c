/*
 * Changing elements.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

/* Enters and finds the place: then leave_place() is the caller's. */
static int
enter_place(HostEntry *entry, tosc_value *value, tosc_at at, Place *ret)
{
    int status = host_enter(entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = value_get(value, "value");
    status = object != NULL ? place_find(object, at, ret) : TOSC_EINVAL;
    return status < 0 ? host_leave(entry, status) : 0;
}

static int
leave_place(HostEntry *entry, Place *place, int status)
{
    place_free(place);
    return host_leave(entry, status);
}

/* ---- elements ---- */

int
tosc_set(tosc_value *value, tosc_at at, tosc_value *element)
{
    HostEntry entry;
    Place place;
    int status = enter_place(&entry, value, at, &place);
    if (status < 0) {
        return status;
    }
    PyObject *object = Py_XNewRef(value_get(element, "element"));
    status = object != NULL ? place_set(&place, object, at) : TOSC_EINVAL;
    Py_XDECREF(object);
    return leave_place(&entry, &place, status);
}

/* Takes over the element; NULL: an exception is set. */
static int
set_new(tosc_value *value, tosc_at at, PyObject *element)
{
    Place place;
    if (element == NULL) {
        return host_failed();
    }
    PyObject *object = value_get(value, "value");
    int status = object != NULL ? place_find(object, at, &place) : TOSC_EINVAL;
    if (status == 0) {
        status = place_set(&place, element, at);
        place_free(&place);
    }
    Py_DECREF(element);
    return status;
}

int
tosc_set_null(tosc_value *value, tosc_at at)
{
    HostEntry entry;
    int status = host_enter(&entry);
    return status < 0 ? status
                      : host_leave(&entry, set_new(value, at, Py_NewRef(Py_None)));
}

int
tosc_set_bool(tosc_value *value, tosc_at at, bool element)
{
    HostEntry entry;
    int status = host_enter(&entry);
    return status < 0 ? status
                      : host_leave(&entry, set_new(value, at, PyBool_FromLong(element)));
}

int
tosc_set_int64(tosc_value *value, tosc_at at, int64_t element)
{
    HostEntry entry;
    int status = host_enter(&entry);
    return status < 0
               ? status
               : host_leave(&entry, set_new(value, at, PyLong_FromLongLong(element)));
}

int
tosc_set_double(tosc_value *value, tosc_at at, double element)
{
    HostEntry entry;
    int status = host_enter(&entry);
    return status < 0
               ? status
               : host_leave(&entry, set_new(value, at, PyFloat_FromDouble(element)));
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
    Place place;
    int status = enter_place(&entry, value, at, &place);
    if (status < 0) {
        return status;
    }
    return leave_place(&entry, &place, place_set(&place, NULL, at));
}
