/*
 * The thread that reads faults and has the pages requested
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "migration/base/turns.h"
#include "migration/migration.h"
#include "migration/trace.h"
#include "fault-thread.h"
#include "shared.h"

/* Faults taken at once */
#define BATCH 16

/* Descriptors that are ours; those of other processes follow. */
enum { OF_MEMORY, OF_WAKE, FIRST_SHARED };

static RamRegion *fault_thread_find_region(const RamRegions *regions,
                                           uint64_t address, uint64_t *start)
{
    /* Also in one that was unplugged: it is mapped while somebody waits. */
    RAM_REGIONS_FOREACH(r, regions) {
        uint64_t offset = address - (uintptr_t)r->host;

        if (!r->ignored && address >= (uintptr_t)r->host &&
            offset < r->max_pages << r->page_bits) {
            *start = QEMU_ALIGN_DOWN(offset, r->host_page_size);
            return r;
        }
    }
    return NULL;
}

/* It has come: it need not be mapped where it was touched. */
static bool let_go_on(PlaceMemory *memory, RamRegion *region, uint64_t start,
                      bool minor, Error **errp)
{
    uint64_t size = region->host_page_size;

    if (!minor) {
        return place_what_came(memory, region, start / size, errp);
    }
    ufd_place(memory->ufd, UFD_CONTINUE, region->host + start, NULL, size,
              size);
    return true;
}

static void fault_thread_serve(FaultThread *t, const UfdFault *fault)
{
    PlaceMemory *memory = t->memory;
    Error *err = NULL;
    uint64_t start;
    RamRegion *r = fault_thread_find_region(memory->regions, fault->address,
                                            &start);
    ReceivedMap *map;
    bool ok = true;

    if (!r) {
        error_report("postcopy: a fault at 0x%" PRIx64 ", where the guest has "
                     "no memory", fault->address);
        return;
    }
    trace_postcopy_ram_fault_thread_request(fault->address, r->name, start,
                                            fault->thread);
    map = &memory->blocks[r->index].map;
    if (received_test(map, start >> r->page_bits)) {
        ok = let_go_on(memory, r, start, fault->minor, &err);
    } else if (t->never_comes && t->never_comes(r, start)) {
        ok = place_zero_page(memory, r, start / r->host_page_size, &err);
    } else if (!faults_note(memory->faults, r, map, start / r->host_page_size,
                            fault->thread)) {
        ok = let_go_on(memory, r, start, fault->minor, &err);
    }
    if (!ok) {
        error_report_err(err);
    }
}

/* False if the descriptor is of no more use. */
static bool read_faults(FaultThread *t)
{
    UfdFault faults[BATCH];
    int count = ufd_read(t->memory->ufd, faults, BATCH);

    if (count < 0) {
        error_report("postcopy: cannot read which pages are missing: %s",
                     strerror(-count));
        return false;
    }
    for (int i = 0; i < count; i++) {
        fault_thread_serve(t, &faults[i]);
    }
    return true;
}

/* Where events are no descriptors there is no userfaultfd either. */
static int wake_fd(FaultThread *t)
{
#ifdef CONFIG_POSIX
    return event_notifier_get_fd(&t->wake);
#else
    return -1;
#endif
}

/* Those who share memory with us */
static void add_shared(GArray *pollfds)
{
    g_autoptr(GArray) fds = shared_list();

    for (unsigned i = 0; i < fds->len; i++) {
        GPollFD pfd = {
            .fd = g_array_index(fds, int, i), .events = G_IO_IN,
        };

        g_array_append_val(pollfds, pfd);
    }
}

static RamRegion *fault_thread_region_of(PlaceMemory *memory, RAMBlock *rb,
                                         uint64_t offset)
{
    RAM_REGIONS_FOREACH_SENT(r, memory->regions) {
        if (r->rb == rb && offset < memory->blocks[r->index].bytes) {
            return r;
        }
    }
    return NULL;
}

