/*
 * What the background has sent lately
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page may be requested while it is on its way behind others.  Where there
 * is a faster way it is worth sending once more; so whoever sends in the
 * background notes what, and whoever hears requests looks here.  It forgets
 * the oldest, and what it does not know is not sent twice, which costs time
 * and nothing else.
 *
 * Threads: one that notes, and one that looks.  A run is one word, which is
 * stored and loaded at once, so nobody sees half of one.  No order is needed
 * between two of them: who looks too early does not find a run, as if it were
 * forgotten.
 */

#ifndef MIGRATION_POSTCOPY_UNDER_WAY_H
#define MIGRATION_POSTCOPY_UNDER_WAY_H

#include "migration/ram/region.h"

/* A window of 4 MiB, if each page of it is a run of its own */
#define UNDER_WAY_RUNS 1024

typedef struct UnderWay {
    unsigned next;              /* of the thread that notes */
    uint64_t runs[UNDER_WAY_RUNS];      /* atomic; 0: none */
} UnderWay;

/* While nobody looks */
void under_way_clear(UnderWay *u);

/* Target pages, at least one */
void under_way_note(UnderWay *u, const RamRegion *r, uint64_t first,
                    uint64_t count);

bool under_way_has(const UnderWay *u, const RamRegion *r, uint64_t page);

#endif
