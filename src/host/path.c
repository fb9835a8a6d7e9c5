/*
 * Paths: "users/17/name".
 *
 * A step is a key, an index or an attribute by what it leads into: a mapping, a sequence or any
 * other object. Numbers, texts and sets have nothing that a path could lead to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include <stdlib.h>
#include <string.h>

/* ---- steps ---- */

/* One step: what stands between two "/". */
typedef struct Step {
    const char *text;
    size_t size;
    const char *end; /* in the path: the "/" behind it, or the NUL byte */
    char *own;       /* the text, where "~" had to be taken out of it */
} Step;

static int
step_unescape(Step *step)
{
    char *own = malloc(step->size + 1);
    if (own == NULL) {
        return tosc__fail(TOSC_ENOMEM, "no memory for a step of a path");
    }
    size_t size = 0;
    for (size_t i = 0; i < step->size; i++) {
        char c = step->text[i];
        if (c == '~') {
            i++;
            c = i < step->size && step->text[i] == '1' ? '/' : '~';
            if (i == step->size || (step->text[i] != '0' && step->text[i] != '1')) {
                free(own);
                return tosc__fail(TOSC_EINVAL,
                                  "at: in a path, ~ has to be followed by 0 or 1");
            }
        }
        own[size++] = c;
    }
    own[size] = '\0';
    step->own = own;
    step->text = own;
    step->size = size;
    return 0;
}

static inline int
step_read(Step *step, const char *at)
{
    const char *end = at;
    bool escaped = false;
    while (*end != '\0' && *end != '/') {
        escaped |= *end == '~';
        end++;
    }
    *step = (Step){.text = at, .size = (size_t)(end - at), .end = end};
    return escaped ? step_unescape(step) : 0;
}

/*
 * Is it an int, written as Python writes it? *ret_fits: it fits *ret_index. Only such a one can
 * be an index, or stand for an int key.
 */
static bool
step_is_int(const Step *step, int64_t *ret_index, bool *ret_fits)
{
    const char *c = step->text;
    const char *end = c + step->size;
    bool negative = c < end && *c == '-';
    c += negative;
    if (c == end || (*c == '0' && (negative || end - c > 1))) {
        return false;
    }
    int64_t value = 0;
    bool fits = true;
    for (; c < end; c++) {
        if (*c < '0' || *c > '9') {
            return false;
        }
        fits = fits && !__builtin_mul_overflow(value, 10, &value)
               && !__builtin_sub_overflow(value, *c - '0', &value);
    }
    if (fits && !negative) {
        fits = value != INT64_MIN;
        value = fits ? -value : 0;
    }
    *ret_index = value;
    *ret_fits = fits;
    return true;
}

static int
step_int_key(const Step *step, PyObject **ret)
{
    int64_t index = 0;
    bool fits = false;
    PyObject *key = NULL;
    if (!step_is_int(step, &index, &fits)) {
        return 0;
    }
    if (fits) {
        key = PyLong_FromLongLong(index);
    } else {
        PyObject *digits = name_of(step->text, step->size);
        key = digits != NULL ? PyLong_FromUnicodeObject(digits, 10) : NULL;
        Py_XDECREF(digits);
    }
    if (key == NULL) {
        return host_failed();
    }
    *ret = key;
    return 1;
}

/*
 * The key that a step means in a mapping: the text, or the int where that is a key and the text
 * is none. New reference in *ret; 0 or a status.
 */
static int
step_choose_key(PyObject *mapping, const Step *step, PyObject **ret)
{
    PyObject *name;
    PyObject *number;
    int status = at_name(step->text, step->size, &name);
    if (status < 0) {
        return status;
    }
    int is_int = step_int_key(step, &number);
    if (is_int <= 0) {
        *ret = name;
        return is_int;
    }
    int found = PySequence_Contains(mapping, name);
    int found_number = found == 0 ? PySequence_Contains(mapping, number) : 0;
    bool take_number = found_number > 0;
    *ret = take_number ? number : name;
    Py_DECREF(take_number ? name : number);
    if (found < 0 || found_number < 0) {
        Py_CLEAR(*ret);
        return value_failed();
    }
    return 0;
}

static int
step_into_dict(PyObject *dict, const Step *step, PyObject **ret)
{
    PyObject *number;
    int found = element_by_text(dict, step->text, step->size, ret);
    if (found != 0) {
        return found;
    }
    found = step_int_key(step, &number);
    if (found > 0) {
        found = element_by_key(dict, number, ret);
        Py_DECREF(number);
    }
    return found;
}

static int
step_into_mapping(PyObject *mapping, const Step *step, PyObject **ret)
{
    PyObject *key;
    int found = step_choose_key(mapping, step, &key);
    if (found == 0) {
        found = element_by_key(mapping, key, ret);
        Py_DECREF(key);
    }
    return found;
}

