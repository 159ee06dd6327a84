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
#include "migration/core/permit.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/savevm.h"
#include "migration/snapshot.h"
#include "migration/wire/stream.h"
#include "system/replay.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "snapshot-disks.h"
#include "snapshot.h"
#include "state-channel.h"

/*
 * One at a time.  A job's bottom half may be run by whoever waits for requests,
 * which may be what another one does at that moment.
 */

typedef struct SnapshotWaiter {
    QEMUBHFunc *fn;
    void *opaque;
} SnapshotWaiter;

static unsigned at_work;        /* BQL, both */
static GQueue waiters = G_QUEUE_INIT;

static void snapshot_begin_work(void)
{
    at_work++;
}

static bool snapshot_end_work(bool ok)
{
    SnapshotWaiter *w;

    at_work--;
    while (!at_work && (w = g_queue_pop_head(&waiters))) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), w->fn, w->opaque);
        g_free(w);
    }
    return ok;
}

bool snapshot_wait_for_turn(QEMUBHFunc *fn, void *opaque)
{
    SnapshotWaiter *w;

    if (!at_work) {
        return false;
    }
    w = g_new(SnapshotWaiter, 1);
    *w = (SnapshotWaiter) { .fn = fn, .opaque = opaque };
    g_queue_push_tail(&waiters, w);
    return true;
}

bool snapshot_begin_turn(Error **errp)
{
    if (at_work) {
        error_setg(errp, "a snapshot is being saved, loaded or deleted");
        return false;
    }
    snapshot_begin_work();
    return true;
}

void snapshot_end_turn(void)
{
    snapshot_end_work(true);
}

static QEMUFile *open_state(BlockDriverState *bs, bool for_output)
{
    QIOChannel *ioc = state_channel_new(bs, for_output);
    QEMUFile *f = for_output ? qemu_file_new_output(ioc)
                             : qemu_file_new_input(ioc);

    object_unref(OBJECT(ioc));
    return f;
}

/*
 * Saving
 */

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
    bool ok = savevm_save_all(f, errp) &&
              state_channel_end(qemu_file_get_ioc(f), errp);
    uint64_t size = stream_position(f);

    qemu_fclose(f);
    return ok ? size : 0;
}

/*
 * The guest is stopped, and so are the disks.  What @name stood for before is
 * deleted last, when it is replaced by something complete.
 */
static bool save_stopped(SnapshotDisks *disks, BlockDriverState *bs,
                         const char *name, Error **errp)
{
    QEMUSnapshotInfo info;
    uint64_t size;

    describe(&info, name);
    size = write_state(bs, errp);
    return size && snapshot_disks_create(disks, &info, bs, size, errp);
}

static bool may_save(Error **errp)
{
    if (!migration_permits(MIGRATION_ACT_SAVE_SNAPSHOT, errp) ||
        migration_is_blocked(errp)) {
        return false;
    }
    if (!replay_can_snapshot()) {
        error_setg(errp, "Record/replay cannot make a snapshot at this "
                   "moment; try again later");
        return false;
    }
    return true;
}

static bool snapshot_do_save(const char *name, bool overwrite,
                             const char *vmstate, bool has_devices,
                             strList *devices, Error **errp)
{
    g_autoptr(SnapshotDisks) disks = NULL;
    RunState before = runstate_get();
    BlockDriverState *bs;
    bool ok;

    GLOBAL_STATE_CODE();
    if (!may_save(errp)) {
        return false;
    }
    disks = snapshot_disks_new(has_devices, devices, errp);
    if (!disks) {
        return false;
    }
    if (name && !overwrite && snapshot_disks_any(disks, name)) {
        error_setg(errp,
                   "Snapshot '%s' already exists in one or more devices", name);
        return false;
    }
    bs = snapshot_disks_for_state(disks, vmstate, errp);
    if (!bs) {
        return false;
    }

    /* The run state that is saved is that of now. */
    global_state_store();
    vm_stop(RUN_STATE_SAVE_VM);
    bdrv_drain_all_begin();
    ok = save_stopped(disks, bs, name, errp);
    bdrv_drain_all_end();
    vm_resume(before);
    return ok;
}

bool save_snapshot(const char *name, bool overwrite, const char *vmstate,
                   bool has_devices, strList *devices, Error **errp)
{
    snapshot_begin_work();
    return snapshot_end_work(snapshot_do_save(name, overwrite, vmstate,
                                              has_devices, devices, errp));
}

/*
 * Loading
 */

