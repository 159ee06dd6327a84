/*
 * Unit tests of postcopy's pure parts: latencies, blocktime, what has come,
 * what is discarded, and what this host can do
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "io/channel-buffer.h"
#include "migration/postcopy/blocktime.h"
#include "migration/postcopy/first-record.h"
#include "migration/postcopy/forget.h"
#include "migration/postcopy/latency.h"
#include "migration/postcopy/received.h"
#include "migration/postcopy/support.h"
#include "migration/wire/wire.h"
#include "setup.h"

/*
 * Latency
 */

static void test_latency_buckets(void)
{
    static const struct {
        uint64_t us;
        unsigned bucket;
    } rows[] = {
        { 0, 0 }, { 1, 0 }, { 2, 1 }, { 3, 1 }, { 4, 2 }, { 1023, 9 },
        { 1024, 10 }, { 1ull << 30, 30 }, { 1ull << 31, 31 },
        { UINT64_MAX, 31 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        Latency l = {};

        latency_add(&l, rows[i].us);
        g_assert_cmpuint(l.bucket[rows[i].bucket], ==, 1);
        g_assert_cmpuint(l.count, ==, 1);
        g_assert_cmpuint(l.sum_us, ==, rows[i].us);
        g_assert_cmpuint(l.max_us, ==, rows[i].us);
    }
}

static void test_latency_none(void)
{
    Latency l = {};

    g_assert_cmpuint(latency_percentile(&l, 50), ==, 0);
    g_assert_cmpuint(latency_percentile(&l, 100), ==, 0);
}

static void test_latency_one(void)
{
    Latency l = {};

    latency_add(&l, 700);
    for (unsigned percent = 1; percent <= 100; percent++) {
        g_assert_cmpuint(latency_percentile(&l, percent), ==, 700);
    }
}

/* Off by less than a factor of two, never falling, and the last is exact. */
static void test_latency_many(void)
{
    const unsigned n = 10000;
    uint64_t before = 0;
    Latency l = {};

    for (unsigned i = 1; i <= n; i++) {
        latency_add(&l, i);
    }
    for (unsigned percent = 1; percent <= 100; percent++) {
        uint64_t true_value = n * percent / 100;
        uint64_t told = latency_percentile(&l, percent);

        g_assert_cmpuint(told, >, true_value / 2);
        g_assert_cmpuint(told, <, 2 * true_value);
        g_assert_cmpuint(told, >=, before);
        before = told;
    }
    g_assert_cmpuint(latency_percentile(&l, 100), ==, n);
}

/* Few that are very long must not be seen below their share. */
static void test_latency_tail(void)
{
    Latency l = {};

    for (unsigned i = 0; i < 990; i++) {
        latency_add(&l, 100);
    }
    for (unsigned i = 0; i < 10; i++) {
        latency_add(&l, 1000000);
    }
    g_assert_cmpuint(latency_percentile(&l, 99), <=, 128);
    g_assert_cmpuint(latency_percentile(&l, 100), ==, 1000000);
}

/*
 * What a channel for urgent pages begins with
 */

static void test_first_record(void)
{
    RamRegion list[] = {
        { .name = (char *)"pc.ram", .page_bits = 12, .pages = 16 },
    };
    const RamRegions regions = { .list = list, .count = 1 };
    static const struct {
        const char *data;
        size_t len;
        FirstRecord due;
    } rows[] = {
#define ROW(data_, due_) { (data_), sizeof(data_) - 1, FIRST_RECORD_##due_ }
        ROW("", SHORT),
        ROW("\0\0\0\0\0\0\x10", SHORT),
        ROW("\0\0\0\0\0\0\x10\x08", SHORT),
        ROW("\0\0\0\0\0\0\x10\x08\6pc.r", SHORT),
        ROW("\0\0\0\0\0\0\x10\x08\6pc.ram", OURS),
        ROW("\0\0\0\0\0\0\xf0\x02\6pc.ram\0", OURS),
        ROW("\0\0\0\0\0\0\x14\x00\6pc.ram", OURS),   /* a run */
        ROW("\0\0\0\0\0\0\x18\x00\6pc.ram", OURS),   /* a range */
        ROW("\0\0\0\0\0\0\0\x10", OURS),            /* the end */
        ROW("\0\0\0\0\0\0\x10\x10", FOREIGN),
        ROW("\0\0\0\0\0\1\0\x08\6pc.ram", FOREIGN),  /* behind it */
        ROW("\xff\0\0\0\0\0\0\x08\6pc.ram", FOREIGN),
        ROW("\0\0\0\0\0\0\x10\x08\6pc.rom", FOREIGN),
        ROW("\0\0\0\0\0\0\x10\x08\6pc.\0am", FOREIGN),
        ROW("\0\0\0\0\0\0\x10\x08\0", FOREIGN),
        ROW("\0\0\0\0\0\0\x10\x28", FOREIGN),         /* of what? */
        ROW("\0\0\0\0\0\0\x10\x0a\6pc.ram", FOREIGN),
        ROW("QEVM\0\0\0\3", FOREIGN),                 /* a main stream */
        ROW("GET / HTTP/1.0\r\n", FOREIGN),
        ROW("\x16\3\1\2\0\1\0\1", FOREIGN),            /* TLS */
        ROW("SSH-2.0-x\r\n", FOREIGN),
#undef ROW
    };
    const RamRegions none = { };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmpint(first_record((const uint8_t *)rows[i].data,
                                     rows[i].len, &regions), ==, rows[i].due);
    }
    g_assert_cmpint(first_record((const uint8_t *)rows[4].data, rows[4].len,
                                 &none), ==, FIRST_RECORD_FOREIGN);
}

