/*
 * Devices that forbid migration
 *
 * All functions: under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_BLOCKERS_H
#define MIGRATION_DEVICE_BLOCKERS_H

#include "qapi/qapi-builtin-types.h"

/* No migration, in or out, until QEMU ends. Takes over @why. */
void device_block_forever(Error *why);

/* Whether a device forbids to save or load; @errp says which. */
bool device_blocked(Error **errp);

/* Puts a line for each such device in front of @reasons. */
void device_blockers(strList **reasons);

#endif
