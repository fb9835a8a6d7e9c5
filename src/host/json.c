/*
 * Values as JSON, by Python's json module.
 *
 * Both ways it is stricter than that: there is no NaN and no Infinity, nor a number that a
 * double cannot hold and that Python would read as infinity. Python's limit to the digits of an
 * int holds, as a text may come from anywhere.
 *
 * A distributed value is written as its snapshot. What JSON cannot say (bytes, sets, objects,
 * not-a-number) is refused; the place of it is searched for only then.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/values.h"

#include "py/dobject.h"

#include <string.h>

/* json.name, as it is looked up at the call. */
static PyObject *
json_function(const char *name)
{
    PyObject *module = PyImport_ImportModule("json");
    PyObject *function = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return function;
}

/* ---- what JSON cannot say ---- */

typedef struct Search {
    char path[512];
    size_t size;
    const char *type; /* of the culprit; NULL: none so far */
    bool too_long;    /* it is an int */
    PyObject *seen;   /* addresses of the containers that were looked into: each once */
} Search;

static bool search(Search *s, PyObject *object, int depth);

/* Adds a step; the size before is given, to go back to. */
static size_t
search_enter(Search *s, PyObject *key, Py_ssize_t index)
{
    size_t before = s->size;
    size_t room = sizeof(s->path) - s->size;
    const char *text = NULL;
    if (key != NULL && PyUnicode_CheckExact(key)) {
        text = PyUnicode_AsUTF8(key);
        PyErr_Clear();
    }
    int more = key == NULL ? snprintf(s->path + s->size, room, "/%zd", index)
                           : snprintf(s->path + s->size, room, "/%.100s",
                                      text != NULL ? text : type_name(key));
    s->size += more > 0 && (size_t)more < room ? (size_t)more : room - 1;
    return before;
}

static void
search_leave(Search *s, size_t before)
{
    s->size = before;
    s->path[before] = '\0';
}

static bool
is_json_key(PyObject *key)
{
    return PyUnicode_Check(key) || PyLong_Check(key) || PyFloat_Check(key)
           || key == Py_None;
}

static bool
search_dict(Search *s, PyObject *dict, int depth)
{
    Py_ssize_t position = 0;
    PyObject *key;
    PyObject *item;
    while (PyDict_Next(dict, &position, &key, &item)) {
        size_t before = search_enter(s, key, 0);
        if (!is_json_key(key)) {
            s->type = "a key that is no text or number";
            return true;
        }
        if (search(s, item, depth + 1)) {
            return true;
        }
        search_leave(s, before);
    }
    return false;
}

static bool
search_items(Search *s, PyObject *sequence, int depth)
{
    bool list = PyList_Check(sequence);
    for (Py_ssize_t i = 0;
         i < (list ? PyList_GET_SIZE(sequence) : PyTuple_GET_SIZE(sequence)); i++) {
        size_t before = search_enter(s, NULL, i);
        if (search(s, list ? PyList_GET_ITEM(sequence, i) : PyTuple_GET_ITEM(sequence, i),
                   depth + 1)) {
            return true;
        }
        search_leave(s, before);
    }
    return false;
}

/* The first time that it comes to this container. Where there is no memory: never. */
static bool
is_new(Search *s, PyObject *container)
{
    PyObject *address = PyLong_FromVoidPtr(container);
    int known = address == NULL ? -1 : PySet_Contains(s->seen, address);
    if (known == 0 && PySet_Add(s->seen, address) < 0) {
        known = -1;
    }
    Py_XDECREF(address);
    PyErr_Clear();
    return known == 0;
}

/* Does Python refuse to write all its digits? */
static bool
is_too_long(PyObject *number)
{
    PyObject *digits = PyLong_Type.tp_repr(number);
    bool refused = digits == NULL && PyErr_ExceptionMatches(PyExc_ValueError);
    Py_XDECREF(digits);
    PyErr_Clear();
    return refused;
}

/* Runs no code written in Python, so that nothing changes on the way. */
static bool
search(Search *s, PyObject *object, int depth)
{
    if (PyDict_Check(object) || PyList_Check(object) || PyTuple_Check(object)) {
        if (depth > 500 || !is_new(s, object)) {
            return false;
        }
        return PyDict_Check(object) ? search_dict(s, object, depth)
                                    : search_items(s, object, depth);
    }
    if (PyUnicode_Check(object) || object == Py_None) {
        return false;
    }
    if (PyLong_Check(object)) {
        s->too_long = is_too_long(object);
        return s->too_long;
    }
    if (PyFloat_Check(object) && isfinite(PyFloat_AS_DOUBLE(object))) {
        return false;
    }
    s->type =
        PyFloat_Check(object) ? "a float that is no finite number" : type_name(object);
    return true;
}

