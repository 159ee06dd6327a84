/*
 * Unit tests of memory over RDMA: both sides, with a device that does not exist
 *
 * Each side has a thread, and the main loop accepts connections.  Memory of
 * three blocks is sent, with zeros and a block of an odd size, and compared.
 * Then the same is done with each call of the device's functions failing in
 * turn: it must end, say why, and leave nothing behind.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "exec/memory.h"
#include "setup.h"
#include "fake-verbs.h"
#include "migration/migration-stats.h"
#include "migration/rdma/channel.h"
#include "migration/rdma/connect.h"
#include "migration/rdma/listen.h"
#include "migration/rdma/load.h"
#include "migration/rdma/sink.h"
#include "migration/ram/send.h"
#include "migration/ram/stream-sink.h"
#include "migration/wire/stream.h"

#define PAGE_BITS 12
#define PAGE (1 << PAGE_BITS)
#define BLOCKS 3

static const uint64_t pages_large[BLOCKS] = { 5 * 1024, 1, 300 };
static const uint64_t pages_small[BLOCKS] = { 300, 1, 20 };
static const uint64_t *pages_of = pages_large;
static int port;
static int discards;            /* how often it was disabled; atomic */

static uint64_t arrived;        /* pages that are said to be there; atomic */

void ram_load_arrived(RamRegion *region, uint64_t page, uint64_t pages)
{
    qatomic_set_u64(&arrived, qatomic_read_u64(&arrived) + pages);
}

int ram_block_discard_disable(bool state)
{
    qatomic_add(&discards, state ? 1 : -1);
    return 0;
}

/*
 * Memory
 */

static void make_regions(RamRegions *regions)
{
    static const char *const names[BLOCKS] = { "pc.ram", "rom", "vga" };

    regions->list = g_new0(RamRegion, BLOCKS);
    regions->count = BLOCKS;
    for (unsigned i = 0; i < BLOCKS; i++) {
        regions->list[i] = (RamRegion) {
            .name = (char *)names[i], .index = i, .page_bits = PAGE_BITS,
            .pages = pages_of[i], .max_pages = pages_of[i],
            .host_page_size = PAGE, .announced = i + 1,
            .host = qemu_memalign(PAGE, pages_of[i] * PAGE),
        };
    }
}

static void free_regions(RamRegions *regions)
{
    RAM_REGIONS_FOREACH(r, regions) {
        qemu_vfree(r->host);
    }
    g_free(regions->list);
}

static enum {
    MEMORY_MIXED,               /* pages with content, then 64 of zeros, ... */
    MEMORY_DENSE,               /* no page is zero */
    MEMORY_SPARSE,              /* a page, then 31 of zeros, ... */
} memory_is;

static bool is_zero(uint64_t page)
{
    return memory_is == MEMORY_SPARSE ? page % 32
           : memory_is == MEMORY_MIXED && page % 256 >= 192;
}

static void fill(RamRegions *regions)
{
    RAM_REGIONS_FOREACH(r, regions) {
        for (uint64_t i = 0; i < r->pages; i++) {
            memset(ram_region_page(r, i), is_zero(i) ? 0 : i + r->index + 1,
                   PAGE);
        }
    }
}

static bool same(const RamRegions *a, const RamRegions *b)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (memcmp(a->list[i].host, b->list[i].host, pages_of[i] * PAGE)) {
            return false;
        }
    }
    return true;
}

/*
 * One migration
 */

/* A message that one side sends in place of what it should */
typedef struct Lie {
    unsigned type;              /* WireRdmaType, or none */
    uint32_t repeat, len;
    union {
        WireRdmaBlock block[BLOCKS];
        WireRdmaZeros zeros;
        WireRdmaRegister reg[2];
        WireRdmaKey key;
        WireRdmaPages pages;
        uint8_t bytes[sizeof(WireRdmaPages) + PAGE + 1];
    };
    bool copies;                /* source: that was agreed upon */
    const char *says;           /* the other side */
    unsigned at;                /* destination: in answer to this */
    bool early;                 /* source: before it asks for the blocks */
} Lie;

/*
 * What follows a write of a slow queue pair, or a slow message.  It must not
 * arrive earlier where both are about the same page, or where it says that all
 * has arrived.
 */
typedef enum Overtakes {
    OVERTAKES_NOTHING,
    OVERTAKES_ZEROS,            /* the page has become zero */
    OVERTAKES_PAGES,            /* it is sent again, in a message */
    OVERTAKES_END,              /* the section ends */
    OVERTAKES_A_MESSAGE,        /* the page is written, after ZEROS */
} Overtakes;

typedef struct Run {
    RamRegions from, to;
    Overtakes overtakes;
    bool same_at_once;          /* memory, when the destination has all */
    uint64_t rate;              /* bytes a second; 0: no limit */
    double ahead_ms;            /* of it, at most, in what was sent */
    RdmaHello hello;
    uint32_t peer;              /* what the destination is said to know */
    unsigned passes;
    bool answers;
    unsigned more;              /* links for writes, that are asked for */
    uint64_t other_writes;      /* by these */
    bool one_too_many;          /* and another one, which must be rejected */
    bool writes_first;          /* the first link says that it is one of them */
    bool called_off;            /* atomic: the source is not to connect */
    bool changes_nothing;       /* memory stays as it is */
    bool fills_ring;            /* only messages are sent */
    bool dies;                  /* the source, in the middle */
    const Lie *lie, *answer;    /* what the source or destination sends */
    QemuThread source, loader;
    bool source_done, loaded;   /* atomic */
    Error *source_err, *err;
    Error *lie_err;             /* of what must have failed */
    QIOChannel *ioc;            /* of the destination */
    RdmaCounts counts;
} Run;

