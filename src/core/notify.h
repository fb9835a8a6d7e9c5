/*
 * Being woken when somebody writes to a file: the only user of inotify. Private to core.
 */
#ifndef TOSC_CORE_NOTIFY_H
#define TOSC_CORE_NOTIFY_H

/*
 * A descriptor that becomes readable at each write() to `path`; to be closed with
 * close(). Negative: not to be had (-errno).
 */
int tosc__notify_open(const char *path);

/* Forgets what has happened so far. */
void tosc__notify_drain(int fd);

#endif
