/*
 * A limit of so many bytes a second, kept to on average
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "rate.h"

/* Longer waits than this (31 years) are not told apart. */
#define RATE_WAIT_MAX_NS 1e18
/* As many bytes are as good as no limit. */
#define RATE_ROOM_MAX 1e18

void rate_set(Rate *rate, uint64_t bytes_per_s)
{
    *rate = (Rate) { .bytes_per_s = bytes_per_s };
}

/* A clock that went back counts as one that did not advance. */
static double ahead_at(const Rate *rate, int64_t now_ns)
{
    double passed = now_ns > rate->at_ns ? now_ns - rate->at_ns : 0;

    return MAX(rate->ahead_ns - passed, -(double)RATE_CREDIT_NS);
}

void rate_spend(Rate *rate, uint64_t bytes, int64_t now_ns)
{
    if (!rate->bytes_per_s) {
        return;
    }
    if (!rate->started) {
        rate->started = true;
        rate->at_ns = now_ns;
    }
    /*
     * A few bytes are less than a nanosecond's worth.  They are not lost:
     * what is added to stays small, so that a double holds them.
     */
    rate->ahead_ns = ahead_at(rate, now_ns) +
        (double)bytes * NANOSECONDS_PER_SECOND / rate->bytes_per_s;
    rate->at_ns = MAX(rate->at_ns, now_ns);
}

uint64_t rate_wait_ns(const Rate *rate, int64_t now_ns)
{
    double ahead;

    if (!rate->started) {
        return 0;
    }
    ahead = ahead_at(rate, now_ns);
    return ahead < RATE_GRANULE_NS ? 0 : MIN(ahead, RATE_WAIT_MAX_NS);
}

uint64_t rate_room(const Rate *rate, int64_t now_ns, int64_t ns)
{
    double ahead = rate->started ? ahead_at(rate, now_ns) : 0, bytes;

    if (!rate->bytes_per_s) {
        return UINT64_MAX;
    }
    bytes = MAX(ns + RATE_GRANULE_NS - ahead, 0) * rate->bytes_per_s /
            NANOSECONDS_PER_SECOND;
    return bytes < RATE_ROOM_MAX ? bytes : UINT64_MAX;
}