static bool
find(Search *s, PyObject *object)
{
    s->seen = PySet_New(NULL);
    bool found = s->seen != NULL && search(s, object, 0);
    Py_CLEAR(s->seen);
    PyErr_Clear();
    return found;
}

/* ---- reading ---- */

/* For what the reader has made: it is no deeper than that could go, and has no cycles. */
static bool
is_finite(PyObject *object)
{
    bool result = true;
    if (PyFloat_CheckExact(object)) {
        result = isfinite(PyFloat_AS_DOUBLE(object));
    } else if (PyList_CheckExact(object)) {
        for (Py_ssize_t i = 0; result && i < PyList_GET_SIZE(object); i++) {
            result = is_finite(PyList_GET_ITEM(object, i));
        }
    } else if (PyDict_CheckExact(object)) {
        Py_ssize_t position = 0;
        PyObject *item;
        while (result && PyDict_Next(object, &position, NULL, &item)) {
            result = is_finite(item);
        }
    }
    return result;
}

/* Takes over the reference. */
static int
not_finite(PyObject *object)
{
    Search s = {.size = 0};
    find(&s, object);
    Py_DECREF(object);
    return tosc__fail(TOSC_EINVAL,
                      "text: JSON has no NaN or Infinity, and no number may be larger "
                      "than a double can be, as at '%s'",
                      s.size > 0 ? s.path + 1 : "");
}

/* The reader tells where it has met something else by a subclass of ValueError. */
static int
reading_failed(void)
{
    if (PyErr_ExceptionMatches(PyExc_RecursionError)) {
        PyErr_Clear();
        return tosc__fail(TOSC_EINVAL, "text: lists and objects stand in each other more "
                                       "deeply than Python can read");
    }
    if (PyErr_Occurred() == PyExc_ValueError) {
        PyErr_Clear();
        return tosc__fail(TOSC_EINVAL, "text: an int has more digits than Python reads: "
                                       "write it as a string, and give that to "
                                       "tosc_value_new_bigint()");
    }
    return host_failed_as(PyErr_ExceptionMatches(PyExc_ValueError) ? TOSC_EINVAL : 0);
}

int
tosc_value_new_json(const char *text, size_t size, tosc_value **ret)
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
    if (status < 0) {
        return host_leave(&entry, status);
    }
    PyObject *loads = json_function("loads");
    PyObject *object = loads != NULL ? PyObject_CallOneArg(loads, str) : NULL;
    Py_XDECREF(loads);
    Py_DECREF(str);
    if (object == NULL) {
        status = reading_failed();
    } else if (!is_finite(object)) {
        status = not_finite(object);
    } else {
        status = value_return(object, ret);
    }
    return host_leave(&entry, status);
}

/* ---- writing ---- */

static int
writing_failed(PyObject *plain)
{
    Search s = {.size = 0};
    if (PyErr_ExceptionMatches(PyExc_RecursionError)) {
        PyErr_Clear();
        return tosc__fail(TOSC_ERANGE, "containers stand in each other more deeply than "
                                       "Python can write as JSON");
    }
    bool of_value = PyErr_ExceptionMatches(PyExc_TypeError)
                    || PyErr_ExceptionMatches(PyExc_ValueError);
    int status = host_failed();
    if (status != TOSC_EPYTHON || !of_value) {
        return status;
    }
    if (!find(&s, plain)) {
        return TOSC_ETYPE;
    }
    const char *path = s.size > 0 ? s.path + 1 : "";
    return s.too_long
               ? tosc__fail(TOSC_ERANGE,
                            "an int has more digits than Python writes as JSON, at "
                            "'%s': tosc_get_bigint() gives them",
                            path)
               : tosc__fail(TOSC_ETYPE, "JSON has nothing for %s, at '%s'", s.type, path);
}

/* json.dumps(plain, ensure_ascii=False, allow_nan=False) */
static PyObject *
dump(PyObject *plain)
{
    PyObject *dumps = json_function("dumps");
    PyObject *names =
        dumps != NULL ? Py_BuildValue("(ss)", "ensure_ascii", "allow_nan") : NULL;
    PyObject *text = NULL;
    if (names != NULL) {
        PyObject *const arguments[] = {plain, Py_False, Py_False};
        text = PyObject_Vectorcall(dumps, arguments, 1, names);
    }
    Py_XDECREF(names);
    Py_XDECREF(dumps);
    return text;
}

int
tosc_get_json(tosc_value *value, tosc_at at, char **ret, size_t *ret_size)
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
    PyObject *plain = dobject_plain(found);
    PyObject *text = plain != NULL ? dump(plain) : NULL;
    if (text != NULL) {
        status = text_copy(text, at, ret, ret_size);
    } else {
        status = plain != NULL ? writing_failed(plain) : value_failed();
    }
    Py_XDECREF(text);
    Py_XDECREF(plain);
    return found_leave(&entry, found, status);
}
