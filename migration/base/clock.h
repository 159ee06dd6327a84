/*
 * The clock by which migration measures
 *
 * Nanoseconds of the host's monotonic clock, which goes on while the guest is
 * stopped.  Any thread; no lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_CLOCK_H
#define MIGRATION_BASE_CLOCK_H

#include "qemu/timer.h"

static inline int64_t now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

#endif
