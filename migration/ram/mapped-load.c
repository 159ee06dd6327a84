/*
 * Memory at fixed places of a file: the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "migration/qemu-file.h"
#include "migration/wire/wire.h"
#include "load-parts.h"
#include "mapped.h"

/*
 * The place.  A file may be damaged: no position is used before it is known
 * that what lies there follows the block's entry, and has no more bytes than a
 * file can have.
 */

static bool head_is_sound(const WireMappedRam *head, const RamRegion *r,
                          Error **errp)
{
    uint32_t version = be32_to_cpu(head->version);
    uint64_t page_size = be64_to_cpu(head->page_size);

    if (version != WIRE_MAPPED_RAM_VERSION) {
        error_setg(errp, "The file has version %" PRIu32 " of mapped RAM, only "
                   "%d is supported", version, WIRE_MAPPED_RAM_VERSION);
        return false;
    }
    if (page_size != ram_region_page_size(r)) {
        error_setg(errp, "The guest's pages have %" PRIu64 " bytes in the file "
                   "and %" PRIu64 " here", page_size, ram_region_page_size(r));
        return false;
    }
    return true;
}

static bool place_is_sound(const RamPlace *p, const RamRegion *r, off_t here,
                           Error **errp)
{
    uint64_t bitmap_bytes = ram_mapped_bitmap_bytes(r->pages);

    if (p->bitmap_at < here || p->bitmap_at > INT64_MAX - bitmap_bytes ||
        p->pages_at < p->bitmap_at + bitmap_bytes ||
        p->pages_at > INT64_MAX - ram_region_bytes(r) ||
        p->pages_at & (ram_region_page_size(r) - 1)) {
        error_setg(errp, "Its bitmap at %" PRIu64 " and its pages at %" PRIu64
                   " cannot be where they are said to be: the file is damaged",
                   p->bitmap_at, p->pages_at);
        return false;
    }
    return true;
}

static bool coroutine_mixed_fn get_place(QEMUFile *f, const RamRegion *r,
                                         RamPlace *p, Error **errp)
{
    WireMappedRam head;
    off_t here;

    if (qemu_get_buffer(f, (uint8_t *)&head, sizeof(head)) != sizeof(head)) {
        return ram_load_ended(f, errp);
    }
    here = qemu_get_offset(f);
    if (here < 0) {
        return ram_load_ended(f, errp);
    }
    p->bitmap_at = be64_to_cpu(head.bitmap_at);
    p->pages_at = be64_to_cpu(head.pages_at);
    return head_is_sound(&head, r, errp) && place_is_sound(p, r, here, errp);
}

static bool coroutine_mixed_fn get_bitmap(QEMUFile *f, const RamRegion *r,
                                          RamPlace *p, Error **errp)
{
    uint64_t bytes = ram_mapped_bitmap_bytes(r->pages);

    p->present = g_try_malloc(bytes);
    if (!p->present && bytes) {
        error_setg(errp, "There is no memory for its bitmap of %" PRIu64
                   " bytes", bytes);
        return false;
    }
    return qemu_get_buffer_at(f, (uint8_t *)p->present, bytes, p->bitmap_at) ==
           bytes || ram_load_ended(f, errp);
}

/*
 * Pages
 */

static bool coroutine_mixed_fn compare_at_place(QEMUFile *f, const RamPlace *p,
                                                const RamRegion *r,
                                                uint64_t first, uint64_t count,
                                                Error **errp)
{
    size_t size = ram_region_page_size(r);
    g_autofree uint8_t *theirs = g_malloc(size);

    for (uint64_t page = first; page < first + count; page++) {
        if (qemu_get_buffer_at(f, theirs, size, p->pages_at +
                               (page << r->page_bits)) != size) {
            return ram_load_ended(f, errp);
        }
        if (!ram_load_compare(r, page, theirs, errp)) {
            return false;
        }
    }
    return true;
}

