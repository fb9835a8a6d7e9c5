/*
 * CephBackend: its arguments, its attributes, how it is shown, copied and pickled.
 *
 * The key is passed on to core and not kept: no attribute, repr or message has it. An object
 * that was given one cannot be pickled, as the pickle would have to contain it; one whose key
 * is in a keyring can, and looks for the keyring where it is unpickled.
 *
 * Built without librados, the class is there as well, and core says so when one is made.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backend_object.h"

#include <math.h>

#define LONGEST_SECONDS 3600

typedef struct CephObject {
    BackendObject base;
    bool begun; /* __init__ runs, or has succeeded */
    bool has_key;
    int max_retries;
    /* str, or NULL where None was given; paths are absolute */
    PyObject *client;
    PyObject *mon_host;
    PyObject *pool_name;
    PyObject *obj_name;
    PyObject *conf;
    PyObject *keyring;
    PyObject *name_space;
    double connect_timeout;
    double timeout;
    double lease;
    double poll_interval;
} CephObject;

PyDoc_STRVAR(
    ceph_doc,
    "CephBackend(client, key, mon_host, pool_name, obj_name, max_retries=100, *,\n"
    "            conf=None, keyring=None, namespace=None, connect_timeout=10,\n"
    "            timeout=30, lease=15, poll_interval=1)\n"
    "--\n"
    "\n"
    "A store in one object of a Ceph cluster, shared by all processes, on any\n"
    "machine, that name the same object.\n"
    "\n"
    "The pool must exist; the object is made by the first write. Making a\n"
    "CephBackend connects to the cluster, or shares the connection that the\n"
    "process already has for the same cluster and client.\n"
    "\n"
    "client           Name of the Ceph user, without 'client.'; None: 'admin'.\n"
    "key              Its secret, as Ceph prints it. None: it is in a keyring. The\n"
    "                 key is in no repr and no message.\n"
    "mon_host         Addresses of the monitors, separated by commas. None: as the\n"
    "                 configuration file says.\n"
    "pool_name        The pool, replicated (an erasure-coded one cannot append).\n"
    "obj_name         The object that holds everything.\n"
    "max_retries      How often a read or a change is tried again when others\n"
    "                 change the object meanwhile.\n"
    "conf             Path of a ceph.conf. None: none if mon_host is given, else\n"
    "                 what CEPH_CONF names, else Ceph's usual places.\n"
    "keyring          Path of the keyring with the key. None: what CEPH_KEYRING\n"
    "                 names, else as the configuration says.\n"
    "namespace        Namespace within the pool. None: the default one.\n"
    "connect_timeout  How long connecting may take, in seconds, and then as long for\n"
    "                 looking at the object.\n"
    "timeout          How long one operation may take; StorageError after that, or\n"
    "                 UnknownOutcomeError if a change may have been stored.\n"
    "lease            After how many seconds the exclusive lock of a process that\n"
    "                 has died is void.\n"
    "poll_interval    Longest pause in seconds between looks for changes, should a\n"
    "                 notice be lost.\n"
    "\n"
    "Times but for poll_interval are rounded up to whole seconds. An object can\n"
    "be pickled if its key is in a keyring.");

/* ---- arguments ---- */

/* A str without null characters, or NULL for None if `optional`: 0, or -1. */
static int
take_text(PyObject **member, PyObject *given, const char *argument, bool optional)
{
    Py_ssize_t size = 0;
    Py_CLEAR(*member);
    if (given == Py_None && optional) {
        return 0;
    }
    if (!PyUnicode_Check(given)) {
        PyErr_Format(PyExc_TypeError, "%s must be str%s, not '%.200s'", argument,
                     optional ? " or None" : "", Py_TYPE(given)->tp_name);
        return -1;
    }
    const char *text = PyUnicode_AsUTF8AndSize(given, &size);
    if (text == NULL || strlen(text) != (size_t)size || size == 0) {
        /* What UnicodeEncodeError has to say contains the text, and this may be the key. */
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s must %s", argument,
                     text == NULL ? "be encodable as UTF-8"
                     : size == 0  ? "not be empty"
                                  : "not contain a null character");
        return -1;
    }
    *member = PyUnicode_FromObject(given);
    return *member != NULL ? 0 : -1;
}

