/*
 * Adding to an int.
 *
 * Reading, adding and setting are one step: of the transaction that this thread has open, or
 * else a transaction by itself, which is repeated after conflicts like any other (and after a
 * few runs under the store's exclusive lock). So no increment is lost between threads or
 * processes. In a plain container nothing else can run in between: neither an exact int nor an
 * exact dict or list runs code written in Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include "host/managers.h"
#include "py/dobject.h"

typedef struct Addition {
    Attempt attempt;
    PyObject *object;
    tosc_at at;
    int64_t increment;
    int64_t sum;
    int status; /* of the last try; negative: told already */
} Addition;

/* The int that is there; 0 where there is none, but a list needs one. */
static int
present_number(const Place *place, tosc_at at, int64_t *ret)
{
    PyObject *found;
    int status = place_get(place, &found);
    if (status == 0) {
        *ret = 0;
        enum shape shape = shape_of(place->object);
        bool grows = place->attribute || shape == SHAPE_DICT || shape == SHAPE_MAPPING
                     || shape == SHAPE_OBJECT;
        return grows ? 0 : place_missing(place, at);
    }
    if (status > 0) {
        status = int64_of(found, at, ret);
        Py_DECREF(found);
    }
    return status;
}

static int
add_at(Addition *self, const Place *place)
{
    int64_t before;
    int status = present_number(place, self->at, &before);
    if (status < 0) {
        return status;
    }
    if (__builtin_add_overflow(before, self->increment, &self->sum)) {
        return tosc__fail(TOSC_ERANGE, "the sum of %lld and %lld does not fit int64_t",
                          (long long)before, (long long)self->increment);
    }
    PyObject *sum = PyLong_FromLongLong(self->sum);
    if (sum == NULL) {
        return host_failed();
    }
    status = place_set(place, sum, self->at);
    Py_DECREF(sum);
    return status;
}

/* One try. The place is looked for each time: what leads there may have been replaced. */
static int
add_try(Attempt *attempt)
{
    Addition *self = (Addition *)attempt;
    Place place;
    self->status = place_find(self->object, self->at, &place);
    if (self->status == 0) {
        self->status = add_at(self, &place);
        place_free(&place);
    }
    return self->status;
}

/* The Manager in whose store the place is, unless a transaction of ours is open: or NULL. */
static Manager *
store_of(const Place *place)
{
    if (!dobject_check(place->object)) {
        return NULL;
    }
    DObject *object = (DObject *)place->object;
    bool alone = object->manager == NULL || object->oid == 0;
    return alone || dobject_in_transaction(object) ? NULL : object->manager;
}

static int
add(Addition *self)
{
    Place place;
    int status = place_find(self->object, self->at, &place);
    if (status < 0) {
        return status;
    }
    Manager *m = store_of(&place);
    if (m == NULL) {
        status = add_at(self, &place);
        place_free(&place);
        return status;
    }
    Py_INCREF((PyObject *)m);
    place_free(&place);
    status = transact(m, &self->attempt, -1, -1);
    if (status < 0) {
        status = PyErr_Occurred() ? manager_failed(m) : self->status;
    }
    Py_DECREF((PyObject *)m);
    Py_XDECREF(self->attempt.result);
    return status;
}

int
tosc_add_int64(tosc_value *value, tosc_at at, int64_t increment, int64_t *ret)
{
    HostEntry entry;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = value_get(value, "value");
    if (object == NULL) {
        return host_leave(&entry, TOSC_EINVAL);
    }
    Addition addition = {.attempt = {.run = add_try},
                         .object = Py_NewRef(object),
                         .at = at,
                         .increment = increment};
    status = add(&addition);
    Py_DECREF(object);
    if (status == 0 && ret != NULL) {
        *ret = addition.sum;
    }
    return host_leave(&entry, status);
}
