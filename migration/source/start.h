/*
 * The source: one outgoing migration, from the command to its end
 *
 *   where               does
 *   main loop, BQL      source_start(): connects, then starts the thread
 *   migration thread    sets up, sends, switches over (thread.c,
 *                       switchover.c); the BQL only where it says so
 *   main loop, BQL      the end: the guest goes on or is gone, streams are
 *                       closed, and only then the phase says so
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_START_H
#define MIGRATION_SOURCE_START_H

#include "qapi/qapi-types-migration.h"
#include "migration/qemu-file.h"

/* Once, while QEMU starts. */
void source_init(void);

/*
 * Starts a migration to @addr.  BQL.  What can be found wrong at once is told
 * at once; all else later, by the phase and the error.  @channels: what the
 * user gave besides @addr, or NULL.
 */
bool source_start(MigrationAddress *addr, MigrationChannelList *channels,
                  Error **errp);

/*
 * Has a migration end as soon as it can, if there is one. BQL.  Fails if the
 * destination has all it needs to run the guest.
 */
bool source_cancel(Error **errp);

/*
 * QEMU is about to end: cancels, and waits for the thread to let go of the
 * guest's memory.  Lets the BQL go meanwhile.
 */
void source_shutdown(void);

/* Gives a migration that waits in @phase leave to go on. BQL. */
bool source_continue(MigrationStatus phase, Error **errp);

/*
 * For snapshots, which save all at once under the BQL: the same checks, and
 * the phases that others look at.
 */
bool source_begin_snapshot(QEMUFile *f, Error **errp);
void source_end_snapshot(bool ok);

/* Postcopy may begin as soon as it can. Main loop. */
bool source_start_postcopy(Error **errp);

#endif
