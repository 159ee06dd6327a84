/*
 * What may be done to the machine while a migration is in progress
 *
 * Commands and events that touch the run state, devices, disks or memory ask
 * here before they change anything.  The answer depends on where the guest is
 * at that moment: migration/core/permit.c has the table, and
 * docs/devel/migration/commands.rst says what it means for each command.
 *
 * All functions: main thread or a thread of the migration, under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_PERMIT_H
#define MIGRATION_PERMIT_H

#include "qapi/qapi-types-run-state.h"

typedef enum MigrationAct {
    MIGRATION_ACT_MIGRATE,          /* to begin an outgoing migration */
    MIGRATION_ACT_SET_CAPABILITIES,
    MIGRATION_ACT_SAVE_SNAPSHOT,
    MIGRATION_ACT_LOAD_SNAPSHOT,
    MIGRATION_ACT_DELETE_SNAPSHOT,
    MIGRATION_ACT_CHECK_DEVICES,    /* to save, reset and load them */
    MIGRATION_ACT_RESET,
    MIGRATION_ACT_POWERDOWN,
    MIGRATION_ACT_CHANGE_DEVICE,    /* something of its state */
    MIGRATION_ACT_CHANGE_CPU,       /* the same, and to wait for the vCPU */
    MIGRATION_ACT_CHANGE_BACKEND,   /* and the device learns of that */
    MIGRATION_ACT_ACTIVATE,         /* a disk */
    MIGRATION_ACT_INACTIVATE,
    MIGRATION_ACT_ADD_OVERLAY,      /* what is written goes to a new image */
    MIGRATION_ACT_ANNOUNCE,         /* where the guest is to be found */
    MIGRATION_ACT_STOP,             /* to stop vCPUs and wait for them */
    MIGRATION_ACT_START,            /* to let vCPUs run */
    MIGRATION_ACT_HOTPLUG,          /* of a device, in either direction */
    MIGRATION_ACT_READ_MEMORY,      /* the guest's, under the BQL */
    MIGRATION_ACT_DUMP,             /* all of the guest's memory */
    MIGRATION_ACT_REQUEST,          /* to carry out what was requested before */
    MIGRATION_ACT__COUNT
} MigrationAct;

/*
 * False with a reason in @errp if @act must not be done now.  If it is to
 * change the state of the machine, an attempt to switch over that can still be
 * given up ends: what was saved in it is out of date.
 */
bool migration_permits(MigrationAct act, Error **errp);

/*
 * A request for a reset, wakeup and so on is pending: true if it has to stay
 * so for now.  An attempt to switch over that can still be given up ends.
 */
bool migration_requests_wait(void);

/*
 * vm_stop() was called, and a migration may have stopped the guest before: then
 * it is not started again if that ends here, but stays in @state.
 */
void migration_note_stop(RunState state);

/*
 * vm_stop() and vm_start() ask whether to leave out the events STOP and RESUME,
 * as a migration stops the guest for a moment only.
 */
bool migration_hides_stop(void);
bool migration_hides_resume(void);

#endif
