/*
 * Unit tests of the source of postcopy: requests, discards, what is sent when
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "io/channel-buffer.h"
#include "setup.h"
#include "migration/migration-stats.h"
#include "migration/postcopy/discard.h"
#include "migration/postcopy/locality.h"
#include "migration/postcopy/pace.h"
#include "migration/postcopy/requests.h"
#include "migration/postcopy/resume.h"
#include "migration/postcopy/sender.h"
#include "migration/ram/dirty-claim.h"
#include "migration/ram/load.h"
#include "migration/ram/presence.h"
#include "migration/wire/wire.h"

#define BITS 12
#define PAGE (1u << BITS)
#define HUGE_PAGES 512

enum { SMALL, SHARED, HUGE, REGIONS };

static const struct {
    const char *name;
    uint64_t pages, unit;
    bool ignored;
} layout[REGIONS] = {
    [SMALL] = { "pc.ram", 5000, 1 },
    [SHARED] = { "shared", 64, 1, true },
    [HUGE] = { "mem.huge", 3 * HUGE_PAGES, HUGE_PAGES },
};

typedef struct Side {
    RamRegion list[REGIONS];
    RamRegions regions;
} Side;

static void side_init(Side *side)
{
    *side = (Side) { .regions = { side->list, REGIONS } };
    for (unsigned i = 0; i < REGIONS; i++) {
        uint64_t size = layout[i].pages * PAGE;
        RamRegion *r = &side->list[i];

        *r = (RamRegion) {
            .name = (char *)layout[i].name,
            .index = i,
            .page_bits = BITS,
            .pages = layout[i].pages,
            .max_pages = layout[i].pages,
            .ignored = layout[i].ignored,
            .host_page_size = layout[i].unit * PAGE,
            .host = qemu_memalign(PAGE, size),
        };
        memset(r->host, 0, size);
        r->map = dirty_map_new(r->pages, 18, NULL, NULL);
        r->untouched = g_array_new(false, false, sizeof(RamRange));
    }
}

static void side_destroy(Side *side)
{
    RAM_REGIONS_FOREACH(r, &side->regions) {
        qemu_vfree(r->host);
        dirty_map_free(r->map);
        g_array_free(r->untouched, true);
    }
}

/*
 * Requests
 */

static void expect_bad(Side *side, const char *name, uint64_t start,
                       uint32_t len, const char *text)
{
    const RamRegion *last = NULL;
    Error *err = NULL;
    PageRequest request;

    g_assert_false(postcopy_request_read(&side->regions, &last, name, start,
                                         len, &request, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    g_assert_null(last);
    error_free(err);
}

static void test_bad_requests(void)
{
    uint64_t end = layout[SMALL].pages * PAGE;
    Side s;

    side_init(&s);
    expect_bad(&s, NULL, 0, PAGE, "no RAM block was named");
    expect_bad(&s, "pc.rom", 0, PAGE, "'pc.rom'");
    expect_bad(&s, "\033[2J", 0, PAGE, "'\\033[2J'");
    expect_bad(&s, "shared", 0, PAGE, "not migrated");
    expect_bad(&s, "pc.ram", 0, 0, "empty");
    expect_bad(&s, "pc.ram", 1, PAGE, "whole host pages");
    expect_bad(&s, "pc.ram", 0, PAGE - 1, "whole host pages");
    expect_bad(&s, "pc.ram", end, PAGE, "beyond");
    expect_bad(&s, "pc.ram", end - PAGE, 2 * PAGE, "beyond");
    expect_bad(&s, "pc.ram", UINT64_MAX - PAGE + 1, PAGE, "beyond");
    expect_bad(&s, "pc.ram", 0, -PAGE, "beyond");
    expect_bad(&s, "pc.ram", 0, POSTCOPY_REQUEST_MAX + PAGE, "at once");
    expect_bad(&s, "mem.huge", PAGE, HUGE_PAGES * PAGE, "whole host pages");
    expect_bad(&s, "mem.huge", 0, PAGE, "whole host pages");
    side_destroy(&s);
}

static void test_good_requests(void)
{
    const RamRegion *last = NULL;
    PageRequest q;
    Side s;

    side_init(&s);
    g_assert_true(postcopy_request_read(&s.regions, &last, "mem.huge",
                                        HUGE_PAGES * PAGE, HUGE_PAGES * PAGE,
                                        &q, &error_abort));
    g_assert_true(q.region == &s.list[HUGE]);
    g_assert_cmpuint(q.first, ==, HUGE_PAGES);
    g_assert_cmpuint(q.count, ==, HUGE_PAGES);
    g_assert_true(postcopy_request_read(&s.regions, &last, NULL, 0,
                                        HUGE_PAGES * PAGE, &q, &error_abort));
    g_assert_true(q.region == &s.list[HUGE]);
    g_assert_cmpuint(q.first, ==, 0);

    /* A block that ends within a huge page has that page. */
    s.list[HUGE].pages -= 100;
    g_assert_true(postcopy_request_read(&s.regions, &last, NULL,
                                        2 * HUGE_PAGES * PAGE,
                                        HUGE_PAGES * PAGE, &q, &error_abort));
    g_assert_cmpuint(q.count, ==, HUGE_PAGES - 100);
    side_destroy(&s);
}

/*
 * The queue: what comes out went in, in that order, whatever the pace
 */

typedef struct Traffic {
    PostcopyQueue queue;
    uint64_t put;
    bool done;                  /* atomic */
} Traffic;

#define REQUESTS 200000

static const RamRegion anywhere = { .page_bits = BITS };

static void *put_many(void *opaque)
{
    Traffic *t = opaque;

    for (uint64_t i = 1; i <= REQUESTS; i++) {
        t->put += postcopy_queue_put(&t->queue,
                                     &(PageRequest) { &anywhere, i, 2 * i });
    }
    qatomic_store_release(&t->done, true);
    return NULL;
}

static void test_full_queue(void)
{
    g_autofree PostcopyQueue *queue = g_new0(PostcopyQueue, 1);
    PageRequest two = { &anywhere, 0, 2 }, q;

    g_assert_false(postcopy_queue_take(queue, &q));
    for (unsigned i = 0; i < POSTCOPY_QUEUE_LEN; i++) {
        g_assert_cmpuint(postcopy_queue_length(queue), ==, i);
        g_assert_cmpuint(postcopy_queue_bytes(queue), ==, 2 * PAGE * i);
        g_assert_true(postcopy_queue_put(queue, &two));
    }
    g_assert_false(postcopy_queue_put(queue, &two));
    g_assert_true(postcopy_queue_take(queue, &q));
    g_assert_cmpuint(postcopy_queue_bytes(queue), ==,
                     2 * PAGE * (POSTCOPY_QUEUE_LEN - 1));
    g_assert_true(postcopy_queue_put(queue, &two));
    g_assert_false(postcopy_queue_empty(queue));
    postcopy_queue_clear(queue);
    g_assert_true(postcopy_queue_empty(queue));
    g_assert_cmpuint(postcopy_queue_bytes(queue), ==, 0);
}

static void test_queue(void)
{
    g_autofree Traffic *t = g_new0(Traffic, 1);
    uint64_t taken = 0, last = 0;
    bool done = false;
    QemuThread thread;
    PageRequest q;

    /* begin shortly before the counters wrap around */
    t->queue.in = t->queue.out = UINT_MAX - 1000;
    qemu_thread_create(&thread, "put", put_many, t, QEMU_THREAD_JOINABLE);
    while (!done) {
        done = qatomic_load_acquire(&t->done);
        while (postcopy_queue_take(&t->queue, &q)) {
            g_assert_cmpuint(q.first, >, last);
            g_assert_cmpuint(q.count, ==, 2 * q.first);
            last = q.first;
            taken++;
        }
    }
    qemu_thread_join(&thread);
    g_assert_cmpuint(taken, ==, t->put);
}

/*
 * Locality
 */

static void test_walk(void)
{
    Locality l;
    uint64_t at = 100, sent = 0;
    unsigned faults = 0;

    locality_init(&l);
    while (sent < 10000) {
        unsigned window = locality_fault(&l, 3, at, 64);

        g_assert_cmpuint(window, <=, 64);
        at += 1 + window;
        sent += 1 + window;
        faults++;
    }
    /* A fault a window, and a few until it is as large as it gets */
    g_assert_cmpuint(faults, <, 10000 / 65 + 10);
    g_assert_cmpuint(l.hits, ==, faults - 1);
}

static void test_jumps(void)
{
    uint64_t along = 0;
    Locality l;

    locality_init(&l);
    for (unsigned i = 0; i < 1000; i++) {
        along += locality_fault(&l, 0, (uint64_t)i * 7919 % 100000, 64);
    }
    g_assert_cmpuint(along, ==, 0);
}

/* Who jumps does not spoil it for those who walk. */
static void test_several_walks(void)
{
    uint64_t at[4] = { 0, 100000, 200000, 300000 };
    Locality l;

    locality_init(&l);
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned w = 0; w < ARRAY_SIZE(at); w++) {
            unsigned window = locality_fault(&l, 1, at[w], 32);

            if (i > 8) {
                g_assert_cmpuint(window, ==, 32);
            }
            at[w] += 1 + window;
        }
        locality_fault(&l, 2, (uint64_t)i * 7919 % 100000, 32);
    }
}

