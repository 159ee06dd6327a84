/*
 * From an address to RDMA links: the side that listens
 *
 * The first connection is the stream from the source.  A source that needs
 * answers makes a second one before it sends anything, and one of ours as many
 * for writes as it has announced with the first; they belong to the channel of
 * the first, even if nobody listens any more.
 *
 * Main loop, under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RDMA_LISTEN_H
#define MIGRATION_RDMA_LISTEN_H

#include "io/channel.h"
#include "qapi/qapi-types-sockets.h"

/* A channel is there; the reference is lent. */
typedef void RdmaArrived(QIOChannel *ioc);

/* Wait at @at.  After a failure nothing is left. */
bool rdma_listen_at(const InetSocketAddress *at, RdmaArrived *cb,
                    Error **errp);

/* Let nobody else in. */
void rdma_listen_stop(void);

#endif
