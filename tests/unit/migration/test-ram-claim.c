/*
 * Unit tests of claims on dirty pages: alone against a model, and by threads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/thread.h"
#include "migration/ram/dirty-claim.h"
#include "time-limit.h"

#define TIME_LIMIT 120

static const uint64_t sizes[] = {
    1, 63, 64, 65, 1000, 4095, 4096, 4097, 12345, 262145,
};

/* Some pages of a map of @pages are dirty, @model has a byte for each. */
static DirtyMap *make(uint64_t pages, uint64_t unit, unsigned percent,
                      uint8_t *model)
{
    DirtyMap *map = dirty_map_new(pages, 18, NULL, NULL);

    for (uint64_t page = 0; page < pages; page += unit) {
        uint64_t count = MIN(unit, pages - page);

        if (g_test_rand_int_range(0, 100) < percent) {
            dirty_map_set(map, page, count);
            memset(model + page, 1, count);
        }
    }
    dirty_map_freeze(map);
    return map;
}

static void check_run(const uint8_t *model, uint64_t first, uint64_t count)
{
    for (uint64_t page = first; page < first + count; page++) {
        g_assert_cmpuint(model[page], ==, 1);
    }
}

static uint64_t total(const uint8_t *model, uint64_t pages)
{
    uint64_t sum = 0;

    for (uint64_t page = 0; page < pages; page++) {
        sum += model[page];
    }
    return sum;
}

/* One thread, which gets all there is, in order and each page once */
static void take_all(uint64_t pages, uint64_t unit, unsigned percent)
{
    g_autofree uint8_t *model = g_malloc0(pages);
    DirtyMap *map = make(pages, unit, percent, model);
    uint64_t at = 0, first, count, left = total(model, pages);

    g_assert_cmpuint(dirty_map_count(map), ==, left);
    while (true) {
        uint64_t limit = g_test_rand_int_range(1, 700);

        count = dirty_map_claim_run(map, at, unit, limit, &first);
        if (!count) {
            break;
        }
        g_assert_cmpuint(first, >=, at);
        g_assert_cmpuint(first % unit, ==, 0);
        g_assert_cmpuint(count, <=, MAX(limit, unit));
        g_assert_true(count % unit == 0 || first + count == pages);
        g_assert_cmpuint(total(model + at, first - at), ==, 0);
        check_run(model, first, count);
        memset(model + first, 0, count);
        at = first + count;
        left -= count;
        g_assert_cmpuint(dirty_map_count(map), ==, left);
    }
    g_assert_cmpuint(total(model, pages), ==, 0);
    dirty_map_free(map);
}

static void test_runs(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (uint64_t unit = 1; unit <= 4096; unit *= 8) {
            take_all(sizes[i], unit, 50);
            take_all(sizes[i], unit, 3);
            take_all(sizes[i], unit, 100);
        }
    }
}

/* From any page of it one gets the whole unit, and only once. */
static void test_units(void)
{
    for (uint64_t unit = 1; unit <= 1024; unit *= 4) {
        uint64_t pages = 5000;
        g_autofree uint8_t *model = g_malloc0(pages);
        DirtyMap *map = make(pages, unit, 40, model);

        for (unsigned i = 0; i < 4 * pages; i++) {
            uint64_t page = g_test_rand_int_range(0, pages);
            uint64_t start = QEMU_ALIGN_DOWN(page, unit);
            uint64_t count = MIN(unit, pages - start);
            uint64_t got = dirty_map_claim(map, page, unit);

            g_assert_cmpuint(got, ==, model[page] ? count : 0);
            memset(model + start, 0, count);
        }
        g_assert_cmpuint(dirty_map_count(map), ==, total(model, pages));
        dirty_map_free(map);
    }
}

/* What is dirty in part is so as a whole, at the end of a map too. */
static void test_round(void)
{
    DirtyMap *map = dirty_map_new(1100, 18, NULL, NULL);
    uint64_t first;

    dirty_map_set(map, 5, 1);
    dirty_map_set(map, 600, 10);
    dirty_map_set(map, 1099, 1);
    g_assert_cmpuint(dirty_map_round(map, 1), ==, 0);
    g_assert_cmpuint(dirty_map_round(map, 512), ==, 1100 - 12);
    g_assert_cmpuint(dirty_map_count(map), ==, 1100);
    g_assert_cmpuint(dirty_map_round(map, 512), ==, 0);

    dirty_map_drop(map, 0, 1100);
    dirty_map_set(map, 520, 1);
    g_assert_cmpuint(dirty_map_round(map, 512), ==, 511);
    g_assert_cmpuint(dirty_map_find(map, 0, UINT64_MAX, &first), ==, 512);
    g_assert_cmpuint(first, ==, 512);
    dirty_map_free(map);
}

