/*
 * Stores by URI: taking a URI apart, and the schemes and who opens them.
 *
 * A tosc_uri is one allocation: the struct, its parameters, and a copy of the text, in
 * which the delimiters are replaced by NULs and each part is decoded in place. It lives
 * for the length of tosc_backend_open().
 *
 * What an opener has asked for is noted (`notes`), so that a parameter that nobody knows
 * is an error that can list the known ones: a setting that is misspelt and silently left
 * out may cost data ("durabel=1"). Messages name parameters but never tell their values
 * or quote the URI, as there may be secrets in them.
 *
 * Registered schemes stay for ever, so an opener is called without the mutex.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend_uri.h"
#include "core/error.h"
#include "core/fork.h"
#include "core/sys.h"

struct parameter {
    char *name;
    char *value;
    bool asked; /* the opener knows it */
};

/* What changes while an opener looks at the URI. */
struct notes {
    bool authority_asked;
    char names[512]; /* all that were asked for: "durable, lock" */
};

struct tosc_uri {
    const char *scheme;    /* in small letters */
    const char *authority; /* as it stands; NULL: no "//" */
    const char *path;
    size_t count;
    struct parameter *parameters;
    struct notes notes;
};

struct scheme {
    tosc_backend_opener open;
    void *arg;
    const char *name;
    struct scheme *next;
};

static int open_inproc(const tosc_uri *uri, void *arg, tosc_backend **ret);
static int open_file(const tosc_uri *uri, void *arg, tosc_backend **ret);

static struct scheme builtin[] = {
    {.name = "ceph", .open = tosc__ceph_open, .next = &builtin[1]},
    {.name = "file", .open = open_file, .next = &builtin[2]},
    {.name = "inproc", .open = open_inproc},
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct scheme *schemes = builtin;

/* ---- the list of schemes ---- */

static void
freeze(struct tosc__fork_node *node)
{
    (void)node;
    pthread_mutex_lock(&mutex);
}

static void
thaw(struct tosc__fork_node *node)
{
    (void)node;
    pthread_mutex_unlock(&mutex);
}

static void
prepare(void)
{
    static struct tosc__fork_node fork_node = {
        .freeze = freeze, .thaw = thaw, .renew = thaw};

    tosc__fork_add(&fork_node);
}

static void
lock_schemes(void)
{
    static pthread_once_t prepared = PTHREAD_ONCE_INIT;

    pthread_once(&prepared, prepare);
    pthread_mutex_lock(&mutex);
}

/* With the mutex held. */
static const struct scheme *
find_scheme(const char *name)
{
    const struct scheme *scheme = schemes;

    while (scheme != NULL && strcmp(scheme->name, name) != 0) {
        scheme = scheme->next;
    }
    return scheme;
}

/* "ceph, file, inproc": what is known now, as far as it fits. */
static void
list_schemes(char *to, size_t room)
{
    size_t used = 0;

    lock_schemes();
    for (const struct scheme *scheme = schemes; scheme != NULL; scheme = scheme->next) {
        int added =
            snprintf(to + used, room - used, "%s%s", used > 0 ? ", " : "", scheme->name);

        if ((size_t)added >= room - used) {
            to[used] = '\0';
            break;
        }
        used += (size_t)added;
    }
    pthread_mutex_unlock(&mutex);
}

/* ---- decoding ---- */

static int
hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *digit = c != '\0' ? strchr(digits, tolower((unsigned char)c)) : NULL;

    return digit != NULL ? (int)(digit - digits) : -1;
}

