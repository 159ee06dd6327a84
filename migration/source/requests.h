/*
 * The source: what users, devices and the guest request around a switchover
 *
 * A request, such as for a reset, is noted by whoever makes it and carried out
 * later by the main loop.  The guest must not be saved in between: the request
 * would be carried out here and be lost for the destination.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_REQUESTS_H
#define MIGRATION_SOURCE_REQUESTS_H

#include "migration/permit.h"

/* Once, while QEMU starts. */
void requests_init(void);

/*
 * Returns when no request is pending any more.  False if the migration is not
 * to go on.  Migration thread, with the BQL, which is released meanwhile.
 */
bool requests_settle(Error **errp);

/*
 * The machine is about to be changed: an attempt to switch over that is still
 * open ends, and the guest is resumed here.  BQL.
 */
void requests_end_attempt(void);

/*
 * The guest is stopped, and a device has requested a stop of its own with the
 * last that it did, because of an error: that is what the guest is stopped for
 * from now on.  vm_start() would forget it.  BQL.
 */
void requests_note_stop(void);

/* The migration has ended and the guest is not here any more.  BQL. */
void requests_drop(void);

#endif
