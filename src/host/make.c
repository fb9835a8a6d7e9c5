/*
 * Values from C, and values as text.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include <string.h>

/* Each is: enter, make an object, hand it out. */
#define RETURN_NEW(expression, ret) \
    do { \
        HostEntry entry; \
        if ((ret) == NULL) { \
            return missing_argument("ret"); \
        } \
        int status = host_enter(&entry); \
        return status < 0 ? status \
                          : host_leave(&entry, value_return((expression), (ret))); \
    } while (0)

int
tosc_value_new_null(tosc_value **ret)
{
    RETURN_NEW(Py_NewRef(Py_None), ret);
}

int
tosc_value_new_bool(bool value, tosc_value **ret)
{
    RETURN_NEW(PyBool_FromLong(value), ret);
}

int
tosc_value_new_int64(int64_t value, tosc_value **ret)
{
    RETURN_NEW(PyLong_FromLongLong(value), ret);
}

int
tosc_value_new_uint64(uint64_t value, tosc_value **ret)
{
    RETURN_NEW(PyLong_FromUnsignedLongLong(value), ret);
}

int
tosc_value_new_double(double value, tosc_value **ret)
{
    RETURN_NEW(PyFloat_FromDouble(value), ret);
}

int
tosc_value_new_list(tosc_value **ret)
{
    RETURN_NEW(PyList_New(0), ret);
}

int
tosc_value_new_dict(tosc_value **ret)
{
    RETURN_NEW(PyDict_New(), ret);
}

int
tosc_value_new_set(tosc_value **ret)
{
    RETURN_NEW(PySet_New(NULL), ret);
}

/* ---- texts, bytes ---- */

int
tosc_value_new_text(const char *text, size_t size, tosc_value **ret)
{
    HostEntry entry;
    PyObject *str;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    status = text_new(text, size, "text", &str);
    return host_leave(&entry, status < 0 ? status : value_return(str, ret));
}

int
bytes_new(const void *bytes, size_t size, const char *what, PyObject **ret)
{
    if (bytes == NULL && size > 0) {
        return missing_argument(what);
    }
    if (size > PY_SSIZE_T_MAX) {
        return tosc__fail(TOSC_EINVAL, "size: there are no %zu bytes", size);
    }
    *ret = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
    return *ret != NULL ? 0 : host_failed();
}

int
tosc_value_new_bytes(const void *bytes, size_t size, tosc_value **ret)
{
    HostEntry entry;
    PyObject *object;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    status = bytes_new(bytes, size, "bytes", &object);
    return host_leave(&entry, status < 0 ? status : value_return(object, ret));
}

/* ---- tuples ---- */

static int
tuple_new(tosc_value *const *items, size_t count, PyObject **ret)
{
    if (items == NULL && count > 0) {
        return missing_argument("items");
    }
    if (count > PY_SSIZE_T_MAX / sizeof(PyObject *)) {
        return tosc__fail(TOSC_EINVAL, "count: there are no %zu items", count);
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    if (tuple == NULL) {
        return host_failed();
    }
    for (size_t i = 0; i < count; i++) {
        PyObject *item = value_get(items[i], "an item");
        if (item == NULL) {
            Py_DECREF(tuple);
            return TOSC_EINVAL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, Py_NewRef(item));
    }
    *ret = tuple;
    return 0;
}

int
tosc_value_new_tuple(tosc_value *const *items, size_t count, tosc_value **ret)
{
    HostEntry entry;
    PyObject *tuple = NULL;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    status = tuple_new(items, count, &tuple);
    return host_leave(&entry, status < 0 ? status : value_return(tuple, ret));
}

/* ---- big integers ---- */

/*
 * Python refuses to turn very long numbers into text and back, as that takes time that grows
 * with the square of the length; who asks for it here wants it. The limit is lifted for the
 * one conversion. *ret_before: for limit_restore(); NULL: there is none.
 */
static int
limit_lift(PyObject **ret_before)
{
    PyObject *get = PySys_GetObject("get_int_max_str_digits");
    PyObject *set = PySys_GetObject("set_int_max_str_digits");
    *ret_before = NULL;
    if (get == NULL || set == NULL) {
        return 0;
    }
    PyObject *before = PyObject_CallNoArgs(get);
    PyObject *done = before != NULL ? PyObject_CallFunction(set, "i", 0) : NULL;
    if (done == NULL) {
        Py_XDECREF(before);
        return -1;
    }
    Py_DECREF(done);
    *ret_before = before;
    return 0;
}

static void
limit_restore(PyObject *before)
{
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    if (before == NULL) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *set = PySys_GetObject("set_int_max_str_digits");
    PyObject *done = set != NULL ? PyObject_CallOneArg(set, before) : NULL;
    Py_XDECREF(done);
    Py_DECREF(before);
    PyErr_Restore(type, value, traceback);
}

#define UNLIMITED_DIGITS 600 /* as many are always allowed */

static PyObject *
int_from_digits(const char *digits)
{
    PyObject *before = NULL;
    if (strlen(digits) > UNLIMITED_DIGITS && limit_lift(&before) < 0) {
        return NULL;
    }
    PyObject *number = PyLong_FromString(digits, NULL, 10);
    limit_restore(before);
    return number;
}

static PyObject *
digits_from_int(PyObject *number)
{
    PyObject *before = NULL;
    int overflow;
    PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0 && limit_lift(&before) < 0) {
        return NULL;
    }
    PyObject *digits = PyLong_Type.tp_repr(number);
    limit_restore(before);
    return digits;
}

static bool
are_digits(const char *digits)
{
    digits += *digits == '-' || *digits == '+';
    if (*digits == '\0') {
        return false;
    }
    while (*digits >= '0' && *digits <= '9') {
        digits++;
    }
    return *digits == '\0';
}

int
tosc_value_new_bigint(const char *digits, tosc_value **ret)
{
    if (digits == NULL) {
        return missing_argument("digits");
    }
    if (!are_digits(digits)) {
        return tosc__fail(TOSC_EINVAL, "digits: '%.100s' is not a decimal integer",
                          digits);
    }
    RETURN_NEW(int_from_digits(digits), ret);
}

int
tosc_get_bigint(tosc_value *value, tosc_at at, char **ret)
{
    HostEntry entry;
    PyObject *found;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = enter_and_find(&entry, value, at, &found);
    if (status < 0) {
        return status;
    }
    if (!PyLong_Check(found) || PyBool_Check(found)) {
        status = wrong_type(at, found, "an int");
    } else {
        PyObject *digits = digits_from_int(found);
        status = digits != NULL ? text_copy(digits, at, ret, NULL) : host_failed();
        Py_XDECREF(digits);
    }
    return found_leave(&entry, found, status);
}

/* ---- describing ---- */

int
tosc_value_describe(tosc_value *value, char **ret)
{
    HostEntry entry;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = value_get(value, "value");
    if (object == NULL) {
        return host_leave(&entry, TOSC_EINVAL);
    }
    Py_INCREF(object);
    PyObject *words = PyObject_Repr(object);
    Py_DECREF(object);
    /* Lone surrogates are shown as they are escaped in a literal. */
    PyObject *bytes = words != NULL
                          ? PyUnicode_AsEncodedString(words, "utf-8", "backslashreplace")
                          : NULL;
    Py_XDECREF(words);
    status = bytes != NULL ? memory_copy(PyBytes_AS_STRING(bytes),
                                         PyBytes_GET_SIZE(bytes), ret, NULL)
                           : host_failed();
    Py_XDECREF(bytes);
    return host_leave(&entry, status);
}
