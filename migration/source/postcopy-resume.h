/*
 * The source in postcopy: pausing when the connection breaks, and going on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_POSTCOPY_RESUME_H
#define MIGRATION_SOURCE_POSTCOPY_RESUME_H

#include "qapi/qapi-types-migration.h"
#include "migration/qemu-file.h"

/*
 * Goes on at @addr with a migration that is paused.  BQL.  Fails as
 * source_start() does; it is then paused as before.
 */
bool source_resume(MigrationAddress *addr, Error **errp);

/* Whether there is something for source_pause(), that is postcopy. */
bool source_can_pause(void);

/*
 * Cuts the connection, so that postcopy is paused.  While the destination loads
 * the package that may take half a second, and is done by the main loop. Any
 * thread.  With release-ram it fails and leaves the connection alone, as the
 * guest could not be recovered.
 */
bool source_pause(Error **errp);

/*
 * For the source itself
 */

/*
 * The connection is broken, as @err says, which is taken over.  Waits until
 * there is another one, and until the destination has agreed to go on.  False
 * if the user has given it up.
 */
bool postcopy_pause(Error *err);

/*
 * The user ends a migration that is paused: the guest stays stopped here, and
 * may be continued by one who knows that it does not run at the destination.
 * Refused if it has been seen there, or is not whole here.  BQL.
 */
bool postcopy_give_up(Error **errp);

/* What ReturnPathUser.received is to do: the return path's thread. */
bool postcopy_take_bitmap(const char *name, QEMUFile *f, Error **errp);

#endif
