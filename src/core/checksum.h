/* CRC-32C, which guards everything that a store keeps. Private to core. */
#ifndef TOSC_CORE_CHECKSUM_H
#define TOSC_CORE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/*
 * The checksum of `size` bytes that follow bytes whose checksum is `crc` (0: nothing
 * before). So crc(a ‖ b) is tosc__crc32c(tosc__crc32c(0, a, …), b, …).
 */
uint32_t tosc__crc32c(uint32_t crc, const void *bytes, size_t size);

/* The same without the processor's help, for tests and for other machines. */
uint32_t tosc__crc32c_portable(uint32_t crc, const void *bytes, size_t size);

#endif
