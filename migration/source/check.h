/*
 * The source: would a migration be possible?
 *
 * A connection of its own, on which nothing but the greeting and inventories
 * pass.  It has no part in the state of a migration: query-migrate and events
 * say nothing of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_CHECK_H
#define MIGRATION_SOURCE_CHECK_H

#include "qapi/qapi-types-migration.h"
#include "qemu/coroutine.h"

/*
 * Compares this VM with the one that waits at @addr, or looks at this one alone
 * if that is NULL.  NULL with the reason if that is not possible now, or within
 * SOURCE_CHECK_MS; the caller frees the result.  In a coroutine in the main
 * loop, with the BQL, which others may use meanwhile.
 */
MigrationCheck *coroutine_fn source_check(const MigrationAddress *addr,
                                          Error **errp);

/* Whether one is under way; main loop. */
bool source_is_checking(void);

/* It ends soon, with an error.  QEMU ends, or has a migration to begin. */
void source_check_give_up(void);

#define SOURCE_CHECK_MS 5000

#endif
