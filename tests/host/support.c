/*
 * Helpers of the tests of the C interface.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
support_ok(int status, const char *call, const char *file, int line)
{
    if (status < 0) {
        ck_abort_msg("%s:%d: %s returned %s: %s\n%s", file, line, call,
                     tosc_status_name(status), tosc_error_message(),
                     tosc_error_traceback());
    }
}

void
support_gives(int expected, int status, const char *call, const char *file, int line)
{
    if (status != expected) {
        ck_abort_msg("%s:%d: %s returned %d (%s), not %d (%s): %s\n%s", file, line, call,
                     status, tosc_status_name(status), expected,
                     tosc_status_name(expected), tosc_error_message(),
                     tosc_error_traceback());
    }
}

void
support_holds(const char *what, const char *text, const char *words, const char *file,
              int line)
{
    if (strstr(text, words) == NULL) {
        ck_abort_msg("%s:%d: the %s is \"%s\", without \"%s\"", file, line, what, text,
                     words);
    }
}

void
support_is(const char *what, const char *text, const char *wanted, const char *file,
           int line)
{
    if (strcmp(text, wanted) != 0) {
        ck_abort_msg("%s:%d: the %s is \"%s\", not \"%s\"", file, line, what, text,
                     wanted);
    }
}

void
support_failed(const char *condition, const char *file, int line)
{
    ck_abort_msg("%s:%d: not true: %s (the last fault: %s)\n%s", file, line, condition,
                 tosc_error_message(), tosc_error_traceback());
}

/* ---- files ---- */

const char *
store_in(const char *name)
{
    char *uri = next_path();

    snprintf(uri, PATH_ROOM, "file:%s/%s?durable=0", directory(), name);
    return uri;
}

const char *
script(const char *name, const char *text)
{
    const char *path = path_in(name);
    FILE *file = fopen(path, "we");

    must(file != NULL);
    must(fputs(text, file) >= 0);
    must(fclose(file) == 0);
    return path;
}

char *
text_of(const char *name)
{
    char *text = NULL;
    size_t size = 0;
    int c;
    FILE *in = fopen(path_in(name), "re");

    if (in == NULL) {
        return NULL;
    }
    FILE *out = open_memstream(&text, &size);
    must(out != NULL);
    while ((c = getc(in)) != EOF) {
        putc(c, out);
    }
    fclose(in);
    fclose(out);
    return text;
}

/* ---- Python ---- */

void
host_start(void)
{
    const tosc_host_options options = {.executable = tosc_run_path()};

    ok(tosc_host_start(&options));
}

void
host_stop(void)
{
    ok(tosc_host_stop());
    must(!tosc_host_is_running());
}

void
support_python(const char *source, const char *file, int line)
{
    support_ok(tosc_host_run_string(source, "test"), source, file, line);
}

static tosc_value *
evaluate(const char *expression)
{
    tosc_value *value = NULL;

    support_ok(tosc_host_eval(expression, &value), expression, __FILE__, __LINE__);
    return value;
}

int64_t
python_int(const char *expression)
{
    int64_t result = 0;
    tosc_value *value = evaluate(expression);

    support_ok(tosc_get_int64(value, tosc_self(), &result), expression, __FILE__,
               __LINE__);
    tosc_value_unref(value);
    return result;
}

bool
python_true(const char *expression)
{
    char *text = NULL;
    must(asprintf(&text, "int(bool(%s))", expression) > 0);
    bool result = python_int(text) != 0;

    free(text);
    return result;
}

char *
python_text(const char *expression)
{
    char *source = NULL;
    char *result = NULL;
    must(asprintf(&source, "str(%s)", expression) > 0);
    tosc_value *value = evaluate(source);

    ok(tosc_get_text(value, tosc_self(), &result, NULL));
    tosc_value_unref(value);
    free(source);
    return result;
}

const char *
tosc_run_path(void)
{
    const char *path = getenv("TOSC_RUN");

    if (path == NULL) {
        ck_abort_msg("TOSC_RUN has to be the path of tosc-run");
    }
    return path;
}

pid_t
tosc_run_start(const char *text)
{
    const char *path = tosc_run_path();

    fflush(NULL);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        execl(path, path, "-c", text, (char *)NULL);
        _exit(127);
    }
    return child;
}

int
tosc_run(const char *text)
{
    return child_status(tosc_run_start(text));
}

/* ---- threads, and what this process is ---- */

void
in_threads(int count, void *(*body)(void *), void *argument)
{
    pthread_t threads[64];

    must(count <= 64);
    for (int i = 0; i < count; i++) {
        must(pthread_create(&threads[i], NULL, body, argument) == 0);
    }
    for (int i = 0; i < count; i++) {
        void *result;
        must(pthread_join(threads[i], &result) == 0);
        must(result == NULL);
    }
}

int64_t
resident_bytes(void)
{
    long size = 0;
    long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    must(file != NULL);
    must(fscanf(file, "%ld %ld", &size, &resident) == 2);
    fclose(file);
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

bool
sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}