/* Nothing is lost in fewer buckets: the last one takes the rest. */
static void test_latency_fold(void)
{
    uint64_t bucket[LATENCY_BUCKETS];
    Latency l = {};

    g_assert_cmpuint(latency_mean_ns(&l), ==, 0);
    latency_add(&l, 1);
    latency_add(&l, 6);
    latency_add(&l, 16);
    latency_add(&l, 1ull << 31);
    latency_fold(&l, bucket, 4);
    g_assert_cmpuint(bucket[0], ==, 1);
    g_assert_cmpuint(bucket[1], ==, 0);
    g_assert_cmpuint(bucket[2], ==, 1);
    g_assert_cmpuint(bucket[3], ==, 2);
    latency_fold(&l, bucket, LATENCY_BUCKETS);
    g_assert_cmpuint(bucket[4], ==, 1);
    g_assert_cmpuint(bucket[31], ==, 1);
    g_assert_cmpuint(latency_mean_ns(&l), ==, (23 + (1ull << 31)) * 250);
}

/*
 * Blocktime
 */

/* A wait that goes on does not count yet. */
static void test_blocktime_means(void)
{
    Blocktime b;

    blocktime_init(&b, 2, 2, 2);
    blocktime_begin(&b, 0, 100);
    blocktime_end(&b, 0, 130);
    blocktime_begin(&b, 0, 200);
    blocktime_end(&b, 0, 211);
    blocktime_begin(&b, 1, 300);
    g_assert_cmpuint(blocktime_vcpu_ns(&b, 0), ==, 20500);
    g_assert_cmpuint(blocktime_vcpu_ns(&b, 1), ==, 0);
    g_assert_cmpuint(blocktime_vcpu_ns(&b, 2), ==, 0);
    g_assert_cmpuint(blocktime_others_ns(&b), ==, 0);
    blocktime_other(&b, 5);
    blocktime_other(&b, 8);
    g_assert_cmpuint(blocktime_others_ns(&b), ==, 6500);
    blocktime_destroy(&b);
}

static void test_blocktime_overlap(void)
{
    Blocktime b;

    blocktime_init(&b, 3, 3, 3);
    blocktime_begin(&b, 0, 100);
    blocktime_begin(&b, 1, 150);
    blocktime_begin(&b, 2, 170);            /* all of them from here on */
    blocktime_end(&b, 0, 200);              /* to here */
    blocktime_begin(&b, 0, 210);            /* and from here */
    blocktime_end(&b, 1, 215);              /* to here */
    blocktime_end(&b, 2, 300);
    blocktime_end(&b, 0, 310);
    g_assert_cmpuint(b.all_us, ==, 30 + 5);
    g_assert_cmpuint(b.vcpus[0].total_us, ==, 100 + 100);
    g_assert_cmpuint(b.vcpus[1].total_us, ==, 65);
    g_assert_cmpuint(b.vcpus[2].total_us, ==, 130);
    g_assert_cmpuint(b.waiting, ==, 0);
    blocktime_destroy(&b);
}

