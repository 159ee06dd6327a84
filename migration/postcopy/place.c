/*
 * Putting pages in place while the guest may be waiting for them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/units.h"
#include "migration/base/turns.h"
#include "migration/wire/stream.h"
#include "migration/trace.h"
#include "mapping.h"
#include "place.h"

/*
 * Put in place at once, of what comes at once: small enough to be in a cache
 * when the kernel copies it, and so that nobody waits long for its first page.
 */
#define PIECE (64 * KiB)
QEMU_BUILD_BUG_ON(PIECE > STREAM_WINDOW_SIZE);
#define ZERO_PIECE (4 * MiB)

bool placer_init(Placer *placer, PlaceMemory *memory, Error **errp)
{
    uint64_t size = MAX(memory->largest_page, PIECE);

    *placer = (Placer) {
        .memory = memory,
        .stage = mapping_zeros(size, true),
        .here = bitmap_try_new(size / KiB),
    };
    if (!placer->stage || !placer->here) {
        error_setg(errp, "There is no memory for a page of %" PRIu64 " bytes",
                   memory->largest_page);
        return false;
    }
    return true;
}

void placer_destroy(Placer *placer)
{
    if (placer->stage) {
        mapping_end(placer->stage, MAX(placer->memory->largest_page, PIECE));
    }
    g_free(placer->here);
    *placer = (Placer) {};
}

void placer_reset(Placer *placer)
{
    placer->region = NULL;
}

static bool ended(QEMUFile *f, Error **errp)
{
    if (stream_check(f, errp)) {
        error_setg(errp, "The stream ends");
    }
    return false;
}

static PlaceBlock *place_block_of(PlaceMemory *memory, const RamRegion *region)
{
    return &memory->blocks[region->index];
}

/*
 * Putting in place
 */

static bool place_failed(const RamRegion *region, uint64_t start, int ret,
                         Error **errp)
{
    error_setg_errno(errp, -ret, "Cannot put the page at 0x%" PRIx64
                     " in place", start);
    if (ret == -ENOMEM || ret == -ENOSPC) {
        error_append_hint(errp, "There is not enough memory of the kind that "
                          "'%s' is made of.\n", region->name);
    }
    return false;
}

/*
 * All but what has come already: where a file system is full, the kernel would
 * not get as far as to see that there is nothing to do.
 */
static int place_missing(PlaceMemory *memory, const RamRegion *region,
                         UfdWay way, uint64_t start, const uint8_t *from,
                         uint64_t len)
{
    const ReceivedMap *map = &place_block_of(memory, region)->map;
    uint64_t size = region->host_page_size, next, n;
    int ret = 0;

    for (uint64_t done = 0; done < len && !ret; done += n) {
        bool here = received_test(map, (start + done) >> region->page_bits);

        for (n = size; done + n < len; n += size) {
            next = (start + done + n) >> region->page_bits;
            if (received_test(map, next) != here) {
                break;
            }
        }
        if (!here) {
            ret = ufd_place(memory->ufd, way, region->host + start + done,
                            from ? from + done : NULL, n, size);
        }
    }
    return ret;
}

/* Whole host pages: @len bytes from @start on */
static bool place_put(PlaceMemory *memory, RamRegion *region, UfdWay way,
                      uint64_t start, const uint8_t *from, uint64_t len,
                      Error **errp)
{
    uint8_t *to = region->host + start;
    int ret = place_missing(memory, region, way, start, from, len);

    /* Who waits for unplugged memory can only do so before it is unmapped. */
    if (ret && ram_region_here(region)) {
        return place_failed(region, start, ret, errp);
    }
    if (way == UFD_ZERO || from == memory->zeros) {
        trace_postcopy_place_page_zero(to);
    } else {
        trace_postcopy_place_page(to);
    }
    faults_placed(memory->faults, region, &place_block_of(memory, region)->map,
                  start >> region->page_bits, len >> region->page_bits);
    if (memory->placed) {
        memory->placed(memory->opaque, region, start, len);
    }
    return true;
}

