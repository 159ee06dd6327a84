/*
 * After the network was lost: what the destination has got of a block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "migration/ram/dirty-claim.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "requests.h"
#include "resume.h"

/* On the wire: bytes, in multiples of eight */
static uint64_t wire_len(const RamRegion *r)
{
    return ROUND_UP(DIV_ROUND_UP(r->pages, 8), 8);
}

static bool read_bitmap(QEMUFile *f, const RamRegion *r, unsigned long *bitmap,
                        Error **errp)
{
    uint64_t want = wire_len(r), len = qemu_get_be64(f), mark;

    if (!stream_check(f, errp)) {
        return false;
    }
    if (len != want) {
        error_setg(errp, "The bitmap of RAM block '%s' has %" PRIu64 " bytes "
                   "instead of %" PRIu64, r->name, len, want);
        return false;
    }
    qemu_get_buffer(f, (uint8_t *)bitmap, len);
    mark = qemu_get_be64(f);
    if (!stream_check(f, errp)) {
        return false;
    }
    if (mark != WIRE_RECV_BITMAP_END) {
        error_setg(errp, "The bitmap of RAM block '%s' ends with 0x%" PRIx64
                   " instead of its mark", r->name, mark);
        return false;
    }
    return true;
}

bool postcopy_resume_read(QEMUFile *f, const RamRegion *r, Error **errp)
{
    g_autofree unsigned long *wire = g_try_malloc0(wire_len(r));
    g_autofree unsigned long *got = bitmap_try_new(r->pages);
    uint64_t at = 0, end, left = 0;

    if (!wire || !got) {
        error_setg(errp, "There is no memory for the bitmap of RAM block '%s'",
                   r->name);
        return false;
    }
    if (!read_bitmap(f, r, wire, errp)) {
        return false;
    }
    bitmap_from_le(got, wire, r->pages);

    dirty_map_drop(r->map, 0, r->pages);
    while ((at = find_next_zero_bit(got, r->pages, at)) < r->pages) {
        end = find_next_bit(got, r->pages, at);
        left += dirty_map_set(r->map, at, end - at);
        at = end;
    }
    left += dirty_map_round(r->map, postcopy_unit(r));
    trace_ram_dirty_bitmap_reload_complete(r->name);
    return true;
}