static int
take_path(PyObject **member, PyObject *given, const char *argument)
{
    Py_CLEAR(*member);
    if (given == Py_None) {
        return 0;
    }
    *member = backend_absolute_path(given, argument);
    return *member != NULL ? 0 : -1;
}

/* A number of seconds from `least` to an hour; `given` NULL: as it is. */
static int
take_seconds(double *member, PyObject *given, const char *argument, double least)
{
    if (given == NULL) {
        return 0;
    }
    if (backend_parse_seconds(given, argument, member) < 0) {
        return -1;
    }
    if (*member < least || *member > LONGEST_SECONDS) {
        PyErr_Format(PyExc_ValueError, "%s must be from %s to 3600 seconds: %R", argument,
                     least < 0.5 ? "0.001" : "1", given);
        return -1;
    }
    return 0;
}

static const char *
utf8(PyObject *text)
{
    return text != NULL ? PyUnicode_AsUTF8(text) : NULL;
}

/* The path as the system wants it: *ret NULL for none; 0, or -1 with an exception. */
static int
encode_path(PyObject *path, PyObject **ret)
{
    *ret = path != NULL ? PyUnicode_EncodeFSDefault(path) : NULL;
    return path != NULL && *ret == NULL ? -1 : 0;
}

static tosc_backend *
open_ceph_backend(const CephObject *self, PyObject *key)
{
    tosc_backend *backend = NULL;
    PyObject *conf = NULL;
    PyObject *keyring = NULL;
    if (encode_path(self->conf, &conf) == 0
        && encode_path(self->keyring, &keyring) == 0) {
        tosc_ceph_options options = {
            .client = utf8(self->client),
            .key = utf8(key),
            .keyring = keyring != NULL ? PyBytes_AS_STRING(keyring) : NULL,
            .conf = conf != NULL ? PyBytes_AS_STRING(conf) : NULL,
            .mon_host = utf8(self->mon_host),
            .pool = utf8(self->pool_name),
            .object = utf8(self->obj_name),
            .name_space = utf8(self->name_space),
            .max_retries = self->max_retries,
            .connect_timeout_s = (int)ceil(self->connect_timeout),
            .timeout_s = (int)ceil(self->timeout),
            .lease_s = (int)ceil(self->lease),
            .poll_ms = (int)(self->poll_interval * 1e3),
        };
        int status = 0;
        CALL_CORE(status, tosc_backend_ceph_new(&options, &backend));
        check_status(status);
    }
    Py_XDECREF(keyring);
    Py_XDECREF(conf);
    return backend;
}

struct given {
    PyObject *client;
    PyObject *key;
    PyObject *mon_host;
    PyObject *pool_name;
    PyObject *obj_name;
    PyObject *conf;
    PyObject *keyring;
    PyObject *name_space;
    PyObject *connect_timeout;
    PyObject *timeout;
    PyObject *lease;
    PyObject *poll_interval;
};

static int
take_arguments(CephObject *self, const struct given *given, PyObject **ret_key)
{
    if (self->max_retries < 1) {
        PyErr_Format(PyExc_ValueError, "max_retries must be positive: %d",
                     self->max_retries);
        return -1;
    }
    self->connect_timeout = 10;
    self->timeout = 30;
    self->lease = 15;
    self->poll_interval = 1;
    if (take_text(&self->client, given->client, "client", true) < 0
        || take_text(ret_key, given->key, "key", true) < 0
        || take_text(&self->mon_host, given->mon_host, "mon_host", true) < 0
        || take_text(&self->pool_name, given->pool_name, "pool_name", false) < 0
        || take_text(&self->obj_name, given->obj_name, "obj_name", false) < 0
        || take_text(&self->name_space, given->name_space, "namespace", true) < 0
        || take_path(&self->conf, given->conf, "conf") < 0
        || take_path(&self->keyring, given->keyring, "keyring") < 0) {
        return -1;
    }
    if (take_seconds(&self->connect_timeout, given->connect_timeout, "connect_timeout", 1)
            < 0
        || take_seconds(&self->timeout, given->timeout, "timeout", 1) < 0
        || take_seconds(&self->lease, given->lease, "lease", 1) < 0
        || take_seconds(&self->poll_interval, given->poll_interval, "poll_interval",
                        0.001)
               < 0) {
        return -1;
    }
    self->has_key = *ret_key != NULL;
    return 0;
}

