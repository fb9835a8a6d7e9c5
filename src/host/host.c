/*
 * The interpreter's life, and the threads that enter it.
 *
 * Entering. A thread of the program that comes for the first time gets a Python thread
 * state, which it keeps until it ends: so its context variables, and with them an open
 * transaction, last from call to call, and to enter again is only to take Python's lock.
 * Threads that Python made, or that the program has given a state itself, use theirs.
 * Inside an entry of the same thread that holds the lock, a further one costs a
 * comparison: the state that has the lock is asked for, as the entry around may have let
 * it go (a paused scope, a foreign function).
 *
 * Life. `state` moves from NEW over STARTING, RUNNING, STOPPING and ENDING to ENDED,
 * never back, but from STARTING to NEW where Python has not been touched yet. `calls`
 * counts the entries that took the lock for themselves. Who enters counts first and looks
 * at the state then; who stops changes the state first and looks at the count then; both
 * sequentially consistent, so that one of them sees the other. A thread that is counted
 * may enter again while stop waits for it, and interrupting scripts is possible as long
 * as it waits. Entries of those who have the lock already, scripts calling C functions,
 * are not counted and are allowed until the interpreter has ended, also where such a
 * function has paused its scope: Python waits for its own threads, or ends them.
 *
 * If the program had initialised Python itself, `joined` is set: then only our own part
 * ends by tosc_host_stop(), and all of it by Python's atexit. `alive` says that there is
 * an interpreter in which a thread's state can be given back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/host.h"

#include "host/life.h"

#include <pthread.h>
#include <stdatomic.h>

enum life {
    LIFE_NEW,
    LIFE_STARTING,
    LIFE_RUNNING,
    LIFE_STOPPING, /* waiting for calls */
    LIFE_ENDING,   /* only Python's own threads may enter */
    LIFE_ENDED
};

static atomic_int state = LIFE_NEW;
static atomic_uint calls; /* entries that stop has to wait for */
static atomic_bool alive;
static bool joined;            /* written while STARTING */
static bool signals_installed; /* the same */

/*
 * Python's main thread: who has started it, or the only one after a fork. Under Python's
 * lock.
 */
static PyThreadState *main_state;
static unsigned long main_thread;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* for `last_left` only */
static pthread_cond_t last_left = PTHREAD_COND_INITIALIZER;

static __thread HostThread self;
static pthread_key_t end_key; /* its destructor is thread_ends() */
static bool has_end_key;      /* written while STARTING */

HostThread *
host_thread(void)
{
    return &self;
}

/* ---- counting calls ---- */

static void
call_ends(HostThread *thread)
{
    thread->counted--;
    if (atomic_fetch_sub(&calls, 1) == 1 && atomic_load(&state) >= LIFE_STOPPING) {
        pthread_mutex_lock(&gate);
        pthread_cond_broadcast(&last_left);
        pthread_mutex_unlock(&gate);
    }
}

/*
 * From its success to call_ends() the interpreter does not end. `latest` is RUNNING, or
 * STOPPING for what is allowed then.
 */
static bool
call_begins(HostThread *thread, enum life latest)
{
    thread->counted++;
    atomic_fetch_add(&calls, 1);
    int life = atomic_load(&state);
    if (thread->counted > 1 || (life >= LIFE_RUNNING && life <= (int)latest)) {
        return true;
    }
    call_ends(thread);
    return false;
}

/* From STOPPING to ENDING, when there are no calls. Python's lock is not held. */
static void
wait_for_calls(void)
{
    pthread_mutex_lock(&gate);
    for (;;) {
        while (atomic_load(&calls) > 0) {
            pthread_cond_wait(&last_left, &gate);
        }
        atomic_store(&state, LIFE_ENDING);
        if (atomic_load(&calls) == 0) {
            break;
        }
        atomic_store(&state, LIFE_STOPPING);
    }
    pthread_mutex_unlock(&gate);
}

/* The same, but not for ever. */
static void
wait_a_moment_for_calls(void)
{
    struct timespec until;
    int result = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    pthread_mutex_lock(&gate);
    while (atomic_load(&calls) > 0 && result == 0) {
        result = pthread_cond_timedwait(&last_left, &gate, &until);
    }
    pthread_mutex_unlock(&gate);
}

