/*
 * Interfaces of Linux that are newer than the headers QEMU is built with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The values are the kernel's.  Whether the running kernel knows them is to
 * be found out at run time.
 */

#ifndef QEMU_LINUX_NEWER_H
#define QEMU_LINUX_NEWER_H

#ifdef CONFIG_LINUX

#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <linux/types.h>
#include <linux/fs.h>

/* Linux 6.7: an ioctl of /proc/PID/pagemap that finds pages by category */
#ifndef PAGEMAP_SCAN

#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_PFNZERO (1 << 5)

struct page_region {
    __u64 start;
    __u64 end;
    __u64 categories;
};

struct pm_scan_arg {
    __u64 size;
    __u64 flags;
    __u64 start;
    __u64 end;
    __u64 walk_end;
    __u64 vec;
    __u64 vec_len;
    __u64 max_pages;
    __u64 category_inverted;
    __u64 category_mask;
    __u64 category_anyof_mask;
    __u64 return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)

#endif /* PAGEMAP_SCAN */

/*
 * Linux 6.5: how much of a part of a file is in the page cache.  The names are
 * ours, as headers may have the number without the structures.
 */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct linux_cachestat_range {
    __u64 off;
    __u64 len;
};

struct linux_cachestat {
    __u64 nr_cache;
    __u64 nr_dirty;
    __u64 nr_writeback;
    __u64 nr_evicted;
    __u64 nr_recently_evicted;
};

#endif /* CONFIG_LINUX */

#endif