static bool holds_zeros(const RamRegion *r, uint64_t page)
{
    return buffer_is_zero(ram_region_page(r, page), PAGE);
}

static void give_pages(RamSink *sink, const RamRegion *r)
{
    bool zeros;

    for (uint64_t i = 0; i < r->pages; i++) {
        uint64_t count = 1;

        zeros = holds_zeros(r, i);
        while (i + count < r->pages && count < 64 &&
               holds_zeros(r, i + count) == zeros) {
            count++;
        }
        if (zeros) {
            ram_sink_zeros(sink, r, i, count);
        } else {
            ram_sink_pages(sink, r, i, count);
        }
        i += count - 1;
    }
}

#define SLOW_PAGE (1ull << (RDMA_SPAN_BITS - PAGE_BITS))
#define SLOW_PAGES 64           /* more than is copied into a message */

/* Written by the second queue pair, as soon as the next run follows */
static void give_slow(RamSink *sink, const RamRegion *r, unsigned run)
{
    ram_sink_pages(sink, r, SLOW_PAGE + 2 * run * SLOW_PAGES, SLOW_PAGES);
}

/* Nobody waits for registrations, which would be for the message as well. */
static void give_after_message(RamSink *sink, const RamRegion *r)
{
    give_slow(sink, r, 0);
    ram_sink_pages(sink, r, 0, SLOW_PAGES);
    g_assert_cmpint(ram_sink_flush(sink), ==, 0);
    /* READY has come for all of these. */
    g_usleep(50 * 1000);
    verbs_late(100 * 1000);
    ram_sink_zeros(sink, r, SLOW_PAGE, SLOW_PAGES);
    /* It is not behind them, so they are told of. */
    ram_sink_pages(sink, r, 0, SLOW_PAGES);
    give_slow(sink, r, 0);
    /* So that the link does not hold it back */
    give_slow(sink, r, 1);
}

static void give_overtaking(Run *run, RamSink *sink)
{
    const RamRegion *r = &run->from.list[0];

    if (run->overtakes == OVERTAKES_A_MESSAGE) {
        give_after_message(sink, r);
        return;
    }
    verbs_forget();
    /* The second is held back by the link, and the third by the sink. */
    for (unsigned i = 0; i < 3; i++) {
        give_slow(sink, r, i);
    }
    for (unsigned i = 0; i < 10000 && !verbs_counts().writes_read; i++) {
        g_usleep(1000);
    }
    g_assert_cmpuint(verbs_counts().writes_read, >, 0);
    switch (run->overtakes) {
    case OVERTAKES_ZEROS:
        memset(ram_region_page(r, SLOW_PAGE), 0, SLOW_PAGES * PAGE);
        ram_sink_zeros(sink, r, SLOW_PAGE, SLOW_PAGES);
        /* It is not behind them, so they are told of. */
        ram_sink_pages(sink, r, 0, SLOW_PAGES);
        break;
    case OVERTAKES_PAGES:
        memset(ram_region_page(r, SLOW_PAGE + 5), 77, PAGE);
        ram_sink_pages(sink, r, SLOW_PAGE + 5, 1);
        ram_sink_pages(sink, r, 0, SLOW_PAGES);
        break;
    default:
        break;
    }
}

static void give_pass(Run *run, RamSink *sink, unsigned pass)
{
    RAM_REGIONS_FOREACH(r, &run->from) {
        give_pages(sink, r);
        if (!pass && r->pages > 200 && !run->changes_nothing) {
            /* They were zero a moment ago, and were told of as such. */
            memset(ram_region_page(r, 200), 99, 2 * PAGE);
            ram_sink_pages(sink, r, 201, 1);
            ram_sink_pages(sink, r, 200, 1);
            /* And this one has become zero since. */
            memset(ram_region_page(r, 100), 0, 64 * PAGE);
            ram_sink_zeros(sink, r, 100, 64);
            memset(ram_region_page(r, 163), 55, PAGE);
            ram_sink_pages(sink, r, 163, 1);
        }
    }
}

/* How far what the device was given is ahead of the rate, since @begun */
static void note_ahead(Run *run, int64_t begun)
{
    VerbsCounts now = verbs_counts();
    double ms = (now.write_bytes + now.send_bytes) * 1000.0 / run->rate -
                (g_get_monotonic_time() - begun) / 1000.0;

    run->ahead_ms = MAX(run->ahead_ms, ms);
}

/* Sections, as the migration thread has them sent */
static void send_at_rate(Run *run, RdmaSink *sink)
{
    int64_t begun = g_get_monotonic_time();
    RamSendResult result;
    RamSender sender;

    RAM_REGIONS_FOREACH(r, &run->from) {
        r->map = dirty_map_new(r->pages, 18, NULL, NULL);
        r->untouched = g_array_new(false, false, sizeof(RamRange));
        dirty_map_set(r->map, 0, r->pages);
    }
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(run->rate);
    migration_rate_reset();
    verbs_forget();
    ram_sender_init(&sender, &run->from, rdma_sink_base(sink));
    do {
        g_assert_cmpint(rdma_sink_begin(sink), ==, 0);
        result = ram_sender_run(&sender, false);
        ram_sink_end(rdma_sink_base(sink));
        note_ahead(run, begun);
        g_usleep(migration_rate_wait_ns() / 1000);
    } while (result == RAM_SEND_SOME);
    g_assert_cmpint(result, ==, RAM_SEND_ALL);
    migration_rate_set(RATE_LIMIT_DISABLED);
    RAM_REGIONS_FOREACH(r, &run->from) {
        dirty_map_free(r->map);
        g_array_free(r->untouched, true);
    }
}

