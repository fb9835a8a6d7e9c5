/*
 * tosc-check-backend: checks any backend against the contract of <tosc/sys/backend.h>.
 *
 * Each test runs in a process of its own, over a store of its own, so that neither a crash
 * nor a hang of the backend ends more than one test. This process never touches the
 * backend: it forks, waits, and writes a line of TAP for each test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/check_backend.h"

enum { EXIT_FAILED = 1, EXIT_TROUBLE = 2 };

#define ONLY_MAX 32
#define WORKER_OPTION "--as-worker"

static const struct test *const all_tests[] = {store_tests, wait_tests, race_tests,
                                               tail_tests, lock_tests};

static const char *only[ONLY_MAX];
static int only_count;

static void
usage(FILE *to)
{
    fputs(
        "Usage: tosc-check-backend [OPTION]… URI\n"
        "       tosc-check-backend [OPTION]… --plugin FILE URI\n"
        "       tosc-check-backend [OPTION]… --python MODULE:FACTORY [ARGUMENT]…\n"
        "\n"
        "Checks a backend of libtosc against its contract, and writes TAP. \"{}\" in the "
        "URI\n"
        "or the arguments is replaced by a number, another one for each test's store.\n"
        "\n"
        "  --plugin FILE    load this shared object, which registers the URI's scheme\n"
        "  --python M:F     the backend is what function F of Python's module M returns\n"
        "  --in-process     other processes cannot reach the same store\n"
        "  --private        nor can another backend object in the same process\n"
        "  --list           list the tests, and run none\n"
        "  --only PATTERN   run only tests with such names (may be given several times)\n"
        "  --seconds N      time limit of each test (60)\n"
        "  --help, --version\n"
        "\n"
        "Exit status: 0 all passed (or were skipped), 1 one failed, 2 nothing could be "
        "checked.\n",
        to);
}

static int
trouble(const char *format, const char *what)
{
    fputs("tosc-check-backend: ", stderr);
    fprintf(stderr, format, what);
    fputs("\n", stderr);
    return EXIT_TROUBLE;
}

/* ---- choosing tests ---- */

static bool
is_chosen(const struct test *test)
{
    for (int i = 0; i < only_count; i++) {
        if (fnmatch(only[i], test->name, 0) == 0 || strstr(test->name, only[i]) != NULL) {
            return true;
        }
    }
    return only_count == 0;
}

/* Calls `visit` for each chosen test. */
static void
each_test(void (*visit)(const struct test *test))
{
    for (size_t group = 0; group < sizeof(all_tests) / sizeof(all_tests[0]); group++) {
        for (const struct test *test = all_tests[group]; test->name != NULL; test++) {
            if (is_chosen(test)) {
                visit(test);
            }
        }
    }
}

static const struct test *
find_test(const char *name)
{
    for (size_t group = 0; group < sizeof(all_tests) / sizeof(all_tests[0]); group++) {
        for (const struct test *test = all_tests[group]; test->name != NULL; test++) {
            if (strcmp(test->name, name) == 0) {
                return test;
            }
        }
    }
    return NULL;
}

static void
list_test(const struct test *test)
{
    printf("%-24s %s\n", test->name, test->says);
}

static int planned;

static void
count_test(const struct test *test)
{
    (void)test;
    planned++;
}

/* ---- running ---- */

static struct {
    int64_t number; /* of the next store */
    unsigned ops;   /* what the backend has */
    int done;
    int passed;
    int failed;
    int skipped;
} tally;

/* A test's process has not left a verdict. */
static void
judge_end(struct report *report, int status, bool in_time)
{
    if (!in_time) {
        snprintf(report->text, sizeof(report->text),
                 "did not end within %d s; the operation last begun is %s",
                 subject.seconds, step_name(report));
    } else if (WIFSIGNALED(status)) {
        snprintf(
            report->text, sizeof(report->text),
            "the process was ended by signal %d (%s); the operation last begun is %s",
            WTERMSIG(status), strsignal(WTERMSIG(status)), step_name(report));
    } else if (WEXITSTATUS(status) != 0) {
        snprintf(report->text, sizeof(report->text),
                 "the process ended with status %d; the operation last begun is %s",
                 WEXITSTATUS(status), step_name(report));
    } else {
        return;
    }
    report->verdict = FAILED;
}

