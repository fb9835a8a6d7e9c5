/*
 * Transactions for C: begin, commit and roll back, and tosc_transact().
 *
 * A tosc_transaction is a handle to a Transaction as scripts have them. It belongs to the
 * context of the thread that began it, which lasts from call to call (host.c), so script
 * code that this thread calls takes part in it.
 *
 * A thread may end, or the program stop, before it has ended its transactions. So those
 * that C code has begun are listed for each Python thread state, in a capsule in the
 * state's dict: with the state the list goes, and what stands in it is rolled back. All
 * lists are linked, for transactions_stop(). Everything here is guarded by Python's lock.
 *
 * tosc_transact() has no loop of its own: it is transact() of py/transactional.c, with a
 * C function to call.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "host/managers.h"

#include <stdlib.h>

/* ---- what a thread has begun ---- */

typedef struct Begun {
    void **handles; /* the innermost last */
    size_t count;
    size_t room;
    struct Begun *previous; /* all lists */
    struct Begun *next;
} Begun;

static Begun *all_begun;

/* The list of the thread state that this thread used last, by the state's number. */
static __thread struct {
    uint64_t state;
    Begun *begun;
} known;

#define BEGUN_NAME "tosc.begun"

/*
 * Rolls back the last of them: what is released may run Python code, so it is all that
 * is done.
 */
static void
end_last(Begun *begun)
{
    void *handle = begun->handles[--begun->count];
    PyObject *tx = handle_get(handle, HANDLE_TRANSACTION, "transaction");
    if (tx == NULL) {
        return;
    }
    Py_INCREF(tx);
    handle_unref(handle, HANDLE_TRANSACTION);
    if (((Transaction *)tx)->state == TX_OPEN) {
        transaction_rollback((Transaction *)tx);
    }
    Py_DECREF(tx);
}

void
transactions_stop(void)
{
    Begun *begun = all_begun;
    while (begun != NULL) {
        if (begun->count == 0) {
            begun = begun->next;
        } else {
            end_last(begun);
            begun = all_begun; /* the lists may be others now */
        }
    }
}

/* The thread state ends. */
static void
free_begun(PyObject *capsule)
{
    Begun *begun = PyCapsule_GetPointer(capsule, BEGUN_NAME);
    if (known.begun == begun) {
        known.state = 0;
    }
    while (begun->count > 0) {
        end_last(begun);
    }
    if (begun->previous != NULL) {
        begun->previous->next = begun->next;
    } else {
        all_begun = begun->next;
    }
    if (begun->next != NULL) {
        begun->next->previous = begun->previous;
    }
    free(begun->handles);
    free(begun);
}

static Begun *
make_begun(PyObject *dict, PyObject *key)
{
    Begun *begun = calloc(1, sizeof(*begun));
    PyObject *capsule =
        begun != NULL ? PyCapsule_New(begun, BEGUN_NAME, free_begun) : NULL;
    if (capsule == NULL) {
        free(begun);
        return NULL;
    }
    begun->next = all_begun;
    if (all_begun != NULL) {
        all_begun->previous = begun;
    }
    all_begun = begun;
    int status = PyDict_SetItem(dict, key, capsule);
    Py_DECREF(capsule);
    return status < 0 ? NULL : begun;
}

static Begun *
find_begun(void)
{
    PyObject *dict = PyThreadState_GetDict(); /* borrowed */
    PyObject *key = dict != NULL ? PyUnicode_InternFromString(BEGUN_NAME) : NULL;
    PyObject *capsule = NULL;
    Begun *begun = NULL;
    if (key != NULL && tosc_dict_get(dict, key, &capsule) == 0) {
        begun = make_begun(dict, key);
    } else if (capsule != NULL) {
        begun = PyCapsule_GetPointer(capsule, BEGUN_NAME);
    }
    Py_XDECREF(capsule);
    Py_XDECREF(key);
    return begun;
}

/* The list of the present thread state; NULL: no memory (no exception is left). */
static Begun *
begun_here(void)
{
    uint64_t state = PyThreadState_GetID(PyThreadState_Get());
    if (known.state != state) {
        known.begun = find_begun();
        known.state = known.begun != NULL ? state : 0;
        PyErr_Clear();
    }
    return known.begun;
}

