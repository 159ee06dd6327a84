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

typedef struct Destination {
    bool exit_on_error;         /* QEMU ends if it fails */
    QEMUFile *from_src;
    QEMUFile *left;             /* whose source is yet to be told of the end */
    QemuThread thread;
    bool loaded;                /* by the thread, for the main loop */
    bool loading;               /* part of a stream has been loaded; BQL */
    bool touched;               /* a source has been here since the reset */
    bool busy;                  /* the thread may write to memory; atomic */
    DowntimeReport report;      /* what became of the downtime here */
} Destination;

extern Destination destination;

#endif
