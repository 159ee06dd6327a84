/*
 * The inventory of this VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "hw/core/cpu.h"
#include "migration/device/bitmap-inventory.h"
#include "migration/device/layout.h"
#include "migration/device/section-inventory.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/postcopy-ram.h"
#include "migration/ram/blocks.h"
#include "migration/savevm.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qom/qom-qobject.h"
#include "host-limits.h"
#include "inventory.h"
#include "vmstate.h"

/* Takes over @err. */
static void add_problem(Inventory *inventory, const char *subject, Error *err,
                        uint8_t flags)
{
    inventory_add(inventory, WIRE_INVENTORY_PROBLEM, subject,
                  error_get_pretty(err))->flags = flags;
    error_free(err);
}

/* What the other side is not told of it cannot be said to differ. */
static void add_machine(Inventory *inventory)
{
    g_autofree char *uuid = NULL;
    Configuration here;
    InventoryItem *item;

    vmstate_configuration(&here);
    if (here.uuid) {
        uuid = qemu_uuid_unparse_strdup(here.uuid);
    }
    item = inventory_add(inventory, WIRE_INVENTORY_MACHINE, here.machine,
                         uuid);
    item->value[0] = here.page_bits;
}

static void add_parameter(Inventory *inventory, const char *name,
                          const char *value)
{
    inventory_add(inventory, WIRE_INVENTORY_PARAMETER, name, value);
}

static void add_settings(Inventory *inventory)
{
    const MigrationState *s = migrate_get_current();
    g_autofree char *channels = g_strdup_printf("%d",
                                                migrate_multifd_channels());

    for (int i = 0; i < MIGRATION_CAPABILITY__MAX; i++) {
        if (s->capabilities[i]) {
            inventory_add(inventory, WIRE_INVENTORY_CAPABILITY,
                          MigrationCapability_str(i), NULL)->value[0] = true;
        }
    }
    add_parameter(inventory, "multifd-channels", channels);
    add_parameter(inventory, "multifd-compression",
                  MultiFDCompression_str(migrate_multifd_compression()));
    add_parameter(inventory, "migration.send-section-footer",
                  s->send_section_footer ? "on" : "off");
    add_parameter(inventory, "migration.multifd-flush-after-each-section",
                  s->multifd_flush_after_each_section ? "on" : "off");
}

/* A word of CPUID, by the input of the instruction and the register */
static void add_cpu_word(Inventory *inventory, const QDict *word)
{
    int64_t leaf = qdict_get_try_int(word, "cpuid-input-eax", 0);
    int64_t index = qdict_get_try_int(word, "cpuid-input-ecx", 0);
    const char *reg = qdict_get_try_str(word, "cpuid-register");
    g_autofree char *name = g_strdup_printf("CPUID 0x%" PRIx64 ".%" PRIu64
                                            " %s", leaf, index, reg ?: "");

    inventory_add(inventory, WIRE_INVENTORY_CPU_WORD, name, NULL)->value[0] =
        qdict_get_try_int(word, "features", 0);
}

/* Types of CPUs that have no such property are compared by name alone. */
static void add_cpu_words(Inventory *inventory, CPUState *cpu)
{
    g_autoptr(QList) words = NULL;
    const QListEntry *entry;

    if (!object_property_find(OBJECT(cpu), "feature-words")) {
        return;
    }
    words = qobject_to(QList, object_property_get_qobject(OBJECT(cpu),
                                                          "feature-words",
                                                          &error_abort));
    QLIST_FOREACH_ENTRY(words, entry) {
        add_cpu_word(inventory, qobject_to(QDict, qlist_entry_obj(entry)));
    }
}

static void add_cpus(Inventory *inventory)
{
    unsigned count = 0;
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        count++;
    }
    if (count) {
        inventory_add(inventory, WIRE_INVENTORY_CPU,
                      object_get_typename(OBJECT(first_cpu)), NULL)
            ->value[0] = count;
        add_cpu_words(inventory, first_cpu);
    }
}

static void add_ram(Inventory *inventory)
{
    RamRegions regions;

    ram_blocks_get(&regions);
    RAM_REGIONS_FOREACH(r, &regions) {
        InventoryItem *item = inventory_add(inventory, WIRE_INVENTORY_RAM,
                                            r->name, NULL);

        item->value[0] = ram_region_bytes(r);
        item->value[1] = r->max_pages << r->page_bits;
        item->value[2] = r->host_page_size;
        item->flags =
            (r->ignored ? WIRE_INVENTORY_RAM_IGNORED : 0) |
            (r->rb->flags & RAM_RESIZEABLE ? WIRE_INVENTORY_RAM_RESIZABLE : 0);
    }
    ram_blocks_free(&regions);
}

