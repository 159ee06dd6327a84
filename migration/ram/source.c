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
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "qapi/qapi-events-migration.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "migration/base/clock.h"
#include "migration/migration-stats.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "blocks.h"
#include "delta.h"
#include "dirty-claim.h"
#include "hints.h"
#include "load.h"
#include "mapped.h"
#include "presence.h"
#include "ram-source.h"
#include "send.h"
#include "stream-sink.h"
#include "sync.h"

static struct {
    bool active;                /* set up and not cleaned up */
    bool filled;                /* the maps say what is to be sent; atomic */
    RamRegions regions;
    RamStreamSink sink;
    RamOtherSink other;         /* .make is NULL: there is none */
    RamMapped mapped;           /* no places: pages are in the stream */
    RamMappedSink mapped_sink;
    RamSender sender;
    uint64_t pending;           /* bytes that were reported last */
    int64_t synced_ns;          /* when the last sync ended */
    RamSyncReport report;       /* of the last sync */
    bool reported;              /* by ram_source_last_sync() */
    RamChannels channels;       /* .run is NULL: there are no others */
    bool marked;                /* nothing came on these since their mark */
    bool leaving;               /* their last mark is the next section */
    bool passed;                /* there was a sync since the last section */
    RamRunFn *run;              /* postcopy: who sends; or NULL */
    void *run_opaque;
    bool drain;                 /* all is to be sent, and no slice of it */
    bool synced;                /* the end of the section needs no sync */
    bool postcopy;              /* the peer may request pages; presence_lock */
} sending;

/* Around changes of presence; the locks of dirty maps may follow */
static QemuMutex presence_lock;

/*
 * Channels
 */

void ram_source_set_channels(const RamChannels *channels)
{
    sending.channels = *channels;
}

void ram_source_set_sink(const RamOtherSink *other)
{
    sending.other = *other;
}

/*
 * In a section: pages that follow arrive after those before, whichever channel
 * they take.
 */
static int mark_channels(void)
{
    /* To a file all was written when the channels rest. */
    if (!sending.channels.run || sending.marked || sending.mapped.places) {
        return 0;
    }
    sending.channels.mark(sending.channels.opaque);
    sending.marked = true;
    return sending.channels.each_section ? 0
                                         : ram_stream_sink_mark(&sending.sink);
}

bool ram_source_leave_channels(void)
{
    sending.leaving = sending.channels.run;
    return sending.leaving;
}

/* @mark: all that was sent arrives before what comes after the section. */
static int end_section(bool mark)
{
    int ret = 0;

    if (mark || sending.channels.each_section) {
        ret = mark_channels();
    }
    if (sending.channels.each_section) {
        sending.marked = false;
    }
    return ret ?: ram_sink_end(sending.sender.sink);
}

static int end_channels(void)
{
    int ret = end_section(true);

    sending.channels = (RamChannels) { };
    sending.leaving = false;
    sending.sender.takes_dirty = true;
    return ret;
}

/*
 * Syncs
 */

static void count_sync(void)
{
    const RamSyncReport *report = &sending.report;
    unsigned bits = qemu_target_page_bits();

    stat64_add(&mig_stats.dirty_sync_count, 1);
    stat64_set(&mig_stats.dirty_bytes_last_sync,
               ram_sender_left(&sending.regions));
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
    int64_t before = sending.synced_ns;

    trace_migration_bitmap_sync_start();
    ram_hints_stop();
    if (sending.filled) {
        /* An error is latched, and found by whoever sends. */
        ram_sink_end_pass(sending.sender.sink);
        sending.passed = true;
        ram_log_sync(&sending.regions, last, &sending.report);
        sending.sender.age++;
    } else {
        ram_log_first(&sending.regions, &sending.report);
        qatomic_set(&sending.filled, true);
    }
    sending.synced_ns = now_ns();
    sending.report.interval_ns = before ? sending.synced_ns - before : 0;
    sending.reported = false;
    count_sync();
    trace_migration_bitmap_sync_end(sending.report.dirtied >>
                                    qemu_target_page_bits());
    ram_hints_go_on(last);
}

bool ram_source_last_sync(RamSyncReport *report)
{
    if (!sending.filled || sending.reported) {
        return false;
    }
    *report = sending.report;
    sending.reported = true;
    return true;
}

