/*
 * Ledgers: where a guest's downtime and its stalls went
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "ledger.h"

void ledger_mark(DowntimeLedger *l, PolicyPart part, int64_t start_ns,
                 int64_t end_ns)
{
    end_ns = MAX(start_ns, end_ns);
    l->part_ns[part] += end_ns - start_ns;
    l->known |= 1u << part;
    l->first_ns = l->begun ? MIN(l->first_ns, start_ns) : start_ns;
    l->last_ns = l->begun ? MAX(l->last_ns, end_ns) : end_ns;
    l->begun = true;
}

void ledger_add(DowntimeLedger *l, PolicyPart part, uint64_t ns)
{
    l->part_ns[part] += ns;
    l->added_ns += ns;
    l->known |= 1u << part;
}

bool ledger_knows(const DowntimeLedger *l, PolicyPart part)
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

    for (int i = 0; i < POLICY_PART__COUNT; i++) {
        parts += l->part_ns[i];
    }
    return total > parts ? total - parts : 0;
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
