/*
 * Checkpoints: commands, and what query-migrate says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "checkpoint.h"
#include "primary.h"
#include "secondary.h"

void checkpoint_init(void)
{
    primary_init();
    secondary_init();
}

MigrationCheckpoint *checkpoint_query(bool outgoing)
{
    return outgoing ? primary_query() : secondary_query();
}

void qmp_checkpoint_failover(Error **errp)
{
    secondary_failover(errp);
}
