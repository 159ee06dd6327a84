/*
 * Unit tests of multifd: threads that send and threads that load, connected by
 * pairs of sockets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first half has both sides, and compares their memory.  The second half
 * has receivers only, which are told lies.
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/sockets.h"
#include "qemu/thread.h"
#include "qemu/yank.h"
#include "io/channel-socket.h"
#include "area.h"
#include "setup.h"
#include "migration/base/stats.h"
#include "migration/multifd/receivers.h"
#include "migration/multifd/senders.h"
#include "migration/ram/load.h"
#include "migration/ram/stream-sink.h"
#include "migration/wire/packet.h"
#include "migration/wire/stream.h"
#include "migration/yank_functions.h"

#define BITS 12
#define PAGE (1u << BITS)
#define LOW_PAGES 2200
#define PEER (WIRE_PEER_ZERO_RANGE | WIRE_PEER_PAGE_RUN)
#define CHANNELS_MAX 4
#define PAGES_MAX (WIRE_MULTIFD_PACKET_MEMORY / PAGE)
/* How long nothing is to happen, where that is what is tested */
#define NOTHING_US (50 * 1000)

/*
 * Memory of one side
 */

enum { LOW, SHARED, HIGH, ROM, REGIONS };

static const struct {
    const char *name;
    uint64_t pages;
    bool ignored, read_only;
} layout[REGIONS] = {
    [LOW] = { "pc.ram", LOW_PAGES },
    [SHARED] = { "shared", 8, .ignored = true },
    [HIGH] = { "vga.vram", 700 },
    [ROM] = { "pc.rom", 16, .read_only = true },
};

typedef struct Side {
    RamRegion list[REGIONS];
    RamRegions regions;
} Side;

/* The side that is loaded to: receivers ask for it without saying whose. */
static Side *loaded;

static RamRegions *loaded_regions(void)
{
    return &loaded->regions;
}

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
            .host = area_new(size),
            .area = { .kind = POPULATED_UNKNOWN, .size = size },
        };
        r->area.host = r->host;
        if (layout[i].read_only) {
            memset(r->host, 0xcd, size - PAGE);
        }
        if (maps && !r->ignored) {
            r->map = dirty_map_new(r->pages, 18, NULL, NULL);
            r->untouched = g_array_new(false, false, sizeof(RamRange));
        } else if (layout[i].read_only) {
            r->read_only = true;
            area_read_only(r->host, size);
        }
    }
}

static void side_destroy(Side *side)
{
    RAM_REGIONS_FOREACH(r, &side->regions) {
        area_free(r->host, layout[r->index].pages << r->page_bits);
        dirty_map_free(r->map);
        if (r->untouched) {
            g_array_free(r->untouched, true);
        }
    }
}

/*
 * Channels
 */

static QEMUFile *file_of(int fd, bool output)
{
    QIOChannelSocket *ioc = qio_channel_socket_new_fd(fd, &error_abort);
    QEMUFile *f;

    migration_ioc_register_yank(QIO_CHANNEL(ioc));
    f = output ? qemu_file_new_output(QIO_CHANNEL(ioc))
               : qemu_file_new_input(QIO_CHANNEL(ioc));
    object_unref(OBJECT(ioc));
    return f;
}

static void close_file(QEMUFile *f)
{
    migration_ioc_unregister_yank_from_file(f);
    qemu_fclose(f);
}

static unsigned failures;       /* channels that said so; atomic */
static unsigned long arrived[REGIONS][BITS_TO_LONGS(LOW_PAGES)]; /* atomic */

static void note_arrived(RamRegion *r, uint64_t page, uint64_t pages)
{
    g_assert_cmpuint(page + pages, <=, r->pages);
    for (; pages; pages--) {
        set_bit_atomic(page++, arrived[r->index]);
    }
}

static void channel_failed(const Error *err)
{
    g_assert_nonnull(err);
    qatomic_inc(&failures);
}

static bool any_method;         /* the plan of both sides has changes */

static bool takes_any(void)
{
    return any_method;
}

/* Receivers, of which channel i reads from @fds[i] */
static void receive_from(const int *fds, unsigned channels, unsigned bits,
                         MultiFDCompression method)
{
    ReceiversConfig config = {
        .channels = channels,
        .page_bits = bits,
        .method = method,
        .regions = loaded_regions,
        .arrived = note_arrived,
        .failed = channel_failed,
        .takes_any = takes_any,
    };

    qatomic_set(&failures, 0);
    memset(arrived, 0, sizeof(arrived));
    receivers_begin(&config);
    for (unsigned i = 0; i < channels; i++) {
        QEMUFile *f = file_of(fds[i], false);

        qemu_file_set_blocking(f, false);
        g_assert_true(receivers_add(f, i, &error_abort));
    }
}

static void socket_pair(int fds[2])
{
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
}

/* @err has @text in it, is one line, and is freed. */
static void assert_says(Error *err, const char *text)
{
    const char *said;

    g_assert_nonnull(err);
    said = error_get_pretty(err);
    if (!strstr(said, text) || strpbrk(said, "\n\x1b")) {
        g_test_message("\"%s\" instead of \"%s\"", said, text);
        g_test_fail();
    }
    error_free(err);
}

/*
 * Both sides
 */

typedef struct Plan {
    const char *name;
    unsigned channels;
    unsigned bits;              /* of a page; 0: BITS */
    MultiFDCompression method;
    bool zeros_looked_for, zeros_on_main;
    bool each_section;          /* is a mark at its end */
    bool end_on_main;           /* what is left at the end goes there */
    uint32_t peer;              /* what the main channel's loader knows */
    bool records;               /* channels have records after the list */
    bool changes;               /* the method does, now and then */
} Plan;

typedef struct Rig {
    const Plan *plan;
    Side from, to;
    Senders *senders;
    QEMUFile *out, *in;         /* the main channel */
    RamStreamSink sink;
    RamSender main;
    RamLoader loader;
    QemuThread thread;          /* loads the main channel */
    QemuSemaphore *gate;        /* it waits there after its first mark */
    Error *err;                 /* of that */
} Rig;

static Rig *rig;

static bool no_resize(void *opaque, RamRegion *r, uint64_t bytes, Error **errp)
{
    g_assert_not_reached();
}

static const RamLoadOps load_ops = { .resize = no_resize };

static bool meet(RamLoader *loader, Error **errp)
{
    bool ok = receivers_meet(errp);

    if (ok && rig->gate) {
        qemu_sem_wait(g_steal_pointer(&rig->gate));
    }
    return ok;
}

static bool met_at_once(RamLoader *loader, Error **errp)
{
    return true;
}

/* Before each section comes a 1, and a 0 after the last one. */
static void *load_main(void *opaque)
{
    rcu_register_thread();
    while (qemu_get_byte(rig->in) == 1 &&
           ram_load_records(rig->in, &rig->loader, &rig->err)) {
        continue;
    }
    rcu_unregister_thread();
    return NULL;
}

static void rig_connect(const Plan *plan, unsigned bits)
{
    QEMUFile *files[CHANNELS_MAX];
    int ends[CHANNELS_MAX];
    SendersConfig config = {
        .page_bits = bits,
        .method = plan->method,
        .level = 1,
        .tells_zeros = !plan->zeros_on_main,
        .find_zeros = plan->zeros_looked_for,
    };
    int fds[2];

    for (unsigned i = 0; i < plan->channels; i++) {
        socket_pair(fds);
        files[i] = file_of(fds[0], true);
        stream_count_in(files[i], &mig_stats.multifd_bytes);
        ends[i] = fds[1];
    }
    any_method = plan->changes;
    receive_from(ends, plan->channels, bits, plan->method);
    rig->senders = senders_start(files, plan->channels, &config, &error_abort);
    socket_pair(fds);
    rig->out = file_of(fds[0], true);
    rig->in = file_of(fds[1], false);
}

static void send_mark(void)
{
    senders_mark(rig->senders);
    if (!rig->plan->each_section) {
        g_assert_cmpint(ram_stream_sink_mark(&rig->sink), ==, 0);
    }
}

static void begin_section(void)
{
    qemu_put_byte(rig->out, 1);
}

static void end_section(bool mark)
{
    if (mark || rig->plan->each_section) {
        send_mark();
    }
    g_assert_cmpint(ram_sink_end(rig->main.sink), ==, 0);
}

/* @gate: the main channel is read after its first mark when that is posted. */
static void rig_begin(Rig *new, const Plan *plan, QemuSemaphore *gate)
{
    unsigned bits = plan->bits ?: BITS;

    rig = new;
    *rig = (Rig) { .plan = plan, .gate = gate };
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(RATE_LIMIT_DISABLED);
    side_init(&rig->from, bits, true);
    side_init(&rig->to, bits, false);
    loaded = &rig->to;
    rig_connect(plan, bits);
    ram_stream_sink_init(&rig->sink, rig->out, plan->peer);
    ram_sender_init(&rig->main, &rig->from.regions, &rig->sink.sink);
    rig->main.find_zeros = plan->zeros_looked_for;
    rig->loader = (RamLoader) {
        .regions = &rig->to.regions, .ops = &load_ops, .page_bits = bits,
        .meet = meet, .meet_each = plan->each_section,
    };
    qemu_thread_create(&rig->thread, "main", load_main, NULL,
                       QEMU_THREAD_JOINABLE);
    begin_section();
    ram_stream_sink_announce(&rig->sink, &rig->from.regions, 0, NULL);
    end_section(true);
    senders_set_peer(rig->senders,
                     plan->records ? PEER | WIRE_PEER_CHANNEL_RECORDS : PEER);
}

/* As settings are changed in the middle of a migration */
static void change_method(void)
{
    static const MultiFDCompression methods[] = {
        MULTIFD_COMPRESSION_NONE, MULTIFD_COMPRESSION_ZLIB,
#ifdef CONFIG_ZSTD
        MULTIFD_COMPRESSION_ZSTD, MULTIFD_COMPRESSION_AUTO,
#endif
    };
    unsigned i = g_test_rand_int_range(0, ARRAY_SIZE(methods));

    if (g_test_rand_bit()) {
        g_assert_true(senders_set_method(rig->senders, methods[i],
                                         g_test_rand_int_range(1, 9),
                                         &error_abort));
    }
}

