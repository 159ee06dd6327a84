/*
 * Memory as it is at one moment, while the guest goes on writing to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/madvise.h"
#include "qemu/rcu.h"
#include "migration/base/clock.h"
#include "migration/migration-stats.h"
#include "migration/ram/dirty.h"
#include "ufd.h"
#include "write-watch.h"

/* Faults taken at once */
#define FAULTS 16
/* How often it is looked whether pages are being saved, while one is awaited */
#define LOOK_MS 500
/* Bytes that are protected by one call while the guest runs */
#define ARM_BYTES (4ull << 20)
/*
 * Runs of pages that were written to are protected again while the guest runs
 * until there are no more than these; but not forever, as it goes on writing.
 */
#define ARM_RUNS 256
#define ARM_PASSES 4
/*
 * Pages that were written to shortly before the moment are likely to be written
 * to soon after it.  So many of them are copied while the guest is stopped, at
 * most: to copy one takes about 2 us, while whoever writes to one that is
 * protected waits until a thread has been woken.
 */
#define RECENT_PAGES 256

typedef struct WrittenPage {
    RamRegion *region;
    uint64_t page;
} WrittenPage;

static uint64_t protected_bytes(const RamRegion *r)
{
    return ROUND_UP(ram_region_bytes(r), r->host_page_size);
}

bool write_watch_possible(Error **errp)
{
    UfdSupport support;

    ufd_probe(&support);
    if (support.error == EPERM || support.error == EACCES) {
        error_setg_errno(errp, support.error, "Memory cannot be protected: "
                         "QEMU may not use userfaultfd; give it access to "
                         "/dev/userfaultfd, or set the sysctl "
                         "vm.unprivileged_userfaultfd to 1");
        return false;
    }
    if (support.error || !support.writes) {
        error_setg(errp, "Memory cannot be protected: the host's kernel has "
                   "no userfaultfd that does so, which Linux has since 5.7");
        return false;
    }
    return true;
}

/*
 * What faults
 */

/* Released together: a page of the host, or those that one of the target has */
static uint64_t unit_bytes(const RamRegion *r)
{
    return postcopy_unit(r) << r->page_bits;
}

static RamRegion *region_with(const RamRegions *regions, uint64_t address,
                              uint64_t *offset)
{
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        *offset = address - (uintptr_t)r->host;
        if (address >= (uintptr_t)r->host && *offset < ram_region_bytes(r)) {
            *offset = QEMU_ALIGN_DOWN(*offset, unit_bytes(r));
            return r;
        }
    }
    return NULL;
}

/* Huge pages are not copied. */
static void note_recent(WriteWatch *w, RamRegion *r, uint64_t page)
{
    if (r->host_page_size <= POSTCOPY_EARLY) {
        w->recent[w->recent_count++ % RECENT_PAGES] = (WrittenPage) { r, page };
    }
}

/*
 * Before the moment.  @page is the first of a unit.  Noted before it is
 * released, and under the lock: whoever takes the note finds the page released
 * or not at all.
 */
static bool release_before(WriteWatch *w, RamRegion *r, uint64_t page)
{
    int ret;

    QEMU_LOCK_GUARD(&w->lock);
    if (w->kept_from_now) {
        return false;
    }
    dirty_map_set(w->written[r->index], page,
                  MIN(postcopy_unit(r), r->pages - page));
    note_recent(w, r, page);
    ret = ufd_protect(w->ufd, ram_region_page(r, page), unit_bytes(r), false);
    if (ret) {
        qatomic_set(&w->error, ret);
    }
    return true;
}

/*
 * One that has been saved meanwhile was released then, and is not sent again.
 * True if whoever writes to it waits for the sender.
 */
static bool write_watch_fault(WriteWatch *w, const UfdFault *fault)
{
    uint64_t offset, page;
    RamRegion *r;

    RCU_READ_LOCK_GUARD();
    r = region_with(w->regions, fault->address, &offset);
    if (!r || !ram_region_here(r)) {
        return false;
    }
    page = offset >> r->page_bits;
    if (release_before(w, r, page)) {
        return false;
    }
    switch (kept_pages_copy(&w->kept, r, page)) {
    case KEPT_COPIED:
        stat64_add(&mig_stats.postcopy_requests, 1);
        write_watch_release(w, r, page, postcopy_unit(r));
        return false;
    case KEPT_NOT_MINE:
        /* Smaller ones are released before they are written. */
        return r->host_page_size > POSTCOPY_EARLY;
    default:
        postcopy_sender_ask(w->sender, r->name, offset, unit_bytes(r), NULL);
        return true;
    }
}

