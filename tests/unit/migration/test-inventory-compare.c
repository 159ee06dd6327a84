/*
 * Unit tests of what differs between two inventories
 *
 * Two sides that fit are changed in one respect, and exactly that has to be
 * found: the kind, the name, and whether a migration would fail for it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "setup.h"
#include "migration/core/inventory-compare.h"

#define MIB (1024 * 1024ull)
#define SENT WIRE_INVENTORY_SECTION_SENT
#define ALIAS WIRE_INVENTORY_SECTION_ALIAS
#define RESIZABLE WIRE_INVENTORY_RAM_RESIZABLE
#define IGNORED WIRE_INVENTORY_RAM_IGNORED
#define UUID_A "11111111-1111-1111-1111-111111111111"
#define UUID_B "22222222-2222-2222-2222-222222222222"

typedef struct Row {
    uint8_t kind;
    const char *name, *text;
    uint64_t v[INVENTORY_VALUES];
    uint8_t flags;
} Row;

#define MACHINE(type, uuid, bits) \
    { WIRE_INVENTORY_MACHINE, type, uuid, { bits } }
#define CAPABILITY(name) { WIRE_INVENTORY_CAPABILITY, name, "", { 1 } }
#define PARAMETER(name, value) { WIRE_INVENTORY_PARAMETER, name, value }
#define CPUS(type, count) { WIRE_INVENTORY_CPU, type, "", { count } }
#define WORD(name, bits) { WIRE_INVENTORY_CPU_WORD, name, "", { bits } }
#define RAM(name, used, most, page, flags) \
    { WIRE_INVENTORY_RAM, name, "", { used, most, page }, flags }
#define SECTION(name, type, instance, version, oldest, flags) \
    { WIRE_INVENTORY_SECTION, name, type, { instance, version, oldest }, \
      flags }
#define NEEDED(section, name) \
    { WIRE_INVENTORY_SUBSECTION, section, name, { 0 } }
#define KNOWN(type, name) { WIRE_INVENTORY_SUBSECTION, type, name }
#define NODE(name) { WIRE_INVENTORY_NODE, name }
#define BITMAP(node, name) { WIRE_INVENTORY_BITMAP, node, name }
#define PROBLEM(subject, advice, flags) \
    { WIRE_INVENTORY_PROBLEM, subject, advice, { 0 }, flags }

static const Row source_rows[] = {
    MACHINE("pc-q35-10.0", UUID_A, 12),
    PARAMETER("multifd-channels", "2"),
    PARAMETER("multifd-compression", "none"),
    PARAMETER("migration.send-section-footer", "on"),
    CPUS("qemu64-x86_64-cpu", 2),
    WORD("CPUID 0x1.0 ECX", 0x80802001),
    WORD("CPUID 0x7.0 EBX", 0),
    RAM("pc.ram", 64 * MIB, 64 * MIB, 4096, 0),
    RAM("pc.bios", 256 * 1024, MIB, 4096, RESIZABLE),
    SECTION("ram", "", 0, 4, 0, SENT),
    SECTION("cpu", "cpu", 0, 12, 11, SENT),
    SECTION("cpu", "cpu", 1, 12, 11, SENT),
    SECTION("0000:00:03.0/virtio-net", "virtio-net", 0, 11, 11, SENT),
    SECTION("0000:00:04.0/e1000", "e1000", 0, 2, 2, SENT),
    SECTION("unused", "unused", 0, 1, 1, 0),
    NEEDED("cpu", "cpu/xsave"),
    NEEDED("0000:00:04.0/e1000", "e1000/mit"),
};

static const Row destination_rows[] = {
    MACHINE("pc-q35-10.0", UUID_A, 12),
    PARAMETER("multifd-channels", "2"),
    PARAMETER("multifd-compression", "none"),
    PARAMETER("migration.send-section-footer", "on"),
    CPUS("qemu64-x86_64-cpu", 2),
    WORD("CPUID 0x1.0 ECX", 0x80802001),
    WORD("CPUID 0x7.0 EBX", 0),
    RAM("pc.ram", 64 * MIB, 64 * MIB, 4096, 0),
    RAM("pc.bios", 128 * 1024, MIB, 4096, RESIZABLE),
    SECTION("ram", "", 0, 4, 0, 0),
    SECTION("cpu", "cpu", 0, 12, 11, 0),
    SECTION("cpu", "cpu", 1, 12, 11, 0),
    SECTION("0000:00:03.0/virtio-net", "virtio-net", 0, 11, 11, 0),
    SECTION("virtio-net", "virtio-net", 0, 11, 11, ALIAS),
    SECTION("0000:00:04.0/e1000", "e1000", 0, 3, 2, 0),
    SECTION("e1000", "e1000", 0, 3, 2, ALIAS),
    SECTION("unused", "unused", 0, 1, 1, 0),
    KNOWN("cpu", "cpu/xsave"), KNOWN("cpu", "cpu/msr"),
    KNOWN("e1000", "e1000/mit"),
};

typedef enum Op {
    NOTHING,
    DROP,                       /* all of that kind and name */
    PUT,                        /* in place of those, or as well */
    ADD,
} Op;