static void send_memory(Run *run, RdmaChannel *channel)
{
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(channel));
    RamStreamSink stream;
    RdmaLink *const *others;
    RdmaSink *sink;
    unsigned count;

    ram_stream_sink_init(&stream, f, run->peer);
    others = rdma_channel_others(channel, &count);
    sink = rdma_sink_new(rdma_channel_main(channel),
                         rdma_channel_hello(channel), others, count, &stream,
                         &run->from);
    if (run->rate) {
        send_at_rate(run, sink);
    }
    for (unsigned pass = 0; pass < run->passes && !rdma_sink_begin(sink);
         pass++) {
        if (run->overtakes) {
            give_overtaking(run, rdma_sink_base(sink));
        } else {
            give_pass(run, rdma_sink_base(sink), pass);
            ram_sink_end_pass(rdma_sink_base(sink));
        }
        if (run->dies) {
            qemu_file_set_error(f, -ECANCELED);
        }
        ram_sink_end(rdma_sink_base(sink));
    }
    qemu_put_be64(f, 0);
    qemu_fflush(f);
    run->counts = rdma_link_counts(rdma_channel_main(channel));
    for (unsigned i = 0; i < count; i++) {
        run->other_writes += rdma_link_counts(others[i]).writes;
    }
    if (!qemu_file_get_error(f) && run->answers) {
        QEMUFile *back = qemu_file_get_return_path(f);

        if (qemu_get_be32(back) != 12345) {
            stream_check(back, &run->source_err);
        }
        g_assert_true(run->source_err || !qemu_file_get_error(back));
        qemu_file_set_error(back, -ECANCELED);
        qemu_fclose(back);
    }
    stream_check(f, run->source_err ? NULL : &run->source_err);
    rdma_sink_free(sink);
    qemu_fclose(f);
    object_unref(OBJECT(channel));
}

/* Until the other side closes the connection, which it must */
static void see_it_end(RdmaLink *link)
{
    RdmaArrival arrival;
    RdmaMessage m;

    do {
        arrival = rdma_link_receive(link, true, &m, NULL);
    } while (arrival == RDMA_ARRIVED &&
             rdma_link_done(link, &m, &error_abort));
    g_assert_cmpint(arrival, !=, RDMA_NOTHING_YET);
}

static void lie_to_destination(const Lie *lie, RdmaChannel *channel)
{
    RdmaLink *link = rdma_channel_main(channel);
    uint64_t hook = cpu_to_be64(WIRE_RAM_HOOK);
    RdmaMessage m;

    rdma_link_send(link, WIRE_RDMA_STREAM, 1, &hook, sizeof(hook), false,
                   &error_abort);
    if (!lie->early) {
        rdma_link_send(link, WIRE_RDMA_BLOCKS_REQUEST, 1, NULL, 0, false,
                       &error_abort);
        g_assert_cmpint(rdma_link_receive(link, true, &m, &error_abort), ==,
                        RDMA_ARRIVED);
        rdma_link_done(link, &m, &error_abort);
    }
    rdma_link_send(link, lie->type, lie->repeat, &lie->block, lie->len, false,
                   &error_abort);
    see_it_end(link);
    object_unref(OBJECT(channel));
}

/*
 * Messages of all sizes, to see what becomes of the bytes that they are sent
 * from
 */
#define RING_MESSAGES 120

static uint32_t ring_size(unsigned i)
{
    switch (i % 5) {
    case 0:
        return WIRE_RDMA_DATA_MAX - i;
    case 1:
        return WIRE_RDMA_DATA_MAX / 2 + 1;
    case 2:
        return 1;
    default:
        return 20000 + 1000 * i;
    }
}

static void fill_ring(Run *run, RdmaChannel *channel)
{
    RdmaLink *link = rdma_channel_main(channel);
    g_autofree uint8_t *bytes = g_malloc(WIRE_RDMA_DATA_MAX);

    for (unsigned i = 0; i < RING_MESSAGES; i++) {
        for (uint32_t at = 0; at < ring_size(i); at++) {
            bytes[at] = i + at / 4096;
        }
        rdma_link_send(link, WIRE_RDMA_STREAM, 1, bytes, ring_size(i), false,
                       &error_abort);
    }
    rdma_link_drain(link, &error_abort);
    run->counts = rdma_link_counts(link);
    object_unref(OBJECT(channel));
}

static bool connect_more(Run *run, const InetSocketAddress *to,
                         RdmaChannel *channel, const RdmaHello *hello)
{
    for (unsigned i = 0; i < hello->more; i++) {
        RdmaHello again = *hello;
        RdmaLink *link;

        again.more = 0;
        again.writes_only = true;
        link = rdma_connect_to(to, &again, rdma_channel_main(channel),
                               RDMA_ROOM_NONE, &run->called_off,
                               &run->source_err);
        if (!link) {
            return false;
        }
        rdma_channel_add(channel, link);
    }
    if (run->one_too_many) {
        RdmaHello again = *hello;

        again.more = 0;
        again.writes_only = true;
        g_assert_null(rdma_connect_to(to, &again, rdma_channel_main(channel),
                                      RDMA_ROOM_NONE, &run->called_off,
                                      &run->lie_err));
    }
    return true;
}

static void *source_thread(void *opaque)
{
    InetSocketAddress to = {
        .host = (char *)"127.0.0.1", .port = g_strdup_printf("%d", port),
    };
    Run *run = opaque;
    RdmaHello hello = run->hello;
    RdmaLink *main, *back = NULL;
    RdmaChannel *channel = NULL;

    hello.more = run->more;
    hello.writes_only = run->writes_first;
    main = rdma_connect_to(&to, &hello, NULL, RDMA_ROOM_MAIN,
                           &run->called_off, &run->source_err);
    if (main && run->answers) {
        RdmaHello again = hello;

        again.more = 0;
        back = rdma_connect_to(&to, &again, NULL, RDMA_ROOM_BACK,
                               &run->called_off, &run->source_err);
    }
    if (main && (back || !run->answers)) {
        channel = rdma_channel_new(main, back, false, &hello,
                                   &run->source_err);
    }
    if (channel && !connect_more(run, &to, channel, &hello)) {
        object_unref(OBJECT(channel));
    } else if (channel && run->fills_ring) {
        fill_ring(run, channel);
    } else if (channel && run->lie) {
        lie_to_destination(run->lie, channel);
    } else if (channel) {
        send_memory(run, channel);
    } else {
        rdma_link_free(back);
        rdma_link_free(main);
    }
    g_free(to.port);
    qatomic_set(&run->source_done, true);
    return NULL;
}