/* A walk that ends costs half as much each time that another begins. */
static void test_halves(void)
{
    uint64_t at = 0;
    Locality l;

    locality_init(&l);
    for (unsigned i = 0; i < 10; i++) {
        at += 1 + locality_fault(&l, 0, at, 64);
    }
    for (unsigned i = 1; i < LOCALITY_WALKS; i++) {
        g_assert_cmpuint(locality_fault(&l, 0, 1000000 * i, 64), ==, 0);
    }
    g_assert_cmpuint(locality_fault(&l, 0, 20000000, 64), ==, 32);
    g_assert_cmpuint(locality_fault(&l, 1, 20000033, 64), ==, 0);
}

/*
 * Discards
 */

typedef struct Wire {
    QIOChannelBuffer *buffer;
    QEMUFile *f;
} Wire;

static void wire_init(Wire *w)
{
    w->buffer = qio_channel_buffer_new(1024);
    w->f = qemu_file_new_output(QIO_CHANNEL(w->buffer));
}

static void wire_destroy(Wire *w)
{
    qemu_fclose(w->f);
    object_unref(OBJECT(w->buffer));
}

/* Reads DISCARD commands; sets bits of all pages they name. */
static unsigned read_discards(Wire *w, const Side *side,
                              unsigned long *maps[REGIONS])
{
    const uint8_t *at = w->buffer->data, *end = at + w->buffer->usage;
    unsigned ranges = 0;

    while (at < end) {
        const WireCommand *head = (const WireCommand *)at;
        const uint8_t *p = at + sizeof(*head);
        const uint8_t *stop = p + lduw_be_p(&head->len);
        g_autofree char *name = g_strndup((char *)p + 2, p[1]);
        RamRegion *r = ram_regions_find(&side->regions, name);

        g_assert_cmpuint(lduw_be_p(&head->command), ==,
                         WIRE_CMD_POSTCOPY_DISCARD);
        g_assert_cmpuint(p[0], ==, WIRE_POSTCOPY_DISCARD_VERSION);
        g_assert_cmpuint(p[2 + p[1]], ==, 0);
        g_assert_nonnull(r);
        for (p += 3 + p[1]; p < stop; p += sizeof(WireRange), ranges++) {
            uint64_t start = ldq_be_p(p), len = ldq_be_p(p + 8);

            g_assert_cmpuint(start % r->host_page_size, ==, 0);
            g_assert_cmpuint(len % r->host_page_size, ==, 0);
            g_assert_cmpuint(len, >, 0);
            g_assert_cmpuint(start + len, <=, ram_region_bytes(r));
            bitmap_set(maps[r->index], start >> BITS, len >> BITS);
        }
        at = stop;
    }
    return ranges;
}

static void test_discards(void)
{
    unsigned long *maps[REGIONS];
    unsigned runs = 0;
    Wire w;
    Side s;

    side_init(&s);
    wire_init(&w);
    for (unsigned i = 0; i < REGIONS; i++) {
        maps[i] = bitmap_new(layout[i].pages);
    }
    /* more runs than a command has */
    for (uint64_t page = 1; page < 3000; page += 4, runs++) {
        dirty_map_set(s.list[SMALL].map, page, 1 + page % 3);
    }
    dirty_map_set(s.list[SMALL].map, 4999, 1);
    /* a page of the first huge page, and all but one of the last */
    dirty_map_set(s.list[HUGE].map, 17, 1);
    dirty_map_set(s.list[HUGE].map, 2 * HUGE_PAGES + 1, HUGE_PAGES - 1);

    g_assert_cmpuint(postcopy_discard(&s.regions, w.f), ==, runs + 3);
    qemu_fflush(w.f);
    g_assert_cmpuint(read_discards(&w, &s, maps), ==, runs + 3);
    RAM_REGIONS_FOREACH_SENT(r, &s.regions) {
        for (uint64_t page = 0; page < r->pages; page++) {
            g_assert_cmpint(test_bit(page, maps[r->index]), ==,
                            dirty_map_test(r->map, page));
        }
    }
    g_assert_cmpuint(dirty_map_count(s.list[HUGE].map), ==, 2 * HUGE_PAGES);
    g_assert_false(dirty_map_test(s.list[HUGE].map, HUGE_PAGES));
    g_assert_true(bitmap_empty(maps[SHARED], layout[SHARED].pages));

    for (unsigned i = 0; i < REGIONS; i++) {
        g_free(maps[i]);
    }
    wire_destroy(&w);
    side_destroy(&s);
}

