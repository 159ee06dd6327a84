/*
 * Ledgers: where a guest's downtime and its stalls went
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qapi/util.h"
#include "qemu/timer.h"
#include "ledger.h"

void ledger_mark(DowntimeLedger *l, DowntimePart part, int64_t start_ns,
                 int64_t end_ns)
{
    end_ns = MAX(start_ns, end_ns);
    l->part_ns[part] += end_ns - start_ns;
    l->known |= 1u << part;
    l->first_ns = l->begun ? MIN(l->first_ns, start_ns) : start_ns;
    if (!l->begun || end_ns >= l->last_ns) {
        l->last_ns = end_ns;
        l->last_part = part;
    }
    l->begun = true;
}

void ledger_end(DowntimeLedger *l, int64_t end_ns)
{
    end_ns = MAX(end_ns, l->first_ns);
    if (l->begun && end_ns < l->last_ns) {
        uint64_t *last = &l->part_ns[l->last_part];

        *last -= MIN(*last, (uint64_t)(l->last_ns - end_ns));
    }
    l->last_ns = end_ns;
}

void ledger_add(DowntimeLedger *l, DowntimePart part, uint64_t ns)
{
    l->part_ns[part] += ns;
    l->added_ns += ns;
    l->known |= 1u << part;
}

void ledger_skip(DowntimeLedger *l, uint64_t ns)
{
    l->first_ns += ns;
    l->last_ns += ns;
}

bool ledger_knows(const DowntimeLedger *l, DowntimePart part)
{
    return l->known & (1u << part);
}

uint64_t ledger_total_ns(const DowntimeLedger *l)
{
    return l->last_ns - l->first_ns + l->added_ns;
}

uint64_t ledger_gap_ns(const DowntimeLedger *l)
{
    uint64_t total = ledger_total_ns(l);
    uint64_t parts = 0;

    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        parts += l->part_ns[i];
    }
    return total > parts ? total - parts : 0;
}

char *ledger_text(const DowntimeLedger *l)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        if (ledger_knows(l, i)) {
            g_string_append_printf(text, "%s%s %.1f ms", text->len ? ", " : "",
                                   downtime_part_name(i), l->part_ns[i] / 1e6);
        }
    }
    return g_string_free(text, false);
}

MigrationDowntimePart *ledger_part(const char *name, uint64_t ns)
{
    MigrationDowntimePart *part = g_new0(MigrationDowntimePart, 1);

    part->name = g_strdup(name);
    part->us = ns / SCALE_US;
    return part;
}

static MigrationDowntimePartList *new_devices(const LedgerDevices *devices)
{
    MigrationDowntimePartList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < devices->count; i++) {
        QAPI_LIST_APPEND(tail, ledger_part(devices->list[i].name,
                                           devices->list[i].ns));
    }
    return list;
}

MigrationDowntime *ledger_downtime(const DowntimeLedger *ledger,
                                   const LedgerDevices *saved,
                                   const LedgerDevices *loaded)
{
    MigrationDowntime *downtime = g_new0(MigrationDowntime, 1);
    MigrationDowntimePartList **tail = &downtime->parts;
    uint64_t gap = ledger_gap_ns(ledger);

    downtime->total_us = ledger_total_ns(ledger) / SCALE_US;
    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        if (ledger_knows(ledger, i)) {
            QAPI_LIST_APPEND(tail, ledger_part(downtime_part_name(i),
                                               ledger->part_ns[i]));
        }
    }
    if (gap >= SCALE_US) {
        QAPI_LIST_APPEND(tail, ledger_part("other", gap));
    }
    downtime->slowest_saved = new_devices(saved);
    downtime->has_slowest_saved = downtime->slowest_saved;
    downtime->slowest_loaded = new_devices(loaded);
    downtime->has_slowest_loaded = downtime->slowest_loaded;
    return downtime;
}

void ledger_device(LedgerDevices *l, const char *name, uint32_t instance,
                   int64_t ns)
{
    uint64_t took = MAX(ns, 0);
    unsigned at = l->count;

    while (at > 0 && l->list[at - 1].ns < took) {
        at--;
    }
    if (at == LEDGER_DEVICES_MAX) {
        return;
    }
    l->count = MIN(l->count + 1, LEDGER_DEVICES_MAX);
    memmove(&l->list[at + 1], &l->list[at],
            (l->count - 1 - at) * sizeof(l->list[0]));
    l->list[at].ns = took;
    if (instance) {
        snprintf(l->list[at].name, sizeof(l->list[at].name),
                 "%.*s#%" PRIu32, LEDGER_NAME_MAX - 11, name, instance);
    } else {
        pstrcpy(l->list[at].name, sizeof(l->list[at].name), name);
    }
}

void stall_record(StallLedger *l, const char *step, int64_t ns)
{
    uint64_t took = MAX(ns, 0);

    l->count++;
    l->total_ns += took;
    if (!l->longest_step || took > l->longest_ns) {
        l->longest_ns = took;
        l->longest_step = step;
    }
}