/*
 * *@waits: of some that were taken whoever wrote waits for the sender.  False
 * if some cannot be taken or released: who waits for that may have the BQL.
 */
static bool take_faults(WriteWatch *w, bool *waits)
{
    UfdFault faults[FAULTS];
    int count = ufd_read(w->ufd, faults, FAULTS);

    *waits = false;
    for (int i = 0; i < count; i++) {
        *waits |= write_watch_fault(w, &faults[i]);
    }
    if (count < 0) {
        qatomic_set(&w->error, count);
    }
    return !qatomic_read(&w->error);
}

/* All may write, and are seen no more. */
static void unprotect_all(WriteWatch *w)
{
    RCU_READ_LOCK_GUARD();
    RAM_REGIONS_FOREACH_SENT(r, w->regions) {
        if (!r->read_only && ram_region_here(r)) {
            ufd_unregister(w->ufd, r->host, protected_bytes(r), NULL);
        }
    }
}

/*
 * Somebody waits since @since_ms, who is served next.  A page that has been
 * saved since then may not have been that one, but it shows that all goes on.
 */
static bool watch_patience(WriteWatch *w, bool waited_for, int64_t *since_ms,
                           uint64_t *seen)
{
    uint64_t saved = stat64_get(&w->saved);

    if (saved != *seen || !waited_for) {
        *seen = saved;
        *since_ms = now_ms();
        return true;
    }
    return now_ms() - *since_ms < WRITE_WATCH_PATIENCE_MS;
}

static void *write_watch_thread(void *opaque)
{
    WriteWatch *w = opaque;
    bool waited_for = false, waits;
    int64_t since_ms = 0;
    uint64_t seen = UINT64_MAX;
    GPollFD fds[] = {
        { .fd = w->ufd, .events = G_IO_IN },
#ifdef CONFIG_POSIX
        { .fd = event_notifier_get_fd(&w->wake), .events = G_IO_IN },
#endif
    };

    rcu_register_thread();
    while (!qatomic_read(&w->quit)) {
        g_poll(fds, ARRAY_SIZE(fds), waited_for ? LOOK_MS : -1);
        waits = false;
        if (fds[0].revents && !take_faults(w, &waits)) {
            unprotect_all(w);
            break;
        }
        waited_for = waits || (waited_for && stat64_get(&w->saved) == seen);
        if (!watch_patience(w, waited_for, &since_ms, &seen)) {
            qatomic_set(&w->error, -ETIMEDOUT);
            unprotect_all(w);
            w->stuck();
            break;
        }
    }
    rcu_unregister_thread();
    return NULL;
}

/*
 * What is protected
 */

/*
 * An older kernel protects only pages that exist.  Those that do not read as
 * zero, and are made to exist by that.
 */
static int make_exist(void *at, uint64_t len)
{
#ifdef MADV_POPULATE_READ
    return madvise(at, len, MADV_POPULATE_READ) ? -errno : 0;
#else
    return -ENOSYS;
#endif
}

static bool protect_run(WriteWatch *w, const RamRegion *r, uint64_t first,
                        uint64_t count, bool populate, Error **errp)
{
    uint8_t *at = ram_region_page(r, first);
    uint64_t len = count << r->page_bits;
    uint64_t skip = (uintptr_t)at & (r->host_page_size - 1);
    int ret = 0;

    at -= skip;
    len = ROUND_UP(len + skip, r->host_page_size);
    if (populate) {
        ret = make_exist(at, len);
    }
    ret = ret ?: ufd_protect(w->ufd, at, len, true);
    if (ret) {
        error_setg_errno(errp, -ret, "RAM block '%s' cannot be protected",
                         r->name);
    }
    return !ret;
}

static bool register_all(WriteWatch *w, Error **errp)
{
    RCU_READ_LOCK_GUARD();
    RAM_REGIONS_FOREACH_SENT(r, w->regions) {
        if (!r->read_only && ram_region_here(r) &&
            !ufd_register_writes(w->ufd, r->host, protected_bytes(r), errp)) {
            error_prepend(errp, "RAM block '%s': ", r->name);
            return false;
        }
    }
    return true;
}

