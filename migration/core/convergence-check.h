/*
 * Whether what convergence=auto is asked for can be had together
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_CONVERGENCE_CHECK_H
#define MIGRATION_CORE_CONVERGENCE_CHECK_H

#include "qapi/qapi-types-migration.h"

/*
 * Of @params and @caps, of MIGRATION_CAPABILITY__MAX elements.  A downtime of 0
 * cannot be had, nor a total time in which the memory cannot be sent once at
 * max-bandwidth, nor a switchover beyond a limit that is enforced.  BQL.
 */
bool convergence_params_agree(const MigrationParameters *params,
                              const bool *caps, Error **errp);

/*
 * The same of the settings in force, when a migration is to start: then what
 * on-miss uses has to be enabled, too.  BQL.
 */
bool convergence_possible(Error **errp);

#endif
