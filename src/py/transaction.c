/*
 * Transaction: which one belongs to this context, its blocks, its end.
 *
 * A context variable holds the innermost open transaction of the context, of whatever
 * Manager; each points at the one that was open before it. A context that was copied from
 * another one (a task, a thread made inside the block) inherits the variable, but not the
 * transaction: that belongs to the thread and the asyncio task that opened it.
 *
 * A nested block is a Transaction object of its own with `top` pointing at the outermost,
 * which keeps all changes. A block that changes an object which an outer block has changed
 * already works on a Change of its own, with the outer one below it; at its end the upper one
 * is absorbed, or dropped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "errors.h"
#include "manager.h"
#include "state.h"
#include "wrap.h"

/* ---- the transaction of this context ---- */

/* The asyncio task that is running in this thread: borrowed, by its address only; or NULL. */
static PyObject *
running_task(void)
{
    if (tosc_state->current_task == NULL) {
        PyObject *asyncio = NULL;
        if (tosc_dict_get(PyImport_GetModuleDict(), tosc_state->str_asyncio, &asyncio)
            <= 0) {
            PyErr_Clear();
            return NULL;
        }
        tosc_state->current_task = PyObject_GetAttrString(asyncio, "current_task");
        tosc_state->running_loop = PyObject_GetAttrString(asyncio, "_get_running_loop");
        Py_DECREF(asyncio);
        if (tosc_state->current_task == NULL || tosc_state->running_loop == NULL) {
            Py_CLEAR(tosc_state->current_task); /* half imported: ask again next time */
            Py_CLEAR(tosc_state->running_loop);
            PyErr_Clear();
            return NULL;
        }
    }
    PyObject *loop = PyObject_CallNoArgs(tosc_state->running_loop);
    PyObject *task = NULL;
    if (loop != NULL && loop != Py_None) {
        task = PyObject_CallOneArg(tosc_state->current_task, loop);
        Py_XDECREF(task);
    }
    Py_XDECREF(loop);
    PyErr_Clear();
    return task == Py_None ? NULL : task;
}

static bool
is_mine(const Transaction *tx)
{
    return tx->thread == PyThread_get_thread_ident() && tx->task == running_task();
}

/* What the context variable holds: borrowed (the context keeps it), or NULL. */
static Transaction *
innermost(void)
{
    PyObject *value = NULL;
    if (tosc_state->current_var == NULL) {
        return NULL; /* the interpreter ends */
    }
    if (PyContextVar_Get(tosc_state->current_var, NULL, &value) < 0) {
        PyErr_Clear();
        return NULL;
    }
    if (value == NULL) {
        return NULL;
    }
    Py_DECREF(value);
    return value == Py_None ? NULL : (Transaction *)value;
}

/* An open block whose outermost one has ended before it has ended as well. */
static bool
has_ended(const Transaction *tx)
{
    return tx->state == TX_DONE || tx->state == TX_NEW || tx->top->state == TX_DONE;
}

static Transaction *
innermost_of(Manager *m)
{
    Transaction *tx = innermost();
    while (tx != NULL && (tx->manager != m || has_ended(tx) || !is_mine(tx))) {
        tx = tx->outer;
    }
    return tx;
}

Transaction *
transaction_current(Manager *m)
{
    if (m->open_transactions == 0) {
        return NULL;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Transaction *tx = innermost_of(m);
    PyErr_Restore(type, value, traceback);
    return tx == NULL ? NULL : tx->top;
}

static int
set_innermost(Transaction *tx)
{
    PyObject *token =
        PyContextVar_Set(tosc_state->current_var, tx != NULL ? (PyObject *)tx : Py_None);
    Py_XDECREF(token);
    return token == NULL ? -1 : 0;
}

/* ---- changes ---- */

Change *
transaction_find(Transaction *top, DObject *object)
{
    Change *change = object->changes;
    while (change != NULL && change->top != top) {
        change = change->other;
    }
    return change;
}

static void
replace_in_object(Change *old, Change *new)
{
    Change **link = &old->object->changes;
    while (*link != old) {
        link = &(*link)->other;
    }
    if (new != NULL) {
        new->other = old->other;
        *link = new;
    } else {
        *link = old->other;
    }
    old->other = NULL;
}

Change *
transaction_change(Transaction *top, DObject *object)
{
    Change *outer = transaction_find(top, object);
    if (outer != NULL && outer->level == top->depth) {
        return outer;
    }
    PyObject *base = graph_view(object, top);
    Change *change = base == NULL ? NULL : change_new(object, base);
    if (change == NULL) {
        return NULL;
    }
    change->top = top;
    change->level = top->depth;
    change->below = outer;
    if (outer != NULL) {
        replace_in_object(outer, change);
    } else {
        change->other = object->changes;
        object->changes = change;
    }
    change->next = top->changes;
    top->changes = change;
    return change;
}

/* Takes out of the transaction the changes of `level` and deeper: a list linked by `next`. */
static Change *
take_changes(Transaction *top, int level)
{
    Change *taken = NULL;
    Change **link = &top->changes;
    while (*link != NULL) {
        Change *change = *link;
        if (change->level < level) {
            link = &change->next;
            continue;
        }
        *link = change->next;
        change->next = taken;
        taken = change;
    }
    return taken;
}

static void
free_changes(Change *changes)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    while (changes != NULL) {
        Change *next = changes->next;
        change_free(changes);
        changes = next;
    }
    PyErr_Restore(type, value, traceback);
}

