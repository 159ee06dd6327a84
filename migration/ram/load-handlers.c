/*
 * Loading RAM into this machine: the hooks of the section "ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "migration/wire/wire.h"
#include "blocks.h"
#include "load.h"
#include "target.h"

/*
 * There is one load at a time, and one thread that loads RAM.  The blocks stay
 * as long, since no device can be unplugged: see migration_is_loading().  In
 * postcopy the guest may do so nevertheless, see RamPresence.
 */
static struct {
    RamRegions regions;
    RamLoader loader;
    uint64_t sections;
    bool ready;
    bool (*meet)(RamLoader *loader, Error **errp);
    bool meet_each;
    bool (*hook)(RamRegions *regions, Error **errp);
    RamReadPlaces *read_places;
    const RamLazyOps *lazy;
} loading;

/* Whoever looks at the block's size holds the BQL; whoever loads may not. */
static bool resize_block(void *opaque, RamRegion *r, uint64_t bytes,
                         Error **errp)
{
    RAMBlock *rb = r->rb;
    int ret;

    BQL_LOCK_GUARD();
    ret = ram_target_resize(rb, bytes, errp);
    r->pages = rb->used_length >> r->page_bits;
    r->area.size = ROUND_UP(rb->used_length, rb->page_size);
    return ret >= 0;
}

/* Back at the next turn of the loop that this coroutine is part of. */
static void coroutine_mixed_fn let_loop_turn(void *opaque)
{
    if (qemu_in_coroutine()) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 0);
    }
}

static const RamLoadOps ram_load_ops = {
    .resize = resize_block,
    .rest = let_loop_turn,
};

static void ram_handlers_forget(void)
{
    if (loading.ready) {
        ram_blocks_free(&loading.regions);
        loading.ready = false;
    }
}

int ram_load_setup(QEMUFile *f, void *opaque, Error **errp)
{
    ram_handlers_forget();
    ram_blocks_get(&loading.regions);
    loading.sections = 0;
    loading.ready = true;
    loading.loader = (RamLoader) {
        .regions = &loading.regions,
        .ops = &ram_load_ops,
        .page_bits = qemu_target_page_bits(),
        .addresses = migrate_ignore_shared(),
        .mapped = migrate_mapped_ram(),
        .read_places = loading.read_places,
        .lazy = loading.lazy,
        .meet = loading.meet,
        .meet_each = loading.meet_each,
        .hook = loading.hook,
    };
    return 0;
}

static bool coroutine_mixed_fn ram_load_section(QEMUFile *f, int version_id,
                                                Error **errp)
{
    RamLoader *loader = &loading.loader;

    if (version_id != WIRE_RAM_VERSION) {
        error_setg(errp, "Its version is %d, only %d is supported",
                   version_id, WIRE_RAM_VERSION);
        return false;
    }
    if (!loading.ready) {
        error_setg(errp, "RAM comes where only device state may");
        return false;
    }
    /* What the source is told of comes before the list that depends on it. */
    loader->page_sizes = migrate_postcopy_ram() &&
                         migration_incoming_postcopy_advised();
    return ram_load_records(f, loader, errp);
}

int coroutine_mixed_fn ram_load_state(QEMUFile *f, void *opaque,
                                      int version_id)
{
    Error *err = NULL;
    bool ok;

    trace_ram_load_start();
    ok = ram_load_section(f, version_id, &err);
    trace_ram_load_complete(ok ? 0 : -EIO, loading.sections++);
    if (ok) {
        return 0;
    }
    if (qemu_file_get_error(f)) {
        /* The stream knows why, and whoever reads it asks the stream. */
        error_free(err);
    } else {
        qemu_file_set_error_obj(f, -EIO, err);
    }
    return -EIO;
}

void ram_load_unplugged(const void *host)
{
    RAM_REGIONS_FOREACH(r, &loading.regions) {
        if (r->host == host) {
            qatomic_set(&r->presence, RAM_GONE);
        }
    }
}

RamRegions *ram_load_regions(void)
{
    assert(loading.ready);
    return &loading.regions;
}

void ram_load_arrived(RamRegion *region, uint64_t page, uint64_t pages)
{
    const RamPagesOps *ops = loading.loader.pages;

    if (ops && ops->arrived) {
        ops->arrived(loading.loader.pages_opaque, region, page, pages);
    }
}

void ram_load_seal(void)
{
    loading.loader.sealed = true;
}

void ram_load_set_channels(bool (*meet)(RamLoader *loader, Error **errp),
                           bool meet_each)
{
    loading.meet = meet;
    loading.meet_each = meet_each;
}

void ram_load_set_hook(bool (*hook)(RamRegions *regions, Error **errp))
{
    loading.hook = hook;
}

void ram_load_set_readers(RamReadPlaces *read_places)
{
    loading.read_places = read_places;
}

void ram_load_set_lazy(const RamLazyOps *lazy)
{
    loading.lazy = lazy;
}

void ram_load_divert(const RamPagesOps *pages, void *opaque)
{
    loading.loader.pages = pages;
    loading.loader.pages_opaque = opaque;
}

bool ram_load_channel(QEMUFile *f, const RamPagesOps *pages, void *opaque,
                      Error **errp)
{
    RamLoader loader = {
        .regions = &loading.regions,
        .ops = &ram_load_ops,
        .page_bits = qemu_target_page_bits(),
        .pages = pages,
        .pages_opaque = opaque,
    };

    return ram_load_records(f, &loader, errp);
}

int ram_load_cleanup(void *opaque)
{
    RAM_REGIONS_FOREACH_SENT(r, &loading.regions) {
        if (memory_region_is_nonvolatile(r->rb->mr)) {
            ram_target_write_back(r->rb);
        }
    }
    ram_handlers_forget();
    return 0;
}
