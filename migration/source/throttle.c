/*
 * Slowing the guest down, so that a migration converges
 *
 * A vCPU that is to lose a share p of its time runs for one slice and then
 * sleeps p / (1 - p) slices.  A timer gives each vCPU, once in that period,
 * the errand of sleeping; one whose last errand is not done gets no second.
 *
 * Who collects the dirty log may have work for each vCPU, and wait for it
 * while the guest is about to be handed over: so a vCPU does other errands in
 * its sleep, and whoever waits for one is woken when it is done (cpu-common.c).
 * It must not run the guest in between, which has something to catch up with:
 * each collection of the log would have it dirty more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/core/cpu.h"
#include "migration/base/clock.h"
#include "migration/core/main-loop.h"
#include "migration/trace.h"
#include "system/cpus.h"
#include "throttle.h"

#define SLICE_NS (10 * SCALE_MS)

static unsigned percent;            /* atomic */
static QEMUTimer *timer;            /* main loop */
static uint64_t dirty_rate;         /* in force; migration thread */

static int64_t sleep_ns(unsigned share)
{
    return SLICE_NS * share / (100 - share);
}

/*
 * A vCPU that is stopped, or is about to be, runs for nobody, and others may
 * have work for it: the last collection of the dirty log has.
 */
static bool may_sleep(CPUState *cpu)
{
    return !cpu->stop && !cpu->stopped && !cpu->unplug &&
           qatomic_read(&percent);
}

static bool has_errands(CPUState *cpu)
{
    return !QSIMPLEQ_EMPTY_ATOMIC(&cpu->work_list);
}

/* On the vCPU's thread, under the BQL. */
static void sleep_until(CPUState *cpu, int64_t end_ns)
{
    int64_t left;

    while (may_sleep(cpu) && (left = end_ns - now_ns()) > 0) {
        if (has_errands(cpu)) {
            process_queued_cpu_work(cpu);
        } else if (left >= SCALE_MS) {
            /* Errands and stopping end this wait, throttle_set(0) does not. */
            qemu_cond_timedwait_bql(cpu->halt_cond,
                                    MIN(left, SLICE_NS) / SCALE_MS);
        } else {
            bql_unlock();
            g_usleep(DIV_ROUND_UP(left, SCALE_US));
            bql_lock();
        }
    }
    qatomic_set(&cpu->throttle_thread_scheduled, 0);
}

static void sleep_errand(CPUState *cpu, run_on_cpu_data unused)
{
    sleep_until(cpu, now_ns() + sleep_ns(qatomic_read(&percent)));
}

static void tick(void *opaque)
{
    unsigned share = qatomic_read(&percent);
    CPUState *cpu;

    if (!share) {
        return;
    }
    CPU_FOREACH(cpu) {
        if (!cpu->unplug && !qatomic_xchg(&cpu->throttle_thread_scheduled, 1)) {
            async_run_on_cpu(cpu, sleep_errand, RUN_ON_CPU_NULL);
        }
    }
    timer_mod(timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL_RT) + SLICE_NS +
                     sleep_ns(share));
}

static void throttle_begin(void *opaque)
{
    if (!timer) {
        timer = timer_new_ns(QEMU_CLOCK_VIRTUAL_RT, tick, NULL);
    }
    tick(NULL);
}

void throttle_set(unsigned share)
{
    unsigned before = qatomic_xchg(&percent, MIN(share, THROTTLE_MAX));

    if (share != before) {
        trace_cpu_throttle_set(share);
    }
    if (share && !before) {
        main_loop_run(throttle_begin, NULL);
    }
}

unsigned throttle_get(void)
{
    return qatomic_read(&percent);
}

void throttle_dirty_rate(uint64_t bytes_per_s)
{
    Error *err = NULL;

    if (bytes_per_s == dirty_rate) {
        return;
    }
    BQL_LOCK_GUARD();
    dirty_rate = bytes_per_s;
    if (bytes_per_s) {
        qmp_set_vcpu_dirty_limit(false, -1, DIV_ROUND_UP(bytes_per_s, MiB),
                                 &err);
    } else {
        qmp_cancel_vcpu_dirty_limit(false, -1, &err);
    }
    if (err) {
        warn_report_err(err);
    }
}