/* Back to the state before the blocks of `level` and deeper. */
static void
drop_changes(Transaction *top, int level)
{
    Change *taken = take_changes(top, level);
    for (Change *change = taken; change != NULL; change = change->next) {
        /* Of several of one object only the uppermost is in the object's list. */
        Change *below = change->below;
        while (below != NULL && below->level >= level) {
            below = below->below;
        }
        Change *listed = transaction_find(top, change->object);
        if (listed == change) {
            replace_in_object(change, below);
        }
    }
    free_changes(taken);
}

/* One level's changes become the next outer one's. */
static int
merge_level(Transaction *top, int level)
{
    for (Change *change = top->changes; change != NULL; change = change->next) {
        if (change->level != level) {
            continue;
        }
        Change *below = change->below;
        if (below == NULL || below->level < level - 1) {
            change->level = level - 1;
        } else if (change_absorb(below, change) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
merge_changes(Transaction *top, int level)
{
    for (int inner = top->depth; inner >= level; inner--) {
        if (merge_level(top, inner) < 0) {
            return -1;
        }
        drop_changes(top, inner);
        top->depth = inner - 1;
    }
    return 0;
}

/*
 * Python code that a look-up or a change runs (an __eq__, say) must not end the block that
 * it works in.
 */
static int
check_idle(const Transaction *top, int level)
{
    for (Change *change = top->changes; change != NULL; change = change->next) {
        if (change->level < level) {
            continue;
        }
        if (change->readers > 0 || change->writing
            || (change->below != NULL && change->below->writing)) {
            PyErr_SetString(
                PyExc_RuntimeError,
                "the block cannot end while one of its objects is in use: this "
                "code was called from inside of that");
            return -1;
        }
    }
    return 0;
}

/* ---- begin and end ---- */

Transaction *
transaction_new(Manager *m)
{
    PyTypeObject *type = tosc_state->Transaction_Type;
    Transaction *self = (Transaction *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->manager = (Manager *)Py_NewRef((PyObject *)m);
        self->state = TX_NEW;
        self->deadline = INT64_MAX;
    }
    return self;
}

static void
open_outermost(Transaction *self)
{
    Manager *m = self->manager;
    self->top = self;
    self->level = 0;
    self->depth = 0;
    self->start = m->seq;
    self->at = m->at;
    self->next = m->open;
    if (m->open != NULL) {
        m->open->previous = self;
    }
    m->open = self;
    m->open_transactions++;
}

int
transaction_begin(Transaction *self)
{
    Manager *m = self->manager;
    if (self->state != TX_NEW) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this transaction was begun before: make another one with "
                        "manager.transaction()");
        return -1;
    }
    Transaction *top = transaction_current(m);
    if (top != NULL && top->state == TX_COMMITTING) {
        PyErr_SetString(PyExc_RuntimeError, "the transaction around this one is being "
                                            "committed: nothing can be changed now");
        return -1;
    }
    if ((top == NULL ? sync_freshen(m) : sync_enter(m)) < 0) {
        return -1;
    }
    self->outer = (Transaction *)Py_XNewRef((PyObject *)innermost());
    self->thread = PyThread_get_thread_ident();
    self->task = Py_XNewRef(running_task());
    if (set_innermost(self) < 0) {
        Py_CLEAR(self->outer);
        return -1;
    }
    self->state = TX_OPEN;
    if (top != NULL) {
        self->top = (Transaction *)Py_NewRef((PyObject *)top);
        self->level = ++top->depth;
    } else {
        open_outermost(self);
    }
    return 0;
}

static void
leave_open_list(Transaction *self)
{
    Manager *m = self->manager;
    if (self->previous != NULL) {
        self->previous->next = self->next;
    } else {
        m->open = self->next;
    }
    if (self->next != NULL) {
        self->next->previous = self->previous;
    }
    self->previous = NULL;
    self->next = NULL;
    m->open_transactions--;
}

/* Blocks that were begun in this one and have not been ended: they end with it. */
static void
end_inner_blocks(const Transaction *self)
{
    for (Transaction *tx = innermost(); tx != NULL && tx != self; tx = tx->outer) {
        if (tx->state == TX_OPEN && tx->top == self->top && tx->level > self->level) {
            tx->state = TX_DONE;
            Py_DECREF(tx->top); /* not the last: self has one, or is it */
            tx->top = NULL;
        }
    }
}

/* The innermost block of this context that has not ended becomes the context's again. */
static void
leave_ended_blocks(void)
{
    Transaction *tx = innermost();
    if (tx == NULL || tx->state != TX_DONE) {
        return;
    }
    while (tx != NULL && tx->state == TX_DONE) {
        tx = tx->outer;
    }
    set_innermost(tx);
}

/* Ended: whatever is left of it is dropped. Keeps an exception that is set. */
static void
close_block(Transaction *self)
{
    Manager *m = self->manager;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF(self);
    end_inner_blocks(self);
    self->state = TX_DONE;
    if (self->top == self) {
        leave_open_list(self);
        drop_changes(self, 0);
        RefList drops = {0};
        graph_forget(m, &drops);
        reflist_clear(&drops);
    } else {
        if (self->top->depth >= self->level) {
            drop_changes(self->top, self->level);
            self->top->depth = self->level - 1;
        }
        Py_DECREF(self->top);
    }
    self->top = NULL;
    leave_ended_blocks();
    Py_CLEAR(self->outer);
    Py_CLEAR(self->task);
    Py_DECREF(self);
    PyErr_Restore(type, value, traceback);
}

static int
commit_outermost(Transaction *self)
{
    Manager *m = self->manager;
    if (merge_changes(self, 1) < 0) {
        return -1;
    }
    if (self->changes == NULL) {
        return 0;
    }
    if (turn_is_mine(m) && m->lent) {
        self->state = TX_COMMITTING;
        return sync_commit(m, self->changes, &self->at, self);
    }
    /* Only the lock can be waited for with a limit; without one its price is not paid twice. */
    bool limited = self->deadline != INT64_MAX && m->ops->lock != NULL;
    if ((limited ? sync_lock_as_is(m, self->deadline) : turn_take(m, self->deadline))
        < 0) {
        return -1;
    }
    self->state = TX_COMMITTING;
    int result = sync_commit(m, self->changes, &self->at, self);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (limited) {
        sync_unlock(m);
    } else {
        turn_release(m);
    }
    PyErr_Restore(type, value, traceback);
    return result;
}

int
transaction_can_end(const Transaction *self)
{
    if (self->state != TX_OPEN) {
        PyErr_SetString(PyExc_RuntimeError,
                        self->state == TX_NEW
                            ? "the transaction has not begun: use 'with'"
                            : "the transaction has ended already");
        return -1;
    }
    if (!is_mine(self)) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "a transaction can be ended only by the thread or task that began it");
        return -1;
    }
    return check_idle(self->top, self->level);
}