static void test_blocktime_twice(void)
{
    Blocktime b;

    blocktime_init(&b, 1, 1, 1);
    blocktime_end(&b, 0, 5);
    blocktime_begin(&b, 0, 10);
    blocktime_begin(&b, 0, 20);
    blocktime_end(&b, 0, 30);
    blocktime_end(&b, 0, 40);
    g_assert_cmpuint(b.vcpus[0].total_us, ==, 20);
    g_assert_cmpuint(b.all_us, ==, 20);
    blocktime_destroy(&b);
}

/*
 * Two of four possible vCPUs are there, with a gap between their numbers.  One
 * is plugged in later, and a number that cannot be is left alone.
 */
static void test_blocktime_gaps(void)
{
    Blocktime b;

    blocktime_init(&b, 2, 3, 4);
    g_assert_cmpuint(b.count, ==, 3);
    blocktime_begin(&b, 2, 100);
    blocktime_begin(&b, 0, 110);            /* all that are there */
    blocktime_end(&b, 2, 130);
    g_assert_cmpuint(b.all_us, ==, 20);
    g_assert_cmpuint(b.count, ==, 3);
    blocktime_begin(&b, 3, 140);
    blocktime_end(&b, 3, 145);
    g_assert_cmpuint(b.count, ==, 4);
    g_assert_cmpuint(b.vcpus[3].total_us, ==, 5);
    blocktime_begin(&b, 4, 150);
    blocktime_end(&b, 4, 160);
    blocktime_begin(&b, UINT_MAX, 150);
    blocktime_end(&b, UINT_MAX, 160);
    g_assert_cmpuint(b.count, ==, 4);
    g_assert_cmpuint(b.waiting, ==, 1);
    blocktime_destroy(&b);
}

static void test_blocktime_off(void)
{
    Blocktime b;

    blocktime_init(&b, 0, 0, 0);
    blocktime_begin(&b, 0, 1);
    blocktime_end(&b, 0, 2);
    g_assert_cmpuint(b.count, ==, 0);
    g_assert_cmpuint(b.all_us, ==, 0);
    blocktime_destroy(&b);
}

/*
 * What has come
 */

static void check_set(const ReceivedMap *map, uint64_t first, uint64_t end)
{
    for (uint64_t i = 0; i < map->pages; i++) {
        g_assert_cmpint(received_test(map, i), ==, first <= i && i < end);
    }
}

static void test_received_ranges(void)
{
    static const struct {
        uint64_t first, end;
    } rows[] = {
        { 0, 0 }, { 0, 1 }, { 63, 65 }, { 1, 64 }, { 0, 64 }, { 64, 128 },
        { 5, 300 }, { 0, 320 }, { 319, 320 }, { 127, 129 },
    };
    ReceivedMap map;

    g_assert(received_init(&map, 320, 0));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t count = rows[i].end - rows[i].first;

        received_set(&map, rows[i].first, count);
        check_set(&map, rows[i].first, rows[i].end);
        g_assert_cmpuint(received_count(&map, 320), ==, count);
        g_assert_cmpuint(received_lacking(&map, 0, 320), ==, 320 - count);
        received_set(&map, 0, 320);
        received_clear(&map, 0, rows[i].first);
        received_clear(&map, rows[i].end, 320 - rows[i].end);
        check_set(&map, rows[i].first, rows[i].end);
        received_clear(&map, 0, 320);
        check_set(&map, 0, 0);
    }
    received_destroy(&map);
}

static void test_received_rounding(void)
{
    ReceivedMap map;

    g_assert(received_init(&map, 513, 9));
    g_assert_cmpuint(map.pages, ==, 1024);
    received_set(&map, 512, 512);
    g_assert_cmpuint(received_count(&map, 513), ==, 1);
    received_destroy(&map);
}

static void test_received_missing(void)
{
    static const struct {
        uint64_t from, end, first, count;
    } rows[] = {
        { 0, 10, 0, 2 }, { 1, 10, 1, 1 }, { 2, 10, 4, 1 }, { 5, 10, 7, 3 },
        { 8, 10, 8, 2 }, { 0, 1, 0, 1 }, { 2, 4, 4, 0 }, { 5, 7, 7, 0 },
        { 10, 10, 10, 0 },
    };

    for (unsigned shift = 0; shift <= 9; shift += 9) {
        uint64_t last = (1u << shift) - 1;
        ReceivedMap map;

        /* first, last and all pages of the target in some pages of the host */
        g_assert(received_init(&map, 10 << shift, shift));
        received_set(&map, 2 << shift, 1);
        received_set(&map, (3 << shift) + last, 1);
        received_set(&map, 5 << shift, 2 << shift);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
            uint64_t count = 0;

            g_assert_cmpuint(received_missing(&map, rows[i].from, rows[i].end,
                                              &count), ==, rows[i].first);
            g_assert_cmpuint(count, ==, rows[i].count);
        }
        received_destroy(&map);
    }
}

