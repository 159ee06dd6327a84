/*
 * The destination of a postcopy of RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/madvise.h"
#include "qemu/mmap-alloc.h"
#include "qemu/rcu.h"
#include "exec/cpu-common.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/postcopy-ram.h"
#include "migration/ram.h"
#include "migration/ram/load.h"
#include "migration/ram/load-watch.h"
#include "migration/trace.h"
#include "system/system.h"
#include "dest.h"
#include "fault-thread.h"
#include "forget.h"
#include "mapping.h"
#include "shared.h"
#include "support.h"

static struct {
    bool advised;               /* what follows is there */
    bool unlocked;              /* memory that was locked is not any more */
    bool emptied;               /* huge pages are off */
    bool from_file;             /* several threads may bring a page */
    bool listening;
    bool seen;                  /* faults are there, also after the end */
    SupportHost host;
    PlaceMemory memory;
    Placer main, urgent;        /* channels */
    Placer *others;             /* those of multifd; or NULL */
    unsigned other_count;
    Faults faults;
    FaultThread thread;
} dest = { .memory.ufd = -1 };

static PlaceBlock *postcopy_load_block_of(const RamRegion *region)
{
    return &dest.memory.blocks[region->index];
}

/*
 * Is it possible?
 */

static SupportKind kind_of(RAMBlock *rb)
{
    if (rb->fd < 0) {
        return SUPPORT_ANON;
    }
    switch (qemu_fd_getfs(rb->fd)) {
    case QEMU_FS_TYPE_TMPFS:
        return SUPPORT_SHMEM;
    case QEMU_FS_TYPE_HUGETLBFS:
        return SUPPORT_HUGETLB;
    default:
        return SUPPORT_OTHER_FILE;
    }
}

static SupportBlock facts_of(RAMBlock *rb)
{
    return (SupportBlock) {
        .name = *rb->idstr ? rb->idstr : memory_region_name(rb->mr),
        .kind = kind_of(rb),
        .bytes = rb->used_length,
        .page_size = rb->page_size,
        .read_only = rb->flags & (RAM_READONLY | RAM_READONLY_FD),
        .shared = qemu_ram_is_shared(rb),
    };
}

static bool blocks_are_possible(const SupportHost *host, Error **errp)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        SupportBlock facts = facts_of(rb);

        if (!support_block(host, &facts, errp)) {
            return false;
        }
    }
    return true;
}

static bool possible(SupportHost *host, Error **errp)
{
    support_look(host, qemu_target_page_size());
    return support_host(host, errp) && blocks_are_possible(host, errp) &&
           shared_notify(POSTCOPY_NOTIFY_PROBE, errp);
}

bool postcopy_possible_here(Error **errp)
{
    SupportHost host;

    return possible(&host, errp);
}

/*
 * Before the guest runs
 */

static bool discard(RamRegion *r, uint64_t start, uint64_t len, Error **errp)
{
    int ret = ram_watch_loader_discards(r->rb, start, len);

    if (ret) {
        error_setg_errno(errp, -ret, "RAM block '%s': cannot give back %"
                         PRIu64 " bytes at 0x%" PRIx64, r->name, len, start);
        return false;
    }
    return true;
}

static void postcopy_load_arrived(void *opaque, RamRegion *r, uint64_t page,
                                  uint64_t pages)
{
    received_set(&postcopy_load_block_of(r)->map, page, pages);
}

static const RamPagesOps precopy_pages = { .arrived = postcopy_load_arrived };

static uint64_t all_page_sizes(const RamRegions *regions)
{
    uint64_t sizes = 0;

    RAM_REGIONS_FOREACH_SENT(r, regions) {
        sizes |= r->host_page_size;
    }
    return sizes;
}

static bool check_sizes(const RamRegions *regions, uint64_t host_page_sizes,
                        uint64_t target_page_size, Error **errp)
{
    uint64_t here = all_page_sizes(regions);

    if (target_page_size != qemu_target_page_size()) {
        error_setg(errp, "The target's page size is %" PRIu64 " on the source "
                   "and %zu here; they must be the same", target_page_size,
                   qemu_target_page_size());
        return false;
    }
    if (host_page_sizes != here) {
        error_setg(errp, "The source's memory has page sizes 0x%" PRIx64
                   ", that of this side 0x%" PRIx64 "; both must have the same "
                   "memory backends", host_page_sizes, here);
        return false;
    }
    return true;
}

