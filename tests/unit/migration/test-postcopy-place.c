/*
 * Unit tests of faults and of putting pages in place, on real memory that a
 * userfaultfd watches
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The test is the source: it answers the requests that the fault thread makes
 * for threads which touch memory.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/memfd.h"
#include "qemu/thread.h"
#include "io/channel-buffer.h"
#include "migration/postcopy/fault-thread.h"
#include "migration/postcopy/place.h"
#include "setup.h"

#include <sys/mman.h>

#define PAGES 256u              /* of the host, in each of the regions */
#define REQUESTS_MAX 1024
#define PATIENCE_MS 20000

typedef enum Kind { ANON, SHARED, CONTINUED } Kind;

typedef struct Request {
    RamRegion *region;
    uint64_t start;
    uint32_t len;
} Request;

typedef struct Bench {
    RamRegion region;
    RamRegions regions;
    PlaceMemory memory;
    Placer placer, other;
    Faults faults;
    FaultThread thread;
    int fd;
    QemuMutex lock;
    Request requests[REQUESTS_MAX];     /* under the lock */
    unsigned count;
    unsigned placed;                    /* calls of memory.placed */
} Bench;

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static bool note_request(void *opaque, const RamRegion *region, uint64_t start,
                         uint32_t len)
{
    Bench *b = opaque;

    QEMU_LOCK_GUARD(&b->lock);
    g_assert_cmpuint(b->count, <, REQUESTS_MAX);
    b->requests[b->count++] = (Request) { (RamRegion *)region, start, len };
    return true;
}

static int any_vcpu(void *opaque, uint32_t thread)
{
    return thread ? 0 : -1;
}

static const FaultsOps ops = { .request = note_request, .vcpu = any_vcpu };

static unsigned requests(Bench *b)
{
    QEMU_LOCK_GUARD(&b->lock);
    return b->count;
}

static void count_placed(void *opaque, const RamRegion *region, uint64_t start,
                         uint64_t len)
{
    Bench *b = opaque;

    qatomic_inc(&b->placed);
}

static bool void_page(const RamRegion *region, uint64_t start)
{
    return start == 7 * page_size();
}

static bool available(void)
{
    UfdSupport support;

    ufd_probe(&support);
    if (support.error) {
        g_test_skip("userfaultfd cannot be used here");
    } else if (!support.minor_shmem || !support.shmem) {
        g_test_skip("this kernel's userfaultfd is too old");
        return false;
    }
    return !support.error;
}

/* Memory whose target pages are 1/2^@shift of the host's */
static void map_region(Bench *b, Kind kind, unsigned shift)
{
    size_t size = PAGES * page_size();
    int flags = kind == ANON ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

    b->fd = kind == ANON ? -1 : qemu_memfd_create("test", size, false, 0, 0,
                                                  &error_abort);
    b->region = (RamRegion) {
        .name = (char *)"pc.ram",
        .page_bits = ctz64(page_size()) - shift,
        .pages = PAGES << shift,
        .max_pages = PAGES << shift,
        .host_page_size = page_size(),
        .host = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, b->fd, 0),
    };
    g_assert(b->region.host != MAP_FAILED);
    b->regions = (RamRegions) { &b->region, 1 };
}

static void watch(Bench *b, Kind kind, unsigned shift)
{
    size_t size = PAGES * page_size();
    PlaceBlock *block = g_new0(PlaceBlock, 1);

    g_assert(received_init(&block->map, b->region.max_pages, shift));
    if (kind == CONTINUED) {
        block->alias = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                            b->fd, 0);
        g_assert(block->alias != MAP_FAILED);
    }
    b->memory = (PlaceMemory) {
        .regions = &b->regions,
        .blocks = block,
        .largest_page = page_size(),
        .zeros = mmap(NULL, page_size(), PROT_READ,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        .ufd = ufd_open(&error_abort),
        .faults = &b->faults,
        .placed = count_placed,
        .opaque = b,
    };
    ufd_register(b->memory.ufd, b->region.host, size, block->alias,
                 &block->ways, &error_abort);
    block->bytes = size;
}

