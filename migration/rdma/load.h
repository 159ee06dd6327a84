/*
 * Memory that comes by RDMA: the destination's part
 *
 * At the record HOOK of the section "ram", the stream is not read until the
 * message FINISHED has come.  In between the destination does what it is told:
 * it says what blocks it has, registers memory that the source will write to,
 * and clears what is zero.  It says READY only when it has done what the
 * message before told it, as the source relies on that.
 *
 * Postcopy: whoever keeps which pages have arrived is told of all of them when
 * the source requests the blocks.  A source that begins postcopy has finished
 * its writes, and has what is not up to date discarded first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RDMA_LOAD_H
#define MIGRATION_RDMA_LOAD_H

#include "migration/ram/region.h"
#include "link.h"

typedef struct RdmaLoad RdmaLoad;

/*
 * @hello: what was agreed upon, with the size of chunks even if that was not
 * said.  @link is the caller's.
 */
RdmaLoad *rdma_load_new(RdmaLink *link, const RdmaHello *hello);
void rdma_load_free(RdmaLoad *load);

/*
 * From the record HOOK on until FINISHED, for @regions, whose list has come.
 * In the thread that loads, without the BQL.  If it fails the source is told.
 */
bool rdma_load_part(RdmaLoad *load, RamRegions *regions, Error **errp);

#endif
