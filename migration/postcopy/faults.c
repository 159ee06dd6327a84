/*
 * Who waits for which page, since when, and which requests were sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "migration/base/clock.h"
#include "migration/trace.h"
#include "faults.h"

/* There are no more of these than threads: few enough to look at all. */
typedef struct FaultWaiter {
    RamRegion *region;
    ReceivedMap *map;
    uint64_t host_page;
    uint64_t since_us;
    int vcpu;                   /* or -1 */
    uint32_t thread;            /* see faults_note() */
} FaultWaiter;

static FaultWaiter *waiter(Faults *faults, unsigned i)
{
    return &g_array_index(faults->waiters, FaultWaiter, i);
}

void faults_init(Faults *faults, const FaultsOps *ops, void *opaque,
                 Blocktime blocktime)
{
    *faults = (Faults) {
        .ops = ops, .opaque = opaque, .blocktime = blocktime,
    };
    qemu_mutex_init(&faults->lock);
    qemu_cond_init(&faults->none);
    faults->waiters = g_array_new(false, false, sizeof(FaultWaiter));
}

void faults_destroy(Faults *faults)
{
    g_array_free(faults->waiters, true);
    blocktime_destroy(&faults->blocktime);
    qemu_cond_destroy(&faults->none);
    qemu_mutex_destroy(&faults->lock);
}

static uint8_t *faults_address_of(const RamRegion *region, uint64_t host_page)
{
    return region->host + host_page * region->host_page_size;
}

/* Under the lock. */
static void set_waiting(Faults *faults, unsigned waiting)
{
    faults->view.waiting = waiting;
    qatomic_set(&faults->some, waiting);
}

/* Somebody more waits. Whether the source has to be asked. */
static bool add_waiter(Faults *faults, FaultWaiter *w)
{
    QEMU_LOCK_GUARD(&faults->lock);
    g_array_append_val(faults->waiters, *w);
    if (w->vcpu >= 0) {
        blocktime_begin(&faults->blocktime, w->vcpu, w->since_us);
    }
    if (!requested_set(w->map, w->host_page)) {
        return false;
    }
    set_waiting(faults, faults->view.waiting + 1);
    trace_postcopy_page_req_add(faults_address_of(w->region, w->host_page),
                                faults->view.waiting);
    return faults->open;
}

/* All who wait for that page go on; under the lock. */
static void strike_off(Faults *faults, const RamRegion *region,
                       uint64_t host_page, uint64_t now)
{
    unsigned i = 0;

    while (i < faults->waiters->len) {
        FaultWaiter *w = waiter(faults, i);

        if (w->region != region || w->host_page != host_page) {
            i++;
            continue;
        }
        latency_add(&faults->view.latency, now - w->since_us);
        if (w->vcpu >= 0) {
            blocktime_end(&faults->blocktime, w->vcpu, now);
        } else {
            blocktime_other(&faults->blocktime, now - w->since_us);
        }
        g_array_remove_index_fast(faults->waiters, i);
    }
}

static void faults_settle(Faults *faults, const RamRegion *region,
                          ReceivedMap *map, uint64_t host_page)
{
    QEMU_LOCK_GUARD(&faults->lock);
    if (!requested_clear(map, host_page)) {
        return;
    }
    set_waiting(faults, faults->view.waiting - 1);
    qatomic_set(&faults->settled, faults->settled + 1);
    trace_postcopy_page_req_del(faults_address_of(region, host_page),
                                faults->view.waiting);
    strike_off(faults, region, host_page, now_us());
    if (!faults->view.waiting) {
        qemu_cond_broadcast(&faults->none);
    }
}

static void ask(Faults *faults, const RamRegion *region, uint64_t host_page)
{
    if (faults->ops->request(faults->opaque, region,
                             host_page * region->host_page_size,
                             region->host_page_size)) {
        QEMU_LOCK_GUARD(&faults->lock);
        faults->view.requests++;
    }
}

bool faults_note(Faults *faults, RamRegion *region, ReceivedMap *map,
                 uint64_t host_page, uint32_t thread)
{
    FaultWaiter w = {
        .region = region, .map = map, .host_page = host_page,
        .since_us = now_us(),
        .thread = thread,
        .vcpu = faults->blocktime.possible
                ? faults->ops->vcpu(faults->opaque, thread) : -1,
    };
    bool to_ask = add_waiter(faults, &w);

    /* See received.h: who puts it in place now sees that it is wanted. */
    if (received_test(map, host_page << map->host_shift)) {
        faults_settle(faults, region, map, host_page);
        return false;
    }
    if (to_ask) {
        ask(faults, region, host_page);
    }
    return true;
}

