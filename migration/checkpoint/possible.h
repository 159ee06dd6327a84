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
 * acknowledge, a disk that the guest can write to and that is not replicated, a
 * network device whose output nobody holds, a device whose state cannot be
 * saved twice.  BQL.
 */
bool checkpoint_possible(const MigrationAddress *addr, Error **errp);

/*
 * Whether each disk that the guest can write to is replicated, as the
 * @primary's or the secondary's are; *@count is the number of these.  If not,
 * @errp names the disk.  BQL.
 */
bool checkpoint_disks_possible(bool primary, unsigned *count, Error **errp);

#endif
