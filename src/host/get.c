/*
 * Typed reading.
 *
 * Numbers are handed over without making anything. A text or bytes that is only borrowed is
 * the object's own memory where that cannot change (str, bytes, what a DByteArray shows), and
 * the scope keeps the object; of a plain bytearray, which can change, it keeps a copy.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include "py/dobject.h"

#include <stdlib.h>
#include <string.h>

/* ---- any value ---- */

int
tosc_get(tosc_value *value, tosc_at at, tosc_value **ret)
{
    HostEntry entry;
    PyObject *found;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = enter_and_find(&entry, value, at, &found);
    return status < 0 ? status : host_leave(&entry, value_return(found, ret));
}

int
tosc_borrow(tosc_value *value, tosc_at at, tosc_value **ret)
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
    return host_leave(&entry, value_return_borrowed(entry.thread, found, ret));
}

/* ---- numbers ---- */

int
tosc_get_bool(tosc_value *value, tosc_at at, bool *ret)
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
    if (PyBool_Check(found)) {
        *ret = found == Py_True;
    } else {
        status = wrong_type(at, found, "a bool");
    }
    return found_leave(&entry, found, status);
}

static inline bool
is_int(PyObject *object)
{
    return PyLong_Check(object) && !PyBool_Check(object);
}

static int
out_of_range(tosc_at at, const char *type)
{
    char words[512];
    return tosc__fail(TOSC_ERANGE, "%s is an int that does not fit %s",
                      at_words(at, words, sizeof(words)), type);
}

int
int64_of(PyObject *object, tosc_at at, int64_t *ret)
{
    int overflow;
    if (!is_int(object)) {
        return wrong_type(at, object, "an int");
    }
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0) {
        return out_of_range(at, "int64_t");
    }
    *ret = number;
    return 0;
}

int
tosc_get_int64(tosc_value *value, tosc_at at, int64_t *ret)
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
    return found_leave(&entry, found, int64_of(found, at, ret));
}

static int
uint64_of(PyObject *object, tosc_at at, uint64_t *ret)
{
    if (!is_int(object)) {
        return wrong_type(at, object, "an int");
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(object);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        return out_of_range(at, "uint64_t");
    }
    *ret = number;
    return 0;
}

int
tosc_get_uint64(tosc_value *value, tosc_at at, uint64_t *ret)
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
    return found_leave(&entry, found, uint64_of(found, at, ret));
}

/* An int as a double that is equal to it. */
static int
double_of_int(PyObject *number, tosc_at at, double *ret)
{
    double result = PyLong_AsDouble(number);
    PyObject *back = PyErr_Occurred() ? NULL : PyLong_FromDouble(result);
    int same = back != NULL ? PyObject_RichCompareBool(back, number, Py_EQ) : 0;
    Py_XDECREF(back);
    PyErr_Clear();
    if (same <= 0) {
        return out_of_range(at, "double without loss");
    }
    *ret = result;
    return 0;
}

static inline int
double_of(PyObject *object, tosc_at at, double *ret)
{
    if (PyFloat_Check(object)) {
        *ret = PyFloat_AS_DOUBLE(object);
        return 0;
    }
    return is_int(object) ? double_of_int(object, at, ret)
                          : wrong_type(at, object, "a float");
}

int
tosc_get_double(tosc_value *value, tosc_at at, double *ret)
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
    return found_leave(&entry, found, double_of(found, at, ret));
}

/* ---- texts ---- */

static int
surrogates(tosc_at at)
{
    char words[512];
    return tosc__fail(TOSC_ETYPE, "%s is a text with lone surrogates, which has no UTF-8",
                      at_words(at, words, sizeof(words)));
}

/* A text's UTF-8, kept by the str itself; *ret_size. */
static int
utf8_of(PyObject *text, tosc_at at, const char **ret, Py_ssize_t *ret_size)
{
    if (!PyUnicode_Check(text)) {
        return wrong_type(at, text, "a text");
    }
    *ret = PyUnicode_AsUTF8AndSize(text, ret_size);
    if (*ret == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        return surrogates(at);
    }
    return *ret != NULL ? 0 : host_failed();
}

int
memory_copy(const void *bytes, Py_ssize_t size, char **ret, size_t *ret_size)
{
    char *copy = malloc((size_t)size + 1);
    if (copy == NULL) {
        return tosc__fail(TOSC_ENOMEM, "no memory for %zd bytes", size);
    }
    memcpy(copy, bytes, (size_t)size);
    copy[size] = '\0';
    *ret = copy;
    if (ret_size != NULL) {
        *ret_size = (size_t)size;
    }
    return 0;
}

