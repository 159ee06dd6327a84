/*
 * Unit tests of packets of multifd that are compressed by accelerators
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * There are no such devices, and not even their libraries: see
 * accelerators/fake.h.
 */

#include "qemu/osdep.h"
#include <zlib.h>
#include "qemu/bswap.h"
#include "accelerators/fake.h"
#include "codec-tests.h"
#include "setup.h"
#include "migration/wire/wire.h"

#define ENTRY sizeof(uint32_t)
#define QUEUE 1000
#define BOMB (8u << 20)

/* What a host may have */
typedef struct World {
    bool device;
    unsigned queue;             /* jobs that fit in that of the device */
} World;

static const World worlds[] = {
    { true, QUEUE }, { true, 3 }, { true, 0 }, { false, QUEUE },
};

static void enter(const World *w)
{
    accelerator_device(w->device);
    accelerator_queue(w->queue);
}

/* Everything that was made has been freed, and the next test has a device. */
static void leave(void)
{
    g_assert_cmpuint(accelerator_objects(), ==, 0);
    accelerator_fail(NULL, 0);
    enter(&worlds[0]);
}

/*
 * With and without devices
 */

static void test_worlds(const void *codec)
{
    for (unsigned i = 0; i < ARRAY_SIZE(worlds) * ARRAY_SIZE(worlds); i++) {
        for (unsigned content = 0; content < CONTENTS; content++) {
            Pair *p;

            enter(&worlds[i % ARRAY_SIZE(worlds)]);
            p = pair_new(codec, 1);
            pair_encode_new(p, content, 20);
            enter(&worlds[i / ARRAY_SIZE(worlds)]);
            pair_new_decoder(p);
            pair_assert_arrives(p);
            pair_free(p);
        }
    }
    leave();
}

/* How much a device has done of the encoding and of the decoding */
static void assert_work(const Codec *codec, const World *w, unsigned each)
{
    unsigned before = accelerator_device_work(), between;
    Pair *p;

    enter(w);
    p = pair_new(codec, 1);
    pair_encode_new(p, TEXT, PAGES);
    between = accelerator_device_work();
    pair_assert_arrives(p);
    g_assert_cmpuint(between - before, ==, each);
    g_assert_cmpuint(accelerator_device_work() - between, ==, each);
    pair_free(p);
    leave();
}

static void test_work(const void *opaque)
{
    const Codec *codec = opaque;

    assert_work(codec, &worlds[0], codec == &codec_qatzip ? 1 : PAGES);
    assert_work(codec, &worlds[3], 0);
}

static void test_full_queue(void)
{
    assert_work(&codec_qpl, &worlds[1], worlds[1].queue);
    assert_work(&codec_qpl, &worlds[2], 0);
}

/* A queue that is full for a moment */
static void test_busy_once(void)
{
    accelerator_fail("qpl_submit_job busy", 10);
    assert_work(&codec_qpl, &worlds[0], PAGES);
}

/* Where UADK has no device, pages are sent as they are. */
static void test_no_device(void)
{
    Pair *p;

    enter(&worlds[3]);
    p = pair_new(&codec_uadk, 1);
    pair_encode_new(p, ZERO, 5);
    g_assert_cmpuint(p->len, ==, 5 * (PAGE + ENTRY));
    pair_assert_arrives(p);
    pair_free(p);
    leave();
}

/* The library is there until the last one has gone, whoever that is. */
static void test_many_users(void)
{
    Pair *pairs[5];

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++) {
            pairs[i] = pair_new(&codec_uadk, 1);
        }
        for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++) {
            Pair *p = pairs[(i + round) % ARRAY_SIZE(pairs)];

            pair_encode_new(p, TEXT, 3);
            pair_assert_arrives(p);
            pair_free(p);
        }
        g_assert_cmpuint(accelerator_objects(), ==, 0);
    }
    leave();
}

/*
 * Calls that fail
 */

typedef enum Outcome { NO_CODER, NOT_ENCODED, NOT_DECODED, ARRIVED } Outcome;

