/*
 * How long vCPUs waited for pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "blocktime.h"

void blocktime_init(Blocktime *b, unsigned present, unsigned count,
                    unsigned possible)
{
    *b = (Blocktime) {
        .present = present, .count = MIN(count, possible),
        .possible = possible, .vcpus = g_new0(BlocktimeVcpu, possible),
    };
}

void blocktime_destroy(Blocktime *b)
{
    g_free(b->vcpus);
    *b = (Blocktime) {};
}

void blocktime_begin(Blocktime *b, unsigned vcpu, uint64_t now_us)
{
    BlocktimeVcpu *v;

    if (vcpu >= b->possible || b->vcpus[vcpu].waits) {
        return;
    }
    b->count = MAX(b->count, vcpu + 1);
    v = &b->vcpus[vcpu];
    v->waits = true;
    v->since_us = now_us;
    if (++b->waiting == b->present) {
        b->all_since_us = now_us;
    }
}

void blocktime_end(Blocktime *b, unsigned vcpu, uint64_t now_us)
{
    BlocktimeVcpu *v;

    if (vcpu >= b->possible || !b->vcpus[vcpu].waits) {
        return;
    }
    v = &b->vcpus[vcpu];
    v->waits = false;
    v->total_us += now_us - v->since_us;
    if (b->waiting-- == b->present) {
        b->all_us += now_us - b->all_since_us;
    }
}
