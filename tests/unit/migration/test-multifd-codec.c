/*
 * Unit tests of compressed packets of multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All of them are for each method.  What is decoded goes to pages that have
 * others around them, which must stay as they are.
 */

#include "qemu/osdep.h"
#include <zlib.h>
#ifdef CONFIG_ZSTD
#include <zstd.h>
#endif
#include "qemu/cutils.h"
#include "qemu/thread.h"
#include "area.h"
#include "setup.h"
#include "migration/multifd/codec.h"
#include "migration/wire/wire.h"

#define PAGE 4096u
#define PAGES 128u              /* of a packet, at most */
#define GUARD 0xa7

/* A sender and a receiver, and the packet between them */
typedef struct Pair {
    const Codec *codec;
    void *encoder, *decoder;
    uint8_t *from;              /* PAGES of them */
    uint8_t *to;                /* twice as many: each other one is a guard */
    uint8_t *packet;            /* as large as it may be */
    size_t len;
    struct iovec from_runs[PAGES], to_runs[PAGES];
    unsigned pages;             /* of the packet */
} Pair;

static void new_decoder(Pair *p)
{
    if (p->decoder) {
        p->codec->decoder_free(p->decoder);
    }
    p->decoder = p->codec->decoder_new(&error_abort);
}

static Pair *pair_new(const Codec *codec, int level)
{
    Pair *p = g_new0(Pair, 1);

    p->codec = codec;
    p->encoder = codec->encoder_new(level, &error_abort);
    new_decoder(p);
    p->from = area_new(PAGES * PAGE);
    p->to = area_new(2 * PAGES * PAGE);
    p->packet = area_new(WIRE_MULTIFD_PAYLOAD_MAX);
    return p;
}

static void pair_free(Pair *p)
{
    p->codec->encoder_free(p->encoder);
    p->codec->decoder_free(p->decoder);
    area_free(p->from, PAGES * PAGE);
    area_free(p->to, 2 * PAGES * PAGE);
    area_free(p->packet, WIRE_MULTIFD_PAYLOAD_MAX);
    g_free(p);
}

/*
 * Content of pages
 */

typedef enum Content { RANDOM, ZERO, TEXT, MIXED, CONTENTS } Content;

static void fill_random(uint8_t *page)
{
    for (unsigned i = 0; i < PAGE; i += 4) {
        uint32_t word = g_test_rand_int();

        memcpy(page + i, &word, sizeof(word));
    }
}

static void fill_text(uint8_t *page)
{
    static const char *const words[] = {
        "page ", "of ", "the ", "guest ", "memory ", "dirty ", "is ", "sent\n",
    };
    GString *text = g_string_new(NULL);

    while (text->len < PAGE) {
        g_string_append(text, words[g_test_rand_int_range(0, 8)]);
    }
    memcpy(page, text->str, PAGE);
    g_string_free(text, true);
}

static void fill_page(uint8_t *page, Content content)
{
    if (content == MIXED) {
        content = g_test_rand_int_range(0, MIXED);
    }
    if (content == RANDOM) {
        fill_random(page);
    } else if (content == TEXT) {
        fill_text(page);
    } else {
        memset(page, 0, PAGE);
    }
}

/*
 * Packets
 */

/* @pages, the first ones, divided into runs by chance. */
static unsigned divide(struct iovec *runs, uint8_t *memory, unsigned pages)
{
    unsigned n = 0, count;

    for (unsigned at = 0; at < pages; at += count) {
        count = g_test_rand_int_range(1, pages - at + 1);
        if (g_test_rand_bit()) {
            count = 1;
        }
        runs[n++] = (struct iovec) { memory + at * PAGE, count * PAGE };
    }
    return n;
}

static void encode(Pair *p, unsigned pages)
{
    unsigned n = divide(p->from_runs, p->from, pages);
    ssize_t len = p->codec->encode(p->encoder, p->from_runs, n, p->packet,
                                   WIRE_MULTIFD_PAYLOAD_MAX, &error_abort);

    g_assert_cmpint(len, >, 0);
    g_assert_cmpint(len, <=, WIRE_MULTIFD_PAYLOAD_MAX);
    p->pages = pages;
    p->len = len;
}

static void encode_new(Pair *p, Content content, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++) {
        fill_page(p->from + i * PAGE, content);
    }
    encode(p, pages);
}

/* Where page @i goes; page @i of the guards follows it. */
static uint8_t *place(const Pair *p, unsigned i)
{
    return p->to + 2 * i * PAGE;
}