static Outcome go_through(Pair *p, unsigned pages, Error **errp)
{
    struct iovec run = { p->from, pages * PAGE };
    ssize_t len;

    p->encoder = p->codec->encoder_new(1, PAGE, errp);
    p->decoder = p->encoder ? p->codec->decoder_new(PAGE, errp) : NULL;
    if (!p->decoder) {
        return NO_CODER;
    }
    len = p->codec->encode(p->encoder, &run, 1, p->packet,
                           WIRE_MULTIFD_PAYLOAD_MAX, errp);
    if (len < 0) {
        return NOT_ENCODED;
    }
    return pair_decode(p, len, pages, errp) ? ARRIVED : NOT_DECODED;
}

/*
 * One packet, and maybe an error, which says @text; what is said to have
 * arrived has arrived.
 */
static Outcome try_all(Pair *p, unsigned pages, const char *text)
{
    Error *err = NULL;
    Outcome outcome = go_through(p, pages, &err);

    g_assert_cmpint(!err, ==, outcome == ARRIVED);
    if (err) {
        g_assert_nonnull(strstr(error_get_pretty(err), text));
        error_free(err);
    } else {
        p->pages = pages;
        g_assert_true(pair_is_same(p));
    }
    if (p->decoder) {
        p->codec->decoder_free(p->decoder);
    }
    if (p->encoder) {
        p->codec->encoder_free(p->encoder);
    }
    g_assert_cmpuint(accelerator_objects(), ==, 0);
    return outcome;
}

/* A pair whose memory alone is used */
static Pair *content_new(const Codec *codec)
{
    Pair *p = pair_new(codec, 1);

    pair_encode_new(p, TEXT, PAGES);
    p->codec->encoder_free(p->encoder);
    p->codec->decoder_free(p->decoder);
    return p;
}

static void content_free(Pair *p)
{
    p->encoder = p->codec->encoder_new(1, PAGE, &error_abort);
    p->decoder = p->codec->decoder_new(PAGE, &error_abort);
    pair_free(p);
}

static const char *shown_name(const Codec *codec)
{
    return codec == &codec_qpl ? "QPL" : codec == &codec_qatzip ? "QATzip" : "";
}

/* Each call of each function fails in turn. */
static void test_each_fails(const void *opaque)
{
    const Codec *codec = opaque;

    for (unsigned i = 0; i < ARRAY_SIZE(worlds); i++) {
        bool left = false;
        Pair *p;

        enter(&worlds[i]);
        p = content_new(codec);
        for (unsigned n = 1; !left; n++) {
            accelerator_fail(NULL, n);
            try_all(p, 4, shown_name(codec));
            left = accelerator_fail_left();
            accelerator_fail(NULL, 0);
        }
        content_free(p);
        leave();
    }
}

/* What a call that fails leads to, in some world */
typedef struct Failure {
    const Codec *codec;
    const char *call;
    unsigned n;
    unsigned world;
    Outcome outcome;
} Failure;

