/*
 * Unit tests of what was ever written to, on real mappings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What holds for all of them: a page that is not told of reads as zero.  That
 * is checked for each mapping in each way.  Besides it is checked that the
 * answer is not simply "everything", where more is known.
 */

#include "qemu/osdep.h"
#include "qemu/memfd.h"
#include "qemu/pagemap-scan.h"
#include "qapi/error.h"
#include "migration/ram/populated.h"
#include "time-limit.h"

#ifdef CONFIG_LINUX

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define TIME_LIMIT 120
#define HUGE (2ul << 20)

static size_t page;

typedef struct Result {
    uint64_t size;
    uint8_t *told;              /* a byte a page */
    uint64_t pages, ranges, last_end;
    bool known;
} Result;

static const PopulatedWay ways[] = {
    POPULATED_BEST, POPULATED_IOCTL, POPULATED_PAGEMAP,
};

static bool have_ioctl;

/* Reading memory that was never touched allocates it, on some kernels. */
static bool reading_allocates;

static void collect(void *opaque, uint64_t offset, uint64_t length)
{
    Result *r = opaque;

    g_assert_cmpuint(length, >, 0);
    g_assert_cmpuint(offset % page, ==, 0);
    g_assert_cmpuint(length % page, ==, 0);
    g_assert_cmpuint(offset, <=, r->size);
    g_assert_cmpuint(length, <=, r->size - offset);
    if (r->ranges++) {
        g_assert_cmpuint(offset, >, r->last_end);
    }
    r->last_end = offset + length;
    r->pages += length / page;
    memset(r->told + offset / page, 1, length / page);
}

static bool is_zero(const uint8_t *p)
{
    return !p[0] && !memcmp(p, p + 1, page - 1);
}

static Result scan(const PopulatedArea *area, PopulatedWay way)
{
    Result r = { .size = area->size };

    r.told = g_malloc0(area->size / page + 1);
    r.known = populated_scan(area, way, collect, &r);
    if (!have_ioctl && way == POPULATED_IOCTL &&
        (area->kind == POPULATED_ANON || area->kind == POPULATED_PRIVATE)) {
        g_assert_false(r.known);
    }
    return r;
}

/* Reading comes last: it makes pages where there were none. */
static void check_rest_zero(const PopulatedArea *area, const Result *r)
{
    for (uint64_t i = 0; i < area->size / page; i++) {
        if (!r->told[i]) {
            g_assert_true(is_zero((uint8_t *)area->host + i * page));
        }
    }
}

/*
 * Scans in each way.  Pages with @must[i] have to be told of; those without
 * may only be, if @exact and the way knows anything, and @zero_pages: they are
 * told of by the file but not by the ioctl.
 */
static void check(const PopulatedArea *area, const uint8_t *must, bool exact,
                  bool zero_pages)
{
    Result r[ARRAY_SIZE(ways)];

    for (int w = 0; w < ARRAY_SIZE(ways); w++) {
        bool by_file = ways[w] == POPULATED_PAGEMAP || !have_ioctl;

        r[w] = scan(area, ways[w]);
        for (uint64_t i = 0; i < area->size / page; i++) {
            if (must[i]) {
                g_assert_true(r[w].told[i]);
            } else if (exact && r[w].known && !(zero_pages && by_file)) {
                g_assert_false(r[w].told[i]);
            }
        }
    }
    for (int w = 0; w < ARRAY_SIZE(ways); w++) {
        check_rest_zero(area, &r[w]);
        g_free(r[w].told);
    }
}

