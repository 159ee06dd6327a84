/*
 * Where pages go: the interface of what sends them
 *
 * The engine decides which pages are sent, when, and in which form: found,
 * classified as zero or not, or encoded as a difference (send.h, delta.h).  A
 * sink takes them to the other side, or to a place in a file.  The engine does
 * not know which sink it has.
 *
 * Threads: a sink belongs to one thread, that of the RamSender it was given to;
 * it may be passed on while nobody calls it.  Only error() and fail() may be
 * called by any thread.
 *
 * Memory: pages() refers to guest memory, which the guest may write to
 * meanwhile.  What arrives is what a page holds at some moment from the call to
 * the next flush(), and may be a mixture of several: a page that is written to
 * in that time is dirty again and is given once more, after end_pass().  Until
 * flush() has returned the memory must stay mapped; then it may be discarded.
 * With copy() and xbzrle() the bytes are the caller's again when it returns.
 *
 * Order: a page that is given twice arrives twice, in this order, if it is
 * given to one sink, or if end_pass() was called in between.  The engine gives
 * a page to several sinks only with the end of a pass in between.
 *
 * Errors are latched: from the first one on everything is dropped, and each
 * function that returns an int returns it, a negative errno value.
 *
 * What other sinks may assume, and must not:
 *
 *   many channels   one sink a channel, each with a thread of its own and a
 *                   RamSender that claims runs from the same dirty maps;
 *                   end_pass() of the sink of the main channel waits for all
 *                   others.  Memory may be read after the call returns (zero
 *                   copy), until flush().
 *   a file with a   mapped.h: a bitmap says which pages count, so zeros() only
 *   place for each  clears bits; the last write to a place wins, and each has
 *   page            ended when the call returns.
 *   RDMA writes     pages() posts writes straight from guest memory, which is
 *                   registered; flush() waits for their completions, as does
 *                   end_pass().  There is no delta, and no page in two forms.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_SINK_H
#define MIGRATION_RAM_SINK_H

#include "region.h"

typedef struct RamSink RamSink;

typedef struct RamSinkOps {
    /* Pages as they are in memory */
    void (*pages)(RamSink *sink, const RamRegion *r, uint64_t first,
                  unsigned count);

    /* Pages whose bytes are not those at their place: @bytes, of all */
    void (*copy)(RamSink *sink, const RamRegion *r, uint64_t first,
                 unsigned count, const void *bytes);

    /* Pages that are zero.  Nobody looks at their memory. */
    void (*zeros)(RamSink *sink, const RamRegion *r, uint64_t first,
                  uint64_t count);

    /*
     * A page as its difference from what was given of it last, on this sink.
     * NULL: the sink takes no differences.
     */
    void (*xbzrle)(RamSink *sink, const RamRegion *r, uint64_t page,
                   const void *code, unsigned len);

    /* All that was given is on its way, and read from memory. */
    int (*flush)(RamSink *sink);

    /*
     * What is given from now on, on this sink or another one of the same
     * migration, arrives after what was given before.  Ends a pass.
     */
    int (*end_pass)(RamSink *sink);

    /* Nothing more comes in this turn.  Flushes. */
    int (*end)(RamSink *sink);

    /* Bytes that were given so far, as they are counted against the limit */
    uint64_t (*position)(RamSink *sink);

    int (*error)(RamSink *sink);

    /* Latches @ret, with @err, which is taken over, unless one is latched. */
    void (*fail)(RamSink *sink, int ret, Error *err);
} RamSinkOps;

struct RamSink {
    const RamSinkOps *ops;
    uint64_t zeros_at_once;     /* pages that are worth one call of zeros() */
};

static inline void ram_sink_pages(RamSink *sink, const RamRegion *r,
                                  uint64_t first, unsigned count)
{
    sink->ops->pages(sink, r, first, count);
}

static inline void ram_sink_copy(RamSink *sink, const RamRegion *r,
                                 uint64_t first, unsigned count,
                                 const void *bytes)
{
    sink->ops->copy(sink, r, first, count, bytes);
}

static inline void ram_sink_zeros(RamSink *sink, const RamRegion *r,
                                  uint64_t first, uint64_t count)
{
    sink->ops->zeros(sink, r, first, count);
}

static inline void ram_sink_xbzrle(RamSink *sink, const RamRegion *r,
                                   uint64_t page, const void *code,
                                   unsigned len)
{
    sink->ops->xbzrle(sink, r, page, code, len);
}

static inline int ram_sink_flush(RamSink *sink)
{
    return sink->ops->flush(sink);
}

static inline int ram_sink_end_pass(RamSink *sink)
{
    return sink->ops->end_pass(sink);
}

static inline int ram_sink_end(RamSink *sink)
{
    return sink->ops->end(sink);
}

static inline uint64_t ram_sink_position(RamSink *sink)
{
    return sink->ops->position(sink);
}

static inline int ram_sink_error(RamSink *sink)
{
    return sink->ops->error(sink);
}

static inline void ram_sink_fail(RamSink *sink, int ret, Error *err)
{
    sink->ops->fail(sink, ret, err);
}

#endif
