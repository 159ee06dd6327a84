/*
 * The destination's part of a strict downtime
 *
 * What comes between HOLD and COMMIT is loaded, but the guest is not started
 * and its disks stay closed.  COMMIT has it started at once; the rest of the
 * stream is read afterwards.  After ABORT the devices are as they were after
 * a reset, memory stays, and another HOLD may come.
 *
 * In the main loop's coroutine that loads records, with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_HOLD_H
#define MIGRATION_CORE_HOLD_H

#include "migration/device/commands.h"
#include "migration/qemu-file.h"
#include "report.h"

/* A new load begins. */
void hold_init(void);

/* COMMAND_HELD and so on, or COMMAND_PRECOPY outside of an attempt */
CommandPhase hold_phase(void);

/* The commands; their payload is taken from @f. */
bool hold_begin(QEMUFile *f, Error **errp);
bool hold_state(QEMUFile *f, uint32_t *len, Error **errp);
bool hold_abort(QEMUFile *f, Error **errp);
bool hold_commit(QEMUFile *f, Error **errp);

/*
 * All of STATE has been loaded, which took @devices so long; the last byte of
 * it arrived at @arrived_ns.  Tells the source that the guest could start.
 */
bool hold_loaded(const LedgerDevices *devices, int64_t arrived_ns,
                 Error **errp);

/* COMMIT came, and the guest was started.  Any thread. */
bool hold_committed(void);

#endif
