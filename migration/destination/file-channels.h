/*
 * The destination: several channels to the file that is loaded
 *
 * For multifd, for a lazy restore, and for whoever loads mapped RAM.  Main
 * loop, with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_FILE_CHANNELS_H
#define MIGRATION_DESTINATION_FILE_CHANNELS_H

#include "qapi/qapi-types-migration.h"

/*
 * Opens the file at @addr once for each of them, if there are any in force.  On
 * failure none is open.
 */
bool file_channels_open(const MigrationAddress *addr, Error **errp);

/* Nothing is loaded any more.  Idempotent. */
void file_channels_close(void);

#endif
