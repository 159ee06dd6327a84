/*
 * Unit tests of the cache of sent pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/ram/page-cache.h"
#include "time-limit.h"

#define PAGE 256
#define PAGES 1024
#define TIME_LIMIT 120

static PageCache *new_cache(uint64_t pages)
{
    return page_cache_new(pages * PAGE, PAGE, &error_abort);
}

/* One number says what a page holds. */
static int put(PageCache *cache, uint64_t page, int what, uint64_t age)
{
    uint8_t data[PAGE];

    memset(data, what, PAGE);
    return page_cache_enter(cache, page * PAGE, data, age) ? 0 : -1;
}

/* @age: when it was used last, which it is again. */
static void check_page(PageCache *cache, uint64_t page, int what, uint64_t age)
{
    const uint8_t *data = page_cache_use(cache, page * PAGE, age);

    g_assert_nonnull(data);
    for (int i = 0; i < PAGE; i++) {
        g_assert_cmpint(data[i], ==, (uint8_t)what);
    }
}

/* What is done with a dirty page; returns whether it was a hit. */
static bool use(PageCache *cache, uint64_t page, uint64_t age)
{
    if (page_cache_use(cache, page * PAGE, age)) {
        return true;
    }
    put(cache, page, page, age);
    return false;
}

static void test_sizes(void)
{
    static const uint64_t wrong[] = { 0, 1, PAGE - 1, 3 * PAGE, 1000 * PAGE };
    Error *err = NULL;

    for (int i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_assert_null(page_cache_new(wrong[i], PAGE, &err));
        g_assert_nonnull(err);
        error_free(err);
        err = NULL;
    }
#if !defined(QEMU_SANITIZE_ADDRESS) && !defined(QEMU_SANITIZE_THREAD)
    /* more than there is: an error, not the end of the program */
    g_assert_null(page_cache_new(1ull << 62, 4096, &err));
    g_assert_nonnull(err);
    error_free(err);
#endif
    page_cache_free(page_cache_new(PAGE * 3 / 2, PAGE, &error_abort));
}

static void test_content(void)
{
    for (uint64_t pages = 1; pages <= PAGES; pages *= 2) {
        PageCache *cache = new_cache(pages);

        g_assert_null(page_cache_use(cache, 0, 1));
        /* an aligned piece of the size of the cache fits, wherever it is */
        for (uint64_t i = 0; i < pages; i++) {
            g_assert_cmpint(put(cache, 64 * pages + i, i, 1), ==, 0);
        }
        for (uint64_t i = 0; i < pages; i++) {
            check_page(cache, 64 * pages + i, i, 1);
            g_assert_null(page_cache_use(cache, i * PAGE, 1));
        }
        /* all are in use, there is no room; but a newer version goes in */
        g_assert_cmpint(put(cache, 7 * pages, 1, 2), ==, -1);
        g_assert_null(page_cache_use(cache, 7 * pages * PAGE, 2));
        g_assert_cmpint(put(cache, 64 * pages, 99, 2), ==, 0);
        check_page(cache, 64 * pages, 99, 2);
        page_cache_free(cache);
    }
}

static void test_lifetime(void)
{
    PageCache *cache = new_cache(1);

    g_assert_cmpint(put(cache, 10, 1, 5), ==, 0);
    g_assert_cmpint(put(cache, 11, 2, 5), ==, -1);
    g_assert_cmpint(put(cache, 11, 2, 4 + PAGE_CACHE_LIFETIME), ==, -1);
    check_page(cache, 10, 1, 5);
    g_assert_cmpint(put(cache, 11, 2, 5 + PAGE_CACHE_LIFETIME), ==, 0);
    check_page(cache, 11, 2, 5 + PAGE_CACHE_LIFETIME);
    g_assert_null(page_cache_use(cache, 10 * PAGE, 7));

    /* being used prolongs it */
    g_assert_nonnull(page_cache_use(cache, 11 * PAGE, 8));
    g_assert_cmpint(put(cache, 10, 1, 7 + PAGE_CACHE_LIFETIME), ==, -1);
    g_assert_cmpint(put(cache, 10, 1, 8 + PAGE_CACHE_LIFETIME), ==, 0);
    page_cache_free(cache);
}

