/*
 * A reset of devices that a state is about to be loaded into, or was
 *
 * All functions: BQL, guest stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_RESET_H
#define MIGRATION_CORE_RESET_H

/*
 * What devices have loaded must not be added to, so they are reset; as on a
 * wake-up from suspend to RAM, since memory, and what is plugged of it, has to
 * stay as it is.  Some devices write to memory all the same.
 */
void reset_devices_alone(void);

/*
 * False with the reason if a device has state that no reset reaches: that of a
 * vhost back-end which migrates is in another process, and can be loaded only
 * once.
 */
bool reset_reaches_devices(Error **errp);

#endif
