/*
 * What query-migrate answers, made of what core/ knows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-migration.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/timer.h"
#include "query.h"

/* Of postcopy-latency-dist, as in other versions: up to 16 s, and the rest */
#define SHOWN_BUCKETS 24

/*
 * The `progress` object
 */

/* Whether the guest's owner may wait for something that is yet to come. */
static bool is_over(MigrationStatus status)
{
    return status == MIGRATION_STATUS_COMPLETED ||
           status == MIGRATION_STATUS_FAILED ||
           status == MIGRATION_STATUS_CANCELLED;
}

static MigrationPhase shown_phase(MigrationStatus status, uint64_t passes)
{
    switch (status) {
    case MIGRATION_STATUS_SETUP:
    case MIGRATION_STATUS_WAIT_UNPLUG:
        return MIGRATION_PHASE_SETUP;
    case MIGRATION_STATUS_ACTIVE:
        return passes ? MIGRATION_PHASE_LATER_PASS : MIGRATION_PHASE_FIRST_PASS;
    case MIGRATION_STATUS_PRE_SWITCHOVER:
    case MIGRATION_STATUS_DEVICE:
        return MIGRATION_PHASE_SWITCHOVER;
    case MIGRATION_STATUS_CANCELLING:
        return MIGRATION_PHASE_STOPPING;
    case MIGRATION_STATUS_COMPLETED:
    case MIGRATION_STATUS_FAILED:
    case MIGRATION_STATUS_CANCELLED:
        return MIGRATION_PHASE_OVER;
    default:
        return MIGRATION_PHASE_POSTCOPY;
    }
}

static MigrationPhase dest_phase(MigrationStatus status)
{
    MigrationPhase phase = shown_phase(status, 0);

    return phase == MIGRATION_PHASE_FIRST_PASS ? MIGRATION_PHASE_RECEIVING
                                               : phase;
}

static MigrationEta *new_eta(const PolicyRange *ns)
{
    MigrationEta *eta = g_new0(MigrationEta, 1);

    eta->low_ms = ns->low / SCALE_MS;
    eta->likely_ms = ns->likely / SCALE_MS;
    eta->has_high_ms = ns->high != POLICY_NEVER;
    eta->high_ms = eta->has_high_ms ? ns->high / SCALE_MS : 0;
    return eta;
}

/* Parts that cost nothing, as far as is known, are left out. */
static MigrationDowntimePrediction *new_prediction(const PolicyView *view)
{
    MigrationDowntimePrediction *p = g_new0(MigrationDowntimePrediction, 1);
    MigrationDowntimePartList **tail = &p->parts;

    p->low_us = view->downtime.low / SCALE_US;
    p->likely_us = view->downtime.likely / SCALE_US;
    p->has_high_us = view->downtime.high != POLICY_NEVER;
    p->high_us = p->has_high_us ? view->downtime.high / SCALE_US : 0;
    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        uint64_t ns = view->downtime_part[i].likely;

        if (ns && ns != POLICY_NEVER) {
            QAPI_LIST_APPEND(tail, ledger_part(downtime_part_name(i), ns));
        }
    }
    return p;
}

static MigrationStall *new_stall(const StallLedger *ledger)
{
    MigrationStall *stall = g_new0(MigrationStall, 1);

    stall->count = ledger->count;
    stall->total_us = ledger->total_ns / SCALE_US;
    stall->longest_us = ledger->longest_ns / SCALE_US;
    stall->step = g_strdup(ledger->longest_step);
    return stall;
}

static MigrationStrictDowntime *new_strict(const StrictView *view)
{
    MigrationStrictDowntime *strict = g_new0(MigrationStrictDowntime, 1);

    strict->attempts = view->attempts;
    strict->attempts_max = view->attempts_max;
    strict->one_sided = view->one_sided;
    strict->why = view->why[0] ? g_strdup(view->why) : NULL;
    return strict;
}

static MigrationPeer *new_peer(const ProgressInfo *info)
{
    MigrationPeer *peer = g_new0(MigrationPeer, 1);

    peer->version = info->peer_version;
    peer->features = QAPI_CLONE(strList, info->peer_features);
    return peer;
}

/* Buckets behind the last one that is not empty are left out. */
static uint64List *new_histogram(const Latency *l)
{
    uint64List *list = NULL;

    for (int i = LATENCY_BUCKETS - 1; i >= 0; i--) {
        if (list || l->bucket[i]) {
            QAPI_LIST_PREPEND(list, l->bucket[i]);
        }
    }
    return list;
}