static const Failure failures[] = {
    { &codec_qpl, "qpl_get_job_size", 1, 0, NO_CODER },
    { &codec_qpl, "qpl_get_job_size", 2, 0, ARRIVED },
    { &codec_qpl, "qpl_init_job", 1, 0, NO_CODER },
    { &codec_qpl, "qpl_init_job", 100, 0, ARRIVED },
    { &codec_qpl, "qpl_submit_job", 1, 0, ARRIVED },
    { &codec_qpl, "qpl_submit_job", PAGES + 1, 0, ARRIVED },
    { &codec_qpl, "qpl_wait_job", 1, 0, ARRIVED },
    { &codec_qpl, "qpl_wait_job", PAGES + 1, 0, ARRIVED },
    { &codec_qpl, "qpl_execute_job", 1, 3, ARRIVED },
    { &codec_qpl, "qpl_execute_job", PAGES + 1, 3, NOT_DECODED },
    { &codec_qpl, "qpl_execute_job", 2 * PAGES, 2, NOT_DECODED },
    /* a device has jobs when a page is found that cannot be decoded */
    { &codec_qpl, "qpl_execute_job", PAGES - 3 + 1, 1, NOT_DECODED },
    { &codec_uadk, "wd_comp_init2_", 1, 0, ARRIVED },
    { &codec_uadk, "wd_comp_alloc_sess", 1, 0, ARRIVED },
    { &codec_uadk, "wd_comp_alloc_sess", 2, 0, ARRIVED },
    { &codec_uadk, "wd_do_comp_sync", 1, 0, ARRIVED },
    { &codec_uadk, "wd_do_comp_sync", PAGES + 1, 0, ARRIVED },
    { &codec_uadk, "status", 1, 0, ARRIVED },
    { &codec_uadk, "status", PAGES + 1, 0, ARRIVED },
    { &codec_qatzip, "qzInit", 1, 0, NO_CODER },
    { &codec_qatzip, "qzInit", 2, 0, NO_CODER },
    { &codec_qatzip, "qzGetDefaultsDeflate", 1, 0, NO_CODER },
    { &codec_qatzip, "qzSetupSessionDeflate", 2, 0, NO_CODER },
    { &codec_qatzip, "qzMalloc pinned", 1, 0, ARRIVED },
    { &codec_qatzip, "qzMalloc", 1, 3, NO_CODER },
    { &codec_qatzip, "qzMalloc", 4, 3, NO_CODER },
    { &codec_qatzip, "qzCompress", 1, 0, NOT_ENCODED },
    { &codec_qatzip, "qzCompress short", 1, 0, NOT_ENCODED },
    { &codec_qatzip, "qzDecompress", 1, 0, NOT_DECODED },
};

static void test_failure(const void *opaque)
{
    const Failure *f = opaque;
    Pair *p;

    enter(&worlds[f->world]);
    p = content_new(f->codec);
    accelerator_fail(f->call, f->n);
    g_assert_cmpint(try_all(p, PAGES, ""), ==, f->outcome);
    g_assert_false(accelerator_fail_left());
    content_free(p);
    leave();
}

/*
 * The format, as others read and write it
 */

static int window_bits(const Codec *codec)
{
    return codec == &codec_qpl ? -MAX_WBITS
           : codec == &codec_uadk ? MAX_WBITS : MAX_WBITS + 16;
}

/* Fills @room bytes, or less; returns how many were read. */
static size_t inflate_by_hand(int bits, const uint8_t *in, size_t len,
                              uint8_t *out, size_t *room)
{
    z_stream zs = {
        .next_in = (Bytef *)in, .avail_in = len,
        .next_out = out, .avail_out = *room,
    };

    g_assert_cmpint(inflateInit2(&zs, bits), ==, Z_OK);
    g_assert_cmpint(inflate(&zs, Z_FINISH), ==, Z_STREAM_END);
    *room -= zs.avail_out;
    inflateEnd(&zs);
    return len - zs.avail_in;
}

/* Level 9 makes as little of it as there can be. */
static size_t deflate_by_hand(int bits, const uint8_t *in, size_t len,
                              uint8_t *out, size_t room)
{
    z_stream zs = {
        .next_in = (Bytef *)in, .avail_in = len,
        .next_out = out, .avail_out = room,
    };

    g_assert_cmpint(deflateInit2(&zs, 9, Z_DEFLATED, bits, 8,
                                 Z_DEFAULT_STRATEGY), ==, Z_OK);
    g_assert_cmpint(deflate(&zs, Z_FINISH), ==, Z_STREAM_END);
    deflateEnd(&zs);
    return room - zs.avail_out;
}

static void test_table_read(const void *opaque)
{
    const Codec *codec = opaque;
    Pair *p = pair_new(codec, 1);
    unsigned packed = 0;
    size_t at;

    pair_encode_new(p, MIXED, PAGES);
    at = PAGES * ENTRY;
    for (unsigned i = 0; i < PAGES; i++) {
        uint32_t len = ldl_be_p(p->packet + i * ENTRY);
        size_t room = PAGE;
        uint8_t page[PAGE];

        g_assert_cmpuint(len, <=, PAGE);
        if (len == PAGE) {
            memcpy(page, p->packet + at, PAGE);
        } else {
            g_assert_cmpuint(inflate_by_hand(window_bits(codec),
                                             p->packet + at, len, page, &room),
                             ==, len);
            g_assert_cmpuint(room, ==, PAGE);
            packed++;
        }
        g_assert_false(memcmp(page, p->from + i * PAGE, PAGE));
        at += len;
    }
    g_assert_cmpuint(at, ==, p->len);
    g_assert_cmpuint(packed, >, 0);
    g_assert_cmpuint(packed, <, PAGES);
    pair_free(p);
    leave();
}

