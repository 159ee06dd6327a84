/*
 * Internal snapshots: what include/migration/snapshot.h does not promise
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SNAPSHOT_SNAPSHOT_H
#define MIGRATION_SNAPSHOT_SNAPSHOT_H

#include "block/aio.h"
#include "qapi/qapi-builtin-types.h"

/*
 * As load_snapshot(), with a guest that may be running: it is stopped for it
 * and resumed afterwards.  What can be refused is refused before that.  If it
 * fails later, the guest stays in run state restore-vm.  Main thread, BQL.
 */
bool snapshot_restore(const char *name, const char *vmstate, bool has_devices,
                      strList *devices, Error **errp);

/*
 * True if a snapshot is being saved, loaded or deleted: @fn will be called as
 * a bottom half when that is over.  Main thread, BQL.
 */
bool snapshot_wait_for_turn(QEMUBHFunc *fn, void *opaque);

/*
 * Whatever else saves and loads this VM for itself takes part in the turns:
 * false if a snapshot is at work.  What was begun has to be ended.
 */
bool snapshot_begin_turn(Error **errp);
void snapshot_end_turn(void);

/*
 * Devices have not been loaded completely: until a reset or a snapshot sets
 * that right the guest cannot run, nor be saved or migrated.  BQL.
 */
void snapshot_set_incomplete(void);

#endif
