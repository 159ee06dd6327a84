/*
 * The destination: one incoming migration, from the command to its end
 *
 *   where                    does
 *   main loop, BQL           destination_start(): listens; takes the channel
 *                            and starts the thread
 *   incoming thread, no BQL  reads the stream and loads memory
 *   main loop, coroutine     loads everything else; the thread waits meanwhile,
 *                            and the main loop goes on when data is awaited
 *   main loop, BQL           the end: the guest is started, or is not
 *
 * In postcopy the guest is started before the end; see postcopy.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_START_H
#define MIGRATION_DESTINATION_START_H

#include "qapi/qapi-types-migration.h"

/* Once, while QEMU starts. */
void destination_init(void);

/*
 * Waits at @addr for a source. BQL.  After a failure, of this or of a
 * migration that came by it, it can be called again.
 */
bool destination_start(MigrationAddress *addr, bool exit_on_error,
                       Error **errp);

/*
 * QEMU is about to end: waits until the thread leaves the guest's memory
 * alone.  Lets the BQL go meanwhile.
 */
void destination_shutdown(void);

#endif