/* A payload of @pages, each of which is @len bytes at @bytes */
static void put_table(Pair *p, unsigned pages, const uint8_t *bytes, size_t len)
{
    p->pages = pages;
    p->len = pages * (ENTRY + len);
    for (unsigned i = 0; i < pages; i++) {
        stl_be_p(p->packet + i * ENTRY, len);
        memcpy(p->packet + pages * ENTRY + i * len, bytes, len);
    }
}

static void test_table_written(const void *opaque)
{
    const Codec *codec = opaque;
    Pair *p = pair_new(codec, 1);
    uint8_t bytes[2 * PAGE];
    size_t len;

    pair_encode_new(p, TEXT, 1);
    for (unsigned i = 1; i < PAGES; i++) {
        memcpy(p->from + i * PAGE, p->from, PAGE);
    }
    len = deflate_by_hand(window_bits(codec), p->from, PAGE, bytes,
                          sizeof(bytes));
    put_table(p, PAGES, bytes, len);
    pair_assert_arrives(p);
    put_table(p, PAGES, p->from, PAGE);
    pair_assert_arrives(p);
    pair_free(p);
    leave();
}

static void test_gzip_read(void)
{
    Pair *p = pair_new(&codec_qatzip, 1);
    g_autofree uint8_t *pages = g_malloc(PAGES * PAGE);
    size_t at = 0, done = 0;

    pair_encode_new(p, MIXED, PAGES);
    while (at < p->len) {
        size_t room = PAGES * PAGE - done;

        at += inflate_by_hand(window_bits(p->codec), p->packet + at,
                              p->len - at, pages + done, &room);
        done += room;
    }
    g_assert_cmpuint(done, ==, PAGES * PAGE);
    g_assert_false(memcmp(pages, p->from, done));
    pair_free(p);
    leave();
}

/* Members of whatever length */
static void test_gzip_written(void)
{
    static const size_t members[] = { 1, 100, PAGE, PAGES * PAGE };
    Pair *p = pair_new(&codec_qatzip, 1);

    for (unsigned i = 0; i < ARRAY_SIZE(members); i++) {
        unsigned pages = i ? PAGES : 1;

        pair_encode_new(p, TEXT, pages);
        p->len = 0;
        for (size_t at = 0; at < pages * PAGE; at += members[i]) {
            p->len += deflate_by_hand(window_bits(p->codec), p->from + at,
                                      MIN(members[i], pages * PAGE - at),
                                      p->packet + p->len,
                                      WIRE_MULTIFD_PAYLOAD_MAX - p->len);
        }
        pair_assert_arrives(p);
    }
    pair_free(p);
    leave();
}

/*
 * Lies
 */

/* In each world: what is no packet is refused, and what comes next is not. */
static void each_world(const Codec *codec, void (*lie)(Pair *p))
{
    for (unsigned i = 0; i < ARRAY_SIZE(worlds); i++) {
        Pair *p;

        enter(&worlds[i]);
        p = pair_new(codec, 1);
        lie(p);
        pair_encode_new(p, MIXED, 9);
        pair_assert_arrives(p);
        pair_free(p);
        leave();
    }
}

/* No part of a packet is one. */
static void lie_truncated(Pair *p)
{
    pair_encode_new(p, MIXED, 3);
    for (size_t len = 0; len < p->len; len += len < 64 ? 1 : 97) {
        pair_assert_refused(p, len, p->pages, "");
    }
    pair_assert_refused(p, p->len - 1, p->pages, "");
}