static Run *current;

static void arrived_here(QIOChannel *ioc)
{
    current->ioc = ioc;
    object_ref(OBJECT(ioc));
    rdma_listen_stop();
}

static bool load_records(Run *run, QEMUFile *f, RdmaLoad *load)
{
    for (;;) {
        uint64_t record = qemu_get_be64(f);

        if (!stream_check(f, &run->err)) {
            return false;
        }
        if (record == WIRE_RAM_HOOK) {
            if (!rdma_load_part(load, &run->to, &run->err)) {
                return false;
            }
        } else if (record == 0) {
            return true;
        } else {
            g_assert_cmphex(record, ==, WIRE_RAM_EOS);
        }
    }
}

static void answer_well(Run *run, RdmaLink *link, const RdmaMessage *m)
{
    WireRdmaBlock blocks[BLOCKS];

    if (m->head.type != WIRE_RDMA_BLOCKS_REQUEST) {
        return;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        RdmaBlock block = {
            .address = (uintptr_t)run->to.list[i].host,
            .bytes = ram_region_bytes(&run->to.list[i]),
        };

        rdma_fill_block(&blocks[i], &block);
    }
    rdma_link_send(link, WIRE_RDMA_BLOCKS_RESULT, 1, blocks, sizeof(blocks),
                   true, &error_abort);
}

static void lie_to_source(Run *run, RdmaChannel *channel)
{
    RdmaLink *link = rdma_channel_main(channel);
    const Lie *lie = run->answer;
    RdmaMessage m;

    for (;;) {
        rdma_link_send(link, WIRE_RDMA_READY, 1, NULL, 0, true, &error_abort);
        if (rdma_link_receive(link, true, &m, NULL) != RDMA_ARRIVED) {
            return;
        }
        if (m.head.type == lie->at) {
            rdma_link_send(link, lie->type, lie->repeat, &lie->block, lie->len,
                           true, &error_abort);
            see_it_end(link);
            return;
        }
        answer_well(run, link, &m);
        rdma_link_done(link, &m, &error_abort);
    }
}

/*
 * More messages than the ring has room for, of all sizes: none may spoil one
 * before it.
 */
static void *read_ring(void *opaque)
{
    RdmaLink *link = rdma_channel_main(opaque);
    RdmaMessage m;

    for (unsigned i = 0; i < RING_MESSAGES; i++) {
        const uint8_t *bytes;

        rdma_link_send(link, WIRE_RDMA_READY, 1, NULL, 0, true, &error_abort);
        g_assert_cmpint(rdma_link_receive(link, true, &m, &error_abort), ==,
                        RDMA_ARRIVED);
        bytes = m.data;
        g_assert_cmpuint(m.head.len, ==, ring_size(i));
        for (uint32_t at = 0; at < m.head.len; at++) {
            g_assert_cmpuint(bytes[at], ==, (uint8_t)(i + at / 4096));
        }
        rdma_link_done(link, &m, &error_abort);
    }
    return NULL;
}

static void *loader_thread(void *opaque)
{
    Run *run = opaque;
    RdmaChannel *channel = rdma_channel_of(run->ioc);
    QEMUFile *f = qemu_file_new_input(run->ioc);
    RdmaHello hello = *rdma_channel_hello(channel);
    RdmaLoad *load;
    bool ok;

    hello.chunk_bits = run->hello.chunk_bits;
    load = rdma_load_new(rdma_channel_main(channel), &hello);

    qemu_file_set_blocking(f, true);
    if (run->answer) {
        lie_to_source(run, channel);
        error_setg(&run->err, "it was a lie");
    }
    if (run->fills_ring) {
        read_ring(channel);
        rdma_load_free(load);
        qatomic_set(&run->loaded, true);
        return f;
    }
    ok = !run->answer && load_records(run, f, load);
    run->same_at_once = ok && same(&run->from, &run->to);
    if (ok && run->answers) {
        QEMUFile *back = qemu_file_get_return_path(f);

        qemu_put_be32(back, 12345);
        qemu_fflush(back);
        stream_check(back, &run->err);
        qemu_file_set_error(back, -ECANCELED);
        qemu_fclose(back);
    }
    rdma_load_free(load);
    qatomic_set(&run->loaded, true);
    return f;
}

static Run *run_new(void)
{
    Run *run = g_new0(Run, 1);

    make_regions(&run->from);
    make_regions(&run->to);
    fill(&run->from);
    RAM_REGIONS_FOREACH(r, &run->to) {
        memset(r->host, 0xee, r->pages * PAGE);
    }
    run->hello = (RdmaHello) {
        .peers = true, .chunk_bits = WIRE_RDMA_CHUNK_BITS,
    };
    run->passes = 2;
    return run;
}

static void run_free(Run *run)
{
    free_regions(&run->from);
    free_regions(&run->to);
    error_free(run->source_err);
    error_free(run->lie_err);
    error_free(run->err);
    g_free(run);
}

static void turn(void)
{
    main_loop_wait(true);
    g_usleep(100);
}

