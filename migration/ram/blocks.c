/*
 * The RAM blocks of this machine as regions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/rcu.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/vmstate.h"
#include "blocks.h"
#include "ram-source.h"
#include "sync.h"

/* Left out, as it is made anew there or because both sides see the same */
bool migrate_ram_is_ignored(RAMBlock *rb)
{
    if (!qemu_ram_is_migratable(rb) ||
        migrate_mode() == MIG_MODE_CPR_TRANSFER ||
        migrate_mode() == MIG_MODE_CPR_EXEC) {
        return true;
    }
    return migrate_ignore_shared() && qemu_ram_is_shared(rb) &&
           qemu_ram_is_named_file(rb);
}

static PopulatedArea area_of(RAMBlock *rb)
{
    /*
     * Memory of others, what only a confidential guest can read, and what is
     * still at the source that this guest comes from
     */
    bool foreign = (rb->flags & RAM_PREALLOC) || rb->guest_memfd >= 0 ||
                   migration_in_incoming_postcopy();

    return (PopulatedArea) {
        .kind = populated_kind(foreign, rb->fd, qemu_ram_is_shared(rb)),
        .host = rb->host,
        .size = ROUND_UP(rb->used_length, rb->page_size),
        .fd = rb->fd,
        .fd_offset = rb->fd_offset,
    };
}

static RamRegion blocks_region_of(RAMBlock *rb, unsigned index)
{
    unsigned bits = qemu_target_page_bits();

    return (RamRegion) {
        .name = g_strdup(rb->idstr),
        .index = index,
        .page_bits = bits,
        .host = rb->host,
        .pages = rb->used_length >> bits,
        .max_pages = rb->max_length >> bits,
        .host_page_size = rb->page_size,
        .guest_addr = rb->mr->addr,
        .ignored = migrate_ram_is_ignored(rb),
        .persistent = rb->flags & RAM_PMEM,
        .read_only = rb->flags & RAM_READONLY,
        .area = area_of(rb),
        .rb = rb,
    };
}

void ram_blocks_get(RamRegions *regions)
{
    g_autoptr(GArray) list = g_array_new(false, false, sizeof(RamRegion));
    RAMBlock *rb;

    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (qemu_ram_is_migratable(rb)) {
                RamRegion region = blocks_region_of(rb, list->len);

                g_array_append_val(list, region);
            }
        }
    }
    regions->count = list->len;
    regions->list = (RamRegion *)g_array_free(g_steal_pointer(&list), false);
}

/* As -global migration.x-clear-bitmap-shift has it, or as near as can be */
static unsigned chunk_shift(void)
{
    return CLAMP(migrate_get_current()->clear_bitmap_shift,
                 DIRTY_CHUNK_SHIFT_MIN, DIRTY_CHUNK_SHIFT_MAX);
}

bool ram_blocks_make_maps(RamRegions *regions)
{
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        r->map = dirty_map_new(r->pages, chunk_shift(), ram_log_clear, r);
        if (!r->map) {
            return false;
        }
        r->untouched = g_array_new(false, false, sizeof(RamRange));
    }
    return true;
}

void ram_blocks_free(RamRegions *regions)
{
    RAM_REGIONS_FOREACH(r, regions) {
        g_free(r->name);
        dirty_map_free(r->map);
        if (r->untouched) {
            g_array_free(r->untouched, true);
        }
    }
    g_free(regions->list);
    *regions = (RamRegions) {};
}

uint64_t ram_bytes_total(void)
{
    uint64_t total = 0;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (!migrate_ram_is_ignored(rb)) {
            total += rb->used_length;
        }
    }
    return total;
}

/*
 * RAM has one section for all blocks; a block only needs a name in it.
 */

void vmstate_register_ram(MemoryRegion *mr, DeviceState *dev)
{
    RAMBlock *block = mr->ram_block;

    qemu_ram_set_idstr(block, memory_region_name(mr), dev);
    qemu_ram_set_migratable(block);
    ram_block_add_cpr_blocker(block, &error_fatal);
}

void vmstate_register_ram_global(MemoryRegion *mr)
{
    vmstate_register_ram(mr, NULL);
}

void vmstate_unregister_ram(MemoryRegion *mr, DeviceState *dev)
{
    RAMBlock *block = mr->ram_block;

    ram_source_unplugged(block);
    ram_block_del_cpr_blocker(block);
    qemu_ram_unset_migratable(block);
    qemu_ram_unset_idstr(block);
}
