/*
 * Unit tests of sending RAM: what is sent is loaded elsewhere, and compared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "io/channel-buffer.h"
#include "io/channel-socket.h"
#include "setup.h"
#include "migration/migration-stats.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/ram/delta.h"
#include "migration/ram/load.h"
#include "migration/ram/presence.h"
#include "migration/ram/send.h"
#include "migration/ram/stream-sink.h"
#include "migration/wire/wire.h"

#define BITS 12
#define PAGE (1u << BITS)
#define PEER (WIRE_PEER_ZERO_RANGE | WIRE_PEER_PAGE_RUN)

enum { LOW, SHARED, HIGH, REGIONS };

static const struct {
    const char *name;
    uint64_t pages;
    bool ignored;
} layout[REGIONS] = {
    [LOW] = { "pc.ram", 3000 },
    [SHARED] = { "shared", 8, true },
    [HIGH] = { "vga.vram", 700 },
};

/* One side */
typedef struct Side {
    RamRegion list[REGIONS];
    RamRegions regions;
} Side;

static void side_init(Side *side, unsigned bits, bool maps)
{
    *side = (Side) { .regions = { side->list, REGIONS } };
    for (unsigned i = 0; i < REGIONS; i++) {
        uint64_t size = layout[i].pages << bits;
        RamRegion *r = &side->list[i];

        *r = (RamRegion) {
            .name = (char *)layout[i].name,
            .index = i,
            .page_bits = bits,
            .pages = layout[i].pages,
            .max_pages = layout[i].pages,
            .ignored = layout[i].ignored,
            .host_page_size = qemu_real_host_page_size(),
            .host = qemu_memalign(qemu_real_host_page_size(), size),
            .area = { .kind = POPULATED_UNKNOWN, .size = size },
        };
        r->area.host = r->host;
        memset(r->host, 0, size);
        if (maps && !r->ignored) {
            r->map = dirty_map_new(r->pages, 18, NULL, NULL);
            r->untouched = g_array_new(false, false, sizeof(RamRange));
        }
    }
}

static void side_destroy(Side *side)
{
    RAM_REGIONS_FOREACH(r, &side->regions) {
        qemu_vfree(r->host);
        dirty_map_free(r->map);
        if (r->untouched) {
            g_array_free(r->untouched, true);
        }
    }
}

/* A source, a destination, and the stream between them */
typedef struct Pair {
    Side from, to;
    RamStreamSink sink;
    RamSender sender;
    RamLoader loader;
    QIOChannelBuffer *wire;
    QEMUFile *out;
} Pair;

static bool no_resize(void *opaque, RamRegion *r, uint64_t bytes, Error **errp)
{
    g_assert_not_reached();
}

static const RamLoadOps ops = { .resize = no_resize };

static void pair_init(Pair *p, unsigned bits, uint32_t features)
{
    side_init(&p->from, bits, true);
    side_init(&p->to, bits, false);
    p->wire = qio_channel_buffer_new(1024);
    p->out = qemu_file_new_output(QIO_CHANNEL(p->wire));
    ram_stream_sink_init(&p->sink, p->out, features);
    ram_sender_init(&p->sender, &p->from.regions, &p->sink.sink);
    p->loader = (RamLoader) {
        .regions = &p->to.regions, .ops = &ops, .page_bits = bits,
    };
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(RATE_LIMIT_DISABLED);
}

static void pair_destroy(Pair *p)
{
    qemu_fclose(p->out);
    object_unref(OBJECT(p->wire));
    side_destroy(&p->from);
    side_destroy(&p->to);
}

/* Load what has been written since the last time. */
static void deliver(Pair *p)
{
    QEMUFile *in;

    g_assert_cmpint(ram_sink_end(p->sender.sink), ==, 0);
    in = test_input(p->wire->data, p->wire->usage);
    p->wire->usage = p->wire->offset = 0;
    ram_load_records(in, &p->loader, &error_abort);
    g_assert_cmpint(qemu_get_byte(in), ==, 0);
    g_assert_cmpint(qemu_file_get_error(in), ==, -EIO);
    qemu_fclose(in);
}

