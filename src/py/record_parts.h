/*
 * What encoding and decoding a record have in common. The layout is described in
 * docs/records.md; encode.c has it in short.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_RECORD_PARTS_H
#define TOSC_PY_RECORD_PARTS_H

#include "codec.h"

#define RECORD_MAGIC "TSC1"
#define RECORD_HEADER 32
#define RECORD_MAC 32

/* Codes beside enum op_code. */
#define CODE_DEFINE 8 /* the whole state of an object */
#define CODE_EARLY 9  /* the same, ahead of the segment in which it is hashed */

/*
 * HMAC-SHA256 of a record: new bytes. A base starts a chain: the next record's HMAC covers
 * the base's chain value, and each further one's the HMAC before it. A compacted base takes
 * over the value that the records behind it were made with.
 */
PyObject *record_mac(PyObject *key, const char *header, const char *chain,
                     const char *body, size_t size);
/* In a time that does not tell where they differ. */
bool record_same_mac(PyObject *mac, const char *stored);

#endif
