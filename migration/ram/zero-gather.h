/*
 * Zero pages of the incoming stream, gathered to ranges before they are cleared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory that was never written to reads as zero already.  To look at it would
 * make the host map it, and of some kinds of memory allocate it, so a
 * destination would need memory for pages that the guest never used.  Which
 * pages of a range exist costs about as much to look up as to look at a few of
 * them; so ranges are gathered first.
 *
 * One thread uses a gathering.  Nobody else may write to the region: there is
 * no guest running.
 */

#ifndef MIGRATION_RAM_ZERO_GATHER_H
#define MIGRATION_RAM_ZERO_GATHER_H

#include "region.h"

/*
 * Anonymous memory: pages from which on it is asked what exists.  Fewer are
 * looked at, which maps the host's page of zeros and allocates nothing.
 */
#define ZERO_GATHER_ASK 16

/* All zero: nothing gathered.  Needs no clean-up. */
typedef struct ZeroGather {
    const RamRegion *region;
    uint64_t first;             /* page */
    uint64_t pages;
} ZeroGather;

/*
 * @pages (at least one) from @first on, which lie in @region, are to be zero.
 * False if they do not follow what is gathered: that must be cleared first.
 */
bool zero_gather_add(ZeroGather *z, const RamRegion *region, uint64_t first,
                     uint64_t pages);

/*
 * Clears the first @max pages gathered, or all there are, and forgets them.
 * Returns how many bytes of them existed and had to be looked at.
 */
uint64_t zero_gather_clear(ZeroGather *z, uint64_t max);

#endif
