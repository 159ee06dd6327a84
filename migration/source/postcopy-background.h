/*
 * The source in postcopy: the background on the channels of multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * To a destination that has WIRE_PEER_POSTCOPY_CHANNELS the threads of multifd
 * send all that is dirty, and the main channel has only pages that somebody
 * waits for, unless these have a channel of their own.  A mark on each channel
 * and on the main one stands before the first and behind the last of these
 * pages: at the first one the destination listens, and after the last one it
 * has all of them.
 *
 * When a connection breaks all channels are cut.  To a destination that has
 * WIRE_PEER_CHANNELS_AGAIN they are made again if the background took them,
 * unless there is a channel for urgent pages; else everything is sent on the
 * main channel after a recovery.
 *
 * Errors are latched in the sink of the main channel.
 */

#ifndef MIGRATION_SOURCE_POSTCOPY_BACKGROUND_H
#define MIGRATION_SOURCE_POSTCOPY_BACKGROUND_H

#include "migration/postcopy/sender.h"

/*
 * Whether there are channels that the background of @ps takes from now on, or
 * after a break does again.  Migration thread, before requests are open.
 */
bool postcopy_background_begin(PostcopySender *ps);

/* After a break: whether channels are to be made again.  Migration thread. */
bool postcopy_background_again(void);

/* It has begun, and no connection has broken since.  Migration thread. */
bool postcopy_background_begun(void);

/*
 * As postcopy_sender_run(), with all channels.  The quota of @ps is that of the
 * main channel: with 0 only what is requested is sent.  In a section, by the
 * migration thread, with RCU.
 */
RamSendResult postcopy_background_run(PostcopySender *ps, RamSender *main,
                                      bool all);

/* Something is requested of the migration thread.  Any thread */
void postcopy_background_nudge(void);

/*
 * It ends, as a connection has broken; the channels are cut by whoever knows of
 * that.  Nobody hears requests.  _forget(): all is over as well.
 */
void postcopy_background_end(PostcopySender *ps);
void postcopy_background_forget(PostcopySender *ps);

#endif
