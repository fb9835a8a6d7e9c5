/*
 * A rate limiter: daemons that share one store tell clients whether they may go on.
 *
 *     ratelimitd [-a ADDRESS] [-p PORT] STORE-URI POLICY.py
 *
 *     GET /allow/CLIENT    200 granted, or 429 refused with Retry-After
 *     GET /status          what the store holds, as JSON
 *
 * One thread, one epoll loop: the listening socket, the connections, signals (a signalfd, so
 * nothing is done in handlers), a timer, and the watch of the settings in the store. All the
 * requests that have come in one round of the loop are decided in one transaction, so the
 * store is asked the less often per request the busier the daemon is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "http.h"
#include "limits.h"

enum { BATCH = 256, EVENTS = 128, NAME_SIZE = 64, PRUNE_SECONDS = 60 };

typedef struct Request {
    HttpConnection *connection;
    char client[NAME_SIZE + 1];
} Request;

typedef struct Daemon {
    int epoll;
    int listener;
    int signals;
    int timer;
    Limits limits;
    int64_t seconds; /* ticks of the timer */
    int stop;        /* 1: asked to, -1: cannot go on */
    size_t count;    /* requests that wait for their answers */
    Request requests[BATCH];
} Daemon;

void
log_line(const char *format, ...)
{
    char time[32];
    struct timespec now;
    struct tm parts;
    va_list arguments;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &parts);
    strftime(time, sizeof time, "%F %T", &parts);
    flockfile(stderr);
    fprintf(stderr, "%s.%03ld [%d] ", time, now.tv_nsec / 1000000, (int)getpid());
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
}

/* ---- requests ---- */

static void
answer_one(const Request *request, const Decision *decision)
{
    char headers[64];
    long long seconds = (decision->wait_us + 999999) / 1000000;
    if (decision->granted) {
        http_reply(request->connection, 200, "", "granted\n");
    } else {
        snprintf(headers, sizeof headers, "Retry-After: %lld\r\n", seconds);
        http_reply(request->connection, 429, headers, "refused\n");
    }
}

/* Decides and answers all the requests that wait. */
static void
answer(Daemon *daemon)
{
    Decision decisions[BATCH];
    int status = 0;
    for (size_t i = 0; i < daemon->count; i++) {
        decisions[i] = (Decision){.client = daemon->requests[i].client};
    }
    if (daemon->count > 0) {
        status = limits_decide(&daemon->limits, decisions, daemon->count);
    }
    for (size_t i = 0; i < daemon->count; i++) {
        if (status < 0) {
            http_reply(daemon->requests[i].connection, 503, "", "the store is away\n");
        } else {
            answer_one(&daemon->requests[i], &decisions[i]);
        }
    }
    daemon->count = 0;
}

static bool
is_name(const char *name)
{
    size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789._-:@");
    return size > 0 && size <= NAME_SIZE && name[size] == '\0';
}

static void
answer_status(Daemon *daemon, HttpConnection *connection)
{
    char *json = limits_json(&daemon->limits);
    if (json == NULL) {
        http_reply(connection, 503, "", "the store is away\n");
    } else {
        http_reply(connection, 200, "Content-Type: application/json\r\n", json);
    }
    free(json);
}

/* Takes up what a connection has sent. Answers are in the order of the requests. */
static void
take_requests(Daemon *daemon, HttpConnection *connection)
{
    char path[256];
    while (http_next(connection, path, sizeof path)) {
        if (strncmp(path, "/allow/", 7) == 0 && is_name(path + 7)) {
            Request *request = &daemon->requests[daemon->count++];
            request->connection = connection;
            strcpy(request->client, path + 7);
            if (daemon->count == BATCH) {
                answer(daemon);
            }
            continue;
        }
        answer(daemon);
        if (strcmp(path, "/status") == 0) {
            answer_status(daemon, connection);
        } else {
            http_reply(connection, 404, "", "there are /allow/CLIENT and /status\n");
        }
    }
}

/* ---- connections ---- */

static int
listen_to(Daemon *daemon, int what, void *context)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = context};
    return epoll_ctl(daemon->epoll, EPOLL_CTL_ADD, what, &event);
}

static void
wait_for(Daemon *daemon, int what, void *context, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = context};
    epoll_ctl(daemon->epoll, EPOLL_CTL_MOD, what, &event);
}

static void
accept_all(Daemon *daemon)
{
    int fd;
    while ((fd = accept4(daemon->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC))
           >= 0) {
        int on = 1;
        HttpConnection *connection = http_new(fd);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connection == NULL) {
            close(fd);
        } else if (listen_to(daemon, fd, connection) < 0) {
            http_free(connection);
        }
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        log_line("accept: %s", strerror(errno));
        wait_for(daemon, daemon->listener, &daemon->listener,
                 0); /* until the next tick */
    }
}

/* Sends; and waits for room to send, or for more requests, but never for both. */
static void
send_answers(Daemon *daemon, HttpConnection *connection)
{
    bool waited = connection->waiting;
    http_send(connection);
    if (connection->dead) {
        http_free(connection); /* closing ends its events as well */
    } else if (connection->waiting != waited) {
        wait_for(daemon, connection->fd, connection,
                 connection->waiting ? EPOLLOUT : EPOLLIN);
    }
}

/* ---- signals and time ---- */

