/*
 * The destination: connections for a postcopy that is paused
 *
 * Which of the source's channels a connection is shows in its first bytes, not
 * in the order in which they come.  One that does not begin as a channel of a
 * recovery is closed, and no other one is disturbed by it.  The bytes are read
 * in a thread of each connection, because the main loop may be waiting for a
 * page that only these connections bring.
 *
 * arrivals_offer(): whoever accepts the connections.  arrivals_close(): any
 * thread.  arrivals_drop(): any but those of connections, without a lock that
 * is taken by what these call back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_ARRIVALS_H
#define MIGRATION_DESTINATION_ARRIVALS_H

#include "migration/qemu-file.h"
#include "migration/wire/wire.h"

/*
 * Called in the thread of a connection, without locks.  What is true takes over
 * @f or @ioc; what is false, with the reason, leaves it to be closed.
 */
typedef struct ArrivalsOps {
    /*
     * It begins with a command that begins a recovery.  @attempt is the number
     * of that, which the channels of multifd tell as well; 0: none was sent.
     */
    bool (*main)(QEMUFile *f, uint32_t attempt, Error **errp);
    /* It has begun with @init, which was not looked at. */
    bool (*channel)(QEMUFile *f, const WireMultifdInit *init, Error **errp);
    /*
     * Whether one of which nothing was read is taken as it is; asked again and
     * again until something comes, and then once more.  Of sockets alone, and
     * without TLS.
     */
    bool (*silent)(QIOChannel *ioc);
} ArrivalsOps;

/*
 * A connection, of which a reference is taken, and @ops, which stays.  If there
 * are @max of them already the oldest one of which nothing was read makes room,
 * or if there is none the oldest, once it is a second old; or this one is
 * closed.
 */
void arrivals_offer(QIOChannel *ioc, unsigned max, const ArrivalsOps *ops);

/* All channels are there: what has not introduced itself yet is closed. */
void arrivals_close(void);

/* The same, and waits until there is none. */
void arrivals_drop(void);

void arrivals_init(void);

#endif
