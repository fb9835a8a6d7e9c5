/*
 * What reading and changing values from C costs, beside the same in Python.
 *
 *     host_values [--quick]
 *
 * Each line is one work: nanoseconds per call from C, nanoseconds of the same statement in a
 * Python loop in the same process (less the empty loop), and their ratio: below 1, C is the
 * quicker. They take turns in rounds, and medians are printed, so that other load on the
 * machine hits both.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tosc/host.h>

#define ROUNDS 9

static int calls = 200000; /* in a round */
static tosc_value *root;
static tosc_value *list;
static tosc_value *key;
static tosc_manager *manager;
static volatile int64_t sink;

static double
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double
median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_size);
    return values[count / 2];
}

static void
check(int status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "host_values: %s: %s: %s\n%s", what, tosc_status_name(status),
                tosc_error_message(), tosc_error_traceback());
        exit(1);
    }
}

#define CHECK(call) check((call), #call)

/* ---- the works: `calls` times each ---- */

#define READ(name, type, call) \
    static void name(void) \
    { \
        type out = 0; \
        for (int i = 0; i < calls; i++) { \
            CHECK(call); \
            sink = (int64_t)out; \
        } \
    }

READ(by_key, int64_t, tosc_get_int64(root, tosc_key("hits"), &out))
READ(by_index, int64_t, tosc_get_int64(list, tosc_index(1), &out))
READ(by_item, int64_t, tosc_get_int64(root, tosc_item(key), &out))
READ(by_path, int64_t, tosc_get_int64(root, tosc_path("users/ann/hits"), &out))
READ(by_attribute, int64_t, tosc_get_int64(root, tosc_path("point/x"), &out))
READ(real_by_key, double, tosc_get_double(root, tosc_key("ratio"), &out))
READ(presence, int, (out = tosc_contains(root, tosc_key("nothing"))))

static void
text_by_key(void)
{
    for (int i = 0; i < calls; i++) {
        tosc_scope scope;
        const char *text;
        size_t size;
        CHECK(tosc_scope_enter(&scope));
        CHECK(tosc_borrow_text(root, tosc_key("name"), &text, &size));
        sink = (int64_t)size;
        CHECK(tosc_scope_leave(&scope));
    }
}

static void
owned(void)
{
    for (int i = 0; i < calls; i++) {
        tosc_value *value;
        CHECK(tosc_get(root, tosc_key("users"), &value));
        tosc_value_unref(value);
    }
}

static void
borrowed(void)
{
    for (int i = 0; i < calls; i++) {
        tosc_scope scope;
        tosc_value *value;
        CHECK(tosc_scope_enter(&scope));
        CHECK(tosc_borrow(root, tosc_key("users"), &value));
        CHECK(tosc_scope_leave(&scope));
    }
}

static void
set_by_key(void)
{
    for (int i = 0; i < calls; i++) {
        CHECK(tosc_set_int64(root, tosc_key("hits"), i));
    }
}

static void
add_by_key(void)
{
    for (int i = 0; i < calls; i++) {
        CHECK(tosc_add_int64(root, tosc_key("hits"), 1, NULL));
    }
}

/* A dict of a thousand; the time is that of one element. */
static void
iterate(void)
{
    for (int i = 0; i < calls / 1000; i++) {
        tosc_iterator *iterator;
        tosc_value *item;
        int more;
        CHECK(tosc_iterator_new(root, tosc_key("many"), &iterator));
        while ((more = tosc_iterator_next(iterator, NULL, &item)) > 0) {
            int64_t out;
            CHECK(tosc_get_int64(item, tosc_self(), &out));
            sink = out;
        }
        CHECK(more);
        tosc_iterator_free(iterator);
    }
}

/* ---- beside Python ---- */

enum where { OUTSIDE, SCOPE, TRANSACTION };

static const struct {
    const char *name;
    void (*run)(void);
    const char *statement; /* the same in Python */
    const char *loop;      /* of the Python loop, where it is not the plain one */
    enum where where;
} works[] = {
    {"int by key", by_key, "d['hits']", NULL, SCOPE},
    {"int by index", by_index, "l[1]", NULL, SCOPE},
    {"int by item", by_item, "d[key]", NULL, SCOPE},
    {"int by path of three", by_path, "d['users']['ann']['hits']", NULL, SCOPE},
    {"int attribute by path of two", by_attribute, "d['point'].x", NULL, SCOPE},
    {"double by key", real_by_key, "d['ratio']", NULL, SCOPE},
    {"contains, not there", presence, "'nothing' in d", NULL, SCOPE},
    {"text by key, a scope each", text_by_key, "d['name']", NULL, OUTSIDE},
    {"int by key, no scope", by_key, "d['hits']", NULL, OUTSIDE},
    {"get and unref", owned, "d['users']", NULL, SCOPE},
    {"borrow, a scope each", borrowed, "d['users']", NULL, OUTSIDE},
    {"int by key, in a transaction", by_key, "d['hits']", NULL, TRANSACTION},
    {"set int, in a transaction", set_by_key, "d['hits'] = i", NULL, TRANSACTION},
    {"add int, in a transaction", add_by_key, "d['hits'] += 1", NULL, TRANSACTION},
    {"iterate, per element", iterate, "pass", "for i in d['many'].values():", SCOPE},
};

