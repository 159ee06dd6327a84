/*
 * What becomes known of a migration: its phase, its first error, and who has
 * registered to be notified
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_NOTIFY_H
#define MIGRATION_CORE_NOTIFY_H

#include "migration/base/phase.h"
#include "migration/misc.h"

/*
 * Goes to a phase and tells the world: trace, and the event MIGRATION if
 * that is enabled.  Any thread.  notify_phase_move() does so only if it won.
 */
void notify_phase_set(Phase *phase, MigrationStatus to);
bool notify_phase_move(Phase *phase, MigrationStatus from, MigrationStatus to);

/*
 * Takes over @err as migrate_set_error(), and frees it.  Any thread.
 */
void notify_error(Error *err);

/* The same for what came of the first error: it is added. */
void notify_error_also(Error *err);

/* A copy of the first error, or NULL. Any thread. */
Error *notify_first_error(void);
void notify_clear_error(void);

/* Tells those who registered for the mode in force. BQL. */
bool notify_event(MigrationEventType type, Error **errp);

#endif
