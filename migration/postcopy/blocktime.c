/*
 * How long vCPUs waited for pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "blocktime.h"

void blocktime_init(Blocktime *b, unsigned vcpus)
{
    *b = (Blocktime) {
        .count = vcpus, .vcpus = g_new0(BlocktimeVcpu, vcpus),
    };
}

void blocktime_destroy(Blocktime *b)
{
    g_free(b->vcpus);
    *b = (Blocktime) {};
}

void blocktime_begin(Blocktime *b, unsigned vcpu, uint64_t now_us)
{
    BlocktimeVcpu *v = &b->vcpus[vcpu];

    assert(vcpu < b->count);
    if (v->waits) {
        return;
    }
    v->waits = true;
    v->since_us = now_us;
    if (++b->waiting == b->count) {
        b->all_since_us = now_us;
    }
}

void blocktime_end(Blocktime *b, unsigned vcpu, uint64_t now_us)
{
    BlocktimeVcpu *v = &b->vcpus[vcpu];

    assert(vcpu < b->count);
    if (!v->waits) {
        return;
    }
    v->waits = false;
    v->total_us += now_us - v->since_us;
    if (b->waiting-- == b->count) {
        b->all_us += now_us - b->all_since_us;
    }
}
