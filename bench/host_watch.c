/*
 * How long after a commit a program is told of it.
 *
 *     host_watch [DIRECTORY [COMMITS]]
 *
 * A process commits the time at which it begins to commit, now and then; another one takes the
 * time when it is told, and then looks what was stored. So the times include the commit. Beside
 * them: the least that a wake-up of another process costs here (a futex, and an inotify event
 * for a byte written to a file, which is what a file store uses), and what a script gets that
 * looks again and again. Medians and 99th percentiles, in microseconds. DIRECTORY should be in
 * memory (/dev/shm, the default).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <tosc/host.h>

#define MOST 100000

static char uri[PATH_MAX];
static char plain_path[PATH_MAX];
static int commits = 2000;

/* In memory that the processes share. */
static struct shared {
    int go;   /* the writer may begin */
    int word; /* of the futex */
    int64_t written;
    int done;
} * shared;

static double times[MOST];
static int taken;

static void
need(int status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "host_watch: %s: %s %s\n", what, tosc_error_message(),
                tosc_error_traceback());
        exit(1);
    }
}

static int64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
pause_us(long us)
{
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

/* Between two commits: often enough, and never in step with anything. */
static void
breathe(void)
{
    pause_us(1000 + random() % 1000);
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void
take(int64_t latency_ns)
{
    if (taken < MOST) {
        times[taken++] = (double)latency_ns / 1000;
    }
}

static double
report(const char *name, double beside)
{
    qsort(times, (size_t)taken, sizeof(*times), by_size);
    double median = taken > 0 ? times[taken / 2] : 0;
    double p99 = taken > 0 ? times[taken * 99 / 100] : 0;
    printf("%-52s %6d %8.1f %8.1f", name, taken, median, p99);
    if (beside > 0) {
        printf(" %6.2fx", median / beside);
    }
    printf("\n");
    fflush(stdout);
    taken = 0;
    return median;
}

static pid_t
start(void (*body)(void))
{
    shared->go = 0;
    shared->done = 0;
    pid_t pid = fork();
    if (pid == 0) {
        srandom((unsigned)getpid());
        body();
        shared->done = 1;
        _exit(0);
    }
    return pid;
}

static void
wait_to_go(void)
{
    while (__atomic_load_n(&shared->go, __ATOMIC_ACQUIRE) == 0) {
        pause_us(1000);
    }
    pause_us(20000);
}

static void
let_go(void)
{
    __atomic_store_n(&shared->go, 1, __ATOMIC_RELEASE);
}

/* ---- floors ---- */

static void
write_plainly(void)
{
    int fd = open(plain_path, O_RDWR | O_CLOEXEC);
    wait_to_go();
    for (int i = 0; i < commits; i++) {
        breathe();
        __atomic_store_n(&shared->written, now_ns(), __ATOMIC_RELEASE);
        if (pwrite(fd, "x", 1, 0) != 1) {
            _exit(1);
        }
    }
}

static double
floor_of_inotify(void)
{
    int file = open(plain_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char events[4096];
    if (file < 0 || inotify_add_watch(fd, plain_path, IN_MODIFY) < 0) {
        perror("host_watch: inotify");
        exit(1);
    }
    pid_t writer = start(write_plainly);
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    let_go();
    while (taken < commits && poll(&poller, 1, 2000) > 0) {
        take(now_ns() - __atomic_load_n(&shared->written, __ATOMIC_ACQUIRE));
        while (read(fd, events, sizeof(events)) > 0) {
        }
    }
    waitpid(writer, NULL, 0);
    close(fd);
    close(file);
    return report("floor: inotify, another process", 0);
}

static void
wake_plainly(void)
{
    wait_to_go();
    for (int i = 0; i < commits; i++) {
        breathe();
        __atomic_store_n(&shared->written, now_ns(), __ATOMIC_RELEASE);
        __atomic_add_fetch(&shared->word, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

static double
floor_of_futex(void)
{
    struct timespec limit = {.tv_sec = 2};
    int seen = shared->word;
    pid_t waker = start(wake_plainly);
    let_go();
    while (taken < commits) {
        if (shared->word == seen
            && syscall(SYS_futex, &shared->word, FUTEX_WAIT, seen, &limit, NULL, 0) < 0
            && errno == ETIMEDOUT) {
            break;
        }
        if (shared->word != seen) {
            take(now_ns() - __atomic_load_n(&shared->written, __ATOMIC_ACQUIRE));
            seen = shared->word;
        }
    }
    waitpid(waker, NULL, 0);
    return report("floor: futex, another process", 0);
}

/* ---- the store ---- */

static tosc_manager *manager;
static tosc_value *root;

static void
open_store(void)
{
    need(tosc_host_start(NULL), "start");
    need(tosc_manager_open(uri, NULL, &manager), "open");
    need(tosc_manager_refresh(manager, &root), "read");
}

static void
make_store(double beside)
{
    tosc_value *value;
    (void)beside;
    need(tosc_host_start(NULL), "start");
    need(tosc_manager_open(uri, NULL, &manager), "open");
    need(tosc_value_new_json("{\"t\": 0}", TOSC_TEXT_END, &value), "dict");
    need(tosc_manager_write(manager, value), "write");
}

static void
commit_times(void)
{
    for (int i = 0; i < commits; i++) {
        breathe();
        need(tosc_set_int64(root, tosc_key("t"), now_ns()), "set");
    }
}

static void
commit_elsewhere(void)
{
    open_store();
    wait_to_go();
    commit_times();
}

/* Called when something was told: the value is read after the time was taken. */
static void
told(tosc_manager *m, const tosc_change *change, void *arg)
{
    int64_t now = now_ns();
    int64_t written;
    (void)m;
    (void)change;
    (void)arg;
    if (tosc_get_int64(root, tosc_key("t"), &written) == 0 && written > 0) {
        take(now - written);
    }
}

static void
callbacks_from_elsewhere(double beside)
{
    pid_t writer = start(commit_elsewhere);
    tosc_watch *watch;
    open_store();
    need(tosc_watch_new(manager, NULL, told, NULL, &watch), "watch");
    let_go();
    waitpid(writer, NULL, 0);
    pause_us(50000);
    tosc_watch_free(watch);
    report("callback, commit of another process", beside);
}

static void
own_callbacks(double beside)
{
    tosc_watch *watch;
    open_store();
    need(tosc_watch_new(manager, "t", told, NULL, &watch), "watch");
    commit_times();
    pause_us(50000);
    tosc_watch_free(watch);
    report("callback, commit of this process", beside);
}

static void
descriptor_from_elsewhere(double beside)
{
    pid_t writer = start(commit_elsewhere);
    tosc_watch *watch;
    const tosc_change *change;
    open_store();
    need(tosc_watch_new(manager, NULL, NULL, NULL, &watch), "watch");
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(poller, EPOLL_CTL_ADD, tosc_watch_fd(watch), &event);
    let_go();
    while (epoll_wait(poller, &event, 1, 1000) > 0) {
        if (tosc_watch_next(watch, 0, &change) > 0) {
            told(manager, change, NULL);
        }
    }
    waitpid(writer, NULL, 0);
    report("epoll, commit of another process", beside);
}

static const char polling[] = "import time, tosc\n"
                              "def look(root, pause, count):\n"
                              "    times, last = [], root['t']\n"
                              "    end = time.monotonic() + 30\n"
                              "    while len(times) < count and time.monotonic() < end:\n"
                              "        manager.read()\n"
                              "        now = root['t']\n"
                              "        if now != last:\n"
                              "            times.append(time.monotonic_ns() - now)\n"
                              "            last = now\n"
                              "        elif pause:\n"
                              "            time.sleep(pause)\n"
                              "    return times\n";

static void
script_that_looks(const char *name, const char *pause, double beside)
{
    char call[200];
    pid_t writer = start(commit_elsewhere);
    tosc_value *found;
    tosc_value *item;
    tosc_iterator *iterator;
    open_store();
    need(tosc_host_run_string(polling, "polling"), "script");
    tosc_value *value;
    need(tosc_manager_value(manager, &value), "value");
    need(tosc_host_eval("__import__('__main__').__dict__", &found), "main");
    need(tosc_set(found, tosc_key("manager"), value), "manager");
    let_go();
    snprintf(call, sizeof(call), "look(manager.read(), %s, %d)", pause, commits / 2);
    need(tosc_host_eval(call, &found), "look");
    need(tosc_iterator_new(found, tosc_self(), &iterator), "times");
    while (tosc_iterator_next(iterator, NULL, &item) > 0) {
        int64_t ns;
        need(tosc_get_int64(item, tosc_self(), &ns), "time");
        take(ns);
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    report(name, beside);
}

/* Each in a process of its own: the interpreter can be started once. */
static void
in_child(void (*body)(double), double beside)
{
    pid_t pid = fork();
    if (pid == 0) {
        body(beside);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (status != 0) {
        exit(1);
    }
}

static void
script_that_runs(double beside)
{
    script_that_looks("script, reading without a pause", "0", beside);
}

static void
script_that_sleeps(double beside)
{
    script_that_looks("script, reading every millisecond", "0.001", beside);
}

int
main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : "/dev/shm";
    char place[PATH_MAX - 32];
    commits = argc > 2 ? atoi(argv[2]) : commits;
    snprintf(place, sizeof(place), "%s/host_watch.XXXXXX", directory);
    if (mkdtemp(place) == NULL || commits <= 0 || commits > MOST) {
        perror("host_watch");
        return 1;
    }
    snprintf(uri, sizeof(uri), "file:%s/store?durable=0", place);
    snprintf(plain_path, sizeof(plain_path), "%s/plain", place);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    printf("%-52s %6s %8s %8s %7s\n", "microseconds", "times", "median", "99 %",
           "beside");
    floor_of_futex();
    double floor = floor_of_inotify();
    in_child(make_store, 0);
    in_child(callbacks_from_elsewhere, floor);
    in_child(descriptor_from_elsewhere, floor);
    in_child(own_callbacks, floor);
    in_child(script_that_runs, floor);
    in_child(script_that_sleeps, floor);
    snprintf(uri, sizeof(uri), "rm -rf %s", place);
    return system(uri) == 0 ? 0 : 1;
}