/* One section */
static RamSendResult send_section(bool all, bool mark)
{
    RamSendResult result;

    begin_section();
    if (rig->plan->changes) {
        change_method();
    }
    if (mark && !rig->plan->each_section) {
        send_mark();
    }
    result = senders_run(rig->senders, &rig->main, all);
    g_assert_cmpint(result, !=, RAM_SEND_ERROR);
    end_section(false);
    return result;
}

/* All that the maps have */
static void send_pass(void)
{
    bool mark = true;

    while (send_section(false, mark) == RAM_SEND_SOME) {
        uint64_t wait = migration_rate_wait_ns();

        g_usleep(wait / 1000);
        mark = false;
    }
    rig->main.age++;
}

/* What is left, as the switchover does, and then the end */
static void rig_end(bool on_main)
{
    if (on_main) {
        begin_section();
        send_mark();
        rig->main.takes_dirty = true;
        g_assert_cmpint(ram_sender_run(&rig->main, true), ==, RAM_SEND_ALL);
        end_section(true);
    } else {
        g_assert_cmpint(send_section(true, true), ==, RAM_SEND_ALL);
        begin_section();
        end_section(true);
    }
    g_assert_cmpint(senders_settle(rig->senders, &rig->main), ==, 0);
    qemu_put_byte(rig->out, 0);
    qemu_fflush(rig->out);
    qemu_thread_join(&rig->thread);
    g_assert_null(rig->err);
    senders_end(rig->senders, true);
    receivers_end();
    receivers_end();
    g_assert_cmpuint(qatomic_read(&failures), ==, 0);
}

static void rig_free(void)
{
    close_file(rig->out);
    close_file(rig->in);
    side_destroy(&rig->from);
    side_destroy(&rig->to);
    rig = NULL;
}

static void assert_equal(void)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        const RamRegion *a = &rig->from.list[i], *b = &rig->to.list[i];

        if (a->ignored) {
            g_assert_true(buffer_is_zero(b->host, ram_region_bytes(b)));
            continue;
        }
        for (uint64_t page = 0; page < a->pages; page++) {
            g_assert_cmpmem(ram_region_page(a, page), ram_region_page_size(a),
                            ram_region_page(b, page), ram_region_page_size(b));
        }
    }
}

static void never_touched(RamRegion *r, uint64_t first, uint64_t count)
{
    RamRange range = { first, count };

    g_array_append_val(r->untouched, range);
    r->untold_pages += count;
}

static void write_page(RamRegion *r, uint64_t page)
{
    uint8_t *bytes = ram_region_page(r, page);

    for (unsigned i = 0; i < ram_region_page_size(r); i += 8) {
        stq_he_p(bytes + i, g_test_rand_int() * 0x100000001ull);
    }
    dirty_map_set(r->map, page, 1);
}

/* Pages of all kinds: written, zero though dirty, never touched, clean */
static void fill(void)
{
    RAM_REGIONS_FOREACH_SENT(r, &rig->from.regions) {
        const RamRegion *to = &rig->to.list[r->index];

        for (uint64_t i = 0; i < r->pages; i++) {
            if (to->read_only) {
                dirty_map_set(r->map, i, 1);
                continue;
            }
            switch (g_test_rand_int_range(0, 9)) {
            case 0:
                never_touched(r, i, 1);
                memset(ram_region_page(to, i), 1, ram_region_page_size(r));
                break;
            case 1:
                memset(ram_region_page(to, i), 1, ram_region_page_size(r));
                dirty_map_set(r->map, i, 1);
                break;
            case 2:
                break;
            default:
                write_page(r, i);
            }
        }
    }
}

/*
 * Passes
 */

/* A guest that writes to its memory while that is being sent */
typedef struct Writer {
    QemuThread thread;
    RamRegion *region;
    unsigned long *log;         /* a bit a page, atomic */
    bool stop;
} Writer;

static void *write_on(void *opaque)
{
    Writer *w = opaque;
    uint32_t x = 1;

    while (!qatomic_read(&w->stop)) {
        for (unsigned i = 0; i < 500; i++) {
            x = x * 1664525 + 1013904223;
            uint64_t at = (uint64_t)x * 31 % ram_region_bytes(w->region) & ~7;

            /* as a guest does: no order, no lock */
            *(volatile uint64_t *)(w->region->host + at) = x % 5 ? x : 0;
            set_bit_atomic(at >> w->region->page_bits, w->log);
        }
        g_usleep(100);
    }
    return NULL;
}

/* What a guest writes while it is read is a race by design. */
static void writer_start(Writer *w, RamRegion *r)
{
    *w = (Writer) { .region = r, .log = bitmap_new(r->pages) };
#ifdef CONFIG_TSAN
    w->stop = true;
#endif
    qemu_thread_create(&w->thread, "writer", write_on, w, QEMU_THREAD_JOINABLE);
}

static void writer_stop(Writer *w)
{
    qatomic_set(&w->stop, true);
    qemu_thread_join(&w->thread);
}

/* Between two passes */
static void sync_log(Writer *w)
{
    dirty_map_merge_clearing(w->region->map, 0, w->region->pages, w->log, 0);
}

/* Pages that become zero, and that are zero no more */
static void change(void)
{
    RamRegion *r = &rig->from.list[HIGH];

    for (uint64_t i = 0; i < r->pages; i += g_test_rand_int_range(1, 5)) {
        if (g_test_rand_bit()) {
            memset(ram_region_page(r, i), 0, ram_region_page_size(r));
            dirty_map_set(r->map, i, 1);
        } else {
            write_page(r, i);
        }
    }
}

static void test_passes(const void *opaque)
{
    const Plan *plan = opaque;
    Writer w;
    Rig new;

    rig_begin(&new, plan, NULL);
    fill();
    send_pass();
    writer_start(&w, &rig->from.list[LOW]);
    for (unsigned pass = 0; pass < (plan->method ? 3 : 6); pass++) {
        sync_log(&w);
        change();
        send_pass();
    }
    writer_stop(&w);
    sync_log(&w);
    change();
    rig_end(plan->end_on_main);
    assert_equal();
    g_assert_cmpuint(ram_sender_left(&rig->from.regions), ==, 0);
    g_free(w.log);
    rig_free();
}

#define PLAIN .zeros_looked_for = true, .peer = PEER

static const Plan plans[] = {
    { "one", 1, PLAIN },
    { "two", 2, PLAIN },
    { "three", 3, PLAIN },
    { "four", 4, PLAIN },
    { "end-on-main", 3, PLAIN, .end_on_main = true },
    { "each-section", 3, PLAIN, .each_section = true },
    { "zlib", 2, PLAIN, .method = MULTIFD_COMPRESSION_ZLIB },
#ifdef CONFIG_ZSTD
    { "zstd", 3, PLAIN, .method = MULTIFD_COMPRESSION_ZSTD },
#endif
    { "zeros-on-main", 3, .zeros_looked_for = true, .zeros_on_main = true },
    { "zeros-on-main-of-one", 1, PLAIN, .zeros_on_main = true },
    { "zeros-on-main-each-section", 2, .zeros_looked_for = true,
      .zeros_on_main = true, .each_section = true, .end_on_main = true },
    { "no-zeros", 3, .zeros_on_main = true },
    { "small-pages", 3, .bits = 10, .zeros_looked_for = true },
    { "any-peer", 2, .zeros_looked_for = true, .end_on_main = true },

    { "records", 3, PLAIN, .records = true },
    { "records-of-one", 1, PLAIN, .records = true },
    { "records-end-on-main", 2, PLAIN, .records = true, .end_on_main = true },
    { "records-each-section", 3, PLAIN, .records = true, .each_section = true },
    { "records-legacy-zeros", 3, PLAIN, .records = true,
      .zeros_on_main = true },
    { "records-no-zeros", 3, .records = true, .zeros_on_main = true },
    { "records-small-pages", 3, .bits = 10, .zeros_looked_for = true,
      .records = true },
    { "changes", 3, PLAIN, .changes = true },
    { "changes-records", 3, PLAIN, .records = true, .changes = true },
    { "packets-if-compressed", 2, PLAIN, .records = true,
      .method = MULTIFD_COMPRESSION_ZLIB },
};

static const Plan three = { "three", 3, PLAIN };

/* Nothing to send, many times */
static void test_nothing(void)
{
    Rig new;

    rig_begin(&new, &three, NULL);
    for (unsigned i = 0; i < 100; i++) {
        g_assert_cmpint(send_section(i % 2, i % 3), ==, RAM_SEND_ALL);
    }
    rig_end(false);
    g_assert_true(buffer_is_zero(rig->to.list[LOW].host,
                                 ram_region_bytes(&rig->to.list[LOW])));
    rig_free();
}