/* In pieces: nobody who changes the memory map waits for all of them. */
static bool arm_region(WriteWatch *w, const RamRegion *r, bool populate,
                       Error **errp)
{
    uint64_t most = MAX(ARM_BYTES, r->host_page_size) >> r->page_bits;
    uint64_t at = 0, first, count;

    while ((count = dirty_map_find(r->map, at, most, &first))) {
        RCU_READ_LOCK_GUARD();
        if (!ram_region_here(r)) {
            break;
        }
        if (!w->may_go_on(errp) ||
            !protect_run(w, r, first, count, populate, errp)) {
            return false;
        }
        at = first + count;
    }
    return true;
}

/* The next run that was written to; counts it in *@again. */
static bool protect_written_run(WriteWatch *w, const RamRegion *r, uint64_t *at,
                                bool populate, uint64_t *again, Error **errp)
{
    uint64_t first, count;

    RCU_READ_LOCK_GUARD();
    count = dirty_map_take(w->written[r->index], *at, UINT64_MAX, &first);
    *at = count ? first + count : r->pages;
    *again += count;
    return !count || !ram_region_here(r) ||
           protect_run(w, r, first, count, populate, errp);
}

static bool has_notes(const WriteWatch *w, const RamRegion *r)
{
    return !r->read_only && w->written[r->index];
}

/* How many runs were there; negative on failure */
static int64_t arm_again(WriteWatch *w, bool populate, Error **errp)
{
    int64_t runs = 0;
    uint64_t pages = 0;

    RAM_REGIONS_FOREACH_SENT(r, w->regions) {
        for (uint64_t at = 0; has_notes(w, r) && at < r->pages; runs++) {
            if (!w->may_go_on(errp)) {
                return -1;
            }
            QEMU_LOCK_GUARD(&w->lock);
            if (!protect_written_run(w, r, &at, populate, &pages, errp)) {
                return -1;
            }
        }
    }
    return runs;
}

static bool must_populate(void)
{
    UfdSupport support;

    ufd_probe(&support);
    return !support.missing_writes;
}

bool write_watch_arm(WriteWatch *w, Error **errp)
{
    bool populate = must_populate();
    int64_t runs = INT64_MAX;

    RAM_REGIONS_FOREACH_SENT(r, w->regions) {
        if (!r->read_only && !arm_region(w, r, populate, errp)) {
            return false;
        }
    }
    for (int i = 0; i < ARM_PASSES && runs > ARM_RUNS; i++) {
        runs = arm_again(w, populate, errp);
    }
    return runs >= 0 && write_watch_check(w, errp);
}

void write_watch_add(WriteWatch *w, RamRegion *r, uint64_t first,
                     uint64_t count)
{
    uint64_t unit = postcopy_unit(r), end = first + count;

    first = QEMU_ALIGN_DOWN(first, unit);
    end = MIN(QEMU_ALIGN_UP(end, unit), r->pages);
    dirty_map_set(r->map, first, end - first);
    QEMU_LOCK_GUARD(&w->lock);
    if (has_notes(w, r)) {
        dirty_map_set(w->written[r->index], first, end - first);
    }
}

/*
 * The guest is stopped, so they are as they are to be saved: nobody has to wait
 * for them later.  A page may be there twice; the second time it is clean.
 */
static void keep_recent(WriteWatch *w)
{
    RCU_READ_LOCK_GUARD();
    for (unsigned i = 0; i < MIN(w->recent_count, RECENT_PAGES); i++) {
        RamRegion *r = w->recent[i].region;
        uint64_t page = w->recent[i].page;
        uint64_t count = MIN(postcopy_unit(r), r->pages - page);

        if (ram_region_here(r) &&
            kept_pages_copy(&w->kept, r, page) == KEPT_COPIED) {
            dirty_map_drop(w->written[r->index], page, count);
            write_watch_release(w, r, page, count);
        }
    }
}

