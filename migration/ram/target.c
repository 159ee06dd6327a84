/*
 * What of the machine's memory only files that are compiled for one target can
 * call
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/exec-all.h"
#include "exec/ram_addr.h"
#include "target.h"

int ram_target_resize(RAMBlock *rb, uint64_t bytes, Error **errp)
{
    return qemu_ram_resize(rb, bytes, errp);
}

void ram_target_write_back(RAMBlock *rb)
{
    qemu_ram_block_writeback(rb);
}

void ram_target_log_write(RAMBlock *rb, uint64_t start, uint64_t length)
{
    cpu_physical_memory_set_dirty_range(rb->offset + start, length,
                                        1 << DIRTY_MEMORY_MIGRATION);
}

void ram_target_wrote(RAMBlock *rb, uint64_t start, uint64_t length)
{
    ram_addr_t first = rb->offset + start;

    if (tcg_enabled()) {
        tb_invalidate_phys_range(first, first + length - 1);
    }
    cpu_physical_memory_set_dirty_range(first, length,
                                        DIRTY_CLIENTS_NOCODE);
}

void ram_target_look_at_log(RAMBlock *rb, uint64_t bytes)
{
    if (tcg_enabled()) {
        tlb_reset_dirty_range_all(rb->offset, bytes);
    }
}
