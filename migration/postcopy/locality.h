/*
 * How much of what lies behind a page fault is worth sending along
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Who walks through memory faults next right behind what was sent for the last
 * fault.  For such a walk the window doubles each time, until a fault is rare;
 * a fault elsewhere begins another walk, with half the window of the one that
 * it replaces.  So a walk costs few faults, and jumps soon cost nothing beyond
 * the pages they are about.  Several walks are told apart, as every vCPU does
 * its own.
 *
 * Pure.  One thread at a time.
 */

#ifndef MIGRATION_POSTCOPY_LOCALITY_H
#define MIGRATION_POSTCOPY_LOCALITY_H

#define LOCALITY_WALKS 8

typedef struct Walk {
    unsigned region;
    uint64_t end;               /* the unit behind all that was sent for it */
    unsigned window;            /* units */
    unsigned used;              /* when, counted in faults; 0: never */
} Walk;

typedef struct Locality {
    Walk walks[LOCALITY_WALKS];
    unsigned faults;
    uint64_t hits;              /* faults that a walk foresaw */
} Locality;

void locality_init(Locality *l);

/*
 * A fault at unit @unit of region @region; up to @max units are worth it.
 * Returns how many units behind it to send.
 */
unsigned locality_fault(Locality *l, unsigned region, uint64_t unit,
                        unsigned max);

#endif
