/*
 * Migration in the human monitor: how far a migration is, and why
 *
 * One line for each member of the object `ferry`, in the order of its
 * declaration.  Nothing is rounded, so that both monitors can be compared.
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
                        const FerryPartList *parts)
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

static void print_eta(Monitor *mon, const FerryEta *eta)
{
    if (eta) {
        print_range(mon, "time left", eta->likely_ms, eta->low_ms,
                    eta->has_high_ms, eta->high_ms, "ms");
    }
}

static void print_prediction(Monitor *mon, const FerryPrediction *p)
{
    if (p) {
        print_range(mon, "predicted downtime", p->likely_us, p->low_us,
                    p->has_high_us, p->high_us, "us");
        print_parts(mon, "predicted downtime, parts", p->parts);
    }
}

static void print_stall(Monitor *mon, const FerryStall *stall)
{
    if (stall) {
        monitor_printf(mon, "stalls: %" PRIu64 ", total %" PRIu64 " us, "
                       "longest %" PRIu64 " us during %s\n", stall->count,
                       stall->total_us, stall->longest_us, stall->step);
    }
}

static void print_downtime(Monitor *mon, const FerryDowntime *downtime)
{
    if (downtime) {
        print_number(mon, "downtime, total", downtime->total_us, "us");
        print_parts(mon, "downtime, parts", downtime->parts);
        print_parts(mon, "slowest devices, saved", downtime->slowest_saved);
        print_parts(mon, "slowest devices, loaded", downtime->slowest_loaded);
    }
}

static void print_strict(Monitor *mon, const FerryStrict *strict)
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

static void print_peer(Monitor *mon, const FerryPeer *peer)
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

static void print_served(Monitor *mon, const FerryServed *served)
{
    if (!served) {
        return;
    }
#define SERVED(member, label) print_number(mon, label, served->member, "pages");
#include "migration/postcopy/served.def"
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

static void print_faults(Monitor *mon, const FerryFaults *faults)
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

void hmp_print_progress(Monitor *mon, const FerryMigrationInfo *ferry)
{
    if (!ferry) {
        return;
    }
    monitor_printf(mon, "phase: %s\n", FerryPhase_str(ferry->phase));
    if (ferry->has_percent) {
        print_number(mon, "percent", ferry->percent, "");
    }
    print_eta(mon, ferry->eta);
    print_prediction(mon, ferry->predicted_downtime);
    if (ferry->has_bandwidth) {
        print_number(mon, "bandwidth", ferry->bandwidth, "bytes/s");
    }
    if (ferry->has_dirty_rate) {
        print_number(mon, "dirty rate", ferry->dirty_rate, "bytes/s");
    }
    if (ferry->decision) {
        monitor_printf(mon, "decision: %s\n", ferry->decision);
    }
    print_stall(mon, ferry->stall);
    print_downtime(mon, ferry->downtime);
    print_strict(mon, ferry->strict);
    print_peer(mon, ferry->peer);
    print_served(mon, ferry->served);
    print_faults(mon, ferry->faults);
}
