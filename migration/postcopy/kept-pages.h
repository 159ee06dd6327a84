/*
 * Pages that were copied before somebody writes to them
 *
 * A thread that watches writes copies a page, so that whoever writes to it need
 * not wait until it was saved.  The thread that saves takes the copies, in the
 * order in which they were made.
 *
 * A page is claimed (ram/dirty-claim.h), copied and made available to the other
 * thread under one lock.  So whoever finds no page to claim any more, and then
 * takes all copies, has missed none.
 *
 * Threads: kept_pages_copy() is one thread's, kept_pages_take() another's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_KEPT_PAGES_H
#define MIGRATION_POSTCOPY_KEPT_PAGES_H

#include "qemu/queue.h"
#include "qemu/thread.h"
#include "migration/ram/region.h"

/* Some target pages, together one page of the host; g_free() frees all of it */
typedef struct KeptPage {
    QSIMPLEQ_ENTRY(KeptPage) next;
    const RamRegion *region;
    uint64_t first;
    uint64_t count;
    uint8_t bytes[];
} KeptPage;

typedef struct KeptPages {
    QemuMutex lock;             /* of all below */
    QSIMPLEQ_HEAD(, KeptPage) list;
    uint64_t bytes;             /* in the list */
    uint64_t limit;             /* of them */
    uint64_t made;              /* copies so far */
} KeptPages;

typedef enum KeptResult {
    KEPT_COPIED,                /* it is the caller's to release */
    KEPT_NOT_MINE,              /* somebody else saves it, or has done so */
    KEPT_NO_ROOM,               /* it has to be saved first */
} KeptResult;

/* @limit: bytes that may be kept at a time; 0: none */
void kept_pages_init(KeptPages *k, uint64_t limit);
void kept_pages_destroy(KeptPages *k);

/*
 * Copies the page of the host that @page of @r is in, unless it is clean.
 * Nobody writes to it until it is released.  RCU, and the region is here.
 */
KeptResult kept_pages_copy(KeptPages *k, const RamRegion *r, uint64_t page);

/* The oldest copy, which is the caller's now, or NULL */
KeptPage *kept_pages_take(KeptPages *k);

#endif