static void send_all(Pair *p)
{
    g_assert_cmpint(ram_sender_run(&p->sender, true), ==, RAM_SEND_ALL);
    g_assert_cmpuint(ram_sender_left(&p->from.regions), ==, 0);
    deliver(p);
}

static void assert_equal(const Pair *p)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        const RamRegion *a = &p->from.list[i], *b = &p->to.list[i];

        if (!a->ignored) {
            g_assert_cmpmem(a->host, ram_region_bytes(a),
                            b->host, ram_region_bytes(b));
        }
    }
}

static void never_touched(RamRegion *r, uint64_t first, uint64_t count)
{
    RamRange range = { first, count };

    g_array_append_val(r->untouched, range);
    r->untold_pages += count;
}

static void write_page(Pair *p, RamRegion *r, uint64_t page)
{
    uint8_t *bytes = ram_region_page(r, page);

    for (unsigned i = 0; i < ram_region_page_size(r); i += 8) {
        stq_he_p(bytes + i, g_test_rand_int() * 0x100000001ull);
    }
    dirty_map_set(r->map, page, 1);
}

/* Pages of all kinds: written, zero though dirty, never touched, clean */
static void fill(Pair *p)
{
    RAM_REGIONS_FOREACH_SENT(r, &p->from.regions) {
        for (uint64_t i = 0; i < r->pages; i++) {
            switch (g_test_rand_int_range(0, 9)) {
            case 0:
                never_touched(r, i, 1);
                memset(ram_region_page(&p->to.list[r->index], i), 1,
                       ram_region_page_size(r));
                break;
            case 1:
                dirty_map_set(r->map, i, 1);
                break;
            case 2:
                break;
            default:
                write_page(p, r, i);
            }
        }
    }
}

static void test_forms(const void *opaque)
{
    Pair p;

    pair_init(&p, BITS, GPOINTER_TO_UINT(opaque));
    fill(&p);
    send_all(&p);
    assert_equal(&p);
    pair_destroy(&p);
}

/* Peers use no flags that a small target page has no room for. */
static void test_small_pages(void)
{
    Pair p;

    pair_init(&p, 10, PEER);
    fill(&p);
    send_all(&p);
    assert_equal(&p);
    pair_destroy(&p);
}

static size_t sent_bytes(uint32_t features, uint64_t *zero, uint64_t *normal)
{
    RamRegion *low;
    size_t bytes;
    Pair p;

    pair_init(&p, BITS, features);
    low = &p.from.list[LOW];
    never_touched(low, 0, 2000);
    for (unsigned i = 2000; i < 2512; i++) {
        write_page(&p, low, i);
    }
    ram_sender_run(&p.sender, true);
    ram_sink_end(p.sender.sink);
    bytes = p.wire->usage;
    *zero = stat64_get(&mig_stats.zero_pages);
    *normal = stat64_get(&mig_stats.normal_pages);
    pair_destroy(&p);
    return bytes;
}

static void test_size(void)
{
    uint64_t zero, normal;
    size_t name = 1 + strlen("pc.ram"), eos = 8;

    g_assert_cmpuint(sent_bytes(0, &zero, &normal), ==,
                     name + 2000 * 9 + 512 * (8 + PAGE) + eos);
    g_assert_cmpuint(zero, ==, 2000);
    g_assert_cmpuint(normal, ==, 512);
    g_assert_cmpuint(sent_bytes(PEER, &zero, &normal), ==,
                     name + (8 + 8) + (8 + 4 + 512 * PAGE) + eos);
    g_assert_cmpuint(zero, ==, 2000);
    g_assert_cmpuint(normal, ==, 512);
}

/*
 * A page that is to be told of as zero, and has been written to since, must
 * arrive as what was written, however far apart the two are sent.
 */