/* 1, 0, or a status. */
static int
step_into(PyObject *object, const Step *step, PyObject **ret)
{
    int64_t index;
    bool fits;
    enum shape shape = shape_of(object);
    switch (shape) {
    case SHAPE_DICT:
        return step_into_dict(object, step, ret);
    case SHAPE_MAPPING:
        return step_into_mapping(object, step, ret);
    case SHAPE_LIST:
    case SHAPE_TUPLE:
    case SHAPE_SEQUENCE:
        if (step_is_int(step, &index, &fits)) {
            return fits ? element_by_index(object, index, ret) : 0;
        }
        if (shape == SHAPE_LIST || PyTuple_CheckExact(object)) {
            return 0;
        }
        break;
    case SHAPE_LEAF:
        return 0;
    default:
        break;
    }
    return element_by_attribute(object, step->text, step->size, ret);
}

/* ---- walking ---- */

static inline const char *
path_start(const char *path)
{
    return path + (*path == '/');
}

/* Shortens a piece of the path for a message. */
static int
shown(const char *from, const char *to)
{
    return to - from > 200 ? 200 : (int)(to - from);
}

/* What is missing at the step text[0 … end] of the path, in an object. */
static int
tell_missing_step(const char *path, const char *text, const char *end, PyObject *object)
{
    static const char *const kinds[] = {
        [SHAPE_DICT] = "key",         [SHAPE_LIST] = "index",
        [SHAPE_TUPLE] = "index",      [SHAPE_MAPPING] = "key",
        [SHAPE_SEQUENCE] = "index",   [SHAPE_LEAF] = "element",
        [SHAPE_OBJECT] = "attribute",
    };
    const char *start = path_start(path);
    const char *kind = kinds[shape_of(object)];
    if (text == start) {
        return tosc__fail(TOSC_ENOTFOUND, "'%.300s': no %s '%.*s' in the %s", path, kind,
                          shown(text, end), text, type_name(object));
    }
    return tosc__fail(TOSC_ENOTFOUND, "'%.300s': no %s '%.*s' in the %s at '%.*s'", path,
                      kind, shown(text, end), text, type_name(object),
                      shown(start, text - 1), start);
}

/*
 * Walks from *at to the end of the path or, if `parent`, to its last step. *object, a reference
 * that is the caller's, becomes what was reached, and *at the step at which the walk ended. 1,
 * 0 (not there), or a status.
 */
static inline int
walk(PyObject **object, const char **at, bool parent)
{
    for (;;) {
        Step step;
        PyObject *next = NULL;
        int found = step_read(&step, *at);
        if (found < 0) {
            return found;
        }
        bool last = *step.end == '\0';
        found = last && parent ? 1 : step_into(*object, &step, &next);
        free(step.own);
        if (next != NULL) {
            Py_SETREF(*object, next);
        }
        if (found <= 0 || last) {
            return found;
        }
        *at = step.end + 1;
    }
}

int
path_find(PyObject *object, const char *path, bool quiet, PyObject **ret)
{
    const char *at = path_start(path);
    int found = 1;
    Py_INCREF(object);
    if (*path != '\0') {
        found = walk(&object, &at, false);
    }
    if (found > 0) {
        *ret = object;
        return 1;
    }
    if (found == 0 && !quiet) {
        tell_missing_step(path, at, at + strcspn(at, "/"), object);
    }
    Py_DECREF(object);
    return found;
}

/* ---- where an element is, or will be ---- */

/* The key, index or attribute that the last step means in an object that was reached. */
static int
step_place(PyObject *object, const Step *step, Place *ret)
{
    int64_t index;
    bool fits;
    enum shape shape = shape_of(object);
    *ret = (Place){.object = object};
    switch (shape) {
    case SHAPE_DICT:
    case SHAPE_MAPPING: {
        int status = step_choose_key(object, step, &ret->key);
        return status < 0 ? status : 1;
    }
    case SHAPE_LIST:
    case SHAPE_TUPLE:
    case SHAPE_SEQUENCE:
        if (step_is_int(step, &index, &fits)) {
            return step_int_key(step, &ret->key);
        }
        if (shape == SHAPE_LIST || PyTuple_CheckExact(object)) {
            return 0;
        }
        break;
    case SHAPE_LEAF:
        return 0;
    default:
        break;
    }
    ret->attribute = true;
    int status = at_name(step->text, step->size, &ret->key);
    return status < 0 ? status : 1;
}

int
path_missing(const char *path, PyObject *object)
{
    const char *start = path_start(path);
    const char *slash = strrchr(start, '/');
    const char *last = slash != NULL ? slash + 1 : start;
    return tell_missing_step(path, last, last + strlen(last), object);
}

int
path_place(PyObject *object, const char *path, Place *ret)
{
    const char *at = path_start(path);
    Step step;
    if (*path == '\0') {
        return tosc__fail(TOSC_EINVAL, "at: the path is empty and so names no element");
    }
    Py_INCREF(object);
    int found = walk(&object, &at, true);
    if (found > 0) {
        found = step_read(&step, at);
        if (found == 0) {
            found = step_place(object, &step, ret);
            free(step.own);
        }
    }
    if (found == 0) {
        found = tell_missing_step(path, at, at + strcspn(at, "/"), object);
    }
    if (found < 0) {
        Py_DECREF(object);
        return found;
    }
    return 0;
}
