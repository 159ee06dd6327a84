/*
 * What differs between two sides of a migration, from their inventories
 *
 * Pure: the rules of what a destination can load are stated once more here,
 * ahead of the load itself, which checks everything it is sent whatever was
 * found here.  A difference that is fatal is one that the load would fail for,
 * or with which the guest would lose a part of its CPU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_INVENTORY_COMPARE_H
#define MIGRATION_CORE_INVENTORY_COMPARE_H

#include "qapi/qapi-types-migration.h"
#include "migration/wire/inventory.h"

/*
 * All differences, in the order of the inventories; the caller frees the list.
 * @features: WIRE_PEER_*, that both sides have.  @destination, which comes from
 * a peer, may hold anything: what is quoted of it is printable.  If it is NULL
 * the list has what is wrong on the source alone.
 */
MigrationMismatchList *inventory_compare(const Inventory *source,
                                         const Inventory *destination,
                                         uint32_t features);

/* Whether one of @list is fatal */
bool inventory_fatal(const MigrationMismatchList *list);

/*
 * The fatal ones of @list as one line, the first of them at length; the caller
 * frees it.  NULL if there is none.
 */
char *inventory_summary(const MigrationMismatchList *list);

/* One of @list as a line; the caller frees it. */
char *inventory_mismatch_text(const MigrationMismatch *m);

#endif
