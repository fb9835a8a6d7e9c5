/* What has to happen round fork(). Private to core. */
#ifndef TOSC_CORE_FORK_H
#define TOSC_CORE_FORK_H

/*
 * Embedded in an object that must survive a fork. `freeze` and `thaw` run in the parent,
 * before and after; `renew` runs in the child instead of `thaw`, as the only thread.
 * Freeze is to take the object's short mutexes, so that nothing is half changed in the
 * child; thaw and renew give them back. All may only do what a signal handler may, beside
 * the mutexes.
 */
struct tosc__fork_node {
    void (*freeze)(struct tosc__fork_node *node);
    void (*thaw)(struct tosc__fork_node *node);
    void (*renew)(struct tosc__fork_node *node);
    struct tosc__fork_node *next;
    struct tosc__fork_node *previous;
};

/*
 * Registers the handlers, as the first tosc__fork_add() does: for who has handlers of his own
 * that must come before these.
 */
void tosc__fork_install(void);
void tosc__fork_add(struct tosc__fork_node *node);
void tosc__fork_remove(struct tosc__fork_node *node);

#endif
