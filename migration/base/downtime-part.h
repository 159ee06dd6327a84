/*
 * The parts of a downtime, as downtime-parts.def lists them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_DOWNTIME_PART_H
#define MIGRATION_BASE_DOWNTIME_PART_H

typedef enum DowntimePart {
#define DOWNTIME_PART(id, ...) DOWNTIME_PART_##id,
#include "downtime-parts.def"
    DOWNTIME_PART__COUNT
} DowntimePart;

const char *downtime_part_name(DowntimePart part);

/* Whether x-fault-delay may name it. */
bool downtime_part_can_delay(DowntimePart part);

/* A guess for a machine with so many sections, us; 0: none is made. */
uint64_t downtime_part_guess_us(DowntimePart part, unsigned sections);

#endif
