/*
 * What of the machine's memory only files that are compiled for one target can
 * call
 *
 * All else in ram/ is compiled once for all targets, so that unit tests link
 * it; they bring their own version of this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_TARGET_H
#define MIGRATION_RAM_TARGET_H

#include "exec/cpu-common.h"

/* As qemu_ram_resize().  BQL. */
int ram_target_resize(RAMBlock *rb, uint64_t bytes, Error **errp);

/* Flushes all of @rb to where it persists. */
void ram_target_write_back(RAMBlock *rb);

/* Has the dirty log for migration record @length bytes of @rb. Any thread. */
void ram_target_log_write(RAMBlock *rb, uint64_t start, uint64_t length);

/*
 * Tells all who have to know that @length bytes of @rb were written to by host
 * address: dirty logs, and TCG, whose code of that memory is out of date.  BQL.
 */
void ram_target_wrote(RAMBlock *rb, uint64_t start, uint64_t length);

/*
 * TCG: the next write of each CPU to the first @bytes of @rb looks at the dirty
 * log again.
 */
void ram_target_look_at_log(RAMBlock *rb, uint64_t bytes);

#endif
