/*
 * Changes to loaded memory that the loader did not make
 *
 * Before the guest runs, only the loader may decide what guest memory holds.
 * It writes by host address, past the dirty log.  So what the log records on a
 * destination was written by somebody else: a reset handler, a post_load hook,
 * a device, a command.  Ranges that are discarded are recorded as well.  The
 * source is told of them and sends them again.
 *
 * The log is shared with the source of a later migration; both can not be at
 * work at the same time.
 *
 * All functions: BQL, from ram_load_setup() to ram_load_cleanup(), if nothing
 * else is said.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_LOAD_WATCH_H
#define MIGRATION_RAM_LOAD_WATCH_H

#include "region.h"

/* Pages of @region, counted from its start */
typedef struct RamChange {
    const RamRegion *region;
    uint64_t first, count;
} RamChange;

/*
 * So many changes of a region are told apart; the last of them covers what
 * comes after it.
 */
#define RAM_CHANGES_MAX 1024

/* Begins to record.  Does nothing while it does so. */
bool ram_watch_start(Error **errp);

/*
 * What was changed since the last call, or since the start: RamChange, in
 * order of memory.  Owned by the caller.
 */
GArray *ram_watch_take(void);

/*
 * ram_block_discard_range() for the loader itself, which has been told to:
 * not recorded.  Any thread, without yielding.
 */
int ram_watch_loader_discards(RAMBlock *rb, uint64_t start, uint64_t length);

/* Ends recording, before the guest starts.  Idempotent; at any time. */
void ram_watch_stop(void);

#endif
