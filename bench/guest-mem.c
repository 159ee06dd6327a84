/*
 * Fill and compare the memory of stopped guests from outside
 *
 * A benchmark of stopped guests needs their RAM to be anonymous memory with
 * known contents, and must not trust the program under test to say whether it
 * arrived.  This reads and writes the memory of the QEMU processes directly.
 *
 *   guest-mem warm MIB
 *       touch that much memory and give it back
 *   guest-mem fill PID ADDRESS BYTES SEED
 *       random data, different in every page
 *   guest-mem compare PID ADDRESS PID ADDRESS BYTES
 *       byte for byte, wherever either side has a page.  What neither side has
 *       is zero in both, so that a guest of many GB that was never touched is
 *       compared completely in no time.
 *
 * Addresses and sizes are multiples of the page size, numbers as in C.  Every
 * command answers with one line of JSON; the exit status of compare is 0 if
 * equal, 3 if not, others 0 or 1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE  4096UL
#define CHUNK (1UL << 20)

/*
 * When more than this is populated, pieces of one CHUNK spread evenly over it
 * are compared instead of everything.
 */
#define COMPARE_MAX (8UL << 30)

/*
 * The kernel's interface of Linux 6.7, declared here because the headers of
 * older distributions lack it although the kernel may have it.
 */
struct page_span {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct pagemap_scan_arg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};

#define SCAN_IOCTL       _IOWR('f', 16, struct pagemap_scan_arg)
#define SCAN_PRESENT     (1 << 3)
#define SCAN_SWAPPED     (1 << 4)
#define SCAN_ZERO_PAGE   (1 << 5)

/* /proc/PID/pagemap: one word a page */
#define PAGEMAP_PRESENT  (1ULL << 63)
#define PAGEMAP_SWAPPED  (1ULL << 62)

/* Memory of another process. */
typedef struct Remote {
    pid_t pid;
    uint64_t base;
} Remote;

/* Sorted, disjoint pieces, as offsets from the start of the guest's memory. */
typedef struct Span {
    uint64_t start;
    uint64_t end;
} Span;

typedef struct SpanList {
    Span *span;
    size_t count;
    size_t room;
} SpanList;

static void fail(const char *what, pid_t pid)
{
    const char *hint = "";

    if (errno == EPERM || errno == EACCES) {
        hint = " (run as root, or set kernel.yama.ptrace_scope to 0)";
    }
    fprintf(stderr, "guest-mem: %s of process %d: %s%s\n", what, (int)pid,
            strerror(errno), hint);
    exit(1);
}

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes);

    if (!p) {
        fprintf(stderr, "guest-mem: no memory\n");
        exit(1);
    }
    return p;
}

/* Neighbours become one; spans are added in ascending order of their start. */
static void span_add(SpanList *list, uint64_t start, uint64_t end)
{
    Span *last = list->count ? &list->span[list->count - 1] : NULL;

    if (last && start <= last->end) {
        last->end = end > last->end ? end : last->end;
        return;
    }
    if (list->count == list->room) {
        list->room = list->room ? list->room * 2 : 256;
        list->span = realloc(list->span, list->room * sizeof(Span));
        if (!list->span) {
            fprintf(stderr, "guest-mem: no memory\n");
            exit(1);
        }
    }
    list->span[list->count++] = (Span) { start, end };
}

static SpanList span_union(const SpanList *a, const SpanList *b)
{
    SpanList all = { 0 };
    size_t i = 0, j = 0;

    while (i < a->count || j < b->count) {
        bool take_a = j == b->count ||
                      (i < a->count && a->span[i].start <= b->span[j].start);
        const Span *next = take_a ? &a->span[i++] : &b->span[j++];

        span_add(&all, next->start, next->end);
    }
    return all;
}

static uint64_t span_bytes(const SpanList *list)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < list->count; i++) {
        sum += list->span[i].end - list->span[i].start;
    }
    return sum;
}

