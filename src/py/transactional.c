/*
 * Running something in a transaction until it succeeds: transact(), and the decorator
 * transactional() over it.
 *
 * Only conflicts are tried again, and only those of our own commit. The first tries are
 * optimistic, with a short random pause between them; after a few the function runs under
 * the backend's exclusive lock, where it cannot conflict any more. A Manager that has seen
 * many conflicts lately begins with the lock: under contention waiting in line is faster,
 * and fairer, than failing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "errors.h"
#include "manager.h"
#include "state.h"

#include <poll.h>
#include <time.h>

#define OPTIMISTIC_TRIES 2
#define LOCK_AT_ONCE \
    12 /* recent conflicts from which on the first try is under the lock */
#define SHORTEST_PAUSE_NS 20000

typedef struct Transactional {
    PyObject_HEAD
    PyObject *dict;
    PyObject *weakrefs;
    PyObject *function;
    PyObject *manager;
    vectorcallfunc vectorcall;
    long long retries;  /* -1: any number */
    int64_t timeout_ns; /* -1: none */
} Transactional;

/* ---- one try ---- */

enum outcome { DONE, FAILED, CONFLICT };

/* Keeps an exception that is set. */
static void
drop_result(Attempt *attempt)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_CLEAR(attempt->result);
    PyErr_Restore(type, value, traceback);
}

static enum outcome
run(Manager *m, Attempt *attempt, int64_t deadline)
{
    Transaction *tx = transaction_new(m);
    if (tx != NULL) {
        tx->deadline = deadline;
    }
    if (tx == NULL || transaction_begin(tx) < 0) {
        Py_XDECREF((PyObject *)tx);
        return FAILED;
    }
    enum outcome outcome = FAILED;
    bool good = attempt->run(attempt) == 0;
    if (tx->state != TX_OPEN) {
        outcome = good ? DONE : FAILED; /* ended by the function itself */
    } else if (!good) {
        transaction_rollback(tx);
    } else if (transaction_commit(tx) == 0) {
        outcome = DONE;
    } else if (PyErr_Occurred() == tosc_state->TransactionError) {
        outcome = CONFLICT;
    }
    if (outcome != DONE) {
        drop_result(attempt);
    }
    Py_DECREF(tx);
    return outcome;
}

static enum outcome
run_locked(Manager *m, Attempt *attempt, int64_t deadline)
{
    if (sync_lock(m, deadline) < 0) {
        return FAILED;
    }
    enum outcome outcome = run(m, attempt, deadline);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    sync_unlock(m);
    PyErr_Restore(type, value, traceback);
    return outcome;
}

/* ---- between tries ---- */

/* The conflict that is set becomes the cause of a new exception. */
static void
give_up(PyObject *type, const char *why, int64_t tries)
{
    PyObject *t1, *cause, *tb1;
    PyErr_Fetch(&t1, &cause, &tb1);
    PyErr_NormalizeException(&t1, &cause, &tb1);
    if (tb1 != NULL) {
        PyException_SetTraceback(cause, tb1);
    }
    PyErr_Format(type, "%s after %lld tries, each of which met another's commit", why,
                 (long long)tries);
    PyObject *t2, *error, *tb2;
    PyErr_Fetch(&t2, &error, &tb2);
    PyErr_NormalizeException(&t2, &error, &tb2);
    PyException_SetCause(error, cause);
    Py_XDECREF(t1);
    Py_XDECREF(tb1);
    PyErr_Restore(t2, error, tb2);
}

