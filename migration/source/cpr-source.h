/*
 * The source: the guest goes on in a new QEMU on the same host (CPR)
 *
 * In each mode but 'normal' the guest is stopped before anything is saved.
 * With 'cpr-transfer' the new QEMU is first given what is open here, memory
 * among it, on a channel of its own: it needs that to create its devices, and
 * listens for the migration only then.
 *
 * All functions: main loop, with the BQL, if nothing else is said.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_CPR_SOURCE_H
#define MIGRATION_SOURCE_CPR_SOURCE_H

#include "qapi/qapi-types-migration.h"

/* Whether the mode in force stops the guest first; any thread */
bool cpr_stops_guest(void);

/*
 * False if the mode in force and the capabilities exclude each other, if
 * @channels lacks the entry that the mode needs, or if @addr or the command for
 * the new QEMU is none that the mode can use.  @channels may be NULL.
 */
bool cpr_possible(const MigrationAddress *addr,
                  const MigrationChannelList *channels, Error **errp);

/*
 * Gives the new QEMU at the entry 'cpr' of @channels what is open here.  @ready
 * is called when that QEMU has closed the connection: it listens, or has
 * failed.  With 'cpr-exec' that is kept for cpr_become_new(), and @ready is
 * called at once, as without a mode that needs this.
 */
bool cpr_hand_over(MigrationChannelList *channels, void (*ready)(void),
                   Error **errp);

/*
 * The guest's state was saved: with 'cpr-exec' the new QEMU takes the place of
 * this one, and this does not return.  True in other modes; false if the new
 * QEMU cannot be executed, so that the guest has to go on here.
 */
bool cpr_become_new(Error **errp);

/* @ready will not be called any more.  Idempotent. */
void cpr_hand_over_end(void);

#endif