void
life_forked(bool usable)
{
    pthread_mutex_init(&gate, NULL);
    pthread_cond_init(&last_left, NULL);
    atomic_store(&calls, (unsigned)self.counted);
    if (usable) {
        main_state = tosc_current_state();
        main_thread = PyThread_get_thread_ident();
        if (atomic_load(&state) == LIFE_STOPPING) {
            atomic_store(&state, LIFE_RUNNING); /* nobody here stops it */
        }
    } else if (atomic_load(&state) > LIFE_STARTING) {
        atomic_store(&state, LIFE_ENDED);
        atomic_store(&alive, false);
    }
}

/* ---- threads ---- */

/* After a fork, Python's main thread can be one whose end is told. */
static void
forget_main_state(const PyThreadState *old)
{
    if (main_state == old) {
        main_state = NULL;
    }
}

/*
 * Python's record of which state is this thread's may be gone before ours, as both are
 * values of pthread keys. The state is then ended under the eyes of a new one, since what
 * it holds may run code that asks for "this thread's state".
 */
static void
end_state(PyThreadState *old)
{
    if (PyGILState_GetThisThreadState() == old) {
        PyEval_RestoreThread(old);
        forget_main_state(old);
        PyThreadState_Clear(old);
        PyThreadState_DeleteCurrent();
        return;
    }
    PyGILState_STATE gil = PyGILState_Ensure();
    forget_main_state(old);
    PyThreadState_Clear(old);
    PyThreadState_Delete(old);
    PyGILState_Release(gil);
}

static void
thread_ends(void *arg)
{
    HostThread *thread = arg;
    thread->noted = false; /* destructors of the program's keys may come in again */
    failure_forget();
    if (thread->made && thread->depth == 0) {
        thread->counted++;
        atomic_fetch_add(&calls, 1);
        if (atomic_load(&state) <= LIFE_STOPPING || (joined && atomic_load(&alive))) {
            end_state(thread->state);
        }
        call_ends(thread);
        thread->made = false;
        thread->attached = false;
    }
}

/* Has thread_ends() called at its end. */
static int
note_thread(HostThread *thread)
{
    if (thread->noted) {
        return 0;
    }
    if (pthread_setspecific(end_key, thread) != 0) {
        return tosc__fail(TOSC_ENOMEM, "no memory for what Python keeps of a thread");
    }
    thread->noted = true;
    return 0;
}

/* Gives it a state, if it has none. Python's lock is not held. */
static int
attach(HostThread *thread)
{
    int status = note_thread(thread);
    if (status < 0 || thread->attached || PyGILState_GetThisThreadState() != NULL) {
        return status;
    }
    thread->state = PyThreadState_New(PyInterpreterState_Main());
    if (thread->state == NULL) {
        return tosc__fail(TOSC_ENOMEM, "no memory for what Python keeps of a thread");
    }
    thread->attached = true;
    thread->made = true;
    return 0;
}

/* ---- entering ---- */

static bool
holds_lock(void)
{
    PyThreadState *current = tosc_current_state();
    return current != NULL && current == PyGILState_GetThisThreadState();
}

static int
tell_closed(void)
{
    static const char *const words[] = {
        [LIFE_NEW] = "Python has not been started: see tosc_host_start()",
        [LIFE_STARTING] = "Python is being started by another thread",
        [LIFE_RUNNING] = "Python was stopped by another thread",
        [LIFE_STOPPING] = "Python is being stopped",
        [LIFE_ENDING] = "Python is being stopped",
        [LIFE_ENDED] = "Python was stopped",
    };
    return tosc__fail(TOSC_ECLOSED, "%s", words[atomic_load(&state)]);
}

static void
take_lock(HostThread *thread, HostEntry *entry)
{
    if (thread->attached) {
        PyEval_RestoreThread(thread->state);
        entry->kind = ENTRY_RESTORED;
    } else {
        entry->gil = PyGILState_Ensure();
        entry->kind = ENTRY_ENSURED;
        thread->state = tosc_current_state();
    }
}

static int __attribute__((noinline))
enter_outermost(HostThread *thread, HostEntry *entry, enum life latest)
{
    int life = atomic_load(&state);
    if (life < LIFE_RUNNING || life > LIFE_ENDING) {
        return tell_closed();
    }
    if (holds_lock()) {
        int status = note_thread(thread);
        if (status == 0) {
            thread->state = tosc_current_state();
            thread->depth++;
            entry->kind = ENTRY_NESTED;
        }
        return status;
    }
    entry->counted = call_begins(thread, latest);
    if (!entry->counted && thread->scope == NULL) {
        return tell_closed();
    }
    int status = attach(thread);
    if (status == 0) {
        take_lock(thread, entry);
        thread->depth++;
    } else if (entry->counted) {
        call_ends(thread);
    }
    return status;
}

