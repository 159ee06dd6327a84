/*
 * Inventories: what a side of a migration is made of, as bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "inventory.h"

/* The length of an item that the head of it does not count */
#define ITEM_PREFIX offsetof(WireInventoryItem, flags)

static void item_clear(void *opaque)
{
    InventoryItem *item = opaque;

    g_free(item->name);
    g_free(item->text);
}

static size_t item_len(const InventoryItem *item)
{
    return sizeof(WireInventoryItem) + 1 + strlen(item->name) + 1 +
           strlen(item->text);
}

static void append_item(Inventory *inventory, const InventoryItem *item)
{
    g_array_append_vals(inventory->items, item, 1);
    inventory->bytes += item_len(item);
}

Inventory *inventory_new(void)
{
    Inventory *inventory = g_new0(Inventory, 1);

    inventory->items = g_array_new(false, false, sizeof(InventoryItem));
    g_array_set_clear_func(inventory->items, item_clear);
    return inventory;
}

void inventory_free(Inventory *inventory)
{
    if (inventory) {
        g_array_free(inventory->items, true);
        g_free(inventory);
    }
}

InventoryItem *inventory_add(Inventory *inventory, uint8_t kind,
                             const char *name, const char *text)
{
    InventoryItem item = {
        .kind = kind,
        .name = g_strndup(name, WIRE_NAME_MAX),
        .text = g_strndup(text ?: "", WIRE_NAME_MAX),
    };

    append_item(inventory, &item);
    return &g_array_index(inventory->items, InventoryItem,
                          inventory->items->len - 1);
}

const InventoryItem *inventory_item(const Inventory *inventory, unsigned i)
{
    return i < inventory->items->len
        ? &g_array_index(inventory->items, InventoryItem, i) : NULL;
}

/*
 * Encoding
 */

static void put_string(GByteArray *bytes, const char *text)
{
    uint8_t len = strlen(text);

    g_byte_array_append(bytes, &len, sizeof(len));
    g_byte_array_append(bytes, (const uint8_t *)text, len);
}

static void put_item(GByteArray *bytes, const InventoryItem *item)
{
    WireInventoryItem head = { .kind = item->kind, .flags = item->flags };
    size_t len = sizeof(head) - ITEM_PREFIX + 1 + strlen(item->name) +
                 1 + strlen(item->text);

    stw_be_p(&head.len, len);
    for (int i = 0; i < INVENTORY_VALUES; i++) {
        stq_be_p(&head.value[i], item->value[i]);
    }
    g_byte_array_append(bytes, (uint8_t *)&head, sizeof(head));
    put_string(bytes, item->name);
    put_string(bytes, item->text);
}

bool inventory_fits(const Inventory *inventory)
{
    return sizeof(WireInventory) + inventory->bytes <= WIRE_INVENTORY_MAX &&
           inventory->items->len <= WIRE_INVENTORY_ITEMS_MAX;
}

void inventory_shorten(Inventory *inventory, unsigned count)
{
    unsigned len = inventory->items->len;

    for (unsigned i = count; i < len; i++) {
        inventory->bytes -= item_len(inventory_item(inventory, i));
    }
    g_array_set_size(inventory->items, MIN(count, len));
}

GByteArray *inventory_encode(const Inventory *inventory)
{
    GByteArray *bytes = g_byte_array_new();
    WireInventory head = { 0 };
    uint32_t items = 0, omitted = inventory->omitted;

    g_byte_array_append(bytes, (uint8_t *)&head, sizeof(head));
    INVENTORY_FOREACH(item, inventory) {
        if (items < WIRE_INVENTORY_ITEMS_MAX &&
            bytes->len + item_len(item) <= WIRE_INVENTORY_MAX) {
            put_item(bytes, item);
            items++;
        } else {
            omitted++;
        }
    }
    stl_be_p(&head.len, bytes->len);
    stl_be_p(&head.items, items);
    stl_be_p(&head.omitted, omitted);
    memcpy(bytes->data, &head, sizeof(head));
    return bytes;
}

GByteArray *inventory_encode_types(const GPtrArray *types)
{
    GByteArray *bytes = g_byte_array_new();

    for (unsigned i = 0; i < types->len; i++) {
        const char *type = g_ptr_array_index(types, i);

        if (bytes->len + 1 + strlen(type) <= WIRE_CMD_LAYOUTS_MAX) {
            put_string(bytes, type);
        }
    }
    return bytes;
}

/*
 * Decoding
 */

