/*
 * How much of what lies behind a page fault is worth sending along
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "locality.h"

/* Units that a walk may leave out and still be the same */
#define STRIDE 2

void locality_init(Locality *l)
{
    *l = (Locality) { };
}

static bool foresaw(const Walk *w, unsigned region, uint64_t unit)
{
    return w->used && w->region == region && unit >= w->end &&
           unit - w->end <= STRIDE;
}

/* The walk that @unit belongs to, or the one that was silent for longest */
static Walk *find_walk(Locality *l, unsigned region, uint64_t unit)
{
    Walk *oldest = &l->walks[0];

    for (int i = 0; i < LOCALITY_WALKS; i++) {
        Walk *w = &l->walks[i];

        if (foresaw(w, region, unit)) {
            return w;
        }
        if (w->used < oldest->used) {
            oldest = w;
        }
    }
    return oldest;
}

unsigned locality_fault(Locality *l, unsigned region, uint64_t unit,
                        unsigned max)
{
    Walk *w = find_walk(l, region, unit);

    if (foresaw(w, region, unit)) {
        l->hits++;
        w->window = MAX(w->window * 2, 1);
    } else {
        w->window /= 2;
    }
    w->window = MIN(w->window, max);
    w->region = region;
    w->end = unit + 1 + w->window;
    w->used = ++l->faults;
    return w->window;
}
