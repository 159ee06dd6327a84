/*
 * Unit tests of pages from their places in a file, on real memory that a
 * userfaultfd watches
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A file is written to, memory is watched as by postcopy, and threads touch it.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/thread.h"
#include "io/channel-file.h"
#include "migration/postcopy/fault-thread.h"
#include "migration/postcopy/file-pages.h"
#include "setup.h"

#include <sys/mman.h>

#define HOST_PAGES 1024u
#define READERS 3
#define PAGES_AT (1u << 20)
#define PATIENCE_MS 20000
#define A_SECOND 1000000

typedef struct Bench {
    RamRegion region;
    RamRegions regions;
    PlaceBlock block;
    PlaceMemory memory;
    Faults faults;
    FaultThread thread;
    RamPlace place;
    unsigned long *present;     /* as in the file */
    char *path;
    int fd;
    bool watched;
} Bench;

static unsigned released;       /* atomic */
static uint64_t rate;           /* atomic */
static Bench *bench;

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static int no_vcpu(void *opaque, uint32_t thread)
{
    return -1;
}

static const FaultsOps requests = {
    .request = file_pages_request, .vcpu = no_vcpu,
};

static void unwatch(Bench *b)
{
    if (b->watched) {
        fault_thread_stop(&b->thread);
        ufd_unregister(b->memory.ufd, b->region.host, HOST_PAGES * page_size(),
                       &error_abort);
        close(b->memory.ufd);
        b->watched = false;
    }
}

static void note_release(void)
{
    qatomic_inc(&released);
    unwatch(bench);
}

static uint64_t rate_now(void)
{
    return qatomic_read(&rate);
}

static const FilePagesOps test_ops = {
    .release = note_release, .rate = rate_now,
};

static bool available(void)
{
    UfdSupport support;

    ufd_probe(&support);
    if (support.error) {
        g_test_skip("userfaultfd cannot be used here");
    }
    return !support.error;
}

/* Each byte tells of which target page it is, and is not zero. */
static uint8_t byte_of(uint64_t page)
{
    return 1 + page % 251;
}

static void write_page(Bench *b, uint64_t page)
{
    size_t size = ram_region_page_size(&b->region);
    g_autofree uint8_t *bytes = g_malloc(size);

    memset(bytes, byte_of(page), size);
    g_assert_cmpint(pwrite(b->fd, bytes, size,
                           b->place.pages_at + page * size), ==, size);
    set_bit(page, b->present);
}

