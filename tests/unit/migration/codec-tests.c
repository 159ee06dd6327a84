/*
 * Tests of compressed packets that are the same for each method
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "area.h"
#include "setup.h"
#include "codec-tests.h"
#include "migration/wire/wire.h"

#define GUARD 0xa7

void pair_new_decoder(Pair *p)
{
    if (p->decoder) {
        p->codec->decoder_free(p->decoder);
    }
    p->decoder = p->codec->decoder_new(PAGE, &error_abort);
}

Pair *pair_new(const Codec *codec, int level)
{
    Pair *p = g_new0(Pair, 1);

    p->codec = codec;
    p->encoder = codec->encoder_new(level, PAGE, &error_abort);
    pair_new_decoder(p);
    p->from = area_new(PAGES * PAGE);
    p->to = area_new(2 * PAGES * PAGE);
    p->packet = area_new(WIRE_MULTIFD_PAYLOAD_MAX);
    return p;
}

void pair_free(Pair *p)
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

void pair_encode(Pair *p, unsigned pages)
{
    unsigned n = divide(p->from_runs, p->from, pages);
    ssize_t len = p->codec->encode(p->encoder, p->from_runs, n, p->packet,
                                   WIRE_MULTIFD_PAYLOAD_MAX, &error_abort);

    g_assert_cmpint(len, >, 0);
    g_assert_cmpint(len, <=, WIRE_MULTIFD_PAYLOAD_MAX);
    p->pages = pages;
    p->len = len;
}

void pair_encode_new(Pair *p, Content content, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++) {
        fill_page(p->from + i * PAGE, content);
    }
    pair_encode(p, pages);
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
bool pair_decode_bytes(Pair *p, const uint8_t *bytes, size_t len,
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

bool pair_decode(Pair *p, size_t len, unsigned pages, Error **errp)
{
    return pair_decode_bytes(p, p->packet, len, pages, errp);
}

bool pair_is_same(const Pair *p)
{
    for (unsigned i = 0; i < p->pages; i++) {
        if (memcmp(p->from + i * PAGE, place(p, i), PAGE)) {
            return false;
        }
    }
    return true;
}

void pair_assert_arrives(Pair *p)
{
    g_assert_true(pair_decode(p, p->len, p->pages, &error_abort));
    g_assert_true(pair_is_same(p));
}

void pair_assert_refused(Pair *p, size_t len, unsigned pages,
                           const char *text)
{
    Error *err = NULL;

    g_assert_false(pair_decode(p, len, pages, &err));
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

            pair_encode_new(p, content, PAGES);
            if (content == ZERO && level) {
                g_assert_cmpuint(p->len, <, PAGES * PAGE / 50);
            }
            if (content == TEXT && level) {
                g_assert_cmpuint(p->len, <, PAGES * PAGE / 2);
            }
            pair_assert_arrives(p);
            pair_free(p);
        }
    }
}

/* Packets of all sizes, one after the other on one channel */
static void test_many(const void *codec)
{
    Pair *p = pair_new(codec, 1);

    for (unsigned i = 0; i < 60; i++) {
        pair_encode_new(p, g_test_rand_int_range(0, CONTENTS),
                   i % 10 ? g_test_rand_int_range(1, 12)
                          : g_test_rand_int_range(1, PAGES + 1));
        pair_assert_arrives(p);
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
        pair_encode_new(p, g_test_rand_int_range(0, CONTENTS),
                   g_test_rand_int_range(1, PAGES + 1));
        pair_assert_arrives(p);
    }
    pair_free(p);
}

/* Every packet that is as large as it can be fits. */
static void test_largest(const void *codec)
{
    Pair *p = pair_new(codec, 0);

    for (unsigned i = 0; i < 3; i++) {
        pair_encode_new(p, RANDOM, PAGES);
        g_assert_cmpuint(p->len, <, WIRE_MULTIFD_PAYLOAD_MAX);
        pair_assert_arrives(p);
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
    pair_encode_new(p, TEXT, PAGES);
    pair_assert_arrives(p);
    w.memory = p->from;
    qemu_thread_create(&thread, "writer", write_on, &w, QEMU_THREAD_JOINABLE);
    while (g_get_monotonic_time() < end) {
        pair_encode(p, g_test_rand_int_range(1, PAGES + 1));
        g_assert_true(pair_decode(p, p->len, p->pages, &error_abort));
    }
    qatomic_set(&w.stop, true);
    qemu_thread_join(&thread);
    for (unsigned i = 0; i < 5; i++) {
        pair_encode(p, PAGES);
        pair_assert_arrives(p);
        pair_encode_new(p, MIXED, PAGES);
        pair_assert_arrives(p);
    }
    pair_free(p);
}

/*
 * Lies
 */

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
        if (!pair_decode(p, p->len, g_test_rand_int_range(1, 9), &err)) {
            error_free_or_abort(&err);
            refused++;
        }
        pair_free(p);
    }
    g_assert_cmpuint(refused, >, 80);
}

void codec_test_damaged(const Codec *codec, Content content, unsigned least)
{
    unsigned refused = 0;

    for (unsigned round = 0; round < 100; round++) {
        Pair *p = pair_new(codec, 1);
        Error *err = NULL;

        for (unsigned i = 0; i < 4; i++) {
            pair_encode_new(p, content, 4);
            if (i == round % 4) {
                p->packet[g_test_rand_int_range(0, p->len)] ^=
                    1 << g_test_rand_int_range(0, 8);
            }
            if (!pair_decode(p, p->len, p->pages, &err)) {
                error_free_or_abort(&err);
                refused++;
            }
        }
        pair_free(p);
    }
    g_assert_cmpuint(refused, >=, least);
}

/*
 * Lists
 */

void codec_test_add(const Codec *codec, const char *name, GTestDataFunc test)
{
    g_autofree char *path = g_strdup_printf("/multifd/codec/%s/%s",
                                            codec->name, name);

    g_test_add_data_func(path, codec, test);
}

void codec_tests_add(const Codec *codec)
{
    codec_test_add(codec, "contents", test_contents);
    codec_test_add(codec, "many", test_many);
    codec_test_add(codec, "other-level", test_other_level);
    codec_test_add(codec, "largest", test_largest);
    codec_test_add(codec, "no-room", test_no_room);
    codec_test_add(codec, "written", test_written);
    codec_test_add(codec, "noise", test_noise);
}
