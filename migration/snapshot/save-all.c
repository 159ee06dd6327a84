/*
 * Saving all of a VM at once, under the BQL: what is not migrated but kept
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "migration/source/start.h"
#include "migration/wire/stream.h"

static bool save_stream(QEMUFile *f, Error **errp)
{
    int ret = qemu_savevm_state_setup(f, errp);

    if (ret) {
        return false;
    }
    do {
        ret = qemu_savevm_state_iterate(f, false);
    } while (!ret && !qemu_file_get_error(f));

    if (ret > 0) {
        qemu_savevm_maybe_send_switchover_start(f);
        if (!qemu_savevm_state_complete_precopy_iterable(f, false) &&
            !qemu_savevm_state_complete_precopy_non_iterable(f)) {
            qemu_savevm_state_end(f);
            qemu_fflush(f);
        }
    }
    if (qemu_file_get_error_obj(f, errp)) {
        error_prepend(errp, "Cannot write the state of the VM: ");
        return false;
    }
    return true;
}

bool savevm_save_all(QEMUFile *f, Error **errp)
{
    ERRP_GUARD();
    bool ok;

    migrate_snapshot_begin();
    ok = source_begin_snapshot(f, errp);
    if (ok) {
        qemu_savevm_state_header(f);
        ok = save_stream(f, errp);
        source_end_snapshot(ok);
    }
    migrate_snapshot_end();
    return ok;
}