/* The main channel may not change the list while others bring pages. */
static void test_list(void)
{
    static const struct {
        bool lists, again;
        const char *text;
    } lies[] = {
        { false, false, "before the list of RAM blocks" },
        { true, true, "comes again" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        QIOChannelBuffer *buffer = qio_channel_buffer_new(4096);
        QEMUFile *out = qemu_file_new_output(QIO_CHANNEL(buffer)), *in;
        RamLoader loader;
        RamStreamSink sink;
        Error *err = NULL;
        Side side;

        side_init(&side, BITS, false);
        loader = (RamLoader) {
            .regions = &side.regions, .ops = &load_ops, .page_bits = BITS,
            .meet = met_at_once,
        };
        ram_stream_sink_init(&sink, out, 0);
        if (lies[i].lists) {
            ram_stream_sink_announce(&sink, &side.regions, 0, NULL);
        }
        ram_stream_sink_mark(&sink);
        if (lies[i].again) {
            ram_stream_sink_announce(&sink, &side.regions, 0, NULL);
        }
        ram_sink_end(&sink.sink);
        in = test_input(buffer->data, buffer->usage);
        g_assert_false(ram_load_records(in, &loader, &err));
        assert_says(err, lies[i].text);
        qemu_fclose(in);
        qemu_fclose(out);
        object_unref(OBJECT(buffer));
        side_destroy(&side);
    }
}

/* How zero pages travel, and as how many they count */
static void count_zeros(const Plan *plan, uint64_t zeros, uint64_t least,
                        uint64_t most)
{
    uint64_t bytes;
    Rig new;

    rig_begin(&new, plan, NULL);
    for (unsigned i = 0; i < 1000; i++) {
        memset(ram_region_page(&rig->to.list[LOW], i), 7, PAGE);
    }
    dirty_map_set(rig->from.list[LOW].map, 0, 1000);
    send_pass();
    rig_end(false);
    assert_equal();
    bytes = stat64_get(&mig_stats.multifd_bytes);
    g_assert_cmpuint(stat64_get(&mig_stats.zero_pages), ==, zeros);
    g_assert_cmpuint(stat64_get(&mig_stats.normal_pages), ==, 1000 - zeros);
    g_assert_cmpuint(bytes, >=, least);
    g_assert_cmpuint(bytes, <=, most);
    rig_free();
}

static void test_zeros(void)
{
    static const Plan in_packets = { "", 3, PLAIN };
    static const Plan on_main = { "", 3, PLAIN, .zeros_on_main = true };
    static const Plan none = { "", 3, .peer = PEER, .zeros_on_main = true };
    static const Plan records = { "", 3, PLAIN, .records = true };
    uint64_t packet = sizeof(WireMultifdPages) + PAGES_MAX * sizeof(uint64_t);
    uint64_t marks = 3 * 4 * packet;

    count_zeros(&in_packets, 1000, 8 * packet, 40 * packet);
    count_zeros(&on_main, 1000, 0, marks);
    count_zeros(&records, 1000, 0, marks);
    count_zeros(&none, 0, 1000 * PAGE, 1000 * PAGE + marks + 40 * packet);
}

/* What users are told of the channels, together */
static uint64_t told_bytes(void)
{
    uint64_t bytes = 0;
    SenderView view;

    for (unsigned i = 0; senders_look(rig->senders, i, &view); i++) {
        bytes += view.bytes;
    }
    return bytes;
}

/* It is complete as soon as they rest: a migration may end then. */
static void test_views(void)
{
    static const Plan plan = { "", CHANNELS_MAX, PLAIN };
    RamRegion *low;
    Rig new;

    rig_begin(&new, &plan, NULL);
    low = &rig->from.list[LOW];
    for (unsigned i = 0; i < 3000; i++) {
        write_page(low, i % low->pages);
        g_assert_cmpint(send_section(true, i % 4 == 0), ==, RAM_SEND_ALL);
        g_assert_cmpint(senders_settle(rig->senders, &rig->main), ==, 0);
        g_assert_cmpuint(told_bytes(), ==,
                         stat64_get(&mig_stats.multifd_bytes));
    }
    rig_end(false);
    assert_equal();
    rig_free();
}

/* Who asks is told of each page that takes a channel, and of no other. */
static void check_arrived(const Plan *plan)
{
    RamRegion *low;
    Rig new;

    rig_begin(&new, plan, NULL);
    low = &rig->from.list[LOW];
    for (unsigned i = 0; i < low->pages; i++) {
        if (i % 7 == 0) {
            continue;
        } else if (i % 5 == 0) {
            dirty_map_set(low->map, i, 1);
        } else {
            write_page(low, i);
        }
    }
    send_pass();
    rig_end(false);
    assert_equal();
    for (unsigned i = 0; i < low->pages; i++) {
        g_assert_cmpint(test_bit(i, arrived[LOW]), ==, i % 7 != 0);
    }
    rig_free();
}

static void test_arrived(void)
{
    static const Plan packets = { "", 3, PLAIN };
    static const Plan zlib = { "", 2, PLAIN,
                               .method = MULTIFD_COMPRESSION_ZLIB };
    static const Plan records = { "", 3, PLAIN, .records = true };

    check_arrived(&packets);
    check_arrived(&zlib);
    check_arrived(&records);
}

/* More runs of zeros than are remembered: the others travel as they are. */
static void test_many_zero_runs(void)
{
    static const Plan plan = { "", 1, PLAIN, .zeros_on_main = true };
    RamRegion *low;
    Rig new;

    rig_begin(&new, &plan, NULL);
    low = &rig->from.list[LOW];
    for (unsigned i = 0; i < low->pages; i++) {
        memset(ram_region_page(&rig->to.list[LOW], i), 7, PAGE);
        dirty_map_set(low->map, i, 1);
        if (i % 2) {
            write_page(low, i);
        }
    }
    g_assert_cmpuint(low->pages / 2, >, PACKET_SINK_ZERO_RUNS);
    g_assert_cmpint(send_section(true, true), ==, RAM_SEND_ALL);
    rig_end(false);
    assert_equal();
    rig_free();
}

/*
 * Order
 */

#ifdef CONFIG_TSAN
__attribute__((no_sanitize("thread")))
#endif
static uint8_t look(const uint8_t *byte)
{
    /* volatile, as another thread writes without any order */
    return *(volatile const uint8_t *)byte;
}

/* Whether somebody writes that there in time */
static bool becomes(const uint8_t *byte, uint8_t value, int64_t us)
{
    int64_t end = g_get_monotonic_time() + us;

    while (look(byte) != value) {
        if (g_get_monotonic_time() > end) {
            return false;
        }
        g_usleep(1000);
    }
    return true;
}

/*
 * A page that is to be told of as zero on the main channel, and has been
 * written to since, arrives as what was written, however late the main channel
 * is read.
 */
static void test_untouched_then_written(void)
{
    static const Plan plan = { "", 2, .zeros_looked_for = true };
    QemuSemaphore gate;
    RamRegion *high;
    Rig new;

    qemu_sem_init(&gate, 0);
    rig_begin(&new, &plan, &gate);
    high = &rig->from.list[HIGH];
    never_touched(high, 0, high->pages);
    memset(ram_region_page(high, 300), 5, PAGE);
    dirty_map_set(high->map, 300, 1);
    rig->main.age = 2;
    send_section(true, false);
    becomes(ram_region_page(&rig->to.list[HIGH], 300), 5, G_USEC_PER_SEC);
    qemu_sem_post(&gate);
    rig_end(false);
    assert_equal();
    rig_free();
    qemu_sem_destroy(&gate);
}

/*
 * Limits and failures
 */

static void dirty_all(void)
{
    for (unsigned i = 0; i < rig->from.list[LOW].pages; i++) {
        write_page(&rig->from.list[LOW], i);
    }
}

/* What is sent too early is no more than a turn, and what channels gather. */
static void test_rate(void)
{
    const uint64_t rate = 40 << 20, ahead = 12 << 20;
    int64_t start = g_get_monotonic_time();
    uint64_t bytes;
    double took;
    Rig new;

    rig_begin(&new, &three, NULL);
    migration_rate_set(rate);
    for (unsigned pass = 0; pass < 4; pass++) {
        dirty_all();
        send_pass();
    }
    took = (g_get_monotonic_time() - start) / 1e6;
    bytes = migration_transferred_bytes();
    g_assert_cmpuint(bytes, >, 4 * LOW_PAGES * PAGE);
    migration_rate_set(RATE_LIMIT_DISABLED);
    rig_end(false);
    assert_equal();
    rig_free();
    g_assert_cmpfloat(took, >, (double)(bytes - ahead) / rate);
}

/* What channels have in their hands when a turn is over, and more */
#define TURN_BYTES_MAX (3 * (640 << 10))

/* However late the thread that paces them wakes up */
static void test_rate_of_a_turn(void)
{
    Rig new;

    rig_begin(&new, &three, NULL);
    migration_rate_set(256 << 10);
    for (unsigned turn = 0; turn < 10; turn++) {
        uint64_t before = migration_transferred_bytes();

        dirty_all();
        migration_rate_reset();
        g_assert_cmpint(send_section(false, turn == 0), ==, RAM_SEND_SOME);
        g_assert_cmpuint(migration_transferred_bytes() - before, <,
                         TURN_BYTES_MAX);
    }
    migration_rate_set(RATE_LIMIT_DISABLED);
    rig_end(false);
    assert_equal();
    rig_free();
}

/* However low the limit: what a section begins with may be more than it. */
static void test_least_rate(void)
{
    uint64_t before;
    Rig new;

    rig_begin(&new, &three, NULL);
    dirty_all();
    before = ram_sender_left(&rig->from.regions);
    migration_rate_set(1);
    migration_rate_reset();
    g_assert_cmpint(send_section(false, true), ==, RAM_SEND_SOME);
    g_assert_cmpuint(ram_sender_left(&rig->from.regions), <, before);
    migration_rate_set(RATE_LIMIT_DISABLED);
    rig_end(false);
    assert_equal();
    rig_free();
}

/* Channels to whom nobody listens */
typedef struct Alone {
    Side from;
    Senders *senders;
    QEMUFile *out;
    RamStreamSink sink;
    RamSender main;
    int fds[CHANNELS_MAX];      /* of the other side */
    unsigned channels;
    QemuThread thread;
    RamSendResult result;
} Alone;

static void alone_begin(Alone *a, unsigned channels)
{
    static const SendersConfig config = {
        .page_bits = BITS, .tells_zeros = true, .find_zeros = true,
    };
    QEMUFile *files[CHANNELS_MAX];
    QIOChannelBuffer *buffer = qio_channel_buffer_new(4096);
    int fds[2];

    *a = (Alone) { .channels = channels };
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(RATE_LIMIT_DISABLED);
    side_init(&a->from, BITS, true);
    for (unsigned i = 0; i < channels; i++) {
        socket_pair(fds);
        files[i] = file_of(fds[0], true);
        a->fds[i] = fds[1];
    }
    a->senders = senders_start(files, channels, &config, &error_abort);
    a->out = qemu_file_new_output(QIO_CHANNEL(buffer));
    object_unref(OBJECT(buffer));
    ram_stream_sink_init(&a->sink, a->out, PEER);
    ram_sender_init(&a->main, &a->from.regions, &a->sink.sink);
    memset(a->from.list[LOW].host, 1, ram_region_bytes(&a->from.list[LOW]));
    dirty_map_set(a->from.list[LOW].map, 0, a->from.list[LOW].pages);
}

static void *alone_run(void *opaque)
{
    Alone *a = opaque;

    a->result = senders_run(a->senders, &a->main, true);
    return NULL;
}

/* Until as much waits to be read as there is room for. */
static void wait_for_stall(int fd)
{
    int before = 0, now = 0;

    do {
        before = now;
        g_usleep(NOTHING_US);
        g_assert_cmpint(ioctl(fd, FIONREAD, &now), ==, 0);
    } while (!now || now != before);
}

/* It has failed, and says which channel it was. */
static void alone_end(Alone *a, const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(a->result, ==, RAM_SEND_ERROR);
    g_assert_cmpint(senders_run(a->senders, &a->main, false), ==,
                    RAM_SEND_ERROR);
    senders_mark(a->senders);
    g_assert_cmpint(senders_settle(a->senders, &a->main), <, 0);
    g_assert_cmpint(qemu_file_get_error_obj(a->out, &err), <, 0);
    if (text) {
        assert_says(err, text);
    } else {
        error_free(err);
    }
    senders_end(a->senders, false);
    qemu_fclose(a->out);
    for (unsigned i = 0; i < a->channels; i++) {
        close(a->fds[i]);
    }
    side_destroy(&a->from);
}

static void test_send_shutdown(void)
{
    Alone a;

    alone_begin(&a, 3);
    qemu_thread_create(&a.thread, "migration", alone_run, &a,
                       QEMU_THREAD_JOINABLE);
    for (unsigned i = 0; i < 3; i++) {
        wait_for_stall(a.fds[i]);
    }
    g_assert_cmpint(a.result, ==, 0);
    senders_shutdown(a.senders);
    qemu_thread_join(&a.thread);
    alone_end(&a, NULL);
}

/* Without a turn, and in the middle of marks that nobody reads */
static void test_send_shutdown_marks(void)
{
    Alone a;

    alone_begin(&a, 2);
    for (unsigned i = 0; i < 2000; i++) {
        senders_mark(a.senders);
    }
    wait_for_stall(a.fds[0]);
    senders_shutdown(a.senders);
    a.result = RAM_SEND_ERROR;
    alone_end(&a, NULL);
}

static void test_send_closed(void)
{
    Alone a;

    alone_begin(&a, 3);
    shutdown(a.fds[1], SHUT_RDWR);
    qemu_thread_create(&a.thread, "migration", alone_run, &a,
                       QEMU_THREAD_JOINABLE);
    wait_for_stall(a.fds[0]);
    wait_for_stall(a.fds[2]);
    shutdown(a.fds[0], SHUT_RDWR);
    shutdown(a.fds[2], SHUT_RDWR);
    qemu_thread_join(&a.thread);
    alone_end(&a, "multifd channel ");
}

/* One of them fails to begin: there are none. */
static void test_start_failed(void)
{
    SendersConfig config = {
        .page_bits = BITS, .method = MULTIFD_COMPRESSION_ZLIB, .level = 10,
    };
    QEMUFile *files[2];
    Error *err = NULL;
    int fds[2];

    socket_pair(fds);
    files[0] = file_of(fds[0], true);
    files[1] = file_of(fds[1], true);
    g_assert_null(senders_start(files, 2, &config, &err));
    assert_says(err, "zlib");
    close_file(files[0]);
    close_file(files[1]);
}

/*
 * Receivers alone
 */

typedef struct Raw {
    Side to;
    unsigned channels;
    int fds[CHANNELS_MAX];      /* what is written there they receive */
    QemuThread thread;          /* meets them */
    bool met, done;             /* whether it did; atomic */
    bool records;               /* what channels have, see begin_records() */
    Error *err;
} Raw;

static void raw_begin(Raw *raw, unsigned channels, MultiFDCompression method)
{
    int ends[CHANNELS_MAX], fds[2];

    *raw = (Raw) { .channels = channels };
    side_init(&raw->to, BITS, false);
    loaded = &raw->to;
    for (unsigned i = 0; i < channels; i++) {
        socket_pair(fds);
        raw->fds[i] = fds[0];
        ends[i] = fds[1];
    }
    receive_from(ends, channels, BITS, method);
}

static void raw_close(Raw *raw, unsigned channel)
{
    if (raw->fds[channel] >= 0) {
        close(raw->fds[channel]);
        raw->fds[channel] = -1;
    }
}

static void raw_end(Raw *raw)
{
    receivers_end();
    for (unsigned i = 0; i < raw->channels; i++) {
        raw_close(raw, i);
    }
    side_destroy(&raw->to);
}

static void *meet_once(void *opaque)
{
    Raw *raw = opaque;

    raw->met = receivers_meet(&raw->err);
    qatomic_set(&raw->done, true);
    return NULL;
}

/* As the thread that loads the main channel does */
static void start_to_meet(Raw *raw)
{
    qatomic_set(&raw->done, false);
    qemu_thread_create(&raw->thread, "meets", meet_once, raw,
                       QEMU_THREAD_JOINABLE);
}

static bool has_met(Raw *raw)
{
    qemu_thread_join(&raw->thread);
    return raw->met;
}

/* As it is written, but for what is to be changed */
typedef struct Draft {
    Packet packet;
    const char *block;
    uint64_t table[PAGES_MAX];
    GByteArray *payload;
    WireMultifdPages wire;
} Draft;

static Draft draft(uint32_t flags, const char *block)
{
    return (Draft) {
        .packet = { .flags = flags, .pages_max = PAGES_MAX },
        .block = block,
        .payload = g_byte_array_new(),
    };
}

static void add_page(Draft *d, uint64_t offset, uint8_t fill)
{
    uint8_t page[PAGE];

    memset(page, fill, PAGE);
    g_byte_array_append(d->payload, page, PAGE);
    d->table[d->packet.normal++] = cpu_to_be64(offset);
    d->packet.payload += PAGE;
}

static void add_zero(Draft *d, uint64_t offset)
{
    d->table[d->packet.normal + d->packet.zeros++] = cpu_to_be64(offset);
}

static void fill_wire(Draft *d)
{
    packet_fill(&d->wire, &d->packet, d->block);
}

/* The receiver may have had enough in the middle of it. */
static void say(const Raw *raw, unsigned channel, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len) {
        ssize_t ret = send(raw->fds[channel], at, len, MSG_NOSIGNAL);

        if (ret <= 0) {
            return;
        }
        at += ret;
        len -= ret;
    }
}

