/*
 * Loading RAM: the records of the sections named "ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Nothing in the stream is believed: every name, length, offset and count is
 * checked before it is used.  Pages are read straight into guest memory, so
 * what it holds after a failure is undefined.
 */

#ifndef MIGRATION_RAM_LOAD_H
#define MIGRATION_RAM_LOAD_H

#include "migration/qemu-file.h"
#include "region.h"
#include "zero-gather.h"

typedef struct RamPlace RamPlace;
typedef struct RamLoader RamLoader;

typedef struct RamLoadOps {
    /*
     * Make @region hold @bytes, a multiple of the target page and at most what
     * is mapped: sets its pages and the size of its area.
     */
    bool (*resize)(void *opaque, RamRegion *region, uint64_t bytes,
                   Error **errp);
    /*
     * Called now and then between two records, at most RAM_LOAD_STRETCH of
     * work after the last time, for whoever shares the thread.  May be NULL.
     */
    void coroutine_mixed_fn (*rest)(void *opaque);
} RamLoadOps;

/*
 * What becomes of pages where it is not enough to write them to memory
 * (postcopy).  All may be NULL.
 */
typedef struct RamPagesOps {
    /* @pages from @page on are as they are to be, or will be soon. */
    void (*arrived)(void *opaque, RamRegion *region, uint64_t page,
                    uint64_t pages);
    /* Take them from @f, and put them there. */
    bool (*data)(void *opaque, QEMUFile *f, RamRegion *region, uint64_t page,
                 uint64_t pages, Error **errp);
    bool (*zeros)(void *opaque, RamRegion *region, uint64_t page,
                  uint64_t pages, Error **errp);
} RamPagesOps;

/*
 * Who reads memory from its places later, while the guest runs: then nothing of
 * it is read here.
 */
typedef struct RamLazyOps {
    /* One block of the list: takes over place->present. */
    bool (*keep)(RamPlace *place, RamRegion *region, Error **errp);
    /* That was all: from now on whoever touches memory waits for its pages. */
    bool (*begin)(Error **errp);
} RamLazyOps;

/*
 * Work between two rests: bytes of guest memory written or looked at, and for
 * each record RAM_LOAD_RECORD in addition.  4 MiB take about a millisecond.
 */
#define RAM_LOAD_STRETCH (4ull << 20)
#define RAM_LOAD_RECORD 128

/* The same for several threads that read from a file */
#define RAM_LOAD_TURN (32ull << 20)

/* Have @count pages of @region from @first on read from their @place. */
typedef bool RamReadPlaces(const RamPlace *place, RamRegion *region,
                           uint64_t first, uint64_t count, Error **errp);

/* What one load remembers from section to section */
struct RamLoader {
    RamRegions *regions;        /* not the loader's */
    const RamLoadOps *ops;
    void *opaque;               /* of the ops */
    unsigned page_bits;         /* of the target's page: 10..16 */
    const RamPagesOps *pages;   /* or NULL */
    void *pages_opaque;

    /*
     * There are other channels: waits until these have come to their marks.
     * What becomes of pages may be another after it.  NULL: there are none.
     */
    bool (*meet)(RamLoader *loader, Error **errp);
    bool meet_each;             /* the end of each section is a mark */
    /*
     * Memory also comes another way, in parts that the record HOOK begins:
     * loads one.  NULL: it does not.
     */
    bool (*hook)(RamRegions *regions, Error **errp);
    /*
     * It is one of these others: nothing but whole pages, zeros and marks, of
     * which each is waited for with meet(), up to EOS, which is no mark.  The
     * list of blocks is known.
     */
    bool beside;

    /* What else is told of a block in the list, as capabilities say */
    bool page_sizes;            /* of the host, unless it is the usual one */
    bool addresses;             /* of the guest */
    bool mapped;                /* where its pages are: mapped.h */
    /*
     * Some of these are read by others, who have done so when it returns; or
     * NULL.  It is asked for at most RAM_LOAD_TURN bytes that are there, then
     * the loop may turn.
     */
    RamReadPlaces *read_places;
    const RamLazyOps *lazy;     /* or NULL */

    bool sealed;                /* the guest was started: nothing may come */

    /* not for others */
    RamRegion *last;            /* which CONTINUE goes on with, or NULL */
    bool listed;                /* the list of blocks has come */
    bool met;                   /* other channels may put pages in place */
    ZeroGather zeros;
    uint64_t work;              /* since the last rest */
};

/*
 * Load the records of one section up to its end.  In the thread or coroutine
 * that reads @f; takes no lock.  After a failure neither @loader nor @f may be
 * used for more.
 *
 * With several channels as many threads load at once, each with a loader of
 * its own, to the same regions.  They share nothing else that is written to:
 * sizes and flags of regions do not change after the list of blocks, and the
 * bits of pages that have arrived are atomic (postcopy/received.h).  No page is
 * given to two of them without a mark in between, and before a mark each has
 * cleared the zeros that it has gathered, of which only the pages themselves
 * are written to.
 */
bool coroutine_mixed_fn ram_load_records(QEMUFile *f, RamLoader *loader,
                                         Error **errp);

/*
 * Hooks of the section "ram", in a coroutine with the BQL or in a thread
 * without it; one load at a time.
 *
 * If ram_load_state() fails, the error with its text is latched in the stream
 * as -EIO, so that nothing more is read from it.
 */
int ram_load_setup(QEMUFile *f, void *opaque, Error **errp);
int coroutine_mixed_fn ram_load_state(QEMUFile *f, void *opaque,
                                      int version_id);
int ram_load_cleanup(void *opaque);

/* The RAM block with memory at @host is removed.  BQL. */
void ram_load_unplugged(const void *host);

/* What is loaded to; from ram_load_setup() to ram_load_cleanup(). */
RamRegions *ram_load_regions(void);

/*
 * @pages from @page on have been put in place by whoever loads another channel:
 * that is told to the user of the loader, as of pages in sections.  Between the
 * first mark and the end of the channels, or in a hook; any thread.
 */
void ram_load_arrived(RamRegion *region, uint64_t page, uint64_t pages);

/*
 * The guest is about to be started with all of its memory: from now on the
 * sections "ram" may only end.  While nobody loads them.
 */
void ram_load_seal(void);

/*
 * Memory comes on other channels as well, see RamLoader; or does not any more.
 * Before a load, or after one.  BQL.
 */
void ram_load_set_channels(bool (*meet)(RamLoader *loader, Error **errp),
                           bool meet_each);

/*
 * Memory also comes another way, see RamLoader; NULL: not any more.  Before a
 * load, or after one.  BQL.
 */
void ram_load_set_hook(bool (*hook)(RamRegions *regions, Error **errp));

/*
 * Who reads places, see RamLoader; or NULL.  Before a load, or after one.  BQL.
 */
void ram_load_set_readers(RamReadPlaces *read_places);

/*
 * Who reads places later, see RamLazyOps; or NULL.  Before a load, or after
 * one.  BQL.
 */
void ram_load_set_lazy(const RamLazyOps *lazy);

/*
 * What the sections "ram" bring goes there from now on; NULL: to memory.  While
 * nobody loads them.
 */
void ram_load_divert(const RamPagesOps *pages, void *opaque);

/*
 * Load the records of a channel that has nothing but these, up to its end.  In
 * a thread of its own, beside the one that loads sections.
 */
bool ram_load_channel(QEMUFile *f, const RamPagesOps *pages, void *opaque,
                      Error **errp);

#endif
