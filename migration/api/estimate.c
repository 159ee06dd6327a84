/*
 * migrate-estimate: what a migration would cost
 *
 * Coroutines in the main loop, with the BQL but for the time in which the guest
 * is measured.  What is learnt is handed to base/estimate.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/util.h"
#include "qemu/coroutine.h"
#include "qemu/timer.h"
#include "migration/base/estimate.h"
#include "migration/core/cost-history.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/permit.h"
#include "migration/ram/probe.h"
#include "migration/source/state.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qobject/qdict.h"
#include "system/runstate.h"

#define MEASURE_MS 1000
#define MEASURE_MS_MIN 50
/* No other command of QMP is answered meanwhile. */
#define MEASURE_MS_MAX 5000
/* How far off a bandwidth may be that was not measured just now */
#define BANDWIDTH_OFF 0.15

static bool estimate_possible(Error **errp)
{
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        error_setg(errp, "There is no guest here yet whose migration could be "
                   "estimated");
        return false;
    }
    if (migration_is_running()) {
        error_setg(errp, "There's a migration process in progress; its "
                   "progress is in query-migrate");
        return false;
    }
    return migration_permits(MIGRATION_ACT_READ_MEMORY, errp);
}

static bool measure_time_ok(uint32_t ms, Error **errp)
{
    if (ms >= MEASURE_MS_MIN && ms <= MEASURE_MS_MAX) {
        return true;
    }
    error_setg(errp, "Parameter 'calc-time' expects an integer in the range of "
               "%d to %d ms", MEASURE_MS_MIN, MEASURE_MS_MAX);
    return false;
}

/* As the user says, as the last migration found, or as far as it may go */
static uint64_t link_speed(bool given, uint64_t bandwidth, const char **from,
                             Error **errp)
{
    SourceView view;

    source_look(&view);
    *from = "given";
    if (!given) {
        *from = view.policy.bandwidth ? "the last migration" : "max-bandwidth";
        bandwidth = view.policy.bandwidth ?: migrate_max_bandwidth();
    }
    if (!bandwidth) {
        error_setg(errp, "Parameter 'bandwidth' expects the bytes per second "
                   "of the link: none was measured here, and max-bandwidth "
                   "does not limit it");
    }
    return bandwidth;
}

/* Looks at the log after an eighth, a quarter, a half and all of @ms. */
static bool coroutine_fn measure_guest(EstimateInput *in, uint32_t ms,
                                       Error **errp)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME), now = start;

    for (unsigned i = 0; i < ESTIMATE_POINTS; i++) {
        EstimatePoint *point = &in->point[i];
        int64_t until = start + (ms * SCALE_MS >> (ESTIMATE_POINTS - 1 - i));

        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, MAX(until - now, 1));
        if (!ram_probe_look(&point->dirtied, errp)) {
            return false;
        }
        now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        point->ns = now - start;
    }
    in->points = ESTIMATE_POINTS;
    return true;
}

static void sample_memory(EstimateInput *in)
{
    RamSample sample;

    ram_sample(&sample);
    in->memory = sample.existing;
    if (sample.pages) {
        in->memory -= sample.existing / sample.pages * sample.zero;
    }
    in->ratio = sample.ratio;
    in->compress_speed = sample.speed * migrate_multifd_channels();
}

static void add_limits(EstimateInput *in)
{
    PolicyLimits limits = { .downtime_ns = migrate_downtime_limit() *
                                           SCALE_MS };
    Policy policy;

    policy_init(&policy, 0);
    cost_history_tell(&policy);
    in->fixed = policy_view(&policy, &limits, 0, 0).downtime;
    in->downtime_ns = limits.downtime_ns;
    in->max_bandwidth = migrate_max_bandwidth();
    in->throttle_max = migrate_max_cpu_throttle();
}

/*
 * As QMP has it
 */

static MigrationEstimateRange *new_range(const PolicyRange *r, uint64_t unit)
{
    MigrationEstimateRange *range;

    if (r->likely == POLICY_NEVER) {
        return NULL;
    }
    range = g_new0(MigrationEstimateRange, 1);
    range->low = r->low / unit;
    range->likely = r->likely / unit;
    range->has_high = r->high != POLICY_NEVER;
    range->high = range->has_high ? r->high / unit : 0;
    return range;
}

static const MigrationMethod method_names[ESTIMATE__COUNT] = {
    [ESTIMATE_PRECOPY] = MIGRATION_METHOD_PRECOPY,
    [ESTIMATE_THROTTLE] = MIGRATION_METHOD_THROTTLING,
    [ESTIMATE_COMPRESSION] = MIGRATION_METHOD_COMPRESSION,
    [ESTIMATE_POSTCOPY] = MIGRATION_METHOD_POSTCOPY,
};

static MigrationEstimateOf *new_estimate(EstimateMethod method,
                                         const Estimate *e, bool enabled)
{
    MigrationEstimateOf *of = g_new0(MigrationEstimateOf, 1);

    of->method = method_names[method];
    of->enabled = enabled;
    of->total_ms = new_range(&e->total, SCALE_MS);
    of->downtime_us = new_range(&e->downtime, SCALE_US);
    of->bytes = new_range(&e->bytes, 1);
    of->lost_ms = new_range(&e->lost, SCALE_MS);
    return of;
}