static void test_merit(void)
{
    PageCache *cache = new_cache(8);
    const uint64_t idle = 20 + PAGE_CACHE_LIFETIME;

    /* two of eight are hit pass after pass, and three more once */
    for (int i = 0; i < 8; i++) {
        put(cache, i, i, 10);
    }
    for (int age = 11; age <= 20; age++) {
        g_assert_nonnull(page_cache_use(cache, 0, age));
        g_assert_nonnull(page_cache_use(cache, 1 * PAGE, age));
    }
    for (int i = 2; i < 8; i++) {
        g_assert_nonnull(page_cache_use(cache, i * PAGE, 20));
    }
    for (int i = 4; i < 8; i++) {
        g_assert_nonnull(page_cache_use(cache, i * PAGE, idle - 1));
    }
    /* half of them are idle now, but all have earned another pass */
    g_assert_cmpint(put(cache, 100, 1, idle), ==, -1);
    /* then those with one hit go, before those with many */
    g_assert_cmpint(put(cache, 100, 1, idle + 1), ==, 0);
    g_assert_cmpint(put(cache, 101, 1, idle + 1), ==, 0);
    g_assert_null(page_cache_use(cache, 2 * PAGE, idle));
    g_assert_null(page_cache_use(cache, 3 * PAGE, idle));
    check_page(cache, 0, 0, 20);
    check_page(cache, 1, 1, 20);

    /* when everything is idle the guest has moved on, and so do we */
    for (int i = 0; i < 8; i++) {
        g_assert_cmpint(put(cache, 200 + i, i, idle + 3), ==, 0);
    }
    for (int i = 0; i < 8; i++) {
        check_page(cache, 200 + i, i, idle + 3);
    }
    page_cache_free(cache);
}

/* Hits in percent when pages @first + i * @step are used pass after pass */
static int ratio(uint64_t first, uint64_t step, int count)
{
    PageCache *cache = new_cache(PAGES);
    int hits = 0;

    for (int age = 1; age <= 11; age++) {
        for (int i = 0; i < count; i++) {
            hits += use(cache, first + i * step, age);
        }
    }
    page_cache_free(cache);
    return hits * 10 / count;
}

static void test_ratio(void)
{
    /* pieces, in order and larger than the cache */
    g_assert_cmpint(ratio(0, 1, PAGES), ==, 100);
    g_assert_cmpint(ratio(7 * PAGES, 1, PAGES), ==, 100);
    for (int first = 12345; first < 12345 + PAGES; first += 61) {
        g_assert_cmpint(ratio(first, 1, PAGES * 7 / 8), ==, 100);
        g_assert_cmpint(ratio(first, 1, PAGES), >=, 92);
    }
    g_assert_cmpint(ratio(0, 1, 2 * PAGES), ==, 50);
    g_assert_cmpint(ratio(0, 1, 4 * PAGES), ==, 25);
    /* at a distance */
    for (uint64_t step = 2; step <= 1 << 24; step *= 2) {
        g_assert_cmpint(ratio(0, step, PAGES / 2), >=, 90);
    }
    g_assert_cmpint(ratio(0, 3, PAGES / 2), >=, 90);
    g_assert_cmpint(ratio(0, 1000, PAGES / 2), >=, 90);
}

/* A cache never tells another page's content, whatever happens to it. */
static void test_random(void)
{
    PageCache *cache = new_cache(64);
    g_autofree uint8_t *last = g_malloc0(512);

    for (int i = 0; i < 200000; i++) {
        uint64_t page = g_test_rand_int_range(0, 512);
        uint64_t age = 1 + i / 100;

        if (page_cache_use(cache, page * PAGE, age)) {
            check_page(cache, page, last[page], age);
        }
        if (g_test_rand_bit() && !put(cache, page, i, age)) {
            last[page] = i;
            check_page(cache, page, i, age);
        }
    }
    page_cache_free(cache);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_limit_time(TIME_LIMIT);
    g_test_add_func("/ram/page-cache/sizes", test_sizes);
    g_test_add_func("/ram/page-cache/content", test_content);
    g_test_add_func("/ram/page-cache/lifetime", test_lifetime);
    g_test_add_func("/ram/page-cache/merit", test_merit);
    g_test_add_func("/ram/page-cache/ratio", test_ratio);
    g_test_add_func("/ram/page-cache/random", test_random);
    return g_test_run();
}
