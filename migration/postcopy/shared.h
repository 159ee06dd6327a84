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
 * Processes come and go under the BQL, by postcopy_register_shared_ufd() and
 * its counterpart; one may go at any moment, when its connection breaks.  A
 * lock of this module is held while a device's callbacks run, so once it has
 * unregistered they are not called any more.  They must not wait for anything.
 * The lock is the innermost one.
 */

/* Their descriptors now, int, in an array that is the caller's.  Any thread. */
GArray *shared_list(void);
bool shared_any(void);

/* A process waits for the page of @rb at @offset. */
typedef struct SharedFault {
    char who[64];               /* for messages */
    RAMBlock *rb;
    uint64_t offset;
} SharedFault;

/*
 * Takes the faults there are on a descriptor of shared_list(), if it is still
 * there.  @wanted is called for each without the lock, so it may send.  Fault
 * thread.
 */
void shared_serve(int fd, void (*wanted)(void *opaque, const SharedFault *),
                  void *opaque);

/* Nothing more will come from that descriptor.  Fault thread. */
void shared_lost(int fd);

/* Let all of them go on who wait for these bytes of @rb.  Any thread. */
void shared_wake(RAMBlock *rb, uint64_t page_size, uint64_t start,
                 uint64_t len);

/* Memory is missing from now on, or not any more.  BQL. */
void shared_set_missing(bool missing);

#endif
