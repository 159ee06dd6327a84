/*
 * Unit tests of the XBZRLE codec: every encoder, every lie
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/ram/xbzrle.h"
#include "time-limit.h"

#define PAGE 4096
#define GUARD 0xa5
#define TIME_LIMIT 120

/* Guard bytes on both sides, so that a write outside is noticed */
#define MARGIN 64

typedef struct Guarded {
    uint8_t before[MARGIN];
    uint8_t data[4 * PAGE + 8 + MARGIN];
} Guarded;

static void guard(Guarded *g, size_t used)
{
    memset(g->before, GUARD, MARGIN);
    memset(g->data, 0, used);
    memset(g->data + used, GUARD, MARGIN);
}

static void check_guard(const Guarded *g, size_t used)
{
    uint8_t untouched[MARGIN];

    memset(untouched, GUARD, MARGIN);
    g_assert_cmpmem(g->before, MARGIN, untouched, MARGIN);
    g_assert_cmpmem(g->data + used, MARGIN, untouched, MARGIN);
}

/* What the format needs if each run of changed bytes becomes a pair */
static int naive_size(const uint8_t *old, const uint8_t *new, int size)
{
    int used = 0, last = 0;

    for (int i = 0; i < size;) {
        int start;

        if (old[i] == new[i]) {
            i++;
            continue;
        }
        start = i;
        while (i < size && old[i] != new[i]) {
            i++;
        }
        used += (start - last < 128 ? 1 : 2) + (i - start < 128 ? 1 : 2)
                + i - start;
        last = i;
    }
    return used;
}

/* Encodes into @room bytes and decodes again; returns the length. */
static int round_trip(const uint8_t *old, const uint8_t *new, int size,
                      int room)
{
    static Guarded enc, dec;
    int naive = naive_size(old, new, size);
    int used, end;

    guard(&enc, room);
    used = xbzrle_encode_buffer((uint8_t *)old, (uint8_t *)new, size,
                                enc.data, room);
    check_guard(&enc, room);
    if (used < 0) {
        /* one byte between two runs saves at most one byte a run */
        g_assert_cmpint(used, ==, -1);
        g_assert_cmpint(naive, >, MIN(room, size - 1) * 2 / 3 - 2);
        return used;
    }
    g_assert_cmpint(used, <=, MIN(room, size));
    g_assert_cmpint(used, <=, naive);
    g_assert_cmpint(used == 0, ==, naive == 0);

    guard(&dec, size);
    memcpy(dec.data, old, size);
    end = xbzrle_decode_buffer(enc.data, used, dec.data, size);
    g_assert_cmpint(end, >=, 0);
    g_assert_cmpint(end, <=, size);
    g_assert_cmpmem(dec.data, size, new, size);
    check_guard(&dec, size);
    return used;
}

static void fill(uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        p[i] = g_test_rand_int();
    }
}

/* Changes runs of up to @longest bytes at distances of up to @apart. */
static void change(uint8_t *p, int size, int longest, int apart)
{
    int i = g_test_rand_int_range(0, apart + 1);

    while (i < size) {
        int end = i + g_test_rand_int_range(1, longest + 1);

        for (; i < MIN(end, size); i++) {
            p[i] ^= g_test_rand_int_range(1, 256);
        }
        i += g_test_rand_int_range(1, apart + 1);
    }
}

static void for_each_encoder(void (*test)(void))
{
    unsigned n = 0;
    const char *name;

    for (; (name = xbzrle_test_use_encoder(n)); n++) {
        g_test_message("encoder %s", name);
        test();
    }
    g_assert_cmpuint(n, >, 0);
}

static void random_pages(void)
{
    static const int apart[] = { 1, 2, 3, 8, 63, 64, 65, 130, 1000, 5000 };
    static const int longest[] = { 1, 2, 8, 64, 127, 128, 129, 700 };
    g_autofree uint8_t *old = g_malloc(PAGE), *new = g_malloc(PAGE);

    for (int i = 0; i < ARRAY_SIZE(apart) * ARRAY_SIZE(longest) * 12; i++) {
        fill(old, PAGE);
        memcpy(new, old, PAGE);
        change(new, PAGE, longest[i % ARRAY_SIZE(longest)],
               apart[i / ARRAY_SIZE(longest) % ARRAY_SIZE(apart)]);
        round_trip(old, new, PAGE, PAGE);
    }
    round_trip(old, old, PAGE, PAGE);
}

static void test_random_pages(void)
{
    for_each_encoder(random_pages);
}

/* Every length of a change at every place that a block border is near to */
static void borders(void)
{
    g_autofree uint8_t *old = g_malloc0(PAGE), *new = g_malloc0(PAGE);

    for (int start = 0; start < 200; start++) {
        for (int length = 1; length < 140; length++) {
            int used;

            memset(new + start, 1, length);
            used = round_trip(old, new, PAGE, PAGE);
            g_assert_cmpint(used, ==, (start < 128 ? 1 : 2) +
                            (length < 128 ? 1 : 2) + length);
            memset(new, 0, start + length);
        }
    }
}

