/*
 * Pages from their places in a file, while somebody may be waiting for them
 *
 * This is what a lazy restore reads memory with: a file of mapped-ram, and a
 * guest that runs before its memory is loaded.  Page requests are queued, and
 * served by a thread that does nothing else and by those that read ahead, which
 * take the rest of memory in chunks, those behind the last request first.  All
 * have the file open for themselves.
 *
 *   begin     the channels are given, and what the file is like is remembered
 *   keep      one call for each block in the list of blocks
 *   start     memory is watched from here on: threads read
 *   guest     the guest may run: a failure is not undone any more
 *   wait      all is in place, or never will be
 *   end       threads and channels are gone
 *
 * A page is put in place only if the file was still the same after it had been
 * read: of the same size, and not modified.  Whatever is wrong with the file is
 * one error, after which nothing is put in place any more.  Before the guest
 * may run, who waits is released then, and the guest must not be started;
 * afterwards who waits for a page goes on waiting.
 *
 * One at a time.  Errors: of begin, keep and guest in @errp; of the threads
 * from file_pages_wait() and file_pages_guest().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_FILE_PAGES_H
#define MIGRATION_POSTCOPY_FILE_PAGES_H

#include "io/channel.h"
#include "migration/ram/mapped.h"
#include "place.h"

/*
 * Bytes that are read and put in place at once; a page of the host that is
 * larger is read as a whole
 */
#define FILE_PAGES_PIECE (64u << 10)

/*
 * Takes over @count channels to one regular file, at least two, of which the
 * first one is for requests alone.  Sleeps for FILE_PAGES_SETTLE_MS at most, if
 * the file has just been written: a change within one tick of the file system's
 * clock could not be seen.  BQL, before anything of the file is read.  After a
 * failure the channels are closed.
 */
#define FILE_PAGES_SETTLE_MS 40
bool file_pages_begin(QIOChannel **files, unsigned count, Error **errp);

/* Whether @ioc is that file, as it was.  Any thread. */
bool file_pages_same_file(QIOChannel *ioc, Error **errp);

/*
 * The pages of @r are at @p; takes over p->present.  Thread that reads the list
 * of blocks.
 */
bool file_pages_keep(RamPlace *p, RamRegion *r, Error **errp);

/* False, with an error, if a block of @regions has no place. */
bool file_pages_complete(const RamRegions *regions, Error **errp);

/*
 * Pages that are not in the file count as received: they are zero for whoever
 * touches them.  Before memory is watched; @memory has empty maps.
 */
void file_pages_mark_zeros(PlaceMemory *memory);

/* Called by the threads, without locks; rate() may be called by several. */
typedef struct FilePagesOps {
    /*
     * By the last of them, after a failure before file_pages_guest(): nobody is
     * to wait for memory any more.
     */
    void (*release)(void);
    /* Bytes a second that may be read ahead, 0: as many as can be */
    uint64_t (*rate)(void);
} FilePagesOps;

/* Starts the threads. */
bool file_pages_start(PlaceMemory *memory, const FilePagesOps *ops,
                      Error **errp);

/* A FaultsOps.request(); any thread, never waits. */
bool file_pages_request(void *opaque, const RamRegion *region, uint64_t start,
                        uint32_t len);

/* The guest is about to be started.  False if it must not be. */
bool file_pages_guest(Error **errp);

/*
 * Waits until all is in place.  False after a failure or file_pages_cancel(),
 * which has no error.  One thread.
 */
bool file_pages_wait(Error **errp);

/* The threads are to end, as soon as they have read what they are reading. */
void file_pages_cancel(void);

/*
 * The same, waits for them and closes the channels; idempotent.  While nobody
 * requests pages.
 */
void file_pages_end(void);

#endif