/* Nothing but the first @pages was written to. */
static void assert_guards(const Pair *p, unsigned pages)
{
    uint8_t guard[2 * PAGE];

    memset(guard, GUARD, sizeof(guard));
    for (unsigned i = 0; i < PAGES; i++) {
        unsigned skip = i < pages ? PAGE : 0;

        g_assert_false(memcmp(place(p, i) + skip, guard, 2 * PAGE - skip));
    }
}

/* What may be written to is @pages, and nothing else. */
static bool decode_bytes(Pair *p, const uint8_t *bytes, size_t len,
                         unsigned pages, Error **errp)
{
    /* Memory that ends where the bytes do, so that a tool sees reads behind */
    g_autofree uint8_t *in = g_memdup2(bytes, len);
    bool ok;

    memset(p->to, GUARD, 2 * PAGES * PAGE);
    for (unsigned i = 0; i < pages; i++) {
        p->to_runs[i] = (struct iovec) { place(p, i), PAGE };
    }
    ok = p->codec->decode(p->decoder, in, len, p->to_runs, pages, errp);
    assert_guards(p, pages);
    return ok;
}

static bool decode(Pair *p, size_t len, unsigned pages, Error **errp)
{
    return decode_bytes(p, p->packet, len, pages, errp);
}

static bool is_same(const Pair *p)
{
    for (unsigned i = 0; i < p->pages; i++) {
        if (memcmp(p->from + i * PAGE, place(p, i), PAGE)) {
            return false;
        }
    }
    return true;
}

static void assert_arrives(Pair *p)
{
    g_assert_true(decode(p, p->len, p->pages, &error_abort));
    g_assert_true(is_same(p));
}

static void assert_refused(Pair *p, size_t len, unsigned pages,
                           const char *text)
{
    Error *err = NULL;

    g_assert_false(decode(p, len, pages, &err));
    g_assert_nonnull(err);
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    error_free(err);
}

/*
 * What is as it should be
 */

static void test_contents(const void *codec)
{
    for (unsigned content = 0; content < CONTENTS; content++) {
        for (int level = 0; level <= 9; level += 3) {
            Pair *p = pair_new(codec, level);

            encode_new(p, content, PAGES);
            if (content == ZERO && level) {
                g_assert_cmpuint(p->len, <, PAGES * PAGE / 50);
            }
            if (content == TEXT && level) {
                g_assert_cmpuint(p->len, <, PAGES * PAGE / 2);
            }
            assert_arrives(p);
            pair_free(p);
        }
    }
}

/* Packets of all sizes, one after the other on one channel */
static void test_many(const void *codec)
{
    Pair *p = pair_new(codec, 1);

    for (unsigned i = 0; i < 60; i++) {
        encode_new(p, g_test_rand_int_range(0, CONTENTS),
                   i % 10 ? g_test_rand_int_range(1, 12)
                          : g_test_rand_int_range(1, PAGES + 1));
        assert_arrives(p);
    }
    pair_free(p);
}

/* What came in one packet makes the next one shorter. */
static void test_history(const void *codec)
{
    Pair *p = pair_new(codec, 1);
    size_t first;

    encode_new(p, RANDOM, 1);
    assert_arrives(p);
    first = p->len;
    for (unsigned i = 0; i < 5; i++) {
        encode(p, 1);
        assert_arrives(p);
        g_assert_cmpuint(p->len, <, first / 10);
    }
    pair_free(p);
}

/* The level changes on the way. */
static void test_other_level(const void *codec)
{
    Pair *p = pair_new(codec, 1);

    for (unsigned i = 0; i < 40; i++) {
        if (i % 3) {
            p->codec->encoder_level(p->encoder, g_test_rand_int_range(0, 10));
        }
        encode_new(p, g_test_rand_int_range(0, CONTENTS),
                   g_test_rand_int_range(1, PAGES + 1));
        assert_arrives(p);
    }
    pair_free(p);
}

/* Every packet that is as large as it can be fits. */
static void test_largest(const void *codec)
{
    Pair *p = pair_new(codec, 0);

    for (unsigned i = 0; i < 3; i++) {
        encode_new(p, RANDOM, PAGES);
        g_assert_cmpuint(p->len, <, WIRE_MULTIFD_PAYLOAD_MAX);
        assert_arrives(p);
    }
    pair_free(p);
}

