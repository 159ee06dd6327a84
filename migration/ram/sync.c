/*
 * The dirty log of the machine's memory, and how it gets into the maps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "hw/core/cpu.h"
#include "system/kvm.h"
#include "system/replay.h"
#include "system/tcg.h"
#include "migration/base/clock.h"
#include "migration/trace.h"
#include "sync.h"
#include "target.h"

static void (*give_back)(void);     /* who has borrowed the log; BQL */

bool ram_log_start(Error **errp)
{
    if (give_back) {
        give_back();
    }
    return memory_global_dirty_log_start(GLOBAL_DIRTY_MIGRATION, errp);
}

void ram_log_stop(void)
{
    /* one that never began must not be stopped */
    if (global_dirty_tracking & GLOBAL_DIRTY_MIGRATION) {
        memory_global_dirty_log_stop(GLOBAL_DIRTY_MIGRATION);
    }
}

bool ram_log_borrow(void (*ends)(void), Error **errp)
{
    if (global_dirty_tracking & GLOBAL_DIRTY_MIGRATION) {
        error_setg(errp, "The log of what the guest writes is in use");
        return false;
    }
    if (!memory_global_dirty_log_start(GLOBAL_DIRTY_MIGRATION, errp)) {
        return false;
    }
    give_back = ends;
    return true;
}

void ram_log_return(void)
{
    give_back = NULL;
    ram_log_stop();
}

/* Collect everybody's log into the bitmap.  A snapshot has the BQL already. */
static void collect(bool last, RamSyncReport *report)
{
    int64_t start;

    BQL_LOCK_GUARD();
    start = now_ns();
    memory_global_dirty_log_sync(last);
    report->bql_ns = now_ns() - start;
}

static void do_nothing(CPUState *cpu, run_on_cpu_data data)
{
}

/*
 * Until each vCPU has ended the translation block it is in.  The BQL is
 * released meanwhile, and the guest may complete the unplug of a vCPU or a
 * device: so the list of memory listeners, which would do the same, must not
 * be walked here.
 */
static void wait_for_vcpus(void)
{
    g_autoptr(GPtrArray) cpus = g_ptr_array_new_with_free_func(object_unref);
    CPUState *cpu;

    if (replay_mode != REPLAY_MODE_NONE) {
        return;
    }
    CPU_FOREACH(cpu) {
        g_ptr_array_add(cpus, object_ref(cpu));
    }
    for (unsigned i = 0; i < cpus->len; i++) {
        run_on_cpu(g_ptr_array_index(cpus, i), do_nothing, RUN_ON_CPU_NULL);
    }
}

/*
 * After bits of the bitmap have been cleared: have those record who look at
 * it, and wait until no CPU acts on what it saw before.  Only then what was
 * cleared may be read.
 *
 * TCG looks at the bitmap when a TLB entry is made or found to be slow, not at
 * each write.  So entries are reset, and CPUs are waited for twice: before,
 * as one may be about to make an entry fast because its bit was set a moment
 * ago, and after, as one may be past its look at an entry.
 */
static void sync_settle(RamRegions *regions, RamSyncReport *report)
{
    int64_t start;

    BQL_LOCK_GUARD();
    start = now_ns();
    if (tcg_enabled()) {
        wait_for_vcpus();
        RAM_REGIONS_FOREACH_SENT(r, regions) {
            if (r->pages && ram_region_here(r)) {
                ram_target_look_at_log(r->rb, ram_region_bytes(r));
            }
        }
        wait_for_vcpus();
    } else {
        memory_global_after_dirty_log_sync();
    }
    report->bql_ns = MAX(report->bql_ns, now_ns() - start);
}

/*
 * Accelerators that are not known to record on while their log is merged
 * record nothing between the first write to a page and the next collection:
 * so nobody may write in between.  Returns whether the BQL was taken for that.
 */
static bool hold_back_writers(void)
{
    bool take = !kvm_enabled() && !tcg_enabled() && !bql_locked();

    if (take) {
        bql_lock();
    }
    return take;
}

static void let_writers_go(bool taken)
{
    if (taken) {
        bql_unlock();
    }
}

/* Under the lock of the map, which holds back the end of the memory region. */
void ram_log_clear(void *opaque, uint64_t first, uint64_t count)
{
    RamRegion *r = opaque;

    memory_region_clear_dirty_bitmap(r->rb->mr, first << r->page_bits,
                                     count << r->page_bits);
}

/* One piece of the bitmap that is contiguous in memory */
typedef struct BitmapPiece {
    unsigned long *words;
    uint64_t bit;               /* of its first page */
    uint64_t first, count;      /* in pages of the region */
} BitmapPiece;

