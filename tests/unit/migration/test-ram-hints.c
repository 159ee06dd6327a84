/*
 * Unit tests of free page hints: what they drop, when, and what they must not
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/memalign.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "setup.h"
#include "migration/misc.h"
#include "migration/ram/hints.h"

#define BITS 12
#define PAGE (1ull << BITS)
#define LOW 1000                        /* pages; the regions touch */
#define HIGH 700
#define PAGES (LOW + HIGH)
/* Nobody reads there. */
#define HOST ((uint8_t *)(uintptr_t)(sizeof(void *) > 4 ? 1ull << 40 : 1 << 30))

static uint64_t state = 0x2545f4914f6cdd1dull;

static uint64_t below(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return n ? (state >> 11) % n : 0;
}

/*
 * Memory in two blocks, with a log that is as KVM's: it goes on reporting a
 * page until it is cleared, and clearing takes away what it has reported, with
 * all writes since.  Writes to a page that it has not reported stay.
 */
typedef struct Machine {
    RamRegion list[2];
    RamRegions regions;
    unsigned long *log, *reported;
} Machine;

static Machine machine;

static void clear_log(void *opaque, uint64_t first, uint64_t count)
{
    RamRegion *r = opaque;
    uint64_t from = (r->host - HOST) >> BITS;

    for (uint64_t i = from + first; i < from + first + count; i++) {
        if (test_bit(i, machine.reported)) {
            clear_bit(i, machine.reported);
            clear_bit(i, machine.log);
        }
    }
}

static void machine_init(unsigned chunk_shift)
{
    static const uint64_t pages[] = { LOW, HIGH };
    uint8_t *host = HOST;

    for (int i = 0; i < 2; i++) {
        RamRegion *r = &machine.list[i];

        *r = (RamRegion) {
            .index = i, .page_bits = BITS, .host = host, .pages = pages[i],
        };
        r->map = dirty_map_new(pages[i], chunk_shift, clear_log, r);
        host += pages[i] << BITS;
    }
    machine.regions = (RamRegions) { machine.list, 2 };
    machine.log = bitmap_new(PAGES);
    machine.reported = bitmap_new(PAGES);
    ram_hints_begin(&machine.regions);
}

static void machine_destroy(void)
{
    ram_hints_end();
    dirty_map_free(machine.list[0].map);
    dirty_map_free(machine.list[1].map);
    g_free(machine.log);
    g_free(machine.reported);
}

static uint64_t dirty(void)
{
    return dirty_map_count(machine.list[0].map) +
           dirty_map_count(machine.list[1].map);
}

static void all_dirty(void)
{
    dirty_map_set(machine.list[0].map, 0, LOW);
    dirty_map_set(machine.list[1].map, 0, HIGH);
}

static void merge_log(void)
{
    bitmap_copy(machine.reported, machine.log, PAGES);
    dirty_map_merge(machine.list[0].map, 0, LOW, machine.log, 0);
    dirty_map_merge(machine.list[1].map, 0, HIGH, machine.log, LOW);
}

/* A device that only counts */
typedef struct Listener {
    NotifierWithReturn notifier;
    unsigned heard[PRECOPY_NOTIFY_MAX];
    int answer;
} Listener;

static int hear(NotifierWithReturn *n, void *data, Error **errp)
{
    Listener *l = container_of(n, Listener, notifier);

    l->heard[((PrecopyNotifyData *)data)->reason]++;
    if (l->answer) {
        error_setg(errp, "no");
    }
    return l->answer;
}

static void begin_to_listen(Listener *l)
{
    *l = (Listener) { .notifier.notify = hear };
    precopy_add_notifier(&l->notifier);
}

/*
 * Which pages a range stands for
 */

typedef struct Range {
    const char *what;
    uint64_t from, len;         /* bytes, from the first block's start */
    uint64_t dropped;           /* pages */
} Range;

