/*
 * Checkpoints: where QEMU is built without replication of disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "replicated-disks.h"

bool replicated_disk(BlockBackend *blk, bool primary)
{
    return false;
}

/* There is no disk that these could be about. */

bool replicated_disks_start(Error **errp)
{
    return true;
}

bool replicated_disks_check(Error **errp)
{
    return true;
}

void replicated_disks_stop(void)
{
}

bool replicated_disks_commit(bool first, Error **errp)
{
    return true;
}

void replicated_disks_take_over(void)
{
}
