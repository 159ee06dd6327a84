/*
 * The bandwidth limit as the base's migration thread keeps to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * That thread sends until it has sent a window's worth, waits for the end of
 * the window, and starts the next with migration_rate_reset().  base/limit.c
 * takes the place of this file together with the thread's.
 */

#include "qemu/osdep.h"
#include "migration/migration-stats.h"
#include "migration/qemu-file.h"

#define WINDOWS_PER_S (1000 / BUFFER_DELAY)

void migration_rate_reset(void)
{
    stat64_set(&mig_stats.rate_limit_start, migration_transferred_bytes());
}

bool migration_rate_exceeded(QEMUFile *f)
{
    uint64_t limit = migration_rate_get();
    uint64_t before = stat64_get(&mig_stats.rate_limit_start);

    return qemu_file_get_error(f) ||
           (limit != RATE_LIMIT_DISABLED &&
            migration_transferred_bytes() - before > limit / WINDOWS_PER_S);
}
