/*
 * The destination: starting the guest
 *
 * All of it under the BQL, in the main loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_START_H
#define MIGRATION_CORE_START_H

#include "report.h"

/* How far it came */
typedef enum GuestStart {
    GUEST_RUNS,                 /* its vCPUs are about to */
    GUEST_WAITS,                /* as it did there, or as the user wants */
    GUEST_NO_DISKS,             /* they cannot be opened */
} GuestStart;

typedef void GuestStarted(GuestStart how);

/*
 * Opens the disks and has the guest go on as it did on the source.  Times go
 * to @report, which stays until @done was called: if the guest runs, by the
 * thread of the last vCPU as soon as it does; otherwise before this returns.
 */
GuestStart guest_start(Report *report, GuestStarted *done);

#endif