static void test_borders(void)
{
    for_each_encoder(borders);
}

/* A single equal byte is cheaper to send than to leave out, wherever it is. */
static void gaps(void)
{
    g_autofree uint8_t *old = g_malloc0(PAGE), *new = g_malloc0(PAGE);

    for (int at = 1; at < 300; at++) {
        new[at - 1] = new[at + 1] = 1;
        g_assert_cmpint(round_trip(old, new, PAGE, PAGE), ==,
                        at - 1 < 128 ? 5 : 6);
        new[at - 1] = new[at + 1] = 0;
    }
    /* every other byte: one pair in place of 2048, but no gain */
    for (int i = 0; i < PAGE; i += 2) {
        new[i] = 1;
    }
    g_assert_cmpint(round_trip(old, new, PAGE, PAGE), ==, -1);
    /* with some room it is one */
    memset(new + 4000, 0, 96);
    g_assert_cmpint(round_trip(old, new, PAGE, PAGE), ==, 1 + 2 + 3999);
}

static void test_gaps(void)
{
    for_each_encoder(gaps);
}

/* It fits exactly if there is room for it, at every size there is. */
static void every_room(void)
{
    static const int apart[] = { 3, 40, 200, 900 };
    g_autofree uint8_t *old = g_malloc(PAGE), *new = g_malloc(PAGE);

    for (int i = 0; i < ARRAY_SIZE(apart); i++) {
        int used;

        fill(old, PAGE);
        memcpy(new, old, PAGE);
        change(new, PAGE, 5 + i * 50, apart[i]);
        used = round_trip(old, new, PAGE, PAGE);
        if (used < 0) {
            continue;
        }
        for (int room = 0; room < used; room++) {
            static Guarded enc;

            guard(&enc, room);
            g_assert_cmpint(xbzrle_encode_buffer(old, new, PAGE, enc.data,
                                                 room), ==, -1);
            check_guard(&enc, room);
        }
        g_assert_cmpint(round_trip(old, new, PAGE, used), ==, used);
    }
}

static void test_every_room(void)
{
    for_each_encoder(every_room);
}

static void other_sizes(void)
{
    g_autofree uint8_t *old = g_malloc(4 * PAGE + 8);
    g_autofree uint8_t *new = g_malloc(4 * PAGE + 8);

    for (int size = 1; size < 700; size++) {
        for (int i = 0; i < 6; i++) {
            /* not aligned to anything */
            fill(old + i, size);
            memcpy(new + i, old + i, size);
            change(new + i, size, 1 + i * 3, 200);
            round_trip(old + i, new + i, size, size);
        }
    }
    for (int size = PAGE - 1; size <= 4 * PAGE; size += PAGE / 2 + 1) {
        for (int i = 0; i < 40; i++) {
            fill(old, size);
            memcpy(new, old, size);
            change(new, size, 300, 300);
            round_trip(old, new, size, size);
        }
    }
    /* the change reaches over the border of the stripes that are compared */
    memset(old, 0, 2 * PAGE);
    memset(new, 0, 2 * PAGE);
    memset(new + PAGE - 70, 1, 140);
    g_assert_cmpint(round_trip(old, new, 2 * PAGE, PAGE), ==, 4 + 140);
    g_assert_cmpint(xbzrle_encode_buffer(old, new, 0, old, 0), ==, 0);
}

static void test_other_sizes(void)
{
    for_each_encoder(other_sizes);
}

/* A run longer than a length can state cannot be encoded. */
static void longest_run(void)
{
    const int size = 5 * PAGE;
    g_autofree uint8_t *old = g_malloc0(size), *new = g_malloc0(size);
    g_autofree uint8_t *enc = g_malloc(size);

    new[XBZRLE_RUN_MAX] = 1;
    g_assert_cmpint(xbzrle_encode_buffer(old, new, size, enc, size), ==, 4);
    memset(new, 0, size);
    new[XBZRLE_RUN_MAX + 1] = 1;
    g_assert_cmpint(xbzrle_encode_buffer(old, new, size, enc, size), ==, -1);
    memset(new, 1, XBZRLE_RUN_MAX);
    new[XBZRLE_RUN_MAX + 1] = 0;
    g_assert_cmpint(xbzrle_encode_buffer(old, new, size, enc, size), ==,
                    3 + XBZRLE_RUN_MAX);
    new[XBZRLE_RUN_MAX] = 1;
    g_assert_cmpint(xbzrle_encode_buffer(old, new, size, enc, size), ==, -1);
}

static void test_longest_run(void)
{
    for_each_encoder(longest_run);
}

/*
 * Decodes with nothing readable behind the encoding and nothing writable
 * outside the page that would go unnoticed.
 */
