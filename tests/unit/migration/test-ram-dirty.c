/*
 * Unit tests of the dirty map: against a plain model, and with a log
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/thread.h"
#include "migration/ram/dirty.h"
#include "time-limit.h"

#define TIME_LIMIT 120
#define SHIFT 8                         /* chunks of 256 pages */
#define CHUNK (1ull << SHIFT)

static const uint64_t sizes[] = {
    0, 1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097,
    8191, 8192, 8193, 12288, 12345, 262143, 262144, 262145,
};

/* A byte a page, a byte a chunk: slow, and plainly right */
typedef struct Model {
    DirtyMap *map;
    uint64_t pages;
    uint8_t *dirty;
    uint8_t *stale;
    uint8_t *cleared;           /* chunks cleared by the call under test */
} Model;

static void model_clear_log(void *opaque, uint64_t first, uint64_t count)
{
    Model *m = opaque;

    g_assert_cmpuint(first % CHUNK, ==, 0);
    g_assert_cmpuint(count, ==, MIN(CHUNK, m->pages - first));
    g_assert_cmpuint(m->stale[first / CHUNK], ==, 1);
    g_assert_cmpuint(m->cleared[first / CHUNK], ==, 0);
    m->stale[first / CHUNK] = 0;
    m->cleared[first / CHUNK] = 1;
}

static void model_init(Model *m, uint64_t pages)
{
    m->map = dirty_map_new(pages, SHIFT, model_clear_log, m);
    m->pages = pages;
    m->dirty = g_malloc0(pages + 1);
    m->stale = g_malloc0(pages / CHUNK + 1);
    m->cleared = g_malloc0(pages / CHUNK + 1);
}

static void model_free(Model *m)
{
    dirty_map_free(m->map);
    g_free(m->dirty);
    g_free(m->stale);
    g_free(m->cleared);
}

static void begin(Model *m)
{
    memset(m->cleared, 0, m->pages / CHUNK + 1);
}

/* Exactly the chunks of the range are free of stale logs, others as before. */
static void check_cleared(Model *m, uint64_t first, uint64_t count)
{
    for (uint64_t c = 0; c * CHUNK < m->pages; c++) {
        bool inside = count && c >= first / CHUNK &&
                      c <= (first + count - 1) / CHUNK;

        if (inside) {
            g_assert_false(m->stale[c]);
        } else {
            g_assert_false(m->cleared[c]);
        }
    }
}

static uint64_t model_run(Model *m, uint64_t from, uint64_t limit,
                          uint64_t *first)
{
    uint64_t end;

    while (from < m->pages && !m->dirty[from]) {
        from++;
    }
    *first = from;
    for (end = from; end < m->pages && m->dirty[end] && end - from < limit;) {
        end++;
    }
    return end - from;
}

static void check(Model *m)
{
    uint64_t dirty = 0, at = 0;

    for (uint64_t i = 0; i < m->pages; i++) {
        dirty += m->dirty[i];
    }
    g_assert_cmpuint(dirty_map_size(m->map), ==, m->pages);
    g_assert_cmpuint(dirty_map_count(m->map), ==, dirty);
    for (;;) {
        uint64_t want_first, want, first = 0, got;

        want = model_run(m, at, UINT64_MAX, &want_first);
        got = dirty_map_find(m->map, at, UINT64_MAX, &first);
        g_assert_cmpuint(got, ==, want);
        if (!got) {
            break;
        }
        g_assert_cmpuint(first, ==, want_first);
        g_assert_true(dirty_map_test(m->map, first));
        at = first + got;
    }
}

static uint64_t below(uint64_t n)
{
    return n ? ((uint64_t)g_test_rand_int() << 32 | (uint32_t)g_test_rand_int())
               % n : 0;
}

/* Short, long, aligned and not */
static void random_range(Model *m, uint64_t *first, uint64_t *count)
{
    static const uint64_t longest[] = { 1, 3, 64, 300, 5000, UINT64_MAX };
    uint64_t most = longest[below(ARRAY_SIZE(longest))];

    *first = below(m->pages + 1);
    if (below(3) == 0) {
        *first &= ~63ull;
    }
    most = MIN(most, m->pages - *first);
    *count = below(most + 1);
}