static inline int
enter(HostEntry *entry, enum life latest)
{
    HostThread *thread = &self;
    entry->thread = thread;
    if (thread->depth > 0 && tosc_current_state() == thread->state) {
        thread->depth++;
        entry->kind = ENTRY_NESTED;
        return 0;
    }
    return enter_outermost(thread, entry, latest);
}

int
host_enter(HostEntry *entry)
{
    return enter(entry, LIFE_RUNNING);
}

int
host_enter_while_stopping(HostEntry *entry)
{
    return enter(entry, LIFE_STOPPING);
}

int
host_leave(HostEntry *entry, int status)
{
    HostThread *thread = entry->thread;
    if (PyErr_Occurred()) {
        if (status == TOSC_EPYTHON) {
            status = host_failed();
        }
        PyErr_Clear();
    }
    thread->depth--;
    if (entry->kind == ENTRY_NESTED) {
        return status;
    }
    if (entry->kind == ENTRY_RESTORED) {
        PyEval_SaveThread();
    } else {
        PyGILState_Release(entry->gil);
    }
    if (entry->counted) {
        call_ends(thread);
    }
    return status;
}

void
host_unwind(HostThread *thread, const HostThread *before)
{
    if (tosc_current_state() != before->state) {
        PyEval_RestoreThread(before->state);
    }
    while (thread->counted > before->counted) {
        call_ends(thread);
    }
    *thread = *before;
}

/* ---- starting ---- */

void
parts_stop(void)
{
    watches_stop();
    transactions_stop();
    main_stop();
    functions_stop();
    values_stop();
}

/*
 * Called by Python's atexit, last of all: scripts' own functions there may still use the
 * program's. Registered before anything else is.
 */
static PyObject *
interpreter_ends(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    int life = LIFE_RUNNING;
    if (atomic_compare_exchange_strong(&state, &life, LIFE_STOPPING)) {
        /* The program ends Python itself, which then ends the threads that are in it. */
        Py_BEGIN_ALLOW_THREADS
        wait_a_moment_for_calls();
        Py_END_ALLOW_THREADS
        atomic_store(&state, LIFE_ENDED);
    }
    parts_stop();
    atomic_store(&alive, false);
    Py_RETURN_NONE;
}

static PyMethodDef interpreter_ends_def = {"_tosc_host_ends", interpreter_ends,
                                           METH_NOARGS, NULL};

static int
register_end(void)
{
    PyObject *atexit = PyImport_ImportModule("atexit");
    PyObject *function =
        atexit != NULL ? PyCFunction_New(&interpreter_ends_def, NULL) : NULL;
    PyObject *result =
        function != NULL ? PyObject_CallMethod(atexit, "register", "O", function) : NULL;
    Py_XDECREF(result);
    Py_XDECREF(function);
    Py_XDECREF(atexit);
    return result != NULL ? 0 : -1;
}

static int
import_module(const char *name)
{
    PyObject *module = PyImport_ImportModule(name);
    Py_XDECREF(module);
    return module != NULL ? 0 : -1;
}

/* Where Python runs, with its lock held: what both ways of starting need. */
static int
make_ready(void)
{
    /* The thread that imports threading is Python's main thread. */
    if (register_end() < 0 || import_module("threading") < 0
        || config_add_tosc(joined) < 0 || fork_prepare() < 0) {
        return host_failed();
    }
    return 0;
}

/* The start has failed when Python was there already: it cannot be had once more. */
static int
give_up(int status)
{
    atomic_store(&state, LIFE_ENDED);
    return status;
}

static void
finalize(void)
{
    signals_note_end();
    Py_FinalizeEx();
    signals_restore(signals_installed);
}

static int
start_python(const tosc_host_options *options)
{
    int status = config_check(options);
    if (status < 0) {
        atomic_store(&state, LIFE_NEW);
        return status;
    }
    signals_note_start();
    signals_installed = options != NULL && options->install_signal_handlers;
    status = config_start(options);
    if (status < 0) {
        return give_up(status);
    }
    atomic_store(&alive, true);
    status = make_ready();
    if (status == 0) {
        status = config_finish(options);
    }
    if (status < 0) {
        finalize();
        return give_up(status);
    }
    main_state = PyThreadState_Get();
    main_thread = PyThread_get_thread_ident();
    self.state = main_state;
    self.attached =
        true; /* but not `made`: Python's main state lasts as long as Python */
    PyEval_SaveThread();
    return 0;
}

