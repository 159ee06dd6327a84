/*
 * How long vCPUs waited for pages: each by itself, and all at once
 *
 * Pure: no clock, no lock.  Times are in microseconds of any clock that does
 * not go back.  A vCPU waits for one page at a time; threads of several vCPUs
 * may be one and the same, which then count as one.
 *
 * vCPUs have numbers, which need not be without gaps: some of those that the
 * machine may have can be missing, and be plugged or unplugged meanwhile.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_BLOCKTIME_H
#define MIGRATION_POSTCOPY_BLOCKTIME_H

typedef struct BlocktimeVcpu {
    bool waits;
    uint64_t since_us;
    uint64_t total_us;
    uint64_t count;             /* waits that are over */
} BlocktimeVcpu;

typedef struct Blocktime {
    unsigned present;           /* vCPUs when it began: all, if all wait */
    unsigned possible;          /* their numbers are below this */
    unsigned count;             /* entries with a meaning: those in use */
    unsigned waiting;
    uint64_t all_since_us;      /* while all of them wait */
    uint64_t all_us;            /* while nothing of the guest ran */
    BlocktimeVcpu *vcpus;
    uint64_t others_us;         /* waits of threads that are no vCPU's */
    uint64_t others_count;
} Blocktime;

/*
 * @present vCPUs with numbers below @count, and room for what is plugged later,
 * with numbers below @possible.  Nothing is measured if that is 0.
 */
void blocktime_init(Blocktime *b, unsigned present, unsigned count,
                    unsigned possible);
void blocktime_destroy(Blocktime *b);

/*
 * @vcpu begins to wait; does nothing if it does already, nor with a number that
 * is not possible.
 */
void blocktime_begin(Blocktime *b, unsigned vcpu, uint64_t now_us);

/* It goes on; does nothing if it does not wait. */
void blocktime_end(Blocktime *b, unsigned vcpu, uint64_t now_us);

/* A thread that is no vCPU's has waited for @us. */
void blocktime_other(Blocktime *b, uint64_t us);

/* How long a wait took on average, in ns; 0 if there was none. */
uint64_t blocktime_vcpu_ns(const Blocktime *b, unsigned vcpu);
uint64_t blocktime_others_ns(const Blocktime *b);

#endif