static void set_up(Bench *b, Kind kind, unsigned shift)
{
    Blocktime vcpus;

    *b = (Bench) {};
    qemu_mutex_init(&b->lock);
    map_region(b, kind, shift);
    watch(b, kind, shift);
    blocktime_init(&vcpus, 1, 1, 1);
    faults_init(&b->faults, &ops, b, vcpus);
    faults_resume(&b->faults);
    g_assert(placer_init(&b->placer, &b->memory, &error_abort));
    g_assert(placer_init(&b->other, &b->memory, &error_abort));
    b->thread = (FaultThread) {
        .memory = &b->memory, .never_comes = void_page,
    };
    g_assert(fault_thread_start(&b->thread, &error_abort));
}

static void tear_down(Bench *b)
{
    size_t size = PAGES * page_size();
    PlaceBlock *block = b->memory.blocks;

    fault_thread_stop(&b->thread);
    ufd_unregister(b->memory.ufd, b->region.host, size, &error_abort);
    close(b->memory.ufd);
    placer_destroy(&b->placer);
    placer_destroy(&b->other);
    faults_destroy(&b->faults);
    received_destroy(&block->map);
    if (block->alias) {
        munmap(block->alias, size);
    }
    munmap(b->memory.zeros, page_size());
    munmap(b->region.host, size);
    if (b->fd >= 0) {
        close(b->fd);
    }
    g_free(block);
    qemu_mutex_destroy(&b->lock);
}

/*
 * Content: each target page has bytes that tell its number.
 */

static uint8_t byte_of(uint64_t page, size_t at)
{
    return 1 + (page * 7 + at) % 251;
}

static QEMUFile *content(Bench *b, uint64_t page, uint64_t pages, size_t cut)
{
    size_t size = ram_region_page_size(&b->region);
    g_autofree uint8_t *bytes = g_malloc(pages * size);

    for (size_t i = 0; i < pages * size; i++) {
        bytes[i] = byte_of(page + i / size, i % size);
    }
    return test_input(bytes, pages * size - cut);
}

static bool push(Bench *b, Placer *placer, uint64_t page, uint64_t pages,
                 Error **errp)
{
    QEMUFile *f = content(b, page, pages, 0);
    bool ok = placer_data(placer, f, &b->region, page, pages, errp);

    qemu_fclose(f);
    return ok;
}

static void check_page(Bench *b, uint64_t page)
{
    size_t size = ram_region_page_size(&b->region);
    const uint8_t *at = ram_region_page(&b->region, page);

    for (size_t i = 0; i < size; i++) {
        g_assert_cmpuint(at[i], ==, byte_of(page, i));
    }
}

static bool there(Bench *b, uint64_t page)
{
    return received_test(&b->memory.blocks->map, page);
}

/* It is noted a moment after the guest can see it. */
static void wait_until_there(Bench *b, uint64_t page)
{
    for (int ms = 0; !there(b, page); ms++) {
        g_assert_cmpint(ms, <, PATIENCE_MS);
        g_usleep(1000);
    }
}

/*
 * Threads that touch
 */

typedef struct Toucher {
    QemuThread thread;
    const uint8_t *at;
    uint8_t saw;
    bool done;                  /* atomic */
} Toucher;

static void *touch(void *opaque)
{
    Toucher *t = opaque;

    t->saw = qatomic_read(t->at);
    qatomic_set(&t->done, true);
    return NULL;
}

static void start(Toucher *t, Bench *b, uint64_t page)
{
    *t = (Toucher) { .at = ram_region_page(&b->region, page) };
    qemu_thread_create(&t->thread, "touch", touch, t, QEMU_THREAD_JOINABLE);
}

static void wait_for_requests(Bench *b, unsigned count)
{
    for (int ms = 0; requests(b) < count; ms++) {
        g_assert_cmpint(ms, <, PATIENCE_MS);
        g_usleep(1000);
    }
}

