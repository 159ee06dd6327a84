/*
 * What a migration has sent so far, and how fast it may send
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The counters are shown by `query-migrate`.  Each may be added to and read by
 * any thread; two of them read one after the other need not match.  They are
 * set to zero when a migration starts and keep their values after its end.
 */

#ifndef MIGRATION_BASE_STATS_H
#define MIGRATION_BASE_STATS_H

#include "qemu/stats64.h"
#include "migration/qemu-file-types.h"

/* A limit of this means none. */
#define RATE_LIMIT_DISABLED 0

typedef struct MigrationCounters {
#define RAM_COUNTER(counter, ...) Stat64 counter;
#include "ram-stats.def"

    Stat64 dirty_bytes_last_sync;       /* found by the last sync, and left */

    /* bytes of everything, by the way they took; and multifd_bytes */
    Stat64 qemu_file_transferred;
    Stat64 rdma_bytes;

    /* bytes a second; what base/limit.c keeps to */
    Stat64 rate_limit_max;
} MigrationCounters;

extern MigrationCounters mig_stats;

/* Bytes sent since the counters were set to zero, whichever way they took */
uint64_t migration_transferred_bytes(void);

/*
 * migration_rate_exceeded(), which qemu-file-types.h has for devices: whether
 * the migration has to pause.  True if it is ahead of the limit, or if the
 * file has an error: then there is nothing to go on with.  Migration thread.
 */

/*
 * How long to wait before migration_rate_exceeded() is to be asked again; 0
 * if the migration need not pause.  Migration thread.
 */
uint64_t migration_rate_wait_ns(void);

/*
 * What migration_transferred_bytes() may become within @ns from now, without
 * anybody looking at the clock; UINT64_MAX: no limit.  Migration thread.
 */
uint64_t migration_rate_end(int64_t ns);

/*
 * Limit the migration to @limit bytes a second from now on;
 * RATE_LIMIT_DISABLED for no limit.  Any thread.
 */
void migration_rate_set(uint64_t limit);

/* The limit, in bytes a second; any thread */
uint64_t migration_rate_get(void);

/* What was sent before does not count any more.  Migration thread. */
void migration_rate_reset(void);

#endif