static MigrationPageFaults *new_faults(const ProgressInfo *info)
{
    const Latency *l = info->faults;
    MigrationPageFaults *faults = g_new0(MigrationPageFaults, 1);

    *faults = (MigrationPageFaults) {
        .count = l->count,
        .requests = info->requests,
        .mean_us = l->sum_us / l->count,
        .p50_us = latency_percentile(l, 50),
        .p90_us = latency_percentile(l, 90),
        .p99_us = latency_percentile(l, 99),
        .max_us = l->max_us,
        .histogram = new_histogram(l),
    };
    return faults;
}

/* What the source's policy says, as far as it has seen anything yet. */
static void add_policy(MigrationProgress *progress, const PolicyView *view,
                       MigrationStatus status)
{
    bool completed = status == MIGRATION_STATUS_COMPLETED;

    progress->has_percent = true;
    progress->percent = completed ? 100 : MIN(view->percent, 99);
    progress->has_dirty_rate = view->passes > 0;
    progress->dirty_rate = view->dirty_rate;
    if (!view->bandwidth) {
        return;
    }
    progress->has_bandwidth = true;
    progress->bandwidth = view->bandwidth;
    if (view->remaining.likely != POLICY_NEVER && !is_over(status)) {
        progress->eta = new_eta(&view->remaining);
    }
    if (view->downtime.likely != POLICY_NEVER) {
        progress->predicted_downtime = new_prediction(view);
    }
}

/* The decision that led to the end is of interest after it, too. */
static const char *shown_decision(const ProgressInfo *info,
                                  MigrationStatus status)
{
    bool waits = info->waiting && *info->waiting && !is_over(status);
    const char *shown = waits ? info->waiting : info->decision;

    return shown && *shown ? shown : NULL;
}

MigrationProgress *query_progress(const ProgressInfo *info,
                                  MigrationStatus status, bool is_source)
{
    MigrationProgress *progress = g_new0(MigrationProgress, 1);

    if (is_source) {
        progress->phase = shown_phase(status, info->policy.passes);
        add_policy(progress, &info->policy, status);
    } else {
        progress->phase = dest_phase(status);
    }
    progress->decision = g_strdup(shown_decision(info, status));
    if (info->stalls.count) {
        progress->stall = new_stall(&info->stalls);
    }
    if (info->downtime.known) {
        progress->downtime = ledger_downtime(&info->downtime, &info->saved,
                                             &info->loaded);
    }
    if (info->strict && info->strict->attempts) {
        progress->strict = new_strict(info->strict);
    }
    if (info->peer_version) {
        progress->peer = new_peer(info);
    }
    if (info->channels) {
        progress->has_channels = true;
        progress->channels = QAPI_CLONE(MigrationChannelStatsList,
                                        info->channels);
    }
    if (info->served.asked) {
        progress->served = g_memdup2(&info->served, sizeof(info->served));
    }
    if (info->faults && info->faults->count) {
        progress->faults = new_faults(info);
    }
    return progress;
}

/*
 * Everything else, as it has been for years: which member is there in which
 * status is what management software counts on.
 */

/* Statuses of the source in which times and counters are told. */
static bool tells_numbers(MigrationStatus status)
{
    switch (status) {
    case MIGRATION_STATUS_ACTIVE:
    case MIGRATION_STATUS_CANCELLING:
    case MIGRATION_STATUS_PRE_SWITCHOVER:
    case MIGRATION_STATUS_DEVICE:
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
    case MIGRATION_STATUS_POSTCOPY_PAUSED:
    case MIGRATION_STATUS_POSTCOPY_RECOVER_SETUP:
    case MIGRATION_STATUS_POSTCOPY_RECOVER:
    case MIGRATION_STATUS_COMPLETED:
        return true;
    default:
        return false;
    }
}

static void add_times(MigrationInfo *info, const SourceInfo *source)
{
    info->has_setup_time = true;
    info->setup_time = source->setup_ms;
    info->has_total_time = true;
    info->total_time = source->total_ms;
    info->has_downtime = source->status == MIGRATION_STATUS_COMPLETED ||
                         source->downtime_ms;
    info->has_expected_downtime = !info->has_downtime;
    if (info->has_downtime) {
        info->downtime = source->downtime_ms;
    } else {
        info->expected_downtime = source->expected_downtime_ms;
    }
}

