/*
 * tosc-check-backend: the inside of a test's process.
 *
 * A test runs in a process of its own, in a thread (so that signals can be aimed at it, and
 * that a backend in Python meets a thread that Python has not made). Its workers are
 * threads of that process, or processes that this program starts with a hidden option.
 * All of them share one piece of memory: first the report, then room for the test's own
 * data. Whoever finds a fault writes it into the report, if he is the first, and ends his
 * process; a test whose worker has ended that way ends too. The program kills what is left.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cli/check_backend.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"

extern char **environ;

const char *const op_names[OPS_COUNT] = {"read",   "write",      "try_write", "wait",
                                         "append", "read_since", "changed",   "compact",
                                         "lock",   "unlock"};

struct memory {
    struct report report;
    int ended; /* atomic: workers that have done their work */
    _Alignas(64) unsigned char shared[SHARED_SIZE];
};

static struct memory *memory;
static int memory_fd = -1;
static const struct test *current;
static int64_t store_number;
static tosc_backend *own; /* the test's backend object */

static struct {
    char **argv;
    const char *option;
} command;

static struct crew {
    struct worker worker;
    pthread_t thread;
    pid_t process; /* 0: a thread, or has ended */
    bool killed;
} crew[WORKERS_MAX];
static int crew_size;

size_t
memory_size(void)
{
    return sizeof(struct memory);
}

void
set_command(char **argv, const char *worker_option)
{
    command.argv = argv;
    command.option = worker_option;
}

void *
shared(void)
{
    return memory->shared;
}

/* ---- verdicts ---- */

const char *
step_name(const struct report *report)
{
    int step = flag_get(&report->step);

    return step != 0 ? op_names[__builtin_ctz((unsigned)step)] : "no operation";
}

/* The first one counts. Others are its consequence, and give it time to be written. */
static void
end_with(enum verdict verdict, const char *format, va_list arguments)
{
    int none = PASSED;

    if (__atomic_compare_exchange_n(&memory->report.verdict, &none, (int)verdict, false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        vsnprintf(memory->report.text, sizeof(memory->report.text), format, arguments);
    } else {
        sleep_us(100000);
    }
    _exit(0);
}

void
fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end_with(FAILED, format, arguments);
    va_end(arguments);
    _exit(0);
}

void
skip(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end_with(SKIPPED, format, arguments);
    va_end(arguments);
    _exit(0);
}

void
note(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(memory->report.note, sizeof(memory->report.note), format, arguments);
    va_end(arguments);
}

void
expect(bool condition, const char *format, ...)
{
    va_list arguments;

    if (!condition) {
        va_start(arguments, format);
        end_with(FAILED, format, arguments);
        va_end(arguments);
    }
}

static void
check_status(int expected, int status, const char *format, va_list arguments)
{
    char what[300];
    const char *message = status != 0 ? tosc_error_message() : "";

    if (status != expected) {
        vsnprintf(what, sizeof(what), format, arguments);
        what[strlen(what) - (what[strlen(what) - 1] == ',')] = '\0';
        fail("%s: expected %s, got %s%s%s%s", what, tosc_status_name(expected),
             tosc_status_name(status), message[0] != '\0' ? " (" : "", message,
             message[0] != '\0' ? ")" : "");
    }
}

void
expect_ok(int status, const char *what, ...)
{
    va_list arguments;

    va_start(arguments, what);
    check_status(TOSC_OK, status, what, arguments);
    va_end(arguments);
}

void
expect_status(int expected, int status, const char *what, ...)
{
    va_list arguments;

    va_start(arguments, what);
    check_status(expected, status, what, arguments);
    va_end(arguments);
}

/* ---- the operations ---- */

