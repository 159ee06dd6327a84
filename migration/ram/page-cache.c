/*
 * The pages last sent, to encode their next version against
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Slot (set s, way w) keeps its bytes at page w * sets + s of one piece of
 * memory: neighbours in the guest are neighbours here.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/host-utils.h"
#include "qemu/madvise.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "migration/ram/page-cache.h"
#include "migration/trace.h"

#define WAYS 8
#define NO_PAGE UINT64_MAX
#define HUGE (2 * MiB)          /* where that is no huge page no harm is done */

/* Two cache lines, of which a look-up reads the first */
typedef struct QEMU_ALIGNED(64) CacheSet {
    uint64_t page[WAYS];        /* number of the guest page, or NO_PAGE */
    uint32_t used_at[WAYS];     /* age at the last hit or insertion */
    uint8_t hits[WAYS];         /* ages at which it was hit, or MERIT */
} CacheSet;

struct PageCache {
    CacheSet *sets;
    uint8_t *data;
    size_t page_size;
    size_t ways;                /* fewer than WAYS in a tiny cache */
    size_t set_mask;
    unsigned set_bits;
};

/*
 * Pages are read once a pass, in an order that hardware does not guess across
 * pages of the host, so these are to be large.
 */
static uint8_t *slots_new(size_t size)
{
    size_t align = size < HUGE ? qemu_real_host_page_size() : HUGE;
    uint8_t *slots = qemu_try_memalign(align, size);

    if (slots && align == HUGE) {
        qemu_madvise(slots, size, QEMU_MADV_HUGEPAGE);
    }
    return slots;
}

PageCache *page_cache_new(uint64_t cache_size, size_t page_size, Error **errp)
{
    uint64_t pages = cache_size / page_size;
    size_t ways = MIN(pages, WAYS);
    PageCache *cache;

    if (!is_power_of_2(pages)) {
        error_setg(errp, "Parameter 'cache size' must be a power of two of "
                   "pages of %zu bytes, and at least one", page_size);
        return NULL;
    }
    cache = g_new0(PageCache, 1);
    cache->page_size = page_size;
    cache->ways = ways;
    cache->set_mask = pages / ways - 1;
    cache->set_bits = ctz64(pages / ways);
    cache->sets = qemu_try_memalign(sizeof(CacheSet),
                                    pages / ways * sizeof(CacheSet));
    /* A host of 32 bits has less memory than a size can say. */
    if (pages <= SIZE_MAX / 2 / page_size) {
        cache->data = slots_new(pages * page_size);
    }
    if (!cache->sets || !cache->data) {
        error_setg(errp, "There is no memory for a cache of %" PRIu64
                   " pages", pages);
        page_cache_free(cache);
        return NULL;
    }
    for (size_t i = 0; i <= cache->set_mask; i++) {
        memset(&cache->sets[i], 0, sizeof(CacheSet));
        for (unsigned way = 0; way < WAYS; way++) {
            cache->sets[i].page[way] = NO_PAGE;
        }
    }
    trace_migration_pagecache_init(pages);
    return cache;
}

void page_cache_free(PageCache *cache)
{
    qemu_vfree(cache->sets);
    qemu_vfree(cache->data);
    g_free(cache);
}

/*
 * For a given upper part of the page number this permutes the sets, so that
 * neighbours never share one; the upper part chooses which permutation.
 */
static size_t set_of(const PageCache *cache, uint64_t page)
{
    uint64_t upper = (page >> cache->set_bits) * 0x9e3779b97f4a7c15ull;

    return (page ^ upper >> 32) & cache->set_mask;
}

static uint8_t *slot_data(const PageCache *cache, size_t set, unsigned way)
{
    return cache->data +
           (way * (cache->set_mask + 1) + set) * cache->page_size;
}

/* The way of @set in which @page stands, or cache->ways */
static unsigned find_way(const PageCache *cache, const CacheSet *set,
                         uint64_t page)
{
    unsigned way = 0;

    while (way < cache->ways && set->page[way] != page) {
        way++;
    }
    return way;
}

static void mark_used(CacheSet *set, unsigned way, uint32_t age)
{
    if (set->used_at[way] != age) {
        set->used_at[way] = age;
        set->hits[way] = MIN(set->hits[way] + 1, PAGE_CACHE_MERIT);
    }
}

uint8_t *page_cache_use(PageCache *cache, uint64_t addr, uint64_t age)
{
    uint64_t page = addr / cache->page_size;
    size_t index = set_of(cache, page);
    CacheSet *set = &cache->sets[index];
    unsigned way = find_way(cache, set, page);

    if (way == cache->ways) {
        return NULL;
    }
    mark_used(set, way, age);
    return slot_data(cache, index, way);
}

void page_cache_prefetch(const PageCache *cache, uint64_t addr)
{
    const CacheSet *set = &cache->sets[set_of(cache, addr / cache->page_size)];

    __builtin_prefetch(set->page);
    __builtin_prefetch(set->used_at, 1);
}

/* The way of a full @set whose page may go, and has the least merit, or ways */
static unsigned find_due(const PageCache *cache, const CacheSet *set,
                         uint32_t age)
{
    unsigned due = cache->ways, idlers = 0;
    int64_t highest = INT64_MIN;

    for (unsigned way = 0; way < cache->ways; way++) {
        uint32_t idle = age - set->used_at[way];
        int64_t rank = (int64_t)idle - set->hits[way];

        if (idle >= PAGE_CACHE_LIFETIME) {
            idlers++;
            if (rank > highest) {
                highest = rank;
                due = way;
            }
        }
    }
    if (highest < PAGE_CACHE_LIFETIME && idlers <= cache->ways / 2) {
        return cache->ways;
    }
    return due;
}

uint8_t *page_cache_enter(PageCache *cache, uint64_t addr,
                          const uint8_t *pdata, uint64_t age)
{
    uint64_t page = addr / cache->page_size;
    size_t index = set_of(cache, page);
    CacheSet *set = &cache->sets[index];
    unsigned way = find_way(cache, set, page);

    if (way < cache->ways) {
        mark_used(set, way, age);
    } else {
        way = find_way(cache, set, NO_PAGE);
        if (way == cache->ways) {
            way = find_due(cache, set, age);
        }
        if (way == cache->ways) {
            return NULL;
        }
        set->page[way] = page;
        set->used_at[way] = age;
        set->hits[way] = 0;
    }
    return memcpy(slot_data(cache, index, way), pdata, cache->page_size);
}