/* One that nobody uses */
static int find_port(void)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, len), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&address, &len), ==, 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* Whether the destination says that it has all */
static bool run_it(Run *run)
{
    InetSocketAddress at = { .host = (char *)"127.0.0.1" };
    bool ok;

    port = find_port();
    at.port = g_strdup_printf("%d", port);
    ok = rdma_listen_at(&at, arrived_here, &run->err);
    current = run;
    g_free(at.port);
    if (!ok) {
        return false;
    }
    qemu_thread_create(&run->source, "source", source_thread, run,
                       QEMU_THREAD_JOINABLE);
    while (!run->ioc && !qatomic_read(&run->source_done)) {
        turn();
    }
    rdma_listen_stop();
    if (run->ioc) {
        QEMUFile *f;

        qemu_thread_create(&run->loader, "loader", loader_thread, run,
                           QEMU_THREAD_JOINABLE);
        while (!qatomic_read(&run->loaded)) {
            turn();
        }
        f = qemu_thread_join(&run->loader);
        qemu_fclose(f);
        object_unref(OBJECT(run->ioc));
    }
    while (!qatomic_read(&run->source_done)) {
        turn();
    }
    qemu_thread_join(&run->source);
    return run->ioc && !run->err;
}

/* What is released in threads of its own is released soon. */
static void assert_nothing_left(void)
{
    for (unsigned i = 0; i < 2000 && verbs_objects(); i++) {
        g_usleep(1000);
    }
    g_assert_cmpint(verbs_objects(), ==, 0);
    g_assert_cmpint(qatomic_read(&discards), ==, 0);
}

static void assert_good(Run *run)
{
    error_propagate(&error_abort, g_steal_pointer(&run->source_err));
    error_propagate(&error_abort, g_steal_pointer(&run->err));
    g_assert_true(same(&run->from, &run->to));
}

/*
 * Tests
 */

static void test_dynamic(void)
{
    Run *run = run_new();

    g_assert_true(run_it(run));
    assert_good(run);
    /*
     * Each MiB has a run of pages: five requests for a span of 16 MiB, three
     * for one of 4, one and two for the other blocks; and the link's buffers.
     */
    g_assert_cmpuint(run->counts.registrations, ==, 12);
    /* each time as many as there are runs between zeros */
    g_assert_cmpuint(run->counts.writes, <=, 2 * 30);
    g_assert_cmpuint(run->counts.write_bytes, <, 2 * 21 * 1024 * 1024);
    g_assert_cmpuint(run->counts.completions, <=,
                     run->counts.messages + run->counts.writes /
                     RDMA_SIGNAL_EVERY + 4);
    run_free(run);
    assert_nothing_left();
}

/*
 * What follows each other is registered with one request and written at once;
 * and all pages are said to have arrived.
 */
static void test_dense(void)
{
    uint64_t pages = pages_of[0] + pages_of[1] + pages_of[2];
    Run *run;

    memory_is = MEMORY_DENSE;
    run = run_new();
    run->changes_nothing = true;
    qatomic_set_u64(&arrived, 0);
    g_assert_true(run_it(run));
    memory_is = MEMORY_MIXED;
    assert_good(run);
    g_assert_cmpuint(qatomic_read_u64(&arrived), ==, pages);
    g_assert_cmpuint(run->counts.registrations, ==, 1 + BLOCKS);
    g_assert_cmpuint(run->counts.writes, ==, run->passes * BLOCKS);
    /* Each pass: the last write, and what ends it in the stream */
    g_assert_cmpuint(run->counts.completions, <=, 2 * run->passes + 2);
    run_free(run);
    assert_nothing_left();
}

static void test_ring(void)
{
    Run *run = run_new();

    run->fills_ring = true;
    g_assert_true(run_it(run));
    error_propagate(&error_abort, g_steal_pointer(&run->source_err));
    g_assert_cmpuint(run->counts.completions, >, 3);
    g_assert_cmpuint(run->counts.completions, <, RING_MESSAGES);
    run_free(run);
    assert_nothing_left();
}

/* Single pages go in messages, if the other side knows that. */
static void test_sparse(void)
{
    for (unsigned copies = 0; copies < 2; copies++) {
        Run *run;

        memory_is = MEMORY_SPARSE;
        run = run_new();
        memory_is = MEMORY_MIXED;
        run->changes_nothing = true;
        run->passes = 1;
        run->hello.copies = copies;
        g_assert_true(run_it(run));
        assert_good(run);
        if (copies) {
            /* Too few zeros to be told of end one block, after a page. */
            g_assert_cmpuint(run->counts.writes, ==, 1);
            g_assert_cmpuint(run->counts.registrations, ==, 2);
            g_assert_cmpuint(run->counts.messages, <, 12);
        } else {
            g_assert_cmpuint(run->counts.writes, >=, pages_of[0] / 32);
        }
        run_free(run);
        assert_nothing_left();
    }
}

/*
 * Several links: each has some of the writes, whatever else is told of in
 * between, and whichever of the two sides' answers are needed
 */
static void test_several(void)
{
    for (unsigned i = 0; i < 4; i++) {
        Run *run;

        memory_is = i & 1 ? MEMORY_DENSE : MEMORY_MIXED;
        run = run_new();
        memory_is = MEMORY_MIXED;
        run->more = 1 + i;
        run->answers = i & 2;
        run->hello.copies = i & 2;
        run->hello.window = i & 1;
        g_assert_true(run_it(run));
        assert_good(run);
        g_assert_cmpuint(run->other_writes, >, 0);
        g_assert_cmpuint(run->counts.writes, >, 0);
        run_free(run);
        assert_nothing_left();
    }
}

/*
 * What the second queue pair has written arrives late: what is about the same
 * pages, and the end of the section, must not arrive before it.  The same where
 * messages are late, of which several may be on their way.
 */
