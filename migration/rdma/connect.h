/*
 * From an address to RDMA links: the side that connects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RDMA_CONNECT_H
#define MIGRATION_RDMA_CONNECT_H

#include "qapi/qapi-types-sockets.h"
#include "link.h"

/* A packet for which no buffer is posted is sent again without end. */
#define RDMA_RETRIES_NO_BUFFER 7
/* How often it is looked whether a connection is still to be made */
#define RDMA_LOOK_MS 100
/* Reads of memory, which are not used; some devices want to be told of one. */
#define RDMA_READS 1

/*
 * Connect to @to.  @hello: what is requested; then what was granted, where the
 * size of chunks stays if the other side cannot be told it.  Each step
 * is waited for, for seconds if the other side does not answer: in a thread
 * that may wait, without the BQL.  *@called_off, which another thread may set
 * atomically, ends that within RDMA_LOOK_MS; only a name server that does not
 * answer is waited for longer.  @beside, @room: as for rdma_link_new().
 */
RdmaLink *rdma_connect_to(const InetSocketAddress *to, RdmaHello *hello,
                          RdmaLink *beside, RdmaRoom room,
                          const bool *called_off, Error **errp);

/* What a connection that failed with @event is to tell the user, in @errp. */
void rdma_explain_event(const struct rdma_cm_event *event, Error **errp);

/*
 * Addresses of @at, to be freed with rdma_freeaddrinfo(); NULL if it has none.
 */
struct rdma_addrinfo *rdma_look_up(const InetSocketAddress *at, Error **errp);

#endif
