/*
 * What all tests in C share: a directory of the test's own, child processes, time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_TESTS_COMMON_PROCESS_H
#define TOSC_TESTS_COMMON_PROCESS_H

#include <check.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * For loops, threads and child processes: check's own assertions write to a file each
 * time, under a mutex that a fork may find taken. How it fails is the suite's.
 */
#define must(condition) \
    ((condition) ? (void)0 : support_failed(#condition, __FILE__, __LINE__))
void support_failed(const char *condition, const char *file, int line)
    __attribute__((noreturn));

/*
 * A directory of the test's own; made and removed by a checked fixture. It lies in
 * TOSC_TEST_DIRECTORY, else in /tmp; or in memory (/dev/shm), if there is such a place.
 */
void directory_make(void);
void directory_make_in_memory(void);
void directory_remove(void);
const char *directory(void);
/* The path of a file there. The last sixteen that were returned are good; any thread. */
const char *path_in(const char *name);
/* Room for one more of these, for what is made of it: PATH_ROOM bytes. */
#define PATH_ROOM 512
char *next_path(void);

/* A failed check there fails the child. */
pid_t child_start(void (*body)(void *), void *argument);
void child_join(pid_t child);  /* must have ended well */
int child_status(pid_t child); /* its exit status, or the signal's number, negative */
void *shared_memory(size_t size);

double seconds(void);
void sleep_us(long us);

/* main() of a test program. */
int run_suite(Suite *suite);

#endif