/* Nothing is dirty: nothing is said. */
static void test_no_discards(void)
{
    Wire w;
    Side s;

    side_init(&s);
    wire_init(&w);
    g_assert_cmpuint(postcopy_discard(&s.regions, w.f), ==, 0);
    qemu_fflush(w.f);
    g_assert_cmpuint(w.buffer->usage, ==, 0);
    wire_destroy(&w);
    side_destroy(&s);
}

static void count_released(void *opaque, const RamRegion *r, uint64_t first,
                           uint64_t count)
{
    uint64_t *released = opaque;

    for (uint64_t page = first; page < first + count; page++) {
        g_assert_false(dirty_map_test(r->map, page));
    }
    released[r->index] += count;
}

static void test_release_clean(void)
{
    uint64_t released[REGIONS] = { 0 };
    static const PostcopySenderOps releasing = { .release = count_released };
    PostcopySender ps = { };
    Side s;

    side_init(&s);
    dirty_map_set(s.list[SMALL].map, 0, 10);
    dirty_map_set(s.list[SMALL].map, 4000, 1000);
    postcopy_sender_init(&ps, &s.regions, &releasing, released);
    postcopy_sender_release_clean(&ps);
    g_assert_cmpuint(released[SMALL], ==, 5000 - 1010);
    g_assert_cmpuint(released[HUGE], ==, 3 * HUGE_PAGES);
    g_assert_cmpuint(released[SHARED], ==, 0);
    side_destroy(&s);
}

/*
 * What the destination has after the connection broke
 */

static QEMUFile *bitmap_stream(uint64_t len, const unsigned long *got,
                               uint64_t pages, uint64_t mark, uint64_t cut)
{
    uint64_t real = ROUND_UP(DIV_ROUND_UP(pages, 8), 8);
    g_autofree uint8_t *bytes = g_malloc0(real + 24);

    stq_be_p(bytes, len);
    for (uint64_t page = 0; page < pages; page++) {
        if (test_bit(page, got)) {
            bytes[8 + page / 8] |= 1 << page % 8;
        }
    }
    stq_be_p(bytes + 8 + real, mark);
    return test_input(bytes, cut ?: real + 16);
}

static bool resume_from(const RamRegion *r, uint64_t len,
                        const unsigned long *got, uint64_t mark, uint64_t cut)
{
    QEMUFile *f = bitmap_stream(len, got, r->pages, mark, cut);
    Error *err = NULL;
    bool ok = postcopy_resume_read(f, r, &err);

    g_assert_cmpint(ok, ==, !err);
    error_free(err);
    qemu_fclose(f);
    return ok;
}

static void test_resume(void)
{
    uint64_t len = ROUND_UP(DIV_ROUND_UP(5000, 8), 8);
    g_autofree unsigned long *got = bitmap_new(5000);
    const RamRegion *r;
    Side s;

    side_init(&s);
    r = &s.list[SMALL];
    dirty_map_set(r->map, 100, 50);
    bitmap_set(got, 0, 4990);
    clear_bit(1234, got);

    /* What makes no sense changes nothing. */
    g_assert_false(resume_from(r, len + 8, got, WIRE_RECV_BITMAP_END, 0));
    g_assert_false(resume_from(r, UINT64_MAX, got, WIRE_RECV_BITMAP_END, 0));
    g_assert_false(resume_from(r, 0, got, WIRE_RECV_BITMAP_END, 0));
    g_assert_false(resume_from(r, len, got, 0, 0));
    g_assert_false(resume_from(r, len, got, WIRE_RECV_BITMAP_END, 7));
    g_assert_false(resume_from(r, len, got, WIRE_RECV_BITMAP_END, 300));
    g_assert_cmpuint(dirty_map_count(r->map), ==, 50);

    g_assert_true(resume_from(r, len, got, WIRE_RECV_BITMAP_END, 0));
    g_assert_cmpuint(dirty_map_count(r->map), ==, 11);
    g_assert_true(dirty_map_test(r->map, 1234));
    g_assert_true(dirty_map_test(r->map, 4990));
    g_assert_false(dirty_map_test(r->map, 120));
    side_destroy(&s);
}

/* A huge page of which a part is there is not there. */
static void test_resume_huge(void)
{
    uint64_t pages = layout[HUGE].pages;
    g_autofree unsigned long *got = bitmap_new(pages);
    Side s;

    side_init(&s);
    bitmap_set(got, 0, HUGE_PAGES + 1);
    g_assert_true(resume_from(&s.list[HUGE], pages / 8, got,
                              WIRE_RECV_BITMAP_END, 0));
    g_assert_cmpuint(dirty_map_count(s.list[HUGE].map), ==, 2 * HUGE_PAGES);
    side_destroy(&s);
}

/*
 * Sending: pages are noted by the sections of a stream that is read back
 */

typedef struct Bench {
    Side from, to;
    Wire main, urgent;
    RamStreamSink sink;
    RamSender sender;
    PostcopySender ps;
    unsigned woken;
    uint64_t released;          /* atomic: whoever sends counts */
} Bench;

static void wake(void *opaque)
{
    ((Bench *)opaque)->woken++;
}

static void released(void *opaque, const RamRegion *r, uint64_t first,
                     uint64_t count)
{
    qatomic_add(&((Bench *)opaque)->released, count);
}

static const PostcopySenderOps ops = { .wake = wake, .release = released };

static void bench_init(Bench *b, bool second)
{
    memset(b, 0, sizeof(*b));
    side_init(&b->from);
    side_init(&b->to);
    wire_init(&b->main);
    wire_init(&b->urgent);
    RAM_REGIONS_FOREACH_SENT(r, &b->from.regions) {
        for (uint64_t page = 0; page < r->pages; page++) {
            /* some are zero */
            memset(ram_region_page(r, page), page % 5 ? 1 + page % 251 : 0,
                   PAGE);
        }
        dirty_map_set(r->map, 0, r->pages);
        dirty_map_freeze(r->map);
    }
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(RATE_LIMIT_DISABLED);
    ram_stream_sink_init(&b->sink, b->main.f, 0);
    ram_sender_init(&b->sender, &b->from.regions, &b->sink.sink);
    postcopy_sender_init(&b->ps, &b->from.regions, &ops, b);
    if (second) {
        postcopy_sender_set_channel(&b->ps, b->urgent.f, &b->sender, 0);
    }
    postcopy_sender_open(&b->ps);
}

static void bench_destroy(Bench *b)
{
    wire_destroy(&b->main);
    wire_destroy(&b->urgent);
    side_destroy(&b->from);
    side_destroy(&b->to);
}

static bool no_resize(void *opaque, RamRegion *r, uint64_t bytes, Error **errp)
{
    g_assert_not_reached();
}

static const RamLoadOps load_ops = { .resize = no_resize };

static void load(Bench *b, Wire *w)
{
    RamLoader loader = {
        .regions = &b->to.regions, .ops = &load_ops, .page_bits = BITS,
    };
    QEMUFile *f;

    qemu_put_be64(w->f, WIRE_RAM_EOS);
    qemu_fflush(w->f);
    f = test_input(w->buffer->data, w->buffer->usage);
    g_assert_true(ram_load_records(f, &loader, &error_abort));
    qemu_fclose(f);
}

