/*
 * Items of an inventory by what tells them from others of their kind
 *
 * Pure.  What is found is valid as long as the inventory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_INVENTORY_INDEX_H
#define MIGRATION_CORE_INVENTORY_INDEX_H

#include "migration/wire/inventory.h"

/* The caller frees it with g_hash_table_destroy().  Of equals, the last one. */
GHashTable *inventory_index(const Inventory *inventory);

/*
 * What of @name, @text and @number does not tell items of that @kind from
 * others is "" or 0.  NULL if there is none.
 */
const InventoryItem *inventory_find(GHashTable *index, uint8_t kind,
                                    const char *name, const char *text,
                                    uint64_t number);

/* The one that stands for the same as @item of the other side, or NULL */
const InventoryItem *inventory_counterpart(GHashTable *index,
                                           const InventoryItem *item);

#endif