static void test_requested(void)
{
    ReceivedMap map;

    g_assert(received_init(&map, 512 * 200, 9));
    g_assert_cmpuint(requested_next(&map, 0, 200), ==, 200);
    g_assert(requested_set(&map, 64));
    g_assert(!requested_set(&map, 64));
    g_assert(requested_set(&map, 199));
    g_assert_cmpuint(requested_next(&map, 0, 200), ==, 64);
    g_assert_cmpuint(requested_next(&map, 64, 200), ==, 64);
    g_assert_cmpuint(requested_next(&map, 65, 200), ==, 199);
    g_assert_cmpuint(requested_next(&map, 65, 199), ==, 199);
    g_assert_cmpuint(requested_next(&map, 65, 66), ==, 66);
    g_assert(requested_clear(&map, 64));
    g_assert(!requested_clear(&map, 64));
    received_destroy(&map);
}

/* The bytes that the other side reads: checked one by one */
static void check_wire(uint64_t pages, uint64_t first, uint64_t end)
{
    g_autoptr(QIOChannelBuffer) ioc = qio_channel_buffer_new(0);
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(ioc));
    uint64_t len = ROUND_UP(DIV_ROUND_UP(pages, 8), 8);
    ReceivedMap map;
    const uint8_t *bits;

    g_assert(received_init(&map, pages + 100, 0));
    received_set(&map, first, end - first);
    received_set(&map, pages, 100);         /* in no block: never told */
    received_put(&map, pages, f);
    g_assert_cmpint(qemu_fflush(f), ==, 0);

    g_assert_cmpuint(ioc->usage, ==, 8 + len + 8);
    g_assert_cmpuint(ldq_be_p(ioc->data), ==, len);
    bits = ioc->data + 8;
    for (uint64_t i = 0; i < 8 * len; i++) {
        g_assert_cmpint(bits[i / 8] >> (i % 8) & 1, ==, first <= i && i < end);
    }
    g_assert_cmpuint(ldq_be_p(bits + len), ==, WIRE_RECV_BITMAP_END);
    received_destroy(&map);
    qemu_fclose(f);
}

static void test_received_wire(void)
{
    check_wire(1, 0, 1);
    check_wire(64, 3, 61);
    check_wire(65, 64, 65);
    check_wire(4096 * 8, 4095 * 8, 4096 * 8);
    check_wire(4096 * 8 + 1, 0, 4096 * 8 + 1);
    check_wire(100003, 5, 100000);
}

/*
 * POSTCOPY_DISCARD
 */

static RamRegion blocks[] = {
    { .name = (char *)"pc.ram", .page_bits = 12, .pages = 1024,
      .max_pages = 1024, .host_page_size = 4096 },
    { .name = (char *)"huge", .page_bits = 12, .pages = 1024,
      .max_pages = 1024, .host_page_size = 2 * MiB, .index = 1 },
    { .name = (char *)"shared", .page_bits = 12, .pages = 16,
      .max_pages = 16, .host_page_size = 4096, .index = 2, .ignored = true },
};
static const RamRegions regions = { blocks, ARRAY_SIZE(blocks) };

static GString *forgotten;

static bool note(void *opaque, RamRegion *region, uint64_t start, uint64_t len,
                 Error **errp)
{
    g_string_append_printf(forgotten, "%s 0x%" PRIx64 "+0x%" PRIx64 " ",
                           region->name, start, len);
    if (start == 0xdead000) {
        error_setg(errp, "enough");
        return false;
    }
    return true;
}

typedef struct DiscardCase {
    uint8_t version;
    const char *name;
    unsigned name_len;          /* 0: that of the name */
    uint8_t end;
    unsigned ranges;
    uint64_t range[3][2];
    unsigned junk;
    const char *expect;         /* what is called, or of the error */
    bool fails;
} DiscardCase;

