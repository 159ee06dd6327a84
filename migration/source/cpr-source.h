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
 * False if the mode in force and the capabilities exclude each other, or if
 * @channels lacks the entry that the mode needs.  @channels may be NULL.
 */
bool cpr_possible(const MigrationChannelList *channels, Error **errp);

/*
 * Gives the new QEMU at the entry 'cpr' of @channels what is open here.  @ready
 * is called when that QEMU has closed the connection: it listens, or has
 * failed.  Without a mode that needs this, @ready is called at once.
 */
bool cpr_hand_over(MigrationChannelList *channels, void (*ready)(void),
                   Error **errp);

/* @ready will not be called any more.  Idempotent. */
void cpr_hand_over_end(void);

#endif
