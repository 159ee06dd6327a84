/*
 * Internal snapshots: the state of the VM beside that of its disks
 *
 * All functions: main thread, under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "block/block.h"
#include "block/snapshot.h"
#include "migration/channel-block.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/savevm.h"
#include "migration/snapshot.h"
#include "migration/wire/stream.h"
#include "system/replay.h"
#include "system/runstate.h"

/* The disks that a snapshot is meant for. */
typedef struct Disks {
    bool has_list;          /* otherwise all that can be written to */
    strList *list;
} Disks;

static QEMUFile *open_state(BlockDriverState *bs, bool for_output)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_block_new(bs));
    QEMUFile *f = for_output ? qemu_file_new_output(ioc)
                             : qemu_file_new_input(ioc);

    object_unref(OBJECT(ioc));
    return f;
}

/*
 * Saving
 */

/* Makes sure that @name is free. */
static bool clear_name(const char *name, bool overwrite, const Disks *disks,
                       Error **errp)
{
    int exists;

    if (overwrite) {
        return bdrv_all_delete_snapshot(name, disks->has_list, disks->list,
                                        errp) >= 0;
    }
    exists = bdrv_all_has_snapshot(name, disks->has_list, disks->list, errp);
    if (exists > 0) {
        error_setg(errp,
                   "Snapshot '%s' already exists in one or more devices", name);
    }
    return exists == 0;
}

/* The guest is stopped. @name may be NULL. */
static void describe(QEMUSnapshotInfo *info, const char *name)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *by_time = g_date_time_format(now, "vm-%Y%m%d%H%M%S");

    *info = (QEMUSnapshotInfo) {
        .date_sec = g_date_time_to_unix(now),
        .date_nsec = g_date_time_get_microsecond(now) * 1000,
        .vm_clock_nsec = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL),
        .icount = replay_mode == REPLAY_MODE_NONE
                  ? UINT64_MAX : replay_get_current_icount(),
    };
    pstrcpy(info->name, sizeof(info->name), name ?: by_time);
}

/* Returns how many bytes it took, or 0 with @errp set. */
static uint64_t write_state(BlockDriverState *bs, Error **errp)
{
    QEMUFile *f = open_state(bs, true);
    bool ok = savevm_save_all(f, errp);
    uint64_t size = stream_position(f);
    int ret = qemu_fclose(f);

    if (ok && ret < 0) {
        error_setg_errno(errp, -ret, "Cannot write the state of the VM");
        ok = false;
    }
    return ok ? size : 0;
}

/* The guest is stopped, and so are the disks. */
static bool snapshot_stopped(BlockDriverState *bs, const char *name,
                             const Disks *disks, Error **errp)
{
    QEMUSnapshotInfo info;
    uint64_t size;

    describe(&info, name);
    size = write_state(bs, errp);
    if (!size) {
        return false;
    }
    if (bdrv_all_create_snapshot(&info, bs, size, disks->has_list,
                                 disks->list, errp) < 0) {
        /* Some disks may have it. */
        bdrv_all_delete_snapshot(info.name, disks->has_list, disks->list,
                                 NULL);
        return false;
    }
    return true;
}

bool save_snapshot(const char *name, bool overwrite, const char *vmstate,
                   bool has_devices, strList *devices, Error **errp)
{
    const Disks disks = { .has_list = has_devices, .list = devices };
    RunState before = runstate_get();
    BlockDriverState *bs;
    bool ok;

    GLOBAL_STATE_CODE();
    if (migration_is_blocked(errp)) {
        return false;
    }
    if (!replay_can_snapshot()) {
        error_setg(errp, "Record/replay cannot make a snapshot at this "
                   "moment; try again later");
        return false;
    }
    if (!bdrv_all_can_snapshot(has_devices, devices, errp) ||
        (name && !clear_name(name, overwrite, &disks, errp))) {
        return false;
    }
    bs = bdrv_all_find_vmstate_bs(vmstate, has_devices, devices, errp);
    if (!bs) {
        return false;
    }

    /* The run state that is saved is that of now. */
    global_state_store();
    vm_stop(RUN_STATE_SAVE_VM);
    bdrv_drain_all_begin();
    ok = snapshot_stopped(bs, name, &disks, errp);
    bdrv_drain_all_end();
    vm_resume(before);
    return ok;
}

/*
 * Loading
 */

/* The disk with the state of snapshot @name; NULL if there is none. */
static BlockDriverState *find_state(const char *name, const char *vmstate,
                                    const Disks *disks, Error **errp)
{
    BlockDriverState *bs;
    QEMUSnapshotInfo info;
    int exists = bdrv_all_has_snapshot(name, disks->has_list, disks->list,
                                       errp);

    if (exists == 0) {
        error_setg(errp, "Snapshot '%s' does not exist in one or more devices",
                   name);
    }
    if (exists <= 0) {
        return NULL;
    }
    bs = bdrv_all_find_vmstate_bs(vmstate, disks->has_list, disks->list, errp);
    if (!bs) {
        return NULL;
    }
    if (bdrv_snapshot_find(bs, &info, name) < 0) {
        error_setg(errp, "Snapshot '%s' is not on the disk that the state of "
                   "the VM is read from", name);
        return NULL;
    }
    if (info.vm_state_size == 0) {
        error_setg(errp, "Snapshot '%s' is one of disks only; revert to it "
                   "with qemu-img while the VM is off", name);
        return NULL;
    }
    return bs;
}

bool load_snapshot(const char *name, const char *vmstate, bool has_devices,
                   strList *devices, Error **errp)
{
    const Disks disks = { .has_list = has_devices, .list = devices };
    BlockDriverState *bs;
    bool ok = false;

    if (!bdrv_all_can_snapshot(has_devices, devices, errp)) {
        return false;
    }
    bs = find_state(name, vmstate, &disks, errp);
    if (!bs) {
        return false;
    }

    /* Requests and events of the time that is about to be left */
    replay_flush_events();
    bdrv_drain_all_begin();
    if (bdrv_all_goto_snapshot(name, has_devices, devices, errp) >= 0) {
        qemu_system_reset(SHUTDOWN_CAUSE_SNAPSHOT_LOAD);
        ok = savevm_load_all(open_state(bs, false), errp);
    }
    bdrv_drain_all_end();
    return ok;
}

void load_snapshot_resume(RunState state)
{
    vm_resume(state);
    /* The snapshot was taken of a guest that slept, this one did not. */
    if (state == RUN_STATE_RUNNING && runstate_check(RUN_STATE_SUSPENDED)) {
        qemu_system_wakeup_request(QEMU_WAKEUP_REASON_OTHER, &error_abort);
    }
}

bool delete_snapshot(const char *name, bool has_devices, strList *devices,
                     Error **errp)
{
    return bdrv_all_can_snapshot(has_devices, devices, errp) &&
           bdrv_all_delete_snapshot(name, has_devices, devices, errp) >= 0;
}
