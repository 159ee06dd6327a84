/*
 * Pages as packets of multifd, in a channel of their own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/qemu-file.h"
#include "migration/wire/stream.h"
#include "packet-sink.h"

static PacketSink *packet_sink(RamSink *sink)
{
    return container_of(sink, PacketSink, sink);
}

/*
 * A packet
 */

static void put_packet_head(PacketSink *s, uint32_t flags, uint32_t payload)
{
    uint64_t *table = (uint64_t *)(s->head + 1);
    Packet packet = {
        .flags = flags,
        .pages_max = s->pages_max,
        .normal = s->normal,
        .zeros = s->zeros,
        .payload = payload,
        .sequence = s->sequence,
    };

    packet_fill(s->head, &packet, s->region ? s->region->name : NULL);
    memset(table, 0, s->pages_max * sizeof(*table));
    for (unsigned i = 0; i < s->normal; i++) {
        stq_be_p(&table[i], s->normal_at[i] << s->page_bits);
    }
    for (unsigned i = 0; i < s->zeros; i++) {
        stq_be_p(&table[s->normal + i], s->zeros_at[i] << s->page_bits);
    }
    qemu_put_buffer(s->file, (uint8_t *)s->head,
                    sizeof(*s->head) + s->pages_max * sizeof(*table));
    s->sequence += s->step;
}

static void put_memory(PacketSink *s)
{
    for (unsigned i = 0; i < s->run_count; i++) {
        qemu_put_buffer_async(s->file, s->runs[i].iov_base, s->runs[i].iov_len,
                              false);
    }
}

static void put_pages(PacketSink *s)
{
    uint64_t before = stream_position(s->file);
    const uint8_t *encoded;
    Error *err = NULL;
    uint32_t flag;
    ssize_t len = packet_encoder_encode(&s->encoder, s->runs, s->run_count,
                                        &encoded, &flag, &err);

    if (len < 0) {
        qemu_file_set_error_obj(s->file, -EINVAL, err);
        return;
    }
    put_packet_head(s, flag, len);
    if (encoded) {
        qemu_put_buffer(s->file, encoded, len);
    } else {
        put_memory(s);
    }
    packet_encoder_sent(&s->encoder, stream_position(s->file) - before);
}

/* What has been gathered, if anything was */
static void put_packet(PacketSink *s)
{
    if (s->normal || s->zeros) {
        put_pages(s);
    }
    s->memory += (uint64_t)s->normal << s->page_bits;
    s->region = NULL;
    s->normal = s->zeros = s->run_count = 0;
}

/* Makes room for a page of @r. */
static void begin_page(PacketSink *s, const RamRegion *r)
{
    if (s->region != r || s->normal + s->zeros == s->pages_max) {
        put_packet(s);
        s->region = r;
    }
}

static void add_memory(PacketSink *s, uint8_t *memory, size_t len)
{
    struct iovec *last = s->runs + s->run_count - 1;

    if (s->run_count &&
        (uint8_t *)last->iov_base + last->iov_len == memory) {
        last->iov_len += len;
        return;
    }
    s->runs[s->run_count++] = (struct iovec) {
        .iov_base = memory, .iov_len = len,
    };
}

/*
 * The interface
 */

static void packet_sink_pages(RamSink *base, const RamRegion *r, uint64_t first,
                              unsigned count)
{
    PacketSink *s = packet_sink(base);

    for (uint64_t page = first; page < first + count; page++) {
        begin_page(s, r);
        s->normal_at[s->normal++] = page;
        add_memory(s, ram_region_page(r, page), ram_region_page_size(r));
    }
}

static bool remember_zeros(PacketSink *s, const RamRegion *r, uint64_t first,
                           uint64_t count)
{
    if (s->zero_run_count == PACKET_SINK_ZERO_RUNS) {
        return false;
    }
    s->zero_runs[s->zero_run_count++] = (RamRun) {
        .region = (RamRegion *)r, .first = first, .count = count,
    };
    return true;
}

