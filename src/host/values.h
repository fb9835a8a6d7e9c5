/*
 * What the files about values share: chains of handles, the names of elements, and finding an
 * element.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_HOST_VALUES_H
#define TOSC_HOST_VALUES_H

#include "host/host.h"

/* ---- handle.c, for scope.c ---- */

/* The kind of what is only kept alive, and that nobody has a handle of. */
#define HANDLE_KEPT 0
#define CHAIN_END UINT32_MAX

/* A lent handle in a chain, which starts as CHAIN_END. Takes over the reference. NULL is told. */
void *chain_add(uint32_t *chain, int kind, PyObject *object);
void chain_drop(uint32_t chain);

/* ---- names.c ---- */

/* The str for UTF-8 text: new reference, mostly from a cache; NULL with an exception. */
PyObject *name_of(const char *text, size_t size);
void names_drop(void);
/* A new str for a value; TOSC_EINVAL is told for what is not UTF-8. `what` names the argument. */
int text_new(const char *text, size_t size, const char *what, PyObject **ret);

/* ---- make.c, get.c, ask.c ---- */

/* The same for bytes. */
int bytes_new(const void *bytes, size_t size, const char *what, PyObject **ret);
/* Memory of the user's, who frees it, with a NUL byte behind; `ret_size` may be NULL. */
int memory_copy(const void *bytes, Py_ssize_t size, char **ret, size_t *ret_size);
int text_copy(PyObject *text, tosc_at at, char **ret, size_t *ret_size);
/* TOSC_ETYPE, TOSC_ERANGE are told. A bool is no int here. */
int int64_of(PyObject *object, tosc_at at, int64_t *ret);
/* An enum tosc_type, or a status. */
int value_type(PyObject *object);

/* ---- at.c ---- */

/* What an object is to somebody who looks for an element of it. */
enum shape {
    SHAPE_DICT,    /* exact dict, DDict */
    SHAPE_LIST,    /* exact list, DList */
    SHAPE_TUPLE,   /* tuple and its subclasses */
    SHAPE_MAPPING, /* anything else that Python treats as a mapping in a match statement */
    SHAPE_SEQUENCE, /* the same for sequences */
    SHAPE_LEAF, /* numbers, texts, bytes-likes, None; sets have no named elements either */
    SHAPE_OBJECT
};
enum shape shape_of(PyObject *object);

/* Enters and finds the element, a new reference: then found_leave() is the caller's. */
static inline int
enter_and_find(HostEntry *entry, tosc_value *value, tosc_at at, PyObject **ret)
{
    int status = host_enter(entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = value_get(value, "value");
    status = object != NULL ? at_find(object, at, ret) : TOSC_EINVAL;
    return status < 0 ? host_leave(entry, status) : 0;
}

static inline int
found_leave(HostEntry *entry, PyObject *found, int status)
{
    Py_DECREF(found);
    return host_leave(entry, status);
}

/* As at_find, but 1: found; 0: there is none, and nothing is told. */
int at_look(PyObject *object, tosc_at at, PyObject **ret);
/* name_of for what the caller gave: TOSC_EINVAL if it is not UTF-8. */
int at_name(const char *text, size_t size, PyObject **ret);
/* One element. 1 and a new reference; 0: there is none, and nothing is told; or a status. */
int element_by_key(PyObject *object, PyObject *key, PyObject **ret);
int element_by_text(PyObject *object, const char *text, size_t size, PyObject **ret);
int element_by_index(PyObject *object, int64_t index, PyObject **ret);
int element_by_attribute(PyObject *object, const char *text, size_t size, PyObject **ret);
int attribute_get(PyObject *object, PyObject *name, PyObject **ret);
/* TOSC_ENOTFOUND in words, for all but paths; TOSC_ETYPE: the key of a list is no int. */
int element_missing(PyObject *object, tosc_at at);
int index_type(PyObject *object, PyObject *key);

/* ---- place.c ---- */

/* Where an element is, or will be. */
typedef struct Place {
    PyObject *object;
    PyObject *key; /* of a dict; an int: index of a list; the name of an attribute */
    bool attribute;
} Place;

/* All steps but the last of a path have to be there. Ended by place_free() after success. */
int place_find(PyObject *object, tosc_at at, Place *ret);
void place_free(Place *place);
/* 1 and a new reference; 0: nothing there; or a status. */
int place_get(const Place *place, PyObject **ret);
/* `element` NULL: delete. `at`, from which the place was found, is for the message. */
int place_set(const Place *place, PyObject *element, tosc_at at);
/* TOSC_ENOTFOUND: there is nothing. */
int place_missing(const Place *place, tosc_at at);

/* ---- path.c ---- */

/* 1 and a new reference; 0: it is not there, told unless `quiet`; or a status. */
int path_find(PyObject *object, const char *path, bool quiet, PyObject **ret);
int path_place(PyObject *object, const char *path, Place *ret);
/* TOSC_ENOTFOUND: the last step, looked for in `object`. */
int path_missing(const char *path, PyObject *object);

/* ---- value_errors.c ---- */

/*
 * The exception that is set, which an operation on a value has raised: as host_failed(), but a
 * TypeError that Python itself raised, not code written in Python, is TOSC_ETYPE.
 */
int value_failed(void);
/*
 * The same for putting an element (NULL: none) into a container: TOSC_ESERIALIZE if it is one
 * that cannot be stored there.
 */
int store_failed(PyObject *container, PyObject *element);
/*
 * Is the exception that is set just the answer "there is no such element"? That of an
 * attribute, or of an item, that was looked up.
 */
bool failed_by_attribute(PyObject *object, PyObject *name);
bool failed_by_item(PyObject *key);
/* What an object is called in messages: "dict", "int", "Point". */
const char *type_name(PyObject *object);
/* Puts into words which element `at` means: "'users/17'", "key 'a'", "index 3". */
const char *at_words(tosc_at at, char *buffer, size_t size);
/* TOSC_ETYPE: "<element> is a <type>, not <wanted>". */
int wrong_type(tosc_at at, PyObject *object, const char *wanted);
int missing_argument(const char *what);

#endif