/* The target's pages are 1/2^@shift of the host's. */
static void set_up(Bench *b, unsigned shift)
{
    uint64_t pages = HOST_PAGES << shift;

    *b = (Bench) {};
    bench = b;
    released = 0;
    rate = 0;
    b->fd = g_file_open_tmp("file-pages-XXXXXX", &b->path, NULL);
    g_assert_cmpint(b->fd, >=, 0);
    b->region = (RamRegion) {
        .name = (char *)"pc.ram", .page_bits = ctz64(page_size()) - shift,
        .pages = pages, .max_pages = pages, .host_page_size = page_size(),
        .host = mmap(NULL, HOST_PAGES * page_size(), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
    };
    g_assert(b->region.host != MAP_FAILED);
    b->regions = (RamRegions) { &b->region, 1 };
    b->place.pages_at = PAGES_AT;
    b->present = bitmap_new(pages);
    b->place.present = bitmap_new(pages);
}

static bool begin(Bench *b, Error **errp)
{
    QIOChannel *files[READERS];

    for (int i = 0; i < READERS; i++) {
        files[i] = QIO_CHANNEL(qio_channel_file_new_path(b->path, O_RDONLY, 0,
                                                         &error_abort));
    }
    return file_pages_begin(files, READERS, errp);
}

static void watch(Bench *b)
{
    size_t size = HOST_PAGES * page_size();
    unsigned shift = ctz64(page_size()) - b->region.page_bits;
    Blocktime vcpus;

    g_assert(received_init(&b->block.map, b->region.max_pages, shift));
    file_pages_mark_zeros(&b->memory);
    b->memory.ufd = ufd_open(&error_abort);
    b->memory.zeros = mmap(NULL, page_size(), PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ufd_register(b->memory.ufd, b->region.host, size, false, &b->block.ways,
                 &error_abort);
    b->block.bytes = size;
    blocktime_init(&vcpus, 0, 0, 0);
    faults_init(&b->faults, &requests, NULL, vcpus);
    b->thread = (FaultThread) { .memory = &b->memory };
    g_assert(fault_thread_start(&b->thread, &error_abort));
    b->watched = true;
}

/* All is as in the file, and memory is watched; nobody reads as yet. */
static bool keep(Bench *b, Error **errp)
{
    b->memory = (PlaceMemory) {
        .regions = &b->regions, .blocks = &b->block,
        .largest_page = page_size(), .ufd = -1, .faults = &b->faults,
    };
    bitmap_copy(b->place.present, b->present, b->region.pages);
    if (!begin(b, errp) || !file_pages_keep(&b->place, &b->region, errp) ||
        !file_pages_complete(&b->regions, errp)) {
        return false;
    }
    watch(b);
    return true;
}

static void start(Bench *b)
{
    g_assert(file_pages_start(&b->memory, &test_ops, &error_abort));
    faults_resume(&b->faults);
}

static void tear_down(Bench *b)
{
    bool was_watched = b->memory.zeros;

    unwatch(b);
    file_pages_end();
    if (was_watched) {
        faults_destroy(&b->faults);
        received_destroy(&b->block.map);
        munmap(b->memory.zeros, page_size());
    }
    munmap(b->region.host, HOST_PAGES * page_size());
    g_free(b->place.present);
    g_free(b->present);
    close(b->fd);
    unlink(b->path);
    g_free(b->path);
}

/* Pages here and there, so that some pages of the host are of both kinds */
static void write_pattern(Bench *b)
{
    for (uint64_t page = 0; page < b->region.pages; page++) {
        if (page % 7 == 3 || (page > 200 && page < 700) ||
            page == b->region.pages - 1) {
            write_page(b, page);
        }
    }
}

static void check_memory(Bench *b)
{
    size_t size = ram_region_page_size(&b->region);

    for (uint64_t page = 0; page < b->region.pages; page++) {
        const uint8_t *at = ram_region_page(&b->region, page);
        uint8_t byte = test_bit(page, b->present) ? byte_of(page) : 0;

        for (size_t i = 0; i < size; i++) {
            g_assert_cmpuint(at[i], ==, byte);
        }
    }
}

/*
 * Whoever touches
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

static void begin_touch(Toucher *t, Bench *b, uint64_t page)
{
    *t = (Toucher) { .at = ram_region_page(&b->region, page) };
    qemu_thread_create(&t->thread, "touch", touch, t, QEMU_THREAD_JOINABLE);
}

static void wait_for_waiter(Bench *b)
{
    for (int ms = 0; !faults_some(&b->faults); ms++) {
        g_assert_cmpint(ms, <, PATIENCE_MS);
        g_usleep(1000);
    }
}

/*
 * Tests
 */

/* What nobody touches is read as well, and what somebody does is right. */
static void test_all(const void *shift)
{
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, (uintptr_t)shift);
    write_pattern(&b);
    g_assert(keep(&b, &error_abort));
    start(&b);
    g_assert(file_pages_guest(&error_abort));
    check_memory(&b);
    g_assert(file_pages_wait(&error_abort));
    g_assert_cmpuint(received_lacking(&b.block.map, 0, b.region.pages), ==, 0);
    unwatch(&b);
    check_memory(&b);
    g_assert_cmpuint(released, ==, 0);
    tear_down(&b);
}

/* Nothing is read that the file has not, and all is zero. */
static void test_empty(void)
{
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, 0);
    g_assert(keep(&b, &error_abort));
    start(&b);
    g_assert(file_pages_guest(&error_abort));
    g_assert(file_pages_wait(&error_abort));
    check_memory(&b);
    tear_down(&b);
}

/* A page that is requested comes at once, however slowly the rest is read. */
static void test_request(void)
{
    const uint64_t page = 900;
    int64_t since;
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, 0);
    for (uint64_t i = 0; i < HOST_PAGES; i++) {
        write_page(&b, i);
    }
    g_assert(keep(&b, &error_abort));
    rate = 1000;
    start(&b);
    g_assert(file_pages_guest(&error_abort));
    since = g_get_monotonic_time();
    begin_touch(&t, &b, page);
    qemu_thread_join(&t.thread);
    g_assert_cmpint(g_get_monotonic_time() - since, <, 5 * A_SECOND);
    g_assert_cmpuint(t.saw, ==, byte_of(page));
    g_assert_cmpuint(received_lacking(&b.block.map, 0, HOST_PAGES), >,
                     HOST_PAGES / 4);
    file_pages_cancel();
    g_assert_false(file_pages_wait(&error_abort));
    unwatch(&b);
    tear_down(&b);
}

static void expect(Error *err, const char *what)
{
    g_assert_nonnull(err);
    g_test_message("%s", error_get_pretty(err));
    g_assert_nonnull(strstr(error_get_pretty(err), what));
    error_free(err);
}

typedef void Spoil(Bench *b);

static void spoil_cut(Bench *b)
{
    g_assert_cmpint(ftruncate(b->fd, PAGES_AT + 100 * page_size() + 1), ==, 0);
}

