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
#include "output-gate.h"
#include "possible.h"

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

/*
 * What the guest writes to a disk cannot wait for an epoch, and the secondary
 * would find it there.
 */
static bool disks_stay_as_they_are(Error **errp)
{
    BlockBackend *blk = NULL;

    while ((blk = blk_all_next(blk))) {
        g_autofree char *path = NULL;
        const char *name = blk_name(blk);

        if (!blk_is_writable(blk)) {
            continue;
        }
        path = blk_get_attached_dev_id(blk);
        error_setg(errp, "Capability 'checkpoint' requires disks that cannot "
                   "be written to: drive '%s' of device '%s' can: set "
                   "read-only=on", name, path);
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
    return channel_can_answer(addr, errp) && disks_stay_as_they_are(errp) &&
           strict_sections("checkpoint", errp) && output_gate_possible(errp);
}
