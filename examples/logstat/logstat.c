/*
 * Publishes statistics of an access log in a store, and keeps them up to date as it grows.
 *
 *     logstat [-1] [-i MILLISECONDS] STORE-URI LOG
 *
 * LOG is a file, or "-" for standard input; -1: stop at its end; -i: how often to publish.
 *
 * The position in the log stands in the store, and is set in the same transaction that adds
 * the counts of the lines before it. So each line is counted exactly once, though logstat be
 * killed at any moment, or run twice on one log: who finds another position in the store than
 * it began at drops what it has counted, and goes on from there. A log that is renamed and
 * begun anew (rotated) is read to its end before the new one, also after a restart if the old
 * one is LOG.1.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <tosc/host.h>

#include "publish.h"
#include "tally.h"

enum { BUFFER = 65536 };

typedef struct Reader {
    const char *path;
    bool follows; /* a file that can grow, not standard input */
    bool once;
    int interval_ms;
    int fd;
    int signals;
    bool stop;
    bool idle;          /* nothing more to read at present */
    bool leaving;       /* the log was begun anew: look once more at the old one */
    int64_t due;        /* when to publish */
    Position published; /* what the store says, */
    Position at;        /* and where the tally ends */
    size_t size;        /* bytes in the buffer that are not in the tally yet */
    char buffer[BUFFER + 1];
    Tally tally;
} Reader;

static void
fail(const char *what)
{
    fprintf(stderr, "logstat: %s: %s\n", what, strerror(errno));
}

/* ---- the log ---- */

static void
seek(Reader *reader, Position to)
{
    reader->at = to;
    reader->size = 0;
    if (reader->follows && lseek(reader->fd, to.offset, SEEK_SET) < 0) {
        fail(reader->path);
    }
}

/* Opens a file if it is there, and, unless `inode` is 0, is that one. */
static bool
open_file(Reader *reader, const char *path, int64_t inode)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &about) < 0 || (inode != 0 && (int64_t)about.st_ino != inode)) {
        close(fd);
        return false;
    }
    if (reader->fd >= 0) {
        close(reader->fd);
    }
    reader->fd = fd;
    seek(reader, (Position){.inode = (int64_t)about.st_ino});
    return true;
}

/* Where the store says that we are: in the log, in the one before it, or nowhere. */
static int
resume(Reader *reader)
{
    char before[4096];
    snprintf(before, sizeof before, "%s.1", reader->path);
    if (!reader->follows) {
        return 0;
    }
    if (reader->published.inode != 0
        && (open_file(reader, reader->path, reader->published.inode)
            || open_file(reader, before, reader->published.inode))) {
        seek(reader, reader->published);
        return 0;
    }
    if (open_file(reader, reader->path, 0)) {
        if (reader->published.inode != 0) {
            fprintf(stderr, "logstat: the log that was read before is gone\n");
        }
        return 0;
    }
    fail(reader->path);
    return -1;
}

/* At the end: was the log begun anew, in another file or in the same? */
static bool
rotated(Reader *reader)
{
    struct stat about;
    if (!reader->follows) {
        return false;
    }
    if (fstat(reader->fd, &about) == 0 && about.st_size < reader->at.offset) {
        seek(reader, (Position){.inode = reader->at.inode});
        return true;
    }
    if (stat(reader->path, &about) < 0 || (int64_t)about.st_ino == reader->at.inode) {
        return false;
    }
    if (!reader->once && !reader->leaving) {
        reader->leaving = true; /* who writes may need a moment to change over */
        return false;
    }
    reader->leaving = false;
    return open_file(reader, reader->path, 0);
}

/* Counts the whole lines in the buffer, while the tally takes them. */
static void
count_lines(Reader *reader, bool at_end)
{
    char *line = reader->buffer;
    char *limit = reader->buffer + reader->size;
    *limit = '\0';
    while (line < limit && !tally_is_full(&reader->tally)) {
        char *end = memchr(line, '\n', (size_t)(limit - line));
        if (end == NULL && line == reader->buffer && reader->size == BUFFER) {
            end = limit - 1; /* a part of a line that is too long */
        } else if (end == NULL && at_end) {
            end = limit; /* of standard input: nothing will follow */
        } else if (end == NULL) {
            break;
        }
        *end = '\0';
        tally_add(&reader->tally, line);
        line = end < limit ? end + 1 : limit;
    }
    reader->at.offset += line - reader->buffer;
    reader->size = (size_t)(limit - line);
    memmove(reader->buffer, line, reader->size);
}

