/*
 * The source: the channels of multifd, from their connection to their end
 *
 * Without the capability all of these do nothing, and succeed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_MULTIFD_H
#define MIGRATION_SOURCE_MULTIFD_H

#include "qapi/error.h"
#include "migration/multifd/senders.h"

/*
 * Connects all channels, and has memory be sent on them from then on.  Before
 * anything is sent on the main channel: some destinations do not go on with
 * that before they have all others.  Migration thread, without the BQL.
 */
bool multifd_connect(Error **errp);

/* The destination understands @features, WIRE_PEER_*.  Like multifd_settle() */
void multifd_meet(uint32_t features);

/*
 * All that was given to the channels so far has been written to them.  Without
 * the BQL.  Migration thread.
 */
bool multifd_settle(Error **errp);

/*
 * Before a switchover to postcopy of memory: all that was sent on the channels
 * is loaded before anything that follows on the main channel, which has all
 * memory from now on.  The guest runs, as this waits for the channels.  Without
 * the BQL.  Migration thread.
 */
bool multifd_leave(Error **errp);

/*
 * Postcopy is resumed on a new main channel: the former channels are closed,
 * and with @attempt, not 0, as many are connected in their place, which tell
 * that number.  They take no part in precopy.  Without the BQL.  Migration
 * thread.
 */
bool multifd_resume(uint32_t attempt, Error **errp);

/* The settings go together with those of others.  BQL. */
bool multifd_possible(Error **errp);

/*
 * Channel @i of the migration that runs, or of the last one.  False if it had
 * fewer.  Any thread.
 */
bool multifd_look(unsigned i, SenderView *view);

/* Forgets them.  BQL. */
void multifd_forget(void);

/* Cuts all channels, so that nobody waits for them.  Under source.lock. */
void multifd_shutdown(void);

/*
 * Ends the threads and closes the channels; @ok: the destination has all it
 * needs.  Migration thread; or main loop, after that has ended.
 */
void multifd_close(bool ok);

#endif
