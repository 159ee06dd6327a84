/*
 * What the destination has to discard before the guest runs there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/ram/dirty-claim.h"
#include "migration/savevm.h"
#include "discard.h"
#include "requests.h"

/* Each command is written on its own, so it should be worth that. */
#define RANGES 512
QEMU_BUILD_BUG_ON(RANGES > WIRE_POSTCOPY_DISCARD_RANGES_MAX / 2);

/* Runs of one region that were found and not told of yet */
typedef struct Batch {
    QEMUFile *f;
    const RamRegion *region;
    unsigned count;
    uint64_t start[RANGES], length[RANGES];     /* bytes */
} Batch;

static void tell_batch(Batch *b)
{
    if (b->count) {
        qemu_savevm_send_postcopy_ram_discard(b->f, b->region->name, b->count,
                                              b->start, b->length);
        b->count = 0;
    }
}

/* Whole host pages, as far as the block has them: its end may be in one. */
static void discard_add(Batch *b, uint64_t first, uint64_t end)
{
    const RamRegion *r = b->region;

    end = MIN(ROUND_UP(end, postcopy_unit(r)), MAX(r->max_pages, r->pages));
    b->start[b->count] = first << r->page_bits;
    b->length[b->count] = (end - first) << r->page_bits;
    if (++b->count == RANGES) {
        tell_batch(b);
    }
}

static uint64_t discard_region(Batch *b)
{
    const RamRegion *r = b->region;
    uint64_t at = 0, runs = 0, first, count;

    dirty_map_round(r->map, postcopy_unit(r));
    while ((count = dirty_map_find(r->map, at, UINT64_MAX, &first))) {
        at = first + count;
        discard_add(b, first, at);
        runs++;
    }
    tell_batch(b);
    return runs;
}

uint64_t postcopy_discard(const RamRegions *regions, QEMUFile *f)
{
    g_autofree Batch *b = g_new0(Batch, 1);
    uint64_t runs = 0;

    b->f = f;
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        b->region = r;
        runs += discard_region(b);
    }
    return runs;
}
