/*
 * Pieces of device state on their way to the channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Threads that save devices put them in; the threads of the channels take them
 * out and write them.  Few wait at a time, so whoever saves more quickly than
 * the channels write is kept waiting.
 *
 * Threads: any.  One lock, under which nothing is called.
 */

#ifndef MIGRATION_MULTIFD_DEVICE_QUEUE_H
#define MIGRATION_MULTIFD_DEVICE_QUEUE_H

#include "qemu/queue.h"
#include "qemu/thread.h"

typedef struct DevicePiece {
    char *name;                 /* of the section */
    uint32_t instance_id;
    uint8_t *data;
    size_t len;
    QSIMPLEQ_ENTRY(DevicePiece) next;
} DevicePiece;

typedef struct DeviceQueue {
    QemuMutex lock;
    QemuCond changed;
    QSIMPLEQ_HEAD(, DevicePiece) list;
    unsigned room;              /* pieces that may still be put in */
    unsigned capacity;
    bool ended;                 /* nobody waits any more */
} DeviceQueue;

/* For up to @capacity pieces that are not written yet */
void device_queue_init(DeviceQueue *q, unsigned capacity);
void device_queue_destroy(DeviceQueue *q);

/* A copy of @data; waits for room.  False: the queue has ended. */
bool device_queue_put(DeviceQueue *q, const char *name, uint32_t instance_id,
                      const void *data, size_t len);

/* The next piece, which is the caller's, or NULL. */
DevicePiece *device_queue_take(DeviceQueue *q);

/* @piece has been written, or dropped: frees it, and there is room. */
void device_queue_done(DeviceQueue *q, DevicePiece *piece);

/* Waits until all has been written.  False: the queue has ended. */
bool device_queue_wait(DeviceQueue *q);

/* Nobody waits any longer, and nothing is put in any more. */
void device_queue_end(DeviceQueue *q);

#endif
