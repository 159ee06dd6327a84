/*
 * Unit tests of a copy of guest memory to go back to: whatever was written,
 * all of it is as it was, and all that was written is told of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "area.h"
#include "setup.h"
#include "qemu/bitmap.h"
#include "qemu/units.h"
#include "migration/ram/keep.h"

#define PAGE 4096
#define PAGE_BITS 12
#define PAGES 1100              /* two chunks and a part of one */
#define REGIONS 2

typedef struct Memory {
    RamRegion list[REGIONS];
    RamRegions regions;
    uint8_t *model[REGIONS];    /* what it has to be */
    unsigned long *told[REGIONS];
    uint64_t told_last;
} Memory;

static void memory_new(Memory *m, PopulatedKind kind)
{
    *m = (Memory) {};
    for (unsigned i = 0; i < REGIONS; i++) {
        uint8_t *host = area_new(PAGES * PAGE);

        m->list[i] = (RamRegion) {
            .name = i ? (char *)"second" : (char *)"first", .index = i,
            .page_bits = PAGE_BITS, .host = host, .pages = PAGES,
            .max_pages = PAGES, .host_page_size = PAGE,
            .area = { .kind = kind, .host = host, .size = PAGES * PAGE },
        };
        m->model[i] = g_malloc0(PAGES * PAGE);
        m->told[i] = bitmap_new(PAGES);
    }
    m->regions = (RamRegions) { m->list, REGIONS };
}

static void memory_free(Memory *m)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        area_free(m->list[i].host, PAGES * PAGE);
        g_free(m->model[i]);
        g_free(m->told[i]);
    }
}

/* A third of the pages: content, zeros that were written, never touched */
static void fill(Memory *m)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        for (unsigned p = 0; p < PAGES; p++) {
            uint8_t *page = m->list[i].host + p * PAGE;
            int kind = g_test_rand_int_range(0, 3);

            if (kind == 0) {
                memset(page, 0, PAGE);
            } else if (kind == 1) {
                page[g_test_rand_int_range(0, PAGE)] = 1 + p % 255;
            }
            memcpy(m->model[i] + p * PAGE, page, kind < 2 ? PAGE : 0);
        }
    }
}

static void told(void *opaque, const RamRegion *r, uint64_t first,
                 uint64_t count)
{
    Memory *m = opaque;
    uint64_t place = r->index * (uint64_t)PAGES + first;

    g_assert_cmpuint(count, >, 0);
    g_assert_cmpuint(place, >=, m->told_last);
    m->told_last = place + count;
    for (uint64_t p = first; p < first + count; p++) {
        g_assert_false(test_and_set_bit(p, m->told[r->index]));
    }
}

static void check_all(Memory *m)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        g_assert_cmpint(memcmp(m->list[i].host, m->model[i], PAGES * PAGE),
                        ==, 0);
    }
}

static RamKept *keep(Memory *m)
{
    RamKept *k = ram_kept_new(&m->regions);

    g_assert_cmpuint(ram_kept_estimate(k), <=,
                     (uint64_t)REGIONS * PAGES * PAGE);
    g_assert_true(ram_kept_copy(k, &error_abort));
    return k;
}

static void put_back(Memory *m, RamKept *k)
{
    m->told_last = 0;
    for (unsigned i = 0; i < REGIONS; i++) {
        bitmap_zero(m->told[i], PAGES);
    }
    ram_kept_put_back(k, told, m);
}

