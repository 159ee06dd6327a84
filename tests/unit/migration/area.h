/*
 * Memory for tests, with nothing before it and behind it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whoever goes over either end gets a signal, which fails the test.
 */

#ifndef TEST_AREA_H
#define TEST_AREA_H

#include <sys/mman.h>

/* Zeros; @size is rounded up to whole pages of the host. */
static inline uint8_t *area_new(size_t size)
{
    size_t page = qemu_real_host_page_size();
    uint8_t *area = mmap(NULL, ROUND_UP(size, page) + 2 * page, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert_true(area != MAP_FAILED);
    area += page;
    g_assert_cmpint(mprotect(area, size, PROT_READ | PROT_WRITE), ==, 0);
    return area;
}

static inline void area_read_only(uint8_t *area, size_t size)
{
    g_assert_cmpint(mprotect(area, size, PROT_READ), ==, 0);
}

static inline void area_free(uint8_t *area, size_t size)
{
    size_t page = qemu_real_host_page_size();

    g_assert_cmpint(munmap(area - page, ROUND_UP(size, page) + 2 * page), ==,
                    0);
}

#endif
