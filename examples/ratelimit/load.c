/*
 * Load for several rate limiters at once, and a check of what they grant together.
 *
 *     ratelimit-load [-c CONNECTIONS] [-k CLIENTS] [-n REQUESTS] [-t SECONDS]
 *                    -r RATE -b BURST HOST:PORT...
 *
 * Each connection asks for one client after the other and waits for each answer; it goes to
 * the next daemon when its own is gone. At the end: requests, rate, latencies; and for each
 * client whether no more was granted than BURST + RATE x the time that the run took. RATE and
 * BURST are what the policy allows each of them. Exit status 1 if one was granted more, or
 * if nobody answered.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 512, MAX_DAEMONS = 64, BUFFER = 1024 };

typedef struct Connection {
    int daemon;
    int client;
    double sent_at;
    double retry_at; /* not connected: not before that */
    size_t in_size;
    char in[BUFFER];
} Connection;

static int connections = 16;
static int clients = 4;
static long requests = 10000;
static double seconds = 60;
static double rate = 0;
static double burst = 0;

static struct sockaddr_in daemons[MAX_DAEMONS];
static int daemon_count;
static long answered_by[MAX_DAEMONS];

static Connection all[MAX_CONNECTIONS];
static struct pollfd polled[MAX_CONNECTIONS]; /* fd -1: not connected */
static long *granted;                         /* of each client */
static long answered;
static long lost;
static long unwell; /* answers that are neither 200 nor 429 */
static double *latencies;
static int next_client;

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- one connection ---- */

static void
give_up(int i)
{
    if (polled[i].fd >= 0) {
        close(polled[i].fd);
        polled[i].fd = -1;
    }
    all[i].daemon = (all[i].daemon + 1) % daemon_count;
    all[i].retry_at = now() + 0.05;
    all[i].in_size = 0;
}

static void
ask(int i)
{
    char text[128];
    int size;
    all[i].client = next_client++ % clients;
    all[i].in_size = 0;
    all[i].sent_at = now();
    size = snprintf(text, sizeof text, "GET /allow/client-%d HTTP/1.1\r\nHost: x\r\n\r\n",
                    all[i].client);
    if (send(polled[i].fd, text, (size_t)size, MSG_NOSIGNAL) != size) {
        give_up(i);
    }
}

static void
call_daemon(int i)
{
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in *daemon = &daemons[all[i].daemon];
    polled[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    if (fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (const struct sockaddr *)daemon, sizeof *daemon) < 0) {
        give_up(i);
    } else {
        ask(i);
    }
}

/* The size of the answer that the buffer begins with; 0: it is not complete. */
static size_t
answer_size(const char *in)
{
    const char *end = strstr(in, "\r\n\r\n");
    const char *length = strcasestr(in, "Content-Length:");
    size_t size;
    if (end == NULL || length == NULL || length > end) {
        return 0;
    }
    size = (size_t)(end + 4 - in) + strtoul(length + 15, NULL, 10);
    return size <= strlen(in) ? size : 0;
}

static void
take_answer(int i)
{
    int status = 0;
    sscanf(all[i].in, "HTTP/1.1 %d", &status);
    latencies[answered++] = now() - all[i].sent_at;
    answered_by[all[i].daemon]++;
    if (status == 200) {
        granted[all[i].client]++;
    } else if (status != 429) {
        unwell++;
    }
}

/* True: an answer has come, or will not come any more. */
static bool
receive(int i)
{
    Connection *connection = &all[i];
    ssize_t n = recv(polled[i].fd, connection->in + connection->in_size,
                     BUFFER - 1 - connection->in_size, 0);
    if (n <= 0) {
        lost++;
        give_up(i);
        return true;
    }
    connection->in_size += (size_t)n;
    connection->in[connection->in_size] = '\0';
    if (answer_size(connection->in) == 0) {
        return false;
    }
    take_answer(i);
    return true;
}

/* ---- the run ---- */

