/*
 * Migration over RDMA: where QEMU is built without
 *
 * Its addresses are refused by transport/, so there is nothing to do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "rdma.h"

bool rdma_permits(const MigrationAddress *addr, Error **errp)
{
    return true;
}

bool rdma_carries(QIOChannel *ioc)
{
    return false;
}

void rdma_source_begin(QIOChannel *ioc)
{
}

void rdma_destination_begin(QIOChannel *ioc)
{
}

void rdma_destination_end(void)
{
}
