/*
 * Pages that the guest says it does not need
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device such as virtio-balloon learns of free pages and hands them to
 * qemu_guest_free_page_hint() (migration/misc.h), from its own thread.  Hints
 * belong to a round: it begins after a sync, when devices are told as precopy
 * notifiers (AFTER_BITMAP_SYNC), and ends before the next one (BEFORE_...).
 * A device passes on only what the guest freed after the round had begun, and
 * nothing after it has returned from BEFORE_BITMAP_SYNC.
 *
 * So what a hint makes us forget was written before the round.  The guest may
 * take a page back and write to it at any time, also before its hint has
 * arrived here: that write happened in the round.  It is not forgotten, as
 *
 *  - the sync before the round has merged the log into the maps, and the log
 *    is cleared where it said something before devices are told.  It is not
 *    left to the first page that is sent, as otherwise: a page that is in the
 *    log already would be written to without a trace (KVM), and clearing its
 *    log together with its hint would take both writes away;
 *  - a hint touches the map alone, and not where the log has not been cleared
 *    (dirty_map_hint());
 *  - the sync that ends the round merges the log after the last hint.
 *
 * Between two rounds, and while the guest is stopped, hints are ignored: a
 * device that passes one on too late costs a page that is sent, not one that
 * is lost.
 */

#ifndef MIGRATION_RAM_HINTS_H
#define MIGRATION_RAM_HINTS_H

#include "region.h"

/* From now on hints are about these regions, until ram_hints_end(). BQL. */
void ram_hints_begin(RamRegions *regions);
void ram_hints_end(void);

/* Before a sync.  Takes the BQL unless it is held. */
void ram_hints_stop(void);

/*
 * After it; @last: the guest is stopped and has nothing more to say.  Takes
 * the BQL unless it is held.
 */
void ram_hints_go_on(bool last);

#endif
