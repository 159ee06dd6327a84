/*
 * The phase of each side of migration, and what everybody may ask about it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "sides.h"

Phase source_phase = { .side = PHASE_SOURCE };
Phase destination_phase = { .side = PHASE_DESTINATION };

bool migration_is_running(void)
{
    return phase_has(&source_phase, PHASE_RUNNING);
}

bool migration_in_postcopy(void)
{
    return phase_has(&source_phase, PHASE_POSTCOPY);
}

bool migration_incoming_started(void)
{
    return phase_has(&destination_phase, PHASE_RUNNING);
}

bool migration_is_loading(void)
{
    return phase_has(&destination_phase, PHASE_RUNNING) &&
           phase_get(&destination_phase) != MIGRATION_STATUS_SETUP;
}
