/*
 * Unit tests of memory that is saved as it is at one moment while threads go on
 * writing to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/memfd.h"
#include "qemu/rcu.h"
#include "io/channel-buffer.h"
#include "setup.h"
#include "migration/migration-stats.h"
#include "migration/postcopy/sender.h"
#include "migration/postcopy/ufd.h"
#include "migration/postcopy/write-watch.h"
#include "migration/ram/dirty-claim.h"
#include "migration/ram/load.h"
#include "migration/ram/stream-sink.h"
#include "migration/wire/wire.h"

#include <sys/mman.h>

#define PAGE 4096u
#define PAGES 2048u
#define WRITERS 3
#define PERIODS 20000           /* writes of each, at most */

typedef struct Rig {
    RamRegion region;
    RamRegions regions;
    uint8_t *moment;            /* what it was then */
    PostcopySender sender;
    WriteWatch watch;
    QIOChannelBuffer *buffer;
    QEMUFile *f;
    RamStreamSink sink;
    RamSender main;
    bool stop;                  /* atomic */
    unsigned writes;            /* atomic */
    QemuMutex running;          /* of whoever writes; to stop them */
} Rig;

static bool available(bool shared)
{
    UfdSupport support;

    ufd_probe(&support);
    if (support.error || !support.writes ||
        (shared && !support.shared_writes)) {
        g_test_skip("pages cannot be protected here");
        return false;
    }
    return true;
}

static void wake(void *opaque)
{
}

static void released(void *opaque, const RamRegion *r, uint64_t first,
                     uint64_t count)
{
    write_watch_release(&((Rig *)opaque)->watch, r, first, count);
}

static const PostcopySenderOps ops = {
    .wake = wake, .release = released, .early = true,
};

static void stuck(void)
{
    g_assert_not_reached();
}

static uint8_t *map_memory(int fd)
{
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    uint8_t *host = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, fd,
                         0);

    g_assert_true(host != MAP_FAILED);
    return host;
}

/*
 * Every third page was never written to, and is to be saved all the same.  The
 * target's pages may be larger than the host's.
 */
static void rig_init_with(Rig *rig, int fd, unsigned page_bits)
{
    uint8_t *host = map_memory(fd);
    unsigned pages = PAGES * PAGE >> page_bits;

    *rig = (Rig) {
        .region = {
            .name = (char *)"pc.ram", .page_bits = page_bits, .host = host,
            .pages = pages, .max_pages = pages,
            .host_page_size = qemu_real_host_page_size(),
            .area = { .kind = POPULATED_ANON, .host = host,
                      .size = PAGES * PAGE },
            .map = dirty_map_new(pages, 18, NULL, NULL),
        },
    };
    rig->regions = (RamRegions) { &rig->region, 1 };
    for (unsigned i = 0; i < PAGES; i++) {
        if (i % 3) {
            memset(host + i * PAGE, 1 + i % 200, PAGE);
        }
    }
    qemu_mutex_init(&rig->running);
    dirty_map_set(rig->region.map, 0, pages);
    dirty_map_freeze(rig->region.map);
    rig->buffer = qio_channel_buffer_new(PAGES * PAGE);
    rig->f = qemu_file_new_output(QIO_CHANNEL(rig->buffer));
    ram_stream_sink_init(&rig->sink, rig->f, 0);
    ram_sender_init(&rig->main, &rig->regions, &rig->sink.sink);
    postcopy_sender_init(&rig->sender, &rig->regions, &ops, rig);
    postcopy_sender_open(&rig->sender);
}

static void rig_init(Rig *rig, int fd)
{
    rig_init_with(rig, fd, 12);
}

static void rig_destroy(Rig *rig)
{
    write_watch_free(&rig->watch);
    postcopy_sender_cleanup(&rig->sender);
    qemu_fclose(rig->f);
    object_unref(OBJECT(rig->buffer));
    dirty_map_free(rig->region.map);
    qemu_mutex_destroy(&rig->running);
    munmap(rig->region.host, PAGES * PAGE);
    g_free(rig->moment);
}

/* Pieces until it is cancelled; -1: never */
static int pieces_left = -1;

static bool may_go_on(Error **errp)
{
    if (!pieces_left) {
        error_setg(errp, "cancelled");
        return false;
    }
    pieces_left -= pieces_left > 0;
    return true;
}

static void watch(Rig *rig, uint64_t keeps)
{
    rig->watch = (WriteWatch) {
        .regions = &rig->regions, .sender = &rig->sender, .stuck = stuck,
        .may_go_on = may_go_on, .keeps = keeps * PAGE,
    };
    g_assert_true(write_watch_begin(&rig->watch, &error_abort));
}

