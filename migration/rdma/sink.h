/*
 * Pages as RDMA writes: a sink of ram/
 *
 * In a section, the first page begins a part that belongs to RDMA: the record
 * HOOK in the stream, then messages and writes, then FINISHED and the stream
 * again.  Pages that follow each other become one write, of RDMA_WRITE_MAX
 * bytes at most.  Memory is registered on both sides when something of it is
 * written for the first time: the chunks that a write touches, with one
 * request.  To register memory is to have all of it present, and what the guest
 * never touched is not: so no more is registered, but where a span of
 * RDMA_SPAN_BITS needs one request after the other, each of them takes twice as
 * much.  With rdma-pin-all all of it is registered at the beginning.
 *
 * Zeros: at least so many bytes together are told of, by a message, or by a
 * record of the stream where a section begins with them.  Fewer are written
 * like any other page.  A message has to be waited for, so to one of ours many
 * ranges of zeros go in one message: RDMA_ZEROS_MANY bytes are enough then, and
 * RDMA_ZEROS_ONE otherwise.
 *
 * Several links: a span is always written by the same one, as only one link
 * keeps the order of what is written to a page.  Only one has messages, so all
 * others have to have finished before a message that is about memory, or ends
 * the section, is sent.
 *
 * Copies: a run of few pages is not worth a write of its own, nor registering
 * memory for it.  If that was agreed upon, many such runs go in one message.
 *
 * Order: a write could overtake what the destination has been told but not done
 * yet.  So nothing is written before it says READY after the last message.
 * Ranges of zeros that were gathered are told of before a page is given that is
 * not behind all of them, in the same region: no page can be in both.  Written
 * and copied is what memory holds then, so that a page that is given again is
 * never older than before, or is dirty and will be given once more.
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

/* A span of memory is written by one link, and registered with few requests. */
#define RDMA_SPAN_BITS 24
/* Bytes of a run that is copied, at most */
#define RDMA_COPY_MAX (16ull << 10)
/* Runs that are copied into a message */
#define RDMA_COPY_RUNS 128
/* Bytes of zeros that are worth a message, or being one of many in it */
#define RDMA_ZEROS_ONE (1ull << 20)
#define RDMA_ZEROS_MANY (64ull << 10)
/* Ranges of zeros in a message */
#define RDMA_ZEROS_RANGES 1024
/*
 * Bytes of zeros in a message to a peer of which nothing is known: some clear
 * all of them before their main loop goes on.
 */
#define RDMA_ZEROS_MAX (16ull << 20)

typedef struct RdmaSink RdmaSink;

/*
 * A sink for @regions that uses @link, where @hello was agreed upon, @count
 * @others for writes beside it, and @stream for what goes with the stream;
 * errors are latched there.  All are the caller's and stay.  Whoever owns the
 * sink calls it in the thread that uses @link.
 */
RdmaSink *rdma_sink_new(RdmaLink *link, const RdmaHello *hello,
                        RdmaLink *const *others, unsigned count,
                        RamStreamSink *stream, const RamRegions *regions);
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
