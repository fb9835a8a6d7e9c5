/*
 * Authentication of records: see record_parts.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record_parts.h"

#include <string.h>

PyObject *
record_mac(PyObject *key, const char *header, const char *chain, const char *body,
           size_t size)
{
    Py_ssize_t total = RECORD_HEADER + RECORD_MAC + (Py_ssize_t)size;
    PyObject *message = PyBytes_FromStringAndSize(NULL, total);
    if (message == NULL) {
        return NULL;
    }
    char *to = PyBytes_AS_STRING(message);
    memcpy(to, header, RECORD_HEADER);
    memcpy(to + RECORD_HEADER, chain, RECORD_MAC);
    memcpy(to + RECORD_HEADER + RECORD_MAC, body, size);
    PyObject *hmac = PyImport_ImportModule("hmac");
    PyObject *mac =
        hmac == NULL ? NULL
                     : PyObject_CallMethod(hmac, "digest", "OOs", key, message, "sha256");
    Py_XDECREF(hmac);
    Py_DECREF(message);
    if (mac != NULL && (!PyBytes_Check(mac) || PyBytes_GET_SIZE(mac) != RECORD_MAC)) {
        Py_CLEAR(mac);
        PyErr_SetString(PyExc_SystemError, "hmac.digest() did not give 32 bytes");
    }
    return mac;
}

bool
record_same_mac(PyObject *mac, const char *stored)
{
    unsigned char difference = 0;
    const char *ours = PyBytes_AS_STRING(mac);
    for (int i = 0; i < RECORD_MAC; i++) {
        difference |= (unsigned char)(ours[i] ^ stored[i]);
    }
    return difference == 0;
}
