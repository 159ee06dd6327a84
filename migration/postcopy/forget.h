/*
 * POSTCOPY_DISCARD: pages that are out of date
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_FORGET_H
#define MIGRATION_POSTCOPY_FORGET_H

#include "migration/qemu-file.h"
#include "migration/ram/region.h"

/* Lets go of @len bytes from @start on: whole host pages of @region. */
typedef bool ForgetFn(void *opaque, RamRegion *region, uint64_t start,
                      uint64_t len, Error **errp);

/*
 * Takes the command's @len bytes of payload from @f.  All of it is checked
 * before @fn is called for each range, as long as that returns true.
 */
bool coroutine_mixed_fn forget_load(QEMUFile *f, uint16_t len,
                                    const RamRegions *regions, ForgetFn *fn,
                                    void *opaque, Error **errp);

#endif