static void test_overtaking(void)
{
    for (Overtakes o = OVERTAKES_ZEROS; o <= OVERTAKES_A_MESSAGE; o++) {
        bool slow_writes = o != OVERTAKES_A_MESSAGE;
        unsigned runs = slow_writes ? 3 : 2;
        Run *run;

        memory_is = MEMORY_DENSE;
        run = run_new();
        memory_is = MEMORY_MIXED;
        RAM_REGIONS_FOREACH(r, &run->to) {
            /* What is not given is there already. */
            memcpy(r->host, run->from.list[r->index].host, r->pages * PAGE);
        }
        for (unsigned i = 0; i < runs; i++) {
            memset(ram_region_page(&run->to.list[0],
                                   SLOW_PAGE + 2 * i * SLOW_PAGES), 0xee,
                   SLOW_PAGES * PAGE);
        }
        run->overtakes = o;
        run->passes = 1;
        run->more = 1;
        run->hello.copies = o == OVERTAKES_PAGES;
        run->hello.window = true;
        /* the main one of both sides, and the source's for writes */
        verbs_slow(slow_writes ? 4 : 0, 100 * 1000);
        g_assert_true(run_it(run));
        verbs_slow(0, 0);
        verbs_late(0);
        g_assert_cmpuint(run->other_writes, ==, 3);
        g_assert_true(run->same_at_once);
        assert_good(run);
        run_free(run);
        assert_nothing_left();
    }
}

/* Chunks of another size, which to others has to be known */
static void test_chunks(void)
{
    for (unsigned peers = 0; peers < 2; peers++) {
        Run *run;

        memory_is = MEMORY_DENSE;
        run = run_new();
        memory_is = MEMORY_MIXED;
        run->hello.peers = peers;
        run->hello.chunk_bits = 25;
        g_assert_true(run_it(run));
        assert_good(run);
        /* One for all 20 MiB of the first block */
        g_assert_cmpuint(run->counts.registrations, ==, 1 + BLOCKS);
        run_free(run);
        assert_nothing_left();
    }
}

/* With each kind of peer, and with one pass, which sends everything but once */
static void test_order(void)
{
    for (unsigned i = 0; i < 16; i++) {
        Run *run = run_new();

        run->hello.peers = i & 1;
        run->peer = i & 2 ? WIRE_PEER_ZERO_RANGE : 0;
        run->hello.copies = i & 4;
        run->hello.window = i & 8;
        run->passes = 1;
        g_assert_true(run_it(run));
        assert_good(run);
        run_free(run);
        assert_nothing_left();
    }
}

/*
 * What is posted is held against the limit in the same turn, although pages
 * wait until there are many of them.  The rate may be exceeded by what may be
 * sent without a pause, by one batch, and by what goes along: heads and keys.
 */
static void test_rate(void)
{
    for (unsigned i = 0; i < 3; i++) {
        Run *run;

        memory_is = i == 2 ? MEMORY_SPARSE : MEMORY_DENSE;
        run = run_new();
        memory_is = MEMORY_MIXED;
        run->hello.copies = i == 2;
        run->more = i == 1;
        run->passes = 0;
        run->rate = i == 2 ? 4 << 20 : 32 << 20;
        run->ahead_ms = -1e6;
        g_assert_true(run_it(run));
        assert_good(run);
        g_test_message("ahead of the rate by %.1f ms at most", run->ahead_ms);
        g_assert_cmpfloat(run->ahead_ms, <, 40);
        run_free(run);
        assert_nothing_left();
    }
}

static void test_pin_all(void)
{
    Run *run = run_new();

    run->hello.pin_all = true;
    g_assert_true(run_it(run));
    assert_good(run);
    g_assert_cmpuint(run->counts.registrations, ==, 1 + BLOCKS);
    run_free(run);
    assert_nothing_left();
}

static void test_answers(void)
{
    for (unsigned i = 0; i < 2; i++) {
        Run *run = run_new();

        run->answers = true;
        run->hello.window = i;
        g_assert_true(run_it(run));
        assert_good(run);
        run_free(run);
        assert_nothing_left();
    }
}

static void test_late(void)
{
    Run *run = run_new();

    verbs_late(500);
    g_assert_true(run_it(run));
    verbs_late(0);
    assert_good(run);
    run_free(run);
    assert_nothing_left();
}

static void test_source_ends(void)
{
    Run *run = run_new();

    run->dies = true;
    g_assert_false(run_it(run));
    g_assert_nonnull(run->err);
    run_free(run);
    assert_nothing_left();
}

static void test_blocks_differ(void)
{
    Run *run = run_new();

    run->to.list[2].pages--;
    g_assert_false(run_it(run));
    g_assert_nonnull(strstr(error_get_pretty(run->source_err), "'vga' has"));
    run->to.list[2].pages++;
    run_free(run);

    run = run_new();
    run->to.list[1].announced = 0;
    g_assert_false(run_it(run));
    g_assert_nonnull(strstr(error_get_pretty(run->source_err),
                            "has 2 RAM blocks, and 3 are here"));
    run_free(run);
    assert_nothing_left();
}

static void test_nobody_listens(void)
{
    Run *run = run_new();

    port = find_port();
    source_thread(run);
    g_assert_nonnull(strstr(error_get_pretty(run->source_err),
                            "no QEMU listens"));
    run_free(run);
    assert_nothing_left();
}

/* Somebody listens and says nothing: the source is told not to wait. */
static void test_called_off(void)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    Run *run = run_new();
    int64_t begun;

    port = find_port();
    address.sin_port = htons(port);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof(address)), ==,
                    0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
    qemu_thread_create(&run->source, "source", source_thread, run,
                       QEMU_THREAD_JOINABLE);
    g_usleep(300 * 1000);
    g_assert_false(qatomic_read(&run->source_done));
    begun = g_get_monotonic_time();
    qatomic_set(&run->called_off, true);
    qemu_thread_join(&run->source);
    g_assert_cmpint(g_get_monotonic_time() - begun, <, 1000 * 1000);
    g_assert_nonnull(strstr(error_get_pretty(run->source_err),
                            "nobody waits"));
    run_free(run);
    assert_nothing_left();
    close(fd);
}

