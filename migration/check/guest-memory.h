/*
 * The guest's memory during a check of devices: a copy of it, put back
 *
 * All functions: main thread, BQL, guest stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECK_GUEST_MEMORY_H
#define MIGRATION_CHECK_GUEST_MEMORY_H

#include "qapi/qapi-types-migration.h"

/* Ranges of all steps; what is over is put back, but not reported. */
#define MEMORY_CHANGES_MAX 1000

typedef struct GuestMemory GuestMemory;

/*
 * A copy of all of it that is migrated.  NULL with the reason if the host has
 * not enough memory available.
 */
GuestMemory *guest_memory_keep(Error **errp);

/*
 * Has it be as it was when it was copied.  What has to be told of that is: the
 * dirty log, and TCG of code that it has translated.
 */
void guest_memory_put_back(GuestMemory *m, VmstateCheckStep step);

/* Bytes that the copy stands for */
uint64_t guest_memory_bytes(const GuestMemory *m);

/* Ranges that were put back; the caller's from now on */
VmstateMemoryChangeList *guest_memory_changes(GuestMemory *m);

void guest_memory_free(GuestMemory *m);

#endif
