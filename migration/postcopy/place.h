/*
 * Putting pages in place while the guest may be waiting for them
 *
 * A host page appears at once and whole, or not at all.  Where it has the size
 * of the target's pages, that is done straight from the stream's buffer, many
 * at a time if the source sends runs.  Larger ones are gathered first: apart,
 * or where the memory is shared and the kernel lets us, in the memory itself
 * by way of a second mapping, and then mapped (UFD_CONTINUE).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_PLACE_H
#define MIGRATION_POSTCOPY_PLACE_H

#include "migration/qemu-file.h"
#include "faults.h"
#include "ufd.h"

/*
 * What there is to know of a region beside RamRegion; at the same index
 *
 * A fault may be told of as soon as a region is registered, to a thread that
 * runs before.  So what that thread looks at is there before it starts, or is
 * the result of registering: then it is atomic, and 0 means what always works.
 */
typedef struct PlaceBlock {
    ReceivedMap map;
    uint64_t bytes;             /* registered: 0 if nothing is */
    unsigned ways;              /* bits of UfdWay; atomic */
    uint8_t *alias;             /* the same memory, mapped again; or NULL */
    bool managed;               /* parts may be unplugged, as by virtio-mem */
} PlaceBlock;

typedef struct PlaceMemory {
    RamRegions *regions;        /* not ours */
    PlaceBlock *blocks;
    uint64_t largest_page;      /* bytes, of all that are sent */
    uint8_t *zeros;             /* so many */
    int ufd;
    Faults *faults;
    /* Pages are in place: bytes from @start on. May be NULL. */
    void (*placed)(void *opaque, const RamRegion *region, uint64_t start,
                   uint64_t len);
    void *opaque;
} PlaceMemory;

/* One channel that brings pages; used by one thread */
typedef struct Placer {
    PlaceMemory *memory;
    /* Off at first: */
    bool gives_way;             /* to whoever has got a page */
    bool gives_way_early;       /* and while it comes, by another channel */

    /* Private: the host page that is being gathered */
    uint8_t *stage;
    RamRegion *region;          /* NULL: none is */
    uint64_t host_page;
    unsigned long *here;        /* which of its target pages have come */
    uint64_t missing;           /* how many have not */
    bool all_zero;
    uint64_t turn;              /* bytes put in place since it last looked */
    unsigned seen;              /* faults_settled() */
} Placer;

/* False if there is no memory; destroy it all the same. */
bool placer_init(Placer *placer, PlaceMemory *memory, Error **errp);
void placer_destroy(Placer *placer);

/* Forget what is half there: it will be sent again. */
void placer_reset(Placer *placer);

/*
 * @pages from @page on, which lie in @region, come from @f; or are zero.
 * What is in place already is read and dropped.
 */
bool placer_data(Placer *placer, QEMUFile *f, RamRegion *region, uint64_t page,
                 uint64_t pages, Error **errp);
bool placer_zero(Placer *placer, RamRegion *region, uint64_t page,
                 uint64_t pages, Error **errp);

/*
 * Whole host pages: @len bytes of @region from @start on are as those from
 * @from on.  What is in place already stays as it is.  Any thread.
 */
bool place_pages(PlaceMemory *memory, RamRegion *region, uint64_t start,
                 const uint8_t *from, uint64_t len, Error **errp);

/*
 * For whoever waits for a page that has come: it goes on.  Zeros that came
 * before the guest ran need no memory until somebody wants them, so that is
 * what a page is filled with that is missing all the same.  Any thread.
 */
bool place_what_came(PlaceMemory *memory, const RamRegion *region,
                     uint64_t host_page, Error **errp);

/*
 * A page of zeros, which nobody will send, for whoever waits for it.  Any
 * thread.
 */
bool place_zero_page(PlaceMemory *memory, RamRegion *region,
                     uint64_t host_page, Error **errp);

#endif
