/*
 * Unit tests of sections in an inventory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "setup.h"
#include "migration/device/section-inventory.h"
#include "migration/device/sections.h"

typedef struct Inner {
    uint32_t value;
    bool needs_inner;
} Inner;

typedef struct Device {
    bool absent, needs_sub, needs_sub_sub;
    Inner inner;
    Inner *pointer;
    Inner list[2];
} Device;

static bool device_needed(void *opaque)
{
    return !((Device *)opaque)->absent;
}

static bool sub_needed(void *opaque)
{
    return ((Device *)opaque)->needs_sub;
}

static bool sub_sub_needed(void *opaque)
{
    return ((Device *)opaque)->needs_sub_sub;
}

static bool inner_needed(void *opaque)
{
    return ((Inner *)opaque)->needs_inner;
}

static const VMStateDescription vmstate_inner_sub = {
    .name = "inner/sub", .version_id = 1, .needed = inner_needed,
    .fields = (const VMStateField[]) { VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_inner = {
    .name = "inner", .version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(value, Inner),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription *const[]) {
        &vmstate_inner_sub, NULL
    },
};

static const VMStateDescription vmstate_sub_sub = {
    .name = "device/sub/sub", .version_id = 1, .needed = sub_sub_needed,
    .fields = (const VMStateField[]) { VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_sub = {
    .name = "device/sub", .version_id = 1, .needed = sub_needed,
    .fields = (const VMStateField[]) { VMSTATE_END_OF_LIST() },
    .subsections = (const VMStateDescription *const[]) {
        &vmstate_sub_sub, NULL
    },
};

static const VMStateDescription vmstate_device = {
    .name = "device", .version_id = 5, .minimum_version_id = 3,
    .needed = device_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(inner, Device, 1, vmstate_inner, Inner),
        VMSTATE_STRUCT_POINTER(pointer, Device, vmstate_inner, Inner),
        VMSTATE_STRUCT_ARRAY(list, Device, 2, 1, vmstate_inner, Inner),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription *const[]) { &vmstate_sub, NULL },
};

static bool live_active;

static bool is_active(void *opaque)
{
    return live_active;
}

static int live_setup(QEMUFile *f, void *opaque, Error **errp)
{
    return 0;
}

static const SaveVMHandlers live_ops = {
    .save_setup = live_setup, .is_active = is_active,
};

static Device device;

static void fill(void)
{
    const SectionSpec specs[] = {
        { .path = "0000:00:03.0", .name = "device", .instance_id = 0,
          .alias_id = -1, .version_id = 5, .vmsd = &vmstate_device,
          .opaque = &device },
        { .path = "0000:00:04.0", .name = "device", .instance_id = 1,
          .alias_id = 7, .version_id = 5, .vmsd = &vmstate_device,
          .opaque = &device },
        { .name = "live", .instance_id = 0, .alias_id = -1, .version_id = 4,
          .ops = &live_ops },
    };

    memset(&device, 0, sizeof(device));
    live_active = true;
    for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
        section_add(&specs[i], &error_abort);
    }
}

static void empty(void)
{
    Section *s, *after;

    FOR_EACH_SECTION_SAFE(s, after) {
        section_remove(s);
    }
}

static const InventoryItem *find(const Inventory *inventory, uint8_t kind,
                                 const char *name, const char *text,
                                 uint64_t instance)
{
    INVENTORY_FOREACH(item, inventory) {
        if (item->kind == kind && !strcmp(item->name, name) &&
            !strcmp(item->text, text) && item->value[0] == instance) {
            return item;
        }
    }
    return NULL;
}

static const InventoryItem *section(const Inventory *inventory,
                                    const char *name, const char *type,
                                    uint64_t instance)
{
    const InventoryItem *item = find(inventory, WIRE_INVENTORY_SECTION, name,
                                     type, instance);

    g_assert_nonnull(item);
    return item;
}

static void test_source(void)
{
    g_autoptr(Inventory) inventory = inventory_new();
    const InventoryItem *item;

    fill();
    section_inventory_source(inventory);
    /* three sections, and one type */
    g_assert_cmpuint(inventory->items->len, ==, 4);
    item = section(inventory, "0000:00:03.0/device", "device", 0);
    g_assert_cmpuint(item->flags, ==, WIRE_INVENTORY_SECTION_SENT);
    g_assert_cmpuint(item->value[1], ==, 5);
    g_assert_cmpuint(item->value[2], ==, 3);
    item = section(inventory, "live", "", 0);
    g_assert_cmpuint(item->flags, ==, WIRE_INVENTORY_SECTION_SENT);
    g_assert_cmpuint(item->value[1], ==, 4);
    empty();
}

