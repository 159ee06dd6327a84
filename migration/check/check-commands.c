/*
 * Checks of the state of devices: the commands, and those that are due
 *
 * All functions: main thread, BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-events-migration.h"
#include "qapi/qapi-visit-migration.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "migration/core/main-loop.h"
#include "migration/core/settings.h"
#include "migration/options.h"
#include "system/runstate.h"
#include "vmstate-check.h"

static VmstateCheckTotals totals;
static QEMUTimer *due;          /* NULL until it is first needed */

static bool found_any(const VmstateCheckResult *r)
{
    return r->differences || r->not_restored;
}

static void keep_error(const Error *err)
{
    g_free(totals.error);
    totals.error = g_strdup(error_get_pretty(err));
}

/* One check, which the totals have afterwards.  NULL with the reason. */
static const VmstateCheckResult *check_and_count(Error **errp)
{
    ERRP_GUARD();
    bool stopped;
    VmstateCheckResult *r = vmstate_check_run(&stopped, errp);

    if (!r) {
        totals.failed += stopped;
        keep_error(*errp);
        return NULL;
    }
    totals.checks++;
    totals.found += found_any(r);
    totals.longest_pause_us = MAX(totals.longest_pause_us, r->pause_us);
    qapi_free_VmstateCheckResult(totals.last);
    totals.last = r;
    return r;
}

VmstateCheckResult *qmp_vmstate_check(Error **errp)
{
    const VmstateCheckResult *r = check_and_count(errp);

    return r ? QAPI_CLONE(VmstateCheckResult, r) : NULL;
}

VmstateCheckTotals *qmp_query_vmstate_check(Error **errp)
{
    return QAPI_CLONE(VmstateCheckTotals, &totals);
}

/*
 * By a period
 */

static void due_again(void)
{
    uint32_t period = migrate_vmstate_check_period();

    if (period && !main_loop_is_ending()) {
        timer_mod(due, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  period * (int64_t)1000);
    } else {
        timer_del(due);
    }
}

static unsigned count_parts(const VmstateNotRestoredList *list)
{
    unsigned count = 0;

    for (; list; list = list->next) {
        count++;
    }
    return count;
}

/*
 * A guest that does not run has not changed since the last check.  One that is
 * on its way somewhere is checked when that is over.
 */
static void check_is_due(void *opaque)
{
    const VmstateCheckResult *r;
    Error *err = NULL;
    uint64_t failed = totals.failed;

    if (runstate_is_running()) {
        r = check_and_count(&err);
        if (r && found_any(r)) {
            qapi_event_send_vmstate_check_found(r->differences_count,
                                                count_parts(r->not_restored));
        } else if (!r && totals.failed > failed) {
            error_report_err(err);
        } else if (!r) {
            totals.skipped++;
            error_free(err);
        }
    }
    due_again();
}

static void period_changed(void)
{
    if (!due && migrate_vmstate_check_period()) {
        due = timer_new_ms(QEMU_CLOCK_REALTIME, check_is_due, NULL);
    }
    if (due) {
        due_again();
    }
}

void vmstate_check_init(void)
{
    settings_check_period_changed = period_changed;
    period_changed();
}

void vmstate_check_shutdown(void)
{
    if (due) {
        timer_del(due);
    }
}
