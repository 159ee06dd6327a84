/*
 * The source: both sides are compared before any memory is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_PREFLIGHT_H
#define MIGRATION_SOURCE_PREFLIGHT_H

#include "migration/qemu-file.h"
#include "return-path.h"

/*
 * What a source says first, on a return path that is open.  Whoever writes to
 * @f.
 */
void preflight_greet(QEMUFile *f);

/*
 * Has the destination @peer on the other side of the migration under way
 * compared with this one.  False if something differs that it would fail for,
 * with all of that in @errp; then the destination has been released.  True
 * also if it cannot be compared.  Migration thread, without the BQL.
 */
bool preflight_run(const Peer *peer, Error **errp);

/*
 * Asks for the inventory, then for the fields of @types of sections if there is
 * something to ask for, and tells that nothing will follow.
 */
void preflight_ask(QEMUFile *f, ReturnPath *rp);
void preflight_ask_layouts(QEMUFile *f, ReturnPath *rp, const GPtrArray *types);
void preflight_withdraw(QEMUFile *f);

/* How long the end of a connection is waited for after preflight_withdraw() */
#define PREFLIGHT_END_MS 1000

#endif
