/*
 * The source: saving a VM, beyond what compat/savevm.h declares
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_SAVE_H
#define MIGRATION_SOURCE_SAVE_H

#include "migration/base/ledger.h"
#include "migration/qemu-file.h"

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
bool vmstate_save_again(QEMUFile *f, LedgerDevices *times, Error **errp);

/* False if @package is larger than what a destination takes at once. */
bool vmstate_fits_package(const GByteArray *package, Error **errp);

/* Nothing follows, as in postcopy, that could describe what was saved. */
void vmstate_without_description(void);

#endif
