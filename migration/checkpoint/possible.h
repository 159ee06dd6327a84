/*
 * Checkpoints: whether this guest can be protected
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_POSSIBLE_H
#define MIGRATION_CHECKPOINT_POSSIBLE_H

#include "qapi/qapi-types-migration.h"

/*
 * False, with what stands in the way and what to change: a channel that cannot
 * acknowledge, a disk that the guest can write to, a network device whose
 * output nobody holds, a device whose state cannot be saved twice.  BQL.
 */
bool checkpoint_possible(const MigrationAddress *addr, Error **errp);

#endif
