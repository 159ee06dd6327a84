/*
 * Checkpoints: the head of an epoch, checked
 *
 * An epoch is what changed in memory since the one before, and the state of all
 * devices, at one moment.  Epochs are numbered from 1, and none is left out.
 *
 * All of this is pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_EPOCH_H
#define MIGRATION_CHECKPOINT_EPOCH_H

#include "qapi/error.h"
#include "migration/wire/wire.h"

/*
 * What a source puts into one epoch, in bytes of changed memory.  With the
 * heads of pages it stays below what a destination takes, WIRE_PACKAGED_MAX.
 */
#define EPOCH_MEMORY_MAX (512ull << 20)

typedef struct EpochHead {
    uint64_t number;
    uint32_t memory, devices;   /* bytes that follow of each */
} EpochHead;

void epoch_head_encode(const EpochHead *head, WireCheckpoint *wire);

/* False, with the reason, if @wire is not the head of epoch @expected. */
bool epoch_head_decode(EpochHead *head, const WireCheckpoint *wire,
                       uint64_t expected, Error **errp);

#endif
