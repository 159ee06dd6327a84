/*
 * The source: how fast it sends, as query-migrate shows it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "migration/base/clock.h"
#include "migration/migration-stats.h"
#include "migration/wire/stream.h"
#include "speed.h"
#include "state.h"

/* How often speeds are worked out */
#define SPEED_PERIOD_NS (100 * SCALE_MS)

/* What the last period began with; migration thread */
static struct {
    int64_t since_ns;
    uint64_t bytes;
    uint64_t pages;
} speed;

static uint64_t pages_sent(void)
{
    return stat64_get(&mig_stats.normal_pages) +
           stat64_get(&mig_stats.zero_pages);
}

static void start_period(int64_t now)
{
    speed.since_ns = now;
    speed.bytes = migration_transferred_bytes();
    speed.pages = pages_sent();
}

void speed_begin(void)
{
    start_period(now_ns());
}

/* How long nothing may be sent at the limit, since what was sent was a piece */
static int64_t silence_ns(void)
{
    uint64_t limit = migration_rate_get();

    return limit == RATE_LIMIT_DISABLED ? 0 :
           2 * (double)STREAM_BUDGET_MIN / limit * NANOSECONDS_PER_SECOND;
}

void speed_measure(void)
{
    int64_t now = now_ns();
    double seconds = (now - speed.since_ns) / 1e9;
    uint64_t bytes = migration_transferred_bytes() - speed.bytes;

    if (now - speed.since_ns < SPEED_PERIOD_NS ||
        (!bytes && now - speed.since_ns < silence_ns())) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.view.mbps = bytes * 8 / seconds / 1e6;
        source.view.pages_per_second = (pages_sent() - speed.pages) / seconds;
    }
    start_period(now);
}

void speed_show_average(void)
{
    QEMU_LOCK_GUARD(&source.lock);
    SourceView *view = &source.view;
    int64_t ms = now_ns() / SCALE_MS - view->start_ms - view->setup_ms;

    if (ms > 0) {
        view->mbps = migration_transferred_bytes() * 8.0 / ms / 1000;
    }
}