/* Runs a test (NULL: only opens the backend) in a process of its own. */
static bool
run_in_process(const struct test *test, struct report *ret)
{
    int fd = memfd_create("tosc-check-backend", 0);
    void *memory = MAP_FAILED;
    double end = seconds() + subject.seconds;
    int64_t number = tally.number++;
    bool in_time = true;
    int status = 0;
    pid_t process;

    if (fd >= 0 && ftruncate(fd, (off_t)memory_size()) == 0) {
        memory = mmap(NULL, memory_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    fflush(NULL);
    process = memory != MAP_FAILED ? fork() : -1;
    if (process == 0) {
        run_test(test, number, fd);
    }
    if (process < 0) {
        perror("tosc-check-backend: cannot run a test");
        exit(EXIT_TROUBLE);
    }
    while (waitpid(process, &status, WNOHANG) == 0) {
        in_time = seconds() < end;
        if (!in_time) {
            kill(process, SIGKILL); /* and its workers die with it */
            waitpid(process, &status, 0);
            break;
        }
        sleep_us(2000);
    }
    memcpy(ret, memory, sizeof(*ret));
    munmap(memory, memory_size());
    close(fd);
    if (ret->verdict == PASSED) {
        judge_end(ret, status, in_time);
    }
    return ret->verdict == PASSED;
}

/* Why the test does not concern this backend; NULL: it does. */
static const char *
reason_to_skip(const struct test *test)
{
    static char reason[100];
    unsigned missing = (test->needs | OPS_REQUIRED) & ~tally.ops;

    if (strcmp(test->name, "table") == 0) {
        return NULL;
    }
    if (missing != 0) {
        snprintf(reason, sizeof(reason), "the backend has no %s",
                 op_names[__builtin_ctz(missing)]);
        return reason;
    }
    if (test->place == PROCESSES && subject.reach < REACH_HOST) {
        return "other processes cannot reach the store";
    }
    if (test->place == OBJECTS && subject.reach < REACH_PROCESS) {
        return "other backend objects cannot reach the store";
    }
    return NULL;
}

/* A line, or several, that begin with "# ". */
static void
print_comment(const char *text)
{
    while (*text != '\0') {
        int length = (int)strcspn(text, "\n");

        printf("# %.*s\n", length, text);
        text += length + (text[length] == '\n');
    }
}

static void
check(const struct test *test)
{
    const char *reason = reason_to_skip(test);
    struct report report = {.verdict = SKIPPED};

    if (reason == NULL) {
        run_in_process(test, &report);
        reason = report.text;
    }
    printf("%s %d - %s: %s%s%s\n", report.verdict == FAILED ? "not ok" : "ok",
           ++tally.done, test->name, test->says,
           report.verdict == SKIPPED ? " # SKIP " : "",
           report.verdict == SKIPPED ? reason : "");
    if (report.verdict == FAILED) {
        print_comment(report.text);
    }
    print_comment(report.note);
    tally.passed += report.verdict == PASSED;
    tally.failed += report.verdict == FAILED;
    tally.skipped += report.verdict == SKIPPED;
}

static int
check_all(void)
{
    struct timespec now;
    struct report report;

    clock_gettime(CLOCK_REALTIME, &now);
    tally.number = ((int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000) * 1000;
    each_test(count_test);
    if (planned == 0) {
        return trouble("no test has such a name: %s", only[0]);
    }
    if (!run_in_process(NULL, &report)) {
        puts("Bail out! The backend cannot be opened.");
        return trouble("%s", report.text);
    }
    tally.ops = report.ops;
    printf("1..%d\n", planned);
    each_test(check);
    printf("# %d passed, %d failed, %d skipped\n", tally.passed, tally.failed,
           tally.skipped);
    return tally.failed == 0 ? 0 : EXIT_FAILED;
}

/* ---- the command line ---- */

/* "{}" in one of them? */
static bool
has_place_for_number(void)
{
    bool found = subject.uri != NULL && strstr(subject.uri, "{}") != NULL;

    for (int i = 0; i < subject.argument_count && !found; i++) {
        found = strstr(subject.arguments[i], "{}") != NULL;
    }
    return found;
}

/* What was given must say which backend, and where its stores are. */
static int
check_subject(int count, char **arguments)
{
    if (subject.python != NULL) {
        const char *colon = strchr(subject.python, ':');

        subject.arguments = arguments;
        subject.argument_count = count;
        if (subject.plugin != NULL) {
            return trouble("%s", "--plugin and --python exclude each other");
        }
        if (colon == NULL || colon == subject.python || colon[1] == '\0') {
            return trouble("--python needs \"MODULE:FACTORY\", not \"%s\"",
                           subject.python);
        }
    } else if (count != 1) {
        return trouble("%s", count == 0 ? "which backend? See --help"
                                        : "there is more than one URI; see --help");
    } else {
        subject.uri = arguments[0];
        if (strncasecmp(subject.uri, "inproc:", 7) == 0 && subject.reach == REACH_HOST) {
            subject.reach = REACH_PROCESS;
        }
    }
    if (!has_place_for_number()
        && (subject.uri != NULL || subject.reach != REACH_OBJECT)) {
        return trouble("%s needs \"{}\" in it: each test starts with a store of its own",
                       subject.uri != NULL ? "the URI"
                                           : "an argument of the factory (or --private)");
    }
    return 0;
}

/* 0, or the exit status plus one. */
static int
parse_options(int argc, char **argv)
{
    enum {
        PLUGIN = 256,
        PYTHON,
        IN_PROCESS,
        PRIVATE,
        LIST,
        ONLY,
        SECONDS,
        HELP,
        VERSION_
    };
    static const struct option options[] = {{"plugin", required_argument, NULL, PLUGIN},
                                            {"python", required_argument, NULL, PYTHON},
                                            {"in-process", no_argument, NULL, IN_PROCESS},
                                            {"private", no_argument, NULL, PRIVATE},
                                            {"list", no_argument, NULL, LIST},
                                            {"only", required_argument, NULL, ONLY},
                                            {"seconds", required_argument, NULL, SECONDS},
                                            {"help", no_argument, NULL, HELP},
                                            {"version", no_argument, NULL, VERSION_},
                                            {NULL, 0, NULL, 0}};
    bool list = false;
    int option;

    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        switch (option) {
        case PLUGIN:
            subject.plugin = optarg;
            break;
        case PYTHON:
            subject.python = optarg;
            break;
        case IN_PROCESS:
            subject.reach = subject.reach == REACH_HOST ? REACH_PROCESS : subject.reach;
            break;
        case PRIVATE:
            subject.reach = REACH_OBJECT;
            break;
        case LIST:
            list = true;
            break;
        case ONLY:
            if (only_count == ONLY_MAX) {
                return 1 + trouble("%s", "too many --only");
            }
            only[only_count++] = optarg;
            break;
        case SECONDS:
            subject.seconds = atoi(optarg);
            if (subject.seconds <= 0) {
                return 1 + trouble("--seconds needs a number, not \"%s\"", optarg);
            }
            break;
        case HELP:
            usage(stdout);
            return 1;
        case VERSION_:
            puts("tosc-check-backend (libtosc) " PACKAGE_VERSION);
            return 1;
        default:
            return 1 + EXIT_TROUBLE;
        }
    }
    if (list) {
        each_test(list_test);
        return 1;
    }
    return 0;
}

/* This is a worker of a test: argv[2] says which. */
static int
be_worker(const char *what)
{
    char name[64];
    long long number;
    int fd;
    int index;
    int role;
    const struct test *test;

    if (sscanf(what, "%63[^,],%lld,%d,%d,%d", name, &number, &fd, &index, &role) != 5) {
        return EXIT_TROUBLE;
    }
    test = find_test(name);
    if (test == NULL) {
        return EXIT_TROUBLE;
    }
    run_worker(test, number, fd, index, role);
}

int
main(int argc, char **argv)
{
    bool worker = argc > 2 && strcmp(argv[1], WORKER_OPTION) == 0;
    int status;

    subject = (struct subject){.reach = REACH_HOST, .seconds = 60};
    if (worker) {
        char *what = argv[2];

        argv[2] = argv[0];
        status = parse_options(argc - 2, argv + 2);
        if (status == 0) {
            status = check_subject(argc - 2 - optind, argv + 2 + optind);
        }
        return status != 0 ? EXIT_TROUBLE : be_worker(what);
    }
    set_command(argv, WORKER_OPTION);
    setvbuf(stdout, NULL, _IOLBF, 0);
    status = parse_options(argc, argv);
    if (status != 0) {
        return status - 1;
    }
    status = check_subject(argc - optind, argv + optind);
    return status != 0 ? status : check_all();
}
