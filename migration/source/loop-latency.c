/*
 * How late the main loop is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/base/clock.h"
#include "loop-latency.h"

#define PERIOD_NS (5 * SCALE_MS)
/* Of what is past this share is forgotten each time: half in two seconds. */
#define FORGOTTEN 512

static struct {
    QEMUTimer *timer;           /* NULL: nobody watches */
    int64_t due_ns;
    int64_t worst_ns;
} lateness;

static void loop_latency_look_again(int64_t now)
{
    lateness.due_ns = now + PERIOD_NS;
    timer_mod(lateness.timer, lateness.due_ns);
}

static void look(void *opaque)
{
    int64_t now = now_ns();

    lateness.worst_ns -= lateness.worst_ns / FORGOTTEN;
    lateness.worst_ns = MAX(lateness.worst_ns, now - lateness.due_ns);
    loop_latency_look_again(now);
}

void loop_latency_watch(void)
{
    assert(bql_locked());
    if (!lateness.timer) {
        lateness.worst_ns = 0;
        lateness.timer = timer_new_ns(QEMU_CLOCK_REALTIME, look, NULL);
        loop_latency_look_again(now_ns());
    }
}

void loop_latency_forget(void)
{
    assert(bql_locked());
    if (lateness.timer) {
        timer_free(lateness.timer);
        lateness.timer = NULL;
    }
}

int64_t loop_latency_ns(void)
{
    assert(bql_locked());
    return lateness.worst_ns;
}
