/*
 * Claims on dirty pages, for several threads that send at the same time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "migration/ram/dirty-private.h"
#include "dirty-claim.h"

void dirty_map_freeze(DirtyMap *map)
{
    QEMU_LOCK_GUARD(&map->lock);
    memset(map->t.stale, 0, BITS_TO_LONGS(DIV_ROUND_UP(
               map->t.pages, 1ull << map->chunk_shift)) * sizeof(long));
}

uint64_t dirty_map_round(DirtyMap *map, uint64_t unit)
{
    uint64_t pages = dirty_map_size(map), at = 0, added = 0, first;

    while (unit > 1 && dirty_map_find(map, at, 1, &first)) {
        at = QEMU_ALIGN_DOWN(first, unit);
        added += dirty_map_set(map, at, MIN(unit, pages - at));
        at += unit;
    }
    return added;
}

/*
 * Claims are made by words of the host, since it may not have atomic
 * operations on more.  Where that is half a word of the map, which half comes
 * first in memory depends on the host.
 */
#define CLAIM_PAGES BITS_PER_LONG
#define CLAIM_WORDS (GROUP_PAGES / CLAIM_PAGES)
#define CLAIM_SWAP (HOST_BIG_ENDIAN ? WORD_PAGES / CLAIM_PAGES - 1 : 0)

static unsigned long *claim_word(const Tables *t, uint64_t word)
{
    return (unsigned long *)t->words + (word ^ CLAIM_SWAP);
}

/* Bits [@shift, @shift + @n) of a word, @n at least 1 */
static unsigned long claim_mask(unsigned shift, unsigned n)
{
    return (~0ul >> (CLAIM_PAGES - n)) << shift;
}

static unsigned long word_now(const Tables *t, uint64_t word)
{
    return qatomic_read(claim_word(t, word));
}

/* @n bits of a word have been cleared. */
static void count_claimed(DirtyMap *map, uint64_t word, unsigned n)
{
    uint64_t group = word / CLAIM_WORDS;

    if (!qatomic_sub_fetch(&map->t.in_group[group], n)) {
        clear_bit_atomic(group, map->t.groups);
    }
    qatomic_sub(&map->dirty, n);
}

/* Returns those of @bits that were set until this very moment. */
static unsigned long claim_bits(DirtyMap *map, uint64_t word,
                                unsigned long bits)
{
    unsigned long won = qatomic_fetch_and(claim_word(&map->t, word), ~bits) &
                        bits;

    if (won) {
        count_claimed(map, word, ctpopl(won));
    }
    return won;
}

/* All of a unit that begins at @page */
static uint64_t claim_unit(DirtyMap *map, uint64_t page, uint64_t unit)
{
    uint64_t count = MIN(unit, map->t.pages - page);
    unsigned shift = page % CLAIM_PAGES;
    uint64_t word = page / CLAIM_PAGES;
    unsigned n = MIN(count, CLAIM_PAGES - shift);

    if (!claim_bits(map, word, claim_mask(shift, n))) {
        return 0;
    }
    for (uint64_t done = n; done < count; done += CLAIM_PAGES) {
        claim_bits(map, ++word,
                   claim_mask(0, MIN(count - done, CLAIM_PAGES)));
    }
    return count;
}

uint64_t dirty_map_claim(DirtyMap *map, uint64_t page, uint64_t unit)
{
    assert(page < map->t.pages);
    return claim_unit(map, QEMU_ALIGN_DOWN(page, unit), unit);
}

/* The first dirty page from @page on in its group, or a page behind that */
static uint64_t claim_find_in_group(const Tables *t, uint64_t page)
{
    uint64_t word = page / CLAIM_PAGES;
    uint64_t end = QEMU_ALIGN_UP(word + 1, CLAIM_WORDS);
    unsigned long bits = word_now(t, word) & (~0ul << page % CLAIM_PAGES);

    while (!bits && ++word < end) {
        bits = word_now(t, word);
    }
    return bits ? word * CLAIM_PAGES + ctzl(bits) : end * CLAIM_PAGES;
}

/* The first group from @group on that may have dirty pages, or one too many */
static uint64_t find_group(const Tables *t, uint64_t group)
{
    uint64_t end = DIV_ROUND_UP(t->pages, GROUP_PAGES);

    while (group < end) {
        unsigned long bits = qatomic_read(&t->groups[BIT_WORD(group)]) &
                             BITMAP_FIRST_WORD_MASK(group);

        if (bits) {
            return QEMU_ALIGN_DOWN(group, BITS_PER_LONG) + ctzl(bits);
        }
        group = QEMU_ALIGN_DOWN(group, BITS_PER_LONG) + BITS_PER_LONG;
    }
    return end;
}

/* The first dirty page at or after @from, or one that does not exist */
static uint64_t claim_find_dirty(const Tables *t, uint64_t from)
{
    while (from < t->pages) {
        uint64_t group = find_group(t, from / GROUP_PAGES), page;

        from = MAX(from, group * GROUP_PAGES);
        if (from >= t->pages) {
            break;
        }
        page = claim_find_in_group(t, from);
        if (page / GROUP_PAGES == group) {
            return page;
        }
        from = page;
    }
    return t->pages;
}

/*
 * In one word: the pages from @page on that are dirty without a gap, up to
 * @limit.  Either all of them are won or none is.
 */
static unsigned claim_in_word(DirtyMap *map, uint64_t page, uint64_t limit)
{
    unsigned long *word = claim_word(&map->t, page / CLAIM_PAGES);
    unsigned long seen = qatomic_read(word), before;
    unsigned shift = page % CLAIM_PAGES, n;

    do {
        n = ctzl(~(seen >> shift));
        n = MIN(MIN(n, CLAIM_PAGES - shift), limit);
        if (!n) {
            return 0;
        }
        before = seen;
        seen = qatomic_cmpxchg(word, before,
                               before & ~claim_mask(shift, n));
    } while (seen != before);
    count_claimed(map, page / CLAIM_PAGES, n);
    return n;
}

/* Units of at most a word, from the dirty unit at @page on */
static uint64_t claim_small(DirtyMap *map, uint64_t page, uint64_t limit)
{
    uint64_t end = page + MIN(limit, map->t.pages - page), at = page;

    while (at < end) {
        unsigned n = claim_in_word(map, at, end - at);

        at += n;
        if (!n || at % CLAIM_PAGES) {
            break;
        }
    }
    return at - page;
}

/* Units of some words */
static uint64_t claim_large(DirtyMap *map, uint64_t page, uint64_t unit,
                            uint64_t limit)
{
    uint64_t count = claim_unit(map, page, unit), more = count;

    while (more == unit && count + unit <= limit &&
           page + count < map->t.pages) {
        more = claim_unit(map, page + count, unit);
        count += more;
    }
    return count;
}

uint64_t dirty_map_claim_run(DirtyMap *map, uint64_t from, uint64_t unit,
                             uint64_t limit, uint64_t *first)
{
    uint64_t page = QEMU_ALIGN_DOWN(from, unit), count;

    limit = MAX(QEMU_ALIGN_DOWN(limit, unit), unit);
    while ((page = claim_find_dirty(&map->t, page)) < map->t.pages) {
        page = QEMU_ALIGN_DOWN(page, unit);
        count = unit <= CLAIM_PAGES ? claim_small(map, page, limit)
                                    : claim_large(map, page, unit, limit);
        if (count) {
            *first = page;
            return count;
        }
        /* somebody else has it */
        page += unit;
    }
    return 0;
}
