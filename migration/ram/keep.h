/*
 * A copy of guest memory, to go back to
 *
 * While the guest is stopped something may write to its memory that must not
 * be there when the guest runs again, as when devices are reset.  The copy is
 * taken before, and afterwards each page that differs is put back.  It does
 * not depend on a dirty log: whoever wrote, by whatever way, is noticed.
 *
 * Pages of zeros are known by a bit and take no memory.
 *
 * Nobody else writes to the memory during a call.  One thread; RCU is held
 * inside.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_KEEP_H
#define MIGRATION_RAM_KEEP_H

#include "region.h"

typedef struct RamKept RamKept;

/*
 * About all regions but those that are mapped read-only.  Nothing is copied
 * yet.  @regions must stay until ram_kept_free().
 */
RamKept *ram_kept_new(const RamRegions *regions);
void ram_kept_free(RamKept *k);

/*
 * @count pages of the region @index from @first on are no memory at present,
 * as those that virtio-mem has unplugged: they are not read or written.
 */
void ram_kept_leave_out(RamKept *k, unsigned index, uint64_t first,
                        uint64_t count);

/* How many bytes the copy may take at most.  Before ram_kept_copy(). */
uint64_t ram_kept_estimate(RamKept *k);

/* Takes the copy.  False if there is no memory for it. */
bool ram_kept_copy(RamKept *k, Error **errp);

/* Bytes of guest memory that the copy stands for, zeros included */
uint64_t ram_kept_bytes(const RamKept *k);

/* @count pages of @r from @first on differed, and were put back. */
typedef void RamKeptFn(void *opaque, const RamRegion *r, uint64_t first,
                       uint64_t count);

/*
 * Has the memory be as it was, and calls @fn for each run of pages that had
 * changed, in order of memory.
 */
void ram_kept_put_back(RamKept *k, RamKeptFn *fn, void *opaque);

#endif
