/*
 * The source: convergence=auto, with what it needs of settings and clock
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/base/clock.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "converge.h"
#include "start.h"
#include "state.h"
#include "switchover-strict.h"

/* How often it is looked whether a migration that is cancelled has stopped */
#define CANCEL_POLL_MS 10

/* Migration thread */
static Convergence convergence;
static int64_t started_ns;

void converge_begin(void)
{
    convergence_init(&convergence);
    QEMU_LOCK_GUARD(&source.lock);
    started_ns = source.view.start_ms * SCALE_MS;
}

static PolicyMiss miss_of(MigrationOnMiss on_miss)
{
    switch (on_miss) {
    case MIGRATION_ON_MISS_SWITCHOVER:
        return POLICY_MISS_SWITCH_OVER;
    case MIGRATION_ON_MISS_POSTCOPY:
        return POLICY_MISS_POSTCOPY;
    case MIGRATION_ON_MISS_CANCEL:
        return POLICY_MISS_CANCEL;
    default:
        return POLICY_MISS_CONTINUE;
    }
}

void converge_limits(PolicyLimits *limits)
{
    limits->automatic = migrate_convergence() == MIGRATION_CONVERGENCE_AUTO;
    limits->total_ns = MIN(migrate_total_time_limit(), UINT64_MAX / SCALE_MS) *
                       SCALE_MS;
    limits->on_miss = miss_of(migrate_on_miss());
    limits->postcopy_enabled = migrate_postcopy_ram();
}

static uint64_t converge_elapsed_ns(void)
{
    return MAX(now_ns() - started_ns, 0);
}

void converge_decide(Policy *policy, const PolicyLimits *limits,
                     ConvergenceLook *look, PolicyDecision *decision)
{
    if (limits->automatic) {
        look->elapsed_ns = converge_elapsed_ns();
        convergence_decide(&convergence, policy, limits, look, decision);
    }
}

static bool sections_can_go_on(void)
{
    BQL_LOCK_GUARD();
    return strict_sections("convergence", NULL);
}

bool converge_may_return(const PolicyLimits *limits,
                         const PolicyDecision *decision)
{
    return limits->automatic && !decision->beyond && !source.stopped_first &&
           !migrate_pause_before_switchover() &&
           convergence_may_return(&convergence, limits,
                                  converge_elapsed_ns()) &&
           sections_can_go_on();
}

void converge_returned(uint64_t remaining)
{
    convergence_returned(&convergence, remaining);
}

static void cancel(void *opaque)
{
    source_cancel(NULL);
}

void converge_cancel(const char *reason, Error **errp)
{
    Error *err = NULL;

    error_setg(&err, "%s", reason);
    notify_error(err);
    main_loop_run(cancel, NULL);
    while (source_may_go_on(NULL)) {
        qemu_sem_timedwait(&source.wake, CANCEL_POLL_MS);
    }
    source_may_go_on(errp);
}
