/*
 * The RAM blocks of this machine as regions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_BLOCKS_H
#define MIGRATION_RAM_BLOCKS_H

#include "region.h"

/*
 * All migratable blocks, without maps, those that are ignored among them.
 * Free them with ram_blocks_free().  BQL, or in the thread that loads.
 *
 * No reference on a block is held.  If the guest completes the unplug of a
 * device in the middle, see RamPresence.
 */
void ram_blocks_get(RamRegions *regions);

/* Give all regions that are sent clean maps.  False if there is no memory. */
bool ram_blocks_make_maps(RamRegions *regions);

/* Frees the list and the maps. */
void ram_blocks_free(RamRegions *regions);

#endif