static void test_no_room(const void *codec)
{
    static const size_t rooms[] = { 0, 1, 100, PAGE, PAGES * PAGE / 2 };

    for (unsigned i = 0; i < ARRAY_SIZE(rooms); i++) {
        Pair *p = pair_new(codec, 1);
        Error *err = NULL;
        unsigned n;

        for (unsigned page = 0; page < PAGES; page++) {
            fill_random(p->from + page * PAGE);
        }
        memset(p->packet, GUARD, WIRE_MULTIFD_PAYLOAD_MAX);
        n = divide(p->from_runs, p->from, PAGES);
        g_assert_cmpint(p->codec->encode(p->encoder, p->from_runs, n,
                                         p->packet, rooms[i], &err), ==, -1);
        error_free_or_abort(&err);
        for (size_t at = rooms[i]; at < PAGES * PAGE; at++) {
            g_assert_cmpuint(p->packet[at], ==, GUARD);
        }
        pair_free(p);
    }
}

/* A guest that writes to what is compressed */
typedef struct Writer {
    uint8_t *memory;
    bool stop;
} Writer;

static void *write_on(void *opaque)
{
    Writer *w = opaque;
    uint32_t x = 1;

    while (!qatomic_read(&w->stop)) {
        x = x * 1664525 + 1013904223;
        /* volatile, as a guest writes: no order, no lock */
        *(volatile uint32_t *)(w->memory + x % (PAGES * PAGE / 4) * 4) =
            x & 0x8000 ? x : 0;
    }
    return NULL;
}

/*
 * What arrives may be anything, but the packet can be decoded, and what comes
 * later, when nobody writes, arrives as it is.
 */
static void test_written(const void *codec)
{
    int64_t end = g_get_monotonic_time() + G_USEC_PER_SEC / 2;
    Writer w = { };
    QemuThread thread;
    Pair *p;

#ifdef CONFIG_TSAN
    g_test_skip("what a guest writes while it is read is a race by design");
    return;
#endif
    p = pair_new(codec, 1);
    encode_new(p, TEXT, PAGES);
    assert_arrives(p);
    w.memory = p->from;
    qemu_thread_create(&thread, "writer", write_on, &w, QEMU_THREAD_JOINABLE);
    while (g_get_monotonic_time() < end) {
        encode(p, g_test_rand_int_range(1, PAGES + 1));
        g_assert_true(decode(p, p->len, p->pages, &error_abort));
    }
    qatomic_set(&w.stop, true);
    qemu_thread_join(&thread);
    for (unsigned i = 0; i < 5; i++) {
        encode(p, PAGES);
        assert_arrives(p);
        encode_new(p, MIXED, PAGES);
        assert_arrives(p);
    }
    pair_free(p);
}

/*
 * Lies
 */

static void test_truncated(const void *codec)
{
    Pair *p = pair_new(codec, 1);
    Error *err = NULL;

    encode_new(p, MIXED, 8);
    for (size_t len = 0; len + 64 < p->len; len += len < 64 ? 1 : 97) {
        new_decoder(p);
        assert_refused(p, len, p->pages, "less than its pages");
    }
    /* The mark of the flush, which has no content, may be missing. */
    for (size_t len = p->len - 64; len < p->len; len++) {
        new_decoder(p);
        if (decode(p, len, p->pages, &err)) {
            g_assert_cmpuint(p->len - len, <, 10);
            g_assert_true(is_same(p));
        } else {
            error_free_or_abort(&err);
        }
    }
    pair_free(p);
}

static void test_more(const void *codec)
{
    for (unsigned content = 0; content < MIXED; content++) {
        for (unsigned pages = 1; pages < 9; pages++) {
            Pair *p = pair_new(codec, 1);

            encode_new(p, content, 9);
            assert_refused(p, p->len, pages, "more than its pages");
            pair_free(p);
        }
    }
}

static void test_less(const void *codec)
{
    for (unsigned content = 0; content < MIXED; content++) {
        Pair *p = pair_new(codec, 1);

        encode_new(p, content, 9);
        assert_refused(p, p->len, 10, "less than its pages");
        pair_free(p);
    }
}

/* Two packets in one */
static void test_two(const void *codec)
{
    Pair *p = pair_new(codec, 1);
    g_autofree uint8_t *first = NULL;
    size_t len;

    encode_new(p, MIXED, 4);
    first = g_memdup2(p->packet, p->len);
    len = p->len;
    encode_new(p, MIXED, 4);
    memmove(p->packet + len, p->packet, p->len);
    memcpy(p->packet, first, len);
    assert_refused(p, len + p->len, 4, "more than its pages");
    pair_free(p);
}

static void test_noise(const void *codec)
{
    unsigned refused = 0;

    for (unsigned round = 0; round < 100; round++) {
        Pair *p = pair_new(codec, 1);
        Error *err = NULL;

        p->len = g_test_rand_int_range(1, 20000);
        for (size_t i = 0; i < p->len; i++) {
            p->packet[i] = g_test_rand_int();
        }
        if (!decode(p, p->len, g_test_rand_int_range(1, 9), &err)) {
            error_free_or_abort(&err);
            refused++;
        }
        pair_free(p);
    }
    g_assert_cmpuint(refused, >, 80);
}