static void check_same(Bench *b)
{
    RAM_REGIONS_FOREACH_SENT(r, &b->from.regions) {
        g_assert_true(!memcmp(r->host, b->to.list[r->index].host,
                              ram_region_bytes(r)));
    }
}

static void ask(Bench *b, const char *name, uint64_t page, uint64_t count)
{
    g_assert_true(postcopy_sender_ask(&b->ps, name, page * PAGE, count * PAGE,
                                      &error_abort));
}

/* The first record of a stream: which page it is about */
static uint64_t first_page(const Wire *w)
{
    g_assert_cmpuint(w->buffer->usage, >=, 8);
    return ldq_be_p(w->buffer->data) >> BITS;
}

static void test_send_all(void)
{
    Bench b;

    bench_init(&b, false);
    g_assert_cmpint(postcopy_sender_run(&b.ps, &b.sender, true), ==,
                    RAM_SEND_ALL);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    load(&b, &b.main);
    check_same(&b);
    g_assert_cmpuint(b.released, ==, 5000 + 3 * HUGE_PAGES);
    g_assert_cmpuint(stat64_get(&mig_stats.normal_pages) +
                     stat64_get(&mig_stats.zero_pages), ==, b.released);
    bench_destroy(&b);
}

static void no_access(const RamRegion *r, bool access)
{
    g_assert_cmpint(mprotect(r->host, ram_region_bytes(r),
                             access ? PROT_READ | PROT_WRITE : PROT_NONE), ==,
                    0);
}

static void check_zero(const RamRegion *r)
{
    g_assert_true(buffer_is_zero(r->host, ram_region_bytes(r)));
}

/*
 * Memory that is unplugged before the guest leaves, which nobody knew of then:
 * all of it is discarded, whatever was sent, and follows as zero.
 */
static void test_unplugged_before(void)
{
    unsigned long *maps[REGIONS];
    RamRegion *r;
    Bench b;

    bench_init(&b, false);
    r = &b.from.list[HUGE];
    for (unsigned i = 0; i < REGIONS; i++) {
        maps[i] = bitmap_new(layout[i].pages);
    }
    dirty_map_drop(r->map, 10, 1000);
    r->untold_pages = 10;
    ram_presence_lost(r, false);
    no_access(r, false);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 5000 * PAGE);

    ram_presence_postcopy(&b.from.regions, true);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==,
                     (5000 + 3 * HUGE_PAGES) * PAGE);
    postcopy_discard(&b.from.regions, b.main.f);
    read_discards(&b.main, &b.from, maps);
    g_assert_cmpint(find_first_zero_bit(maps[HUGE], 3 * HUGE_PAGES), ==,
                    3 * HUGE_PAGES);
    b.main.buffer->usage = b.main.buffer->offset = 0;

    ask(&b, "mem.huge", HUGE_PAGES, HUGE_PAGES);
    memset(b.to.list[HUGE].host, 1, ram_region_bytes(r));
    g_assert_cmpint(postcopy_sender_run(&b.ps, &b.sender, true), ==,
                    RAM_SEND_ALL);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    load(&b, &b.main);
    check_zero(&b.to.list[HUGE]);
    g_assert_cmpuint(stat64_get(&mig_stats.zero_pages), >=, 3 * HUGE_PAGES);
    no_access(r, true);
    for (unsigned i = 0; i < REGIONS; i++) {
        g_free(maps[i]);
    }
    bench_destroy(&b);
}

/* Memory that goes later: what is requested is answered, on both channels. */
static void test_unplugged_later(void)
{
    RamRegion *r;
    Bench b;

    bench_init(&b, true);
    r = &b.from.list[SMALL];
    ram_presence_postcopy(&b.from.regions, true);
    b.ps.quota = 1;
    postcopy_sender_run(&b.ps, &b.sender, false);
    b.ps.quota = UINT64_MAX;
    g_assert_cmpuint(dirty_map_count(r->map), <, 5000);
    g_assert_cmpuint(dirty_map_count(r->map), >, 4000);
    ram_presence_lost(r, true);
    no_access(r, false);

    ask(&b, "pc.ram", 4991, 1);
    g_assert_cmpuint(first_page(&b.urgent), ==, 4991);
    g_assert_cmpuint(b.urgent.buffer->usage, ==, 8 + 7 + 1);
    memset(b.to.list[SMALL].host, 0, ram_region_bytes(r));
    memset(ram_region_page(&b.to.list[SMALL], 4000), 1, 1000 * PAGE);
    postcopy_sender_run(&b.ps, &b.sender, true);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    load(&b, &b.main);
    load(&b, &b.urgent);
    g_assert_true(buffer_is_zero(ram_region_page(&b.to.list[SMALL], 4000),
                                 1000 * PAGE));
    no_access(r, true);
    bench_destroy(&b);
}

/* There was no postcopy: nothing of it is sent any more. */
static void test_unplugged_in_vain(void)
{
    Bench b;

    bench_init(&b, false);
    ram_presence_lost(&b.from.list[HUGE], false);
    ram_presence_postcopy(&b.from.regions, true);
    ram_presence_lost(&b.from.list[SMALL], true);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), >, 0);
    ram_presence_postcopy(&b.from.regions, false);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    ram_sender_run(&b.sender, true);
    g_assert_cmpuint(b.main.buffer->usage, ==, 0);

    /* A request that comes late is no mistake of the peer. */
    postcopy_sender_ignore(&b.ps);
    ask(&b, "pc.ram", 1, 1);
    bench_destroy(&b);
}

/* What is asked for comes first, and the others from there on. */
static void test_send_asked(void)
{
    Bench b;

    bench_init(&b, false);
    ask(&b, "pc.ram", 3001, 1);
    g_assert_cmpuint(b.woken, ==, 1);
    g_assert_true(postcopy_sender_asked(&b.ps));
    ask(&b, NULL, 4001, 1);
    postcopy_sender_run(&b.ps, &b.sender, true);
    g_assert_false(postcopy_sender_asked(&b.ps));
    g_assert_cmpuint(first_page(&b.main), ==, 3001);
    g_assert_cmpuint(b.ps.served.asked, ==, 2);
    g_assert_cmpuint(b.ps.served.urgent, ==, 2);
    g_assert_cmpuint(stat64_get(&mig_stats.postcopy_requests), ==, 2);
    load(&b, &b.main);
    check_same(&b);
    bench_destroy(&b);
}