/* Room for one more: 0 or TOSC_ENOMEM. */
static int
begun_reserve(Begun *begun)
{
    if (begun != NULL && begun->count < begun->room) {
        return 0;
    }
    size_t room = begun != NULL ? 2 * begun->room + 4 : 0;
    void **grown = begun != NULL ? realloc(begun->handles, room * sizeof(*grown)) : NULL;
    if (grown == NULL) {
        return tosc__fail(TOSC_ENOMEM, "no memory for one more transaction");
    }
    begun->handles = grown;
    begun->room = room;
    return 0;
}

/* The handle is gone; the transaction a new reference. */
static Transaction *
take_out(Begun *begun, void *handle, PyObject *tx)
{
    Py_INCREF(tx);
    for (size_t i = begun != NULL ? begun->count : 0; i-- > 0;) {
        if (begun->handles[i] == handle) {
            memmove(&begun->handles[i], &begun->handles[i + 1],
                    (--begun->count - i) * sizeof(*begun->handles));
            break;
        }
    }
    handle_unref(handle, HANDLE_TRANSACTION);
    return (Transaction *)tx;
}

/* ---- begin, commit, roll back ---- */

static int
begin(Manager *m, tosc_transaction **ret)
{
    Begun *begun = begun_here();
    int status = begun_reserve(begun);
    if (status < 0) {
        return status;
    }
    Transaction *tx = transaction_new(m);
    if (tx == NULL || transaction_begin(tx) < 0) {
        status = manager_failed(m);
        Py_XDECREF((PyObject *)tx);
        return status;
    }
    void *handle = handle_new(HANDLE_TRANSACTION, Py_NewRef((PyObject *)tx));
    if (handle == NULL) {
        transaction_rollback(tx);
        status = TOSC_ENOMEM;
    } else if (begun_reserve(begun) == 0) { /* a signal handler may have used the room */
        begun->handles[begun->count++] = handle;
        *ret = handle;
    } else {
        transaction_rollback(tx);
        handle_unref(handle, HANDLE_TRANSACTION);
        status = TOSC_ENOMEM;
    }
    Py_DECREF((PyObject *)tx);
    return status;
}

int
tosc_transaction_begin(tosc_manager *manager, tosc_transaction **ret)
{
    HostEntry entry;
    Manager *m;
    if (ret == NULL) {
        return tosc__fail(TOSC_EINVAL, "ret is NULL: there is no place for the result");
    }
    int status = manager_enter(&entry, manager, &m);
    if (status < 0) {
        return status;
    }
    return manager_leave(&entry, m, begin(m, ret));
}

/* Whether this thread can end it now: 0; TOSC_EINVAL, and then all is as it was. */
static int
check_end(const Transaction *tx, bool keep)
{
    if (tx->state == TX_DONE) {
        return 0; /* told by who ends it */
    }
    if (transaction_can_end(tx) < 0) {
        host_failed(); /* for its sentence */
        return TOSC_EINVAL;
    }
    if (keep && tx->top->depth > tx->level) {
        return tosc__fail(TOSC_EINVAL, "a transaction that was begun inside of this one "
                                       "is still open: it has to be ended first");
    }
    return 0;
}

static int
end(Transaction *tx, bool keep)
{
    if (tx->state == TX_DONE) {
        return tosc__fail(TOSC_EINVAL, "the transaction has ended already, with the one "
                                       "around it");
    }
    if (keep) {
        return transaction_commit(tx) < 0 ? manager_failed(tx->manager) : 0;
    }
    transaction_rollback(tx);
    return 0;
}

static int
end_handle(tosc_transaction *transaction, bool keep)
{
    HostEntry entry;
    int status = host_enter(&entry);
    if (status < 0) {
        return status;
    }
    PyObject *object = handle_get(transaction, HANDLE_TRANSACTION, "transaction");
    status = object == NULL ? TOSC_EINVAL : check_end((Transaction *)object, keep);
    if (status == 0) {
        Transaction *tx = take_out(begun_here(), transaction, object);
        Manager *m = (Manager *)Py_NewRef((PyObject *)tx->manager);
        status = end(tx, keep);
        Py_DECREF((PyObject *)tx);
        manager_let_go(m);
    }
    return host_leave(&entry, status);
}

