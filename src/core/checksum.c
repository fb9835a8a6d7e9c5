/*
 * CRC-32C (Castagnoli), by the processor's instruction where there is one, else by
 * tables.
 *
 * The choice is made once, before main. The instruction takes 8 bytes per 3 cycles in one
 * chain, so long runs go in three chains at a time, whose results are joined by shifting
 * the earlier ones over the bytes that the later ones covered (a multiplication in GF(2),
 * done with tables for the one stride that is used).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/checksum.h"

#include <stdbool.h>
#include <string.h>

#include "core/bytes.h"

#define POLYNOMIAL UINT32_C(0x82f63b78)
#define STRIDE 1024 /* bytes in each of the three chains */

static uint32_t slices[8][256];
static uint32_t shift_stride[4][256];

static uint32_t
shift_by_tables(uint32_t crc)
{
    return shift_stride[0][crc & 0xff] ^ shift_stride[1][crc >> 8 & 0xff]
           ^ shift_stride[2][crc >> 16 & 0xff] ^ shift_stride[3][crc >> 24];
}

/* All here work on the raw register, without the inversions before and after. */
static uint32_t
update_portable(uint32_t crc, const unsigned char *at, size_t size)
{
    while (size >= 8) {
        uint64_t word = tosc__get64(at) ^ crc;

        crc = 0;
        for (int i = 0; i < 8; i++) {
            crc ^= slices[7 - i][word >> (8 * i) & 0xff];
        }
        at += 8;
        size -= 8;
    }
    while (size-- > 0) {
        crc = crc >> 8 ^ slices[0][(crc ^ *at++) & 0xff];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint64_t
chain(uint64_t crc, const unsigned char *at)
{
    return __builtin_ia32_crc32di(crc, tosc__get64(at));
}

__attribute__((target("sse4.2"))) static uint32_t
update_sse42(uint32_t crc, const unsigned char *at, size_t size)
{
    uint64_t a = crc;

    while (size >= 3 * STRIDE) {
        uint64_t b = 0;
        uint64_t c = 0;

        for (int i = 0; i < STRIDE; i += 8) {
            a = chain(a, at + i);
            b = chain(b, at + STRIDE + i);
            c = chain(c, at + 2 * STRIDE + i);
        }
        a = shift_by_tables(shift_by_tables((uint32_t)a) ^ (uint32_t)b) ^ c;
        at += 3 * STRIDE;
        size -= 3 * STRIDE;
    }
    while (size >= 8) {
        a = chain(a, at);
        at += 8;
        size -= 8;
    }
    while (size-- > 0) {
        a = __builtin_ia32_crc32qi((uint32_t)a, *at++);
    }
    return (uint32_t)a;
}
#endif

static uint32_t (*update)(uint32_t, const unsigned char *, size_t) = update_portable;

__attribute__((constructor)) static void
prepare(void)
{
    static const unsigned char zeros[STRIDE];

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;

        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        }
        slices[0][i] = crc;
    }
    for (int i = 0; i < 256; i++) {
        for (int k = 1; k < 8; k++) {
            uint32_t before = slices[k - 1][i];

            slices[k][i] = before >> 8 ^ slices[0][before & 0xff];
        }
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int k = 0; k < 4; k++) {
            shift_stride[k][i] = update_portable(i << (8 * k), zeros, STRIDE);
        }
    }
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2")) {
        update = update_sse42;
    }
#endif
}

uint32_t
tosc__crc32c(uint32_t crc, const void *bytes, size_t size)
{
    return ~update(~crc, bytes, size);
}

uint32_t
tosc__crc32c_portable(uint32_t crc, const void *bytes, size_t size)
{
    return ~update_portable(~crc, bytes, size);
}
