/*
 * The bandwidth limit of the migration that runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All channels count what they send (stats.h); here the sum is held against
 * the limit, by the migration thread alone, so that channels need no lock.
 */

#include "qemu/osdep.h"
#include "migration/base/clock.h"
#include "rate.h"
#include "stats.h"

static struct {
    Rate rate;
    uint64_t spent;         /* bytes that rate knows of */
} limit;

/* What was sent until now, @sent bytes, does not count. */
static void limit_start_over(uint64_t bytes_per_s, uint64_t sent)
{
    rate_set(&limit.rate, bytes_per_s);
    limit.spent = sent;
}

void migration_rate_reset(void)
{
    limit_start_over(migration_rate_get(), migration_transferred_bytes());
}

uint64_t migration_rate_wait_ns(void)
{
    uint64_t bytes_per_s = migration_rate_get();
    uint64_t sent = migration_transferred_bytes();
    int64_t now;

    /* Counters that went back are those of another migration. */
    if (bytes_per_s != limit.rate.bytes_per_s || sent < limit.spent) {
        limit_start_over(bytes_per_s, sent);
    }
    if (bytes_per_s == RATE_LIMIT_DISABLED) {
        return 0;
    }
    now = now_ns();
    rate_spend(&limit.rate, sent - limit.spent, now);
    limit.spent = sent;
    return rate_wait_ns(&limit.rate, now);
}

uint64_t migration_rate_end(int64_t ns)
{
    uint64_t room;

    migration_rate_wait_ns();           /* rate knows of all that was sent */
    room = rate_room(&limit.rate, now_ns(), ns);
    return room == UINT64_MAX ? UINT64_MAX : limit.spent + room;
}