static void wait_for_waiters(Bench *b, unsigned count)
{
    for (int ms = 0; ; ms++) {
        WITH_QEMU_LOCK_GUARD(&b->faults.lock) {
            if (b->faults.waiters->len >= count) {
                return;
            }
        }
        g_assert_cmpint(ms, <, PATIENCE_MS);
        g_usleep(1000);
    }
}

/*
 * Tests: pages of the target's size
 */

static void test_run(const void *kind)
{
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 0);
    push(&b, &b.placer, 10, 100, &error_abort);
    for (unsigned i = 10; i < 110; i++) {
        check_page(&b, i);
        g_assert(there(&b, i));
    }
    g_assert(!there(&b, 9) && !there(&b, 110));
    g_assert_cmpuint(requests(&b), ==, 0);
    tear_down(&b);
}

static void test_fault(const void *kind)
{
    FaultsView view;
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 0);
    start(&t, &b, 33);
    wait_for_requests(&b, 1);
    g_assert(b.requests[0].region == &b.region);
    g_assert_cmpuint(b.requests[0].start, ==, 33 * page_size());
    g_assert_cmpuint(b.requests[0].len, ==, page_size());
    g_assert(!qatomic_read(&t.done));
    faults_look(&b.faults, &view);
    g_assert_cmpuint(view.waiting, ==, 1);

    push(&b, &b.placer, 32, 4, &error_abort);
    qemu_thread_join(&t.thread);
    g_assert_cmpuint(t.saw, ==, byte_of(33, 0));
    faults_look(&b.faults, &view);
    g_assert_cmpuint(view.waiting, ==, 0);
    g_assert_cmpuint(view.requests, ==, 1);
    g_assert_cmpuint(view.latency.count, ==, 1);
    tear_down(&b);
}

/* However many wait for it, and wherever in the page */
static void test_asked_once(void)
{
    FaultsView view;
    Toucher t[4];
    FaultsBlocktime time;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, ANON, 2);
    for (int i = 0; i < 4; i++) {
        start(&t[i], &b, 20 + i);
    }
    wait_for_waiters(&b, 4);
    g_usleep(20000);
    g_assert_cmpuint(requests(&b), ==, 1);
    g_assert_cmpuint(b.requests[0].start, ==, 5 * page_size());
    push(&b, &b.placer, 20, 4, &error_abort);
    for (int i = 0; i < 4; i++) {
        qemu_thread_join(&t[i].thread);
        g_assert_cmpuint(t[i].saw, ==, byte_of(20 + i, 0));
    }
    faults_look(&b.faults, &view);
    g_assert_cmpuint(view.requests, ==, 1);
    g_assert_cmpuint(view.latency.count, ==, 4);
    g_assert_cmpuint(view.latency.max_us, >=, 20000);
    faults_blocktime(&b.faults, &time);
    g_assert_cmpuint(time.count, ==, 1);
    g_assert_cmpuint(time.all_ms, >=, 20);
    g_assert_cmpuint(time.vcpus[0].blocked_ms, >=, 20);
    g_assert_cmpuint(time.vcpus[0].latency_ns, >=, 20 * SCALE_MS);
    g_free(time.vcpus);
    tear_down(&b);
}

/* What the guest has changed meanwhile must not be changed back. */
static void test_twice(const void *kind)
{
    QEMUFile *f;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 0);
    push(&b, &b.placer, 5, 1, &error_abort);
    *ram_region_page(&b.region, 5) = 0xee;
    f = content(&b, 4, 3, 0);
    g_assert(placer_data(&b.other, f, &b.region, 4, 3, &error_abort));
    g_assert(placer_zero(&b.other, &b.region, 5, 1, &error_abort));
    g_assert_cmpuint(*ram_region_page(&b.region, 5), ==, 0xee);
    check_page(&b, 4);
    check_page(&b, 6);
    qemu_fclose(f);
    tear_down(&b);
}

