/*
 * Device state in a file, for Xen, which moves RAM by itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "io/channel-file.h"
#include "migration/global_state.h"
#include "migration/misc.h"
#include "migration/permit.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/wire/stream.h"
#include "system/runstate.h"

static QIOChannel *xen_open_file(const char *name, int flags,
                                 const char *purpose, Error **errp)
{
    QIOChannelFile *file = qio_channel_file_new_path(name, flags, 0660, errp);

    if (!file) {
        return NULL;
    }
    qio_channel_set_name(QIO_CHANNEL(file), purpose);
    return QIO_CHANNEL(file);
}

static bool save_to_file(const char *name, Error **errp)
{
    ERRP_GUARD();
    QIOChannel *ioc = xen_open_file(name, O_WRONLY | O_CREAT | O_TRUNC,
                                    "migration-xen-save-state", errp);
    QEMUFile *f;
    int ret;

    if (!ioc) {
        return false;
    }
    f = qemu_file_new_output(ioc);
    object_unref(OBJECT(ioc));
    ret = qemu_save_device_state(f) ?: qemu_fflush(f);
    if (stream_check(f, errp) && ret) {
        error_setg_errno(errp, -ret, "Some device failed");
    }
    ret = qemu_fclose(f);
    if (ret && !*errp) {
        error_setg_errno(errp, -ret, "Cannot close %s", name);
    }
    if (*errp) {
        error_prepend(errp, "saving Xen device state failed: ");
    }
    return !*errp;
}

void qmp_xen_save_devices_state(const char *filename, bool has_live, bool live,
                                Error **errp)
{
    bool was_running = runstate_is_running();

    if (!migration_permits(MIGRATION_ACT_SAVE_SNAPSHOT, errp)) {
        return;
    }
    vm_stop(RUN_STATE_SAVE_VM);
    global_state_store_running();

    /*
     * When Xen migrates it has stopped the guest before, and will start it
     * again if that fails; until then the images are the other side's.
     * Old versions do not say that it is a migration.
     */
    if (save_to_file(filename, errp) && (live || !has_live) && !was_running) {
        migration_block_inactivate();
    }
    if (was_running) {
        vm_start();
    }
}

void qmp_xen_load_devices_state(const char *filename, Error **errp)
{
    QIOChannel *ioc;
    QEMUFile *f;

    if (!migration_permits(MIGRATION_ACT_LOAD_SNAPSHOT, errp)) {
        return;
    }
    if (runstate_is_running()) {
        error_setg(errp, "The VM must be stopped before device state can be "
                   "loaded into it");
        return;
    }
    vm_stop(RUN_STATE_RESTORE_VM);

    ioc = xen_open_file(filename, O_RDONLY | O_BINARY,
                        "migration-xen-load-state", errp);
    if (ioc) {
        f = qemu_file_new_input(ioc);
        object_unref(OBJECT(ioc));
        savevm_load_all(f, errp);
    }
}
