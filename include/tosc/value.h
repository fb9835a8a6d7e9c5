/*
 * Values: the lists, dicts, sets and objects that scripts see, from C.
 *
 * A tosc_value is a handle to a Python object: a distributed one that stands in a store (what
 * tosc_manager_read gives), or a plain one. Changing a distributed one is a change of the
 * store: of the transaction that this thread has open, or else a transaction by itself, as in
 * a script.
 *
 * Ownership is in the names. What a `borrow` function gives is borrowed from the innermost
 * scope of the calling thread and valid until that is left. What any other function gives
 * (`new`, `get`, read, eval, call, …) is owned by the caller, who gives it back with
 * tosc_value_unref() or free(). A handle that
 * is used when it is not valid any more is told as TOSC_EINVAL; handles are never dereferenced.
 *
 * All functions return 0 (or what they say) or a negative code of <tosc/error.h>; outputs are
 * untouched on failure. They may be called from any thread, and wait for Python's lock (the
 * GIL) unless the thread is in a scope. After tosc_host_stop() they return TOSC_ECLOSED.
 *
 *     int64_t hits;
 *     tosc_get_int64(root, tosc_path("users/17/hits"), &hits);
 *     tosc_set_int64(root, tosc_path("users/17/hits"), hits + 1);
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_VALUE_H
#define TOSC_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tosc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tosc_value tosc_value;

/* ---- scopes ---- */

/*
 * Between enter and leave the calling thread holds Python's lock: all calls inside take it
 * once, values can be borrowed, and no Python code runs in other threads meanwhile. So a scope
 * should be short, and not wait: pause it around whatever blocks. Scopes nest; they are left
 * by the thread that entered them, innermost first; the struct is that thread's until then, best
 * on its stack. Outside of transactions other processes' commits are not seen within a scope
 * that does not ask for them.
 */
typedef struct tosc_scope {
    void *reserved[6];
} tosc_scope;

/* Blocks until Python's lock is free. TOSC_ECLOSED, TOSC_ENOMEM. */
int tosc_scope_enter(tosc_scope *scope);
/*
 * Ends it, also while it is paused, and everything borrowed in it. What is borrowed piles up
 * until then: a long loop leaves its scope now and then. TOSC_EINVAL: not this thread's
 * innermost scope.
 */
int tosc_scope_leave(tosc_scope *scope);
/*
 * Lets Python's lock go, and takes it again. What was borrowed stays valid; functions called in
 * between take the lock each for itself. TOSC_EINVAL: not this thread's innermost scope.
 */
int tosc_scope_pause(tosc_scope *scope);
int tosc_scope_resume(tosc_scope *scope);

/* ---- where ---- */

/*
 * Which element of a value is meant:
 *
 *     tosc_self()             the value itself
 *     tosc_key("name")        of a dict: the element with this text (UTF-8) as its key
 *     tosc_index(-1)          of a list or tuple, negative from the end; of a dict: an int key
 *     tosc_item(key)          of a dict: any key; of a list: an int
 *     tosc_attribute("name")  of an object
 *     tosc_path("a/17/name")  steps, separated by "/"; each a text key or else an int key of a
 *                             dict, an index of a list or tuple, or an attribute of an object.
 *                             "~1" stands for "/" and "~0" for "~" in a step, as in JSON
 *                             Pointer; one leading "/" is ignored; "" is the value itself.
 *
 * They copy nothing: the text must live as long as the call that uses it.
 */
enum tosc_at_kind {
    TOSC_AT_SELF = 0,
    TOSC_AT_KEY = 1,
    TOSC_AT_INDEX = 2,
    TOSC_AT_ITEM = 3,
    TOSC_AT_ATTRIBUTE = 4,
    TOSC_AT_PATH = 5
};

typedef struct tosc_at {
    int kind;
    union {
        const char *text;
        int64_t index;
        tosc_value *key;
    } where;
} tosc_at;

static inline tosc_at
tosc_self(void)
{
    tosc_at at;
    at.kind = TOSC_AT_SELF;
    at.where.text = NULL;
    return at;
}

static inline tosc_at
tosc_key(const char *text)
{
    tosc_at at;
    at.kind = TOSC_AT_KEY;
    at.where.text = text;
    return at;
}

static inline tosc_at
tosc_index(int64_t index)
{
    tosc_at at;
    at.kind = TOSC_AT_INDEX;
    at.where.index = index;
    return at;
}

static inline tosc_at
tosc_item(tosc_value *key)
{
    tosc_at at;
    at.kind = TOSC_AT_ITEM;
    at.where.key = key;
    return at;
}

