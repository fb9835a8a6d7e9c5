/*
 * What transactions cost a C program, beside the same in Python: an empty one, a commit
 * of one key in memory and in a file in memory (/dev/shm), an increment by
 * tosc_transact().
 *
 * Both are measured in this process, in turn, in blocks; the medians of the blocks are
 * told, and the medians of the ratios of neighbours. C runs in a scope, as Python code
 * does anyway.
 *
 *     host_transact [blocks]
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <tosc/tosc.h>

#define MOST_BLOCKS 101

static int blocks = 31;
static tosc_manager *manager;
static tosc_value *root;

/* ---- helpers ---- */

static void
must(int status)
{
    if (status < 0) {
        fprintf(stderr, "host_transact: %s: %s\n%s", tosc_status_name(status),
                tosc_error_message(), tosc_error_traceback());
        exit(1);
    }
}

static double
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double
median(const double *values, int count)
{
    double sorted[MOST_BLOCKS];
    memcpy(sorted, values, (size_t)count * sizeof(*values));
    qsort(sorted, (size_t)count, sizeof(*sorted), compare);
    return sorted[count / 2];
}

/* ---- in C ---- */

static void
c_empty(int times)
{
    for (int i = 0; i < times; i++) {
        tosc_transaction *tx;
        must(tosc_transaction_begin(manager, &tx));
        must(tosc_transaction_commit(tx));
    }
}

static void
c_one_key(int times)
{
    for (int i = 0; i < times; i++) {
        tosc_transaction *tx;
        must(tosc_transaction_begin(manager, &tx));
        must(tosc_set_int64(root, tosc_key("n"), i));
        must(tosc_transaction_commit(tx));
    }
}

static int
increment(tosc_manager *of, tosc_value *data, void *arg)
{
    int64_t n;
    (void)of;
    (void)arg;
    int status = tosc_get_int64(data, tosc_key("n"), &n);
    return status < 0 ? status : tosc_set_int64(data, tosc_key("n"), n + 1);
}

static void
c_transact(int times)
{
    for (int i = 0; i < times; i++) {
        must(tosc_transact(manager, increment, NULL, NULL));
    }
}

static int
nothing(tosc_manager *of, tosc_value *data, void *arg)
{
    (void)of;
    (void)data;
    (void)arg;
    return 0;
}

static void
c_transact_empty(int times)
{
    for (int i = 0; i < times; i++) {
        must(tosc_transact(manager, nothing, NULL, NULL));
    }
}

/* ---- in Python ---- */

static const char python_source[] = "import tosc\n"
                                    "m = tosc.shared('m')\n"
                                    "data = m.read()\n"
                                    "def empty(times):\n"
                                    "    for i in range(times):\n"
                                    "        with m.transaction():\n"
                                    "            pass\n"
                                    "def one_key(times):\n"
                                    "    for i in range(times):\n"
                                    "        with m.transaction():\n"
                                    "            data['n'] = i\n"
                                    "@tosc.transactional(m)\n"
                                    "def increment(data):\n"
                                    "    data['n'] += 1\n"
                                    "def transact(times):\n"
                                    "    for i in range(times):\n"
                                    "        increment(data)\n"
                                    "@tosc.transactional(m)\n"
                                    "def nothing(data):\n"
                                    "    pass\n"
                                    "def transact_empty(times):\n"
                                    "    for i in range(times):\n"
                                    "        nothing(data)\n";

static void
python(const char *name, int times)
{
    char function[64];
    tosc_value *count;
    snprintf(function, sizeof(function), "__main__:%s", name);
    must(tosc_value_new_int64(times, &count));
    tosc_value *const values[] = {count};
    const tosc_arguments arguments = {values, 1, NULL};
    must(tosc_host_call(function, &arguments, NULL));
    tosc_value_unref(count);
}

/* ---- measuring ---- */

static void
compare_both(const char *what, void (*in_c)(int), const char *in_python, int times)
{
    double c[MOST_BLOCKS];
    double py[MOST_BLOCKS];
    double ratios[MOST_BLOCKS];
    in_c(times);
    python(in_python, times);
    for (int i = 0; i < blocks; i++) {
        double start = now_ns();
        in_c(times);
        double middle = now_ns();
        python(in_python, times);
        c[i] = (middle - start) / times;
        py[i] = (now_ns() - middle) / times;
        ratios[i] = c[i] / py[i];
    }
    printf("%-44s %9.0f ns %9.0f ns   %.2f\n", what, median(c, blocks),
           median(py, blocks), median(ratios, blocks));
}

static void
measure(const char *uri, const char *where, bool all)
{
    char what[100];
    tosc_scope scope;
    tosc_value *value;
    must(tosc_manager_open(uri, NULL, &manager));
    must(tosc_value_new_json("{\"n\": 0}", TOSC_TEXT_END, &value));
    must(tosc_manager_write(manager, value));
    tosc_value_unref(value);
    must(tosc_manager_read(manager, &root));
    must(tosc_host_publish("m", manager));
    must(tosc_host_run_string(python_source, "bench"));
    if (all) {
        compare_both("empty transaction, entering each time", c_empty, "empty", 2000);
    }
    must(tosc_scope_enter(&scope));
    if (all) {
        compare_both("empty transaction, in a scope", c_empty, "empty", 5000);
        compare_both("empty function by transact", c_transact_empty, "transact_empty",
                     5000);
    }
    snprintf(what, sizeof(what), "commit of one key, %s", where);
    compare_both(what, c_one_key, "one_key", 500);
    snprintf(what, sizeof(what), "increment by transact, %s", where);
    compare_both(what, c_transact, "transact", 500);
    must(tosc_scope_leave(&scope));
    tosc_value_unref(root);
    must(tosc_host_run_string("del m, data, increment, nothing", "bench"));
    must(tosc_host_publish("m", NULL));
    must(tosc_manager_close(manager));
    tosc_manager_unref(manager);
}

int
main(int argc, char **argv)
{
    char uri[100];
    if (argc > 1) {
        blocks = atoi(argv[1]);
        blocks = blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks;
    }
    must(tosc_host_start(NULL));
    printf("%-44s %12s %12s   %s\n", "", "C", "Python", "ratio");
    measure("inproc:bench", "in memory", true);
    snprintf(uri, sizeof(uri), "file:/dev/shm/tosc-bench-%d", (int)getpid());
    measure(uri, "file in /dev/shm", false);
    unlink(uri + strlen("file:"));
    strcat(uri, ".lock");
    unlink(uri + strlen("file:"));
    must(tosc_host_stop());
    return 0;
}