/* The background goes on behind what was asked for last. */
static void test_aim(void)
{
    uint64_t first;
    Bench b;

    bench_init(&b, true);
    ask(&b, "pc.ram", 2000, 1);
    /* as little at a time as a limit makes it */
    migration_rate_set(1);
    postcopy_sender_run(&b.ps, &b.sender, false);
    g_assert_cmpuint(first_page(&b.main), ==, 2001);
    g_assert_cmpuint(dirty_map_find(b.from.list[SMALL].map, 2000, 1, &first),
                     ==, 1);
    g_assert_cmpuint(first, >, 2001);
    g_assert_cmpuint(dirty_map_find(b.from.list[SMALL].map, 0, 1, &first), ==,
                     1);
    g_assert_cmpuint(first, ==, 0);
    bench_destroy(&b);
}

/* With a second channel it is sent at once, alone, and never again. */
static void test_urgent(void)
{
    size_t used;
    Bench b;

    bench_init(&b, true);
    for (unsigned i = 0; i < 20; i++) {
        ask(&b, i ? NULL : "pc.ram", 100 + i, 1);
    }
    ask(&b, NULL, 100, 1);
    g_assert_cmpuint(b.woken, ==, 0);
    g_assert_false(postcopy_sender_asked(&b.ps));
    g_assert_cmpuint(b.ps.served.urgent, ==, 20);
    g_assert_cmpuint(b.ps.served.along, ==, 0);
    ask(&b, "mem.huge", HUGE_PAGES, HUGE_PAGES);
    g_assert_cmpuint(b.ps.served.urgent, ==, 20 + HUGE_PAGES);
    postcopy_sender_run(&b.ps, &b.sender, true);

    /* An old destination reads on until it is told that this was all. */
    used = b.urgent.buffer->usage;
    postcopy_sender_end_channel(&b.ps);
    ask(&b, "pc.ram", 100, 1);
    g_assert_cmpuint(b.urgent.buffer->usage, ==, used + 8);
    g_assert_cmpuint(ldq_be_p(b.urgent.buffer->data + used), ==, WIRE_RAM_EOS);
    load(&b, &b.main);
    load(&b, &b.urgent);
    check_same(&b);
    g_assert_cmpuint(b.released, ==, 5000 + 3 * HUGE_PAGES);
    bench_destroy(&b);
}

/* Memory that was released is gone. */
static void destroy(void *opaque, const RamRegion *r, uint64_t first,
                    uint64_t count)
{
    memset(ram_region_page(r, first), 0xee, count * PAGE);
}

static void *ask_for_all(void *opaque)
{
    Bench *b = opaque;

    for (uint64_t page = 0; page < b->from.list[SMALL].pages; page++) {
        ask(b, "pc.ram", page, 1);
    }
    return NULL;
}

/* A page is not released while it is being sent, whoever finds it clean. */
static void test_release_while_asked(void)
{
    static const PostcopySenderOps destroying = {
        .wake = wake, .release = destroy
    };
    const RamRegion *small;
    QemuThread thread;
    Bench b;

    bench_init(&b, true);
    b.ps.ops = &destroying;
    small = &b.to.list[SMALL];
    qemu_thread_create(&thread, "asks", ask_for_all, &b, QEMU_THREAD_JOINABLE);
    while (qatomic_read_u64(&b.ps.served.urgent) < small->pages) {
        postcopy_sender_release_clean(&b.ps);
    }
    qemu_thread_join(&thread);
    load(&b, &b.urgent);
    for (uint64_t page = 0; page < small->pages; page++) {
        g_assert_cmphex(*ram_region_page(small, page), ==,
                        page % 5 ? 1 + page % 251 : 0);
    }
    bench_destroy(&b);
}

/* Those for whom it is faster say so, and nothing may have been released. */
static void bench_init_again(Bench *b, bool keep)
{
    static const PostcopySenderOps keeping = { .wake = wake };

    bench_init(b, true);
    postcopy_sender_close(&b->ps);
    b->ps.ops = keep ? &keeping : &ops;
    postcopy_sender_set_channel(&b->ps, b->urgent.f, &b->sender,
                                WIRE_PEER_URGENT_COPY);
    postcopy_sender_open(&b->ps);
}

/* What the background has just sent comes by the second channel as well. */
static void test_again(void)
{
    Error *err = NULL;
    size_t used;
    Bench b;

    bench_init_again(&b, true);
    postcopy_sender_run(&b.ps, &b.sender, true);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    used = b.urgent.buffer->usage;
    g_assert_cmpuint(used, ==, 0);

    ask(&b, "pc.ram", 4991, 1);
    g_assert_cmpuint(first_page(&b.urgent), ==, 4991);
    g_assert_cmpuint(b.ps.served.asked, ==, 1);
    g_assert_cmpuint(b.ps.served.urgent, ==, 0);
    g_assert_cmpuint(postcopy_sender_served(&b.ps).again, ==, 1);
    used = b.urgent.buffer->usage;
    g_assert_cmpuint(used, ==, 8 + 7 + PAGE);

    /* The other side must have it whole, from one of two threads. */
    ask(&b, "mem.huge", 0, HUGE_PAGES);
    g_assert_cmpuint(b.urgent.buffer->usage, ==, used);

    /* A destination that has all hangs up, whatever is asked for. */
    qemu_file_set_error(b.urgent.f, -EPIPE);
    ask(&b, "pc.ram", 4996, 1);
    ask(&b, "mem.huge", 0, HUGE_PAGES);
    dirty_map_set(b.from.list[SMALL].map, 7, 1);
    g_assert_false(postcopy_sender_ask(&b.ps, "pc.ram", 7 * PAGE, PAGE, &err));
    g_assert_nonnull(err);
    error_free(err);
    bench_destroy(&b);
}

/* Whoever asks again and again gets no more than there is. */
static void test_again_and_again(void)
{
    Bench b;

    bench_init_again(&b, true);
    postcopy_sender_run(&b.ps, &b.sender, true);
    for (unsigned i = 0; i < 3 * layout[SMALL].pages; i++) {
        ask(&b, "pc.ram", 4990, 1);
    }
    g_assert_cmpuint(b.ps.served.again, ==, layout[SMALL].pages);
    bench_destroy(&b);
}

/* Once it was said that nothing more comes there, nothing does. */
static void test_again_ended(void)
{
    size_t used;
    Bench b;

    bench_init_again(&b, true);
    postcopy_sender_run(&b.ps, &b.sender, true);
    postcopy_sender_end_channel(&b.ps);
    used = b.urgent.buffer->usage;
    ask(&b, "pc.ram", 4990, 1);
    g_assert_cmpuint(b.urgent.buffer->usage, ==, used);
    bench_destroy(&b);
}

/* Memory that was released, and another connection: nothing is known of it. */
static void test_not_again(void)
{
    Bench b;

    bench_init_again(&b, false);
    postcopy_sender_run(&b.ps, &b.sender, true);
    ask(&b, "pc.ram", 4990, 1);
    g_assert_cmpuint(b.urgent.buffer->usage, ==, 0);
    bench_destroy(&b);

    bench_init_again(&b, true);
    postcopy_sender_run(&b.ps, &b.sender, true);
    postcopy_sender_close(&b.ps);
    postcopy_sender_set_channel(&b.ps, b.urgent.f, &b.sender,
                                WIRE_PEER_URGENT_COPY);
    postcopy_sender_open(&b.ps);
    ask(&b, "pc.ram", 4990, 1);
    g_assert_cmpuint(b.urgent.buffer->usage, ==, 0);
    bench_destroy(&b);
}