static void lie_other_count(Pair *p)
{
    pair_encode_new(p, MIXED, 9);
    for (unsigned pages = 1; pages < 20; pages++) {
        if (pages != 9) {
            pair_assert_refused(p, p->len, pages, "");
        }
    }
    pair_assert_refused(p, p->len, PAGES, "");
}

/* Two packets in one, or something after the end */
static void lie_two(Pair *p)
{
    size_t len;

    pair_encode_new(p, MIXED, 4);
    len = p->len;
    memcpy(p->packet + len, p->packet, len);
    pair_assert_refused(p, 2 * len, 4, "");
    pair_assert_refused(p, len + 1, 4, "");
}

static void lie_lengths(Pair *p)
{
    static const uint32_t lengths[] = {
        0, PAGE + 1, 2 * PAGE, INT32_MAX, 1u << 31, UINT32_MAX - 3, UINT32_MAX,
    };
    size_t own;

    pair_encode_new(p, RANDOM, 4);
    own = ldl_be_p(p->packet + ENTRY);
    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        stl_be_p(p->packet + ENTRY, lengths[i]);
        pair_assert_refused(p, p->len, 4, "A compressed page has");
    }
    /* the others have it so that the sum is right, also in 32 bits */
    stl_be_p(p->packet + ENTRY, own + 1);
    stl_be_p(p->packet + 2 * ENTRY, own - 1);
    pair_assert_refused(p, p->len, 4, "A compressed page has");
    stl_be_p(p->packet + ENTRY, UINT32_MAX - PAGE + 1);
    stl_be_p(p->packet + 2 * ENTRY, 3 * PAGE);
    pair_assert_refused(p, p->len, 4, "A compressed page has");
    stl_be_p(p->packet + ENTRY, PAGE - 1);
    stl_be_p(p->packet + 2 * ENTRY, PAGE);
    pair_assert_refused(p, p->len, 4, "its pages take");
    pair_assert_refused(p, 4 * ENTRY - 1, 4, "table of lengths");
    pair_assert_refused(p, 4 * ENTRY, 4, "its pages take");
}

/* A page as it is that is said to be compressed, and the other way round */
static void lie_stored(Pair *p)
{
    uint8_t page[PAGE] = { };

    put_table(p, 4, page, PAGE - 1);
    memset(p->packet + 4 * ENTRY, 0xff, 4 * (PAGE - 1));
    pair_assert_refused(p, p->len, 4, "");
    pair_encode_new(p, ZERO, 4);
    if (ldl_be_p(p->packet) < PAGE) {
        stl_be_p(p->packet, PAGE);
        pair_assert_refused(p, p->len, 4, "its pages take");
    }
}

/* One page of a packet that is @memory bytes of zeros, compressed */
static void assert_bomb(Pair *p, size_t memory, unsigned place)
{
    g_autofree uint8_t *zeros = g_malloc0(memory);
    g_autofree uint8_t *bytes = g_malloc(BOMB);
    size_t len = deflate_by_hand(window_bits(p->codec), zeros, memory, bytes,
                                 BOMB);

    g_assert_cmpuint(len, <, PAGE);
    pair_encode_new(p, ZERO, 9);
    put_table(p, 9, bytes, len);
    for (unsigned i = 0; i < 9; i++) {
        if (i != place) {
            stl_be_p(p->packet + i * ENTRY, PAGE);
        }
    }
    p->len = 9 * ENTRY + 8 * PAGE + len;
    memset(p->packet + 9 * ENTRY, 0, p->len - 9 * ENTRY);
    memcpy(p->packet + 9 * ENTRY + place * PAGE, bytes, len);
    pair_assert_refused(p, p->len, 9, "");
}

static void lie_bomb(Pair *p)
{
    static const size_t memory[] = {
        1, PAGE - 1, PAGE + 1, 2 * PAGE, 3 << 20,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(memory); i++) {
        assert_bomb(p, memory[i], 0);
        assert_bomb(p, memory[i], 4);
        assert_bomb(p, memory[i], 8);
    }
}

