/*
 * Memory at fixed places of a file (mapped-ram)
 *
 * The list of blocks gives each of them a place: a bitmap with a bit for each
 * page that is in the file, and room for all of its pages (WireMappedRam).  A
 * page that is sent again is written where it was before, so the file is no
 * larger than memory, whatever the guest does; a page that is not in the bitmap
 * is zero.  Between two blocks, and behind the last one, the stream goes on.
 *
 * Source: ram_mapped_begin(); ram_mapped_announce() for each block, in the
 * order of the list; sinks; ram_mapped_end() when all pages were written.
 * The bitmaps are written last: a file whose writer was cut off has none.
 *
 * Threads: begin, announce and end: the thread that writes the main stream, at
 * a time when no sink is used.  Each sink belongs to one thread (sink.h); they
 * share the bitmaps, in which they set and clear bits atomically.  Two sinks
 * are given the same page only with the end of a pass in between.
 *
 * Errors are latched in the file of the sink, or in that of the call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_MAPPED_H
#define MIGRATION_RAM_MAPPED_H

#include "migration/qemu-file-types.h"
#include "load.h"
#include "sink.h"

/* Of one block; positions in the file, bytes */
struct RamPlace {
    uint64_t bitmap_at;
    uint64_t pages_at;
    unsigned long *present;     /* what is in the file; or NULL */
};

typedef struct RamMapped {
    RamPlace *places;           /* by RamRegion.index */
    unsigned count;
} RamMapped;

/* Bytes of the bitmap of @pages in the file */
uint64_t ram_mapped_bitmap_bytes(uint64_t pages);

/* Nothing has a place yet.  ram_mapped_free() is safe at any time after it. */
void ram_mapped_begin(RamMapped *m, const RamRegions *regions);
void ram_mapped_free(RamMapped *m);

/* Gives @r the next place of the file behind @f, and tells of it in @f. */
void ram_mapped_announce(RamMapped *m, const RamRegion *r, QEMUFile *f);

/* Writes the bitmaps of all blocks, if these have places: 0 or -errno */
int ram_mapped_end(RamMapped *m, const RamRegions *regions, QEMUFile *f);

/* Where pages go that are written by way of @file */
typedef struct RamMappedSink {
    RamSink sink;
    RamMapped *mapped;
    QEMUFile *file;
    uint64_t written;           /* bytes of pages */
} RamMappedSink;

/*
 * @mapped and @file stay the caller's.  The sink takes no differences.  A page
 * that is zero costs nothing but its bit: what the file has of it stays.
 */
void ram_mapped_sink_init(RamMappedSink *s, RamMapped *mapped, QEMUFile *file);

/* The places that @sink writes to; NULL if it is of another kind */
RamMapped *ram_mapped_of(RamSink *sink);

/*
 * Destination: what follows in the list of blocks is the place of @r; loads all
 * of its pages, or has them kept for later (RamLazyOps), and has @f go on
 * behind them.  Pages that are not in the file are cleared.  In the thread or
 * coroutine that reads @f.
 */
bool coroutine_mixed_fn ram_mapped_load(QEMUFile *f, RamLoader *l, RamRegion *r,
                                        Error **errp);

/*
 * Loads @count pages of @r from @first on, whose place is @p, by way of @f.
 * Several threads may do so at once, for different pages and each with a file
 * and a loader of its own.
 */
bool coroutine_mixed_fn ram_mapped_load_range(QEMUFile *f, RamLoader *l,
                                              const RamPlace *p, RamRegion *r,
                                              uint64_t first, uint64_t count,
                                              Error **errp);

/*
 * Has all pages of @r that are there read by @l->read_places(), in turns; where
 * as much as a turn is not there, pages are cleared without it.
 */
bool coroutine_mixed_fn ram_mapped_read_in_turns(RamLoader *l,
                                                 const RamPlace *p,
                                                 RamRegion *r, Error **errp);

#endif