unsigned
ops_of(const tosc_backend *b)
{
    const struct tosc_backend_ops *ops = tosc_backend_ops(b);

    return (ops->read != NULL ? OP_READ : 0) | (ops->write != NULL ? OP_WRITE : 0)
           | (ops->try_write != NULL ? OP_TRY_WRITE : 0)
           | (ops->wait != NULL ? OP_WAIT : 0) | (ops->append != NULL ? OP_APPEND : 0)
           | (ops->read_since != NULL ? OP_READ_SINCE : 0)
           | (ops->changed != NULL ? OP_CHANGED : 0)
           | (ops->compact != NULL ? OP_COMPACT : 0) | (ops->lock != NULL ? OP_LOCK : 0)
           | (ops->unlock != NULL ? OP_UNLOCK : 0);
}

const struct tosc_backend_ops *
begin(const tosc_backend *b, enum op op)
{
    flag_set(&memory->report.step, (int)op);
    return tosc_backend_ops(b);
}

int
do_read(tosc_backend *b, tosc_data *ret)
{
    return begin(b, OP_READ)->read(tosc_backend_impl(b), ret);
}

int
do_write_bytes(tosc_backend *b, const void *bytes, size_t size, tosc_position *ret)
{
    return begin(b, OP_WRITE)->write(tosc_backend_impl(b), NULL, bytes, size, ret);
}

int
do_write(tosc_backend *b, const char *text, tosc_position *ret)
{
    return do_write_bytes(b, text, strlen(text), ret);
}

int
do_try_write(tosc_backend *b, const void *bytes, size_t size, tosc_position *at)
{
    const tosc_position known = *at;

    return begin(b, OP_TRY_WRITE)
        ->try_write(tosc_backend_impl(b), NULL, bytes, size,
                    known.stored ? &known.version : NULL,
                    known.stored && has_id(&known) ? known.store_id : NULL, at);
}

int
do_wait(tosc_backend *b, const tosc_position *known, int64_t timeout_ms,
        const tosc_event *stop, bool *ret_changed)
{
    return begin(b, OP_WAIT)
        ->wait(tosc_backend_impl(b), known, timeout_ms, stop, ret_changed);
}

int
do_append(tosc_backend *b, const void *bytes, size_t size, tosc_position *at,
          tosc_data *ret)
{
    const uint64_t random[2] = {random_number(), random_number()};
    const tosc_position known = *at;
    tosc_commit_id id;
    tosc_data result;
    int status;

    memcpy(&id, random, sizeof(id));
    status = begin(b, OP_APPEND)
                 ->append(tosc_backend_impl(b), NULL, bytes, size, &id, &known, &result);
    if (status == 0) {
        *at = result.at;
        tosc_blob_unref(result.bytes);
        result.bytes = NULL;
        if (ret != NULL) {
            *ret = result;
        }
    }
    return status;
}

int
do_append_text(tosc_backend *b, const char *text, tosc_position *at)
{
    return do_append(b, text, strlen(text), at, NULL);
}

int
do_read_since(tosc_backend *b, const tosc_position *known, tosc_data *ret)
{
    return begin(b, OP_READ_SINCE)->read_since(tosc_backend_impl(b), known, ret);
}

int
do_changed(tosc_backend *b, const tosc_position *known)
{
    return begin(b, OP_CHANGED)->changed(tosc_backend_impl(b), known);
}

int
do_compact(tosc_backend *b, const void *bytes, size_t size, const tosc_position *of,
           tosc_data *ret)
{
    tosc_data result;
    int status = begin(b, OP_COMPACT)
                     ->compact(tosc_backend_impl(b), NULL, bytes, size, of, &result);

    if (status == 0) {
        tosc_blob_unref(result.bytes);
        result.bytes = NULL;
        if (ret != NULL) {
            *ret = result;
        }
    }
    return status;
}

int
do_lock(tosc_backend *b, const void *holder, int64_t timeout_ms)
{
    return begin(b, OP_LOCK)
        ->lock(tosc_backend_impl(b), holder, tosc__deadline(timeout_ms));
}

int
do_unlock(tosc_backend *b, const void *holder)
{
    return begin(b, OP_UNLOCK)->unlock(tosc_backend_impl(b), holder);
}

/* ---- what is stored ---- */

