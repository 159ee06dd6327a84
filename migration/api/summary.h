/*
 * Migration in the human monitor: what somebody has to know at a glance
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_API_SUMMARY_H
#define MIGRATION_API_SUMMARY_H

#include "qapi/qapi-types-migration.h"

/*
 * A migration in a few lines of at most 79 columns, but for the texts of
 * decisions and errors: how far it is, how long it will take, how fast it is,
 * what the downtime will be or was, and why.  What is not known is left out.
 * Each line ends with a newline; there is none if no migration has begun.
 *
 * @limit_ms: the downtime that the user allows.  The caller frees the result.
 * Context: any thread; pure.
 */
char *summary_text(const MigrationInfo *info, uint64_t limit_ms);

#endif