static bool coroutine_mixed_fn get_at_place(QEMUFile *f, RamLoader *l,
                                            const RamPlace *p, RamRegion *r,
                                            uint64_t first, uint64_t count,
                                            Error **errp)
{
    uint64_t bytes = count << r->page_bits;

    ram_load_clear_zeros(l);
    if (r->read_only) {
        if (!compare_at_place(f, p, r, first, count, errp)) {
            return false;
        }
    } else if (qemu_get_buffer_at(f, ram_region_page(r, first), bytes,
                                  p->pages_at + (first << r->page_bits)) !=
               bytes) {
        return ram_load_ended(f, errp);
    }
    ram_load_worked(l, bytes);
    return true;
}

bool coroutine_mixed_fn ram_mapped_load_range(QEMUFile *f, RamLoader *l,
                                              const RamPlace *p, RamRegion *r,
                                              uint64_t first, uint64_t count,
                                              Error **errp)
{
    const uint64_t piece = RAM_LOAD_STRETCH >> r->page_bits;
    uint64_t at = first, limit = first + count, end;

    while (at < limit) {
        end = find_next_bit(p->present, limit, at);
        if (end > at && !ram_load_zeros(l, r, at, end - at, errp)) {
            return false;
        }
        at = end;
        end = find_next_zero_bit(p->present, limit, at);
        for (; at < end; at += MIN(piece, end - at)) {
            if (!get_at_place(f, l, p, r, at, MIN(piece, end - at), errp)) {
                return false;
            }
        }
    }
    ram_load_clear_zeros(l);
    return true;
}

static uint64_t absent_from(const RamPlace *p, const RamRegion *r,
                            uint64_t first)
{
    return find_next_bit(p->present, r->pages, first) - first;
}

/*
 * Where a turn ends that begins at @first: after so much that is there, or
 * where much is not.
 */
static uint64_t end_of_turn(const RamPlace *p, const RamRegion *r,
                            uint64_t first)
{
    const uint64_t piece = RAM_LOAD_STRETCH >> r->page_bits;
    const uint64_t turn = RAM_LOAD_TURN >> r->page_bits;
    uint64_t left = turn, end = first;

    while (end < r->pages && absent_from(p, r, end) < turn) {
        uint64_t count = MIN(piece, r->pages - end);
        uint64_t there = bitmap_count_one_with_offset(p->present, end, count);

        if (there > left) {
            break;
        }
        left -= there;
        end += count;
    }
    return end;
}

bool coroutine_mixed_fn ram_mapped_read_in_turns(RamLoader *l,
                                                 const RamPlace *p,
                                                 RamRegion *r, Error **errp)
{
    uint64_t first = 0, count;

    while (first < r->pages) {
        count = end_of_turn(p, r, first) - first;
        if (count) {
            if (!l->read_places(p, r, first, count, errp)) {
                return false;
            }
            ram_load_worked(l, RAM_LOAD_STRETCH);
        } else {
            count = absent_from(p, r, first);
            if (!ram_load_zeros(l, r, first, count, errp)) {
                return false;
            }
        }
        first += count;
    }
    ram_load_clear_zeros(l);
    return true;
}

/* What is kept for later takes p->present over. */
static bool coroutine_mixed_fn load_pages(QEMUFile *f, RamLoader *l,
                                          RamPlace *p, RamRegion *r,
                                          Error **errp)
{
    if (l->lazy) {
        return l->lazy->keep(p, r, errp);
    }
    return l->read_places
           ? ram_mapped_read_in_turns(l, p, r, errp)
           : ram_mapped_load_range(f, l, p, r, 0, r->pages, errp);
}

bool coroutine_mixed_fn ram_mapped_load(QEMUFile *f, RamLoader *l, RamRegion *r,
                                        Error **errp)
{
    RamPlace p = { };
    bool ok = get_place(f, r, &p, errp);

    if (ok && !r->ignored) {
        ok = get_bitmap(f, r, &p, errp) && load_pages(f, l, &p, r, errp);
        g_free(p.present);
    }
    if (!ok) {
        return false;
    }
    qemu_set_offset(f, p.pages_at + ram_region_bytes(r), SEEK_SET);
    return !qemu_file_get_error(f) || ram_load_ended(f, errp);
}
