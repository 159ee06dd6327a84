/*
 * How fast something is sent lately, from counters that only grow
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "speed-meter.h"

#define NS_PER_S 1e9
/* A period is no shorter, however fast the link is. */
#define PERIOD_NS (100 * 1000 * 1000)
/* Nothing was sent for as long as so many pieces take: nothing is. */
#define SILENT_PIECES 2

void speed_meter_begin(SpeedMeter *m, int64_t now_ns, uint64_t bytes,
                       uint64_t pages)
{
    m->since_ns = m->changed_ns = now_ns;
    m->bytes = m->seen = bytes;
    m->pages = pages;
}

static bool is_silent(const SpeedMeter *m, int64_t now_ns, uint64_t limit,
                      uint64_t piece)
{
    double piece_ns = limit ? piece * NS_PER_S / limit : 0;

    return now_ns - m->changed_ns >= SILENT_PIECES * piece_ns;
}

bool speed_meter_measure(SpeedMeter *m, int64_t now_ns, uint64_t bytes,
                         uint64_t pages, uint64_t limit, uint64_t piece)
{
    double seconds = (now_ns - m->since_ns) / NS_PER_S;
    bool more = bytes != m->seen;

    m->seen = bytes;
    m->changed_ns = more ? now_ns : m->changed_ns;
    if (now_ns - m->since_ns < PERIOD_NS ||
        (!more && !is_silent(m, now_ns, limit, piece))) {
        return false;
    }
    m->mbps = (bytes - m->bytes) * 8 / seconds / 1e6;
    m->pages_per_second = (pages - m->pages) / seconds;
    m->since_ns = now_ns;
    m->bytes = bytes;
    m->pages = pages;
    return true;
}
