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
    v->count++;
    if (b->waiting-- == b->present) {
        b->all_us += now_us - b->all_since_us;
    }
}

void blocktime_other(Blocktime *b, uint64_t us)
{
    b->others_us += us;
    b->others_count++;
}

static uint64_t mean_ns(uint64_t sum_us, uint64_t count)
{
    return count ? sum_us * 1000 / count : 0;
}

uint64_t blocktime_vcpu_ns(const Blocktime *b, unsigned vcpu)
{
    const BlocktimeVcpu *v;

    if (vcpu >= b->possible) {
        return 0;
    }
    v = &b->vcpus[vcpu];
    return mean_ns(v->total_us, v->count);
}

uint64_t blocktime_others_ns(const Blocktime *b)
{
    return mean_ns(b->others_us, b->others_count);
}