/* Packets that were almost right, and what comes after them */
static void test_damaged(const void *codec)
{
    unsigned refused = 0;

    for (unsigned round = 0; round < 100; round++) {
        Pair *p = pair_new(codec, 1);
        Error *err = NULL;

        for (unsigned i = 0; i < 4; i++) {
            encode_new(p, MIXED, 4);
            if (i == round % 4) {
                p->packet[g_test_rand_int_range(0, p->len)] ^=
                    1 << g_test_rand_int_range(0, 8);
            }
            if (!decode(p, p->len, p->pages, &err)) {
                error_free_or_abort(&err);
                refused++;
            }
        }
        pair_free(p);
    }
    g_assert_cmpuint(refused, >, 10);
}

static void test_order(const void *codec)
{
    Pair *p = pair_new(codec, 1);
    g_autofree uint8_t *packets[4] = { };
    size_t lens[4];
    Error *err = NULL;

    for (unsigned i = 0; i < 4; i++) {
        encode_new(p, TEXT, 4);
        packets[i] = g_memdup2(p->packet, p->len);
        lens[i] = p->len;
    }
    /* None but the first one has what a stream begins with. */
    for (unsigned i = 1; i < 4; i++) {
        new_decoder(p);
        g_assert_false(decode_bytes(p, packets[i], lens[i], 4, &err));
        error_free_or_abort(&err);
    }
    for (unsigned left_out = 1; left_out < 3; left_out++) {
        new_decoder(p);
        for (unsigned i = 0; i < 4; i++) {
            if (i != left_out &&
                !decode_bytes(p, packets[i], lens[i], 4, &err)) {
                error_free_or_abort(&err);
                break;
            }
        }
    }
    for (unsigned i = 1; i < 4; i++) {
        g_free(packets[i]);
    }
    pair_free(p);
}

/* Decodes to 64 MiB of zeros, for one page. */
static void assert_bomb(Pair *p, uint8_t *bytes, size_t len)
{
    int64_t start = g_get_monotonic_time();
    Error *err = NULL;

    g_assert_cmpuint(len, <=, WIRE_MULTIFD_PAYLOAD_MAX);
    g_assert_false(decode_bytes(p, bytes, len, 1, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "more than its pages"));
    error_free(err);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 2 * G_USEC_PER_SEC);
}

#define BOMB (64u << 20)

static void test_zlib_bomb(void)
{
    Pair *p = pair_new(&codec_zlib, 1);
    g_autofree uint8_t *zeros = g_malloc0(BOMB);
    uLongf len = compressBound(BOMB);
    g_autofree uint8_t *bytes = g_malloc(len);

    g_assert_cmpint(compress2(bytes, &len, zeros, BOMB, 9), ==, Z_OK);
    assert_bomb(p, bytes, len);
    pair_free(p);
}

/* A stream that ends is not one that goes on in the next packet. */
static void test_zlib_end(void)
{
    Pair *p = pair_new(&codec_zlib, 1);
    uint8_t page[PAGE] = { };
    uLongf len = WIRE_MULTIFD_PAYLOAD_MAX;

    g_assert_cmpint(compress2(p->packet, &len, page, PAGE, 9), ==, Z_OK);
    assert_refused(p, len, 1, "zlib cannot decompress");
    assert_refused(p, len, 1, "zlib cannot decompress");
    pair_free(p);
}

/* A stream for which a dictionary is needed that nobody has */
static void test_zlib_dictionary(void)
{
    static const uint8_t bytes[] = { 0x78, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8 };
    Pair *p = pair_new(&codec_zlib, 1);

    memcpy(p->packet, bytes, sizeof(bytes));
    assert_refused(p, sizeof(bytes), 1, "need dictionary");
    pair_free(p);
}

static void test_zlib_level(void)
{
    Error *err = NULL;

    g_assert_null(codec_zlib.encoder_new(10, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "zlib"));
    error_free(err);
}

#ifdef CONFIG_ZSTD
static void test_zstd_bomb(void)
{
    Pair *p = pair_new(&codec_zstd, 1);
    g_autofree uint8_t *zeros = g_malloc0(BOMB);
    size_t len = ZSTD_compressBound(BOMB);
    g_autofree uint8_t *bytes = g_malloc(len);

    len = ZSTD_compress(bytes, len, zeros, BOMB, 1);
    g_assert_false(ZSTD_isError(len));
    assert_bomb(p, bytes, len);
    pair_free(p);
}