static void packet_sink_zeros(RamSink *base, const RamRegion *r, uint64_t first,
                              uint64_t count)
{
    PacketSink *s = packet_sink(base);

    if (!s->tells_zeros) {
        if (!remember_zeros(s, r, first, count)) {
            packet_sink_pages(base, r, first, count);
        }
        return;
    }
    for (uint64_t page = first; page < first + count; page++) {
        begin_page(s, r);
        s->zeros_at[s->zeros++] = page;
    }
}

static int packet_sink_flush(RamSink *base)
{
    PacketSink *s = packet_sink(base);
    int ret;

    put_packet(s);
    ret = qemu_fflush(s->file);
    packet_encoder_rest(&s->encoder);
    return ret;
}

static int packet_sink_end_pass(RamSink *base)
{
    PacketSink *s = packet_sink(base);

    put_packet(s);
    put_packet_head(s, WIRE_MULTIFD_SYNC, 0);
    return qemu_fflush(s->file);
}

static uint64_t packet_sink_position(RamSink *base)
{
    return stream_position(packet_sink(base)->file);
}

static int packet_sink_error(RamSink *base)
{
    return qemu_file_get_error(packet_sink(base)->file);
}

static void packet_sink_fail(RamSink *base, int ret, Error *err)
{
    qemu_file_set_error_obj(packet_sink(base)->file, ret, err);
}

static const RamSinkOps packet_sink_ops = {
    .pages = packet_sink_pages,
    .zeros = packet_sink_zeros,
    .flush = packet_sink_flush,
    .end_pass = packet_sink_end_pass,
    .end = packet_sink_flush,
    .position = packet_sink_position,
    .error = packet_sink_error,
    .fail = packet_sink_fail,
};

bool packet_sink_init(PacketSink *s, QEMUFile *file, unsigned page_bits,
                      unsigned id, unsigned channels, MultiFDCompression method,
                      int level, bool tells_zeros, Error **errp)
{
    unsigned pages_max = packet_pages_max(page_bits);

    *s = (PacketSink) {
        .sink = { .ops = &packet_sink_ops, .zeros_at_once = pages_max },
        .file = file,
        .page_bits = page_bits,
        .pages_max = pages_max,
        .tells_zeros = tells_zeros,
        .sequence = id,
        .step = channels,
        .head = g_malloc(sizeof(WireMultifdPages) +
                         pages_max * sizeof(uint64_t)),
        .normal_at = g_new(uint64_t, pages_max),
        .zeros_at = g_new(uint64_t, pages_max),
        .runs = g_new(struct iovec, pages_max),
        .zero_runs = g_new(RamRun, tells_zeros ? 0 : PACKET_SINK_ZERO_RUNS),
    };
    return packet_encoder_init(&s->encoder, method, level,
                               (size_t)1 << page_bits, channels, errp);
}

bool packet_sink_set_method(PacketSink *s, MultiFDCompression method, int level,
                            Error **errp)
{
    return packet_encoder_set(&s->encoder, method, level, errp);
}

void packet_sink_leave(PacketSink *s)
{
    assert(!s->normal && !s->zeros);
    put_packet_head(s, WIRE_MULTIFD_RECORDS, 0);
}

void packet_sink_destroy(PacketSink *s)
{
    packet_encoder_destroy(&s->encoder);
    g_free(s->head);
    g_free(s->normal_at);
    g_free(s->zeros_at);
    g_free(s->runs);
    g_free(s->zero_runs);
    *s = (PacketSink) { };
}

void packet_sink_tell_zeros(PacketSink *s, RamSink *main)
{
    for (unsigned i = 0; i < s->zero_run_count; i++) {
        const RamRun *run = &s->zero_runs[i];

        ram_sink_zeros(main, run->region, run->first, run->count);
    }
    s->zero_run_count = 0;
}
