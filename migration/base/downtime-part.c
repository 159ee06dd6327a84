/*
 * The parts of a downtime, as downtime-parts.def lists them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "downtime-part.h"

enum { NO_DELAY, CAN_DELAY };

static const struct {
    const char *name;
    bool can_delay;
    uint16_t once_us;
    uint16_t section_us;
} part_rows[DOWNTIME_PART__COUNT] = {
#define DOWNTIME_PART(id, name, side, delay, once_us, section_us) \
    [DOWNTIME_PART_##id] = { name, delay == CAN_DELAY, once_us, section_us },
#include "downtime-parts.def"
};

const char *downtime_part_name(DowntimePart part)
{
    assert(part < DOWNTIME_PART__COUNT);
    return part_rows[part].name;
}

bool downtime_part_can_delay(DowntimePart part)
{
    assert(part < DOWNTIME_PART__COUNT);
    return part_rows[part].can_delay;
}

uint64_t downtime_part_guess_us(DowntimePart part, unsigned sections)
{
    assert(part < DOWNTIME_PART__COUNT);
    return part_rows[part].once_us +
           (uint64_t)sections * part_rows[part].section_us;
}
