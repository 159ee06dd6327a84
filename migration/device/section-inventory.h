/*
 * The sections of this VM, for an inventory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_SECTION_INVENTORY_H
#define MIGRATION_DEVICE_SECTION_INVENTORY_H

#include "migration/wire/inventory.h"

/*
 * Adds all sections that there are.  Source: those that would be sent now are
 * marked, with the subsections that they would have, and what stands for the
 * fields of their types (layout.h).  What a section only
 * finds out while it is saved is not known here, nor what is in arrays, behind
 * pointers, and in fields that are no VMState.  BQL.
 */
void section_inventory_source(Inventory *inventory);

/*
 * The same for a destination: sections by all names that they answer to, and
 * for each type the subsections that it can load.  BQL.
 */
void section_inventory_destination(Inventory *inventory);

#endif
