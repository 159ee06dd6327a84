/*
 * Postcopy on the destination: its commands, its thread, its interruptions
 *
 * The state is postcopy_state_get(), which the code that places pages reads
 * as well; device/commands.c knows which command may come in which state.
 *
 *   thread             does                            until
 *   main, coroutine    loads devices from the package  RUN, or an error
 *   listen             loads pages from the stream     the end of the stream
 *
 * If loading fails before RUN, whoever notices tells the other, and the main
 * thread reports it.  After RUN the guest must not be lost: the listen thread
 * pauses the migration and waits for a new connection.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_INCOMING_H
#define MIGRATION_POSTCOPY_INCOMING_H

#include "qapi/qapi-types-migration.h"
#include "migration/qemu-file.h"

/* Loads records until the end; pauses by postcopy_incoming_pause(). */
typedef bool (*PostcopyLoader)(QEMUFile *f, Error **errp);

/*
 * Commands.  Each takes @len bytes of payload from @f, and was found to be in
 * order by command_check().
 */
bool postcopy_incoming_advise(MigrationIncomingState *mis, QEMUFile *f,
                              uint16_t len, Error **errp);
bool postcopy_incoming_discard(MigrationIncomingState *mis, QEMUFile *f,
                               uint16_t len, Error **errp);
/* Has the guest started soon by the main loop. */
bool postcopy_incoming_run(MigrationIncomingState *mis, QEMUFile *f,
                           uint16_t len, Error **errp);
bool postcopy_incoming_recv_bitmap(MigrationIncomingState *mis, QEMUFile *f,
                                   uint16_t len, Error **errp);
bool postcopy_incoming_resume(MigrationIncomingState *mis, QEMUFile *f,
                              uint16_t len, Error **errp);

/* LISTEN: starts the thread, which loads by @loader. */
bool postcopy_incoming_listen(MigrationIncomingState *mis,
                              PostcopyLoader loader, Error **errp);

/*
 * Main thread, coroutine: before the package is loaded, waits for the channel
 * over which urgent pages come, since devices may need some.
 */
void postcopy_incoming_wait_preempt(void *mis);

/*
 * The loading thread: @f failed.  If the guest runs already, waits for a new
 * connection, which is then mis->from_src_file; otherwise returns false.
 */
bool postcopy_incoming_pause(MigrationIncomingState *mis);

/* Main thread: devices are loaded, or that failed. */
void postcopy_incoming_devices_loaded(MigrationIncomingState *mis, bool ok);

#endif
