/*
 * A machine's memory, as far as migration/ needs one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/memory.h"
#include "exec/page-vary.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "migration/cpr.h"
#include "migration/misc.h"
#include "migration/ram/target.h"
#include "fake-guest.h"
#include "fake-memory.h"

const TargetPageBits target_page = {
    .decided = true,
    .bits = GUEST_PAGE_BITS,
    .mask = -(int)GUEST_PAGE_SIZE,
};

RAMList ram_list;
unsigned int global_dirty_tracking;

static uint8_t *guest_memory;
static RAMBlock blocks[2];
static MemoryRegion mrs[2];

/* The log of the pages of all memory; under the lock */
static struct {
    QemuMutex lock;
    unsigned long *dirty;       /* what the log has recorded, */
    unsigned long *seen;        /* and a collection has shown */
    unsigned long *protected;   /* the next write to it is recorded */
} page_log;

/*
 * The blocks
 */

static void add_block(unsigned i, const char *name, size_t offset, size_t pages)
{
    RAMBlock *rb = &blocks[i];

    *rb = (RAMBlock) {
        .mr = &mrs[i],
        .host = guest_memory + offset,
        .offset = offset,
        .used_length = pages * GUEST_PAGE_SIZE,
        .max_length = pages * GUEST_PAGE_SIZE,
        .flags = RAM_MIGRATABLE,
        .fd = -1,
        .guest_memfd = -1,
        .page_size = qemu_real_host_page_size(),
    };
    pstrcpy(rb->idstr, sizeof(rb->idstr), name);
    mrs[i].ram_block = rb;
    mrs[i].addr = offset;
    QLIST_INSERT_HEAD_RCU(&ram_list.blocks, rb, next);
}

static void init_bitmap(void)
{
    DirtyMemoryBlocks *all = g_malloc0(sizeof(*all) + sizeof(all->blocks[0]));

    all->blocks[0] = bitmap_new(DIRTY_MEMORY_BLOCK_SIZE);
    /* A block begins with all of its bits set. */
    bitmap_set(all->blocks[0], 0, GUEST_PAGES);
    ram_list.dirty_memory[DIRTY_MEMORY_MIGRATION] = all;
}

void memory_init(bool filled)
{
    guest_memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert(guest_memory != MAP_FAILED);
    if (filled) {
        guest_fill(guest_memory);
    }
    qemu_mutex_init(&page_log.lock);
    page_log.dirty = bitmap_new(GUEST_PAGES);
    page_log.seen = bitmap_new(GUEST_PAGES);
    page_log.protected = bitmap_new(GUEST_PAGES);
    qemu_mutex_init(&ram_list.mutex);
    init_bitmap();
    add_block(1, "rom", GUEST_RAM_PAGES * GUEST_PAGE_SIZE, GUEST_ROM_PAGES);
    add_block(0, "pc.ram", 0, GUEST_RAM_PAGES);
}

void memory_copy(uint8_t *to)
{
    memcpy(to, guest_memory, GUEST_BYTES);
}

/*
 * Writes
 */

/* One that is about to be made, under the lock of the log */
static void record_write(size_t page)
{
    if (test_and_clear_bit(page, page_log.protected)) {
        set_bit(page, page_log.dirty);
    }
}

/*
 * A guest does not ask who reads its memory meanwhile: the dirty log is what
 * keeps a copy of half a write from being the last one.
 */
#define LIKE_A_GUEST __attribute__((no_sanitize("thread"), noinline))

static uint64_t LIKE_A_GUEST load_word(size_t offset)
{
    return *(uint64_t *)(guest_memory + offset);
}

static void LIKE_A_GUEST store_word(size_t offset, uint64_t value)
{
    *(uint64_t *)(guest_memory + offset) = value;
}

/* Whoever has to wait for the page does so before it is recorded. */
void memory_guest_step(uint64_t n)
{
    size_t offset = guest_step_offset(n);
    uint64_t value = guest_step_value(n, load_word(offset));

    QEMU_LOCK_GUARD(&page_log.lock);
    record_write(offset / GUEST_PAGE_SIZE);
    store_word(offset, value);
}

uint64_t memory_device_read(size_t offset)
{
    return load_word(offset);
}

void memory_device_write(size_t offset, uint64_t value)
{
    RAMBlock *rb = &blocks[offset >= blocks[1].offset];

    g_assert(bql_locked());
    store_word(offset, value);
    ram_target_log_write(rb, offset - rb->offset, sizeof(value));
}

/*
 * The log
 */

static unsigned long *migration_bitmap(void)
{
    return ram_list.dirty_memory[DIRTY_MEMORY_MIGRATION]->blocks[0];
}

bool memory_is_logged(void)
{
    return global_dirty_tracking;
}

bool memory_global_dirty_log_start(unsigned int flags, Error **errp)
{
    g_assert(bql_locked());
    QEMU_LOCK_GUARD(&page_log.lock);
    if (!global_dirty_tracking) {
        bitmap_set(page_log.dirty, 0, GUEST_PAGES);
        bitmap_zero(page_log.seen, GUEST_PAGES);
        bitmap_zero(page_log.protected, GUEST_PAGES);
    }
    global_dirty_tracking |= flags;
    return true;
}

