/*
 * How long faults took: a histogram in powers of two, and what follows from it
 *
 * Pure: no clock, no lock.  Times are in microseconds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_LATENCY_H
#define MIGRATION_POSTCOPY_LATENCY_H

/* The last one holds all that is longer: 2^31 us are 36 minutes. */
#define LATENCY_BUCKETS 32

typedef struct Latency {
    uint64_t count;
    uint64_t sum_us;
    uint64_t max_us;
    /* [i]: from 2^i to below 2^(i+1); the first one holds 0 as well */
    uint64_t bucket[LATENCY_BUCKETS];
} Latency;

void latency_add(Latency *l, uint64_t us);

/* On average, in nanoseconds; 0 if there were none. */
uint64_t latency_mean_ns(const Latency *l);

/* Fills @n (1..LATENCY_BUCKETS) buckets; the last one takes all longer ones. */
void latency_fold(const Latency *l, uint64_t *bucket, unsigned n);

/*
 * What @percent (1..100) of all took at most.  Inside of a bucket they are
 * taken to be spread evenly, so this is off by less than factor two; never more
 * than the longest.  Zero if there were none.
 */
uint64_t latency_percentile(const Latency *l, unsigned percent);

#endif
