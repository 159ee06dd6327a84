/*
 * The dirty log of the machine's memory, and how it gets into the maps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the guest writes is recorded by whoever sees it: KVM, TCG, vhost, VFIO.
 * The memory API collects that in one bitmap of all RAM when it is asked to,
 * under the BQL.  All else here is done without: merging the bitmap into the
 * maps of the regions, and clearing the log before pages are read.
 *
 * No write is lost.  A bit of the bitmap is cleared only when the page has
 * become dirty in the map, and then the chunk of the page counts as stale: its
 * writes may go unrecorded until the log is cleared there.  That happens
 * before the page is read (dirty.h), so what goes unrecorded is sent anyway.
 */

#ifndef MIGRATION_RAM_SYNC_H
#define MIGRATION_RAM_SYNC_H

#include "ram-source.h"
#include "region.h"

/* The log is cleared in pieces of so many pages (as an exponent): 1 GiB */
#define RAM_LOG_CHUNK_SHIFT 18

/* Begin and end logging.  Who has borrowed the log gives it back.  BQL. */
bool ram_log_start(Error **errp);
void ram_log_stop(void);

/*
 * The same for somebody who can do without: when a migration starts, or a
 * snapshot, @ends is called, which has to call ram_log_return().  False if the
 * log is in use.  BQL, as for what is called.
 */
bool ram_log_borrow(void (*ends)(void), Error **errp);
void ram_log_return(void);

/*
 * Forget what the log says; the maps have to be clean.  From now on it is about
 * what is written after this call began.  BQL.
 */
void ram_log_restart(RamRegions *regions);

/*
 * The first time: what was ever written to becomes dirty, all other pages are
 * to be told of as zero, and from now on the log is about what is written
 * after this call began.  Takes the BQL unless it is held.
 *
 * When a block is added, all of it is in the bitmap, and KVM's own log begins
 * like that too.  So the log is first collected and discarded.  Only then
 * the page tables are asked what exists: a write before that has left a page
 * there to be found, and a later one is recorded.
 */
void ram_log_first(RamRegions *regions, RamSyncReport *report);

/*
 * Calls @fn for runs of pages that did not exist at the first time and do now,
 * and may be dirty.  Before any was told of as zero, and while nobody writes.
 * RCU is held around @fn, which may make them dirty.
 */
typedef void RamAppearedFn(void *opaque, RamRegion *r, uint64_t first,
                           uint64_t count);

void ram_log_appeared(RamRegions *regions, RamAppearedFn *fn, void *opaque);

/*
 * Make dirty what was written since the last time.  @last: the guest stands
 * still, so nobody needs to go on recording.  Takes the BQL unless it is held.
 */
void ram_log_sync(RamRegions *regions, bool last, RamSyncReport *report);

/*
 * What devices like virtio-mem have unplugged of @r is not to be sent, whatever
 * its map says.  Takes the BQL unless it is held.
 */
void ram_log_drop_unplugged(RamRegion *r);

/*
 * Calls @fn for each run of pages of @r that the bitmap has recorded, and has
 * the bitmap forget them.  What others keep in logs of their own, such as KVM,
 * is not collected.  RCU is held around @fn.  BQL.
 */
typedef void RamLogRunFn(void *opaque, uint64_t first, uint64_t count);

void ram_log_take(const RamRegion *r, RamLogRunFn *fn, void *opaque);

/* DirtyLogClearFn of a region's map */
void ram_log_clear(void *region, uint64_t first, uint64_t count);

#endif