/* The piece of @r's pages from @first on.  RCU. */
static BitmapPiece bitmap_piece(const RamRegion *r, uint64_t first)
{
    DirtyMemoryBlocks *all =
        qatomic_rcu_read(&ram_list.dirty_memory[DIRTY_MEMORY_MIGRATION]);
    uint64_t at = (r->rb->offset >> r->page_bits) + first;
    uint64_t bit = at % DIRTY_MEMORY_BLOCK_SIZE;

    return (BitmapPiece) {
        .words = all->blocks[at / DIRTY_MEMORY_BLOCK_SIZE],
        .bit = bit,
        .first = first,
        .count = MIN(r->pages - first, DIRTY_MEMORY_BLOCK_SIZE - bit),
    };
}

/* Returns how many bytes have become dirty. */
static uint64_t merge_region(RamRegion *r)
{
    uint64_t dirtied = 0;
    BitmapPiece piece;

    RCU_READ_LOCK_GUARD();
    if (!ram_region_here(r)) {
        return 0;
    }
    for (uint64_t at = 0; at < r->pages; at += piece.count) {
        piece = bitmap_piece(r, at);
        dirtied += dirty_map_merge_clearing(r->map, piece.first, piece.count,
                                            piece.words, piece.bit);
    }
    return dirtied << r->page_bits;
}

/* Forget what the log says of @r so far, and have it record from now on. */
static void forget_region(RamRegion *r)
{
    BitmapPiece piece;

    RCU_READ_LOCK_GUARD();
    if (!ram_region_here(r)) {
        return;
    }
    for (uint64_t at = 0; at < r->pages; at += piece.count) {
        piece = bitmap_piece(r, at);
        bitmap_test_and_clear_atomic(piece.words, piece.bit, piece.count);
    }
    dirty_map_forget_log(r->map);
}

/* The runs of one piece; a run that crosses into the next one is two. */
static void take_piece(const BitmapPiece *piece, RamLogRunFn *fn, void *opaque)
{
    uint64_t limit = piece->bit + piece->count;
    uint64_t at = find_next_bit(piece->words, limit, piece->bit), end;

    for (; at < limit; at = find_next_bit(piece->words, limit, end)) {
        end = find_next_zero_bit(piece->words, limit, at);
        bitmap_test_and_clear_atomic(piece->words, at, end - at);
        fn(opaque, piece->first + at - piece->bit, end - at);
    }
}

void ram_log_take(const RamRegion *r, RamLogRunFn *fn, void *opaque)
{
    BitmapPiece piece;

    RCU_READ_LOCK_GUARD();
    if (qatomic_read(&r->ignored)) {
        return;
    }
    for (uint64_t at = 0; at < r->pages; at += piece.count) {
        piece = bitmap_piece(r, at);
        take_piece(&piece, fn, opaque);
    }
}

/*
 * Fewer pages than these, where nobody ever wrote, are sent like all others:
 * so all ranges together take no more than a bit a page.
 */
#define UNTOUCHED_MIN 128

/* A walk over what is populated, which has come to page @next */
typedef struct Fill {
    RamRegion *region;
    uint64_t origin;            /* page that offsets are counted from */
    uint64_t next;
    uint64_t end;
} Fill;

/* Nothing is populated up to page @to. */
static void fill_untouched(Fill *fill, uint64_t to)
{
    RamRegion *r = fill->region;
    RamRange range = { fill->next, to - fill->next };

    if (range.count >= UNTOUCHED_MIN) {
        g_array_append_val(r->untouched, range);
        qatomic_set_u64(&r->untold_pages, r->untold_pages + range.count);
    } else if (range.count) {
        dirty_map_set(r->map, range.first, range.count);
    }
    fill->next = to;
}

static void fill_populated(void *opaque, uint64_t offset, uint64_t length)
{
    Fill *fill = opaque;
    RamRegion *r = fill->region;
    uint64_t page_size = ram_region_page_size(r);
    uint64_t first = fill->origin + (offset >> r->page_bits);
    uint64_t end = fill->origin + DIV_ROUND_UP(offset + length, page_size);

    first = MAX(first, fill->next);
    end = MIN(end, fill->end);
    if (first < end) {
        fill_untouched(fill, first);
        dirty_map_set(r->map, first, end - first);
        fill->next = end;
    }
}

/* Those pages of @r, and the rest of the last page of the host */
static PopulatedArea area_of_pages(const RamRegion *r, uint64_t first,
                                   uint64_t count)
{
    uint64_t offset = first << r->page_bits;
    PopulatedArea area = r->area;

    area.host = (uint8_t *)area.host + offset;
    area.fd_offset += offset;
    area.size = MIN(area.size - offset,
                    ROUND_UP(count << r->page_bits, r->host_page_size));
    return area;
}

