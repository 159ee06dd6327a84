/*
 * The section "ram": sending it, and its table of handlers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Setup and cleanup have the BQL.  Everything between is the migration
 * thread's, which does not hold it; or, when a snapshot is made, all of it is
 * the main loop's, which does.  ram_bytes_remaining() has the BQL, and so what
 * it reads does not go away.
 */

#include "qemu/osdep.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-events-migration.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/migration-stats.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/register.h"
#include "migration/trace.h"
#include "migration/wire/wire.h"
#include "blocks.h"
#include "delta.h"
#include "hints.h"
#include "load.h"
#include "ram-source.h"
#include "send.h"
#include "sync.h"

static struct {
    bool active;                /* set up and not cleaned up */
    bool filled;                /* the maps say what is to be sent; atomic */
    RamRegions regions;
    RamSender sender;
    int64_t synced_ns;          /* when the last sync ended */
    RamSyncReport report;       /* of the last sync */
    bool reported;              /* it has been asked for */
} source;

/*
 * Syncs
 */

static void count_sync(void)
{
    const RamSyncReport *report = &source.report;
    unsigned bits = qemu_target_page_bits();

    stat64_add(&mig_stats.dirty_sync_count, 1);
    stat64_set(&mig_stats.dirty_bytes_last_sync,
               ram_sender_left(&source.regions));
    if (!report->first && report->interval_ns) {
        double seconds = report->interval_ns / 1e9;

        stat64_set(&mig_stats.dirty_pages_rate,
                   (report->dirtied >> bits) / seconds);
    }
    ram_delta_rates(stat64_get(&mig_stats.normal_pages) +
                    stat64_get(&mig_stats.zero_pages));
    if (migrate_events()) {
        qapi_event_send_migration_pass(
            stat64_get(&mig_stats.dirty_sync_count));
    }
}

static void sync_maps(bool last)
{
    int64_t before = source.synced_ns;

    trace_migration_bitmap_sync_start();
    ram_hints_stop();
    if (source.filled) {
        ram_log_sync(&source.regions, last, &source.report);
        source.sender.age++;
    } else {
        ram_log_first(&source.regions, &source.report);
        qatomic_set(&source.filled, true);
    }
    source.synced_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    source.report.interval_ns = before ? source.synced_ns - before : 0;
    source.reported = false;
    count_sync();
    trace_migration_bitmap_sync_end(source.report.dirtied >>
                                    qemu_target_page_bits());
    ram_hints_go_on();
}

bool ram_source_last_sync(RamSyncReport *report)
{
    if (!source.filled || source.reported) {
        return false;
    }
    *report = source.report;
    source.reported = true;
    return true;
}

void ram_source_set_peer(uint32_t features)
{
    source.sender.sink.peer = features;
}

uint64_t ram_bytes_remaining(void)
{
    if (!source.active) {
        return 0;
    }
    return qatomic_read(&source.filled) ? ram_sender_left(&source.regions)
                                        : ram_bytes_total();
}

/*
 * Handlers
 */

static void save_cleanup(void *opaque)
{
    if (!source.active) {
        return;
    }
    source.active = false;
    ram_hints_end();
    ram_log_stop();
    ram_delta_stop();
    ram_blocks_free(&source.regions);
    memset(&source, 0, sizeof(source));
}

static int save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    int ret;

    ram_blocks_get(&source.regions);
    source.active = true;       /* so that a cleanup undoes what follows */
    if (!ram_blocks_make_maps(&source.regions)) {
        error_setg(errp, "There is no memory for the dirty maps of %" PRIu64
                   " MiB of RAM", ram_bytes_total() >> 20);
        return -ENOMEM;
    }
    if (migrate_xbzrle() &&
        !ram_delta_start(migrate_xbzrle_cache_size(),
                         qemu_target_page_size(), errp)) {
        return -ENOMEM;
    }
    if (!ram_log_start(errp)) {
        return -EINVAL;
    }
    ram_hints_begin(&source.regions);
    ram_sender_init(&source.sender, &source.regions, f);
    source.sender.find_zeros =
        migrate_zero_page_detection() != ZERO_PAGE_DETECTION_NONE;
    ram_sink_announce(&source.sender.sink, &source.regions,
                      migrate_ignore_shared());
    ret = ram_sink_end(&source.sender.sink);
    if (ret) {
        error_setg_errno(errp, -ret, "The list of RAM blocks cannot be sent");
    }
    return ret;
}

