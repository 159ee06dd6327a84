/*
 * What the files that load RAM have of each other
 *
 * Threads and errors as in load.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_LOAD_PARTS_H
#define MIGRATION_RAM_LOAD_PARTS_H

#include "load.h"

/* The @pages from @first on are to be zero: at once, or with those to come. */
bool coroutine_mixed_fn ram_load_zeros(RamLoader *l, RamRegion *r,
                                       uint64_t first, uint64_t pages,
                                       Error **errp);

/* Those that were to come have come. */
void coroutine_mixed_fn ram_load_clear_zeros(RamLoader *l);

/* Memory that cannot be written to has to be as @theirs at @page. */
bool ram_load_compare(const RamRegion *r, uint64_t page, const uint8_t *theirs,
                      Error **errp);

/* @bytes were loaded, or looked at: time for others, if it is due */
void coroutine_mixed_fn ram_load_worked(RamLoader *l, uint64_t bytes);

/* Something could not be got from @f: returns false. */
bool ram_load_ended(QEMUFile *f, Error **errp);

#endif
