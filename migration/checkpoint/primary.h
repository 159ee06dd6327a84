/*
 * Checkpoints: the primary, which runs the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_PRIMARY_H
#define MIGRATION_CHECKPOINT_PRIMARY_H

#include "qapi/qapi-types-migration.h"

/* Once, while QEMU starts. */
void primary_init(void);

/* See checkpoint_query(). */
MigrationCheckpoint *primary_query(void);

#endif
