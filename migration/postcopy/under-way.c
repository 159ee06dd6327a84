/*
 * What the background has sent lately
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitops.h"
#include "under-way.h"

/* A run: its region, its first page, and how many pages it has */
#define REGION_BITS 16
#define FIRST_BITS 36
#define COUNT_BITS 12
QEMU_BUILD_BUG_ON(REGION_BITS + FIRST_BITS + COUNT_BITS != 64);

/* The region and the page that a word begins with, as one number */
static bool place_of(const RamRegion *r, uint64_t page, uint64_t *place)
{
    *place = (uint64_t)r->index << FIRST_BITS | page;
    return r->index < 1u << REGION_BITS && page < 1ull << FIRST_BITS;
}

void under_way_clear(UnderWay *u)
{
    *u = (UnderWay) { };
}

void under_way_note(UnderWay *u, const RamRegion *r, uint64_t first,
                    uint64_t count)
{
    uint64_t most = MAKE_64BIT_MASK(0, COUNT_BITS), place;

    if (place_of(r, first, &place)) {
        qatomic_set_u64(&u->runs[u->next++ % UNDER_WAY_RUNS],
                        place << COUNT_BITS | MIN(count, most));
    }
}

bool under_way_has(const UnderWay *u, const RamRegion *r, uint64_t page)
{
    uint64_t place;

    if (!place_of(r, page, &place)) {
        return false;
    }
    for (unsigned i = 0; i < UNDER_WAY_RUNS; i++) {
        uint64_t run = qatomic_read_u64(&u->runs[i]);

        /* What lies before a run is far behind it, if one counts so. */
        if (place - (run >> COUNT_BITS) <
            (run & MAKE_64BIT_MASK(0, COUNT_BITS))) {
            return true;
        }
    }
    return false;
}