static MigrationEstimate *new_answer(const EstimateInput *in, const char *from)
{
    const bool enabled[ESTIMATE__COUNT] = {
        [ESTIMATE_PRECOPY] = true,
        [ESTIMATE_THROTTLE] = migrate_auto_converge(),
        [ESTIMATE_COMPRESSION] =
            migrate_multifd() &&
            migrate_multifd_compression() != MULTIFD_COMPRESSION_NONE,
        [ESTIMATE_POSTCOPY] = migrate_postcopy_ram(),
    };
    const EstimatePoint *last = &in->point[in->points - 1];
    MigrationEstimate *estimate = g_new0(MigrationEstimate, 1);
    MigrationEstimateOfList **tail = &estimate->methods;
    Estimate all[ESTIMATE__COUNT];
    char why[POLICY_REASON_MAX];

    estimate_all(in, all);
    estimate->pick = method_names[estimate_pick(in, all, enabled, why)];
    estimate->why = g_strdup(why);
    estimate->memory = in->memory;
    estimate->bandwidth = in->bandwidth;
    estimate->bandwidth_from = g_strdup(from);
    estimate->dirtied = last->dirtied;
    estimate->calc_time = last->ns / SCALE_MS;
    for (int i = 0; i < ESTIMATE__COUNT; i++) {
        if (all[i].known) {
            QAPI_LIST_APPEND(tail, new_estimate(i, &all[i], enabled[i]));
        }
    }
    return estimate;
}

MigrationEstimate *coroutine_fn qmp_migrate_estimate(bool has_calc_time,
                                                     uint32_t calc_time,
                                                     bool has_bandwidth,
                                                     uint64_t bandwidth,
                                                     Error **errp)
{
    uint32_t ms = has_calc_time ? calc_time : MEASURE_MS;
    EstimateInput in = { .bandwidth_off = BANDWIDTH_OFF };
    const char *from;
    bool ok;

    if (!estimate_possible(errp) || !measure_time_ok(ms, errp)) {
        return NULL;
    }
    in.bandwidth = link_speed(has_bandwidth, bandwidth, &from, errp);
    if (!in.bandwidth || !ram_probe_begin(errp)) {
        return NULL;
    }
    ok = measure_guest(&in, ms, errp);
    ram_probe_end();
    if (!ok || !estimate_possible(errp)) {
        return NULL;
    }
    sample_memory(&in);
    add_limits(&in);
    return new_answer(&in, from);
}

/*
 * In the human monitor
 */

static void print_estimated(Monitor *mon, const char *label,
                            const MigrationEstimateRange *r, double unit,
                            const char *unit_name)
{
    if (!r) {
        return;
    }
    monitor_printf(mon, "%s %.1f %s (%.1f", label, r->likely / unit,
                   unit_name, r->low / unit);
    if (r->has_high) {
        monitor_printf(mon, " to %.1f)", r->high / unit);
    } else {
        monitor_printf(mon, " or never)");
    }
}

static void print_method(Monitor *mon, const MigrationEstimateOf *of)
{
    monitor_printf(mon, "%s%s", MigrationMethod_str(of->method),
                   of->enabled ? "" : " (not enabled)");
    if (!of->total_ms) {
        monitor_printf(mon, ": would not end\n");
        return;
    }
    print_estimated(mon, ": time", of->total_ms, 1000, "s");
    print_estimated(mon, ", downtime", of->downtime_us, 1000, "ms");
    print_estimated(mon, ", sent", of->bytes, 1048576, "MiB");
    print_estimated(mon, ", lost", of->lost_ms, 1000, "s");
    monitor_printf(mon, "\n");
}

void coroutine_fn hmp_migrate_estimate(Monitor *mon, const QDict *qdict)
{
    bool has_bandwidth = qdict_haskey(qdict, "bandwidth");
    int64_t seconds = qdict_get_try_int(qdict, "seconds", 1);
    g_autoptr(MigrationEstimate) e = NULL;
    Error *err = NULL;

    e = qmp_migrate_estimate(true, CLAMP(seconds, 0, UINT32_MAX / 1000) * 1000,
                             has_bandwidth,
                             qdict_get_try_int(qdict, "bandwidth", 0), &err);
    if (hmp_handle_error(mon, err)) {
        return;
    }
    monitor_printf(mon, "memory: %.1f MiB, dirtied %.1f MiB in %" PRIu32
                   " ms\n", e->memory / 1048576.0, e->dirtied / 1048576.0,
                   e->calc_time);
    monitor_printf(mon, "bandwidth: %.1f MiB/s (%s)\n",
                   e->bandwidth / 1048576.0, e->bandwidth_from);
    for (MigrationEstimateOfList *m = e->methods; m; m = m->next) {
        print_method(mon, m->value);
    }
    monitor_printf(mon, "pick: %s: %s\n", MigrationMethod_str(e->pick), e->why);
}
