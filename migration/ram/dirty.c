/*
 * Which pages of a piece of RAM have to be sent: the dirty map
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Invariants, whenever the lock is free:
 *
 *   D1  in_group[g] is the number of bits set in the words of group g.
 *   D2  Bit g of groups is set if and only if in_group[g] is not zero.
 *   D3  dirty is the sum of in_group.
 *   D4  No bit is set for a page that does not exist.
 *   D5  If bit c of stale is clear, no log has reported a page of chunk c
 *       since its log was last cleared.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "migration/ram/dirty-private.h"

static uint64_t groups_of(uint64_t pages)
{
    return DIV_ROUND_UP(pages, GROUP_PAGES);
}

static uint64_t chunks_of(uint64_t pages, unsigned chunk_shift)
{
    return DIV_ROUND_UP(pages, 1ull << chunk_shift);
}

static void free_tables(Tables *t)
{
    g_free(t->words);
    g_free(t->in_group);
    g_free(t->groups);
    g_free(t->stale);
}

/* Large pieces come from the kernel, zero and not there until written to. */
static bool new_tables(Tables *t, uint64_t pages, unsigned chunk_shift)
{
    uint64_t groups = groups_of(pages);

    t->pages = pages;
    t->words = g_try_new0(uint64_t, MAX(groups, 1) * GROUP_WORDS);
    t->in_group = g_try_new0(uint16_t, MAX(groups, 1));
    t->groups = g_try_new0(unsigned long, BITS_TO_LONGS(MAX(groups, 1)));
    t->stale = g_try_new0(unsigned long, BITS_TO_LONGS(
                              MAX(chunks_of(pages, chunk_shift), 1)));
    if (!t->words || !t->in_group || !t->groups || !t->stale) {
        free_tables(t);
        return false;
    }
    return true;
}

DirtyMap *dirty_map_new(uint64_t pages, unsigned chunk_shift,
                        DirtyLogClearFn *clear_log, void *opaque)
{
    DirtyMap *map = g_new0(DirtyMap, 1);

    assert(chunk_shift >= DIRTY_CHUNK_SHIFT_MIN &&
           chunk_shift <= DIRTY_CHUNK_SHIFT_MAX);
    if (pages > ULONG_MAX || !new_tables(&map->t, pages, chunk_shift)) {
        g_free(map);
        return NULL;
    }
    qemu_mutex_init(&map->lock);
    map->chunk_shift = chunk_shift;
    map->clear_log = clear_log;
    map->opaque = opaque;
    return map;
}

void dirty_map_free(DirtyMap *map)
{
    if (map) {
        qemu_mutex_destroy(&map->lock);
        free_tables(&map->t);
        g_free(map);
    }
}

uint64_t dirty_map_size(const DirtyMap *map)
{
    return map->t.pages;
}

uint64_t dirty_map_count(const DirtyMap *map)
{
    return qatomic_read(&map->dirty);
}

static void dirty_check_range(const DirtyMap *map, uint64_t first,
                              uint64_t count)
{
    assert(first <= map->t.pages && count <= map->t.pages - first);
}

/*
 * A part of a range that lies in one word: @mask are its bits in words[@word].
 */
typedef struct Part {
    uint64_t word;
    uint64_t mask;
    uint64_t count;
    unsigned shift;             /* of the part's first page in the word */
} Part;

static inline Part part_at(uint64_t page, uint64_t end)
{
    unsigned shift = page % WORD_PAGES;
    unsigned count = MIN(end - page, WORD_PAGES - shift);

    return (Part) {
        .word = page / WORD_PAGES,
        .mask = MAKE_64BIT_MASK(shift, count),
        .count = count,
        .shift = shift,
    };
}

/* Sets @bits of a word; returns how many were clear. */
static inline unsigned set_bits(Tables *t, uint64_t word, uint64_t bits)
{
    uint64_t added = bits & ~t->words[word];
    uint64_t group = word / GROUP_WORDS;
    unsigned n;

    if (!added) {
        return 0;
    }
    n = ctpop64(added);
    if (!t->in_group[group]) {
        set_bit(group, t->groups);
    }
    t->words[word] |= added;
    t->in_group[group] += n;
    return n;
}

/* Clears @bits of a word; returns how many were set. */
static inline unsigned clear_bits(Tables *t, uint64_t word, uint64_t bits)
{
    uint64_t removed = bits & t->words[word];
    uint64_t group = word / GROUP_WORDS;
    unsigned n;

    if (!removed) {
        return 0;
    }
    n = ctpop64(removed);
    t->words[word] &= ~removed;
    t->in_group[group] -= n;
    if (!t->in_group[group]) {
        clear_bit(group, t->groups);
    }
    return n;
}

