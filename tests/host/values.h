/*
 * What the tests about values share: a store that scripts know as `d` and C as `root`, and
 * handing values over both ways.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_TESTS_HOST_VALUES_H
#define TOSC_TESTS_HOST_VALUES_H

#include "support.h"

#include <stdlib.h>
#include <string.h>

static tosc_value *root;  /* of the store: an empty dict at first; `d` in Python */
static tosc_value *names; /* the variables of __main__ */

/* Starts Python, with a Manager `m` that stores {}. */
static inline void
values_start(void)
{
    host_start();
    python("import tosc\n"
           "m = tosc.Manager(tosc.InprocBackend())\n"
           "m.write({})\n"
           "d = m.read()\n");
    ok(tosc_host_eval("d", &root));
    ok(tosc_host_eval("globals()", &names));
}

static inline void
values_stop(void)
{
    root = tosc_value_unref(root);
    names = tosc_value_unref(names);
    host_stop();
}

/* The value of a Python expression; given back by the caller. */
static inline tosc_value *
eval(const char *expression)
{
    tosc_value *value = NULL;
    ok(tosc_host_eval(expression, &value));
    return value;
}

/* Makes it the Python variable `x` and stores it as d['x']; gives it back. */
static inline void
give(tosc_value *value)
{
    ok(tosc_set(names, tosc_key("x"), value));
    ok(tosc_set(root, tosc_key("x"), value));
    tosc_value_unref(value);
}

/* Makes a Python expression x and d['x']. */
static inline void
take(const char *expression)
{
    give(eval(expression));
}

/* Must hold of x, and of d['x'] as `x`. */
static inline void
both(const char *expression)
{
    char *of_stored = malloc(strlen(expression) + 40);
    must(of_stored != NULL);
    must(python_true(expression));
    strcpy(of_stored, "(lambda x: ");
    strcat(of_stored, expression);
    strcat(of_stored, ")(d['x'])");
    if (!python_true(of_stored)) {
        ck_abort_msg("not true: %s", of_stored);
    }
    free(of_stored);
}

/* Both places of x, for a loop. */
static inline tosc_value *
place(int number)
{
    return number == 0 ? names : root;
}

#endif