static void test_zero_then_written(void)
{
    RamRegion *low, *high;
    Pair p;

    pair_init(&p, BITS, 0);
    low = &p.from.list[LOW];
    high = &p.from.list[HIGH];
    never_touched(low, 0, low->pages);
    never_touched(high, 0, high->pages);
    write_page(&p, low, 0);
    write_page(&p, high, 699);
    migration_rate_set(1);
    ram_sender_run(&p.sender, false);
    deliver(&p);
    write_page(&p, low, 2999);
    migration_rate_set(RATE_LIMIT_DISABLED);
    send_all(&p);
    assert_equal(&p);
    pair_destroy(&p);
}

static void no_access(const RamRegion *r)
{
    g_assert_cmpint(mprotect(r->host, ram_region_bytes(r), PROT_NONE), ==, 0);
}

static void access_again(const RamRegion *r)
{
    g_assert_cmpint(mprotect(r->host, ram_region_bytes(r),
                             PROT_READ | PROT_WRITE), ==, 0);
}

/*
 * Memory that is unplugged in the middle is not read any more, nothing of it is
 * sent, and what is left does not count.
 */
static void test_unplugged(const void *opaque)
{
    bool deltas = opaque;
    RamRegion *low, *high;
    uint64_t pages;
    Pair p;

    pair_init(&p, BITS, PEER);
    low = &p.from.list[LOW];
    high = &p.from.list[HIGH];
    if (deltas) {
        g_assert(ram_delta_start(1024 * PAGE, PAGE, &error_abort));
        p.sender.age = 2;
    }
    fill(&p);
    migration_rate_set(1);
    ram_sender_run(&p.sender, false);
    deliver(&p);
    g_assert_cmpuint(dirty_map_count(low->map), >, 0);

    ram_presence_lost(low, false);
    no_access(low);
    g_assert_cmpuint(ram_sender_left(&p.from.regions), ==,
                     (dirty_map_count(high->map) + high->untold_pages) * PAGE);
    pages = dirty_map_count(high->map) + high->untold_pages +
            stat64_get(&mig_stats.normal_pages) +
            stat64_get(&mig_stats.zero_pages);
    migration_rate_set(RATE_LIMIT_DISABLED);
    g_assert_cmpint(ram_sender_run(&p.sender, true), ==, RAM_SEND_ALL);
    g_assert_cmpuint(ram_sender_left(&p.from.regions), ==, 0);
    g_assert_cmpuint(stat64_get(&mig_stats.normal_pages) +
                     stat64_get(&mig_stats.zero_pages), ==, pages);
    deliver(&p);
    g_assert_cmpmem(high->host, ram_region_bytes(high),
                    p.to.list[HIGH].host, ram_region_bytes(high));
    access_again(low);
    if (deltas) {
        ram_delta_stop();
    }
    pair_destroy(&p);
}

/* All memory but one block, and then that as well */
static void test_unplugged_all(void)
{
    Pair p;

    pair_init(&p, BITS, 0);
    fill(&p);
    ram_presence_lost(&p.from.list[LOW], false);
    ram_presence_lost(&p.from.list[HIGH], false);
    g_assert_cmpuint(ram_sender_left(&p.from.regions), ==, 0);
    g_assert_false(ram_sender_untold(&p.from.regions));
    send_all(&p);
    g_assert_cmpuint(stat64_get(&mig_stats.normal_pages) +
                     stat64_get(&mig_stats.zero_pages), ==, 0);
    pair_destroy(&p);
}

/* Without looking for zeros they travel like all others. */
static void test_zeros_not_looked_for(void)
{
    Pair p;

    pair_init(&p, BITS, PEER);
    p.sender.find_zeros = false;
    dirty_map_set(p.from.list[LOW].map, 5, 10);
    send_all(&p);
    g_assert_cmpuint(stat64_get(&mig_stats.normal_pages), ==, 10);
    g_assert_cmpuint(stat64_get(&mig_stats.zero_pages), ==, 0);
    pair_destroy(&p);
}

