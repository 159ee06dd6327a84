/*
 * Dirty pages, found, looked at and sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What there is to send stands in the maps of the regions.  Pages to be told
 * of as zero all go before pages with content, so that none of them can undo
 * a page that was written to meanwhile.
 *
 * Work moves in runs of pages.  The rate and the clock are looked at between
 * runs, and nothing is allocated.  No lock but those of the maps is held while
 * pages are read and sent.
 *
 * A RamSender belongs to one thread.  Several of them may work on the same
 * regions at once, each with a sink of its own: a run of pages is claimed from
 * its map under the map's lock, so it goes to one of them.  One only may tell
 * of pages that nobody ever wrote to.  A pass is over when none of them finds
 * anything to claim and ram_sink_end_pass() was called for each sink; only then
 * is the dirty log collected again.  Deltas are for a migration with one
 * sender, as their cache is not shared.
 */

#ifndef MIGRATION_RAM_SEND_H
#define MIGRATION_RAM_SEND_H

#include "sink.h"

/* Pages that are sent between two looks at rate and clock, at most */
#define RAM_SEND_BATCH 512

/*
 * When a turn of those ends who do not look at rate and clock themselves.
 * Whoever paces them sets it while they rest, and `stop` at any time.
 */
typedef struct RamPace {
    bool stop;                  /* atomic */
    uint64_t end_bytes;         /* as migration_rate_end() has it */
} RamPace;

typedef struct RamSender {
    RamRegions *regions;
    RamSink *sink;              /* the owner's; NULL: none */
    unsigned region;            /* where to go on */
    uint64_t page;
    uint64_t age;               /* passes, counted from 1 */
    bool find_zeros;            /* look whether pages are zero */
    bool tells_untouched;       /* of pages that nobody ever wrote to */
    bool takes_dirty;           /* pages of the maps */
    unsigned share;             /* it has one of so many shares of the rate */
    uint64_t normal, zero;      /* pages sent and not counted for others yet */
    const RamPace *pace;        /* of whoever paces it; or NULL */
    RamRun runs[RAM_SEND_BATCH];        /* of the batch, when sent as deltas */
} RamSender;

typedef enum RamSendResult {
    RAM_SEND_ALL,               /* nothing is left */
    RAM_SEND_SOME,              /* time or rate is used up */
    RAM_SEND_ERROR,             /* latched in the sink */
} RamSendResult;

/* Pages of @regions to @sink */
void ram_sender_init(RamSender *s, RamRegions *regions, RamSink *sink);

/* Bytes still to be sent, as they lie in memory; any thread */
uint64_t ram_sender_left(const RamRegions *regions);

/*
 * Pages that nobody ever wrote to are not told of as zero any more if they are
 * dirty now: for those whose content is sent on another channel, where it may
 * arrive earlier.  While nobody takes pages of the maps.
 */
void ram_sender_skip_written(RamRegions *regions);

/*
 * Send, for up to RAM_SEND_NS and at the rate that is set, or with @all
 * until nothing is left.  One with @pace looks at that in place of rate and
 * clock, which are the migration thread's.
 */
RamSendResult ram_sender_run(RamSender *s, bool all);

/*
 * The turn of those with @pace is over.  Whoever has not @sent anything in it
 * sends something first: so memory is sent however low the limit is.
 */
bool ram_pace_over(const RamPace *pace, bool sent);

/*
 * Send pages that are the caller's to send (ram/dirty-claim.h), or that were
 * and may come twice, as many as he likes.  Those of a region whose memory has
 * gone are sent as zero.  Whoever @s belongs to; RCU.
 */
void ram_sender_pages(RamSender *s, const RamRegion *r, uint64_t first,
                      uint64_t count);

/*
 * The same of pages that were copied to @bytes, which may be used again when
 * this returns.
 */
void ram_sender_copies(RamSender *s, const RamRegion *r, uint64_t first,
                       uint64_t count, const uint8_t *bytes);

/* Pages that nobody ever wrote to are still to be told of. */
bool ram_sender_untold(const RamRegions *regions);

#define RAM_SEND_NS (50 * 1000 * 1000)

#endif