/* False if the kernel is too old for it. */
static bool scan_populated(int fd, const Remote *m, uint64_t bytes,
                           SpanList *out)
{
    struct page_span vec[512];
    uint64_t at = m->base;

    while (at < m->base + bytes) {
        struct pagemap_scan_arg arg = {
            .size = sizeof(arg),
            .start = at,
            .end = m->base + bytes,
            .vec = (uintptr_t)vec,
            .vec_len = sizeof(vec) / sizeof(vec[0]),
            .category_inverted = SCAN_ZERO_PAGE,
            .category_mask = SCAN_ZERO_PAGE,
            .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
            .return_mask = SCAN_PRESENT | SCAN_SWAPPED,
        };
        int n = ioctl(fd, SCAN_IOCTL, &arg);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            out->count = 0;
            return false;
        }
        for (int i = 0; i < n; i++) {
            span_add(out, vec[i].start - m->base, vec[i].end - m->base);
        }
        at = arg.walk_end;
    }
    return true;
}

/* The slower way of all kernels; it takes a mapped zero page for populated. */
static void read_populated(int fd, const Remote *m, uint64_t bytes,
                           SpanList *out)
{
    size_t pages = bytes / PAGE;
    size_t room = CHUNK / sizeof(uint64_t);
    uint64_t *entry = allocate(CHUNK);
    size_t done = 0;

    while (done < pages) {
        size_t want = pages - done < room ? pages - done : room;
        ssize_t n = pread(fd, entry, want * sizeof(*entry),
                          (m->base / PAGE + done) * sizeof(*entry));

        if (n <= 0) {
            fail("cannot read the page map", m->pid);
        }
        n /= sizeof(*entry);
        for (ssize_t i = 0; i < n; i++) {
            if (entry[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) {
                span_add(out, (done + i) * PAGE, (done + i + 1) * PAGE);
            }
        }
        done += n;
    }
    free(entry);
}

static SpanList populated(const Remote *m, uint64_t bytes)
{
    SpanList out = { 0 };
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)m->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fail("cannot open the page map", m->pid);
    }
    if (!scan_populated(fd, m, bytes, &out)) {
        read_populated(fd, m, bytes, &out);
    }
    close(fd);
    return out;
}

static void peek(const Remote *m, uint64_t offset, void *to, size_t bytes)
{
    struct iovec local = { to, bytes };
    struct iovec remote = { (void *)(uintptr_t)(m->base + offset), bytes };
    ssize_t n = process_vm_readv(m->pid, &local, 1, &remote, 1, 0);

    if (n != (ssize_t)bytes) {
        errno = n < 0 ? errno : EFAULT;
        fail("cannot read the memory", m->pid);
    }
}

static void poke(const Remote *m, uint64_t offset, void *from, size_t bytes)
{
    struct iovec local = { from, bytes };
    struct iovec remote = { (void *)(uintptr_t)(m->base + offset), bytes };
    ssize_t n = process_vm_writev(m->pid, &local, 1, &remote, 1, 0);

    if (n != (ssize_t)bytes) {
        errno = n < 0 ? errno : EFAULT;
        fail("cannot write the memory", m->pid);
    }
}

/* splitmix64 started from the page's number: order and place both matter. */
static void random_pages(uint64_t *word, size_t bytes, uint64_t page,
                         uint64_t seed)
{
    size_t per_page = PAGE / sizeof(*word);

    for (size_t i = 0; i < bytes / sizeof(*word); i++) {
        uint64_t z = seed + 0x9e3779b97f4a7c15ULL *
                     ((page + i / per_page) * per_page + i % per_page + 1);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        word[i] = z ^ (z >> 31);
    }
}

static int fill(const Remote *m, uint64_t bytes, uint64_t seed)
{
    uint64_t *buf = allocate(CHUNK);

    for (uint64_t at = 0; at < bytes; at += CHUNK) {
        size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;

        random_pages(buf, n, at / PAGE, seed);
        poke(m, at, buf, n);
    }
    free(buf);
    printf("{\"filled\": %lu}\n", (unsigned long)bytes);
    return 0;
}

