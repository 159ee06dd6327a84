/*
 * Pages as records of the RAM section
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two forms: the one that every QEMU reads, with a header for each page, and
 * that of peers which know each other, with a header for each run (wire.h,
 * section 6).  Which of them is a matter of @peer; callers need not care.
 *
 * Errors are latched in the stream.  Migration thread.
 */

#ifndef MIGRATION_RAM_SINK_H
#define MIGRATION_RAM_SINK_H

#include "migration/qemu-file-types.h"
#include "region.h"

typedef struct RamSink {
    QEMUFile *file;
    uint32_t peer;              /* WIRE_PEER_*; 0: any QEMU */
    const RamRegion *named;     /* the region of the record before, or NULL */
} RamSink;

/* Records for @file, whose peer understands @features */
void ram_sink_init(RamSink *sink, QEMUFile *file, uint32_t features);

/* What the list of regions says of each, besides name and size */
typedef enum RamAnnounce {
    RAM_ANNOUNCE_ADDRESS = 1 << 0,      /* x-ignore-shared */
    RAM_ANNOUNCE_HOST_PAGE = 1 << 1,    /* postcopy-ram; unless as usual */
} RamAnnounce;

/* The regions.  @what: RAM_ANNOUNCE_* */
void ram_sink_announce(RamSink *sink, const RamRegions *regions,
                       unsigned what);

/*
 * Pages as they are.  They are read when the stream is flushed, at the latest
 * by ram_sink_end().
 */
void ram_sink_pages(RamSink *sink, const RamRegion *r, uint64_t first,
                    unsigned count);

/* A page whose bytes are not those at its place: @bytes, which are copied */
void ram_sink_copy(RamSink *sink, const RamRegion *r, uint64_t page,
                   const void *bytes);

/* A page as its difference from what the peer has; @code is copied. */
void ram_sink_xbzrle(RamSink *sink, const RamRegion *r, uint64_t page,
                     const void *code, unsigned len);

/* Pages that are zero.  Nobody looks at their memory. */
void ram_sink_zeros(RamSink *sink, const RamRegion *r, uint64_t first,
                    uint64_t count);

/* Ends the section and flushes.  Returns the stream's error, or 0. */
int ram_sink_end(RamSink *sink);

#endif
