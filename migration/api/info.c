/*
 * query-migrate: gathers what core/, the counters and the settings know
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-types-migration.h"
#include "exec/target_page.h"
#include "migration/checkpoint/checkpoint.h"
#include "migration/base/clock.h"
#include "migration/core/blockers.h"
#include "migration/core/notify.h"
#include "migration/destination/state.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/postcopy/dest.h"
#include "migration/ram.h"
#include "migration/source/multifd.h"
#include "migration/source/postcopy.h"
#include "migration/source/state.h"
#include "migration/source/throttle.h"
#include "migration/transport/transport.h"
#include "system/dirtylimit.h"
#include "query.h"

static MigrationStats ram_info(const SourceView *view)
{
    return (MigrationStats) {
#define RAM_COUNTER(counter, member, ...) \
        .member = stat64_get(&mig_stats.counter),
#include "migration/base/ram-stats.def"
        .page_size = qemu_target_page_size(),
        .transferred = migration_transferred_bytes(),
        .remaining = ram_bytes_remaining(),
        .total = ram_bytes_total(),
        .mbps = view->mbps,
        .pages_per_second = view->pages_per_second,
    };
}

/* While nothing is known, what the user allows is what to expect. */
static uint64_t expected_downtime_ms(const SourceView *view)
{
    uint64_t ns = view->policy.downtime.likely;

    return ns == POLICY_NEVER ? migrate_downtime_limit() : ns / SCALE_MS;
}

static uint64_t total_ms(const SourceView *view)
{
    return view->total_ms ?: now_ms() - view->start_ms;
}

static void add_dirty_limit(SourceInfo *info)
{
    info->dirty_limited = migrate_dirty_limit() && dirtylimit_in_service();
    if (info->dirty_limited) {
        info->dirty_limit_throttle_us = dirtylimit_throttle_time_per_round();
        info->dirty_limit_ring_full_us = dirtylimit_ring_full_time();
    }
}

/* How target.c tells of VFIO is by a reply of its own. */
static void add_vfio(SourceInfo *info)
{
    g_autoptr(MigrationInfo) vfio = g_new0(MigrationInfo, 1);

    migration_populate_vfio_info(vfio);
    info->has_vfio = vfio->vfio;
    info->vfio_bytes = vfio->vfio ? vfio->vfio->transferred : 0;
}

static SourceInfo source_info(const SourceView *view, MigrationStatus status)
{
    SourceInfo info = {
        .status = status,
        .setup_ms = view->setup_ms,
        .total_ms = total_ms(view),
        .downtime_ms = view->downtime_ms,
        .expected_downtime_ms = expected_downtime_ms(view),
        .ram = ram_info(view),
        .devices_remaining = view->devices_remaining,
        .throttle_percent = throttle_get(),
        .progress = {
            .policy = view->policy,
            .decision = view->reason,
            .waiting = view->waiting,
            .stalls = view->stalls,
            .downtime = view->downtime,
            .saved = view->saved,
            .loaded = view->loaded,
            .strict = migrate_strict_downtime() ? &view->strict : NULL,
            .peer_version = view->peer.version,
            .served = postcopy_counts(),
        },
    };

    add_dirty_limit(&info);
    add_vfio(&info);
    return info;
}

/* @ms: how long the migration has taken so far */
static MigrationChannelStatsList *channel_stats(uint64_t ms)
{
    MigrationChannelStatsList *list = NULL, **tail = &list;
    SenderView view;

    for (unsigned i = 0; multifd_look(i, &view); i++) {
        MigrationChannelStats *one = g_new0(MigrationChannelStats, 1);

        one->id = i;
        one->bytes = view.bytes;
        one->memory = view.memory;
        one->compression = view.method;
        one->has_level = view.method != MULTIFD_COMPRESSION_NONE;
        one->level = view.level;
        one->ratio = view.ratio;
        one->busy = ms ? MIN(view.busy_ns / 10000 / ms, 100) : 0;
        QAPI_LIST_APPEND(tail, one);
    }
    return list;
}

/* @view is filled as well; it is part of what is told. */
static void add_postcopy(DestInfo *info, FaultsView *view)
{
    dest_blocktime(&info->blocktime);
    if (dest_look(view)) {
        info->progress.faults = &view->latency;
        info->progress.requests = view->requests;
    }
}

MigrationInfo *qmp_query_migrate(Error **errp)
{
    /* Before the error, which is told before the state that it is about. */
    MigrationStatus outgoing = phase_get(&source_phase);
    MigrationStatus ingoing = phase_get(&destination_phase);
    g_autoptr(strList) reasons = blockers_reasons();
    g_autoptr(Error) err = notify_first_error();
    g_autoptr(strList) features = NULL;
    g_autoptr(MigrationChannelStatsList) channels = NULL;
    g_autoptr(SocketAddressList) addresses = transport_addresses_copy();
    XBZRLECacheStats xbzrle;
    SourceView view;
    SourceInfo here;
    FaultsView faults;
    MigrationInfo *info;
    DestInfo dest = {
        .status = ingoing,
        .addresses = addresses,
    };

    source_look(&view);
    ram_delta_counters(&xbzrle);
    here = source_info(&view, outgoing);
    here.blocked_reasons = reasons;
    here.error = dest.error = err ? error_get_pretty(err) : NULL;
    features = peer_feature_names(view.peer.features);
    here.progress.peer_features = features;
    channels = channel_stats(here.total_ms);
    here.progress.channels = channels;
    if (migrate_xbzrle()) {
        xbzrle.cache_size = migrate_xbzrle_cache_size();
        here.xbzrle = &xbzrle;
    }
    add_postcopy(&dest, &faults);
    info = query_info(&here, &dest);
    g_free(dest.blocktime.vcpus);
    if (info->progress) {
        info->progress->checkpoint =
            checkpoint_query(outgoing != MIGRATION_STATUS_NONE);
    }
    return info;
}

static void add_thread(MigrationThreadInfoList **list, int id, char *name)
{
    MigrationThreadInfo *info = g_new0(MigrationThreadInfo, 1);

    info->name = name;
    info->thread_id = id;
    QAPI_LIST_PREPEND(*list, info);
}

/* Those whose times are of interest: the ones that move memory. */
MigrationThreadInfoList *qmp_query_migrationthreads(Error **errp)
{
    MigrationThreadInfoList *list = NULL;
    int id = source_thread_id();
    SenderView view;

    if (id) {
        add_thread(&list, id, g_strdup(MIGRATION_THREAD_SRC_MAIN));
    }
    for (unsigned i = 0; multifd_look(i, &view); i++) {
        if (view.thread_id) {
            add_thread(&list, view.thread_id,
                       g_strdup_printf(MIGRATION_THREAD_SRC_MULTIFD, i));
        }
    }
    return list;
}
