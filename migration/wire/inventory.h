/*
 * Inventories: what a side of a migration is made of, as bytes
 *
 * Before any memory is sent the source has the destination send such a list,
 * and compares it with its own (core/inventory-compare.h).  Everything here is
 * pure; any thread may call it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_WIRE_INVENTORY_H
#define MIGRATION_WIRE_INVENTORY_H

#include "wire.h"

#define INVENTORY_VALUES 3

typedef struct InventoryItem {
    uint8_t kind;               /* WIRE_INVENTORY_* */
    uint8_t flags;              /* of that kind */
    char *name, *text;          /* owned; never NULL */
    uint64_t value[INVENTORY_VALUES];
} InventoryItem;

typedef struct Inventory {
    GArray *items;              /* InventoryItem, in the order of the sender */
    size_t bytes;               /* of these items, for inventory_fits() */
    uint32_t omitted;           /* items that had no room */
} Inventory;

Inventory *inventory_new(void);
void inventory_free(Inventory *inventory);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Inventory, inventory_free)

/*
 * Adds an item, without flags and values, and returns it: valid until the next
 * one is added.  @name and @text, which may be NULL, are copied; of what is
 * longer than WIRE_NAME_MAX the beginning is.
 */
InventoryItem *inventory_add(Inventory *inventory, uint8_t kind,
                             const char *name, const char *text);

/* The @i-th item, or NULL if there are fewer. */
const InventoryItem *inventory_item(const Inventory *inventory, unsigned i);

#define INVENTORY_FOREACH(item, inventory) \
    for (const InventoryItem *item = inventory_item(inventory, 0); \
         item && item < (const InventoryItem *)(inventory)->items->data + \
                        (inventory)->items->len; \
         item++)

/*
 * Whether inventory_encode() would leave nothing out.  It may be called after
 * each item that is added: it looks at none of them.
 */
bool inventory_fits(const Inventory *inventory);

/* Only the first @count items are left. */
void inventory_shorten(Inventory *inventory, unsigned count);

/*
 * All of it as a WireInventory, at most WIRE_INVENTORY_MAX bytes.  What does
 * not fit any more is left out, and counted.  The caller frees it.
 */
GByteArray *inventory_encode(const Inventory *inventory);

/*
 * How many bytes there will be, known from the first ones: 0 if @len are not
 * enough to tell.  False if no WireInventory begins like that.
 */
bool inventory_announced(const uint8_t *bytes, size_t len, uint32_t *total,
                         Error **errp);

/*
 * The payload of WIRE_CMD_LAYOUTS: as many of the strings in @types as have
 * room.  The caller frees it.
 */
GByteArray *inventory_encode_types(const GPtrArray *types);

/*
 * The opposite: strings that the array owns; NULL if @bytes are no payload of
 * that kind.
 */
GPtrArray *inventory_decode_types(const uint8_t *bytes, size_t len);

/* The opposite of inventory_encode(); NULL if @bytes are no WireInventory. */
Inventory *inventory_decode(const uint8_t *bytes, size_t len, Error **errp);

#endif