typedef struct Change {
    Op op;
    char where;                 /* S, D, or B: both */
    Row row;
} Change;

typedef struct Case {
    const char *title;
    Change change[3];
    int kind;                   /* MigrationMismatchKind, or FITS */
    const char *name;
    bool fatal;
    unsigned extra;             /* more that come of the same change */
} Case;

#define FITS -1
#define K(kind) MIGRATION_MISMATCH_KIND_##kind
#define ON(where, name) { ADD, where, CAPABILITY(name) }

static const Case cases[] = {
    { "same", { }, FITS },
    /* the machine */
    { "machine-type", { { PUT, 'D', MACHINE("pc-i440fx-10.0", UUID_A, 12) } },
      K(MACHINE), "type", true },
    { "machine-version", { { PUT, 'D', MACHINE("pc-q35-9.2", UUID_A, 12) } },
      K(MACHINE), "type", true },
    { "page-bits", { { PUT, 'D', MACHINE("pc-q35-10.0", UUID_A, 14) } },
      K(MACHINE), "target-page-bits", true },
    { "uuid", { { PUT, 'D', MACHINE("pc-q35-10.0", UUID_B, 12) } },
      K(MACHINE), "uuid", false },
    { "uuid-validated", { { PUT, 'D', MACHINE("pc-q35-10.0", UUID_B, 12) },
                          ON('S', "validate-uuid") },
      K(MACHINE), "uuid", true },
    { "uuid-multifd", { { PUT, 'D', MACHINE("pc-q35-10.0", "", 12) },
                        ON('B', "multifd") }, K(MACHINE), "uuid", true },
    { "uuid-unset", { { PUT, 'D', MACHINE("pc-q35-10.0", "", 12) } }, FITS },
    { "uuid-unset-validated", { { PUT, 'D', MACHINE("pc-q35-10.0", "", 12) },
                                ON('S', "validate-uuid") }, FITS },
    /* CPUs */
    { "cpu-type", { { PUT, 'D', CPUS("max-x86_64-cpu", 2) } },
      K(CPU), "type", false },
    { "cpu-fewer", { { PUT, 'D', CPUS("qemu64-x86_64-cpu", 1) } },
      K(CPU), "count", true },
    { "cpu-more", { { PUT, 'D', CPUS("qemu64-x86_64-cpu", 3) } },
      K(CPU), "count", false },
    { "cpu-flag-lost", { { PUT, 'D', WORD("CPUID 0x1.0 ECX", 0x80002001) } },
      K(CPU), "CPUID 0x1.0 ECX", true },
    { "cpu-flag-lost-and-won", { { PUT, 'D', WORD("CPUID 0x1.0 ECX", 2) } },
      K(CPU), "CPUID 0x1.0 ECX", true },
    { "cpu-flag-won", { { PUT, 'D', WORD("CPUID 0x7.0 EBX", 32) } },
      K(CPU), "CPUID 0x7.0 EBX", false },
    { "cpu-flag-unknown-there", { { DROP, 'D', WORD("CPUID 0x7.0 EBX", 0) } },
      FITS },
    /* memory */
    { "ram-smaller", { { PUT, 'D', RAM("pc.ram", 32 * MIB, 32 * MIB, 4096, 0) }
      }, K(RAM), "pc.ram", true },
    { "ram-larger", { { PUT, 'D', RAM("pc.ram", 96 * MIB, 96 * MIB, 4096, 0) }
      }, K(RAM), "pc.ram", true },
    { "ram-missing", { { DROP, 'D', RAM("pc.ram", 0, 0, 0, 0) } },
      K(RAM), "pc.ram", true },
    { "ram-renamed", { { ADD, 'S', RAM("mem0", MIB, MIB, 4096, 0) },
                       { ADD, 'D', RAM("mem1", MIB, MIB, 4096, 0) } },
      K(RAM), "mem0", true, 1 },
    { "ram-surplus", { { ADD, 'D', RAM("mem1", MIB, MIB, 4096, 0) } },
      K(RAM), "mem1", false },
    { "ram-not-resizable", { { PUT, 'D', RAM("pc.bios", MIB, MIB, 4096, 0) } },
      K(RAM), "pc.bios", true },
    { "ram-beyond-resizable", { { PUT, 'S', RAM("pc.bios", 2 * MIB, 2 * MIB,
                                                4096, RESIZABLE) } },
      K(RAM), "pc.bios", true },
    { "ram-ignored-missing", { { ADD, 'S', RAM("mem0", MIB, MIB, 4096,
                                               IGNORED) } }, FITS },
    { "ram-ignored-size", { { PUT, 'S', RAM("pc.ram", MIB, MIB, 4096, IGNORED)
      } }, FITS },
    { "huge-pages", { { PUT, 'D', RAM("pc.ram", 64 * MIB, 64 * MIB, 2 * MIB, 0)
      } }, FITS },
    { "huge-pages-postcopy", {
        { PUT, 'D', RAM("pc.ram", 64 * MIB, 64 * MIB, 2 * MIB, 0) },
        ON('B', "postcopy-ram") }, K(RAM), "pc.ram", true },
    /* devices */
    { "device-missing", { { ADD, 'S', SECTION("0000:00:07.0/virtio-rng",
                                              "virtio-rng", 0, 1, 1, SENT) } },
      K(SECTION), "0000:00:07.0/virtio-rng", true },
    { "device-other-slot", {
        { ADD, 'S', SECTION("0000:00:07.0/virtio-rng", "virtio-rng", 0, 1, 1,
                            SENT) },
        { ADD, 'D', SECTION("0000:00:08.0/virtio-rng", "virtio-rng", 0, 1, 1,
                            0) } },
      K(SECTION), "0000:00:07.0/virtio-rng", true, 1 },
    { "device-surplus", { { ADD, 'D', SECTION("0000:00:08.0/nvme", "nvme", 0,
                                              1, 1, 0) } },
      K(SECTION), "0000:00:08.0/nvme", false },
    { "device-instance", { { ADD, 'S', SECTION("cpu", "cpu", 2, 12, 11, SENT) }
      }, K(SECTION), "cpu", true },
    { "device-not-sent", { { ADD, 'S', SECTION("x", "x", 0, 1, 1, 0) } },
      FITS },
    { "device-registered-only", { { ADD, 'S', SECTION("x", "x", 0, 1, 1, 0) },
                                  { ADD, 'D', SECTION("x", "x", 0, 2, 2, 0) }
      }, FITS },
    { "device-by-alias", { { ADD, 'S', SECTION("virtio-net", "virtio-net", 0,
                                               11, 11, SENT) } }, FITS },
    { "device-newer", { { PUT, 'S', SECTION("0000:00:04.0/e1000", "e1000", 0,
                                            4, 4, SENT) } },
      K(SECTION), "0000:00:04.0/e1000", true },
    { "device-too-old", { { PUT, 'S', SECTION("0000:00:04.0/e1000", "e1000", 0,
                                              1, 1, SENT) } },
      K(SECTION), "0000:00:04.0/e1000", true },
    { "device-older", { { PUT, 'S', SECTION("0000:00:04.0/e1000", "e1000", 0,
                                            3, 2, SENT) } }, FITS },
    { "subsection", { { ADD, 'S', NEEDED("0000:00:04.0/e1000", "e1000/tso") }
      }, K(SUBSECTION), "0000:00:04.0/e1000: e1000/tso", true },
    { "subsection-of-another", { { ADD, 'S', NEEDED("cpu", "e1000/mit") } },
      K(SUBSECTION), "cpu: e1000/mit", true },
    { "subsection-of-none", { { ADD, 'S', NEEDED("x", "x/y") } }, FITS },
    /* capabilities and parameters */
    { "multifd-here", { ON('S', "multifd") }, K(CAPABILITY), "multifd", true },
    { "multifd-there", { ON('D', "multifd") }, K(CAPABILITY), "multifd", true },
    { "ignore-shared", { ON('S', "x-ignore-shared") },
      K(CAPABILITY), "x-ignore-shared", true },
    { "ignore-shared-there", { ON('D', "x-ignore-shared") },
      K(CAPABILITY), "x-ignore-shared", true },
    { "mapped-ram", { ON('S', "mapped-ram") },
      K(CAPABILITY), "mapped-ram", true },
    { "postcopy-here", { ON('S', "postcopy-ram") },
      K(CAPABILITY), "postcopy-ram", true },
    { "postcopy-there", { ON('D', "postcopy-ram") }, FITS },
    { "postcopy-there-bitmaps", { ON('D', "postcopy-ram"),
                                  ON('S', "dirty-bitmaps") },
      K(CAPABILITY), "postcopy-ram", true },
    { "preempt-here", { ON('B', "postcopy-ram"), ON('S', "postcopy-preempt") },
      K(CAPABILITY), "postcopy-preempt", true },
    { "preempt-there", { ON('B', "postcopy-ram"),
                         ON('D', "postcopy-preempt") },
      K(CAPABILITY), "postcopy-preempt", true },
    { "switchover-ack", { ON('S', "switchover-ack") },
      K(CAPABILITY), "switchover-ack", true },
    { "switchover-ack-there", { ON('D', "switchover-ack") }, FITS },
    { "xbzrle", { ON('S', "xbzrle") }, FITS },
    { "channels", { { PUT, 'D', PARAMETER("multifd-channels", "4") },
                    ON('B', "multifd") },
      K(PARAMETER), "multifd-channels", true },
    { "channels-unused", { { PUT, 'D', PARAMETER("multifd-channels", "4") } },
      FITS },
    { "compression", { { PUT, 'D', PARAMETER("multifd-compression", "zstd") },
                       ON('B', "multifd") },
      K(PARAMETER), "multifd-compression", true },
    { "compression-auto", { { PUT, 'S', PARAMETER("multifd-compression",
                                                  "auto") },
                            ON('B', "multifd") }, FITS },
    { "compression-auto-there", { { PUT, 'D', PARAMETER("multifd-compression",
                                                        "auto") },
                                  ON('B', "multifd") }, FITS },
    { "footers", { { PUT, 'D', PARAMETER("migration.send-section-footer",
                                         "off") } },
      K(PARAMETER), "migration.send-section-footer", true },
    /* disks */
    { "bitmap", { { ADD, 'S', BITMAP("disk", "b") }, { ADD, 'D', NODE("disk") }
      }, FITS },
    { "bitmap-without-node", { { ADD, 'S', BITMAP("disk", "b") } },
      K(BITMAP), "disk/b", false },
    { "bitmap-twice", { { ADD, 'B', BITMAP("disk", "b") },
                        { ADD, 'D', NODE("disk") } },
      K(BITMAP), "disk/b", true },
    { "bitmap-other", { { ADD, 'S', BITMAP("disk", "b") },
                        { ADD, 'D', BITMAP("disk", "c") },
                        { ADD, 'D', NODE("disk") } }, FITS },
    /* what one side says of itself */
    { "problem-here", { { ADD, 'S', PROBLEM("blocked", "unplug it", 1) } },
      K(PROBLEM), "blocked", true },
    { "problem-there", { { ADD, 'D', PROBLEM("blocked", "unplug it", 1) } },
      K(PROBLEM), "blocked", true },
    { "warning-there", { { ADD, 'D', PROBLEM("memory", "is low", 0) } },
      K(PROBLEM), "memory", false },
};