int
transaction_commit(Transaction *self)
{
    int result;
    if (self->top == self) {
        result = commit_outermost(self);
    } else {
        result = merge_changes(self->top, self->level);
    }
    close_block(self);
    return result;
}

void
transaction_rollback(Transaction *self)
{
    close_block(self);
}

/* ---- the Python type ---- */

static PyObject *
transaction_enter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return transaction_begin((Transaction *)op) < 0 ? NULL : Py_NewRef(op);
}

static PyObject *
transaction_exit(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Transaction *self = (Transaction *)op;
    if (self->state == TX_DONE) {
        Py_RETURN_FALSE; /* commit() or rollback() was called in the block */
    }
    if (transaction_can_end(self) < 0) {
        return NULL;
    }
    if (nargs > 0 && args[0] != Py_None) {
        transaction_rollback(self);
        Py_RETURN_FALSE;
    }
    if (transaction_commit(self) < 0) {
        return NULL;
    }
    Py_RETURN_FALSE;
}

PyDoc_STRVAR(
    commit_doc,
    "commit($self, /)\n--\n\n"
    "End the block now and keep its changes.\n\n"
    "The outermost block stores them; a nested one hands them to the block around it.\n"
    "What follows in the 'with' block is no longer part of the transaction. Blocks\n"
    "until the store has answered. Raises TransactionError if the store was changed\n"
    "meanwhile: then everything is rolled back.");