static void test_zeros(const void *kind)
{
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 0);
    start(&t, &b, 40);
    wait_for_requests(&b, 1);
    g_assert(placer_zero(&b.placer, &b.region, 20, 100, &error_abort));
    qemu_thread_join(&t.thread);
    g_assert_cmpuint(t.saw, ==, 0);
    for (unsigned i = 20; i < 120; i++) {
        g_assert(there(&b, i));
        g_assert(buffer_is_zero(ram_region_page(&b.region, i), page_size()));
    }
    tear_down(&b);
}

static void test_never_comes(void)
{
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, ANON, 0);
    start(&t, &b, 7);
    qemu_thread_join(&t.thread);
    g_assert_cmpuint(t.saw, ==, 0);
    wait_until_there(&b, 7);
    g_assert_cmpuint(requests(&b), ==, 0);
    tear_down(&b);
}

/* Zeros that came before the guest ran: nothing was ever written there. */
static void test_hole(const void *kind)
{
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 0);
    received_set(&b.memory.blocks->map, 50, 10);
    start(&t, &b, 55);
    qemu_thread_join(&t.thread);
    g_assert_cmpuint(t.saw, ==, 0);
    g_assert_cmpuint(requests(&b), ==, 0);
    tear_down(&b);
}

static void test_outside(void)
{
    Error *err = NULL;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, ANON, 0);
    b.memory.blocks->bytes = 10 * page_size();
    g_assert(!push(&b, &b.placer, 9, 2, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "Nobody waits"));
    error_free_or_abort(&err);
    g_assert(!placer_zero(&b.placer, &b.region, 10, 1, &err));
    error_free_or_abort(&err);
    push(&b, &b.placer, 9, 1, &error_abort);
    tear_down(&b);
}

static void test_cut(const void *kind)
{
    size_t cut = page_size() / 2;
    Error *err = NULL;
    QEMUFile *f;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 0);
    f = content(&b, 0, 64, cut);
    g_assert(!placer_data(&b.placer, f, &b.region, 0, 64, &err));
    error_free_or_abort(&err);
    g_assert(there(&b, 0));
    g_assert(!there(&b, 63));
    check_page(&b, 0);
    placer_reset(&b.placer);
    push(&b, &b.placer, 0, 64, &error_abort);
    check_page(&b, 63);
    qemu_fclose(f);
    tear_down(&b);
}

/*
 * Larger pages
 */

static void test_gather(const void *kind)
{
    static const unsigned order[] = { 2, 0, 3, 1 };
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 2);
    start(&t, &b, 42);
    wait_for_requests(&b, 1);
    for (int i = 0; i < 4; i++) {
        g_assert(!there(&b, 40));
        push(&b, &b.placer, 40 + order[i], 1, &error_abort);
        if (i == 1) {
            /* No news of what is there */
            push(&b, &b.placer, 40 + order[i], 1, &error_abort);
        }
        if (i < 3) {
            g_usleep(5000);
            g_assert(!qatomic_read(&t.done));
        }
    }
    qemu_thread_join(&t.thread);
    g_assert_cmpuint(t.saw, ==, byte_of(42, 0));
    for (int i = 40; i < 44; i++) {
        check_page(&b, i);
    }
    tear_down(&b);
}

/* A page half of zeros, and pages around it that are all zeros */
static void test_gather_zeros(const void *kind)
{
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 2);
    g_assert(placer_zero(&b.placer, &b.region, 0, 6, &error_abort));
    g_assert(there(&b, 0) && !there(&b, 4));
    push(&b, &b.placer, 6, 1, &error_abort);
    g_assert(placer_zero(&b.placer, &b.region, 7, 5, &error_abort));
    for (int i = 0; i < 12; i++) {
        g_assert(there(&b, i));
        if (i == 6) {
            check_page(&b, i);
        } else {
            g_assert(buffer_is_zero(ram_region_page(&b.region, i),
                                    ram_region_page_size(&b.region)));
        }
    }
    tear_down(&b);
}