/* Not by the str itself, which would keep the UTF-8 as long as it lives. */
int
text_copy(PyObject *text, tosc_at at, char **ret, size_t *ret_size)
{
    if (!PyUnicode_Check(text)) {
        return wrong_type(at, text, "a text");
    }
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        return memory_copy(PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text), ret,
                           ret_size);
    }
    PyObject *bytes = PyUnicode_AsUTF8String(text);
    if (bytes == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        return surrogates(at);
    }
    if (bytes == NULL) {
        return host_failed();
    }
    int status =
        memory_copy(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), ret, ret_size);
    Py_DECREF(bytes);
    return status;
}

int
tosc_get_text(tosc_value *value, tosc_at at, char **ret, size_t *ret_size)
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
    return found_leave(&entry, found, text_copy(found, at, ret, ret_size));
}

int
tosc_borrow_text(tosc_value *value, tosc_at at, const char **ret, size_t *ret_size)
{
    HostEntry entry;
    PyObject *found;
    const char *text;
    Py_ssize_t size;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = enter_and_find(&entry, value, at, &found);
    if (status < 0) {
        return status;
    }
    status = utf8_of(found, at, &text, &size);
    if (status < 0) {
        return found_leave(&entry, found, status);
    }
    status = scope_keep(entry.thread, found);
    if (status == 0) {
        *ret = text;
    }
    if (status == 0 && ret_size != NULL) {
        *ret_size = (size_t)size;
    }
    return host_leave(&entry, status);
}

/* ---- bytes ---- */

/*
 * A new reference to what has the bytes: itself, or the view of a DByteArray, which stays as it
 * is while we hold it.
 */
static int
bytes_of(PyObject *object, tosc_at at, PyObject **ret, const char **ret_bytes,
         Py_ssize_t *ret_size)
{
    PyObject *holder;
    if (dobject_kind(object) == KIND_BYTES) {
        holder = dobject_view((DObject *)object);
    } else if (value_type(object) != TOSC_BYTES) {
        return wrong_type(at, object, "bytes");
    } else if (PyBytes_Check(object) || PyByteArray_Check(object)) {
        holder = Py_NewRef(object);
    } else {
        holder = PyBytes_FromObject(object); /* in an opaque value */
    }
    if (holder == NULL) {
        return host_failed();
    }
    if (PyBytes_Check(holder)) {
        *ret_bytes = PyBytes_AS_STRING(holder);
        *ret_size = PyBytes_GET_SIZE(holder);
    } else {
        *ret_bytes = PyByteArray_AS_STRING(holder);
        *ret_size = PyByteArray_GET_SIZE(holder);
    }
    *ret = holder;
    return 0;
}

int
tosc_get_bytes(tosc_value *value, tosc_at at, void **ret, size_t *ret_size)
{
    HostEntry entry;
    PyObject *found;
    PyObject *holder;
    const char *bytes;
    Py_ssize_t size;
    char *copy = NULL;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = enter_and_find(&entry, value, at, &found);
    if (status < 0) {
        return status;
    }
    status = bytes_of(found, at, &holder, &bytes, &size);
    Py_DECREF(found);
    if (status == 0) {
        status = memory_copy(bytes, size, &copy, ret_size);
        Py_DECREF(holder);
    }
    if (status == 0) {
        *ret = copy;
    }
    return host_leave(&entry, status);
}

/* What the scope has to keep: a plain bytearray's bytes could change or move. */
static int
freeze(PyObject *object, PyObject **holder, const char **bytes, Py_ssize_t size)
{
    if (*holder != object || !PyByteArray_Check(object)) {
        return 0;
    }
    PyObject *copy = PyBytes_FromStringAndSize(*bytes, size);
    if (copy == NULL) {
        return host_failed();
    }
    Py_SETREF(*holder, copy);
    *bytes = PyBytes_AS_STRING(copy);
    return 0;
}

int
tosc_borrow_bytes(tosc_value *value, tosc_at at, const void **ret, size_t *ret_size)
{
    HostEntry entry;
    PyObject *found;
    PyObject *holder = NULL;
    const char *bytes;
    Py_ssize_t size;
    if (ret == NULL) {
        return missing_argument("ret");
    }
    int status = enter_and_find(&entry, value, at, &found);
    if (status < 0) {
        return status;
    }
    status = bytes_of(found, at, &holder, &bytes, &size);
    if (status == 0) {
        status = freeze(found, &holder, &bytes, size);
    }
    Py_DECREF(found);
    if (status < 0) {
        Py_XDECREF(holder);
        return host_leave(&entry, status);
    }
    status = scope_keep(entry.thread, holder);
    if (status == 0) {
        *ret = bytes;
    }
    if (status == 0 && ret_size != NULL) {
        *ret_size = (size_t)size;
    }
    return host_leave(&entry, status);
}
