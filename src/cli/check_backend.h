/*
 * tosc-check-backend: what its files share. tosc-check-backend.c (command line, TAP, a
 * process for each test), check_backend_open.c (reaching the backend), check_backend_run.c
 * (verdicts, workers, payloads), and the tests: check_backend_store.c, …_wait.c, …_race.c,
 * …_tail.c, …_lock.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_CLI_CHECK_BACKEND_H
#define TOSC_CLI_CHECK_BACKEND_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <tosc/backend.h>

/* ---- what is checked: the command line ---- */

/* How far the same store can be reached. */
enum reach {
    REACH_OBJECT,  /* only through one backend object */
    REACH_PROCESS, /* through several, in one process */
    REACH_HOST     /* from several processes */
};

struct subject {
    const char *plugin; /* NULL: none */
    const char *python; /* "module:factory"; NULL: a URI */
    const char *uri;
    char **arguments; /* of the factory */
    int argument_count;
    enum reach reach;
    int seconds; /* limit of one test */
};

extern struct subject subject;

/* Loads the plugin, or starts Python; once in a process. 0, or -1 with a message. */
int subject_prepare(void);

/* A new backend object over store `number`. 0, or a status with a message. */
int subject_open(int64_t number, tosc_backend **ret);

/* Whether `stop` and signals end wait() of this backend. Those in Python cannot all. */
bool subject_wait_heeds_event(const tosc_backend *b);
bool subject_wait_heeds_signals(const tosc_backend *b);

/* ---- tests ---- */

enum op {
    OP_READ = 1 << 0,
    OP_WRITE = 1 << 1,
    OP_TRY_WRITE = 1 << 2,
    OP_WAIT = 1 << 3,
    OP_APPEND = 1 << 4,
    OP_READ_SINCE = 1 << 5,
    OP_CHANGED = 1 << 6,
    OP_COMPACT = 1 << 7,
    OP_LOCK = 1 << 8,
    OP_UNLOCK = 1 << 9,
    OPS_REQUIRED = OP_READ | OP_WRITE | OP_TRY_WRITE | OP_WAIT
};
#define OPS_COUNT 10
extern const char *const op_names[OPS_COUNT]; /* by bit */

/* The operations that a backend has, as bits. */
unsigned ops_of(const tosc_backend *b);

/* Where a test's workers are. */
enum place {
    ALONE,    /* there are none */
    THREADS,  /* threads, all with the test's backend object */
    OBJECTS,  /* threads, each with a backend object of its own */
    PROCESSES /* processes */
};

struct worker;

struct test {
    const char *name; /* "append.position" */
    const char *says; /* a sentence */
    void (*body)(tosc_backend *b);
    unsigned needs; /* optional operations, as bits */
    enum place place;
    void (*work)(struct worker *worker);
};

/* Ended by one without a name. */
extern const struct test store_tests[];
extern const struct test wait_tests[];
extern const struct test race_tests[];
extern const struct test tail_tests[];
extern const struct test lock_tests[];

/* ---- verdicts: all end the process, except a note ---- */

enum verdict { PASSED, FAILED, SKIPPED };

/* What a test leaves for the program, in memory that they share with its workers. */
struct report {
    int verdict; /* atomic; enum verdict */
    int step;    /* atomic; the operation last begun, as a bit */
    unsigned ops;
    char text[1500];
    char note[500];
};

const char *step_name(const struct report *report);

#define PRINTF(a, b) __attribute__((format(printf, a, b)))

void fail(const char *format, ...) PRINTF(1, 2) __attribute__((noreturn));
void skip(const char *format, ...) PRINTF(1, 2) __attribute__((noreturn));
/* Printed whatever the verdict is. */
void note(const char *format, ...) PRINTF(1, 2);

/* `what` says what was called, as in "try_write at the version just read". */
void expect(bool condition, const char *format, ...) PRINTF(2, 3);
void expect_ok(int status, const char *what, ...) PRINTF(2, 3);
void expect_status(int expected, int status, const char *what, ...) PRINTF(3, 4);

/* ---- the operations, shorter; each notes that it has begun ---- */

/* For calls that the functions below do not make: notes this one, and gives the table. */
const struct tosc_backend_ops *begin(const tosc_backend *b, enum op op);

int do_read(tosc_backend *b, tosc_data *ret);
int do_write(tosc_backend *b, const char *text, tosc_position *ret);
int do_write_bytes(tosc_backend *b, const void *bytes, size_t size, tosc_position *ret);
/* At position `at`, which becomes the new one. */
int do_try_write(tosc_backend *b, const void *bytes, size_t size, tosc_position *at);
int do_wait(tosc_backend *b, const tosc_position *known, int64_t timeout_ms,
            const tosc_event *stop, bool *ret_changed);
/* The same as try_write. `ret` may be NULL. */
int do_append(tosc_backend *b, const void *bytes, size_t size, tosc_position *at,
              tosc_data *ret);
int do_append_text(tosc_backend *b, const char *text, tosc_position *at);
int do_read_since(tosc_backend *b, const tosc_position *known, tosc_data *ret);
int do_changed(tosc_backend *b, const tosc_position *known);
int do_compact(tosc_backend *b, const void *bytes, size_t size, const tosc_position *of,
               tosc_data *ret);
int do_lock(tosc_backend *b, const void *holder, int64_t timeout_ms);
int do_unlock(tosc_backend *b, const void *holder);

bool same_position(const tosc_position *a, const tosc_position *b);
bool has_id(const tosc_position *at);

/* Fails unless the store holds this at `at` (NULL: nothing). */
void expect_holds(tosc_backend *b, const char *text, const tosc_position *at,
                  const char *when);
void expect_bytes(const tosc_data *data, const void *bytes, size_t size,
                  const char *where);
tosc_position position_now(tosc_backend *b);

/* ---- workers ---- */

#define WORKERS_MAX 8
#define SHARED_SIZE ((size_t)4 << 20)

struct worker {
    tosc_backend *b;
    int index;
    int role;
};

/* Zeroed memory that the test and all its workers see. */
void *shared(void);

/* Starts another worker of the running test, at its place (with test->work). */
void worker_start(int role);
/* Waits until all workers have ended; one that failed has ended the test. */
void workers_join(void);
/* Kills worker `index`, a process. */
void worker_kill(int index);
/* Sleeps for so many seconds, or until all workers have ended. */
void workers_let_work(double most);
/* Ends the test if a worker has failed. */
void workers_check(void);
/* Waits until *flag is `value`, unless a worker fails. */
void await(const int *flag, int value);

static inline void
flag_set(int *flag, int value)
{
    __atomic_store_n(flag, value, __ATOMIC_RELEASE);
}

static inline int
flag_get(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

/* A second object over the running test's store. */
tosc_backend *open_another(void);

/* ---- small things ---- */

double seconds(void);
void sleep_us(long us);
/* Between two looks at a flag: mostly at once, now and then after a short sleep. */
void look_again(void);
uint64_t random_number(void);

/* Runs the worker or the test of this process; do not return. */
void run_test(const struct test *test, int64_t number, int memory_fd)
    __attribute__((noreturn));
void run_worker(const struct test *test, int64_t number, int memory_fd, int index,
                int role) __attribute__((noreturn));
/* How to start a worker's process: what goes before the program's own arguments. */
void set_command(char **argv, const char *worker_option);

size_t memory_size(void);

#endif
