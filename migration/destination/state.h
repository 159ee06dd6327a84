/*
 * The destination: one incoming migration, from the command to its end
 *
 *   where                    does
 *   main loop, BQL           destination_start(): listens; takes the channel
 *                            and starts the thread
 *   incoming thread, no BQL  reads the stream and loads memory
 *   main loop, coroutine     loads everything else; the thread waits meanwhile,
 *                            and the main loop goes on when data is awaited
 *   main loop, BQL           the end: the guest is started, or is not
 *
 * In postcopy the guest is started before the end; see postcopy.h.
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

typedef struct Destination {
    bool exit_on_error;         /* QEMU ends if it fails */
    QEMUFile *from_src;
    QEMUFile *left;             /* whose source is yet to be told of the end */
    QemuThread thread;
    bool loaded;                /* by the thread, for the main loop */
    bool loading;               /* part of a stream has been loaded; BQL */
    bool started;               /* the guest runs, if it was to; BQL */
    bool touched;               /* a source has been here since the reset */
    bool busy;                  /* the thread may write to memory; atomic */
    DowntimeReport report;      /* what became of the downtime here */
} Destination;

extern Destination destination;

void destination_init(void);

/*
 * Waits at @addr for a source. BQL.  After a failure, of this or of a
 * migration that came by it, it can be called again.
 */
bool destination_start(MigrationAddress *addr, bool exit_on_error,
                       Error **errp);

/*
 * QEMU is about to end: waits until the thread leaves the guest's memory
 * alone.  Lets the BQL go meanwhile.
 */
void destination_shutdown(void);

/*
 * Private to the destination
 */

/*
 * Starts the guest, which gets along with what has come of it.  Its devices
 * came at @package_ns.  Main loop.  False if it will never run here.
 */
bool destination_start_early(int64_t package_ns, Error **errp);

/* The same when the source has said COMMIT. */
bool destination_start_held(Error **errp);

#endif
