/*
 * Memory that is unplugged while it is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "presence.h"

void ram_presence_lost(RamRegion *r, bool postcopy)
{
    if (ram_region_here(r)) {
        qatomic_set(&r->presence, postcopy ? RAM_GONE_ZERO : RAM_GONE);
        dirty_map_detach(r->map);
    }
}

/*
 * All of it: the peer may not have been told of what nobody ever wrote to, and
 * what was sent is worth nothing.
 */
static void send_as_zero(RamRegion *r)
{
    dirty_map_set(r->map, 0, r->pages);
    qatomic_set_u64(&r->untold_pages, 0);
    qatomic_set(&r->presence, RAM_GONE_ZERO);
}

void ram_presence_postcopy(RamRegions *regions, bool postcopy)
{
    RAM_REGIONS_FOREACH(r, regions) {
        RamPresence now = qatomic_read(&r->presence);

        if (postcopy && now == RAM_GONE) {
            send_as_zero(r);
        } else if (!postcopy && now == RAM_GONE_ZERO) {
            qatomic_set(&r->presence, RAM_GONE);
        }
    }
}
