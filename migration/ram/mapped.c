/*
 * Memory at fixed places of a file: the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "migration/qemu-file.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "mapped.h"

/* A word of the bitmap; hosts of 32 bits have two for it */
#define BITMAP_WORD_BITS 64

uint64_t ram_mapped_bitmap_bytes(uint64_t pages)
{
    return DIV_ROUND_UP(pages, BITMAP_WORD_BITS) * (BITMAP_WORD_BITS / 8);
}

void ram_mapped_begin(RamMapped *m, const RamRegions *regions)
{
    m->count = regions->count;
    m->places = g_new0(RamPlace, m->count);
}

void ram_mapped_free(RamMapped *m)
{
    for (unsigned i = 0; i < m->count; i++) {
        g_free(m->places[i].present);
    }
    g_clear_pointer(&m->places, g_free);
    m->count = 0;
}

void ram_mapped_announce(RamMapped *m, const RamRegion *r, QEMUFile *f)
{
    RamPlace *p = &m->places[r->index];
    uint64_t bitmap_bytes = ram_mapped_bitmap_bytes(r->pages);
    off_t here = qemu_get_offset(f);
    WireMappedRam head;

    if (here < 0) {
        return;
    }
    p->bitmap_at = here + sizeof(head);
    p->pages_at = ROUND_UP(p->bitmap_at + bitmap_bytes, WIRE_MAPPED_RAM_ALIGN);
    p->present = g_malloc0(bitmap_bytes);
    head = (WireMappedRam) {
        .version = cpu_to_be32(WIRE_MAPPED_RAM_VERSION),
        .page_size = cpu_to_be64(ram_region_page_size(r)),
        .bitmap_at = cpu_to_be64(p->bitmap_at),
        .pages_at = cpu_to_be64(p->pages_at),
    };
    qemu_put_buffer(f, (const uint8_t *)&head, sizeof(head));
    qemu_set_offset(f, p->pages_at + ram_region_bytes(r), SEEK_SET);
}

int ram_mapped_end(RamMapped *m, const RamRegions *regions, QEMUFile *f)
{
    for (unsigned i = 0; i < m->count; i++) {
        const RamPlace *p = &m->places[i];

        qemu_put_buffer_at(f, (const uint8_t *)p->present,
                           ram_mapped_bitmap_bytes(regions->list[i].pages),
                           p->bitmap_at);
    }
    return qemu_file_get_error(f);
}

/*
 * The sink
 */

static RamMappedSink *mapped_sink(RamSink *sink)
{
    return container_of(sink, RamMappedSink, sink);
}

static void put_at_place(RamMappedSink *s, const RamRegion *r, uint64_t first,
                         uint64_t count, const uint8_t *bytes)
{
    const RamPlace *p = &s->mapped->places[r->index];
    uint64_t length = count << r->page_bits;

    qemu_put_buffer_at(s->file, bytes, length,
                       p->pages_at + (first << r->page_bits));
    bitmap_set_atomic(p->present, first, count);
    s->written += length;
}

static void mapped_sink_pages(RamSink *sink, const RamRegion *r, uint64_t first,
                              unsigned count)
{
    put_at_place(mapped_sink(sink), r, first, count, ram_region_page(r, first));
}

static void mapped_sink_copy(RamSink *sink, const RamRegion *r, uint64_t first,
                             unsigned count, const void *bytes)
{
    put_at_place(mapped_sink(sink), r, first, count, bytes);
}

static void mapped_sink_zeros(RamSink *sink, const RamRegion *r, uint64_t first,
                              uint64_t count)
{
    const RamPlace *p = &mapped_sink(sink)->mapped->places[r->index];

    bitmap_test_and_clear_atomic(p->present, first, count);
}

static int mapped_sink_flush(RamSink *sink)
{
    return qemu_fflush(mapped_sink(sink)->file);
}

static int mapped_sink_error(RamSink *sink)
{
    return qemu_file_get_error(mapped_sink(sink)->file);
}

static int mapped_sink_end(RamSink *sink)
{
    qemu_put_be64(mapped_sink(sink)->file, WIRE_RAM_EOS);
    return mapped_sink_flush(sink);
}

static uint64_t mapped_sink_position(RamSink *sink)
{
    return stream_position(mapped_sink(sink)->file) +
           mapped_sink(sink)->written;
}

static void mapped_sink_fail(RamSink *sink, int ret, Error *err)
{
    qemu_file_set_error_obj(mapped_sink(sink)->file, ret, err);
}

static const RamSinkOps mapped_sink_ops = {
    .pages = mapped_sink_pages,
    .copy = mapped_sink_copy,
    .zeros = mapped_sink_zeros,
    .flush = mapped_sink_flush,
    .end_pass = mapped_sink_error,
    .end = mapped_sink_end,
    .position = mapped_sink_position,
    .error = mapped_sink_error,
    .fail = mapped_sink_fail,
};

void ram_mapped_sink_init(RamMappedSink *s, RamMapped *mapped, QEMUFile *file)
{
    *s = (RamMappedSink) {
        .sink.ops = &mapped_sink_ops,
        .sink.zeros_at_once = UINT64_MAX,
        .mapped = mapped,
        .file = file,
    };
}

RamMapped *ram_mapped_of(RamSink *sink)
{
    return sink->ops == &mapped_sink_ops ? mapped_sink(sink)->mapped : NULL;
}
