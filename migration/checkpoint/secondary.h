/*
 * Checkpoints: the secondary, which can take the guest over
 *
 * What it has been sent is in one of these states, under its lock:
 *
 *     NONE -> STARTING -> PROTECTED -> WAITING     the primary is lost
 *                                   -> ENDED       it has ended the protection
 *                                   -> FAILOVER    by command, once
 *                         WAITING   -> FAILOVER, or ENDED if given up
 *
 * PROTECTED means that an epoch is kept that was acknowledged.  From there
 * either the incoming thread goes to ENDED, because CHECKPOINT_END came, or the
 * main loop to FAILOVER; whoever comes second learns of it.  The thread
 * finishes the epoch that it has acknowledged in any case.
 *
 * At a failover the primary is told, and the guest is started when it has
 * closed the connection, which it does when it has stopped the guest; or half a
 * second later, as it may be dead.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_SECONDARY_H
#define MIGRATION_CHECKPOINT_SECONDARY_H

#include "qapi/qapi-types-migration.h"

/* Once, while QEMU starts. */
void secondary_init(void);

/* The command checkpoint-failover.  Main loop. */
bool secondary_failover(Error **errp);

/* See checkpoint_query(). */
MigrationCheckpoint *secondary_query(void);

#endif
