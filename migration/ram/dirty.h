/*
 * Which pages of a piece of RAM have to be sent: the dirty map
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One bit a target page.  Above it stands a summary: how many of each group
 * of 4096 pages are dirty, and one bit a group that is not clean.  So the next
 * dirty page of a clean 12 TB guest is searched for in 100 kB, and what is all
 * zero is never touched and takes no memory.
 *
 * The map stands between a dirty log, which somebody else keeps (KVM, vhost,
 * TCG), and the pages to send:
 *
 *  - a sync merges the log into the map, by word;
 *  - the log keeps what it reported until it is cleared, which is expensive
 *    and has to happen before the page is read for sending, or a write in
 *    between is lost.  It is done by chunks of pages, and late: a merge that
 *    finds something in a chunk only notes that its log is stale, and the
 *    first dirty_map_take() of a page there has it cleared.  What is not sent
 *    is not cleared either.
 *
 * Pages are counted from 0.  Ranges must lie inside the map.
 *
 * Threads.  The map has a lock; it is taken once a call, never a page, and is
 * held while the log of a chunk is cleared: another thread that finds the
 * chunk clean may rely on the log being so.  The callback must not call the
 * map.  Lock order: the map's lock, then what the callback takes.
 *
 *  - dirty_map_find(), _take(), _merge(), _merge_clearing(), _set(): the
 *    migration thread, which owns the map
 *  - dirty_map_drop(), _hint(), _clear_log(), _detach(): any thread, so that
 *    of free page hints
 *  - dirty_map_count(), _test(): any thread; the answer may be old at once
 *  - dirty_map_new(), _free(): when nobody else knows the map, as when memory
 *    is unplugged
 */

#ifndef MIGRATION_RAM_DIRTY_H
#define MIGRATION_RAM_DIRTY_H

/* The smallest chunk, as an exponent of two: one word of a log */
#define DIRTY_CHUNK_SHIFT_MIN 6
#define DIRTY_CHUNK_SHIFT_MAX 31

typedef struct DirtyMap DirtyMap;

/*
 * Clear the log of pages [@first, @first + @count): forget what it reported at
 * the last sync.  What has been logged since then must stay, as no merge has
 * seen it yet.
 */
typedef void DirtyLogClearFn(void *opaque, uint64_t first, uint64_t count);

/*
 * A clean map of @pages pages with chunks of 2^@chunk_shift pages, of which
 * none has a stale log.  @clear_log may be NULL if there is no log that needs
 * to be cleared.  Returns NULL if there is no memory.
 */
DirtyMap *dirty_map_new(uint64_t pages, unsigned chunk_shift,
                        DirtyLogClearFn *clear_log, void *opaque);
void dirty_map_free(DirtyMap *map);

/* How many pages there are, and how many of them are dirty */
uint64_t dirty_map_size(const DirtyMap *map);
uint64_t dirty_map_count(const DirtyMap *map);

bool dirty_map_test(DirtyMap *map, uint64_t page);

/* Make pages dirty.  Returns how many were not.  Leaves the log alone. */
uint64_t dirty_map_set(DirtyMap *map, uint64_t first, uint64_t count);

/*
 * Make those pages dirty whose bit is set in @log; page @first + i has bit
 * @log_first + i.  Bits outside [@log_first, @log_first + @count) are not
 * looked at.  Chunks for which the log has something to say become stale.
 * Returns how many pages were clean before.
 */
uint64_t dirty_map_merge(DirtyMap *map, uint64_t first, uint64_t count,
                         const unsigned long *log, uint64_t log_first);

/*
 * The same for a @log that others set bits in at the same time: what has been
 * seen is cleared there, atomically.
 */
uint64_t dirty_map_merge_clearing(DirtyMap *map, uint64_t first,
                                  uint64_t count, unsigned long *log,
                                  uint64_t log_first);

/* Clear all of the log, whatever it said. */
void dirty_map_forget_log(DirtyMap *map);

/*
 * The owner of the log goes away: DirtyLogClearFn is not called any more, and
 * is not being called either, when this returns.
 */
void dirty_map_detach(DirtyMap *map);

/* Clear the stale logs of all chunks that the range touches. */
void dirty_map_clear_log(DirtyMap *map, uint64_t first, uint64_t count);

/*
 * The first run of dirty pages at or after @from, of which at most @limit
 * pages are wanted.  Returns its length and sets *@first, or returns 0.
 */
uint64_t dirty_map_find(DirtyMap *map, uint64_t from, uint64_t limit,
                        uint64_t *first);

/*
 * The same, and the pages are the caller's to send: they are clean, and their
 * log has been cleared.  Only read them after this.
 */
uint64_t dirty_map_take(DirtyMap *map, uint64_t from, uint64_t limit,
                        uint64_t *first);

/*
 * Make pages clean that need not be sent, since nobody cares what is in them.
 * Their log is cleared too, or the next sync would bring them back.  The
 * caller knows that they are not written to meanwhile.  Returns how many were
 * dirty.
 */
uint64_t dirty_map_drop(DirtyMap *map, uint64_t first, uint64_t count);

/*
 * The same for a guest that may write to them: nobody needs what was written
 * there before the last merge.  What has been written since stays in the log,
 * for the next merge to find.  A stale log cannot tell the one from the other,
 * so pages of such chunks stay dirty: call dirty_map_clear_log() before the
 * time from which on writes count.
 */
uint64_t dirty_map_hint(DirtyMap *map, uint64_t first, uint64_t count);

#endif
