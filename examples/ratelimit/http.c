/*
 * Connections of the rate limiter: see http.h. All sockets are non-blocking; a connection
 * reads into a fixed buffer, so a request's head can have 4 KB at most, and writes into one
 * that grows, but is filled only while it is empty.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

HttpConnection *
http_new(int fd)
{
    HttpConnection *connection = calloc(1, sizeof *connection);
    if (connection != NULL) {
        connection->fd = fd;
    }
    return connection;
}

void
http_free(HttpConnection *connection)
{
    close(connection->fd);
    free(connection->out);
    free(connection);
}

void
http_receive(HttpConnection *connection)
{
    /* One byte is left for the NUL that http_next puts behind a request. */
    size_t room = sizeof connection->in - 1 - connection->in_size;
    ssize_t n;
    if (connection->last) {
        return;
    }
    n = recv(connection->fd, connection->in + connection->in_size, room, 0);
    if (n > 0) {
        connection->in_size += (size_t)n;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        connection->dead = true;
    }
}

static bool
has_header(const char *head, const char *line)
{
    const char *found = strcasestr(head, line);
    return found != NULL && found[-1] == '\n';
}

static void
refuse(HttpConnection *connection, int status, const char *why)
{
    connection->last = true;
    connection->in_size = 0;
    http_reply(connection, status, "", why);
}

/* `head` is a whole request, ending in its empty line. */
static bool
parse(HttpConnection *connection, const char *head, char *path, size_t size)
{
    int minor = 0;
    int end = 0;
    char format[48];
    if (strncmp(head, "GET ", 4) != 0) {
        refuse(connection, 405, "only GET is known\n");
        return false;
    }
    snprintf(format, sizeof format, "GET %%%zu[^ ?\r\n]%%*[^ \r\n] HTTP/1.%%d%%n",
             size - 1);
    if (sscanf(head, format, path, &minor, &end) != 2) {
        snprintf(format, sizeof format, "GET %%%zu[^ ?\r\n] HTTP/1.%%d%%n", size - 1);
        if (sscanf(head, format, path, &minor, &end) != 2) {
            refuse(connection, 400, "that is no HTTP/1.1 request line\n");
            return false;
        }
    }
    if (has_header(head, "Transfer-Encoding:")
        || (has_header(head, "Content-Length:")
            && !has_header(head, "Content-Length: 0\r"))) {
        refuse(connection, 413, "no body is taken\n");
        return false;
    }
    if (has_header(head, "Connection: close")
        || (minor == 0 && !has_header(head, "Connection: keep-alive"))) {
        connection->last = true;
    }
    return true;
}

bool
http_next(HttpConnection *connection, char *path, size_t size)
{
    char *end;
    size_t used;
    char kept;
    bool good;
    if (connection->last || connection->in_size == 0) {
        return false;
    }
    end = memmem(connection->in, connection->in_size, "\r\n\r\n", 4);
    if (end == NULL) {
        if (connection->in_size >= sizeof connection->in - 1) {
            refuse(connection, 431, "the request is too long\n");
        }
        return false;
    }
    used = (size_t)(end + 4 - connection->in);
    kept = connection->in[used];
    connection->in[used] = '\0';
    good = parse(connection, connection->in, path, size);
    connection->in[used] = kept;
    if (good) {
        connection->in_size -= used;
        memmove(connection->in, connection->in + used, connection->in_size);
    }
    return good;
}

static const char *
reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {413, "Content Too Large"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "Error";
}

void
http_reply(HttpConnection *connection, int status, const char *headers, const char *body)
{
    char head[512];
    size_t body_size = strlen(body);
    size_t head_size = (size_t)snprintf(
        head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\n%s%s\r\n", status,
        reason(status), body_size, headers,
        connection->last ? "Connection: close\r\n" : "");
    char *out;
    if (connection->out_sent == connection->out_size) {
        connection->out_sent = connection->out_size = 0;
    }
    out = realloc(connection->out, connection->out_size + head_size + body_size);
    if (out == NULL) {
        connection->dead = true;
        return;
    }
    memcpy(out + connection->out_size, head, head_size);
    memcpy(out + connection->out_size + head_size, body, body_size);
    connection->out = out;
    connection->out_size += head_size + body_size;
}

void
http_send(HttpConnection *connection)
{
    while (connection->out_sent < connection->out_size && !connection->dead) {
        ssize_t n = send(connection->fd, connection->out + connection->out_sent,
                         connection->out_size - connection->out_sent, MSG_NOSIGNAL);
        if (n >= 0) {
            connection->out_sent += (size_t)n;
        } else if (errno == EAGAIN) {
            connection->waiting = true;
            return;
        } else if (errno != EINTR) {
            connection->dead = true;
        }
    }
    connection->waiting = false;
    if (connection->last) {
        connection->dead = true;
    }
}
