/*
 * The destination: what its modules know of the migration in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_STATE_H
#define MIGRATION_DESTINATION_STATE_H

#include "qapi/qapi-types-migration.h"
#include "qemu/thread.h"
#include "migration/base/sides.h"
#include "migration/qemu-file.h"
#include "migration/core/downtime-report.h"
#include "epochs.h"

/*
 * How far a migration is says its phase (base/sides.h), and how far the load,
 * its step (base/load-step.h).  What is here follows from neither.
 */
typedef struct Destination {
    /*
     * QEMU ends if it fails.  Of migrate-incoming or the command line: set
     * under the BQL before there is a thread, and not changed while there is.
     */
    bool exit_on_error;
    const DestinationEpochs *epochs;    /* set once, while QEMU starts */
    QEMUFile *from_src;
    QEMUFile *left;             /* whose source is yet to be told of the end */
    QemuThread thread;
    /*
     * The thread's result, true also if the guest was started and the rest of
     * the stream is broken.  Written at its end, read by the main loop once it
     * has joined it.
     */
    bool loaded;
    /*
     * The source has withdrawn before anything was prepared.  The same threads
     * at the same times.
     */
    bool withdrawn;
    /*
     * Devices may have state of a source, or memory.  BQL: set when the stream
     * has said that it fits this machine, which is after the step of precopy
     * was taken, as that can take as long as the source likes; taken back when
     * the migration is over, while the step ends with COMMIT.  Read by whoever
     * permits commands.
     */
    bool loading;
    /*
     * The machine was prepared for the stream of a source since the last reset:
     * another load has to begin with one.  BQL.  It outlives the migration, and
     * a phase of FAILED does not tell, as it is also that of one nobody
     * connected to.
     */
    bool touched;
    /*
     * The thread may write to memory: not while it waits for a turn of the
     * main loop, for a verdict or for a new connection.  Atomic: written by the
     * thread, and for it by the main loop that creates it; read by the main
     * loop, which waits for it when QEMU ends, and holds no lock for that.
     */
    bool busy;
    DowntimeReport report;      /* what became of the downtime here */
} Destination;

extern Destination destination;

#endif