/* The first @len bytes of it; frees the payload. */
static void say_part(const Raw *raw, unsigned channel, Draft *d, size_t len)
{
    g_autoptr(GByteArray) all = g_byte_array_new();

    g_byte_array_append(all, (uint8_t *)&d->wire, sizeof(d->wire));
    g_byte_array_append(all, (uint8_t *)d->table, sizeof(d->table));
    g_byte_array_append(all, d->payload->data, d->payload->len);
    g_byte_array_free(d->payload, true);
    say(raw, channel, all->data, MIN(len, all->len));
}

static void say_draft(const Raw *raw, unsigned channel, Draft *d)
{
    fill_wire(d);
    say_part(raw, channel, d, SIZE_MAX);
}

static void add_be64(GByteArray *bytes, uint64_t value)
{
    uint64_t be = cpu_to_be64(value);

    g_byte_array_append(bytes, (uint8_t *)&be, sizeof(be));
}

static void add_be32(GByteArray *bytes, uint32_t value)
{
    uint32_t be = cpu_to_be32(value);

    g_byte_array_append(bytes, (uint8_t *)&be, sizeof(be));
}

static void add_name(GByteArray *bytes, const char *name)
{
    uint8_t len = strlen(name);

    g_byte_array_append(bytes, &len, 1);
    g_byte_array_append(bytes, (uint8_t *)name, len);
}

/* A record with @flags about a page of pc.ram, up to what is special in it */
static void add_record(GByteArray *bytes, unsigned flags, uint64_t offset)
{
    add_be64(bytes, offset | flags);
    if (!(flags & WIRE_RAM_CONTINUE)) {
        add_name(bytes, "pc.ram");
    }
}

static void add_content(GByteArray *bytes, unsigned pages, uint8_t fill)
{
    unsigned before = bytes->len;

    g_byte_array_set_size(bytes, before + pages * PAGE);
    memset(bytes->data + before, fill, pages * PAGE);
}

/* Frees @bytes. */
static void say_bytes(const Raw *raw, unsigned channel, GByteArray *bytes)
{
    say(raw, channel, bytes->data, bytes->len);
    g_byte_array_free(bytes, true);
}

static void say_mark(const Raw *raw, unsigned channel)
{
    Draft d = draft(WIRE_MULTIFD_SYNC, NULL);

    if (raw->records) {
        uint64_t mark = cpu_to_be64(WIRE_RAM_MULTIFD_FLUSH);

        say(raw, channel, &mark, sizeof(mark));
        g_byte_array_free(d.payload, true);
        return;
    }
    say_draft(raw, channel, &d);
}

static void say_page(const Raw *raw, unsigned channel, uint64_t offset,
                     uint8_t fill)
{
    Draft d = draft(0, "pc.ram");

    if (raw->records) {
        GByteArray *bytes = g_byte_array_new();

        add_record(bytes, WIRE_RAM_PAGE, offset);
        add_content(bytes, 1, fill);
        say_bytes(raw, channel, bytes);
        g_byte_array_free(d.payload, true);
        return;
    }
    add_page(&d, offset, fill);
    say_draft(raw, channel, &d);
}

/* The first mark */
static void begin_meeting(Raw *raw)
{
    for (unsigned i = 0; i < raw->channels; i++) {
        say_mark(raw, i);
    }
    g_assert_true(receivers_meet(&error_abort));
}