static int
join_python(void)
{
    joined = true;
    PyGILState_STATE gil = PyGILState_Ensure();
    atomic_store(&alive, true);
    int status = make_ready();
    PyGILState_Release(gil);
    return status < 0 ? give_up(status) : status;
}

static int
prepare_threads(void)
{
    if (!has_end_key) {
        if (pthread_key_create(&end_key, thread_ends) != 0) {
            return tosc__fail(TOSC_ENOMEM, "no key for data of threads is left");
        }
        has_end_key = true;
    }
    return note_thread(&self);
}

static int
refuse_start(int life)
{
    if (life == LIFE_RUNNING) {
        return tosc__fail(TOSC_EINVAL, "Python was started before, and is running");
    }
    if (life == LIFE_STARTING) {
        return tosc__fail(TOSC_EINVAL, "Python is being started by another thread");
    }
    return tosc__fail(TOSC_ECLOSED,
                      "Python has ended, or could not be started, and cannot be started "
                      "once more in this process");
}

int
tosc_host_start(const tosc_host_options *options)
{
    int life = LIFE_NEW;
    if (!atomic_compare_exchange_strong(&state, &life, LIFE_STARTING)) {
        return refuse_start(life);
    }
    int status = prepare_threads();
    if (status < 0) {
        atomic_store(&state, LIFE_NEW);
        return status;
    }
    status = Py_IsInitialized() ? join_python() : start_python(options);
    if (status == 0) {
        atomic_store(&state, LIFE_RUNNING);
    }
    return status;
}

bool
tosc_host_is_running(void)
{
    return atomic_load(&state) == LIFE_RUNNING;
}

/* ---- stopping ---- */

/* Why this thread cannot stop: it would wait for itself. */
static int
refuse_stop(const HostThread *thread)
{
    if (thread->depth > 0 || thread->counted > 0 || thread->scope != NULL
        || thread->callbacks > 0) {
        return tosc__fail(TOSC_EINVAL, "this thread is inside a scope, a script or a "
                                       "callback: leave it before stopping");
    }
    if (!joined && !thread->attached && PyGILState_GetThisThreadState() != NULL) {
        return tosc__fail(TOSC_EINVAL, "this thread is one of Python's or of a Manager, "
                                       "and cannot stop them");
    }
    return 0;
}

/* As a counted call: nobody else stops meanwhile. */
static int
prepare_stop(HostThread *thread)
{
    if (!call_begins(thread, LIFE_RUNNING)) {
        return tell_closed();
    }
    int status = joined ? 0 : attach(thread);
    call_ends(thread);
    return status;
}

/*
 * Python's threading waits for the main thread, unless that is the one that ends Python.
 * It does nothing any more, so its end is told by ending its state. (A thread that came
 * later may have got its number: threading takes that for the main thread then.)
 */
static void
end_main_state(const HostThread *thread)
{
    if (main_state != NULL && main_state != thread->state
        && main_thread != PyThread_get_thread_ident()) {
        PyThreadState_Clear(main_state);
        PyThreadState_Delete(main_state);
    }
}

static void
end_python(HostThread *thread)
{
    PyEval_RestoreThread(thread->state);
    end_main_state(thread);
    thread->depth = 1; /* functions of the program that scripts call at their end */
    finalize();
    thread->depth = 0;
    thread->state = NULL;
    thread->attached = false;
    thread->made = false;
}

static void
end_our_part(void)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    parts_stop();
    PyGILState_Release(gil);
}

int
tosc_host_stop(void)
{
    HostThread *thread = &self;
    int life = LIFE_RUNNING;
    if (atomic_load(&state) != LIFE_RUNNING) {
        return tell_closed();
    }
    int status = refuse_stop(thread);
    if (status == 0) {
        status = prepare_stop(thread);
    }
    if (status < 0) {
        return status;
    }
    if (!atomic_compare_exchange_strong(&state, &life, LIFE_STOPPING)) {
        return tell_closed();
    }
    PyThreadState *held = joined && holds_lock() ? PyEval_SaveThread() : NULL;
    wait_for_calls();
    if (held != NULL) {
        PyEval_RestoreThread(held);
    }
    if (joined) {
        end_our_part();
    } else {
        end_python(thread);
    }
    atomic_store(&state, LIFE_ENDED);
    return 0;
}