static void
run(double start)
{
    long asked = 0;
    long open = 0;
    for (int i = 0; i < connections; i++) {
        polled[i].fd = -1;
        all[i].daemon = i % daemon_count;
    }
    while (now() - start < seconds && (asked < requests || open > 0)) {
        for (int i = 0; i < connections; i++) {
            if (polled[i].fd < 0 && asked < requests && all[i].retry_at <= now()) {
                call_daemon(i);
                open += polled[i].fd >= 0;
                asked += polled[i].fd >= 0;
            }
        }
        if (poll(polled, (nfds_t)connections, 10) < 0 && errno != EINTR) {
            perror("poll");
            exit(1);
        }
        for (int i = 0; i < connections; i++) {
            if (polled[i].fd < 0 || polled[i].revents == 0 || !receive(i)) {
                continue;
            }
            open--;
            if (polled[i].fd < 0) {
                continue;
            }
            if (asked == requests) {
                give_up(i);
                continue;
            }
            ask(i);
            open += polled[i].fd >= 0;
            asked += polled[i].fd >= 0;
        }
    }
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double
percentile(double part)
{
    long at = (long)(part * (double)answered);
    return answered == 0 ? 0 : latencies[at < answered ? at : answered - 1] * 1e3;
}

static int
report(double took)
{
    long total = 0;
    int wrong = 0;
    double most = burst + rate * took;
    qsort(latencies, (size_t)answered, sizeof *latencies, compare);
    for (int i = 0; i < clients; i++) {
        total += granted[i];
    }
    printf(
        "%ld answers in %.2f s: %.0f/s, %ld granted, %ld refused, %ld lost, %ld other\n",
        answered, took, (double)answered / took, total, answered - total - unwell, lost,
        unwell);
    printf("latency: half within %.2f ms, 95%% %.2f ms, 99%% %.2f ms, all %.2f ms\n",
           percentile(0.5), percentile(0.95), percentile(0.99), percentile(1));
    for (int i = 0; i < daemon_count; i++) {
        printf("%s:%d answered %ld\n", inet_ntoa(daemons[i].sin_addr),
               ntohs(daemons[i].sin_port), answered_by[i]);
    }
    for (int i = 0; i < clients; i++) {
        bool good = (double)granted[i] <= most + 1e-6;
        printf("client-%d was granted %ld, at most %.1f are allowed: %s\n", i, granted[i],
               most, good ? "right" : "WRONG");
        wrong += !good;
    }
    return wrong > 0 || answered == 0;
}

static void
usage(void)
{
    fprintf(stderr, "usage: ratelimit-load [-c CONNECTIONS] [-k CLIENTS] [-n REQUESTS]\n"
                    "           [-t SECONDS] -r RATE -b BURST HOST:PORT...\n");
    exit(2);
}

static double
number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "ratelimit-load: %s is no number from %g to %g\n", text, least,
                most);
        usage();
    }
    return value;
}

static void
add_daemon(char *place)
{
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    char *port = strrchr(place, ':');
    int status;
    if (port == NULL || daemon_count == MAX_DAEMONS) {
        usage();
    }
    *port = '\0';
    status = getaddrinfo(place, port + 1, &hints, &found);
    if (status != 0) {
        fprintf(stderr, "ratelimit-load: %s: %s\n", place, gai_strerror(status));
        exit(1);
    }
    memcpy(&daemons[daemon_count++], found->ai_addr, sizeof *daemons);
    freeaddrinfo(found);
}

static void
options(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "b:c:k:n:r:t:")) != -1) {
        switch (option) {
        case 'b':
            burst = number(optarg, 1, 1e9);
            break;
        case 'c':
            connections = (int)number(optarg, 1, MAX_CONNECTIONS);
            break;
        case 'k':
            clients = (int)number(optarg, 1, 1e6);
            break;
        case 'n':
            requests = (long)number(optarg, 1, 1e8);
            break;
        case 'r':
            rate = number(optarg, 0, 1e9);
            break;
        case 't':
            seconds = number(optarg, 0.01, 1e6);
            break;
        default:
            usage();
        }
    }
    if (burst < 1 || optind == argc) {
        usage();
    }
    for (; optind < argc; optind++) {
        add_daemon(argv[optind]);
    }
}

int
main(int argc, char **argv)
{
    double start;
    options(argc, argv);
    granted = calloc((size_t)clients, sizeof *granted);
    latencies = calloc((size_t)requests, sizeof *latencies);
    if (granted == NULL || latencies == NULL) {
        fprintf(stderr, "ratelimit-load: no memory\n");
        return 1;
    }
    start = now();
    run(start);
    return report(now() - start);
}