static void test_gather_mixed(const void *kind)
{
    Error *err = NULL;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 2);
    push(&b, &b.placer, 4, 2, &error_abort);
    g_assert(!push(&b, &b.placer, 8, 1, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "has not sent all"));
    error_free_or_abort(&err);
    /* Another channel may well have another one under way. */
    push(&b, &b.other, 8, 4, &error_abort);
    /* After a break all of it is sent again. */
    placer_reset(&b.placer);
    push(&b, &b.placer, 12, 4, &error_abort);
    push(&b, &b.placer, 4, 4, &error_abort);
    for (int i = 4; i < 16; i++) {
        check_page(&b, i);
    }
    tear_down(&b);
}

/*
 * Pause
 */

static void test_pause(void)
{
    FaultsView view;
    Toucher t[3];
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, ANON, 0);
    start(&t[0], &b, 1);
    wait_for_requests(&b, 1);
    faults_pause(&b.faults);
    start(&t[1], &b, 2);
    start(&t[2], &b, 2);
    wait_for_waiters(&b, 3);
    g_assert_cmpuint(requests(&b), ==, 1);

    /* One that was asked for before, and one that could not be */
    faults_resume(&b.faults);
    g_assert_cmpuint(requests(&b), ==, 3);
    g_assert_cmpuint(b.requests[1].start + b.requests[2].start, ==,
                     3 * page_size());
    push(&b, &b.placer, 0, 4, &error_abort);
    for (int i = 0; i < 3; i++) {
        qemu_thread_join(&t[i].thread);
    }
    g_assert(faults_wait(&b.faults));
    faults_resume(&b.faults);
    g_assert_cmpuint(requests(&b), ==, 3);
    faults_look(&b.faults, &view);
    g_assert_cmpuint(view.latency.count, ==, 3);
    tear_down(&b);
}

static void *give_up_later(void *opaque)
{
    g_usleep(20000);
    faults_give_up(opaque);
    return NULL;
}

static void test_give_up(void)
{
    QemuThread thread;
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, ANON, 0);
    start(&t, &b, 1);
    wait_for_requests(&b, 1);
    qemu_thread_create(&thread, "give-up", give_up_later, &b.faults,
                       QEMU_THREAD_JOINABLE);
    g_assert(!faults_wait(&b.faults));
    qemu_thread_join(&thread);
    faults_pause(&b.faults);
    faults_resume(&b.faults);
    push(&b, &b.placer, 1, 1, &error_abort);
    g_assert(faults_wait(&b.faults));
    qemu_thread_join(&t.thread);
    tear_down(&b);
}

/*
 * An attempt was given up: who waits goes on with zeros, and in the next one
 * the page is asked for anew.
 */

typedef struct Reader {
    QemuThread thread;
    const uint8_t *at;
    uint8_t found;
} Reader;

static void *read_byte(void *opaque)
{
    Reader *reader = opaque;

    reader->found = qatomic_read(reader->at);
    return NULL;
}

static void test_forget(void)
{
    Reader reader = { .found = 0xff };
    FaultsView view;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, ANON, 0);
    reader.at = b.region.host + page_size();
    qemu_thread_create(&reader.thread, "reader", read_byte, &reader,
                       QEMU_THREAD_JOINABLE);
    wait_for_requests(&b, 1);

    faults_pause(&b.faults);
    fault_thread_stop(&b.thread);
    ufd_unregister(b.memory.ufd, b.region.host, PAGES * page_size(),
                   &error_abort);
    qemu_thread_join(&reader.thread);
    g_assert_cmpuint(reader.found, ==, 0);
    faults_forget(&b.faults);
    faults_look(&b.faults, &view);
    g_assert_cmpuint(view.waiting, ==, 0);
    g_assert(faults_wait(&b.faults));

    faults_resume(&b.faults);
    g_assert_cmpuint(requests(&b), ==, 1);
    g_assert(faults_note(&b.faults, &b.region, &b.memory.blocks[0].map, 1, 0));
    g_assert_cmpuint(requests(&b), ==, 2);
    faults_forget(&b.faults);
    tear_down(&b);
}

