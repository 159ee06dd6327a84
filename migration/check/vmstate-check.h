/*
 * A check that all state of devices is saved and loaded
 *
 * The guest is stopped; its devices are saved, reset, loaded, and saved again;
 * then it goes on from what was loaded.  Its memory is copied before the reset
 * and put back after the reset and after the load, so that no write of a
 * device is left in it.
 *
 * All functions: main thread, BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECK_VMSTATE_CHECK_H
#define MIGRATION_CHECK_VMSTATE_CHECK_H

#include "qapi/qapi-types-migration.h"

/* At the start of QEMU: checks that are due by a period may begin. */
void vmstate_check_init(void);

/* No check begins any more. */
void vmstate_check_shutdown(void);

/*
 * NULL with the reason if it is not possible at present, and then the guest
 * has not been stopped, or has gone on as it was; or if the state could not be
 * loaded, and then the guest stays stopped, as after a snapshot that could not
 * be loaded.  *@stopped: it was stopped.
 */
VmstateCheckResult *vmstate_check_run(bool *stopped, Error **errp);

#endif
