/*
 * Which pages of this process exist
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_PAGEMAP_SCAN_H
#define QEMU_PAGEMAP_SCAN_H

/* How to ask the kernel */
typedef enum PagemapWay {
    PAGEMAP_ANY,                /* the first of the following that works */
    PAGEMAP_IOCTL,              /* PAGEMAP_SCAN, Linux 6.7 */
    PAGEMAP_FILE,               /* reading /proc/self/pagemap */
} PagemapWay;

typedef void PagemapFn(void *opaque, uint64_t offset, uint64_t length);

/*
 * Tell @fn of the ranges in [@start, @start + @length) that have a page of
 * their own, in memory or swapped out, in ascending order and without overlap;
 * two of them may touch.  Offsets are relative to @start, which is aligned to
 * pages, and so is @length.
 *
 * What is not told of reads as zero, if the mapping is private and anonymous
 * and nobody writes to it.  Of other mappings it only means that this process
 * has no page there.  A page that was only read and stands for zero is told
 * of by PAGEMAP_FILE and left out by PAGEMAP_IOCTL.
 *
 * Returns false if the kernel did not answer; @fn has then been told of what
 * there is before offset *@done.  Any thread may call this; it takes no lock
 * but the kernel's on the address space, which is let go of in between.
 */
bool pagemap_scan(const void *start, uint64_t length, PagemapWay way,
                  PagemapFn *fn, void *opaque, uint64_t *done);

#endif
