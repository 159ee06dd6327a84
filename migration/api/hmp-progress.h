/*
 * Migration in the human monitor: how far a migration is, and why
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_API_HMP_PROGRESS_H
#define MIGRATION_API_HMP_PROGRESS_H

#include "monitor/monitor.h"
#include "qapi/qapi-types-migration.h"

/*
 * Every member of the object `progress` in the answer to query-migrate, in its
 * units; @progress may be NULL.  Main loop.
 */
void hmp_print_progress(Monitor *mon, const MigrationProgress *progress);

/* The same of the member `checkpoint` */
void hmp_print_checkpoint(Monitor *mon, const MigrationCheckpoint *checkpoint);

#endif