/* One byte, a page of zeros, a page that is discarded; any of the pages */
static void spoil(Memory *m, unsigned long **spoilt)
{
    for (unsigned n = 0; n < 300; n++) {
        unsigned i = g_test_rand_int_range(0, REGIONS);
        unsigned p = g_test_rand_int_range(0, PAGES);
        uint8_t *page = m->list[i].host + p * PAGE;

        switch (g_test_rand_int_range(0, 3)) {
        case 0:
            page[g_test_rand_int_range(0, PAGE)] ^= 0x80;
            break;
        case 1:
            memset(page, 0, PAGE);
            break;
        case 2:
            g_assert_cmpint(madvise(page, PAGE, MADV_DONTNEED), ==, 0);
            break;
        }
        if (memcmp(page, m->model[i] + p * PAGE, PAGE)) {
            set_bit(p, spoilt[i]);
        } else {
            clear_bit(p, spoilt[i]);
        }
    }
}

static void round_trips(PopulatedKind kind)
{
    Memory m;
    RamKept *k;

    memory_new(&m, kind);
    fill(&m);
    k = keep(&m);
    check_all(&m);
    for (unsigned n = 0; n < 20; n++) {
        unsigned long *spoilt[REGIONS];

        for (unsigned i = 0; i < REGIONS; i++) {
            spoilt[i] = bitmap_new(PAGES);
        }
        spoil(&m, spoilt);
        put_back(&m, k);
        check_all(&m);
        for (unsigned i = 0; i < REGIONS; i++) {
            g_assert_true(bitmap_equal(spoilt[i], m.told[i], PAGES));
            g_free(spoilt[i]);
        }
    }
    ram_kept_free(k);
    memory_free(&m);
}

static void test_anonymous(void)
{
    round_trips(POPULATED_ANON);
}

static void test_unknown(void)
{
    round_trips(POPULATED_UNKNOWN);
}

/* Every page, the last of an uneven chunk included */
static void test_all_of_it(void)
{
    Memory m;
    RamKept *k;

    memory_new(&m, POPULATED_ANON);
    fill(&m);
    k = keep(&m);
    for (unsigned i = 0; i < REGIONS; i++) {
        memset(m.list[i].host, 0xff, PAGES * PAGE);
    }
    put_back(&m, k);
    check_all(&m);
    for (unsigned i = 0; i < REGIONS; i++) {
        g_assert_true(bitmap_full(m.told[i], PAGES));
    }
    ram_kept_free(k);
    memory_free(&m);
}

/* Neither read nor written: an access to these pages would be a signal. */
static void test_left_out(void)
{
    Memory m;
    RamKept *k;
    uint8_t *hole;

    memory_new(&m, POPULATED_UNKNOWN);
    fill(&m);
    hole = m.list[1].host + 500 * PAGE;
    k = ram_kept_new(&m.regions);
    ram_kept_leave_out(k, 1, 500, 100);
    g_assert_cmpint(mprotect(hole, 100 * PAGE, PROT_NONE), ==, 0);
    g_assert_true(ram_kept_copy(k, &error_abort));
    m.list[1].host[600 * PAGE] ^= 1;
    put_back(&m, k);
    g_assert_cmpint(mprotect(hole, 100 * PAGE, PROT_READ | PROT_WRITE), ==, 0);
    check_all(&m);
    g_assert_true(test_bit(600, m.told[1]));
    ram_kept_free(k);
    memory_free(&m);
}

static void test_read_only(void)
{
    Memory m;
    RamKept *k;

    memory_new(&m, POPULATED_UNKNOWN);
    fill(&m);
    m.list[0].read_only = true;
    area_read_only(m.list[0].host, PAGES * PAGE);
    k = keep(&m);
    put_back(&m, k);
    g_assert_true(bitmap_empty(m.told[0], PAGES));
    ram_kept_leave_out(k, 0, 0, 1);
    ram_kept_free(k);
    ram_kept_free(NULL);
    memory_free(&m);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/migration/ram/keep/anonymous", test_anonymous);
    g_test_add_func("/migration/ram/keep/unknown", test_unknown);
    g_test_add_func("/migration/ram/keep/all", test_all_of_it);
    g_test_add_func("/migration/ram/keep/left-out", test_left_out);
    g_test_add_func("/migration/ram/keep/read-only", test_read_only);
    return g_test_run();
}