void faults_placed(Faults *faults, RamRegion *region, ReceivedMap *map,
                   uint64_t first, uint64_t count)
{
    uint64_t page = first >> map->host_shift;
    uint64_t end = (first + count) >> map->host_shift;

    received_set(map, first, count);
    for (page = requested_next(map, page, end); page < end;
         page = requested_next(map, page + 1, end)) {
        faults_settle(faults, region, map, page);
    }
}

void faults_pause(Faults *faults)
{
    QEMU_LOCK_GUARD(&faults->lock);
    faults->open = false;
}

void faults_forget(Faults *faults)
{
    QEMU_LOCK_GUARD(&faults->lock);
    while (faults->waiters->len) {
        FaultWaiter w = *waiter(faults, 0);

        requested_clear(w.map, w.host_page);
        strike_off(faults, w.region, w.host_page, now_us());
    }
    set_waiting(faults, 0);
    qemu_cond_broadcast(&faults->none);
}

static bool same_page(const FaultWaiter *a, const FaultWaiter *b)
{
    return a->region == b->region && a->host_page == b->host_page;
}

/* What is waited for, each page once */
static GArray *wanted(Faults *faults)
{
    GArray *list = g_array_new(false, false, sizeof(FaultWaiter));

    for (unsigned i = 0; i < faults->waiters->len; i++) {
        unsigned j = 0;

        while (j < i && !same_page(waiter(faults, i), waiter(faults, j))) {
            j++;
        }
        if (j == i) {
            g_array_append_val(list, *waiter(faults, i));
        }
    }
    return list;
}

void faults_resume(Faults *faults)
{
    g_autoptr(GArray) list = NULL;

    WITH_QEMU_LOCK_GUARD(&faults->lock) {
        faults->open = true;
        faults->given_up = false;
        list = wanted(faults);
    }
    for (unsigned i = 0; i < list->len; i++) {
        FaultWaiter *w = &g_array_index(list, FaultWaiter, i);

        trace_postcopy_page_req_sync(
            faults_address_of(w->region, w->host_page));
        ask(faults, w->region, w->host_page);
    }
}

bool faults_wait(Faults *faults)
{
    QEMU_LOCK_GUARD(&faults->lock);
    while (faults->view.waiting && !faults->given_up) {
        qemu_cond_wait(&faults->none, &faults->lock);
    }
    return !faults->given_up;
}

void faults_give_up(Faults *faults)
{
    QEMU_LOCK_GUARD(&faults->lock);
    faults->given_up = true;
    qemu_cond_broadcast(&faults->none);
}

bool faults_waits(Faults *faults, uint32_t thread)
{
    QEMU_LOCK_GUARD(&faults->lock);
    for (unsigned i = 0; i < faults->waiters->len; i++) {
        uint32_t who = waiter(faults, i)->thread;

        if (who == thread || !who) {
            return true;
        }
    }
    return false;
}

bool faults_some(const Faults *faults)
{
    return qatomic_read(&faults->some);
}

bool faults_settled(const Faults *faults, unsigned *seen)
{
    unsigned settled = qatomic_read(&faults->settled);
    bool more = settled != *seen;

    *seen = settled;
    return more;
}

void faults_look(Faults *faults, FaultsView *view)
{
    QEMU_LOCK_GUARD(&faults->lock);
    *view = faults->view;
}

void faults_blocktime(Faults *faults, FaultsBlocktime *time)
{
    const Blocktime *b = &faults->blocktime;

    QEMU_LOCK_GUARD(&faults->lock);
    *time = (FaultsBlocktime) {
        .all_ms = b->all_us / 1000,
        .others_ns = blocktime_others_ns(b),
        .count = b->count,
        .vcpus = g_new0(FaultsVcpu, b->count),
    };
    for (unsigned i = 0; i < b->count; i++) {
        time->vcpus[i] = (FaultsVcpu) {
            .blocked_ms = b->vcpus[i].total_us / 1000,
            .latency_ns = blocktime_vcpu_ns(b, i),
        };
    }
}
