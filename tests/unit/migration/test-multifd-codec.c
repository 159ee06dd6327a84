/*
 * Unit tests of compressed packets of multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Of those whose packets are parts of a stream, one a channel
 */

#include "qemu/osdep.h"
#include <zlib.h>
#ifdef CONFIG_ZSTD
#include <zstd.h>
#endif
#include "codec-tests.h"
#include "setup.h"
#include "migration/wire/wire.h"

/*
 * What is as it should be
 */

/* What came in one packet makes the next one shorter. */
static void test_history(const void *codec)
{
    Pair *p = pair_new(codec, 1);
    size_t first;

    pair_encode_new(p, RANDOM, 1);
    pair_assert_arrives(p);
    first = p->len;
    for (unsigned i = 0; i < 5; i++) {
        pair_encode(p, 1);
        pair_assert_arrives(p);
        g_assert_cmpuint(p->len, <, first / 10);
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

    pair_encode_new(p, MIXED, 8);
    for (size_t len = 0; len + 64 < p->len; len += len < 64 ? 1 : 97) {
        pair_new_decoder(p);
        pair_assert_refused(p, len, p->pages, "less than its pages");
    }
    /* The mark of the flush, which has no content, may be missing. */
    for (size_t len = p->len - 64; len < p->len; len++) {
        pair_new_decoder(p);
        if (pair_decode(p, len, p->pages, &err)) {
            g_assert_cmpuint(p->len - len, <, 10);
            g_assert_true(pair_is_same(p));
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

            pair_encode_new(p, content, 9);
            pair_assert_refused(p, p->len, pages, "more than its pages");
            pair_free(p);
        }
    }
}

static void test_less(const void *codec)
{
    for (unsigned content = 0; content < MIXED; content++) {
        Pair *p = pair_new(codec, 1);

        pair_encode_new(p, content, 9);
        pair_assert_refused(p, p->len, 10, "less than its pages");
        pair_free(p);
    }
}

/* Two packets in one */
static void test_two(const void *codec)
{
    Pair *p = pair_new(codec, 1);
    g_autofree uint8_t *first = NULL;
    size_t len;

    pair_encode_new(p, MIXED, 4);
    first = g_memdup2(p->packet, p->len);
    len = p->len;
    pair_encode_new(p, MIXED, 4);
    memmove(p->packet + len, p->packet, p->len);
    memcpy(p->packet, first, len);
    pair_assert_refused(p, len + p->len, 4, "more than its pages");
    pair_free(p);
}

static void test_damaged(const void *codec)
{
    codec_test_damaged(codec, MIXED, 11);
}

static void test_order(const void *codec)
{
    Pair *p = pair_new(codec, 1);
    g_autofree uint8_t *packets[4] = { };
    size_t lens[4];
    Error *err = NULL;

    for (unsigned i = 0; i < 4; i++) {
        pair_encode_new(p, TEXT, 4);
        packets[i] = g_memdup2(p->packet, p->len);
        lens[i] = p->len;
    }
    /* None but the first one has what a stream begins with. */
    for (unsigned i = 1; i < 4; i++) {
        pair_new_decoder(p);
        g_assert_false(pair_decode_bytes(p, packets[i], lens[i], 4, &err));
        error_free_or_abort(&err);
    }
    for (unsigned left_out = 1; left_out < 3; left_out++) {
        pair_new_decoder(p);
        for (unsigned i = 0; i < 4; i++) {
            if (i != left_out &&
                !pair_decode_bytes(p, packets[i], lens[i], 4, &err)) {
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
    g_assert_false(pair_decode_bytes(p, bytes, len, 1, &err));
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
    pair_assert_refused(p, len, 1, "zlib cannot decompress");
    pair_assert_refused(p, len, 1, "zlib cannot decompress");
    pair_free(p);
}

/* A stream for which a dictionary is needed that nobody has */
static void test_zlib_dictionary(void)
{
    static const uint8_t bytes[] = { 0x78, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8 };
    Pair *p = pair_new(&codec_zlib, 1);

    memcpy(p->packet, bytes, sizeof(bytes));
    pair_assert_refused(p, sizeof(bytes), 1, "need dictionary");
    pair_free(p);
}

static void test_zlib_level(void)
{
    Error *err = NULL;

    g_assert_null(codec_zlib.encoder_new(10, PAGE, &err));
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
        pair_assert_refused(p, sizeof(bytes), 1, "too much memory");
        pair_free(p);
    }
}

/* ... and what the highest level needs */
static void test_zstd_highest(void)
{
    Pair *p = pair_new(&codec_zstd, 20);

    for (unsigned i = 0; i < 3; i++) {
        pair_encode_new(p, MIXED, 4);
        pair_assert_arrives(p);
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
    pair_assert_refused(p, len, 1, "less than its pages");
    pair_new_decoder(p);
    memcpy(p->packet, endless, sizeof(endless));
    pair_assert_refused(p, len, 1, "less than its pages");
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

static void add_all(const Codec *codec)
{
    codec_tests_add(codec);
    codec_test_add(codec, "history", test_history);
    codec_test_add(codec, "truncated", test_truncated);
    codec_test_add(codec, "more", test_more);
    codec_test_add(codec, "less", test_less);
    codec_test_add(codec, "two", test_two);
    codec_test_add(codec, "damaged", test_damaged);
    codec_test_add(codec, "order", test_order);
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