static uint8_t *map(uint64_t size, int flags, int fd)
{
    uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* Of small pages only, so that one can tell exactly */
static uint8_t *map_anon(uint64_t size)
{
    uint8_t *p = map(size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

    g_assert_nonnull(p);
    madvise(p, size, MADV_NOHUGEPAGE);
    return p;
}

static PopulatedArea anon_area(uint64_t pages)
{
    return (PopulatedArea) {
        .kind = POPULATED_ANON, .host = map_anon(pages * page),
        .size = pages * page, .fd = -1,
    };
}

static void touch(const PopulatedArea *area, uint8_t *must, uint64_t i)
{
    ((uint8_t *)area->host)[i * page + i % page] = 1 + i % 255;
    must[i] = 1;
}

static void test_anon(void)
{
    static const uint64_t sizes[] = { 1, 2, 511, 4096, 4097, 20000 };

    for (int s = 0; s < ARRAY_SIZE(sizes); s++) {
        for (int density = 1; density < 3000; density *= 3) {
            PopulatedArea area = anon_area(sizes[s]);
            g_autofree uint8_t *must = g_malloc0(sizes[s]);

            for (uint64_t i = 0; i < sizes[s]; i++) {
                if (g_test_rand_int_range(0, density) == 0) {
                    touch(&area, must, i);
                }
            }
            check(&area, must, true, false);
            munmap(area.host, area.size);
        }
    }
}

static void test_untouched(void)
{
    PopulatedArea area = anon_area(1000);

    for (int w = 0; w < ARRAY_SIZE(ways); w++) {
        Result r = scan(&area, ways[w]);

        g_assert_cmpuint(r.ranges, ==, r.known ? 0 : 1);
        g_free(r.told);
    }
    area.size = 0;
    for (int w = 0; w < ARRAY_SIZE(ways); w++) {
        Result r = scan(&area, ways[w]);

        g_assert_cmpuint(r.ranges, ==, 0);
        g_free(r.told);
    }
    munmap(area.host, 1000 * page);
}

/*
 * Where the kernel has a zero page, pages that were read are that page until
 * they are written; elsewhere they are as good as written.
 */
static void test_read_only_touched(void)
{
    PopulatedArea area = anon_area(300);
    g_autofree uint8_t *must = g_malloc0(300);
    /* volatile: reads that are for nothing but their effect */
    volatile uint8_t *p = area.host;

    for (int i = 0; i < 300; i++) {
        (void)p[i * page];
    }
    check(&area, must, !reading_allocates, true);
    for (int i = 0; i < 300; i += 7) {
        touch(&area, must, i);
    }
    check(&area, must, !reading_allocates, true);
    munmap(area.host, area.size);
}

static void test_given_back(void)
{
    PopulatedArea area = anon_area(300);
    g_autofree uint8_t *must = g_malloc0(300);

    for (int i = 0; i < 300; i++) {
        touch(&area, must, i);
    }
    g_assert_cmpint(madvise((uint8_t *)area.host + 50 * page, 100 * page,
                            MADV_DONTNEED), ==, 0);
    memset(must + 50, 0, 100);
    touch(&area, must, 77);
    check(&area, must, true, false);
    munmap(area.host, area.size);
}

static void test_paged_out(void)
{
    PopulatedArea area = anon_area(300);
    g_autofree uint8_t *must = g_malloc0(300);

    for (int i = 0; i < 300; i += 2) {
        touch(&area, must, i);
    }
    /* where there is swap they go there, elsewhere they stay */
    madvise(area.host, area.size, MADV_PAGEOUT);
    check(&area, must, true, false);
    munmap(area.host, area.size);
}

static void test_no_access(void)
{
    PopulatedArea area = anon_area(300);
    g_autofree uint8_t *must = g_malloc0(300);

    for (int i = 0; i < 300; i += 2) {
        touch(&area, must, i);
    }
    for (int w = 0; w < ARRAY_SIZE(ways); w++) {
        Result r;

        mprotect(area.host, area.size, PROT_NONE);
        r = scan(&area, ways[w]);
        mprotect(area.host, area.size, PROT_READ);
        check_rest_zero(&area, &r);
        g_free(r.told);
        madvise(area.host, area.size, MADV_COLD);
    }
    munmap(area.host, area.size);
}

static void test_locked(void)
{
    PopulatedArea area = anon_area(100);
    g_autofree uint8_t *must = g_malloc0(100);

    /* the sanitizers' mlock() does nothing */
    if (syscall(SYS_mlock, area.host, area.size)) {
        g_test_skip("memory cannot be locked here");
    } else {
        /* locking makes the pages, so they are told of */
        memset(must, 1, 100);
        check(&area, must, true, false);
    }
    munmap(area.host, area.size);
}

static void test_merged(void)
{
    PopulatedArea area = anon_area(300);
    g_autofree uint8_t *must = g_malloc0(300);

    madvise(area.host, area.size, MADV_MERGEABLE);
    for (int i = 0; i < 300; i += 3) {
        memset((uint8_t *)area.host + i * page, 0x42, page);
        must[i] = 1;
    }
    check(&area, must, true, true);
    munmap(area.host, area.size);
}

/* A byte in a huge page, and then a part of it given back */
static void test_huge_pages(void)
{
    uint8_t *p = map(5 * HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1);
    uint8_t *host = QEMU_ALIGN_PTR_UP(p, HUGE);
    PopulatedArea area = {
        .kind = POPULATED_ANON, .host = host, .size = 4 * HUGE, .fd = -1,
    };
    g_autofree uint8_t *must = g_malloc0(4 * HUGE / page);
    /* volatile: a read that is for nothing but its effect */
    volatile uint8_t *v = host;

    madvise(host, 4 * HUGE, MADV_HUGEPAGE);
    host[HUGE + 5 * page] = 1;
    must[(HUGE + 5 * page) / page] = 1;
    (void)v[3 * HUGE];                          /* the huge zero page */
    check(&area, must, false, false);
    madvise(host + HUGE + 16 * page, 100 * page, MADV_DONTNEED);
    check(&area, must, false, false);
    madvise(host + HUGE, 6 * page, MADV_DONTNEED);
    memset(must, 0, 4 * HUGE / page);
    check(&area, must, false, false);
    munmap(p, 5 * HUGE);
}

static void write_file(int fd, const uint8_t *must, uint64_t pages)
{
    g_autofree uint8_t *data = g_malloc(page);

    memset(data, 0x55, page);
    g_assert_cmpint(ftruncate(fd, pages * page), ==, 0);
    for (uint64_t i = 0; i < pages; i++) {
        if (must[i]) {
            g_assert_cmpint(pwrite(fd, data, page, i * page), ==, page);
        }
    }
}

/* An unlinked file on disk */
static int disk_file(void)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("ferry-populated-XXXXXX", &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    unlink(name);
    return fd;
}

static int memory_file(void)
{
    int fd = qemu_memfd_create("populated", 0, false, 0, 0, &error_abort);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

/*
 * The file is written by other means than the mapping, as by another process.
 * A private mapping of it is not zero where it was never touched.
 */
static void check_file(int fd, bool shared, bool exact, uint64_t skip)
{
    const uint64_t pages = 400;
    g_autofree uint8_t *must = g_malloc0(pages);
    PopulatedArea area = {
        .kind = populated_kind(false, fd, shared),
        .size = (pages - skip) * page, .fd = fd, .fd_offset = skip * page,
    };

    for (int i = 0; i < pages; i++) {
        must[i] = i % 100 < 10 || i == pages - 1;
    }
    write_file(fd, must, pages);
    lseek(fd, 12345, SEEK_SET);
    area.host = mmap(NULL, area.size, PROT_READ | PROT_WRITE,
                     shared ? MAP_SHARED : MAP_PRIVATE, fd, area.fd_offset);
    g_assert_true(area.host != MAP_FAILED);
    madvise(area.host, area.size, MADV_NOHUGEPAGE);
    for (int i = 50; i < pages - skip; i += 60) {
        touch(&area, must + skip, i);
    }
    check(&area, must + skip, exact, false);
    g_assert_cmpint(lseek(fd, 0, SEEK_CUR), ==, 12345);
    munmap(area.host, area.size);
    close(fd);
}

static void test_files(void)
{
    for (int skip = 0; skip < 20; skip += 5) {
        check_file(memory_file(), true, true, skip);
        check_file(memory_file(), false, true, skip);
        check_file(disk_file(), true, false, skip);
        check_file(disk_file(), false, false, skip);
    }
}

static void check_hugetlb(bool shared)
{
    Error *err = NULL;
    int fd = qemu_memfd_create("populated", 4 * HUGE, true, HUGE, 0, &err);
    PopulatedArea area = {
        .kind = populated_kind(false, fd, shared), .size = 4 * HUGE, .fd = fd,
    };
    g_autofree uint8_t *must = g_malloc0(4 * HUGE / page);
    Result r;

    error_free(err);
    area.host = fd < 0 ? NULL : map(area.size,
                                    shared ? MAP_SHARED : MAP_PRIVATE, fd);
    if (!area.host) {
        g_test_skip("no huge pages are set aside (vm.nr_hugepages, 4 of 2 MB)");
    } else {
        r = scan(&area, POPULATED_BEST);
        g_assert_cmpuint(r.pages, ==, 0);       /* the file is empty */
        g_free(r.told);
        memset((uint8_t *)area.host + HUGE, 1, HUGE);
        memset(must + HUGE / page, 1, HUGE / page);
        check(&area, must, !shared, false);
        munmap(area.host, area.size);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void test_hugetlb_shared(void)
{
    check_hugetlb(true);
}

static void test_hugetlb_private(void)
{
    check_hugetlb(false);
}

static void test_hugetlb_anon(void)
{
    PopulatedArea area = { .kind = POPULATED_ANON, .size = 4 * HUGE, .fd = -1 };
    g_autofree uint8_t *must = g_malloc0(4 * HUGE / page);

    area.host = map(area.size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
    if (!area.host) {
        g_test_skip("no huge pages are set aside (vm.nr_hugepages, 4 of 2 MB)");
        return;
    }
    ((uint8_t *)area.host)[2 * HUGE + 7] = 1;
    memset(must + 2 * HUGE / page, 1, HUGE / page);
    check(&area, must, true, false);
    munmap(area.host, area.size);
}

/* Nothing can be found out: everything is told of, and it is said so. */
static void test_unknown(void)
{
    PopulatedArea area = anon_area(100);
    int pipe_fd[2], closed = memory_file();

    close(closed);
    g_assert_cmpint(pipe(pipe_fd), ==, 0);
    for (int i = 0; i < 5; i++) {
        PopulatedArea a = area;
        Result r;

        a.kind = i == 0 ? POPULATED_UNKNOWN :
                 i % 2 ? POPULATED_SHARED : POPULATED_PRIVATE;
        a.fd = i == 0 ? -1 : i < 3 ? pipe_fd[0] : closed;
        r = scan(&a, POPULATED_BEST);
        g_assert_false(r.known);
        g_assert_cmpuint(r.ranges, ==, 1);
        g_assert_cmpuint(r.pages, ==, 100);
        g_free(r.told);
    }
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    munmap(area.host, area.size);

    g_assert_cmpint(populated_kind(false, -1, false), ==, POPULATED_ANON);
    g_assert_cmpint(populated_kind(false, -1, true), ==, POPULATED_UNKNOWN);
    g_assert_cmpint(populated_kind(false, 3, true), ==, POPULATED_SHARED);
    g_assert_cmpint(populated_kind(false, 3, false), ==, POPULATED_PRIVATE);
    g_assert_cmpint(populated_kind(true, 3, true), ==, POPULATED_UNKNOWN);
    g_assert_cmpint(populated_kind(true, -1, false), ==, POPULATED_UNKNOWN);
}

/* /proc is unreadable once there is no file descriptor to be had. */
static void test_failure(void)
{
    PopulatedArea area = anon_area(100);
    struct rlimit old, none;
    Result r;

    getrlimit(RLIMIT_NOFILE, &old);
    none = old;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_NOFILE, &none);
    r = scan(&area, POPULATED_BEST);
    setrlimit(RLIMIT_NOFILE, &old);
    g_assert_false(r.known);
    g_assert_cmpuint(r.pages, ==, 100);
    g_free(r.told);
    munmap(area.host, area.size);
}

/* Whatever is done to memory, what is not told of is zero. */
static void test_random(void)
{
    const uint64_t pages = 8 * HUGE / page;
    uint8_t *p = map(9 * HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1);
    PopulatedArea area = {
        .kind = POPULATED_ANON, .host = QEMU_ALIGN_PTR_UP(p, HUGE),
        .size = 8 * HUGE, .fd = -1,
    };
    static const int advice[] = {
        MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_PAGEOUT,
        MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_COLD,
    };

    for (int round = 0; round < 60; round++) {
        g_autofree uint8_t *must = g_malloc0(pages);

        for (int i = 0; i < 40; i++) {
            uint64_t first = g_test_rand_int_range(0, pages);
            uint64_t count = MIN(g_test_rand_int_range(1, 700),
                                 pages - first);
            uint8_t *at = (uint8_t *)area.host + first * page;

            if (g_test_rand_bit()) {
                madvise(at, count * page,
                        advice[g_test_rand_int_range(0,
                                                     ARRAY_SIZE(advice))]);
            } else {
                memset(at, round, MIN(count, 30) * page);
            }
        }
        check(&area, must, false, false);
    }
    munmap(p, 9 * HUGE);
}

static void time_scan(uint64_t gib)
{
    PopulatedArea area = {
        .kind = POPULATED_ANON, .size = gib << 30, .fd = -1,
    };

    area.host = map(area.size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1);
    if (!area.host) {
        g_test_message("%" PRIu64 " GiB: no address space", gib);
        return;
    }
    for (int w = 1; w < ARRAY_SIZE(ways); w++) {
        Result r = { .size = area.size };

        r.told = g_malloc0(1);
        g_test_timer_start();
        r.known = populated_scan(&area, ways[w], collect, &r);
        g_test_message("%" PRIu64 " GiB untouched, by %s: %.3f ms", gib,
                       ways[w] == POPULATED_IOCTL ? "ioctl" : "file",
                       g_test_timer_elapsed() * 1e3);
        g_assert_true(r.known);
        g_assert_cmpuint(r.pages, ==, 0);
        g_free(r.told);
    }
    munmap(area.host, area.size);
}

static void test_time(void)
{
    if (!have_ioctl || !g_test_perf()) {
        g_test_skip("only with -m perf, on Linux 6.7 or later");
        return;
    }
    time_scan(16);
    time_scan(256);
    time_scan(4096);
}

static uint64_t resident_pages(void)
{
    g_autofree char *text = NULL;
    unsigned long long size = 0, resident = 0;

    g_assert_true(g_file_get_contents("/proc/self/statm", &text, NULL, NULL));
    g_assert_cmpint(sscanf(text, "%llu %llu", &size, &resident), ==, 2);
    return resident;
}

/* The zero page does not count as resident; the count may be a little late. */
static bool probe_reading(void)
{
    const uint64_t pages = 4096;
    uint8_t *p = map_anon(pages * page);
    uint64_t before = resident_pages();
    unsigned sum = 0;
    bool allocates;

    for (uint64_t i = 0; i < pages; i++) {
        sum += p[i * page];
    }
    g_assert_cmpuint(sum, ==, 0);
    allocates = resident_pages() > before + pages / 2;
    munmap(p, pages * page);
    return allocates;
}

static bool probe_ioctl(void)
{
    uint8_t *p = map_anon(page);
    PopulatedArea area = {
        .kind = POPULATED_ANON, .host = p, .size = page, .fd = -1,
    };
    Result r = { .size = page, .told = g_malloc0(1) };
    bool works = populated_scan(&area, POPULATED_IOCTL, collect, &r);

    g_free(r.told);
    munmap(p, page);
    return works;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_limit_time(TIME_LIMIT);
    page = qemu_real_host_page_size();
    have_ioctl = probe_ioctl();
    reading_allocates = probe_reading();
    g_test_message("PAGEMAP_SCAN %s", have_ioctl ? "works" : "is missing");
    g_test_message("reading %s", reading_allocates ? "allocates"
                                                   : "maps the zero page");
    g_test_add_func("/ram/populated/anon", test_anon);
    g_test_add_func("/ram/populated/untouched", test_untouched);
    g_test_add_func("/ram/populated/read", test_read_only_touched);
    g_test_add_func("/ram/populated/given-back", test_given_back);
    g_test_add_func("/ram/populated/paged-out", test_paged_out);
    g_test_add_func("/ram/populated/no-access", test_no_access);
    g_test_add_func("/ram/populated/locked", test_locked);
    g_test_add_func("/ram/populated/merged", test_merged);
    g_test_add_func("/ram/populated/huge-pages", test_huge_pages);
    g_test_add_func("/ram/populated/files", test_files);
    g_test_add_func("/ram/populated/hugetlb-shared", test_hugetlb_shared);
    g_test_add_func("/ram/populated/hugetlb-private", test_hugetlb_private);
    g_test_add_func("/ram/populated/hugetlb-anon", test_hugetlb_anon);
    g_test_add_func("/ram/populated/unknown", test_unknown);
    g_test_add_func("/ram/populated/failure", test_failure);
    g_test_add_func("/ram/populated/random", test_random);
    g_test_add_func("/ram/populated/time", test_time);
    return g_test_run();
}

#else

int main(void)
{
    puts("1..0 # SKIP not Linux");
    return 0;
}

#endif