static const DiscardCase discard_cases[] = {
    { 0, "pc.ram", .ranges = 1, .range = { { 0, 4096 } },
      .expect = "pc.ram 0x0+0x1000 " },
    { 0, "pc.ram", .ranges = 2, .range = { { 4096, 8192 }, { 0, 4 * MiB } },
      .expect = "pc.ram 0x1000+0x2000 pc.ram 0x0+0x400000 " },
    { 0, "huge", .ranges = 1, .range = { { 2 * MiB, 2 * MiB } },
      .expect = "huge 0x200000+0x200000 " },
    { 1, "pc.ram", .ranges = 1, .range = { { 0, 4096 } },
      .expect = "Unknown version 1", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 0, 4096 } }, .end = 'x',
      .expect = "malformed", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 0, 4096 } }, .name_len = 200,
      .expect = "malformed", .fails = true },
    { 0, "pc\0am", .ranges = 1, .range = { { 0, 4096 } }, .name_len = 5,
      .expect = "malformed", .fails = true },
    { 0, "pc.rom", .ranges = 1, .range = { { 0, 4096 } },
      .expect = "no RAM block 'pc.rom'", .fails = true },
    { 0, "shared", .ranges = 1, .range = { { 0, 4096 } },
      .expect = "not sent", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 0, 4096 } }, .junk = 5,
      .expect = "not a multiple of a range", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 1, 4096 } },
      .expect = "are no pages of", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 0, 4095 } },
      .expect = "are no pages of", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 0, 0 } },
      .expect = "are no pages of", .fails = true },
    { 0, "huge", .ranges = 1, .range = { { 4096, 4096 } },
      .expect = "are no pages of", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 4 * MiB, 4096 } },
      .expect = "are no pages of", .fails = true },
    { 0, "pc.ram", .ranges = 1, .range = { { 4096, -4096ull } },
      .expect = "are no pages of", .fails = true },
    /* The first range is good, and nothing is done all the same. */
    { 0, "pc.ram", .ranges = 2, .range = { { 0, 4096 }, { 1 << 30, 4096 } },
      .expect = "are no pages of", .fails = true },
};

static GByteArray *discard_payload(const DiscardCase *c)
{
    GByteArray *payload = g_byte_array_new();
    uint8_t len = c->name_len ?: strlen(c->name);
    uint8_t junk[16] = {};

    g_byte_array_append(payload, &c->version, 1);
    g_byte_array_append(payload, &len, 1);
    g_byte_array_append(payload, (const uint8_t *)c->name,
                        MIN(len, strlen("pc.ram")));
    g_byte_array_append(payload, &c->end, 1);
    for (unsigned i = 0; i < c->ranges; i++) {
        uint64_t range[2] = { cpu_to_be64(c->range[i][0]),
                              cpu_to_be64(c->range[i][1]) };

        g_byte_array_append(payload, (uint8_t *)range, sizeof(range));
    }
    return g_byte_array_append(payload, junk, c->junk);
}

static void test_discard(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(discard_cases); i++) {
        const DiscardCase *c = &discard_cases[i];
        g_autoptr(GByteArray) payload = discard_payload(c);
        QEMUFile *f = test_input(payload->data, payload->len);
        Error *err = NULL;
        bool ok;

        forgotten = g_string_new(NULL);
        ok = forget_load(f, payload->len, &regions, note, NULL, &err);
        g_assert_cmpint(ok, ==, !c->fails);
        if (ok) {
            g_assert_cmpstr(forgotten->str, ==, c->expect);
        } else {
            g_assert_nonnull(strstr(error_get_pretty(err), c->expect));
            g_assert_cmpstr(forgotten->str, ==, "");
            error_free(err);
        }
        g_string_free(forgotten, true);
        qemu_fclose(f);
    }
}

static void test_discard_cut(void)
{
    g_autoptr(GByteArray) payload = discard_payload(&discard_cases[0]);
    unsigned len = payload->len;

    forgotten = g_string_new(NULL);
    while (payload->len) {
        QEMUFile *f;
        Error *err = NULL;

        g_byte_array_set_size(payload, payload->len - 1);
        f = test_input(payload->data, payload->len);
        g_assert(!forget_load(f, len, &regions, note, NULL, &err));
        g_assert_nonnull(strstr(error_get_pretty(err), "stream ends"));
        error_free(err);
        qemu_fclose(f);
    }
    g_assert_cmpstr(forgotten->str, ==, "");
    g_string_free(forgotten, true);
}

/*
 * What this host can do
 */

static const SupportHost able = {
    .ufd = { .hugetlb = true, .shmem = true, .minor_hugetlb = true,
             .minor_shmem = true, .thread_id = true },
    .page_size = 4096, .target_page_size = 4096, .works = true,
};

