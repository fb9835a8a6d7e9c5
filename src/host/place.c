/*
 * Where an element is, or will be: for all that changes one.
 *
 * The steps of a path but the last are gone first, by reading. The change itself is the one
 * that a script makes (object[key] = element, del object.name), so that it means the same on
 * every kind of object, and outside of transactions is stored at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include <string.h>

static int
text_place(PyObject *object, tosc_at at, Place *ret)
{
    if (at.where.text == NULL) {
        return missing_argument("at: the text");
    }
    PyObject *name;
    int status = at_name(at.where.text, strlen(at.where.text), &name);
    if (status < 0) {
        return status;
    }
    *ret = (Place){Py_NewRef(object), name, at.kind == TOSC_AT_ATTRIBUTE};
    return 0;
}

static int
index_place(PyObject *object, int64_t index, Place *ret)
{
    PyObject *key = PyLong_FromLongLong(index);
    if (key == NULL) {
        return host_failed();
    }
    *ret = (Place){Py_NewRef(object), key, false};
    return 0;
}

static int
item_place(PyObject *object, tosc_value *handle, Place *ret)
{
    PyObject *key = value_get(handle, "at: the key");
    if (key == NULL) {
        return TOSC_EINVAL;
    }
    enum shape shape = shape_of(object);
    if (shape == SHAPE_LIST && !PyLong_Check(key)) {
        return index_type(object, key);
    }
    *ret = (Place){Py_NewRef(object), Py_NewRef(key), false};
    return 0;
}

int
place_find(PyObject *object, tosc_at at, Place *ret)
{
    switch (at.kind) {
    case TOSC_AT_SELF:
        return tosc__fail(TOSC_EINVAL, "at: tosc_self() is no element that could be "
                                       "set or deleted");
    case TOSC_AT_KEY:
    case TOSC_AT_ATTRIBUTE:
        return text_place(object, at, ret);
    case TOSC_AT_INDEX:
        return index_place(object, at.where.index, ret);
    case TOSC_AT_ITEM:
        return item_place(object, at.where.key, ret);
    case TOSC_AT_PATH:
        return at.where.text != NULL ? path_place(object, at.where.text, ret)
                                     : missing_argument("at: the text");
    default:
        return tosc__fail(TOSC_EINVAL, "at: %d is no kind of place", at.kind);
    }
}

void
place_free(Place *place)
{
    Py_CLEAR(place->object);
    Py_CLEAR(place->key);
}

int
place_get(const Place *place, PyObject **ret)
{
    if (place->attribute) {
        return attribute_get(place->object, place->key, ret);
    }
    return element_by_key(place->object, place->key, ret);
}

int
place_missing(const Place *place, tosc_at at)
{
    return at.kind == TOSC_AT_PATH ? path_missing(at.where.text, place->object)
                                   : element_missing(place->object, at);
}

/* An attribute that cannot be set is not missing: it is a property, or has no room. */
static int
place_failed(const Place *place, PyObject *element, tosc_at at)
{
    bool missing = place->attribute ? failed_by_attribute(place->object, place->key)
                                    : failed_by_item(place->key);
    if (!missing) {
        return store_failed(place->object, element);
    }
    if (place->attribute && element != NULL) {
        host_failed();
        return TOSC_ETYPE;
    }
    PyErr_Clear();
    return place_missing(place, at);
}

int
place_set(const Place *place, PyObject *element, tosc_at at)
{
    int result;
    if (place->attribute) {
        result = PyObject_SetAttr(place->object, place->key, element);
    } else if (element != NULL) {
        result = PyObject_SetItem(place->object, place->key, element);
    } else {
        result = PyObject_DelItem(place->object, place->key);
    }
    return result == 0 ? 0 : place_failed(place, element, at);
}
