/*
 * The inventory of this VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_INVENTORY_H
#define MIGRATION_CORE_INVENTORY_H

#include "migration/wire/inventory.h"

/*
 * What this VM is made of now, with what would be in the way of a migration:
 * as the source of one, or as its destination.  The caller frees it.  BQL;
 * some tens of microseconds, and nothing of the guest's changes.
 */
Inventory *inventory_collect(bool source);

/*
 * The fields of sections of these types, as far as there are such.  The caller
 * frees it.  BQL.
 */
Inventory *inventory_layouts(const GPtrArray *types);

#endif
