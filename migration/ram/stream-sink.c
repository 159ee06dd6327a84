/*
 * Pages as records of the RAM section
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "migration/qemu-file.h"
#include "migration/wire/wire.h"
#include "sink.h"

void ram_sink_init(RamSink *sink, QEMUFile *file, uint32_t features)
{
    *sink = (RamSink) { .file = file, .peer = features };
}

static void sink_put_name(QEMUFile *f, const char *name)
{
    size_t len = strlen(name);

    qemu_put_byte(f, len);
    qemu_put_buffer(f, (const uint8_t *)name, len);
}

static void put_header(RamSink *sink, const RamRegion *r, uint64_t page,
                       unsigned flags)
{
    uint64_t offset = page << r->page_bits;

    if (sink->named == r) {
        qemu_put_be64(sink->file, offset | flags | WIRE_RAM_CONTINUE);
        return;
    }
    qemu_put_be64(sink->file, offset | flags);
    sink_put_name(sink->file, r->name);
    sink->named = r;
}

static bool peer_has(const RamSink *sink, const RamRegion *r, uint32_t feature)
{
    return (sink->peer & feature) &&
           ram_region_page_size(r) >= WIRE_PEER_PAGE_SIZE_MIN;
}

void ram_sink_announce(RamSink *sink, const RamRegions *regions,
                       unsigned what)
{
    uint64_t usual = qemu_real_host_page_size();
    QEMUFile *f = sink->file;
    uint64_t total = 0;

    RAM_REGIONS_FOREACH(r, regions) {
        total += ram_region_bytes(r);
    }
    qemu_put_be64(f, total | WIRE_RAM_MEM_SIZE);
    RAM_REGIONS_FOREACH(r, regions) {
        sink_put_name(f, r->name);
        qemu_put_be64(f, ram_region_bytes(r));
        if ((what & RAM_ANNOUNCE_HOST_PAGE) &&
            r->host_page_size != MAX(usual, ram_region_page_size(r))) {
            qemu_put_be64(f, r->host_page_size);
        }
        if (what & RAM_ANNOUNCE_ADDRESS) {
            qemu_put_be64(f, r->guest_addr);
        }
    }
}

void ram_sink_pages(RamSink *sink, const RamRegion *r, uint64_t first,
                    unsigned count)
{
    uint64_t page_size = ram_region_page_size(r);

    if (count > 1 && peer_has(sink, r, WIRE_PEER_PAGE_RUN)) {
        put_header(sink, r, first, WIRE_RAM_RUN);
        qemu_put_be32(sink->file, count);
        qemu_put_buffer_async(sink->file, ram_region_page(r, first),
                              count * page_size, false);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        put_header(sink, r, first + i, WIRE_RAM_PAGE);
        qemu_put_buffer_async(sink->file, ram_region_page(r, first + i),
                              page_size, false);
    }
}

void ram_sink_copy(RamSink *sink, const RamRegion *r, uint64_t page,
                   const void *bytes)
{
    put_header(sink, r, page, WIRE_RAM_PAGE);
    qemu_put_buffer(sink->file, bytes, ram_region_page_size(r));
}

void ram_sink_xbzrle(RamSink *sink, const RamRegion *r, uint64_t page,
                     const void *code, unsigned len)
{
    uint8_t head[3] = { WIRE_XBZRLE_ENCODING, len >> 8, len };

    put_header(sink, r, page, WIRE_RAM_XBZRLE);
    qemu_put_buffer(sink->file, head, sizeof(head));
    qemu_put_buffer(sink->file, code, len);
}

/* A header and the fill byte */
#define ZERO_RECORD 9
#define ZERO_BATCH  64

static void put_zero_records(RamSink *sink, const RamRegion *r,
                             uint64_t first, uint64_t count)
{
    uint8_t batch[ZERO_BATCH * ZERO_RECORD];
    unsigned flags = WIRE_RAM_ZERO | WIRE_RAM_CONTINUE;

    while (count) {
        unsigned n = MIN(count, ZERO_BATCH);

        for (unsigned i = 0; i < n; i++) {
            stq_be_p(batch + i * ZERO_RECORD,
                     ((first + i) << r->page_bits) | flags);
            batch[i * ZERO_RECORD + 8] = WIRE_RAM_ZERO_FILL;
        }
        qemu_put_buffer(sink->file, batch, n * ZERO_RECORD);
        first += n;
        count -= n;
    }
}

void ram_sink_zeros(RamSink *sink, const RamRegion *r, uint64_t first,
                    uint64_t count)
{
    if (count > 1 && peer_has(sink, r, WIRE_PEER_ZERO_RANGE)) {
        put_header(sink, r, first, WIRE_RAM_ZERO_RANGE);
        qemu_put_be64(sink->file, count);
        return;
    }
    if (count) {
        put_header(sink, r, first, WIRE_RAM_ZERO);
        qemu_put_byte(sink->file, WIRE_RAM_ZERO_FILL);
        put_zero_records(sink, r, first + 1, count - 1);
    }
}

int ram_sink_end(RamSink *sink)
{
    sink->named = NULL;
    qemu_put_be64(sink->file, WIRE_RAM_EOS);
    return qemu_fflush(sink->file);
}
