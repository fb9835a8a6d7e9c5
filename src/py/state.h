/*
 * The module's state: types, exceptions, interned names, imported helpers.
 *
 * One X-macro lists every member, so that traverse and clear cannot forget one. There is one
 * module in a process (main interpreter only), so the state is also reached by a plain
 * pointer, `tosc_state`, which is NULL before the module is executed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_STATE_H
#define TOSC_PY_STATE_H

#include "compat.h"

/* clang-format off */
#define TOSC_STATE_TYPES(X) \
    X(DObject_Type) X(DList_Type) X(DDict_Type) X(DSet_Type) X(DByteArray_Type) \
    X(DAny_Type) X(DOpaque_Type) X(DPart_Type) \
    X(DDictKeys_Type) X(DDictValues_Type) X(DDictItems_Type) X(DAttrs_Type) \
    X(OpaqueState_Type) \
    X(Manager_Type) X(Transaction_Type) X(Transactional_Type) X(Unpickler_Type) X(Pickler_Type) \
    X(BackendBase_Type) X(InprocBackend_Type) X(FileBackend_Type) X(CephBackend_Type) \
    X(CBackend_Type)

#define TOSC_STATE_OBJECTS(X) \
    X(Error) X(TransactionError) X(TransactionRetryError) X(TransactionTimeoutError) \
    X(SerializationError) X(StorageError) X(DataError) X(UnknownOutcomeError) \
    X(ClosedError) X(EmptyStoreError) \
    X(storage_errors)    /* dict: builtin OSError subclass -> its StorageError subclass */ \
    X(current_var)       /* ContextVar: innermost open Transaction of this context */ \
    X(leaf_types)        /* tuple of types whose instances never change */ \
    X(published)         /* dict: name -> Manager, see shared.c */ \
    X(any_types)         /* WeakKeyDictionary-like: user's class -> wrapper type */ \
    X(io_BytesIO) X(functools_update_wrapper) \
    X(enum_Enum) X(current_task) X(running_loop) \
    X(str_class) X(str_dict) X(str_slots) X(str_weakref) X(str_persistent_id) X(str_persistent_load) \
    X(str_find_class) X(str_dump) X(str_load) X(str_write) X(str_getvalue) \
    X(str_read) X(str_try_write) X(str_target_wait) X(str_module) X(str_qualname) \
    X(str_reduce_ex) X(str_fields) X(str_asyncio) X(missing_base) X(str_getattr) X(str_setattr) X(str_delattr) X(str_getattribute)
/* clang-format on */

typedef struct ToscState {
#define X(name) PyTypeObject *name;
    TOSC_STATE_TYPES(X)
#undef X
#define X(name) PyObject *name;
    TOSC_STATE_OBJECTS(X)
#undef X
} ToscState;

extern ToscState *tosc_state;

/* Each file that has types or functions adds them to the module; 0 or -1 with an exception. */
int errors_init(PyObject *module, ToscState *state);
int dobject_init(PyObject *module, ToscState *state);
int dlist_init(PyObject *module, ToscState *state);
int ddict_init(PyObject *module, ToscState *state);
int dset_init(PyObject *module, ToscState *state);
int dbytearray_init(PyObject *module, ToscState *state);
int dany_init(PyObject *module, ToscState *state);
int opaque_init(PyObject *module, ToscState *state);
int codec_init(PyObject *module, ToscState *state);
int backends_init(PyObject *module, ToscState *state);
int manager_init(PyObject *module, ToscState *state);
int transaction_init(PyObject *module, ToscState *state);
int transactional_init(PyObject *module, ToscState *state);
int shared_init(PyObject *module, ToscState *state);

/*
 * A heap type of this module from its spec (base NULL: object), kept at *slot and, if `name` is not NULL,
 * added to the module under that name.
 */
int tosc_add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec,
                  PyTypeObject *base, const char *name);

#endif