/* ---- the loop ---- */

static int64_t
clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for a signal, for the time (-1: for ever), or for something to read: true. */
static bool
pause_for(Reader *reader, int ms, int fd)
{
    struct signalfd_siginfo info;
    struct pollfd polled[] = {{.fd = reader->signals, .events = POLLIN},
                              {.fd = fd, .events = POLLIN}};
    if (poll(polled, 2, ms) <= 0) {
        return false;
    }
    if (polled[0].revents != 0 && read(reader->signals, &info, sizeof info) > 0) {
        reader->stop = true;
    }
    return polled[1].revents != 0;
}

/* 1: there may be more, 0: at the end, -1: it cannot be read. */
static int
read_more(Reader *reader)
{
    ssize_t n;
    if (reader->follows) {
        pause_for(reader, reader->idle ? reader->interval_ms : 0, -1);
    } else if (!pause_for(reader, reader->tally.lines > 0 ? reader->interval_ms : -1,
                          reader->fd)) {
        return 1;
    }
    if (reader->size == BUFFER) {
        return 1;
    }
    n = read(reader->fd, reader->buffer + reader->size, BUFFER - reader->size);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
        fail(reader->path);
        return -1;
    }
    reader->size += n > 0 ? (size_t)n : 0;
    return n != 0;
}

/* As publish_tally. A tally that could not be stored is kept. */
static int
publish(Reader *reader)
{
    Position *from = reader->follows ? &reader->published : NULL;
    int status = 0;
    reader->due = clock_ms() + reader->interval_ms;
    if (reader->tally.lines > 0
        || (reader->follows && !same_position(reader->at, reader->published))) {
        status = publish_tally(&reader->tally, from, reader->at);
    }
    if (status < 0) {
        fprintf(stderr, "logstat: not published: %s\n", tosc_error_message());
        return status;
    }
    tally_clear(&reader->tally);
    if (status == PUBLISH_OVERTAKEN && resume(reader) < 0) {
        return -1;
    }
    return status;
}

static int
run(Reader *reader)
{
    while (!reader->stop) {
        int more = read_more(reader);
        if (more < 0) {
            return -1;
        }
        count_lines(reader, more == 0 && !reader->follows);
        reader->idle = more == 0 && memchr(reader->buffer, '\n', reader->size) == NULL;
        if (reader->idle && !rotated(reader) && (reader->once || !reader->follows)
            && !tally_is_full(&reader->tally)) {
            int status = publish(reader);
            if (status != PUBLISH_OVERTAKEN) {
                return status;
            }
        }
        if ((tally_is_full(&reader->tally) || clock_ms() >= reader->due)
            && publish(reader) < 0) {
            pause_for(reader, reader->interval_ms, -1);
        }
    }
    return publish(reader);
}

static int
open_signals(Reader *reader)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) {
        return -1;
    }
    reader->signals = signalfd(-1, &set, SFD_CLOEXEC);
    return reader->signals < 0 ? -1 : 0;
}

static void
usage(void)
{
    fprintf(stderr,
            "usage: logstat [-1] [-i MILLISECONDS] STORE-URI LOG\n"
            "such as: logstat file:/var/lib/logstat/store /var/log/nginx/access.log\n");
    exit(2);
}

int
main(int argc, char **argv)
{
    static Reader reader = {.fd = -1, .interval_ms = 200};
    int option;
    int status;
    while ((option = getopt(argc, argv, "1i:")) != -1) {
        if (option == '1') {
            reader.once = true;
        } else if (option == 'i' && atoi(optarg) > 0) {
            reader.interval_ms = atoi(optarg);
        } else {
            usage();
        }
    }
    if (argc - optind != 2) {
        usage();
    }
    reader.path = argv[optind + 1];
    reader.follows = strcmp(reader.path, "-") != 0;
    reader.fd = reader.follows ? -1 : STDIN_FILENO;
    if (open_signals(&reader) < 0) {
        fail("signals");
        return 1;
    }
    if (publish_open(argv[optind], reader.path, &reader.published) < 0) {
        fprintf(stderr, "logstat: %s: %s\n", argv[optind], tosc_error_message());
        return 1;
    }
    status = resume(&reader) < 0 || run(&reader) < 0;
    publish_close();
    return status;
}