/* Another process is served as a thread of ours, and is not taken for one. */
static void test_other_process(void)
{
    ReceivedMap *map;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, SHARED, 0);
    map = &b.memory.blocks[0].map;
    g_assert(faults_note(&b.faults, &b.region, map, 1, FAULTS_OTHER_PROCESS));
    g_assert_cmpuint(requests(&b), ==, 1);
    g_assert(!faults_waits(&b.faults, qemu_get_thread_id()));
    g_assert(faults_note(&b.faults, &b.region, map, 2, 0));
    g_assert(faults_waits(&b.faults, qemu_get_thread_id()));
    push(&b, &b.placer, 1, 2, &error_abort);
    g_assert(faults_wait(&b.faults));
    tear_down(&b);
}

/* Who looks without a lock hears that somebody waits, and once of each end. */
static void test_settled(void)
{
    ReceivedMap *map;
    unsigned seen = 0;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, ANON, 0);
    map = &b.memory.blocks[0].map;
    g_assert(!faults_some(&b.faults));
    g_assert(faults_note(&b.faults, &b.region, map, 1, 0));
    g_assert(faults_note(&b.faults, &b.region, map, 2, 0));
    g_assert(faults_some(&b.faults));
    g_assert(!faults_settled(&b.faults, &seen));
    push(&b, &b.placer, 1, 1, &error_abort);
    g_assert(faults_some(&b.faults));
    g_assert(faults_settled(&b.faults, &seen));
    g_assert(!faults_settled(&b.faults, &seen));
    push(&b, &b.placer, 2, 1, &error_abort);
    g_assert(!faults_some(&b.faults));
    g_assert(faults_settled(&b.faults, &seen));
    g_assert(!faults_settled(&b.faults, &seen));
    tear_down(&b);
}

/*
 * All at once: two channels, some threads that touch everything
 */

static void *touch_all(void *opaque)
{
    Bench *b = opaque;

    for (uint64_t i = 0; i < b->region.pages; i++) {
        check_page(b, (i * 97 + 13) % b->region.pages);
    }
    return NULL;
}

/* Pages that are asked for go on their own channel; who is first, sends. */
static bool claim(unsigned long *sent, uint64_t page)
{
    return !(qatomic_fetch_or(&sent[BIT_WORD(page)], BIT_MASK(page)) &
             BIT_MASK(page));
}

typedef struct Urgent {
    Bench *b;
    unsigned long *sent;        /* NULL: whatever the other one sends */
    bool quit;                  /* atomic */
} Urgent;

static void *send_urgent(void *opaque)
{
    Urgent *u = opaque;
    unsigned next = 0;

    while (!qatomic_read(&u->quit)) {
        if (next == requests(u->b)) {
            g_usleep(100);
            continue;
        }
        if (!u->sent ||
            claim(u->sent, u->b->requests[next].start / page_size())) {
            push(u->b, &u->b->other,
                 u->b->requests[next].start >> u->b->region.page_bits,
                 page_size() >> u->b->region.page_bits, &error_abort);
        }
        next++;
    }
    return NULL;
}

static void test_all_at_once(const void *kind)
{
    g_autofree unsigned long *sent = bitmap_new(PAGES);
    QemuThread touchers[4], sender;
    Urgent urgent;
    FaultsView view;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, kind == (void *)CONTINUED ? 2 : 0);
    b.thread.never_comes = NULL;
    urgent = (Urgent) { .b = &b, .sent = sent };
    for (int i = 0; i < 4; i++) {
        qemu_thread_create(&touchers[i], "touch", touch_all, &b,
                           QEMU_THREAD_JOINABLE);
    }
    qemu_thread_create(&sender, "urgent", send_urgent, &urgent,
                       QEMU_THREAD_JOINABLE);
    for (uint64_t page = 0; page < PAGES; page++) {
        unsigned shift = b.memory.blocks->map.host_shift;

        if (claim(sent, page)) {
            push(&b, &b.placer, page << shift, 1 << shift, &error_abort);
        }
        g_usleep(50);
    }
    for (int i = 0; i < 4; i++) {
        qemu_thread_join(&touchers[i]);
    }
    g_assert(faults_wait(&b.faults));
    qatomic_set(&urgent.quit, true);
    qemu_thread_join(&sender);
    faults_look(&b.faults, &view);
    g_assert_cmpuint(view.waiting, ==, 0);
    g_assert_cmpuint(view.requests, ==, requests(&b));
    g_assert_cmpuint(received_count(&b.memory.blocks->map, b.region.pages), ==,
                     b.region.pages);
    tear_down(&b);
}

