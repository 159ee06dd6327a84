/*
 * How long faults took
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "latency.h"

static unsigned bucket_of(uint64_t us)
{
    return MIN(63 - clz64(us | 1), LATENCY_BUCKETS - 1);
}

void latency_add(Latency *l, uint64_t us)
{
    l->count++;
    l->sum_us += us;
    l->max_us = MAX(l->max_us, us);
    l->bucket[bucket_of(us)]++;
}

uint64_t latency_mean_ns(const Latency *l)
{
    return l->count ? l->sum_us * 1000 / l->count : 0;
}

void latency_fold(const Latency *l, uint64_t *bucket, unsigned n)
{
    assert(n && n <= LATENCY_BUCKETS);
    memset(bucket, 0, n * sizeof(*bucket));
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        bucket[MIN(i, n - 1)] += l->bucket[i];
    }
}

uint64_t latency_percentile(const Latency *l, unsigned percent)
{
    uint64_t rank = MAX(muldiv64(l->count, percent, 100), 1);
    uint64_t below = 0;

    assert(percent && percent <= 100);
    if (!l->count) {
        return 0;
    }
    for (unsigned i = 0; i < LATENCY_BUCKETS - 1; i++) {
        uint64_t here = l->bucket[i];

        if (below + here >= rank) {
            double share = (double)(rank - below) / here;

            return MIN((uint64_t)((1.0 + share) * (1ull << i)), l->max_us);
        }
        below += here;
    }
    return l->max_us;
}
