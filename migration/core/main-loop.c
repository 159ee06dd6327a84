/*
 * Work for the main loop, and whether QEMU is about to end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "main-loop.h"

static bool ending;             /* BQL */

bool main_loop_is_ending(void)
{
    return ending;
}

void main_loop_set_ending(void)
{
    ending = true;
}

/*
 * Like commands of QMP: in the loop itself, not in the middle of something
 * that polls while it waits, such as for requests to the disks.
 */
void main_loop_run(QEMUBHFunc *fn, void *opaque)
{
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), fn, opaque);
}

typedef struct Errand {
    Coroutine *co;
    void (*fn)(void);
} Errand;

static void run_errand(void *opaque)
{
    Errand *errand = opaque;

    errand->fn();
    qemu_coroutine_enter(errand->co);
}

void coroutine_fn main_loop_run_and_wait(void (*fn)(void))
{
    Errand errand = { .co = qemu_coroutine_self(), .fn = fn };

    main_loop_run(run_errand, &errand);
    qemu_coroutine_yield();
}
