/*
 * The destination: starting the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/core/cpu.h"
#include "migration/base/clock.h"
#include "migration/core/cost-history.h"
#include "migration/core/disks.h"
#include "migration/core/fault-inject.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/core/permit.h"
#include "migration/device/load-threads.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/trace.h"
#include "migration/wire/wire.h"
#include "net/announce.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/runstate.h"
#include "system/system.h"
#include "guest-start.h"
#include "return-path.h"
#include "state.h"

/* Goes on by itself after the first round. */
static AnnounceTimer announce_timer;

/* One start at a time; BQL. */
static struct {
    void (*told)(void);         /* or NULL */
    unsigned waiting;           /* vCPUs that do not run yet */
    int64_t since_ns;
} start_now;

/*
 * The state of the source's guest; one that does not tell had it running.
 * States that are about something that goes on there make no sense here.
 */
static RunState wanted_state(void)
{
    RunState state = global_state_received() ? global_state_get_runstate()
                                             : RUN_STATE_RUNNING;

    switch (state) {
    case RUN_STATE_DEBUG:
    case RUN_STATE_INMIGRATE:
    case RUN_STATE_RESTORE_VM:
    case RUN_STATE_SAVE_VM:
    case RUN_STATE_COLO:
        return RUN_STATE_PAUSED;
    default:
        return state;
    }
}

/* The network has to know of the guest before the guest uses it. */
static void announce(void)
{
    qemu_announce_self(&announce_timer, migrate_announce_params());
}

static void started(void)
{
    DowntimeReport *report = &destination.report;

    report->start_ns = now_ns() - start_now.since_ns;
    cost_history_keep(DOWNTIME_PART_DEVICE_LOAD, report->load_ns);
    cost_history_keep(DOWNTIME_PART_ACTIVATE, report->activate_ns);
    cost_history_keep(DOWNTIME_PART_START, report->start_ns);
    trace_vmstate_downtime_checkpoint("dst-precopy-bh-vm-started");
    reply_report(WIRE_RP_STARTED, report);
    if (start_now.told) {
        start_now.told();
    }
}

/* In the thread of a vCPU, just before it runs. */
static void vcpu_runs(CPUState *cpu, run_on_cpu_data data)
{
    if (!--start_now.waiting) {
        started();
    }
}

/*
 * Work that is queued for a vCPU is done by its thread as soon as that may go
 * on, and before it does.
 */
static void start_vcpus(void)
{
    CPUState *cpu;

    permit_guest_start(true);
    vm_start();
    permit_guest_start(false);
    start_now.waiting = 1;          /* until all are counted */
    CPU_FOREACH(cpu) {
        start_now.waiting++;
        async_run_on_cpu(cpu, vcpu_runs, RUN_ON_CPU_NULL);
    }
    if (!--start_now.waiting) {
        started();
    }
}

GuestStart guest_start(void (*told)(void), Error **errp)
{
    RunState state = wanted_state();
    bool run = runstate_is_live(state) && autostart;

    start_now.told = told;
    start_now.since_ns = now_ns();
    fault_inject_delay(DOWNTIME_PART_ACTIVATE);
    if (run && !disks_activate(errp)) {
        return GUEST_NO_DISKS;
    }
    announce();
    dirty_bitmap_mig_before_vm_start();
    if (run) {
        destination.report.activate_ns = now_ns() - start_now.since_ns;
        start_now.since_ns = now_ns();
        fault_inject_delay(DOWNTIME_PART_START);
        start_vcpus();
        return GUEST_RUNS;
    }
    runstate_set(runstate_is_live(state) ? RUN_STATE_PAUSED : state);
    started();
    return GUEST_WAITS;
}

void guest_keep(void)
{
    announce();
    dirty_bitmap_mig_before_vm_start();
    runstate_set(RUN_STATE_PAUSED);
}

/*
 * It goes on with what has come; the rest follows.  Without its disks it stays
 * stopped: the source has given it up.
 */
bool guest_start_early(int64_t package_ns, Error **errp)
{
    Error *err = NULL;

    if (main_loop_is_ending()) {
        return true;
    }
    if (!load_threads_join(errp)) {
        return false;
    }
    cpu_synchronize_all_post_init();
    destination.report.load_ns = now_ns() - package_ns;
    if (guest_start(NULL, &err) == GUEST_NO_DISKS) {
        error_prepend(&err, "the guest cannot be started: ");
        error_report_err(error_copy(err));
        notify_error(err);
        guest_keep();
    }
    return true;
}

bool guest_start_held(Error **errp)
{
    if (main_loop_is_ending()) {
        error_setg(errp, "QEMU is ending");
        return false;
    }
    return guest_start(NULL, errp) != GUEST_NO_DISKS;
}