static const Range ranges[] = {
    { "nothing", 0, 0, 0 },
    { "nothing, inside", PAGE, 0, 0 },
    { "a page", 0, PAGE, 1 },
    { "the last page", (PAGES - 1) * PAGE, PAGE, 1 },
    { "a byte", 5, 1, 0 },
    { "all but a byte", 0, PAGE - 1, 0 },
    { "all but the first byte", 1, PAGE - 1, 0 },
    { "a page, not aligned", 1, PAGE, 0 },
    { "two, not aligned", 1, 2 * PAGE, 1 },
    { "two and the ends of others", PAGE - 1, 2 * PAGE + 2, 2 },
    { "a block", 0, LOW * PAGE, LOW },
    { "the other", LOW * PAGE, HIGH * PAGE, HIGH },
    { "both", 0, PAGES * PAGE, PAGES },
    { "across", (LOW - 3) * PAGE, 10 * PAGE, 10 },
    { "across, not aligned", (LOW - 3) * PAGE + 1, 10 * PAGE, 9 },
    { "more than there is", PAGE, SIZE_MAX / 8, PAGES - 1 },
    { "up to the end of the world", PAGE, SIZE_MAX, PAGES - 1 },
    { "behind", PAGES * PAGE, PAGE, 0 },
    { "far behind", SIZE_MAX / 8, SIZE_MAX / 8, 0 },
    { "before", -4 * PAGE, 4 * PAGE, 0 },
    { "into it from before", -4 * PAGE, 6 * PAGE, 2 },
    { "around it", -PAGE, (PAGES + 2) * PAGE, PAGES },
    { "around it, huge", -PAGE, SIZE_MAX, PAGES },
};

static void test_ranges(void)
{
    Listener l;

    machine_init(18);
    begin_to_listen(&l);
    for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
        const Range *r = &ranges[i];

        all_dirty();
        ram_hints_go_on(false);
        qemu_guest_free_page_hint(HOST + r->from, r->len);
        g_test_message("%s", r->what);
        g_assert_cmpuint(PAGES - dirty(), ==, r->dropped);
        /* and once more: what is clean is not counted */
        qemu_guest_free_page_hint(HOST + r->from, r->len);
        g_assert_cmpuint(PAGES - dirty(), ==, r->dropped);
        ram_hints_stop();
    }
    precopy_remove_notifier(&l.notifier);
    machine_destroy();
}

/* What is not sent at all has no map. */
static void test_ignored(void)
{
    Listener l;

    machine_init(18);
    begin_to_listen(&l);
    all_dirty();
    machine.list[0].ignored = true;
    ram_hints_go_on(false);
    qemu_guest_free_page_hint(HOST, PAGES * PAGE);
    g_assert_cmpuint(dirty_map_count(machine.list[0].map), ==, LOW);
    g_assert_cmpuint(dirty_map_count(machine.list[1].map), ==, 0);
    ram_hints_stop();
    precopy_remove_notifier(&l.notifier);
    machine_destroy();
}

/* Where unplugged memory was there may be something else by now. */
static void test_unplugged(void)
{
    Listener l;

    machine_init(18);
    begin_to_listen(&l);
    all_dirty();
    qatomic_set(&machine.list[0].presence, RAM_GONE);
    ram_hints_go_on(false);
    qemu_guest_free_page_hint(HOST, PAGES * PAGE);
    g_assert_cmpuint(dirty_map_count(machine.list[0].map), ==, LOW);
    g_assert_cmpuint(dirty_map_count(machine.list[1].map), ==, 0);
    ram_hints_stop();
    precopy_remove_notifier(&l.notifier);
    machine_destroy();
}

/*
 * When
 */

static void assert_ignored(void)
{
    uint64_t before = dirty();

    qemu_guest_free_page_hint(HOST, PAGES * PAGE);
    g_assert_cmpuint(dirty(), ==, before);
}