static void op_set(Model *m)
{
    uint64_t first, count, added = 0;

    random_range(m, &first, &count);
    for (uint64_t i = first; i < first + count; i++) {
        added += !m->dirty[i];
        m->dirty[i] = 1;
    }
    g_assert_cmpuint(dirty_map_set(m->map, first, count), ==, added);
    check_cleared(m, 0, 0);
}

static void op_merge(Model *m)
{
    uint64_t first, count, added = 0, log_first = below(200);
    bool take = below(2);
    uint64_t bits, density = 1 + below(100);
    unsigned long *log;

    random_range(m, &first, &count);
    bits = log_first + count + 100;
    log = g_new0(unsigned long, BITS_TO_LONGS(bits));
    for (uint64_t i = 0; i < bits; i++) {
        bool inside = i >= log_first && i < log_first + count;

        if (!inside) {
            set_bit(i, log);
        } else if (below(density) == 0) {
            uint64_t page = first + i - log_first;

            set_bit(i, log);
            added += !m->dirty[page];
            m->dirty[page] = 1;
            m->stale[page / CHUNK] = 1;
        }
    }
    if (take) {
        g_assert_cmpuint(dirty_map_merge_clearing(m->map, first, count, log,
                                                  log_first), ==, added);
        for (uint64_t i = 0; i < bits; i++) {
            g_assert_cmpint(test_bit(i, log), ==,
                            i < log_first || i >= log_first + count);
        }
    } else {
        g_assert_cmpuint(dirty_map_merge(m->map, first, count, log,
                                         log_first), ==, added);
    }
    check_cleared(m, 0, 0);
    g_free(log);
}

static void op_clear_log(Model *m)
{
    uint64_t first, count;

    random_range(m, &first, &count);
    dirty_map_clear_log(m->map, first, count);
    check_cleared(m, first, count);
}

static void op_drop(Model *m)
{
    uint64_t first, count, dropped = 0;

    random_range(m, &first, &count);
    for (uint64_t i = first; i < first + count; i++) {
        dropped += m->dirty[i];
        m->dirty[i] = 0;
    }
    g_assert_cmpuint(dirty_map_drop(m->map, first, count), ==, dropped);
    check_cleared(m, first, count);
}

static void op_hint(Model *m)
{
    uint64_t first, count, dropped = 0;

    random_range(m, &first, &count);
    for (uint64_t i = first; i < first + count; i++) {
        if (!m->stale[i / CHUNK]) {
            dropped += m->dirty[i];
            m->dirty[i] = 0;
        }
    }
    g_assert_cmpuint(dirty_map_hint(m->map, first, count), ==, dropped);
    check_cleared(m, 0, 0);
}

static void op_take(Model *m)
{
    uint64_t from = below(m->pages + 2), limit = below(600);
    uint64_t want, want_first, got, first = 0;

    want = model_run(m, from, limit, &want_first);
    got = dirty_map_take(m->map, from, limit, &first);
    g_assert_cmpuint(got, ==, want);
    if (got) {
        g_assert_cmpuint(first, ==, want_first);
        memset(m->dirty + first, 0, got);
    }
    check_cleared(m, first, got);
}

static void test_model(void)
{
    static void (*const ops[])(Model *) = {
        op_set, op_merge, op_merge, op_clear_log, op_drop, op_hint, op_take,
        op_take, op_take,
    };

    for (int s = 0; s < ARRAY_SIZE(sizes); s++) {
        int rounds = sizes[s] > 20000 ? 40 : 400;
        Model m;

        model_init(&m, sizes[s]);
        for (int i = 0; i < rounds; i++) {
            begin(&m);
            ops[below(ARRAY_SIZE(ops))](&m);
            check(&m);
        }
        model_free(&m);
    }
}