/* The last packet of a channel */
static void say_records_follow(Raw *raw, unsigned channel)
{
    Draft d = draft(WIRE_MULTIFD_RECORDS, NULL);

    say_draft(raw, channel, &d);
}

/* After the first mark: from now on all have records. */
static void begin_records(Raw *raw)
{
    for (unsigned i = 0; i < raw->channels; i++) {
        say_records_follow(raw, i);
    }
    raw->records = true;
}

/* All channels and the main one come to a mark. */
static void meet_all(Raw *raw)
{
    for (unsigned i = 0; i < raw->channels; i++) {
        say_mark(raw, i);
    }
    g_assert_true(receivers_meet(&error_abort));
}

static void assert_untouched(const Raw *raw)
{
    RAM_REGIONS_FOREACH(r, &((Raw *)raw)->to.regions) {
        if (!r->read_only) {
            g_assert_true(buffer_is_zero(r->host, ram_region_bytes(r)));
        }
    }
}

/*
 * Marks
 */

/*
 * The older version of a page is late on one channel; the newer one is there
 * long before, on another, behind a mark.
 */
static void older_is_late(bool records)
{
    uint8_t *page;
    Raw raw;

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    if (records) {
        begin_records(&raw);
    }
    page = ram_region_page(&raw.to.list[LOW], 7);
    for (uint8_t version = 2; version < 12; version += 2) {
        unsigned late = version / 2 % 2;

        say_mark(&raw, !late);
        say_page(&raw, !late, 7 * PAGE, version);
        say_mark(&raw, !late);
        start_to_meet(&raw);
        g_assert_false(becomes(page, version, NOTHING_US));
        g_assert_false(qatomic_read(&raw.done));
        say_page(&raw, late, 7 * PAGE, version - 1);
        say_mark(&raw, late);
        g_assert_true(has_met(&raw));
        say_mark(&raw, late);
        g_assert_true(receivers_meet(&error_abort));
        g_assert_cmpuint(*page, ==, version);
    }
    raw_end(&raw);
}

static void test_older_is_late(void)
{
    older_is_late(false);
    older_is_late(true);
}

/* Zeros that are gathered are cleared before a channel comes to its mark. */
static void test_zeros_before_mark(void)
{
    GByteArray *bytes = g_byte_array_new();
    uint8_t *page;
    Raw raw;

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    begin_records(&raw);
    page = ram_region_page(&raw.to.list[LOW], 7);
    memset(page, 1, 3 * PAGE);
    add_record(bytes, WIRE_RAM_ZERO_RANGE, 7 * PAGE);
    add_be64(bytes, 3);
    say_bytes(&raw, 0, bytes);
    meet_all(&raw);
    g_assert_true(buffer_is_zero(page, 3 * PAGE));
    say_page(&raw, 1, 8 * PAGE, 5);
    meet_all(&raw);
    g_assert_true(buffer_is_zero(page, PAGE));
    g_assert_cmpuint(page[PAGE], ==, 5);
    g_assert_true(buffer_is_zero(page + 2 * PAGE, PAGE));
    raw_end(&raw);
}

/* Neither does a channel go on before the main one has come to the mark. */
static void test_main_is_late(void)
{
    uint8_t *page;
    Raw raw;

    raw_begin(&raw, 3, MULTIFD_COMPRESSION_NONE);
    page = ram_region_page(&raw.to.list[LOW], 7);
    for (unsigned i = 0; i < 3; i++) {
        say_mark(&raw, i);
        say_page(&raw, i, (7 + i) * PAGE, 9);
    }
    g_assert_false(becomes(page, 9, NOTHING_US));
    assert_untouched(&raw);
    g_assert_true(receivers_meet(&error_abort));
    for (unsigned i = 0; i < 3; i++) {
        g_assert_true(becomes(page + i * PAGE, 9, 20 * G_USEC_PER_SEC));
    }
    raw_end(&raw);
}

