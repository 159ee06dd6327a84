/*
 * Models of the policies that other engines have, in virtual time
 *
 * They state documented behaviour: what triggers a step, and how large it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtual-guest.h"

static Outcome never(const VirtualGuest *g)
{
    return (Outcome) { .total = g->now, .lost = g->lost, .sent = g->sent,
                       .longest_pass = g->longest_pass };
}

/*
 * QEMU 10.0: a pass is over when what remains fits the limit.  If the guest
 * has dirtied more than the trigger, 50 %, of what was sent, for the second
 * time, it is slowed down: to begin with by 20 %, then by 10 % more.
 */
typedef struct Triggered {
    VirtualGuest g;
    double sent_before;
    unsigned count;
    bool limited;
} Triggered;

static bool triggered(Triggered *t)
{
    double sent = t->g.sent - t->sent_before;

    t->sent_before = t->g.sent;
    if (t->g.found <= sent * 0.5) {
        return false;
    }
    if (++t->count < 2) {
        return false;
    }
    t->count = 0;
    return true;
}

static void throttle(Triggered *t)
{
    double taken = 1 - t->g.keep;

    if (triggered(t)) {
        taken = taken > 0 ? MIN(taken + 0.1, 0.99) : 0.2;
        t->g.keep = 1 - taken;
    }
}

static void limit_dirtying(Triggered *t)
{
    double allowed = t->g.load->vcpus * 1e6, all = 0;

    t->limited |= triggered(t);
    for (int i = 0; i < VIRTUAL_SETS; i++) {
        all += t->g.load->set[i].rate;
    }
    if (t->limited && all > allowed) {
        t->g.keep = allowed / all;
    }
}

static Outcome run_triggered(const Workload *load, double horizon,
                             void (*slow_down)(Triggered *))
{
    Triggered t = { 0 };
    unsigned passes = 0;
    Outcome o;

    virtual_begin(&t.g, load);
    while (t.g.now < horizon) {
        if (virtual_remaining(&t.g) < load->link * load->limit) {
            virtual_sync(&t.g);
            passes++;
            slow_down(&t);
            if (virtual_remaining(&t.g) < load->link * load->limit) {
                o = virtual_switch_over(&t.g);
                o.passes = passes;
                virtual_end(&t.g);
                return o;
            }
        }
        virtual_run(&t.g, virtual_step(&t.g));
    }
    o = never(&t.g);
    virtual_end(&t.g);
    return o;
}

Outcome model_auto_converge(const Workload *load, double horizon)
{
    return run_triggered(load, horizon, throttle);
}

Outcome model_dirty_limit(const Workload *load, double horizon)
{
    return run_triggered(load, horizon, limit_dirtying);
}

/* cloud-hypervisor: all of it, five passes at most, and the rest. */
Outcome model_five_passes(const Workload *load, double horizon)
{
    VirtualGuest g;
    Outcome o;

    virtual_begin(&g, load);
    for (int pass = 0; pass <= 5; pass++) {
        while (virtual_remaining(&g) >= 1 && g.now < horizon) {
            virtual_run(&g, virtual_step(&g));
        }
        if (pass < 5) {
            virtual_sync(&g);
        }
        if (virtual_remaining(&g) < 1) {
            break;
        }
    }
    o = g.now < horizon ? virtual_switch_over(&g) : never(&g);
    virtual_end(&g);
    return o;
}
