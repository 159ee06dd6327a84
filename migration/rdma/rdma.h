/*
 * Migration over RDMA: what the two sides know of it
 *
 * The address rdma:HOST:PORT becomes a channel like any other, by means of
 * transport/.  What goes over it besides the stream is told to ram/ by these.
 * Where QEMU is built without RDMA there is no such address (none.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RDMA_RDMA_H
#define MIGRATION_RDMA_RDMA_H

#include "io/channel.h"
#include "qapi/qapi-types-migration.h"

/* Whether what is set can be had over @addr, if that is for RDMA.  BQL. */
bool rdma_permits(const MigrationAddress *addr, Error **errp);

/* Whether @ioc is a channel of RDMA.  Any thread. */
bool rdma_carries(QIOChannel *ioc);

/*
 * Memory is written straight to the other side of @ioc, if that is a channel of
 * RDMA: before the section "ram" is set up.  Migration thread.
 */
void rdma_source_begin(QIOChannel *ioc);

/*
 * Memory comes over @ioc, if that is a channel of RDMA, until the end.  Before
 * the load, and after it; BQL.
 */
void rdma_destination_begin(QIOChannel *ioc);
void rdma_destination_end(void);

#endif