static void
take_signals(Daemon *daemon)
{
    struct signalfd_siginfo info;
    while (read(daemon->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            limits_load_policy(&daemon->limits);
        } else {
            log_line("%s: stopping", strsignal((int)info.ssi_signo));
            daemon->stop = 1;
        }
    }
}

static void
tick(Daemon *daemon)
{
    uint64_t times;
    if (read(daemon->timer, &times, sizeof times) == (ssize_t)sizeof times) {
        wait_for(daemon, daemon->listener, &daemon->listener, EPOLLIN);
        limits_check_policy(&daemon->limits);
        if (++daemon->seconds % PRUNE_SECONDS == 0) {
            limits_prune(&daemon->limits);
        }
    }
}

/* ---- the loop ---- */

/* True: it was one of the daemon's own descriptors; else it is a connection. */
static bool
own_event(Daemon *daemon, void *what)
{
    if (what == &daemon->listener) {
        accept_all(daemon);
    } else if (what == &daemon->signals) {
        take_signals(daemon);
    } else if (what == &daemon->timer) {
        tick(daemon);
    } else if (what == &daemon->limits) {
        daemon->stop = limits_configure(&daemon->limits) < 0 ? -1 : daemon->stop;
    } else {
        return false;
    }
    return true;
}

static int
run(Daemon *daemon)
{
    struct epoll_event events[EVENTS];
    while (daemon->stop == 0) {
        HttpConnection *active[EVENTS];
        size_t actives = 0;
        int count = epoll_wait(daemon->epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) {
            log_line("epoll_wait: %s", strerror(errno));
            return -1;
        }
        for (int i = 0; i < count; i++) {
            HttpConnection *connection = events[i].data.ptr;
            if (own_event(daemon, connection)) {
                continue;
            }
            active[actives++] = connection;
            if (!connection->waiting) {
                http_receive(connection);
                take_requests(daemon, connection);
            }
        }
        answer(daemon);
        for (size_t i = 0; i < actives; i++) {
            send_answers(daemon, active[i]);
        }
    }
    return daemon->stop < 0 ? -1 : 0;
}

static int
open_listener(Daemon *daemon, const char *address, int port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof name;
    int on = 1;
    if (inet_pton(AF_INET, address, &name.sin_addr) != 1) {
        log_line("%s is no IPv4 address", address);
        return -1;
    }
    daemon->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (daemon->listener < 0
        || setsockopt(daemon->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0
        || bind(daemon->listener, (struct sockaddr *)&name, size) < 0
        || listen(daemon->listener, SOMAXCONN) < 0
        || getsockname(daemon->listener, (struct sockaddr *)&name, &size) < 0) {
        log_line("%s:%d: %s", address, port, strerror(errno));
        return -1;
    }
    printf("listening on %s:%d\n", address, ntohs(name.sin_port));
    fflush(stdout);
    return 0;
}

/* Before any thread is started, so that all of them leave these signals to the loop. */
static int
open_events(Daemon *daemon)
{
    static const struct itimerspec second = {.it_interval = {1, 0}, .it_value = {1, 0}};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN); /* whoever reads the log may go away */
    daemon->epoll = epoll_create1(EPOLL_CLOEXEC);
    daemon->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0
        || (daemon->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)) < 0
        || daemon->epoll < 0 || daemon->timer < 0
        || timerfd_settime(daemon->timer, 0, &second, NULL) < 0) {
        log_line("no event loop: %s", strerror(errno));
        return -1;
    }
    return 0;
}

static int
serve(Daemon *daemon, const char *address, int port)
{
    if (open_listener(daemon, address, port) < 0) {
        return -1;
    }
    if (listen_to(daemon, daemon->listener, &daemon->listener) < 0
        || listen_to(daemon, daemon->signals, &daemon->signals) < 0
        || listen_to(daemon, daemon->timer, &daemon->timer) < 0
        || listen_to(daemon, limits_fd(&daemon->limits), &daemon->limits) < 0) {
        log_line("epoll: %s", strerror(errno));
        return -1;
    }
    return run(daemon);
}

static void
usage(void)
{
    fprintf(stderr,
            "usage: ratelimitd [-a ADDRESS] [-p PORT] STORE-URI POLICY.py\n"
            "such as: ratelimitd -p 8080 file:/dev/shm/limits?durable=0 policy.py\n");
    exit(2);
}

static int
port_number(const char *text)
{
    char *end;
    long port = strtol(text, &end, 10);
    if (end == text || *end != '\0' || port < 0 || port > 65535) {
        usage();
    }
    return (int)port;
}

int
main(int argc, char **argv)
{
    static Daemon daemon;
    const char *address = "127.0.0.1";
    int port = 8080;
    int option;
    int status;
    while ((option = getopt(argc, argv, "a:p:")) != -1) {
        if (option == 'a') {
            address = optarg;
        } else if (option == 'p') {
            port = port_number(optarg);
        } else {
            usage();
        }
    }
    if (argc - optind != 2) {
        usage();
    }
    if (open_events(&daemon) < 0) {
        return 1;
    }
    status = limits_start(&daemon.limits, argv[optind], argv[optind + 1]);
    if (status == 0) {
        status = serve(&daemon, address, port);
    }
    limits_stop(&daemon.limits);
    log_line("stopped");
    return status < 0;
}
