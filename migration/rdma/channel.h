/*
 * A stream over RDMA links, as a QIOChannel
 *
 * The bytes of a stream go as messages.  One link has those from the source to
 * the destination, and what ram/ sends beside them.  A second link, if there is
 * one, has the answers.  On each link, whoever reads says READY for every
 * message that it will take, and only then is the next one sent: so one that
 * waits to write waits until the other side reads.
 *
 * More links may be there for writes beside the stream: the source's sink posts
 * to them, and the destination only holds them until the end.
 *
 * Threads: one reads and one writes at a time.  shutdown() may come from any
 * thread, and ends the waits of that direction.  Reads wait if set_blocking()
 * says so.  Writes wait until what was written has arrived, but not those of a
 * source that is told so at last, by the answers of one of ours.  If
 * set_blocking() says that they should not wait, they begin only if the other
 * side says READY soon.
 *
 * While a channel exists nothing may discard guest memory, since what is
 * registered stays what it was when it was registered.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RDMA_CHANNEL_H
#define MIGRATION_RDMA_CHANNEL_H

#include "io/channel.h"
#include "link.h"

#define TYPE_RDMA_CHANNEL "qio-channel-rdma"

typedef struct RdmaChannel RdmaChannel;

/*
 * The channel of the side that reads from @main (@incoming) or writes to it.
 * @back: the other link, or NULL.  @hello: what was agreed upon.  The links are
 * the channel's if this succeeds.  Main loop, or the thread that connects.
 */
RdmaChannel *rdma_channel_new(RdmaLink *main, RdmaLink *back, bool incoming,
                              const RdmaHello *hello, Error **errp);

/* It has none so far; takes @back over.  Main loop. */
void rdma_channel_set_back(RdmaChannel *channel, RdmaLink *back);

/*
 * One more link, for writes only; takes it over.  On the source before anybody
 * uses the channel; on the destination in the main loop.
 */
void rdma_channel_add(RdmaChannel *channel, RdmaLink *link);
/* Those there are, until the channel is closed; *@count may be 0. */
RdmaLink *const *rdma_channel_others(RdmaChannel *channel, unsigned *count);

/* What @ioc is, or NULL if it is another kind of channel */
RdmaChannel *rdma_channel_of(QIOChannel *ioc);

/* Valid until the channel is closed */
RdmaLink *rdma_channel_main(RdmaChannel *channel);
/* What was agreed upon */
const RdmaHello *rdma_channel_hello(const RdmaChannel *channel);

/*
 * Called once when it is closed, in whatever thread that is; before, the links
 * are there.
 */
void rdma_channel_on_close(RdmaChannel *channel, void (*closed)(void *opaque),
                           void *opaque);

#endif