static void test_nothing(void)
{
    Pair p;

    pair_init(&p, BITS, 0);
    g_assert_cmpint(ram_sender_run(&p.sender, false), ==, RAM_SEND_ALL);
    deliver(&p);
    assert_equal(&p);
    p.from.regions.count = 0;
    g_assert_cmpint(ram_sender_run(&p.sender, true), ==, RAM_SEND_ALL);
    p.from.regions.count = REGIONS;
    pair_destroy(&p);
}

/* What goes out at once is small when the rate is. */
static void test_rate(void)
{
    RamRegion *low;
    Pair p;

    pair_init(&p, BITS, PEER);
    low = &p.from.list[LOW];
    for (unsigned i = 0; i < low->pages; i++) {
        write_page(&p, low, i);
    }
    migration_rate_set(1 << 20);
    g_assert_cmpint(ram_sender_run(&p.sender, false), ==, RAM_SEND_SOME);
    g_assert_cmpuint(dirty_map_count(low->map), >, low->pages / 2);
    g_assert_cmpuint(dirty_map_count(low->map), <, low->pages);
    migration_rate_set(RATE_LIMIT_DISABLED);
    send_all(&p);
    assert_equal(&p);
    pair_destroy(&p);
}

static void test_error(void)
{
    Pair p;

    pair_init(&p, BITS, PEER);
    fill(&p);
    qemu_file_set_error(p.out, -EPIPE);
    g_assert_cmpint(ram_sender_run(&p.sender, false), ==, RAM_SEND_ERROR);
    g_assert_cmpint(ram_sender_run(&p.sender, true), ==, RAM_SEND_ERROR);
    g_assert_cmpuint(ram_sender_left(&p.from.regions), >, 0);
    g_assert_cmpint(ram_sink_end(p.sender.sink), ==, -EPIPE);
    pair_destroy(&p);
}

/*
 * Differences
 */

static void change(Pair *p)
{
    RAM_REGIONS_FOREACH_SENT(r, &p->from.regions) {
        for (uint64_t i = 0; i < r->pages; i += 3) {
            uint8_t *bytes = ram_region_page(r, i);

            switch (g_test_rand_int_range(0, 6)) {
            case 0:
                memset(bytes, 0, PAGE);
                break;
            case 1:
                write_page(p, r, i);
                break;
            case 2:
                break;
            default:
                bytes[g_test_rand_int_range(0, PAGE)]++;
            }
            dirty_map_set(r->map, i, 1);
        }
    }
}

static void delta_passes(uint64_t size, bool resize)
{
    Pair p;

    pair_init(&p, BITS, PEER);
    g_assert(ram_delta_start(size, PAGE, &error_abort));
    fill(&p);
    send_all(&p);
    for (unsigned pass = 0; pass < 8; pass++) {
        p.sender.age++;
        change(&p);
        send_all(&p);
        assert_equal(&p);
        if (resize && pass % 3 == 2) {
            g_assert(ram_delta_resize(size >> pass % 2, &error_abort));
        }
    }
    g_assert_cmpint(xbzrle_counters.pages, >, 0);
    g_assert_cmpint(xbzrle_counters.cache_miss, >, 0);
    ram_delta_rates(stat64_get(&mig_stats.normal_pages));
    g_assert_cmpfloat(xbzrle_counters.encoding_rate, >, 1);
    g_assert_cmpfloat(xbzrle_counters.cache_miss_rate, >, 0);
    ram_delta_stop();
    g_assert_false(ram_delta_active());
    pair_destroy(&p);
}

static void test_delta(void)
{
    delta_passes(4096 * PAGE, false);
}

static void test_delta_small_cache(void)
{
    delta_passes(64 * PAGE, false);
}

static void test_delta_resize(void)
{
    delta_passes(4096 * PAGE, true);
}