/* A frame that asks for more memory than any sender needs */
static void test_zstd_window(void)
{
    uint8_t bytes[] = {
        0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00,
    };

    for (unsigned bits = 26; bits <= 41; bits++) {
        Pair *p = pair_new(&codec_zstd, 1);

        bytes[5] = (bits - 10) << 3;
        memcpy(p->packet, bytes, sizeof(bytes));
        assert_refused(p, sizeof(bytes), 1, "too much memory");
        pair_free(p);
    }
}

/* ... and what the highest level needs */
static void test_zstd_highest(void)
{
    Pair *p = pair_new(&codec_zstd, 20);

    for (unsigned i = 0; i < 3; i++) {
        encode_new(p, MIXED, 4);
        assert_arrives(p);
    }
    pair_free(p);
}

/* Frames that are to be skipped have no content, however many there are. */
static void test_zstd_skipped(void)
{
    static const uint8_t skip[] = { 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0 };
    static const uint8_t endless[] = {
        0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff,
    };
    Pair *p = pair_new(&codec_zstd, 1);
    size_t len;

    for (len = 0; len < WIRE_MULTIFD_PAYLOAD_MAX; len += sizeof(skip)) {
        memcpy(p->packet + len, skip, sizeof(skip));
    }
    assert_refused(p, len, 1, "less than its pages");
    new_decoder(p);
    memcpy(p->packet, endless, sizeof(endless));
    assert_refused(p, len, 1, "less than its pages");
    pair_free(p);
}
#endif

/*
 * Which there are
 */

static void test_find(void)
{
    Error *err = NULL;

    g_assert_null(codec_find(MULTIFD_COMPRESSION_NONE));
    g_assert_true(codec_exists(MULTIFD_COMPRESSION_NONE, &error_abort));
    for (unsigned i = 0; i < MULTIFD_COMPRESSION__MAX; i++) {
        const Codec *codec = codec_find(i);

        if (codec) {
            g_assert_cmpstr(codec->name, ==, MultiFDCompression_str(i));
            g_assert_true(codec_exists(i, &error_abort));
            g_assert_cmpuint(codec->flag & ~WIRE_MULTIFD_METHOD, ==, 0);
            g_assert_cmpint(ctpop32(codec->flag), ==, 1);
        } else if (i == MULTIFD_COMPRESSION_AUTO && codec_automatic()) {
            g_assert_true(codec_exists(i, &error_abort));
        } else if (i != MULTIFD_COMPRESSION_NONE) {
            g_assert_false(codec_exists(i, &err));
            g_assert_nonnull(strstr(error_get_pretty(err),
                                    MultiFDCompression_str(i)));
            error_free(g_steal_pointer(&err));
        }
    }
    g_assert_true(codec_find(MULTIFD_COMPRESSION_ZLIB) == &codec_zlib);
}

static void add(const Codec *codec, const char *name, GTestDataFunc test)
{
    g_autofree char *path = g_strdup_printf("/multifd/codec/%s/%s",
                                            codec->name, name);

    g_test_add_data_func(path, codec, test);
}

static void add_all(const Codec *codec)
{
    add(codec, "contents", test_contents);
    add(codec, "many", test_many);
    add(codec, "history", test_history);
    add(codec, "other-level", test_other_level);
    add(codec, "largest", test_largest);
    add(codec, "no-room", test_no_room);
    add(codec, "written", test_written);
    add(codec, "truncated", test_truncated);
    add(codec, "more", test_more);
    add(codec, "less", test_less);
    add(codec, "two", test_two);
    add(codec, "noise", test_noise);
    add(codec, "damaged", test_damaged);
    add(codec, "order", test_order);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/multifd/codec/find", test_find);
    add_all(&codec_zlib);
    g_test_add_func("/multifd/codec/zlib/bomb", test_zlib_bomb);
    g_test_add_func("/multifd/codec/zlib/end", test_zlib_end);
    g_test_add_func("/multifd/codec/zlib/dictionary", test_zlib_dictionary);
    g_test_add_func("/multifd/codec/zlib/level", test_zlib_level);
#ifdef CONFIG_ZSTD
    add_all(&codec_zstd);
    g_test_add_func("/multifd/codec/zstd/bomb", test_zstd_bomb);
    g_test_add_func("/multifd/codec/zstd/window", test_zstd_window);
    g_test_add_func("/multifd/codec/zstd/highest", test_zstd_highest);
    g_test_add_func("/multifd/codec/zstd/skipped", test_zstd_skipped);
#endif
    return g_test_run();
}
