/*
 * The clock by which migration measures
 *
 * The host's monotonic clock, which goes on while the guest is stopped, in
 * nanoseconds, microseconds and milliseconds.  Any thread; no lock.
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

static inline int64_t now_us(void)
{
    return now_ns() / SCALE_US;
}

static inline int64_t now_ms(void)
{
    return now_ns() / SCALE_MS;
}

#endif
