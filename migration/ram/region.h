/*
 * A piece of guest memory, as those see it who scan, send and load it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What works on pages knows these and no RAMBlock, so that it can be tested on
 * any memory.  blocks.c makes them of the RAM blocks of a machine.
 *
 * A region is made when a migration starts and stays as long as that lasts,
 * though its memory may go (see RamPresence).  Only @pages may change, on the
 * destination, within @max_pages: when the source tells how large the block is
 * there.
 */

#ifndef MIGRATION_RAM_REGION_H
#define MIGRATION_RAM_REGION_H

#include "qemu/atomic.h"
#include "dirty.h"
#include "populated.h"

typedef struct RamRange {
    uint64_t first, count;      /* pages */
} RamRange;

/*
 * Whether the memory of a region exists.  The guest may complete the unplug of
 * a device while its memory is sent: what the peer has of it does not matter
 * then, but in postcopy the peer waits for each page that it requests.
 *
 * RAM_HERE ends under the BQL.  Whoever finds RAM_HERE in an RCU read-side
 * section may use @host and @rb until the end of that section, and rb->mr only
 * with the BQL as well.  The destination of a postcopy, where the guest may do
 * the same, knows RAM_GONE only; what is sent for it is dropped.
 */
typedef enum RamPresence {
    RAM_HERE,
    RAM_GONE,                   /* nothing of it is sent any more */
    RAM_GONE_ZERO,              /* what its map says is sent as zero pages */
} RamPresence;

typedef struct RamRegion {
    char *name;                 /* 1..255 bytes */
    unsigned index;             /* its place among the regions */
    unsigned page_bits;         /* of the target's page, the same in all */
    uint8_t *host;              /* of page 0; the start of a host page */
    uint64_t pages;             /* target pages in use */
    uint64_t max_pages;         /* mapped at @host */
    uint64_t host_page_size;    /* bytes, of the memory behind it */
    uint64_t guest_addr;        /* of page 0: told if memory is ignored */
    bool ignored;               /* no pages are sent: both sides share them */
    RamPresence presence;       /* atomic */
    bool persistent;            /* keeps its content only if it is flushed */
    bool read_only;             /* mapped so: a write would be a fault */
    PopulatedArea area;         /* of @pages */
    unsigned announced;         /* destination: place in the list, from 1 */
    DirtyMap *map;              /* source: to be sent; NULL if ignored */
    /* source: RamRange, ascending: nobody ever wrote there, so told as zero */
    GArray *untouched;
    unsigned told;              /* how many of these have been */
    uint64_t untold_pages;      /* in the others; atomic */
    RAMBlock *rb;               /* NULL in tests */
} RamRegion;

/* Pages of a region that follow each other */
typedef struct RamRun {
    RamRegion *region;
    uint64_t first, count;
} RamRun;

typedef struct RamRegions {
    RamRegion *list;            /* in the order in which they are announced */
    unsigned count;
} RamRegions;

#define RAM_REGIONS_FOREACH(r, regions) \
    for (RamRegion *r = (regions)->list; \
         r < (regions)->list + (regions)->count; r++)

static inline bool ram_region_sent(const RamRegion *r)
{
    return !r->ignored && qatomic_read(&r->presence) != RAM_GONE;
}

/* Its pages are sent, and there is memory to read them from. */
static inline bool ram_region_here(const RamRegion *r)
{
    return !r->ignored && qatomic_read(&r->presence) == RAM_HERE;
}

/* The first region from @r on whose pages are sent, or NULL */
static inline RamRegion *ram_regions_sent(const RamRegions *regions,
                                          RamRegion *r)
{
    while (r < regions->list + regions->count) {
        if (ram_region_sent(r)) {
            return r;
        }
        r++;
    }
    return NULL;
}

#define RAM_REGIONS_FOREACH_SENT(r, regions) \
    for (RamRegion *r = ram_regions_sent(regions, (regions)->list); r; \
         r = ram_regions_sent(regions, r + 1))

static inline uint64_t ram_region_page_size(const RamRegion *r)
{
    return 1ull << r->page_bits;
}

static inline uint8_t *ram_region_page(const RamRegion *r, uint64_t page)
{
    return r->host + (page << r->page_bits);
}

/* Bytes in use, as they are announced: a multiple of the target page. */
static inline uint64_t ram_region_bytes(const RamRegion *r)
{
    return r->pages << r->page_bits;
}

/* The region of that name, or NULL */
static inline RamRegion *ram_regions_find(const RamRegions *regions,
                                          const char *name)
{
    RAM_REGIONS_FOREACH(r, regions) {
        if (!strcmp(r->name, name)) {
            return r;
        }
    }
    return NULL;
}

#endif