static void spoil_write(Bench *b)
{
    g_assert_cmpint(pwrite(b->fd, "x", 1, 0), ==, 1);
}

static void spoil_longer(Bench *b)
{
    struct stat st;

    g_assert_cmpint(fstat(b->fd, &st), ==, 0);
    g_assert_cmpint(ftruncate(b->fd, st.st_size + 1), ==, 0);
}

/* Before the guest may run: who waits goes on, and the guest must not. */
static void test_spoiled_early(const void *spoil)
{
    Error *err = NULL;
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, 0);
    write_pattern(&b);
    g_assert(keep(&b, &error_abort));
    ((Spoil *)spoil)(&b);
    begin_touch(&t, &b, 600);
    wait_for_waiter(&b);
    start(&b);
    qemu_thread_join(&t.thread);
    g_assert_false(file_pages_wait(&err));
    g_assert_cmpuint(released, ==, 1);
    expect(err, "file");
    err = NULL;
    g_assert_false(file_pages_guest(&err));
    expect(err, "pc.ram");
    tear_down(&b);
}

/* Afterwards: who waits goes on waiting, and sees no zeros. */
static void test_spoiled_late(const void *spoil)
{
    Error *err = NULL;
    Toucher t;
    Bench b;

    if (!available()) {
        return;
    }
    set_up(&b, 0);
    for (uint64_t i = 0; i < HOST_PAGES; i++) {
        write_page(&b, i);
    }
    g_assert(keep(&b, &error_abort));
    rate = 1000;
    start(&b);
    g_assert(file_pages_guest(&error_abort));
    ((Spoil *)spoil)(&b);
    begin_touch(&t, &b, 1000);
    g_assert_false(file_pages_wait(&err));
    expect(err, "file");
    g_usleep(A_SECOND / 20);
    g_assert_false(qatomic_read(&t.done));
    g_assert_cmpuint(released, ==, 0);
    unwatch(&b);
    qemu_thread_join(&t.thread);
    tear_down(&b);
}

static void test_cut_before(void)
{
    Error *err = NULL;
    Bench b;

    set_up(&b, 0);
    write_pattern(&b);
    spoil_cut(&b);
    g_assert_false(keep(&b, &err));
    expect(err, "has only");
    tear_down(&b);
}

static void test_block_missing(void)
{
    Error *err = NULL;
    Bench b;

    set_up(&b, 0);
    g_assert(begin(&b, &error_abort));
    g_assert_false(file_pages_complete(&b.regions, &err));
    expect(err, "'pc.ram' is not in the file");
    tear_down(&b);
}

static void test_no_file(void)
{
    QIOChannel *files[2];
    Error *err = NULL;

    for (int i = 0; i < 2; i++) {
        files[i] = QIO_CHANNEL(qio_channel_file_new_path("/dev/zero", O_RDONLY,
                                                         0, &error_abort));
    }
    g_assert_false(file_pages_begin(files, 2, &err));
    expect(err, "regular file");
    /* and nothing is left of it */
    file_pages_end();
}

static void test_other_file(void)
{
    QIOChannel *other;
    Error *err = NULL;
    Bench b;

    set_up(&b, 0);
    g_assert(begin(&b, &error_abort));
    other = QIO_CHANNEL(qio_channel_file_new_path("/proc/self/exe", O_RDONLY,
                                                  0, &error_abort));
    g_assert_false(file_pages_same_file(other, &err));
    expect(err, "changed");
    object_unref(OBJECT(other));
    tear_down(&b);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        Spoil *spoil;
    } ways[] = {
        { "cut", spoil_cut }, { "written", spoil_write },
        { "longer", spoil_longer },
    };

    test_setup(&argc, &argv);
    g_test_add_data_func("/file-pages/all", (void *)0, test_all);
    g_test_add_data_func("/file-pages/all/large", (void *)2, test_all);
    g_test_add_func("/file-pages/empty", test_empty);
    g_test_add_func("/file-pages/request", test_request);
    for (int i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *early = g_strdup_printf("/file-pages/early/%s",
                                                 ways[i].name);
        g_autofree char *late = g_strdup_printf("/file-pages/late/%s",
                                                ways[i].name);

        g_test_add_data_func(early, ways[i].spoil, test_spoiled_early);
        g_test_add_data_func(late, ways[i].spoil, test_spoiled_late);
    }
    g_test_add_func("/file-pages/cut-before", test_cut_before);
    g_test_add_func("/file-pages/block-missing", test_block_missing);
    g_test_add_func("/file-pages/no-file", test_no_file);
    g_test_add_func("/file-pages/other-file", test_other_file);
    return g_test_run();
}
