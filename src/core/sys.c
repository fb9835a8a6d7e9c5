/*
 * The table of system calls that tests replace to inject faults.
 *
 * What can leave a store half changed goes through here, and nothing else: the cost is
 * one indirect call beside a system call. The C library is the default.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct tosc__sys tosc__sys = {
    .malloc = malloc,
    .pread = pread,
    .pwrite = pwrite,
    .pwritev = pwritev,
    .fdatasync = fdatasync,
    .fsync = fsync,
    .ftruncate = ftruncate,
    .rename = rename,
};
