/*
 * Changes to loaded memory that the loader did not make
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/misc.h"
#include "migration/trace.h"
#include "load.h"
#include "load-watch.h"
#include "sync.h"
#include "target.h"

static bool watching;           /* atomic */

static void forget_run(void *opaque, uint64_t first, uint64_t count)
{
    /* The bitmap has forgotten it already. */
}

bool ram_watch_start(Error **errp)
{
    if (watching) {
        return true;
    }
    if (!ram_log_start(errp)) {
        return false;
    }
    /* A block begins with all of its bits set. */
    RAM_REGIONS_FOREACH_SENT(r, ram_load_regions()) {
        ram_log_take(r, forget_run, NULL);
    }
    qatomic_set(&watching, true);
    return true;
}

/* The changes of one region, as they are collected */
typedef struct Collection {
    const RamRegion *region;
    GArray *changes;
    unsigned found;             /* of this region */
} Collection;

static void collect_run(void *opaque, uint64_t first, uint64_t count)
{
    Collection *c = opaque;
    RamChange change = { c->region, first, count };
    RamChange *last;

    if (c->found < RAM_CHANGES_MAX) {
        c->found++;
        g_array_append_val(c->changes, change);
        return;
    }
    last = &g_array_index(c->changes, RamChange, c->changes->len - 1);
    last->count = first + count - last->first;
}

GArray *ram_watch_take(void)
{
    GArray *changes = g_array_new(false, false, sizeof(RamChange));

    if (!watching) {
        return changes;
    }
    RAM_REGIONS_FOREACH_SENT(r, ram_load_regions()) {
        Collection c = { .region = r, .changes = changes };

        ram_log_take(r, collect_run, &c);
    }
    return changes;
}

void ram_watch_stop(void)
{
    if (watching) {
        qatomic_set(&watching, false);
        ram_log_stop();
    }
}

/* This thread discards for the loader. */
static __thread bool loader_discards;

int ram_watch_loader_discards(RAMBlock *rb, uint64_t start, uint64_t length)
{
    int ret;

    loader_discards = true;
    ret = ram_block_discard_range(rb, start, length);
    loader_discards = false;
    return ret;
}

/* Any thread */
void migration_ram_discarded(RAMBlock *rb, uint64_t start, uint64_t length)
{
    if (qatomic_read(&watching) && !loader_discards) {
        ram_target_log_write(rb, start, length);
    }
}
