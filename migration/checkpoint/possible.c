/*
 * Checkpoints: whether this guest can be protected
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/source/switchover-strict.h"
#include "system/block-backend.h"
#include "system/runstate.h"
#include "output-gate.h"
#include "possible.h"
#include "replicated-disks.h"

static bool channel_can_answer(const MigrationAddress *addr, Error **errp)
{
    if (addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET) {
        return true;
    }
    error_setg(errp, "Capability 'checkpoint' requires a socket (tcp:, unix:, "
               "vsock: or fd:), and not '%s'",
               MigrationAddressType_str(addr->transport));
    return false;
}

static void refuse_disk(BlockBackend *blk, bool primary, Error **errp)
{
    g_autofree char *device = blk_get_attached_dev_id(blk);
    const char *name = blk_name(blk);

    if (!*name && blk_bs(blk)) {
        name = bdrv_get_node_name(blk_bs(blk));
    }
    error_setg(errp, "Capability 'checkpoint' requires disks that cannot be "
               "written to: drive '%s' of device '%s' can: set read-only=on, "
               "or replicate it, by %s", name, device, primary
               ? "a quorum with a child of driver 'replication' and mode "
                 "'primary'"
               : "a node of driver 'replication' and mode 'secondary'");
}

/*
 * What the guest writes to a disk cannot wait for an epoch, and the secondary
 * would find it there, but for a disk that can be what it was.  What others
 * than the guest write is not the guest's state.
 */
bool checkpoint_disks_possible(bool primary, unsigned *count, Error **errp)
{
    BlockBackend *blk = NULL;

    *count = 0;
    while ((blk = blk_all_next(blk))) {
        if (!blk_get_attached_dev(blk) || !blk_is_writable(blk)) {
            continue;
        }
        if (!replicated_disk(blk, primary)) {
            refuse_disk(blk, primary, errp);
            return false;
        }
        ++*count;
    }
    return true;
}

/* A guest that runs may have written what the secondary's disk lacks. */
static bool disks_can_be_the_same(Error **errp)
{
    unsigned count;

    if (!checkpoint_disks_possible(true, &count, errp)) {
        return false;
    }
    if (count && runstate_is_running()) {
        error_setg(errp, "Capability 'checkpoint' with replicated disks "
                   "requires a guest that is stopped: 'stop' it, make the "
                   "disks of both sides the same, 'migrate', and then 'cont'");
        return false;
    }
    return true;
}

bool checkpoint_possible(const MigrationAddress *addr, Error **errp)
{
    if (migrate_mode() != MIG_MODE_NORMAL) {
        error_setg(errp, "Capability 'checkpoint' requires parameter 'mode' to "
                   "be 'normal'");
        return false;
    }
    return channel_can_answer(addr, errp) && disks_can_be_the_same(errp) &&
           strict_sections("checkpoint", errp) && output_gate_possible(errp);
}