static uint64_t
random_below(uint64_t limit)
{
    static _Thread_local uint64_t state;
    if (state == 0) {
        state = (uint64_t)tosc_monotonic_ns() ^ (uint64_t)(uintptr_t)&state ^ 0x9E3779B9u;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

static int
back_off(int64_t tries, int64_t deadline)
{
    int64_t longest = (int64_t)SHORTEST_PAUSE_NS << (tries < 8 ? tries : 8);
    int64_t pause = (int64_t)random_below((uint64_t)longest) + 1;
    if (deadline != INT64_MAX && pause > deadline - tosc_monotonic_ns()) {
        pause = deadline - tosc_monotonic_ns();
    }
    if (pause > 0) {
        struct timespec ts = {0, pause}; /* well below a second */
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&ts, NULL);
        Py_END_ALLOW_THREADS
    }
    return PyErr_CheckSignals();
}

static int
run_until_done(Manager *m, Attempt *attempt, int64_t retries, int64_t deadline)
{
    for (int64_t tries = 1;; tries++) {
        bool locked = tries > OPTIMISTIC_TRIES || m->recent_conflicts >= LOCK_AT_ONCE;
        enum outcome outcome =
            locked ? run_locked(m, attempt, deadline) : run(m, attempt, deadline);
        if (outcome != CONFLICT) {
            return outcome == DONE ? 0 : -1;
        }
        if (retries >= 0 && tries > retries) {
            give_up(tosc_state->TransactionRetryError, "gave up", tries);
            return -1;
        }
        if (deadline != INT64_MAX && tosc_monotonic_ns() >= deadline) {
            give_up(tosc_state->TransactionTimeoutError, "timed out", tries);
            return -1;
        }
        PyErr_Clear();
        if (back_off(tries, deadline) < 0) {
            return -1;
        }
    }
}

int
transact(Manager *m, Attempt *attempt, int64_t retries, int64_t timeout_ns)
{
    if (sync_enter(m) < 0) {
        return -1;
    }
    if (transaction_current(m) != NULL) {
        /* Part of the transaction around it, which alone can be tried again. */
        return run(m, attempt, INT64_MAX) == DONE ? 0 : -1;
    }
    int64_t now = timeout_ns < 0 ? 0 : tosc_monotonic_ns();
    bool limited = timeout_ns >= 0 && timeout_ns < INT64_MAX - now;
    return run_until_done(m, attempt, retries, limited ? now + timeout_ns : INT64_MAX);
}

/* ---- calling a Python function ---- */

typedef struct Call {
    Attempt attempt;
    PyObject *function;
    PyObject *const *args;
    size_t nargsf;
    PyObject *names;
} Call;

static int
call_function(Attempt *attempt)
{
    Call *call = (Call *)attempt;
    attempt->result =
        PyObject_Vectorcall(call->function, call->args, call->nargsf, call->names);
    return attempt->result == NULL ? -1 : 0;
}

static PyObject *
transactional_call(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Transactional *self = (Transactional *)op;
    Call call = {{call_function, NULL}, self->function, args, nargsf, names};
    transact((Manager *)self->manager, &call.attempt, self->retries, self->timeout_ns);
    return call.attempt.result;
}

/* ---- the type ---- */

static PyObject *
transactional_get(PyObject *op, PyObject *object, PyObject *Py_UNUSED(type))
{
    if (object == NULL || object == Py_None) {
        return Py_NewRef(op);
    }
    return PyMethod_New(op, object);
}

static int
transactional_traverse(PyObject *op, visitproc visit, void *arg)
{
    Transactional *self = (Transactional *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->dict);
    Py_VISIT(self->function);
    Py_VISIT(self->manager);
    return 0;
}

static int
transactional_clear(PyObject *op)
{
    Transactional *self = (Transactional *)op;
    Py_CLEAR(self->dict);
    Py_CLEAR(self->function);
    Py_CLEAR(self->manager);
    return 0;
}

static void
transactional_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (((Transactional *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    transactional_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
transactional_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<transactional %R>", ((Transactional *)op)->function);
}

static PyMemberDef transactional_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Transactional, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Transactional, weakrefs), READONLY, NULL},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Transactional, vectorcall), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef transactional_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot transactional_slots[] = {
    {Py_tp_dealloc, transactional_dealloc},
    {Py_tp_traverse, transactional_traverse},
    {Py_tp_clear, transactional_clear},
    {Py_tp_repr, transactional_repr},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, transactional_get},
    {Py_tp_members, transactional_members},
    {Py_tp_getset, transactional_getset},
    {0, NULL},
};

static PyType_Spec transactional_spec = {
    .name = "tosc._Transactional",
    .basicsize = sizeof(Transactional),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
             | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transactional_slots,
};

/* ---- the decorator ---- */

static int
parse_retries(PyObject *value, long long *ret)
{
    *ret = -1;
    if (value == NULL || value == Py_None) {
        return 0;
    }
    if (!PyLong_Check(value) || PyBool_Check(value)) {
        PyErr_Format(PyExc_TypeError,
                     "retries must be a positive int or None, not %.100s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    int overflow;
    *ret = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow > 0) {
        *ret = -1; /* as good as no limit */
        return 0;
    }
    if (overflow < 0 || *ret <= 0) {
        PyErr_Format(PyExc_ValueError, "retries must be positive, not %R", value);
        return -1;
    }
    return 0;
}

static int
parse_timeout(PyObject *value, int64_t *ret)
{
    *ret = -1;
    if (value == NULL || value == Py_None) {
        return 0;
    }
    if ((!PyLong_Check(value) && !PyFloat_Check(value)) || PyBool_Check(value)) {
        PyErr_Format(
            PyExc_TypeError,
            "timeout must be a number of seconds (int or float) or None, not %.100s",
            Py_TYPE(value)->tp_name);
        return -1;
    }
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(seconds > 0)) { /* not a number is refused as well */
        PyErr_Format(PyExc_ValueError, "timeout must be positive, not %R", value);
        return -1;
    }
    *ret = seconds > 1e9 ? -1 : (int64_t)(seconds * 1e9);
    return 0;
}