/* Offset of the first difference within one piece, or -1. */
static int64_t compare_piece(const Remote *a, const Remote *b, uint64_t at,
                             size_t bytes, uint8_t *buf_a, uint8_t *buf_b)
{
    size_t i = 0;

    peek(a, at, buf_a, bytes);
    peek(b, at, buf_b, bytes);
    if (!memcmp(buf_a, buf_b, bytes)) {
        return -1;
    }
    while (buf_a[i] == buf_b[i]) {
        i++;
    }
    return at + i;
}

static int compare(const Remote *a, const Remote *b, uint64_t bytes)
{
    SpanList in_a = populated(a, bytes), in_b = populated(b, bytes);
    SpanList all = span_union(&in_a, &in_b);
    uint64_t total = span_bytes(&all), compared = 0, seen = 0;
    uint64_t every = total > COMPARE_MAX ? total / COMPARE_MAX + 1 : 1;
    uint8_t *buf_a = allocate(CHUNK), *buf_b = allocate(CHUNK);
    int64_t differs = -1;

    for (size_t i = 0; i < all.count && differs < 0; i++) {
        const Span *s = &all.span[i];

        for (uint64_t at = s->start; at < s->end && differs < 0; at += CHUNK) {
            size_t n = s->end - at < CHUNK ? s->end - at : CHUNK;

            if (seen++ % every) {
                continue;
            }
            differs = compare_piece(a, b, at, n, buf_a, buf_b);
            compared += n;
        }
    }
    printf("{\"equal\": %s, \"compared\": %lu, \"populated\": %lu, "
           "\"complete\": %s, \"differs_at\": %ld}\n",
           differs < 0 ? "true" : "false", (unsigned long)compared,
           (unsigned long)total, every == 1 ? "true" : "false",
           (long)differs);
    free(buf_a);
    free(buf_b);
    free(in_a.span);
    free(in_b.span);
    free(all.span);
    return differs < 0 ? 0 : 3;
}

/*
 * On a virtual machine, memory that its host has not backed yet, or has taken
 * back, costs many times more on first touch.  Having the host bring it now
 * keeps that out of what is measured next.
 */
static int warm(uint64_t mib)
{
    uint8_t *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        fprintf(stderr, "guest-mem: cannot map %lu MiB: %s\n",
                (unsigned long)mib, strerror(errno));
        return 1;
    }
    madvise(p, mib << 20, MADV_HUGEPAGE);
    for (uint64_t at = 0; at < mib << 20; at += PAGE) {
        p[at] = 1;
    }
    printf("{\"touched_mib\": %lu}\n", (unsigned long)mib);
    return 0;
}

static uint64_t number(const char *text, uint64_t unit)
{
    int64_t value;
    char rest;

    if (sscanf(text, "%" SCNi64 "%c", &value, &rest) != 1 || value < 0 ||
        value % unit) {
        fprintf(stderr, "guest-mem: '%s' is not a %s\n", text,
                unit == PAGE ? "multiple of 4096" : "number");
        exit(1);
    }
    return value;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "warm")) {
        return warm(number(argv[2], 1));
    }
    if (argc == 6 && !strcmp(argv[1], "fill")) {
        Remote m = { number(argv[2], 1), number(argv[3], PAGE) };

        return fill(&m, number(argv[4], PAGE), number(argv[5], 1));
    }
    if (argc == 7 && !strcmp(argv[1], "compare")) {
        Remote a = { number(argv[2], 1), number(argv[3], PAGE) };
        Remote b = { number(argv[4], 1), number(argv[5], PAGE) };

        return compare(&a, &b, number(argv[6], PAGE));
    }
    fprintf(stderr, "usage: guest-mem warm MIB\n"
            "       guest-mem fill PID ADDRESS BYTES SEED\n"
            "       guest-mem compare PID ADDRESS PID ADDRESS BYTES\n");
    return 1;
}