bool write_watch_moment(WriteWatch *w, uint64_t *again, Error **errp)
{
    bool populate = must_populate();
    uint64_t pages = 0;

    QEMU_LOCK_GUARD(&w->lock);
    w->kept_from_now = true;
    keep_recent(w);
    RAM_REGIONS_FOREACH_SENT(r, w->regions) {
        for (uint64_t at = 0; has_notes(w, r) && at < r->pages; ) {
            if (!protect_written_run(w, r, &at, populate, &pages, errp)) {
                return false;
            }
        }
    }
    if (again) {
        *again = pages;
    }
    return write_watch_check(w, errp);
}

/* To close it releases all that it protects. */
static void close_ufd(WriteWatch *w)
{
    close(w->ufd);
    w->ufd = -1;
}

/* No log of somebody else stands behind these maps. */
static bool make_notes(WriteWatch *w, Error **errp)
{
    w->written = g_new0(DirtyMap *, w->regions->count);
    RAM_REGIONS_FOREACH_SENT(r, w->regions) {
        DirtyMap **map = &w->written[r->index];

        *map = dirty_map_new(r->pages, DIRTY_CHUNK_SHIFT_MAX, NULL, NULL);
        if (!*map) {
            error_setg(errp, "There is no memory for what is written to RAM "
                       "block '%s'", r->name);
            return false;
        }
    }
    return true;
}

bool write_watch_begin(WriteWatch *w, Error **errp)
{
    int ret;

    w->quit = false;
    w->error = 0;
    w->kept_from_now = false;
    stat64_init(&w->saved, 0);
    kept_pages_init(&w->kept, w->keeps);
    qemu_mutex_init(&w->lock);
    w->recent = g_new(WrittenPage, RECENT_PAGES);
    w->recent_count = 0;
    w->ufd = -1;
    if (!make_notes(w, errp)) {
        return false;
    }
    w->ufd = ufd_open_for_writes(errp);
    if (w->ufd < 0) {
        return false;
    }
    ret = event_notifier_init(&w->wake, false);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Cannot make an event descriptor");
        close_ufd(w);
        return false;
    }
    if (!register_all(w, errp)) {
        close_ufd(w);
        event_notifier_cleanup(&w->wake);
        return false;
    }
    qemu_thread_create(&w->thread, "mig/src/writes", write_watch_thread, w,
                       QEMU_THREAD_JOINABLE);
    return true;
}

void write_watch_release(WriteWatch *w, const RamRegion *r, uint64_t first,
                         uint64_t count)
{
    int ret;

    if (r->read_only || !ram_region_here(r)) {
        return;
    }
    ret = ufd_protect(w->ufd, ram_region_page(r, first),
                      ROUND_UP(count << r->page_bits, r->host_page_size),
                      false);
    if (ret && !qatomic_read(&w->error)) {
        qatomic_set(&w->error, ret);
    }
    stat64_add(&w->saved, 1);
}

void write_watch_send_kept(WriteWatch *w, RamSender *via)
{
    KeptPage *kept;

    while ((kept = kept_pages_take(&w->kept))) {
        ram_sender_copies(via, kept->region, kept->first, kept->count,
                          kept->bytes);
        g_free(kept);
    }
    ram_sink_flush(via->sink);
}

bool write_watch_check(const WriteWatch *w, Error **errp)
{
    int ret = qatomic_read(&w->error);

    if (ret == -ETIMEDOUT) {
        error_setg(errp, "The guest waited for %d s to write to a page that "
                   "was to be saved first, and none was: what the snapshot is "
                   "written to does not take it",
                   WRITE_WATCH_PATIENCE_MS / 1000);
    } else if (ret) {
        error_setg_errno(errp, -ret, "The guest's memory cannot be watched "
                         "any more");
    }
    return !ret;
}

void write_watch_free(WriteWatch *w)
{
    for (unsigned i = 0; w->written && i < w->regions->count; i++) {
        dirty_map_free(w->written[i]);
    }
    g_clear_pointer(&w->written, g_free);
    g_clear_pointer(&w->recent, g_free);
    qemu_mutex_destroy(&w->lock);
    kept_pages_destroy(&w->kept);
}

void write_watch_end(WriteWatch *w)
{
    if (w->ufd < 0) {
        return;
    }
    qatomic_set(&w->quit, true);
    event_notifier_set(&w->wake);
    qemu_thread_join(&w->thread);
    close_ufd(w);
    event_notifier_cleanup(&w->wake);
}
