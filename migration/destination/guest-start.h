/*
 * The destination: starting the guest
 *
 * All of it under the BQL, in the main loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_GUEST_START_H
#define MIGRATION_DESTINATION_GUEST_START_H

#include "qapi/error.h"

/* How far it came */
typedef enum GuestStart {
    GUEST_RUNS,                 /* its vCPUs are about to */
    GUEST_WAITS,                /* as on the source, or as -S says */
    GUEST_NO_DISKS,             /* nothing was started: disks stay inactive */
} GuestStart;

/*
 * Activates the disks, announces the guest's network addresses, and has the
 * guest go on as it did on the source.  Times go to destination.report, which
 * is sent to the source with STARTED: if the guest runs, by the thread of the
 * last vCPU as soon as it does; otherwise before this returns.  Then @told is
 * called, in that thread; it may be NULL.
 *
 * If a disk cannot be activated, @errp says which one and @told is not called.
 * The caller then decides who has the guest: the source may have it back, as
 * nothing here has changed; or guest_keep().
 */
GuestStart guest_start(void (*told)(void), Error **errp);

/*
 * After GUEST_NO_DISKS, if the source has given the guest up: it is stopped
 * here, and 'cont' activates the disks and runs it.
 */
void guest_keep(void);

/*
 * Starts the guest, which gets along with what has come of it.  Its devices
 * came at @package_ns.  Main loop.  False if it will never run here.
 */
bool guest_start_early(int64_t package_ns, Error **errp);

/* The same when the source has said COMMIT. */
bool guest_start_held(Error **errp);

#endif