/* The peer threw everything away: what it was sent is of no use any more. */
static void test_delta_forget(void)
{
    Pair p;

    pair_init(&p, BITS, PEER);
    g_assert(ram_delta_start(4096 * PAGE, PAGE, &error_abort));
    p.sender.age = 2;
    fill(&p);
    send_all(&p);
    RAM_REGIONS_FOREACH_SENT(r, &p.from.regions) {
        for (unsigned i = 0; i < r->pages; i++) {
            *ram_region_page(r, i) += 1;
        }
        memset(p.to.list[r->index].host, 0, ram_region_bytes(r));
        dirty_map_set(r->map, 0, r->pages);
    }
    g_assert(ram_delta_forget(4096 * PAGE, &error_abort));
    send_all(&p);
    assert_equal(&p);
    g_assert_cmpint(xbzrle_counters.pages, ==, 0);
    ram_delta_stop();
    pair_destroy(&p);
}

/* Pages that were taken, and turned out to be too much for the rate, wait. */
static void test_delta_rate(void)
{
    RamRegion *low;
    uint64_t left;
    Pair p;

    pair_init(&p, BITS, PEER);
    low = &p.from.list[LOW];
    g_assert(ram_delta_start(4096 * PAGE, PAGE, &error_abort));
    p.sender.age = 2;
    for (unsigned i = 0; i < low->pages; i++) {
        write_page(&p, low, i);
    }
    dirty_map_set(p.from.list[HIGH].map, 0, p.from.list[HIGH].pages);
    left = ram_sender_left(&p.from.regions);
    migration_rate_set(1 << 20);
    while (ram_sender_run(&p.sender, false) == RAM_SEND_SOME) {
        uint64_t now_left = ram_sender_left(&p.from.regions);

        g_assert_cmpuint(now_left, <, left);
        if (migration_rate_get() != RATE_LIMIT_DISABLED) {
            /* the bytes of a flush, and a batch of what this rate allows */
            g_assert_cmpuint(left - now_left, <, low->pages * PAGE / 8);
        }
        left = now_left;
        if (left < low->pages * PAGE / 2) {
            migration_rate_set(RATE_LIMIT_DISABLED);
        }
        migration_rate_reset();
    }
    g_assert_cmpuint(ram_sender_left(&p.from.regions), ==, 0);
    deliver(&p);
    assert_equal(&p);
    ram_delta_stop();
    pair_destroy(&p);
}

static void test_delta_bad_size(void)
{
    Error *err = NULL;

    g_assert_false(ram_delta_start(3 * PAGE, PAGE, &err));
    error_free_or_abort(&err);
    g_assert_false(ram_delta_active());
    g_assert(ram_delta_resize(3 * PAGE, &error_abort));
    g_assert(ram_delta_start(4 * PAGE, PAGE, &error_abort));
    g_assert_false(ram_delta_resize(3 * PAGE, &err));
    error_free_or_abort(&err);
    g_assert(ram_delta_active());
    ram_delta_stop();
}

static void *send_stalled(void *opaque)
{
    Pair *p = opaque;

    g_assert_cmpint(ram_sender_run(&p->sender, true), ==, RAM_SEND_ERROR);
    return NULL;
}

/* Until as much waits to be read as there is room for. */
static void wait_for_stall(int fd)
{
    int before = 0, now = 0;

    do {
        before = now;
        g_usleep(50 * 1000);
        g_assert_cmpint(ioctl(fd, FIONREAD, &now), ==, 0);
    } while (!now || now != before);
}

/* A command does not wait for a thread that waits for its peer. */
static void test_delta_resize_stalled(void)
{
    QIOChannelSocket *ioc;
    QemuThread thread;
    int fds[2];
    Pair p;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    pair_init(&p, BITS, PEER);
    qemu_fclose(p.out);
    ioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    p.out = qemu_file_new_output(QIO_CHANNEL(ioc));
    object_unref(OBJECT(ioc));
    ram_stream_sink_init(&p.sink, p.out, 0);
    ram_sender_init(&p.sender, &p.from.regions, &p.sink.sink);
    g_assert(ram_delta_start(4096 * PAGE, PAGE, &error_abort));
    fill(&p);
    p.sender.age = 2;
    qemu_thread_create(&thread, "sender", send_stalled, &p,
                       QEMU_THREAD_JOINABLE);
    wait_for_stall(fds[1]);
    g_assert(ram_delta_resize(1024 * PAGE, &error_abort));
    g_assert(ram_delta_resize(2048 * PAGE, &error_abort));
    close(fds[1]);
    qemu_thread_join(&thread);
    ram_delta_stop();
    g_assert_false(ram_delta_active());
    pair_destroy(&p);
}

