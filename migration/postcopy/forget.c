/*
 * POSTCOPY_DISCARD: pages that are out of date
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "forget.h"

/* The name, and where the ranges begin; NULL if that is malformed */
static const char *get_name(const uint8_t *payload, uint16_t len,
                            unsigned *ranges_at, Error **errp)
{
    /* version, length, name, zero */
    unsigned name_len = payload[1];
    const char *name = (const char *)payload + 2;

    if (payload[0] != WIRE_POSTCOPY_DISCARD_VERSION) {
        error_setg(errp, "Unknown version %u", payload[0]);
        return NULL;
    }
    if (name_len + 3 > len || strnlen(name, name_len + 1) != name_len) {
        error_setg(errp, "The name of the RAM block is malformed");
        return NULL;
    }
    *ranges_at = name_len + 3;
    if ((len - *ranges_at) % sizeof(WireRange)) {
        error_setg(errp, "payload of %u bytes is not a multiple of a range",
                   len - *ranges_at);
        return NULL;
    }
    return name;
}

static bool forget_check_range(const RamRegion *region, uint64_t start,
                               uint64_t len, Error **errp)
{
    uint64_t bytes = ROUND_UP(ram_region_bytes(region),
                              region->host_page_size);

    if (!len || start > bytes || len > bytes - start ||
        (start | len) & (region->host_page_size - 1)) {
        error_setg(errp, "%" PRIu64 " bytes at 0x%" PRIx64 " are no pages of "
                   "RAM block '%s', which has %" PRIu64 " bytes in pages of %"
                   PRIu64, len, start, region->name, bytes,
                   region->host_page_size);
        return false;
    }
    return true;
}

static bool each_range(const uint8_t *ranges, unsigned count,
                       RamRegion *region, ForgetFn *fn, void *opaque,
                       Error **errp)
{
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *range = ranges + i * sizeof(WireRange);
        uint64_t start = ldq_be_p(range + offsetof(WireRange, start));
        uint64_t len = ldq_be_p(range + offsetof(WireRange, len));

        if (!(fn ? fn(opaque, region, start, len, errp)
                 : forget_check_range(region, start, len, errp))) {
            return false;
        }
    }
    return true;
}

static RamRegion *forget_find_region(const RamRegions *regions,
                                     const char *name, Error **errp)
{
    RamRegion *region = ram_regions_find(regions, name);

    if (!region) {
        g_autofree char *shown = g_strescape(name, NULL);

        error_setg(errp, "There is no RAM block '%s' here", shown);
    } else if (region->ignored) {
        error_setg(errp, "RAM block '%s' is not sent", region->name);
        region = NULL;
    }
    return region;
}

bool coroutine_mixed_fn forget_load(QEMUFile *f, uint16_t len,
                                    const RamRegions *regions, ForgetFn *fn,
                                    void *opaque, Error **errp)
{
    g_autofree uint8_t *payload = g_malloc(len);
    RamRegion *region;
    const char *name;
    unsigned at, count;

    assert(len >= WIRE_CMD_POSTCOPY_DISCARD_MIN);
    qemu_get_buffer(f, payload, len);
    if (!stream_check(f, errp)) {
        return false;
    }
    name = get_name(payload, len, &at, errp);
    region = name ? forget_find_region(regions, name, errp) : NULL;
    if (!region) {
        return false;
    }
    trace_loadvm_postcopy_ram_handle_discard_header(region->name, len);
    count = (len - at) / sizeof(WireRange);
    return each_range(payload + at, count, region, NULL, NULL, errp) &&
           each_range(payload + at, count, region, fn, opaque, errp);
}
