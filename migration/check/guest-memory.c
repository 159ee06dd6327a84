/*
 * The guest's memory during a check of devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/units.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "migration/ram/blocks.h"
#include "migration/ram/keep.h"
#include "migration/ram/target.h"
#include "guest-memory.h"
#ifdef CONFIG_MALLOC_TRIM
#include <malloc.h>
#endif

struct GuestMemory {
    RamRegions regions;
    RamKept *kept;
    VmstateCheckStep step;
    VmstateMemoryChangeList *changes, **tail;
    unsigned count;
};

/*
 * Bytes of memory that the host can still give, as far as that is known.  A
 * process that takes more than there is may be ended, and the guest with it.
 */
static uint64_t host_available(void)
{
    g_autofree char *text = NULL;
    const char *line;
    uint64_t kib;

    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL)) {
        return UINT64_MAX;
    }
    line = strstr(text, "\nMemAvailable:");
    if (!line || sscanf(line, "\nMemAvailable: %" SCNu64 " kB", &kib) != 1) {
        return UINT64_MAX;
    }
    return kib * KiB;
}

typedef struct Unplugged {
    RamKept *kept;
    const RamRegion *r;
} Unplugged;

static void leave_out(MemoryRegionSection *part, void *opaque)
{
    Unplugged *u = opaque;
    unsigned bits = u->r->page_bits;

    ram_kept_leave_out(u->kept, u->r->index,
                       part->offset_within_region >> bits,
                       int128_get64(part->size) >> bits);
}

static void leave_out_unplugged(GuestMemory *m)
{
    RAM_REGIONS_FOREACH(r, &m->regions) {
        Unplugged u = { m->kept, r };
        MemoryRegion *mr = r->rb->mr;

        if (memory_region_has_ram_discard_manager(mr)) {
            ram_discard_manager_replay_discarded(
                memory_region_get_ram_discard_manager(mr),
                &(MemoryRegionSection) {
                    .mr = mr, .size = int128_make64(ram_region_bytes(r)),
                }, leave_out, &u);
        }
    }
}

static bool copy(GuestMemory *m, Error **errp)
{
    uint64_t needed, available;

    leave_out_unplugged(m);
    needed = ram_kept_estimate(m->kept);
    available = host_available();
    if (needed >= available) {
        error_setg(errp, "a copy of the guest's memory takes up to %" PRIu64
                   " MiB, and the host has %" PRIu64 " MiB available",
                   needed / MiB, available / MiB);
        return false;
    }
    return ram_kept_copy(m->kept, errp);
}

GuestMemory *guest_memory_keep(Error **errp)
{
    GuestMemory *m = g_new0(GuestMemory, 1);

    m->tail = &m->changes;
    ram_blocks_get(&m->regions);
    m->kept = ram_kept_new(&m->regions);
    if (!copy(m, errp)) {
        guest_memory_free(m);
        return NULL;
    }
    return m;
}

static void note_change(void *opaque, const RamRegion *r, uint64_t first,
                        uint64_t count)
{
    GuestMemory *m = opaque;
    VmstateMemoryChange *change;

    ram_target_wrote(r->rb, first << r->page_bits, count << r->page_bits);
    if (m->count++ >= MEMORY_CHANGES_MAX) {
        return;
    }
    change = g_new(VmstateMemoryChange, 1);
    *change = (VmstateMemoryChange) {
        .step = m->step, .block = g_strdup(r->name),
        .offset = first << r->page_bits, .size = count << r->page_bits,
    };
    QAPI_LIST_APPEND(m->tail, change);
}

void guest_memory_put_back(GuestMemory *m, VmstateCheckStep step)
{
    m->step = step;
    ram_kept_put_back(m->kept, note_change, m);
}

uint64_t guest_memory_bytes(const GuestMemory *m)
{
    return ram_kept_bytes(m->kept);
}

VmstateMemoryChangeList *guest_memory_changes(GuestMemory *m)
{
    m->tail = &m->changes;
    return g_steal_pointer(&m->changes);
}

void guest_memory_free(GuestMemory *m)
{
    if (!m) {
        return;
    }
    qapi_free_VmstateMemoryChangeList(m->changes);
    ram_kept_free(m->kept);
    ram_blocks_free(&m->regions);
    g_free(m);
#ifdef CONFIG_MALLOC_TRIM
    /* The copy was as large as the guest: the host is to have it back. */
    malloc_trim(0);
#endif
}