static void test_under_way(void)
{
    g_autofree UnderWay *u = g_new0(UnderWay, 1);
    RamRegion r = { .index = 0 }, other = { .index = 1 };
    RamRegion far = { .index = 1u << 16 };

    g_assert_false(under_way_has(u, &r, 0));
    under_way_note(u, &r, 10, 5);
    g_assert_false(under_way_has(u, &r, 9));
    g_assert_true(under_way_has(u, &r, 10));
    g_assert_true(under_way_has(u, &r, 14));
    g_assert_false(under_way_has(u, &r, 15));
    g_assert_false(under_way_has(u, &other, 10));

    /* The last pages that can be told of, and what cannot be. */
    under_way_note(u, &other, (1ull << 36) - 1, 1);
    g_assert_true(under_way_has(u, &other, (1ull << 36) - 1));
    under_way_note(u, &other, 1ull << 36, 1);
    g_assert_false(under_way_has(u, &other, 1ull << 36));
    g_assert_false(under_way_has(u, &other, 0));
    under_way_note(u, &far, 3, 1);
    g_assert_false(under_way_has(u, &far, 3));
    g_assert_false(under_way_has(u, &r, 3));

    /* The oldest is forgotten first. */
    for (unsigned i = 0; i < UNDER_WAY_RUNS - 2; i++) {
        under_way_note(u, &r, 1000 + 2 * i, 1);
    }
    g_assert_true(under_way_has(u, &r, 10));
    under_way_note(u, &r, 0, 1);
    g_assert_false(under_way_has(u, &r, 10));
    g_assert_true(under_way_has(u, &r, 1000));
    g_assert_false(under_way_has(u, &r, 1001));
    under_way_clear(u);
    g_assert_false(under_way_has(u, &r, 1000));
}

/* Who walks gets more and more along with what he asked for. */
static void test_along(void)
{
    uint64_t page = 100;
    MigrationPageRequests sent;
    Bench b;

    bench_init(&b, false);
    for (unsigned i = 0; i < 12 && page < 4000; i++) {
        uint64_t next;

        ask(&b, "pc.ram", page, 1);
        migration_rate_set(1);
        /* only what was asked for: the limit stops the background */
        postcopy_sender_run(&b.ps, &b.sender, false);
        next = page + 1;
        while (!dirty_map_test(b.from.list[SMALL].map, next)) {
            next++;
        }
        page = next;
    }
    g_assert_cmpuint(b.ps.served.along, >, 64);
    sent = postcopy_sender_served(&b.ps);
    g_assert_cmpuint(sent.asked, ==, b.ps.served.asked);
    g_assert_cmpuint(sent.urgent, ==, b.ps.served.urgent);
    g_assert_cmpuint(sent.along, ==, b.ps.served.along);
    bench_destroy(&b);
}

static void test_closed(void)
{
    Error *err = NULL;
    Bench b;

    bench_init(&b, false);
    postcopy_sender_close(&b.ps);
    g_assert_false(postcopy_sender_ask(&b.ps, "pc.ram", 0, PAGE, &err));
    g_assert_nonnull(err);
    error_free(err);
    g_assert_cmpuint(stat64_get(&mig_stats.postcopy_requests), ==, 0);
    bench_destroy(&b);
}

/*
 * In an attempt nothing is claimed, on no channel; what was asked for is there
 * to be taken, and what comes too late is dropped.
 */
static void test_kept(gconstpointer second)
{
    uint64_t dirty;
    PageRequest request;
    Error *err = NULL;
    Bench b;

    bench_init(&b, second);
    postcopy_sender_close(&b.ps);
    dirty = ram_sender_left(&b.from.regions);

    postcopy_sender_keep(&b.ps);
    ask(&b, "pc.ram", 7, 2);
    ask(&b, NULL, 3, 1);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, dirty);
    g_assert_cmpuint(b.urgent.buffer->usage, ==, 0);
    g_assert_true(postcopy_sender_take(&b.ps, &request));
    g_assert_cmpuint(request.first, ==, 7);
    g_assert_cmpuint(request.count, ==, 2);

    /* Given up: the other one is forgotten by the next attempt. */
    postcopy_sender_ignore(&b.ps);
    ask(&b, NULL, 4, 1);
    g_assert_false(postcopy_sender_ask(&b.ps, "none", 0, PAGE, &err));
    error_free(err);
    postcopy_sender_keep(&b.ps);
    g_assert_false(postcopy_sender_take(&b.ps, &request));

    /* Handed over: what was kept is still answered, and now it is claimed. */
    ask(&b, NULL, 5, 1);
    postcopy_sender_open(&b.ps);
    postcopy_sender_run(&b.ps, &b.sender, true);
    g_assert_cmpuint(first_page(&b.main), ==, 5);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    load(&b, &b.main);
    check_same(&b);
    bench_destroy(&b);
}

/* A channel that is broken says so to whoever asks. */
static void test_urgent_broken(void)
{
    Error *err = NULL;
    Bench b;

    bench_init(&b, true);
    qemu_file_set_error(b.urgent.f, -EPIPE);
    g_assert_false(postcopy_sender_ask(&b.ps, "pc.ram", 0, PAGE, &err));
    g_assert_nonnull(err);
    error_free(err);
    bench_destroy(&b);
}

/*
 * Both at the same time: each page goes one way, unless it may go both, and
 * all arrive.
 */

static void *ask_many(void *opaque)
{
    Bench *b = opaque;

    for (unsigned i = 0; i < 3000; i++) {
        if (i % 100) {
            ask(b, "pc.ram", (uint64_t)i * 7919 % 5000, 1);
        } else {
            ask(b, "mem.huge", i / 100 % 3 * HUGE_PAGES, HUGE_PAGES);
        }
    }
    return NULL;
}

static void race(bool again)
{
    uint64_t pages = 5000 + 3 * HUGE_PAGES, sent;
    QemuThread thread;
    Bench b;

    if (again) {
        bench_init_again(&b, true);
    } else {
        bench_init(&b, true);
    }
    qemu_thread_create(&thread, "ask", ask_many, &b, QEMU_THREAD_JOINABLE);
    while (postcopy_sender_run(&b.ps, &b.sender, false) != RAM_SEND_ALL) {
        /* more */
    }
    qemu_thread_join(&thread);
    postcopy_sender_run(&b.ps, &b.sender, true);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    sent = stat64_get(&mig_stats.normal_pages) +
           stat64_get(&mig_stats.zero_pages);
    g_assert_cmpuint(sent, >=, pages);
    if (!again) {
        g_assert_cmpuint(sent, ==, pages);
    }
    load(&b, &b.main);
    load(&b, &b.urgent);
    check_same(&b);
    bench_destroy(&b);
}

