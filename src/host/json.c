/*
 * Values as JSON, by Python's json module.
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

/* ---- reading ---- */

/* A ValueError of the reader is the text's fault. */
static int
reading_failed(void)
{
    bool bad = PyErr_ExceptionMatches(PyExc_ValueError);
    int status = host_failed();
    return status == TOSC_EPYTHON && bad ? TOSC_EINVAL : status;
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
    status = object != NULL ? value_return(object, ret) : reading_failed();
    return host_leave(&entry, status);
}

/* ---- what JSON cannot say ---- */

typedef struct Search {
    char path[512];
    size_t size;
    const char *type; /* of the culprit; NULL: none so far */
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
    if (PyUnicode_Check(object) || PyLong_Check(object) || object == Py_None) {
        return false;
    }
    if (PyFloat_Check(object) && isfinite(PyFloat_AS_DOUBLE(object))) {
        return false;
    }
    s->type =
        PyFloat_Check(object) ? "a float that is no finite number" : type_name(object);
    return true;
}

/* ---- writing ---- */

static int
writing_failed(PyObject *plain)
{
    Search s = {.size = 0};
    bool of_value = PyErr_ExceptionMatches(PyExc_TypeError)
                    || PyErr_ExceptionMatches(PyExc_ValueError);
    int status = host_failed();
    if (status != TOSC_EPYTHON || !of_value) {
        return status;
    }
    s.seen = PySet_New(NULL);
    bool found = s.seen != NULL && search(&s, plain, 0);
    Py_XDECREF(s.seen);
    PyErr_Clear();
    if (found) {
        return tosc__fail(TOSC_ETYPE, "JSON has nothing for %s, at '%s'", s.type,
                          s.size > 0 ? s.path + 1 : "");
    }
    return TOSC_ETYPE;
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
