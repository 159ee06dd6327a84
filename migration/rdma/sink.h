/*
 * Pages as RDMA writes: a sink of ram/
 *
 * In a section, the first page begins a part that belongs to RDMA: the record
 * HOOK in the stream, then messages and writes, then FINISHED and the stream
 * again.  Pages that follow each other become one write.  Memory is registered
 * on both sides when something of it is written for the first time, in spans of
 * RDMA_SPAN bytes, or all at once (rdma-pin-all).
 *
 * Zeros: at least RDMA_ZEROS_MIN bytes together are a message, or a record of
 * the stream where the peer knows one for ranges.  Fewer are written like any
 * other page, as a message has to be waited for.
 *
 * Order: a write could overtake what the destination has been told but not done
 * yet.  So nothing is written before it says READY after the last message.
 *
 * Where the stream keeps what it is given (stream_keep()), the peer cannot be
 * waited for, and pages are records of the stream.
 *
 * There are no differences between versions of a page.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RDMA_SINK_H
#define MIGRATION_RDMA_SINK_H

#include "migration/ram/stream-sink.h"
#include "link.h"

/* Bytes that are registered together: a multiple of a chunk */
#define RDMA_SPAN (16ull << 20)
/* Bytes of zeros that are worth a message */
#define RDMA_ZEROS_MIN (64ull << 10)
/*
 * Bytes of zeros in a message to a peer of which nothing is known: some clear
 * all of them before their main loop goes on.
 */
#define RDMA_ZEROS_MAX (16ull << 20)

typedef struct RdmaSink RdmaSink;

/*
 * A sink for @regions that uses @link, and @stream for what goes with the
 * stream; errors are latched there.  All three are the caller's and stay.
 * Whoever owns the sink calls it in the thread that uses @link.
 */
RdmaSink *rdma_sink_new(RdmaLink *link, bool pin_all, RamStreamSink *stream,
                        const RamRegions *regions);
void rdma_sink_free(RdmaSink *sink);

RamSink *rdma_sink_base(RdmaSink *sink);

/*
 * Before pages are given in a section: the first time, learns what blocks the
 * destination has, and with rdma-pin-all registers all of memory.  That may
 * take long, so without RCU.  Returns a negative errno value, which is latched,
 * or 0.
 */
int rdma_sink_begin(RdmaSink *sink);

#endif
