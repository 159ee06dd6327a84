/*
 * Unit tests of inventories as bytes: what is sent, and every lie in it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "setup.h"
#include "migration/wire/inventory.h"

#define HEAD sizeof(WireInventory)
#define ITEM sizeof(WireInventoryItem)

static Inventory *example(void)
{
    Inventory *inventory = inventory_new();
    InventoryItem *item;

    item = inventory_add(inventory, WIRE_INVENTORY_RAM, "pc.ram", NULL);
    item->flags = WIRE_INVENTORY_RAM_RESIZABLE;
    item->value[0] = 1ull << 40;
    item->value[1] = UINT64_MAX;
    item->value[2] = 4096;
    inventory_add(inventory, WIRE_INVENTORY_BITMAP, "node", "bitmap");
    return inventory;
}

static GByteArray *example_bytes(void)
{
    g_autoptr(Inventory) inventory = example();

    return inventory_encode(inventory);
}

static void expect_refused(const GByteArray *bytes, const char *why)
{
    Error *err = NULL;

    g_assert_null(inventory_decode(bytes->data, bytes->len, &err));
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), why)) {
        g_error("'%s' is not in '%s'", why, error_get_pretty(err));
    }
    error_free(err);
}

static void test_round_trip(void)
{
    g_autoptr(Inventory) inventory = example();
    g_autoptr(GByteArray) bytes = inventory_encode(inventory);
    g_autoptr(Inventory) got = inventory_decode(bytes->data, bytes->len,
                                                &error_abort);
    const InventoryItem *ram = inventory_item(got, 0);
    const InventoryItem *bitmap = inventory_item(got, 1);

    g_assert_cmpuint(got->items->len, ==, 2);
    g_assert_cmpuint(got->omitted, ==, 0);
    g_assert_cmpuint(ram->kind, ==, WIRE_INVENTORY_RAM);
    g_assert_cmpuint(ram->flags, ==, WIRE_INVENTORY_RAM_RESIZABLE);
    g_assert_cmpstr(ram->name, ==, "pc.ram");
    g_assert_cmpstr(ram->text, ==, "");
    g_assert_cmphex(ram->value[0], ==, 1ull << 40);
    g_assert_cmphex(ram->value[1], ==, UINT64_MAX);
    g_assert_cmphex(ram->value[2], ==, 4096);
    g_assert_cmpstr(bitmap->name, ==, "node");
    g_assert_cmpstr(bitmap->text, ==, "bitmap");
    g_assert_null(inventory_item(got, 2));
}

/* The bytes themselves, which other versions have to understand */
static void test_bytes(void)
{
    static const uint8_t want[] = {
        0, 0, 0, 56, 0, 0, 0, 1, 0, 0, 0, 0,
        WIRE_INVENTORY_CPU, 0, 41, 0,
        0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        12, 'q', 'e', 'm', 'u', '6', '4', '-', 'c', 'p', 'u', '-', 'x',
        2, 'a', 'b'
    };
    g_autoptr(Inventory) inventory = inventory_new();
    g_autoptr(GByteArray) bytes = NULL;

    inventory_add(inventory, WIRE_INVENTORY_CPU, "qemu64-cpu-x", "ab")
        ->value[0] = 2;
    bytes = inventory_encode(inventory);
    g_assert_cmpmem(bytes->data, bytes->len, want, sizeof(want));
}

static void test_empty(void)
{
    g_autoptr(Inventory) inventory = inventory_new();
    g_autoptr(GByteArray) bytes = inventory_encode(inventory);
    g_autoptr(Inventory) got = inventory_decode(bytes->data, bytes->len,
                                                &error_abort);

    g_assert_cmpuint(bytes->len, ==, HEAD);
    g_assert_null(inventory_item(got, 0));
}

/* Names are at most as long as their length can say. */
static void test_long_names(void)
{
    g_autofree char *name = g_strnfill(1000, 'x');
    g_autoptr(Inventory) inventory = inventory_new();
    g_autoptr(GByteArray) bytes = NULL;
    g_autoptr(Inventory) got = NULL;

    inventory_add(inventory, WIRE_INVENTORY_NODE, name, name);
    bytes = inventory_encode(inventory);
    got = inventory_decode(bytes->data, bytes->len, &error_abort);
    g_assert_cmpuint(strlen(inventory_item(got, 0)->name), ==, WIRE_NAME_MAX);
    g_assert_cmpuint(strlen(inventory_item(got, 0)->text), ==, WIRE_NAME_MAX);
}