static void fill_range(RamRegion *r, uint64_t first, uint64_t count)
{
    PopulatedArea area = area_of_pages(r, first, count);
    Fill fill = {
        .region = r, .origin = first, .next = first, .end = first + count,
    };

    populated_scan(&area, POPULATED_BEST, fill_populated, &fill);
    fill_untouched(&fill, fill.end);
}

static int note_plugged(MemoryRegionSection *section, void *opaque)
{
    GArray *plugged = opaque;

    g_array_append_val(plugged, *section);
    return 0;
}

/*
 * What a device like virtio-mem has unplugged is neither read here nor touched
 * there.  It stays so, as these devices plug nothing during a migration.
 * Returns the other parts, or NULL if there is no such device.
 */
static GArray *plugged_parts(const RamRegion *r)
{
    GArray *plugged = NULL;

    BQL_LOCK_GUARD();
    if (ram_region_here(r) &&
        memory_region_has_ram_discard_manager(r->rb->mr)) {
        plugged = g_array_new(false, false, sizeof(MemoryRegionSection));
        ram_discard_manager_replay_populated(
            memory_region_get_ram_discard_manager(r->rb->mr),
            &(MemoryRegionSection) {
                .mr = r->rb->mr,
                .size = int128_make64(ram_region_bytes(r)),
            }, note_plugged, plugged);
    }
    return plugged;
}

static void fill_region(RamRegion *r)
{
    g_autoptr(GArray) plugged = plugged_parts(r);

    RCU_READ_LOCK_GUARD();
    if (!ram_region_here(r)) {
        return;
    }
    if (!plugged) {
        fill_range(r, 0, r->pages);
        return;
    }
    for (unsigned i = 0; i < plugged->len; i++) {
        const MemoryRegionSection *part =
            &g_array_index(plugged, MemoryRegionSection, i);

        fill_range(r, part->offset_within_region >> r->page_bits,
                   int128_get64(part->size) >> r->page_bits);
    }
}

typedef struct Appeared {
    RamRegion *region;
    uint64_t origin;            /* page that offsets are counted from */
    RamAppearedFn *fn;
    void *opaque;
} Appeared;

static void found_appeared(void *opaque, uint64_t offset, uint64_t length)
{
    const Appeared *a = opaque;
    RamRegion *r = a->region;
    uint64_t first = a->origin + (offset >> r->page_bits);
    uint64_t end = a->origin + DIV_ROUND_UP(offset + length,
                                            ram_region_page_size(r));

    a->fn(a->opaque, r, first, MIN(end, r->pages) - first);
}

void ram_log_appeared(RamRegions *regions, RamAppearedFn *fn, void *opaque)
{
    RCU_READ_LOCK_GUARD();
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        for (unsigned i = r->told; ram_region_here(r) &&
                                   i < r->untouched->len; i++) {
            const RamRange *range = &g_array_index(r->untouched, RamRange, i);
            Appeared a = {
                .region = r, .origin = range->first, .fn = fn,
                .opaque = opaque,
            };
            PopulatedArea area = area_of_pages(r, range->first, range->count);

            populated_scan(&area, POPULATED_BEST, found_appeared, &a);
        }
    }
}

void ram_log_drop_unplugged(RamRegion *r)
{
    g_autoptr(GArray) plugged = plugged_parts(r);
    uint64_t at = 0, first;

    if (!plugged) {
        return;
    }
    for (unsigned i = 0; i < plugged->len; i++) {
        const MemoryRegionSection *part =
            &g_array_index(plugged, MemoryRegionSection, i);

        first = part->offset_within_region >> r->page_bits;
        dirty_map_drop(r->map, at, first - at);
        at = first + (int128_get64(part->size) >> r->page_bits);
    }
    dirty_map_drop(r->map, at, r->pages - at);
}

/* From now on the log is about what is written after this call began. */
static void restart_log(RamRegions *regions, RamSyncReport *report)
{
    bool held_back = hold_back_writers();

    collect(false, report);
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        forget_region(r);
    }
    let_writers_go(held_back);
    sync_settle(regions, report);
}

void ram_log_restart(RamRegions *regions)
{
    RamSyncReport unused = { 0 };

    restart_log(regions, &unused);
}

void ram_log_first(RamRegions *regions, RamSyncReport *report)
{
    int64_t start = now_ns();

    *report = (RamSyncReport) { .first = true };
    restart_log(regions, report);
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        fill_region(r);
        trace_ram_first_fill(r->name, dirty_map_count(r->map),
                             r->untold_pages);
    }
    report->took_ns = now_ns() - start;
}

void ram_log_sync(RamRegions *regions, bool last, RamSyncReport *report)
{
    int64_t start = now_ns();
    bool held_back = hold_back_writers();

    *report = (RamSyncReport) {};
    collect(last, report);
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        report->dirtied += merge_region(r);
    }
    let_writers_go(held_back);
    sync_settle(regions, report);
    report->took_ns = now_ns() - start;
}
