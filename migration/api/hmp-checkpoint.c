/*
 * Migration in the human monitor: checkpoints
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "monitor/hmp.h"
#include "hmp-progress.h"

static void print_pause(Monitor *mon, const MigrationCheckpoint *c)
{
    const MigrationCheckpointPause *p = c->pause;

    if (!p) {
        return;
    }
    monitor_printf(mon, "checkpoint pause: %" PRIu64 " us (stop %" PRIu64
                   ", devices %" PRIu64 ", sync %" PRIu64 ", memory %" PRIu64,
                   p->total, p->stop, p->devices, p->sync, p->memory);
    if (p->has_acknowledge) {
        monitor_printf(mon, ", acknowledge %" PRIu64, p->acknowledge);
    }
    monitor_printf(mon, ", resume %" PRIu64 ")\n", p->resume);
    monitor_printf(mon, "checkpoint pauses: median %" PRIu64 " us, p99 %" PRIu64
                   " us, longest %" PRIu64 " us\n", c->pause_median,
                   c->pause_p99, c->pause_max);
}

void hmp_print_checkpoint(Monitor *mon, const MigrationCheckpoint *c)
{
    if (!c) {
        return;
    }
    monitor_printf(mon, "checkpoints: %s\n",
                   MigrationCheckpointState_str(c->state));
    monitor_printf(mon, "checkpoint epoch: %" PRIu64 "\n", c->epoch);
    if (c->has_age) {
        monitor_printf(mon, "checkpoint age: %" PRIu64 " ms\n", c->age);
    }
    monitor_printf(mon, "checkpoint size: %" PRIu64 " bytes, all %" PRIu64
                   " bytes\n", c->last_bytes, c->total_bytes);
    print_pause(mon, c);
    if (c->has_buffered_packets) {
        monitor_printf(mon, "checkpoint output held: %" PRIu64 " packets, %"
                       PRIu64 " bytes\n", c->buffered_packets,
                       c->buffered_bytes);
    }
    if (c->has_apply) {
        monitor_printf(mon, "checkpoint apply: %" PRIu64 " us\n", c->apply);
    }
}

void hmp_checkpoint_failover(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_checkpoint_failover(&err);
    hmp_handle_error(mon, err);
}
