/*
 * The thread that reads faults and has the pages requested
 *
 * It stays while postcopy is paused: what faults then is remembered, and asked
 * for when there is somebody to ask again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_FAULT_THREAD_H
#define MIGRATION_POSTCOPY_FAULT_THREAD_H

#include "qemu/event_notifier.h"
#include "qemu/thread.h"
#include "place.h"

typedef struct FaultThread {
    PlaceMemory *memory;
    /* Nobody will send this host page: it reads as zero. */
    bool (*never_comes)(const RamRegion *region, uint64_t start);

    /* Private */
    QemuThread thread;
    EventNotifier wake;
    bool started;
    bool quit;                  /* atomic */
} FaultThread;

/* @thread's first two members are set, the others zero. */
bool fault_thread_start(FaultThread *thread, Error **errp);

/* Memory that is still registered has nobody left to see to it.  Idempotent. */
void fault_thread_stop(FaultThread *thread);

#endif
