/*
 * How fast something is sent lately, from counters that only grow
 *
 * Pure: time is passed in, nanoseconds on one monotonic clock.  A meter has one
 * user at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_SPEED_METER_H
#define MIGRATION_BASE_SPEED_METER_H

typedef struct SpeedMeter {
    int64_t since_ns;           /* what the present period began with */
    uint64_t bytes;
    uint64_t pages;
    uint64_t seen;              /* bytes, when it was measured last */
    int64_t changed_ns;         /* when there were more than before */
    double mbps;                /* 10^6 bits/s in the last period */
    double pages_per_second;    /* the same period */
} SpeedMeter;

/* A period begins; what was measured before stays. */
void speed_meter_begin(SpeedMeter *m, int64_t now_ns, uint64_t bytes,
                       uint64_t pages);

/*
 * @bytes and @pages were sent so far, at most @limit bytes/s in pieces of
 * @piece bytes; a @limit of 0 is none.  True if a period has ended: then the
 * speeds are those of that period.  At a limit it ends when a piece was sent,
 * so that no part of one is counted, or when none has been for too long.
 */
bool speed_meter_measure(SpeedMeter *m, int64_t now_ns, uint64_t bytes,
                         uint64_t pages, uint64_t limit, uint64_t piece);

#endif