/* Every range of a small map that spans some words */
static void test_every_range(void)
{
    Model m;

    model_init(&m, 200);
    for (uint64_t first = 0; first <= 200; first++) {
        for (uint64_t end = first; end <= 200; end++) {
            uint64_t at = 999;

            g_assert_cmpuint(dirty_map_set(m.map, first, end - first), ==,
                             end - first);
            g_assert_cmpuint(dirty_map_count(m.map), ==, end - first);
            g_assert_cmpuint(dirty_map_find(m.map, 0, 1000, &at), ==,
                             end - first);
            g_assert_cmpuint(at, ==, end > first ? first : 999);
            g_assert_cmpuint(dirty_map_find(m.map, end, 1000, &at), ==, 0);
            g_assert_cmpuint(dirty_map_drop(m.map, 0, 200), ==, end - first);
        }
    }
    model_free(&m);
}

/*
 * A guest that writes, a log that reports until it is cleared and then again
 * when a page is written, and a sender: nothing is lost, whatever the order.
 */
typedef struct Guest {
    uint64_t pages;
    uint32_t *written;          /* version of each page */
    uint32_t *sent;
    unsigned long *log;
    unsigned long *reported;    /* by the last sync, and not cleared since */
    uint64_t chunks_cleared;
} Guest;

static void guest_clear_log(void *opaque, uint64_t first, uint64_t count)
{
    Guest *g = opaque;

    for (uint64_t i = first; i < first + count; i++) {
        /* what has been written since the last sync must stay */
        if (test_bit(i, g->reported)) {
            clear_bit(i, g->reported);
            clear_bit(i, g->log);
        }
    }
    g->chunks_cleared++;
}

static uint64_t guest_sync(Guest *g, DirtyMap *map)
{
    memcpy(g->reported, g->log, BITS_TO_LONGS(g->pages) * sizeof(long));
    return dirty_map_merge(map, 0, g->pages, g->log, 0);
}

static void guest_write(Guest *g, int writes)
{
    while (writes--) {
        uint64_t page = below(g->pages);

        g->written[page]++;
        set_bit(page, g->log);
    }
}

static uint64_t send_some(Guest *g, DirtyMap *map, uint64_t *at)
{
    uint64_t first, count = dirty_map_take(map, *at, 1 + below(512), &first);

    if (!count) {
        *at = 0;
        return 0;
    }
    guest_write(g, below(3));
    for (uint64_t i = first; i < first + count; i++) {
        g->sent[i] = g->written[i];
    }
    *at = first + count;
    return count;
}

static void test_nothing_lost(void)
{
    for (int round = 0; round < 30; round++) {
        Guest g = { .pages = 1 + below(20000) };
        unsigned shift = DIRTY_CHUNK_SHIFT_MIN + below(7);
        DirtyMap *map = dirty_map_new(g.pages, shift, guest_clear_log, &g);
        uint64_t at = 0;

        g.written = g_new0(uint32_t, g.pages);
        g.sent = g_new0(uint32_t, g.pages);
        g.log = g_new0(unsigned long, BITS_TO_LONGS(g.pages));
        g.reported = g_new0(unsigned long, BITS_TO_LONGS(g.pages));
        memset(g.log, -1, g.pages / 8);         /* begins with all bits set */
        for (int i = 0; i < 400; i++) {
            guest_write(&g, below(20));
            if (below(20) == 0) {
                guest_sync(&g, map);
            }
            send_some(&g, map, &at);
        }
        /* the guest stops: what is left is sent, then all is there */
        guest_sync(&g, map);
        while (dirty_map_count(map)) {
            uint64_t first, n = dirty_map_take(map, 0, g.pages, &first);

            memcpy(g.sent + first, g.written + first, n * sizeof(*g.sent));
        }
        g_assert_cmpmem(g.sent, g.pages * 4, g.written, g.pages * 4);
        dirty_map_free(map);
        g_free(g.written);
        g_free(g.sent);
        g_free(g.log);
        g_free(g.reported);
    }
}