/* What is not sent now is there, but not marked. */
static void test_not_sent(void)
{
    g_autoptr(Inventory) inventory = inventory_new();

    fill();
    device.absent = true;
    device.needs_sub = true;
    live_active = false;
    section_inventory_source(inventory);
    g_assert_cmpuint(inventory->items->len, ==, 3);
    INVENTORY_FOREACH(item, inventory) {
        g_assert_cmpuint(item->flags, ==, 0);
    }
    empty();
}

static bool has_needed(const char *name)
{
    g_autoptr(Inventory) inventory = inventory_new();

    section_inventory_source(inventory);
    return find(inventory, WIRE_INVENTORY_SUBSECTION, "0000:00:03.0/device",
                name, 0);
}

static void test_subsections(void)
{
    fill();
    g_assert_false(has_needed("device/sub"));
    device.needs_sub_sub = true;
    g_assert_false(has_needed("device/sub/sub"));
    device.needs_sub = true;
    g_assert_true(has_needed("device/sub"));
    g_assert_true(has_needed("device/sub/sub"));
    g_assert_false(has_needed("inner/sub"));
    device.inner.needs_inner = true;
    g_assert_true(has_needed("inner/sub"));
    /* What is not in place is not looked at, and may not be there. */
    device.inner.needs_inner = false;
    device.list[0].needs_inner = true;
    g_assert_false(has_needed("inner/sub"));
    empty();
}

static void test_destination(void)
{
    g_autoptr(Inventory) inventory = inventory_new();
    unsigned known = 0;

    fill();
    section_inventory_destination(inventory);
    g_assert_cmpuint(section(inventory, "0000:00:03.0/device", "device",
                             0)->flags, ==, 0);
    /* the names of old, and another instance */
    g_assert_cmpuint(section(inventory, "device", "device", 0)->flags, ==,
                     WIRE_INVENTORY_SECTION_ALIAS);
    g_assert_cmpuint(section(inventory, "device", "device", 7)->flags, ==,
                     WIRE_INVENTORY_SECTION_ALIAS);
    section(inventory, "0000:00:04.0/device", "device", 7);
    section(inventory, "live", "", 0);
    /* each once, however many devices and structures have it */
    INVENTORY_FOREACH(item, inventory) {
        known += item->kind == WIRE_INVENTORY_SUBSECTION;
    }
    g_assert_cmpuint(known, ==, 3);
    g_assert_nonnull(find(inventory, WIRE_INVENTORY_SUBSECTION, "device",
                          "device/sub", 0));
    g_assert_nonnull(find(inventory, WIRE_INVENTORY_SUBSECTION, "device",
                          "device/sub/sub", 0));
    g_assert_nonnull(find(inventory, WIRE_INVENTORY_SUBSECTION, "device",
                          "inner/sub", 0));
    empty();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/section-inventory/source", test_source);
    g_test_add_func("/section-inventory/not-sent", test_not_sent);
    g_test_add_func("/section-inventory/subsections", test_subsections);
    g_test_add_func("/section-inventory/destination", test_destination);
    return g_test_run();
}