static void add_row(Inventory *inventory, const Row *row)
{
    InventoryItem *item = inventory_add(inventory, row->kind, row->name,
                                        row->text);

    item->flags = row->flags;
    memcpy(item->value, row->v, sizeof(item->value));
}

static void drop_row(Inventory *inventory, const Row *row)
{
    bool one = row->kind == WIRE_INVENTORY_MACHINE ||
               row->kind == WIRE_INVENTORY_CPU;

    for (unsigned i = inventory->items->len; i-- > 0;) {
        const InventoryItem *item = inventory_item(inventory, i);

        if (item->kind == row->kind &&
            (one || !strcmp(item->name, row->name))) {
            g_array_remove_index(inventory->items, i);
        }
    }
}

static Inventory *side(const Case *c, char where)
{
    const Row *rows = where == 'S' ? source_rows : destination_rows;
    size_t n = where == 'S' ? ARRAY_SIZE(source_rows)
                            : ARRAY_SIZE(destination_rows);
    Inventory *inventory = inventory_new();

    for (size_t i = 0; i < n; i++) {
        add_row(inventory, &rows[i]);
    }
    for (size_t i = 0; c && i < ARRAY_SIZE(c->change); i++) {
        const Change *change = &c->change[i];

        if (!change->op || (change->where != where && change->where != 'B')) {
            continue;
        }
        if (change->op != ADD) {
            drop_row(inventory, &change->row);
        }
        if (change->op != DROP) {
            add_row(inventory, &change->row);
        }
    }
    return inventory;
}

