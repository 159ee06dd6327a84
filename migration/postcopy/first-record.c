/*
 * What a channel for urgent pages begins with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "first-record.h"

/* A page that is the first one cannot go on with a block. */
static bool is_page(unsigned flags)
{
    return flags == WIRE_RAM_PAGE || flags == WIRE_RAM_ZERO ||
           flags == WIRE_RAM_RUN || flags == WIRE_RAM_ZERO_RANGE;
}

/* @name: its length, and what there is of it in @left bytes */
static FirstRecord first_record_check_name(const uint8_t *name, size_t left,
                                           uint64_t offset,
                                           const RamRegions *regions)
{
    char text[WIRE_NAME_MAX + 1] = "";
    const RamRegion *r;

    if (!left || left - 1 < name[0]) {
        return FIRST_RECORD_SHORT;
    }
    memcpy(text, name + 1, name[0]);
    r = ram_regions_find(regions, text);
    return r && strlen(text) == name[0] && offset < ram_region_bytes(r)
           ? FIRST_RECORD_OURS : FIRST_RECORD_FOREIGN;
}

FirstRecord first_record(const uint8_t *data, size_t len,
                         const RamRegions *regions)
{
    uint64_t header, mask;
    unsigned flags;

    if (!regions->count) {
        return FIRST_RECORD_FOREIGN;
    }
    if (len < sizeof(header)) {
        return FIRST_RECORD_SHORT;
    }
    mask = ram_region_page_size(regions->list) - 1;
    header = ldq_be_p(data);
    flags = header & mask;
    if (header == WIRE_RAM_EOS) {
        return FIRST_RECORD_OURS;
    }
    return is_page(flags) ? first_record_check_name(data + sizeof(header),
                                                    len - sizeof(header),
                                                    header & ~mask, regions)
                          : FIRST_RECORD_FOREIGN;
}
