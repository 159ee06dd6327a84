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

/*
 * Guesses, us: of the machine as such and of each of its sections.  Those of a
 * small PC under TCG; a part that does not depend on devices has only one.
 */
static const struct {
    uint16_t once;
    uint16_t section;
} guesses[POLICY_PART__COUNT] = {
    [POLICY_PART_STOP]        = { .once = 200 },
    [POLICY_PART_DEVICE_SAVE] = { .once = 100, .section = 10 },
    [POLICY_PART_FLUSH]       = { .once = 50 },
    [POLICY_PART_DEVICE_LOAD] = { .once = 500, .section = 40 },
    [POLICY_PART_ACTIVATE]    = { .once = 100 },
    [POLICY_PART_START]       = { .once = 200 },
};

/* ns + 1, or 0 if it was not measured; atomic */
static uint64_t kept[POLICY_PART__COUNT];

void cost_history_keep(PolicyPart part, uint64_t ns)
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
    for (PolicyPart i = 0; i < POLICY_PART__COUNT; i++) {
        uint64_t ns = qatomic_read_u64(&kept[i]);
        uint64_t guess_us = guesses[i].once + sections * guesses[i].section;

        if (ns) {
            policy_expect(policy, i, ns - 1);
        } else if (guess_us) {
            policy_expect(policy, i, guess_us * SCALE_US);
        }
    }
}
