/*
 * The destination: starting the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "migration/base/clock.h"
#include "migration/core/cost-history.h"
#include "migration/core/disks.h"
#include "migration/core/fault-inject.h"
#include "migration/core/permit.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/trace.h"
#include "net/announce.h"
#include "system/runstate.h"
#include "system/system.h"
#include "guest-start.h"

/* Goes on by itself after the first round. */
static AnnounceTimer announce_timer;

/* One start at a time; BQL. */
static struct {
    DowntimeReport *report;
    GuestStarted *done;
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

static void started(GuestStart how)
{
    start_now.report->start_ns = now_ns() - start_now.since_ns;
    cost_history_keep(POLICY_PART_DEVICE_LOAD, start_now.report->load_ns);
    cost_history_keep(POLICY_PART_ACTIVATE, start_now.report->activate_ns);
    cost_history_keep(POLICY_PART_START, start_now.report->start_ns);
    trace_vmstate_downtime_checkpoint("dst-precopy-bh-vm-started");
    start_now.done(how);
}

/* In the thread of a vCPU, just before it runs. */
static void vcpu_runs(CPUState *cpu, run_on_cpu_data data)
{
    if (!--start_now.waiting) {
        started(GUEST_RUNS);
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
        started(GUEST_RUNS);
    }
}

GuestStart guest_start(DowntimeReport *report, GuestStarted *done, Error **errp)
{
    RunState state = wanted_state();
    bool run = runstate_is_live(state) && autostart;

    start_now.report = report;
    start_now.done = done;
    start_now.since_ns = now_ns();
    fault_inject_delay(POLICY_PART_ACTIVATE);
    if (run && !disks_activate(errp)) {
        return GUEST_NO_DISKS;
    }
    announce();
    dirty_bitmap_mig_before_vm_start();
    if (run) {
        report->activate_ns = now_ns() - start_now.since_ns;
        start_now.since_ns = now_ns();
        fault_inject_delay(POLICY_PART_START);
        start_vcpus();
        return GUEST_RUNS;
    }
    runstate_set(runstate_is_live(state) ? RUN_STATE_PAUSED : state);
    started(GUEST_WAITS);
    return GUEST_WAITS;
}

void guest_keep(void)
{
    announce();
    dirty_bitmap_mig_before_vm_start();
    runstate_set(RUN_STATE_PAUSED);
}
