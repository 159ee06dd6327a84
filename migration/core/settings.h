/*
 * What rooms above act on when a setting changes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_SETTINGS_H
#define MIGRATION_CORE_SETTINGS_H

/*
 * Called under the BQL when vmstate-check-period was set.  NULL until QEMU has
 * set up migration.
 */
extern void (*settings_check_period_changed)(void);

/* How often parameters were set since QEMU started. Any thread. */
unsigned settings_changes(void);

#endif
