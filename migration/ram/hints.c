/*
 * Pages that the guest says it does not need
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "migration/misc.h"
#include "migration/trace.h"
#include "hints.h"

static NotifierWithReturnList precopy_notifiers;

/* Held while a hint is applied: so a round does not end meanwhile. */
static struct {
    QemuMutex lock;
    RamRegions *regions;        /* NULL: no RAM is being sent */
    bool open;                  /* a round is under way */
    uint64_t dropped, hinted;   /* bytes, in this round */
} hints;

static void __attribute__((constructor)) hints_init_lock(void)
{
    qemu_mutex_init(&hints.lock);
}

/*
 * Those who know of free pages
 */

void precopy_infrastructure_init(void)
{
    notifier_with_return_list_init(&precopy_notifiers);
}

void precopy_add_notifier(NotifierWithReturn *n)
{
    notifier_with_return_list_add(&precopy_notifiers, n);
}

void precopy_remove_notifier(NotifierWithReturn *n)
{
    notifier_with_return_remove(n);
}

int precopy_notify(PrecopyNotifyReason reason, Error **errp)
{
    PrecopyNotifyData data = { .reason = reason };

    return notifier_with_return_list_notify(&precopy_notifiers, &data, errp);
}

/* A device that cannot be told makes hints worse, not the migration wrong. */
static void notify_around_sync(PrecopyNotifyReason reason)
{
    Error *err = NULL;

    BQL_LOCK_GUARD();
    if (precopy_notify(reason, &err)) {
        error_report_err(err);
    }
}

/*
 * One that is plugged in just now is told after the next sync.  A snapshot has
 * no regions here: a page that is free now was not at its moment, perhaps.
 */
static bool somebody_listens(void)
{
    return hints.regions && !QLIST_EMPTY_RCU(&precopy_notifiers.notifiers);
}

/*
 * Rounds
 */

void ram_hints_begin(RamRegions *regions)
{
    QEMU_LOCK_GUARD(&hints.lock);
    hints.regions = regions;
    hints.open = false;
}

void ram_hints_end(void)
{
    ram_hints_begin(NULL);
}

void ram_hints_stop(void)
{
    if (!somebody_listens()) {
        return;
    }
    notify_around_sync(PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC);
    QEMU_LOCK_GUARD(&hints.lock);
    if (hints.open) {
        trace_ram_hints(hints.dropped, hints.hinted);
        hints.open = false;
    }
}

static void clear_logs(RamRegions *regions)
{
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        RCU_READ_LOCK_GUARD();
        if (ram_region_here(r)) {
            dirty_map_clear_log(r->map, 0, dirty_map_size(r->map));
        }
    }
}

void ram_hints_go_on(bool last)
{
    if (!somebody_listens()) {
        return;
    }
    if (!last) {
        clear_logs(hints.regions);
        WITH_QEMU_LOCK_GUARD(&hints.lock) {
            hints.dropped = 0;
            hints.hinted = 0;
            hints.open = true;
        }
    }
    notify_around_sync(PRECOPY_NOTIFY_AFTER_BITMAP_SYNC);
}

/*
 * Hints
 */

/* Forget what of [@from, @from + @len) is whole pages of @r.  Bytes. */
static uint64_t drop_pages(RamRegion *r, uintptr_t from, size_t len)
{
    uint64_t page_size = ram_region_page_size(r);
    uintptr_t host = (uintptr_t)r->host;
    uint64_t bytes = ram_region_bytes(r), start = 0, end;

    if (from >= host) {
        start = from - host;
        end = start + MIN(len, bytes - MIN(start, bytes));
    } else {
        end = len - MIN(len, host - from);
    }
    start = DIV_ROUND_UP(start, page_size);
    end = MIN(end, bytes) / page_size;
    if (start >= end) {
        return 0;
    }
    return dirty_map_hint(r->map, start, end - start) * page_size;
}

void qemu_guest_free_page_hint(void *addr, size_t len)
{
    QEMU_LOCK_GUARD(&hints.lock);
    RCU_READ_LOCK_GUARD();
    if (!hints.open) {
        return;
    }
    hints.hinted += len;
    RAM_REGIONS_FOREACH_SENT(r, hints.regions) {
        hints.dropped += drop_pages(r, (uintptr_t)addr, len);
    }
}