/* Nothing is changed yet. NULL if it cannot be loaded. */
static SnapshotDisks *prepare_load(const char *name, const char *vmstate,
                                   bool has_devices, strList *devices,
                                   BlockDriverState **bs, Error **errp)
{
    g_autoptr(SnapshotDisks) disks = NULL;

    if (!migration_permits(MIGRATION_ACT_LOAD_SNAPSHOT, errp)) {
        return NULL;
    }
    disks = snapshot_disks_new(has_devices, devices, errp);
    if (!disks) {
        return NULL;
    }
    *bs = snapshot_disks_choose(disks, name, vmstate, errp);
    return *bs ? g_steal_pointer(&disks) : NULL;
}

/*
 * The state of devices could not be loaded after the machine had been changed
 * for it, and no reset and no other snapshot has set that right.  BQL.
 */
static bool incomplete;

static Moment incomplete_moment(void)
{
    return incomplete ? MOMENT_INCOMPLETE : MOMENT_HERE;
}

static const PermitUser incomplete_permit = { .moment = incomplete_moment };

static void forget_incomplete(void *opaque)
{
    incomplete = false;
}

void snapshot_set_incomplete(void)
{
    static bool registered;

    if (!registered) {
        qemu_register_reset(forget_incomplete, NULL);
        permit_register(PERMIT_SNAPSHOT, &incomplete_permit);
        registered = true;
    }
    incomplete = true;
}

/* The guest is stopped.  If it fails, what is left of the guest is no guest. */
static bool load_stopped(SnapshotDisks *disks, BlockDriverState *bs,
                         Error **errp)
{
    bool ok = false;

    /* Requests and events of the time that is about to be left */
    replay_flush_events();
    bdrv_drain_all_begin();
    if (snapshot_disks_revert(disks, errp)) {
        qemu_system_reset(SHUTDOWN_CAUSE_SNAPSHOT_LOAD);
        ok = savevm_load_all(open_state(bs, false), errp);
    }
    bdrv_drain_all_end();
    if (!ok) {
        snapshot_set_incomplete();
    }
    return ok;
}

static bool snapshot_do_load(const char *name, const char *vmstate,
                             bool has_devices, strList *devices, Error **errp)
{
    g_autoptr(SnapshotDisks) disks = NULL;
    BlockDriverState *bs;

    disks = prepare_load(name, vmstate, has_devices, devices, &bs, errp);
    return disks && load_stopped(disks, bs, errp);
}

bool load_snapshot(const char *name, const char *vmstate, bool has_devices,
                   strList *devices, Error **errp)
{
    snapshot_begin_work();
    return snapshot_end_work(snapshot_do_load(name, vmstate, has_devices,
                                              devices, errp));
}

static bool snapshot_do_restore(const char *name, const char *vmstate,
                                bool has_devices, strList *devices,
                                Error **errp)
{
    g_autoptr(SnapshotDisks) disks = NULL;
    RunState before = runstate_get();
    BlockDriverState *bs;

    disks = prepare_load(name, vmstate, has_devices, devices, &bs, errp);
    if (!disks) {
        return false;
    }
    vm_stop(RUN_STATE_RESTORE_VM);
    if (!load_stopped(disks, bs, errp)) {
        return false;
    }
    load_snapshot_resume(before);
    return true;
}

bool snapshot_restore(const char *name, const char *vmstate, bool has_devices,
                      strList *devices, Error **errp)
{
    snapshot_begin_work();
    return snapshot_end_work(snapshot_do_restore(name, vmstate, has_devices,
                                                 devices, errp));
}

void load_snapshot_resume(RunState state)
{
    vm_resume(state);
    /* The snapshot was taken of a guest that slept, this one did not. */
    if (state == RUN_STATE_RUNNING && runstate_check(RUN_STATE_SUSPENDED)) {
        qemu_system_wakeup_request(QEMU_WAKEUP_REASON_OTHER, &error_abort);
    }
}

static bool snapshot_do_delete(const char *name, bool has_devices,
                               strList *devices, Error **errp)
{
    g_autoptr(SnapshotDisks) disks = NULL;

    if (!migration_permits(MIGRATION_ACT_DELETE_SNAPSHOT, errp)) {
        return false;
    }
    disks = snapshot_disks_new(has_devices, devices, errp);
    return disks && snapshot_disks_delete(disks, name, errp);
}

bool delete_snapshot(const char *name, bool has_devices, strList *devices,
                     Error **errp)
{
    snapshot_begin_work();
    return snapshot_end_work(snapshot_do_delete(name, has_devices, devices,
                                                errp));
}
