/*
 * The state of a VM in a disk image, as a channel
 *
 * What is written is gathered and written in pieces of one size, at multiples
 * of that, while more is being put; what is read is read ahead.  So the disk
 * works while memory is looked at, and has several requests at a time.  What is
 * in the image does not depend on this: no format is changed.
 *
 * An error of a write is reported by a later one, or by state_channel_end():
 * only then has everything been written.  Reading may go beyond the end of the
 * state by up to STATE_CHANNEL_PIECES pieces.
 *
 * All functions: main thread, under the BQL, and in no coroutine.  Whoever
 * waits for a piece runs events of the main loop meanwhile, as other
 * synchronous requests of the block layer do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SNAPSHOT_STATE_CHANNEL_H
#define MIGRATION_SNAPSHOT_STATE_CHANNEL_H

#include "io/channel.h"
#include "qemu/units.h"

#define STATE_CHANNEL_PIECE (1 * MiB)
#define STATE_CHANNEL_PIECES 4

/* A new one, for one direction.  It refers to @bs until it is closed. */
QIOChannel *state_channel_new(BlockDriverState *bs, bool for_output);

/*
 * Nothing more comes: waits until all has been written, and flushes the image.
 * Closing does so as well, but cannot say what went wrong.
 */
bool state_channel_end(QIOChannel *ioc, Error **errp);

#endif