int
tosc_transaction_commit(tosc_transaction *transaction)
{
    return end_handle(transaction, true);
}

int
tosc_transaction_rollback(tosc_transaction *transaction)
{
    return end_handle(transaction, false);
}

/* ---- tosc_transact ---- */

typedef struct CallFunction {
    Attempt attempt;
    Manager *m;
    tosc_manager *manager;
    tosc_transact_fn fn;
    void *arg;
    int status; /* of the failure, if it was not Python's */
} CallFunction;

/* The status of a run, given what the function has returned. */
static int
judge(const CallFunction *call, int status, unsigned long faults, bool scopes_left,
      int blocks)
{
    if (PyErr_Occurred()) { /* by code that uses Python's own interface */
        status = status == 0 || status == TOSC_EPYTHON ? host_failed() : status;
        PyErr_Clear();
    }
    if (status < 0) {
        return host_returned(status, faults);
    }
    if (status > 0) {
        return tosc__fail(TOSC_EINVAL,
                          "the function returned %d, and not 0 or a negative code",
                          status);
    }
    if (!scopes_left) {
        return tosc__fail(TOSC_EINVAL, "the function did not leave a scope");
    }
    const Transaction *top = transaction_current(call->m);
    if (top == NULL || top->depth != blocks) {
        return tosc__fail(TOSC_EINVAL, "the function did not end a transaction that it "
                                       "has begun, or ended one that it has not");
    }
    return 0;
}

static int
call_in_scope(const CallFunction *call, tosc_scope *scope)
{
    HostThread *thread = host_thread();
    PyObject *object;
    tosc_value *root = NULL;
    int stored = stored_read(call->m, &object);
    if (stored < 0) {
        return host_failed();
    }
    int status = stored > 0 ? value_return_borrowed(thread, object, &root) : 0;
    if (status < 0) {
        return status;
    }
    HostThread before = *thread;
    int blocks = transaction_current(call->m)->depth;
    unsigned long faults = tosc__fault_number();
    status = call->fn(call->manager, root, call->arg);
    bool scopes_left = scope_unwind(thread, scope, &before);
    return judge(call, status, faults, scopes_left, blocks);
}

static int
run_function(Attempt *attempt)
{
    CallFunction *call = (CallFunction *)attempt;
    tosc_scope scope;
    call->status = tosc_scope_enter(&scope);
    if (call->status == 0) {
        call->status = call_in_scope(call, &scope);
        tosc_scope_leave(&scope);
    }
    return call->status < 0 ? -1 : 0;
}

static int
check_limits(const tosc_transact_options *options)
{
    if (options->retries < -1) {
        return tosc__fail(TOSC_EINVAL, "retries must be positive, 0 for no limit, or -1 "
                                       "for none at all");
    }
    if (options->timeout_ms < 0) {
        return tosc__fail(TOSC_EINVAL, "timeout_ms must be positive, or 0 for no limit");
    }
    return 0;
}

int
tosc_transact(tosc_manager *manager, tosc_transact_fn fn, void *arg,
              const tosc_transact_options *options)
{
    const tosc_transact_options no_limits = {0};
    HostEntry entry;
    Manager *m;
    options = options != NULL ? options : &no_limits;
    int status = check_limits(options);
    if (status == 0 && fn == NULL) {
        status = tosc__fail(TOSC_EINVAL, "fn is NULL");
    }
    if (status == 0) {
        status = manager_enter(&entry, manager, &m);
    }
    if (status < 0) {
        return status;
    }
    CallFunction call = {{run_function, NULL}, m, manager, fn, arg, 0};
    int64_t retries = options->retries > 0 ? options->retries : -1 - options->retries;
    int64_t timeout_ns = options->timeout_ms == 0 ? -1
                         : options->timeout_ms > INT64_MAX / 1000000
                             ? INT64_MAX
                             : options->timeout_ms * 1000000;
    if (transact(m, &call.attempt, retries, timeout_ns) < 0) {
        status = call.status < 0 ? call.status : TOSC_EPYTHON;
    }
    return manager_leave(&entry, m, status);
}
