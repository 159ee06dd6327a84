/*
 * Zero pages of the incoming stream, gathered to ranges before they are cleared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "zero-gather.h"

/* Bytes looked at before they are written to; a cache line to a huge page */
#define LOOK 4096

typedef struct Clearing {
    uint8_t *start, *end;       /* what is to be zero */
    uint8_t *asked;             /* what offsets are counted from */
    uint64_t looked_at;
} Clearing;

/* To look is cheaper than to write, and most of it is zero already. */
static void clear_existing(void *opaque, uint64_t offset, uint64_t length)
{
    Clearing *c = opaque;
    uint8_t *at = MAX(c->start, c->asked + offset);
    uint8_t *end = MIN(c->end, c->asked + offset + length);

    while (at < end) {
        size_t len = MIN(LOOK, end - at);

        if (!buffer_is_zero(at, len)) {
            memset(at, 0, len);
        }
        at += len;
        c->looked_at += len;
    }
}

/* Is it better to ask what exists than to look at all of it? */
static bool worth_asking(const RamRegion *region, uint64_t bytes)
{
    switch (region->area.kind) {
    case POPULATED_UNKNOWN:
        return false;
    case POPULATED_ANON:
        return bytes >= ZERO_GATHER_ASK * qemu_real_host_page_size();
    default:
        /* A look at a hole fills it, or reads the file. */
        return true;
    }
}

/* The whole host pages around what is to be cleared */
static PopulatedArea area_around(const RamRegion *region, const Clearing *c)
{
    size_t page = qemu_real_host_page_size();
    uint64_t start = QEMU_ALIGN_DOWN(c->start - region->host, page);
    uint64_t end = QEMU_ALIGN_UP(c->end - region->host, page);

    return (PopulatedArea) {
        .kind = region->area.kind,
        .host = (uint8_t *)region->area.host + start,
        .size = MIN(end, region->area.size) - start,
        .fd = region->area.fd,
        .fd_offset = region->area.fd_offset + start,
    };
}

bool zero_gather_add(ZeroGather *z, const RamRegion *region, uint64_t first,
                     uint64_t pages)
{
    if (!z->pages) {
        *z = (ZeroGather) { .region = region, .first = first, .pages = pages };
        return true;
    }
    if (region != z->region || first != z->first + z->pages) {
        return false;
    }
    z->pages += pages;
    return true;
}

uint64_t zero_gather_clear(ZeroGather *z, uint64_t max)
{
    uint64_t pages = MIN(max, z->pages);
    Clearing c;

    if (!pages) {
        return 0;
    }
    c = (Clearing) {
        .start = ram_region_page(z->region, z->first),
        .end = ram_region_page(z->region, z->first + pages),
    };
    z->first += pages;
    z->pages -= pages;

    if (worth_asking(z->region, c.end - c.start)) {
        PopulatedArea area = area_around(z->region, &c);

        c.asked = area.host;
        populated_scan(&area, POPULATED_BEST, clear_existing, &c);
    } else {
        c.asked = c.start;
        clear_existing(&c, 0, c.end - c.start);
    }
    return c.looked_at;
}