/* What is too much is left out and counted, by bytes and by items. */
static void test_limits(void)
{
    g_autofree char *name = g_strnfill(WIRE_NAME_MAX, 'x');

    for (int kind = 0; kind < 2; kind++) {
        g_autoptr(Inventory) inventory = inventory_new();
        g_autoptr(GByteArray) bytes = NULL;
        g_autoptr(Inventory) got = NULL;

        for (int i = 0; i < WIRE_INVENTORY_ITEMS_MAX + 10; i++) {
            inventory_add(inventory, WIRE_INVENTORY_NODE, kind ? name : "",
                          NULL);
        }
        bytes = inventory_encode(inventory);
        g_assert_cmpuint(bytes->len, <=, WIRE_INVENTORY_MAX);
        got = inventory_decode(bytes->data, bytes->len, &error_abort);
        g_assert_cmpuint(got->items->len + got->omitted, ==,
                         WIRE_INVENTORY_ITEMS_MAX + 10);
        g_assert_cmpuint(got->omitted, >=, 10);
        g_assert_cmpuint(got->items->len, >, 500);
    }
}

static bool fits_unseen(Inventory *inventory)
{
    GArray hidden = { .data = NULL, .len = inventory->items->len };
    GArray *items = inventory->items;
    bool fits;

    inventory->items = &hidden;
    fits = inventory_fits(inventory);
    inventory->items = items;
    return fits;
}

static size_t encoded_len(const Inventory *inventory)
{
    g_autoptr(GByteArray) bytes = inventory_encode(inventory);

    return bytes->len;
}

/*
 * Whether all fits is known without a look at any item, to the byte: so the
 * time for a list that is asked after each item does not grow with its square.
 */
static void test_fits(void)
{
    g_autofree char *name = g_strnfill(WIRE_NAME_MAX, 'x');
    size_t each = ITEM + 2 + WIRE_NAME_MAX;
    unsigned most = (WIRE_INVENTORY_MAX - HEAD) / each;
    size_t rest = (WIRE_INVENTORY_MAX - HEAD) % each;
    g_autoptr(Inventory) inventory = inventory_new();

    g_assert_true(fits_unseen(inventory));
    for (unsigned i = 0; i < most; i++) {
        inventory_add(inventory, WIRE_INVENTORY_NODE, name, NULL);
        g_assert_true(fits_unseen(inventory));
    }
    g_assert_cmpuint(encoded_len(inventory), ==, WIRE_INVENTORY_MAX - rest);
    inventory_add(inventory, WIRE_INVENTORY_NODE, name, name);
    g_assert_false(fits_unseen(inventory));
    inventory_shorten(inventory, most);
    g_assert_true(fits_unseen(inventory));

    /* one byte is left, or one is missing */
    inventory_shorten(inventory, most - 1);
    inventory_add(inventory, WIRE_INVENTORY_NODE, name, name + WIRE_NAME_MAX -
                  rest);
    g_assert_true(fits_unseen(inventory));
    g_assert_cmpuint(encoded_len(inventory), ==, WIRE_INVENTORY_MAX);
    inventory_shorten(inventory, most - 1);
    inventory_add(inventory, WIRE_INVENTORY_NODE, name, name + WIRE_NAME_MAX -
                  rest - 1);
    g_assert_false(fits_unseen(inventory));
}

/* It is the same of a list that came from elsewhere, and by their number. */
static void test_fits_number(void)
{
    g_autoptr(Inventory) inventory = inventory_new();
    g_autoptr(GByteArray) bytes = NULL;
    g_autoptr(Inventory) got = NULL;

    for (unsigned i = 0; i < WIRE_INVENTORY_ITEMS_MAX; i++) {
        inventory_add(inventory, WIRE_INVENTORY_NODE, "n", NULL);
    }
    bytes = inventory_encode(inventory);
    got = inventory_decode(bytes->data, bytes->len, &error_abort);
    g_assert_cmpuint(got->bytes, ==, inventory->bytes);
    g_assert_true(fits_unseen(got));
    inventory_add(got, WIRE_INVENTORY_NODE, "n", NULL);
    g_assert_false(fits_unseen(got));
    inventory_shorten(got, 0);
    g_assert_cmpuint(got->bytes, ==, 0);
}

/* Every prefix, and more than there should be */
static void test_lengths(void)
{
    g_autoptr(GByteArray) bytes = example_bytes();
    g_autoptr(GByteArray) more = example_bytes();
    const uint8_t byte = 0;

    for (size_t len = 0; len < bytes->len; len++) {
        g_autofree uint8_t *exact = g_memdup2(bytes->data, len);
        Error *err = NULL;

        g_assert_null(inventory_decode(exact, len, &err));
        g_assert_nonnull(err);
        error_free(err);
    }
    g_byte_array_append(more, &byte, 1);
    expect_refused(more, "bytes instead of");
    stl_be_p(more->data, more->len);
    expect_refused(more, "1 bytes follow");
}

