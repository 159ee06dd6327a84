/*
 * Claims on dirty pages, for several threads that send at the same time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In postcopy the guest runs on the other side.  Nothing is written here any
 * more, so no page becomes dirty, and there is no log to clear: bits of the
 * map only ever go from one to zero.  That makes it safe without the map's
 * lock.  A page belongs to whoever turns its bit to zero, which is one atomic
 * operation, and everything else about the map may lag behind:
 *
 *   C1  in_group[g] is at least the number of bits set in group g: bits go
 *       first.  So a search may look at a group that has none, and never
 *       misses one.
 *   C2  bit g of groups is cleared by whoever brings in_group[g] to zero.  It
 *       cannot come back, so there is no race to set it.
 *   C3  dirty is exact once all claims have returned.
 *
 * Nobody waits for anybody: the thread that answers page faults is not held
 * up by the one that scans.
 *
 * Pages are claimed in units of host pages, which the other side places as a
 * whole: they must not be torn between two channels.  A unit is a power of two
 * of target pages, and wholly dirty or wholly clean (dirty_map_round()).  Where
 * it is larger than a word of the host, its first word decides who has it.
 *
 * Threads.  dirty_map_claim() and _claim_run(): any, after dirty_map_freeze().
 * The others, and all of dirty.h that changes a map, only while nobody claims.
 */

#ifndef MIGRATION_RAM_DIRTY_CLAIM_H
#define MIGRATION_RAM_DIRTY_CLAIM_H

#include "dirty.h"

/* Nobody writes from now on: what logs still say is of no interest. */
void dirty_map_freeze(DirtyMap *map);

/* Make units that are partly dirty wholly so.  Returns how many pages. */
uint64_t dirty_map_round(DirtyMap *map, uint64_t unit);

/*
 * The unit that @page is in is the caller's to send.  Returns how many pages
 * it has from its start on, or 0 if it is clean or somebody else's.
 */
uint64_t dirty_map_claim(DirtyMap *map, uint64_t page, uint64_t unit);

/*
 * The first units at or after that of @from which are dirty, and follow each
 * other without a gap, are the caller's: up to @limit pages, but at least
 * one unit.  Returns how many pages and sets *@first, or returns 0.
 */
uint64_t dirty_map_claim_run(DirtyMap *map, uint64_t from, uint64_t unit,
                             uint64_t limit, uint64_t *first);

#endif