static void list_dirty_bitmaps(Inventory *inventory, bool source)
{
    Error *err = NULL;

    if (!source) {
        bitmap_inventory_destination(inventory);
    } else if (migrate_dirty_bitmaps() &&
               !bitmap_inventory_source(inventory, &err)) {
        add_problem(inventory, "dirty-bitmaps", err,
                    WIRE_INVENTORY_PROBLEM_FATAL);
    }
}

static uint64_t ram_bytes(void)
{
    RamRegions regions;
    uint64_t bytes = 0;

    ram_blocks_get(&regions);
    RAM_REGIONS_FOREACH(r, &regions) {
        bytes += r->ignored ? 0 : ram_region_bytes(r);
    }
    ram_blocks_free(&regions);
    return bytes;
}

/* Bytes that line @name of a file below /proc has, in kB there; 0 if none */
static uint64_t proc_bytes(const char *path, const char *name)
{
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    line = strstr(text, name);
    return line ? g_ascii_strtoull(line + strlen(name), NULL, 10) * KiB : 0;
}

/*
 * What the guest may come to use, beyond what this process has.  A guess, as
 * the host may page, or others end: it is a warning.
 */
static void add_host_memory(Inventory *inventory)
{
    uint64_t all = ram_bytes();
    uint64_t here = proc_bytes("/proc/self/status", "VmRSS:");
    uint64_t more = all > here ? all - here : 0;
    uint64_t available = proc_bytes("/proc/meminfo", "MemAvailable:");
    uint64_t room = available + proc_bytes("/proc/meminfo", "SwapFree:");
    Error *err = NULL;

    if (available && more > room) {
        error_setg(&err, "the guest may need %" PRIu64 " MiB more here, and "
                   "the host has %" PRIu64 " MiB left, swap included: end "
                   "something else, or choose another host", more / MiB,
                   room / MiB);
        add_problem(inventory, "memory", err, 0);
    }
}

/* Takes over @text, if there is a warning. */
static void add_host_limit(Inventory *inventory, const char *subject,
                           char *text)
{
    if (text) {
        inventory_add(inventory, WIRE_INVENTORY_PROBLEM, subject, text);
        g_free(text);
    }
}

/* Memory that this process has not been promised is found missing on use. */
static void add_huge_pages(Inventory *inventory)
{
    RamRegions regions;
    uint64_t spare;

    ram_blocks_get(&regions);
    RAM_REGIONS_FOREACH(r, &regions) {
        if (r->host_page_size > qemu_real_host_page_size() &&
            (r->rb->flags & RAM_NORESERVE) && !r->ignored &&
            host_limits_spare_pages(r->host_page_size, &spare)) {
            add_host_limit(inventory, "huge-pages", host_limits_huge_pages(
                               r->name, ram_region_bytes(r),
                               r->host_page_size, spare));
        }
    }
    ram_blocks_free(&regions);
}

static void add_locked_memory(Inventory *inventory)
{
    if (migrate_rdma_pin_all()) {
        add_host_limit(inventory, "locked-memory", host_limits_locked(
                           "capability 'rdma-pin-all'", ram_bytes(),
                           host_limits_lockable()));
    }
}

static void add_problems(Inventory *inventory, bool source)
{
    Error *err = NULL;

    if (source ? migration_is_blocked(&err)
               : qemu_savevm_state_blocked(&err)) {
        add_problem(inventory, "blocked", err, WIRE_INVENTORY_PROBLEM_FATAL);
        err = NULL;
    }
    if (!source && migrate_postcopy_ram() && !postcopy_possible_here(&err)) {
        add_problem(inventory, "postcopy", err, WIRE_INVENTORY_PROBLEM_FATAL);
    }
    add_locked_memory(inventory);
    if (!source) {
        add_host_memory(inventory);
        add_huge_pages(inventory);
    }
}

Inventory *inventory_collect(bool source)
{
    Inventory *inventory = inventory_new();

    /* Of a list that is too long the end is lost: sections come last. */
    add_problems(inventory, source);
    add_machine(inventory);
    add_settings(inventory);
    add_cpus(inventory);
    add_ram(inventory);
    list_dirty_bitmaps(inventory, source);
    if (source) {
        section_inventory_source(inventory);
    } else {
        section_inventory_destination(inventory);
    }
    return inventory;
}

Inventory *inventory_layouts(const GPtrArray *types)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    Inventory *inventory = inventory_new();

    /* A peer may request anything as often as it likes. */
    for (unsigned i = 0; i < types->len &&
         inventory->items->len < WIRE_INVENTORY_ITEMS_MAX; i++) {
        char *type = g_ptr_array_index(types, i);

        if (g_hash_table_add(seen, type)) {
            layout_inventory(inventory, type);
        }
    }
    return inventory;
}