void memory_global_dirty_log_stop(unsigned int flags)
{
    g_assert(bql_locked());
    g_assert(global_dirty_tracking & flags);
    QEMU_LOCK_GUARD(&page_log.lock);
    global_dirty_tracking &= ~flags;
    if (!global_dirty_tracking) {
        bitmap_zero(page_log.protected, GUEST_PAGES);
    }
}

void memory_global_dirty_log_sync(bool last_stage)
{
    unsigned long *bitmap = migration_bitmap();

    g_assert(bql_locked());
    g_assert(global_dirty_tracking);
    QEMU_LOCK_GUARD(&page_log.lock);
    for (size_t i = 0; i < BITS_TO_LONGS(GUEST_PAGES); i++) {
        page_log.seen[i] |= page_log.dirty[i];
        qatomic_or(&bitmap[i], page_log.dirty[i]);
    }
}

void memory_global_after_dirty_log_sync(void)
{
}

void memory_region_clear_dirty_bitmap(MemoryRegion *mr, hwaddr start,
                                      hwaddr len)
{
    size_t page = (mr->ram_block->offset + start) >> GUEST_PAGE_BITS;
    size_t end = MIN(page + (len >> GUEST_PAGE_BITS), GUEST_PAGES);

    QEMU_LOCK_GUARD(&page_log.lock);
    for (; page < end; page++) {
        if (test_and_clear_bit(page, page_log.seen)) {
            clear_bit(page, page_log.dirty);
            set_bit(page, page_log.protected);
        }
    }
}

/*
 * What files for one target do in the emulator
 */

int ram_target_resize(RAMBlock *rb, uint64_t bytes, Error **errp)
{
    if (bytes != rb->used_length) {
        error_setg(errp, "Size mismatch: %s", rb->idstr);
        return -EINVAL;
    }
    return 0;
}

void ram_target_write_back(RAMBlock *rb)
{
}

void ram_target_log_write(RAMBlock *rb, uint64_t start, uint64_t length)
{
    uint64_t first = (rb->offset + start) >> GUEST_PAGE_BITS;
    uint64_t end = DIV_ROUND_UP(rb->offset + start + length, GUEST_PAGE_SIZE);

    bitmap_set_atomic(migration_bitmap(), first, end - first);
}

void ram_target_look_at_log(RAMBlock *rb, uint64_t bytes)
{
}

/*
 * What the rest of QEMU has to say of RAM blocks
 */

int qemu_target_page_bits_min(void)
{
    return GUEST_PAGE_BITS;
}

int ram_block_discard_range(RAMBlock *rb, uint64_t start, size_t length)
{
    if (madvise(rb->host + start, length, MADV_DONTNEED)) {
        return -errno;
    }
    migration_ram_discarded(rb, start, length);
    return 0;
}

void ram_block_notifier_add(RAMBlockNotifier *n)
{
}

void ram_block_notifier_remove(RAMBlockNotifier *n)
{
}

bool qemu_ram_is_migratable(RAMBlock *rb)
{
    return rb->flags & RAM_MIGRATABLE;
}

bool qemu_ram_is_shared(RAMBlock *rb)
{
    return rb->flags & RAM_SHARED;
}

bool qemu_ram_is_named_file(RAMBlock *rb)
{
    return false;
}

size_t qemu_ram_pagesize(RAMBlock *rb)
{
    return rb->page_size;
}

const char *qemu_ram_get_idstr(RAMBlock *rb)
{
    return rb->idstr;
}

void qemu_ram_set_idstr(RAMBlock *rb, const char *name, DeviceState *dev)
{
    g_assert_not_reached();
}

void qemu_ram_unset_idstr(RAMBlock *rb)
{
    g_assert_not_reached();
}

void qemu_ram_set_migratable(RAMBlock *rb)
{
    g_assert_not_reached();
}

void qemu_ram_unset_migratable(RAMBlock *rb)
{
    g_assert_not_reached();
}

void ram_block_add_cpr_blocker(RAMBlock *rb, Error **errp)
{
    g_assert_not_reached();
}

void ram_block_del_cpr_blocker(RAMBlock *rb)
{
    g_assert_not_reached();
}

const char *memory_region_name(const MemoryRegion *mr)
{
    return mr->ram_block->idstr;
}

/* Nothing of this machine's memory is plugged in parts. */

RamDiscardManager *memory_region_get_ram_discard_manager(MemoryRegion *mr)
{
    return NULL;
}

uint64_t ram_discard_manager_get_min_granularity(const RamDiscardManager *rdm,
                                                 const MemoryRegion *mr)
{
    g_assert_not_reached();
}

bool ram_discard_manager_is_populated(const RamDiscardManager *rdm,
                                      const MemoryRegionSection *section)
{
    g_assert_not_reached();
}

int ram_discard_manager_replay_populated(const RamDiscardManager *rdm,
                                         MemoryRegionSection *section,
                                         ReplayRamPopulate replay_fn,
                                         void *opaque)
{
    g_assert_not_reached();
}
