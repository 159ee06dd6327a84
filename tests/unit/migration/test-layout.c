/*
 * Unit tests of the layout of the state of devices: two builds of a device are
 * compared as both sides of a migration do it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "setup.h"
#include "migration/core/layout-compare.h"
#include "migration/device/layout.h"
#include "migration/device/section-inventory.h"
#include "migration/device/sections.h"

typedef struct Part {
    uint8_t small;
    uint32_t large;
} Part;

typedef struct Device {
    uint8_t a8, b8[8];
    uint16_t a16;
    uint32_t a32, b32, c32, list[4], number;
    uint64_t a64;
    int64_t signed64;
    uint8_t *bytes;
    Part part, parts[3];
    QEMUTimer *timer;
} Device;

static Device device;

static bool is_never(void *opaque, int version_id)
{
    return false;
}

static bool is_needed(void *opaque)
{
    return true;
}

/* Nobody but them knows what they write. */
static const VMStateInfo own_functions = { .name = "own-functions" };

#define DESCRIPTION(variable, name_, version, oldest, ...)          \
    static const VMStateDescription variable = {                    \
        .name = name_, .version_id = version,                       \
        .minimum_version_id = oldest, .needed = is_needed,          \
        .fields = (const VMStateField[]) {                          \
            __VA_ARGS__,                                            \
            VMSTATE_END_OF_LIST()                                   \
        },                                                          \
    }

#define A8 VMSTATE_UINT8(a8, Device)
#define A16 VMSTATE_UINT16(a16, Device)
#define A32 VMSTATE_UINT32(a32, Device)
#define B32 VMSTATE_UINT32(b32, Device)
#define C32 VMSTATE_UINT32(c32, Device)
#define A64 VMSTATE_UINT64(a64, Device)
#define MAYBE_C32 VMSTATE_UINT32_TEST(c32, Device, is_never)
#define TIMER VMSTATE_SINGLE(timer, Device, 0, own_functions, QEMUTimer *)

DESCRIPTION(part, "part", 1, 1, VMSTATE_UINT8(small, Part),
            VMSTATE_UINT32(large, Part));
DESCRIPTION(part_less, "part", 1, 1, VMSTATE_UINT8(small, Part));
DESCRIPTION(part_renamed, "piece", 1, 1, VMSTATE_UINT8(small, Part),
            VMSTATE_UINT32(large, Part));

DESCRIPTION(plain, "device", 1, 1, A8, A32, B32, A64);
DESCRIPTION(same, "device", 1, 1, A8, A32, B32, A64);
DESCRIPTION(first_missing, "device", 1, 1, A32, B32, A64);
DESCRIPTION(last_missing, "device", 1, 1, A8, A32, B32);
DESCRIPTION(one_more, "device", 1, 1, A8, A32, C32, B32, A64);
DESCRIPTION(last_more, "device", 1, 1, A8, A32, B32, A64, A16);
DESCRIPTION(swapped, "device", 1, 1, A8, B32, A32, A64);
DESCRIPTION(narrower, "device", 1, 1, A8, A16, B32, A64);
DESCRIPTION(is_signed, "device", 1, 1, A8,
            VMSTATE_SINGLE(a32, Device, 0, vmstate_info_int32, uint32_t),
            B32, A64);
DESCRIPTION(renamed, "device", 1, 1, A8, C32, B32, A64);
DESCRIPTION(unused, "device", 1, 1, A8, VMSTATE_UNUSED(4), B32, A64);
DESCRIPTION(unused_both, "device", 1, 1, A8, VMSTATE_UNUSED(8), A64);
DESCRIPTION(unused_split, "device", 1, 1, A8, VMSTATE_UNUSED(6),
            VMSTATE_UNUSED(2), A64);
DESCRIPTION(unused_less, "device", 1, 1, A8, VMSTATE_UNUSED(6), A64);
DESCRIPTION(conditional, "device", 1, 1, A8, A32, MAYBE_C32, B32, A64);
DESCRIPTION(later_version, "device", 2, 1, A8, A32,
            VMSTATE_UINT32_V(c32, Device, 2), B32, A64);
DESCRIPTION(later_changed, "device", 2, 1, A8, A32,
            VMSTATE_UINT32_V(c32, Device, 2), A64);
DESCRIPTION(never_sent, "device", 1, 1, A8, A32,
            VMSTATE_UINT32_V(c32, Device, 2), B32, A64);