static void refused(bool ok, Error *err, const char *words)
{
    g_auto(GStrv) list = g_strsplit(words ? words : "", "|", 0);

    if (!words) {
        g_assert(ok && !err);
        return;
    }
    g_assert(!ok);
    for (char **word = list; *word; word++) {
        g_assert_nonnull(strstr(error_get_pretty(err), *word));
    }
    error_free(err);
}

static void host_case(SupportHost host, const char *words)
{
    Error *err = NULL;
    bool ok = support_host(&host, &err);

    refused(ok, err, words);
}

static void test_support_host(void)
{
    SupportHost host = able;

    host_case(host, NULL);
    host.target_page_size = 16384;
    host_case(host, "16384|4096");
    host = able;
    host.ufd.error = EPERM;
    host_case(host, "/dev/userfaultfd|unprivileged_userfaultfd");
    host.ufd.error = ENOSYS;
    host_case(host, "CONFIG_USERFAULTFD");
    host = able;
    host.works = false;
    host_case(host, "cannot fill in pages");
}

static void block_case(SupportHost host, SupportBlock block, const char *words)
{
    Error *err = NULL;
    bool ok = support_block(&host, &block, &err);

    refused(ok, err, words);
}

static void test_support_block(void)
{
    SupportHost host = able;
    SupportBlock ram = {
        .name = "pc.ram", .bytes = 4 * MiB, .page_size = 4096,
    };
    SupportBlock huge = {
        .name = "mem0", .kind = SUPPORT_HUGETLB, .bytes = 4 * MiB,
        .page_size = 2 * MiB,
    };
    SupportBlock file = ram;

    block_case(host, ram, NULL);
    block_case(host, huge, NULL);
    host.ufd.hugetlb = false;
    block_case(host, huge, "'mem0'|2097152");
    host = able;
    huge.bytes = 3 * MiB;
    block_case(host, huge, "'mem0'|3145728|2097152");
    file.kind = SUPPORT_SHMEM;
    block_case(host, file, NULL);
    host.ufd.shmem = false;
    block_case(host, file, "'pc.ram'|memory-backend-ram");
    file.kind = SUPPORT_OTHER_FILE;
    block_case(able, file, "'pc.ram'|memory-backend-memfd|/dev/shm");
    ram.read_only = true;
    block_case(able, ram, "'pc.ram'|readonly=on");
}

static void test_support_continue(void)
{
    SupportHost host = able;
    SupportBlock block = { .kind = SUPPORT_SHMEM, .shared = true };

    g_assert(support_continue(&host, &block));
    block.shared = false;
    g_assert(!support_continue(&host, &block));
    block.shared = true;
    host.ufd.minor_shmem = false;
    g_assert(!support_continue(&host, &block));
    block.kind = SUPPORT_HUGETLB;
    g_assert(support_continue(&host, &block));
    block.kind = SUPPORT_ANON;
    g_assert(!support_continue(&host, &block));
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/postcopy/latency/buckets", test_latency_buckets);
    g_test_add_func("/postcopy/latency/none", test_latency_none);
    g_test_add_func("/postcopy/latency/one", test_latency_one);
    g_test_add_func("/postcopy/latency/many", test_latency_many);
    g_test_add_func("/postcopy/latency/tail", test_latency_tail);
    g_test_add_func("/postcopy/latency/fold", test_latency_fold);
    g_test_add_func("/postcopy/first-record", test_first_record);
    g_test_add_func("/postcopy/blocktime/overlap", test_blocktime_overlap);
    g_test_add_func("/postcopy/blocktime/means", test_blocktime_means);
    g_test_add_func("/postcopy/blocktime/twice", test_blocktime_twice);
    g_test_add_func("/postcopy/blocktime/gaps", test_blocktime_gaps);
    g_test_add_func("/postcopy/blocktime/off", test_blocktime_off);
    g_test_add_func("/postcopy/received/ranges", test_received_ranges);
    g_test_add_func("/postcopy/received/rounding", test_received_rounding);
    g_test_add_func("/postcopy/received/missing", test_received_missing);
    g_test_add_func("/postcopy/received/requested", test_requested);
    g_test_add_func("/postcopy/received/wire", test_received_wire);
    g_test_add_func("/postcopy/discard/cases", test_discard);
    g_test_add_func("/postcopy/discard/cut", test_discard_cut);
    g_test_add_func("/postcopy/support/host", test_support_host);
    g_test_add_func("/postcopy/support/block", test_support_block);
    g_test_add_func("/postcopy/support/continue", test_support_continue);
    return g_test_run();
}