bool ram_source_sync_report(RamSyncReport *report)
{
    *report = sending.report;
    return sending.filled;
}

void ram_source_drain(bool all)
{
    sending.drain = all;
}

void ram_source_set_peer(uint32_t features)
{
    ram_stream_sink_set_peer(&sending.sink, features);
}

uint32_t ram_source_peer(void)
{
    return sending.sink.peer;
}

uint64_t ram_bytes_remaining(void)
{
    if (!sending.active) {
        return 0;
    }
    return qatomic_read(&sending.filled) ? ram_sender_left(&sending.regions)
                                         : ram_bytes_total();
}

uint64_t ram_source_pending(void)
{
    return sending.pending;
}

/*
 * Handlers
 */

static void save_cleanup(void *opaque)
{
    RamOtherSink other = sending.other;

    sending.channels = (RamChannels) { };
    sending.other = (RamOtherSink) { };
    if (other.free) {
        other.free(other.opaque);
    }
    if (!sending.active) {
        return;
    }
    sending.active = false;
    ram_hints_end();
    ram_log_stop();
    ram_delta_stop();
    ram_mapped_free(&sending.mapped);
    ram_blocks_free(&sending.regions);
    memset(&sending, 0, sizeof(sending));
}

static unsigned announced(void)
{
    return (migrate_ignore_shared() ? RAM_ANNOUNCE_ADDRESS : 0) |
           (migrate_postcopy_ram() ? RAM_ANNOUNCE_HOST_PAGE : 0);
}

static RamSink *make_places(QEMUFile *f)
{
    ram_mapped_begin(&sending.mapped, &sending.regions);
    ram_mapped_sink_init(&sending.mapped_sink, &sending.mapped, f);
    return &sending.mapped_sink.sink;
}

/* Of the thread that writes the stream */
static RamSink *choose_sink(QEMUFile *f)
{
    if (sending.other.make) {
        return sending.other.make(sending.other.opaque, &sending.sink,
                                  &sending.regions);
    }
    return migrate_mapped_ram() ? make_places(f) : &sending.sink.sink;
}

static int save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    int ret;

    ram_blocks_get(&sending.regions);
    sending.active = true;       /* so that a cleanup undoes what follows */
    if (!ram_blocks_make_maps(&sending.regions)) {
        error_setg(errp, "There is no memory for the dirty maps of %" PRIu64
                   " MiB of RAM", ram_bytes_total() >> 20);
        return -ENOMEM;
    }
    if (migrate_xbzrle() && !sending.other.make &&
        !ram_delta_start(migrate_xbzrle_cache_size(),
                         qemu_target_page_size(), errp)) {
        return -ENOMEM;
    }
    /* The guest's writes are waited for, so nobody has to record them. */
    if (!migrate_background_snapshot()) {
        if (!ram_log_start(errp)) {
            return -EINVAL;
        }
        ram_hints_begin(&sending.regions);
    }
    ram_stream_sink_init(&sending.sink, f, 0);
    ram_sender_init(&sending.sender, &sending.regions, choose_sink(f));
    sending.sender.find_zeros = migrate_zero_page_detection() !=
                                ZERO_PAGE_DETECTION_NONE;
    ram_stream_sink_announce(&sending.sink, &sending.regions, announced(),
                             sending.mapped.places ? &sending.mapped : NULL);
    ret = end_section(true);
    if (ret && stream_check(f, errp)) {
        error_setg_errno(errp, -ret, "The list of RAM blocks cannot be sent");
    }
    return ret;
}

/* Account for what was sent since the sink was at @before. */
static void count_bytes(uint64_t before, Stat64 *stat)
{
    bool postcopy = sending.run && !migrate_background_snapshot();

    stat64_add(postcopy ? &mig_stats.postcopy_bytes : stat,
               ram_sink_position(sending.sender.sink) - before);
}

static RamSendResult ram_source_run_sender(bool all)
{
    if (sending.run) {
        return sending.run(sending.run_opaque, &sending.sender, all);
    }
    if (sending.channels.run) {
        sending.marked = false;
        return sending.channels.run(sending.channels.opaque, &sending.sender,
                                    all);
    }
    return ram_sender_run(&sending.sender, all);
}

