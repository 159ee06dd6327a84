/*
 * The source: how fast it sends, as query-migrate shows it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "migration/base/clock.h"
#include "migration/base/speed-meter.h"
#include "migration/migration-stats.h"
#include "migration/wire/stream.h"
#include "speed.h"
#include "state.h"

static SpeedMeter meter;            /* migration thread */

static uint64_t pages_sent(void)
{
    return stat64_get(&mig_stats.normal_pages) +
           stat64_get(&mig_stats.zero_pages);
}

void speed_begin(void)
{
    speed_meter_begin(&meter, now_ns(), migration_transferred_bytes(),
                      pages_sent());
}

void speed_measure(void)
{
    uint64_t limit = migration_rate_get();

    limit = limit == RATE_LIMIT_DISABLED ? 0 : limit;
    if (speed_meter_measure(&meter, now_ns(), migration_transferred_bytes(),
                            pages_sent(), limit, STREAM_BUDGET_MIN)) {
        QEMU_LOCK_GUARD(&source.lock);
        source.view.mbps = meter.mbps;
        source.view.pages_per_second = meter.pages_per_second;
    }
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