/*
 * @len bytes more are in place.  Whoever waits for a page, or for a CPU to go
 * on with one, does not wait for much more of them.
 */
static void give_way(Placer *placer, uint64_t len)
{
    const Faults *faults = placer->memory->faults;

    placer->turn += len;
    if (!placer->gives_way || placer->turn < PIECE) {
        return;
    }
    placer->turn = 0;
    if (faults_settled(faults, &placer->seen) ||
        (placer->gives_way_early && faults_some(faults))) {
        turns_give_way();
    }
}

static bool zeros_at_once(const PlaceMemory *memory, const RamRegion *region)
{
    return qatomic_read(&memory->blocks[region->index].ways) &
           (1u << UFD_ZERO);
}

/* A host page, or several if they can be put in place at once */
static bool put_zeros(PlaceMemory *memory, RamRegion *region, uint64_t start,
                      uint64_t len, Error **errp)
{
    return place_put(memory, region,
                     zeros_at_once(memory, region) ? UFD_ZERO : UFD_COPY, start,
                     memory->zeros, len, errp);
}

bool place_what_came(PlaceMemory *memory, const RamRegion *region,
                     uint64_t host_page, Error **errp)
{
    uint64_t size = region->host_page_size;
    int ret = ufd_place(memory->ufd,
                        zeros_at_once(memory, region) ? UFD_ZERO : UFD_COPY,
                        region->host + host_page * size, memory->zeros, size,
                        size);

    return !ret || !ram_region_here(region) ||
           place_failed(region, host_page * size, ret, errp);
}

bool place_zero_page(PlaceMemory *memory, RamRegion *region,
                     uint64_t host_page, Error **errp)
{
    return put_zeros(memory, region, host_page * region->host_page_size,
                     region->host_page_size, errp);
}

bool place_pages(PlaceMemory *memory, RamRegion *region, uint64_t start,
                 const uint8_t *from, uint64_t len, Error **errp)
{
    return place_put(memory, region, UFD_COPY, start, from, len, errp);
}

/* Only what is registered can be put in place at once. */
static bool check(PlaceMemory *memory, const RamRegion *region, uint64_t page,
                  uint64_t pages, Error **errp)
{
    if ((page + pages) << region->page_bits >
        place_block_of(memory, region)->bytes) {
        error_setg(errp,
                   "Nobody waits for pages there: the block had %" PRIu64
                   " bytes when the guest was started here",
                   place_block_of(memory, region)->bytes);
        return false;
    }
    return true;
}

/*
 * Gathering
 */

/* Makes @page the next one that comes of its host page. */
static bool place_gather(Placer *placer, RamRegion *region, uint64_t page,
                         Error **errp)
{
    ReceivedMap *map = &place_block_of(placer->memory, region)->map;
    uint64_t host_page = page >> map->host_shift;
    uint64_t pages = 1ull << map->host_shift;

    if (!placer->region) {
        placer->region = region;
        placer->host_page = host_page;
        placer->missing = pages;
        placer->all_zero = true;
        bitmap_zero(placer->here, pages);
    } else if (placer->region != region || placer->host_page != host_page) {
        error_setg(errp, "The source has not sent all of the host's page at "
                   "0x%" PRIx64 " of '%s' before it begins with another",
                   placer->host_page * placer->region->host_page_size,
                   placer->region->name);
        return false;
    }
    if (!test_and_set_bit(page & (pages - 1), placer->here)) {
        placer->missing--;
    }
    return true;
}

/* Where that page of it goes meanwhile */
static uint8_t *gathered_at(Placer *placer, uint64_t page)
{
    PlaceBlock *block = place_block_of(placer->memory, placer->region);
    uint64_t start = page << placer->region->page_bits;

    /* What the guest may have changed already must not be written to. */
    if (block->alias && !received_test(&block->map, page)) {
        return block->alias + start;
    }
    return placer->stage + (start & (placer->region->host_page_size - 1));
}

