/*
 * Reasons that somebody has against migrating this VM
 *
 * Who has one reports it by include/migration/blocker.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_BLOCKERS_H
#define MIGRATION_CORE_BLOCKERS_H

#include "qapi/qapi-builtin-types.h"

/* Reasons against migrating in the mode in force, one an element; BQL. */
strList *blockers_reasons(void);

#endif