/* What is left of memory counts until it is all there. */
static MigrationStats *new_stats(const MigrationStats *ram, bool completed)
{
    MigrationStats *stats = g_memdup2(ram, sizeof(*ram));

    stats->normal_bytes = ram->normal * ram->page_size;
    if (completed) {
        stats->remaining = stats->dirty_pages_rate = 0;
    }
    return stats;
}

static void add_slowdown(MigrationInfo *info, const SourceInfo *source)
{
    info->has_cpu_throttle_percentage = source->throttle_percent;
    info->cpu_throttle_percentage = source->throttle_percent;
    info->has_dirty_limit_throttle_time_per_round = source->dirty_limited;
    info->has_dirty_limit_ring_full_time = source->dirty_limited;
    if (source->dirty_limited) {
        info->dirty_limit_throttle_time_per_round =
            source->dirty_limit_throttle_us;
        info->dirty_limit_ring_full_time = source->dirty_limit_ring_full_us;
    }
}

static void add_numbers(MigrationInfo *info, const SourceInfo *source)
{
    bool completed = source->status == MIGRATION_STATUS_COMPLETED;

    add_times(info, source);
    info->ram = new_stats(&source->ram, completed);
    info->has_remaining = true;
    info->remaining = completed ? 0
                      : source->ram.remaining + source->devices_remaining;
    if (source->xbzrle) {
        info->xbzrle_cache = g_memdup2(source->xbzrle,
                                       sizeof(*source->xbzrle));
    }
    add_slowdown(info, source);
    if (source->has_vfio) {
        info->vfio = g_new0(VfioStats, 1);
        info->vfio->transferred = source->vfio_bytes;
    }
}

static void add_status(MigrationInfo *info, MigrationStatus status,
                       const char *error, const ProgressInfo *progress,
                       bool is_source)
{
    info->has_status = true;
    info->status = status;
    info->error_desc = g_strdup(error);
    info->progress = query_progress(progress, status, is_source);
}

static void add_blocktime(MigrationInfo *info, const FaultsBlocktime *time)
{
    info->has_postcopy_blocktime = true;
    info->postcopy_blocktime = time->all_ms;
    info->has_postcopy_vcpu_blocktime = true;
    info->has_postcopy_vcpu_latency = true;
    for (unsigned i = time->count; i-- > 0;) {
        QAPI_LIST_PREPEND(info->postcopy_vcpu_blocktime,
                          time->vcpus[i].blocked_ms);
        QAPI_LIST_PREPEND(info->postcopy_vcpu_latency,
                          time->vcpus[i].latency_ns);
    }
    info->has_postcopy_non_vcpu_latency = true;
    info->postcopy_non_vcpu_latency = time->others_ns;
}

/* @l: NULL if no page was ever missing */
static void add_latency(MigrationInfo *info, const Latency *l)
{
    static const Latency none;
    uint64_t bucket[SHOWN_BUCKETS];

    l = l ?: &none;
    info->has_postcopy_latency = true;
    info->postcopy_latency = latency_mean_ns(l);
    info->has_postcopy_latency_dist = true;
    latency_fold(l, bucket, SHOWN_BUCKETS);
    for (unsigned i = SHOWN_BUCKETS; i-- > 0;) {
        QAPI_LIST_PREPEND(info->postcopy_latency_dist, bucket[i]);
    }
}

static void add_dest(MigrationInfo *info, const DestInfo *dest)
{
    add_status(info, dest->status, dest->error, &dest->progress, false);
    if (dest->status == MIGRATION_STATUS_COMPLETED && dest->blocktime.count) {
        add_blocktime(info, &dest->blocktime);
        add_latency(info, dest->progress.faults);
    }
}

MigrationInfo *query_info(const SourceInfo *source, const DestInfo *dest)
{
    MigrationInfo *info = g_new0(MigrationInfo, 1);

    info->has_blocked_reasons = source->blocked_reasons;
    info->blocked_reasons = QAPI_CLONE(strList, source->blocked_reasons);
    info->has_socket_address = dest->addresses;
    info->socket_address = QAPI_CLONE(SocketAddressList, dest->addresses);
    if (source->status != MIGRATION_STATUS_NONE) {
        add_status(info, source->status, source->error, &source->progress,
                   true);
    } else if (dest->status != MIGRATION_STATUS_NONE) {
        add_dest(info, dest);
    }
    if (tells_numbers(source->status)) {
        add_numbers(info, source);
    }
    return info;
}
