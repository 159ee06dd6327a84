/*
 * What a migration would cost, before it is begun
 *
 * From how much memory there is, how fast the guest dirties it and how fast the
 * link is: for each method the time, the downtime, the bytes and the time that
 * the guest loses, each with a range.  Passes are played through, as the
 * migration would take them.
 *
 * Pure: no clock, lock, guest or global.  Bytes, nanoseconds, bytes per second.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_ESTIMATE_H
#define MIGRATION_BASE_ESTIMATE_H

#include "policy.h"

/*
 * How much of the memory was written to at least once within so much time: a
 * few points, each after twice the time of the one before, the first not at 0.
 * A guest that writes to the same pages again dirties less in the second half
 * than in the first.
 */
#define ESTIMATE_POINTS 4

typedef struct EstimatePoint {
    uint64_t ns;
    uint64_t dirtied;
} EstimatePoint;

typedef struct EstimateInput {
    uint64_t memory;            /* bytes that exist */
    EstimatePoint point[ESTIMATE_POINTS];
    unsigned points;            /* at least 1 */
    uint64_t bandwidth;         /* not 0 */
    double bandwidth_off;       /* share by which that may be wrong, below 1 */
    uint64_t max_bandwidth;     /* before the switchover; 0: any */
    uint64_t downtime_ns;       /* the limit */
    PolicyRange fixed;          /* of a downtime: all but memory */
    uint8_t throttle_max;       /* percent */
    unsigned ratio;             /* bytes of memory for 100 compressed */
    uint64_t compress_speed;    /* bytes/s of memory; 0 in both: not known */
} EstimateInput;

typedef enum EstimateMethod {
    ESTIMATE_PRECOPY,
    ESTIMATE_THROTTLE,
    ESTIMATE_COMPRESSION,
    ESTIMATE_POSTCOPY,
    ESTIMATE__COUNT
} EstimateMethod;

/* Ranges are POLICY_NEVER where a migration would not end. */
typedef struct Estimate {
    bool known;                 /* there is something to say of this method */
    PolicyRange total;          /* ns */
    PolicyRange downtime;       /* ns, at the switchover */
    PolicyRange bytes;          /* on the wire */
    PolicyRange lost;           /* ns of the guest's work, downtime excluded */
} Estimate;

void estimate_all(const EstimateInput *in, Estimate out[ESTIMATE__COUNT]);

/*
 * The method that keeps the limit at the least loss of the guest's work, among
 * those that are @enabled; a sentence with the reason goes to @why.
 */
EstimateMethod estimate_pick(const EstimateInput *in,
                             const Estimate all[ESTIMATE__COUNT],
                             const bool enabled[ESTIMATE__COUNT],
                             char why[POLICY_REASON_MAX]);

/* Bytes that are dirtied in @ns, by the points; for tests. */
double estimate_dirtied(const EstimateInput *in, double ns);

#endif
