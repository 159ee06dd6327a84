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
#include "qemu/linux-newer.h"
#endif

/* A hole in which something is found is halved down to this: 2 MiB */
#define HOLE_MIN (2 * 1024 * 1024)

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

static void populated_add(Walk *w, uint64_t start, uint64_t end)
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
        populated_add(w, start, end);
        w->known = false;
    }
}

static void found_pages(void *opaque, uint64_t offset, uint64_t length)
{
    Walk *w = opaque;

    populated_add(w, w->base + offset, w->base + offset + length);
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

#if defined(CONFIG_LINUX) && defined(SEEK_DATA) && defined(SEEK_HOLE)

/* Whom to believe what they say of holes */
typedef enum FileSystem {
    FS_OTHER,                   /* nobody knows */
    FS_TMPFS,                   /* only if the page cache says so too */
    FS_HUGETLB,                 /* only if the file is empty */
    FS_DISK,
} FileSystem;

static FileSystem file_system(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs)) {
        return FS_OTHER;
    }
    switch ((uint32_t)fs.f_type) {
    case TMPFS_MAGIC:
        return FS_TMPFS;
    case HUGETLBFS_MAGIC:
        return FS_HUGETLB;
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
        return FS_DISK;
    default:
        return FS_OTHER;
    }
}

/* Pages in the page cache or swapped out; negative: nobody knows */
static int64_t cached_pages(int fd, uint64_t offset, uint64_t length)
{
    struct linux_cachestat_range range = { offset, length };
    struct linux_cachestat stat;

    if (syscall(SYS_cachestat, fd, &range, &stat, 0)) {
        return -1;
    }
    return stat.nr_cache + stat.nr_evicted;
}

/*
 * tmpfs takes a page that is just being moved to other memory for a hole.  In
 * the page cache it is all the time.
 */
static void add_tmpfs_hole(Walk *w, uint64_t start, uint64_t end)
{
    const PopulatedArea *area = w->area;
    int64_t pages = cached_pages(area->fd, area->fd_offset + start,
                                 end - start);
    uint64_t middle = start + QEMU_ALIGN_DOWN((end - start) / 2, HOLE_MIN);

    if (pages < 0) {
        add_unknown(w, start, end);
    } else if (!pages) {
        add_pages(w, start, end);
    } else if (middle == start) {
        populated_add(w, start, end);
    } else {
        add_tmpfs_hole(w, start, middle);
        add_tmpfs_hole(w, middle, end);
    }
}

/*
 * A part of the area for which the file has no data.  There may be pages of
 * this process all the same: private ones, or such as are just being moved.
 */
static void add_hole(Walk *w, FileSystem fs, uint64_t start, uint64_t end)
{
    if (start == end) {
        return;
    }
    if (fs == FS_TMPFS) {
        add_tmpfs_hole(w, start, end);
    } else {
        add_pages(w, start, end);
    }
}

/* A file of huge pages says of all its bytes that they are data. */
static void add_hugetlb(Walk *w, const struct stat *st)
{
    if (st->st_blocks) {
        populated_add(w, 0, w->area->size);
        return;
    }
    if (w->way == PAGEMAP_ANY) {
        /* the file does not show huge pages that are just being moved */
        w->way = PAGEMAP_IOCTL;
    }
    add_pages(w, 0, w->area->size);
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
    FileSystem fs = file_system(area->fd);
    struct stat st;

    if (position < 0 || fs == FS_OTHER || fstat(area->fd, &st) ||
        !S_ISREG(st.st_mode)) {
        add_unknown(w, 0, area->size);
        return;
    }
    if (fs == FS_HUGETLB) {
        add_hugetlb(w, &st);
        return;
    }
    while (at < area->size) {
        if (!next_data(area, at, &start, &end)) {
            add_unknown(w, at, area->size);
            break;
        }
        add_hole(w, fs, at, start);
        populated_add(w, start, end);
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
