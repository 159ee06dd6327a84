/*
 * Checks of VMState descriptions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_VMSD_H
#define MIGRATION_DEVICE_VMSD_H

#include "migration/vmstate.h"

/* Asserts that @vmsd and all it contains are well-formed. For tests. */
void vmsd_check(const VMStateDescription *vmsd);

#endif