static void test_announced(void)
{
    static const uint32_t wrong[] = { 0, 11, WIRE_INVENTORY_MAX + 1,
                                      1 << 30, UINT32_MAX };
    uint8_t head[HEAD] = { 0 };
    uint32_t total;

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        Error *err = NULL;

        stl_be_p(head, wrong[i]);
        g_assert_false(inventory_announced(head, HEAD, &total, &err));
        g_assert_nonnull(err);
        error_free(err);
    }
    stl_be_p(head, WIRE_INVENTORY_MAX);
    g_assert(inventory_announced(head, HEAD, &total, &error_abort));
    g_assert_cmpuint(total, ==, WIRE_INVENTORY_MAX);
    g_assert(inventory_announced(head, HEAD - 1, &total, &error_abort));
    g_assert_cmpuint(total, ==, 0);
}

static void test_counts(void)
{
    static const uint32_t wrong[] = { 0, 1, 3, WIRE_INVENTORY_ITEMS_MAX,
                                      WIRE_INVENTORY_ITEMS_MAX + 1,
                                      UINT32_MAX };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_autoptr(GByteArray) bytes = example_bytes();

        stl_be_p(bytes->data + offsetof(WireInventory, items), wrong[i]);
        expect_refused(bytes, wrong[i] > WIRE_INVENTORY_ITEMS_MAX ? "at most" :
                              wrong[i] < 2 ? "follow the last" : "item 3");
    }
}

/* Each length in an item, one more and one less than it is */
static void test_item_lengths(void)
{
    static const size_t at[] = { HEAD + 2, HEAD + ITEM, HEAD + ITEM + 7 };

    for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
        g_autoptr(GByteArray) less = example_bytes();

        less->data[at[i]] = 0xff;
        expect_refused(less, "damaged");
    }
    for (unsigned len = 0; len < ITEM - 3; len++) {
        g_autoptr(GByteArray) bytes = example_bytes();

        bytes->data[HEAD + 2] = len;
        expect_refused(bytes, "damaged");
    }
}

static void test_zero_in_name(void)
{
    g_autoptr(GByteArray) bytes = example_bytes();

    bytes->data[HEAD + ITEM + 3] = 0;
    expect_refused(bytes, "item 1 of 2");
}

/* What a later version adds: kinds, and fields at the end of an item */
static void test_future(void)
{
    g_autoptr(GByteArray) bytes = example_bytes();
    g_autoptr(Inventory) got = NULL;
    const uint8_t more[] = { 200, 0, 3, 'x', 'y', 'z' };
    g_autoptr(GByteArray) longer = g_byte_array_new();
    size_t first = HEAD + ITEM + 1 + 6 + 1;

    g_byte_array_append(bytes, more, sizeof(more));
    stl_be_p(bytes->data, bytes->len);
    stl_be_p(bytes->data + offsetof(WireInventory, items), 3);
    got = inventory_decode(bytes->data, bytes->len, &error_abort);
    g_assert_cmpuint(got->items->len, ==, 2);

    g_byte_array_append(longer, bytes->data, first);
    g_byte_array_append(longer, more, 2);
    g_byte_array_append(longer, bytes->data + first, bytes->len - first);
    stl_be_p(longer->data, longer->len);
    stw_be_p(longer->data + HEAD + 1,
             lduw_be_p(longer->data + HEAD + 1) + 2);
    inventory_free(got);
    got = inventory_decode(longer->data, longer->len, &error_abort);
    g_assert_cmpuint(got->items->len, ==, 2);
    g_assert_cmpstr(inventory_item(got, 1)->text, ==, "bitmap");
}

/* Any byte may be anything: it decodes or says why not, and that is all. */
static void test_flipped(void)
{
    g_autoptr(GByteArray) bytes = example_bytes();

    for (size_t at = 0; at < bytes->len; at++) {
        for (int value = 0; value < 256; value++) {
            g_autofree uint8_t *changed = g_memdup2(bytes->data, bytes->len);
            g_autoptr(Inventory) got = NULL;
            Error *err = NULL;

            changed[at] = value;
            got = inventory_decode(changed, bytes->len, &err);
            g_assert(!got == !!err);
            error_free(err);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/inventory/round-trip", test_round_trip);
    g_test_add_func("/inventory/bytes", test_bytes);
    g_test_add_func("/inventory/empty", test_empty);
    g_test_add_func("/inventory/long-names", test_long_names);
    g_test_add_func("/inventory/limits", test_limits);
    g_test_add_func("/inventory/fits", test_fits);
    g_test_add_func("/inventory/fits-number", test_fits_number);
    g_test_add_func("/inventory/lengths", test_lengths);
    g_test_add_func("/inventory/announced", test_announced);
    g_test_add_func("/inventory/counts", test_counts);
    g_test_add_func("/inventory/item-lengths", test_item_lengths);
    g_test_add_func("/inventory/zero-in-name", test_zero_in_name);
    g_test_add_func("/inventory/future", test_future);
    g_test_add_func("/inventory/flipped", test_flipped);
    return g_test_run();
}