static void add_dirty(DirtyMap *map, int64_t n)
{
    qatomic_set(&map->dirty, map->dirty + n);
}

static uint64_t clear_range(DirtyMap *map, uint64_t first, uint64_t count)
{
    uint64_t cleared = 0, end = first + count;
    Part part;

    for (uint64_t page = first; page < end; page += part.count) {
        part = part_at(page, end);
        if (!map->t.in_group[part.word / GROUP_WORDS]) {
            /* on to the next group */
            part.count = MIN(end - page, GROUP_PAGES - page % GROUP_PAGES);
            continue;
        }
        cleared += clear_bits(&map->t, part.word, part.mask);
    }
    add_dirty(map, -cleared);
    return cleared;
}

bool dirty_map_test(DirtyMap *map, uint64_t page)
{
    QEMU_LOCK_GUARD(&map->lock);
    dirty_check_range(map, page, 1);
    return map->t.words[page / WORD_PAGES] >> page % WORD_PAGES & 1;
}

uint64_t dirty_map_set(DirtyMap *map, uint64_t first, uint64_t count)
{
    uint64_t added = 0;
    Part part;

    QEMU_LOCK_GUARD(&map->lock);
    dirty_check_range(map, first, count);
    for (uint64_t page = first; page < first + count; page += part.count) {
        part = part_at(page, first + count);
        added += set_bits(&map->t, part.word, part.mask);
    }
    add_dirty(map, added);
    return added;
}

/* Bits [@from, @from + @count) of @log, at most 64; @take clears them there. */
static inline uint64_t log_bits(unsigned long *log, uint64_t from,
                                unsigned count, bool take)
{
    uint64_t bits = 0;
    unsigned n;

    for (unsigned done = 0; done < count; done += n) {
        unsigned long *word = log + (from + done) / BITS_PER_LONG;
        unsigned shift = (from + done) % BITS_PER_LONG;
        unsigned long mask, seen;

        n = MIN(count - done, BITS_PER_LONG - shift);
        mask = (~0ul >> (BITS_PER_LONG - n)) << shift;
        seen = qatomic_read(word) & mask;
        if (seen && take) {
            seen = qatomic_fetch_and(word, ~mask) & mask;
        }
        bits |= (uint64_t)(seen >> shift) << done;
    }
    return bits;
}

/* The first bit set in [@at, @end) of a log that others set bits in, or @end */
static uint64_t next_logged(const unsigned long *log, uint64_t at, uint64_t end)
{
    const unsigned long *word = log + BIT_WORD(at);
    unsigned long bits;

    if (at >= end) {
        return end;
    }
    bits = qatomic_read(word) & BITMAP_FIRST_WORD_MASK(at);
    at = QEMU_ALIGN_DOWN(at, BITS_PER_LONG);
    while (!bits && at + BITS_PER_LONG < end) {
        at += BITS_PER_LONG;
        bits = qatomic_read(++word);
    }
    return bits ? MIN(at + ctzl(bits), end) : end;
}

static inline QEMU_ALWAYS_INLINE
uint64_t merge(DirtyMap *map, uint64_t first, uint64_t count,
               unsigned long *log, uint64_t log_first, bool take)
{
    uint64_t added = 0, end = first + count;
    Part part;

    QEMU_LOCK_GUARD(&map->lock);
    dirty_check_range(map, first, count);
    for (uint64_t page = first; page < end; page += part.count) {
        uint64_t at = log_first + (page - first), bits;

        part = part_at(page, end);
        bits = log_bits(log, at, part.count, take);
        if (!bits) {
            part.count = next_logged(log, at + part.count, log_first + count) -
                         at;
        } else {
            set_bit(page >> map->chunk_shift, map->t.stale);
            added += set_bits(&map->t, part.word, bits << part.shift);
        }
    }
    add_dirty(map, added);
    return added;
}

uint64_t dirty_map_merge(DirtyMap *map, uint64_t first, uint64_t count,
                         const unsigned long *log, uint64_t log_first)
{
    return merge(map, first, count, (unsigned long *)log, log_first, false);
}

uint64_t dirty_map_merge_clearing(DirtyMap *map, uint64_t first,
                                  uint64_t count, unsigned long *log,
                                  uint64_t log_first)
{
    return merge(map, first, count, log, log_first, true);
}

static void clear_chunk(DirtyMap *map, uint64_t c)
{
    uint64_t start = c << map->chunk_shift;

    if (map->clear_log) {
        map->clear_log(map->opaque, start,
                       MIN(1ull << map->chunk_shift, map->t.pages - start));
    }
    clear_bit(c, map->t.stale);
}

