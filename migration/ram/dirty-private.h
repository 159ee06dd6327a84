/*
 * The dirty map: its tables, for the two files that implement it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_DIRTY_PRIVATE_H
#define MIGRATION_RAM_DIRTY_PRIVATE_H

#include "qemu/thread.h"
#include "dirty.h"

#define WORD_PAGES 64
#define GROUP_PAGES 4096
#define GROUP_WORDS (GROUP_PAGES / WORD_PAGES)

typedef struct Tables {
    uint64_t pages;
    uint64_t *words;            /* a bit a page */
    uint16_t *in_group;         /* dirty pages of each group */
    unsigned long *groups;      /* a bit a group */
    unsigned long *stale;       /* a bit a chunk */
} Tables;

struct DirtyMap {
    QemuMutex lock;
    Tables t;
    unsigned long dirty;        /* read without the lock; atomic in claims */
    unsigned chunk_shift;
    DirtyLogClearFn *clear_log;
    void *opaque;
};

#endif