static const char *run_why(Error *err)
{
    return err ? error_get_pretty(err) : "nothing";
}

/*
 * Lies
 */

static void test_sources_lie(void)
{
    Lie lies[] = {
        { .type = WIRE_RDMA_NONE, .says = "unknown type 0" },
        { .type = WIRE_RDMA_TYPES, .says = "unknown type 13" },
        { .type = WIRE_RDMA_PAGES, .len = 17, .repeat = 1,
          .says = "was not agreed upon" },
        { .type = WIRE_RDMA_PAGES, .len = 32, .repeat = 2, .copies = true,
          .says = "2 entries and their pages" },
        { .type = WIRE_RDMA_PAGES, .len = 17, .repeat = 1, .copies = true,
          .early = true, .says = "block 0, where there are 0" },
        { .type = WIRE_RDMA_PAGES, .len = 17, .repeat = 1, .copies = true,
          .says = "0 bytes" },
        { .type = WIRE_RDMA_ERROR, .says = "has failed" },
        { .type = WIRE_RDMA_STREAM, .len = 8, .says = "may not come here" },
        { .type = WIRE_RDMA_BLOCKS_RESULT, .len = 32,
          .says = "may not come here" },
        { .type = WIRE_RDMA_REGISTER_RESULT, .len = 16, .repeat = 1,
          .says = "may not come here" },
        { .type = WIRE_RDMA_UNREGISTER_RESULT, .says = "may not come here" },
        { .type = WIRE_RDMA_BLOCKS_REQUEST, .says = "twice" },
        { .type = WIRE_RDMA_ZEROS, .len = 24, .repeat = 1, .says = "0 bytes" },
        { .type = WIRE_RDMA_ZEROS, .len = 24, .repeat = 1, .early = true,
          .says = "block 0, where there are 0" },
        { .type = WIRE_RDMA_REGISTER_REQUEST, .len = 24, .repeat = 1,
          .early = true, .says = "block 0, where there are 0" },
        { .type = WIRE_RDMA_UNREGISTER_REQUEST, .len = 24, .repeat = 1,
          .says = "is not registered" },
        { .type = WIRE_RDMA_UNREGISTER_REQUEST, .len = 24, .repeat = 1,
          .early = true, .says = "is not registered" },
        { .type = WIRE_RDMA_PAGES, .len = 17, .repeat = 1, .copies = true,
          .says = "of which 1 are in the message" },
        { .type = WIRE_RDMA_PAGES, .len = sizeof(lies->bytes), .repeat = 1,
          .copies = true, .says = "1 bytes belong to no page" },
        { .type = WIRE_RDMA_PAGES, .len = 16 + 100, .repeat = 1,
          .copies = true, .says = "are no pages" },
        { .type = WIRE_RDMA_ZEROS, .len = 24, .repeat = 1,
          .says = "are no pages" },
        { .type = WIRE_RDMA_ZEROS, .len = 24, .repeat = 1, .says = "block 3" },
        { .type = WIRE_RDMA_REGISTER_REQUEST, .len = 24, .repeat = 1,
          .says = "chunks after chunk 0" },
        { .type = WIRE_RDMA_REGISTER_REQUEST, .len = 48, .repeat = 2,
          .says = "where 1048576 have been" },
    };
    unsigned n = ARRAY_SIZE(lies);

    stl_be_p(&lies[n - 7].pages.bytes, PAGE);
    stl_be_p(&lies[n - 6].pages.bytes, PAGE);
    stl_be_p(&lies[n - 5].pages.bytes, 100);
    stq_be_p(&lies[n - 4].zeros.bytes, 100);
    stl_be_p(&lies[n - 3].zeros.block, 3);
    stq_be_p(&lies[n - 2].reg[0].more, UINT64_MAX);
    stq_be_p(&lies[n - 1].reg[1].more, 1);
    for (unsigned i = 0; i < n; i++) {
        Run *run = run_new();

        run->lie = &lies[i];
        run->hello.copies = lies[i].copies;
        g_assert_false(run_it(run));
        if (!strstr(error_get_pretty(run->err), lies[i].says)) {
            g_error("%u: '%s' does not say '%s'", i,
                    error_get_pretty(run->err), lies[i].says);
        }
        run_free(run);
        assert_nothing_left();
    }
}

