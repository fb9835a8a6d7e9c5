/*
 * From C text to str.
 *
 * The names of elements come as C text in every call, mostly the same few again and again. A
 * small cache, each text having one place in it, finds the str without making one; two texts of
 * the same place replace each other, so that it never grows. Python remembers a str's hash, so
 * looking it up in a dict is quick then. They are not interned: since Python 3.12 interned ones
 * may live for ever.
 *
 * Guarded by Python's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include <string.h>

#define CACHE_BITS 10
#define LONGEST 128 /* bytes; longer ones are not kept */

typedef struct Name {
    PyObject *str; /* NULL: free */
    const char *text;
    size_t size;
} Name;

static Name cache[1 << CACHE_BITS];

static inline uint64_t
mix(uint64_t hash, uint64_t word)
{
    return (hash ^ word) * 0x9E3779B97F4A7C15u;
}

/* Eight bytes at a time; of the last ones some are taken twice. */
static inline size_t
place_of(const char *text, size_t size)
{
    uint64_t hash = size;
    uint64_t word = 0;
    if (size >= 8) {
        for (size_t i = 0; i + 8 < size; i += 8) {
            memcpy(&word, text + i, 8);
            hash = mix(hash, word);
            hash ^= hash >> 32;
        }
        memcpy(&word, text + size - 8, 8);
    } else {
        for (size_t i = 0; i < size; i++) {
            word = word << 8 | (unsigned char)text[i];
        }
    }
    return (size_t)(mix(hash, word) >> (64 - CACHE_BITS));
}

/* Makes the str and puts it into its place. */
static PyObject *
name_new(Name *name, const char *text, size_t size)
{
    PyObject *str = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL);
    if (str == NULL || size > LONGEST) {
        return str;
    }
    Py_ssize_t length;
    const char *own = PyUnicode_AsUTF8AndSize(str, &length);
    if (own == NULL) {
        Py_DECREF(str);
        return NULL;
    }
    PyObject *before = name->str;
    *name = (Name){Py_NewRef(str), own, (size_t)length};
    Py_XDECREF(before);
    return str;
}

PyObject *
name_of(const char *text, size_t size)
{
    Name *name = &cache[place_of(text, size)];
    if (name->str != NULL && name->size == size && memcmp(name->text, text, size) == 0) {
        return Py_NewRef(name->str);
    }
    return name_new(name, text, size);
}

void
names_drop(void)
{
    for (size_t i = 0; i < sizeof(cache) / sizeof(cache[0]); i++) {
        Py_CLEAR(cache[i].str);
    }
}

int
text_new(const char *text, size_t size, const char *what, PyObject **ret)
{
    if (text == NULL && size != 0) {
        return missing_argument(what);
    }
    if (size == TOSC_TEXT_END) {
        size = strlen(text);
    }
    if (size > PY_SSIZE_T_MAX) {
        return tosc__fail(TOSC_EINVAL, "%s: %zu is no size that a text can have", what,
                          size);
    }
    PyObject *str = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL);
    if (str == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        return tosc__fail(TOSC_EINVAL, "%s is not UTF-8", what);
    }
    *ret = str;
    return str != NULL ? 0 : host_failed();
}
