/*
 * Memory that the test guest allocates, checks and frees without a pause
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each block is a set of pages with accounts of their own (pages.h) and a seed
 * that is new each time, so that what an earlier owner of the memory left
 * behind is not taken for right.  One thread fills memory with blocks, picked
 * at random, then frees most of them, and begins anew.  All blocks are written
 * to as long as they are there, and checked before they are freed.  All
 * functions may be called from other threads.
 */
#ifndef FERRY_GUEST_CHURN_H
#define FERRY_GUEST_CHURN_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ChurnCount {
    uint64_t blocks;            /* that are there now */
    uint64_t made;              /* ever */
    uint64_t wrong;             /* that were found wrong, ever */
    uint64_t refused;           /* for which there was no memory */
} ChurnCount;

/* Start the thread, which waits for work.  Returns false if it cannot be. */
bool churn_init(void);

/*
 * Use up to @mib MiB from now on; 0: free all.  Returns false, and changes
 * nothing, if it is too much.
 */
bool churn_set(uint64_t mib);

/* Check all blocks that are there. */
void churn_verify(ChurnCount *count);

/* Fill @mib MiB, and free them.  Returns false if there is no memory. */
bool churn_once(uint64_t mib);

#endif
