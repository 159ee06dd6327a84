/*
 * Processes that share the guest's memory, and devices that want to know how
 * far postcopy is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_SHARED_H
#define MIGRATION_POSTCOPY_SHARED_H

#include "migration/postcopy-ram.h"

/* Tells the devices.  BQL. */
bool shared_notify(enum PostcopyNotifyReason reason, Error **errp);

/*
 * Those there are, struct PostCopyFD, in an array that is the caller's.  Any
 * thread; which of them is registered changes under the BQL.
 */
GArray *shared_list(void);
bool shared_any(void);

/* Takes the faults there are on one of them.  Fault thread. */
void shared_serve(struct PostCopyFD *shared);

/* It has gone away with its process.  Fault thread. */
void shared_lost(struct PostCopyFD *shared);

/* Let all of them go on who wait for these bytes of @rb.  Any thread. */
void shared_wake(RAMBlock *rb, uint64_t page_size, uint64_t start,
                 uint64_t len);

#endif