/*
 * Pages that are under way come on both channels.  Whichever is later must not
 * undo what the guest has written meanwhile.
 */

#define WRITERS 4

typedef struct Writer {
    Bench *b;
    unsigned number;
} Writer;

static void *change_all(void *opaque)
{
    Writer *w = opaque;

    for (uint64_t page = w->number; page < PAGES; page += WRITERS) {
        check_page(w->b, page);
        *(uint8_t *)ram_region_page(&w->b->region, page) ^= 0xff;
    }
    return NULL;
}

static void test_both_channels(const void *kind)
{
    QemuThread threads[WRITERS], sender;
    Writer writers[WRITERS];
    Urgent urgent;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (Kind)(uintptr_t)kind, 0);
    b.thread.never_comes = NULL;
    urgent = (Urgent) { .b = &b };
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (Writer) { &b, i };
        qemu_thread_create(&threads[i], "write", change_all, &writers[i],
                           QEMU_THREAD_JOINABLE);
    }
    qemu_thread_create(&sender, "urgent", send_urgent, &urgent,
                       QEMU_THREAD_JOINABLE);
    b.placer.gives_way = b.placer.gives_way_early = true;
    for (uint64_t page = 0; page < PAGES; page += 16) {
        push(&b, &b.placer, page, 16, &error_abort);
        g_usleep(200);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        qemu_thread_join(&threads[i]);
    }
    qatomic_set(&urgent.quit, true);
    qemu_thread_join(&sender);
    for (uint64_t page = 0; page < PAGES; page++) {
        uint8_t *at = ram_region_page(&b.region, page);

        g_assert_cmpuint(*at, ==, byte_of(page, 0) ^ 0xff);
        *at ^= 0xff;
        check_page(&b, page);
    }
    tear_down(&b);
}

static void add(const char *name, void (*fn)(const void *), bool continued)
{
    static const char *const kinds[] = { "anon", "shared", "continued" };

    for (uintptr_t kind = 0; kind < (continued ? 3 : 2); kind++) {
        g_autofree char *path = g_strdup_printf("/postcopy/%s/%s", name,
                                                kinds[kind]);

        g_test_add_data_func(path, (void *)kind, fn);
    }
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    add("place/run", test_run, true);
    add("place/fault", test_fault, true);
    add("place/twice", test_twice, true);
    add("place/zeros", test_zeros, true);
    add("place/cut", test_cut, true);
    add("place/hole", test_hole, true);
    g_test_add_func("/postcopy/place/outside", test_outside);
    add("gather/order", test_gather, true);
    add("gather/zeros", test_gather_zeros, true);
    add("gather/mixed", test_gather_mixed, true);
    g_test_add_func("/postcopy/faults/asked-once", test_asked_once);
    g_test_add_func("/postcopy/faults/never-comes", test_never_comes);
    g_test_add_func("/postcopy/faults/pause", test_pause);
    g_test_add_func("/postcopy/faults/give-up", test_give_up);
    g_test_add_func("/postcopy/faults/forget", test_forget);
    g_test_add_func("/postcopy/faults/other-process", test_other_process);
    g_test_add_func("/postcopy/faults/settled", test_settled);
    add("all-at-once", test_all_at_once, true);
    add("both-channels", test_both_channels, false);
    return g_test_run();
}
