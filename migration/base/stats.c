/*
 * What a migration has sent so far
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/trace.h"
#include "stats.h"

MigrationCounters mig_stats;

uint64_t migration_transferred_bytes(void)
{
    uint64_t stream = stat64_get(&mig_stats.qemu_file_transferred);
    uint64_t multifd = stat64_get(&mig_stats.multifd_bytes);
    uint64_t rdma = stat64_get(&mig_stats.rdma_bytes);

    trace_migration_transferred_bytes(stream, multifd, rdma);
    return stream + multifd + rdma;
}

/* The migration thread looks for it; no word has to reach it otherwise. */
void migration_rate_set(uint64_t limit)
{
    stat64_set(&mig_stats.rate_limit_max, limit);
}

uint64_t migration_rate_get(void)
{
    return stat64_get(&mig_stats.rate_limit_max);
}
