/*
 * What may be done to the machine while a migration is in progress: the part
 * that only the migration uses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_PERMIT_H
#define MIGRATION_CORE_PERMIT_H

#include "migration/permit.h"

/*
 * Between true and false vm_start() starts the guest that has been loaded, or
 * one that the destination has refused; nobody else may do that before the
 * migration has ended.  BQL.
 */
void permit_guest_start(bool now);

/*
 * False with a reason for a guest whose CPUs cannot be reset, as those of
 * confidential guests: what was loaded into it stays.  Any thread.
 */
bool permit_reset_of_cpus(Error **errp);

#endif