/* @keeps: pages that may be copied before they are sent */
static void arm(Rig *rig, uint64_t keeps)
{
    watch(rig, keeps);
    g_assert_true(write_watch_arm(&rig->watch, &error_abort));
}

/* Nobody writes.  Returns how many pages were protected again. */
static uint64_t take_moment(Rig *rig)
{
    uint64_t again;

    rig->moment = g_memdup2(rig->region.host, PAGES * PAGE);
    g_assert_true(write_watch_moment(&rig->watch, &again, &error_abort));
    return again;
}

static void begin(Rig *rig, uint64_t keeps)
{
    arm(rig, keeps);
    g_assert_cmpuint(take_moment(rig), ==, 0);
}

/*
 * As the guest does: who writes to a page that is watched waits in the kernel
 * until that was copied.  The thread sanitizer does not see that, and has this
 * function among its suppressions.
 */
static void write_watched(Rig *rig, size_t at, uint8_t value)
{
    rig->region.host[at] = value;
}

static void *writer(void *opaque)
{
    Rig *rig = opaque;
    g_autoptr(GRand) random = g_rand_new();

    for (unsigned i = 0; i < PERIODS && !qatomic_read(&rig->stop); i++) {
        write_watched(rig, g_rand_int_range(random, 0, PAGES * PAGE), 0xee);
        qatomic_inc(&rig->writes);
    }
    return NULL;
}

static void send_all(Rig *rig)
{
    RamSendResult result;

    do {
        write_watch_send_kept(&rig->watch, &rig->main);
        result = postcopy_sender_run(&rig->sender, &rig->main, false);
        g_assert_cmpint(result, !=, RAM_SEND_ERROR);
        g_assert_true(write_watch_check(&rig->watch, &error_abort));
    } while (result != RAM_SEND_ALL);
    write_watch_send_kept(&rig->watch, &rig->main);
    g_assert_cmpint(ram_sink_end(&rig->sink.sink), ==, 0);
}

static bool no_resize(void *opaque, RamRegion *r, uint64_t bytes, Error **errp)
{
    g_assert_not_reached();
}

/* What was saved, loaded into other memory */
static void expect_moment(Rig *rig)
{
    static const RamLoadOps load_ops = { .resize = no_resize };
    RamRegion there = rig->region;
    RamRegions regions = { &there, 1 };
    RamLoader loader = { .regions = &regions, .ops = &load_ops,
                         .page_bits = rig->region.page_bits };
    QEMUFile *in = test_input(rig->buffer->data, rig->buffer->usage);

    there.read_only = false;
    there.host = map_memory(-1);
    there.area.host = there.host;
    memset(there.host, 0x77, PAGES * PAGE);
    g_assert_true(ram_load_records(in, &loader, &error_abort));
    g_assert_cmpmem(there.host, PAGES * PAGE, rig->moment, PAGES * PAGE);
    munmap(there.host, PAGES * PAGE);
    qemu_fclose(in);
}

static uint64_t kept_now(Rig *rig)
{
    QEMU_LOCK_GUARD(&rig->watch.kept.lock);
    return rig->watch.kept.bytes / PAGE;
}

/* @wait: until so many pages were copied, before any is sent */
static void run_writers(Rig *rig, uint64_t wait)
{
    GThread *threads[WRITERS];

    for (unsigned i = 0; i < WRITERS; i++) {
        threads[i] = g_thread_new("writer", writer, rig);
    }
    while (kept_now(rig) < wait) {
        g_usleep(1000);
    }
    send_all(rig);
    qatomic_set(&rig->stop, true);
    for (unsigned i = 0; i < WRITERS; i++) {
        g_thread_join(threads[i]);
    }
}

typedef struct Moment {
    bool shared;
    uint64_t keeps, wait;       /* pages */
} Moment;

static void test_moment(gconstpointer opaque)
{
    const Moment *moment = opaque;
    int fd;
    Rig rig;

    if (!available(moment->shared)) {
        return;
    }
    fd = moment->shared ? memfd_create("memory", 0) : -1;
    if (fd >= 0) {
        g_assert_cmpint(ftruncate(fd, PAGES * PAGE), ==, 0);
    }
    rig_init(&rig, fd);
    begin(&rig, moment->keeps);
    run_writers(&rig, moment->wait);
    write_watch_end(&rig.watch);
    g_test_message("%u writes meanwhile, %" PRIu64 " pages copied", rig.writes,
                   rig.watch.kept.made);
    g_assert_cmpuint(rig.watch.kept.made, >=, moment->wait);
    g_assert_cmpuint(rig.watch.kept.bytes, ==, 0);
    g_assert_null(kept_pages_take(&rig.watch.kept));
    expect_moment(&rig);
    rig_destroy(&rig);
    if (fd >= 0) {
        close(fd);
    }
}