DESCRIPTION(checked, "device", 1, 1, A8, A32,
            VMSTATE_VALIDATE("sane", is_never), B32, A64);
DESCRIPTION(array, "device", 1, 1, VMSTATE_UINT32_ARRAY(list, Device, 4), A64);
DESCRIPTION(array_less, "device", 1, 1,
            VMSTATE_UINT32_SUB_ARRAY(list, Device, 0, 3), A64);
DESCRIPTION(array_partly, "device", 1, 1,
            VMSTATE_UINT32_SUB_ARRAY(list, Device, 1, 3), A64);
DESCRIPTION(varying, "device", 1, 1, VMSTATE_UINT32(number, Device),
            VMSTATE_VBUFFER_UINT32(bytes, Device, 1, NULL, number), A64);
DESCRIPTION(fixed, "device", 1, 1, VMSTATE_UINT32(number, Device),
            VMSTATE_BUFFER(b8, Device), A64);
DESCRIPTION(timer, "device", 1, 1, TIMER, A64);
DESCRIPTION(no_timer, "device", 1, 1, VMSTATE_INT64(signed64, Device), A64);
DESCRIPTION(in_place, "device", 1, 1,
            VMSTATE_STRUCT(part, Device, 1, part, Part), A64);
DESCRIPTION(in_place_less, "device", 1, 1,
            VMSTATE_STRUCT(part, Device, 1, part_less, Part), A64);
DESCRIPTION(in_place_renamed, "device", 1, 1,
            VMSTATE_STRUCT(part, Device, 1, part_renamed, Part), A64);
DESCRIPTION(many, "device", 1, 1,
            VMSTATE_STRUCT_ARRAY(parts, Device, 3, 1, part, Part), A64);
DESCRIPTION(many_less, "device", 1, 1,
            VMSTATE_STRUCT_ARRAY(parts, Device, 3, 1, part_less, Part), A64);
DESCRIPTION(fewer, "device", 1, 1,
            VMSTATE_STRUCT_SUB_ARRAY(parts, Device, 0, 2, 1, part, Part), A64);
DESCRIPTION(maybe_many, "device", 1, 1,
            VMSTATE_STRUCT_ARRAY_TEST(parts, Device, 3, is_never, 1, part,
                                      Part), A64);
DESCRIPTION(only_64, "device", 1, 1, A64);

/* Subsections */
DESCRIPTION(sub, "device/sub", 1, 1, A32);
DESCRIPTION(sub_more, "device/sub", 1, 1, A32, B32);
DESCRIPTION(sub_newer, "device/sub", 2, 2, A32);

#define WITH_SUBSECTION(variable, subsection)                       \
    static const VMStateDescription variable = {                    \
        .name = "device", .version_id = 1, .minimum_version_id = 1, \
        .fields = (const VMStateField[]) {                          \
            A64, VMSTATE_END_OF_LIST()                              \
        },                                                          \
        .subsections = (const VMStateDescription *const[]) {        \
            &subsection, NULL                                       \
        },                                                          \
    }

WITH_SUBSECTION(has_sub, sub);
WITH_SUBSECTION(has_sub_more, sub_more);
WITH_SUBSECTION(has_sub_newer, sub_newer);

typedef struct Pair {
    const char *title;
    const VMStateDescription *here, *there;
    const char *found;          /* what the name ends with; NULL: nothing */
    bool fatal;
    bool only_here, only_there; /* one side does not have it */
} Pair;

