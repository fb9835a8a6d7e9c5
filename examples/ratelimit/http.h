/*
 * As much of HTTP/1.1 as a rate limiter needs: GET without a body, connections that stay
 * open, several requests sent ahead.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef RATELIMIT_HTTP_H
#define RATELIMIT_HTTP_H

#include <stdbool.h>
#include <stddef.h>

typedef struct HttpConnection {
    int fd;
    bool last;    /* no more requests are taken: it ends when all is sent */
    bool dead;    /* nothing can be sent or received any more */
    bool waiting; /* for the peer to take what we send */
    size_t in_size;
    char in[4096];
    char *out;
    size_t out_size;
    size_t out_sent;
} HttpConnection;

/* NULL: no memory. The descriptor is the connection's from then on. */
HttpConnection *http_new(int fd);
void http_free(HttpConnection *connection);
/* Takes in what has arrived; marks the connection dead if the peer is gone. */
void http_receive(HttpConnection *connection);
/*
 * True: a request, whose path (without a query) is put into `path` and removed from the
 * input. A request that cannot be understood is answered here, and ends the connection.
 */
bool http_next(HttpConnection *connection, char *path, size_t size);
/* `headers` are whole lines, or "". Kept until http_send. */
void http_reply(HttpConnection *connection, int status, const char *headers,
                const char *body);
/* Sends what the peer takes; sets `waiting` if something is left, `dead` at the end. */
void http_send(HttpConnection *connection);

#endif
