/*
 * What parts of a switchover took before, as far as this QEMU has seen any
 *
 * A guest that is migrated has mostly come by a migration, and one that could
 * not leave tries again.  What was measured then is the best that can be known
 * before the first attempt of the next migration; what never was is guessed
 * from the number of devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_COST_HISTORY_H
#define MIGRATION_CORE_COST_HISTORY_H

#include "migration/base/policy.h"

/* @part was measured, on either side.  Any thread. */
void cost_history_keep(DowntimePart part, uint64_t ns);

/* Tells @policy; with the BQL, as devices are counted. */
void cost_history_tell(Policy *policy);

#endif