/*
 * What the machine has put into its memory, such as firmware, comes from the
 * source.  What is never sent as nobody ever wrote there has to be empty.
 */
static bool make_empty(RamRegion *r, Error **errp)
{
    uint64_t bytes = r->max_pages << r->page_bits;
    unsigned shift = ctz64(r->host_page_size) - r->page_bits;

    trace_postcopy_init_range(r->name, r->host, 0, bytes);
    if (!received_init(&postcopy_load_block_of(r)->map, r->max_pages, shift)) {
        error_setg(errp, "RAM block '%s': there is no memory for a bitmap",
                   r->name);
        return false;
    }
    return discard(r, 0, QEMU_ALIGN_DOWN(bytes, r->host_page_size), errp);
}

static bool lay_out(RamRegions *regions, Error **errp)
{
    PlaceMemory *memory = &dest.memory;

    *memory = (PlaceMemory) {
        .regions = regions, .ufd = -1, .faults = &dest.faults,
        .blocks = g_new0(PlaceBlock, regions->count),
    };
    dest.advised = true;
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        memory->largest_page = MAX(memory->largest_page, r->host_page_size);
        if (!make_empty(r, errp)) {
            return false;
        }
    }
    return true;
}

static bool prepare_memory(RamRegions *regions, Error **errp)
{
    /* Locked memory is never missing; dest_end() locks it again. */
    dest.unlocked = should_mlock(mlock_state);
    if (!mapping_unlock_all()) {
        error_setg_errno(errp, errno, "Cannot unlock the memory");
        return false;
    }
    if (!shared_notify(POSTCOPY_NOTIFY_INBOUND_ADVISE, errp) ||
        !lay_out(regions, errp)) {
        return false;
    }
    ram_load_divert(&precopy_pages, NULL);
    return true;
}

bool dest_advise(uint64_t host_page_sizes, uint64_t target_page_size,
                 Error **errp)
{
    RamRegions *regions = ram_load_regions();

    assert(!dest.advised);
    dest.from_file = false;
    return possible(&dest.host, errp) &&
           check_sizes(regions, host_page_sizes, target_page_size, errp) &&
           prepare_memory(regions, errp);
}

bool dest_advise_file(Error **errp)
{
    assert(!dest.advised);
    dest.from_file = true;
    return possible(&dest.host, errp) &&
           prepare_memory(ram_load_regions(), errp);
}

PlaceMemory *dest_memory(void)
{
    return &dest.memory;
}

/* A huge page would bring back what is to be missing around a small one. */
static void without_huge_pages(void)
{
    if (dest.emptied) {
        return;
    }
    dest.emptied = true;
    RAM_REGIONS_FOREACH_SENT(r, dest.memory.regions) {
        uint64_t bytes = ram_region_bytes(r);

        trace_postcopy_nhp_range(r->name, r->host, 0, bytes);
        qemu_madvise(r->host, bytes, QEMU_MADV_NOHUGEPAGE);
    }
}

static bool postcopy_load_forget(void *opaque, RamRegion *r, uint64_t start,
                                 uint64_t len, Error **errp)
{
    received_clear(&postcopy_load_block_of(r)->map, start >> r->page_bits,
                   len >> r->page_bits);
    return true;
}

bool coroutine_mixed_fn dest_forget(QEMUFile *f, uint16_t len, Error **errp)
{
    return forget_load(f, len, dest.memory.regions, postcopy_load_forget, NULL,
                       errp);
}

/*
 * Pages are given back no earlier than when they are watched: whoever reads one
 * in between, a display for instance, would leave a page of zeros there, and
 * what comes for a page that is there already is discarded.
 */