static const Pair pairs[] = {
    { "same", &plain, &same },
    { "first-missing", &plain, &first_missing, ": a8", true, true },
    { "first-more", &first_missing, &plain, ": a8", true, false, true },
    { "last-missing", &plain, &last_missing, ": a64", true, true },
    { "more", &plain, &one_more, ": c32", true, false, true },
    { "missing", &one_more, &plain, ": c32", true, true },
    { "last-more", &plain, &last_more, ": a16", true, false, true },
    { "swapped", &plain, &swapped, ": a32", true },
    { "narrower", &plain, &narrower, ": a32", true },
    { "signed", &plain, &is_signed },
    { "renamed", &plain, &renamed, ": a32", false },
    { "unused", &plain, &unused },
    { "unused-here", &unused, &plain },
    { "unused-both", &plain, &unused_both },
    { "unused-split", &unused_both, &unused_split },
    { "unused-split-of-fields", &plain, &unused_split },
    { "unused-less", &plain, &unused_less, ": b32", true, true },
    { "conditional", &plain, &conditional },
    { "conditional-here", &conditional, &plain },
    { "conditional-or-not", &one_more, &conditional },
    { "later-version", &plain, &later_version },
    { "later-version-changed", &plain, &later_changed, ": b32", true, true },
    { "never-sent", &plain, &never_sent },
    { "checked", &plain, &checked },
    { "array", &array, &array_less, ": list", true },
    { "array-partly", &array_less, &array_partly },
    { "varying", &varying, &fixed, ": bytes", false },
    { "timer", &timer, &no_timer, ": timer", true },
    { "in-place-less", &in_place, &in_place_less, ": part.large", true, true },
    { "in-place-renamed", &in_place, &in_place_renamed },
    { "many-less", &many, &many_less, ": parts.large", true, true },
    { "fewer", &many, &fewer, ": parts", true },
    { "maybe-many", &maybe_many, &only_64 },
    { "maybe-many-there", &only_64, &maybe_many },
    { "many-gone", &many, &only_64, ": parts", true, true },
    { "subsection", &has_sub, &has_sub_more, ": device/sub: b32", true, false,
      true },
    { "subsection-version", &has_sub, &has_sub_newer, ": device/sub: version",
      true },
};

static void with_section(const VMStateDescription *vmsd, Inventory *inventory,
                         Inventory *fields, bool source)
{
    const SectionSpec spec = {
        .path = "0000:00:03.0", .name = vmsd->name, .alias_id = -1,
        .version_id = vmsd->version_id, .vmsd = vmsd, .opaque = &device,
    };
    Section *s, *after;

    section_add(&spec, &error_abort);
    if (source) {
        section_inventory_source(inventory);
    } else {
        section_inventory_destination(inventory);
    }
    layout_inventory(fields, "device");
    FOR_EACH_SECTION_SAFE(s, after) {
        section_remove(s);
    }
}

/* As it arrives: what the other side says has been bytes. */
static Inventory *sent(Inventory *inventory)
{
    g_autoptr(GByteArray) bytes = inventory_encode(inventory);
    Inventory *got = inventory_decode(bytes->data, bytes->len, &error_abort);

    inventory_free(inventory);
    return got;
}

static void test_pair(gconstpointer data)
{
    const Pair *p = data;
    g_autoptr(Inventory) here = inventory_new(), own = inventory_new();
    Inventory *there = inventory_new(), *theirs = inventory_new();
    g_autoptr(MigrationMismatchList) list = NULL;
    g_autoptr(GArray) suspects = NULL;

    with_section(p->here, here, own, true);
    with_section(p->there, there, theirs, false);
    there = sent(there);
    theirs = sent(theirs);
    suspects = layout_suspects(here, there);
    layout_compare(suspects, own, theirs, &list);
    if (!p->found) {
        g_assert_null(list);
    } else {
        g_assert_nonnull(list);
        g_assert_null(list->next);
        g_assert_true(g_str_has_suffix(list->value->name, p->found));
        g_assert_true(g_str_has_prefix(list->value->name,
                                       "0000:00:03.0/device: "));
        g_assert_cmpint(list->value->fatal, ==, p->fatal);
        g_assert_cmpint(list->value->kind, ==, MIGRATION_MISMATCH_KIND_FIELD);
        g_assert_cmpint(!list->value->destination, ==, p->only_here);
        g_assert_cmpint(!list->value->source, ==, p->only_there);
    }
    inventory_free(there);
    inventory_free(theirs);
}

/* Nothing is asked for between equal builds, whatever the state is. */
static void test_no_suspects(void)
{
    const VMStateDescription *all[] = {
        &plain, &conditional, &checked, &varying, &many, &timer, &has_sub,
    };

    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        g_autoptr(Inventory) here = inventory_new(), there = inventory_new();
        g_autoptr(Inventory) fields = inventory_new();
        g_autoptr(GArray) suspects = NULL;

        with_section(all[i], here, fields, true);
        with_section(all[i], there, fields, false);
        suspects = layout_suspects(here, there);
        g_assert_cmpuint(suspects->len, ==, 0);
    }
    g_assert_cmphex(layout_digest(&plain), ==, layout_digest(&same));
    g_assert_cmphex(layout_digest(&plain), !=, layout_digest(&renamed));
    g_assert_cmphex(layout_digest(&plain), !=, layout_digest(&narrower));
    g_assert_cmphex(layout_digest(&many), !=, layout_digest(&fewer));
    g_assert_cmphex(layout_digest(&many), !=, layout_digest(&maybe_many));
}

