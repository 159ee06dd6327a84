/*
 * What is shared by both directions of migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_NOTIFY_H
#define MIGRATION_CORE_NOTIFY_H

#include "qemu/main-loop.h"
#include "migration/base/phase.h"
#include "migration/misc.h"

/*
 * Goes to a phase and tells the world: trace, and the event MIGRATION if
 * that is enabled.  Any thread.  ctx_phase_move() does so only if it won.
 */
void ctx_phase_set(Phase *phase, MigrationStatus to);
bool ctx_phase_move(Phase *phase, MigrationStatus from, MigrationStatus to);

/*
 * Takes over @err as migrate_set_error(), and frees it.  Any thread.
 */
void ctx_fail(Error *err);

/* The same for what came of the first error: it is added. */
void ctx_fail_also(Error *err);

/* A copy of the first error, or NULL. Any thread. */
Error *ctx_error(void);
void ctx_clear_error(void);

/* QEMU ends: no guest is to be started any more. BQL. */
bool ctx_ending(void);

/* Runs @fn once in the main loop. Any thread. */
void ctx_in_main_loop(QEMUBHFunc *fn, void *opaque);

/*
 * Runs @fn there, and returns when it has: for work that must not be done by a
 * coroutine, such as opening disks and resetting devices.  Main thread.
 */
void coroutine_fn ctx_outside(void (*fn)(void));

/* Tells those who registered for the mode in force. BQL. */
bool ctx_notify(MigrationEventType type, Error **errp);

/* Reasons against migrating, one a line; BQL. */
strList *ctx_blocked_reasons(void);

#endif