/* Decodes in place. `what` is for messages. */
static int
decode(char *text, const char *what)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++) {
        int high;
        int low;

        if (iscntrl((unsigned char)*from)) {
            return tosc__fail(TOSC_EINVAL,
                              "a control character in %s of the URI has to be encoded "
                              "(\"%%%02X\")",
                              what, (unsigned char)*from);
        }
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        high = hex_digit(from[1]);
        low = high >= 0 ? hex_digit(from[2]) : -1;
        if (low < 0) {
            return tosc__fail(TOSC_EINVAL,
                              "\"%%\" in %s of the URI is not followed by two "
                              "hexadecimal digits; for itself write \"%%25\"",
                              what);
        }
        if (high + low == 0) {
            return tosc__fail(TOSC_EINVAL, "%s of the URI holds a NUL byte (\"%%00\")",
                              what);
        }
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = '\0';
    return 0;
}

/* ---- taking apart ---- */

static bool
is_scheme(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c > 127 || !(isalpha(c) || (i > 0 && (isdigit(c) || strchr("+-.", c))))) {
            return false;
        }
    }
    return length > 0;
}

static int
no_scheme(void)
{
    char known[256];

    list_schemes(known, sizeof(known));
    return tosc__fail(TOSC_EINVAL,
                      "the URI of a store has to begin with its scheme, as in "
                      "\"file:/path\"; known are %s",
                      known);
}

/* Ends `text` at the first of these characters; what follows it, NULL: there is none. */
static char *
cut(char *text, char at)
{
    char *found = strchr(text, at);

    if (found == NULL) {
        return NULL;
    }
    *found = '\0';
    return found + 1;
}

static int
add_parameter(tosc_uri *uri, char *text)
{
    struct parameter parameter = {.name = text, .value = cut(text, '=')};
    char what[64];
    int status = decode(parameter.name, "a parameter's name");

    if (status != 0) {
        return status;
    }
    if (parameter.name[0] == '\0') {
        return tosc__fail(TOSC_EINVAL, "the URI has a parameter without a name");
    }
    if (parameter.value == NULL) {
        return tosc__fail(TOSC_EINVAL, "parameter \"%s\" of the URI has no value",
                          parameter.name);
    }
    snprintf(what, sizeof(what), "parameter \"%.40s\"", parameter.name);
    status = decode(parameter.value, what);
    for (size_t i = 0; status == 0 && i < uri->count; i++) {
        if (strcmp(uri->parameters[i].name, parameter.name) == 0) {
            return tosc__fail(TOSC_EINVAL, "parameter \"%s\" is given twice in the URI",
                              parameter.name);
        }
    }
    uri->parameters[uri->count++] = parameter;
    return status;
}

static int
split(tosc_uri *uri, char *text)
{
    char *query;
    int status = 0;

    uri->scheme = text;
    for (; *text != ':'; text++) {
        *text = (char)tolower((unsigned char)*text);
    }
    *text++ = '\0';
    if (strchr(text, '#') != NULL) {
        return tosc__fail(TOSC_EINVAL, "\"#\" in the URI of a store has no meaning; for "
                                       "itself write \"%%23\"");
    }
    query = cut(text, '?');
    if (strncmp(text, "//", 2) == 0) {
        /* The authority moves to where the two slashes were, to make room for its end. */
        size_t length = strcspn(text + 2, "/");

        memmove(text, text + 2, length);
        uri->authority = text;
        text += length + 2;
        text[-2] = '\0';
    }
    uri->path = text;
    status = decode(text, "the path");
    while (status == 0 && query != NULL && *query != '\0') {
        char *rest = cut(query, '&');

        status = add_parameter(uri, query);
        query = rest;
    }
    return status;
}

/* To be freed with free(). */
static int
parse(const char *text, tosc_uri **ret)
{
    size_t length = strlen(text);
    size_t most = 1;
    tosc_uri *uri;
    char *copy;
    int status;

    if (text[strcspn(text, ":")] == '\0' || !is_scheme(text, strcspn(text, ":"))) {
        return no_scheme();
    }
    for (const char *at = text; *at != '\0'; at++) {
        most += *at == '&';
    }
    uri = tosc__sys.malloc(sizeof(*uri) + most * sizeof(uri->parameters[0]) + length + 1);
    if (uri == NULL) {
        return tosc__fail(TOSC_ENOMEM, "not enough memory for the URI");
    }
    *uri = (tosc_uri){.parameters = (struct parameter *)(uri + 1)};
    copy = (char *)(uri->parameters + most);
    memcpy(copy, text, length + 1);
    status = split(uri, copy);
    if (status != 0) {
        free(uri);
        return status;
    }
    *ret = uri;
    return 0;
}

