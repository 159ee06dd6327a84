/*
 * Unit tests of telling zero pages from others
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "migration/ram/classify.h"
#include "time-limit.h"

#define TIME_LIMIT 120

/* The segments are the bits: alike inside, different at each border. */
static void check_segments(const ZeroPages *result, const uint8_t *zero,
                           unsigned count)
{
    unsigned at = 0, n;
    bool is_zero, before = false;

    g_assert_cmpuint(result->count, ==, count);
    while ((n = classify_segment(result, at, &is_zero))) {
        g_assert_cmpuint(n, <=, count - at);
        if (at) {
            g_assert_true(is_zero != before);
        }
        for (unsigned i = at; i < at + n; i++) {
            g_assert_cmpint(zero[i], ==, is_zero);
            /* from the middle of a segment the rest of it */
            g_assert_cmpuint(classify_segment(result, i, &before), ==,
                             at + n - i);
            g_assert_cmpint(before, ==, is_zero);
        }
        before = is_zero;
        at += n;
    }
    g_assert_cmpuint(at, ==, count);
}

static void check(const uint8_t *pages, size_t page_size, unsigned count)
{
    g_autofree uint8_t *zero = g_malloc0(count + 1);
    unsigned zeros = 0;
    ZeroPages result;

    memset(&result, 0xff, sizeof(result));
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *page = pages + i * page_size;

        zero[i] = !page[0] && !memcmp(page, page + 1, page_size - 1);
        zeros += zero[i];
    }
    g_assert_cmpuint(classify_pages(pages, page_size, count, &result), ==,
                     zeros);
    check_segments(&result, zero, count);
}

static void test_random(void)
{
    static const size_t page_sizes[] = { 1024, 4096, 16384 };

    for (int s = 0; s < ARRAY_SIZE(page_sizes); s++) {
        size_t page = page_sizes[s];
        uint8_t *pages = qemu_memalign(4096, CLASSIFY_MAX * page);

        for (int round = 0; round < 60; round++) {
            unsigned count = round < 2 ? round * CLASSIFY_MAX :
                             g_test_rand_int_range(1, CLASSIFY_MAX + 1);
            int apart = 1 << g_test_rand_int_range(0, 10);

            memset(pages, 0, CLASSIFY_MAX * page);
            for (unsigned i = 0; i < count; i++) {
                if (g_test_rand_int_range(0, apart) == 0) {
                    pages[i * page + g_test_rand_int_range(0, page)] =
                        1 << g_test_rand_int_range(0, 8);
                }
            }
            check(pages, page, count);
            /* runs of many pages */
            memset(pages, 1, count / 3 * page);
            memset(pages + count / 2 * page, 0, count / 2 * page);
            check(pages, page, count);
        }
        qemu_vfree(pages);
    }
}

/* One bit, at every byte of a page */
static void test_every_byte(void)
{
    uint8_t *pages = qemu_memalign(4096, 3 * 4096);

    memset(pages, 0, 3 * 4096);
    for (int at = 0; at < 4096; at++) {
        ZeroPages result;

        pages[4096 + at] = 0x80;
        g_assert_cmpuint(classify_pages(pages, 4096, 3, &result), ==, 2);
        g_assert_cmphex(result.zero[0], ==, 5);
        pages[4096 + at] = 0;
    }
    qemu_vfree(pages);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_limit_time(TIME_LIMIT);
    g_test_add_func("/ram/classify/random", test_random);
    g_test_add_func("/ram/classify/every-byte", test_every_byte);
    return g_test_run();
}
