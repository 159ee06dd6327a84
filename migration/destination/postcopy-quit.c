/*
 * QEMU ends while the guest of a postcopy waits for memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "hw/core/cpu.h"
#include "migration/base/clock.h"
#include "migration/misc.h"
#include "migration/postcopy/dest.h"
#include "system/runstate.h"
#include "postcopy-quit.h"
#include "state.h"

/* For vCPUs that can be stopped, and for the main loop */
#define STOP_MS 2000
#define POLL_US 1000

/* What it waits for is not put in place any more, so it goes on waiting. */
static bool is_stuck(const CPUState *cpu)
{
    return dest_waits(cpu->thread_id);
}

bool migration_vcpu_is_stuck(const CPUState *cpu)
{
    return phase_get(&destination_phase) == MIGRATION_STATUS_POSTCOPY_PAUSED &&
           is_stuck(cpu);
}

static bool some_may_stop(void)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (!cpu->stopped && !is_stuck(cpu)) {
            return true;
        }
    }
    return false;
}

void postcopy_quit_stop_cpus(void)
{
    int64_t end = now_ms() + STOP_MS;
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        cpu->stop = true;
        qemu_cpu_kick(cpu);
    }
    while (some_may_stop() && now_ms() < end) {
        bql_unlock();
        g_usleep(POLL_US);
        bql_lock();
    }
    CPU_FOREACH(cpu) {
        if (!cpu->stopped && is_stuck(cpu)) {
            cpu->stopped = true;
        }
    }
}

static bool told_to_end(void)
{
    ShutdownCause cause = qemu_shutdown_requested_get();

    return cause == SHUTDOWN_CAUSE_HOST_SIGNAL ||
           cause == SHUTDOWN_CAUSE_HOST_QMP_QUIT;
}

void postcopy_quit_watch(int64_t *since)
{
    if (!told_to_end()) {
        *since = 0;
    } else if (!*since) {
        *since = now_ms();
    } else if (now_ms() - *since > STOP_MS) {
        error_report("QEMU was told to end while postcopy is paused, and the "
                     "guest, which waits for memory, keeps its main loop from "
                     "doing so: it ends as if it was killed");
        _exit(EXIT_FAILURE);
    }
}
