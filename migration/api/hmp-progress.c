/*
 * Migration in the human monitor: how far a migration is, and why
 *
 * Lines for each member of the object `progress`.  Nothing is rounded, so that
 * both monitors can be compared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hmp-progress.h"

static void print_number(Monitor *mon, const char *label, uint64_t value,
                         const char *unit)
{
    monitor_printf(mon, "%s: %" PRIu64 "%s%s\n", label, value, *unit ? " " : "",
                   unit);
}

static void print_range(Monitor *mon, const char *label, uint64_t likely,
                        uint64_t low, bool has_high, uint64_t high,
                        const char *unit)
{
    monitor_printf(mon, "%s: %" PRIu64 " %s (%" PRIu64, label, likely, unit,
                   low);
    if (has_high) {
        monitor_printf(mon, " to %" PRIu64 ")\n", high);
    } else {
        monitor_printf(mon, " or more)\n");
    }
}

static void print_parts(Monitor *mon, const char *label,
                        const MigrationDowntimePartList *parts)
{
    if (!parts) {
        return;
    }
    monitor_printf(mon, "%s: ", label);
    for (; parts; parts = parts->next) {
        monitor_printf(mon, "%s %" PRIu64 " us%s", parts->value->name,
                       parts->value->us, parts->next ? ", " : "\n");
    }
}

static void print_eta(Monitor *mon, const MigrationEta *eta)
{
    if (eta) {
        print_range(mon, "time left", eta->likely_ms, eta->low_ms,
                    eta->has_high_ms, eta->high_ms, "ms");
    }
}

static void print_prediction(Monitor *mon, const MigrationDowntimePrediction *p)
{
    if (p) {
        print_range(mon, "predicted downtime", p->likely_us, p->low_us,
                    p->has_high_us, p->high_us, "us");
        print_parts(mon, "predicted downtime, parts", p->parts);
    }
}

static void print_stall(Monitor *mon, const MigrationStall *stall)
{
    if (stall) {
        monitor_printf(mon, "stalls: %" PRIu64 ", total %" PRIu64 " us, "
                       "longest %" PRIu64 " us during %s\n", stall->count,
                       stall->total_us, stall->longest_us, stall->step);
    }
}

static void print_downtime(Monitor *mon, const MigrationDowntime *downtime)
{
    if (downtime) {
        print_number(mon, "downtime, total", downtime->total_us, "us");
        print_parts(mon, "downtime, parts", downtime->parts);
        print_parts(mon, "slowest devices, saved", downtime->slowest_saved);
        print_parts(mon, "slowest devices, loaded", downtime->slowest_loaded);
    }
}

static void print_strict(Monitor *mon, const MigrationStrictDowntime *strict)
{
    if (strict) {
        monitor_printf(mon, "strict downtime: attempt %" PRIu32 " of %" PRIu32
                       "%s\n", strict->attempts, strict->attempts_max,
                       strict->one_sided ? ", one-sided" : "");
        if (strict->why) {
            monitor_printf(mon, "strict downtime, last attempt: %s\n",
                           strict->why);
        }
    }
}

static void print_peer(Monitor *mon, const MigrationPeer *peer)
{
    if (peer) {
        monitor_printf(mon, "peer: version %u", peer->version);
        for (const strList *f = peer->features; f; f = f->next) {
            monitor_printf(mon, "%s %s", f == peer->features ? "," : "",
                           f->value);
        }
        monitor_printf(mon, "\n");
    }
}

static void print_served(Monitor *mon, const MigrationPageRequests *served)
{
    if (!served) {
        return;
    }
#define SERVED(member, label) print_number(mon, label, served->member, "pages");
#include "migration/postcopy/served.def"
}

static void print_channels(Monitor *mon,
                           const MigrationChannelStatsList *channels)
{
    for (const char *sep = "channels: "; channels; sep = "; ") {
        const MigrationChannelStats *c = channels->value;

        channels = channels->next;
        monitor_printf(mon, "%s%u wrote %" PRIu64 " bytes for %" PRIu64
                       " bytes of memory, busy %u %%, compression %s", sep,
                       c->id, c->bytes, c->memory, c->busy,
                       MultiFDCompression_str(c->compression));
        if (c->has_level) {
            monitor_printf(mon, " at level %d", c->level);
        }
        monitor_printf(mon, ", ratio %u %%%s", c->ratio, channels ? "" : "\n");
    }
}

static void print_histogram(Monitor *mon, const uint64List *bucket)
{
    if (!bucket) {
        return;
    }
    monitor_printf(mon, "wait for memory, histogram:");
    for (; bucket; bucket = bucket->next) {
        monitor_printf(mon, " %" PRIu64, bucket->value);
    }
    monitor_printf(mon, "\n");
}

static void print_faults(Monitor *mon, const MigrationPageFaults *faults)
{
    if (!faults) {
        return;
    }
    print_number(mon, "memory waited for", faults->count, "times");
    print_number(mon, "requests for memory", faults->requests, "");
    print_number(mon, "wait for memory, mean", faults->mean_us, "us");
    print_number(mon, "wait for memory, p50", faults->p50_us, "us");
    print_number(mon, "wait for memory, p90", faults->p90_us, "us");
    print_number(mon, "wait for memory, p99", faults->p99_us, "us");
    print_number(mon, "wait for memory, longest", faults->max_us, "us");
    print_histogram(mon, faults->histogram);
}

void hmp_print_progress(Monitor *mon, const MigrationProgress *progress)
{
    if (!progress) {
        return;
    }
    monitor_printf(mon, "phase: %s\n", MigrationPhase_str(progress->phase));
    if (progress->has_percent) {
        print_number(mon, "percent", progress->percent, "");
    }
    print_eta(mon, progress->eta);
    print_prediction(mon, progress->predicted_downtime);
    if (progress->has_bandwidth) {
        print_number(mon, "bandwidth", progress->bandwidth, "bytes/s");
    }
    if (progress->has_dirty_rate) {
        print_number(mon, "dirty rate", progress->dirty_rate, "bytes/s");
    }
    if (progress->decision) {
        monitor_printf(mon, "decision: %s\n", progress->decision);
    }
    print_stall(mon, progress->stall);
    print_downtime(mon, progress->downtime);
    print_strict(mon, progress->strict);
    print_peer(mon, progress->peer);
    print_channels(mon, progress->channels);
    print_served(mon, progress->served);
    print_faults(mon, progress->faults);
}