/* Account for what was sent since the stream was at @before. */
static void count_bytes(uint64_t before, bool last)
{
    uint64_t bytes = qemu_file_transferred(source.sender.sink.file) - before;

    stat64_add(last ? &mig_stats.downtime_bytes : &mig_stats.precopy_bytes,
               bytes);
}

static int save_iterate(QEMUFile *f, void *opaque)
{
    uint64_t before = qemu_file_transferred(f);
    RamSendResult result;
    int ret;

    if (!source.filled) {
        sync_maps(false);
    }
    WITH_RCU_READ_LOCK_GUARD() {
        result = ram_sender_run(&source.sender, false);
        ret = ram_sink_end(&source.sender.sink);
    }
    count_bytes(before, false);
    return ret ? ret : result == RAM_SEND_ALL;
}

static int save_complete(QEMUFile *f, void *opaque)
{
    uint64_t before = qemu_file_transferred(f);
    int ret;

    sync_maps(source.filled);
    WITH_RCU_READ_LOCK_GUARD() {
        ram_sender_run(&source.sender, true);
        ret = ram_sink_end(&source.sender.sink);
    }
    count_bytes(before, true);
    return ret;
}

static void state_pending_estimate(void *opaque, uint64_t *must_precopy,
                                   uint64_t *can_postcopy)
{
    if (!source.filled) {
        sync_maps(false);
    }
    *must_precopy += ram_sender_left(&source.regions);
}

static void state_pending_exact(void *opaque, uint64_t *must_precopy,
                                uint64_t *can_postcopy)
{
    sync_maps(false);
    *must_precopy += ram_sender_left(&source.regions);
}

static SaveVMHandlers handlers = {
    .save_setup = save_setup,
    .save_live_iterate = save_iterate,
    .save_live_complete_precopy = save_complete,
    .state_pending_exact = state_pending_exact,
    .state_pending_estimate = state_pending_estimate,
    .save_cleanup = save_cleanup,
    .load_setup = ram_load_setup,
    .load_state = ram_load_state,
    .load_cleanup = ram_load_cleanup,
};

/*
 * What the peer has been told of a block is no longer true.  So the migration
 * fails, and the guest runs on here.  BQL.
 */
static void give_up_on(const RamRegion *r, const char *what)
{
    Error *err = NULL;

    error_setg(&err, "RAM block '%s' was %s while it was being sent", r->name,
               what);
    qemu_file_set_error_obj(source.sender.sink.file, -EBUSY, err);
}

static void block_resized(RAMBlockNotifier *n, void *host, size_t old_size,
                          size_t new_size)
{
    RAM_REGIONS_FOREACH_SENT(r, &source.regions) {
        if (r->host == host) {
            give_up_on(r, "resized");
        }
    }
}

/* The memory stays until those who use it leave their RCU section. */
static void block_removed(RAMBlockNotifier *n, void *host, size_t size,
                          size_t max_size)
{
    RAM_REGIONS_FOREACH_SENT(r, &source.regions) {
        if (r->host == host) {
            give_up_on(r, "unplugged");
            qatomic_set(&r->ignored, true);
        }
    }
}

void ram_mig_init(void)
{
    static RAMBlockNotifier notifier = {
        .ram_block_resized = block_resized,
        .ram_block_removed = block_removed,
    };

    register_savevm_live(WIRE_RAM_NAME, WIRE_RAM_INSTANCE, WIRE_RAM_VERSION,
                         &handlers, NULL);
    ram_block_notifier_add(&notifier);
}