static void clear_log(DirtyMap *map, uint64_t first, uint64_t count)
{
    uint64_t c = first >> map->chunk_shift;
    uint64_t end = chunks_of(first + count, map->chunk_shift);

    if (!count) {
        return;
    }
    while ((c = find_next_bit(map->t.stale, end, c)) < end) {
        clear_chunk(map, c++);
    }
}

void dirty_map_forget_log(DirtyMap *map)
{
    uint64_t chunks = chunks_of(map->t.pages, map->chunk_shift);

    QEMU_LOCK_GUARD(&map->lock);
    for (uint64_t c = 0; c < chunks; c++) {
        clear_chunk(map, c);
    }
}

void dirty_map_detach(DirtyMap *map)
{
    QEMU_LOCK_GUARD(&map->lock);
    map->clear_log = NULL;
}

void dirty_map_clear_log(DirtyMap *map, uint64_t first, uint64_t count)
{
    QEMU_LOCK_GUARD(&map->lock);
    dirty_check_range(map, first, count);
    clear_log(map, first, count);
}

/* The first dirty page at or after @page in the rest of its group, or pages */
static uint64_t dirty_find_in_group(const Tables *t, uint64_t page)
{
    uint64_t word = page / WORD_PAGES;
    uint64_t end = QEMU_ALIGN_UP(word + 1, GROUP_WORDS);
    uint64_t bits = t->words[word] & (UINT64_MAX << page % WORD_PAGES);

    while (!bits) {
        if (++word == end) {
            return t->pages;
        }
        bits = t->words[word];
    }
    return word * WORD_PAGES + ctz64(bits);
}

static uint64_t dirty_find_dirty(const Tables *t, uint64_t from)
{
    uint64_t group = from / GROUP_PAGES, page = t->pages;

    if (from >= t->pages) {
        return t->pages;
    }
    if (t->in_group[group]) {
        page = dirty_find_in_group(t, from);
    }
    if (page == t->pages) {
        group = find_next_bit(t->groups, groups_of(t->pages), group + 1);
        if (group < groups_of(t->pages)) {
            page = dirty_find_in_group(t, group * GROUP_PAGES);
        }
    }
    return page;
}

/* How many pages from @page on are dirty, one after the other, up to @limit */
static uint64_t run_length(const Tables *t, uint64_t page, uint64_t limit)
{
    uint64_t end = page + MIN(limit, t->pages - page), at = page;

    while (at < end) {
        unsigned shift = at % WORD_PAGES;
        uint64_t word = t->words[at / WORD_PAGES] >> shift;
        unsigned n = MIN(ctz64(~word), WORD_PAGES - shift);

        at += n;
        if (shift + n < WORD_PAGES) {
            break;
        }
    }
    return MIN(at, end) - page;
}

static uint64_t find_run(const Tables *t, uint64_t from, uint64_t limit,
                         uint64_t *first)
{
    uint64_t page = dirty_find_dirty(t, from);

    if (page == t->pages || !limit) {
        return 0;
    }
    *first = page;
    return run_length(t, page, limit);
}

uint64_t dirty_map_find(DirtyMap *map, uint64_t from, uint64_t limit,
                        uint64_t *first)
{
    QEMU_LOCK_GUARD(&map->lock);
    return find_run(&map->t, from, limit, first);
}

uint64_t dirty_map_take(DirtyMap *map, uint64_t from, uint64_t limit,
                        uint64_t *first)
{
    uint64_t count;

    QEMU_LOCK_GUARD(&map->lock);
    count = find_run(&map->t, from, limit, first);
    if (count) {
        clear_log(map, *first, count);
        clear_range(map, *first, count);
    }
    return count;
}

uint64_t dirty_map_drop(DirtyMap *map, uint64_t first, uint64_t count)
{
    QEMU_LOCK_GUARD(&map->lock);
    dirty_check_range(map, first, count);
    clear_log(map, first, count);
    return clear_range(map, first, count);
}

uint64_t dirty_map_hint(DirtyMap *map, uint64_t first, uint64_t count)
{
    uint64_t page = first, dropped = 0;

    QEMU_LOCK_GUARD(&map->lock);
    dirty_check_range(map, first, count);
    while (page < first + count) {
        uint64_t c = page >> map->chunk_shift;
        uint64_t end = MIN(first + count, (c + 1) << map->chunk_shift);

        if (!test_bit(c, map->t.stale)) {
            dropped += clear_range(map, page, end - page);
        }
        page = end;
    }
    return dropped;
}
