/*
 * Timers in VMState: what vmstate.c leaves to the running emulator
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"

/* A timer travels as the nanosecond when it expires; all ones: not armed. */

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