/* A destination that knows no digests is not suspected. */
static void test_older_peer(void)
{
    g_autoptr(Inventory) here = inventory_new(), there = inventory_new();
    g_autoptr(Inventory) fields = inventory_new(), old = inventory_new();
    g_autoptr(GArray) suspects = NULL;

    with_section(&has_sub, here, fields, true);
    with_section(&has_sub_more, there, fields, false);
    INVENTORY_FOREACH(item, there) {
        if (item->kind != WIRE_INVENTORY_LAYOUT) {
            InventoryItem *copy = inventory_add(old, item->kind, item->name,
                                                item->text);

            copy->value[0] = item->value[0];
        }
    }
    suspects = layout_suspects(here, old);
    g_assert_cmpuint(suspects->len, ==, 0);
}

/* Types are asked for once, in as many bytes as there may be. */
static void test_types(void)
{
    g_autoptr(GPtrArray) types = g_ptr_array_new();
    g_autoptr(GPtrArray) got = NULL;
    g_autoptr(GByteArray) bytes = NULL;
    g_autofree char *name = g_strnfill(WIRE_NAME_MAX, 'x');
    static const uint8_t wrong[][3] = { { 3, 'a', 'b' }, { 2, 'a', 0 },
                                        { 0, 0, 255 } };

    g_ptr_array_add(types, (void *)"device");
    g_ptr_array_add(types, (void *)"");
    bytes = inventory_encode_types(types);
    got = inventory_decode_types(bytes->data, bytes->len);
    g_assert_cmpuint(got->len, ==, 2);
    g_assert_cmpstr(g_ptr_array_index(got, 0), ==, "device");
    g_assert_cmpstr(g_ptr_array_index(got, 1), ==, "");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_assert_null(inventory_decode_types(wrong[i], 3));
    }
    for (unsigned i = 0; i < 200; i++) {
        g_ptr_array_add(types, name);
    }
    g_byte_array_unref(bytes);
    bytes = inventory_encode_types(types);
    g_assert_cmpuint(bytes->len, <=, WIRE_CMD_LAYOUTS_MAX);
    g_assert_cmpuint(bytes->len, >, WIRE_CMD_LAYOUTS_MAX - 300);
}

/* Two types of one name cannot be told apart. */
static void test_ambiguous(void)
{
    g_autoptr(Inventory) fields = inventory_new();
    const SectionSpec specs[] = {
        { .path = "a", .name = "device", .alias_id = -1, .version_id = 1,
          .vmsd = &plain, .opaque = &device },
        { .path = "b", .name = "device", .alias_id = -1, .version_id = 1,
          .vmsd = &renamed, .opaque = &device },
    };
    Section *s, *after;

    for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
        section_add(&specs[i], &error_abort);
    }
    layout_inventory(fields, "device");
    layout_inventory(fields, "nothing");
    g_assert_cmpuint(fields->items->len, ==, 0);
    FOR_EACH_SECTION_SAFE(s, after) {
        section_remove(s);
    }
}

/* Of a type all is told, or nothing. */
static void test_no_room(void)
{
    g_autoptr(Inventory) fields = inventory_new();
    const SectionSpec spec = {
        .path = "a", .name = "device", .alias_id = -1, .version_id = 1,
        .vmsd = &many, .opaque = &device,
    };
    unsigned items, filled = 0;
    Section *s, *after;

    section_add(&spec, &error_abort);
    layout_inventory(fields, "device");
    items = fields->items->len;
    g_assert_cmpuint(items, >, 2);
    inventory_shorten(fields, 0);
    g_assert_cmpuint(fields->items->len, ==, 0);

    for (; filled < WIRE_INVENTORY_ITEMS_MAX - items + 1; filled++) {
        inventory_add(fields, WIRE_INVENTORY_NODE, "", NULL);
    }
    layout_inventory(fields, "device");
    g_assert_cmpuint(fields->items->len, ==, filled);
    inventory_shorten(fields, --filled);
    layout_inventory(fields, "device");
    g_assert_cmpuint(fields->items->len, ==, filled + items);
    g_assert_true(inventory_fits(fields));
    FOR_EACH_SECTION_SAFE(s, after) {
        section_remove(s);
    }
}

