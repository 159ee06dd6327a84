/*
 * How much of the guest's memory exists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "blocks.h"
#include "existing.h"

static void add_range(void *opaque, uint64_t offset, uint64_t length)
{
    uint64_t *sum = opaque;

    *sum += length;
}

uint64_t ram_existing_bytes(void)
{
    RamRegions regions;
    uint64_t sum = 0;

    ram_blocks_get(&regions);
    RAM_REGIONS_FOREACH(r, &regions) {
        if (ram_region_here(r) && r->pages) {
            populated_scan(&r->area, POPULATED_BEST, add_range, &sum);
        }
    }
    ram_blocks_free(&regions);
    return sum;
}