/* ---- for openers ---- */

/* No URI that an opener can get at is const itself. */
static struct notes *
notes_of(const tosc_uri *uri)
{
    return &((tosc_uri *)(uintptr_t)uri)->notes;
}

static void
note_name(const tosc_uri *uri, const char *name)
{
    struct notes *notes = notes_of(uri);
    size_t used = strlen(notes->names);
    size_t length = strlen(name);
    const char *at = notes->names;

    while ((at = strstr(at, name)) != NULL) {
        if ((at == notes->names || at[-1] == ' ')
            && (at[length] == ',' || at[length] == '\0')) {
            return;
        }
        at += length;
    }
    if (used + length + 3 < sizeof(notes->names)) {
        snprintf(notes->names + used, sizeof(notes->names) - used, "%s%s",
                 used > 0 ? ", " : "", name);
    }
}

const char *
tosc_uri_scheme(const tosc_uri *uri)
{
    return uri->scheme;
}

const char *
tosc_uri_authority(const tosc_uri *uri)
{
    notes_of(uri)->authority_asked = true;
    return uri->authority;
}

const char *
tosc_uri_path(const tosc_uri *uri)
{
    return uri->path;
}

const char *
tosc_uri_parameter(const tosc_uri *uri, const char *name)
{
    note_name(uri, name);
    for (size_t i = 0; i < uri->count; i++) {
        if (strcmp(uri->parameters[i].name, name) == 0) {
            uri->parameters[i].asked = true;
            return uri->parameters[i].value;
        }
    }
    return NULL;
}

int
tosc_uri_int(const tosc_uri *uri, const char *name, int *ret)
{
    const char *value = tosc_uri_parameter(uri, name);
    char *end;
    long number;

    if (value == NULL) {
        return 0;
    }
    errno = 0;
    number = strtol(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0
        || number > INT_MAX) {
        return tosc__fail(TOSC_EINVAL,
                          "parameter \"%s\" of the URI has to be a whole number from 0 "
                          "to %d",
                          name, INT_MAX);
    }
    *ret = (int)number;
    return 0;
}

int
tosc_uri_bool(const tosc_uri *uri, const char *name, bool *ret)
{
    static const char *const words[] = {"0", "1", "no", "yes", "false", "true"};
    const char *value = tosc_uri_parameter(uri, name);

    if (value == NULL) {
        return 0;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(value, words[i]) == 0) {
            *ret = i % 2 != 0;
            return 0;
        }
    }
    return tosc__fail(TOSC_EINVAL,
                      "parameter \"%s\" of the URI has to be 0 or 1 (or no, yes, false, "
                      "true)",
                      name);
}

int
tosc_uri_check(const tosc_uri *uri)
{
    const char *authority = uri->authority != NULL ? uri->authority : "";

    if (authority[0] != '\0' && !uri->notes.authority_asked) {
        return tosc__fail(
            TOSC_EINVAL,
            "%s: URIs have no host, and the text after \"//\" is one; write "
            "\"%s:\" without the slashes, or \"%s:///\" before a path",
            uri->scheme, uri->scheme, uri->scheme);
    }
    for (size_t i = 0; i < uri->count; i++) {
        if (!uri->parameters[i].asked) {
            bool none = uri->notes.names[0] == '\0';

            return tosc__fail(
                TOSC_EINVAL,
                "unknown parameter \"%.64s\" for the scheme %s; it knows %s%s",
                uri->parameters[i].name, uri->scheme, none ? "none" : uri->notes.names,
                strlen(uri->notes.names) > sizeof(uri->notes.names) - 64 ? " …" : "");
        }
    }
    return 0;
}