static void test_race(void)
{
    for (unsigned i = 0; i < 2; i++) {
        race(i);
    }
}

/*
 * Helpers: threads of channels, as those of multifd
 */

#define HELPERS 3

typedef struct Helper {
    Bench *b;
    unsigned i;
    Wire wire;
    RamStreamSink sink;
    RamSender via;
    RamPace pace;
    QemuThread thread;
} Helper;

static void helper_init(Helper *h, Bench *b, unsigned i)
{
    *h = (Helper) { .b = b, .i = i };
    wire_init(&h->wire);
    ram_stream_sink_init(&h->sink, h->wire.f, 0);
    ram_sender_init(&h->via, &b->from.regions, &h->sink.sink);
    h->pace.end_bytes = UINT64_MAX;
    h->via.pace = &h->pace;
}

static void bench_init_helped(Bench *b, Helper *helpers, unsigned count)
{
    bench_init(b, false);
    postcopy_sender_close(&b->ps);
    postcopy_sender_set_helpers(&b->ps, count);
    postcopy_sender_open(&b->ps);
    for (unsigned i = 0; i < count; i++) {
        helper_init(&helpers[i], b, i);
    }
}

static void bench_destroy_helped(Bench *b, Helper *helpers, unsigned count)
{
    postcopy_sender_close(&b->ps);
    postcopy_sender_set_helpers(&b->ps, 0);
    for (unsigned i = 0; i < count; i++) {
        wire_destroy(&helpers[i].wire);
    }
    bench_destroy(b);
}

/* The record of a page comes with the name of its region. */
static void begins_with(const Wire *w, const char *name, uint64_t page)
{
    g_assert_cmpuint(first_page(w), ==, page);
    g_assert_cmpmem(w->buffer->data + 9, w->buffer->data[8], name,
                    strlen(name));
}

/* One that waits is left to the migration thread, however large it is. */
static void test_help_with_one(void)
{
    Helper h;
    Bench b;

    bench_init_helped(&b, &h, 1);
    ask(&b, "mem.huge", HUGE_PAGES, HUGE_PAGES);
    postcopy_sender_help(&b.ps, 0, &h.via);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    begins_with(&h.wire, "pc.ram", 0);
    g_assert_true(postcopy_sender_asked(&b.ps));
    g_assert_cmpuint(b.ps.served.urgent, ==, 0);
    load(&b, &h.wire);
    check_same(&b);
    bench_destroy_helped(&b, &h, 1);
}

/* So are two that are small. */
static void test_help_with_small(void)
{
    Helper h;
    Bench b;

    bench_init_helped(&b, &h, 1);
    ask(&b, "pc.ram", 3000, 1);
    ask(&b, "pc.ram", 2000, 1);
    postcopy_sender_help(&b.ps, 0, &h.via);
    begins_with(&h.wire, "pc.ram", 0);
    g_assert_cmpuint(postcopy_queue_length(&b.ps.queue), ==, 2);
    bench_destroy_helped(&b, &h, 1);
}

/* Of several that are large the first is sent first, whole and once. */
static void test_help_with_several(void)
{
    Helper h;
    Bench b;

    bench_init_helped(&b, &h, 1);
    ask(&b, "mem.huge", HUGE_PAGES, HUGE_PAGES);
    ask(&b, "mem.huge", 0, HUGE_PAGES);
    postcopy_sender_help(&b.ps, 0, &h.via);
    begins_with(&h.wire, "mem.huge", HUGE_PAGES);
    g_assert_cmpuint(postcopy_queue_length(&b.ps.queue), ==, 1);
    g_assert_cmpuint(b.ps.served.urgent, ==, HUGE_PAGES);

    /* The other one is not lost: the background had it by then. */
    postcopy_sender_serve_queue(&b.ps, &b.sender);
    g_assert_false(postcopy_sender_asked(&b.ps));
    g_assert_cmpuint(b.main.buffer->usage, ==, 0);
    g_assert_cmpuint(ram_sender_left(&b.from.regions), ==, 0);
    load(&b, &h.wire);
    check_same(&b);
    bench_destroy_helped(&b, &h, 1);
}

static void *help(void *opaque)
{
    Helper *h = opaque;

    postcopy_sender_help(&h->b->ps, h->i, &h->via);
    return NULL;
}

/* As they are asked for there are always some that wait. */
static void *ask_for_huge_first(void *opaque)
{
    Bench *b = opaque;

    for (unsigned i = 0; i < 2; i++) {
        for (unsigned page = 0; page < 3; page++) {
            ask(b, "mem.huge", page * HUGE_PAGES, HUGE_PAGES);
        }
    }
    return ask_many(b);
}

/* The migration thread serves, helpers send, and each page is sent once. */
static void test_help_race(void)
{
    uint64_t pages = 5000 + 3 * HUGE_PAGES;
    Helper h[HELPERS];
    QemuThread thread;
    Bench b;

    bench_init_helped(&b, h, HELPERS);
    qemu_thread_create(&thread, "ask", ask_for_huge_first, &b,
                       QEMU_THREAD_JOINABLE);
    for (unsigned i = 0; i < HELPERS; i++) {
        qemu_thread_create(&h[i].thread, "help", help, &h[i],
                           QEMU_THREAD_JOINABLE);
    }
    while (ram_sender_left(&b.from.regions)) {
        postcopy_sender_serve_queue(&b.ps, &b.sender);
    }
    for (unsigned i = 0; i < HELPERS; i++) {
        qemu_thread_join(&h[i].thread);
    }
    qemu_thread_join(&thread);
    postcopy_sender_serve_queue(&b.ps, &b.sender);
    g_assert_cmpuint(stat64_get(&mig_stats.normal_pages) +
                     stat64_get(&mig_stats.zero_pages), ==, pages);
    g_assert_cmpuint(b.ps.served.urgent + b.ps.served.along, <=, pages);
    for (unsigned i = 0; i < HELPERS; i++) {
        load(&b, &h[i].wire);
    }
    load(&b, &b.main);
    check_same(&b);
    bench_destroy_helped(&b, h, HELPERS);
}

/*
 * Pace: a way of so many bytes a second that takes so long, with a buffer that
 * holds whatever is put into it
 */

#define MS_ (1000 * 1000ll)
#define FULL (4 * 1024 * 1024)          /* bytes that a sender puts at once */

typedef struct Way {
    double speed;               /* bytes/s */
    int64_t trip_ns;            /* without a queue */
    uint64_t put;               /* bytes */
    int64_t free_ns;            /* when the last of them will be through */
    GQueue pongs;               /* of int64_t: time, value */
} Way;

static void way_put(Way *w, uint64_t bytes, int64_t now)
{
    w->free_ns = MAX(w->free_ns, now) + bytes * 1e9 / w->speed;
    w->put += bytes;
}

static void way_ping(Way *w, uint32_t value)
{
    int64_t *pong = g_new(int64_t, 2);

    pong[0] = w->free_ns + w->trip_ns;
    pong[1] = value;
    g_queue_push_tail(&w->pongs, pong);
}