bool
has_id(const tosc_position *at)
{
    static const uint8_t none[sizeof(at->store_id)];

    return memcmp(at->store_id, none, sizeof(none)) != 0;
}

bool
same_position(const tosc_position *a, const tosc_position *b)
{
    return a->stored == b->stored && a->version == b->version
           && memcmp(a->store_id, b->store_id, sizeof(a->store_id)) == 0;
}

void
expect_bytes(const tosc_data *data, const void *bytes, size_t size, const char *where)
{
    const unsigned char *got = data->bytes != NULL ? data->bytes->data : NULL;
    size_t got_size = data->bytes != NULL ? data->bytes->size : 0;

    expect(got_size == size, "%s: expected %zu bytes, got %zu", where, size, got_size);
    for (size_t i = 0; i < size; i++) {
        expect(got[i] == ((const unsigned char *)bytes)[i],
               "%s: expected %zu bytes as they were written; byte %zu is 0x%02x, not "
               "0x%02x",
               where, size, i, got[i], ((const unsigned char *)bytes)[i]);
    }
}

void
expect_holds(tosc_backend *b, const char *text, const tosc_position *at, const char *when)
{
    tosc_data data;

    expect_ok(do_read(b, &data), "read %s", when);
    if (at == NULL) {
        expect(!data.at.stored, "read %s: expected nothing stored, got version %lld",
               when, (long long)data.at.version);
    } else {
        expect(data.at.stored, "read %s: expected data, got nothing stored", when);
        expect(same_position(at, &data.at),
               "read %s: expected version %lld of the same store, got %lld", when,
               (long long)at->version, (long long)data.at.version);
        expect_bytes(&data, text, strlen(text), when);
    }
    tosc_blob_unref(data.bytes);
}

tosc_position
position_now(tosc_backend *b)
{
    tosc_data data;

    expect_ok(do_read(b, &data), "read");
    tosc_blob_unref(data.bytes);
    return data.at;
}

/* ---- workers ---- */

tosc_backend *
open_another(void)
{
    tosc_backend *b = NULL;

    expect_ok(subject_open(store_number, &b),
              "opening another backend of the same store");
    return b;
}

