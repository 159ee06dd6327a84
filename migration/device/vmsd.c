/*
 * VMState descriptions: what vmstate.c leaves to the running emulator
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/timer.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"
#include "system/system.h"
#include "vmsd.h"

/*
 * Timers travel as the nanosecond at which they expire; all ones: not armed.
 */

void timer_put(QEMUFile *f, QEMUTimer *ts)
{
    qemu_put_be64(f, timer_expire_time_ns(ts));
}

void timer_get(QEMUFile *f, QEMUTimer *ts)
{
    uint64_t ns = qemu_get_be64(f);

    if (ns == UINT64_MAX) {
        timer_del(ts);
    } else {
        timer_mod_ns(ts, ns);
    }
}

static int timer_field_put(QEMUFile *f, void *timer, size_t size,
                           const VMStateField *field, JSONWriter *vmdesc)
{
    timer_put(f, timer);
    return 0;
}

static int timer_field_get(QEMUFile *f, void *timer, size_t size,
                           const VMStateField *field)
{
    timer_get(f, timer);
    return 0;
}

const VMStateInfo vmstate_info_timer = {
    .name = "timer",
    .put = timer_field_put,
    .get = timer_field_get,
};

bool vmstate_check_only_migratable(const VMStateDescription *vmsd)
{
    return !only_migratable || !vmsd || !vmsd->unmigratable;
}

void vmsd_check(const VMStateDescription *vmsd)
{
    const VMStateDescription *const *sub = vmsd->subsections;
    const VMStateField *field = vmsd->fields;

    for (; field && field->name; field++) {
        if (field->flags & (VMS_STRUCT | VMS_VSTRUCT)) {
            vmsd_check(field->vmsd);
        }
    }
    /* Without its end mark the array goes on with whatever is behind it. */
    g_assert(!field || field->flags == VMS_END);

    for (; sub && *sub; sub++) {
        /* That is how a loader knows whose subsection it is. */
        g_assert(strstart((*sub)->name, vmsd->name, NULL));
        vmsd_check(*sub);
    }
}
