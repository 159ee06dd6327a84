/*
 * What the two directions of saving and loading a VM have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_VMSTATE_H
#define MIGRATION_CORE_VMSTATE_H

#include "migration/base/ledger.h"
#include "migration/device/configuration.h"
#include "migration/qemu-file.h"

/*
 * This VM, as it presents itself to the other side.  NULL if the machine
 * type does without that; otherwise valid until the settings change.
 */
const Configuration *vmstate_configuration(Configuration *here);

/*
 * A part of RAM, as large as ram_source_drain() says.  Returns what
 * qemu_savevm_state_iterate() does.
 */
int vmstate_save_ram(QEMUFile *f);

/*
 * The guest is stopped: all devices.  Each's time goes to @times.  BQL.
 * Returns 0 or what qemu_savevm_state_complete_precopy_non_iterable() does.
 */
int vmstate_save_devices(QEMUFile *f, LedgerDevices *times);

/*
 * The same, of a guest that may go on here afterwards: what is saved is not
 * described, as it may be saved again.  BQL.
 */
/* A destination takes so much at once. */
bool vmstate_fits_package(const GByteArray *package, Error **errp);

/* In postcopy nothing follows that it could describe. */
void vmstate_without_description(void);

bool vmstate_save_again(QEMUFile *f, LedgerDevices *times, Error **errp);

/* Once. */
void vmstate_load_init(void);

/* After a load, however it ended. BQL. */
void vmstate_load_cleanup(void);

#endif