static PyObject *
transaction_commit_method(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (transaction_can_end((Transaction *)op) < 0
        || transaction_commit((Transaction *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(rollback_doc,
             "rollback($self, /)\n--\n\n"
             "End the block now and drop its changes.\n\n"
             "A nested block's rollback leaves what the block around it has changed.");

static PyObject *
transaction_rollback_method(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (transaction_can_end((Transaction *)op) < 0) {
        return NULL;
    }
    transaction_rollback((Transaction *)op);
    Py_RETURN_NONE;
}

static PyObject *
transaction_get_version(PyObject *op, void *Py_UNUSED(closure))
{
    Transaction *self = (Transaction *)op;
    if (self->top == NULL || !self->top->at.stored) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLongLong(self->top->at.version);
}

static PyObject *
transaction_get_active(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Transaction *)op)->state == TX_OPEN);
}

static PyObject *
transaction_get_manager(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)((Transaction *)op)->manager);
}

static int
transaction_traverse(PyObject *op, visitproc visit, void *arg)
{
    Transaction *self = (Transaction *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->manager);
    Py_VISIT(self->outer);
    Py_VISIT(self->task);
    if (self->top != self) {
        Py_VISIT(self->top);
    }
    for (Change *change = self->changes; change != NULL; change = change->next) {
        Py_VISIT(change->object);
        Py_VISIT(change->base);
        Py_VISIT(change->full);
        Py_VISIT(change->over);
        Py_VISIT(change->tail);
        for (Py_ssize_t i = 0; i < change->ops.count; i++) {
            Py_VISIT(change->ops.items[i].a);
            Py_VISIT(change->ops.items[i].b);
        }
    }
    return 0;
}

static int
transaction_clear(PyObject *op)
{
    Transaction *self = (Transaction *)op;
    if (self->state == TX_OPEN || self->state == TX_COMMITTING) {
        close_block(self);
    }
    Py_CLEAR(self->outer);
    Py_CLEAR(self->task);
    return 0;
}

static void
transaction_dealloc(PyObject *op)
{
    Transaction *self = (Transaction *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (self->state == TX_OPEN || self->state == TX_COMMITTING) {
        Py_SET_REFCNT(op, 1); /* close_block takes and drops a reference */
        Py_INCREF(op);
        close_block(self);
        Py_SET_REFCNT(op, 0);
    }
    transaction_clear(op);
    Py_XDECREF((PyObject *)self->manager);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    transaction_doc,
    "What a 'with manager.transaction():' block is.\n\n"
    "Inside the block the program sees the state as of its start, plus its own\n"
    "changes; nobody else sees these. At the end of the outermost block all changes\n"
    "are stored at once, if the store is still at the version that the transaction\n"
    "started from; else TransactionError is raised and everything is rolled back. An\n"
    "exception in the block rolls back as well and goes on. A nested block that fails\n"
    "takes only its own changes with it. A transaction belongs to the thread and the\n"
    "asyncio task that began it.");

static PyMethodDef transaction_methods[] = {
    {"__enter__", transaction_enter, METH_NOARGS, "Begin the transaction."},
    {"__exit__", (PyCFunction)(void (*)(void))transaction_exit, METH_FASTCALL,
     "Commit, or roll back if the block raised."},
    {"commit", transaction_commit_method, METH_NOARGS, commit_doc},
    {"rollback", transaction_rollback_method, METH_NOARGS, rollback_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef transaction_getset[] = {
    {"manager", transaction_get_manager, NULL, "The Manager that it belongs to.", NULL},
    {"version", transaction_get_version, NULL,
     "The version of the state that it started from; None: the store was empty, or the\n"
     "transaction is not open.",
     NULL},
    {"active", transaction_get_active, NULL, "Whether the block is open.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transaction_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Transaction, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot transaction_slots[] = {
    {Py_tp_doc, (void *)transaction_doc},   {Py_tp_dealloc, transaction_dealloc},
    {Py_tp_traverse, transaction_traverse}, {Py_tp_clear, transaction_clear},
    {Py_tp_methods, transaction_methods},   {Py_tp_getset, transaction_getset},
    {Py_tp_members, transaction_members},   {0, NULL},
};

static PyType_Spec transaction_spec = {
    .name = "tosc.Transaction",
    .basicsize = sizeof(Transaction),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transaction_slots,
};

int
transaction_init(PyObject *module, ToscState *state)
{
    if (state->current_var == NULL) {
        state->current_var = PyContextVar_New("tosc_transaction", NULL);
        if (state->current_var == NULL) {
            return -1;
        }
    }
    return tosc_add_type(module, &state->Transaction_Type, &transaction_spec, NULL,
                         "Transaction");
}
