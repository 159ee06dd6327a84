/*
 * Checkpoints: an epoch of this machine as bytes in memory
 *
 * Migration thread; with the BQL where it is said.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_COLLECT_H
#define MIGRATION_CHECKPOINT_COLLECT_H

#include "io/channel-buffer.h"
#include "migration/qemu-file.h"

/* Bytes that are written again and again, at the cost of one allocation */
typedef struct EpochBytes {
    QIOChannelBuffer *buffer;
    QEMUFile *f;
} EpochBytes;

typedef struct EpochStore {
    EpochBytes memory, devices;
} EpochStore;

/* What collecting took, in nanoseconds */
typedef struct EpochCost {
    int64_t devices, sync, memory;
} EpochCost;

/*
 * In between, memory is written to the store, and what would make that
 * impossible, such as a RAM block that is resized, is an error of the next
 * epoch and not of the stream to the secondary.  With the BQL.
 */
void epoch_store_init(EpochStore *s);
void epoch_store_free(EpochStore *s);

/*
 * The guest is stopped: takes all devices, then what has changed in memory
 * since the last time, in place of what @s had.  Devices come first, since some
 * write to memory when they are saved.  With the BQL, so that nobody changes
 * anything in between.  What it says of memory is taken: after a failure there
 * is no way to go on sending.
 */
bool epoch_collect(EpochStore *s, EpochCost *cost, Error **errp);

#endif