static unsigned list_length(const MigrationMismatchList *list)
{
    unsigned n = 0;

    for (; list; list = list->next) {
        n++;
    }
    return n;
}

static void check_first(const Case *c, const MigrationMismatchList *list)
{
    const MigrationMismatch *m = list->value;
    g_autofree char *text = inventory_mismatch_text(m);

    g_assert_cmpint(m->kind, ==, c->kind);
    g_assert_cmpstr(m->name, ==, c->name);
    g_assert_cmpint(m->fatal, ==, c->fatal);
    g_assert_nonnull(m->advice);
    g_assert_cmpuint(strlen(m->advice), >, 5);
    g_assert_nonnull(strstr(text, c->name));
    g_assert_nonnull(strstr(text, m->advice));
    g_assert_null(strchr(text, '\n'));
}

static void test_case(const void *opaque)
{
    const Case *c = opaque;
    g_autoptr(Inventory) source = side(c, 'S');
    g_autoptr(Inventory) destination = side(c, 'D');
    g_autoptr(MigrationMismatchList) list =
        inventory_compare(source, destination, 0);
    g_autofree char *summary = inventory_summary(list);

    if (c->kind == FITS) {
        g_assert_null(list);
        g_assert_null(summary);
        return;
    }
    g_assert_cmpuint(list_length(list), ==, 1 + c->extra);
    check_first(c, list);
    g_assert(inventory_fatal(list) == c->fatal);
    g_assert(!summary == !c->fatal);
}