static void test_rounds(void)
{
    Listener l;

    qemu_guest_free_page_hint(HOST, PAGES * PAGE);      /* no migration */
    machine_init(18);
    all_dirty();
    assert_ignored();
    ram_hints_go_on(false);
    assert_ignored();           /* nobody listens, so who says this? */
    begin_to_listen(&l);
    ram_hints_stop();
    g_assert_cmpuint(l.heard[PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC], ==, 1);
    assert_ignored();
    ram_hints_go_on(true);      /* the guest stands still */
    g_assert_cmpuint(l.heard[PRECOPY_NOTIFY_AFTER_BITMAP_SYNC], ==, 1);
    assert_ignored();
    ram_hints_stop();
    ram_hints_go_on(false);
    qemu_guest_free_page_hint(HOST, PAGE);
    g_assert_cmpuint(dirty(), ==, PAGES - 1);
    l.answer = -EIO;            /* a device that fails is not in the way */
    ram_hints_stop();
    assert_ignored();
    ram_hints_go_on(false);
    g_assert_cmpuint(l.heard[PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC], ==, 3);
    g_assert_cmpuint(l.heard[PRECOPY_NOTIFY_AFTER_BITMAP_SYNC], ==, 3);
    precopy_remove_notifier(&l.notifier);
    ram_hints_end();
    assert_ignored();
    ram_hints_begin(&machine.regions);
    assert_ignored();
    machine_destroy();
}

/* A page is written to when its hint is on its way: the whole story, once. */
static void test_written_in_flight(void)
{
    Listener l;

    machine_init(18);
    begin_to_listen(&l);
    set_bit(7, machine.log);            /* it was in use */
    set_bit(8, machine.log);
    ram_hints_stop();
    merge_log();
    set_bit(7, machine.log);            /* and still is */
    ram_hints_go_on(false);
    set_bit(7, machine.log);            /* freed, hinted, taken back, written */
    qemu_guest_free_page_hint(HOST + 7 * PAGE, 2 * PAGE);
    g_assert_cmpuint(dirty(), ==, 0);
    ram_hints_stop();
    merge_log();
    g_assert_true(dirty_map_test(machine.list[0].map, 7));
    g_assert_cmpuint(dirty(), ==, 1);   /* nobody wrote to the other */
    precopy_remove_notifier(&l.notifier);
    machine_destroy();
}

/*
 * A guest, its driver, a device and a sender in any order
 */

typedef enum Use { FREE, USED, HELD } Use;

typedef struct Flying {
    uint64_t page, count;
    QSIMPLEQ_ENTRY(Flying) next;
} Flying;

static struct {
    NotifierWithReturn notifier;
    uint8_t use[PAGES];
    uint32_t written[PAGES], sent[PAGES];
    QSIMPLEQ_HEAD(, Flying) queue;
    bool asked;                 /* a round is under way */
    bool stopped;
    uint64_t dropped;
} guest;

static void write_page(uint64_t page)
{
    guest.written[page]++;
    set_bit(page, machine.log);
}

/* A page that it uses; one that it takes, from its driver or not; or free. */
static void guest_works(unsigned times)
{
    while (times-- && !guest.stopped) {
        uint64_t page = below(PAGES);

        if (guest.use[page] != USED) {
            guest.use[page] = USED;
            write_page(page);
        } else if (below(3)) {
            write_page(page);
        } else {
            guest.use[page] = FREE;
        }
    }
}

static void driver_hints(void)
{
    uint64_t page = below(PAGES), count = 0;
    Flying *flying;

    while (page + count < PAGES && guest.use[page + count] == FREE) {
        guest.use[page + count++] = HELD;
    }
    if (count) {
        flying = g_new(Flying, 1);
        *flying = (Flying) { .page = page, .count = count };
        QSIMPLEQ_INSERT_TAIL(&guest.queue, flying, next);
    }
}

static void device_applies(void)
{
    Flying *flying = QSIMPLEQ_FIRST(&guest.queue);
    uint64_t before = dirty();

    if (flying) {
        QSIMPLEQ_REMOVE_HEAD(&guest.queue, next);
        qemu_guest_free_page_hint(HOST + flying->page * PAGE,
                                  flying->count * PAGE);
        guest.dropped += before - dirty();
        g_free(flying);
    }
}

static void device_forgets(void)
{
    Flying *flying;

    while ((flying = QSIMPLEQ_FIRST(&guest.queue))) {
        QSIMPLEQ_REMOVE_HEAD(&guest.queue, next);
        g_free(flying);
    }
}

static int device_is_told(NotifierWithReturn *n, void *data, Error **errp)
{
    PrecopyNotifyData *event = data;

    guest_works(below(40));
    guest.asked = event->reason == PRECOPY_NOTIFY_AFTER_BITMAP_SYNC;
    device_forgets();
    for (int i = 0; guest.asked && i < 10; i++) {
        driver_hints();         /* it is quick */
        guest_works(below(10));
    }
    return 0;
}