static int
ceph_init(CephObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "client",      "key",   "mon_host",      "pool_name", "obj_name",
        "max_retries", "conf",  "keyring",       "namespace", "connect_timeout",
        "timeout",     "lease", "poll_interval", NULL};
    struct given given = {.conf = Py_None, .keyring = Py_None, .name_space = Py_None};
    PyObject *key = NULL;
    int max_retries = 100;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOOO|i$OOOOOOO:CephBackend", names, &given.client, &given.key,
            &given.mon_host, &given.pool_name, &given.obj_name, &max_retries, &given.conf,
            &given.keyring, &given.name_space, &given.connect_timeout, &given.timeout,
            &given.lease, &given.poll_interval)) {
        return -1;
    }
    if (self->begun) {
        PyErr_SetString(PyExc_RuntimeError, "CephBackend.__init__() was called twice");
        return -1;
    }
    self->begun = true;
    self->max_retries = max_retries;
    tosc_backend *backend = NULL;
    if (take_arguments(self, &given, &key) == 0) {
        backend = open_ceph_backend(self, key);
    }
    Py_XDECREF(key);
    if (backend == NULL) {
        self->begun = false;
        return -1;
    }
    self->base.backend = backend;
    self->base.patience_ms = (int64_t)(self->connect_timeout * 1e3);
    return target_wait_start(&self->base);
}

static void
ceph_dealloc(CephObject *self)
{
    Py_CLEAR(self->client);
    Py_CLEAR(self->mon_host);
    Py_CLEAR(self->pool_name);
    Py_CLEAR(self->obj_name);
    Py_CLEAR(self->conf);
    Py_CLEAR(self->keyring);
    Py_CLEAR(self->name_space);
    backend_object_dealloc(&self->base);
}

/* ---- as text, as state ---- */

/* Adds ", name=value" if there is a value. */
static PyObject *
with_option(PyObject *text, const char *name, PyObject *value)
{
    if (text == NULL || value == NULL) {
        return text;
    }
    PyObject *longer = PyUnicode_FromFormat("%U, %s=%R", text, name, value);
    Py_DECREF(text);
    return longer;
}

static PyObject *
ceph_repr(CephObject *self)
{
    PyObject *text = NULL;
    PyObject *name = PyType_GetName(Py_TYPE(self));
    if (self->base.backend == NULL || name == NULL) {
        text = name != NULL ? PyUnicode_FromFormat("<%U without an object>", name) : NULL;
        Py_XDECREF(name);
        return text;
    }
    text = PyUnicode_FromFormat("%U(client=%R, key=%s, mon_host=%R, pool_name=%R, "
                                "obj_name=%R",
                                name, self->client != NULL ? self->client : Py_None,
                                self->has_key ? "<hidden>" : "None",
                                self->mon_host != NULL ? self->mon_host : Py_None,
                                self->pool_name, self->obj_name);
    Py_DECREF(name);
    text = with_option(text, "conf", self->conf);
    text = with_option(text, "keyring", self->keyring);
    text = with_option(text, "namespace", self->name_space);
    if (text != NULL) {
        PyUnicode_AppendAndDel(&text, PyUnicode_FromString(")"));
    }
    return text;
}

static PyObject *
or_none(PyObject *value)
{
    return value != NULL ? value : Py_None;
}

/* (the arguments of __init__, what a subclass has added) */
static PyObject *
ceph_getstate(CephObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->base.backend == NULL) {
        PyErr_SetString(PyExc_ValueError, "CephBackend.__init__() has not been called");
        return NULL;
    }
    if (self->has_key) {
        PyErr_Format(
            PyExc_TypeError,
            "cannot pickle %s: its key would be in the pickle; keep the key in a "
            "keyring and make the backend with key=None",
            Py_TYPE(self)->tp_name);
        return NULL;
    }
    PyObject *added = backend_subclass_state((PyObject *)self);
    if (added == NULL) {
        return NULL;
    }
    return Py_BuildValue(
        "{s:O,s:O,s:O,s:O,s:O,s:i,s:O,s:O,s:O,s:d,s:d,s:d,s:d,s:N}", "client",
        or_none(self->client), "key", Py_None, "mon_host", or_none(self->mon_host),
        "pool_name", self->pool_name, "obj_name", self->obj_name, "max_retries",
        self->max_retries, "conf", or_none(self->conf), "keyring", or_none(self->keyring),
        "namespace", or_none(self->name_space), "connect_timeout", self->connect_timeout,
        "timeout", self->timeout, "lease", self->lease, "poll_interval",
        self->poll_interval, "subclass", added);
}