static void lie_gzip_bomb(Pair *p)
{
    static const size_t memory[] = {
        PAGE - 1, PAGE + 1, PAGES * PAGE, PAGES * PAGE + 1, BOMB,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(memory); i++) {
        g_autofree uint8_t *zeros = g_malloc0(memory[i]);

        p->len = deflate_by_hand(window_bits(p->codec), zeros, memory[i],
                                 p->packet, WIRE_MULTIFD_PAYLOAD_MAX);
        pair_assert_refused(p, p->len, 1, "");
    }
}

/* Members without content, as many as there can be */
static void lie_gzip_empty(Pair *p)
{
    uint8_t nothing = 0, bytes[64];
    size_t len = deflate_by_hand(window_bits(p->codec), &nothing, 0, bytes,
                                 sizeof(bytes));

    for (p->len = 0; p->len + len <= WIRE_MULTIFD_PAYLOAD_MAX; p->len += len) {
        memcpy(p->packet + p->len, bytes, len);
    }
    pair_assert_refused(p, p->len, 1, "holds 0 bytes");
}

static void test_truncated(const void *codec)
{
    each_world(codec, lie_truncated);
}

static void test_other_count(const void *codec)
{
    each_world(codec, lie_other_count);
}

static void test_two(const void *codec)
{
    each_world(codec, lie_two);
}

static void test_lengths(const void *codec)
{
    each_world(codec, lie_lengths);
}

static void test_stored(const void *codec)
{
    each_world(codec, lie_stored);
}

static void test_bomb(const void *codec)
{
    each_world(codec, lie_bomb);
}

static void test_gzip_bomb(const void *codec)
{
    each_world(codec, lie_gzip_bomb);
}

static void test_gzip_empty(const void *codec)
{
    each_world(codec, lie_gzip_empty);
}

static void test_damaged(const void *codec)
{
    enter(&worlds[1]);
    codec_test_damaged(codec, TEXT, 1);
    leave();
    /* Without a device UADK compresses nothing, so all may arrive. */
    enter(&worlds[3]);
    codec_test_damaged(codec, TEXT, 0);
    leave();
}

/*
 * Lists
 */

static void add_all(const Codec *codec)
{
    codec_tests_add(codec);
    codec_test_add(codec, "worlds", test_worlds);
    codec_test_add(codec, "work", test_work);
    codec_test_add(codec, "each-fails", test_each_fails);
    codec_test_add(codec, "truncated", test_truncated);
    codec_test_add(codec, "other-count", test_other_count);
    codec_test_add(codec, "two", test_two);
    codec_test_add(codec, "damaged", test_damaged);
}

static void add_with_table(const Codec *codec)
{
    add_all(codec);
    codec_test_add(codec, "read", test_table_read);
    codec_test_add(codec, "written-by-hand", test_table_written);
    codec_test_add(codec, "lengths", test_lengths);
    codec_test_add(codec, "stored", test_stored);
    codec_test_add(codec, "bomb", test_bomb);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    add_with_table(&codec_qpl);
    g_test_add_func("/multifd/codec/qpl/full-queue", test_full_queue);
    g_test_add_func("/multifd/codec/qpl/busy-once", test_busy_once);
    add_with_table(&codec_uadk);
    g_test_add_func("/multifd/codec/uadk/no-device", test_no_device);
    g_test_add_func("/multifd/codec/uadk/many-users", test_many_users);
    add_all(&codec_qatzip);
    g_test_add_func("/multifd/codec/qatzip/read", test_gzip_read);
    g_test_add_func("/multifd/codec/qatzip/written-by-hand",
                    test_gzip_written);
    codec_test_add(&codec_qatzip, "bomb", test_gzip_bomb);
    codec_test_add(&codec_qatzip, "empty", test_gzip_empty);
    for (unsigned i = 0; i < ARRAY_SIZE(failures); i++) {
        const Failure *f = &failures[i];
        g_autofree char *path = g_strdup_printf(
            "/multifd/codec/%s/fails/%s/%u/%u", f->codec->name, f->call, f->n,
            f->world);

        g_test_add_data_func(path, f, test_failure);
    }
    return g_test_run();
}
