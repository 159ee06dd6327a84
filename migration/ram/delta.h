/*
 * Pages as differences: the sending side of the xbzrle capability
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the peer has of a page is remembered in a cache, and the next version
 * is encoded against that.  The cache must never hold anything else than what
 * the peer has: a difference against other bytes destroys the page there.  The
 * guest may write while its page is read, so a page enters the cache first
 * and is sent from there, and an encoding is applied to the cache too.
 *
 * Threads: one migration thread; start and stop under the BQL as well.  Other
 * threads may call ram_delta_resize() and ram_delta_counters(), which are in
 * migration/ram.h, and never wait for one that sends.
 */

#ifndef MIGRATION_RAM_DELTA_H
#define MIGRATION_RAM_DELTA_H

#include "sink.h"

/*
 * A cache of @size bytes for pages of @page_size.  xbzrle_counters
 * (migration/ram.h) are set to zero.
 */
bool ram_delta_start(uint64_t size, size_t page_size, Error **errp);
void ram_delta_stop(void);

/*
 * The peer may not have what it was sent: begins with an empty cache of @size.
 * False if there is no memory for it; then there is none.
 */
bool ram_delta_forget(uint64_t size, Error **errp);

/* Is there a cache? */
bool ram_delta_active(void);

/* What became of the pages of some runs: the first @done of them are sent. */
typedef struct RamDeltaSent {
    uint64_t done;
    uint64_t normal;            /* of these: as they are */
    uint64_t zero;              /* of these: told of as zero */
} RamDeltaSent;

/*
 * Send the pages of @count runs, each as zero if @find_zeros, as it is, as a
 * difference, or not at all if the peer has it already.  Ends early when that
 * has taken @max_bytes of the stream.  @age: of the pass.
 */
RamDeltaSent ram_delta_send(RamSink *sink, const RamRun *runs, unsigned count,
                            uint64_t age, bool find_zeros,
                            uint64_t max_bytes);

/* Bring the rates among the counters up to date.  @pages were sent so far. */
void ram_delta_rates(uint64_t pages);

#endif