/* A peer whose list is not complete may have any field. */
static void test_omitted(void)
{
    LayoutSuspect suspect = { "section", "device", "device", "" };
    g_autoptr(GArray) suspects = g_array_new(false, false, sizeof(suspect));
    g_autoptr(Inventory) own = inventory_new(), theirs = inventory_new();
    g_autoptr(MigrationMismatchList) list = NULL;

    inventory_add(own, WIRE_INVENTORY_LAYOUT, "device", NULL);
    inventory_add(own, WIRE_INVENTORY_FIELD, "field", "uint8");
    inventory_add(theirs, WIRE_INVENTORY_LAYOUT, "device", NULL);
    g_array_append_val(suspects, suspect);
    theirs->omitted = 1;
    layout_compare(suspects, own, theirs, &list);
    g_assert_null(list);
    theirs->omitted = 0;
    layout_compare(suspects, own, theirs, &list);
    g_assert_nonnull(list);
}

/*
 * What a peer says may be anything: each byte of each field in turn, marks that
 * do not match, numbers that are too large.
 */
static void compare_anything(const Inventory *own, const uint8_t *bytes,
                             size_t len)
{
    LayoutSuspect suspect = { "section", "device", "device", "" };
    g_autoptr(GArray) suspects = g_array_new(false, false, sizeof(suspect));
    g_autoptr(Inventory) theirs = inventory_decode(bytes, len, NULL);
    g_autoptr(MigrationMismatchList) list = NULL;

    g_array_append_val(suspects, suspect);
    if (theirs) {
        layout_compare(suspects, own, theirs, &list);
    }
    for (const MigrationMismatchList *m = list; m; m = m->next) {
        g_assert_true(g_utf8_validate(m->value->name, -1, NULL));
        g_assert_null(strpbrk(m->value->name, "\x1b\n\r"));
    }
}

static void test_hostile(void)
{
    g_autoptr(Inventory) ignored = inventory_new(), own = inventory_new();
    g_autoptr(GByteArray) bytes = NULL;

    with_section(&many, ignored, own, true);
    bytes = inventory_encode(own);
    for (size_t at = 0; at < bytes->len; at++) {
        for (int value = 0; value < 256; value += 1 + value % 7) {
            g_autofree uint8_t *changed = g_memdup2(bytes->data, bytes->len);

            changed[at] = value;
            compare_anything(own, changed, bytes->len);
        }
    }
}

/* As many fields as there may be, without a common name: in little time */
static void test_many_fields(void)
{
    LayoutSuspect suspect = { "section", "device", "device", "" };
    g_autoptr(GArray) suspects = g_array_new(false, false, sizeof(suspect));
    g_autoptr(Inventory) own = inventory_new(), theirs = inventory_new();
    g_autoptr(MigrationMismatchList) list = NULL;
    clock_t start = clock();

    for (int side = 0; side < 2; side++) {
        Inventory *inventory = side ? theirs : own;

        inventory_add(inventory, WIRE_INVENTORY_LAYOUT, "device", NULL)
            ->value[1] = 1;
        for (int i = 0; i < WIRE_INVENTORY_ITEMS_MAX - 1; i++) {
            g_autofree char *name = g_strdup_printf("%d/%d", side, i);
            InventoryItem *item = inventory_add(inventory,
                                                WIRE_INVENTORY_FIELD, name,
                                                NULL);

            item->flags = WIRE_INVENTORY_FIELD_BEGIN;
            item->value[0] = item->value[1] = UINT64_MAX;
        }
    }
    g_array_append_val(suspects, suspect);
    layout_compare(suspects, own, theirs, &list);
    g_assert_nonnull(list);
    g_assert_cmpint(clock() - start, <, CLOCKS_PER_SEC);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        g_autofree char *name = g_strdup_printf("/layout/%s", pairs[i].title);

        g_test_add_data_func(name, &pairs[i], test_pair);
    }
    g_test_add_func("/layout/no-suspects", test_no_suspects);
    g_test_add_func("/layout/older-peer", test_older_peer);
    g_test_add_func("/layout/types", test_types);
    g_test_add_func("/layout/ambiguous", test_ambiguous);
    g_test_add_func("/layout/no-room", test_no_room);
    g_test_add_func("/layout/omitted", test_omitted);
    g_test_add_func("/layout/hostile", test_hostile);
    g_test_add_func("/layout/many-fields", test_many_fields);
    return g_test_run();
}
