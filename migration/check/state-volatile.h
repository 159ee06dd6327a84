/*
 * Fields that may differ between two saves of a guest that is stopped
 *
 * Pure function: no lock, any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECK_STATE_VOLATILE_H
#define MIGRATION_CHECK_STATE_VOLATILE_H

/*
 * Why the first @end bytes of @field of @section, as they are called in a
 * difference, are expected to change; NULL if not all of them are.
 */
const char *state_volatile(const char *section, const char *field,
                           size_t end);

#endif
