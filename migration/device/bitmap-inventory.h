/*
 * Dirty bitmaps of disks, for an inventory
 *
 * All under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_BITMAP_INVENTORY_H
#define MIGRATION_DEVICE_BITMAP_INVENTORY_H

#include "migration/wire/inventory.h"

/*
 * The bitmaps that would travel, by their names in the stream.  False with the
 * reason if one of them cannot.  Between this and the end of the function they
 * are busy, unless a migration has them already.
 */
bool bitmap_inventory_source(Inventory *inventory, Error **errp);

/* The nodes that bitmaps can come to, and the bitmaps that are there. */
void bitmap_inventory_destination(Inventory *inventory);

#endif
