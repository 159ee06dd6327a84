/*
 * Pages as records of the RAM section, in a stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "migration/qemu-file.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "stream-sink.h"

/* Pages told of as zero in one batch: one record for all, or nine bytes each */
#define ZEROS_AT_ONCE (64 * 1024)

static RamStreamSink *stream_sink(RamSink *sink)
{
    return container_of(sink, RamStreamSink, sink);
}

static void sink_put_name(QEMUFile *f, const char *name)
{
    size_t len = strlen(name);

    qemu_put_byte(f, len);
    qemu_put_buffer(f, (const uint8_t *)name, len);
}

static void put_header(RamStreamSink *sink, const RamRegion *r, uint64_t page,
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

static bool peer_has(const RamStreamSink *sink, const RamRegion *r,
                     uint32_t feature)
{
    return (sink->peer & feature) &&
           ram_region_page_size(r) >= WIRE_PEER_PAGE_SIZE_MIN;
}

static void stream_sink_pages(RamSink *base, const RamRegion *r, uint64_t first,
                    unsigned count)
{
    RamStreamSink *sink = stream_sink(base);
    uint64_t page_size = ram_region_page_size(r);

    sink->memory += count * page_size;
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

static void stream_sink_copy(RamSink *base, const RamRegion *r, uint64_t first,
                             unsigned count, const void *bytes)
{
    RamStreamSink *sink = stream_sink(base);
    size_t page_size = ram_region_page_size(r);

    for (unsigned i = 0; i < count; i++) {
        put_header(sink, r, first + i, WIRE_RAM_PAGE);
        qemu_put_buffer(sink->file, bytes + i * page_size, page_size);
    }
}

static void stream_sink_xbzrle(RamSink *base, const RamRegion *r, uint64_t page,
                     const void *code, unsigned len)
{
    RamStreamSink *sink = stream_sink(base);
    uint8_t head[3] = { WIRE_XBZRLE_ENCODING, len >> 8, len };

    put_header(sink, r, page, WIRE_RAM_XBZRLE);
    qemu_put_buffer(sink->file, head, sizeof(head));
    qemu_put_buffer(sink->file, code, len);
}

/* A header and the fill byte */
#define ZERO_RECORD 9
#define ZERO_BATCH  64

static void put_zero_records(RamStreamSink *sink, const RamRegion *r,
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

static void stream_sink_zeros(RamSink *base, const RamRegion *r, uint64_t first,
                    uint64_t count)
{
    RamStreamSink *sink = stream_sink(base);

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

static int stream_sink_flush(RamSink *base)
{
    return qemu_fflush(stream_sink(base)->file);
}

static int stream_sink_error(RamSink *base)
{
    return qemu_file_get_error(stream_sink(base)->file);
}

static int stream_sink_end(RamSink *base)
{
    RamStreamSink *sink = stream_sink(base);

    sink->named = NULL;
    qemu_put_be64(sink->file, WIRE_RAM_EOS);
    return qemu_fflush(sink->file);
}

static uint64_t stream_sink_position(RamSink *base)
{
    return stream_position(stream_sink(base)->file);
}

static void stream_sink_fail(RamSink *base, int ret, Error *err)
{
    qemu_file_set_error_obj(stream_sink(base)->file, ret, err);
}

static const RamSinkOps stream_sink_ops = {
    .pages = stream_sink_pages,
    .copy = stream_sink_copy,
    .zeros = stream_sink_zeros,
    .xbzrle = stream_sink_xbzrle,
    .flush = stream_sink_flush,
    .end_pass = stream_sink_error,
    .end = stream_sink_end,
    .position = stream_sink_position,
    .error = stream_sink_error,
    .fail = stream_sink_fail,
};

void ram_stream_sink_init(RamStreamSink *s, QEMUFile *file, uint32_t features)
{
    *s = (RamStreamSink) { .sink.ops = &stream_sink_ops, .file = file };
    ram_stream_sink_set_peer(s, features);
}

void ram_stream_sink_set_peer(RamStreamSink *s, uint32_t features)
{
    s->peer = features;
    s->sink.zeros_at_once = features & WIRE_PEER_ZERO_RANGE ? UINT64_MAX
                                                            : ZEROS_AT_ONCE;
}

int ram_stream_sink_mark(RamStreamSink *s)
{
    s->named = NULL;
    qemu_put_be64(s->file, WIRE_RAM_MULTIFD_FLUSH);
    return qemu_fflush(s->file);
}

void ram_stream_sink_announce(RamStreamSink *s, const RamRegions *regions,
                              unsigned what, RamMapped *mapped)
{
    uint64_t usual = qemu_real_host_page_size();
    QEMUFile *f = s->file;
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
        if (mapped) {
            ram_mapped_announce(mapped, r, f);
        }
    }
}
