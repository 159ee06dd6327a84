/*
 * Memory that is unplugged while it is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device whose unplug was requested before the migration goes whenever the
 * guest completes that: before or after the guest has been stopped, and its
 * memory with it.  The peer has been told of the memory and keeps it; what is
 * in there is of no interest, as the guest does not use it any more.
 *
 *  - Precopy: nothing of the region is sent from then on.
 *  - Postcopy: the peer waits for pages that it has discarded or never
 *    received, and may request any of them.  They are sent as zero pages,
 *    which needs no memory here.
 *
 * Calls must not overlap; ram/source.c has a lock for that, which may be taken
 * with the BQL or without.  A region must not be ignored.
 */

#ifndef MIGRATION_RAM_PRESENCE_H
#define MIGRATION_RAM_PRESENCE_H

#include "region.h"

/*
 * The memory of @r goes: nobody may begin to look at it.  @postcopy: as it was
 * given to ram_presence_postcopy() last.  When this returns, nobody is about
 * to clear the dirty log of @r.
 */
void ram_presence_lost(RamRegion *r, bool postcopy);

/*
 * Whether the peer is about to request pages.  Before it is told what to
 * discard (true), and after it was told that there is no postcopy (false).
 * Migration thread, or in its place.
 */
void ram_presence_postcopy(RamRegions *regions, bool postcopy);

#endif
