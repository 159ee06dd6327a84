/*
 * After the network was lost: what the destination has got of a block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What was under way then may have come or not, and only the destination
 * knows.  It answers with a bitmap for each block, and all else is dirty.
 */

#ifndef MIGRATION_POSTCOPY_RESUME_H
#define MIGRATION_POSTCOPY_RESUME_H

#include "migration/qemu-file.h"
#include "migration/ram/region.h"

/*
 * Reads the bitmap of @r from @f and has the map of @r say what is left to
 * send.  False if the bitmap is not what it should be; the map is then as it
 * was.  The thread that reads @f, while nobody sends.
 */
bool postcopy_resume_read(QEMUFile *f, const RamRegion *r, Error **errp);

#endif