static int decode(const uint8_t *src, int length, int page)
{
    static Guarded dec;
    g_autofree uint8_t *exact = g_memdup2(src, length);
    int ret;

    guard(&dec, page);
    ret = xbzrle_decode_buffer(exact, length, dec.data, page);
    check_guard(&dec, page);
    return ret;
}

static void test_lies(void)
{
    static const struct {
        const char *what;
        uint8_t bytes[12];
        int length, page, result;
    } lie[] = {
        { "nothing", { }, 0, 64, 0 },
        { "an honest one", { 1, 2, 7, 7 }, 4, 64, 3 },
        { "nothing kept at first", { 0, 1, 7 }, 3, 64, 1 },
        { "up to the last byte", { 63, 1, 7 }, 3, 64, 64 },
        { "two pairs", { 1, 1, 7, 1, 1, 7 }, 6, 64, 4 },
        { "a keep alone", { 1 }, 1, 64, -1 },
        { "half a keep", { 0x81 }, 1, 64, -1 },
        { "half a write", { 1, 0x81 }, 2, 64, -1 },
        { "no bytes to write", { 1, 1 }, 2, 64, -1 },
        { "a byte short", { 1, 3, 7, 7 }, 4, 64, -1 },
        { "nothing written", { 1, 0, 1, 1, 7 }, 5, 64, -1 },
        { "nothing kept between", { 1, 1, 7, 0, 1, 7 }, 6, 64, -1 },
        { "keep beyond the page", { 65, 1, 7 }, 3, 64, -1 },
        { "keep all, then write", { 64, 1, 7 }, 3, 64, -1 },
        { "write beyond the page", { 63, 2, 7, 7 }, 4, 64, -1 },
        { "second pair beyond", { 60, 1, 7, 3, 1, 7 }, 6, 64, -1 },
        { "largest keep", { 0xff, 0x7f, 1, 7 }, 4, 64, -1 },
        { "largest write", { 0, 0xff, 0x7f, 7 }, 4, 64, -1 },
        { "keep of three bytes", { 0x81, 0x80, 0, 1, 7 }, 5, 64, -1 },
        { "write of three bytes", { 0, 0x81, 0x80, 0, 7 }, 5, 64, -1 },
        { "keep longer than needed", { 0x81, 0, 1, 7 }, 4, 64, -1 },
        { "write longer than needed", { 0, 0x81, 0, 7 }, 4, 64, -1 },
        { "page of no bytes", { 0, 1, 7 }, 3, 0, -1 },
        { "trailing byte", { 1, 1, 7, 5 }, 4, 64, -1 },
    };

    for (int i = 0; i < ARRAY_SIZE(lie); i++) {
        g_test_message("%s", lie[i].what);
        g_assert_cmpint(decode(lie[i].bytes, lie[i].length, lie[i].page),
                        ==, lie[i].result);
    }
    g_assert_cmpint(xbzrle_decode_buffer(NULL, -1, NULL, 0), ==, -1);
}

/* A true encoding, cut short anywhere or with any one bit wrong */
static void test_damage(void)
{
    g_autofree uint8_t *old = g_malloc(PAGE), *new = g_malloc(PAGE);
    g_autofree uint8_t *enc = g_malloc(PAGE);
    int used, ends = 0;

    fill(old, PAGE);
    memcpy(new, old, PAGE);
    change(new, PAGE, 20, 300);
    used = xbzrle_encode_buffer(old, new, PAGE, enc, PAGE);
    g_assert_cmpint(used, >, 0);
    for (int cut = 0; cut < used; cut++) {
        /* only between two pairs is a shorter one well-formed */
        ends += decode(enc, cut, PAGE) >= 0;
    }
    g_assert_cmpint(ends, <, used / 4);
    for (int bit = 0; bit < used * 8; bit++) {
        enc[bit / 8] ^= 1 << bit % 8;
        g_assert_cmpint(decode(enc, used, PAGE), <=, PAGE);
        enc[bit / 8] ^= 1 << bit % 8;
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t noise[48];

        fill(noise, sizeof(noise));
        g_assert_cmpint(decode(noise, i % sizeof(noise), 200), <=, 200);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_limit_time(TIME_LIMIT);
    g_test_add_func("/ram/xbzrle/random-pages", test_random_pages);
    g_test_add_func("/ram/xbzrle/borders", test_borders);
    g_test_add_func("/ram/xbzrle/gaps", test_gaps);
    g_test_add_func("/ram/xbzrle/every-room", test_every_room);
    g_test_add_func("/ram/xbzrle/other-sizes", test_other_sizes);
    g_test_add_func("/ram/xbzrle/longest-run", test_longest_run);
    g_test_add_func("/ram/xbzrle/lies", test_lies);
    g_test_add_func("/ram/xbzrle/damage", test_damage);
    return g_test_run();
}
