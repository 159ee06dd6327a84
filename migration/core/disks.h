/*
 * The guest's disks: which of two QEMUs may write to them
 *
 * A node of the block layer that is inactive reads nothing that the other side
 * may change, writes nothing, and holds no lock that keeps others from doing
 * so.  Under the BQL, in any thread that holds it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_DISKS_H
#define MIGRATION_CORE_DISKS_H

/*
 * Activates all disks, or none: if one cannot be activated, those that could
 * are inactive again, so that the other side can have them.  @errp names the
 * disk.
 */
bool disks_activate(Error **errp);

/*
 * Inactivates all disks.  If one cannot be, @errp names it, and some may be
 * inactive: disks_activate() is how to go on.
 */
bool disks_inactivate(Error **errp);

#endif