static PyObject *
ceph_setstate(CephObject *self, PyObject *state)
{
    return backend_init_from_state((PyObject *)self, (initproc)ceph_init, state) < 0
               ? NULL
               : Py_NewRef(Py_None);
}

static PyMethodDef ceph_methods[] = {
    NATIVE_METHODS,
    {"__getstate__", (PyCFunction)ceph_getstate, METH_NOARGS,
     "What pickle stores. Refuses if the key was given as an argument."},
    {"__setstate__", (PyCFunction)ceph_setstate, METH_O,
     "Open the object that was pickled."},
    {NULL},
};

#define TEXT(name, member, doc) \
    { \
        name, T_OBJECT, offsetof(CephObject, member), READONLY, doc \
    }
#define SECONDS(member, doc) \
    { \
#member, T_DOUBLE, offsetof(CephObject, member), READONLY, doc \
    }

static PyMemberDef ceph_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(BackendObject, weakrefs), READONLY, NULL},
    TEXT("client", client, "Name of the Ceph user, without 'client.', or None."),
    TEXT("mon_host", mon_host, "Addresses of the monitors, or None."),
    TEXT("pool_name", pool_name, "The pool."),
    TEXT("obj_name", obj_name, "The object that holds everything."),
    TEXT("conf", conf, "The configuration file, an absolute path, or None."),
    TEXT("keyring", keyring, "The keyring, an absolute path, or None."),
    TEXT("namespace", name_space, "The namespace within the pool, or None."),
    {"max_retries", T_INT, offsetof(CephObject, max_retries), READONLY,
     "How often a read or a change is tried again when others are faster."},
    SECONDS(connect_timeout, "How long connecting may take, in seconds."),
    SECONDS(timeout, "How long one operation may take, in seconds."),
    SECONDS(lease, "When a dead holder's exclusive lock is void, in seconds."),
    SECONDS(poll_interval, "Longest pause in seconds between looks for changes."),
    {NULL},
};

static PyType_Slot ceph_slots[] = {
    {Py_tp_doc, (void *)ceph_doc},
    {Py_tp_init, ceph_init},
    {Py_tp_dealloc, ceph_dealloc},
    {Py_tp_repr, ceph_repr},
    {Py_tp_methods, ceph_methods},
    {Py_tp_members, ceph_members},
    {0, NULL},
};

static PyType_Spec ceph_spec = {
    .name = "tosc.CephBackend",
    .basicsize = sizeof(CephObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = ceph_slots,
};

/* ---- the module's part ---- */

void
ceph_backend_copy(BackendObject *to, BackendObject *from)
{
    CephObject *copy = (CephObject *)to;
    const CephObject *self = (CephObject *)from;
    copy->base.patience_ms = self->base.patience_ms;
    copy->begun = true;
    copy->has_key = self->has_key;
    copy->max_retries = self->max_retries;
    copy->client = Py_XNewRef(self->client);
    copy->mon_host = Py_XNewRef(self->mon_host);
    copy->pool_name = Py_XNewRef(self->pool_name);
    copy->obj_name = Py_XNewRef(self->obj_name);
    copy->conf = Py_XNewRef(self->conf);
    copy->keyring = Py_XNewRef(self->keyring);
    copy->name_space = Py_XNewRef(self->name_space);
    copy->connect_timeout = self->connect_timeout;
    copy->timeout = self->timeout;
    copy->lease = self->lease;
    copy->poll_interval = self->poll_interval;
}

int
ceph_backend_init(PyObject *module, ToscState *state)
{
    return tosc_add_type(module, &state->CephBackend_Type, &ceph_spec,
                         state->BackendBase_Type, "CephBackend");
}
