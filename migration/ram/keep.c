/*
 * A copy of guest memory, to go back to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/rcu.h"
#include "keep.h"

/* Pages that are copied into one piece of memory */
#define CHUNK_PAGES 512

/*
 * Invariant after the copy: chunks[i] has, one after the other, the content of
 * those pages of the chunk i that are set in @kept.  Each other page held
 * zeros, unless it is set in @absent.
 */
typedef struct KeptRegion {
    const RamRegion *r;
    unsigned long *absent;      /* not to be touched */
    unsigned long *populated;   /* may hold something */
    unsigned long *kept;        /* other than zeros */
    uint8_t **chunks;
} KeptRegion;

struct RamKept {
    KeptRegion *list;
    unsigned count;
    uint64_t bytes;
};

static uint64_t kept_chunks(const KeptRegion *k)
{
    return DIV_ROUND_UP(k->r->pages, CHUNK_PAGES);
}

RamKept *ram_kept_new(const RamRegions *regions)
{
    RamKept *k = g_new0(RamKept, 1);

    k->count = regions->count;
    k->list = g_new0(KeptRegion, k->count);
    for (unsigned i = 0; i < k->count; i++) {
        const RamRegion *r = &regions->list[i];

        if (!r->read_only) {
            k->list[i] = (KeptRegion) {
                .r = r,
                .absent = bitmap_new(r->pages),
                .populated = bitmap_new(r->pages),
                .kept = bitmap_new(r->pages),
                .chunks = g_new0(uint8_t *,
                                 DIV_ROUND_UP(r->pages, CHUNK_PAGES)),
            };
        }
    }
    return k;
}

void ram_kept_free(RamKept *k)
{
    if (!k) {
        return;
    }
    for (unsigned i = 0; i < k->count; i++) {
        KeptRegion *kr = &k->list[i];

        if (kr->r) {
            for (uint64_t chunk = 0; chunk < kept_chunks(kr); chunk++) {
                g_free(kr->chunks[chunk]);
            }
            g_free(kr->chunks);
            g_free(kr->absent);
            g_free(kr->populated);
            g_free(kr->kept);
        }
    }
    g_free(k->list);
    g_free(k);
}

void ram_kept_leave_out(RamKept *k, unsigned index, uint64_t first,
                        uint64_t count)
{
    if (k->list[index].r) {
        bitmap_set(k->list[index].absent, first, count);
    }
}

/*
 * Which pages may hold something
 */

static void note_populated(void *opaque, uint64_t offset, uint64_t length)
{
    KeptRegion *k = opaque;
    unsigned bits = k->r->page_bits;
    uint64_t first = offset >> bits;
    uint64_t end = DIV_ROUND_UP(offset + length, 1ull << bits);

    end = MIN(end, k->r->pages);
    if (first < end) {
        bitmap_set(k->populated, first, end - first);
    }
}

static void look_at_populated(KeptRegion *k)
{
    bitmap_zero(k->populated, k->r->pages);
    populated_scan(&k->r->area, POPULATED_BEST, note_populated, k);
    bitmap_andnot(k->populated, k->populated, k->absent, k->r->pages);
}

uint64_t ram_kept_estimate(RamKept *k)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < k->count; i++) {
        KeptRegion *kr = &k->list[i];

        if (kr->r) {
            look_at_populated(kr);
            bytes += (uint64_t)bitmap_count_one(kr->populated, kr->r->pages)
                     << kr->r->page_bits;
        }
    }
    return bytes;
}

/*
 * Copying
 */

static bool copy_chunk(KeptRegion *k, uint64_t chunk, Error **errp)
{
    const RamRegion *r = k->r;
    size_t size = ram_region_page_size(r);
    uint64_t first = chunk * CHUNK_PAGES;
    uint64_t end = MIN(first + CHUNK_PAGES, r->pages);
    unsigned pages = 0;
    uint8_t *to;

    for (uint64_t p = find_next_bit(k->populated, end, first); p < end;
         p = find_next_bit(k->populated, end, p + 1)) {
        if (!buffer_is_zero(ram_region_page(r, p), size)) {
            set_bit(p, k->kept);
            pages++;
        }
    }
    if (!pages) {
        return true;
    }
    to = g_try_malloc(pages * size);
    if (!to) {
        error_setg(errp, "No memory for a copy of the guest's memory");
        return false;
    }
    k->chunks[chunk] = to;
    for (uint64_t p = find_next_bit(k->kept, end, first); p < end;
         p = find_next_bit(k->kept, end, p + 1)) {
        memcpy(to, ram_region_page(r, p), size);
        to += size;
    }
    return true;
}

bool ram_kept_copy(RamKept *k, Error **errp)
{
    RCU_READ_LOCK_GUARD();
    k->bytes = ram_kept_estimate(k);
    for (unsigned i = 0; i < k->count; i++) {
        KeptRegion *kr = &k->list[i];

        for (uint64_t chunk = 0; kr->r && chunk < kept_chunks(kr); chunk++) {
            if (!copy_chunk(kr, chunk, errp)) {
                return false;
            }
        }
    }
    return true;
}

uint64_t ram_kept_bytes(const RamKept *k)
{
    return k->bytes;
}

/*
 * Putting back
 */

/* Pages in a row that were put back */
typedef struct KeptRun {
    const RamRegion *r;
    uint64_t first, count;
    RamKeptFn *fn;
    void *opaque;
} KeptRun;

static void end_kept_run(KeptRun *run)
{
    if (run->count) {
        run->fn(run->opaque, run->r, run->first, run->count);
    }
    run->count = 0;
}

static void was_put_back(KeptRun *run, uint64_t page)
{
    if (!run->count || run->first + run->count != page) {
        end_kept_run(run);
        run->first = page;
    }
    run->count++;
}

/*
 * A page with content is compared also if it is not populated any more: it may
 * have been discarded.
 */
static void put_back_chunk(KeptRegion *k, uint64_t chunk, KeptRun *run)
{
    const RamRegion *r = k->r;
    size_t size = ram_region_page_size(r);
    uint64_t first = chunk * CHUNK_PAGES;
    uint64_t end = MIN(first + CHUNK_PAGES, r->pages);
    const uint8_t *from = k->chunks[chunk];

    for (uint64_t p = first; p < end; p++) {
        uint8_t *page = ram_region_page(r, p);

        if (test_bit(p, k->kept)) {
            if (memcmp(page, from, size)) {
                memcpy(page, from, size);
                was_put_back(run, p);
            }
            from += size;
        } else if (test_bit(p, k->populated) && !buffer_is_zero(page, size)) {
            memset(page, 0, size);
            was_put_back(run, p);
        }
    }
}

void ram_kept_put_back(RamKept *k, RamKeptFn *fn, void *opaque)
{
    RCU_READ_LOCK_GUARD();
    for (unsigned i = 0; i < k->count; i++) {
        KeptRegion *kr = &k->list[i];
        KeptRun run = { .r = kr->r, .fn = fn, .opaque = opaque };

        if (!kr->r) {
            continue;
        }
        look_at_populated(kr);
        for (uint64_t chunk = 0; chunk < kept_chunks(kr); chunk++) {
            put_back_chunk(kr, chunk, &run);
        }
        end_kept_run(&run);
    }
}
