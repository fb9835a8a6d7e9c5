/*
 * The opcodes of pickle that our own reader and writer know.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_PY_OPCODES_H
#define TOSC_PY_OPCODES_H

#define OP_PROTO 0x80
#define OP_FRAME 0x95
#define OP_STOP '.'
#define OP_MARK '('
#define OP_NONE 'N'
#define OP_NEWTRUE 0x88
#define OP_NEWFALSE 0x89
#define OP_BININT 'J'
#define OP_BININT1 'K'
#define OP_BININT2 'M'
#define OP_LONG1 0x8a
#define OP_BINFLOAT 'G'
#define OP_SHORT_BINUNICODE 0x8c
#define OP_BINUNICODE 'X'
#define OP_BINUNICODE8 0x8d
#define OP_SHORT_BINBYTES 'C'
#define OP_BINBYTES 'B'
#define OP_BINBYTES8 0x8e
#define OP_BYTEARRAY8 0x96
#define OP_EMPTY_TUPLE ')'
#define OP_TUPLE1 0x85
#define OP_TUPLE2 0x86
#define OP_TUPLE3 0x87
#define OP_TUPLE 't'
#define OP_EMPTY_LIST ']'
#define OP_APPENDS 'e'
#define OP_EMPTY_DICT '}'
#define OP_SETITEMS 'u'
#define OP_EMPTY_SET 0x8f
#define OP_ADDITEMS 0x90
#define OP_BINPERSID 'Q'
#define OP_MEMOIZE 0x94
#define OP_BINGET 'h'
#define OP_LONG_BINGET 'j'

#endif