/* Everything that is wrong is told at once. */
static void test_all_at_once(void)
{
    g_autoptr(Inventory) source = side(NULL, 'S');
    g_autoptr(Inventory) destination = side(NULL, 'D');
    g_autoptr(MigrationMismatchList) list = NULL;
    unsigned alone = 0;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const Change *change = &cases[i].change[0];

        if (cases[i].kind == K(SECTION) && change->op == ADD &&
            change->where == 'S' && cases[i].fatal && !cases[i].extra) {
            add_row(source, &change->row);
            alone++;
        }
        if (cases[i].kind == K(PROBLEM)) {
            add_row(change->where == 'S' ? source : destination, &change->row);
            alone++;
        }
    }
    g_assert_cmpuint(alone, >, 4);
    list = inventory_compare(source, destination, 0);
    g_assert_cmpuint(list_length(list), ==, alone);
}

/* Many make one line that is not endless. */
static void test_summary(void)
{
    g_autoptr(Inventory) source = side(NULL, 'S');
    g_autoptr(Inventory) destination = side(NULL, 'D');
    g_autoptr(MigrationMismatchList) list = NULL;
    g_autofree char *summary = NULL;

    for (int i = 0; i < 500; i++) {
        g_autofree char *name = g_strdup_printf("0000:00:%02x.0/rng%d", i, i);
        const Row row = SECTION(name, "rng", 0, 1, 1, SENT);

        add_row(source, &row);
    }
    list = inventory_compare(source, destination, 0);
    g_assert_cmpuint(list_length(list), ==, 500);
    summary = inventory_summary(list);
    g_assert_cmpuint(strlen(summary), <, 8192);
    g_assert_nonnull(strstr(summary, "and 488 more"));
}

