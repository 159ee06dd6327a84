/*
 * The destination: connections of a source that uses multifd
 *
 * Which of its channels a connection is shows in its first bytes, not in the
 * order in which they come: the main one and those of multifd are told apart,
 * and others are closed.
 *
 * All functions: BQL, but for those that say otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_MULTIFD_H
#define MIGRATION_DESTINATION_MULTIFD_H

#include "migration/qemu-file.h"
#include "migration/wire/wire.h"

/* The main channel has come: its stream is the callee's. */
typedef void MultifdMain(QEMUFile *f);

/* Before the first connection; memory will be loaded from all channels. */
void multifd_incoming_begin(MultifdMain *main);

/*
 * A connection; takes over @ioc.  Listening ends when memory is about to come,
 * as all channels are there then, unless there may be one for urgent pages.
 */
void multifd_incoming_offer(QIOChannel *ioc);

/*
 * All channels have come, and memory may come on them, or has.  A connection
 * that comes later is none of them.  Any thread.
 */
bool multifd_incoming_met(void);

/* False if there was a channel that cannot be taken, which says why. */
bool multifd_incoming_check(Error **errp);

/* Whoever waits for one of the channels does not any longer.  Any thread. */
void multifd_incoming_shutdown(void);

/*
 * Postcopy of memory is about to begin: how many channels there are that the
 * source may send on then (dest_listen()).  If it will not they are closed, as
 * in multifd_incoming_end(), and this is 0.
 */
unsigned multifd_incoming_postcopy(void);

/*
 * Postcopy is resumed by a new main channel: whether others follow it, which
 * are given to multifd_incoming_again().  @attempt is the number that they
 * tell; 0: the source does not number them.  Any thread, while who loads the
 * main channel waits for that.
 */
bool multifd_incoming_resume(uint32_t attempt);

/*
 * A connection that begins with @init.  Takes over @f and sets *@complete, or
 * is false if it is none of those that are expected.  Any thread.
 */
bool multifd_incoming_again(QEMUFile *f, const WireMultifdInit *init,
                            bool *complete, Error **errp);

/* How many connections may be there that have not introduced themselves. */
unsigned multifd_incoming_max(void);

/*
 * Nobody writes to memory for the channels any more.  Thread that loads the
 * main channel, without the BQL.
 */
void multifd_incoming_stop(void);

/*
 * All channels but the main one are closed, and nobody writes to memory for
 * them any more.  Idempotent.
 */
void multifd_incoming_end(void);

#endif
