/*
 * The pages last sent, to encode their next version against
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A cache of a fixed number of page slots, grouped to sets.  An address
 * belongs to one set and may stand in any slot of it.  Addresses that follow
 * each other go to different sets, so a working set that is one piece of at
 * most seven eighths of the cache fits without loss wherever it lies, and a
 * larger one loses a few pages in a hundred unless it is aligned.  Addresses
 * at a constant distance from each other spread over all sets.
 *
 * An age is the number of the current pass over dirty memory.  It never
 * decreases.  A page that was inserted or hit in this pass or the one before
 * keeps its slot: passes run through memory in order, so whoever lets the
 * newest in would throw out each page just before it is needed.  Beyond that
 * every pass that hit a page protects it for one more, up to PAGE_CACHE_MERIT
 * of them, so that pages written once do not drive out those written often;
 * but not if most of a set is idle, as then the guest has moved on.  The page
 * with the longest idle time, less its hits, goes first.
 *
 * The cache has no lock.  The owner sees to it that one thread at a time uses
 * it: that is the migration thread, which also puts a new one in place when the
 * size is changed (delta.c).
 */

#ifndef MIGRATION_RAM_PAGE_CACHE_H
#define MIGRATION_RAM_PAGE_CACHE_H

/* Passes for which a page is safe, the one it was used in among them */
#define PAGE_CACHE_LIFETIME 2

/* Passes with a hit that are counted, each good for one more idle pass */
#define PAGE_CACHE_MERIT 2

typedef struct PageCache PageCache;

/*
 * A cache of @cache_size bytes for pages of @page_size.  The number of pages
 * must be a power of two, as it is part of the interface that it is.  Memory
 * of slots is reserved here and used when they are first filled.  Returns
 * NULL and sets @errp if the size is wrong or there is no memory.
 */
PageCache *page_cache_new(uint64_t cache_size, size_t page_size, Error **errp);

/* Frees @cache and all that functions below ever returned. */
void page_cache_free(PageCache *cache);

/*
 * The cached bytes of the page at @addr, which is used at @age; or NULL if it
 * is not here.  The caller may change them; they stay until the next
 * page_cache_enter().
 */
uint8_t *page_cache_use(PageCache *cache, uint64_t addr, uint64_t age);

/* The page at @addr will soon be looked up: have the look-up in a cache. */
void page_cache_prefetch(const PageCache *cache, uint64_t addr);

/*
 * Copies the page @pdata, which stands at @addr.  It takes the place of an
 * older version, a free slot, or one that is due (see above).  Returns the
 * copy, or NULL if there is no such slot; nothing has changed then.
 */
uint8_t *page_cache_enter(PageCache *cache, uint64_t addr,
                          const uint8_t *pdata, uint64_t age);

#endif
