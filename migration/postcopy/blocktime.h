/*
 * How long vCPUs waited for pages: each by itself, and all at once
 *
 * Pure: no clock, no lock.  Times are in microseconds of any clock that does
 * not go back.  A vCPU waits for one page at a time; threads of several vCPUs
 * may be one and the same, which then count as one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_BLOCKTIME_H
#define MIGRATION_POSTCOPY_BLOCKTIME_H

typedef struct BlocktimeVcpu {
    bool waits;
    uint64_t since_us;
    uint64_t total_us;
} BlocktimeVcpu;

typedef struct Blocktime {
    unsigned count;             /* vCPUs */
    unsigned waiting;
    uint64_t all_since_us;      /* while all of them wait */
    uint64_t all_us;            /* while nothing of the guest ran */
    BlocktimeVcpu *vcpus;
} Blocktime;

void blocktime_init(Blocktime *b, unsigned vcpus);
void blocktime_destroy(Blocktime *b);

/* @vcpu begins to wait; does nothing if it does already. */
void blocktime_begin(Blocktime *b, unsigned vcpu, uint64_t now_us);

/* It goes on; does nothing if it does not wait. */
void blocktime_end(Blocktime *b, unsigned vcpu, uint64_t now_us);

#endif
