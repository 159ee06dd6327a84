/*
 * What of a device is another way after its state has been loaded
 *
 * A field that is missing in a device's state is in no saved state.  So the
 * structures of all devices are copied before they are reset, and compared
 * after they have been loaded: a part that differs then was not restored.
 *
 * That is done without knowing what the parts are for, so parts are left out
 * that differ for other reasons: what every device has in common, objects
 * within the structure, such as memory regions, which are either devices
 * themselves or made anew by the device, timers, and addresses of this
 * process.  Memory that a device has allocated for itself is not looked at.
 * CPUs are left out as well: most of their structure is what is derived from
 * their registers.  Which values are addresses is known of a Linux host of 64
 * bits; on others nothing is compared.
 *
 * All functions: main thread, BQL, guest stopped.  No device may come or go
 * between the first and the last call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECK_OBJECT_COPIES_H
#define MIGRATION_CHECK_OBJECT_COPIES_H

#include "qapi/qapi-types-migration.h"

/* Parts of all devices; what is over is not reported. */
#define NOT_RESTORED_MAX 1000
/* Differences that are closer than this are one part. */
#define NOT_RESTORED_GAP 8

typedef struct ObjectCopies ObjectCopies;

/* Copies all devices. */
ObjectCopies *object_copies_take(void);

/* Copies them again, now that they have been reset. */
void object_copies_note_reset(ObjectCopies *c);

/* What differs from the first copy, by address */
VmstateNotRestoredList *object_copies_compare(ObjectCopies *c);

unsigned object_copies_count(const ObjectCopies *c);
void object_copies_free(ObjectCopies *c);

#endif