/* ---- the schemes of our own ---- */

static int
open_inproc(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    int status = tosc_uri_check(uri);

    (void)arg;
    if (status == 0 && uri->path[0] == '\0') {
        status = tosc__fail(TOSC_EINVAL, "an inproc: URI needs a name: \"inproc:NAME\"");
    }
    return status != 0 ? status : tosc_backend_inproc_named(uri->path, ret);
}

static int
open_file(const tosc_uri *uri, void *arg, tosc_backend **ret)
{
    tosc_file_options options = {.lock_path = tosc_uri_parameter(uri, "lock")};
    bool durable = true;
    int status = tosc_uri_bool(uri, "durable", &durable);

    (void)arg;
    if (status == 0) {
        status = tosc_uri_bool(uri, "shared_by_hosts", &options.shared_by_hosts);
    }
    if (status == 0) {
        status = tosc_uri_int(uri, "poll_ms", &options.poll_ms);
    }
    if (status == 0) {
        status = tosc_uri_check(uri);
    }
    if (status == 0 && uri->path[0] == '\0') {
        status = tosc__fail(TOSC_EINVAL, "a file: URI needs a path: \"file:/path\"");
    }
    options.not_durable = !durable;
    return status != 0 ? status : tosc_backend_file_new(uri->path, &options, ret);
}

/* ---- registering and opening ---- */

int
tosc_backend_register(const char *name, tosc_backend_opener open, void *arg)
{
    struct scheme *added;
    bool taken;

    if (name == NULL || open == NULL || !is_scheme(name, strlen(name))) {
        return tosc__fail(TOSC_EINVAL, "a scheme has a function, and a name of letters, "
                                       "digits, \"+\", \"-\", \".\" that begins with a "
                                       "letter");
    }
    added = tosc__sys.malloc(sizeof(*added) + strlen(name) + 1);
    if (added == NULL) {
        return tosc__fail(TOSC_ENOMEM, "not enough memory for a scheme");
    }
    *added = (struct scheme){.open = open, .arg = arg, .name = (char *)(added + 1)};
    for (size_t i = 0; i <= strlen(name); i++) {
        ((char *)(added + 1))[i] = (char)tolower((unsigned char)name[i]);
    }
    lock_schemes();
    taken = find_scheme(added->name) != NULL;
    if (!taken) {
        added->next = schemes;
        schemes = added;
    }
    pthread_mutex_unlock(&mutex);
    if (taken) {
        free(added);
        return tosc__fail(TOSC_EINVAL, "the scheme \"%s\" is registered already", name);
    }
    return 0;
}

static int
open_by(const tosc_uri *uri, tosc_backend **ret)
{
    const struct scheme *scheme;
    tosc_backend *backend = NULL;
    int status;

    lock_schemes();
    scheme = find_scheme(uri->scheme);
    pthread_mutex_unlock(&mutex);
    if (scheme == NULL) {
        char known[256];

        list_schemes(known, sizeof(known));
        return tosc__fail(TOSC_EINVAL,
                          "unknown scheme \"%.64s\" of a store's URI; known "
                          "are %s",
                          uri->scheme, known);
    }
    status = scheme->open(uri, scheme->arg, &backend);
    if (status != 0) {
        return status;
    }
    status = tosc_uri_check(uri);
    if (status != 0) {
        tosc_backend_unref(backend);
        return status;
    }
    *ret = backend;
    return 0;
}

int
tosc_backend_open(const char *uri, tosc_backend **ret)
{
    tosc_uri *parsed = NULL;
    int status;

    if (uri == NULL || ret == NULL) {
        return tosc__fail(TOSC_EINVAL, "no URI, or no place for the backend");
    }
    status = parse(uri, &parsed);
    if (status == 0) {
        status = open_by(parsed, ret);
        free(parsed);
    }
    return status;
}
