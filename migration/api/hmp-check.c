/*
 * Checks of the state of devices in the human monitor: vmstate_check
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"

static void show_differences(Monitor *mon, const VmstateDifferenceList *list)
{
    for (; list; list = list->next) {
        const VmstateDifference *d = list->value;

        monitor_printf(mon, "%s %" PRIu32 ": %s/%s: %s, then %s", d->device,
                       d->instance_id, d->section, d->field, d->before,
                       d->after);
        if (d->reason) {
            monitor_printf(mon, " (expected: %s)", d->reason);
        }
        monitor_printf(mon, "\n");
    }
}

static void show_parts(Monitor *mon, const VmstateNotRestoredList *list)
{
    for (; list; list = list->next) {
        const VmstateNotRestored *p = list->value;

        monitor_printf(mon, "%s (%s): %" PRIu64 " bytes at offset 0x%" PRIx64
                       ": %s, then %s%s\n", p->device, p->type, p->size,
                       p->offset, p->before, p->after,
                       p->as_reset ? " (as after a reset)" : "");
    }
}

static void show_memory(Monitor *mon, const VmstateMemoryChangeList *list)
{
    for (; list; list = list->next) {
        const VmstateMemoryChange *c = list->value;

        monitor_printf(mon, "%s: %" PRIu64 " bytes at 0x%" PRIx64 " were "
                       "written to by the %s, and put back\n", c->block,
                       c->size, c->offset, VmstateCheckStep_str(c->step));
    }
}

void hmp_vmstate_check(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    VmstateCheckResult *r = qmp_vmstate_check(&err);

    if (!r) {
        hmp_handle_error(mon, err);
        return;
    }
    monitor_printf(mon, "%" PRIu32 " sections with %" PRIu64 " bytes, %"
                   PRIu32 " devices; stopped for %" PRIu64 " us\n",
                   r->sections, r->bytes, r->objects, r->pause_us);
    monitor_printf(mon, "%" PRIu64 " fields have changed\n",
                   r->differences_count);
    show_differences(mon, r->differences);
    show_differences(mon, r->expected);
    show_parts(mon, r->not_restored);
    show_memory(mon, r->memory_changes);
    qapi_free_VmstateCheckResult(r);
}