/* Only chunks of pages that are sent have their log cleared, and once. */
static void test_lazy(void)
{
    const uint64_t pages = 100 * CHUNK;
    g_autofree unsigned long *log = g_new0(unsigned long,
                                           BITS_TO_LONGS(pages));
    g_autofree unsigned long *reported = g_new0(unsigned long,
                                                BITS_TO_LONGS(pages));
    Guest g = { .pages = pages, .log = log, .reported = reported };
    DirtyMap *map = dirty_map_new(pages, SHIFT, guest_clear_log, &g);
    uint64_t first;

    for (int i = 0; i < 100; i += 2) {
        set_bit(i * CHUNK + 3, log);
        set_bit(i * CHUNK + 9, log);
    }
    guest_sync(&g, map);
    g_assert_cmpuint(g.chunks_cleared, ==, 0);
    for (int i = 0; i < 10; i++) {
        g_assert_cmpuint(dirty_map_take(map, 0, 512, &first), ==, 1);
    }
    g_assert_cmpuint(g.chunks_cleared, ==, 5);
    /* merged again they come back, but the log of those sent is quiet */
    g_assert_cmpuint(guest_sync(&g, map), ==, 0);
    set_bit(0, log);
    g_assert_cmpuint(guest_sync(&g, map), ==, 1);
    g_assert_cmpuint(dirty_map_take(map, 0, 512, &first), ==, 1);
    g_assert_cmpuint(g.chunks_cleared, ==, 6);
    dirty_map_free(map);
}

typedef struct Hints {
    DirtyMap *map;
    uint64_t dropped;
} Hints;

static void *hint_thread(void *opaque)
{
    Hints *h = opaque;

    for (uint64_t page = 0; page < 1 << 20; page += 128) {
        h->dropped += dirty_map_hint(h->map, page, 64);
    }
    return NULL;
}

/* A page goes to the sender or to the hints, never to both, never to none. */
typedef struct Cleared {
    uint64_t pages, calls;
} Cleared;

static void count_cleared(void *opaque, uint64_t first, uint64_t count)
{
    Cleared *c = opaque;

    g_assert_cmpuint(first % CHUNK, ==, 0);
    c->pages += count;
    c->calls++;
}

/* All of the log is cleared, whatever it said; nothing in the map changes. */
static void test_forget_log(void)
{
    uint64_t pages = 3 * CHUNK + 5;
    Cleared c = {};
    DirtyMap *map = dirty_map_new(pages, SHIFT, count_cleared, &c);

    dirty_map_set(map, 1, 10);
    dirty_map_forget_log(map);
    g_assert_cmpuint(c.calls, ==, 4);
    g_assert_cmpuint(c.pages, ==, pages);
    g_assert_cmpuint(dirty_map_count(map), ==, 10);
    dirty_map_free(map);
}

/* Whose log has gone is not called any more; what is dirty stays so. */
static void test_detach(void)
{
    g_autofree unsigned long *log = bitmap_new(4 * CHUNK);
    Cleared c = {};
    DirtyMap *map = dirty_map_new(4 * CHUNK, SHIFT, count_cleared, &c);
    uint64_t first;

    bitmap_set(log, 0, 4 * CHUNK);
    dirty_map_merge(map, 0, 4 * CHUNK, log, 0);
    g_assert_cmpuint(dirty_map_take(map, 0, 1, &first), ==, 1);
    g_assert_cmpuint(c.calls, ==, 1);
    dirty_map_detach(map);
    g_assert_cmpuint(dirty_map_take(map, CHUNK, 5, &first), ==, 5);
    dirty_map_clear_log(map, 0, 4 * CHUNK);
    dirty_map_forget_log(map);
    dirty_map_drop(map, 0, CHUNK);
    g_assert_cmpuint(c.calls, ==, 1);
    g_assert_cmpuint(dirty_map_count(map), ==, 3 * CHUNK - 5);
    dirty_map_free(map);
}

