/*
 * The source: a snapshot of a guest that goes on
 *
 * What is written is a migration, of the guest as it is at one moment.  Its
 * memory is protected while it runs.  Then it is stopped for as long as it
 * takes to save its devices, and to protect again what was written meanwhile;
 * then it goes on, and a page that it is about to write to is saved first.  It
 * never leaves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_BACKGROUND_SNAPSHOT_H
#define MIGRATION_SOURCE_BACKGROUND_SNAPSHOT_H

/*
 * All after setup, until everything has been written.  Migration thread,
 * without the BQL: while memory is protected, whoever has that may wait for
 * this thread.
 */
bool background_snapshot_run(Error **errp);

#endif