/* What was sent before the last sync must not arrive after what follows. */
static int begin_section(void)
{
    bool due = sending.passed && !sending.channels.each_section;
    int ret = sending.other.begin ? sending.other.begin(sending.other.opaque)
                                  : 0;

    sending.passed = false;
    return ret ?: due ? mark_channels() : 0;
}

static int save_iterate(QEMUFile *f, void *opaque)
{
    uint64_t before = ram_sink_position(sending.sender.sink);
    RamSendResult result;
    int ret;

    if (sending.leaving) {
        ret = end_channels();
        count_bytes(before, &mig_stats.precopy_bytes);
        return ret;
    }
    if (!sending.filled) {
        sync_maps(false);
    }
    ret = begin_section();
    if (ret) {
        return ret;
    }
    WITH_RCU_READ_LOCK_GUARD() {
        result = ram_source_run_sender(sending.drain);
        ret = end_section(sending.drain);
    }
    /* All is sent at once only while the guest is stopped. */
    count_bytes(before,
                sending.drain ? &mig_stats.downtime_bytes
                              : &mig_stats.precopy_bytes);
    return ret ? ret : result == RAM_SEND_ALL;
}

static int save_complete(QEMUFile *f, void *opaque)
{
    uint64_t before = ram_sink_position(sending.sender.sink);
    int ret;

    if (!sending.run && !sending.synced) {
        sync_maps(sending.filled);
    }
    sending.synced = false;
    ret = begin_section();
    if (ret) {
        return ret;
    }
    WITH_RCU_READ_LOCK_GUARD() {
        if (sending.run) {
            sending.run(sending.run_opaque, &sending.sender, true);
        } else {
            /* It is not much, and with the BQL no channel is waited for. */
            sending.sender.takes_dirty = true;
            ram_sender_run(&sending.sender, true);
        }
        ret = ram_mapped_end(&sending.mapped, &sending.regions, f) ?:
              end_section(true);
    }
    count_bytes(before, &mig_stats.downtime_bytes);
    return ret;
}

/* Memory that only keeps its content if it is flushed is written in order. */
static bool ram_source_has_postcopy(void *opaque)
{
    if (!migrate_postcopy_ram()) {
        return false;
    }
    RAM_REGIONS_FOREACH_SENT(r, &sending.regions) {
        if (r->persistent) {
            warn_report_once("RAM block '%s' is persistent memory, for which "
                             "there is no postcopy: all memory is sent before "
                             "the guest goes on", r->name);
            return false;
        }
    }
    return true;
}

static void add_left(uint64_t *must_precopy, uint64_t *can_postcopy)
{
    uint64_t left = ram_sender_left(&sending.regions);

    sending.pending = left;

    if (ram_source_has_postcopy(NULL)) {
        *can_postcopy += left;
    } else {
        *must_precopy += left;
    }
}

static void state_pending_estimate(void *opaque, uint64_t *must_precopy,
                                   uint64_t *can_postcopy)
{
    if (!sending.filled) {
        sync_maps(false);
    }
    add_left(must_precopy, can_postcopy);
}

static void state_pending_exact(void *opaque, uint64_t *must_precopy,
                                uint64_t *can_postcopy)
{
    if (!sending.run) {
        sync_maps(false);
    }
    add_left(must_precopy, can_postcopy);
}

/*
 * Postcopy
 */

uint64_t ram_source_host_page_sizes(void)
{
    uint64_t sizes = 0;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        sizes |= qemu_ram_pagesize(rb);
    }
    return sizes;
}

bool ram_source_may_postcopy(void)
{
    return sending.filled && !ram_sender_untold(&sending.regions);
}

bool ram_source_must_precopy(void)
{
    return !ram_source_has_postcopy(NULL);
}

RamSender *ram_source_sender(void)
{
    return &sending.sender;
}

void ram_source_expect_requests(bool expect)
{
    QEMU_LOCK_GUARD(&presence_lock);
    sending.postcopy = expect;
    ram_presence_postcopy(&sending.regions, expect);
}

void ram_source_sync_last(void)
{
    sync_maps(true);
}

void ram_source_is_synced(void)
{
    sending.synced = true;
}