static void test_threads(void)
{
    Hints h = { .map = dirty_map_new(1 << 20, 12, NULL, NULL) };
    uint64_t first, n, at = 0, sent = 0;
    QemuThread thread;

    dirty_map_set(h.map, 0, 1 << 20);
    qemu_thread_create(&thread, "hints", hint_thread, &h,
                       QEMU_THREAD_JOINABLE);
    while ((n = dirty_map_take(h.map, at, 100, &first))) {
        sent += n;
        at = first + n;
        g_assert_cmpuint(dirty_map_count(h.map), <=, (1 << 20) - sent);
    }
    qemu_thread_join(&thread);
    g_assert_cmpuint(dirty_map_count(h.map), ==, 0);
    g_assert_cmpuint(sent + h.dropped, ==, 1 << 20);
    dirty_map_free(h.map);
}

/* 12 TB, of which a page at each end is dirty; -m perf tells more */
static void test_huge(void)
{
    const uint64_t pages = 12ull << 40 >> 12;
    DirtyMap *map = dirty_map_new(pages, 18, NULL, NULL);
    uint64_t first = 0, n;
    double find, set;

    if (!map) {
        g_test_skip("no address space for the map of 12 TB");
        return;
    }
    g_assert_cmpuint(dirty_map_find(map, 0, 512, &first), ==, 0);
    dirty_map_set(map, pages - 1, 1);
    g_test_timer_start();
    for (int i = 0; i < 100; i++) {
        n = dirty_map_find(map, i, 512, &first);
    }
    find = g_test_timer_elapsed() / 100;
    g_assert_cmpuint(n, ==, 1);
    g_assert_cmpuint(first, ==, pages - 1);
    /* it is microseconds; a search through all words takes 50 milliseconds */
    g_assert_cmpfloat(find, <, 0.005);
    g_test_message("12 TB: next run after %.1f us", find * 1e6);
    if (g_test_perf()) {
        g_autofree unsigned long *log = g_new0(unsigned long,
                                               BITS_TO_LONGS(pages / 12));
        uint64_t runs = 0, at = 0;

        dirty_map_merge(map, 0, pages / 12, log, 0);
        g_test_timer_start();
        dirty_map_merge(map, 0, pages / 12, log, 0);
        g_test_message("1 TB: clean log merged in %.1f ms",
                       g_test_timer_elapsed() * 1e3);
        for (uint64_t i = 0; i < pages / 12; i += 7) {
            set_bit(i, log);
        }
        g_test_timer_start();
        dirty_map_merge(map, 0, pages / 12, log, 0);
        g_test_message("1 TB: every 7th page merged in %.1f ms",
                       g_test_timer_elapsed() * 1e3);
        g_test_timer_start();
        while (runs < 10000000 && (n = dirty_map_take(map, at, 512, &first))) {
            at = first + n;
            runs++;
        }
        g_test_message("a run of one page taken in %.1f ns",
                       g_test_timer_elapsed() * 1e9 / runs);
        g_test_timer_start();
        dirty_map_set(map, 0, pages / 12);
        set = g_test_timer_elapsed();
        g_test_message("1 TB: all set in %.1f ms", set * 1e3);
        g_test_timer_start();
        for (at = 0, runs = 0; runs < 100000; runs++) {
            n = dirty_map_take(map, at, 512, &first);
            at = first + n;
        }
        g_test_message("a run of 512 pages taken in %.1f ns",
                       g_test_timer_elapsed() * 1e9 / runs);
    }
    dirty_map_free(map);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_limit_time(TIME_LIMIT);
    g_test_add_func("/ram/dirty/model", test_model);
    g_test_add_func("/ram/dirty/every-range", test_every_range);
    g_test_add_func("/ram/dirty/nothing-lost", test_nothing_lost);
    g_test_add_func("/ram/dirty/lazy", test_lazy);
    g_test_add_func("/ram/dirty/forget-log", test_forget_log);
    g_test_add_func("/ram/dirty/detach", test_detach);
    g_test_add_func("/ram/dirty/threads", test_threads);
    g_test_add_func("/ram/dirty/huge", test_huge);
    return g_test_run();
}