static void
start(void)
{
    tosc_value *value;

    CHECK(tosc_host_start(NULL));
    CHECK(tosc_host_run_string(
        "import tosc, time\n"
        "class Point: pass\n"
        "p = Point()\n"
        "p.x = 1\n"
        "m = tosc.Manager(tosc.InprocBackend())\n"
        "m.write({'hits': 1, 'ratio': 0.5, 'name': 'a name', 'point': p,\n"
        "         'users': {'ann': {'hits': 5}}, 'list': [1, 2, 3],\n"
        "         'many': {f'key{i}': i for i in range(1000)}})\n"
        "d = m.read()\n"
        "l = d['list']\n"
        "key = 'hits'\n"
        "def prepare(statement, loop):\n"
        "    global measured\n"
        "    space = {'d': d, 'l': l, 'key': key, 'now': time.perf_counter_ns}\n"
        "    exec(f'def measured(calls):\\n'\n"
        "         f'  start = now()\\n'\n"
        "         f'  {loop}\\n'\n"
        "         f'    {statement}\\n'\n"
        "         f'  return now() - start\\n', space)\n"
        "    measured = space['measured']\n"
        "def measure(calls): return float(measured(calls))\n",
        "host_values"));
    CHECK(tosc_host_eval("d", &root));
    CHECK(tosc_host_eval("l", &list));
    CHECK(tosc_host_eval("key", &key));
    CHECK(tosc_host_eval("m", &value));
    CHECK(tosc_manager_of(value, &manager));
    tosc_value_unref(value);
}

static void
prepare(const char *statement, const char *loop)
{
    tosc_value *texts[2];
    tosc_arguments arguments = {texts, 2, NULL};

    CHECK(tosc_value_new_text(statement, TOSC_TEXT_END, &texts[0]));
    CHECK(tosc_value_new_text(loop, TOSC_TEXT_END, &texts[1]));
    CHECK(tosc_host_call("__main__:prepare", &arguments, NULL));
    tosc_value_unref(texts[0]);
    tosc_value_unref(texts[1]);
}

/* Nanoseconds of what was prepared. */
static double
python_ns(int64_t count)
{
    tosc_value *number;
    tosc_value *result;
    double ns;

    CHECK(tosc_value_new_int64(count, &number));
    CHECK(
        tosc_host_call("__main__:measure", &(tosc_arguments){&number, 1, NULL}, &result));
    CHECK(tosc_get_double(result, tosc_self(), &ns));
    tosc_value_unref(number);
    tosc_value_unref(result);
    return ns;
}

static double
c_ns(void (*run)(void), enum where where)
{
    tosc_scope scope;
    double begin;

    if (where != OUTSIDE) {
        CHECK(tosc_scope_enter(&scope));
    }
    begin = now_ns();
    run();
    begin = now_ns() - begin;
    if (where != OUTSIDE) {
        CHECK(tosc_scope_leave(&scope));
    }
    return begin;
}

static void
round_of(size_t work, double *ret_c, double *ret_python)
{
    tosc_transaction *transaction;
    const char *loop = works[work].loop;
    bool in_transaction = works[work].where == TRANSACTION;

    if (in_transaction) {
        CHECK(tosc_transaction_begin(manager, &transaction));
    }
    *ret_c = c_ns(works[work].run, works[work].where) / calls;
    if (loop != NULL) {
        prepare(works[work].statement, loop);
        *ret_python = python_ns(0) / 1000;
    } else {
        prepare(works[work].statement, "for i in range(calls):");
        *ret_python = python_ns(calls) / calls;
        prepare("pass", "for i in range(calls):");
        *ret_python -= python_ns(calls) / calls;
    }
    if (in_transaction) {
        CHECK(tosc_transaction_rollback(transaction));
    }
}

int
main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--quick") == 0) {
        calls = 5000;
    }
    start();
    printf("%-34s %10s %12s %8s\n", "", "C, ns", "Python, ns", "ratio");
    for (size_t work = 0; work < sizeof(works) / sizeof(works[0]); work++) {
        double from_c[ROUNDS];
        double from_python[ROUNDS];
        for (int i = 0; i < ROUNDS; i++) {
            round_of(work, &from_c[i], &from_python[i]);
        }
        double c = median(from_c, ROUNDS);
        double python = median(from_python, ROUNDS);
        printf("%-34s %10.1f %12.1f %8.2f\n", works[work].name, c, python, c / python);
    }
    tosc_manager_unref(manager);
    tosc_value_unref(root);
    tosc_value_unref(list);
    tosc_value_unref(key);
    CHECK(tosc_host_stop());
    return 0;
}
