/*
 * All public headers of libtosc.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TOSC_TOSC_H
#define TOSC_TOSC_H

#include <tosc/backend.h>
#include <tosc/error.h>
#include <tosc/host.h>
#include <tosc/manager.h>
#include <tosc/sys/backend.h>
#include <tosc/value.h>
#include <tosc/version.h>

#endif