bool ram_source_send_again(const char *block, uint64_t start, uint64_t len,
                           Error **errp)
{
    RamRegion *r = ram_regions_find(&sending.regions, block);
    uint64_t bytes = r ? ram_region_bytes(r) : 0;

    if (!len || start >= bytes || len > bytes - start ||
        !QEMU_IS_ALIGNED(start | len, ram_region_page_size(r))) {
        g_autofree char *shown = g_strescape(block, NULL);

        error_setg(errp, "the destination reports a change of %" PRIu64
                   " bytes at %" PRIu64 " of RAM block '%s', which are not in "
                   "it", len, start, shown);
        return false;
    }
    if (!qatomic_read(&r->ignored)) {
        dirty_map_set(r->map, start >> r->page_bits, len >> r->page_bits);
        ram_log_drop_unplugged(r);
    }
    return true;
}

/* Nothing may be written to memory whose faults are waited for. */
static void leave_other_sink(void)
{
    if (sending.other.make) {
        sending.sender.sink = &sending.sink.sink;
        sending.other.begin = NULL;
    }
}

void ram_source_enter_postcopy(RamRunFn *run, void *opaque)
{
    ram_hints_stop();
    leave_other_sink();
    ram_delta_stop();
    RAM_REGIONS_FOREACH_SENT(r, &sending.regions) {
        dirty_map_freeze(r->map);
    }
    sending.sender.age = 1;
    sending.run = run;
    sending.run_opaque = opaque;
}

void ram_source_begin_turn(RamRunFn *run, void *opaque)
{
    assert(!sending.run);
    sending.run = run;
    sending.run_opaque = opaque;
}

void ram_source_end_turn(void)
{
    sending.run = NULL;
}

void ram_source_peer_forgot(void)
{
    Error *err = NULL;

    if (ram_delta_active() &&
        !ram_delta_forget(migrate_xbzrle_cache_size(), &err)) {
        warn_reportf_err(err, "Pages are sent whole from now on: ");
    }
}

void ram_source_write_to(QEMUFile *f)
{
    ram_stream_sink_init(&sending.sink, f, sending.sink.peer);
}

void ram_source_resume(QEMUFile *f)
{
    RAM_REGIONS_FOREACH_SENT(r, &sending.regions) {
        ram_log_drop_unplugged(r);
    }
    ram_stream_sink_init(&sending.sink, f, sending.sink.peer);
}

const SaveVMHandlers ram_section_handlers = {
    .save_setup = save_setup,
    .save_live_iterate = save_iterate,
    .save_live_complete_precopy = save_complete,
    .save_live_complete_postcopy = save_complete,
    .has_postcopy = ram_source_has_postcopy,
    .state_pending_exact = state_pending_exact,
    .state_pending_estimate = state_pending_estimate,
    .save_cleanup = save_cleanup,
    .load_setup = ram_load_setup,
    .load_state = ram_load_state,
    .load_cleanup = ram_load_cleanup,
};

/* Addresses of memory that has gone may be in use again for something else. */
static RamRegion *region_here_at(const void *host)
{
    RAM_REGIONS_FOREACH(r, &sending.regions) {
        if (r->host == host && ram_region_here(r)) {
            return r;
        }
    }
    return NULL;
}

/*
 * What the peer has been told of a block is no longer true.  So the migration
 * fails, and the guest runs on here.  BQL.
 */
static void give_up_on(const RamRegion *r, const char *what)
{
    Error *err = NULL;

    error_setg(&err, "RAM block '%s' was %s while it was being sent", r->name,
               what);
    ram_sink_fail(sending.sender.sink, -EBUSY, err);
}

static void block_resized(RAMBlockNotifier *n, void *host, size_t old_size,
                          size_t new_size)
{
    RamRegion *r = region_here_at(host);

    if (r) {
        give_up_on(r, "resized");
    }
}

static void lose(RamRegion *r)
{
    if (r) {
        QEMU_LOCK_GUARD(&presence_lock);
        ram_presence_lost(r, sending.postcopy);
    }
}

/* The memory stays until those who use it leave their RCU section. */
static void block_removed(RAMBlockNotifier *n, void *host, size_t size,
                          size_t max_size)
{
    lose(region_here_at(host));
    ram_load_unplugged(host);
}

void ram_source_unplugged(RAMBlock *rb)
{
    lose(region_here_at(rb->host));
}

void ram_mig_init(void)
{
    static RAMBlockNotifier notifier = {
        .ram_block_resized = block_resized,
        .ram_block_removed = block_removed,
    };

    qemu_mutex_init(&presence_lock);
    ram_block_notifier_add(&notifier);
}
