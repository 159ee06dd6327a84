/*
 * What the two directions of saving and loading a VM have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_VMSTATE_H
#define MIGRATION_CORE_VMSTATE_H

#include "migration/device/configuration.h"

/*
 * This VM, as it presents itself to the other side.  NULL if the machine
 * type does without that; otherwise valid until the settings change.
 */
const Configuration *vmstate_configuration(Configuration *here);

#endif