static inline tosc_at
tosc_attribute(const char *name)
{
    tosc_at at;
    at.kind = TOSC_AT_ATTRIBUTE;
    at.where.text = name;
    return at;
}

static inline tosc_at
tosc_path(const char *path)
{
    tosc_at at;
    at.kind = TOSC_AT_PATH;
    at.where.text = path;
    return at;
}

/* ---- making values ---- */

int tosc_value_new_null(tosc_value **ret);
int tosc_value_new_bool(bool value, tosc_value **ret);
int tosc_value_new_int64(int64_t value, tosc_value **ret);
int tosc_value_new_uint64(uint64_t value, tosc_value **ret);
/* An int of any size from decimal digits, perhaps with a sign. TOSC_EINVAL. */
int tosc_value_new_bigint(const char *digits, tosc_value **ret);
int tosc_value_new_double(double value, tosc_value **ret);
/* `size` bytes of UTF-8 (TOSC_TEXT_END: up to the NUL byte). TOSC_EINVAL: not UTF-8. */
#define TOSC_TEXT_END ((size_t)-1)
int tosc_value_new_text(const char *text, size_t size, tosc_value **ret);
int tosc_value_new_bytes(const void *bytes, size_t size, tosc_value **ret);
/* Empty plain ones; storing one stores a copy. */
int tosc_value_new_list(tosc_value **ret);
int tosc_value_new_dict(tosc_value **ret);
int tosc_value_new_set(tosc_value **ret);
/* The items stay the caller's. */
int tosc_value_new_tuple(tosc_value *const *items, size_t count, tosc_value **ret);
/*
 * A plain value from JSON text. TOSC_EINVAL: it is none or not UTF-8; a number in it is NaN,
 * Infinity or larger than a double; an int has more digits, or it is nested more deeply, than
 * Python reads (4300, and about 1000 levels). The message tells which and where.
 */
int tosc_value_new_json(const char *text, size_t size, tosc_value **ret);
/*
 * The JSON text (UTF-8) of a value, as it is now; owned (free()). Tuples become lists. TOSC_ETYPE:
 * bytes, sets, objects, numbers that are not finite; the message tells where. TOSC_ERANGE: an int
 * of more than 4300 digits (see tosc_get_bigint), or nested too deeply.
 */
int tosc_get_json(tosc_value *value, tosc_at at, char **ret, size_t *ret_size);

/* One more owned handle to the same; NULL gives NULL. */
tosc_value *tosc_value_ref(tosc_value *value);
/* Gives back an owned handle. NULL is accepted, returns NULL; allowed after tosc_host_stop(). */
tosc_value *tosc_value_unref(tosc_value *value);

/* ---- asking ---- */

enum tosc_type {
    TOSC_NULL = 1,
    TOSC_BOOL,
    TOSC_INT,
    TOSC_DOUBLE,
    TOSC_TEXT,
    TOSC_BYTES, /* bytes, or a bytearray */
    TOSC_LIST,
    TOSC_TUPLE,
    TOSC_DICT,
    TOSC_SET, /* or a frozenset */
    TOSC_OBJECT
};

/* An enum tosc_type, or a negative code. */
int tosc_type_of(tosc_value *value, tosc_at at);
/* 1, 0: is there such an element? One that would be made by asking for it is not. */
int tosc_contains(tosc_value *value, tosc_at at);
/* Elements of a container, bytes of a bytes-like value, code points of a text. */
int tosc_length(tosc_value *value, tosc_at at, int64_t *ret);
/* 1, 0: equal as Python's == says; runs the objects' own methods. */
int tosc_value_equal(tosc_value *a, tosc_value *b);
/* What repr() gives, owned (free()). */
int tosc_value_describe(tosc_value *value, char **ret);

/* ---- reading ---- */

/*
 * TOSC_ENOTFOUND: no such element; the message names the step of the path that led nowhere.
 * TOSC_ETYPE: it is of another type (a bool is no int), or is in nothing that has elements of
 * that sort. TOSC_ERANGE: a number does not fit. TOSC_EPYTHON: code of the object raised.
 */
