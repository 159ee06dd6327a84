/*
 * Dirty bitmaps of disks: the section "dirty-bitmap"
 *
 * Bitmaps travel once the guest is stopped; in postcopy after it has gone.
 * Until the end of a migration they are busy on both sides, their nodes can
 * neither be deleted nor resized, and what a guest that runs already changes
 * on the destination goes to a successor of each bitmap.
 *
 * What is wrong with one bitmap on the destination fails a precopy, as the
 * source still has all; but a name that is not known there, or anything once
 * the guest runs there, loses the bitmaps and nothing else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_BITMAP_H
#define MIGRATION_DEVICE_BITMAP_H

#include "migration/qemu-file.h"

/*
 * The destination's hooks; see migration/register.h.  What others may call is
 * in migration/migration.h.
 */
void bitmap_load_init(void);
int bitmap_load(QEMUFile *f, void *opaque, int version_id);
int bitmap_load_cleanup(void *opaque);

#endif
