/*
 * Which parts of a piece of RAM were ever written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/pagemap-scan.h"
#include "migration/ram/populated.h"

#ifdef CONFIG_LINUX
#include <sys/vfs.h>
#include <linux/magic.h>
#endif

/* Ranges on their way to the callback: those that touch become one. */
typedef struct Walk {
    const PopulatedArea *area;
    PagemapWay way;
    PopulatedFn *fn;
    void *opaque;
    uint64_t start, end;        /* the range that may still grow */
    uint64_t base;              /* of the part whose page table is read */
    bool known;
} Walk;

static void flush(Walk *w)
{
    if (w->end > w->start) {
        w->fn(w->opaque, w->start, w->end - w->start);
    }
}

static void add(Walk *w, uint64_t start, uint64_t end)
{
    if (start > w->end) {
        flush(w);
        w->start = start;
    }
    w->end = MAX(w->end, end);
}

static void add_unknown(Walk *w, uint64_t start, uint64_t end)
{
    if (start < end) {
        add(w, start, end);
        w->known = false;
    }
}

static void found_pages(void *opaque, uint64_t offset, uint64_t length)
{
    Walk *w = opaque;

    add(w, w->base + offset, w->base + offset + length);
}

/* The pages that this process has in a part of the area */
static void add_pages(Walk *w, uint64_t start, uint64_t end)
{
    uint64_t done;

    w->base = start;
    if (!pagemap_scan((uint8_t *)w->area->host + start, end - start, w->way,
                      found_pages, w, &done)) {
        add_unknown(w, start + done, end);
    }
}

/* A part of the area for which the file has no data */
static void add_hole(Walk *w, uint64_t start, uint64_t end)
{
    if (w->area->kind == POPULATED_PRIVATE && start < end) {
        add_pages(w, start, end);
    }
}

#if defined(SEEK_DATA) && defined(SEEK_HOLE)
/* A file of huge pages says of all its bytes that they are data. */
static bool empty_hugetlb(int fd)
{
#ifdef CONFIG_LINUX
    struct statfs fs;
    struct stat st;

    return !fstatfs(fd, &fs) && (uint32_t)fs.f_type == HUGETLBFS_MAGIC &&
           !fstat(fd, &st) && !st.st_blocks;
#else
    return false;
#endif
}

/*
 * The first data at or after @at, in bytes from the start of the area:
 * [*start, *end), or [size, size) if there is none.  False: nobody knows.
 */
static bool next_data(const PopulatedArea *area, uint64_t at,
                      uint64_t *start, uint64_t *end)
{
    size_t page = qemu_real_host_page_size();
    off_t data = lseek(area->fd, area->fd_offset + at, SEEK_DATA);
    off_t hole;

    *start = *end = area->size;
    if (data < 0) {
        return errno == ENXIO;
    }
    hole = lseek(area->fd, data, SEEK_HOLE);
    if (hole <= data) {
        return false;
    }
    if (data - area->fd_offset < area->size) {
        *start = QEMU_ALIGN_DOWN(data - area->fd_offset, page);
        *end = MIN(QEMU_ALIGN_UP(hole - area->fd_offset, page), area->size);
    }
    return true;
}

static void add_file(Walk *w)
{
    const PopulatedArea *area = w->area;
    off_t position = lseek(area->fd, 0, SEEK_CUR);
    uint64_t at = 0, start, end;
    struct stat st;

    if (position < 0 || fstat(area->fd, &st) || !S_ISREG(st.st_mode)) {
        add_unknown(w, 0, area->size);
        return;
    }
    if (empty_hugetlb(area->fd)) {
        add_hole(w, 0, area->size);
        return;
    }
    while (at < area->size) {
        if (!next_data(area, at, &start, &end)) {
            add_unknown(w, at, area->size);
            break;
        }
        add_hole(w, at, start);
        add(w, start, end);
        at = end;
    }
    lseek(area->fd, position, SEEK_SET);
}
#else
static void add_file(Walk *w)
{
    add_unknown(w, 0, w->area->size);
}
#endif

PopulatedKind populated_kind(bool foreign, int fd, bool shared)
{
    if (foreign || (shared && fd < 0)) {
        return POPULATED_UNKNOWN;
    }
    if (fd < 0) {
        return POPULATED_ANON;
    }
    return shared ? POPULATED_SHARED : POPULATED_PRIVATE;
}

bool populated_scan(const PopulatedArea *area, PopulatedWay way,
                    PopulatedFn *fn, void *opaque)
{
    static const PagemapWay ways[] = {
        [POPULATED_BEST] = PAGEMAP_ANY,
        [POPULATED_IOCTL] = PAGEMAP_IOCTL,
        [POPULATED_PAGEMAP] = PAGEMAP_FILE,
    };
    Walk w = {
        .area = area, .way = ways[way], .fn = fn, .opaque = opaque,
        .known = true,
    };

    switch (area->kind) {
    case POPULATED_ANON:
        add_pages(&w, 0, area->size);
        break;
    case POPULATED_SHARED:
    case POPULATED_PRIVATE:
        add_file(&w);
        break;
    default:
        add_unknown(&w, 0, area->size);
        break;
    }
    flush(&w);
    return w.known;
}
