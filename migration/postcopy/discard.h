/*
 * What the destination has to discard before the guest runs there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages that are dirty when the guest stops: some have been sent and changed
 * since, others were never sent, but the kernel there may have filled a
 * huge page around their neighbours.  They have to be missing, so that a fault
 * asks for them.  The destination can only discard whole host pages; such a
 * page is sent again as a whole, however little of it is dirty.
 *
 * What was told to be zero and not written to since is not among them.
 */

#ifndef MIGRATION_POSTCOPY_DISCARD_H
#define MIGRATION_POSTCOPY_DISCARD_H

#include "migration/qemu-file.h"
#include "migration/ram/region.h"

/*
 * Makes partly dirty host pages of @regions wholly dirty, and tells @f of all
 * that are, by runs.  Returns how many runs.  The guest is stopped, and the
 * maps are complete.
 */
uint64_t postcopy_discard(const RamRegions *regions, QEMUFile *f);

/* Pages that are not needed here any more, whole host pages */
typedef void PostcopyReleaseFn(void *opaque, const RamRegion *r,
                               uint64_t first, uint64_t count);

#endif