static void clear_log(void *opaque, uint64_t first, uint64_t count)
{
    g_assert_not_reached();
}

/* After the last sync nobody looks at the log any more. */
static void test_freeze(void)
{
    DirtyMap *map = dirty_map_new(1000, 6, clear_log, NULL);
    g_autofree unsigned long *log = bitmap_new(1000);

    bitmap_fill(log, 1000);
    dirty_map_merge(map, 0, 1000, log, 0);
    dirty_map_freeze(map);
    g_assert_cmpuint(dirty_map_claim(map, 7, 1), ==, 1);
    g_assert_cmpuint(dirty_map_drop(map, 0, 1000), ==, 999);
    dirty_map_free(map);
}

/*
 * Threads: some scan, others claim at random.  Each page is got exactly once,
 * whole units by one thread, and nothing is left.
 */

#define RACERS 4

typedef struct Race {
    DirtyMap *map;
    uint64_t pages, unit;
    uint8_t *owner;             /* by page; atomic */
    bool go;
} Race;

typedef struct Racer {
    Race *race;
    QemuThread thread;
    unsigned id;                /* from 1 */
    uint32_t seed;
    uint64_t got;
} Racer;

static void own(Racer *me, uint64_t first, uint64_t count)
{
    for (uint64_t page = first; page < first + count; page++) {
        uint8_t before = qatomic_xchg(&me->race->owner[page], me->id);

        g_assert_cmpuint(before, ==, 0);
    }
    me->got += count;
}

static uint32_t next_random(Racer *me)
{
    me->seed = me->seed * 1664525 + 1013904223;
    return me->seed >> 8;
}

static void claim_at_random(Racer *me)
{
    Race *race = me->race;
    uint64_t page = next_random(me) % race->pages;
    uint64_t count = dirty_map_claim(race->map, page, race->unit);

    if (count) {
        own(me, QEMU_ALIGN_DOWN(page, race->unit), count);
    }
}

static void *run_racer(void *opaque)
{
    Racer *me = opaque;
    Race *race = me->race;
    uint64_t at = 0, first, count;

    while (!qatomic_load_acquire(&race->go)) {
        cpu_relax();
    }
    while (dirty_map_count(race->map)) {
        if (me->id > RACERS / 2) {
            claim_at_random(me);
        } else {
            count = dirty_map_claim_run(race->map, at, race->unit,
                                        1 + next_random(me) % 100, &first);
            if (count) {
                own(me, first, count);
            }
            at = next_random(me) % race->pages;
        }
    }
    return NULL;
}

static void race(uint64_t pages, uint64_t unit)
{
    g_autofree uint8_t *model = g_malloc0(pages);
    g_autofree uint8_t *owner = g_malloc0(pages);
    Race r = { make(pages, unit, 60, model), pages, unit, owner };
    uint64_t left = dirty_map_count(r.map), got = 0;
    Racer racers[RACERS];

    for (unsigned i = 0; i < RACERS; i++) {
        racers[i] = (Racer) {
            .race = &r, .id = i + 1, .seed = g_test_rand_int(),
        };
        qemu_thread_create(&racers[i].thread, "racer", run_racer, &racers[i],
                           QEMU_THREAD_JOINABLE);
    }
    qatomic_store_release(&r.go, true);
    for (unsigned i = 0; i < RACERS; i++) {
        qemu_thread_join(&racers[i].thread);
        got += racers[i].got;
    }
    g_assert_cmpuint(got, ==, left);
    g_assert_cmpuint(dirty_map_count(r.map), ==, 0);
    for (uint64_t page = 0; page < pages; page++) {
        g_assert_cmpint(owner[page] != 0, ==, model[page] != 0);
        if (page % unit) {
            g_assert_cmpuint(owner[page], ==, owner[page - 1]);
        }
    }
    dirty_map_free(r.map);
}

static void test_race(void)
{
    const uint64_t units[] = { 1, 1, 16, 64, 512 };

    for (unsigned i = 0; i < ARRAY_SIZE(units); i++) {
        for (unsigned n = 0; n < 5; n++) {
            race(20000 + 77 * i, units[i]);
        }
    }
}

int main(int argc, char **argv)
{
    test_limit_time(TIME_LIMIT);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/ram/claim/runs", test_runs);
    g_test_add_func("/migration/ram/claim/units", test_units);
    g_test_add_func("/migration/ram/claim/round", test_round);
    g_test_add_func("/migration/ram/claim/freeze", test_freeze);
    g_test_add_func("/migration/ram/claim/race", test_race);
    return g_test_run();
}