static bool put_gathered(Placer *placer, Error **errp)
{
    PlaceMemory *memory = placer->memory;
    RamRegion *region = placer->region;
    PlaceBlock *block = place_block_of(memory, region);
    uint64_t start = placer->host_page * region->host_page_size;

    if (placer->missing) {
        return true;
    }
    placer->region = NULL;
    if (received_test(&block->map, start >> region->page_bits)) {
        return true;
    }
    if (block->alias) {
        return place_put(memory, region, UFD_CONTINUE, start, NULL,
                         region->host_page_size, errp);
    }
    return placer->all_zero
               ? put_zeros(memory, region, start, region->host_page_size, errp)
               : place_put(memory, region, UFD_COPY, start, placer->stage,
                           region->host_page_size, errp);
}

static bool gather_data(Placer *placer, QEMUFile *f, RamRegion *region,
                        uint64_t page, uint64_t pages, Error **errp)
{
    size_t size = ram_region_page_size(region);

    for (uint64_t end = page + pages; page < end; page++) {
        if (!place_gather(placer, region, page, errp)) {
            return false;
        }
        placer->all_zero = false;
        if (qemu_get_buffer(f, gathered_at(placer, page), size) != size) {
            return ended(f, errp);
        }
        if (!put_gathered(placer, errp)) {
            return false;
        }
        give_way(placer, size);
    }
    return true;
}

static bool gather_zeros(Placer *placer, RamRegion *region, uint64_t page,
                         uint64_t pages, Error **errp)
{
    size_t size = ram_region_page_size(region);

    for (uint64_t end = page + pages; page < end; page++) {
        if (!place_gather(placer, region, page, errp)) {
            return false;
        }
        memset(gathered_at(placer, page), 0, size);
        if (!put_gathered(placer, errp)) {
            return false;
        }
        give_way(placer, size);
    }
    return true;
}

/*
 * What comes
 */

static bool copy_data(Placer *placer, QEMUFile *f, RamRegion *region,
                      uint64_t start, uint64_t left, Error **errp)
{
    while (left) {
        uint8_t *from = placer->stage;
        uint64_t len = MIN(left, PIECE);

        if (qemu_get_buffer_in_place(f, &from, len) != len) {
            return ended(f, errp);
        }
        if (!place_put(placer->memory, region, UFD_COPY, start, from, len,
                       errp)) {
            return false;
        }
        give_way(placer, len);
        start += len;
        left -= len;
    }
    return true;
}

static bool fill_zeros(Placer *placer, RamRegion *region, uint64_t start,
                       uint64_t left, Error **errp)
{
    PlaceMemory *memory = placer->memory;
    uint64_t most = zeros_at_once(memory, region)
                    ? MAX(ZERO_PIECE, region->host_page_size)
                    : region->host_page_size;

    while (left) {
        uint64_t len = MIN(left, most);

        if (!put_zeros(memory, region, start, len, errp)) {
            return false;
        }
        give_way(placer, len);
        start += len;
        left -= len;
    }
    return true;
}

bool placer_data(Placer *placer, QEMUFile *f, RamRegion *region, uint64_t page,
                 uint64_t pages, Error **errp)
{
    PlaceBlock *block = place_block_of(placer->memory, region);

    if (!check(placer->memory, region, page, pages, errp)) {
        return false;
    }
    if (block->map.host_shift || block->alias) {
        return gather_data(placer, f, region, page, pages, errp);
    }
    return copy_data(placer, f, region, page << region->page_bits,
                     pages << region->page_bits, errp);
}

bool placer_zero(Placer *placer, RamRegion *region, uint64_t page,
                 uint64_t pages, Error **errp)
{
    PlaceBlock *block = place_block_of(placer->memory, region);
    uint64_t host_pages = 1ull << block->map.host_shift;

    if (!check(placer->memory, region, page, pages, errp)) {
        return false;
    }
    /* What begins or ends inside of a host page has more of it around. */
    if (block->alias || placer->region ||
        ((page | pages) & (host_pages - 1))) {
        return gather_zeros(placer, region, page, pages, errp);
    }
    return fill_zeros(placer, region, page << region->page_bits,
                      pages << region->page_bits, errp);
}
