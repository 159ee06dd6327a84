/*
 * Which pages of a region have come, and which were requested
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "migration/wire/wire.h"
#include "received.h"

/* Bytes of the bitmap made ready for the wire at a time */
#define PIECE 4096
QEMU_BUILD_BUG_ON(PIECE % sizeof(unsigned long));

#if HOST_LONG_BITS == 64
#define LITTLE(word) cpu_to_le64(word)
#else
#define LITTLE(word) cpu_to_le32(word)
#endif

bool received_init(ReceivedMap *map, uint64_t pages, unsigned host_shift)
{
    uint64_t host_pages = DIV_ROUND_UP(pages, 1ull << host_shift);

    *map = (ReceivedMap) {
        .pages = host_pages << host_shift,
        .host_shift = host_shift,
        .received = bitmap_try_new(host_pages << host_shift),
        .requested = bitmap_try_new(host_pages),
    };
    return map->received && map->requested;
}

void received_destroy(ReceivedMap *map)
{
    g_free(map->received);
    g_free(map->requested);
    *map = (ReceivedMap) {};
}

/* The bits of [@from, @end) that are in the word of @from */
static unsigned long mask_within_word(uint64_t from, uint64_t end)
{
    unsigned long mask = BITMAP_FIRST_WORD_MASK(from);

    return BIT_WORD(from) == BIT_WORD(end) ? mask & ~BITMAP_FIRST_WORD_MASK(end)
                                           : mask;
}

/* A full barrier, as each of the changes is. */
static void change_range(ReceivedMap *map, uint64_t from, uint64_t end, bool to)
{
    assert(from <= end && end <= map->pages);
    while (from < end) {
        unsigned long *word = &map->received[BIT_WORD(from)];
        unsigned long mask = mask_within_word(from, end);

        if (to) {
            qatomic_or(word, mask);
        } else {
            qatomic_and(word, ~mask);
        }
        from = QEMU_ALIGN_DOWN(from, BITS_PER_LONG) + BITS_PER_LONG;
    }
}

void received_set(ReceivedMap *map, uint64_t first, uint64_t count)
{
    change_range(map, first, first + count, true);
}

void received_clear(ReceivedMap *map, uint64_t first, uint64_t count)
{
    change_range(map, first, first + count, false);
}

bool received_test(const ReceivedMap *map, uint64_t page)
{
    assert(page < map->pages);
    return qatomic_read(&map->received[BIT_WORD(page)]) & BIT_MASK(page);
}

/* A word of the bitmap without what lies at or behind @pages */
static unsigned long word_up_to(const unsigned long *map, uint64_t word,
                                uint64_t pages)
{
    uint64_t first = word * BITS_PER_LONG;
    unsigned long bits;

    if (first >= pages) {
        return 0;
    }
    bits = qatomic_read(&map[word]);
    return pages - first < BITS_PER_LONG
           ? bits & BITMAP_LAST_WORD_MASK(pages) : bits;
}

uint64_t received_count(const ReceivedMap *map, uint64_t pages)
{
    uint64_t count = 0;

    assert(pages <= map->pages);
    for (uint64_t i = 0; i * BITS_PER_LONG < pages; i++) {
        count += ctpopl(word_up_to(map->received, i, pages));
    }
    return count;
}

uint64_t received_lacking(const ReceivedMap *map, uint64_t from, uint64_t end)
{
    uint64_t count = 0;

    assert(end <= map->pages);
    while (from < end) {
        unsigned long bits = qatomic_read(&map->received[BIT_WORD(from)]);

        count += ctpopl(~bits & mask_within_word(from, end));
        from = QEMU_ALIGN_DOWN(from, BITS_PER_LONG) + BITS_PER_LONG;
    }
    return count;
}

/* Sets or clears a bit; a full barrier. Whether it was the other way. */
static bool change(unsigned long *map, uint64_t bit, bool to)
{
    unsigned long *word = &map[BIT_WORD(bit)];
    unsigned long mask = BIT_MASK(bit);
    unsigned long old = to ? qatomic_fetch_or(word, mask)
                           : qatomic_fetch_and(word, ~mask);

    return !(old & mask) == to;
}

uint64_t received_missing(const ReceivedMap *map, uint64_t from, uint64_t end,
                          uint64_t *count)
{
    unsigned shift = map->host_shift;

    assert(end << shift <= map->pages);
    while (from < end) {
        uint64_t none = find_next_zero_bit(map->received, end << shift,
                                           from << shift);
        uint64_t some = find_next_bit(map->received, end << shift, none);

        from = DIV_ROUND_UP(none, 1ull << shift);
        if (from < some >> shift) {
            *count = (some >> shift) - from;
            return from;
        }
        from = (some >> shift) + 1;
    }
    return end;
}

bool requested_set(ReceivedMap *map, uint64_t host_page)
{
    assert(host_page < map->pages >> map->host_shift);
    return change(map->requested, host_page, true);
}

bool requested_clear(ReceivedMap *map, uint64_t host_page)
{
    assert(host_page < map->pages >> map->host_shift);
    return change(map->requested, host_page, false);
}

uint64_t requested_next(const ReceivedMap *map, uint64_t from, uint64_t end)
{
    assert(end <= map->pages >> map->host_shift);
    while (from < end) {
        unsigned long bits = qatomic_read(&map->requested[BIT_WORD(from)]);

        bits &= BITMAP_FIRST_WORD_MASK(from);
        from = QEMU_ALIGN_DOWN(from, BITS_PER_LONG);
        if (bits) {
            return MIN(from + ctzl(bits), end);
        }
        from += BITS_PER_LONG;
    }
    return end;
}

void received_put(const ReceivedMap *map, uint64_t pages, QEMUFile *f)
{
    /* The other side may have longer words than we. */
    uint64_t len = ROUND_UP(DIV_ROUND_UP(pages, 8), 8);
    const unsigned words = PIECE / sizeof(unsigned long);
    unsigned long piece[PIECE / sizeof(unsigned long)];
    uint64_t word = 0;

    assert(pages <= map->pages);
    qemu_put_be64(f, len);
    for (uint64_t done = 0; done < len; done += PIECE) {
        for (unsigned i = 0; i < words; i++, word++) {
            piece[i] = LITTLE(word_up_to(map->received, word, pages));
        }
        qemu_put_buffer(f, (uint8_t *)piece, MIN(len - done, PIECE));
    }
    qemu_put_be64(f, WIRE_RECV_BITMAP_END);
}