static PyObject *
make(PyObject *function, PyObject *manager, long long retries, int64_t timeout_ns)
{
    PyTypeObject *type = tosc_state->Transactional_Type;
    Transactional *self = (Transactional *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->function = Py_NewRef(function);
    self->manager = Py_NewRef(manager);
    self->vectorcall = transactional_call;
    self->retries = retries;
    self->timeout_ns = timeout_ns;
    PyObject *done = PyObject_CallFunctionObjArgs(tosc_state->functools_update_wrapper,
                                                  (PyObject *)self, function, NULL);
    if (done == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    Py_DECREF(done);
    return (PyObject *)self;
}

/* decorator(function), bound to a tuple (manager, retries, timeout in ns). */
static PyObject *
decorate(PyObject *settings, PyObject *function)
{
    PyObject *manager;
    long long retries;
    long long timeout_ns;
    if (!PyArg_ParseTuple(settings, "OLL", &manager, &retries, &timeout_ns)) {
        return NULL;
    }
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError,
                     "transactional() decorates functions, not %.100s objects",
                     Py_TYPE(function)->tp_name);
        return NULL;
    }
    PyObject *inspect = PyImport_ImportModule("inspect");
    PyObject *answer =
        inspect == NULL
            ? NULL
            : PyObject_CallMethod(inspect, "iscoroutinefunction", "O", function);
    PyObject *other = answer == NULL ? NULL
                                     : PyObject_CallMethod(inspect, "isgeneratorfunction",
                                                           "O", function);
    Py_XDECREF(inspect);
    bool unsuited = answer == Py_True || other == Py_True;
    Py_XDECREF(answer);
    Py_XDECREF(other);
    if (other == NULL) {
        return NULL;
    }
    if (unsuited) {
        PyErr_SetString(
            PyExc_TypeError,
            "transactional() cannot decorate a coroutine or generator function: "
            "its body runs after the call; use 'with manager.transaction():' in it");
        return NULL;
    }
    return make(function, manager, retries, timeout_ns);
}

static PyMethodDef decorate_def = {"decorator", decorate, METH_O, NULL};

PyDoc_STRVAR(
    transactional_doc,
    "transactional(manager, retries=None, timeout=None)\n--\n\n"
    "Decorator: run the function in a transaction of `manager` until it succeeds.\n\n"
    "A conflict with somebody else's commit rolls back and runs the function again,\n"
    "so it should have no other effects than on stored objects. retries: a positive\n"
    "int, how many times it is run again before TransactionRetryError is raised.\n"
    "timeout: seconds (int or float) from the call, after which\n"
    "TransactionTimeoutError is raised instead of trying again or of waiting further.\n"
    "All other exceptions end the call with nothing changed. Called inside a\n"
    "transaction of the same Manager it runs as a nested block, once.");

static PyObject *
transactional(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"manager", "retries", "timeout", NULL};
    PyObject *manager;
    PyObject *retries_arg = NULL;
    PyObject *timeout_arg = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:transactional", names, &manager,
                                     &retries_arg, &timeout_arg)) {
        return NULL;
    }
    if (!PyObject_TypeCheck(manager, tosc_state->Manager_Type)) {
        PyErr_Format(PyExc_TypeError, "manager must be a tosc.Manager, not %.100s",
                     Py_TYPE(manager)->tp_name);
        return NULL;
    }
    long long retries;
    int64_t timeout_ns;
    if (parse_retries(retries_arg, &retries) < 0
        || parse_timeout(timeout_arg, &timeout_ns) < 0) {
        return NULL;
    }
    PyObject *settings = Py_BuildValue("(OLL)", manager, retries, (long long)timeout_ns);
    if (settings == NULL) {
        return NULL;
    }
    PyObject *decorator = PyCFunction_New(&decorate_def, settings);
    Py_DECREF(settings);
    return decorator;
}

static PyMethodDef transactional_def = {"transactional",
                                        (PyCFunction)(void (*)(void))transactional,
                                        METH_VARARGS | METH_KEYWORDS, transactional_doc};

int
transactional_init(PyObject *module, ToscState *state)
{
    if (tosc_add_type(module, &state->Transactional_Type, &transactional_spec, NULL, NULL)
        < 0) {
        return -1;
    }
    PyObject *name = PyUnicode_FromString("tosc");
    PyObject *function =
        name == NULL ? NULL : PyCFunction_NewEx(&transactional_def, NULL, name);
    Py_XDECREF(name);
    if (function == NULL) {
        return -1;
    }
    int result = PyModule_AddObjectRef(module, "transactional", function);
    Py_DECREF(function);
    return result;
}
