/*
 * The disks of an internal snapshot
 *
 * A snapshot has one name on all of its disks, but a disk can have several
 * snapshots of one name: a new one is made before the one it replaces is
 * deleted.  Those that belong together have the same date and VM clock.
 *
 * All functions: main thread, under the BQL.  Nodes are referenced from
 * snapshot_disks_new() to snapshot_disks_free(), so that they stay valid while
 * requests are waited for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SNAPSHOT_SNAPSHOT_DISKS_H
#define MIGRATION_SNAPSHOT_SNAPSHOT_DISKS_H

#include "block/block.h"
#include "block/snapshot.h"

typedef struct SnapshotDisks SnapshotDisks;

/*
 * The nodes that @devices names, or without a list all that are inserted, can
 * be written to, and are used by a device or belong to the user.  NULL with
 * @errp set if one of them cannot have snapshots at this moment.
 */
SnapshotDisks *snapshot_disks_new(bool has_list, strList *devices,
                                  Error **errp);
void snapshot_disks_free(SnapshotDisks *disks);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SnapshotDisks, snapshot_disks_free)

/* Some disk has a snapshot of that name. */
bool snapshot_disks_any(const SnapshotDisks *disks, const char *name);

/* The disk for the state of the VM: @vmstate, or if that is NULL the first. */
BlockDriverState *snapshot_disks_for_state(const SnapshotDisks *disks,
                                           const char *vmstate, Error **errp);

/*
 * Makes a snapshot of every disk as @info has it.  The state of the VM has
 * been written to @state, where it took @size bytes.  Snapshots of that name
 * are deleted afterwards.  If a disk fails, no disk has the new snapshot, and
 * all have what they had; but for a driver that allows a name only once, whose
 * old snapshot is deleted at the last moment.
 */
bool snapshot_disks_create(SnapshotDisks *disks, const QEMUSnapshotInfo *info,
                           BlockDriverState *state, uint64_t size,
                           Error **errp);

/*
 * Chooses which snapshot each disk is to be reverted to: the newest of that
 * name with the state of the VM, and those that were made with it.  @vmstate:
 * where the state has to be, or NULL.  Returns the node that has it, or NULL
 * with @errp set.  Nothing is changed.
 */
BlockDriverState *snapshot_disks_choose(SnapshotDisks *disks,
                                        const char *name, const char *vmstate,
                                        Error **errp);

/* Reverts all disks to what was chosen.  No requests are in flight. */
bool snapshot_disks_revert(const SnapshotDisks *disks, Error **errp);

/* Deletes all snapshots of that name. */
bool snapshot_disks_delete(const SnapshotDisks *disks, const char *name,
                           Error **errp);

#endif
