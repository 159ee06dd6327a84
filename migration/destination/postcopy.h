/*
 * Postcopy on the destination: who reads what when, and what becomes of it when
 * the connection breaks
 *
 *   incoming thread   the main stream, from LISTEN to its end; pauses, and goes
 *                     on when there is a new one
 *   urgent thread     the channel with pages that were requested, if there is
 *                     one (postcopy-preempt)
 *   main loop, BQL    loads the devices in the package meanwhile, and starts
 *                     the guest.  It may have to wait for a page.
 *   fault thread      asks for pages (postcopy/fault-thread.h)
 *
 * From LISTEN on nothing that reads pages takes the BQL: whoever holds it may
 * be waiting for one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_POSTCOPY_H
#define MIGRATION_DESTINATION_POSTCOPY_H

#include "qapi/qapi-types-migration.h"
#include "migration/device/load.h"
#include "migration/qemu-file.h"
#include "qemu/main-loop.h"

void postcopy_dest_init(void);

/* A new migration: nothing is known of postcopy.  BQL. */
void postcopy_dest_begin(void);

/*
 * It listens for pages: a connection that breaks is a pause, even if the
 * package is still being loaded, which goes on without a way back.  Any thread.
 */
bool postcopy_dest_may_pause(void);

/*
 * Commands.  The first ones in the main loop, the others in the thread that
 * reads the main stream.
 */
bool coroutine_mixed_fn postcopy_dest_advise(QEMUFile *f, uint16_t len,
                                             Error **errp);
bool coroutine_mixed_fn postcopy_dest_discard(QEMUFile *f, uint16_t len,
                                              Error **errp);
bool postcopy_dest_listen(Error **errp);
bool postcopy_dest_run(Error **errp);

/*
 * The same for a guest that is held (prepare.h): pages may be missing while
 * devices are loaded, but come on the main stream only, and a connection that
 * breaks is the end.  BQL, in the main loop.
 */
bool postcopy_dest_hold(Error **errp);

/*
 * It stays at the source: precopy goes on, and who waits for a page does not
 * do so any more.  After it had listened, without the BQL; before, anywhere.
 */
bool postcopy_dest_unhold(Error **errp);

/* It is ours: postcopy from here on.  Thread that reads the main stream. */
void postcopy_dest_commit(void);
bool postcopy_dest_received(QEMUFile *f, uint16_t len, Error **errp);
bool postcopy_dest_resume(Error **errp);

/*
 * The package is here: waits, if need be, for the channel that its devices may
 * need pages from.  Main loop, in a coroutine.
 */
bool coroutine_mixed_fn postcopy_dest_package_ready(Error **errp);

/*
 * The package cannot be loaded: the guest will never run.  The source is told
 * so, with the reason @why, and has a second to close the connection.  Main
 * loop.
 */
void postcopy_dest_package_failed(const char *why);

/* So it is if the stream of a guest that is held breaks.  Incoming thread. */
void postcopy_dest_hold_broke(void);

/* The number of the vCPU whose thread that is, or -1: FaultsOps.vcpu */
int postcopy_dest_vcpu_of_thread(void *opaque, uint32_t thread);

/*
 * There is no source to come back, but the guest must not go on without its
 * memory either: postcopy is paused, with the reason @err, which is taken over,
 * until QEMU ends.  @stop is called in the main loop.  Incoming thread.
 */
void postcopy_dest_stay_paused(Error *err, QEMUBHFunc *stop);

/* One of them was said.  Any thread. */
bool postcopy_dest_hopeless(void);

/*
 * Reads the main stream to its end, over however many connections.  False if
 * there is no guest that could wait for more.  Incoming thread.
 */
bool postcopy_dest_load(DeviceLoad *load, Error **errp);

/* After everything; idempotent.  BQL. */
void postcopy_dest_end(void);

/*
 * destination.from_src while others may look at it, to pause: sets it, or takes
 * it away from them, to be closed by the caller; may be NULL.  Main loop.
 */
void postcopy_dest_set_stream(QEMUFile *f);
QEMUFile *postcopy_dest_take_stream(void);

/*
 * A connection has come that may be the channel for urgent pages; a reference
 * is kept here.  False if no more of them are wanted, as it is known which one
 * it is.  Any thread.
 */
bool postcopy_dest_urgent_channel(QIOChannel *ioc);

/* QEMU ends: nobody waits for a connection any more.  BQL */
void postcopy_dest_quit(void);

/*
 * User's commands, in any thread, with or without the BQL.
 */

/* Waits at @addr for the source of a postcopy that is paused. */
bool postcopy_dest_recover(const MigrationAddress *addr, Error **errp);

/* Breaks the connection. False if there is no postcopy that could pause. */
bool postcopy_dest_pause(Error **errp);

#endif
