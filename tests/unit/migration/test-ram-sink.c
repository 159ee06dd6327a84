/*
 * Unit tests of the interface between what finds pages and what takes them:
 * several senders claim from the same regions, each with a sink of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "setup.h"
#include "migration/migration-stats.h"
#include "migration/ram/send.h"

#define BITS 12
#define PAGES 20000
#define SENDERS 3

static RamRegion region;
static RamRegions regions = { .list = &region, .count = 1 };
static uint8_t given[PAGES];        /* how often each page was; atomic */
static bool given_as_zero[PAGES];

/* A sink that notes what it is given. */
typedef struct Notes {
    RamSink sink;
    uint64_t bytes;
    unsigned flushes, passes, ends;
    int error;
} Notes;

static Notes *notes_of(RamSink *sink)
{
    return container_of(sink, Notes, sink);
}

static void note_pages(RamSink *sink, const RamRegion *r, uint64_t first,
                       unsigned count)
{
    g_assert_true(r == &region && count && first + count <= PAGES);
    for (unsigned i = 0; i < count; i++) {
        qatomic_inc(&given[first + i]);
    }
    notes_of(sink)->bytes += (uint64_t)count << BITS;
}

static void note_zeros(RamSink *sink, const RamRegion *r, uint64_t first,
                       uint64_t count)
{
    g_assert_true(r == &region && count && first + count <= PAGES);
    for (uint64_t i = 0; i < count; i++) {
        qatomic_inc(&given[first + i]);
        given_as_zero[first + i] = true;
    }
    notes_of(sink)->bytes += 9;
}

static int note_flush(RamSink *sink)
{
    notes_of(sink)->flushes++;
    return notes_of(sink)->error;
}

static int note_end_pass(RamSink *sink)
{
    notes_of(sink)->passes++;
    return notes_of(sink)->error;
}

static int note_end(RamSink *sink)
{
    notes_of(sink)->ends++;
    return notes_of(sink)->error;
}

static uint64_t note_position(RamSink *sink)
{
    return notes_of(sink)->bytes;
}

static int note_error(RamSink *sink)
{
    return notes_of(sink)->error;
}

static void note_fail(RamSink *sink, int ret, Error *err)
{
    notes_of(sink)->error = notes_of(sink)->error ?: ret;
    error_free(err);
}

static const RamSinkOps notes_ops = {
    .pages = note_pages,
    .zeros = note_zeros,
    .flush = note_flush,
    .end_pass = note_end_pass,
    .end = note_end,
    .position = note_position,
    .error = note_error,
    .fail = note_fail,
};

static void set_up(void)
{
    uint64_t size = (uint64_t)PAGES << BITS;

    region = (RamRegion) {
        .name = (char *)"ram",
        .page_bits = BITS,
        .pages = PAGES,
        .max_pages = PAGES,
        .host_page_size = qemu_real_host_page_size(),
        .host = qemu_memalign(qemu_real_host_page_size(), size),
        .area = { .kind = POPULATED_UNKNOWN, .size = size },
    };
    region.area.host = region.host;
    for (uint64_t page = 0; page < PAGES; page++) {
        memset((uint8_t *)region.host + (page << BITS), page % 3 ? page : 0,
               1 << BITS);
    }
    region.map = dirty_map_new(PAGES, 18, NULL, NULL);
    region.untouched = g_array_new(false, false, sizeof(RamRange));
    memset(given, 0, sizeof(given));
    memset(given_as_zero, 0, sizeof(given_as_zero));
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(RATE_LIMIT_DISABLED);
}

static void tear_down(void)
{
    qemu_vfree(region.host);
    dirty_map_free(region.map);
    g_array_free(region.untouched, true);
}

typedef struct Worker {
    QemuThread thread;
    Notes notes;
    RamSender sender;
} Worker;

static void worker_init(Worker *w, bool first)
{
    w->notes = (Notes) {
        .sink = { .ops = &notes_ops, .zeros_at_once = UINT64_MAX },
    };
    ram_sender_init(&w->sender, &regions, &w->notes.sink);
    w->sender.tells_untouched = first;
}

static void *work(void *opaque)
{
    Worker *w = opaque;

    g_assert_cmpint(ram_sender_run(&w->sender, true), ==, RAM_SEND_ALL);
    return NULL;
}

/* Every page is claimed by one of them, whichever it is. */
static void test_several(void)
{
    Worker *workers = g_new0(Worker, SENDERS);
    RamRange untouched = { 0, 100 };
    uint64_t bytes = 0;

    set_up();
    dirty_map_set(region.map, 100, PAGES - 100);
    g_array_append_val(region.untouched, untouched);
    region.untold_pages = 100;
    for (int i = 0; i < SENDERS; i++) {
        worker_init(&workers[i], !i);
    }
    for (int i = 0; i < SENDERS; i++) {
        qemu_thread_create(&workers[i].thread, "worker", work, &workers[i],
                           QEMU_THREAD_JOINABLE);
    }
    for (int i = 0; i < SENDERS; i++) {
        qemu_thread_join(&workers[i].thread);
        bytes += workers[i].notes.bytes;
    }
    for (uint64_t page = 0; page < PAGES; page++) {
        g_assert_cmpuint(given[page], ==, 1);
        g_assert_true(given_as_zero[page] ==
                      (page < 100 || !(page % 3) || !(uint8_t)page));
    }
    g_assert_cmpuint(dirty_map_count(region.map), ==, 0);
    g_assert_cmpuint(ram_sender_left(&regions), ==, 0);
    g_assert_cmpuint(bytes, >, 0);
    tear_down();
    g_free(workers);
}

/* What is latched in the sink ends it, and what is left stays to be sent. */
static void test_error(void)
{
    g_autofree Worker *w = g_new0(Worker, 1);
    Error *err = NULL;

    set_up();
    worker_init(w, true);
    dirty_map_set(region.map, 0, PAGES);
    error_setg(&err, "no room");
    ram_sink_fail(&w->notes.sink, -ENOSPC, err);
    g_assert_cmpint(ram_sender_run(&w->sender, true), ==, RAM_SEND_ERROR);
    g_assert_cmpint(ram_sink_flush(&w->notes.sink), ==, -ENOSPC);
    g_assert_cmpint(ram_sink_end_pass(&w->notes.sink), ==, -ENOSPC);
    g_assert_cmpint(ram_sink_end(&w->notes.sink), ==, -ENOSPC);
    g_assert_cmpuint(dirty_map_count(region.map), ==, PAGES);
    tear_down();
}

/* A rate is kept by what the sink says it was given. */
static void test_slices(void)
{
    g_autofree Worker *w = g_new0(Worker, 1);

    set_up();
    worker_init(w, true);
    dirty_map_set(region.map, 0, PAGES);
    while (ram_sender_run(&w->sender, false) != RAM_SEND_ALL) {
        g_assert_cmpuint(dirty_map_count(region.map), >, 0);
    }
    for (uint64_t page = 0; page < PAGES; page++) {
        g_assert_cmpuint(given[page], ==, 1);
    }
    tear_down();
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/ram-sink/several-senders", test_several);
    g_test_add_func("/ram-sink/error", test_error);
    g_test_add_func("/ram-sink/slices", test_slices);
    return g_test_run();
}
