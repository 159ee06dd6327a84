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
#include "hints.h"

static NotifierWithReturnList notifiers;

/*
 * The regions hints are about.  The lock is held while a hint is applied, so
 * that they do not go away meanwhile.
 */
static struct {
    QemuMutex lock;
    RamRegions *regions;        /* NULL: no RAM is being sent */
} hints;

static void __attribute__((constructor)) init_lock(void)
{
    qemu_mutex_init(&hints.lock);
}

void precopy_infrastructure_init(void)
{
    notifier_with_return_list_init(&notifiers);
}

void precopy_add_notifier(NotifierWithReturn *n)
{
    notifier_with_return_list_add(&notifiers, n);
}

void precopy_remove_notifier(NotifierWithReturn *n)
{
    notifier_with_return_remove(n);
}

int precopy_notify(PrecopyNotifyReason reason, Error **errp)
{
    PrecopyNotifyData data = { .reason = reason };

    return notifier_with_return_list_notify(&notifiers, &data, errp);
}

void ram_hints_begin(RamRegions *regions)
{
    QEMU_LOCK_GUARD(&hints.lock);
    hints.regions = regions;
}

void ram_hints_end(void)
{
    ram_hints_begin(NULL);
}

/* A device that cannot be told makes hints worse, not the migration wrong. */
static void notify_around_sync(PrecopyNotifyReason reason)
{
    Error *err = NULL;

    if (QLIST_EMPTY(&notifiers.notifiers)) {
        return;
    }
    BQL_LOCK_GUARD();
    if (precopy_notify(reason, &err)) {
        error_report_err(err);
    }
}

void ram_hints_stop(void)
{
    notify_around_sync(PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC);
}

void ram_hints_go_on(void)
{
    notify_around_sync(PRECOPY_NOTIFY_AFTER_BITMAP_SYNC);
}

/* Drop what of [@addr, @addr + @len) is whole pages of @r. */
static void drop_pages(RamRegion *r, const uint8_t *addr, size_t len)
{
    uint64_t page_size = ram_region_page_size(r);
    uintptr_t host = (uintptr_t)r->host, from = (uintptr_t)addr;
    uint64_t start, end;

    if (from + len <= host || from >= host + ram_region_bytes(r)) {
        return;
    }
    start = from > host ? from - host : 0;
    end = MIN(from + len - host, ram_region_bytes(r));
    start = DIV_ROUND_UP(start, page_size);
    end /= page_size;
    if (start < end) {
        dirty_map_drop(r->map, start, end - start);
    }
}

void qemu_guest_free_page_hint(void *addr, size_t len)
{
    QEMU_LOCK_GUARD(&hints.lock);
    RCU_READ_LOCK_GUARD();
    if (!hints.regions) {
        return;
    }
    RAM_REGIONS_FOREACH_SENT(r, hints.regions) {
        drop_pages(r, addr, len);
    }
}
