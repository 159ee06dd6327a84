/*
 * How fast pages are found, looked at and put into the form in which they are
 * sent, where nobody transmits them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The dirty map of one region is sent by one or more threads, as those of
 * multifd do it, to channels that drop what they get.  Beside it the same
 * memory is read by bare loops.  bench/feed runs this and says what it means.
 *
 * usage: feed bare|packets|records zero|random|mixed THREADS MIB
 *
 * Prints nanoseconds of one pass over all memory, after one that is not
 * measured.  mixed: every other page is zero.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/module.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "io/channel-null.h"
#include "migration/base/clock.h"
#include "migration/base/stats.h"
#include "migration/multifd/packet-sink.h"
#include "migration/ram/send.h"
#include "migration/ram/stream-sink.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"

#define BITS 12
#define PAGE (1u << BITS)
#define THREADS_MAX 64

static struct {
    uint8_t *memory;
    size_t bytes;
    unsigned threads;
    RamRegion region;
    RamRegions regions;
} feed;

typedef struct Worker {
    unsigned number;
    QemuThread thread;
    QEMUFile *file;
    PacketSink packets;
    RamStreamSink records;
    RamSender sender;
    uint64_t sum;
} Worker;

static void fill(const char *content)
{
    bool mixed = !strcmp(content, "mixed");
    uint64_t x = 88172645463325252ull;

    if (!mixed && strcmp(content, "random")) {
        /* touched, as a page that was never written to reads from one page */
        memset(feed.memory, 1, feed.bytes);
        memset(feed.memory, 0, feed.bytes);
        return;
    }
    for (size_t at = 0; at < feed.bytes; at += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *(uint64_t *)(feed.memory + at) = mixed && at / PAGE % 2 ? 0 : x;
    }
}

typedef uint64_t Wide __attribute__((vector_size(32)));

/* The least that reading is: its share of memory, in one go */
static void *read_share(void *opaque)
{
    Worker *w = opaque;
    size_t share = feed.bytes / feed.threads;
    const Wide *at = (void *)(feed.memory + w->number * share);
    Wide a = { }, b = { }, c = { }, d = { };

    for (size_t i = 0; i < share / sizeof(*at); i += 4) {
        a |= at[i];
        b |= at[i + 1];
        c |= at[i + 2];
        d |= at[i + 3];
    }
    a |= b | c | d;
    qatomic_set(&w->sum, a[0] | a[1] | a[2] | a[3]);
    return NULL;
}

static void *send_share(void *opaque)
{
    Worker *w = opaque;

    ram_sender_run(&w->sender, true);
    ram_sink_flush(w->sender.sink);
    return NULL;
}

static int64_t pass(Worker *workers, void *(*work)(void *))
{
    int64_t began = now_ns();

    for (unsigned i = 0; i < feed.threads; i++) {
        qemu_thread_create(&workers[i].thread, "feed", work, &workers[i],
                           QEMU_THREAD_JOINABLE);
    }
    for (unsigned i = 0; i < feed.threads; i++) {
        qemu_thread_join(&workers[i].thread);
    }
    return now_ns() - began;
}

static void prepare(Worker *w, unsigned number, bool packets)
{
    QIOChannelNull *null = qio_channel_null_new();

    w->number = number;
    w->file = qemu_file_new_output(QIO_CHANNEL(null));
    object_unref(OBJECT(null));
    stream_count_in(w->file, &mig_stats.multifd_bytes);
    packet_sink_init(&w->packets, w->file, BITS, number, feed.threads,
                     MULTIFD_COMPRESSION_NONE, 0, true, &error_abort);
    ram_stream_sink_init(&w->records, w->file,
                         WIRE_PEER_PAGE_RUN | WIRE_PEER_ZERO_RANGE);
    ram_sender_init(&w->sender, &feed.regions,
                    packets ? &w->packets.sink : &w->records.sink);
    w->sender.tells_untouched = false;
    w->sender.share = feed.threads;
}

static void make_region(void)
{
    feed.region = (RamRegion) {
        .name = (char *)"pc.ram",
        .page_bits = BITS,
        .pages = feed.bytes >> BITS,
        .max_pages = feed.bytes >> BITS,
        .host_page_size = PAGE,
        .host = feed.memory,
        .map = dirty_map_new(feed.bytes >> BITS, 18, NULL, NULL),
        .untouched = g_array_new(false, false, sizeof(RamRange)),
    };
    feed.regions = (RamRegions) { &feed.region, 1 };
}

int main(int argc, char **argv)
{
    static Worker workers[THREADS_MAX];
    int64_t ns = 0;
    bool bare;

    if (argc != 5 || !atoi(argv[4])) {
        fprintf(stderr, "usage: feed bare|packets|records zero|random|mixed "
                "THREADS MIB\n");
        return 2;
    }
    module_call_init(MODULE_INIT_QOM);
    migration_rate_set(RATE_LIMIT_DISABLED);
    bare = !strcmp(argv[1], "bare");
    feed.threads = CLAMP(atoi(argv[3]), 1, THREADS_MAX);
    feed.bytes = atoi(argv[4]) * MiB;
    feed.memory = mmap(NULL, feed.bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (feed.memory == MAP_FAILED) {
        perror("feed: mmap");
        return 1;
    }
    fill(argv[2]);
    make_region();
    for (unsigned i = 0; i < feed.threads; i++) {
        prepare(&workers[i], i, !strcmp(argv[1], "packets"));
    }
    for (unsigned round = 0; round < 2; round++) {
        dirty_map_set(feed.region.map, 0, feed.region.pages);
        ns = pass(workers, bare ? read_share : send_share);
    }
    printf("%" PRId64 "\n", ns);
    return 0;
}
