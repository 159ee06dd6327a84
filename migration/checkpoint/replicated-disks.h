/*
 * Checkpoints: disks that the base's replication keeps on both sides
 *
 * On the primary such a disk is a quorum that has a child of driver
 * "replication" in mode "primary": it sends each write to the secondary at
 * once, over NBD.  On the secondary it is a node of driver "replication" in
 * mode "secondary": whatever a write replaces is kept in its hidden disk, so
 * that the guest would find the disk as it was at the last commit.  A commit
 * drops what is kept.
 *
 * So the primary's guest must not write to these disks from the moment of an
 * epoch until the secondary has committed it: it is stopped for so long.
 *
 * Nodes of driver "replication" can be used once: when that has ended, others
 * have to be put in their place.
 *
 * All functions: main loop, or another thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_REPLICATED_DISKS_H
#define MIGRATION_CHECKPOINT_REPLICATED_DISKS_H

#include "qapi/error.h"

/* Whether @blk is such a disk, as the @primary's or the secondary's are */
bool replicated_disk(BlockBackend *blk, bool primary);

/*
 * Primary: the guest is stopped, and each disk is as the secondary's.  From now
 * on what is written here is written there as well.
 */
bool replicated_disks_start(Error **errp);

/*
 * Primary: the guest is stopped.  False if anything that it has written since
 * replicated_disks_start() has not reached the secondary.
 */
bool replicated_disks_check(Error **errp);

/* Primary: what replicated_disks_start() has begun ends, if it has. */
void replicated_disks_stop(void);

/*
 * Secondary: its disks as they are now are those of the epoch that is to be put
 * in place, and nobody writes to them meanwhile.  The @first time all disks are
 * activated, and replication begins.  After a failure they may be those of no
 * epoch.
 */
bool replicated_disks_commit(bool first, Error **errp);

/*
 * Secondary, after a commit: the guest is about to run here, from the last
 * one.  The primary cannot write to the disks any more; what it has written
 * since then is undone while the guest runs.
 */
void replicated_disks_take_over(void);

#endif
