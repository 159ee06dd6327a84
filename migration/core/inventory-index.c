/*
 * Items of an inventory by what tells them from others of their kind
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "inventory-index.h"

/* What tells an item from others of its kind */
static char *key_for(uint8_t kind, const char *name, const char *text,
                     uint64_t number)
{
    return g_strdup_printf("%u/%" PRIu64 "/%zu/%s/%s", kind, number,
                           strlen(name), name, text);
}

static char *key_of(const InventoryItem *item)
{
    switch (item->kind) {
    case WIRE_INVENTORY_SECTION:
        return key_for(item->kind, item->name, "", item->value[0]);
    case WIRE_INVENTORY_SUBSECTION:
    case WIRE_INVENTORY_BITMAP:
    case WIRE_INVENTORY_LAYOUT:
        return key_for(item->kind, item->name, item->text, 0);
    case WIRE_INVENTORY_MACHINE:
    case WIRE_INVENTORY_CPU:
        return key_for(item->kind, "", "", 0);
    default:
        return key_for(item->kind, item->name, "", 0);
    }
}

GHashTable *inventory_index(const Inventory *inventory)
{
    GHashTable *index = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                              NULL);

    INVENTORY_FOREACH(item, inventory) {
        g_hash_table_insert(index, key_of(item), (void *)item);
    }
    return index;
}

const InventoryItem *inventory_find(GHashTable *index, uint8_t kind,
                                    const char *name, const char *text,
                                    uint64_t number)
{
    g_autofree char *key = key_for(kind, name, text, number);

    return g_hash_table_lookup(index, key);
}

const InventoryItem *inventory_counterpart(GHashTable *index,
                                           const InventoryItem *item)
{
    g_autofree char *key = key_of(item);

    return g_hash_table_lookup(index, key);
}