/* A guest that writes to its memory while that is being sent */
typedef struct Writer {
    RamRegion *region;
    unsigned long *log;         /* a bit a page, atomic */
    bool stop;
} Writer;

static void *write_on(void *opaque)
{
    Writer *w = opaque;
    uint32_t x = 1;

    while (!qatomic_read(&w->stop)) {
        x = x * 1664525 + 1013904223;
        uint64_t at = (uint64_t)x * 31 % ram_region_bytes(w->region) & ~7ull;

        /* as a guest does: no order, no lock */
        *(volatile uint64_t *)(w->region->host + at) = x % 5 ? x : 0;
        set_bit_atomic(at >> BITS, w->log);
    }
    return NULL;
}

static void test_delta_while_written(void)
{
    Writer w;
    QemuThread thread;
    RamRegion *low;
    Pair p;

#ifdef CONFIG_TSAN
    g_test_skip("what a guest writes while it is read is a race by design");
    return;
#endif
    pair_init(&p, BITS, PEER);
    g_assert(ram_delta_start(1024 * PAGE, PAGE, &error_abort));
    fill(&p);
    low = &p.from.list[LOW];
    w = (Writer) { .region = low, .log = bitmap_new(low->pages) };
    qemu_thread_create(&thread, "writer", write_on, &w, QEMU_THREAD_JOINABLE);
    for (unsigned pass = 0; pass < 50; pass++) {
        ram_sender_run(&p.sender, false);
        deliver(&p);
        dirty_map_merge_clearing(low->map, 0, low->pages, w.log, 0);
        p.sender.age++;
    }
    qatomic_set(&w.stop, true);
    qemu_thread_join(&thread);
    dirty_map_merge_clearing(low->map, 0, low->pages, w.log, 0);
    send_all(&p);
    assert_equal(&p);
    ram_delta_stop();
    g_free(w.log);
    pair_destroy(&p);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_data_func("/ram/send/any-peer", GUINT_TO_POINTER(0),
                         test_forms);
    g_test_add_data_func("/ram/send/zero-range",
                         GUINT_TO_POINTER(WIRE_PEER_ZERO_RANGE), test_forms);
    g_test_add_data_func("/ram/send/run",
                         GUINT_TO_POINTER(WIRE_PEER_PAGE_RUN), test_forms);
    g_test_add_data_func("/ram/send/peer", GUINT_TO_POINTER(PEER), test_forms);
    g_test_add_func("/ram/send/small-pages", test_small_pages);
    g_test_add_func("/ram/send/size", test_size);
    g_test_add_func("/ram/send/zero-then-written", test_zero_then_written);
    g_test_add_func("/ram/send/zeros-not-looked-for",
                    test_zeros_not_looked_for);
    g_test_add_func("/ram/send/nothing", test_nothing);
    g_test_add_data_func("/ram/send/unplugged", NULL, test_unplugged);
    g_test_add_data_func("/ram/send/unplugged-deltas", "", test_unplugged);
    g_test_add_func("/ram/send/unplugged-all", test_unplugged_all);
    g_test_add_func("/ram/send/rate", test_rate);
    g_test_add_func("/ram/send/error", test_error);
    g_test_add_func("/ram/delta/passes", test_delta);
    g_test_add_func("/ram/delta/small-cache", test_delta_small_cache);
    g_test_add_func("/ram/delta/resize", test_delta_resize);
    g_test_add_func("/ram/delta/rate", test_delta_rate);
    g_test_add_func("/ram/delta/forget", test_delta_forget);
    g_test_add_func("/ram/delta/bad-size", test_delta_bad_size);
    g_test_add_func("/ram/delta/resize-stalled", test_delta_resize_stalled);
    g_test_add_func("/ram/delta/while-written", test_delta_while_written);
    return g_test_run();
}