static void *interrupted_writer(void *opaque)
{
    Rig *rig = opaque;
    g_autoptr(GRand) random = g_rand_new();
    size_t at;

    while (!qatomic_read(&rig->stop)) {
        QEMU_LOCK_GUARD(&rig->running);
        at = g_rand_int_range(random, 0, PAGES * PAGE);
        write_watched(rig, at, rig->region.host[at] + 1);
        qatomic_inc(&rig->writes);
    }
    return NULL;
}

static void wait_for_writes(Rig *rig, unsigned more)
{
    unsigned until = qatomic_read(&rig->writes) + more;

    while (qatomic_read(&rig->writes) < until) {
        g_usleep(100);
    }
}

/*
 * Memory is protected while a thread writes to it.  What was written before the
 * thread is stopped belongs to the moment, what is written later does not.
 */
static void test_armed(void)
{
    uint64_t again;
    GThread *thread;
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    thread = g_thread_new("writer", interrupted_writer, &rig);
    wait_for_writes(&rig, 100);
    arm(&rig, PAGES);
    wait_for_writes(&rig, 500);
    qemu_mutex_lock(&rig.running);
    g_assert_cmpuint(rig.watch.kept.made, ==, 0);
    again = take_moment(&rig);
    qemu_mutex_unlock(&rig.running);
    g_assert_cmpuint(again + rig.watch.kept.made, >, 0);
    wait_for_writes(&rig, 500);
    g_assert_cmpuint(kept_now(&rig), >, 0);
    send_all(&rig);
    qatomic_set(&rig.stop, true);
    g_thread_join(thread);
    write_watch_end(&rig.watch);
    g_test_message("%u writes, %" PRIu64 " pages protected again, %" PRIu64
                   " copied", rig.writes, again, rig.watch.kept.made);
    expect_moment(&rig);
    rig_destroy(&rig);
}

/* A page that nobody knew of before is saved as it is at the moment. */
static void test_added(void)
{
    const unsigned page = 7;
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    dirty_map_drop(rig.region.map, page, 1);
    arm(&rig, PAGES);
    write_watched(&rig, page * PAGE, 0x11);
    g_assert_cmpuint(rig.watch.kept.made, ==, 0);
    write_watch_add(&rig.watch, &rig.region, page, 1);
    g_assert_cmpuint(take_moment(&rig), ==, 1);
    write_watched(&rig, page * PAGE, 0x22);
    g_assert_cmpuint(kept_now(&rig), ==, 1);
    send_all(&rig);
    write_watch_end(&rig.watch);
    expect_moment(&rig);
    rig_destroy(&rig);
}

static uint64_t faults_of(Rig *rig, const unsigned *pages, unsigned count)
{
    uint64_t before = stat64_get(&mig_stats.postcopy_requests);

    for (unsigned i = 0; i < count; i++) {
        write_watched(rig, pages[i] * PAGE, i + 1);
    }
    return stat64_get(&mig_stats.postcopy_requests) - before;
}

/*
 * Pages that were written to shortly before the moment are copied at once:
 * nobody waits for them afterwards, while there is room for the copies.
 */
static void test_recent(gconstpointer opaque)
{
    const unsigned pages[] = { 3, 5, 1000 }, others[] = { 4, 1001 };
    uint64_t room = MIN(GPOINTER_TO_UINT(opaque), ARRAY_SIZE(pages));
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    arm(&rig, GPOINTER_TO_UINT(opaque));
    g_assert_cmpuint(faults_of(&rig, pages, ARRAY_SIZE(pages)), ==, 0);
    g_assert_cmpuint(take_moment(&rig), ==, ARRAY_SIZE(pages) - room);
    g_assert_cmpuint(rig.watch.kept.made, ==, room);
    g_assert_cmpuint(faults_of(&rig, pages, room), ==, 0);
    if (room == ARRAY_SIZE(pages)) {
        g_assert_cmpuint(faults_of(&rig, others, ARRAY_SIZE(others)), ==,
                         ARRAY_SIZE(others));
    }
    send_all(&rig);
    write_watch_end(&rig.watch);
    expect_moment(&rig);
    rig_destroy(&rig);
}

/* The second page of the host in one of the target is released with it. */
static void test_larger_pages(void)
{
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init_with(&rig, -1, 13);
    arm(&rig, PAGES);
    write_watched(&rig, 15 * PAGE, 0x11);
    g_assert_cmpuint(take_moment(&rig), ==, 0);
    write_watched(&rig, 15 * PAGE, 0x22);
    write_watched(&rig, 19 * PAGE, 0x33);
    g_assert_cmpuint(kept_now(&rig), ==, 4);
    send_all(&rig);
    write_watch_end(&rig.watch);
    expect_moment(&rig);
    rig_destroy(&rig);
}

