/*
 * Checkpoints: for how long epochs stop the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "pauses.h"

void pauses_add(Pauses *p, uint64_t us)
{
    p->us[p->count++ % PAUSES_KEPT] = MIN(us, UINT32_MAX);
    p->max_us = MAX(p->max_us, us);
}

static int pauses_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

uint64_t pauses_percentile(const Pauses *p, unsigned percent)
{
    unsigned n = MIN(p->count, PAUSES_KEPT);
    g_autofree uint32_t *sorted = g_memdup2(p->us, n * sizeof(*sorted));

    assert(percent && percent <= 100);
    if (!n) {
        return 0;
    }
    qsort(sorted, n, sizeof(*sorted), pauses_compare);
    return sorted[DIV_ROUND_UP(n * percent, 100) - 1];
}