static void take_and_send(RamRegion *r, uint64_t limit, bool interrupted)
{
    uint64_t from = (r->host - HOST) >> BITS, first;
    uint64_t count = dirty_map_take(r->map, below(r->pages), limit, &first);

    if (interrupted) {
        guest_works(below(5));
    }
    for (uint64_t i = from + first; count; i++, count--) {
        guest.sent[i] = guest.written[i];
    }
}

static void sync_now(void)
{
    ram_hints_stop();
    guest_works(below(40));
    merge_log();
    guest_works(below(40));
    ram_hints_go_on(false);
}

static void random_step(void)
{
    switch (below(12)) {
    case 0:
        if (below(8) == 0) {
            sync_now();
        }
        break;
    case 1 ... 3:
        guest_works(below(30));
        break;
    case 4 ... 6:
        if (guest.asked) {
            driver_hints();
        }
        break;
    case 7 ... 9:
        device_applies();
        break;
    default:
        take_and_send(&machine.list[below(2)], 1 + below(64), true);
        break;
    }
}

static void finish(void)
{
    guest.stopped = true;
    ram_hints_stop();
    merge_log();
    ram_hints_go_on(true);
    while (dirty()) {
        take_and_send(&machine.list[0], PAGES, false);
        take_and_send(&machine.list[1], PAGES, false);
    }
    for (uint64_t i = 0; i < PAGES; i++) {
        if (guest.use[i] == USED) {
            g_assert_cmpuint(guest.sent[i], ==, guest.written[i]);
        }
    }
}

static void test_nothing_lost(void)
{
    uint64_t dropped = 0;

    for (int round = 0; round < 200; round++) {
        machine_init(DIRTY_CHUNK_SHIFT_MIN + below(6));
        memset(&guest, 0, sizeof(guest));
        QSIMPLEQ_INIT(&guest.queue);
        guest.notifier.notify = device_is_told;
        precopy_add_notifier(&guest.notifier);
        guest_works(PAGES);
        for (int i = 0; i < 1500; i++) {
            random_step();
        }
        finish();
        device_forgets();
        dropped += guest.dropped;
        precopy_remove_notifier(&guest.notifier);
        machine_destroy();
    }
    g_test_message("%" PRIu64 " pages were not sent", dropped);
    g_assert_cmpuint(dropped, >, 10000);        /* or nothing was tested */
}

/*
 * Threads
 */

static bool over;

static void *hint_thread(void *opaque)
{
    unsigned n = 0;

    while (!qatomic_read(&over)) {
        qemu_guest_free_page_hint(HOST + n++ % PAGES * PAGE, 3 * PAGE);
    }
    return NULL;
}

/* Rounds begin and end under a device that never stops. */
static void test_threads(void)
{
    QemuThread thread;
    Listener l;

    over = false;
    machine_init(6);
    begin_to_listen(&l);
    qemu_thread_create(&thread, "hints", hint_thread, NULL,
                       QEMU_THREAD_JOINABLE);
    for (int i = 0; i < 2000; i++) {
        ram_hints_stop();
        all_dirty();
        bitmap_fill(machine.log, PAGES);
        merge_log();
        g_assert_cmpuint(dirty(), ==, PAGES);
        ram_hints_go_on(false);
        g_usleep(i % 8 ? 0 : 200);
    }
    ram_hints_end();
    qatomic_set(&over, true);
    qemu_thread_join(&thread);
    precopy_remove_notifier(&l.notifier);
    machine_destroy();
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    precopy_infrastructure_init();
    g_test_add_func("/ram/hints/ranges", test_ranges);
    g_test_add_func("/ram/hints/ignored", test_ignored);
    g_test_add_func("/ram/hints/unplugged", test_unplugged);
    g_test_add_func("/ram/hints/rounds", test_rounds);
    g_test_add_func("/ram/hints/written-in-flight", test_written_in_flight);
    g_test_add_func("/ram/hints/nothing-lost", test_nothing_lost);
    g_test_add_func("/ram/hints/threads", test_threads);
    return g_test_run();
}