static bool postcopy_load_give_back(RamRegion *r, Error **errp)
{
    const PlaceBlock *b = postcopy_load_block_of(r);
    uint64_t size = r->host_page_size, end = b->bytes / size, count;
    uint64_t page = received_missing(&b->map, 0, end, &count);

    for (; page < end;
         page = received_missing(&b->map, page + count, end, &count)) {
        if (!discard(r, page * size, count * size, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * While pages may be missing
 */

static bool take_data(void *opaque, QEMUFile *f, RamRegion *r, uint64_t page,
                      uint64_t pages, Error **errp)
{
    return placer_data(opaque, f, r, page, pages, errp);
}

static bool take_zeros(void *opaque, RamRegion *r, uint64_t page,
                       uint64_t pages, Error **errp)
{
    return placer_zero(opaque, r, page, pages, errp);
}

const RamPagesOps dest_channel_pages = {
    .data = take_data, .zeros = take_zeros,
};

static void wake_others(void *opaque, const RamRegion *r, uint64_t start,
                        uint64_t len)
{
    RCU_READ_LOCK_GUARD();
    if (ram_region_here(r)) {
        shared_wake(r->rb, r->host_page_size, start, len);
    }
}

/*
 * Memory that the guest was never given has no content.  A device that manages
 * memory in parts is not unplugged before all of them are.
 */
static bool never_comes(const RamRegion *r, uint64_t start)
{
    MemoryRegionSection section = {
        .offset_within_region = start,
        .size = int128_make64(r->host_page_size),
    };

    RCU_READ_LOCK_GUARD();
    if (!postcopy_load_block_of(r)->managed || !ram_region_here(r)) {
        return false;
    }
    section.mr = r->rb->mr;
    return !ram_discard_manager_is_populated(
        memory_region_get_ram_discard_manager(section.mr), &section);
}

/*
 * Small pages are copied by the kernel at no more than it costs to write them
 * by a second mapping; large ones would be written twice.  Where two threads
 * may bring the same page, the one that comes late must not write to what the
 * guest has already.
 */
static uint8_t *map_again(const RamRegion *r)
{
    SupportBlock facts = facts_of(r->rb);

    if (r->host_page_size == dest.host.page_size || dest.from_file ||
        shared_any() ||
        !support_continue(&dest.host, &facts)) {
        return NULL;
    }
    return mapping_again(r->rb->fd, r->rb->fd_offset, ram_region_bytes(r));
}

/* For the thread that is told of faults */
static void look_at(RamRegion *r)
{
    PlaceBlock *b = postcopy_load_block_of(r);

    b->managed = memory_region_has_ram_discard_manager(r->rb->mr);
    b->alias = map_again(r);
    b->ways = 0;
}

static bool watch(RamRegion *r, Error **errp)
{
    ERRP_GUARD();
    PlaceBlock *b = postcopy_load_block_of(r);
    uint64_t bytes = ROUND_UP(ram_region_bytes(r), r->host_page_size);
    unsigned ways;

    if (!ufd_register(dest.memory.ufd, r->host, bytes, b->alias, &ways,
                      errp)) {
        error_prepend(errp, "RAM block '%s': ", r->name);
        return false;
    }
    qatomic_set(&b->ways, ways);
    b->bytes = bytes;
    if (!(ways & (1u << UFD_COPY))) {
        error_setg(errp, "RAM block '%s': the kernel cannot put pages in place "
                   "there", r->name);
        return false;
    }
    return true;
}

/*
 * Numbers of vCPUs can be anything below what the machine may have, or more if
 * it does not say: some are plugged in, or given with -device.
 */
static Blocktime measure_vcpus(void)
{
    const CpuTopology *smp = &MACHINE(qdev_get_machine())->smp;
    unsigned present = 0, count = smp->cpus;
    Blocktime blocktime;
    CPUState *cpu;

    if (!migrate_postcopy_blocktime() || !dest.host.ufd.thread_id) {
        blocktime_init(&blocktime, 0, 0, 0);
        return blocktime;
    }
    CPU_FOREACH(cpu) {
        present++;
        count = MAX(count, (unsigned)cpu->cpu_index + 1);
    }
    blocktime_init(&blocktime, present, count, MAX(count, smp->max_cpus));
    return blocktime;
}

static bool make_channels(unsigned channels, Error **errp)
{
    PlaceMemory *memory = &dest.memory;
    void *zeros = mapping_zeros(memory->largest_page, false);

    if (!zeros) {
        error_setg_errno(errp, errno, "Cannot map %" PRIu64 " bytes of zeros",
                         memory->largest_page);
        return false;
    }
    memory->zeros = zeros;
    dest.others = g_new0(Placer, channels);
    dest.other_count = channels;
    for (unsigned i = 0; i < channels; i++) {
        if (!placer_init(&dest.others[i], memory, errp)) {
            return false;
        }
    }
    return placer_init(&dest.main, memory, errp) &&
           placer_init(&dest.urgent, memory, errp);
}

void *dest_channel(unsigned i)
{
    assert(i < dest.other_count);
    return &dest.others[i];
}

bool dest_listen(const FaultsOps *ops, unsigned channels, Error **errp)
{
    PlaceMemory *memory = &dest.memory;

    without_huge_pages();
    if (dest.seen) {
        faults_destroy(&dest.faults);
    }
    faults_init(&dest.faults, ops, NULL, measure_vcpus());
    dest.seen = true;
    memory->placed = wake_others;
    memory->ufd = ufd_open(errp);
    if (memory->ufd < 0 || !make_channels(channels, errp)) {
        return false;
    }
    dest.thread = (FaultThread) {
        .memory = memory, .never_comes = never_comes,
    };
    RAM_REGIONS_FOREACH_SENT(r, memory->regions) {
        look_at(r);
    }
    /* Without the thread nobody could help who touches a page from here on. */
    if (!fault_thread_start(&dest.thread, errp)) {
        return false;
    }
    dest.listening = true;
    shared_set_missing(true);
    RAM_REGIONS_FOREACH_SENT(r, memory->regions) {
        if (!watch(r, errp) || !postcopy_load_give_back(r, errp)) {
            return false;
        }
    }
    trace_postcopy_ram_enable_notify();
    if (!shared_notify(POSTCOPY_NOTIFY_INBOUND_LISTEN, errp)) {
        return false;
    }
    ram_load_divert(&dest_channel_pages, &dest.main);
    return true;
}

bool dest_listens(void)
{
    return dest.listening;
}

bool dest_load_urgent(QEMUFile *f, Error **errp)
{
    return ram_load_channel(f, &dest_channel_pages, &dest.urgent, errp);
}

void dest_give_way(bool on, bool early)
{
    dest.main.gives_way = on;
    dest.main.gives_way_early = early;
    for (unsigned i = 0; i < dest.other_count; i++) {
        dest.others[i].gives_way = on;
        dest.others[i].gives_way_early = true;
    }
}

void dest_resume(void)
{
    faults_resume(&dest.faults);
}

void dest_pause(void)
{
    faults_pause(&dest.faults);
}

void dest_reset_channels(void)
{
    placer_reset(&dest.main);
    placer_reset(&dest.urgent);
    for (unsigned i = 0; i < dest.other_count; i++) {
        placer_reset(&dest.others[i]);
    }
}

bool dest_wait(void)
{
    return faults_wait(&dest.faults);
}

void dest_give_up(void)
{
    faults_give_up(&dest.faults);
}

/*
 * The end
 */

static void let_be(RamRegion *r)
{
    PlaceBlock *b = postcopy_load_block_of(r);
    Error *err = NULL;

    if (b->bytes) {
        trace_postcopy_cleanup_range(r->name, r->host, 0, b->bytes);
        if (ram_region_here(r) &&
            !ufd_unregister(dest.memory.ufd, r->host, b->bytes, &err)) {
            warn_report_err(err);
        }
        b->bytes = 0;
    }
    mapping_end(b->alias, ram_region_bytes(r));
    b->alias = NULL;
}

static void free_channels(void)
{
    PlaceMemory *memory = &dest.memory;

    placer_destroy(&dest.main);
    placer_destroy(&dest.urgent);
    for (unsigned i = 0; i < dest.other_count; i++) {
        placer_destroy(&dest.others[i]);
    }
    g_clear_pointer(&dest.others, g_free);
    dest.other_count = 0;
    mapping_end(memory->zeros, memory->largest_page);
    memory->zeros = NULL;
}

/*
 * Whatever was requested may come or not: the source has it dirty, so it is
 * sent or discarded again before it matters.
 */
bool dest_unlisten(Error **errp)
{
    faults_pause(&dest.faults);
    dest_unregister();
    faults_forget(&dest.faults);
    if (shared_any()) {
        error_setg(errp, "Another process has the guest's memory mapped, and "
                   "cannot go back from postcopy");
        return false;
    }
    ram_load_divert(&precopy_pages, NULL);
    free_channels();
    shared_set_missing(false);
    dest.listening = false;
    return true;
}

void dest_unregister(void)
{
    PlaceMemory *memory = &dest.memory;

    if (!dest.advised || memory->ufd < 0) {
        return;
    }
    trace_postcopy_ram_incoming_cleanup_entry();
    fault_thread_stop(&dest.thread);
    trace_postcopy_ram_incoming_cleanup_join();
    RAM_REGIONS_FOREACH(r, memory->regions) {
        let_be(r);
    }
    close(memory->ufd);
    memory->ufd = -1;
    trace_postcopy_ram_incoming_cleanup_closeuf();
}

static void postcopy_load_tell_end(void)
{
    Error *err = NULL;

    if (!shared_notify(POSTCOPY_NOTIFY_INBOUND_END, &err)) {
        warn_report_err(err);
    }
}

static void with_huge_pages(void)
{
    if (dest.emptied) {
        RAM_REGIONS_FOREACH_SENT(r, dest.memory.regions) {
            qemu_madvise(r->host, ram_region_bytes(r), QEMU_MADV_HUGEPAGE);
        }
        dest.emptied = false;
    }
}

/* However far it came: ADVISE may have failed after it was unlocked. */
static void lock_again(void)
{
    if (dest.unlocked && os_mlock(is_mlock_on_fault(mlock_state)) < 0) {
        warn_report("Cannot lock the memory again: %s", strerror(errno));
    }
    dest.unlocked = false;
}

static void throw_away(void)
{
    PlaceMemory *memory = &dest.memory;

    for (unsigned i = 0; i < memory->regions->count; i++) {
        received_destroy(&memory->blocks[i].map);
    }
    g_clear_pointer(&memory->blocks, g_free);
    free_channels();
}

void dest_end(void)
{
    if (!dest.advised) {
        lock_again();
        return;
    }
    dest_unregister();
    ram_load_divert(NULL, NULL);
    if (dest.listening) {
        shared_set_missing(false);
        postcopy_load_tell_end();
        dest.listening = false;
    }
    with_huge_pages();
    lock_again();
    throw_away();
    dest.advised = false;
    trace_postcopy_ram_incoming_cleanup_exit();
}

/*
 * Questions
 */

static RamRegion *find_block(const char *name)
{
    RamRegion *r = dest.advised ? ram_regions_find(dest.memory.regions, name)
                                : NULL;

    return r && !r->ignored ? r : NULL;
}

bool dest_knows(const char *name)
{
    return find_block(name);
}

bool dest_put_received(const char *name, QEMUFile *f)
{
    RamRegion *r = find_block(name);

    if (r) {
        received_put(&postcopy_load_block_of(r)->map,
                     postcopy_load_block_of(r)->bytes >> r->page_bits, f);
    }
    return r;
}

/* Pages in a row of which all are sent or none is */
static uint64_t pages_alike(const RamRegion *r)
{
    MemoryRegion *mr;

    RCU_READ_LOCK_GUARD();
    if (!postcopy_load_block_of(r)->managed || !ram_region_here(r)) {
        return UINT64_MAX;
    }
    mr = r->rb->mr;
    return MAX(ram_discard_manager_get_min_granularity(
                   memory_region_get_ram_discard_manager(mr), mr) >>
               r->page_bits, 1);
}

/* As dest_missing(), of one region */
static uint64_t missing_of(const RamRegion *r)
{
    const PlaceBlock *b = postcopy_load_block_of(r);
    uint64_t end = MIN(ram_region_bytes(r), b->bytes) >> r->page_bits;
    uint64_t alike = pages_alike(r), count = 0, n, lacking;

    for (uint64_t page = 0; page < end; page += n) {
        n = MIN(alike, end - page);
        lacking = received_lacking(&b->map, page, page + n);
        if (lacking && !never_comes(r, page << r->page_bits)) {
            count += lacking;
        }
    }
    return count;
}

uint64_t dest_missing(const char **block)
{
    uint64_t all = 0;

    *block = NULL;
    RAM_REGIONS_FOREACH_SENT(r, dest.memory.regions) {
        uint64_t count = missing_of(r);

        if (count && !all) {
            *block = r->name;
        }
        all += count;
    }
    return all;
}

bool dest_waits(uint32_t thread)
{
    return dest.listening && faults_waits(&dest.faults, thread);
}

bool dest_look(FaultsView *view)
{
    if (dest.seen) {
        faults_look(&dest.faults, view);
    }
    return dest.seen;
}

void dest_blocktime(FaultsBlocktime *time)
{
    *time = (FaultsBlocktime) {};
    if (dest.seen && dest.faults.blocktime.possible) {
        faults_blocktime(&dest.faults, time);
    }
}

/*
 * Processes that share memory
 */

int postcopy_wake_shared(struct PostCopyFD *shared, uint64_t client_addr,
                         RAMBlock *rb)
{
    uint64_t size = qemu_ram_pagesize(rb);
    uint64_t at = QEMU_ALIGN_DOWN(client_addr, size);

    trace_postcopy_wake_shared(client_addr, qemu_ram_get_idstr(rb));
    return ufd_wake(shared->fd, (void *)(uintptr_t)at, size);
}
