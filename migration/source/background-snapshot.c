/*
 * The source: a snapshot of a guest that goes on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "io/channel-buffer.h"
#include "migration/base/clock.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/postcopy/sender.h"
#include "migration/postcopy/write-watch.h"
#include "migration/ram/dirty-claim.h"
#include "migration/ram/ram-source.h"
#include "migration/ram/sync.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "background-snapshot.h"
#include "save.h"
#include "speed.h"
#include "state.h"
#include "switchover.h"

bool migration_in_bg_snapshot(void)
{
    return migrate_background_snapshot() && migration_is_running();
}

/* One at a time, of the migration thread */
static struct {
    bool begun;                 /* the next two are in use */
    PostcopySender sender;
    WriteWatch watch;
} taking;

static void wake(void *opaque)
{
    /* The thread that sends does not wait for anything. */
}

static void release_saved(void *opaque, const RamRegion *r, uint64_t first,
                          uint64_t count)
{
    write_watch_release(&taking.watch, r, first, count);
}

/* The thread that sends waits for what it writes to. */
static void give_up_writing(void)
{
    qemu_file_shutdown(source.to_dst);
}

static const PostcopySenderOps snapshot_ops = {
    .wake = wake, .release = release_saved, .early = true,
};

/* Copies that wait to be written, at a time: a share of the guest's memory */
#define KEPT_SHARE 16
#define KEPT_MAX (256 * MiB)

static uint64_t kept_limit(const RamRegions *regions)
{
    return MIN(ram_sender_left(regions) / KEPT_SHARE, KEPT_MAX);
}

/*
 * Copies make room for others; then pages that were not copied, and those that
 * were never there.  When none is left to claim, the last copies were made.
 */
static RamSendResult save_memory(void *opaque, RamSender *main, bool all)
{
    RamSendResult result;

    write_watch_send_kept(&taking.watch, main);
    result = postcopy_sender_run(&taking.sender, main, all);
    if (result == RAM_SEND_ALL) {
        write_watch_send_kept(&taking.watch, main);
        main->takes_dirty = false;
        result = ram_sender_run(main, all);
        main->takes_dirty = true;
    }
    return result;
}

/*
 * Before the moment: the guest runs, and the BQL is not held.
 */

/* What is to be saved, in whole pages of the host */
static void take_stock(void)
{
    RamRegions *regions = ram_source_sender()->regions;
    uint64_t now, later;

    qemu_savevm_state_pending_estimate(&now, &later);
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        dirty_map_round(r->map, postcopy_unit(r));
    }
    bql_lock();
    ram_source_enter_postcopy(save_memory, NULL);
    bql_unlock();
    postcopy_sender_init(&taking.sender, regions, &snapshot_ops, NULL);
    postcopy_sender_open(&taking.sender);
}

static bool protect_memory(Error **errp)
{
    take_stock();
    taking.watch = (WriteWatch) {
        .regions = ram_source_sender()->regions,
        .sender = &taking.sender,
        .keeps = kept_limit(ram_source_sender()->regions),
        .may_go_on = source_may_go_on,
        .stuck = give_up_writing,
    };
    taking.begun = true;
    return write_watch_begin(&taking.watch, errp) &&
           write_watch_arm(&taking.watch, errp);
}

/*
 * The moment, with the BQL
 */

static bool keep_devices(QEMUFile *kept, Error **errp)
{
    int ret = vmstate_save_devices(kept, NULL);

    return switchover_saved(ret, errp) && !qemu_fflush(kept);
}

static void add_appeared(void *opaque, RamRegion *r, uint64_t first,
                         uint64_t count)
{
    write_watch_add(&taking.watch, r, first, count);
}

/* What was written while memory was being protected, saving devices included */
static bool protect_rest(uint64_t *again, Error **errp)
{
    RamRegions *regions = ram_source_sender()->regions;

    ram_log_appeared(regions, add_appeared, NULL);
    ram_sender_skip_written(regions);
    return write_watch_moment(&taking.watch, again, errp);
}

static bool take_moment(QEMUFile *kept, Error **errp)
{
    int64_t stopped, saved, end;
    uint64_t again = 0;
    bool ok;

    bql_lock();
    ok = switchover_stop_first(errp);
    stopped = now_ns();
    ok = ok && keep_devices(kept, errp);
    saved = now_ns();
    ok = ok && protect_rest(&again, errp);
    end = now_ns();
    trace_background_snapshot_moment(stopped - source.stopped_ns,
                                     saved - stopped, end - saved, again);
    switchover_undo();
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.view.downtime_ms = (now_ns() - source.stopped_ns) / SCALE_MS;
    }
    bql_unlock();
    return ok;
}

static void forget_moment(void)
{
    if (taking.begun) {
        write_watch_end(&taking.watch);
        write_watch_free(&taking.watch);
        postcopy_sender_cleanup(&taking.sender);
        taking.begun = false;
    }
}

/*
 * What was saved then is written, while the guest runs.
 */

static bool write_memory(Error **errp)
{
    int ret = 0;

    speed_begin();
    while (!ret && source_may_go_on(NULL)) {
        ret = vmstate_save_ram(source.to_dst);
        speed_measure();
    }
    postcopy_sender_close(&taking.sender);
    write_watch_end(&taking.watch);
    return write_watch_check(&taking.watch, errp) && source_may_go_on(errp) &&
           switchover_saved(MIN(ret, 0), errp);
}

/* Nobody waits for memory any more: the BQL can be had. */
static bool write_rest(const QIOChannelBuffer *kept, Error **errp)
{
    QEMUFile *f = source.to_dst;
    int ret;

    bql_lock();
    stream_keep(f, true);
    ret = qemu_savevm_state_complete_precopy_iterable(f, false);
    qemu_put_buffer(f, kept->data, kept->usage);
    qemu_savevm_state_end(f);
    stream_keep(f, false);
    bql_unlock();
    qemu_fflush(f);
    return switchover_saved(ret, errp);
}

bool background_snapshot_run(Error **errp)
{
    g_autoptr(QIOChannelBuffer) buffer = qio_channel_buffer_new(512 * KiB);
    g_autoptr(QEMUFile) kept = qemu_file_new_output(QIO_CHANNEL(buffer));
    bool ok;

    qio_channel_set_name(QIO_CHANNEL(buffer), "migration-snapshot-devices");
    migration_rate_set(RATE_LIMIT_DISABLED);
    ok = protect_memory(errp) && source_may_go_on(errp) &&
         take_moment(kept, errp) && write_memory(errp) &&
         write_rest(buffer, errp);
    forget_moment();
    return ok;
}
