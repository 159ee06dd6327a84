/*
 * Checkpoints: a guest that a second host can take over at any time
 *
 * The guest stays on the source, the primary.  After a precopy the primary
 * stops it for a moment again and again, sets aside what has changed, and sends
 * that while the guest runs: an epoch.  The destination, the secondary, reads
 * an epoch as a whole, acknowledges it, and only then puts its memory in place;
 * the state of the devices of the last epoch is kept as bytes.  What the guest
 * sends is held back until its epoch is acknowledged (output-gate.h).
 *
 *     primary                              secondary
 *     stop, devices, last sync, memory
 *     output belongs to the next epoch
 *     resume
 *     CHECKPOINT n                 ----->  all of it in memory
 *     output of n is released      <-----  CHECKPOINT_ACK n
 *                                          memory of n in place, devices kept
 *
 * Neither side decides by itself that the other one is dead.  Without a word
 * from outside the secondary waits, and the primary does what
 * checkpoint-on-loss says.  docs/devel/migration/checkpoint.rst says what an
 * arbiter has to ensure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_CHECKPOINT_H
#define MIGRATION_CHECKPOINT_CHECKPOINT_H

#include "qapi/qapi-types-migration.h"

/* Once, while QEMU starts. */
void checkpoint_init(void);

/*
 * What query-migrate says: of the primary if @outgoing, otherwise of the
 * secondary; NULL if there was no protection.  The caller frees it.  BQL.
 */
MigrationCheckpoint *checkpoint_query(bool outgoing);

#endif
