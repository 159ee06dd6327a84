/*
 * Which pages of this process exist
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/pagemap-scan.h"

#ifdef CONFIG_LINUX

#include "qemu/linux-newer.h"

/* The kernel holds a lock of the address space for one such piece. */
#define WINDOW (4ull << 30)
#define REGIONS 256

/* Entries of the file, a 64 bit number a page, that are read at once */
#define ENTRIES 4096
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_SWAPPED (1ull << 62)

typedef struct Scan {
    uint64_t start;             /* address */
    uint64_t done;              /* offset up to which it is known */
    uint64_t length;
    PagemapFn *fn;
    void *opaque;
} Scan;

/* One piece by the ioctl; stops early if there are many ranges. */
static bool scan_window(Scan *s, int fd)
{
    struct page_region found[REGIONS];
    uint64_t from = s->start + s->done;
    struct pm_scan_arg arg = {
        .size = sizeof(arg),
        .start = from,
        .end = from + MIN(s->length - s->done, WINDOW),
        .vec = (uintptr_t)found,
        .vec_len = REGIONS,
        .category_inverted = PAGE_IS_PFNZERO,
        .category_mask = PAGE_IS_PFNZERO,
        .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        /* one category, so that ranges do not end where others change */
        .return_mask = PAGE_IS_PFNZERO,
    };
    int n = RETRY_ON_EINTR(ioctl(fd, PAGEMAP_SCAN, &arg));

    if (n < 0 || n > REGIONS || arg.walk_end <= from ||
        arg.walk_end > arg.end) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        s->fn(s->opaque, found[i].start - s->start,
              found[i].end - found[i].start);
    }
    s->done = arg.walk_end - s->start;
    return true;
}

static bool scan_by_ioctl(Scan *s, int fd)
{
    while (s->done < s->length) {
        if (!scan_window(s, fd)) {
            return false;
        }
    }
    return true;
}

/* Tell of the runs in @n entries that start at s->done. */
static void tell_entries(Scan *s, const uint64_t *entry, size_t n, size_t page)
{
    size_t first = 0;

    for (size_t i = 0; i <= n; i++) {
        if (i < n && entry[i] & (ENTRY_PRESENT | ENTRY_SWAPPED)) {
            continue;
        }
        if (i > first) {
            s->fn(s->opaque, s->done + first * page, (i - first) * page);
        }
        first = i + 1;
    }
    s->done += n * page;
}

static bool scan_by_file(Scan *s, int fd)
{
    g_autofree uint64_t *entry = g_new(uint64_t, ENTRIES);
    size_t page = qemu_real_host_page_size();

    while (s->done < s->length) {
        size_t want = MIN((s->length - s->done) / page, ENTRIES);
        off_t at = (s->start + s->done) / page * sizeof(*entry);
        ssize_t got = RETRY_ON_EINTR(pread(fd, entry, want * sizeof(*entry),
                                           at));

        if (got < (ssize_t)sizeof(*entry)) {
            return false;
        }
        tell_entries(s, entry, got / sizeof(*entry), page);
    }
    return true;
}

bool pagemap_scan(const void *start, uint64_t length, PagemapWay way,
                  PagemapFn *fn, void *opaque, uint64_t *done)
{
    Scan s = {
        .start = (uintptr_t)start, .length = length, .fn = fn,
        .opaque = opaque,
    };
    bool ok = false;
    int fd;

    assert(!((s.start | length) % qemu_real_host_page_size()));
    fd = qemu_open_old("/proc/self/pagemap", O_RDONLY);
    if (fd >= 0) {
        ok = (way != PAGEMAP_FILE && scan_by_ioctl(&s, fd)) ||
             (way != PAGEMAP_IOCTL && scan_by_file(&s, fd));
        close(fd);
    }
    *done = s.done;
    return ok;
}

#else /* !CONFIG_LINUX */

bool pagemap_scan(const void *start, uint64_t length, PagemapWay way,
                  PagemapFn *fn, void *opaque, uint64_t *done)
{
    *done = 0;
    return !length;
}

#endif