/* A mark in the same packet as pages is behind these. */
static void test_mark_with_pages(void)
{
    Draft d = draft(WIRE_MULTIFD_SYNC, "pc.ram");
    Raw raw;

    raw_begin(&raw, 1, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    for (unsigned i = 0; i < PAGES_MAX; i++) {
        add_page(&d, i * PAGE, 3);
    }
    say_draft(&raw, 0, &d);
    g_assert_true(receivers_meet(&error_abort));
    for (unsigned i = 0; i < PAGES_MAX * PAGE; i++) {
        g_assert_cmpuint(raw.to.list[LOW].host[i], ==, 3);
    }
    g_assert_cmpuint(raw.to.list[LOW].host[PAGES_MAX * PAGE], ==, 0);
    raw_end(&raw);
}

static void test_shutdown(void)
{
    Raw raw;

    /* who has the main channel waits, and one of two receivers */
    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    say_mark(&raw, 0);
    start_to_meet(&raw);
    g_usleep(NOTHING_US);
    g_assert_false(qatomic_read(&raw.done));
    receivers_shutdown();
    g_assert_false(has_met(&raw));
    assert_says(raw.err, "multifd");
    receivers_shutdown();
    raw_end(&raw);

    /* receivers at the mark, and nobody else */
    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    say_mark(&raw, 0);
    say_mark(&raw, 1);
    g_usleep(NOTHING_US);
    raw_end(&raw);

    /* in the middle of a packet */
    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    say(&raw, 0, &(uint32_t) { cpu_to_be32(WIRE_MULTIFD_MAGIC) }, 4);
    raw_end(&raw);
    receivers_shutdown();
    receivers_end();
}

/* With no multifd at all */
static void test_not_begun(void)
{
    Error *err = NULL;

    g_assert_false(receivers_meet(&err));
    assert_says(err, "multifd");
    receivers_shutdown();
    receivers_end();
}

static void test_twice(void)
{
    int fds[2];
    QEMUFile *f;
    Error *err = NULL;
    Raw raw;

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    socket_pair(fds);
    f = file_of(fds[0], false);
    g_assert_false(receivers_add(f, 1, &err));
    assert_says(err, "channel 1");
    close_file(f);
    close(fds[1]);
    /* the others are as they were */
    begin_meeting(&raw);
    raw_end(&raw);
}

/* Many short lives, ended at any moment */
static void test_ends(void)
{
    for (unsigned i = 0; i < 40; i++) {
        Raw raw;

        raw_begin(&raw, 1 + i % CHANNELS_MAX, MULTIFD_COMPRESSION_NONE);
        begin_meeting(&raw);
        for (unsigned n = 0; n < raw.channels; n++) {
            say_page(&raw, n, n * PAGE, 1);
            if (i & 4) {
                say_mark(&raw, n);
            }
        }
        g_usleep(g_test_rand_int_range(0, 1000));
        raw_end(&raw);
    }
}

/*
 * Channels that end
 */

static void closed_after(size_t len, bool before_meeting)
{
    Draft d = draft(0, "pc.ram");
    Raw raw;

    raw_begin(&raw, 3, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    say_mark(&raw, 0);
    say_mark(&raw, 2);
    for (unsigned i = 0; i < 5; i++) {
        add_page(&d, i * PAGE, 1);
    }
    fill_wire(&d);
    say_part(&raw, 1, &d, len);
    if (!before_meeting) {
        start_to_meet(&raw);
        g_usleep(NOTHING_US);
        g_assert_false(qatomic_read(&raw.done));
    }
    raw_close(&raw, 1);
    if (before_meeting) {
        g_usleep(NOTHING_US / 10);
        start_to_meet(&raw);
    }
    g_assert_false(has_met(&raw));
    assert_says(raw.err, "multifd channel 1: ");
    raw_end(&raw);
}

static void test_closed(void)
{
    static const size_t lens[] = {
        0, 1, 319, 320, 330, 320 + 1023, 320 + 1024, 320 + 1024 + 1,
        320 + 1024 + 3 * PAGE, 320 + 1024 + 5 * PAGE - 1, SIZE_MAX,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
        closed_after(lens[i], true);
        closed_after(lens[i], false);
    }
}

/* After their last mark they may. */
static void test_closed_at_end(void)
{
    Raw raw;

    raw_begin(&raw, 3, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    for (unsigned i = 0; i < 3; i++) {
        say_mark(&raw, i);
        raw_close(&raw, i);
    }
    g_assert_true(receivers_meet(&error_abort));
    raw_end(&raw);
    g_assert_cmpuint(qatomic_read(&failures), ==, 0);
}

/*
 * Lies
 */

typedef void Lie(Draft *d);

typedef struct LieCase {
    const char *name;
    Lie *make;                  /* the packet, but for its fixed part */
    const char *text;           /* a part of the error; NULL: it is none */
    Lie *change;                /* of the fixed part, or NULL */
    MultiFDCompression method;
    bool early;                 /* before the first mark */
} LieCase;

static void make_page(Draft *d)
{
    add_page(d, 0, 0x55);
}

static void make_zero(Draft *d)
{
    add_zero(d, 0);
}

static void make_nothing(Draft *d)
{
}

static void make_behind_end(Draft *d)
{
    add_page(d, LOW_PAGES * PAGE, 1);
}

static void make_last(Draft *d)
{
    add_page(d, (LOW_PAGES - 1) * PAGE, 0);
}

static void make_second_behind_end(Draft *d)
{
    add_page(d, (LOW_PAGES - 1) * PAGE, 0);
    add_page(d, LOW_PAGES * PAGE, 1);
}

static void make_far(Draft *d)
{
    add_page(d, -(uint64_t)PAGE, 1);
}

static void make_around(Draft *d)
{
    add_page(d, 1ull << 63, 1);
}

static void make_odd(Draft *d)
{
    add_page(d, PAGE + 8, 1);
}

static void make_zero_behind_end(Draft *d)
{
    add_zero(d, LOW_PAGES * PAGE);
}

static void make_zero_far(Draft *d)
{
    add_zero(d, -(uint64_t)PAGE);
}

static void make_zero_odd(Draft *d)
{
    add_zero(d, 1);
}

static void make_unknown(Draft *d)
{
    d->block = "nosuch";
    add_page(d, 0, 1);
}

static void make_escape(Draft *d)
{
    d->block = "\x1b[2J\n";
    add_page(d, 0, 1);
}

static void make_no_name(Draft *d)
{
    d->block = NULL;
    add_page(d, 0, 1);
}

static void make_ignored(Draft *d)
{
    d->block = "shared";
    add_page(d, 0, 1);
}

static void make_ignored_zero(Draft *d)
{
    d->block = "shared";
    add_zero(d, 0);
}

/* Of 16 pages, the last one is zero, and the others are not. */
static void make_rom(Draft *d)
{
    d->block = "pc.rom";
    for (unsigned i = 0; i < 15; i++) {
        add_page(d, i * PAGE, 0xcd);
    }
    add_zero(d, 15 * PAGE);
}

static void make_other_rom(Draft *d)
{
    d->block = "pc.rom";
    add_page(d, 0, 0xcd);
    add_page(d, 3 * PAGE, 0xce);
}

static void make_zero_rom(Draft *d)
{
    d->block = "pc.rom";
    add_zero(d, 14 * PAGE);
}

static void make_full(Draft *d)
{
    for (unsigned i = 0; i < PAGES_MAX; i++) {
        add_page(d, i * 17 * PAGE, 0);
    }
}

static void make_twice(Draft *d)
{
    add_page(d, PAGE, 1);
    add_page(d, PAGE, 0);
    add_zero(d, PAGE);
}

static void make_noise(Draft *d)
{
    add_page(d, 0, 0xee);
    d->packet.flags = WIRE_MULTIFD_ZLIB;
}

static void make_empty_zlib(Draft *d)
{
    add_page(d, 0, 0);
    g_byte_array_set_size(d->payload, 0);
    d->packet.payload = 0;
    d->packet.flags = WIRE_MULTIFD_ZLIB;
}

static void make_zlib(Draft *d)
{
    add_page(d, 0, 1);
    d->packet.flags = WIRE_MULTIFD_ZLIB;
}

static void make_zstd(Draft *d)
{
    add_page(d, 0, 1);
    d->packet.flags = WIRE_MULTIFD_ZSTD;
}

static void make_qatzip(Draft *d)
{
    add_page(d, 0, 1);
    d->packet.flags = WIRE_MULTIFD_QATZIP;
}

static void make_short(Draft *d)
{
    add_page(d, 0, 0);
    d->packet.payload--;
}

static void make_long(Draft *d)
{
    add_page(d, 0, 0);
    d->packet.payload++;
}

static void make_device(Draft *d)
{
    d->packet.flags = WIRE_MULTIFD_DEVICE_STATE;
}

static void change_magic(Draft *d)
{
    d->wire.head.magic ^= 1;
}

static void change_version(Draft *d)
{
    stl_be_p(&d->wire.head.version, 3);
}

static void change_flags(Draft *d)
{
    stl_be_p(&d->wire.head.flags, 0x80);
}

static void change_max(Draft *d)
{
    stl_be_p(&d->wire.pages_max, PAGES_MAX + 1);
}

static void change_normal(Draft *d)
{
    stl_be_p(&d->wire.normal_pages, PAGES_MAX + 1);
}

static void change_zeros(Draft *d)
{
    stl_be_p(&d->wire.zero_pages, PAGES_MAX);
}

static void change_payload(Draft *d)
{
    stl_be_p(&d->wire.payload_len, UINT32_MAX);
}

static void change_name(Draft *d)
{
    memset(d->wire.block, 'a', sizeof(d->wire.block));
}

#define ZLIB MULTIFD_COMPRESSION_ZLIB

static const LieCase lies[] = {
    { "last-page", make_last, NULL },
    { "full", make_full, NULL },
    { "same-rom", make_rom, NULL },
    { "nothing", make_nothing, NULL },
    { "page-twice", make_twice, NULL },

    { "magic", make_page, "damaged", change_magic },
    { "version", make_page, "version 3", change_version },
    { "flags", make_page, "unknown flags", change_flags },
    { "pages-max", make_page, "at most 128", change_max },
    { "normal", make_page, "room for 128", change_normal },
    { "zeros", make_page, "room for 128", change_zeros },
    { "payload", make_page, "4294967295 bytes", change_payload },
    { "endless-name", make_page, "does not end", change_name },

    { "early", make_page, "before the list", .early = true },
    { "early-zero", make_zero, "before the list", .early = true },

    { "behind-end", make_behind_end, "'pc.ram'" },
    { "second-behind-end", make_second_behind_end, "'pc.ram'" },
    { "far", make_far, "0xfffffffffffff000" },
    { "around", make_around, "0x8000000000000000" },
    { "odd", make_odd, "0x1008" },
    { "zero-behind-end", make_zero_behind_end, "0x898000" },
    { "zero-far", make_zero_far, "0xfffffffffffff000" },
    { "zero-odd", make_zero_odd, "0x1" },
    { "unknown-block", make_unknown, "no RAM block 'nosuch'" },
    { "escape", make_escape, "no RAM block '\\033[2J\\n'" },
    { "no-name", make_no_name, "no RAM block ''" },
    { "ignored", make_ignored, "'shared' is shared" },
    { "ignored-zero", make_ignored_zero, "'shared' is shared" },
    { "other-rom", make_other_rom, "page 0x3000" },
    { "zero-rom", make_zero_rom, "page 0xe000" },
    { "short", make_short, "4095 bytes" },
    { "long", make_long, "4097 bytes" },
    { "device-state", make_device, "state of a device" },

    { "zlib-not-set", make_zlib, "multifd-compression" },
    { "zstd-not-set", make_zstd, "multifd-compression" },
    { "qatzip-not-set", make_qatzip, "multifd-compression" },
    { "not-zlib", make_page, "multifd-compression", .method = ZLIB },
    { "zstd-for-zlib", make_zstd, "multifd-compression", .method = ZLIB },
    { "zlib-noise", make_noise, "zlib", .method = ZLIB },
    { "zlib-empty", make_empty_zlib, "less", .method = ZLIB },
};

static void check_lie(const LieCase *lie, unsigned channels)
{
    unsigned liar = channels - 1;
    Draft d = draft(0, "pc.ram");
    Raw raw;

    raw_begin(&raw, channels, lie->method);
    if (!lie->early) {
        begin_meeting(&raw);
    }
    lie->make(&d);
    fill_wire(&d);
    if (lie->change) {
        lie->change(&d);
    }
    say_part(&raw, liar, &d, SIZE_MAX);
    if (!lie->text) {
        meet_all(&raw);
    } else {
        Error *err = NULL;
        g_autofree char *who = g_strdup_printf("multifd channel %u: ", liar);

        g_assert_false(receivers_meet(&err));
        g_assert_true(g_str_has_prefix(error_get_pretty(err), who));
        assert_says(g_steal_pointer(&err), lie->text);
        g_assert_false(receivers_meet(&err));
        error_free_or_abort(&err);
    }
    receivers_end();
    g_assert_cmpuint(qatomic_read(&failures), ==, lie->text ? 1 : 0);
    assert_untouched(&raw);
    raw_end(&raw);
}

static void test_lie(const void *opaque)
{
    check_lie(opaque, 1);
    check_lie(opaque, 3);
}

/*
 * Records that lie
 */

typedef struct RecordLie {
    const char *name;
    void (*make)(GByteArray *bytes);
    const char *text;           /* a part of the error; NULL: it is none */
} RecordLie;

static void records_of_page(GByteArray *b, unsigned flags, uint64_t offset)
{
    add_record(b, flags, offset);
    add_content(b, 1, 1);
}

static void record_run_behind_end(GByteArray *b)
{
    add_record(b, WIRE_RAM_RUN, (LOW_PAGES - 1) * PAGE);
    add_be32(b, 2);
    add_content(b, 2, 1);
}

static void record_run_too_long(GByteArray *b)
{
    add_record(b, WIRE_RAM_RUN, 0);
    add_be32(b, WIRE_RAM_RUN_MAX + 1);
}

static void record_run_of_none(GByteArray *b)
{
    add_record(b, WIRE_RAM_RUN, 0);
    add_be32(b, 0);
}

static void record_page_behind_end(GByteArray *b)
{
    records_of_page(b, WIRE_RAM_PAGE, LOW_PAGES * PAGE);
}

static void record_zeros_behind_end(GByteArray *b)
{
    add_record(b, WIRE_RAM_ZERO_RANGE, PAGE);
    add_be64(b, UINT64_MAX);
}

static void record_of_no_block(GByteArray *b)
{
    records_of_page(b, WIRE_RAM_PAGE | WIRE_RAM_CONTINUE, 0);
}

static void record_unknown_block(GByteArray *b)
{
    add_be64(b, WIRE_RAM_PAGE);
    add_name(b, "nosuch");
}

static void record_ignored(GByteArray *b)
{
    add_be64(b, WIRE_RAM_PAGE);
    add_name(b, "shared");
    add_content(b, 1, 1);
}

static void record_rom(GByteArray *b)
{
    add_be64(b, WIRE_RAM_PAGE);
    add_name(b, "pc.rom");
    add_content(b, 1, 0xce);
}

static void record_list(GByteArray *b)
{
    add_be64(b, WIRE_RAM_MEM_SIZE | LOW_PAGES * PAGE);
    add_name(b, "pc.ram");
    add_be64(b, LOW_PAGES * PAGE);
}

static void record_end(GByteArray *b)
{
    add_be64(b, WIRE_RAM_EOS);
    add_be64(b, 0);
    add_be64(b, 0);
}

static void record_difference(GByteArray *b)
{
    static const uint8_t code[] = { WIRE_XBZRLE_ENCODING, 0, 3, 0, 1, 9 };

    add_record(b, WIRE_RAM_XBZRLE, 0);
    g_byte_array_append(b, code, sizeof(code));
}

static void record_hook(GByteArray *b)
{
    add_be64(b, WIRE_RAM_HOOK);
}

static void record_two_kinds(GByteArray *b)
{
    add_be64(b, WIRE_RAM_PAGE | WIRE_RAM_ZERO);
}

static void record_packet(GByteArray *b)
{
    WireMultifdPages wire;
    Packet packet = { .flags = WIRE_MULTIFD_SYNC, .pages_max = PAGES_MAX };

    packet_fill(&wire, &packet, NULL);
    g_byte_array_append(b, (uint8_t *)&wire, sizeof(wire));
}

static const RecordLie record_lies[] = {
    { "run-behind-end", record_run_behind_end, "'pc.ram' at 0x" },
    { "run-too-long", record_run_too_long, "513 pages" },
    { "run-of-none", record_run_of_none, "A run of 0 pages" },
    { "page-behind-end", record_page_behind_end, "no page at 0x898000" },
    { "zeros-behind-end", record_zeros_behind_end, "zero pages" },
    { "no-block", record_of_no_block, "does not say of which RAM block" },
    { "unknown-block", record_unknown_block, "no RAM block 'nosuch'" },
    { "ignored", record_ignored, "'shared' is shared" },
    { "rom", record_rom, "read-only" },
    { "list", record_list, "may only be on the main one" },
    { "end-of-section", record_end, "stands where each packet has" },
    { "difference", record_difference, "may only be on the main one" },
    { "hook", record_hook, "RDMA" },
    { "two-kinds", record_two_kinds, "unknown type 0xa" },
    { "packet", record_packet, "unknown type 0x1" },
};

static void assert_refused(Raw *raw, unsigned liar, const char *text)
{
    g_autofree char *who = g_strdup_printf("multifd channel %u: ", liar);
    Error *err = NULL;

    g_assert_false(receivers_meet(&err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err), who));
    assert_says(err, text);
    receivers_end();
    g_assert_cmpuint(qatomic_read(&failures), ==, 1);
    assert_untouched(raw);
    raw_end(raw);
}

static void test_record_lie(const void *opaque)
{
    const RecordLie *lie = opaque;

    for (unsigned channels = 1; channels < 4; channels += 2) {
        GByteArray *bytes = g_byte_array_new();
        Raw raw;

        raw_begin(&raw, channels, MULTIFD_COMPRESSION_NONE);
        begin_meeting(&raw);
        begin_records(&raw);
        lie->make(bytes);
        say_bytes(&raw, channels - 1, bytes);
        assert_refused(&raw, channels - 1, lie->text);
    }
}

/* Known at a mark that they have come to: all have them, or only some. */
static void test_records_known(void)
{
    Raw raw;

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    g_assert_false(receivers_have_records());
    say_mark(&raw, 0);
    say_records_follow(&raw, 1);
    raw.records = true;
    say_mark(&raw, 1);
    g_assert_true(receivers_meet(&error_abort));
    g_assert_false(receivers_have_records());
    raw_end(&raw);

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    begin_records(&raw);
    meet_all(&raw);
    g_assert_true(receivers_have_records());
    raw_end(&raw);
    g_assert_false(receivers_have_records());
}

/* The packet that says that records follow, where they may not, or with more */
static void test_records_not_now(void)
{
    Draft d;
    Raw raw;

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    say_records_follow(&raw, 1);
    assert_refused(&raw, 1, "before the list");

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_ZLIB);
    begin_meeting(&raw);
    say_records_follow(&raw, 1);
    assert_refused(&raw, 1, "multifd-compression");

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    d = draft(WIRE_MULTIFD_RECORDS | WIRE_MULTIFD_SYNC, NULL);
    say_draft(&raw, 1, &d);
    assert_refused(&raw, 1, "0x40000001");

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    d = draft(WIRE_MULTIFD_RECORDS, "pc.ram");
    add_page(&d, 0, 1);
    say_draft(&raw, 1, &d);
    assert_refused(&raw, 1, "has pages");
}

/*
 * Pages that go elsewhere
 */

static uint64_t went_elsewhere[2];      /* pages, by channel; atomic */

static bool elsewhere_data(void *opaque, QEMUFile *f, RamRegion *r,
                           uint64_t page, uint64_t pages, Error **errp)
{
    g_autofree uint8_t *content = g_malloc(pages * PAGE);

    if (qemu_get_buffer(f, content, pages * PAGE) != pages * PAGE) {
        error_setg(errp, "The stream ends");
        return false;
    }
    qatomic_add((uint64_t *)opaque, pages);
    return true;
}

static bool elsewhere_zeros(void *opaque, RamRegion *r, uint64_t page,
                            uint64_t pages, Error **errp)
{
    qatomic_add((uint64_t *)opaque, pages);
    return true;
}

static void *elsewhere_opaque(unsigned id)
{
    return &went_elsewhere[id];
}

static const RamPagesOps elsewhere_ops = {
    .data = elsewhere_data, .zeros = elsewhere_zeros,
};
static const ReceiversPlaces elsewhere = {
    .ops = &elsewhere_ops, .opaque = elsewhere_opaque,
};

static void begin_diverted(Raw *raw, bool records)
{
    raw_begin(raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(raw);
    if (records) {
        begin_records(raw);
    }
    memset(went_elsewhere, 0, sizeof(went_elsewhere));
    say_mark(raw, 0);
    say_mark(raw, 1);
    g_assert_true(receivers_divert(&elsewhere, &error_abort));
}

/* From one mark to the next one, and no longer */
static void test_diverted(void)
{
    GByteArray *bytes = g_byte_array_new();
    uint8_t *page;
    Raw raw;

    begin_diverted(&raw, true);
    page = ram_region_page(&raw.to.list[LOW], 7);
    add_record(bytes, WIRE_RAM_ZERO_RANGE, 9 * PAGE);
    add_be64(bytes, 3);
    say_bytes(&raw, 0, bytes);
    say_page(&raw, 1, 7 * PAGE, 5);
    meet_all(&raw);
    assert_untouched(&raw);
    g_assert_cmpuint(went_elsewhere[0], ==, 3);
    g_assert_cmpuint(went_elsewhere[1], ==, 1);
    say_page(&raw, 1, 7 * PAGE, 6);
    meet_all(&raw);
    g_assert_cmpuint(*page, ==, 6);
    g_assert_cmpuint(went_elsewhere[1], ==, 1);
    receivers_stop();
    receivers_stop();
    raw_end(&raw);
}

static void assert_fails_itself(Raw *raw, const char *text)
{
    int64_t end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    Error *err = NULL;

    while (!qatomic_read(&failures) && g_get_monotonic_time() < end) {
        g_usleep(1000);
    }
    g_assert_cmpuint(qatomic_read(&failures), >=, 1);
    g_assert_false(receivers_check(&err));
    assert_says(err, text);
    receivers_stop();
    assert_untouched(raw);
    raw_end(raw);
}

/* Who waits for a page is told at once that it does not come. */
static void test_diverted_fails(void)
{
    GByteArray *bytes = g_byte_array_new();
    Raw raw;

    begin_diverted(&raw, true);
    raw_close(&raw, 1);
    assert_fails_itself(&raw, "multifd channel 1: ");

    begin_diverted(&raw, true);
    add_be64(bytes, WIRE_RAM_EOS);
    say_bytes(&raw, 0, bytes);
    assert_fails_itself(&raw, "Records end in postcopy");

    begin_diverted(&raw, false);
    assert_fails_itself(&raw, "only be records");
}

/*
 * Channels that are accepted in place of others, after a break
 */

static bool add_another(unsigned id, int *fd, Error **errp)
{
    QEMUFile *f;
    int fds[2];

    socket_pair(fds);
    f = file_of(fds[1], false);
    qemu_file_set_blocking(f, false);
    *fd = fds[0];
    if (receivers_add(f, id, errp)) {
        return true;
    }
    qemu_fclose(f);
    return false;
}

static void refuse_another(unsigned id, const char *text)
{
    Error *err = NULL;
    int fd;

    g_assert_false(add_another(id, &fd, &err));
    assert_says(err, text);
    close(fd);
}

static void begin_again(Raw *raw)
{
    raw_begin(raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(raw);
    receivers_stop();
    memset(went_elsewhere, 0, sizeof(went_elsewhere));
    receivers_begin_again(&elsewhere);
    for (unsigned i = 0; i < raw->channels; i++) {
        raw_close(raw, i);
        g_assert_false(receivers_complete());
        g_assert_true(add_another(i, &raw->fds[i], &error_abort));
    }
    g_assert_true(receivers_complete());
}

/* Pages go elsewhere from the beginning on, and after the last mark do not. */
static void test_again(void)
{
    uint8_t *page;
    Raw raw;

    begin_again(&raw);
    page = ram_region_page(&raw.to.list[LOW], 7);
    refuse_another(0, "channel 0 already");
    refuse_another(1, "channel 1 already");
    begin_records(&raw);
    say_page(&raw, 0, 7 * PAGE, 5);
    say_mark(&raw, 0);
    say_mark(&raw, 1);
    g_assert_true(receivers_divert(&elsewhere, &error_abort));
    g_assert_cmpuint(qatomic_read(&went_elsewhere[0]), ==, 1);
    say_page(&raw, 1, 7 * PAGE, 6);
    meet_all(&raw);
    g_assert_cmpuint(went_elsewhere[1], ==, 1);
    assert_untouched(&raw);
    say_page(&raw, 1, 7 * PAGE, 8);
    meet_all(&raw);
    g_assert_cmpuint(*page, ==, 8);
    g_assert_true(receivers_have_records());
    receivers_stop();
    refuse_another(1, "not expected");
    raw_end(&raw);
    refuse_another(1, "not expected");
}

/* What is wrong on one of them fails at once, without a mark. */
static void test_again_fails(void)
{
    Draft d = draft(0, "pc.ram");
    Raw raw;

    begin_again(&raw);
    raw_close(&raw, 1);
    assert_fails_itself(&raw, "multifd channel 1: ");

    begin_again(&raw);
    add_page(&d, 0, 1);
    say_draft(&raw, 1, &d);
    assert_fails_itself(&raw, "only be records");

    begin_again(&raw);
    say_mark(&raw, 1);
    assert_fails_itself(&raw, "only be records");
}

static void wait_for_room(unsigned id)
{
    int64_t end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;

    while (receivers_has(id) && g_get_monotonic_time() < end) {
        g_usleep(1000);
    }
    g_assert_false(receivers_has(id));
}

/*
 * Channels of an attempt that is over, which come before those of the next one
 * or in between, and end before memory comes
 */
static void test_room(void)
{
    int before = receivers_room_ms;
    Raw raw;

    receivers_room_ms = G_MAXINT;
    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    raw_close(&raw, 0);
    raw_close(&raw, 1);
    wait_for_room(0);
    wait_for_room(1);
    start_to_meet(&raw);
    g_assert_true(add_another(0, &raw.fds[0], &error_abort));
    g_assert_true(receivers_has(0));
    g_usleep(NOTHING_US);
    g_assert_true(add_another(1, &raw.fds[1], &error_abort));
    g_assert_true(receivers_check(&error_abort));
    refuse_another(1, "channel 1 already");
    say_mark(&raw, 0);
    say_mark(&raw, 1);
    g_assert_true(has_met(&raw));
    meet_all(&raw);
    assert_untouched(&raw);
    raw_end(&raw);
    receivers_room_ms = before;
}

/*
 * What was refused stays so, one that is lost is not waited for, and who has
 * met is not replaced.
 */
static void test_no_room(void)
{
    Error *err = NULL;
    Raw raw;

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    raw_close(&raw, 0);
    wait_for_room(0);
    error_setg(&err, "it was refused");
    receivers_fail(err);
    error_free(err);
    err = NULL;
    g_assert_true(add_another(0, &raw.fds[0], &error_abort));
    g_assert_false(receivers_check(&err));
    assert_says(err, "multifd channel 0: ");
    raw_end(&raw);

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    say_mark(&raw, 1);
    raw_close(&raw, 0);
    start_to_meet(&raw);
    g_assert_false(has_met(&raw));
    assert_says(raw.err, "multifd channel 0: ");
    raw_end(&raw);

    raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
    begin_meeting(&raw);
    raw_close(&raw, 0);
    g_usleep(NOTHING_US);
    refuse_another(0, "channel 0 already");
    raw_end(&raw);
}

/* They need not all come, and whoever waits is told so. */
static void test_again_missing(void)
{
    Raw raw;

    begin_again(&raw);
    start_to_meet(&raw);
    receivers_shutdown();
    g_assert_false(has_met(&raw));
    error_free(raw.err);
    receivers_stop();
    raw_end(&raw);
}

/* Channels that end within a record, or between two */
static void test_records_closed(void)
{
    static const size_t lens[] = {
        0, 1, 7, 8, 9, 14, 15, 18, 19, 20, 18 + PAGE, 18 + 2 * PAGE
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
        GByteArray *bytes = g_byte_array_new();
        Raw raw;

        raw_begin(&raw, 2, MULTIFD_COMPRESSION_NONE);
        begin_meeting(&raw);
        begin_records(&raw);
        add_record(bytes, WIRE_RAM_RUN, 0);
        add_be32(bytes, 2);
        add_content(bytes, 2, 1);
        g_byte_array_set_size(bytes, MIN(lens[i], bytes->len));
        say_bytes(&raw, 1, bytes);
        raw_close(&raw, 1);
        say_mark(&raw, 0);
        start_to_meet(&raw);
        g_assert_false(has_met(&raw));
        assert_says(raw.err, "multifd channel 1: ");
        raw_end(&raw);
    }
}

/* Records changed in a few bits: nothing but memory of regions is written. */
static void test_records_damaged(void)
{
    for (unsigned round = 0; round < 150; round++) {
        GByteArray *bytes = g_byte_array_new();
        Error *err = NULL;
        Raw raw;

        raw_begin(&raw, 1, MULTIFD_COMPRESSION_NONE);
        begin_meeting(&raw);
        begin_records(&raw);
        add_record(bytes, WIRE_RAM_ZERO_RANGE, 40 * PAGE);
        add_be64(bytes, 9);
        add_record(bytes, WIRE_RAM_RUN | WIRE_RAM_CONTINUE, 7 * PAGE);
        add_be32(bytes, 3);
        for (int n = g_test_rand_int_range(1, 4); n; n--) {
            bytes->data[g_test_rand_int_range(0, bytes->len)] ^=
                1 << g_test_rand_int_range(0, 8);
        }
        add_content(bytes, 3, 1);
        say_bytes(&raw, 0, bytes);
        say_mark(&raw, 0);
        raw_close(&raw, 0);
        if (!receivers_meet(&err)) {
            error_free_or_abort(&err);
        }
        raw_end(&raw);
    }
}

/* What is not a packet at all */
static void test_noise(void)
{
    for (unsigned round = 0; round < 40; round++) {
        uint8_t noise[5000];
        Error *err = NULL;
        Raw raw;

        raw_begin(&raw, 2, round % 2 ? ZLIB : MULTIFD_COMPRESSION_NONE);
        begin_meeting(&raw);
        for (unsigned i = 0; i < sizeof(noise); i++) {
            noise[i] = g_test_rand_int();
        }
        say(&raw, round % 2, noise, sizeof(noise));
        g_assert_false(receivers_meet(&err));
        assert_says(err, "damaged");
        receivers_end();
        assert_untouched(&raw);
        raw_end(&raw);
    }
}

/* Packets changed in a few bytes: nothing but memory of regions is written. */
static void test_damaged(void)
{
    for (unsigned round = 0; round < 150; round++) {
        Draft d = draft(0, "pc.ram");
        Error *err = NULL;
        Raw raw;

        raw_begin(&raw, 1, MULTIFD_COMPRESSION_NONE);
        begin_meeting(&raw);
        for (unsigned i = 0; i < 4; i++) {
            add_page(&d, g_test_rand_int_range(0, LOW_PAGES) * PAGE, i);
            d.table[64 + i] = cpu_to_be64(g_test_rand_int_range(0, LOW_PAGES) *
                                          PAGE);
        }
        fill_wire(&d);
        for (int n = g_test_rand_int_range(1, 4); n; n--) {
            uint8_t *bytes = g_test_rand_bit() ? (uint8_t *)&d.wire
                                               : (uint8_t *)d.table;

            bytes[g_test_rand_int_range(0, g_test_rand_bit() ? 72 : 36)] ^=
                1 << g_test_rand_int_range(0, 8);
        }
        say_part(&raw, 0, &d, SIZE_MAX);
        say_mark(&raw, 0);
        raw_close(&raw, 0);
        if (!receivers_meet(&err)) {
            error_free_or_abort(&err);
        }
        raw_end(&raw);
    }
}

static void add_plans(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plans); i++) {
        g_autofree char *path = g_strdup_printf("/multifd/passes/%s",
                                                plans[i].name);

        g_test_add_data_func(path, &plans[i], test_passes);
    }
}

static void add_lies(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autofree char *path = g_strdup_printf("/multifd/lie/%s",
                                                lies[i].name);

        g_test_add_data_func(path, &lies[i], test_lie);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(record_lies); i++) {
        g_autofree char *path = g_strdup_printf("/multifd/records/lie/%s",
                                                record_lies[i].name);

        g_test_add_data_func(path, &record_lies[i], test_record_lie);
    }
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    yank_register_instance(MIGRATION_YANK_INSTANCE, &error_abort);
    add_plans();
    g_test_add_func("/multifd/nothing", test_nothing);
    g_test_add_func("/multifd/list", test_list);
    g_test_add_func("/multifd/zeros", test_zeros);
    g_test_add_func("/multifd/many-zero-runs", test_many_zero_runs);
    g_test_add_func("/multifd/untouched-then-written",
                    test_untouched_then_written);
    g_test_add_func("/multifd/arrived", test_arrived);
    g_test_add_func("/multifd/rate", test_rate);
    g_test_add_func("/multifd/rate-of-a-turn", test_rate_of_a_turn);
    g_test_add_func("/multifd/least-rate", test_least_rate);
    g_test_add_func("/multifd/views", test_views);
    g_test_add_func("/multifd/send/shutdown", test_send_shutdown);
    g_test_add_func("/multifd/send/shutdown-marks", test_send_shutdown_marks);
    g_test_add_func("/multifd/send/closed", test_send_closed);
    g_test_add_func("/multifd/send/start-failed", test_start_failed);
    g_test_add_func("/multifd/mark/older-is-late", test_older_is_late);
    g_test_add_func("/multifd/mark/main-is-late", test_main_is_late);
    g_test_add_func("/multifd/mark/zeros-before", test_zeros_before_mark);
    g_test_add_func("/multifd/mark/with-pages", test_mark_with_pages);
    g_test_add_func("/multifd/shutdown", test_shutdown);
    g_test_add_func("/multifd/not-begun", test_not_begun);
    g_test_add_func("/multifd/twice", test_twice);
    g_test_add_func("/multifd/ends", test_ends);
    g_test_add_func("/multifd/closed", test_closed);
    g_test_add_func("/multifd/closed-at-end", test_closed_at_end);
    add_lies();
    g_test_add_func("/multifd/records/known", test_records_known);
    g_test_add_func("/multifd/records/not-now", test_records_not_now);
    g_test_add_func("/multifd/records/closed", test_records_closed);
    g_test_add_func("/multifd/diverted/works", test_diverted);
    g_test_add_func("/multifd/diverted/fails", test_diverted_fails);
    g_test_add_func("/multifd/again/works", test_again);
    g_test_add_func("/multifd/again/fails", test_again_fails);
    g_test_add_func("/multifd/again/missing", test_again_missing);
    g_test_add_func("/multifd/room/made", test_room);
    g_test_add_func("/multifd/room/none", test_no_room);
    g_test_add_func("/multifd/records/damaged", test_records_damaged);
    g_test_add_func("/multifd/noise", test_noise);
    g_test_add_func("/multifd/damaged", test_damaged);
    return g_test_run();
}