/* Methods may differ where each packet says which it has. */
static void test_any_method(void)
{
    static const Case different = { "", {
        { PUT, 'D', PARAMETER("multifd-compression", "zstd") },
        ON('B', "multifd") } };
    static const Case unknown = { "", {
        { PUT, 'S', PARAMETER("multifd-compression", "qpl") },
        ON('B', "multifd") } };

    for (int i = 0; i < 2; i++) {
        const Case *c = i ? &unknown : &different;
        g_autoptr(Inventory) source = side(c, 'S');
        g_autoptr(Inventory) destination = side(c, 'D');
        g_autoptr(MigrationMismatchList) list =
            inventory_compare(source, destination, WIRE_PEER_ANY_METHOD);

        g_assert_cmpuint(list_length(list), ==, i);
    }
}

/* In a list that was cut off nothing is missing for sure. */
static void test_omitted(void)
{
    const Row row = SECTION("0000:00:07.0/rng", "rng", 0, 1, 1, SENT);
    const Row ram = RAM("mem9", MIB, MIB, 4096, 0);
    const Row sub = NEEDED("cpu", "cpu/new");
    g_autoptr(Inventory) source = side(NULL, 'S');
    g_autoptr(Inventory) destination = side(NULL, 'D');

    add_row(source, &row);
    add_row(source, &ram);
    add_row(source, &sub);
    destination->omitted = 1;
    g_assert_null(inventory_compare(source, destination, 0));
}

/* What a hostile destination says is printable, on one line. */
static void test_hostile(void)
{
    const Row rows[] = {
        PROBLEM("\x1b[2J\nx", "\x1b]0;owned\x07\r\n", 1),
        SECTION("\x1b[31mred", "\xff\xfe", 0, 1, 1, 0),
        RAM("\xc3\x28", UINT64_MAX, UINT64_MAX, UINT64_MAX, 0xff),
        MACHINE("\x1b[2J", "\x1b[2J", UINT64_MAX),
        CPUS("\x1b[2J", UINT64_MAX), WORD("CPUID 0x1.0 ECX", 0),
    };
    g_autoptr(Inventory) source = side(NULL, 'S');
    g_autoptr(Inventory) destination = side(NULL, 'D');
    g_autoptr(MigrationMismatchList) list = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].kind == WIRE_INVENTORY_MACHINE ||
            rows[i].kind == WIRE_INVENTORY_CPU) {
            drop_row(destination, &rows[i]);
        }
        add_row(destination, &rows[i]);
    }
    list = inventory_compare(source, destination, 0);
    g_assert_cmpuint(list_length(list), >=, 6);
    for (const MigrationMismatchList *m = list; m; m = m->next) {
        g_autofree char *text = inventory_mismatch_text(m->value);

        g_assert_true(g_utf8_validate(text, -1, NULL));
        for (const char *p = text; *p; p++) {
            g_assert_cmpuint((uint8_t)*p, >=, ' ');
        }
    }
}

/* Without the other side only one's own problems are known. */
static void test_alone(void)
{
    const Row row = PROBLEM("blocked", "unplug it", 1);
    g_autoptr(Inventory) source = side(NULL, 'S');
    g_autoptr(MigrationMismatchList) list = NULL;

    g_assert_null(inventory_compare(source, NULL, 0));
    add_row(source, &row);
    list = inventory_compare(source, NULL, 0);
    g_assert_cmpuint(list_length(list), ==, 1);
    g_assert_cmpint(list->value->side, ==, MIGRATION_CHECK_SIDE_SOURCE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *name = g_strdup_printf("/inventory-compare/%s",
                                                cases[i].title);

        g_test_add_data_func(name, &cases[i], test_case);
    }
    g_test_add_func("/inventory-compare/all-at-once", test_all_at_once);
    g_test_add_func("/inventory-compare/summary", test_summary);
    g_test_add_func("/inventory-compare/any-method", test_any_method);
    g_test_add_func("/inventory-compare/omitted", test_omitted);
    g_test_add_func("/inventory-compare/hostile", test_hostile);
    g_test_add_func("/inventory-compare/alone", test_alone);
    return g_test_run();
}