static void way_pongs(Way *w, Pace *p, int64_t now)
{
    int64_t *pong;

    while ((pong = g_queue_peek_head(&w->pongs)) && pong[0] <= now) {
        pace_pong(p, pong[1], pong[0]);
        g_free(g_queue_pop_head(&w->pongs));
    }
}

/* A second of it.  Returns bytes put; *@queue: the longest wait in it, in ns */
static uint64_t drive(Way *w, Pace *p, int64_t *queue)
{
    uint32_t value;

    *queue = 0;
    for (int64_t now = 0; now < 1000 * MS_; now += MS_ / 100) {
        uint64_t bytes;

        way_pongs(w, p, now);
        bytes = MIN(pace_allows(p, w->put, now), FULL);
        if (bytes) {
            way_put(w, bytes, now);
            if (pace_ping(p, w->put, now, &value)) {
                way_ping(w, value);
            }
            /* the first windows are for learning */
            if (now > 300 * MS_) {
                *queue = MAX(*queue, w->free_ns - now);
            }
        }
    }
    g_queue_clear_full(&w->pongs, g_free);
    return w->put;
}

static void test_pace(void)
{
    const struct {
        double speed;
        int64_t trip_ns;
    } ways[] = {
        { 1e9, MS_ / 20 }, { 1e9, 10 * MS_ }, { 1e8, 30 * MS_ }, { 1e7, MS_ },
    };

    for (int i = 0; i < ARRAY_SIZE(ways); i++) {
        Way w = { .speed = ways[i].speed, .trip_ns = ways[i].trip_ns };
        int64_t queue, most;
        uint64_t put;
        Pace p;

        g_queue_init(&w.pongs);
        pace_init(&p, true, 0, 0);
        put = drive(&w, &p, &queue);
        /* The way is kept full, but for the time to learn what it holds, */
        g_assert_cmpfloat(put, >, w.speed * 0.75);
        /* and what waits in it is about a round trip, or the least there is */
        most = MAX(MAX(4 * w.trip_ns, 2 * PACE_WAIT_NS),
                   2 * PACE_WINDOW_MIN * 1e9 / w.speed);
        g_assert_cmpint(queue, <, most);
    }
}

static void test_pace_off(void)
{
    uint32_t value;
    Pace p;

    pace_init(&p, false, 0, 0);
    g_assert_cmpuint(pace_allows(&p, 1ull << 40, 0), ==, UINT64_MAX);
    g_assert_false(pace_ping(&p, 1ull << 40, 0, &value));
}

/* Who does not answer is not waited for; nor are wrong answers believed. */
static void test_pace_silence(void)
{
    uint64_t position = 0;
    uint32_t value;
    Pace p;

    pace_init(&p, true, 0, 0);
    while (pace_allows(&p, position, MS_)) {
        position += pace_allows(&p, position, MS_);
        g_assert_true(pace_ping(&p, position, MS_, &value));
    }
    g_assert_cmpuint(position, ==, PACE_WINDOW_MIN);
    pace_pong(&p, WIRE_PING_POSTCOPY, 2 * MS_);
    pace_pong(&p, value + 1, 2 * MS_);
    pace_pong(&p, WIRE_PING_PACE | 0xffffff, 2 * MS_);
    g_assert_cmpuint(pace_allows(&p, position, 2 * MS_), ==, 0);
    g_assert_cmpuint(pace_allows(&p, position, PACE_PATIENCE_NS + 2 * MS_), ==,
                     UINT64_MAX);
    pace_pong(&p, value, 2 * MS_);
    g_assert_cmpuint(pace_allows(&p, position, 2 * MS_), >, 0);
    /* the same once more tells nothing new */
    pace_pong(&p, value, 900 * MS_);
    g_assert_cmpuint(p.trip_ns, ==, MS_);
}

/*
 * What is under way was sent when the window was larger, and no answer is to
 * come: it must not be waited for.
 */
static void test_pace_shrinks(void)
{
    uint64_t position = 0;
    uint32_t value;
    Pace p;

    pace_init(&p, true, 0, 0);
    p.window = PACE_WINDOW_MAX;
    p.trip_ns = 1;
    g_assert_true(pace_ping(&p, PACE_WINDOW_MAX / 4, MS_, &value));
    position = PACE_WINDOW_MAX / 4 + PACE_WINDOW_MIN + 1;
    pace_pong(&p, value, 1000 * MS_);
    g_assert_cmpuint(p.window, <, position - p.read);
    g_assert_cmpuint(pace_allows(&p, position, 1000 * MS_), >, 0);
    position += pace_allows(&p, position, 1000 * MS_);
    g_assert_true(pace_ping(&p, position, 1000 * MS_, &value));
    g_assert_cmpuint(pace_allows(&p, position, 1000 * MS_), ==, 0);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
#define TEST(path, fn) g_test_add_func("/migration/postcopy/" path, fn)
    TEST("requests/bad", test_bad_requests);
    TEST("requests/good", test_good_requests);
    TEST("requests/full", test_full_queue);
    TEST("requests/queue", test_queue);
    TEST("locality/walk", test_walk);
    TEST("locality/jumps", test_jumps);
    TEST("locality/several", test_several_walks);
    TEST("locality/halves", test_halves);
    TEST("discard/runs", test_discards);
    TEST("discard/none", test_no_discards);
    TEST("discard/release", test_release_clean);
    TEST("sender/release-while-asked", test_release_while_asked);
    TEST("resume/bitmap", test_resume);
    TEST("resume/huge", test_resume_huge);
    TEST("sender/all", test_send_all);
    TEST("sender/unplugged-before", test_unplugged_before);
    TEST("sender/unplugged-later", test_unplugged_later);
    TEST("sender/unplugged-in-vain", test_unplugged_in_vain);
    TEST("sender/asked", test_send_asked);
    TEST("sender/aim", test_aim);
    TEST("sender/urgent", test_urgent);
    TEST("sender/again", test_again);
    TEST("sender/again-and-again", test_again_and_again);
    TEST("sender/again-ended", test_again_ended);
    TEST("sender/not-again", test_not_again);
    TEST("sender/under-way", test_under_way);
    TEST("sender/along", test_along);
    TEST("sender/closed", test_closed);
    g_test_add_data_func("/migration/postcopy/sender/kept", NULL, test_kept);
    g_test_add_data_func("/migration/postcopy/sender/kept-two-channels", "",
                         test_kept);
    TEST("sender/broken", test_urgent_broken);
    TEST("sender/race", test_race);
    TEST("sender/help-with-one", test_help_with_one);
    TEST("sender/help-with-small", test_help_with_small);
    TEST("sender/help-with-several", test_help_with_several);
    TEST("sender/help-race", test_help_race);
    TEST("pace/ways", test_pace);
    TEST("pace/off", test_pace_off);
    TEST("pace/silence", test_pace_silence);
    TEST("pace/shrinks", test_pace_shrinks);
    return g_test_run();
}
