/*
 * The source: stops that management does not learn of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/permit.h"
#include "qapi/qapi-events-run-state.h"
#include "qemu/thread.h"
#include "hidden-stop.h"

static struct {
    bool on;
    QemuThread thread;          /* whose stops are hidden */
    bool stopped;               /* a STOP is held back */
} hidden;

void hidden_stop_set(bool on)
{
    hidden.on = on;
    qemu_thread_get_self(&hidden.thread);
}

bool migration_hides_stop(void)
{
    if (!hidden.on || !qemu_thread_is_self(&hidden.thread)) {
        return false;
    }
    hidden.stopped = true;
    return true;
}

bool migration_hides_resume(void)
{
    bool was_hidden = hidden.stopped;

    hidden.stopped = false;
    return was_hidden;
}

void hidden_stop_show(void)
{
    if (hidden.stopped) {
        hidden.stopped = false;
        qapi_event_send_stop();
    }
}