static void *
work_in_thread(void *argument)
{
    struct worker *worker = argument;

    if (current->place == OBJECTS) {
        worker->b = open_another();
    }
    current->work(worker);
    if (current->place == OBJECTS) {
        worker->b = tosc_backend_unref(worker->b);
    }
    __atomic_add_fetch(&memory->ended, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static pid_t
spawn_worker(const struct worker *worker)
{
    char *argv[256] = {command.argv[0]};
    char what[200];
    pid_t process = 0;
    int error;
    int count = 1;

    snprintf(what, sizeof(what), "%s,%lld,%d,%d,%d", current->name,
             (long long)store_number, memory_fd, worker->index, worker->role);
    argv[count++] = (char *)(uintptr_t)command.option;
    argv[count++] = what;
    for (char **more = command.argv + 1; *more != NULL && count < 255; more++) {
        argv[count++] = *more;
    }
    error = posix_spawn(&process, "/proc/self/exe", NULL, NULL, argv, environ);
    expect(error == 0, "cannot start a process: %s", strerror(error));
    return process;
}

void
worker_start(int role)
{
    struct crew *member = &crew[crew_size];

    expect(crew_size < WORKERS_MAX, "too many workers");
    *member = (struct crew){.worker = {.b = own, .index = crew_size, .role = role}};
    crew_size++;
    if (current->place == PROCESSES) {
        member->process = spawn_worker(&member->worker);
    } else {
        expect(pthread_create(&member->thread, NULL, work_in_thread, &member->worker)
                   == 0,
               "cannot start a thread");
    }
}

/* A worker's process that has ended without being told to. */
static void
check_ended(struct crew *member, int status)
{
    member->process = 0;
    if (flag_get(&memory->report.verdict) != PASSED) {
        _exit(0);
    }
    if (WIFSIGNALED(status) && !member->killed) {
        fail("a process that used the backend was ended by signal %d (%s) in %s",
             WTERMSIG(status), strsignal(WTERMSIG(status)), step_name(&memory->report));
    }
    expect(member->killed || WEXITSTATUS(status) == 0,
           "a process that used the backend ended with status %d", WEXITSTATUS(status));
}

void
workers_join(void)
{
    for (int i = 0; i < crew_size; i++) {
        int status = 0;

        if (current->place != PROCESSES) {
            pthread_join(crew[i].thread, NULL);
        } else if (crew[i].process != 0) {
            while (waitpid(crew[i].process, &status, 0) < 0 && errno == EINTR) {
            }
            check_ended(&crew[i], status);
        }
    }
    crew_size = 0;
}

void
worker_kill(int index)
{
    struct crew *member = &crew[index];

    member->killed = true;
    kill(member->process, SIGKILL);
    while (waitpid(member->process, NULL, 0) < 0 && errno == EINTR) {
    }
    member->process = 0;
}

void
workers_check(void)
{
    for (int i = 0; current->place == PROCESSES && i < crew_size; i++) {
        int status;

        if (crew[i].process != 0
            && waitpid(crew[i].process, &status, WNOHANG) == crew[i].process) {
            check_ended(&crew[i], status);
        }
    }
}

void
await(const int *flag, int value)
{
    while (flag_get(flag) != value) {
        workers_check();
        sleep_us(100);
    }
}

void
workers_let_work(double most)
{
    for (double end = seconds() + most;
         seconds() < end && flag_get(&memory->ended) < crew_size;) {
        workers_check();
        sleep_us(2000);
    }
}

/* ---- processes ---- */

static void
enter_process(const struct test *test, int64_t number, int fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    current = test;
    store_number = number;
    memory_fd = fd;
    memory =
        mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (memory == MAP_FAILED) {
        perror("tosc-check-backend: cannot map memory");
        _exit(1);
    }
    /* Standard output is the report's. */
    dup2(STDERR_FILENO, STDOUT_FILENO);
}

static void *
test_body(void *argument)
{
    (void)argument;
    expect_ok(subject_open(store_number, &own), "opening the backend");
    memory->report.ops = ops_of(own);
    if (current != NULL) {
        current->body(own);
    }
    own = tosc_backend_unref(own);
    return NULL;
}

static void *
worker_body(void *argument)
{
    struct worker *worker = argument;

    worker->b = open_another();
    current->work(worker);
    tosc_backend_unref(worker->b);
    __atomic_add_fetch(&memory->ended, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static void
run_in_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;

    if (subject_prepare() != 0) {
        fail("%s", tosc_error_message());
    }
    if (pthread_create(&thread, NULL, body, argument) != 0) {
        fail("cannot start a thread");
    }
    pthread_join(thread, NULL);
}

/* Python is not finalised: its threads may be anywhere. */
static void
leave_process(void)
{
    if (subject.python != NULL) {
        fflush(NULL);
        _exit(0);
    }
    exit(0);
}

void
run_test(const struct test *test, int64_t number, int fd)
{
    enter_process(test, number, fd);
    run_in_thread(test_body, NULL);
    leave_process();
    _exit(0);
}

void
run_worker(const struct test *test, int64_t number, int fd, int index, int role)
{
    struct worker worker = {.index = index, .role = role};

    enter_process(test, number, fd);
    run_in_thread(worker_body, &worker);
    leave_process();
    _exit(0);
}

/* ---- small things ---- */

double
seconds(void)
{
    return (double)tosc__now() / 1e9;
}

void
sleep_us(long us)
{
    const struct timespec pause = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&pause, NULL);
}

/* Not with sched_yield() all the time: it keeps the kernel busy and others waiting. */
void
look_again(void)
{
    static __thread unsigned looks;

    if (++looks % 10000 == 0) {
        sleep_us(20);
    }
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

uint64_t
random_number(void)
{
    static __thread uint64_t state;

    if (state == 0) {
        state = (uint64_t)tosc__now() ^ (uint64_t)getpid() << 40
                ^ (uint64_t)(uintptr_t)&state;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