static void test_destinations_lie(void)
{
    Lie lies[] = {
        { .type = WIRE_RDMA_ERROR, .at = WIRE_RDMA_BLOCKS_REQUEST,
          .says = "has failed" },
        { .type = WIRE_RDMA_REGISTER_RESULT, .len = 16, .repeat = 1,
          .at = WIRE_RDMA_BLOCKS_REQUEST, .says = "BLOCKS_RESULT was" },
        { .type = WIRE_RDMA_STREAM, .len = 16, .at = WIRE_RDMA_BLOCKS_REQUEST,
          .says = "BLOCKS_RESULT was" },
        { .type = WIRE_RDMA_BLOCKS_RESULT, .len = 32,
          .at = WIRE_RDMA_BLOCKS_REQUEST, .says = "has 1 RAM blocks" },
        { .type = WIRE_RDMA_BLOCKS_RESULT, .len = 96,
          .at = WIRE_RDMA_BLOCKS_REQUEST, .says = "'pc.ram' has" },
        { .type = WIRE_RDMA_BLOCKS_RESULT, .len = 33,
          .at = WIRE_RDMA_BLOCKS_REQUEST, .says = "with 33 bytes" },
        { .type = 77, .at = WIRE_RDMA_REGISTER_REQUEST,
          .says = "unknown type 77" },
        { .type = WIRE_RDMA_UNREGISTER_RESULT,
          .at = WIRE_RDMA_REGISTER_REQUEST, .says = "REGISTER_RESULT was" },
        { .type = WIRE_RDMA_REGISTER_RESULT, .len = 16, .repeat = 1,
          .at = WIRE_RDMA_REGISTER_REQUEST, .says = "the block is at 0x0" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        Run *run = run_new();

        run->answer = &lies[i];
        g_assert_false(run_it(run));
        if (!run->source_err ||
            !strstr(error_get_pretty(run->source_err), lies[i].says)) {
            g_error("%u: '%s' does not say '%s'", i,
                    run->source_err ? error_get_pretty(run->source_err) : "",
                    lies[i].says);
        }
        run_free(run);
        assert_nothing_left();
    }
}

/* Links for writes that nobody has announced */
static void test_links_lie(void)
{
    for (unsigned more = 0; more < 2; more++) {
        Run *run = run_new();

        run->more = more;
        run->one_too_many = run->answers = true;
        g_assert_true(run_it(run));
        assert_good(run);
        g_assert_nonnull(run->lie_err);
        /* Perhaps as nobody listens any more, when all links are there. */
        g_assert_nonnull(strstr(error_get_pretty(run->lie_err),
                                "the connection was rejected"));
        run_free(run);
        assert_nothing_left();
    }
    for (unsigned more = 0; more < 2; more++) {
        Run *run = run_new();

        run->more = more;
        run->writes_first = true;
        g_assert_false(run_it(run));
        g_assert_nonnull(strstr(error_get_pretty(run->source_err),
                                "rejected by the destination"));
        run_free(run);
        assert_nothing_left();
    }
}

/* A key that is not the destination's: the device says so. */
static void test_wrong_key(void)
{
    Lie lie = {
        .type = WIRE_RDMA_REGISTER_RESULT, .len = 16, .repeat = 1,
        .at = WIRE_RDMA_REGISTER_REQUEST,
    };
    Run *run = run_new();

    stl_be_p(&lie.key.rkey, 0xdead);
    stq_be_p(&lie.key.address, (uintptr_t)run->to.list[0].host);
    run->answer = &lie;
    g_assert_false(run_it(run));
    g_assert_nonnull(strstr(error_get_pretty(run->source_err),
                            "remote access error"));
    run_free(run);
    assert_nothing_left();
}

/* Nobody reads what is reported while things are made to fail. */
static void be_quiet(void)
{
    if (!freopen("/dev/null", "w", stderr)) {
        abort();
    }
}

/* Each call in turn, whichever function that is of, on either side */
static void test_failures(bool pin_all, bool answers, unsigned more)
{
    unsigned failed = 0;

    be_quiet();
    pages_of = pages_small;
    for (unsigned n = 1; ; n++) {
        Run *run = run_new();
        bool ok, was_hit;

        run->hello.pin_all = pin_all;
        run->hello.window = answers;
        run->answers = answers;
        run->more = more;
        verbs_fail(NULL, n);
        ok = run_it(run);
        was_hit = !verbs_fail_left();
        verbs_fail(NULL, 0);
        if (ok) {
            /* Who says that it has all has all. */
            g_assert_true(same(&run->from, &run->to));
        } else {
            g_assert_true(run->err || run->source_err);
            failed++;
        }
        assert_nothing_left();
        if (!was_hit) {
            if (!ok) {
                g_test_message("call %u: %s; %s", n, run_why(run->err),
                               run_why(run->source_err));
            }
            g_assert_true(ok);
            run_free(run);
            break;
        }
        run_free(run);
    }
    pages_of = pages_large;
    g_assert_cmpuint(failed, >, 30);
}

static void test_fail_dynamic(void)
{
    test_failures(false, false, 0);
}

static void test_fail_pin_all(void)
{
    test_failures(true, true, 0);
}

static void test_fail_several(void)
{
    test_failures(false, true, 2);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/rdma/move/dynamic", test_dynamic);
    g_test_add_func("/rdma/move/dense", test_dense);
    g_test_add_func("/rdma/move/sparse", test_sparse);
    g_test_add_func("/rdma/move/chunks", test_chunks);
    g_test_add_func("/rdma/move/several", test_several);
    g_test_add_func("/rdma/move/order", test_order);
    g_test_add_func("/rdma/move/overtaking", test_overtaking);
    g_test_add_func("/rdma/move/rate", test_rate);
    g_test_add_func("/rdma/move/ring", test_ring);
    g_test_add_func("/rdma/move/pin-all", test_pin_all);
    g_test_add_func("/rdma/move/answers", test_answers);
    g_test_add_func("/rdma/move/late", test_late);
    g_test_add_func("/rdma/fail/source-ends", test_source_ends);
    g_test_add_func("/rdma/fail/blocks-differ", test_blocks_differ);
    g_test_add_func("/rdma/fail/nobody-listens", test_nobody_listens);
    g_test_add_func("/rdma/fail/called-off", test_called_off);
    g_test_add_func("/rdma/lies/source", test_sources_lie);
    g_test_add_func("/rdma/lies/destination", test_destinations_lie);
    g_test_add_func("/rdma/lies/links", test_links_lie);
    g_test_add_func("/rdma/lies/key", test_wrong_key);
    g_test_add_func("/rdma/fail/each-call-dynamic", test_fail_dynamic);
    g_test_add_func("/rdma/fail/each-call-pin-all", test_fail_pin_all);
    g_test_add_func("/rdma/fail/each-call-several", test_fail_several);
    return g_test_run();
}
