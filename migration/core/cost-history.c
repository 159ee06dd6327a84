/*
 * What parts of a switchover took before, as far as this QEMU has seen any
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/device/sections.h"
#include "cost-history.h"

/* ns + 1, or 0 if it was not measured; atomic */
static uint64_t kept[DOWNTIME_PART__COUNT];

void cost_history_keep(DowntimePart part, uint64_t ns)
{
    qatomic_set_u64(&kept[part], ns + 1);
}

static unsigned count_sections(void)
{
    unsigned count = 0;
    Section *s;

    FOR_EACH_SECTION(s) {
        count++;
    }
    return count;
}

void cost_history_tell(Policy *policy)
{
    unsigned sections;

    assert(bql_locked());
    sections = count_sections();
    for (DowntimePart i = 0; i < DOWNTIME_PART__COUNT; i++) {
        uint64_t ns = qatomic_read_u64(&kept[i]);
        uint64_t guess_us = downtime_part_guess_us(i, sections);

        if (ns) {
            policy_expect(policy, i, ns - 1);
        } else if (guess_us) {
            policy_expect(policy, i, guess_us * SCALE_US);
        }
    }
}