bool inventory_announced(const uint8_t *bytes, size_t len, uint32_t *total,
                         Error **errp)
{
    *total = 0;
    if (len < sizeof(WireInventory)) {
        return true;
    }
    *total = ldl_be_p(bytes + offsetof(WireInventory, len));
    if (*total < sizeof(WireInventory) || *total > WIRE_INVENTORY_MAX) {
        error_setg(errp, "an inventory of %" PRIu32 " bytes was announced, "
                   "at most %d are possible", *total, WIRE_INVENTORY_MAX);
        return false;
    }
    return true;
}

/* What is left of an item */
typedef struct Rest {
    const uint8_t *at;
    size_t len;
} Rest;

/* A string after its length, without a zero byte; NULL if it is not that. */
static char *take_string(Rest *rest)
{
    size_t len = rest->len ? rest->at[0] : 0;
    const char *text = (const char *)rest->at + 1;

    if (!rest->len || rest->len < 1 + len || memchr(text, 0, len)) {
        return NULL;
    }
    rest->at += 1 + len;
    rest->len -= 1 + len;
    return g_strndup(text, len);
}

/* Takes an item from @rest; one of a kind that is not known is no item. */
static bool take_item(Rest *rest, Inventory *inventory)
{
    InventoryItem item = { 0 };
    Rest body;
    size_t len;

    if (rest->len < ITEM_PREFIX) {
        return false;
    }
    item.kind = rest->at[0];
    len = lduw_be_p(rest->at + offsetof(WireInventoryItem, len));
    if (rest->len - ITEM_PREFIX < len) {
        return false;
    }
    body = (Rest) { rest->at + ITEM_PREFIX, len };
    rest->at += ITEM_PREFIX + len;
    rest->len -= ITEM_PREFIX + len;
    if (!item.kind || item.kind > WIRE_INVENTORY_FIELD) {
        return true;
    }
    if (len < sizeof(WireInventoryItem) - ITEM_PREFIX) {
        return false;
    }
    item.flags = body.at[0];
    for (int i = 0; i < INVENTORY_VALUES; i++) {
        item.value[i] = ldq_be_p(body.at + 1 + i * sizeof(uint64_t));
    }
    body.at += sizeof(WireInventoryItem) - ITEM_PREFIX;
    body.len -= sizeof(WireInventoryItem) - ITEM_PREFIX;
    item.name = take_string(&body);
    item.text = item.name ? take_string(&body) : NULL;
    if (!item.text) {
        g_free(item.name);
        return false;
    }
    append_item(inventory, &item);
    return true;
}

GPtrArray *inventory_decode_types(const uint8_t *bytes, size_t len)
{
    GPtrArray *types = g_ptr_array_new_with_free_func(g_free);
    Rest rest = { bytes, len };

    while (rest.len) {
        char *type = take_string(&rest);

        if (!type) {
            g_ptr_array_free(types, true);
            return NULL;
        }
        g_ptr_array_add(types, type);
    }
    return types;
}

static bool take_items(Rest *rest, uint32_t items, Inventory *inventory,
                       Error **errp)
{
    for (uint32_t i = 0; i < items; i++) {
        if (!take_item(rest, inventory)) {
            error_setg(errp, "item %" PRIu32 " of %" PRIu32 " of the "
                       "inventory is damaged", i + 1, items);
            return false;
        }
    }
    if (rest->len) {
        error_setg(errp, "%zu bytes follow the last item of the inventory",
                   rest->len);
        return false;
    }
    return true;
}

Inventory *inventory_decode(const uint8_t *bytes, size_t len, Error **errp)
{
    g_autoptr(Inventory) inventory = inventory_new();
    uint32_t total, items;
    Rest rest;

    if (!inventory_announced(bytes, len, &total, errp)) {
        return NULL;
    }
    if (!total || total != len) {
        error_setg(errp, "the inventory has %zu bytes instead of %" PRIu32,
                   len, total);
        return NULL;
    }
    items = ldl_be_p(bytes + offsetof(WireInventory, items));
    inventory->omitted = ldl_be_p(bytes + offsetof(WireInventory, omitted));
    if (items > WIRE_INVENTORY_ITEMS_MAX) {
        error_setg(errp, "the inventory has %" PRIu32 " items, at most %d are "
                   "possible", items, WIRE_INVENTORY_ITEMS_MAX);
        return NULL;
    }
    rest = (Rest) { bytes + sizeof(WireInventory),
                    len - sizeof(WireInventory) };
    return take_items(&rest, items, inventory, errp)
        ? g_steal_pointer(&inventory) : NULL;
}