/* Cancelled while memory is protected: the next piece is not. */
static void test_cancelled(void)
{
    Error *err = NULL;
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    dirty_map_drop(rig.region.map, 7, 1);
    watch(&rig, PAGES);
    pieces_left = 1;
    g_assert_false(write_watch_arm(&rig.watch, &err));
    pieces_left = -1;
    error_free_or_abort(&err);
    write_watched(&rig, 8 * PAGE, 0x11);
    write_watch_end(&rig.watch);
    g_assert_cmpuint(rig.watch.recent_count, ==, 0);
    write_watched(&rig, 0, 0x22);
    rig_destroy(&rig);
}

/* It ends before the moment came: whoever writes goes on. */
static void test_never(void)
{
    GThread *thread;
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    arm(&rig, 0);
    thread = g_thread_new("writer", writer, &rig);
    wait_for_writes(&rig, 100);
    write_watch_end(&rig.watch);
    g_thread_join(thread);
    g_assert_cmpuint(rig.writes, ==, PERIODS);
    g_assert_false(postcopy_sender_asked(&rig.sender));
    rig_destroy(&rig);
}

/* Whoever waits for a page that is never saved goes on when it ends. */
static void test_given_up(void)
{
    GThread *thread;
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    begin(&rig, 0);
    thread = g_thread_new("writer", writer, &rig);
    while (!postcopy_sender_asked(&rig.sender)) {
        g_usleep(1000);
    }
    g_usleep(20 * 1000);
    g_assert_cmpuint(qatomic_read(&rig.writes), ==, 0);
    postcopy_sender_close(&rig.sender);
    write_watch_end(&rig.watch);
    write_watch_end(&rig.watch);
    g_thread_join(thread);
    g_assert_cmpuint(qatomic_read(&rig.writes), ==, PERIODS);
    rig_destroy(&rig);
}

/* Nothing is sent, and who writes does not wait while there is room. */
static void test_kept(void)
{
    GThread *thread;
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    begin(&rig, PAGES);
    thread = g_thread_new("writer", writer, &rig);
    g_thread_join(thread);
    g_assert_cmpuint(rig.writes, ==, PERIODS);
    g_assert_cmpuint(kept_now(&rig), >, PAGES / 2);
    g_assert_false(postcopy_sender_asked(&rig.sender));
    write_watch_end(&rig.watch);
    rig_destroy(&rig);
}

/* What cannot be written to needs no protection. */
static void test_read_only(void)
{
    Rig rig;

    if (!available(false)) {
        return;
    }
    rig_init(&rig, -1);
    g_assert_cmpint(mprotect(rig.region.host, PAGES * PAGE, PROT_READ), ==, 0);
    rig.region.read_only = true;
    begin(&rig, PAGES);
    send_all(&rig);
    write_watch_end(&rig.watch);
    expect_moment(&rig);
    rig_destroy(&rig);
}

/* Nothing is kept, everything, or so little that there is no room left. */
static const Moment moments[] = {
    { .shared = false, .keeps = 0 },
    { .shared = false, .keeps = PAGES, .wait = PAGES / 4 },
    { .shared = false, .keeps = 16, .wait = 16 },
    { .shared = true, .keeps = PAGES, .wait = PAGES / 4 },
    { .shared = true, .keeps = 16, .wait = 16 },
};

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    for (unsigned i = 0; i < ARRAY_SIZE(moments); i++) {
        g_autofree char *name = g_strdup_printf(
            "/write-watch/moment/%s/%u", moments[i].shared ? "shared" : "own",
            (unsigned)moments[i].keeps);

        g_test_add_data_func(name, &moments[i], test_moment);
    }
    g_test_add_func("/write-watch/armed", test_armed);
    g_test_add_data_func("/write-watch/recent/room", GUINT_TO_POINTER(PAGES),
                         test_recent);
    g_test_add_data_func("/write-watch/recent/little-room", GUINT_TO_POINTER(2),
                         test_recent);
    g_test_add_data_func("/write-watch/recent/no-room", GUINT_TO_POINTER(0),
                         test_recent);
    g_test_add_func("/write-watch/added", test_added);
    g_test_add_func("/write-watch/larger-pages", test_larger_pages);
    g_test_add_func("/write-watch/cancelled", test_cancelled);
    g_test_add_func("/write-watch/never", test_never);
    g_test_add_func("/write-watch/given-up", test_given_up);
    g_test_add_func("/write-watch/kept", test_kept);
    g_test_add_func("/write-watch/read-only", test_read_only);
    return g_test_run();
}