int tosc_get(tosc_value *value, tosc_at at, tosc_value **ret);
int tosc_borrow(tosc_value *value, tosc_at at, tosc_value **ret);
int tosc_get_bool(tosc_value *value, tosc_at at, bool *ret);
int tosc_get_int64(tosc_value *value, tosc_at at, int64_t *ret);
int tosc_get_uint64(tosc_value *value, tosc_at at, uint64_t *ret);
/* An int is taken as well, if it can be had without loss. */
int tosc_get_double(tosc_value *value, tosc_at at, double *ret);
/* An int of any size as decimal digits; owned (free()). */
int tosc_get_bigint(tosc_value *value, tosc_at at, char **ret);
/*
 * UTF-8 with a NUL byte behind it, which ret_size (may be NULL) does not count; owned (free()).
 * TOSC_ETYPE also: a text with lone surrogates, which has no UTF-8 form.
 */
int tosc_get_text(tosc_value *value, tosc_at at, char **ret, size_t *ret_size);
int tosc_get_bytes(tosc_value *value, tosc_at at, void **ret, size_t *ret_size);
int tosc_borrow_text(tosc_value *value, tosc_at at, const char **ret, size_t *ret_size);
int tosc_borrow_bytes(tosc_value *value, tosc_at at, const void **ret, size_t *ret_size);

/* ---- changing ---- */

/*
 * Outside a transaction each of these is one: it blocks until it is stored, and may give
 * TOSC_ECONFLICT, TOSC_ESYSTEM, TOSC_ESERIALIZE; nothing has changed then.
 * A path's steps but the last must be there. Dicts and objects take new elements, lists do not.
 * The last step of a path is an int key where the dict has that one and not the text.
 * TOSC_ETYPE: the container, or the attribute, cannot be changed.
 */
int tosc_set(tosc_value *value, tosc_at at, tosc_value *element);
int tosc_set_null(tosc_value *value, tosc_at at);
int tosc_set_bool(tosc_value *value, tosc_at at, bool element);
int tosc_set_int64(tosc_value *value, tosc_at at, int64_t element);
int tosc_set_double(tosc_value *value, tosc_at at, double element);
int tosc_set_text(tosc_value *value, tosc_at at, const char *text, size_t size);
int tosc_set_bytes(tosc_value *value, tosc_at at, const void *bytes, size_t size);
/*
 * Adds to an int (0 where there is none yet, in a dict or object). ret, the sum, may be NULL.
 * Outside a transaction it is repeated after conflicts until it is stored: increments of other
 * threads and processes are not lost. TOSC_ERANGE: the sum does not fit.
 */
int tosc_add_int64(tosc_value *value, tosc_at at, int64_t increment, int64_t *ret);
int tosc_delete(tosc_value *value, tosc_at at);

/* Lists: which one `at` says. */
int tosc_append(tosc_value *value, tosc_at at, tosc_value *element);
int tosc_append_int64(tosc_value *value, tosc_at at, int64_t element);
int tosc_append_double(tosc_value *value, tosc_at at, double element);
int tosc_append_text(tosc_value *value, tosc_at at, const char *text, size_t size);
int tosc_insert(tosc_value *value, tosc_at at, int64_t before, tosc_value *element);
/* Sets: which one `at` says. `has`: 1, 0. */
int tosc_member_add(tosc_value *value, tosc_at at, tosc_value *member);
int tosc_member_discard(tosc_value *value, tosc_at at, tosc_value *member);
int tosc_member_has(tosc_value *value, tosc_at at, tosc_value *member);
/* Empties a list, dict, set or bytearray. */
int tosc_clear(tosc_value *value, tosc_at at);

/* ---- iterating ---- */

typedef struct tosc_iterator tosc_iterator;

/*
 * Over the elements as they are now: later changes do not disturb it. A list or tuple gives
 * index and item, a dict key and item, a set its members, an object names and attributes.
 */
int tosc_iterator_new(tosc_value *value, tosc_at at, tosc_iterator **ret);
/*
 * 1: there is one; 0: there are no more. The values are borrowed from the iterator until the
 * next call with it. ret_key, ret_item may be NULL; a set's key is NULL.
 */
int tosc_iterator_next(tosc_iterator *iterator, tosc_value **ret_key,
                       tosc_value **ret_item);
tosc_iterator *tosc_iterator_free(tosc_iterator *iterator);

/* ---- calling ---- */

/* Arguments of a call, by position and (a dict or NULL) by name; borrowed for the call. */
typedef struct tosc_arguments {
    tosc_value *const *values;
    size_t count;
    tosc_value *named;
} tosc_arguments;

/* `arguments` may be NULL: none; `ret` may be NULL: not wanted. Errors as of running scripts. */
int tosc_call(tosc_value *callable, const tosc_arguments *arguments, tosc_value **ret);
int tosc_call_method(tosc_value *object, const char *name,
                     const tosc_arguments *arguments, tosc_value **ret);

#ifdef __cplusplus
}
#endif

#endif
