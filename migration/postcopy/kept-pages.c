/*
 * Pages that were copied before somebody writes to them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "migration/ram/dirty-claim.h"
#include "requests.h"
#include "kept-pages.h"

void kept_pages_init(KeptPages *k, uint64_t limit)
{
    qemu_mutex_init(&k->lock);
    QSIMPLEQ_INIT(&k->list);
    k->bytes = k->made = 0;
    k->limit = limit;
}

void kept_pages_destroy(KeptPages *k)
{
    KeptPage *kept;

    while ((kept = kept_pages_take(k))) {
        g_free(kept);
    }
    qemu_mutex_destroy(&k->lock);
}

static uint64_t kept_bytes(const KeptPage *kept)
{
    return kept->count << kept->region->page_bits;
}

KeptResult kept_pages_copy(KeptPages *k, const RamRegion *r, uint64_t page)
{
    uint64_t unit = postcopy_unit(r);
    uint64_t bytes = unit << r->page_bits;
    uint64_t first = QEMU_ALIGN_DOWN(page, unit), count;
    KeptPage *kept;

    QEMU_LOCK_GUARD(&k->lock);
    if (k->bytes + bytes > k->limit) {
        return KEPT_NO_ROOM;
    }
    kept = g_try_malloc(sizeof(*kept) + bytes);
    if (!kept) {
        return KEPT_NO_ROOM;
    }
    count = dirty_map_claim(r->map, first, unit);
    if (!count) {
        g_free(kept);
        return KEPT_NOT_MINE;
    }
    kept->region = r;
    kept->first = first;
    kept->count = count;
    memcpy(kept->bytes, ram_region_page(r, first), kept_bytes(kept));
    QSIMPLEQ_INSERT_TAIL(&k->list, kept, next);
    k->bytes += kept_bytes(kept);
    k->made++;
    return KEPT_COPIED;
}

KeptPage *kept_pages_take(KeptPages *k)
{
    KeptPage *kept;

    QEMU_LOCK_GUARD(&k->lock);
    kept = QSIMPLEQ_FIRST(&k->list);
    if (kept) {
        QSIMPLEQ_REMOVE_HEAD(&k->list, next);
        k->bytes -= kept_bytes(kept);
    }
    return kept;
}
