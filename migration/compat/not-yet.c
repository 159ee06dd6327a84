/*
 * What other parts of QEMU link to, and is not available yet
 *
 * The capabilities behind these functions are refused (base/caps.c), so that
 * most of them are never called; each says why it may still be.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "migration/misc.h"

#ifdef CONFIG_REPLICATION

/*
 * COLO: x-colo cannot be turned on, but its commands are there wherever the
 * replication of disks is.
 */

static void no_colo(Error **errp)
{
    error_setg(errp, "COLO is not available: its secondary would have to run "
               "between checkpoints. Capability 'checkpoint' keeps a second "
               "host able to take the guest over, and its disks replicated");
}

void qmp_xen_set_replication(bool enable, bool primary, bool has_failover,
                             bool failover, Error **errp)
{
    no_colo(errp);
}

ReplicationStatus *qmp_query_xen_replication_status(Error **errp)
{
    no_colo(errp);
    return NULL;
}

void qmp_xen_colo_do_checkpoint(Error **errp)
{
    no_colo(errp);
}

COLOStatus *qmp_query_colo_status(Error **errp)
{
    no_colo(errp);
    return NULL;
}

void qmp_x_colo_lost_heartbeat(Error **errp)
{
    no_colo(errp);
}

#endif /* CONFIG_REPLICATION */
