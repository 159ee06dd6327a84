/*
 * Pages as records of the RAM section, in a stream
 *
 * Two forms: the one that every QEMU reads, with a header for each page, and
 * that of peers which know each other, with a header for each run (wire.h,
 * section 6).  Which of them depends on @peer; callers need not care.
 *
 * Errors are those of the stream.  end_pass() has nothing to do: a stream keeps
 * the order.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_STREAM_SINK_H
#define MIGRATION_RAM_STREAM_SINK_H

#include "migration/qemu-file-types.h"
#include "mapped.h"
#include "sink.h"

typedef struct RamStreamSink {
    RamSink sink;
    QEMUFile *file;
    uint32_t peer;              /* WIRE_PEER_*; 0: any QEMU */
    const RamRegion *named;     /* the region of the record before, or NULL */
    uint64_t memory;            /* bytes of pages with content, so far */
} RamStreamSink;

/* Records for @file, whose peer understands @features */
void ram_stream_sink_init(RamStreamSink *s, QEMUFile *file, uint32_t features);

/* It has said what it understands; between two calls of the sink. */
void ram_stream_sink_set_peer(RamStreamSink *s, uint32_t features);

/* What the list of regions says of each, besides name and size */
typedef enum RamAnnounce {
    RAM_ANNOUNCE_ADDRESS = 1 << 0,      /* x-ignore-shared */
    RAM_ANNOUNCE_HOST_PAGE = 1 << 1,    /* postcopy-ram; unless as usual */
} RamAnnounce;

/*
 * The regions, in the first section.  @what: RAM_ANNOUNCE_*.  @mapped: each is
 * given its place; NULL: pages follow in the stream.
 */
void ram_stream_sink_announce(RamStreamSink *s, const RamRegions *regions,
                              unsigned what, RamMapped *mapped);

/*
 * The mark of RamChannels, on the main channel or on another one that has
 * records; the peer learns of it at once.
 */
int ram_stream_sink_mark(RamStreamSink *s);

#endif
