/*
 * The destination's part of a strict downtime
 *
 * What comes between HOLD and COMMIT is loaded, but the guest is not started
 * and its disks stay closed.  COMMIT has it started at once; the rest of the
 * stream is read afterwards.  After ABORT the devices are as they were after
 * a reset, and another HOLD may come.
 *
 * Memory stays as the source sent it.  What a reset, or a device that loads,
 * writes to it is recorded from the first HOLD on (ram/load-watch.h); the
 * source is told of it with the answer to ABORT, or, if it happened before the
 * state came, in time to give the attempt up.
 *
 * In the main loop's coroutine that loads records, with the BQL; where nothing
 * else is said.
 *
 * If memory follows the guest (postcopy), STATE begins with LISTEN.  From then
 * on the incoming thread reads the stream, as the main loop may have to wait
 * for a page of it: prepare_abort() and prepare_commit() are called there,
 * without the BQL, and only note the verdict.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_PREPARE_H
#define MIGRATION_DESTINATION_PREPARE_H

#include "migration/qemu-file.h"
#include "migration/core/downtime-report.h"

/* A new load begins. */
void prepare_init(void);

/* No more is to be expected: the end of a load, however it ended.  BQL. */
void prepare_end(void);

/* The commands; their payload is taken from @f. */
bool prepare_begin(QEMUFile *f, Error **errp);
bool prepare_state(QEMUFile *f, uint32_t *len, Error **errp);
bool prepare_abort(QEMUFile *f, Error **errp);
bool prepare_commit(QEMUFile *f, Error **errp);

/*
 * All of STATE has been loaded, which took @devices so long; the last byte of
 * it arrived at @arrived_ns.  Tells the source that the guest could start.
 */
bool prepare_loaded(const LedgerDevices *devices, int64_t arrived_ns,
                    Error **errp);

/* What became of the last HOLD */
typedef enum PrepareVerdict {
    PREPARE_UNDECIDED,          /* or, in precopy, ABORT came */
    PREPARE_STARTED,            /* COMMIT came, and the guest was started */
    /* in postcopy: */
    PREPARE_COMMITTED,          /* the guest is ours */
    PREPARE_ABORTED,            /* it goes on at the source */
    PREPARE_BROKEN,             /* nobody will tell any more: not ours */
} PrepareVerdict;

/* Any thread. */
PrepareVerdict prepare_verdict(void);

/* It is PREPARE_STARTED: nothing that follows can take the guest back. */
bool prepare_committed(void);

/*
 * Postcopy
 */

/* LISTEN in a STATE */
bool prepare_listen(Error **errp);

/* The stream has ended without a verdict.  Incoming thread. */
void prepare_broke(void);

/*
 * After an ABORT, when the state is no longer being loaded: devices are as
 * after a reset, and another HOLD may come.  Main loop, while the incoming
 * thread waits.  That thread tells the source then what the reset did to
 * memory.
 */
void prepare_forget(void);
bool prepare_forgot(Error **errp);

#endif