/* Another process waits.  It is woken by hand, as it has pages of its own. */
static void serve_process(void *opaque, const SharedFault *fault)
{
    FaultThread *t = opaque;
    PlaceMemory *memory = t->memory;
    RamRegion *r = fault_thread_region_of(memory, fault->rb, fault->offset);
    Error *err = NULL;
    uint64_t page, start;
    bool ok;

    if (!r) {
        error_report("postcopy: %s requests a page at 0x%" PRIx64 " of memory "
                     "that is not migrated", fault->who, fault->offset);
        return;
    }
    trace_postcopy_request_shared_page(fault->who, r->name, fault->offset);
    page = fault->offset / r->host_page_size;
    start = page * r->host_page_size;
    if (t->never_comes && t->never_comes(r, start)) {
        ok = place_zero_page(memory, r, page, &err);
    } else if (faults_note(memory->faults, r, &memory->blocks[r->index].map,
                           page, FAULTS_OTHER_PROCESS)) {
        return;
    } else {
        ok = place_what_came(memory, r, page, &err);
    }
    if (!ok) {
        error_report_err(err);
        return;
    }
    trace_postcopy_request_shared_page_present(fault->who, r->name,
                                               fault->offset);
    shared_wake(r->rb, r->host_page_size, start, r->host_page_size);
}

static void serve_shared(FaultThread *t, GArray *pollfds)
{
    for (unsigned i = FIRST_SHARED; i < pollfds->len; i++) {
        GPollFD pfd = g_array_index(pollfds, GPollFD, i);

        if (pfd.revents & G_IO_IN) {
            shared_serve(pfd.fd, serve_process, t);
        } else if (pfd.revents) {
            shared_lost(pfd.fd);
        }
    }
}

/* Waits for something to do, and does it. False at the end. */
static bool fault_thread_turn(FaultThread *t)
{
    g_autoptr(GArray) pollfds = g_array_new(false, false,
                                            sizeof(GPollFD));
    GPollFD own[FIRST_SHARED] = {
        [OF_MEMORY] = { .fd = t->memory->ufd, .events = G_IO_IN },
        [OF_WAKE] = { .fd = wake_fd(t), .events = G_IO_IN },
    };
    GPollFD *pfd;

    g_array_append_vals(pollfds, own, FIRST_SHARED);
    add_shared(pollfds);
    pfd = (GPollFD *)pollfds->data;
    if (RETRY_ON_EINTR(g_poll(pfd, pollfds->len, -1)) < 0) {
        error_report("postcopy: cannot wait for faults: %s", strerror(errno));
        return false;
    }
    if (pfd[OF_WAKE].revents) {
        event_notifier_test_and_clear(&t->wake);
    }
    if (pfd[OF_MEMORY].revents && !read_faults(t)) {
        return false;
    }
    serve_shared(t, pollfds);
    return !qatomic_read(&t->quit);
}

static void *fault_thread(void *opaque)
{
    trace_postcopy_ram_fault_thread_entry();
    rcu_register_thread();
    turns_short();
    while (fault_thread_turn(opaque)) {
        /* more to come */
    }
    rcu_unregister_thread();
    trace_postcopy_ram_fault_thread_exit();
    return NULL;
}

bool fault_thread_start(FaultThread *t, Error **errp)
{
    int ret = event_notifier_init(&t->wake, false);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Cannot make an event descriptor");
        return false;
    }
    t->started = true;
    qemu_thread_create(&t->thread, MIGRATION_THREAD_DST_FAULT, fault_thread, t,
                       QEMU_THREAD_JOINABLE);
    return true;
}

void fault_thread_stop(FaultThread *t)
{
    if (!t->started) {
        return;
    }
    qatomic_set(&t->quit, true);
    event_notifier_set(&t->wake);
    qemu_thread_join(&t->thread);
    event_notifier_cleanup(&t->wake);
    t->started = false;
}
